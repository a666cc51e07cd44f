"""The caches of a study: one for each size that a model of the grid reads, within the limit that was given."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from pathlib import Path

import pandas as pd
import psutil

from common import config, measure
from common.config import TASKS, Study
from common.data.cache import Cache, build_cache
from common.data.cache_build import Need, cache_name, cache_need, in_bytes
from common.errors import StudyError


def build_caches(
    study: Study,
    samples: pd.DataFrame,
    parent: Path,
    on_progress: Callable[[int, int], object],
    say: Callable[[str], object] = lambda text: None,
) -> dict[int, Cache]:
    """Size -> cache; made, or mended, below `parent` with `study.cache_limit` bytes for all of them (0: no limit).

    Raises StudyError where the limit does not hold the masks, or the disk not what is to be written.
    """
    with_masks: dict[int, bool] = {}
    for task, model in study.pairs:
        size = study.specs[f"{task}/{model}"].image_size
        with_masks[size] = with_masks.get(size, False) or TASKS[task].kind == "segmentation"
    needs = {size: cache_need(samples, size, masks) for size, masks in with_masks.items()}
    room = share_room(needs, study.cache_limit) if study.cache_limit else {}
    remove_abandoned(parent, {cache_name(samples, size, masks) for size, masks in with_masks.items()})
    processes = decoding_processes()
    return {
        size: build_cache(
            samples,
            size,
            parent,
            on_progress=on_progress,
            masks=masks,
            room=room.get(size),
            processes=processes,
            say=say,
        )
        for size, masks in sorted(with_masks.items())
    }


def decoding_processes() -> int:
    """As many as there are cores, for nothing is timed yet; fewer where the memory that is free does not hold them."""
    fitting = psutil.virtual_memory().available // config.CACHE_PROCESS_BYTES
    return max(1, min(measure.usable_cores(), config.CACHE_PROCESSES, fitting))


def share_room(needs: dict[int, Need], limit: int) -> dict[int, int]:
    """The bytes for pixels that a limit leaves to each cache (size -> need), the smallest first.

    Raises StudyError for a limit that does not hold the masks.
    """
    left = limit - sum(need.masks for need in needs.values())
    if left < 0:
        raise StudyError(
            f"--cache-limit {in_bytes(limit)} is below the {in_bytes(limit - left)} that the lesion masks take, which "
            "are kept in any case; raise it"
        )
    room = {}
    for size, need in sorted(needs.items()):
        room[size] = min(left, need.pixels)
        left -= room[size]
    return room


def remove_abandoned(parent: Path, names: Collection[str]) -> None:
    """Remove half-built caches of data or sizes that are not asked for any more; finished ones stay."""
    for folder in parent.iterdir() if parent.is_dir() else ():
        if folder.is_dir() and folder.name not in names and not (folder / "cache.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
