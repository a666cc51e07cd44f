"""Each finding of the audit is made where its fault was planted, and only there."""

import dataclasses
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from audit_fixture import Image, audited, draw_heads, look, save, write_heads
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score
from tiny import make_mask, make_row, write_strokes

from common import config
from common.audit import judge
from common.data import audit_shortcuts
from common.data.audit import audit_data, find_all, frame_of
from common.data.audit_copies import contradicts, find_copies_on_two_sides, pairs_of
from common.data.audit_labels import find_patient_key, neighbour_share
from common.data.audit_pictures import find_masks
from common.data.audit_shortcuts import find_shortcuts
from common.data.findings import Finding
from common.data.layouts import open_dataset
from common.data.likeness import compare_looks
from common.data.looks import take_looks
from common.data.samples import sample_table
from common.data.splits import split_table
from common.errors import StudyError
from common.random_numbers import generator


@pytest.fixture(scope="module")
def heads() -> dict[int, list[Image]]:
    return draw_heads()


@pytest.fixture
def folder(tmp_path: Path, heads: dict[int, list[Image]]) -> Path:
    return write_heads(tmp_path / "first", heads)


def jpeg(image: Image) -> Image:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_GRAYSCALE)


def test_sound_data_are_refused_by_nothing(folder: Path) -> None:
    found = audited(folder)
    assert {one.verdict for one in found.values()} <= {"pass", "note", "warn"}
    for name in (*config.AUDIT_REFUSALS, "exact-copies", "unreadable-files", "odd-pictures"):
        assert found[name].verdict in ("pass", "warn" if name == "classes-in-parts" else "pass"), name
    assert "so they are per patient" in found["labels"].sentence
    assert [row["patients"] for row in found["labels"].evidence] == [5, 4]


# --- copies -------------------------------------------------------------------------------------------------------


def test_a_re_upload_is_recognised(folder: Path, heads: dict[int, list[Image]], tmp_path: Path) -> None:
    """Under other names, in other sizes and encodings; and its patients are the first set's."""
    other = tmp_path / "second"
    for label in ("Normal", "Stroke"):
        (other / label).mkdir(parents=True)
    taken = [(patient, k) for patient in range(4) for k in range(3)]
    for number, (patient, k) in enumerate(taken):
        image, label = heads[patient][k], "Stroke" if patient in (1, 3) else "Normal"
        name = other / label / f"scan{patient} ({number})"
        if number % 3 == 0:
            shutil.copy(folder / label / f"{patient} ({k}).png", f"{name}.png")
        elif number % 3 == 1:
            save(Path(f"{name}.bmp"), image)
        else:
            save(Path(f"{name}.png"), cv2.resize(jpeg(image), (230, 230)))
    for k in range(4):
        save(other / "Stroke" / f"new7 ({k}).png", np.rot90(heads[8][k]).copy())
    found = audited(folder, other)
    said = "12 of 16 pictures of second are in first as well (recognised 4 by the file, 4 by the pixels, 4 by the look)"
    assert said in found["near-copies"].sentence
    assert "a re-upload" in found["near-copies"].sentence
    assert found["near-copies"].verdict == found["exact-copies"].verdict == "warn"
    assert len(found["exact-copies"].evidence) == 8
    assert found["patient-on-two-sides"].verdict == found["contradicting-labels"].verdict == "pass"


def test_a_small_overlap_is_no_re_upload(folder: Path, heads: dict[int, list[Image]], tmp_path: Path) -> None:
    turned = {k: [np.rot90(image).copy() for image in images] for k, images in heads.items()}
    other = write_heads(tmp_path / "second", turned)
    shutil.copy(folder / "Normal" / "0 (0).png", other / "Normal" / "90 (0).png")
    near = audited(folder, other)["near-copies"]
    assert "re-upload" not in near.sentence
    assert ": 1 of " not in near.sentence
    assert near.sentence.startswith("1 of ")


