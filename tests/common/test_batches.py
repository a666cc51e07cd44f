"""The stream: the same bytes for every framework, whatever the threads, the files and the rest of the table."""

import dataclasses
import gc
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_fixture import growth_mib
from tiny import (
    MASK_RECIPE,
    MASK_SPEC,
    RECIPE,
    SPEC,
    SUBTYPE_SPEC,
    hash_batches,
    make_mask,
    make_samples,
    make_slice,
    write_cache,
)

from common import config
from common.config import TASKS, Augmentation, CnnSpec, ModelSpec, Recipe, Task
from common.data.augment import augment_image, augment_mask, draw_numbers
from common.data.batches import (
    Part,
    class_targets,
    epoch_rows,
    evaluation_batches,
    evaluation_steps,
    normalise,
    prefetch,
    select_part,
    steps_per_epoch,
    training_batches,
    weigh_classes,
)
from common.data.cache import Cache
from common.data.shards import Block
from common.errors import StudyError
from common.framework import Batch
from common.losses import binary_cross_entropy

BINARY, SUBTYPE, SEGMENTATION = TASKS["binary"], TASKS["subtype"], TASKS["segmentation"]
WEIGHTS = np.array([0.75, 1.5])  # of the classes
STILL = Augmentation(0, 0, 0, 0, 0, 0)
SAMPLES = 22  # with batches of 4: 6 steps, the last one filled up


def make_part(folder: Path, samples: pd.DataFrame, task: Task = BINARY) -> Part:
    split = pd.Series("train", index=samples["id"].tolist())
    weights = WEIGHTS if task is BINARY else None
    return select_part(write_cache(folder, samples), samples, split, "train", task, weights)


def labelled(labels: Sequence[int], task: Task = BINARY) -> Part:
    """A part of which only the labels matter."""
    names = tuple(f"s{number}" for number in range(len(labels)))
    cache = Cache(Path(), 16, {}, (), "", 0)
    return Part(cache, names, names, np.array(labels, dtype=np.int64), np.ones(len(labels)), task)


@pytest.fixture
def part(tmp_path: Path) -> Part:
    return make_part(tmp_path / "cache", make_samples(SAMPLES))


@pytest.fixture
def subtypes(tmp_path: Path) -> Part:
    samples = make_samples(SAMPLES, ("bleeding", "normal", "ischemia"))
    return make_part(tmp_path / "subtypes", samples, SUBTYPE)


@pytest.fixture
def lesions(tmp_path: Path) -> Part:
    return make_part(tmp_path / "lesions", make_samples(SAMPLES), SEGMENTATION)


def stream_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def tiny_batch(step: int) -> Batch:
    zeros = np.zeros((1, 1), dtype=np.float32)
    return Batch(np.zeros((1, 1, 1, 1), dtype=np.float32), zeros, zeros[:, 0], np.array([step]))


# --- order --------------------------------------------------------------------------------------------------------

SHUFFLED, BALANCED, FOREGROUND = (
    dataclasses.replace(RECIPE, sampling=name, class_weights="none")
    for name in ("shuffled", "balanced", "foreground")
)
class_lists = st.lists(st.integers(0, 2), min_size=1, max_size=120)


@given(labels=class_lists, batch_size=st.integers(1, 40), epoch=st.integers(1, 5))
def test_order_is_a_permutation_continued_from_its_own_start(
    labels: list[int], batch_size: int, epoch: int
) -> None:
    part, recipe = labelled(labels), dataclasses.replace(SHUFFLED, batch_size=batch_size)
    samples = len(labels)
    order = epoch_rows(part, recipe, seed=0, epoch=epoch)
    assert order.dtype == np.int64
    assert order.shape == (steps_per_epoch(part, recipe), batch_size)
    flat = order.ravel()
    assert sorted(flat[:samples]) == list(range(samples))
    np.testing.assert_array_equal(flat[samples:], np.tile(flat[:samples], batch_size)[: flat.size - samples])


def test_the_shuffled_order_stays_as_published() -> None:
    """The very rows of the first version, so that finished runs can be repeated."""
    rows = epoch_rows(labelled([0] * 10), dataclasses.replace(SHUFFLED, batch_size=6), seed=3, epoch=2)
    np.testing.assert_array_equal(rows, [[4, 3, 6, 8, 2, 5], [1, 9, 7, 0, 4, 3]])


