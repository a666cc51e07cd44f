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
from common.data.augment import augment_image, augment_mask, draw_numbers
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
    repeats = pd.Series(order.ravel()).groupby(order.ravel()).cumcount().to_numpy().reshape(order.shape)

    def make(step: int) -> Batch:
        rows = order[step]
        ids = [part.ids[row] for row in rows]
        numbers = [
            draw_numbers(seed, epoch, sample_id, int(repeat))
            for sample_id, repeat in zip(ids, repeats[step], strict=True)
        ]
        slices = part.cache.read(ids)
        for place, drawn in enumerate(numbers):
            slices[place] = augment_image(slices[place], drawn, recipe.augmentation)
        if part.task.kind == "segmentation":
            masks = part.cache.read_masks(ids)
            for place, drawn in enumerate(numbers):
                masks[place] = augment_mask(masks[place], drawn, recipe.augmentation)
            targets = masks[..., np.newaxis].astype(np.float32)  # (N, S, S, 1)
        else:
            targets = class_targets(part.labels[rows], part.task, recipe.label_smoothing)
        weights = part.weights[rows].astype(np.float32)
        return Batch(normalise(slices, spec), targets, weights, rows, key=(seed, epoch, step))

    return prefetch(make, len(order))


def evaluation_batches(part: Part, batch_size: int, spec: ModelSpec) -> Iterator[Batch]:
    """The batches of one evaluation pass, in table order, unchanged pixels, plain targets; the last one padded."""
    size = spec.image_size

    def make(step: int) -> Batch:
        present = np.arange(step * batch_size, min((step + 1) * batch_size, len(part)))
        ids, count = [part.ids[row] for row in present], len(present)
        rows = np.full(batch_size, -1, dtype=np.int64)
        rows[:count] = present
        slices = np.zeros((batch_size, size, size), dtype=np.uint8)
        slices[:count] = part.cache.read(ids)
        if part.task.kind == "segmentation":
            targets = np.zeros((batch_size, size, size, 1), dtype=np.float32)
            targets[:count, ..., 0] = part.cache.read_masks(ids)
        else:
            targets = np.zeros((batch_size, part.task.outputs), dtype=np.float32)
            targets[:count] = class_targets(part.labels[present], part.task)
        weights = np.zeros(batch_size, dtype=np.float32)
        weights[:count] = part.weights[present]
        return Batch(normalise(slices, spec), targets, weights, rows)

    return prefetch(make, evaluation_steps(len(part), batch_size))


def class_targets(labels: NDArray[np.int64], task: Task, smoothing: float = 0.0) -> NDArray[np.float32]:
    """Probabilities in the shape of a classifier's logits, float32 (N, outputs): of class 1, or of each class.

    Smoothing e leaves 1 - e to the truth and spreads e evenly over all classes (Szegedy et al. 2016, section 7).
    """
    classes = len(task.classes)
    each = np.eye(classes)[labels] * (1 - smoothing) + smoothing / classes  # (N, classes)
    return (each[:, 1:] if task.outputs == 1 else each).astype(np.float32)


def normalise(slices: NDArray[np.uint8], spec: ModelSpec) -> NDArray[np.float32]:
    """uint8 (N, H, W) -> float32 (N, H, W, C): x / 255, minus mean, over standard deviation, each channel its own."""
    values = np.arange(256)[:, np.newaxis] / 255
    table = ((values - np.array(spec.pixel_mean)) / np.array(spec.pixel_std)).astype(np.float32)  # (256, C)
    if table.shape[1] != spec.channels:
        raise StudyError(
            f"{spec.name} has {spec.channels} channels, but pixel_mean and pixel_std have "
            f"{table.shape[1]}; give one a channel"
        )
    return table.take(slices, axis=0)  # three times as quick as table[slices]


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
    """The arrays of a batch, all that a framework learns from, for digests; its key is a name."""
    arrays = (batch.images, batch.targets, batch.weights, batch.rows)
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
