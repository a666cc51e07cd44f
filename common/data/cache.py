"""Every image of a study decoded once, to the run's size, as one uint8 array on disk.

The file is a plain `.npy` (N, size, size) that any tool can memory-map. Our own reads go through `pread`: a run's
memory does not grow with the data set, threads need no lock, and a truncated file or a lost mount is an error that
can be named (a memory map would kill the process with SIGBUS).

The folder's name is a digest of the sample table's content, the size and the version of the rule, so that a cache is
never stale. It is built under a name that ends in `.partial`; what a killed build left is removed by the next. Only one
command at a time works in a study's folder (`common.study.hold`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common.data.images import ImageError, read_image, resize_image
from common.data.phantom import draw
from common.data.samples import samples_digest
from common.errors import StudyError
from common.results import read_json, write_json

CACHE_VERSION = 1  # raise when decoding or resizing changes pixels
DECODE_AHEAD = 64  # decoded slices waiting to be written; bounds memory


@dataclass(frozen=True)
class Unreadable:
    """An image that was left out, and why."""

    id: str
    path: str  # the file's name below the folder that the id names: a record to share tells nobody's folders
    reason: str


@dataclass(frozen=True)
class Cache:
    """Decoded slices on disk, addressed by sample id."""

    directory: Path
    size: int  # px
    rows: dict[str, int]  # sample id -> row of images.npy
    unreadable: tuple[Unreadable, ...]
    sha256: str  # of the pixels of all readable rows, in row order
    offset: int  # bytes of the .npy header

    def read(self, sample_ids: list[str]) -> NDArray[np.uint8]:
        """The slices, (len(sample_ids), size, size). Raises StudyError for an unknown id or a damaged file."""
        slices = np.empty((len(sample_ids), self.size, self.size), dtype=np.uint8)
        path = self.directory / "images.npy"
        try:
            handle = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise StudyError(
                f"{path} cannot be opened ({error.strerror}); delete its folder to build it again"
            ) from error
        try:
            for place, sample_id in enumerate(sample_ids):
                if sample_id not in self.rows:
                    raise StudyError(f"sample {sample_id!r} is not in the cache {self.directory}")
                buffer = memoryview(slices[place]).cast("B")
                start = self.offset + self.rows[sample_id] * len(buffer)
                if os.preadv(handle, [buffer], start) != len(buffer):
                    raise StudyError(
                        f"{path} is shorter than its header says; delete its folder to build it again"
                    )
        except OSError as error:
            raise StudyError(
                f"{path} cannot be read ({error.strerror}); check the disk or the mount"
            ) from error
        finally:
            os.close(handle)
        return slices


def read_slice(path: str) -> NDArray[np.uint8]:
    """The slice of a sample's `path`, uint8 (H, W): a picture's file, or a drawing of the phantom."""
    return draw(path).image if path.startswith("phantom:") else read_image(path)


def build_cache(
    samples: pd.DataFrame,
    size: int,
    parent: Path,
    threads: int = 2,
    on_progress: Callable[[int, int], object] = lambda done, total: None,
) -> Cache:
    """The cache of the samples at `size` px below `parent`; built if it is not there, else opened.

    Pictures that cannot be read are left out and listed in `Cache.unreadable`.
    """
    key = hashlib.sha256(f"{CACHE_VERSION}:{size}:{samples_digest(samples)}".encode()).hexdigest()[:16]
    directory = parent / f"{size}px-{key}"
    if (directory / "cache.json").exists():
        return open_cache(directory)
    parent.mkdir(parents=True, exist_ok=True)
    for left in (*parent.glob(".*.partial"), directory):
        shutil.rmtree(left, ignore_errors=True)
    temporary = parent / f".{directory.name}.partial"
    temporary.mkdir()
    try:
        _write_cache(samples, size, temporary, threads, on_progress)
        temporary.rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return open_cache(directory)


def open_cache(directory: Path) -> Cache:
    """A finished cache. Raises StudyError where there is none, or where its array does not have the stated size."""
    document = read_json(directory / "cache.json")
    path = directory / "images.npy"
    try:
        rows = {sample_id: row for row, sample_id in enumerate(document["ids"]) if sample_id}
        size, offset, sha256 = int(document["size"]), int(document["offset"]), str(document["sha256"])
        unreadable = tuple(Unreadable(**row) for row in document["unreadable"])
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(
            f"{directory / 'cache.json'} does not describe a cache ({error!r}); delete its folder to build it again"
        ) from error
    expected = offset + len(document["ids"]) * size * size
    if not path.exists() or path.stat().st_size != expected:
        raise StudyError(
            f"{path} is missing or not {expected} bytes long; delete its folder to build it again"
        )
    return Cache(directory, size, rows, unreadable, sha256, offset)


def keep_readable(samples: pd.DataFrame, cache: Cache) -> pd.DataFrame:
    """The rows whose pictures the cache holds. Raises StudyError where there is none."""
    readable = samples[samples["id"].isin(list(cache.rows))].reset_index(drop=True)
    if readable.empty:
        first = cache.unreadable[0].reason if cache.unreadable else "there is no picture"
        raise StudyError(f"none of the {len(samples)} pictures can be read; the first: {first}")
    return readable


def _write_cache(
    samples: pd.DataFrame, size: int, directory: Path, threads: int, on_progress: Callable[[int, int], object]
) -> None:
    ids, paths = samples["id"].tolist(), samples["path"].tolist()
    header = np.lib.format.open_memmap(  # writes the header and reserves the space
        directory / "images.npy", mode="w+", dtype=np.uint8, shape=(len(ids), size, size)
    )
    offset = int(header.offset)
    del header
    kept: list[str] = []
    unreadable: list[Unreadable] = []
    digest = hashlib.sha256()
    with (directory / "images.npy").open("r+b") as stream, ThreadPoolExecutor(threads) as pool:
        stream.seek(offset)
        for done, result in enumerate(_in_order(pool, lambda path: _decode(path, size), paths), start=1):
            sample_id, path = ids[done - 1], paths[done - 1]
            if isinstance(result, ImageError):
                kept.append("")
                shown = str(PurePosixPath(sample_id).parent / Path(path).name)
                reason = f"{shown} {result.fault}; {result.remedy}".replace(path, shown)
                unreadable.append(Unreadable(sample_id, shown, reason))
                stream.seek(size * size, os.SEEK_CUR)
            else:
                kept.append(sample_id)
                digest.update(result.data)
                stream.write(result.data)
            on_progress(done, len(ids))
    write_json(
        directory / "cache.json",
        {
            "version": CACHE_VERSION,
            "size": size,
            "offset": offset,
            "sha256": digest.hexdigest(),
            "ids": kept,  # row -> sample id, "" where the picture could not be read
            "unreadable": [vars(row) for row in unreadable],
        },
    )


def _decode(path: str, size: int) -> NDArray[np.uint8] | ImageError:
    try:
        return np.ascontiguousarray(resize_image(read_slice(path), size))
    except ImageError as error:
        return error


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[str], NDArray[np.uint8] | ImageError], items: list[str]
) -> Iterator[NDArray[np.uint8] | ImageError]:
    """Results in the order of the items, at most DECODE_AHEAD of them in memory."""
    remaining = iter(items)
    waiting = [pool.submit(work, item) for item in islice(remaining, DECODE_AHEAD)]
    while waiting:
        result = waiting.pop(0).result()
        waiting.extend(pool.submit(work, item) for item in islice(remaining, 1))
        yield result
