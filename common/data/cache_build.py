"""Filling a cache's folder: what it will take, which shards are missing, and making those.

The work is a function of the sample table, the size and the room alone: neither the number of processes nor where an
earlier build was stopped changes a byte.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from common import config
from common.allocator import keep_freed_memory
from common.data.decoding import Slice, decode_in_order
from common.data.images import ImageError
from common.data.one_array import is_whole_array
from common.data.samples import NO_LESION, samples_digest
from common.data.shards import (
    Sample,
    kept_rows,
    mask_bytes,
    shard_path,
    shard_rows,
    whole_shard,
    write_shard,
)
from common.errors import StudyError
from common.files import file_digest
from common.results import read_json, write_json

CACHE_VERSION = 3  # raise when decoding or resizing changes pixels
FORM = 2  # of the files: shards; 1 was one array for all, `images.npy`

OnProgress = Callable[[int, int], object]  # slices done, slices in all
Say = Callable[[str], object]  # a sentence for the user


@dataclass(frozen=True)
class Need:
    """Bytes on disk that a cache takes, but for some kilobytes of descriptions."""

    pixels: int
    masks: int  # kept always, see `common.data.shards`


def cache_need(samples: pd.DataFrame, size: int, masks: bool) -> Need:
    """What a cache of the samples takes; at most, as some pictures or masks may prove unreadable."""
    lesions = int((~samples["mask"].isin(["", NO_LESION])).sum()) if masks else 0
    return Need(len(samples) * size**2, lesions * mask_bytes(size))


def cache_name(samples: pd.DataFrame, size: int, masks: bool) -> str:
    """The name of a cache's folder: changes with all that changes its content."""
    window = config.WINDOWS[config.DICOM_WINDOW]
    text = f"{CACHE_VERSION}:{size}:{window}:{samples_digest(samples)}"
    if masks:  # "" and "none" are different, and the digest does not see it
        known = sorted(samples.loc[samples["mask"] != "", "id"])
        overlays = {name: value for name, value in vars(config).items() if name.startswith("OVERLAY_")}
        text += f":masks:{overlays}:" + "\x1f".join(known)
    return f"{size}px-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def in_bytes(count: int) -> str:
    """`1.6 GB`, in powers of ten, as disks are sold."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1000:.3g} kB"


# --- filling ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Digests:
    """Of a finished shard."""

    description: str
    pixels: str
    masks: str


def fill_cache(
    samples: pd.DataFrame,
    size: int,
    directory: Path,
    masks: bool,
    room: int | None,
    threads: int,
    processes: int,
    on_progress: OnProgress,
    say: Say,
) -> None:
    """Make what is missing or damaged in a cache's folder, so that it can be opened."""
    finished = _finished(directory, size, len(samples))
    if finished and "form" not in finished:
        if is_whole_array(directory, finished, size):
            return
        say(f"the cache {directory.name} is damaged and is built again")
        shutil.rmtree(directory)
        finished = None
    if not samples["id"].is_monotonic_increasing:
        samples = samples.sort_values("id", kind="stable")
    step = int(finished["rows_per_shard"]) if finished else shard_rows(size)
    spans = [range(first, min(first + step, len(samples))) for first in range(0, len(samples), step)]
    rows = len(samples) if room is None else room // size**2
    keeps = [min(max(rows - span.start, 0), len(span)) for span in spans]
    done = _done(directory, spans, keeps, size, masks, finished, say)
    missing = [number for number in range(len(spans)) if number not in done]
    if finished and not missing and _tells_digests(finished, list(done.values())):
        if count := _write_sources(directory, samples, spans, refresh=True):
            say(
                f"{count:,} of {len(samples):,} slices at {size} px are not kept (--cache-limit): decoded when read"
            )
        return
    if not missing:  # the shards are whole, and their digests are not those that the description tells
        finished = None
    plan = _Plan(samples, size, directory, masks, spans, keeps)
    _check_disk(plan, missing, say)
    kept = sum(len(spans[number]) for number in done)
    began = time.perf_counter()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cache.json").unlink(missing_ok=True)
        for left in directory.glob(".*.partial"):
            left.unlink()
        for number, digests in _make(plan, missing, kept, threads, processes, on_progress):
            done[number] = digests
            kept += len(spans[number])
        _write_sources(directory, samples, spans)
        document = {
            "version": CACHE_VERSION,
            "form": FORM,
            "size": size,
            "samples": len(samples),
            "rows_per_shard": step,
            "shards": [done[number].description for number in range(len(spans))],
            "sha256": _joined([done[number].pixels for number in range(len(spans))]),
            "masks_sha256": _joined([done[number].masks for number in range(len(spans))]),
        }
        if finished and finished["sha256"] != document["sha256"]:
            shutil.rmtree(directory)
            raise StudyError(
                f"a damaged shard of the cache {directory}, built again, has other pixels than before, so that the "
                "decoder must have changed; the cache was removed: the same command builds all of it"
            )
        write_json(directory / "cache.json", document)
    except OSError as error:
        raise StudyError(
            f"{directory} cannot be written: {error.strerror or error}; free space or choose another --out, or keep "
            f"less of it with --cache-limit ({kept:,} of {len(samples):,} slices are finished and kept)"
        ) from error
    _tell_uncached(plan, time.perf_counter() - began, missing, max(processes, 1), say)