def test_the_same_pixels_in_another_file_are_found_and_counted(folder: Path) -> None:
    source = folder / "Normal" / "0 (0).png"
    image = cv2.imread(str(source), cv2.IMREAD_GRAYSCALE)
    save(folder / "Normal" / "0 (8).bmp", image)
    save(folder / "Normal" / "0 (9).png", cv2.cvtColor(image, cv2.COLOR_GRAY2BGRA))
    exact = audited(folder)["exact-copies"]
    assert exact.verdict == "warn"
    (row,) = exact.evidence
    assert row["files"] == "Normal/0 (0).png = Normal/0 (8).bmp = Normal/0 (9).png"
    assert (row["how"], row["patients"]) == ("same pixels", 1)
    assert "2 pictures of" in exact.sentence


@pytest.mark.parametrize("copy", [lambda image: image, jpeg], ids=["same pixels", "another encoding"])
def test_one_slice_under_two_labels_is_refused(
    folder: Path, heads: dict[int, list[Image]], copy: object
) -> None:
    assert callable(copy)
    save(folder / "Stroke" / "90 (0).png", copy(heads[0][2]))
    found = audited(folder)["contradicting-labels"]
    assert found.verdict == "refuse"
    assert found.evidence[0]["file"] == "Normal/0 (2).png"
    assert found.evidence[0]["copy"] == "Stroke/90 (0).png"
    assert found.evidence[0]["labels"] == "normal | stroke"


def test_blank_pictures_and_neighbouring_slices_contradict_nothing(
    folder: Path, heads: dict[int, list[Image]]
) -> None:
    """Empty slices are all alike, and the last slice of a lesion is like the first one without."""
    blank = np.zeros((64, 64), np.uint8)
    save(folder / "Stroke" / "1 (8).png", blank)
    save(folder / "Normal" / "0 (8).png", blank)
    save(folder / "Stroke" / "0 (7).png", cv2.GaussianBlur(heads[0][2], (0, 0), 1.3))
    judged, looks = look(folder)
    found = {one.name: one for one in find_all(judged, looks)}
    likeness = compare_looks(looks)
    assert 0 < likeness.similarity.max() < config.SAME_SLICE_SIMILARITY  # else this shows nothing
    assert found["contradicting-labels"].verdict == "pass"
    assert found["exact-copies"].verdict == "pass"
    assert [row["why"] for row in found["odd-pictures"].evidence[:2]] == ["one grey value"] * 2


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("normal", "stroke", True),
        ("bleeding", "normal", True),
        ("bleeding", "ischemia", True),
        ("bleeding", "stroke", False),
        ("stroke", "ischemia", False),
        ("normal", "normal", False),
    ],
)
def test_which_labels_exclude_each_other(first: str, second: str, expected: bool) -> None:
    assert contradicts(first, second) is contradicts(second, first) is expected


def test_identical_pictures_of_three_labels_are_all_compared(
    tmp_path: Path, heads: dict[int, list[Image]]
) -> None:
    """ "stroke" goes with either kind; the kinds do not go together, though neither is compared with "normal"."""
    for part, label in (("train", "Stroke"), ("val", "Bleeding"), ("test", "Ischemia")):
        for k, image in enumerate(heads[2][:2]):
            save(tmp_path / "tree" / part / label / f"{k}.png", image)
    found = audited(tmp_path / "tree")
    assert found["contradicting-labels"].verdict == "refuse"
    labels = {str(row["labels"]) for row in found["contradicting-labels"].evidence}
    assert {frozenset(pair.split(" | ")) for pair in labels} == {frozenset(("bleeding", "ischemia"))}


# --- sides --------------------------------------------------------------------------------------------------------


