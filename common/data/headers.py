"""What DICOM headers say of pictures: whose they are, and how large a pixel is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from common.data.folders import DICOM_SUFFIXES
from common.data.images import ImageError, picture_shape

if TYPE_CHECKING:
    from common.data.dicom import DicomHeader

NAME_DIGITS = 12  # of a digest; 48 bits keep 10,000 patients apart (chance of two alike: 2e-7)


def read_headers(files: Mapping[str, Path]) -> dict[str, DicomHeader]:
    """Sample id -> header of its DICOM file; those that cannot be read are left out."""
    if not files:
        return {}
    from common.data.dicom import read_dicom_header  # pydicom is loaded only where there is a DICOM file

    headers = {}
    for sample_id, file in files.items():  # one by one: pydicom's warnings are silenced for the whole process
        with suppress(ImageError):
            headers[sample_id] = read_dicom_header(file)
    return headers


def patients_from_headers(
    sample_ids: Sequence[str], headers: Mapping[str, DicomHeader]
) -> dict[str, str] | None:
    """Sample id -> patient, a digest, for the headers' own ids may be private; None where the headers do not tell.

    By PatientID, else by series. Either tells only if every picture has one, and if it is neither the same for all nor
    another for each (as anonymisers leave it).
    """
    if not all(sample_id in headers for sample_id in sample_ids):
        return None
    for values in (
        [headers[sample_id].patient for sample_id in sample_ids],
        [headers[sample_id].series for sample_id in sample_ids],
    ):
        if all(values) and 1 < len(set(values)) < len(values):
            return {key: _digest(value) for key, value in zip(sample_ids, values, strict=True)}
    return None


def pixel_mm(picture: Path, header: DicomHeader | None) -> str:
    """The side of a pixel in mm for the sample table, or nothing: a converted picture has the pixels of its DICOM file
    only if it has its size.
    """
    if header is None or header.pixel_mm is None:
        return ""
    # A DICOM file's own header has told: reading it as a picture would be for nothing
    shape = None if picture.suffix.casefold() in DICOM_SUFFIXES else picture_shape(picture)
    return f"{header.pixel_mm:.6g}" if shape in (None, (header.rows, header.columns)) else ""


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()[:NAME_DIGITS]
