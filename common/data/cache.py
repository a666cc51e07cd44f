"""Every image of a study decoded once, to the run's size, as one uint8 array on disk; the lesion masks beside it.

`images.npy` is a plain (N, size, size) array that any tool can memory-map; `masks.npy` holds one row for each sample
with a lesion mask, its bits packed by `results.pack_masks`. Our own reads go through `pread`: a run's memory does not
grow with the data set, threads need no lock, and a truncated file or a lost mount is an error that can be named (a
memory map would kill the process with SIGBUS).

The folder's name is a digest of the sample table's content, the size and the version of the rule, so that a cache is
never stale. It is built under a name that ends in `.partial`; what a killed build left is removed by the next. Only one
command at a time works in a study's folder (`common.study.hold`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common import config
from common.allocator import keep_freed_memory
from common.data.decoding import decode_sample, map_in_order
from common.data.images import ImageError
from common.data.samples import NO_LESION, OVERLAY, samples_digest
from common.errors import StudyError
from common.results import read_json, unpack_masks, write_json

CACHE_VERSION = 3  # raise when decoding or resizing changes pixels, or when the files change their form


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
class Cache:
    """Decoded slices on disk, addressed by sample id."""

    directory: Path
    size: int  # px
    rows: dict[str, int]  # sample id -> row of images.npy
    unreadable: tuple[Unreadable, ...]
    sha256: str  # of the pixels of all readable rows, in row order, and of nothing else
    offset: int  # bytes of the .npy header
    grid_mm: dict[str, float] = field(default_factory=dict)  # sample id -> mm of a pixel, where known
    with_masks: bool = False
    mask_rows: dict[str, int] = field(default_factory=dict)  # sample id -> row of masks.npy
    mask_offset: int = 0
    empty_masks: frozenset[str] = frozenset()  # ids whose mask was read and shows no lesion: no row
    unknown_masks: frozenset[str] = frozenset()  # ids without a known mask, the unreadable ones among them
    unreadable_masks: tuple[Unreadable, ...] = ()
    doubtful_masks: tuple[DoubtfulMask, ...] = ()
    masks_sha256: str = ""  # of what is known of the masks of all readable rows, in row order; "" without

    def read(self, sample_ids: list[str]) -> NDArray[np.uint8]:
        """The slices, (len(sample_ids), size, size). Raises StudyError for an unknown id or a damaged file."""
        self._check(sample_ids)
        rows = [self.rows[sample_id] for sample_id in sample_ids]
        flat = _read_rows(self.directory / "images.npy", self.offset, self.size**2, rows)
        return flat.reshape(-1, self.size, self.size)

    def read_masks(self, sample_ids: list[str]) -> NDArray[np.bool_]:
        """The lesion masks, (len(sample_ids), size, size). Raises StudyError as `read`, and for an unknown mask."""
        self._check(sample_ids)
        if not self.with_masks:
            raise StudyError(
                f"the cache {self.directory} holds no masks; delete its folder to build it again"
            )
        unknown = next((sample_id for sample_id in sample_ids if sample_id in self.unknown_masks), None)
        if unknown is not None:
            raise StudyError(f"the lesion mask of sample {unknown!r} is not known; leave the sample out")
        masks = np.zeros((len(sample_ids), self.size, self.size), dtype=np.bool_)
        places = [place for place, sample_id in enumerate(sample_ids) if sample_id in self.mask_rows]
        if places:
            rows = [self.mask_rows[sample_ids[place]] for place in places]
            packed = _read_rows(self.directory / "masks.npy", self.mask_offset, _mask_bytes(self.size), rows)
            masks[places] = unpack_masks(packed, self.size)
        return masks

    def pixel_mm(self, sample_ids: list[str]) -> NDArray[np.float64]:
        """Side of a pixel of the cache's grid in mm, (len(sample_ids),); NaN where unknown."""
        return np.array([self.grid_mm.get(sample_id, np.nan) for sample_id in sample_ids], dtype=np.float64)

    def _check(self, sample_ids: list[str]) -> None:
        for sample_id in sample_ids:
            if sample_id not in self.rows:
                raise StudyError(f"sample {sample_id!r} is not in the cache {self.directory}")