@given(labels=class_lists, batch_size=st.integers(1, 9), epoch=st.integers(1, 3))
def test_balanced_epochs_show_as_many_of_each_class(labels: list[int], batch_size: int, epoch: int) -> None:
    part, recipe = labelled(labels), dataclasses.replace(BALANCED, batch_size=batch_size)
    order = epoch_rows(part, recipe, 0, epoch)
    assert len(order) == steps_per_epoch(part, recipe) == -(-len(labels) // batch_size)
    shown = order.ravel()[: len(labels)]
    per_class = np.bincount(part.labels[shown])[np.unique(labels)]
    assert per_class.sum() == len(labels)
    assert per_class.max() - per_class.min() <= 1
    for index in np.unique(labels):  # nobody is shown again before everybody was shown
        times = np.bincount(shown, minlength=len(labels))[part.labels == index]
        assert times.max() - times.min() <= 1


@given(
    labels=st.lists(st.integers(0, 1), min_size=1, max_size=120).filter(any),
    fraction=st.sampled_from([0.3, 0.5, 0.6, 1.0]),
)
def test_foreground_epochs_show_every_lesion_once_and_a_share_of_the_others(
    labels: list[int], fraction: float
) -> None:
    part = labelled(labels, SEGMENTATION)
    recipe = dataclasses.replace(FOREGROUND, foreground_fraction=fraction, batch_size=7)
    lesions = sum(labels)
    others = min(len(labels) - lesions, round(lesions * (1 - fraction) / fraction))
    order = epoch_rows(part, recipe, 0, 1)
    assert len(order) == steps_per_epoch(part, recipe) == -(-(lesions + others) // 7)
    shown = order.ravel()[: lesions + others]
    assert len(set(shown.tolist())) == len(shown)  # nobody twice
    assert part.labels[shown].sum() == lesions
    np.testing.assert_array_equal(order.ravel(), np.resize(shown, order.size))


def test_foreground_by_hand() -> None:
    """12 lesions are 60 % of 20; other slices without a lesion come in the next epoch."""
    part = labelled([1] * 12 + [0] * 100, SEGMENTATION)
    recipe = dataclasses.replace(FOREGROUND, foreground_fraction=0.6, batch_size=5)
    first, second = (epoch_rows(part, recipe, 0, epoch) for epoch in (1, 2))
    assert first.shape == (4, 5)
    others = [set(rows[rows >= 12].tolist()) for rows in (first, second)]
    assert [len(rows) for rows in others] == [8, 8]
    assert others[0] != others[1]
    assert 0 < (first.ravel()[:8] >= 12).sum() < 8  # shuffled together, not one after the other


def test_a_sampling_by_lesions_needs_some() -> None:
    with pytest.raises(StudyError, match="no slice of the training part shows a lesion"):
        steps_per_epoch(labelled([0, 0, 0], SEGMENTATION), FOREGROUND)


@pytest.mark.parametrize("recipe", [SHUFFLED, BALANCED, FOREGROUND], ids=lambda recipe: recipe.sampling)
def test_each_seed_and_epoch_has_an_order_of_its_own(recipe: Recipe) -> None:
    part = labelled([0, 1, 0, 1, 1] * 10)
    orders = {epoch_rows(part, recipe, seed, epoch).tobytes() for seed in (0, 1, 2) for epoch in (1, 2, 3)}
    assert len(orders) == 9
    np.testing.assert_array_equal(epoch_rows(part, recipe, 1, 2), epoch_rows(part, recipe, 1, 2))


@pytest.mark.parametrize("recipe", [SHUFFLED, BALANCED, FOREGROUND], ids=lambda recipe: recipe.sampling)
def test_an_order_of_its_own_is_keyed_by_the_framework_too(recipe: Recipe) -> None:
    part, own = labelled([0, 1, 0, 1, 1] * 10), dataclasses.replace(recipe, order="framework")
    names = ("torch", "keras-tensorflow", "keras-jax")
    orders = [epoch_rows(part, own, 0, 1, name) for name in names]
    common = epoch_rows(part, recipe, 0, 1)
    assert len({order.tobytes() for order in (*orders, common)}) == 4
    for name, order in zip(names, orders, strict=True):
        np.testing.assert_array_equal(epoch_rows(part, own, 0, 1, name), order)
        np.testing.assert_array_equal(epoch_rows(part, recipe, 0, 1, name), common)  # shared, whoever reads
        assert order.shape == common.shape
    with pytest.raises(ValueError, match="no framework is named"):
        epoch_rows(part, own, 0, 1)


@pytest.mark.parametrize(("samples", "batch_size", "steps"), [(0, 4, 0), (1, 4, 1), (8, 4, 2), (9, 4, 3)])
def test_evaluation_steps(samples: int, batch_size: int, steps: int) -> None:
    assert evaluation_steps(samples, batch_size) == steps


# --- training -----------------------------------------------------------------------------------------------------


def test_training_batches_hold_what_the_order_says(part: Part) -> None:
    batches = list(training_batches(part, RECIPE, SPEC, seed=3, epoch=2))
    order = epoch_rows(part, RECIPE, seed=3, epoch=2)
    assert len(batches) == len(order) == 6
    seen: set[int] = set()
    assert [batch.key for batch in batches] == [(3, 2, step) for step in range(6)]
    for batch, rows in zip(batches, order, strict=True):
        np.testing.assert_array_equal(batch.rows, rows)
        np.testing.assert_array_equal(batch.targets, part.labels[rows][:, np.newaxis])
        for image, row in zip(batch.images, rows, strict=True):
            label = "stroke" if part.labels[row] else "normal"
            numbers = draw_numbers(3, 2, part.ids[row], repeat=int(row) in seen)
            seen.add(int(row))
            pixels = augment_image(make_slice(label, part.ids[row]), numbers, RECIPE.augmentation)
            np.testing.assert_allclose(image[..., 0], (pixels / 255 - 0.5) / 0.5, rtol=0, atol=1e-6)


def test_pixels_are_exactly_those_of_one_change_after_the_other(part: Part) -> None:
    """Warp, grey values, normalisation, each by itself: what the stream does at once has the same bits."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    values = np.arange(256)[:, np.newaxis] / 255
    coloured = ((values - np.array(mean)) / np.array(std)).astype(np.float32)
    alike = ((values - 0.2) / 0.3).astype(np.float32).repeat(3, axis=1)
    for table, mean_std in ((coloured, (mean, std)), (alike, ((0.2,) * 3, (0.3,) * 3))):
        spec = CnnSpec(image_size=16, channels=3, pixel_mean=mean_std[0], pixel_std=mean_std[1])
        for batch in itertools.islice(training_batches(part, RECIPE, spec, 0, 1), 5):  # nobody comes again
            ids = [part.ids[row] for row in batch.rows]
            for image, slice_, sample_id in zip(batch.images, part.cache.read(ids), ids, strict=True):
                pixels = augment_image(slice_, draw_numbers(0, 1, sample_id), RECIPE.augmentation)
                np.testing.assert_array_equal(image, table[pixels])


def test_without_augmentation_pixels_and_masks_are_those_of_the_cache(lesions: Part) -> None:
    recipe = dataclasses.replace(MASK_RECIPE, augmentation=STILL)
    for batch in training_batches(lesions, recipe, MASK_SPEC, 0, 1):
        ids = [lesions.ids[row] for row in batch.rows]
        np.testing.assert_array_equal(batch.images, normalise(lesions.cache.read(ids), MASK_SPEC))
        np.testing.assert_array_equal(batch.targets[..., 0], lesions.cache.read_masks(ids))


def test_every_training_batch_has_one_size_and_the_weights_of_its_classes(part: Part) -> None:
    """Not scaled to anything: whether a loss divides by their sum or by the samples must show."""
    for batch in training_batches(part, RECIPE, SPEC, seed=0, epoch=1):
        assert batch.images.shape == (4, 16, 16, 1)
        assert batch.targets.shape == (4, 1)
        assert batch.weights.shape == batch.rows.shape == (4,)
        assert batch.images.dtype == batch.targets.dtype == batch.weights.dtype == np.float32
        np.testing.assert_array_equal(batch.weights, WEIGHTS[part.labels[batch.rows]].astype(np.float32))


def test_the_same_sample_looks_different_in_the_next_epoch(part: Part) -> None:
    first, second = (
        {int(row): image for batch in training_batches(part, RECIPE, SPEC, 0, epoch)
         for row, image in zip(batch.rows, batch.images, strict=True)}
        for epoch in (1, 2)
    )  # fmt: skip
    assert all((first[row] != second[row]).any() for row in range(SAMPLES))


def test_an_order_of_its_own_changes_no_sample(part: Part) -> None:
    """Two frameworks see the same pixels of each sample in an epoch, in other orders."""
    recipe = dataclasses.replace(RECIPE, order="framework")
    orders: set[tuple[int, ...]] = set()
    seen: list[dict[int, bytes]] = []  # row -> its image when it first comes
    for name in ("torch", "keras-jax"):
        batches = list(training_batches(part, recipe, SPEC, 0, 1, name))
        rows = np.concatenate([batch.rows for batch in batches]).tolist()
        images = [image.tobytes() for batch in batches for image in batch.images]
        orders.add(tuple(rows))
        seen.append(dict(reversed(list(zip(rows, images, strict=True)))))
    assert len(orders) == 2
    assert seen[0] == seen[1]
    assert seen[0].keys() == set(range(SAMPLES))


def test_a_batch_larger_than_the_part_repeats_it(tmp_path: Path) -> None:
    part = make_part(tmp_path / "cache", make_samples(3))
    (batch,) = training_batches(part, dataclasses.replace(RECIPE, batch_size=8), SPEC, 0, 1)
    np.testing.assert_array_equal(batch.rows[3:6], batch.rows[:3])
    np.testing.assert_array_equal(np.unique(batch.rows), [0, 1, 2])
    assert (batch.images[3] != batch.images[0]).any()  # changed anew


# --- targets ------------------------------------------------------------------------------------------------------


def test_class_targets_by_hand() -> None:
    np.testing.assert_array_equal(class_targets(np.array([0, 1]), BINARY), [[0], [1]])
    np.testing.assert_allclose(class_targets(np.array([0, 1]), BINARY, 0.1), [[0.05], [0.95]])
    np.testing.assert_array_equal(class_targets(np.array([2, 0]), SUBTYPE), [[0, 0, 1], [1, 0, 0]])
    smoothed = class_targets(np.array([1]), SUBTYPE, 0.3)
    np.testing.assert_allclose(smoothed, [[0.1, 0.8, 0.1]], rtol=1e-6)
    assert smoothed.dtype == np.float32
    assert class_targets(np.array([], dtype=np.int64), SUBTYPE).shape == (0, 3)


def test_smoothing_is_for_training_only(subtypes: Part) -> None:
    recipe = dataclasses.replace(RECIPE, label_smoothing=0.3)
    for batch in training_batches(subtypes, recipe, SUBTYPE_SPEC, 0, 1):
        np.testing.assert_array_equal(batch.targets.argmax(axis=1), subtypes.labels[batch.rows])
        np.testing.assert_allclose(batch.targets.max(axis=1), 0.8, rtol=1e-6)
        np.testing.assert_allclose(batch.targets.sum(axis=1), 1, rtol=1e-6)
    targets = np.concatenate([batch.targets for batch in evaluation_batches(subtypes, 4, SUBTYPE_SPEC)])
    np.testing.assert_array_equal(targets[:SAMPLES], np.eye(3)[subtypes.labels])
    np.testing.assert_array_equal(targets[SAMPLES:], 0)


def test_masks_are_changed_with_their_images(lesions: Part) -> None:
    batches = list(training_batches(lesions, MASK_RECIPE, MASK_SPEC, seed=1, epoch=2))
    shown = np.concatenate([batch.rows for batch in batches])
    assert set(np.flatnonzero(lesions.labels)) <= set(shown.tolist())
    seen: set[int] = set()
    for batch in batches:
        assert batch.targets.shape == batch.images.shape == (4, 16, 16, 1)
        assert batch.targets.dtype == np.float32
        np.testing.assert_array_equal(batch.weights, 1)
        for target, row in zip(batch.targets[..., 0], batch.rows, strict=True):
            mask = make_mask("stroke" if lesions.labels[row] else "normal")
            numbers = draw_numbers(1, 2, lesions.ids[row], repeat=int(row) in seen)
            seen.add(int(row))
            np.testing.assert_array_equal(target, augment_mask(mask, numbers, MASK_RECIPE.augmentation))


def test_evaluation_masks_are_unchanged_and_padded(lesions: Part) -> None:
    batches = list(evaluation_batches(lesions, 5, MASK_SPEC))
    targets = np.concatenate([batch.targets for batch in batches])
    assert targets.shape == (25, 16, 16, 1)
    assert targets.dtype == np.float32
    for target, label in zip(targets, lesions.labels, strict=False):
        np.testing.assert_array_equal(target[..., 0], make_mask("stroke" if label else "normal"))
    np.testing.assert_array_equal(targets[SAMPLES:], 0)


# --- what may not matter, and what must ---------------------------------------------------------------------------


def stream_hash(
    part: Part, seed: int = 0, epoch: int = 1, recipe: Recipe = RECIPE, spec: ModelSpec = SPEC
) -> str:
    return hash_batches(training_batches(part, recipe, spec, seed, epoch))


def test_threads_and_look_ahead_change_nothing(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = set()
    for threads, ahead in ((1, 1), (1, 4), (4, 1), (4, 9)):
        monkeypatch.setattr(config, "PREFETCH_THREADS", threads)
        monkeypatch.setattr(config, "PREFETCH_BATCHES", ahead)
        hashes.add(stream_hash(part))
    assert len(hashes) == 1


def test_order_of_files_and_of_cache_rows_changes_nothing(tmp_path: Path, part: Part) -> None:
    rows = make_samples(SAMPLES).to_dict("records")
    np.random.Generator(np.random.Philox(1)).shuffle(rows)
    shuffled = pd.DataFrame(rows)
    cache = write_cache(tmp_path / "shuffled", shuffled)
    assert list(cache.rows) != list(part.cache.rows)
    assert stream_hash(dataclasses.replace(part, cache=cache)) == stream_hash(part)


def test_other_parts_of_the_split_change_nothing(tmp_path: Path) -> None:
    """A part's stream depends on the part alone, not on what else is in the table."""
    samples = make_samples(30)
    inside = samples.iloc[4:20]
    split = pd.Series("test", index=samples["id"].tolist())
    split[inside["id"].tolist()] = "train"
    cache = write_cache(tmp_path / "cache", samples)
    whole = select_part(cache, samples, split, "train", BINARY, WEIGHTS)
    alone = select_part(cache, inside, split, "train", BINARY, WEIGHTS)
    assert len(whole) == 16
    assert stream_hash(whole) == stream_hash(alone)


@pytest.mark.parametrize("what", ["pixel", "label", "weight", "seed", "epoch", "augmentation"])
def test_the_hash_sees_every_change(part: Part, what: str) -> None:
    seed, epoch, recipe = 0, 1, dataclasses.replace(RECIPE, augmentation=STILL)
    before = stream_hash(part, recipe=recipe)
    if what == "pixel":
        flip_one_bit(part.cache.images[0], 5 * 16 * 16 + 100)
    elif what == "label":
        labels = part.labels.copy()
        labels[7] = 1 - labels[7]
        part = dataclasses.replace(part, labels=labels)
    elif what == "weight":
        part = dataclasses.replace(part, weights=np.linspace(0.5, 1.5, SAMPLES))
    elif what == "augmentation":
        recipe = dataclasses.replace(recipe, augmentation=dataclasses.replace(STILL, brightness=0.1))
    elif what == "seed":
        seed = 1
    else:
        epoch = 2
    assert stream_hash(part, seed, epoch, recipe) != before


def test_the_hash_is_of_the_arrays_alone(part: Part) -> None:
    batches = list(training_batches(part, RECIPE, SPEC, 0, 1))
    renamed = [dataclasses.replace(batch, key=("other",)) for batch in batches]
    assert hash_batches(renamed) == hash_batches(batches)


def test_the_hash_sees_a_mask(lesions: Part) -> None:
    recipe = dataclasses.replace(MASK_RECIPE, augmentation=STILL)
    before = stream_hash(lesions, recipe=recipe, spec=MASK_SPEC)
    assert lesions.cache.masks is not None
    flip_one_bit(lesions.cache.masks[0], 40)
    assert stream_hash(lesions, recipe=recipe, spec=MASK_SPEC) != before


def flip_one_bit(block: Block, place: int) -> None:
    assert block.path is not None
    blob = bytearray(block.path.read_bytes())
    blob[block.offset + place] ^= 1
    block.path.write_bytes(blob)


# --- parts and weights --------------------------------------------------------------------------------------------


def test_class_weights_by_hand() -> None:
    """n / (classes * n_class): 8 / (2 * 6) and 8 / (2 * 2)."""
    labels = np.array([0, 0, 0, 1, 0, 1, 0, 0])
    np.testing.assert_allclose(weigh_classes(labels, 2, "balanced"), [8 / 12, 8 / 4])
    np.testing.assert_array_equal(weigh_classes(labels, 2, "none"), [1, 1])
    np.testing.assert_allclose(weigh_classes(labels, 3, "balanced"), [8 / 18, 8 / 6, 0])  # class 2 is absent


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60).map(np.array))
def test_balanced_classes_weigh_the_same_in_total(labels: np.ndarray) -> None:
    totals = np.bincount(labels, weights=weigh_classes(labels, 3, "balanced")[labels], minlength=3)
    np.testing.assert_allclose(totals[np.unique(labels)], len(labels) / 3)


