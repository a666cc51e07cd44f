"""Hostile and odd files, written anew each time and never committed: pictures.

What a file is good for is decided elsewhere (`kinds`); here are the bytes. Nothing is random but by a fixed seed.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pydicom
from PIL import Image
from pydicom import uid

# so that its neighbours can be run as programs
sys.path += [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1] / "common")]

from dicom_fixture import ABSENT, ct_slice, dicom_bytes

PX = 64
PNG = b"\x89PNG\r\n\x1a\n"


def head(seed: int, size: int = PX) -> np.ndarray:
    """A grey slice, uint8 (size, size): an oval with a bright rim and a texture of its own."""
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    radius = np.hypot(rows * 1.1, columns * 1.35)
    texture = np.random.default_rng(seed).normal(0, 30, (8, 8)).astype(np.float32)
    inside = 90 + cv2.resize(texture, (size, size), interpolation=cv2.INTER_CUBIC)
    values = np.where(radius < 0.42, inside, 0) + np.where(abs(radius - 0.44) < 0.03, 230, 0)
    return np.clip(values, 0, 255).astype(np.uint8)


SLICE = head(0)
LESION = np.hypot(*(np.mgrid[:PX, :PX] - 30)) < 8


def encoded(picture: np.ndarray | Image.Image, file_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(stream, file_format, **options)
    return stream.getvalue()


def painted(slice_: np.ndarray = SLICE) -> np.ndarray:
    """The slice with a red lesion on it, uint8 (H, W, 3)."""
    overlay = np.dstack([slice_] * 3)
    overlay[LESION] = (230, 20, 20)
    return overlay


# --- PNG ----------------------------------------------------------------------------------------------------------


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(
    width: int, height: int, pixels: bytes, colour: int = 0, depth: int = 8, before: bytes = b""
) -> bytes:
    """A PNG file of these deflated rows; what its header says need not be so."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return PNG + chunk(b"IHDR", header) + before + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def large_png(height: int, width: int, channels: int = 1) -> bytes:
    """A sound picture of this size with something in it; with four channels, one that fades out."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    pixels = np.zeros(shape, np.uint8)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = 120
    if channels == 4:
        pixels[..., 3] = np.linspace(0, 255, width, dtype=np.uint8)
    return cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def large_overlay(size: int = 2048) -> bytes:
    """A painted slice of another patient, as large as is read."""
    overlay = cv2.resize(painted(head(9)), (size, size))
    return cv2.imencode(".png", overlay[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def sound_rows() -> bytes:
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in SLICE))


def text_bomb() -> bytes:
    """A comment of 200 MB, packed into 200 kB."""
    packed = zlib.compress(bytes(200_000_000), 9)
    return png(PX, PX, sound_rows(), before=chunk(b"zTXt", b"Comment\0\0" + packed))


def profile_bomb() -> bytes:
    packed = zlib.compress(bytes(200_000_000), 9)
    return png(PX, PX, sound_rows(), before=chunk(b"iCCP", b"icc\0\0" + packed))


def many_chunks(count: int = 3_000_000) -> bytes:
    return png(PX, PX, sound_rows(), before=chunk(b"abCd", b"") * count)


def animated_png() -> bytes:
    first, second = Image.fromarray(SLICE), Image.fromarray(head(1))
    return encoded(first, "PNG", save_all=True, append_images=[second])


def interlaced_png() -> bytes:
    """Adam7 by hand, which neither Pillow nor OpenCV writes."""
    passes = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    rows = b"".join(
        b"\0" + row.tobytes() for top, left, down, right in passes for row in SLICE[top::down, left::right]
    )
    header = struct.pack(">IIBBBBB", PX, PX, 8, 0, 0, 0, 1)
    return PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# --- JPEG ---------------------------------------------------------------------------------------------------------


def jpeg(picture: np.ndarray = SLICE, **options: object) -> bytes:
    return encoded(picture, "JPEG", quality=95, **options)


def many_scans(size: int = 2048, scans: int = 20_000) -> bytes:
    """A progressive JPEG whose last scan, which changes nothing, comes again and again."""
    data = encoded(np.zeros((size, size), np.uint8), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    tables = data.rindex(b"\xff\xc4", 0, last)
    return data[:-2] + data[tables:-2] * scans + data[-2:]


def many_segments(count: int = 8_000_000) -> bytes:
    data = jpeg()
    return data[:2] + b"\xff\xfe\x00\x02" * count + data[2:]


def fill_bytes(count: int = 32_000_000) -> bytes:
    data = jpeg()
    return data[:2] + b"\xff" * count + data[2:]


# --- TIFF ---------------------------------------------------------------------------------------------------------

SHORT, LONG = 3, 4


def tiff(entries: Sequence[tuple[int, int, int, int]], tail: bytes = b"", after: int = 0) -> bytes:
    """A little-endian TIFF of one directory of (tag, type, count, value or offset), `tail` behind it."""
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *one) for one in entries)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", after) + tail


def tiff_of(
    width: int, height: int, extra: Sequence[tuple[int, int, int, int]] = (), tail: bytes = b""
) -> bytes:
    """An uncompressed grey TIFF whose strip lies at the start of `tail`; entries of `extra` replace others."""
    offset = (
        8 + 2 + 12 * (8 + sum(one[0] not in (256, 257, 258, 259, 262, 273, 278, 279) for one in extra)) + 4
    )
    base = {
        256: (256, LONG, 1, width),
        257: (257, LONG, 1, height),
        258: (258, SHORT, 1, 8),
        259: (259, SHORT, 1, 1),
        262: (262, SHORT, 1, 1),
        273: (273, LONG, 1, offset),
        278: (278, LONG, 1, height),
        279: (279, LONG, 1, width * height),
    }
    base |= {one[0]: one for one in extra}
    return tiff([base[tag] for tag in sorted(base)], tail)


def many_values(count: int = 12_000_000) -> bytes:
    """A TIFF whose tag BitsPerSample has 12 million values."""
    return tiff_of(PX, PX, [(258, SHORT, count, 4096)], SLICE.tobytes() + bytes(2 * count))


def huge_tile() -> bytes:
    """A TIFF of 64 x 64 px, in a tile of 30,000 x 30,000 px packed into 900 kB."""
    packed = zlib.compress(bytes(60_000_000), 9) + bytes(1000)
    entries = [
        (256, LONG, 1, PX), (257, LONG, 1, PX), (258, SHORT, 1, 8), (259, SHORT, 1, 8), (262, SHORT, 1, 1),
        (277, SHORT, 1, 1), (322, LONG, 1, 30_000), (323, LONG, 1, 30_000), (324, LONG, 1, 8 + 2 + 10 * 12 + 4),
        (325, LONG, 1, len(packed)),
    ]  # fmt: skip
    return tiff(entries, packed)


def endless_tiff(pages: int = 400_000) -> bytes:
    """A TIFF of very many pages, each of which is next to nothing."""
    first = tiff_of(PX, PX, tail=SLICE.tobytes())
    start = len(first)
    page = 2 + 12 + 4
    chain = b"".join(
        struct.pack("<HHHIII", 1, 256, LONG, 1, PX, start + page * (number + 1) if number + 1 < pages else 0)
        for number in range(pages)
    )
    at = 8 + 2 + 12 * 8
    return first[:at] + struct.pack("<I", start) + first[at + 4 :] + chain


def looping_tiff() -> bytes:
    first = tiff_of(PX, PX, tail=SLICE.tobytes())
    at = 8 + 2 + 12 * 8
    return first[:at] + struct.pack("<I", 8) + first[at + 4 :]


def paged_tiff() -> bytes:
    return encoded(Image.fromarray(SLICE), "TIFF", save_all=True, append_images=[Image.fromarray(head(1))])


# --- BMP ----------------------------------------------------------------------------------------------------------


def packed_bmp(side: int = 4000) -> bytes:
    """A BMP in run lengths of one pixel: 16 million steps."""
    palette = b"".join(bytes((grey, grey, grey, 0)) for grey in range(256))
    body = (b"\x01\x40" * side + b"\x00\x00") * side + b"\x00\x01"
    offset = 14 + 40 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + header + palette + body


# --- DICOM --------------------------------------------------------------------------------------------------------


def ct(stored: np.ndarray | None = None, absent: Sequence[str] = (), **tags: object) -> pydicom.Dataset:
    """A CT slice; `tags` are set and `absent` ones left out."""
    known = {"PatientID": "7", "SeriesInstanceUID": "1.2.3.4", "PixelSpacing": [0.5, 0.5]}
    return ct_slice(
        SLICE.astype(np.int16) - 40 if stored is None else stored,
        **(known | tags | dict.fromkeys(absent, ABSENT)),
    )


def dicom(data: pydicom.Dataset, syntax: str | None = None) -> bytes:
    if syntax:
        data.file_meta.TransferSyntaxUID = syntax
    return dicom_bytes(data)


def big_endian() -> bytes:
    return dicom(ct((SLICE.astype(np.int16) - 40).astype(">i2")), uid.ExplicitVRBigEndian)


def unknown_compression() -> bytes:
    from pydicom.encaps import encapsulate

    data = ct()
    data.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(100)])
    data["PixelData"].is_undefined_length = True
    return dicom(data, uid.JPEG2000Lossless)


def deflated_bomb() -> bytes:
    """The whole data set deflated: 300 MB of a private element in 300 kB."""
    plain = dicom(ct())
    meta_ends = plain.index(b"\x08\x00\x16\x00")
    meta = plain[:meta_ends].replace(
        b"UI\x14\0" + uid.ExplicitVRLittleEndian.encode() + b"\0", b"UI\x16\x001.2.840.10008.1.2.1.99"
    )
    body = b"\x09\x00\x10\x10OB\0\0" + struct.pack("<I", 300_000_000) + bytes(300_000_000)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    # the length of the group is two bytes longer with the longer name
    at = meta.index(b"\x02\x00\x00\x00UL") + 8
    meta = meta[:at] + struct.pack("<I", len(meta) - at - 4) + meta[at + 4 :]
    return meta + packer.compress(body) + packer.flush()


def many_elements(count: int = 3_000_000) -> bytes:
    """Empty private elements before the pixels."""
    plain = dicom(ct())
    at = plain.index(b"\x10\x00\x20\x00")
    return plain[:at] + b"\x09\x00\x10\x10LO\0\0" * count + plain[at:]


def nested_sequences(depth: int = 20_000) -> bytes:
    plain = dicom(ct())
    at = plain.index(b"\x10\x00\x20\x00")
    opening = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return plain[:at] + opening * depth + plain[at:]


def lying_length() -> bytes:
    """Pixels that are said to be 4 GB long."""
    plain = dicom(ct())
    at = plain.index(b"\xe0\x7f\x10\x00OW\0\0") + 8
    return plain[:at] + struct.pack("<I", 0xFFFFFFF0) + plain[at + 4 :]


# --- by name ------------------------------------------------------------------------------------------------------


def small_pictures() -> dict[str, bytes]:
    """Sound and broken ones of few bytes, of every form that is read: the seeds of the fuzzers."""
    grey, colour = Image.fromarray(SLICE), Image.fromarray(np.dstack([SLICE] * 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    sixteen = SLICE.astype(np.uint16) * 257
    found = {
        "png.png": encoded(grey, "PNG"),
        "rgb.png": encoded(colour, "PNG"),
        "alpha.png": encoded(colour.convert("RGBA"), "PNG"),
        "palette.png": encoded(grey.convert("P"), "PNG"),
        "bits.png": encoded(grey.convert("1"), "PNG"),
        "16.png": encoded(sixteen, "PNG"),
        "interlaced.png": interlaced_png(),
        "animated.png": animated_png(),
        "overlay.png": encoded(painted(), "PNG"),
        "mask.png": encoded(LESION.astype(np.uint8) * 255, "PNG"),
        "text.png": png(
            PX, PX, sound_rows(), before=chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(999)))
        ),
        "jpeg.jpg": jpeg(),
        "progressive.jpg": jpeg(progressive=True),
        "exif.jpg": jpeg(exif=exif.tobytes()),
        "cmyk.jpg": encoded(colour.convert("CMYK"), "JPEG"),
        "overlay.jpg": encoded(painted(), "JPEG", quality=90),
        "bmp.bmp": encoded(grey, "BMP"),
        "packed.bmp": packed_bmp(16),
        "paged.tif": paged_tiff(),
        "loop.tif": looping_tiff(),
        "tile.tif": huge_tile()[:2000],
        "float.tif": encoded(SLICE.astype(np.float32), "TIFF"),
        "16.tif": encoded(sixteen, "TIFF"),
        "ct.dcm": dicom(ct()),
        "big.dcm": big_endian(),
        "frames.dcm": dicom(ct(np.stack([SLICE.astype(np.int16)] * 2), NumberOfFrames=2)),
        "nested.dcm": nested_sequences(3),
        "compressed.dcm": unknown_compression(),
    }
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"):
        picture = grey.convert("1") if compression == "group4" else grey
        found[f"{compression}.tif"] = encoded(picture, "TIFF", compression=compression)
    return found


def write_dataset(root: Path, patients: int = 3, slices: int = 2) -> Path:
    """`{Normal,Stroke}/PATIENT (k).png` of sound slices, all different."""
    for number, label in enumerate(("Normal", "Stroke")):
        (root / label).mkdir(parents=True)
        for patient in range(patients):
            for k in range(1, slices + 1):
                seed = 1 + 100 * number + 10 * patient + k
                name = f"{10 * (number + 1) + patient} ({k}).png"
                (root / label / name).write_bytes(encoded(head(seed), "PNG"))
    return root