def tree_of(folder: Path, heads: dict[int, list[Image]], by_slice: bool) -> Path:
    for patient, images in heads.items():
        for k, image in enumerate(images):
            part = ("train", "val", "test")[k % 3 if by_slice else patient // 2 % 3]
            label = "Stroke" if patient % 2 else "Normal"
            save(folder / part / label / f"{patient} ({k}).png", image)
    return folder


def test_a_given_split_by_slices_is_refused_and_one_by_patients_is_not(
    tmp_path: Path, heads: dict[int, list[Image]]
) -> None:
    wrong = audited(tree_of(tmp_path / "wrong", heads, by_slice=True))["patient-on-two-sides"]
    assert wrong.verdict == "refuse"
    assert "Of 9 patients 9 with slices on two sides" in wrong.sentence
    assert wrong.evidence[0]["slices"] == "test 1, train 2, val 1"
    right = audited(tree_of(tmp_path / "right", heads, by_slice=False))["patient-on-two-sides"]
    assert (right.verdict, right.evidence) == ("pass", ())


def test_a_copy_under_another_patient_is_refused_only_across_sides(
    folder: Path, heads: dict[int, list[Image]]
) -> None:
    save(folder / "Normal" / "90 (0).png", cv2.resize(jpeg(heads[0][1]), (200, 200)))
    judged, looks = look(folder)
    frame = frame_of(judged.readable, looks)
    pairs = pairs_of(frame, compare_looks(looks))
    assert judged.table is not None
    part = judged.table.set_index("id")["split"]
    own = part["Normal/0 (1)"]
    for side, verdict in ((own, "pass"), ("val" if own == "train" else "train", "refuse")):
        table = judged.table.assign(
            split=judged.table["split"].where(judged.table["id"] != "Normal/90 (0)", side)
        )
        found = find_copies_on_two_sides(frame, table, pairs)
        assert found.verdict == verdict
    assert found.evidence[0]["patients"] == "0 | 90"


def test_a_class_that_a_part_lacks_is_refused_unless_its_task_is_left_out(tmp_path: Path) -> None:
    whole = write_strokes(tmp_path / "strokes", patients=27)
    for path in sorted(whole.rglob("PNG/*.png")):
        patient, kind = (int(path.stem) - 10_000) // 10, path.parents[1].name
        part = ("train", "val", "test")[patient // 3 % 3]
        part = "train" if (part, kind) == ("val", "Ischemia") else part
        save(tmp_path / "tree" / part / "PNG" / kind / path.name, cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    judged, looks = look(tmp_path / "tree")
    found = {one.name: one for one in find_all(judged, looks)}["classes-in-parts"]
    assert found.verdict == "refuse"
    assert "ischemia in val (subtype)" in found.sentence
    assert (found.evidence[0]["part"], found.evidence[0]["patients"]) == ("val", 0)
    skipped = [{"task": "subtype", "reason": "the part 'val' has no image of 'ischemia'"}]
    study = dataclasses.replace(judged, tasks=("binary",), skipped=skipped)
    found = {one.name: one for one in find_all(study, looks)}["classes-in-parts"]
    assert found.verdict in ("note", "warn")
    assert "Tasks left out: subtype." in found.sentence
    assert found.evidence[-1] == {"task": "subtype", "left_out": skipped[0]["reason"]}


def test_too_few_patients_to_split_are_refused_without_a_name_to_accept(
    tmp_path: Path, heads: dict[int, list[Image]]
) -> None:
    folder = write_heads(tmp_path / "two", {0: heads[0], 1: heads[1]})
    judged, looks = look(folder)
    audit = audit_data(judged, looks=looks)
    (refused,) = [one for one in audit["findings"] if one["verdict"] == "refuse"]
    assert refused["name"] == "no-split"
    assert "at least 3 are needed" in refused["sentence"]
    with pytest.raises(StudyError, match=r"--accept no-split names no finding that can be accepted"):
        audit_data(judged, ["no-split"], looks=looks)


# --- single pictures and masks ------------------------------------------------------------------------------------


def test_painted_unreadable_and_odd_pictures_are_told_apart(
    folder: Path, heads: dict[int, list[Image]]
) -> None:
    painted = cv2.cvtColor(heads[1][0], cv2.COLOR_GRAY2BGR)
    painted[40:60, 40:60, 2] = 255
    save(folder / "Stroke" / "1 (8).png", painted)
    (folder / "Stroke" / "1 (9).png").write_bytes((folder / "Stroke" / "1 (0).png").read_bytes()[:900])
    save(folder / "Normal" / "0 (9).png", np.full((160, 160), 250, np.uint8) - (heads[0][0] > 60))
    found = audited(folder)
    assert found["painted-inputs"].verdict == "refuse"
    assert [row["file"] for row in found["painted-inputs"].evidence] == ["Stroke/1 (8).png"]
    assert found["unreadable-files"].verdict == "warn"
    assert [row["file"] for row in found["unreadable-files"].evidence] == ["Stroke/1 (9).png"]
    assert "Normal/0 (9).png" in [row["file"] for row in found["odd-pictures"].evidence]


def test_nothing_readable_is_a_finding_too(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    found = audited(folder)
    assert [name for name, one in found.items() if one.verdict == "refuse"] == ["unreadable-files"]


def test_masks_that_do_not_fit_are_named(tmp_path: Path) -> None:
    folder = write_strokes(tmp_path / "strokes")
    masks = sorted((folder / "Bleeding" / "MASKS").glob("*.png"))
    save(masks[0], np.zeros((16, 16), np.uint8))
    save(masks[1], make_mask("bleeding", 24).astype(np.uint8) * 255)
    masks[2].unlink()
    normal = sorted((folder / "Normal" / "PNG").glob("*.png"))[0]
    save(folder / "Normal" / "MASKS" / normal.name, make_mask("stroke").astype(np.uint8) * 255)
    judged, looks = look(folder)
    found = find_masks(frame_of(judged.readable, looks), judged.readings)
    assert found.verdict == "warn"
    why = {row["file"]: row["why"] for row in found.evidence}
    assert "is 24 x 24 px, its picture 16 x 16 px" in str(why.pop(f"Bleeding/{masks[1].name}"))
    assert why == {
        f"Normal/{normal.name}": "labelled normal, but its mask shows a lesion",
        f"Bleeding/{masks[0].name}": "labelled with a lesion, but its mask is empty",
        f"Bleeding/{masks[2].name}": "labelled with a lesion, but has no mask",
    }
    assert "empty on a lesion slice" in found.sentence


# --- patients -----------------------------------------------------------------------------------------------------


def test_a_patient_key_is_held_against_the_pictures(folder: Path) -> None:
    judged, looks = look(folder)
    frame = frame_of(judged.readable, looks)
    likeness = compare_looks(looks)
    right = find_patient_key(frame, likeness)
    assert right.verdict == "pass"
    assert "The key fits" in right.sentence
    shuffled = frame.assign(patient=generator("a wrong key").permutation(frame["patient"].to_numpy(object)))
    wrong = find_patient_key(shuffled, likeness)
    assert wrong.verdict == "warn"
    assert neighbour_share(frame, likeness)[0] > 0.5 > 0.3 > neighbour_share(shuffled, likeness)[0]
    alone = find_patient_key(frame.assign(patient=frame["id"]), likeness)
    assert "One slice each" in alone.sentence
    assert alone.verdict == "warn"
    guessed = find_patient_key(frame.assign(patient_from="similarity"), likeness)
    assert guessed.verdict == "warn"
    assert "Patients are not known" in guessed.sentence


def test_the_share_by_chance_is_that_of_random_keys(folder: Path) -> None:
    judged, looks = look(folder)
    frame, likeness = frame_of(judged.readable, looks), compare_looks(looks)
    rng = generator("chance")
    keys = [rng.permutation(frame["patient"].to_numpy(object)) for _ in range(400)]
    shares = [neighbour_share(frame.assign(patient=key), likeness)[0] for key in keys]
    assert np.mean(shares) == pytest.approx(neighbour_share(frame, likeness)[1], abs=0.01)


# --- shortcuts ----------------------------------------------------------------------------------------------------


def looked(count: int = 40, **columns: object) -> pd.DataFrame:
    """A frame of patients with two slices each, every second a stroke; files and greys say nothing but as given."""
    rng = generator("shortcuts", count)
    rows = []
    for number in range(2 * count):
        patient = f"p{number // 2:02d}"
        label = "stroke" if number // 2 % 2 else "normal"
        rows.append(make_row(f"{patient}/{number % 2}", label, patient))
    frame = sample_table(rows)
    noise = {name: rng.normal(50, 10, len(frame)) for name in ("mean", "sd", "border")}
    plain = {
        "format": "PNG",
        "mode": "L",
        "bits": 8,
        "width": 512,
        "height": 512,
        "bytes": 90_000,
        "quantisation": 0,
    }
    return frame.assign(lit=rng.random(len(frame)), **noise, **plain).assign(**columns)


def test_a_label_that_the_file_tells_is_named() -> None:
    assert find_shortcuts(looked()).verdict == "pass"
    frame = looked()
    stroke = frame["label"] == "stroke"
    found = find_shortcuts(
        frame.assign(quantisation=np.where(stroke, 512, 650), mean=frame["mean"] + 90 * stroke)
    )
    assert found.verdict == "warn"
    assert (
        "about the files is JPEG quantisation, which tells stroke from normal with an AUROC of 1.00"
        in found.sentence
    )
    found = find_shortcuts(frame.assign(format=np.where(stroke, "JPEG", "PNG")))
    assert "file format PNG" in found.sentence
    found = find_shortcuts(frame.assign(mean=frame["mean"] + 90 * stroke))
    assert found.verdict == "note"  # a lesion may do that


def test_few_patients_are_no_proof_of_a_shortcut() -> None:
    """Two of each: some number tells them apart by chance in one case of three."""
    frame = looked(4)
    frame["border"] = [1.0 if label == "stroke" else 0.0 for label in frame["label"]]
    found = find_shortcuts(frame)
    assert found.evidence[0] == {
        "number": "border's brightness", "tells": "stroke from normal", "auroc": 1.0, "patients": 2, "others": 2
    }  # fmt: skip
    assert found.verdict == "pass"


def test_the_separation_is_the_auroc() -> None:
    rng = generator("auroc")
    numbers, positive = rng.integers(0, 6, (3, 30)).astype(float), rng.random((2, 30)) < 0.4
    ranks = np.stack([rankdata(row) for row in numbers])
    found = audit_shortcuts.separation(ranks, positive)
    for f, k in np.ndindex(3, 2):
        expected = roc_auc_score(positive[k], numbers[f])
        assert found[f, k] == pytest.approx(max(expected, 1 - expected))


# --- order, keys, real pictures -----------------------------------------------------------------------------------


def test_findings_do_not_depend_on_the_order_of_rows(folder: Path, heads: dict[int, list[Image]]) -> None:
    save(folder / "Stroke" / "90 (0).png", heads[0][2])
    save(folder / "Normal" / "91 (0).png", jpeg(heads[0][3]))
    samples = open_dataset(folder)

    def of(rows: pd.DataFrame) -> list[Finding]:
        looks = take_looks(rows, masks=True)
        found = find_all(judge(rows, looks), looks)
        return [dataclasses.replace(one, evidence=()) for one in found]

    assert of(samples) == of(
        samples.iloc[generator("order").permutation(len(samples))].reset_index(drop=True)
    )


def test_a_finding_that_refuses_needs_a_remedy() -> None:
    with pytest.raises(ValueError, match="refuses the data without a remedy"):
        Finding("x", "refuse", "Wrong.")
    with pytest.raises(ValueError, match="verdict 'bad' is none of"):
        Finding("x", "bad", "Wrong.")


def test_real_heads_are_recognised_across_two_public_sets(shared_data: Path) -> None:
    """The three-class set's real slices are the two-class set's, in another size and encoding; patients are named
    alike in both, which nothing here reads."""
    first = open_dataset(shared_data / "binary_ct")
    second = open_dataset(shared_data / "strokes_ct")
    second = second[second["label"] == "bleeding"].iloc[::12]
    first = first[first["patient"].isin(second["patient"])]
    samples = pd.concat([first, second.assign(id="b:" + second["id"], patient="b" + second["patient"])])
    samples = samples.reset_index(drop=True)
    looks = take_looks(samples)
    frame = frame_of(samples, looks)
    pairs = pairs_of(frame, compare_looks(looks))
    across = [pair for pair in pairs if frame["source"][pair.first] != frame["source"][pair.second]]
    assert {pair.second for pair in across} == set(frame.index[frame["source"] == "strokes_ct"])
    for pair in across:
        assert frame["patient"][pair.second] == "b" + frame["patient"][pair.first]
    assert split_table(first, 1, 0)["split"].nunique() == 3