def test_a_part_has_its_own_samples_labels_and_weights(tmp_path: Path) -> None:
    samples = make_samples(12)  # patients p0 and p3 have a stroke
    cache = write_cache(tmp_path / "cache", samples)
    split = pd.Series("train", index=samples["id"].tolist())
    split[["p0000/0", "p0000/1", "p0001/0", "p0001/1", "p0002/0", "p0002/1"]] = "val"
    val = select_part(cache, samples, split.sample(frac=1, random_state=1), "val", BINARY, WEIGHTS)
    assert val.ids == ("p0000/0", "p0000/1", "p0001/0", "p0001/1", "p0002/0", "p0002/1")
    assert val.patients == ("p0000", "p0000", "p0001", "p0001", "p0002", "p0002")
    np.testing.assert_array_equal(val.labels, [1, 1, 0, 0, 0, 0])
    np.testing.assert_allclose(val.weights, [1.5, 1.5, 0.75, 0.75, 0.75, 0.75])
    assert val.task is BINARY
    assert len(select_part(cache, samples, split, "test", BINARY)) == 0
    masked = select_part(cache, samples, split, "val", SEGMENTATION)
    np.testing.assert_array_equal(masked.labels, [1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(masked.weights, 1)


# --- evaluation ---------------------------------------------------------------------------------------------------


def test_evaluation_is_in_table_order_unchanged_and_padded(part: Part) -> None:
    batches = list(evaluation_batches(part, 4, SPEC))
    assert [batch.images.shape for batch in batches] == [(4, 16, 16, 1)] * 6
    rows = np.concatenate([batch.rows for batch in batches])
    np.testing.assert_array_equal(rows, [*range(SAMPLES), -1, -1])
    last = batches[-1]
    np.testing.assert_array_equal(last.weights[2:], 0)
    np.testing.assert_array_equal(last.targets[2:], 0)
    np.testing.assert_array_equal(last.images[2:], -1)  # black, normalised
    images = np.concatenate([batch.images for batch in batches])[:SAMPLES]
    expected = normalise(part.cache.read(list(part.ids)), SPEC)
    np.testing.assert_array_equal(images, expected)


@pytest.mark.parametrize("batch_size", [1, 5, 22, 64])
def test_padding_adds_nothing_to_a_weighted_loss(part: Part, batch_size: int) -> None:
    """The loss over padded batches is that over the samples, whatever the padded outputs are."""
    total = weight = 0.0
    for batch in evaluation_batches(part, batch_size, SPEC):
        logits = np.where(batch.rows >= 0, batch.images.mean(axis=(1, 2, 3)), 1e6)[:, np.newaxis]
        weights = batch.weights.astype(np.float64)
        total += binary_cross_entropy(logits, batch.targets, weights) * weights.sum()
        weight += weights.sum()
    logits = normalise(part.cache.read(list(part.ids)), SPEC).mean(axis=(1, 2, 3))[:, np.newaxis]
    expected = binary_cross_entropy(logits, part.labels[:, np.newaxis], part.weights)
    np.testing.assert_allclose(total / weight, expected, rtol=1e-5)  # float32 weights and pixels


def test_normalise_by_hand() -> None:
    mean, std = (0.25, 0.5, 0.0), (0.5, 0.25, 1.0)
    spec = CnnSpec(image_size=2, channels=3, pixel_mean=mean, pixel_std=std)
    slices = np.array([[[0, 255], [51, 102]]], dtype=np.uint8)
    images = normalise(slices, spec)
    assert images.shape == (1, 2, 2, 3)
    assert images.dtype == np.float32
    by_hand = ([[-0.5, 1.5], [-0.1, 0.3]], [[-2, 2], [-1.2, -0.4]], [[0, 1], [0.2, 0.4]])
    for channel, expected in enumerate(by_hand):
        np.testing.assert_allclose(images[0, :, :, channel], expected, rtol=1e-6)
    assert normalise(slices, SPEC).shape == (1, 2, 2, 1)


def test_as_many_means_as_channels() -> None:
    spec = CnnSpec(channels=1, pixel_mean=(0.2,) * 3, pixel_std=(0.3,) * 3)
    with pytest.raises(StudyError, match="1 channels, but pixel_mean and pixel_std have 3"):
        normalise(np.zeros((1, 2, 2), dtype=np.uint8), spec)


# --- threads ------------------------------------------------------------------------------------------------------


def test_prefetch_keeps_order_and_looks_ahead_only_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "PREFETCH_THREADS", 3)
    monkeypatch.setattr(config, "PREFETCH_BATCHES", 3)
    begun: list[int] = []

    def make(step: int) -> Batch:
        begun.append(step)
        time.sleep(0.01 * (step % 3))  # later steps are often ready first
        return tiny_batch(step)

    for count, batch in enumerate(prefetch(make, 20)):
        assert batch.rows[0] == count
        assert max(begun) < count + 3 + 1
    assert sorted(begun) == list(range(20))
    assert stream_threads() == []


@pytest.mark.parametrize("leave", [lambda stream: stream.close(), lambda stream: None])
def test_an_abandoned_stream_ends_its_threads(
    leave: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And drops what was asked for and not yet begun: the reader does not wait for 60 batches."""
    monkeypatch.setattr(config, "PREFETCH_BATCHES", 60)
    made: list[int] = []

    def make(step: int) -> Batch:
        time.sleep(0.01)
        made.append(step)
        return tiny_batch(step)

    stream = prefetch(make, 1000)
    next(stream)
    assert stream_threads()
    leave(stream)
    del stream
    gc.collect()
    assert stream_threads() == []
    assert len(made) < 30


def test_a_fault_in_a_thread_reaches_the_reader_at_its_step(part: Part) -> None:
    missing = dict(list(part.cache.rows.items())[:-1])
    damaged = dataclasses.replace(part, cache=dataclasses.replace(part.cache, rows=missing))
    batches = evaluation_batches(damaged, 4, SPEC)
    assert [next(batches).rows[0] for _ in range(5)] == [0, 4, 8, 12, 16]  # what comes before it is good
    with pytest.raises(StudyError, match=f"{part.ids[-1]}.*not in the cache"):
        next(batches)
    assert stream_threads() == []


# --- memory -------------------------------------------------------------------------------------------------------

MEMORY_PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from common.config import TASKS, Augmentation, CnnSpec, Recipe
from common.data.batches import Part, training_batches
from common.data.cache import Cache
from common.data.shards import Block
from common.measure import peak_rss_mib

SIZE = 96

def stream_epoch(count):
    directory = Path(sys.argv[1]) / str(count)
    directory.mkdir()
    with (directory / "images.npy").open("wb") as file:
        for _ in range(count // 100):
            file.write(bytes(100 * SIZE * SIZE))
    ids = tuple(f"p{k}" for k in range(count))
    rows = {name: row for row, name in enumerate(ids)}
    cache = Cache(directory, SIZE, rows, (Block(0, count, directory / "images.npy"),))
    part = Part(cache, ids, ids, np.arange(count) % 2, np.ones(count), TASKS["binary"])
    recipe = Recipe(epochs=1, augmentation=Augmentation(0, 0, 0, 0, 0, 0))
    spec = CnnSpec(image_size=SIZE, channels=1, pixel_mean=(0.2,), pixel_std=(0.3,))
    for batch in training_batches(part, recipe, spec, 0, 1):
        pass
    return peak_rss_mib()

print(stream_epoch(500), stream_epoch(5000))
"""


def test_memory_does_not_grow_with_the_data_set(tmp_path: Path) -> None:
    """5,000 slices of 96 px are 44 MiB, 500 are 4.4: reading them all, or mapping them, would show 40 MiB more."""
    assert growth_mib(MEMORY_PROGRAM, tmp_path) < 10
