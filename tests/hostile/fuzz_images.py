"""Fuzz the readers of pictures, masks and DICOM files; see `fuzzing`.

The first byte of an input chooses the reader, the rest is the file. Checksums of PNG chunks are mended in half of the
inputs, for a decoder never sees the others.
"""

from __future__ import annotations

import struct
import zlib

import atheris
import fuzzing

with atheris.instrument_imports(include=["common", "PIL", "pydicom"]):
    from common.data import dicom, headers, images

import corpus
import numpy as np

FOLDER = fuzzing.scratch()
READERS = ("slice.png", "slice.dcm", "mask.png", "header.dcm", "painted.png")
PNG = b"\x89PNG\r\n\x1a\n"


def target(data: bytes) -> None:
    if not data:
        return
    name = READERS[data[0] % len(READERS)]
    path = FOLDER / name
    path.write_bytes(data[1:])
    if name.startswith("slice"):
        image = images.read_image(path)
        assert (image.dtype, image.ndim, min(image.shape) >= 16) == (np.uint8, 2, True)
    elif name.startswith("mask"):
        mask = images.read_mask(path, (64, 64))
        assert (mask.dtype, mask.shape) == (np.bool_, (64, 64))
    elif name.startswith("header"):
        headers.pixel_mm(path, dicom.read_dicom_header(path))
    else:
        painted = images.read_painted(path)
        assert (painted.dtype, painted.shape[2]) == (np.uint8, 4)


def mend_png(data: bytes) -> bytes:
    """The same chunks with right checksums, as far as their lengths can be followed."""
    place, parts = len(PNG), [PNG]
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        body = data[place + 4 : place + 8 + length]
        if len(body) < 4 + length:
            break
        parts.append(data[place : place + 4] + body + struct.pack(">I", zlib.crc32(body)))
        place += 12 + length
    return b"".join(parts) + data[place:]


def mutate(data: bytes, most: int, seed: int) -> bytes:
    changed = atheris.Mutate(data, most)
    if seed % 2 and changed[1:].startswith(PNG):
        return (changed[:1] + mend_png(changed[1:]))[:most]
    return changed


def seeds() -> list[bytes]:
    found = []
    for name, data in corpus.small_pictures().items():
        if len(data) <= 16_000:
            kinds = (1, 3) if name.endswith(".dcm") else (0, 2, 4)
            found += [bytes([kind]) + data for kind in kinds]
    return found


if __name__ == "__main__":
    fuzzing.fuzz(target, seeds(), 20_000, mutate)
