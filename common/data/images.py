"""Safe decoding and the one resize of the project. A bad file is a named error, never a blank or half a picture.

Pillow is the gate and the decoder: it gives size and format before a pixel is decoded, and refuses truncated data
where OpenCV returns a half-grey picture. OpenCV resizes.

The rules, the same for every file:
- 8 bits stay as they are; 16 bits are divided by 256 (`>> 8`), 12 bits by 16: by the depth of the file, never by the
  picture's own minimum and maximum. Fewer bits are spread over 0..255. Signed, 32-bit and float values have no fixed
  range and are refused, as is a 16-bit file that uses the lowest sixteenth of its range only (12-bit data, unscaled).
- Colour must be grey in disguise: a picture with painted or coloured parts is refused (`config.COLOUR_TOLERANCE`);
  CMYK too. Grey is the ITU-R 601 luma, exact for equal channels.
- Alpha that is the same everywhere is dropped; else the picture is laid on black.
- The rotation that EXIF or TIFF asks for is applied.
- DICOM files go through a CT window (`common.data.dicom`).

What no decoder can see: a byte changed in the middle of a JPEG may give wrong pixels. The digest in the sample table
tells.
"""

from __future__ import annotations

import io
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from common import config
from common.data.containers import odd_container
from common.data.folders import DICOM_SUFFIXES
from common.errors import StudyError
from common.names import printable

FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
_SAVE_AGAIN = "save it again as an 8-bit grey PNG"
COPY_AGAIN = "copy it again from its source"


class ImageError(StudyError):
    """A file that cannot be used as a picture: which, why, and what mends it."""

    def __init__(self, path: str | Path, fault: str, remedy: str) -> None:
        super().__init__(str(path), fault, remedy)  # three arguments, so that it can travel between processes
        self.path, self.fault, self.remedy = str(path), printable(fault), printable(remedy)

    def __str__(self) -> str:
        return f"{printable(self.path)} {self.fault}; {self.remedy}"


class ColouredError(ImageError):
    """A picture with painted or coloured parts, which is no plain CT slice: it may show the answer."""


# --- reading ------------------------------------------------------------------------------------------------------


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """A CT slice as grey values, uint8 (H, W). Raises ImageError for everything that is no sound grey picture."""
    path = Path(path)
    data = read_bytes(path)
    if seems_dicom(path, data):
        from common.data.dicom import read_dicom  # pydicom is loaded only where there is a DICOM file

        return read_dicom(path)
    with faults_named(path):
        values = _channels(_decode(path, data), path)
        if values.ndim == 2:
            return values
        red, green, blue = cv2.split(values)  # whole planes: strided operations are ten times as slow
        spread = cv2.subtract(cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue))
        coloured = int(np.count_nonzero(spread > config.COLOUR_TOLERANCE))
        if coloured > config.COLOUR_PIXELS:
            fault = (
                f"is no grey CT slice: {coloured} of its pixels are coloured (painted lesion or photograph)"
            )
            raise ColouredError(path, fault, "give the plain slice instead")
        if not spread.any():  # the luma of equal channels is their value
            return np.asarray(red, dtype=np.uint8)
        return np.array(Image.fromarray(values).convert("L"))


def read_painted(path: str | Path) -> NDArray[np.uint8]:
    """A picture with its colours, uint8 RGBA (H, W, 4), of a slice with a lesion painted on; else as `read_image`."""
    path = Path(path)
    data = read_bytes(path)
    with faults_named(path):
        picture = _decode(path, data, config.MAX_PAINTED_PX)
        if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
            return np.array(picture.convert("RGBA"))
        return np.array(Image.fromarray(_channels(picture, path)).convert("RGBA"))


