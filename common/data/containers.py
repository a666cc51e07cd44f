"""What a picture's file is made of, looked over before a decoder walks through it.

Decoders of pictures are careful with pixels, but not with the rest: a PNG of three million empty chunks, a JPEG of
twenty thousand scans, a TIFF whose tag has millions of values or whose one tile is a thousand times as large as the
picture keep them busy for minutes or fill the memory. Nothing of the kind comes from a scanner.

Formats: PNG (W3C, third edition, 5.3), JPEG (ITU-T T.81, annex B), TIFF 6.0 (section 2) and BigTIFF.
"""

from __future__ import annotations

import struct

from common import config

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"
START_OF_SCAN = 0xDA
STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
VALUE_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
WIDTH, HEIGHT, TILE_WIDTH, TILE_HEIGHT = 256, 257, 322, 323
TILE_STEP = 4096  # px; no side of a tile may be larger


def odd_container(data: bytes) -> str:
    """What is wrong with a file's build, in words; empty where nothing is, or where it is of another format."""
    if data.startswith(PNG):
        return _odd_png(data)
    if data.startswith(JPEG):
        return _odd_jpeg(data)
    if data[:4] in TIFFS:
        return _odd_tiff(data)
    if data.startswith(b"BM") and _packed_bmp(data):
        return "is a BMP packed by run lengths"
    return ""


def _odd_png(data: bytes) -> str:
    place = len(PNG)
    beside = 0  # bytes that are no pixels
    for _ in range(config.MAX_FILE_PARTS):
        if place + 8 > len(data):
            return ""
        length, name = struct.unpack_from(">I4s", data, place)
        beside += length if name != b"IDAT" else 0
        if beside > config.MAX_METADATA_BYTES and length <= len(data):
            return _much(beside)
        place += 12 + length
    return _many("chunks")


def _odd_jpeg(data: bytes) -> str:
    scans = data.count(b"\xff\xda")  # within pixels 0xFF is followed by 0
    if scans > config.MAX_JPEG_SCANS:
        return f"has {scans} scans, more than the {config.MAX_JPEG_SCANS} allowed"
    place = 2
    for _ in range(config.MAX_FILE_PARTS):
        if place + 4 > len(data):
            return ""
        if data[place] != 0xFF:
            return ""  # for the decoder to say
        marker = data[place + 1]
        if marker == START_OF_SCAN:
            return ""
        if marker == 0xFF or marker == 0:  # a fill byte
            place += 1
        elif marker in STANDALONE:
            place += 2
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if place > config.MAX_METADATA_BYTES:
            return _much(place)
    return _many("segments")


def _odd_tiff(data: bytes) -> str:
    order = "<" if data.startswith(b"II") else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    entry, count_of = (order + "HHQ8s", order + "Q") if big else (order + "HHI4s", order + "H")
    try:
        (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        (count,) = struct.unpack_from(count_of, data, place)
        place += struct.calcsize(count_of)
        if count > config.MAX_FILE_PARTS:
            return _many("tags")
        sides: dict[int, int] = {}
        for _ in range(count):
            tag, kind, values, raw = struct.unpack_from(entry, data, place)
            place += struct.calcsize(entry)
            size = values * VALUE_BYTES.get(kind, 1)
            if values > 2 * config.MAX_IMAGE_PX and kind not in (1, 2, 6, 7):  # strips are at most the rows
                return f"has a tag of {values} values"
            if size > config.MAX_METADATA_BYTES:
                return _much(size)
            if kind in (3, 4, 16) and values == 1:
                sides[tag] = int.from_bytes(raw[: VALUE_BYTES[kind]], "little" if order == "<" else "big")
    except struct.error:
        return ""  # for the decoder to say
    for tile, side in ((TILE_WIDTH, WIDTH), (TILE_HEIGHT, HEIGHT)):
        if sides.get(tile, 0) > TILE_STEP:
            return f"has tiles of {sides[tile]} px, though its picture has {sides.get(side, 0)} px"
    return ""


def _packed_bmp(data: bytes) -> bool:
    """Run lengths are unpacked by a slow loop, and no slice is kept that way."""
    if len(data) < 34 or int.from_bytes(data[14:18], "little") < 40:
        return False
    return int.from_bytes(data[30:34], "little") in (1, 2)


def _many(parts: str) -> str:
    return f"has more than {config.MAX_FILE_PARTS} {parts}"


def _much(size: int) -> str:
    allowed = config.MAX_METADATA_BYTES / 2**20
    return f"has {size / 2**20:.0f} MiB beside its pixels, more than the {allowed:.0f} MiB allowed"
