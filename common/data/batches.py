"""The ordered, prefetched stream of batches that both frameworks read.

Order, augmentation and class weights come from the seed and the sample ids alone: neither the number of threads nor
the order of files changes a bit. Every batch of a stream has the same size, so that no framework compiles or pads a
last, smaller one: a training epoch is filled up with the first samples of its own order (each epoch's order is new,
so no sample is favoured), an evaluation pass with blank images whose row is -1 and whose output is dropped.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common import config
from common.config import ModelSpec, Recipe, Task
from common.data.augment import augment_image, draw_numbers
from common.data.cache import Cache
from common.framework import Batch
from common.random_numbers import generator


@dataclass(frozen=True)
class Part:
    """The samples of one part of a split, in the order of the sample table; arrays of equal length n."""

    cache: Cache
    ids: tuple[str, ...]
    patients: tuple[str, ...]
    labels: NDArray[np.int64]  # class index
    weights: NDArray[np.float64]  # loss weight of the sample's class

    def __len__(self) -> int:
        return len(self.ids)


def select_part(
    cache: Cache,
    samples: pd.DataFrame,
    split: pd.Series,
    name: str,
    task: Task,
    class_weights: NDArray[np.float64] | None = None,
) -> Part:
    """The part `name` of a split (`split`: sample id -> part), its samples weighed by class; None: all alike."""
    rows = samples[samples["id"].map(split).eq(name)]
    labels = np.array([task.class_index(label) for label in rows["label"]], dtype=np.int64)
    weights = np.ones(len(labels)) if class_weights is None else class_weights[labels]
    return Part(cache, tuple(rows["id"]), tuple(rows["patient"]), labels, weights)


def weigh_classes(labels: NDArray[np.int64], classes: int, rule: str) -> NDArray[np.float64]:
    """Loss weight of each class, (classes,): `balanced` is n / (classes * n_class), 0 for an absent class."""
    if rule == "none":
        return np.ones(classes)
    counts = np.bincount(labels, minlength=classes)
    return np.divide(len(labels), classes * counts, out=np.zeros(classes), where=counts > 0)


def steps_per_epoch(samples: int, batch_size: int) -> int:
    return math.ceil(samples / batch_size)


def epoch_order(samples: int, batch_size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Rows of each step of a training epoch, (steps, batch_size): a permutation, continued from its own start."""
    order = generator("order", seed, epoch).permutation(samples)
    steps = steps_per_epoch(samples, batch_size)
    return np.resize(order, (steps, batch_size)).astype(np.int64)


def training_batches(part: Part, recipe: Recipe, spec: ModelSpec, seed: int, epoch: int) -> Iterator[Batch]:
    """The batches of one training epoch; loss weights are scaled to mean 1 in each batch."""
    order = epoch_order(len(part), recipe.batch_size, seed, epoch)

    def make(step: int) -> Batch:
        rows = order[step]
        ids = [part.ids[row] for row in rows]
        slices = part.cache.read(ids)
        for place, sample_id in enumerate(ids):
            numbers = draw_numbers(seed, epoch, sample_id)
            slices[place] = augment_image(slices[place], numbers, recipe.augmentation)
        weights = part.weights[rows]
        return Batch(
            normalise(slices, spec),
            part.labels[rows].astype(np.float32),
            (weights / weights.mean()).astype(np.float32),
            rows,
        )

    return prefetch(make, len(order))


def evaluation_batches(part: Part, batch_size: int, spec: ModelSpec) -> Iterator[Batch]:
    """The batches of one evaluation pass, in table order, unchanged pixels; the last one padded."""
    steps = steps_per_epoch(len(part), batch_size)

    def make(step: int) -> Batch:
        present = np.arange(step * batch_size, min((step + 1) * batch_size, len(part)))
        rows = np.full(batch_size, -1, dtype=np.int64)
        rows[: len(present)] = present
        slices = np.zeros((batch_size, spec.image_size, spec.image_size), dtype=np.uint8)
        slices[: len(present)] = part.cache.read([part.ids[row] for row in present])
        labels, weights = np.zeros(batch_size, np.float32), np.zeros(batch_size, np.float32)
        labels[: len(present)] = part.labels[present]
        weights[: len(present)] = part.weights[present]
        return Batch(normalise(slices, spec), labels, weights, rows)

    return prefetch(make, steps)


def normalise(slices: NDArray[np.uint8], spec: ModelSpec) -> NDArray[np.float32]:
    """uint8 (N, H, W) -> float32 (N, H, W, C): x / 255, minus mean, over standard deviation; grey repeated."""
    table = ((np.arange(256) / 255 - spec.pixel_mean) / spec.pixel_std).astype(np.float32)
    images = np.empty((*slices.shape, spec.channels), dtype=np.float32)
    images[...] = table[slices][..., np.newaxis]  # (N, H, W) -> (N, H, W, C)
    return images


def prefetch(make: Callable[[int], Batch], count: int) -> Iterator[Batch]:
    """`make(0) .. make(count - 1)` in order, made by threads at most PREFETCH_BATCHES ahead of the reader."""
    with ThreadPoolExecutor(config.PREFETCH_THREADS, thread_name_prefix="batches") as pool:
        waiting: deque[Future[Batch]] = deque()
        try:
            for step in range(count):
                while len(waiting) < config.PREFETCH_BATCHES and step + len(waiting) < count:
                    waiting.append(pool.submit(make, step + len(waiting)))
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def batch_bytes(batch: Batch) -> bytes:
    """Everything of a batch that a framework sees, for digests."""
    arrays = (batch.images, batch.labels, batch.weights, batch.rows)
    return b"".join(f"{array.dtype}{array.shape}".encode() + array.tobytes() for array in arrays)


class Witness:
    """Remembers, as digests, what was handed to a framework: the first batches whole, the order of all."""

    def __init__(self) -> None:
        self._whole, self._order = hashlib.sha256(), hashlib.sha256()
        self._hashed = 0

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches unchanged."""
        for batch in batches:
            if self._hashed < config.HASHED_BATCHES:
                self._hashed += 1
                self._whole.update(batch_bytes(batch))
            self._order.update(batch.rows.tobytes())
            yield batch

    def record(self) -> dict[str, int | str]:
        """`batches` of run.json."""
        return {
            "hashed": self._hashed,
            "sha256": self._whole.hexdigest(),
            "order_sha256": self._order.hexdigest(),
        }
