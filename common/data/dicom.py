"""DICOM files of one CT slice: Hounsfield units through a CT window, and the few tags of the header that are needed.

The window is the project's (`config.WINDOWS`), never the file's own WindowCenter and WindowWidth: those differ from
file to file, and with them the same tissue would differ in grey.

Sections C.* are those of the DICOM standard, part 3.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian

from common import config
from common.data.images import (
    COPY_AGAIN,
    ImageError,
    check_size,
    checked_file,
    faults_named,
    read_bytes,
    seems_dicom,
    warning_filters_in_use,
)
from common.errors import StudyError

AIR_HU = -1000.0
# Without rescale values, stored values are Hounsfield units only if there is air: a hundredth of the slice within
# this range, which the usual paddings (-2000, -3024) and values that lack their intercept of -1024 are not in.
AIR_RANGE_HU = (-1100, -500)
AIR_SHARE = 0.01
ISOTROPIC = 0.01  # sides of a pixel that differ by no more are one number
PIXEL_MM = (0.01, 10.0)  # sides that a pixel of a CT slice can have: a head of 512 px to one of 20 px
HOUNSFIELD_TYPES = ("", "HU", "HU_MOD", "US")  # of RescaleType; US: unspecified
EXPORT_AGAIN = "export the slice again, or give it as an 8-bit grey PNG"
SPLIT = "save each slice as a file of its own"
DECOMPRESS = "pip install 'pylibjpeg[all]', or store it uncompressed (gdcmconv --raw does)"
HEADER_TAGS = ["PatientID", "SeriesInstanceUID", "StudyInstanceUID", "Rows", "Columns", "PixelSpacing"]


@dataclass(frozen=True)
class DicomHeader:
    """Whose slice it is and how large; empty or None where the file does not say."""

    patient: str  # PatientID
    series: str  # SeriesInstanceUID, else StudyInstanceUID
    rows: int
    columns: int
    pixel_mm: float | None  # PixelSpacing; None also where its two sides differ by more than 1 %


def is_dicom(path: str | Path) -> bool:
    """Whether to read a file as DICOM: by its suffix or first bytes. False for what cannot be opened."""
    path = Path(path)
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return False
        with path.open("rb") as stream:
            return seems_dicom(path, stream.read(132))
    except OSError:
        return False


def read_dicom_header(path: str | Path) -> DicomHeader:
    """The header without the pixels. Raises ImageError for what is no DICOM file of a picture."""
    path = Path(path)
    with checked_file(path):
        stream = path.open("rb")
    with stream, faults_named(path), _quiet_pydicom():
        data = _parse(path, stream.read(), HEADER_TAGS)
        rows, columns = _size(path, data)
        series = _text(data, "SeriesInstanceUID") or _text(data, "StudyInstanceUID")
        return DicomHeader(_text(data, "PatientID"), series, rows, columns, _pixel_mm(data))


def read_dicom(path: str | Path, window: str = config.DICOM_WINDOW) -> NDArray[np.uint8]:
    """A CT slice as grey values, uint8 (H, W): 0 at the lower end of the window (a name of `config.WINDOWS`) and
    below, 255 at its upper end and above, linear between; black and white exchanged for MONOCHROME1.

    Raises ImageError for everything that is no single sound CT slice.
    """
    if window not in config.WINDOWS:
        raise StudyError(f"there is no CT window {window!r}; take one of {', '.join(config.WINDOWS)}")
    path = Path(path)
    file = read_bytes(path)
    with faults_named(path):
        with _quiet_pydicom():
            data = _parse(path, file)
            _check_picture(path, data)
            _check_storage(path, data)
            hounsfield = _hounsfield(path, data, _decoded(path, data))
        centre, width = config.WINDOWS[window]
        shade = np.clip((hounsfield - (centre - width / 2)) / width, 0, 1)
        # The lowest value is meant to be seen as white (C.7.6.3.1.2).
        if data.PhotometricInterpretation == "MONOCHROME1":
            shade = 1 - shade
        return np.rint(shade * 255).astype(np.uint8)


@contextmanager
def _quiet_pydicom() -> Iterator[None]:
    """pydicom warns of many harmless breaches of the standard; what matters is checked here."""
    with warning_filters_in_use, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# --- the file -----------------------------------------------------------------------------------------------------


class _Patience(io.BytesIO):
    """A file in memory that may be read a limited number of times: pydicom reads each element by itself, and a header
    of millions, nested or not, is no CT slice's.
    """

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > config.MAX_FILE_PARTS:
            raise ValueError(f"its header has more than {config.MAX_FILE_PARTS} parts")
        return super().read(size)


def _parse(path: Path, file: bytes, tags: list[str] | None = None) -> Dataset:
    """The data set; with `tags`, those only and nothing behind the pixels."""
    try:
        # The whole file would be inflated before any size is known.
        if _is_deflated(file):
            raise ImageError(path, "is deflated as a whole", "store it uncompressed (dcmconv +te does)")
        return pydicom.dcmread(_Patience(file), stop_before_pixels=tags is not None, specific_tags=tags)
    except InvalidDicomError:
        fault = "is no DICOM file (the letters DICM are not at byte 128)"
        raise ImageError(path, fault, "if it is DICOM without file header, dcmconv adds one") from None


def _is_deflated(file: bytes) -> bool:
    """By the file's meta information (part 10, 7.1) as `pydicom.dcmread` will understand it: whatever lies before the
    syntax, of several the last. A reader of our own would differ from it on some odd file.
    """
    stream = _Patience(file)
    read_preamble(stream, force=False)
    meta = _read_file_meta_info(stream)
    return bool(meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian)


def _size(path: Path, data: Dataset) -> tuple[int, int]:
    """(rows, columns)."""
    rows, columns = data.get("Rows"), data.get("Columns")
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise ImageError(path, "holds no picture (no Rows and Columns)", "give the DICOM file of a CT slice")
    return rows, columns


def _check_picture(path: Path, data: Dataset) -> None:
    """Raises ImageError unless the header describes one grey CT slice of a sensible size."""
    rows, columns = _size(path, data)
    check_size(path, columns, rows)
    modality, frames = _text(data, "Modality"), int(data.get("NumberOfFrames") or 1)
    if modality not in ("", "CT"):
        raise ImageError(path, f"is of modality {modality}, not CT", "give CT slices")
    if "LOCALIZER" in (data.get("ImageType") or ()):
        raise ImageError(path, "is a localizer, not a slice (ImageType)", "leave it out")
    if frames > 1:
        raise ImageError(path, f"holds {frames} frames", SPLIT)
    kind, samples = _text(data, "PhotometricInterpretation"), data.get("SamplesPerPixel")
    if samples != 1 or kind not in ("MONOCHROME1", "MONOCHROME2"):
        fault = (
            f"is no grey picture (PhotometricInterpretation {kind or 'absent'}, SamplesPerPixel {samples})"
        )
        raise ImageError(path, fault, "give the plain slice instead")
    if "PixelData" not in data:
        raise ImageError(path, "has no pixels (PixelData)", COPY_AGAIN)


def _check_storage(path: Path, data: Dataset) -> None:
    """Raises ImageError for pixels that pydicom would not decode, or not rightly."""
    syntax = data.file_meta.get("TransferSyntaxUID")
    for tag, value in (
        ("TransferSyntaxUID", syntax),
        *((tag, data.get(tag)) for tag in ("BitsAllocated", "BitsStored", "PixelRepresentation")),
    ):
        if value is None:
            raise ImageError(path, f"has no {tag}, without which its pixels cannot be read", EXPORT_AGAIN)
    high = data.get("HighBit")
    if high not in (None, data.BitsStored - 1):  # must be so (C.7.6.3); pydicom takes it for granted
        raise ImageError(path, f"has HighBit {high} with {data.BitsStored} BitsStored", EXPORT_AGAIN)
    expected = math.ceil(data.Rows * data.Columns * data.BitsAllocated / 8)
    # Compressed data may be longer, but not much; more would be decoded before it is seen to be too long.
    most = 2 * expected + (2**16 if syntax.is_encapsulated else -1)
    if len(data.PixelData) > most:
        fault = f"has {len(data.PixelData)} bytes of pixels, where Rows x Columns are {expected}"
        raise ImageError(path, fault, SPLIT)
    if syntax.is_encapsulated:
        try:
            decodable = get_decoder(syntax).is_available
        except NotImplementedError:  # private, video, or newer than pydicom
            decodable = False
        if not decodable:
            fault = f"is compressed ({syntax.name}), and no decoder for it is installed"
            raise ImageError(path, fault, DECOMPRESS)


def _decoded(path: Path, data: Dataset) -> NDArray[Any]:
    """The stored values, (rows, columns)."""
    try:
        stored = pixel_array(data)
    except RuntimeError as error:  # no decoder could, e.g. 12-bit JPEG with Pillow alone
        fault = f"is compressed ({data.file_meta.TransferSyntaxUID.name}) and could not be decoded"
        raise ImageError(path, fault, f"{COPY_AGAIN}; if it is sound, {DECOMPRESS}") from error
    if stored.shape != (data.Rows, data.Columns):
        raise ImageError(path, f"holds {len(stored)} frames", SPLIT)
    return stored


# --- values -------------------------------------------------------------------------------------------------------


def _hounsfield(path: Path, data: Dataset, stored: NDArray[Any]) -> NDArray[np.float64]:
    """(H, W) in Hounsfield units; what is outside of the scan is air. Raises ImageError where units are in doubt."""
    padding = _is_padding(data, stored)
    slope, intercept = _number(path, data, "RescaleSlope"), _number(path, data, "RescaleIntercept")
    lowest, highest = AIR_RANGE_HU
    if slope is None or intercept is None:
        if np.mean((stored >= lowest) & (stored <= highest) & ~padding) < AIR_SHARE:
            absent = "RescaleSlope" if slope is None else "RescaleIntercept"
            fault = (
                f"has no {absent}, and its values ({stored.min()} to {stored.max()}) are no Hounsfield units"
            )
            raise ImageError(path, fault, EXPORT_AGAIN)
        slope, intercept = 1.0, 0.0
    kind = _text(data, "RescaleType")
    if slope == 0 or kind not in HOUNSFIELD_TYPES:
        fault = f"has no Hounsfield units (RescaleType {kind or 'absent'}, RescaleSlope {slope:g})"
        raise ImageError(path, fault, "give the plain CT slice instead")
    hounsfield = stored * slope + intercept
    if data.PixelRepresentation == 0 and slope > 0 and intercept > highest:  # no value can be air
        if data.BitsStored <= 8:
            fault = f"has {data.BitsStored} bits from {intercept:g} HU on: a picture that went through a window before"
            raise ImageError(path, fault, EXPORT_AGAIN)
        if np.mean((stored >= 2 ** (data.BitsStored - 1)) & ~padding) > AIR_SHARE:
            fault = "has no value for air but many huge ones: signed values that PixelRepresentation calls unsigned"
            raise ImageError(path, fault, "set PixelRepresentation to 1, or " + EXPORT_AGAIN)
    hounsfield[padding] = AIR_HU
    return hounsfield


def _is_padding(data: Dataset, stored: NDArray[Any]) -> NDArray[np.bool_]:
    """Where the slice is filled up: PixelPaddingValue, or all from it to PixelPaddingRangeLimit (C.7.5.1.1.2)."""
    first = data.get("PixelPaddingValue")
    last = data.get("PixelPaddingRangeLimit")
    if not isinstance(first, int):
        return np.zeros(stored.shape, dtype=bool)
    # Often written as unsigned where the pixels are signed: 63536 for -2000.
    ends = np.array([first, last if isinstance(last, int) else first]).astype(stored.dtype)
    return (stored >= ends.min()) & (stored <= ends.max())


def _number(path: Path, data: Dataset, tag: str) -> float | None:
    """A finite number; None where the tag is absent or empty."""
    try:
        value = data.get(tag)
        if value is None or value == "":
            return None
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ImageError(path, f"has no number as {tag}", EXPORT_AGAIN)
    return number


def _text(data: Dataset, tag: str) -> str:
    value = data.get(tag)
    return "" if value is None else str(value).strip()


def _pixel_mm(data: Dataset) -> float | None:
    try:
        sides = [float(side) for side in data.get("PixelSpacing") or ()]
    except (TypeError, ValueError):
        return None
    lowest, highest = PIXEL_MM
    if len(sides) != 2 or not all(lowest <= side <= highest for side in sides):
        return None
    return sum(sides) / 2 if max(sides) <= min(sides) * (1 + ISOTROPIC) else None
