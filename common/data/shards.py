"""The files of a cache: shards of consecutive samples, each written whole or not at all.

    images-00000.npy    (rows, size, size) uint8, that any tool can map; zeros where a picture could not be read
    masks-00000.npy     (lesions, bytes) uint8: a row for each sample with a lesion mask, packed by `results.pack_masks`
    shard-00000.json    what is known of its samples, size and digest of its files; written last

Where `--cache-limit` left no room, a shard keeps the pixels of its first rows only, or none and has no `images`: its
other slices are decoded whenever they are read, and `digests`, one for each, tells a picture that changed. Its masks
are kept always: finding one in a painted picture takes far longer than decoding a slice, and packed they are an eighth
of its size.
"""

from __future__ import annotations

import hashlib
import io
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import config
from common.data.decoding import Slice
from common.data.images import ImageError
from common.data.samples import OVERLAY
from common.errors import StudyError
from common.files import file_digest
from common.results import read_json, write_atomically, write_json

REMEDY = "start the study's command again, which mends its cache, or delete its folder"
READ_BYTES = 2**20  # of a file at a time, for its digest


@dataclass(frozen=True)
class Unreadable:
    """An image or a mask that was left out, and why."""

    id: str  # of the sample
    path: str  # the file's name below the folder that the id names: a record to share tells nobody's folders
    reason: str


@dataclass(frozen=True)
class DoubtfulMask:
    """A painted lesion's mask that is used although its reader is not sure of it, see `common.data.masks.Doubt`."""

    id: str  # of the sample
    method: str
    confidence: float
    note: str


@dataclass(frozen=True)
class Sample:
    """What a cache has to know of a row of the sample table."""

    id: str
    path: str
    mask: str  # as in the table
    asked: str  # the mask to read; "" for none
    pixel_mm: str


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a cache that lie in one file."""

    first: int  # row
    count: int
    path: Path | None  # None: the rows are not kept
    offset: int = 0  # bytes before the first row


def mask_bytes(size: int) -> int:
    """Of a packed mask."""
    return -(-(size**2) // 8)


def shard_rows(size: int) -> int:
    """Slices of a shard."""
    return max(1, config.CACHE_SHARD_BYTES // size**2)


# --- reading ------------------------------------------------------------------------------------------------------


def block_of(blocks: Sequence[Block], row: int) -> Block:
    """The block that holds a row. Raises StudyError for a row beyond all."""
    block = blocks[bisect_right(blocks, row, key=lambda block: block.first) - 1] if blocks else None
    if block is None or not block.first <= row < block.first + block.count:
        raise StudyError(f"row {row} is beyond the end of the cache; {REMEDY}")
    return block


def read_rows(
    blocks: Sequence[Block], places: Sequence[tuple[int, int]], values: NDArray[np.uint8]
) -> list[int]:
    """Fill `values` (n, bytes) from (place, row) pairs; returns the places whose rows are not kept.

    By `pread`: a run's memory does not grow with the data set, threads need no lock, and a truncated file or a lost
    mount is an error that can be named (a memory map would kill the process with SIGBUS).
    """
    of_block: dict[Block, list[tuple[int, int]]] = {}
    for place, row in places:
        of_block.setdefault(block_of(blocks, row), []).append((place, row))
    absent: list[int] = []
    for block, those in of_block.items():
        if block.path is None:
            absent += [place for place, _ in those]
            continue
        try:
            handle = os.open(block.path, os.O_RDONLY)
        except OSError as error:
            raise StudyError(f"{block.path} cannot be opened ({error.strerror}); {REMEDY}") from error
        try:
            for place, row in those:
                start = block.offset + (row - block.first) * values.shape[1]
                if os.preadv(handle, [values[place].data], start) != values.shape[1]:
                    raise StudyError(f"{block.path} is shorter than its header says; {REMEDY}")
        except OSError as error:
            raise StudyError(
                f"{block.path} cannot be read ({error.strerror}); check the disk or the mount"
            ) from error
        finally:
            os.close(handle)
    return absent


def row_digest(pixels: NDArray[np.uint8]) -> str:
    """Of one slice: enough to tell a changed picture by accident."""
    return hashlib.blake2b(pixels.tobytes(), digest_size=8).hexdigest()


def shard_path(directory: Path, number: int) -> Path:
    return directory / f"shard-{number:05d}.json"


# Kinds of what a description of a shard holds beside its two files
SHARD = {"ids": list, "sha256": str, "digests": list, "unreadable": list, "grid_mm": dict}
MASKS = {"ids": list, "sha256": str, "empty": list, "unknown": list, "unreadable": list, "doubtful": list}
FILE = {"bytes": int, "offset": int, "sha256": str}


def kept_rows(document: Mapping[str, Any]) -> int:
    """How many of a shard's rows, its first, keep their pixels."""
    return len(document["ids"]) - len(document["digests"])


