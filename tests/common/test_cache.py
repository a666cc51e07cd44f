"""Decoded once, found again, never half, never silently wrong."""

import dataclasses
import json
import os
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from tiny import make_mask, make_row, make_samples, write_cache, write_pictures

from common import config
from common.config import Phantom
from common.data import decoding
from common.data.cache import build_cache, keep_readable, open_cache
from common.data.decoding import DECODE_AHEAD, read_slice
from common.data.images import read_image, resize_image, resize_mask
from common.data.layouts import open_dataset
from common.data.phantom import Drawing, draw, phantom_samples
from common.data.samples import NO_LESION, OVERLAY, sample_table
from common.errors import StudyError


@pytest.fixture
def samples(tmp_path: Path) -> pd.DataFrame:
    """12 patients of 2 slices; one picture ends early, one is no picture."""
    data = write_pictures(tmp_path / "pictures")
    whole = (data / "Normal" / "4 (1).png").read_bytes()
    (data / "Normal" / "4 (1).png").write_bytes(whole[: len(whole) // 2])
    (data / "Stroke" / "7 (0).png").write_text("no picture")
    return open_dataset(data)


# --- building -----------------------------------------------------------------------------------------------------


def test_pixels_are_found_by_id_in_any_order(tmp_path: Path, samples: pd.DataFrame) -> None:
    cache = build_cache(samples, 20, tmp_path / "cache")
    path_of = samples.set_index("id")["path"]
    ids = sorted(cache.rows, reverse=True)[3:12] * 2
    slices = cache.read(ids)
    assert slices.shape == (18, 20, 20)
    for sample_id, pixels in zip(ids, slices, strict=True):
        np.testing.assert_array_equal(pixels, resize_image(read_image(path_of[sample_id]), 20))
    assert cache.read([]).shape == (0, 20, 20)


def test_unreadable_pictures_are_left_out_and_named(tmp_path: Path, samples: pd.DataFrame) -> None:
    cache = build_cache(samples, 16, tmp_path / "cache")
    assert [row.id for row in cache.unreadable] == ["Normal/4 (1)", "Stroke/7 (0)"]
    assert [row.path for row in cache.unreadable] == ["Normal/4 (1).png", "Stroke/7 (0).png"]
    for row in cache.unreadable:
        assert row.reason.startswith(f"{row.path} is ")
        assert str(tmp_path) not in row.reason
        assert row.id not in cache.rows
    assert len(cache.rows) == len(samples) - 2
    with pytest.raises(StudyError, match=r"'Stroke/7 \(0\)' is not in the cache"):
        cache.read(["Normal/0 (0)", "Stroke/7 (0)"])


def test_many_pictures_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than are decoded ahead, the earlier ones slower."""
    samples = make_samples(DECODE_AHEAD * 2 + 5)
    number = {f"{sample_id}.png": k for k, sample_id in enumerate(samples["id"])}

    def read(path: str) -> np.ndarray:
        time.sleep(0.0005 * (5 - number[path] % 5))
        return np.full((16, 16), number[path], dtype=np.uint8)

    monkeypatch.setattr(decoding, "read_slice", read)
    told: list[tuple[int, int]] = []
    cache = build_cache(
        samples, 16, tmp_path / "cache", threads=4, on_progress=lambda done, total: told.append((done, total))
    )
    values = cache.read(samples["id"].tolist())[:, 0, 0]
    np.testing.assert_array_equal(values, np.arange(len(samples)))
    assert told == [(done, len(samples)) for done in range(1, len(samples) + 1)]


def test_the_phantom_is_drawn_into_the_cache(tmp_path: Path) -> None:
    samples = phantom_samples(Phantom(patients=1, image_size=48, slices_min=2, slices_max=2))
    cache = build_cache(samples, 32, tmp_path / "cache")
    path = samples["path"].iloc[1]
    expected = resize_image(read_slice(path), 32)
    np.testing.assert_array_equal(cache.read([samples["id"].iloc[1]])[0], expected)


def test_any_tool_can_map_the_array(tmp_path: Path, samples: pd.DataFrame) -> None:
    cache = build_cache(samples, 16, tmp_path / "cache")
    mapped = np.load(cache.directory / "images.npy", mmap_mode="r")
    assert mapped.shape == (len(samples), 16, 16)
    assert mapped.dtype == np.uint8
    ids = list(cache.rows)
    np.testing.assert_array_equal(mapped[[cache.rows[name] for name in ids]], cache.read(ids))


# --- masks --------------------------------------------------------------------------------------------------------


@pytest.fixture
def masked(tmp_path: Path) -> pd.DataFrame:
    """One sample for each thing that a mask can be; pictures of 32 px."""
    folder = tmp_path / "masked"
    folder.mkdir()
    names = ("file", "empty", "none", "unknown", "damaged", "other-size", "no-picture")
    for name in names:
        cv2.imwrite(
            str(folder / f"{name}.png"), np.arange(1024, dtype=np.uint16).reshape(32, 32).astype(np.uint8)
        )
    lesion = make_mask("stroke", 32)
    for name in ("file", "no-picture"):
        cv2.imwrite(str(folder / f"{name}.mask.png"), lesion.astype(np.uint8) * 255)
    cv2.imwrite(str(folder / "empty.mask.png"), np.zeros((32, 32), dtype=np.uint8))
    cv2.imwrite(str(folder / "other-size.mask.png"), np.ones((32, 30), dtype=np.uint8))
    (folder / "damaged.mask.png").write_text("no picture")
    (folder / "no-picture.png").write_text("no picture")
    rows = []
    for name in names:
        source = {"none": NO_LESION, "unknown": ""}.get(name, str(folder / f"{name}.mask.png"))
        digest = "" if name in ("none", "unknown") else f"mask of {name}"
        path = str(folder / f"{name}.png")
        rows.append(make_row(f"S/{name}", "stroke", name, path=path, mask=source, mask_sha256=digest))
    return sample_table(rows)


def test_masks_are_found_by_id(tmp_path: Path, masked: pd.DataFrame) -> None:
    cache = build_cache(masked, 16, tmp_path / "cache", masks=True)
    lesion, nothing = make_mask("stroke", 16), np.zeros((16, 16), dtype=bool)
    read = cache.read_masks(["S/none", "S/file", "S/empty", "S/file"])
    assert read.dtype == np.bool_
    np.testing.assert_array_equal(read, [nothing, lesion, nothing, lesion])
    assert cache.read_masks([]).shape == (0, 16, 16)
    assert cache.read(["S/damaged", "S/other-size"]).shape == (2, 16, 16)  # their pictures are there


@pytest.mark.parametrize("name", ["unknown", "damaged", "other-size"])
def test_a_mask_that_is_not_known_is_never_read_as_empty(
    tmp_path: Path, masked: pd.DataFrame, name: str
) -> None:
    cache = build_cache(masked, 16, tmp_path / "cache", masks=True)
    with pytest.raises(StudyError, match=f"lesion mask of sample 'S/{name}' is not known"):
        cache.read_masks(["S/file", f"S/{name}"])


def test_unreadable_masks_are_named_and_become_unknown(tmp_path: Path, masked: pd.DataFrame) -> None:
    cache = build_cache(masked, 16, tmp_path / "cache", masks=True)
    assert [row.id for row in cache.unreadable] == ["S/no-picture"]
    assert [row.id for row in cache.unreadable_masks] == ["S/damaged", "S/other-size"]
    for row in cache.unreadable_masks:
        assert row.path == f"{row.id}.mask.png"
        assert row.reason.startswith(f"the lesion mask {row.path} is ")
        assert str(tmp_path) not in row.reason
    assert "30 x 32 px" in cache.unreadable_masks[1].reason
    readable = keep_readable(masked, cache).set_index("id")
    assert list(readable.index) == ["S/damaged", "S/empty", "S/file", "S/none", "S/other-size", "S/unknown"]
    before = masked.set_index("id")
    for name in ("S/damaged", "S/other-size", "S/unknown"):
        assert tuple(readable.loc[name, ["mask", "mask_sha256"]]) == ("", "")
    assert readable.loc["S/empty", "mask"] == readable.loc["S/none", "mask"] == NO_LESION
    assert readable.loc["S/file", "mask"] == before.loc["S/file", "mask"]
    assert readable.loc["S/file", "mask_sha256"] == "mask of file"
    assert before.loc["S/damaged", "mask"] != ""  # the table given is not changed


def test_a_cache_without_masks_changes_no_mask(tmp_path: Path, masked: pd.DataFrame) -> None:
    cache = build_cache(masked, 16, tmp_path / "cache")
    readable = keep_readable(masked, cache)
    expected = masked[masked["id"] != "S/no-picture"].reset_index(drop=True)
    pd.testing.assert_frame_equal(readable, expected)
    with pytest.raises(StudyError, match="holds no masks"):
        cache.read_masks(["S/file"])


def test_masks_asked_for_later_make_a_new_cache(tmp_path: Path, masked: pd.DataFrame) -> None:
    without = build_cache(masked, 16, tmp_path / "cache")
    with_masks = build_cache(masked, 16, tmp_path / "cache", masks=True)
    assert without.directory != with_masks.directory
    assert without.sha256 == with_masks.sha256  # the pixels are the same
    assert without.masks_sha256 == ""
    assert build_cache(masked, 16, tmp_path / "cache", masks=True) == with_masks
    assert build_cache(masked, 16, tmp_path / "cache") == without
    # "" and "none" have no file and no digest; still they are not the same.
    learned = masked.assign(mask=masked["mask"].replace("", NO_LESION))
    assert not build_cache(learned, 16, tmp_path / "cache", masks=True).read_masks(["S/unknown"]).any()


def test_the_digest_of_the_masks_is_another(tmp_path: Path, masked: pd.DataFrame) -> None:
    before = build_cache(masked, 16, tmp_path / "before", masks=True)
    mask = tmp_path / "masked" / "file.mask.png"
    cv2.imwrite(str(mask), make_mask("ischemia", 32).astype(np.uint8) * 255)
    after = build_cache(masked, 16, tmp_path / "after", masks=True)
    assert before.sha256 == after.sha256
    assert before.masks_sha256 != after.masks_sha256


def test_the_digest_of_the_masks_tells_whose_and_unknown_from_none(
    tmp_path: Path, masked: pd.DataFrame
) -> None:
    mask = masked.set_index("id")["mask"].to_dict()
    swapped = mask | {"S/file": mask["S/empty"], "S/empty": mask["S/file"]}
    learned = mask | {"S/unknown": NO_LESION}
    repaired = mask | {"S/damaged": NO_LESION}
    digests = {
        build_cache(
            masked.assign(mask=masked["id"].map(one)), 16, tmp_path / str(number), masks=True
        ).masks_sha256
        for number, one in enumerate([mask, swapped, learned, repaired])
    }
    assert len(digests) == 4


@pytest.fixture
def painted(tmp_path: Path) -> pd.DataFrame:
    """Overlays with a lesion painted on, with nothing, and of another slice with a lesion; and an empty mask's file."""
    folder = tmp_path / "painted"
    folder.mkdir()
    plain = make_head(0)
    rows = []
    for name in ("clear", "bare", "other", "bare-file"):
        overlay = np.dstack([make_head(1) if name == "other" else plain] * 3)
        if name in ("clear", "other"):
            overlay[40:52, 40:52] = (0, 0, 255)
        cv2.imwrite(str(folder / f"{name}.png"), plain)
        cv2.imwrite(str(folder / f"{name}.overlay.png"), overlay * 0 if name == "bare-file" else overlay)
        kind = "" if name == "bare-file" else OVERLAY
        rows.append(
            make_row(
                f"Bleeding/{name}",
                "bleeding",
                name,
                path=str(folder / f"{name}.png"),
                mask=f"{kind}{folder / name}.overlay.png",
                mask_sha256=f"overlay {name}",
            )
        )
    return sample_table(rows)


def make_head(seed: int) -> np.ndarray:
    """A round head with spots of its own, 96 px."""
    head = np.zeros((96, 96), dtype=np.uint8)
    cv2.circle(head, (48, 48), 42, 110, -1)
    rng = np.random.default_rng(seed)
    for x, y in rng.integers(16, 80, size=(60, 2)).tolist():
        cv2.circle(head, (x, y), 4, int(rng.integers(40, 200)), -1)
    return head


def test_an_overlay_on_which_nothing_is_found_is_unknown_and_no_healthy_slice(
    tmp_path: Path, painted: pd.DataFrame
) -> None:
    cache = build_cache(painted, 32, tmp_path / "cache", masks=True)
    (left,) = cache.unreadable_masks
    assert (left.id, left.path) == ("Bleeding/bare", "Bleeding/bare.overlay.png")
    assert left.reason.startswith("the lesion mask Bleeding/bare.overlay.png shows nothing painted (")
    assert cache.empty_masks == {"Bleeding/bare-file"}  # a mask's file may say that there is no lesion
    with pytest.raises(StudyError, match="lesion mask of sample 'Bleeding/bare' is not known"):
        cache.read_masks(["Bleeding/bare"])
    readable = keep_readable(painted, cache).set_index("id")
    assert tuple(readable.loc["Bleeding/bare", ["mask", "mask_sha256"]]) == ("", "")
    assert cache.read_masks(["Bleeding/clear"])[0, 14:17, 14:17].all()


def test_a_mask_that_its_reader_doubts_is_used_and_named(tmp_path: Path, painted: pd.DataFrame) -> None:
    cache = build_cache(painted, 32, tmp_path / "cache", masks=True)
    (doubted,) = cache.doubtful_masks
    assert (doubted.id, doubted.method) == ("Bleeding/other", "saturation")
    assert 0 < doubted.confidence < config.OVERLAY_CONFIDENCE_MIN
    assert "looks like another slice" in doubted.note
    assert cache.read_masks(["Bleeding/other"])[0, 14:17, 14:17].all()
    assert open_cache(cache.directory) == cache


def test_a_phantom_slice_is_drawn_once_for_image_and_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = phantom_samples(Phantom(patients=4, image_size=48, slices_min=4, slices_max=4))
    drawn: list[str] = []

    def watch(path: str) -> Drawing:
        drawn.append(path)
        return draw(path)

    monkeypatch.setattr(decoding, "draw", watch)
    cache = build_cache(samples, 16, tmp_path / "cache", masks=True)
    assert sorted(drawn) == sorted(samples["path"])
    stroke = samples[samples["mask"] != NO_LESION]
    assert 0 < len(stroke) < len(samples)
    masks = cache.read_masks(stroke["id"].tolist())
    expected = [resize_mask(draw(path).mask, 16) for path in stroke["path"]]
    np.testing.assert_array_equal(masks, expected)
    assert masks.any(axis=(1, 2)).all()
    assert not cache.read_masks(samples.loc[samples["mask"] == NO_LESION, "id"].tolist()).any()


def test_a_lesion_of_one_pixel_survives_a_small_grid(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((256, 256), dtype=np.uint8))
    mask = np.zeros((256, 256), dtype=np.uint8)
    mask[200, 40] = 255
    cv2.imwrite(str(tmp_path / "a.mask.png"), mask)
    row = make_row("a", "stroke", "a", path=str(tmp_path / "a.png"), mask=str(tmp_path / "a.mask.png"))
    cache = build_cache(sample_table([row]), 16, tmp_path / "cache", masks=True)
    np.testing.assert_array_equal(np.argwhere(cache.read_masks(["a"])[0]), [[12, 2]])


def test_pixels_in_millimetres_are_those_of_the_grid(tmp_path: Path) -> None:
    """0.5 mm of a picture 40 px high and 64 px wide, fitted into 16 px: 64 / 16 of them make a pixel."""
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 64), dtype=np.uint8))
    rows = [
        make_row(name, "normal", name, path=str(tmp_path / "a.png"), pixel_mm=mm)
        for name, mm in (("known", "0.5"), ("unknown", ""))
    ]
    for masks in (False, True):
        cache = build_cache(sample_table(rows), 16, tmp_path / "cache", masks=masks)
        np.testing.assert_array_equal(cache.pixel_mm(["unknown", "known", "known"]), [np.nan, 2.0, 2.0])


