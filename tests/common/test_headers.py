"""What DICOM headers are believed: patients only if they tell slices apart, sizes only of the same grid."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from common.data.dicom import DicomHeader
from common.data.headers import patients_from_headers, pixel_mm, read_headers
from common.data.layouts import open_dataset


def header(patient: str = "", series: str = "", side: int = 32, spacing: float | None = 0.5) -> DicomHeader:
    return DicomHeader(patient=patient, series=series, rows=side, columns=side, pixel_mm=spacing)


def told(**columns: list[str]) -> list[str] | None:
    """The patients of a few slices, numbered in the order of their first slice."""
    headers = {
        str(k): header(**dict(zip(columns, values, strict=True)))
        for k, values in enumerate(zip(*columns.values(), strict=True))
    }
    patients = patients_from_headers(list(headers), headers)
    if patients is None:
        return None
    names = list(dict.fromkeys(patients.values()))
    return [f"p{names.index(patient)}" for patient in patients.values()]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"patient": ["A", "B", "A"]}, ["p0", "p1", "p0"]),
        ({"patient": ["A", "B", "A"], "series": ["1", "1", "2"]}, ["p0", "p1", "p0"]),
        ({"patient": ["X", "X", "X"], "series": ["1", "1", "2"]}, ["p0", "p0", "p1"]),  # one name for all
        ({"patient": ["A", "", "A"], "series": ["1", "2", "2"]}, ["p0", "p1", "p1"]),
        ({"patient": ["A", "B", "C"], "series": ["1", "2", "1"]}, ["p0", "p1", "p0"]),  # a name for each
        ({"patient": ["X", "X", "X"], "series": ["1", "2", "3"]}, None),
        ({"patient": ["", "", ""], "series": ["", "1", "1"]}, None),
    ],
)
def test_which_values_tell_patients(columns: dict[str, list[str]], expected: list[str] | None) -> None:
    assert told(**columns) == expected


def test_a_slice_without_header_leaves_all_unknown() -> None:
    headers = {"a": header("A"), "b": header("B"), "c": header("A")}
    assert patients_from_headers(["a", "b", "c"], headers) is not None
    assert patients_from_headers(["a", "b", "c", "d"], headers) is None


def test_ids_of_people_do_not_leave_the_file() -> None:
    headers = {"a": header("DOE^JANE"), "b": header("ROE"), "c": header("ROE")}
    patients = patients_from_headers(["a", "b", "c"], headers)
    assert patients is not None
    assert all(len(name) == 12 and int(name, 16) >= 0 for name in patients.values())


def test_a_pixels_side_holds_for_the_same_grid_only(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(picture)
    assert pixel_mm(picture, header(spacing=0.48828125)) == "0.488281"
    assert pixel_mm(picture, header(side=64)) == ""
    assert pixel_mm(picture, header(spacing=None)) == ""
    assert pixel_mm(picture, None) == ""


def test_files_that_are_no_dicom_have_no_header(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"x")
    assert read_headers({"a": tmp_path / "a.dcm", "b": tmp_path / "none.dcm"}) == {}


def write_dicom(path: Path, patient: str, side: int = 32) -> None:
    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID = (
        pydicom.uid.CTImageStorage,
        pydicom.uid.generate_uid(entropy_srcs=[path.name]),
    )
    data.Modality, data.PatientID, data.SeriesInstanceUID = "CT", patient, f"1.2.{len(patient)}"
    data.Rows = data.Columns = side
    data.PixelSpacing = [0.4, 0.4]
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 1
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.RescaleSlope, data.RescaleIntercept = 1, 0
    data.PixelData = np.zeros((side, side), np.int16).tobytes()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def test_a_set_with_dicom_beside_or_in_place_of_png(tmp_path: Path) -> None:
    for name, patient in (("Bleeding/1", "A"), ("Bleeding/2", "B"), ("Ischemia/3", "A"), ("Normal/4", "B")):
        folder, stem = name.split("/")
        write_dicom(tmp_path / folder / "DICOM" / f"{stem}.dcm", patient)
        if folder != "Ischemia":
            side = 64 if stem == "4" else 32  # one was resized when it was converted
            (tmp_path / folder / "PNG").mkdir(exist_ok=True)
            Image.fromarray(np.zeros((side, side), np.uint8)).save(tmp_path / folder / "PNG" / f"{stem}.png")
    samples = open_dataset(tmp_path)
    assert [Path(path).suffix for path in samples["path"]] == [".png", ".png", ".dcm", ".png"]
    assert set(samples["patient_from"]) == {"dicom"}
    patients = samples["patient"].tolist()
    assert patients[0] == patients[2] != patients[1] == patients[3]
    assert list(samples["pixel_mm"]) == ["0.4", "0.4", "0.4", ""]