def _mask_bytes(size: int) -> int:
    return -(-(size**2) // 8)


def _read_rows(path: Path, offset: int, row_bytes: int, rows: list[int]) -> NDArray[np.uint8]:
    """Rows of an array on disk, (len(rows), row_bytes)."""
    values = np.empty((len(rows), row_bytes), dtype=np.uint8)
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise StudyError(
            f"{path} cannot be opened ({error.strerror}); delete its folder to build it again"
        ) from error
    try:
        for place, row in enumerate(rows):
            if os.preadv(handle, [values[place].data], offset + row * row_bytes) != row_bytes:
                raise StudyError(
                    f"{path} is shorter than its header says; delete its folder to build it again"
                )
    except OSError as error:
        raise StudyError(f"{path} cannot be read ({error.strerror}); check the disk or the mount") from error
    finally:
        os.close(handle)
    return values


def build_cache(
    samples: pd.DataFrame,
    size: int,
    parent: Path,
    threads: int = 2,
    on_progress: Callable[[int, int], object] = lambda done, total: None,
    masks: bool = False,
) -> Cache:
    """The cache of the samples at `size` px below `parent`; built if it is not there, else opened.

    Pictures that cannot be read are left out and listed in `Cache.unreadable`. With `masks` the lesion masks are read
    as well; one that cannot be is listed in `Cache.unreadable_masks`, and its picture stays.
    """
    directory = parent / f"{size}px-{_key(samples, size, masks)}"
    if (directory / "cache.json").exists():
        return open_cache(directory)
    parent.mkdir(parents=True, exist_ok=True)
    for left in (*parent.glob(".*.partial"), directory):
        shutil.rmtree(left, ignore_errors=True)
    temporary = parent / f".{directory.name}.partial"
    temporary.mkdir()
    keep_freed_memory()
    try:
        _write_cache(samples, size, masks, temporary, threads, on_progress)
        temporary.rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return open_cache(directory)


def _key(samples: pd.DataFrame, size: int, masks: bool) -> str:
    window = config.WINDOWS[config.DICOM_WINDOW]
    text = f"{CACHE_VERSION}:{size}:{window}:{samples_digest(samples)}"
    if masks:  # "" and "none" are different, and the digest does not see it
        known = sorted(samples.loc[samples["mask"] != "", "id"])
        overlays = {name: value for name, value in vars(config).items() if name.startswith("OVERLAY_")}
        text += f":masks:{overlays}:" + "\x1f".join(known)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def open_cache(directory: Path) -> Cache:
    """A finished cache. Raises StudyError where there is none, or where an array does not have the stated size."""
    document = read_json(directory / "cache.json", config.MAX_TABLE_BYTES)
    try:
        size, masks = int(document["size"]), document["masks"]
        cache = Cache(
            directory,
            size,
            rows={sample_id: row for row, sample_id in enumerate(document["ids"]) if sample_id},
            unreadable=tuple(Unreadable(**row) for row in document["unreadable"]),
            sha256=str(document["sha256"]),
            offset=int(document["offset"]),
            grid_mm={sample_id: float(mm) for sample_id, mm in document["grid_mm"].items()},
        )
        arrays = {"images.npy": cache.offset + len(document["ids"]) * size**2}
        if masks is not None:
            cache = dataclasses.replace(
                cache,
                with_masks=True,
                mask_rows={sample_id: row for row, sample_id in enumerate(masks["ids"]) if sample_id},
                mask_offset=int(masks["offset"]),
                empty_masks=frozenset(masks["empty"]),
                unknown_masks=frozenset(masks["unknown"]),
                unreadable_masks=tuple(Unreadable(**row) for row in masks["unreadable"]),
                doubtful_masks=tuple(DoubtfulMask(**row) for row in masks["doubtful"]),
                masks_sha256=str(masks["sha256"]),
            )
            arrays["masks.npy"] = cache.mask_offset + len(masks["ids"]) * _mask_bytes(size)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StudyError(
            f"{directory / 'cache.json'} does not describe a cache ({error!r}); delete its folder to build it again"
        ) from error
    for name, expected in arrays.items():
        path = directory / name
        if not path.exists() or path.stat().st_size != expected:
            raise StudyError(
                f"{path} is missing or not {expected} bytes long; delete its folder to build it again"
            )
    return cache


def keep_readable(samples: pd.DataFrame, cache: Cache) -> pd.DataFrame:
    """The rows whose pictures the cache holds. Raises StudyError where there is none.

    Where the cache read the masks, one that is unreadable becomes unknown, and one without a lesion "none".
    """
    readable = samples[samples["id"].isin(list(cache.rows))].reset_index(drop=True)
    if readable.empty:
        first = cache.unreadable[0].reason if cache.unreadable else "there is no picture"
        raise StudyError(f"none of the {len(samples)} pictures can be read; the first: {first}")
    lost = readable["id"].isin([row.id for row in cache.unreadable_masks])
    readable.loc[lost, ["mask", "mask_sha256"]] = ""
    readable.loc[readable["id"].isin(list(cache.empty_masks)), "mask"] = NO_LESION
    return readable


# --- building -----------------------------------------------------------------------------------------------------


def _write_cache(
    samples: pd.DataFrame,
    size: int,
    masks: bool,
    directory: Path,
    threads: int,
    on_progress: Callable[[int, int], object],
) -> None:
    asked = samples["mask"].where(~samples["mask"].isin(["", NO_LESION]) & masks, "")
    columns = (samples["id"], samples["path"], samples["mask"], asked, samples["pixel_mm"])
    ids: list[str] = []  # row -> sample id, "" where the picture could not be read
    unreadable: list[Unreadable] = []
    grid_mm: dict[str, float] = {}
    mask_ids: list[str] = []  # row -> sample id, "" where there is no lesion to show
    unreadable_masks: list[Unreadable] = []
    doubtful_masks: list[DoubtfulMask] = []
    empty_masks: list[str] = []
    digest, masks_digest = hashlib.sha256(), hashlib.sha256()
    with ExitStack() as stack:
        images, offset = _reserve(directory / "images.npy", (len(samples), size, size), stack)
        if masks:
            shape = (int((asked != "").sum()), _mask_bytes(size))
            lesions, mask_offset = _reserve(directory / "masks.npy", shape, stack)
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        work = zip(samples["path"], asked, strict=True)
        results = map_in_order(pool, lambda item: decode_sample(*item, size), work)
        for result, sample_id, path, given, mask, mm in zip(results, *columns, strict=True):
            decoded = None if isinstance(result, ImageError) else result
            ids.append(sample_id if decoded else "")
            _put(images, decoded.image if decoded else None, size**2, digest)
            if isinstance(result, ImageError):
                unreadable.append(describe_fault(sample_id, path, mask, result))
            elif mm:
                grid_mm[sample_id] = float(mm) * result.longest_px / size
            if mask:
                lesion = decoded.mask if decoded else None
                mask_ids.append(sample_id if lesion is not None else "")
                _put(lesions, lesion, _mask_bytes(size), masks_digest)
            if mask and decoded and decoded.mask_fault:
                unreadable_masks.append(describe_fault(sample_id, path, mask, decoded.mask_fault))
            elif mask and decoded and decoded.mask is None:
                empty_masks.append(sample_id)
            if decoded:  # after the mask, which kind: unknown and empty ones have no bytes of their own
                known = given != "" and not decoded.mask_fault
                empty = b"none" if known else b"unknown"
                masks_digest.update(empty if decoded.mask is None else b"lesion")
                if doubt := decoded.mask_doubt:
                    doubtful_masks.append(DoubtfulMask(sample_id, **vars(doubt)))
            on_progress(len(ids), len(samples))
    unknown = {*samples.loc[samples["mask"] == "", "id"], *(row.id for row in unreadable_masks)}
    document = {
        "version": CACHE_VERSION,
        "size": size,
        "offset": offset,
        "sha256": digest.hexdigest(),
        "ids": ids,
        "unreadable": [vars(row) for row in unreadable],
        "grid_mm": grid_mm,
        "masks": None,
    }
    if masks:
        document["masks"] = {
            "offset": mask_offset,
            "ids": mask_ids,
            "empty": empty_masks,
            "unknown": sorted(unknown),
            "unreadable": [vars(row) for row in unreadable_masks],
            "doubtful": [vars(row) for row in doubtful_masks],
            "sha256": masks_digest.hexdigest(),
        }
    write_json(directory / "cache.json", document)


def _reserve(path: Path, shape: tuple[int, ...], stack: ExitStack) -> tuple[BinaryIO, int]:
    """A uint8 array's file with its header and the space of its rows; open at the first row, and where that is."""
    header = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    offset = int(header.offset)
    del header
    stream = stack.enter_context(path.open("r+b"))
    stream.seek(offset)
    return stream, offset


def _put(stream: BinaryIO, row: NDArray[np.uint8] | None, row_bytes: int, digest: Any) -> None:
    """Write the next row, or leave it zero."""
    if row is None:
        stream.seek(row_bytes, os.SEEK_CUR)
    else:
        stream.write(row.data)
        digest.update(row.data)


def describe_fault(sample_id: str, path: str, mask: str, fault: ImageError) -> Unreadable:
    """The record of a file that was left out, without the folder it lies in."""
    shown = str(PurePosixPath(sample_id).parent / Path(fault.path).name)
    text = f"{fault.fault}; {fault.remedy}"
    for known in (path, mask.removeprefix(OVERLAY)):
        text = text.replace(known, Path(known).name) if known else text
    what = "" if fault.path == path else "the lesion mask "
    return Unreadable(sample_id, shown, f"{what}{shown} {text}")
