"""Copies of a slice are told from other slices; groups do not depend on the order of files."""

import random
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from common import config
from common.data import likeness, similarity
from common.data.cache import build_cache
from common.data.layouts import open_dataset
from common.data.likeness import compare_looks
from common.data.looks import take_looks
from common.data.phantom import draw, phantom_samples
from common.data.similarity import LENGTH, Fingerprints, fingerprint, group_similar, shared_across

DRAWN = config.Phantom(patients=6, image_size=160, slices_min=8, slices_max=10)
Image = NDArray[np.uint8]


@pytest.fixture(scope="module")
def slices() -> pd.DataFrame:
    """Drawn slices of six heads, `patient` and `image`."""
    samples = phantom_samples(DRAWN)
    return samples.assign(image=[draw(path).image for path in samples["path"]])


def write(folder: Path, images: dict[str, Image]) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, image in images.items():
        paths[name] = str(folder / f"{name.replace('/', '-')}.png")
        assert cv2.imwrite(paths[name], image)
    return paths


def correlation(first: Image, second: Image) -> float:
    return float(fingerprint(first) @ fingerprint(second)) / LENGTH**2


def windowed(image: Image) -> Image:
    """The brain window's picture in one twice as wide."""
    return (image * 0.5 + 40).astype(np.uint8)


def jpeg(image: Image) -> Image:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_GRAYSCALE)


# --- the fingerprint ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "copy",
    [jpeg, windowed, lambda image: cv2.resize(image, (650, 650), interpolation=cv2.INTER_CUBIC)],
    ids=["encoding", "window", "size"],
)
def test_a_copy_is_more_like_its_slice_than_any_other_head(
    slices: pd.DataFrame, copy: Callable[[Image], Image]
) -> None:
    chosen = slices.iloc[::7]
    for _, row in chosen.iterrows():
        again = copy(row["image"])
        assert correlation(row["image"], again) > config.COPY_SIMILARITY
        others = slices.loc[slices["patient"] != row["patient"], "image"]
        assert max(correlation(image, again) for image in others) < config.COPY_SIMILARITY - 0.1


def test_products_of_fingerprints_are_exact(slices: pd.DataFrame) -> None:
    prints = np.stack([fingerprint(image) for image in slices["image"][:20]])
    assert np.array_equal(prints, np.round(prints))
    assert (np.linalg.norm(prints.astype(np.float64), axis=1) <= LENGTH).all()
    assert (np.linalg.norm(prints, axis=1) > 0.95 * LENGTH).all()
    shuffled = np.random.default_rng(0).permutation(prints.shape[1])
    assert np.array_equal(prints[:, shuffled] @ prints[:, shuffled].T, prints @ prints.T)
    assert np.array_equal(prints @ prints.T, prints.astype(np.int64) @ prints.astype(np.int64).T)


@pytest.mark.parametrize("grey", [0, 90, 255])
def test_a_blank_picture_is_like_nothing(grey: int) -> None:
    assert not fingerprint(np.full((100, 80), grey, np.uint8)).any()


# --- groups ------------------------------------------------------------------------------------------------------


def test_groups_of_drawn_heads(tmp_path: Path, slices: pd.DataFrame) -> None:
    paths = write(tmp_path, dict(zip(slices["id"], slices["image"], strict=True)))
    names = list(paths)
    seen: list[tuple[int, int]] = []
    groups = group_similar(
        [paths[name] for name in names], names, lambda done, total: seen.append((done, total))
    )
    assert seen == [(k + 1, len(names)) for k in range(len(names))]
    table = pd.DataFrame({"name": names, "group": groups, "patient": slices["patient"].tolist()})
    first = table.groupby("group")["name"].min()
    assert first.tolist() == first.index.tolist()
    # Patients are not found, but many a slice has company, and mostly of its own head.
    assert table["group"].duplicated(keep=False).mean() > 0.3
    heads = table.groupby("group")["patient"].agg(lambda patients: len(set(patients)))
    assert (heads == 1).mean() > 0.7
    order = random.Random(1).sample(range(len(names)), len(names))
    again = group_similar([paths[names[k]] for k in order], [names[k] for k in order])
    assert again == [groups[k] for k in order]


