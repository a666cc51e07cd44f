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
from itertools import repeat

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common import config
from common.config import ModelSpec, Recipe, Task
from common.data.augment import (
    affine_matrix,
    changes_shape,
    draw_batch,
    intensity_table,
    warp_image,
    warp_mask,
)
from common.data.cache import Cache
from common.data.samples import class_indices
from common.errors import StudyError
from common.framework import Batch
from common.random_numbers import generator


@dataclass(frozen=True)
class Part:
    """The samples of one part of a split, in the order of the sample table; arrays of equal length n."""

    cache: Cache
    ids: tuple[str, ...]
    patients: tuple[str, ...]
    labels: NDArray[np.int64]  # class index; for segmentation 1 where there is a lesion
    weights: NDArray[np.float64]  # loss weight of the sample's class
    task: Task

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
    labels = class_indices(rows, task)
    weights = np.ones(len(labels)) if class_weights is None else class_weights[labels]
    return Part(cache, tuple(rows["id"]), tuple(rows["patient"]), labels, weights, task)


def weigh_classes(labels: NDArray[np.int64], classes: int, rule: str) -> NDArray[np.float64]:
    """Loss weight of each class, (classes,): `balanced` is n / (classes * n_class), 0 for an absent class."""
    if rule == "none":
        return np.ones(classes)
    counts = np.bincount(labels, minlength=classes)
    return np.divide(len(labels), classes * counts, out=np.zeros(classes), where=counts > 0)


# --- order --------------------------------------------------------------------------------------------------------


def steps_per_epoch(part: Part, recipe: Recipe) -> int:
    """Steps of a training epoch under the recipe's sampling."""
    return math.ceil(sum(_samples_per_class(part.labels, recipe)) / recipe.batch_size)


def evaluation_steps(samples: int, batch_size: int) -> int:
    """Batches of an evaluation pass."""
    return math.ceil(samples / batch_size)


def epoch_rows(part: Part, recipe: Recipe, seed: int, epoch: int, framework: str = "") -> NDArray[np.int64]:
    """Rows of each step of a training epoch, (steps, batch_size): an order by `recipe.sampling`, continued from its
    own start. See `config.Recipe` for the rules.

    Where `recipe.order` is "framework" the order is that framework's own, drawn under its name as well.
    """
    if recipe.order == "framework" and not framework:
        raise ValueError("recipe.order is 'framework', but no framework is named; give Framework.name()")
    own = (framework,) if recipe.order == "framework" else ()
    draw = generator("order", seed, epoch, *own)
    if recipe.sampling == "shuffled":
        order = draw.permutation(len(part))
    else:
        wanted = _samples_per_class(part.labels, recipe)
        chosen = [
            np.resize(draw.permutation(np.flatnonzero(part.labels == index)), count)
            for index, count in enumerate(wanted)
        ]
        order = draw.permutation(np.concatenate(chosen))
    return np.resize(order, (steps_per_epoch(part, recipe), recipe.batch_size)).astype(np.int64)


def _samples_per_class(labels: NDArray[np.int64], recipe: Recipe) -> list[int]:
    """How many samples of each class an epoch shows."""
    found = np.bincount(labels).tolist()
    if recipe.sampling == "shuffled":
        return found
    if recipe.sampling == "balanced":
        present = [index for index, count in enumerate(found) if count]
        share, rest = divmod(len(labels), len(present))
        return [share + (index in present[:rest]) if count else 0 for index, count in enumerate(found)]
    lesions, fraction = len(labels) - found[0], recipe.foreground_fraction  # "foreground"
    if not lesions:
        raise StudyError("no slice of the training part shows a lesion; leave the task out or give masks")
    return [min(found[0], round(lesions * (1 - fraction) / fraction)), *found[1:]]


# --- streams ------------------------------------------------------------------------------------------------------


def training_batches(
    part: Part, recipe: Recipe, spec: ModelSpec, seed: int, epoch: int, framework: str = ""
) -> Iterator[Batch]:
    """The batches of one training epoch; loss weights are those of the classes as they are.

    A sample that comes again within the epoch is changed anew. `framework` names the one that reads, whose own the
    order may be (`epoch_rows`); how a sample is changed in an epoch is the same for all.
    """
    order = epoch_rows(part, recipe, seed, epoch, framework)
    repeats = _earlier_showings(order)
    ranges, size, table = recipe.augmentation, part.cache.size, grey_table(spec)
    still = not changes_shape(ranges)

    def make(step: int) -> Batch:
        rows = order[step]
        ids = [part.ids[row] for row in rows]
        numbers = draw_batch(seed, epoch, ids, repeats[step].tolist())
        matrices = [] if still else [affine_matrix(size, drawn, ranges) for drawn in numbers]
        slices = part.cache.read(ids)
        moved = slices if still else map(warp_image, slices, matrices)
        tables = table.take(intensity_table(numbers, ranges), axis=1)  # both changes of a grey value in one
        images = look_up(moved, tables.swapaxes(0, 1), np.empty((*slices.shape, spec.channels), np.float32))
        if part.task.kind == "segmentation":
            targets = np.zeros((*slices.shape, 1), dtype=np.float32)
            for place, mask in enumerate(part.cache.read_masks(ids)):
                if still:
                    targets[place, ..., 0] = mask
                elif mask.any():
                    warp_mask(mask, matrices[place], out=targets[place, ..., 0])
        else:
            targets = class_targets(part.labels[rows], part.task, recipe.label_smoothing)
        weights = part.weights[rows].astype(np.float32)
        return Batch(images, targets, weights, rows, key=(seed, epoch, step))

    return prefetch(make, len(order))


