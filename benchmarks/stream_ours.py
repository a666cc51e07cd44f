"""This project's data stream as a contestant: batches from files or from the cache, without any framework.

    python -m benchmarks.stream_ours --folder DIR --state warm|still|cold|index --channels 3

`warm`: from the cache, with augmentation; `still`: without; `cold`: a unit is a whole first epoch, the sample table,
the building of the cache and the stream together; `index`: a finished cache and sample table are only opened.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from benchmarks.contestant import serve
from common.config import TASKS, Augmentation, CnnSpec, DenseNetSpec, ModelSpec, Recipe
from common.data.batches import Part, select_part, training_batches
from common.data.cache import Cache, build_cache, open_cache
from common.data.layouts import open_dataset
from common.framework import Batch

BATCH_SIZE = 16
STILL = Augmentation(0, 0, 0, 0, 0, 0)


def spec_of(channels: int) -> ModelSpec:
    """Who the batches are for: 224 px, one channel, or three that are normalised each its own way, as DenseNet's."""
    if channels == 1:
        return CnnSpec(image_size=224, channels=1, pixel_mean=(0.2,), pixel_std=(0.3,))
    return DenseNetSpec()


def part_of(cache: Cache, samples: pd.DataFrame) -> Part:
    """All samples as one training part."""
    return select_part(cache, samples, pd.Series("train", index=samples["id"]), "train", TASKS["binary"])


def epochs(part: Part, recipe: Recipe, spec: ModelSpec) -> Iterator[Batch]:
    """Training batches without end."""
    for epoch in itertools.count(1):
        yield from training_batches(part, recipe, spec, 0, epoch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--state", choices=("warm", "still", "cold", "index"), required=True)
    parser.add_argument("--channels", type=int, choices=(1, 3), default=3)
    options = parser.parse_args()
    spec, recipe = spec_of(options.channels), Recipe(epochs=1, batch_size=BATCH_SIZE)
    if options.state == "still":
        recipe = dataclasses.replace(recipe, augmentation=STILL)
    with tempfile.TemporaryDirectory() as scratch:
        if options.state == "cold":
            serve({}, lambda units: sum(_first_epoch(options.folder, Path(scratch), recipe, spec, units)))
            return
        if options.state == "index":
            import torch  # noqa: F401 - the peer's process has it too

            samples = pd.read_csv(options.folder / "samples.csv", dtype=str, keep_default_na=False)
            cache = open_cache(options.folder / "cache")
        else:
            samples = open_dataset(options.folder)
            cache = build_cache(samples, spec.image_size, Path(scratch))
        batches = epochs(part_of(cache, samples), recipe, spec)
        serve({}, lambda units: sum(len(next(batches).rows) for _ in range(units)))


def _first_epoch(folder: Path, scratch: Path, recipe: Recipe, spec: ModelSpec, times: int) -> Iterator[int]:
    """Everything from a folder of files to the last batch of an epoch, so many times; images of each batch."""
    for _ in range(times):
        samples = open_dataset(folder)
        part = part_of(build_cache(samples, spec.image_size, scratch / "cache"), samples)
        for batch in training_batches(part, recipe, spec, 0, 1):
            yield len(batch.rows)
        shutil.rmtree(scratch / "cache")


if __name__ == "__main__":
    main()