def test_copies_are_grouped_and_the_unreadable_stand_alone(tmp_path: Path, slices: pd.DataFrame) -> None:
    first, other = slices["image"].iloc[4], slices["image"].iloc[-4]
    cropped = np.pad(first, ((0, 40), (40, 0)))  # the head elsewhere in its frame
    images = {"d": first, "b": jpeg(first), "c": cv2.resize(first, (512, 512)), "e": cropped, "a": other}
    paths = write(tmp_path, images)
    black = write(tmp_path, {"x": np.zeros((64, 64), np.uint8), "y": np.zeros((64, 64), np.uint8)})
    (tmp_path / "z.png").write_bytes(b"no picture")
    names = [*paths, *black, "z"]
    groups = group_similar([*paths.values(), *black.values(), str(tmp_path / "z.png")], names)
    assert dict(zip(names, groups, strict=True)) == {
        "a": "a", "b": "b", "c": "b", "d": "b", "e": "b", "x": "x", "y": "y", "z": "z"
    }  # fmt: skip


def prints_of(vectors: list[list[float]]) -> Fingerprints:
    """Unit vectors with chosen products, as fingerprints."""
    frame = (np.array(vectors) * LENGTH).astype(np.float32)
    return Fingerprints(frame, np.zeros_like(frame))