@dataclass(frozen=True)
class _Plan:
    samples: pd.DataFrame  # sorted by id
    size: int
    directory: Path
    masks: bool
    spans: Sequence[range]  # rows of each shard
    keeps: Sequence[int]  # for the pixels of how many of them there is room

    def rows(self, number: int) -> list[Sample]:
        """The samples of a shard."""
        table = self.samples.iloc[self.spans[number].start : self.spans[number].stop]
        return [
            Sample(name, path, mask, mask if self.masks and mask not in ("", NO_LESION) else "", mm)
            for name, path, mask, mm in zip(
                table["id"], table["path"], table["mask"], table["pixel_mm"], strict=True
            )
        ]


def _finished(directory: Path, size: int, samples: int) -> dict[str, Any] | None:
    """The description of a finished cache; None where there is none, or none to make sense of: of another size, or of
    other shards than so many samples have. One of a version before shards is judged by `is_whole_array`.
    """
    document = _read_or_none(directory / "cache.json") or {}
    kinds = {"size": int, "rows_per_shard": int, "shards": list, "sha256": str, "masks_sha256": str}
    if "form" not in document:
        kinds = {"ids": list, "offset": int, "size": int, "sha256": str}
    known = all(isinstance(document.get(name), kind) for name, kind in kinds.items())
    if not known or "form" not in document:
        return document if known else None
    step = document["rows_per_shard"]
    fits = step > 0 and len(document["shards"]) == -(-samples // step)
    return document if fits and document["size"] == size else None


def _read_or_none(path: Path) -> dict[str, Any] | None:
    try:
        return read_json(path, config.MAX_TABLE_BYTES)
    except StudyError:
        return None


def _tells_digests(document: dict[str, Any], done: Sequence[_Digests]) -> bool:
    """Whether a finished cache's description tells the digests of its shards' contents: runs write them down."""
    told = (document["sha256"], document["masks_sha256"])
    return told == (_joined([one.pixels for one in done]), _joined([one.masks for one in done]))


def _done(
    directory: Path,
    spans: Sequence[range],
    keeps: Sequence[int],
    size: int,
    masks: bool,
    finished: dict[str, Any] | None,
    say: Say,
) -> dict[int, _Digests]:
    """The shards that are whole, by their digests; those that have room for more pixels now than they keep are not."""
    done: dict[int, _Digests] = {}
    over = 0  # slices whose pixels were kept before the limit was lowered
    for number, span in enumerate(spans):
        path = shard_path(directory, number)
        document = whole_shard(directory, number, len(span), size, masks)
        if (
            document is not None
            and finished
            and [file_digest(path)] != finished["shards"][number : number + 1]
        ):
            document = None
        if document is None:
            if finished or path.exists():
                say(
                    f"shard {number + 1} of {len(spans)} of the cache {directory.name} is damaged and is built again"
                )
        elif (beyond := kept_rows(document) - keeps[number]) >= 0:
            done[number] = _digests(path, document)
            over += beyond
    if over:
        say(
            f"the pixels of {over:,} slices at {size} px are beyond --cache-limit and stay, as an earlier command kept "
            f"them; delete {directory} to free {in_bytes(over * size**2)}"
        )
    return done


def _digests(path: Path, document: dict[str, Any]) -> _Digests:
    return _Digests(file_digest(path), *_content_digests(document))


def _content_digests(part: dict[str, Any]) -> tuple[str, str]:
    """Of a shard's pixels and masks; "" without masks."""
    return part["sha256"], part["masks"]["sha256"] if part["masks"] else ""


def joined_digests(parts: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """Of the pixels and masks of several shards, by their descriptions: what the cache's description has to tell."""
    pixels, masks = zip(*map(_content_digests, parts), strict=True) if parts else ((), ())
    return _joined(pixels), _joined(masks)


def _make(
    plan: _Plan, missing: Sequence[int], done: int, threads: int, processes: int, on_progress: OnProgress
) -> Iterator[tuple[int, _Digests]]:
    """The missing shards written, one after the other; decoding goes on over their borders."""
    keep_freed_memory()
    todo = sum(len(plan.spans[number]) for number in missing)
    items = ((one.path, one.asked) for number in missing for one in plan.rows(number))
    several = processes if todo >= config.CACHE_PROCESS_SLICES else 1
    with closing(decode_in_order(items, plan.size, threads, several)) as results:
        counted = _counted(results, done, len(plan.samples), on_progress)
        for number in missing:
            document = write_shard(
                plan.directory, number, plan.rows(number), counted, plan.size, plan.masks, plan.keeps[number]
            )
            yield number, _digests(shard_path(plan.directory, number), document)


def _counted(
    results: Iterator[Slice | ImageError], done: int, total: int, on_progress: OnProgress
) -> Iterator[Slice | ImageError]:
    for count, result in enumerate(results, start=done + 1):
        on_progress(count, total)
        yield result


def _joined(digests: Sequence[str]) -> str:
    """Of several shards' contents, one after the other; of one shard its own; "" where they have none."""
    if len(digests) == 1 or not any(digests):
        return "".join(digests)
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _write_sources(
    directory: Path, samples: pd.DataFrame, spans: Sequence[range], refresh: bool = False
) -> int:
    """Write `sources.json`: where the pictures lie whose pixels are not kept, as seen from the cache's folder; with
    `refresh` only where they have moved. Returns how many they are.
    """
    path = directory / "sources.json"
    places: dict[str, str] = {}
    for number, span in enumerate(spans):
        kept = kept_rows(read_json(shard_path(directory, number), config.MAX_TABLE_BYTES))
        table = samples.iloc[span.start + kept : span.stop]
        places |= {
            name: _seen_from(directory, where) for name, where in zip(table["id"], table["path"], strict=True)
        }
    if not places:
        path.unlink(missing_ok=True)
    elif not (refresh and _read_or_none(path) == places):
        write_json(path, places)
    return len(places)


def _seen_from(directory: Path, path: str) -> str:
    return (
        path if path.startswith("phantom:") else os.path.relpath(Path(path).absolute(), directory.resolve())
    )


# --- telling ------------------------------------------------------------------------------------------------------


def _check_disk(plan: _Plan, missing: Sequence[int], say: Say) -> None:
    """Tell what is going to be written where it is much. Raises StudyError where the disk has not enough for it."""
    pixels = sum(plan.keeps[number] for number in missing) * plan.size**2
    whole = cache_need(plan.samples, plan.size, plan.masks)
    asked = sum(1 for number in missing for one in plan.rows(number) if one.asked) if plan.masks else 0
    need = pixels + asked * mask_bytes(plan.size)
    place = next(folder for folder in (plan.directory, *plan.directory.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if need >= config.CACHE_TOLD_BYTES or sum(plan.keeps) < len(plan.samples):
        total = in_bytes(whole.pixels + whole.masks)
        say(
            f"the cache of {len(plan.samples):,} slices at {plan.size} px takes {total}; {in_bytes(need)} are written "
            f"now, {in_bytes(free)} are free"
        )
    if need > free:
        raise StudyError(
            f"the cache of {len(plan.samples):,} slices at {plan.size} px needs {in_bytes(need)} more, and "
            f"{in_bytes(free)} are free in {place}; free space, choose another --out, or give --cache-limit, "
            "beyond which slices are decoded in every epoch"
        )


def _tell_uncached(plan: _Plan, seconds: float, missing: Sequence[int], processes: int, say: Say) -> None:
    """How many slices are decoded whenever they are read, and about how long that takes an epoch of all of them."""
    count = len(plan.samples) - sum(plan.keeps)
    decoded = sum(len(plan.spans[number]) for number in missing)
    if count and decoded:
        each = seconds * processes / decoded
        say(
            f"--cache-limit leaves no room for {count:,} of {len(plan.samples):,} slices at {plan.size} px: they are "
            f"decoded whenever they are read, {each * 1000:.1f} ms each, about "
            f"{count * each / config.PREFETCH_THREADS:.0f} s more for each time all of them are seen"
        )
