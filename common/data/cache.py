"""Every image of a study decoded once, to the run's size, as uint8 arrays on disk; the lesion masks beside it.

The folder's name is a digest of the sample table's content, the size and the version of the rule, so that a cache is
never stale. It holds shards (`common.data.shards`) and `cache.json`, which is written last. A build that was killed, or
stopped by Ctrl-C or a full disk, goes on with the shard it was at, and ends with the same bytes as one that was left
alone, by whatever number of processes. What was finished is checked by its digests whenever a study's command starts;
a damaged shard is built again. Only one command at a time works in a study's folder (`common.holding.hold`).

With `room` for only some of the pixels the first slices keep theirs; the other slices are decoded from their files
whenever they are read. What a run reads is the same, bit for bit. Caches of versions before shards, one array for all,
are read as they are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common import config
from common.data.cache_build import cache_name, fill_cache, joined_digests
from common.data.decoding import decode_sample
from common.data.images import ImageError
from common.data.samples import NO_LESION
from common.data.shards import (
    REMEDY,
    Block,
    DoubtfulMask,
    Unreadable,
    kept_rows,
    mask_bytes,
    read_rows,
    row_digest,
    shard_path,
)
from common.errors import StudyError
from common.files import file_digest
from common.results import read_json, unpack_masks


@dataclass(frozen=True)
class Cache:
    """Decoded slices on disk, addressed by sample id."""

    directory: Path
    size: int  # px
    rows: dict[str, int]  # sample id -> row of the images
    images: tuple[Block, ...]
    unreadable: tuple[Unreadable, ...] = ()
    sha256: str = ""  # of the pixels of all readable rows, in row order, and of nothing else; shard by shard
    grid_mm: dict[str, float] = field(default_factory=dict)  # sample id -> mm of a pixel, where known
    sources: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Of the slices whose pixels are not kept: sample id -> path, digest of the pixels."""
    masks: tuple[Block, ...] | None = None  # None: without masks
    mask_rows: dict[str, int] = field(default_factory=dict)  # sample id -> row of the masks
    empty_masks: frozenset[str] = frozenset()  # ids whose mask was read and shows no lesion: no row
    unknown_masks: frozenset[str] = frozenset()  # ids without a known mask, the unreadable ones among them
    unreadable_masks: tuple[Unreadable, ...] = ()
    doubtful_masks: tuple[DoubtfulMask, ...] = ()
    masks_sha256: str = ""  # of what is known of the masks of all readable rows, in row order; "" without

    @property
    def with_masks(self) -> bool:
        return self.masks is not None

    def read(self, sample_ids: list[str]) -> NDArray[np.uint8]:
        """The slices, (len(sample_ids), size, size). Raises StudyError for an unknown id or a damaged file, and for a
        picture that is not what it was where its pixels are not kept.
        """
        self._check(sample_ids)
        places = [(place, self.rows[sample_id]) for place, sample_id in enumerate(sample_ids)]
        flat = np.empty((len(sample_ids), self.size**2), dtype=np.uint8)
        for place in read_rows(self.images, places, flat):
            flat[place] = self._decode(sample_ids[place]).ravel()
        return flat.reshape(-1, self.size, self.size)

    def read_masks(self, sample_ids: list[str]) -> NDArray[np.bool_]:
        """The lesion masks, (len(sample_ids), size, size). Raises StudyError as `read`, and for an unknown mask."""
        self._check(sample_ids)
        if self.masks is None:
            raise StudyError(
                f"the cache {self.directory} holds no masks; delete its folder to build it again"
            )
        unknown = next((sample_id for sample_id in sample_ids if sample_id in self.unknown_masks), None)
        if unknown is not None:
            raise StudyError(f"the lesion mask of sample {unknown!r} is not known; leave the sample out")
        masks = np.zeros((len(sample_ids), self.size, self.size), dtype=np.bool_)
        places = [place for place, sample_id in enumerate(sample_ids) if sample_id in self.mask_rows]
        if places:
            packed = np.empty((len(places), mask_bytes(self.size)), dtype=np.uint8)
            rows = [(k, self.mask_rows[sample_ids[place]]) for k, place in enumerate(places)]
            read_rows(self.masks, rows, packed)
            masks[places] = unpack_masks(packed, self.size)
        return masks

    def pixel_mm(self, sample_ids: list[str]) -> NDArray[np.float64]:
        """Side of a pixel of the cache's grid in mm, (len(sample_ids),); NaN where unknown."""
        return np.array([self.grid_mm.get(sample_id, np.nan) for sample_id in sample_ids], dtype=np.float64)

    def _check(self, sample_ids: list[str]) -> None:
        for sample_id in sample_ids:
            if sample_id not in self.rows:
                raise StudyError(f"sample {sample_id!r} is not in the cache {self.directory}")

    def _decode(self, sample_id: str) -> NDArray[np.uint8]:
        """A slice whose pixels are not kept."""
        path, digest = self.sources[sample_id]
        if not path.startswith("phantom:"):
            # From the folder itself, as it was written: a link may lie above
            path = os.path.normpath(self.directory.resolve() / path)
        found = decode_sample(path, "", self.size)
        if isinstance(found, ImageError):
            raise found
        if row_digest(found.image) != digest:
            raise StudyError(
                f"{path} is not the picture that it was when the study began; put it back, or begin another study"
            )
        return found.image


# --- building and opening -----------------------------------------------------------------------------------------