def linked(vectors: list[list[float]], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(similarity, "take_fingerprints", lambda paths, on_progress: prints_of(vectors))
    names = [chr(ord("a") + k) for k in range(len(vectors))]
    return group_similar(names, names)


def on_circle(*degrees: float) -> list[list[float]]:
    return [[float(np.cos(np.radians(d))), float(np.sin(np.radians(d)))] for d in degrees]


def test_neighbours_must_choose_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    # A star: every leaf is nearest to the hub, and leaves are within reach of each other too; the hub's two nearest are
    # b and c, whose nearest are the hub and each other.
    leaves = np.diag(np.sqrt(1 - np.array([0.86, 0.82, 0.76, 0.70]) ** 2))
    star = np.block([[np.ones((1, 1)), np.zeros((1, 4))], [np.array([[0.86, 0.82, 0.76, 0.70]]).T, leaves]])
    assert (star @ star.T > config.NEIGHBOUR_SIMILARITY).all()
    assert linked(star.tolist(), monkeypatch) == ["a", "a", "a", "d", "e"]


def test_a_chain_of_neighbours_is_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    assert linked(on_circle(0, 50, 100, 150, 250), monkeypatch) == ["a", "a", "a", "a", "e"]


def test_a_copy_takes_no_neighbours_place(monkeypatch: pytest.MonkeyPatch) -> None:
    # Five copies, and a slice above and one below: all one head.
    assert set(linked(on_circle(0, 1, 2, 3, 4, 50, -46), monkeypatch)) == {"a"}


def test_blocks_of_any_size_give_the_same_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by smaller blocks where there are more pictures; the products are exact, so nothing changes."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(23, 4096))
    frame = np.trunc(vectors * LENGTH / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.int16)
    prints = Fingerprints(frame, frame[:, ::-1])
    ((_, whole, _),) = similarity.similarities(prints)
    monkeypatch.setattr(similarity, "BLOCK_BYTES", 4 * 23 * 5)
    monkeypatch.setattr(similarity, "TILE", 4)
    blocks = list(similarity.similarities(prints))
    assert [start for start, _, _ in blocks] == [0, 5, 10, 15, 20]
    np.testing.assert_array_equal(np.concatenate([rows for _, rows, _ in blocks]), whole)
    exact = frame.astype(np.int64) @ frame.T
    np.testing.assert_array_equal(whole, exact.astype(np.float32) * np.float32(1 / LENGTH**2))


@st.composite
def many_prints(draw: st.DrawFn) -> Fingerprints:
    """Heads with their slices, copies among them, equal ones and blank ones, in any order."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    width, heads = draw(st.sampled_from([3, 24, 96])), draw(st.integers(1, 6))
    own = rng.normal(size=(heads, width))
    frames = []
    for _ in range(2):  # frame and head
        of = np.random.default_rng(7).integers(
            heads, size=draw(st.integers(0, 40)) if not frames else len(frames[0])
        )
        spread = rng.choice([0.0, 0.02, 0.3, 2.0], size=(len(of), 1))
        vectors = own[of] + spread * rng.normal(size=(len(of), width))
        vectors *= LENGTH / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        vectors[rng.random(len(of)) < 0.1] = 0
        frames.append(np.trunc(vectors).astype(np.int16))
    return Fingerprints(*frames)


@given(
    many_prints(), st.sampled_from([1, 2, 64]), st.sampled_from([2, 256]), st.sampled_from([0.0, 1 / 16, 1.0])
)
def test_what_a_bound_rules_out_changes_nothing(
    prints: Fingerprints, rows: int, directions: int, many: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "ROWS", rows)
        patch.setattr(similarity, "COPY_DIRECTIONS", directions)
        patch.setattr(likeness, "DIRECTIONS", (directions, 3 * directions))
        patch.setattr(likeness, "FEW", 0)
        patch.setattr(likeness, "MANY", many)
        nearest, alike = likeness.compare_prints(prints)
        source = np.array(["a", "b"], dtype=object)[np.arange(len(prints.frame)) % 2]
        shared = similarity.copies(prints, source)
    # All with all, in whole numbers
    of_frames, of_heads = (one.astype(np.int64) @ one.T for one in (prints.frame, prints.head))
    like = np.maximum(of_frames, of_heads).astype(np.float32) * np.float32(1 / LENGTH**2)
    np.fill_diagonal(like, 0)
    expected = [int(row.argmax()) if row.max() > 0 else -1 for row in like]
    assert nearest.tolist() == expected
    copies = [(int(i), int(j)) for i, j in np.argwhere(like > config.COPY_SIMILARITY) if i < j]
    assert alike == [(i, j, float(like[i, j])) for i, j in copies]
    assert shared == [(i, j) for i, j in copies if source[i] != source[j]]


def test_most_pairs_are_ruled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    heads = rng.normal(size=(60, 16)) @ rng.normal(size=(16, 1024))
    vectors = np.repeat(heads, 10, axis=0) + rng.normal(size=(600, 1024))
    frame = (vectors * LENGTH / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.int16)
    compared = []
    exact = similarity.likeness_of

    def counted(prints: Fingerprints, rows: Image, columns: Image) -> Image:
        compared.append(len(rows) * len(columns))
        return exact(prints, rows, columns)

    monkeypatch.setattr(likeness, "likeness_of", counted)
    monkeypatch.setattr(likeness, "FEW", 0)
    bounded = []
    bounds = likeness.bounds
    monkeypatch.setattr(
        likeness, "bounds", lambda prints, rows, most: (bounded.append(most), bounds(prints, rows, most))[1]
    )
    likeness.compare_prints(Fingerprints(frame, frame))
    assert sum(compared) < 600**2 / 3
    assert bounded == [likeness.DIRECTIONS[0]]  # it has left nothing to the finer one


def test_drawn_slices_are_not_compared(tmp_path: Path) -> None:
    """Each has a recipe of its own; comparing 100,000 of them would take 3 GB and an hour."""
    samples = phantom_samples(config.Phantom(patients=2, image_size=32, slices_min=2, slices_max=2))
    looks = take_looks(samples, drawn=build_cache(samples, 32, tmp_path))
    assert looks.prints is None
    likeness = compare_looks(looks)
    assert (len(likeness.near), set(likeness.nearest)) == (0, {-1})
    assert likeness.equal.tolist() == list(range(len(samples)))


# --- across data sets --------------------------------------------------------------------------------------------


def source(root: Path, name: str, images: dict[str, Image]) -> Path:
    """A two-class folder: stroke slices named `PATIENT (k)` from `images`, and a healthy one of its own."""
    base = root / name
    write(base / "Stroke", images)
    noise = np.random.default_rng(len(name)).integers(0, 255, (96, 96), dtype=np.uint8)
    write(base / "Normal", {f"9{len(name)} (1)": noise})
    return base


def test_patients_of_two_sources_that_share_a_slice_are_one(tmp_path: Path, slices: pd.DataFrame) -> None:
    heads = [group["image"].tolist() for _, group in slices.groupby("patient")]
    first = source(tmp_path, "a", {"1 (1)": heads[0][4], "1 (2)": heads[0][5], "2 (1)": heads[1][4]})
    second = source(
        tmp_path,
        "bb",
        {"7 (1)": jpeg(heads[0][5]), "7 (2)": heads[0][2], "8 (1)": heads[2][4], "9 (1)": heads[3][4]},
    )
    third = source(tmp_path, "ccc", {"5 (1)": windowed(heads[2][4]), "5 (2)": windowed(heads[1][4])})
    samples = open_dataset(first, second, third).set_index("id")
    patient = samples["patient"].to_dict()
    assert patient["a:Stroke/1 (1)"] == patient["bb:Stroke/7 (2)"] == "a:1"
    # A head that the third source calls one person joins two patients of the others.
    assert {patient[k] for k in ("a:Stroke/2 (1)", "bb:Stroke/8 (1)", "ccc:Stroke/5 (1)")} == {"a:2"}
    assert patient["bb:Stroke/9 (1)"] == "bb:9"
    assert patient["a:Normal/91 (1)"] == "a:91"
    turned = open_dataset(third, second, first).set_index("id")["patient"].to_dict()
    assert turned == patient


def test_copies_within_one_source_are_left_to_its_patients(tmp_path: Path, slices: pd.DataFrame) -> None:
    image = slices["image"].iloc[4]
    base = source(tmp_path, "a", {"1 (1)": image, "2 (1)": jpeg(image)})
    samples = open_dataset(base)
    assert shared_across(samples) == {patient: patient for patient in samples["patient"]}


# --- real pictures -----------------------------------------------------------------------------------------------


def test_real_sets_that_overlap(shared_data: Path) -> None:
    """The patients' numbers are the same in both sets, so that they say which are shared."""
    binary, strokes = open_dataset(shared_data / "binary_ct"), open_dataset(shared_data / "strokes_ct")
    patients = sorted(set(binary["patient"]))[::16]
    parts = []
    for name, samples, chosen in (("binary", binary, patients), ("strokes", strokes, patients[2:])):
        part = samples[samples["patient"].isin(chosen)]
        parts.append(part.assign(source=name, patient=f"{name}:" + part["patient"]))
    samples = pd.concat(parts, ignore_index=True)
    merged = shared_across(samples)
    assert len(set(merged.values())) == len(patients)
    for patient, name in merged.items():
        assert patient.split(":")[1] == name.split(":")[1]


def test_real_slices_without_patients(shared_data: Path) -> None:
    binary = open_dataset(shared_data / "binary_ct")
    some = binary[binary["patient"].isin(sorted(set(binary["patient"]))[::12])]
    groups = pd.Series(group_similar(some["path"].tolist(), some["id"].tolist()), index=some.index)
    assert groups.duplicated(keep=False).mean() > 0.75
    assert groups.value_counts().max() < 60
    heads = some["patient"].groupby(groups).agg(lambda patients: len(set(patients)))
    assert (heads > 1).mean() < 0.05
