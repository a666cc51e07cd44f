"""Folders are recognised as they are meant, or refused in words that show what was found."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import folder_fixture
import pytest
from folder_fixture import refusal

from common import config
from common.data.layouts import open_dataset
from common.data.samples import COLUMNS, samples_digest

NAMES = {"Normal": ["49 (1).jpg", "49 (2).jpg", "50 (1).jpg"], "Stroke": ["58 (1).jpg", "58 (12).jpg"]}


def fill(root: Path, classes: dict[str, list[str]] = NAMES) -> Path:
    return folder_fixture.fill(root, classes)


# --- the two-class layout ----------------------------------------------------------------------------------------


def test_ids_labels_patients_and_digests(tmp_path: Path) -> None:
    samples = open_dataset(fill(tmp_path / "ct"))
    assert tuple(samples.columns) == COLUMNS
    assert list(samples["id"]) == [
        "Normal/49 (1)",
        "Normal/49 (2)",
        "Normal/50 (1)",
        "Stroke/58 (1)",
        "Stroke/58 (12)",
    ]
    assert list(samples["label"]) == ["normal"] * 3 + ["stroke"] * 2
    assert list(samples["patient"]) == ["49", "49", "50", "58", "58"]
    assert set(samples["source"]) == {"ct"}
    assert set(samples["patient_from"]) == {"name"}
    assert list(samples["mask"]) == ["none"] * 3 + [""] * 2
    assert set(samples["mask_sha256"]) == set(samples["pixel_mm"]) == set(samples["split"]) == {""}
    for _, row in samples.iterrows():
        assert Path(row["path"]).is_absolute()
        assert row["sha256"] == hashlib.sha256(Path(row["path"]).read_bytes()).hexdigest()


@pytest.mark.parametrize("below", [".", "Brain_Data_Organised", "archive/Brain_Data_Organised"])
def test_wrapping_folders_change_nothing(tmp_path: Path, below: str) -> None:
    plain = open_dataset(fill(tmp_path / "plain"))
    root = tmp_path / "wrapped"
    fill(root / below)
    (root / "readme.txt").write_text("about")
    wrapped = open_dataset(root)
    assert samples_digest(wrapped) == samples_digest(plain)
    assert set(wrapped["source"]) == {"wrapped"}


def test_letter_case_of_folders_and_suffixes(tmp_path: Path) -> None:
    classes = {"NORMAL": ["1 (1).JPG"], "stroke": ["2 (1).PnG"]}
    samples = open_dataset(str(fill(tmp_path, classes)))
    assert list(samples["id"]) == ["NORMAL/1 (1)", "stroke/2 (1)"]
    assert list(samples["label"]) == ["normal", "stroke"]


def test_a_relative_path_gives_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absolute = open_dataset(fill(tmp_path / "ct"))
    monkeypatch.chdir(tmp_path / "ct")
    assert open_dataset(".").equals(absolute)


def test_leavings_are_ignored(tmp_path: Path) -> None:
    root = fill(tmp_path)
    for name in (".hidden.jpg", "._49 (1).jpg", "Thumbs.db", "desktop.ini", "labels.csv", "notes.txt"):
        (root / "Normal" / name).write_bytes(b"x")
    for folder in ("__MACOSX/Normal", "Normal/__MACOSX", ".cache/Stroke"):
        (root / folder).mkdir(parents=True)
        (root / folder / "1 (1).jpg").write_bytes(b"x")
    assert len(open_dataset(root)) == 5


def test_masks_beside_the_classes_or_above(tmp_path: Path) -> None:
    for number, below in enumerate((".", "Brain_Data_Organised")):
        root = tmp_path / str(number)
        fill(root / below)
        fill(root / "masks", {"normal": [], "Stroke": ["58 (12).png", "99 (1).png", "58 (1).csv"]})
        samples = open_dataset(root).set_index("id")
        mask = root / "masks" / "Stroke" / "58 (12).png"
        assert samples.loc["Stroke/58 (12)", "mask"] == str(mask)
        assert samples.loc["Stroke/58 (12)", "mask_sha256"] == hashlib.sha256(mask.read_bytes()).hexdigest()
        # By this layout's rule a slice without a file has no lesion, once there are masks.
        assert set(samples["mask"].drop("Stroke/58 (12)")) == {"none"}
        assert set(samples["mask_sha256"].drop("Stroke/58 (12)")) == {""}


def test_an_empty_masks_folder_says_nothing(tmp_path: Path) -> None:
    fill(tmp_path)
    fill(tmp_path / "masks", {"Normal": [], "Stroke": []})
    assert list(open_dataset(tmp_path)["mask"]) == ["none"] * 3 + [""] * 2


def test_the_digest_sees_masks(tmp_path: Path) -> None:
    fill(tmp_path)
    fill(tmp_path / "masks", {"Stroke": ["58 (12).png"]})
    before = samples_digest(open_dataset(tmp_path))
    (tmp_path / "masks" / "Stroke" / "58 (12).png").write_bytes(b"another")
    assert samples_digest(open_dataset(tmp_path)) != before


def test_masks_are_no_data_set_of_their_own(tmp_path: Path) -> None:
    fill(tmp_path / "masks", {"Normal": ["1 (1).png"], "Stroke": ["2 (1).png"]})
    assert "no known layout" in refusal(tmp_path)


def test_masks_that_match_nothing_are_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    fill(tmp_path / "masks", {"Stroke": ["58 (1)_mask.png"]})
    assert "'58 (1)_mask'" in refusal(tmp_path)


def test_what_cannot_be_opened_stays_without_digest(tmp_path: Path) -> None:
    root = fill(tmp_path)
    os.mkfifo(root / "Stroke" / "58 (2).jpg")
    (root / "Stroke" / "58 (3).jpg").symlink_to(root / "nowhere")
    with (root / "Stroke" / "58 (4).jpg").open("wb") as stream:
        stream.truncate(config.MAX_FILE_BYTES + 1)  # sparse; never decoded, so not worth reading
    (root / "Stroke" / "58 (5).dcm").write_bytes(b"x")  # refused when decoded, not overlooked
    (root / "Stroke" / "58 (6).jpg").symlink_to(root / "Stroke" / "58 (1).jpg")
    digests = open_dataset(root).set_index("id")["sha256"]
    assert [digests[f"Stroke/58 ({k})"] for k in (2, 3, 4)] == ["", "", ""]
    assert digests["Stroke/58 (5)"] == hashlib.sha256(b"x").hexdigest()
    assert digests["Stroke/58 (6)"] == digests["Stroke/58 (1)"]


def test_the_digest_sees_content_not_place(tmp_path: Path) -> None:
    first, second = fill(tmp_path / "first"), fill(tmp_path / "second")
    assert samples_digest(open_dataset(first)) == samples_digest(open_dataset(second))
    (second / "Stroke" / "58 (1).jpg").write_bytes(b"another")
    assert samples_digest(open_dataset(first)) != samples_digest(open_dataset(second))


# --- patients ----------------------------------------------------------------------------------------------------

UNKNOWN = {"Normal": ["a.png", "b.png"], "Stroke": ["c.png"]}


def test_names_without_patients_are_grouped_by_likeness(tmp_path: Path) -> None:
    samples = open_dataset(fill(tmp_path, UNKNOWN))  # no pictures, so like nothing
    assert list(samples["patient"]) == list(samples["id"]) == ["Normal/a", "Normal/b", "Stroke/c"]
    assert set(samples["patient_from"]) == {"similarity"}


@pytest.mark.parametrize("stem", ["stroke (1)", "58", "58(", "(1)", "58 (x)", "58 (1) copy"])
def test_names_that_tell_no_patient(tmp_path: Path, stem: str) -> None:
    fill(tmp_path, {"Normal": ["1 (1).jpg"], "Stroke": [f"{stem}.jpg"]})
    assert f"1 pictures in {tmp_path} is unknown, e.g. of 'Stroke/{stem}'" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("stem", "patient"), [("58 (1)", "58"), ("P-007(12)", "P-007"), ("a 3 (2) (10)", "a 3 (2)")]
)
def test_names_that_tell_the_patient(tmp_path: Path, stem: str, patient: str) -> None:
    fill(tmp_path, {"Normal": ["1 (1).jpg"], "Stroke": [f"{stem}.jpg"]})
    assert list(open_dataset(tmp_path)["patient"]) == ["1", patient]


@pytest.mark.parametrize(
    "lines",
    [
        "image_id,patient\nNormal/a,p1\nNormal/b,p2\nStroke/c,p3\n",
        "image_id,patient\na.png,p1\nb.png,p2\nc.png,p3\n",
        "image_id, patient ,age\n a, p1,3\nb,p2 ,4,more\nNormal/b.png,p2,4\nStroke/c.png,p3,5\nelsewhere,p9,6\n",
        "\ufeffpatient,image_id\r\np1,a\r\np2,b\r\np3,c\r\n",
    ],
)
@pytest.mark.parametrize("inner", [False, True])
def test_patients_from_a_file(tmp_path: Path, lines: str, inner: bool) -> None:
    fill(tmp_path / "Brain_Data_Organised", UNKNOWN)
    place = tmp_path / "Brain_Data_Organised" if inner else tmp_path
    (place / "patients.csv").write_text(lines, encoding="utf-8")
    samples = open_dataset(tmp_path)
    assert list(samples["patient"]) == ["p1", "p2", "p3"]
    assert set(samples["patient_from"]) == {"table"}


def test_the_file_wins_over_names(tmp_path: Path) -> None:
    (fill(tmp_path) / "patients.csv").write_text(
        "image_id,patient\n49 (1),x\n49 (2),x\n50 (1),x\n58 (1),y\n58 (12),007\n"
    )
    assert list(open_dataset(tmp_path)["patient"]) == ["x", "x", "x", "y", "007"]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "lacks the column 'image_id'"),
        (b"image_id,patient\na\nb,p2\nc,p3\n", "no patient for image_id 'a'"),
        (b"\xff\xfe\x00bad", "cannot be read as CSV"),
        (b'image_id,patient\n"a,p1\n', "cannot be read as CSV"),
        (b"image_id;patient\na;p1\n", "lacks the column 'image_id'"),
        (b"image_id,subject\na,p1\n", "lacks the column 'patient'"),
        (b"image_id,patient\na,p1\nb,\nc,p3\n", "no patient for image_id 'b'"),
        (b"image_id,patient\na,p1\na,p2\nb,p2\nc,p3\n", "'a' to 'p1' and to 'p2'"),
        (b"image_id,patient\na,p1\n", "no patient for 2 of 3 pictures, e.g. 'Normal/b'"),
    ],
)
def test_faults_of_the_patients_file(tmp_path: Path, data: bytes, fault: str) -> None:
    (fill(tmp_path, UNKNOWN) / "patients.csv").write_bytes(data)
    message = refusal(tmp_path)
    assert fault in message
    assert "patients.csv" in message


def test_a_name_that_means_two_pictures_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, {"Normal": ["1.png"], "Stroke": ["1.png"]})
    (tmp_path / "patients.csv").write_text("image_id,patient\n1,p1\n")
    assert "'1' in" in refusal(tmp_path)
    assert "Normal/1 or Stroke/1" in refusal(tmp_path)
    (tmp_path / "patients.csv").write_text("image_id,patient\nNormal/1,p1\nStroke/1,p2\n1,p3\n")
    assert list(open_dataset(tmp_path)["patient"]) == ["p1", "p2"]


def test_a_patient_may_have_both_labels(tmp_path: Path) -> None:
    fill(tmp_path, {"Normal": ["1 (1).jpg"], "Stroke": ["1 (2).jpg"]})
    assert list(open_dataset(tmp_path)["patient"]) == ["1", "1"]


# --- several folders ---------------------------------------------------------------------------------------------


def test_several_folders_get_prefixes(tmp_path: Path) -> None:
    folders = [fill(tmp_path / name) for name in ("x/ct", "y/ct", "z/other")]
    samples = open_dataset(*folders)
    assert len(samples) == 15
    assert list(samples["id"]) == sorted(samples["id"])
    assert set(samples["source"]) == {"ct", "ct-2", "other"}
    row = samples.set_index("id").loc["ct-2:Stroke/58 (1)"]
    assert row["patient"] == "ct-2:58"
    assert row["path"] == str(tmp_path / "y/ct/Stroke/58 (1).jpg")


def test_overlapping_folders_are_refused(tmp_path: Path) -> None:
    inner = fill(tmp_path / "Brain_Data_Organised")
    assert "given twice" in refusal(inner, inner)
    assert "given twice" in refusal(inner, tmp_path / "Brain_Data_Organised" / "Normal" / "..")
    assert "two of the data folders" in refusal(tmp_path, inner)


# --- a ready-made split ------------------------------------------------------------------------------------------

TREE = {
    "train/PNG/Bleeding": ["10000.png", "10001.png"],
    "train/OVERLAY/Bleeding": ["10000.png"],
    "train/PNG/Ischemia": ["10002.png"],
    "train/MASKS/Ischemia": ["10002.png"],
    "train/PNG/Normal": ["10003.png"],
    "val/PNG/Normal": ["10000.png"],
    "test/PNG/Bleeding": ["10000.png"],
}


@pytest.mark.parametrize("below", [".", "archive/split"])
def test_the_split_of_a_tree_is_kept(tmp_path: Path, below: str) -> None:
    fill(tmp_path / below, TREE)
    samples = open_dataset(tmp_path).set_index("id")
    assert list(samples.index) == [
        "test/Bleeding/10000",
        "train/Bleeding/10000",
        "train/Bleeding/10001",
        "train/Ischemia/10002",
        "train/Normal/10003",
        "val/Normal/10000",
    ]
    assert list(samples["split"]) == ["test", "train", "train", "train", "train", "val"]
    assert list(samples["label"]) == ["bleeding", "bleeding", "bleeding", "ischemia", "normal", "normal"]
    masks = samples["mask"]
    train = (tmp_path / below / "train").resolve()
    assert masks["train/Bleeding/10000"] == f"overlay:{train}/OVERLAY/Bleeding/10000.png"
    assert masks["train/Bleeding/10001"] == masks["test/Bleeding/10000"] == ""
    assert masks["train/Ischemia/10002"] == f"{train}/MASKS/Ischemia/10002.png"
    assert masks["train/Normal/10003"] == "none"


def test_a_tree_of_two_classes_with_other_names_of_the_parts(tmp_path: Path) -> None:
    for part in ("Training", "valid", "testing"):
        fill(tmp_path / part)
    fill(tmp_path / "valid" / "masks", {"Stroke": ["58 (1).png"]})
    samples = open_dataset(tmp_path).set_index("id")
    assert samples["split"].value_counts().to_dict() == {"train": 5, "val": 5, "test": 5}
    assert (
        samples.loc["Training/Stroke/58 (1)", "patient"] == "58"
    )  # the names are like the two-class layout's
    assert samples.loc["valid/Stroke/58 (1)", "mask"].endswith("58 (1).png")
    assert samples.loc["Training/Stroke/58 (1)", "mask"] == "none"


def test_a_tree_that_lacks_a_part(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    fill(tmp_path / "test")
    message = refusal(tmp_path)
    assert "is divided into test/, train/ but has no val/ with classes" in message
    fill(tmp_path / "val", {"Normal": [], "Stroke": []})
    assert "val holds no pictures" in refusal(tmp_path)
    (tmp_path / "validation" / "Normal").mkdir(parents=True)
    assert "both val/ and validation/" in refusal(tmp_path)


def test_one_part_by_itself_is_a_data_set(tmp_path: Path) -> None:
    fill(tmp_path, TREE)
    samples = open_dataset(tmp_path / "train")
    assert len(samples) == 4
    assert set(samples["split"]) == {""}


# --- what is refused ---------------------------------------------------------------------------------------------


def test_missing_empty_and_no_folder(tmp_path: Path) -> None:
    assert "no data folder was given" in refusal()
    assert f"{tmp_path / 'none'} does not exist" in refusal(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".DS_Store").write_bytes(b"x")
    assert "is empty; expected: Normal/ and Stroke/" in refusal(tmp_path / "empty")
    (tmp_path / "data.zip").write_bytes(b"x")
    assert "data.zip is a file" in refusal(tmp_path / "data.zip")
    assert "cannot be opened" in refusal(tmp_path / ("long" * 100))
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert "does not exist" in refusal(tmp_path / "dangling")


def test_one_class_only(tmp_path: Path) -> None:
    fill(tmp_path / "a", {"Stroke": ["1 (1).jpg", "1 (2).jpg"]})
    assert "Stroke/ has 2 pictures, Normal/ is missing" in refusal(tmp_path / "a")
    fill(tmp_path / "b", {"Stroke": [], "normal": ["1 (1).jpg"]})
    assert "Stroke/ has 0 pictures, normal/ has 1 picture; both" in refusal(tmp_path / "b")
    fill(tmp_path / "c", {"Stroke": []})
    assert "Stroke/ has 0 pictures, Normal/ is missing" in refusal(tmp_path / "c")
    fill(tmp_path / "d", {"Normal": [], "Stroke": []})
    assert "Normal/ has 0 pictures, Stroke/ has 0 pictures" in refusal(tmp_path / "d")


def test_an_unknown_layout_shows_what_was_found(tmp_path: Path) -> None:
    fill(tmp_path, {f"folder{k:02}": ["a.jpg"] * 1 for k in range(14)})
    (tmp_path / "folder00" / "b.jpg").write_bytes(b"x")
    message = refusal(tmp_path)
    assert "no known layout" in message
    assert "  folder00/ (2 files)\n  folder01/ (1 file)\n" in message
    assert "... and 4 more" in message
    assert "expected: Normal/ and Stroke/" in message
    assert "{train,val,test}/{PNG,OVERLAY,MASKS}/{class}" in message
    assert len(message.splitlines()) < 18


def test_a_class_folder_itself_is_pointed_out(tmp_path: Path) -> None:
    assert "Stroke/ is one class; give the folder above it" in refusal(fill(tmp_path) / "Stroke")


def test_several_sets_in_one_folder(tmp_path: Path) -> None:
    fill(tmp_path / "first")
    fill(tmp_path / "second")
    assert "several data sets (first/, second/)" in refusal(tmp_path)


def test_half_a_set_beside_a_whole_one_is_left_alone(tmp_path: Path) -> None:
    fill(tmp_path / "first")
    fill(tmp_path / "true_masks", {"Stroke": ["58 (1).png"]})
    assert set(open_dataset(tmp_path)["id"].str.split("/").str[0]) == {"Normal", "Stroke"}
    assert len(open_dataset(tmp_path)) == 5


def test_equal_names_and_spellings(tmp_path: Path) -> None:
    fill(tmp_path / "a", {"Normal": ["1 (1).jpg", "1 (1).png"], "Stroke": ["2 (1).jpg"]})
    message = refusal(tmp_path / "a")
    assert "1 (1).jpg" in message
    assert "1 (1).png" in message
    assert "suffix only" in message
    fill(tmp_path / "b", {"Normal": ["1 (1).jpg"], "normal": ["1 (2).jpg"], "Stroke": ["2 (1).jpg"]})
    assert "both Normal/ and normal/" in refusal(tmp_path / "b")


def test_pictures_further_down_are_not_overlooked(tmp_path: Path) -> None:
    fill(tmp_path)
    fill(tmp_path / "Stroke", {"OVERLAY": ["58 (1).png"]})
    assert "OVERLAY holds pictures" in refusal(tmp_path)


@pytest.mark.parametrize("space", ["\u00a0", "\u3000"])
def test_names_with_other_spaces_are_honest(tmp_path: Path, space: str) -> None:
    """One that does not break, one as wide as a Japanese letter."""
    folder = fill(tmp_path / f"ct{space}1", {"Normal": [f"a{space}1.jpg"], "Stroke": ["b.jpg"]})
    (folder / "patients.csv").write_text(f"image_id,patient\na{space}1,p{space}1\nb,q\n", encoding="utf-8")
    samples = open_dataset(folder)
    assert list(samples["id"]) == [f"Normal/a{space}1", "Stroke/b"]
    assert list(samples["patient"]) == [f"p{space}1", "q"]


@pytest.mark.parametrize("name", [b"58 (\xff1).jpg", b"58\n (1).jpg"])
def test_names_that_no_table_can_hold_are_refused(tmp_path: Path, name: bytes) -> None:
    path = os.fsencode(fill(tmp_path) / "Stroke") + b"/" + name
    with open(path, "wb") as stream:  # noqa: PTH123, pathlib takes no bytes
        stream.write(b"x")
    message = refusal(tmp_path)
    assert "unprintable" in message
    assert message.isprintable()


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    (tmp_path / "lost+found").mkdir()
    listing = Path.iterdir

    def refusing(name: str) -> Callable[[Path], Iterator[Path]]:
        def iterdir(self: Path) -> Iterator[Path]:
            if self.name == name:
                raise PermissionError(13, "Permission denied")
            return listing(self)

        return iterdir

    monkeypatch.setattr(Path, "iterdir", refusing("lost+found"))
    assert len(open_dataset(tmp_path)) == 5
    monkeypatch.setattr(Path, "iterdir", refusing("Stroke"))
    assert "Stroke cannot be listed (Permission denied)" in refusal(tmp_path)


# --- real pictures -----------------------------------------------------------------------------------------------


def test_real_two_class_set(shared_data: Path) -> None:
    samples = open_dataset(shared_data / "binary_ct")
    assert len(samples) == 1876
    assert samples["patient"].nunique() == 62
    assert (samples["label"] == "stroke").sum() == 697
    assert "Stroke/58 (1)" in set(samples["id"])
    masks = list((shared_data / "binary_ct" / "masks").glob("*/*.png"))
    assert (samples["mask"] != "none").sum() == (samples["mask_sha256"] != "").sum() == len(masks)
    assert samples["sha256"].is_unique


def test_real_three_class_set(shared_data: Path) -> None:
    samples = open_dataset(shared_data / "strokes_ct")
    assert samples["label"].value_counts().to_dict() == {"normal": 150, "bleeding": 90, "ischemia": 90}
    assert samples["patient"].nunique() == 61
    assert samples["mask"].str.startswith("overlay:").sum() == samples["mask_sha256"].ne("").sum() == 180
    assert not samples["path"].str.contains("OVERLAY").any()