def build_cache(
    samples: pd.DataFrame,
    size: int,
    parent: Path,
    threads: int = 2,
    on_progress: Callable[[int, int], object] = lambda done, total: None,
    masks: bool = False,
    room: int | None = None,
    processes: int = 1,
    say: Callable[[str], object] = lambda text: None,
) -> Cache:
    """The cache of the samples at `size` px below `parent`: made, or mended, where it is not there and whole.

    Pictures that cannot be read are left out and listed in `Cache.unreadable`. With `masks` the lesion masks are read
    as well; one that cannot be is listed in `Cache.unreadable_masks`, and its picture stays. `room`: the bytes for
    pixels (None: all that they take), see above. `processes` take part from `config.CACHE_PROCESS_SLICES` slices on,
    below that `threads`. `say` hears what is to be known of the disk and of damage. Raises StudyError where it cannot
    be written.
    """
    directory = parent / cache_name(samples, size, masks)
    fill_cache(samples, size, directory, masks, room, threads, processes, on_progress, say)
    return open_cache(directory)


def open_cache(directory: Path) -> Cache:
    """A finished cache. Raises StudyError where there is none, or where a file does not have the stated size."""
    document = read_json(directory / "cache.json", config.MAX_TABLE_BYTES)
    try:
        cache = _sharded(directory, document) if "form" in document else _one_array(directory, document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StudyError(
            f"{directory / 'cache.json'} does not describe a cache ({error!r}); delete its folder to build it again"
        ) from error
    return cache


def _sharded(directory: Path, document: dict[str, Any]) -> Cache:
    parts, files = [], []
    for number, digest in enumerate(document["shards"]):
        path = shard_path(directory, number)
        if not path.exists() or file_digest(path) != digest:
            raise StudyError(f"{path} is missing or damaged; {REMEDY}")
        part = read_json(path, config.MAX_TABLE_BYTES)
        parts.append(part)
        files.append((f"images-{number:05d}.npy", f"masks-{number:05d}.npy"))
    if joined_digests(parts) != (document["sha256"], document["masks_sha256"]):
        raise StudyError(f"{directory / 'cache.json'} tells other digests than its shards; {REMEDY}")
    limited = any(part["digests"] for part in parts)
    paths = read_json(directory / "sources.json", config.MAX_TABLE_BYTES) if limited else {}
    return _assemble(directory, document, parts, files, paths)


def _one_array(directory: Path, document: dict[str, Any]) -> Cache:
    """A cache of a version before shards."""
    size, masks = int(document["size"]), document["masks"]
    offset, count = int(document["offset"]), len(document["ids"])
    part = {**document, "images": {"offset": offset, "bytes": offset + count * size**2}, "digests": []}
    if masks is not None:
        start, lesions = int(masks["offset"]), len(masks["ids"])
        part["masks"] = {**masks, "file": {"offset": start, "bytes": start + lesions * mask_bytes(size)}}
    whole = {
        "size": size,
        "sha256": document["sha256"],
        "masks_sha256": masks["sha256"] if masks is not None else "",
    }
    return _assemble(directory, whole, [part], [("images.npy", "masks.npy")], {})


def _assemble(
    directory: Path,
    document: dict[str, Any],
    parts: Sequence[dict[str, Any]],
    files: Sequence[tuple[str, str]],
    paths: dict[str, str],
) -> Cache:
    """A cache of its shards' descriptions and files."""
    rows: dict[str, int] = {}
    mask_rows: dict[str, int] = {}
    images: list[Block] = []
    lesions: list[Block] = []
    sources: dict[str, tuple[str, str]] = {}
    count = lesion_count = 0
    size = int(document["size"])
    with_masks = bool(parts) and all(part["masks"] is not None for part in parts)
    for part, (image_file, mask_file) in zip(parts, files, strict=True):
        ids = part["ids"]
        rows |= {sample_id: row for row, sample_id in enumerate(ids, start=count) if sample_id}
        kept = kept_rows(part)
        if kept:
            images.append(_block(directory / image_file, part["images"], count, kept, size**2))
        if kept < len(ids):
            images.append(Block(count + kept, len(ids) - kept, None))
            known = zip(ids[kept:], part["digests"], strict=True)
            sources |= {sample_id: (paths[sample_id], digest) for sample_id, digest in known if sample_id}
        count += len(ids)
        if with_masks:
            held = part["masks"]["ids"]
            mask_rows |= {one: row for row, one in enumerate(held, start=lesion_count) if one}
            file, row_bytes = part["masks"]["file"], mask_bytes(size)
            lesions.append(_block(directory / mask_file, file, lesion_count, len(held), row_bytes))
            lesion_count += len(held)
    masks = [part["masks"] for part in parts] if with_masks else []
    return Cache(
        directory,
        size,
        rows,
        tuple(images),
        unreadable=tuple(Unreadable(**row) for part in parts for row in part["unreadable"]),
        sha256=str(document["sha256"]),
        grid_mm={one: float(mm) for part in parts for one, mm in part["grid_mm"].items()},
        sources=sources,
        masks=tuple(lesions) if with_masks else None,
        mask_rows=mask_rows,
        empty_masks=frozenset(one for part in masks for one in part["empty"]),
        unknown_masks=frozenset(one for part in masks for one in part["unknown"]),
        unreadable_masks=tuple(Unreadable(**row) for part in masks for row in part["unreadable"]),
        doubtful_masks=tuple(DoubtfulMask(**row) for part in masks for row in part["doubtful"]),
        masks_sha256=str(document["masks_sha256"]),
    )


def _block(path: Path, file: dict[str, Any], first: int, count: int, row_bytes: int) -> Block:
    """Rows in a file, which must have the stated size."""
    if file["bytes"] != file["offset"] + count * row_bytes:
        raise StudyError(f"{path} does not hold {count} rows of {row_bytes} bytes; {REMEDY}")
    if not path.exists() or path.stat().st_size != file["bytes"]:
        raise StudyError(f"{path} is missing or not {file['bytes']} bytes long; {REMEDY}")
    return Block(first, count, path, int(file["offset"]))


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