def whole_shard(directory: Path, number: int, samples: int, size: int, masks: bool) -> dict[str, Any] | None:
    """The description of a finished shard of so many samples whose files have the digests that it tells; else None."""
    try:
        document = read_json(shard_path(directory, number), config.MAX_TABLE_BYTES)
        if not _describes(document, samples, size, masks):
            return None
        files = [(f"images-{number:05d}.npy", document["images"])]
        files += [(f"masks-{number:05d}.npy", document["masks"]["file"])] if masks else []
        for name, file in files:
            if file is not None and file_digest(directory / name) != file["sha256"]:
                return None
    except (StudyError, OSError, KeyError, TypeError):
        return None
    return document


def _describes(document: dict[str, Any], samples: int, size: int, masks: bool) -> bool:
    """Whether a shard's description has all that is read of it. Raises KeyError or TypeError for one that has not."""
    images, lesions = document["images"], document["masks"]
    if not _has(document, SHARD) or len(document["ids"]) != samples or (lesions is not None) != masks:
        return False
    kept = kept_rows(document)
    held = kept == 0 if images is None else kept > 0 and _holds(images, kept, size**2)
    for one in document["unreadable"]:
        Unreadable(**one)
    if lesions is not None:
        held &= _has(lesions, MASKS) and _holds(lesions["file"], len(lesions["ids"]), mask_bytes(size))
        for one in lesions["unreadable"]:
            Unreadable(**one)
        for one in lesions["doubtful"]:
            DoubtfulMask(**one)
    return held


def _holds(file: Any, rows: int, row_bytes: int) -> bool:
    """Whether this describes a file of so many rows."""
    return _has(file, FILE) and file["bytes"] == file["offset"] + rows * row_bytes


def _has(document: Any, kinds: Mapping[str, type]) -> bool:
    return isinstance(document, dict) and all(
        isinstance(document.get(name), kind) for name, kind in kinds.items()
    )


# --- writing ------------------------------------------------------------------------------------------------------