def _earlier_showings(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each row came before in the epoch, in the shape of `order`."""
    flat = order.ravel()
    places = np.argsort(flat, kind="stable")  # equal rows one after the other, as they come
    first = np.searchsorted(flat[places], flat[places])
    earlier = np.empty_like(flat)
    earlier[places] = np.arange(len(flat)) - first
    return earlier.reshape(order.shape)


def evaluation_batches(part: Part, batch_size: int, spec: ModelSpec) -> Iterator[Batch]:
    """The batches of one evaluation pass, in table order, unchanged pixels, plain targets; the last one padded."""
    size, table = spec.image_size, grey_table(spec)

    def make(step: int) -> Batch:
        present = np.arange(step * batch_size, min((step + 1) * batch_size, len(part)))
        ids, count = [part.ids[row] for row in present], len(present)
        rows = np.full(batch_size, -1, dtype=np.int64)
        rows[:count] = present
        images = np.empty((batch_size, size, size, spec.channels), dtype=np.float32)
        look_up(part.cache.read(ids), repeat(table), images[:count])
        images[count:] = table[:, 0]
        if part.task.kind == "segmentation":
            targets = np.zeros((batch_size, size, size, 1), dtype=np.float32)
            targets[:count, ..., 0] = part.cache.read_masks(ids)
        else:
            targets = np.zeros((batch_size, part.task.outputs), dtype=np.float32)
            targets[:count] = class_targets(part.labels[present], part.task)
        weights = np.zeros(batch_size, dtype=np.float32)
        weights[:count] = part.weights[present]
        return Batch(images, targets, weights, rows)

    return prefetch(make, evaluation_steps(len(part), batch_size))


def class_targets(labels: NDArray[np.int64], task: Task, smoothing: float = 0.0) -> NDArray[np.float32]:
    """Probabilities in the shape of a classifier's logits, float32 (N, outputs): of class 1, or of each class.

    Smoothing e leaves 1 - e to the truth and spreads e evenly over all classes (Szegedy et al. 2016, section 7).
    """
    classes = len(task.classes)
    each = np.eye(classes)[labels] * (1 - smoothing) + smoothing / classes  # (N, classes)
    return (each[:, 1:] if task.outputs == 1 else each).astype(np.float32)


def normalise(slices: NDArray[np.uint8], spec: ModelSpec) -> NDArray[np.float32]:
    """uint8 (N, H, W) -> float32 (N, H, W, C), by `grey_table`."""
    images = np.empty((*slices.shape, spec.channels), dtype=np.float32)
    return look_up(slices, repeat(grey_table(spec)), images)


def grey_table(spec: ModelSpec) -> NDArray[np.float32]:
    """A model's input for each grey value, (C, 256): x / 255, minus mean, over standard deviation of each channel."""
    values = np.arange(256)[:, np.newaxis] / 255
    table = ((values - np.array(spec.pixel_mean)) / np.array(spec.pixel_std)).astype(np.float32).T
    if len(table) != spec.channels:
        raise StudyError(
            f"{spec.name} has {spec.channels} channels, but pixel_mean and pixel_std have "
            f"{len(table)}; give one a channel"
        )
    return np.ascontiguousarray(table)


def look_up(
    slices: Iterable[NDArray[np.uint8]], tables: Iterable[NDArray[np.float32]], out: NDArray[np.float32]
) -> NDArray[np.float32]:
    """`out` (N, H, W, C): each slice's grey values (H, W) by its own table (C, 256).

    One image after the other, so that it stays in the processor's cache from one operation to the next.
    """
    height, width, channels = out.shape[1:]
    if channels == 1:
        for image, slice_, table in zip(out, slices, tables, strict=False):
            cv2.LUT(slice_, table[0], dst=image)
        return out
    planes = list(np.empty((channels, height, width), dtype=np.float32))
    for image, slice_, table in zip(out, slices, tables, strict=False):
        grey = bool((table == table[0]).all())
        looked_up = planes[:1] if grey else planes
        for plane, column in zip(looked_up, table, strict=False):
            cv2.LUT(slice_, column, dst=plane)
        cv2.merge(looked_up * channels if grey else looked_up, dst=image)
    return out


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


def batch_bytes(batch: Batch) -> Iterator[bytes | memoryview]:
    """The arrays of a batch, all that a framework learns from, piece by piece for digests; its key is a name."""
    for array in (batch.images, batch.targets, batch.weights, batch.rows):
        yield f"{array.dtype}{array.shape}".encode()
        yield np.ascontiguousarray(array).data.cast("B") if array.size else b""


class Witness:
    """Remembers, as digests, what was handed to a framework: the first batches whole, the order of all."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._whole, self._order = hashlib.sha256(), hashlib.sha256()
        self._hashed = 0

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches unchanged."""
        for batch in batches:
            if self._hashed < config.HASHED_BATCHES:
                self._hashed += 1
                for piece in batch_bytes(batch):
                    self._whole.update(piece)
            self._order.update(batch.rows.tobytes())
            yield batch

    def recall(self, order: NDArray[np.int64]) -> None:
        """Rows of steps, (steps, batch_size), that were handed over before this process, beyond the first batches."""
        self._order.update(order.tobytes())

    def record(self) -> dict[str, int | str]:
        """`batches` of run.json."""
        return {
            "hashed": self._hashed,
            "sha256": self._whole.hexdigest(),
            "order_sha256": self._order.hexdigest(),
        }
