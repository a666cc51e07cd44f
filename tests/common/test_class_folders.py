"""The three-class layout: plain pictures are listed, the painted ones only as masks."""

import hashlib
from pathlib import Path

import pytest
from folder_fixture import fill, refusal

from common import config
from common.data.layouts import open_dataset
from common.data.phantom import write_phantom

THREE = {
    "Bleeding/PNG": ["10000.png", "10001.png"],
    "Bleeding/OVERLAY": ["10000.png", "10001.png"],
    "Ischemia/PNG": ["10002.png"],
    "Ischemia/OVERLAY": ["10002.png"],
    "Normal/PNG": ["10003.png"],
}


@pytest.mark.parametrize("below", [".", "Brain_Stroke_CT_Dataset", "archive/Brain_Stroke_CT_Dataset"])
def test_pictures_labels_and_overlays(tmp_path: Path, below: str) -> None:
    base = fill(tmp_path / below, THREE).resolve()
    samples = open_dataset(tmp_path)
    assert list(samples["id"]) == ["Bleeding/10000", "Bleeding/10001", "Ischemia/10002", "Normal/10003"]
    assert list(samples["label"]) == ["bleeding", "bleeding", "ischemia", "normal"]
    assert samples["path"][0] == str(base / "Bleeding" / "PNG" / "10000.png")
    overlay = base / "Bleeding" / "OVERLAY" / "10000.png"
    assert samples["mask"][0] == f"overlay:{overlay}"
    assert samples["mask_sha256"][0] == hashlib.sha256(overlay.read_bytes()).hexdigest()
    assert list(samples["mask"][2:].str.partition(":")[0]) == ["overlay", "none"]


def test_the_other_arrangement_is_the_same_table(tmp_path: Path) -> None:
    fill(tmp_path / "a", THREE)
    turned = {"/".join(reversed(folder.split("/"))): names for folder, names in THREE.items()}
    fill(tmp_path / "b", {folder.upper(): names for folder, names in turned.items()})
    ours, theirs = open_dataset(tmp_path / "a"), open_dataset(tmp_path / "b")
    assert list(theirs["id"].str.lower()) == list(ours["id"].str.lower())
    assert list(theirs["label"]) == list(ours["label"])
    assert (theirs["mask"] == "none").equals(ours["mask"] == "none")
    assert theirs["mask"].str.startswith("overlay:").sum() == 3


def test_masks_go_before_overlays_and_may_be_missing(tmp_path: Path) -> None:
    fill(tmp_path, THREE | {"Bleeding/MASKS": ["10000.png", "77777.png"]})
    (tmp_path / "Bleeding" / "OVERLAY" / "10001.png").unlink()
    masks = open_dataset(tmp_path).set_index("id")["mask"]
    assert masks["Bleeding/10000"] == str(tmp_path / "Bleeding" / "MASKS" / "10000.png")
    assert masks["Bleeding/10001"] == ""  # unknown, and not taken for a slice without a lesion
    assert masks["Normal/10003"] == "none"


def test_masks_of_another_tool_beside_the_classes(tmp_path: Path) -> None:
    fill(tmp_path / "Brain_Stroke_CT_Dataset", THREE)
    fill(tmp_path / "masks", {"Ischemia": ["10002.png"]})
    masks = open_dataset(tmp_path).set_index("id")["mask"]
    assert masks["Ischemia/10002"] == str(tmp_path / "masks" / "Ischemia" / "10002.png")
    assert masks["Bleeding/10000"].startswith("overlay:")


def test_overlays_that_match_nothing_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, THREE)
    for file in (tmp_path / "Ischemia" / "OVERLAY").iterdir():
        file.rename(file.with_name(f"{file.stem}_overlay.png"))
    message = refusal(tmp_path)
    assert "holds 1 overlay, but none is named as a picture of Ischemia, e.g. '10002_overlay'" in message
    # One that matches makes the others leftovers.
    (tmp_path / "Ischemia" / "OVERLAY" / "10002.jpg").write_bytes(b"x")
    assert len(open_dataset(tmp_path)) == 4


def test_pictures_directly_in_a_class_or_as_dicom(tmp_path: Path) -> None:
    fill(
        tmp_path,
        {"Bleeding": ["1.png"], "Bleeding/OVERLAY": ["1.png"], "Ischemia/PNG": [], "Normal": ["3.jpg"]},
    )
    fill(tmp_path, {"Ischemia/DICOM": ["IM0002"]})
    samples = open_dataset(tmp_path)
    assert list(samples["id"]) == ["Bleeding/1", "Ischemia/IM0002", "Normal/3"]
    assert samples["path"][1] == str(tmp_path / "Ischemia" / "DICOM" / "IM0002")
    assert samples["mask"][0].startswith("overlay:")


def test_png_goes_before_dicom_of_the_same_slices(tmp_path: Path) -> None:
    fill(tmp_path, THREE | {"Normal/DICOM": ["10003.dcm", "10004.dcm"]})
    samples = open_dataset(tmp_path)
    assert list(samples["id"])[-1] == "Normal/10003"
    assert samples["path"].str.endswith(".png").all()


def test_what_may_stand_for_two_things_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "a", THREE | {"Bleeding": ["10000.png"]})
    assert "holds pictures both directly, e.g. 10000.png, and in" in refusal(tmp_path / "a")
    fill(tmp_path / "b", THREE | {"Stroke": ["10000.png"]})
    assert "Stroke/ beside Bleeding/ or Ischemia/" in refusal(tmp_path / "b")
    fill(tmp_path / "c", THREE | {"Normal/PNG": ["1.png", "1.jpg"]})
    assert "differ in their suffix only" in refusal(tmp_path / "c")
    fill(tmp_path / "d", THREE | {"normal/PNG": ["1.png"]})
    assert "both Normal/ and normal/" in refusal(tmp_path / "d")
    fill(tmp_path / "e", THREE | {"Bleeding": ["1.png"], "Bleeding/thick": ["1.png"]})
    assert "thick holds pictures" in refusal(tmp_path / "e")


def test_a_class_of_the_three_is_missing(tmp_path: Path) -> None:
    fill(tmp_path, {folder: names for folder, names in THREE.items() if "Ischemia" not in folder})
    message = refusal(tmp_path)
    assert "Bleeding/ has 2 pictures, Normal/ has 1 picture, Ischemia/ is missing; all three" in message
    assert "Bleeding/ is one class; give the folder above it" in refusal(tmp_path / "Bleeding")


def test_overlays_alone_are_no_data_set(tmp_path: Path) -> None:
    fill(
        tmp_path, {"OVERLAY/Bleeding": ["1.png"], "OVERLAY/Ischemia": ["2.png"], "OVERLAY/Normal": ["3.png"]}
    )
    assert "no known layout" in refusal(tmp_path)


def test_a_drawn_set(tmp_path: Path) -> None:
    write_phantom(tmp_path / "drawn", config.Phantom(patients=4, image_size=64, slices_max=8), "strokes")
    samples = open_dataset(tmp_path / "drawn")
    assert samples["patient"].nunique() == 4
    assert set(samples["patient_from"]) == {"table"}
    assert samples["mask"].str.startswith("overlay:").equals(samples["label"] != "normal")
    assert samples["mask_sha256"].ne("").equals(samples["label"] != "normal")
    assert samples["sha256"].is_unique