def read_mask(path: str | Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """A lesion mask, bool (H, W), of exactly `shape`. Raises ImageError for a bad file or another size.

    A lossless file of at most `config.MASK_LEVELS` values is a label map (0/1, 0/255, 0/1/2/3, palette colours):
    whatever is not black is lesion. More values, or JPEG, are soft edges: lesion is above half of the file's own
    maximum. Nothing is resized, for a mask of another size lies elsewhere.
    """
    path = Path(path)
    data = read_bytes(path)
    with faults_named(path):
        picture = _decode(path, data)
        values = _channels(picture, path, full_depth=True)
        if values.ndim == 3:
            values = values.max(axis=2)
        if values.shape != shape:
            found, wanted = (f"{width} x {height} px" for height, width in (values.shape, shape))
            raise ImageError(path, f"is {found}, its picture {wanted}", "a mask must have its picture's size")
        soft = picture.format == "JPEG" or len(np.unique(values)) > config.MASK_LEVELS
        return values > values.max() / 2 if soft else values > 0


@contextmanager
def faults_named(path: Path) -> Iterator[None]:
    """Nothing but ImageError comes out: on hostile bytes decoders raise nearly anything."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(path, f"is damaged or incomplete ({_reason(error)})", COPY_AGAIN) from error


def seems_dicom(path: Path, data: bytes) -> bool:
    """By the suffix, or the letters DICM after 128 bytes (DICOM part 10, 7.1), of which `data` holds the first 132."""
    return path.suffix.casefold() in DICOM_SUFFIXES or data[128:132] == b"DICM"


def read_bytes(path: Path) -> bytes:
    """All of a file. Raises ImageError for what is no readable file, or an empty or too large one."""
    with checked_file(path):
        data = path.read_bytes()
    if not data:
        raise ImageError(path, "is empty (0 bytes)", COPY_AGAIN)
    return data


def picture_shape(path: Path) -> tuple[int, int] | None:
    """(rows, columns) by the header of a picture's file; None for what is no such file."""
    try:
        data = read_bytes(path)
        if odd_container(data):
            return None
        with _strict_pillow(), Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            return picture.height, picture.width
    except Exception:  # decoders raise nearly anything on damaged files; decoding names the fault later
        return None


@contextmanager
def checked_file(path: Path) -> Iterator[None]:
    """A file that may be opened within: regular and not too large; faults of opening and reading are named."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(path, "is a folder", "name a picture file")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise ImageError(path, "is no regular file", "name a picture file")
        if status.st_size > config.MAX_FILE_BYTES:
            raise ImageError(
                path,
                f"has {status.st_size / 2**20:.0f} MiB, more than the {config.MAX_FILE_BYTES / 2**20:.0f} MiB allowed",
                "a CT slice is far smaller; is it the right file?",
            )
        yield
    except FileNotFoundError:
        raise ImageError(path, "does not exist", "check the path") from None
    except PermissionError:
        raise ImageError(path, "may not be read", "give yourself the permission to read it") from None
    except (OSError, ValueError) as error:
        raise ImageError(path, f"cannot be read ({_reason(error)})", COPY_AGAIN) from error


def check_size(path: Path, width: int, height: int, most: int = config.MAX_IMAGE_PX) -> None:
    """Raises ImageError for a picture too large to decode, or too small to be a slice."""
    if max(width, height) > most:
        fault = f"has {width} x {height} px, but a side may have at most {most} px"
        raise ImageError(path, fault, "a CT slice is far smaller; is it the right file?")
    if min(width, height) < config.MIN_IMAGE_PX:
        fault = f"has {width} x {height} px, but a side must have at least {config.MIN_IMAGE_PX} px"
        raise ImageError(path, fault, "give the full-size picture")


def _decode(path: Path, data: bytes, most_px: int = config.MAX_IMAGE_PX) -> Image.Image:
    """A loaded, upright single-frame Pillow image."""
    picture = _open_checked(path, data, most_px)
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # some library may have switched it on
    picture.load()
    with _strict_pillow():
        ImageOps.exif_transpose(picture, in_place=True)
    return picture


def _open_checked(path: Path, data: bytes, most_px: int) -> ImageFile.ImageFile:
    """The opened picture, not yet decoded, of an allowed format and size and with sound checksums."""
    if odd := odd_container(data):
        raise ImageError(path, odd, _SAVE_AGAIN)
    with _strict_pillow():
        try:
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ImageError(path, f"is too large to decode ({_reason(error)})", _SAVE_AGAIN) from error
        except UnidentifiedImageError:
            raise ImageError(path, f"is no {', '.join(FORMATS)} picture", _SAVE_AGAIN) from None
        check_size(path, *picture.size, most_px)
        # The frames of a TIFF are not counted: there may be millions
        if getattr(picture, "is_animated", False) or (
            picture.format != "TIFF" and getattr(picture, "n_frames", 1) > 1
        ):
            raise ImageError(path, "holds several pictures", "save each as a file of its own")
        if picture.format != "PNG":
            return picture
        picture.verify()  # its checksums: load() would decode a flipped bit into wrong pixels
        return Image.open(io.BytesIO(data), formats=FORMATS)


warning_filters_in_use = threading.Lock()  # held by whoever changes them: they are the process's


@contextmanager
def _strict_pillow() -> Iterator[None]:
    """Pillow's warnings about a file, and no others, as errors."""
    with warning_filters_in_use, warnings.catch_warnings():
        warnings.filterwarnings("error", module=r"PIL\.")
        yield


def _reason(error: BaseException) -> str:
    text = str(getattr(error, "strerror", None) or error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


# --- pixels -------------------------------------------------------------------------------------------------------


def _channels(picture: Image.Image, path: Path, full_depth: bool = False) -> NDArray[np.uint8]:
    """Grey (H, W) or colour (H, W, 3), alpha resolved; 8 bits, or a 16-bit file's own values with `full_depth`."""
    mode = picture.mode
    if mode.startswith("I;16"):
        return _from_16_bits(picture, path, full_depth)
    if mode in ("I", "F"):
        kind = "float" if mode == "F" else "signed or 32-bit"
        raise ImageError(
            path, f"has {kind} values, which have no fixed range", f"apply a CT window and {_SAVE_AGAIN}"
        )
    if mode not in ("1", "L", "P", "RGB", "RGBX", "YCbCr", "LA", "La", "PA", "RGBA", "RGBa"):
        raise ImageError(path, f"is in the colour space {mode}", _SAVE_AGAIN)
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        return _on_black(np.asarray(picture if mode == "RGBA" else picture.convert("RGBA")))
    wanted = "L" if mode in ("1", "L") else "RGB"
    return np.array(picture if mode == wanted else picture.convert(wanted))


def _from_16_bits(picture: Image.Image, path: Path, full_depth: bool) -> NDArray[np.uint8]:
    values = np.array(picture).astype(np.uint16)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        values[values == transparent] = 0  # a see-through value, laid on black
    if full_depth:
        return values  # type: ignore[return-value]
    bits_per_sample = getattr(picture, "tag_v2", {}).get(258, (16,))  # TIFF 6.0, tag 258
    shift = int(np.max(bits_per_sample)) - 8
    if shift == 8 and 0 < values.max() < 2**12:
        fault = f"has 16 bits but no value above {values.max()}, so that it would come out black"
        raise ImageError(
            path, fault, f"if these are 12-bit or Hounsfield values, apply a CT window and {_SAVE_AGAIN}"
        )
    return (values >> shift).astype(np.uint8)


def _on_black(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    colour = cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB)
    alpha = cv2.extractChannel(rgba, 3)
    if alpha.min() == alpha.max():
        return np.asarray(colour, dtype=np.uint8)
    laid = np.empty_like(colour)
    for top in range(0, len(colour), 256):  # rows at a time: 16 bits take twice the memory
        part = np.s_[top : top + 256]
        laid[part] = (colour[part].astype(np.uint16) * alpha[part, :, np.newaxis] + 127) // 255
    return laid


# --- size ---------------------------------------------------------------------------------------------------------


def resize_image(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Fit a uint8 (H, W) picture into (size, size): aspect ratio kept, centred, the rest black.

    Shrinking averages the area that a new pixel covers (INTER_AREA: no aliasing, which framework resizes leave in);
    enlarging interpolates linearly.
    """
    return _fit(image, size)


def resize_mask(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Fit a bool (H, W) mask into (size, size) as `resize_image` fits its picture.

    A new pixel is lesion where the lesion covers at least half of it. A connected lesion (8 neighbours) that would
    vanish keeps one pixel: the one that holds most of it.
    """
    resized = _fit(mask.astype(np.float32), size) >= 0.5
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    if count == 1:
        return resized
    height, width, top, left = _placement(mask.shape, size)
    rows, columns = np.nonzero(mask)
    lesion = labels[rows, columns].astype(np.int64)
    row = top + ((rows + 0.5) * height / mask.shape[0]).astype(np.int64)
    column = left + ((columns + 0.5) * width / mask.shape[1]).astype(np.int64)
    kept = np.zeros(count, dtype=bool)
    kept[lesion[resized[row, column]]] = True
    lost = ~kept[lesion]
    places, pixels = np.unique((lesion * size + row)[lost] * size + column[lost], return_counts=True)
    order = np.lexsort((places, -pixels, places // size**2))  # by lesion, then most pixels, then first place
    _, first = np.unique((places // size**2)[order], return_index=True)
    place = places[order][first] % size**2
    resized[place // size, place % size] = True
    return resized


def restore_mask(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A mask (S, S) on a model's grid as one of its picture, bool `shape` (H, W): `resize_image` undone, by the nearest
    pixel.
    """
    height, width, top, left = _placement(shape, mask.shape[0])
    cut = mask[top : top + height, left : left + width].astype(np.uint8)
    return cv2.resize(cut, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST).astype(bool)


def _placement(shape: tuple[int, ...], size: int) -> tuple[int, int, int, int]:
    """(height, width, top, left) of a (H, W) picture within its (size, size) frame."""
    height, width = (max(1, round(side * size / max(shape))) for side in shape)
    return height, width, (size - height) // 2, (size - width) // 2


def _fit(values: NDArray, size: int) -> NDArray:
    height, width, top, left = _placement(values.shape, size)
    shrinks = max(values.shape) > size
    fitted = cv2.resize(
        values, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    framed = np.zeros((size, size), dtype=values.dtype)
    framed[top : top + height, left : left + width] = fitted
    return framed
