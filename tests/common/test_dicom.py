"""A DICOM slice is its Hounsfield units through a window, however it is stored; what is in doubt is a named error."""

import contextlib
import io
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_fixture import ABSENT, ct_slice, dicom_bytes
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from common import config
from common.data.dicom import DicomHeader, is_dicom, read_dicom, read_dicom_header
from common.data.images import ImageError, read_image, read_mask
from common.errors import StudyError

HEIGHT, WIDTH = 24, 32
SHADES = {  # HU -> grey of the brain window, 0 to 80 HU
    -1000: 0,
    -1: 0,
    0: 0,
    10: 32,  # 31.875
    32: 102,
    60: 191,  # 191.25
    79: 252,  # 251.8
    80: 255,
    1500: 255,
}
HOUNSFIELD = np.resize(np.array(list(SHADES), np.int16), (HEIGHT, WIDTH))
GREY = np.resize(np.array(list(SHADES.values()), np.uint8), (HEIGHT, WIDTH))


def slice_of(stored: np.ndarray = HOUNSFIELD, **tags: Any) -> pydicom.Dataset:
    return ct_slice(stored, **tags)


def written(folder: Path, data: pydicom.Dataset | bytes, name: str = "slice.dcm") -> Path:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else dicom_bytes(data))
    return path


def error_of(path: Path) -> ImageError:
    """It must name the file, hold a fault and a remedy, and be one line."""
    with pytest.raises(ImageError) as caught:
        read_dicom(path)
    error = caught.value
    assert str(error) == f"{path} {error.fault}; {error.remedy}"
    assert "\n" not in str(error)
    return error


def in_syntax(syntax: uid.UID, frame: bytes | None = None) -> pydicom.Dataset:
    """The slice in another transfer syntax, or with one compressed frame."""
    data = slice_of(HOUNSFIELD.astype(">i2") if syntax == uid.ExplicitVRBigEndian else HOUNSFIELD)
    data.file_meta.TransferSyntaxUID = syntax
    if frame is not None:
        data.PixelData = encapsulate([frame])
        data["PixelData"].is_undefined_length = True
    return data


def jpeg_2000() -> bytes:
    stream = io.BytesIO()
    offset = (HOUNSFIELD.astype(np.int32) + 2**15).astype(np.uint16)
    Image.fromarray(offset).save(stream, "JPEG2000", no_jp2=True)  # reversible by default
    return stream.getvalue()


# --- what is read -------------------------------------------------------------------------------------------------


def same_slices() -> dict[str, pydicom.Dataset]:
    wide = HOUNSFIELD.astype(np.int32)
    beyond = np.array([0, 0xF000], np.uint16)[(np.arange(HEIGHT * WIDTH) % 2).reshape(HEIGHT, WIDTH)]
    signed_12 = (wide.astype(np.int16).view(np.uint16) & 0x0FFF) | beyond
    unsigned_12 = (wide + 1024).astype(np.uint16) | beyond
    twelve = {"BitsStored": 12, "HighBit": 11}
    rle = slice_of()
    rle.compress(uid.RLELossless, generate_instance_uid=False)
    unsigned_jpeg_2000 = in_syntax(uid.JPEG2000Lossless, jpeg_2000())
    unsigned_jpeg_2000.PixelRepresentation, unsigned_jpeg_2000.RescaleIntercept = 0, -(2**15)
    return {
        "signed": slice_of(),
        "unsigned": slice_of((wide + 1024).astype(np.uint16), RescaleIntercept=-1024),
        "slope": slice_of((wide * 2).astype(np.int16), RescaleSlope=0.5),
        "slope and intercept": slice_of(
            (wide * 2 + 2048).astype(np.uint16), RescaleSlope=0.5, RescaleIntercept=-1024
        ),
        "negative slope": slice_of((1500 - wide).astype(np.uint16), RescaleSlope=-1, RescaleIntercept=1500),
        "32 bits": slice_of(wide),
        "12 bits, signed": slice_of(signed_12, PixelRepresentation=1, **twelve),
        "12 bits, unsigned": slice_of(unsigned_12, RescaleIntercept=-1024, **twelve),
        "no modality": slice_of(Modality=ABSENT),
        "its own windows": slice_of(WindowCenter=[600, 40], WindowWidth=[2000, 400]),
        "implicit": in_syntax(uid.ImplicitVRLittleEndian),
        "big endian": in_syntax(uid.ExplicitVRBigEndian),
        "run lengths": rle,
        "jpeg 2000": unsigned_jpeg_2000,
        "no rescale values": slice_of(RescaleSlope=ABSENT, RescaleIntercept=ABSENT),
        "empty rescale values": slice_of(RescaleSlope=None, RescaleIntercept=None),
        "units said": slice_of(RescaleType="HU"),
        "no high bit": slice_of(HighBit=ABSENT),
    }


