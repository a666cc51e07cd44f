"""The surest source that speaks for every picture says whose it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.data.patients import find_patients
from common.errors import StudyError

NAMED = {"Stroke/58 (1)": "58 (1).jpg", "Stroke/58 (2)": "58 (2).jpg", "Stroke/59 (1)": "59 (1).jpg"}
NAMELESS = {"Bleeding/10": "10.png", "Bleeding/11": "11.png", "Normal/12": "12.png"}


@dataclass(frozen=True)
class Header:
    patient: str
    series: str = ""


def found(
    folder: Path, names: Mapping[str, str], headers: Mapping[str, str] | None = None, names_tell: bool = False
) -> tuple[list[str], str]:
    files = {name: folder / file for name, file in names.items()}
    told = {name: Header(patient) for name, patient in (headers or {}).items()}
    patients, source = find_patients(files, [folder], names_tell, told)  # type: ignore[arg-type]
    return [patients[name] for name in names], source


def test_a_table_goes_before_names_and_headers(tmp_path: Path) -> None:
    (tmp_path / "patients.csv").write_text("image_id,patient,age\n58 (1),a,1\n58 (2),b,2\n59 (1),b,3\n")
    assert found(tmp_path, NAMED, dict.fromkeys(NAMED, "x")) == (["a", "b", "b"], "table")


def test_names_go_before_headers(tmp_path: Path) -> None:
    headers = dict(zip(NAMED, ("x", "y", "y"), strict=True))
    assert found(tmp_path, NAMED, headers) == (["58", "58", "59"], "name")


def test_headers_go_before_likeness(tmp_path: Path) -> None:
    patients, source = found(tmp_path, NAMELESS, dict(zip(NAMELESS, ("x", "y", "x"), strict=True)))
    assert source == "dicom"
    assert patients[0] == patients[2] != patients[1]


@pytest.mark.parametrize("patients", [("x", "x", "x"), ("x", "y", "z"), ("x", "", "x"), ("x", "x")])
def test_headers_that_tell_nothing_leave_it_to_likeness(tmp_path: Path, patients: tuple[str, ...]) -> None:
    headers = dict(zip(NAMELESS, patients, strict=False))
    assert found(tmp_path, NAMELESS, headers) == (list(NAMELESS), "similarity")  # no pictures: like nothing


def test_some_names_tell(tmp_path: Path) -> None:
    mixed = NAMED | {"Stroke/x": "x.jpg"}
    with pytest.raises(StudyError, match=r"1 pictures in .* is unknown, e\.g\. of 'Stroke/x'"):
        found(tmp_path, mixed, names_tell=True)
    assert found(tmp_path, mixed, names_tell=False)[1] == "similarity"
    assert found(tmp_path, NAMELESS, names_tell=True)[1] == "similarity"


def test_a_table_must_name_every_picture(tmp_path: Path) -> None:
    (tmp_path / "patients.csv").write_text("image_id,patient\n10,a\n")
    with pytest.raises(StudyError, match=r"no patient for 2 of 3 pictures, e\.g\. 'Bleeding/11'"):
        found(tmp_path, NAMELESS)