def write_shard(
    directory: Path,
    number: int,
    samples: Sequence[Sample],
    results: Iterator[Slice | ImageError],
    size: int,
    with_masks: bool,
    kept: int,
) -> dict[str, Any]:
    """Write the files of a shard from the next of the decoded samples, the description last; returns the description.

    The first `kept` rows keep their pixels. Holds the shard's pixels in memory, `config.CACHE_SHARD_BYTES` at most.
    """
    images = np.zeros((min(kept, len(samples)), size, size), dtype=np.uint8)
    lesions = np.zeros((sum(1 for one in samples if one.asked), mask_bytes(size)), dtype=np.uint8)
    ids: list[str] = []  # row -> sample id, "" where the picture could not be read
    unreadable: list[Unreadable] = []
    grid_mm: dict[str, float] = {}
    mask_ids: list[str] = []  # row -> sample id, "" where there is no lesion to show
    unreadable_masks: list[Unreadable] = []
    doubtful_masks: list[DoubtfulMask] = []
    empty_masks: list[str] = []
    digests: list[str] = []
    digest, masks_digest = hashlib.sha256(), hashlib.sha256()
    for sample, result in zip(samples, islice(results, len(samples)), strict=True):
        decoded = None if isinstance(result, ImageError) else result
        if len(ids) >= len(images):
            digests.append(row_digest(decoded.image) if decoded else "")
        elif decoded:
            images[len(ids)] = decoded.image
        ids.append(sample.id if decoded else "")
        if decoded:
            digest.update(decoded.image.data)
            if sample.pixel_mm:
                grid_mm[sample.id] = float(sample.pixel_mm) * decoded.longest_px / size
        elif isinstance(result, ImageError):
            unreadable.append(describe_fault(sample.id, sample.path, sample.asked, result))
        if sample.asked:
            lesion = decoded.mask if decoded else None
            if lesion is not None:
                lesions[len(mask_ids)] = lesion
                masks_digest.update(lesion.data)
            mask_ids.append(sample.id if lesion is not None else "")
            if decoded and decoded.mask_fault:
                unreadable_masks.append(
                    describe_fault(sample.id, sample.path, sample.asked, decoded.mask_fault)
                )
            elif decoded and lesion is None:
                empty_masks.append(sample.id)
        if decoded:  # after the mask, which kind: unknown and empty ones have no bytes of their own
            known = sample.mask != "" and not decoded.mask_fault
            masks_digest.update(b"lesion" if decoded.mask is not None else b"none" if known else b"unknown")
            if decoded.mask_doubt:
                doubtful_masks.append(DoubtfulMask(sample.id, **vars(decoded.mask_doubt)))
    path = directory / f"images-{number:05d}.npy"
    if not len(images):  # of an earlier, damaged shard
        path.unlink(missing_ok=True)
    document: dict[str, Any] = {
        "ids": ids,
        "sha256": digest.hexdigest(),
        "images": save_rows(path, images) if len(images) else None,
        "digests": digests,
        "unreadable": [vars(row) for row in unreadable],
        "grid_mm": grid_mm,
        "masks": None,
    }
    if with_masks:
        unknown = {*(one.id for one in samples if one.mask == ""), *(row.id for row in unreadable_masks)}
        document["masks"] = {
            "file": save_rows(directory / f"masks-{number:05d}.npy", lesions),
            "ids": mask_ids,
            "empty": empty_masks,
            "unknown": sorted(unknown),
            "unreadable": [vars(row) for row in unreadable_masks],
            "doubtful": [vars(row) for row in doubtful_masks],
            "sha256": masks_digest.hexdigest(),
        }
    write_json(shard_path(directory, number), document)
    return document


def save_rows(path: Path, rows: NDArray[np.uint8]) -> dict[str, int | str]:
    """Write an array as `.npy`, whole or not at all: {"bytes", "offset" of the first row, "sha256"}."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, np.lib.format.header_data_from_array_1_0(rows))
    header = buffer.getvalue()
    flat = np.ascontiguousarray(rows).reshape(-1).data
    write_atomically(path, lambda stream: (stream.write(header), stream.write(flat)))
    digest = hashlib.sha256(header)
    digest.update(flat)
    return {"bytes": len(header) + rows.nbytes, "offset": len(header), "sha256": digest.hexdigest()}


def describe_fault(sample_id: str, path: str, mask: str, fault: ImageError) -> Unreadable:
    """The record of a file that was left out, without the folder it lies in."""
    shown = str(PurePosixPath(sample_id).parent / Path(fault.path).name)
    text = f"{fault.fault}; {fault.remedy}"
    for known in (path, mask.removeprefix(OVERLAY)):
        text = text.replace(known, Path(known).name) if known else text
    what = "" if fault.path == path else "the lesion mask "
    return Unreadable(sample_id, shown, f"{what}{shown} {text}")