@pytest.mark.parametrize("kind", same_slices())
def test_the_same_slice_however_stored(tmp_path: Path, kind: str) -> None:
    image = read_dicom(written(tmp_path, same_slices()[kind]))
    assert image.dtype == np.uint8
    assert image.flags.writeable
    np.testing.assert_array_equal(image, GREY)


def test_every_window_runs_from_black_to_white(tmp_path: Path) -> None:
    path = written(tmp_path, slice_of(np.resize(np.arange(-50, 151, dtype=np.int16), (HEIGHT, WIDTH))))
    for name, (low, high) in {"brain": (0, 80), "stroke": (20, 60), "stroke_narrow": (28, 36)}.items():
        image = read_dicom(path, name).ravel()[:201]
        expected = np.interp(np.arange(-50, 151), [low, high], [0, 255])
        np.testing.assert_allclose(image, expected, atol=0.5001)
        assert (image[50 + low], image[50 + high]) == (0, 255)
        assert image[50 + low + 1] > 0
        assert image[50 + high - 1] < 255
    assert set(config.WINDOWS) == {"brain", "stroke", "stroke_narrow"}
    with pytest.raises(StudyError, match="no CT window 'bone'; take one of brain, stroke"):
        read_dicom(path, "bone")


def test_where_low_values_are_meant_white(tmp_path: Path) -> None:
    image = read_dicom(written(tmp_path, slice_of(PhotometricInterpretation="MONOCHROME1")))
    np.testing.assert_allclose(
        image.astype(int), 255 - GREY.astype(int), atol=1
    )  # a tie may round the other way


@pytest.mark.parametrize(
    ("padding", "limit", "vr"),
    [(32, None, "SS"), (-2000, None, "SS"), (63536, None, "US"), (31, 33, "SS"), (33, 31, "SS")],
)
def test_padding_is_air_even_within_the_window(
    tmp_path: Path, padding: int, limit: int | None, vr: str
) -> None:
    """63536 is -2000 as an unsigned number, a usual slip."""
    filled = -2000 if padding in (-2000, 63536) else 32
    stored = np.where(HOUNSFIELD == 32, filled, HOUNSFIELD).astype(np.int16)
    data = slice_of(
        stored, RescaleIntercept=0 if filled == 32 else 3000
    )  # unless it is known, it comes out white
    data.add_new("PixelPaddingValue", vr, padding)
    if limit is not None:
        data.add_new("PixelPaddingRangeLimit", vr, limit)
    image = read_dicom(written(tmp_path, data))
    assert (image[HOUNSFIELD == 32] == 0).all()
    assert (image[HOUNSFIELD == 1500] == 255).all()


def test_pictures_are_read_as_dicom_by_suffix_or_first_bytes(tmp_path: Path) -> None:
    for name in ("a.dcm", "a.DCM", "a.ima", "a", "a.png"):
        path = written(tmp_path, slice_of(), name)
        assert is_dicom(path)
        np.testing.assert_array_equal(read_image(path), GREY)
    named = tmp_path / "b.dcm"
    Image.fromarray(GREY).save(named, "PNG")
    assert is_dicom(named)
    with pytest.raises(ImageError, match="is no DICOM file"):
        read_image(named)