# --- finding again ------------------------------------------------------------------------------------------------


def test_a_finished_cache_is_opened_not_built(
    tmp_path: Path, samples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_cache(samples, 16, tmp_path / "cache")
    before = (first.directory / "images.npy").stat()

    def refuse(path: str) -> np.ndarray:
        raise AssertionError(f"{path} was decoded again")

    monkeypatch.setattr(decoding, "read_slice", refuse)
    again = build_cache(samples.sample(frac=1, random_state=1), 16, tmp_path / "cache")
    after = (first.directory / "images.npy").stat()
    assert again == first
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_moved_pictures_need_no_new_cache(tmp_path: Path, samples: pd.DataFrame) -> None:
    first = build_cache(samples, 16, tmp_path / "cache")
    (tmp_path / "pictures").rename(tmp_path / "moved")
    assert build_cache(open_dataset(tmp_path / "moved"), 16, tmp_path / "cache") == first


def test_other_content_or_size_is_another_cache(tmp_path: Path, samples: pd.DataFrame) -> None:
    first = build_cache(samples, 16, tmp_path / "cache")
    larger = build_cache(samples, 20, tmp_path / "cache")
    picture = tmp_path / "pictures" / "Normal" / "0 (0).png"
    pixels = cv2.imread(str(picture), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None
    pixels[0, 0] ^= 1
    cv2.imwrite(str(picture), pixels)
    changed = build_cache(open_dataset(tmp_path / "pictures"), 16, tmp_path / "cache")
    assert len({first.directory, larger.directory, changed.directory}) == 3
    assert first.sha256 != changed.sha256
    assert len(build_cache(samples.iloc[:5], 16, tmp_path / "cache").rows) == 5


def test_the_digest_is_of_the_pixels(tmp_path: Path) -> None:
    """Equal pixels under other ids have an equal digest; the split and the ids have digests of their own."""
    one = open_dataset(write_pictures(tmp_path / "one", patients=4))
    two = one.assign(id=one["id"] + "x")
    caches = [build_cache(table, 16, tmp_path / "cache") for table in (one, two)]
    assert caches[0].directory != caches[1].directory
    assert caches[0].sha256 == caches[1].sha256


# --- what goes wrong ----------------------------------------------------------------------------------------------


def test_what_a_killed_build_left_is_removed_by_the_next(tmp_path: Path, samples: pd.DataFrame) -> None:
    whole = build_cache(samples, 16, tmp_path / "elsewhere")
    parent = tmp_path / "cache"
    for name in (f".{whole.directory.name}.partial", ".20px-0123456789abcdef.xyz.partial"):
        (parent / name).mkdir(parents=True)
        (parent / name / "images.npy").write_bytes(b"half")
    (parent / whole.directory.name).mkdir()  # its cache.json was deleted
    (parent / whole.directory.name / "images.npy").write_bytes(b"old")
    cache = build_cache(samples, 16, parent)
    assert cache.sha256 == whole.sha256
    assert [entry.name for entry in parent.iterdir()] == [whole.directory.name]


def test_an_interrupted_build_leaves_nothing(tmp_path: Path, samples: pd.DataFrame) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_cache(samples, 16, tmp_path / "cache", on_progress=interrupt)
    assert list((tmp_path / "cache").iterdir()) == []
    assert len(build_cache(samples, 16, tmp_path / "cache").rows) == len(samples) - 2


@pytest.mark.parametrize("damage", ["short", "long", "absent"])
@pytest.mark.parametrize("name", ["images.npy", "masks.npy"])
def test_an_array_of_the_wrong_length_is_refused_at_opening(tmp_path: Path, damage: str, name: str) -> None:
    cache = write_cache(tmp_path / "cache", make_samples(6))
    path = cache.directory / name
    if damage == "absent":
        path.unlink()
    else:
        blob = path.read_bytes()
        path.write_bytes(blob[:-1] if damage == "short" else blob + b"\0")
    with pytest.raises(StudyError, match=rf"{name} is missing or not \d+ bytes long; delete its folder"):
        open_cache(cache.directory)


def test_an_array_cut_while_in_use_is_an_error_and_no_crash(tmp_path: Path) -> None:
    samples = make_samples(6)
    cache = write_cache(tmp_path / "cache", samples)
    path = cache.directory / "images.npy"
    whole = cache.read(samples["id"].tolist())
    os.truncate(path, cache.offset + 4 * 16 * 16 + 10)
    np.testing.assert_array_equal(cache.read(samples["id"].tolist()[:4]), whole[:4])
    with pytest.raises(StudyError, match="shorter than its header says"):
        cache.read(samples["id"].tolist()[4:5])  # a part of it is there
    beyond = dataclasses.replace(cache, rows={"beyond": 1000})
    with pytest.raises(StudyError, match="shorter than its header says"):
        beyond.read(["beyond"])
    path.unlink()
    with pytest.raises(StudyError, match=r"images\.npy cannot be opened"):
        cache.read(samples["id"].tolist()[:1])


def test_a_disk_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = make_samples(2)
    cache = write_cache(tmp_path / "cache", samples)

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(StudyError, match=r"images\.npy cannot be read \(Input/output error\)"):
        cache.read(samples["id"].tolist())


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"ids": 3}',
        '{"size": 1, "masks": 3, "ids": []}',
        '{"ids": [], "size": "x", "offset": 1, "sha256": ""}',
    ],
)
def test_a_damaged_description_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "cache.json").write_text(text)
    with pytest.raises(StudyError, match=r"cache\.json does not describe a cache .*; delete its folder"):
        open_cache(tmp_path)


def test_an_older_caches_description_is_named(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "cache", make_samples(2))
    path = cache.directory / "cache.json"
    document = json.loads(path.read_text())
    del document["masks"]["doubtful"]
    path.write_text(json.dumps(document))
    with pytest.raises(StudyError, match=r"does not describe a cache \(KeyError\('doubtful'\)\)"):
        open_cache(cache.directory)


def test_a_folder_without_a_cache_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"cache\.json does not exist"):
        open_cache(tmp_path)


def test_reading_leaves_no_file_open(tmp_path: Path) -> None:
    samples = make_samples(2)
    cache = write_cache(tmp_path / "cache", samples)
    handles = Path("/proc/self/fd")
    if not handles.is_dir():
        pytest.skip("this system does not list open files")
    cache.read(samples["id"].tolist())
    before = len(list(handles.iterdir()))
    for _ in range(5):
        cache.read(samples["id"].tolist())
        with pytest.raises(StudyError):
            cache.read(["unknown"])
    assert len(list(handles.iterdir())) == before