def test_what_is_not_dicom(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.fromarray(GREY).save(picture)
    (tmp_path / "folder.dcm").mkdir()
    for path in (picture, tmp_path / "missing.dcm", tmp_path / "folder.dcm", tmp_path / "nul\0.dcm"):
        assert not is_dicom(path)
    (tmp_path / "empty").write_bytes(b"")
    assert not is_dicom(tmp_path / "empty")


def test_a_slice_is_no_mask(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is no JPEG"):
        read_mask(written(tmp_path, slice_of()), (HEIGHT, WIDTH))


def test_pydicom_is_loaded_for_dicom_files_only(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    written(tmp_path, slice_of(), "a.dcm")
    code = (
        "import sys; from common.data.images import read_image\n"
        "for path in sys.argv[1:]: read_image(path); print('pydicom' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.png"), str(tmp_path / "a.dcm")]
    answer = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert answer.stdout.split() == ["False", "True"]


# --- what is refused ----------------------------------------------------------------------------------------------

RAW = (HOUNSFIELD.astype(np.int32) + 1024).astype(np.int16)
GE_RAW = np.where(HOUNSFIELD == -1000, -2000, RAW).astype(np.int16)  # filled up with -2000 around
WRAPPED = (np.where(HOUNSFIELD < 0, HOUNSFIELD.astype(np.int32) + 4096, HOUNSFIELD)).astype(np.uint16)


def faulty() -> dict[str, tuple[pydicom.Dataset | bytes, str, str]]:
    """Name -> (file, words of the fault, words of the remedy)."""
    colour = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    rgb = slice_of(PhotometricInterpretation="RGB", SamplesPerPixel=3, PlanarConfiguration=0)
    rgb.Rows, rgb.Columns, rgb.BitsAllocated, rgb.BitsStored, rgb.HighBit = HEIGHT, WIDTH, 8, 8, 7
    rgb.PixelRepresentation, rgb.PixelData = 0, colour.tobytes()
    frames = np.stack([HOUNSFIELD] * 3)
    deflated = slice_of()
    deflated.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    bare = {"RescaleSlope": ABSENT, "RescaleIntercept": ABSENT}
    padded = slice_of(np.where(GE_RAW == -2000, -1000, GE_RAW).astype(np.int16), **bare)
    padded.add_new("PixelPaddingValue", "SS", -1000)
    export = "export the slice again"
    return {
        "empty": (b"", "is empty", "copy it again"),
        "foreign": (b"not a picture" * 30, "is no DICOM file", "dcmconv"),
        "no file header": (dicom_bytes(slice_of())[132:], "is no DICOM file", "dcmconv"),
        "no size": (slice_of(Rows=ABSENT), "no Rows and Columns", "of a CT slice"),
        "no pixels": (slice_of(PixelData=ABSENT), "has no pixels (PixelData)", "copy it again"),
        "colour": (rgb, "no grey picture (PhotometricInterpretation RGB, SamplesPerPixel 3)", "plain slice"),
        "palette": (slice_of(PhotometricInterpretation="PALETTE COLOR"), "PALETTE COLOR", "plain slice"),
        "frames": (slice_of(frames, NumberOfFrames=3), "holds 3 frames", "file of its own"),
        "frames, unsaid": (slice_of(frames), f"{frames.nbytes} bytes of pixels", "file of its own"),
        "half a slice": (slice_of(PixelData=HOUNSFIELD.tobytes()[:700]), "damaged", "copy it again"),
        "another modality": (slice_of(Modality="MR"), "modality MR, not CT", "CT slices"),
        "scout": (slice_of(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer", "leave it out"),
        "too small": (slice_of(np.zeros((15, 40), np.int16)), "40 x 15 px", "full-size"),
        "too large": (slice_of(Rows=9000, Columns=9000), "9000 x 9000 px", "right file"),
        "deflated": (deflated, "deflated", "uncompressed"),
        "no decoder": (
            in_syntax(uid.JPEGLosslessSV1, b"\xff\xd8\xff\xd9"),
            "is compressed (JPEG Lossless, Non-Hierarchical, First-Order Prediction",
            "pylibjpeg",
        ),
        "no decoder anywhere": (in_syntax(uid.MPEG2MPML, b"\0\0\1\xb3"), "no decoder for it", "uncompressed"),
        "12-bit jpeg": (
            in_syntax(uid.JPEGExtended12Bit, b"\xff\xd8\xff\xd9"),
            "could not be decoded",
            "pylibjpeg",
        ),
        "damaged jpeg 2000": (in_syntax(uid.JPEG2000, jpeg_2000()[:90]), "could not be decoded", "copy it"),
        "compressed bomb": (
            in_syntax(uid.RLELossless, bytes(2**18)),
            "bytes of pixels, where Rows x Columns are 1536",
            "file of its own",
        ),
        "high bit": (slice_of(BitsStored=12, HighBit=15), "HighBit 15 with 12 BitsStored", export),
        "no bits": (slice_of(BitsStored=ABSENT), "has no BitsStored", export),
        "no sign": (slice_of(PixelRepresentation=ABSENT), "has no PixelRepresentation", export),
        "no slope": (
            slice_of(RAW, RescaleSlope=ABSENT),
            "has no RescaleSlope, and its values (24 to 2524)",
            export,
        ),
        "no intercept": (slice_of(RAW, RescaleIntercept=ABSENT), "has no RescaleIntercept", export),
        "filling is no air": (slice_of(GE_RAW, **bare), "are no Hounsfield units", export),
        "padding is no air": (padded, "are no Hounsfield units", export),
        "slope 0": (slice_of(RescaleSlope=0), "RescaleSlope 0", "plain CT slice"),
        "no hounsfield units": (
            slice_of(RescaleType="EFF_ATOMIC_NUM"),
            "RescaleType EFF_ATOMIC_NUM",
            "plain CT",
        ),
        "windowed before": (slice_of(GREY), "8 bits from 0 HU on", export),
        "sign lost": (slice_of(WRAPPED, BitsStored=12, HighBit=11), "PixelRepresentation", "to 1"),
    }


@pytest.mark.parametrize("kind", faulty())
def test_named_faults(tmp_path: Path, kind: str) -> None:
    data, fault, remedy = faulty()[kind]
    path = written(tmp_path, data)
    error = error_of(path)
    assert fault in error.fault
    assert remedy in error.remedy
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(caught.value) == str(error)


@pytest.mark.parametrize("kind", ["late", "twice", "text before", "implicit"])
def test_a_deflated_file_is_found_however_its_header_hides_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """pydicom would inflate all of it, to a thousand times its size."""
    monkeypatch.setattr(zlib, "decompress", lambda *_: pytest.fail("it was inflated"))
    whole = dicom_bytes(faulty()["deflated"][0])  # type: ignore[arg-type]
    plain = str(uid.ExplicitVRLittleEndian).encode() + b"\0"
    implicit = b"\x02\0\x10\0" + struct.pack("<L", 22) + uid.DeflatedExplicitVRLittleEndian.encode()
    before = {
        "late": b"\x02\0\x02\x01OB\0\0" + struct.pack("<L", 60_000) + bytes(60_000),
        "twice": b"\x02\0\x10\0UI" + struct.pack("<H", len(plain)) + plain,
        "text before": b"\x02\0\x02\x01UC\0\0" + struct.pack("<L", 8) + b"\x02\0\x10\0UI\0\0",
    }
    start = whole[:132] + before.get(kind, b"")
    path = written(tmp_path, start + (implicit + b"\x4b\x4c" * 50 if kind == "implicit" else whole[132:]))
    assert "is deflated as a whole" in error_of(path).fault
    with pytest.raises(ImageError, match="is deflated as a whole"):
        read_dicom_header(path)


def test_numbers_that_are_none(tmp_path: Path) -> None:
    for tag, text in (("RescaleSlope", b"1.0"), ("RescaleIntercept", b"-24")):
        whole = dicom_bytes(slice_of(**{tag: text.decode()}))
        for wrong in (b"abc ", b"nan ", b"inf "):
            field = text + b" "
            assert whole.count(field) == 1
            path = written(tmp_path, whole.replace(field, wrong))
            assert error_of(path).fault == f"has no number as {tag}"


def test_files_that_are_none(tmp_path: Path) -> None:
    for read in (read_dicom, read_dicom_header):
        with pytest.raises(ImageError, match="does not exist"):
            read(tmp_path / "missing.dcm")
        with pytest.raises(ImageError, match="is a folder"):
            read(tmp_path)
        path = tmp_path / "huge.dcm"
        with path.open("wb") as stream:
            stream.truncate(config.MAX_FILE_BYTES + 1)  # sparse
        with pytest.raises(ImageError, match="MiB allowed"):
            read(path)
        path.unlink()


@pytest.mark.parametrize("kind", ["signed", "implicit", "run lengths", "jpeg 2000"])
def test_every_truncation_is_an_error(tmp_path: Path, kind: str) -> None:
    whole = dicom_bytes(same_slices()[kind])
    for length in sorted({*range(0, len(whole), 61), *range(len(whole) - 12, len(whole))}):
        path = written(tmp_path, whole[:length])
        try:
            image = read_dicom(path)
        except ImageError:
            continue
        assert len(whole) - length <= 8  # the delimiter behind compressed pixels
        np.testing.assert_array_equal(image, GREY)


SOUND = {kind: dicom_bytes(data) for kind, data in same_slices().items()}


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(SOUND[draw(st.sampled_from(sorted(SOUND)))])
    header = len(data) - HOUNSFIELD.nbytes
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(132, max(header, 400)) | st.integers(0, len(data)))
        length = draw(st.integers(0, 8))
        data[place : place + length] = draw(st.binary(max_size=8))
    return bytes(data)


@given(data=mutated())
def test_nothing_but_image_error_comes_out_of_bad_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = written(tmp_path_factory.getbasetemp(), data, "mutated.dcm")
    with contextlib.suppress(ImageError):
        image = read_dicom(path)
        assert image.dtype == np.uint8
        assert min(image.shape) >= config.MIN_IMAGE_PX
    with contextlib.suppress(ImageError):
        assert isinstance(read_dicom_header(path), DicomHeader)


# --- the header ---------------------------------------------------------------------------------------------------


def header_of(folder: Path, **tags: Any) -> DicomHeader:
    return read_dicom_header(written(folder, slice_of(**tags)))


def test_what_the_header_says(tmp_path: Path) -> None:
    full = {"PatientID": "P 7", "SeriesInstanceUID": "1.2.5", "StudyInstanceUID": "1.2.4"}
    header = header_of(tmp_path, PixelSpacing=[0.48828125, 0.48828125], **full)
    assert header == DicomHeader("P 7", "1.2.5", HEIGHT, WIDTH, 0.48828125)
    assert header_of(tmp_path) == DicomHeader("", "", HEIGHT, WIDTH, None)
    assert header_of(tmp_path, PatientID="", SeriesInstanceUID="", StudyInstanceUID="1.2.4").series == "1.2.4"
    assert header_of(tmp_path, PatientID=None).patient == ""


def test_a_pixel_has_one_side_only_if_it_is_square(tmp_path: Path) -> None:
    assert header_of(tmp_path, PixelSpacing=[0.5, 0.504]).pixel_mm == pytest.approx(0.502)
    for sides in ([0.5, 0.51], [0.51, 0.5], [0, 0], [-0.5, -0.5], None):
        assert header_of(tmp_path, PixelSpacing=sides).pixel_mm is None
    whole = dicom_bytes(slice_of(PixelSpacing=["0.51", "0.51"]))
    for wrong in (b"0.5x\\0.51", b"0.51     ", b"NaN\\NaN  "):
        assert read_dicom_header(written(tmp_path, whole.replace(b"0.51\\0.51", wrong))).pixel_mm is None


def test_a_header_is_read_without_its_pixels(tmp_path: Path) -> None:
    whole = dicom_bytes(slice_of(PatientID="A"))
    path = written(tmp_path, whole[: whole.index(HOUNSFIELD.tobytes())])
    assert read_dicom_header(path).patient == "A"
    assert "0 vs 1536 bytes" in error_of(path).fault
    unsupported = written(tmp_path, in_syntax(uid.JPEGLosslessSV1, b"\xff\xd8\xff\xd9"))
    assert read_dicom_header(unsupported).rows == HEIGHT


def test_a_header_of_no_picture_is_refused(tmp_path: Path) -> None:
    for data, fault in (
        (b"", "is no DICOM"),
        (b"x" * 500, "is no DICOM file"),
        (slice_of(Columns=ABSENT), "no Rows and Columns"),
    ):
        with pytest.raises(ImageError, match=fault):
            read_dicom_header(written(tmp_path, data))


# --- manners ------------------------------------------------------------------------------------------------------


def test_breaches_that_do_no_harm_are_passed_over_in_silence(tmp_path: Path) -> None:
    """Warnings are errors here: a warning of pydicom's would fail the reading."""
    data = slice_of(PatientID="ABCD", SeriesInstanceUID="1.2.345678", SpecificCharacterSet="ISO_IR 100")
    long = "1.00000000000000000000"  # more than the 16 characters allowed
    data["RescaleSlope"] = pydicom.DataElement(
        "RescaleSlope", "DS", long, validation_mode=pydicom.config.IGNORE
    )
    slips = dicom_bytes(data).replace(b"1.2.345678", b"1.02.x/y..").replace(b"ISO_IR 100", b"NO_SUCH_01")
    assert long.encode() in slips
    path = written(tmp_path, slips)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning):  # so it does warn
            _ = pydicom.dcmread(path).PatientID
        header = read_dicom_header(path)
        np.testing.assert_array_equal(read_dicom(path), GREY)
    assert (header.patient, header.series) == ("ABCD", "1.02.x/y..")


def test_threads_leave_the_warning_filters_alone(tmp_path: Path) -> None:
    dicom, picture = written(tmp_path, slice_of()), tmp_path / "a.png"
    Image.fromarray(GREY).save(picture)
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        for image in pool.map(read_image, [dicom, picture] * 40):
            np.testing.assert_array_equal(image, GREY)
    assert warnings.filters == before
