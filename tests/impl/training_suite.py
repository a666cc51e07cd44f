"""Losses, optimizer and trainer of one framework against NumPy; run like `suite.py`."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import oracle
import pytest
from harness import (
    EXACT,
    RECIPE,
    SPEC,
    as_tensor,
    configure,
    draw,
    impl,
    losses,
    make_batches,
    predict,
    started,
    tensors,
)

from common import losses as common_losses
from common.config import CnnSpec, ConvNextSpec, DenseNetSpec, ModelSpec, Recipe, UnetSpec
from common.framework import Batch
from common.losses import MeanLoss
from common.random_numbers import generator

# Keras's own where it reads a variable; every other warning is an error
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)

PERCEPTRON = CnnSpec(image_size=4, features=(), hidden=9, dropout=0.0)
DROPPING = dataclasses.replace(SPEC, dropout=0.5)
DENSENET = DenseNetSpec(image_size=32, stem_features=4, blocks=(1, 1), growth=4, bottleneck=2, outputs=3)
CONVNEXT = ConvNextSpec(image_size=32, depths=(1, 1), features=(4, 6), stochastic_depth=0.0, outputs=3)
UNET = UnetSpec(image_size=8, features=(3, 5))
SMOOTH = 0.7  # of the soft Dice

# Keras divides the loss that it returns by the number of batches, and that division is in float32 on its torch
# backend. The gradients do not pass through it.
LOSS_RTOL = 1e-6 if impl.name() == "keras-torch" else EXACT


@pytest.fixture(autouse=True)
def in_float64() -> None:
    configure()


def recipe_for(spec: ModelSpec, **changes: Any) -> Recipe:
    """With the loss that the logits of the spec ask for."""
    loss = "cross_entropy" if spec.outputs > 1 else "binary_cross_entropy"
    loss = "dice_cross_entropy" if isinstance(spec, UnetSpec) else loss
    return dataclasses.replace(RECIPE, loss=loss, dice_smooth=SMOOTH, **changes)


def mean_loss(recipe: Recipe, logits: np.ndarray, batch: Batch) -> float:
    mean = MeanLoss(recipe)
    mean.add(logits, batch.targets, batch.weights)
    return mean.value()


def differing(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> set[str]:
    """Names of the tensors that are not equal to the bit."""
    assert one.keys() == other.keys()
    return {name for name in one if not np.array_equal(one[name], other[name])}


# --- losses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        ("binary_cross_entropy", (50, 1)),
        ("cross_entropy", (50, 3)),
        ("dice_cross_entropy", (6, 5, 4, 1)),
    ],
)
def test_loss_is_that_of_common(loss: str, shape: tuple[int, ...], scale: float) -> None:
    """Soft targets, a logit of exactly 0, a sample of weight 0; weights whose mean is not 1."""
    logits, source = scale * draw(*shape, key="logits"), generator("suite", "targets", loss)
    logits[0] = 0
    targets = source.random(shape)
    if loss == "cross_entropy":
        targets /= targets.sum(axis=-1, keepdims=True)
    weights = source.uniform(0.5, 4, shape[0])
    weights[1] = 0
    smooth = (SMOOTH,) if loss == "dice_cross_entropy" else ()
    found = getattr(losses, loss)(*map(as_tensor, (logits, targets, weights)), *smooth)
    expected = getattr(common_losses, loss)(logits, targets, weights, *smooth)
    assert np.isfinite(expected)
    assert found.shape == ()
    np.testing.assert_allclose(tensors.to_array(found), expected, rtol=EXACT)


# --- gradients ----------------------------------------------------------------------------------------------------

# With both betas 0 and a huge epsilon e a step of AdamW is rate * g / (|g| + e): rate e makes it g, to |g| / e.
HUGE = 1e9
DESCENT = {"adam_beta1": 0.0, "adam_beta2": 0.0, "adam_epsilon": HUGE, "weight_decay": 0.0}


def test_gradients_are_those_of_the_numpy_model() -> None:
    """By central differences of the oracle."""
    model, start = started(SPEC)
    recipe = recipe_for(SPEC, **DESCENT)
    (batch,) = make_batches(1, SPEC)
    impl.train_epoch(impl.create_trainer(model, recipe), [(batch, HUGE)])
    after = impl.read_weights(model)
    exact = {name: value.astype(np.float64) for name, value in start.items()}

    def loss(weights: dict[str, np.ndarray]) -> float:
        return mean_loss(recipe, oracle.cnn_logits(SPEC, weights, batch.images), batch)

    for name, array in exact.items():
        gradient = array - after[name]
        # The steepest places and one at random: where the gradient is 0 nothing would be tested
        places = [*np.argsort(-np.abs(gradient).ravel())[:3], generator("suite", name).integers(array.size)]
        for place in places:
            ends = [loss(exact | {name: moved(array, place, step)}) for step in (1e-6, -1e-6)]
            expected = (ends[0] - ends[1]) / 2e-6
            np.testing.assert_allclose(gradient.ravel()[place], expected, rtol=1e-5, atol=1e-8, err_msg=name)
        assert np.abs(gradient).max() > 1e-4, name


@pytest.mark.parametrize("spec", [DENSENET, CONVNEXT, UNET], ids=lambda spec: spec.name)
def test_gradients_are_those_of_the_reported_loss(spec: ModelSpec) -> None:
    """By central differences of the losses that training at a rate of 0 reports: batch norm in training mode."""
    model, start = started(spec)
    trainer = impl.create_trainer(model, recipe_for(spec, **DESCENT))
    (batch,) = make_batches(1, spec, size=4)
    impl.train_epoch(trainer, [(batch, HUGE)])
    after = impl.read_weights(model)
    exact = {name: value.astype(np.float64) for name, value in start.items()}

    def loss(weights: dict[str, np.ndarray]) -> float:
        impl.write_weights(model, weights)
        return float(impl.train_epoch(trainer, [(batch, 0.0)])[0])

    for name, array in exact.items():
        if "running" in name:
            continue
        gradient = array - after[name]
        place = int(np.abs(gradient).argmax())
        ends = [loss(exact | {name: moved(array, place, step)}) for step in (1e-6, -1e-6)]
        expected = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(gradient.ravel()[place], expected, rtol=1e-5, atol=1e-8, err_msg=name)
        assert np.abs(gradient).max() > 1e-5, name


def moved(array: np.ndarray, place: int, step: float) -> np.ndarray:
    copy = array.copy()
    copy.ravel()[place] += step
    return copy


# --- optimizer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weight_decay", "fraction", "outputs"), [(0.3, 1.0, 1), (0.4, 0.1, 3)])
def test_training_is_adamw_by_numpy(weight_decay: float, fraction: float, outputs: int) -> None:
    """Loss of each step and every weight, over changing rates; a large epsilon makes its place matter."""
    spec = dataclasses.replace(PERCEPTRON, outputs=outputs)
    recipe = recipe_for(
        spec,
        weight_decay=weight_decay,
        backbone_rate_fraction=fraction,
        adam_epsilon=1e-3,
        adam_beta2=0.99,
    )
    model, start = started(spec)
    pairs = list(zip(make_batches(7, spec), [0.01, 0.02, 0.05, 0.04, 0.0, 0.02, 0.001], strict=True))
    expected_losses, expected = oracle.train_perceptron(start, recipe, pairs)
    found_losses = impl.train_epoch(impl.create_trainer(model, recipe), pairs)
    found = impl.read_weights(model)
    assert found_losses.shape == (7,)
    assert found_losses.dtype == np.float64
    np.testing.assert_allclose(found_losses, expected_losses, rtol=LOSS_RTOL)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=EXACT, err_msg=name)


@pytest.mark.parametrize("spec", [CONVNEXT, UNET], ids=lambda spec: spec.name)
def test_rate_and_decay_of_each_tensor(spec: ModelSpec) -> None:
    """An epsilon beyond all gradients leaves the decay alone: on kernels only, at the head's or the backbone's rate."""
    recipe = recipe_for(spec, weight_decay=0.5, backbone_rate_fraction=0.1, adam_epsilon=1e30)
    model, start = started(spec)
    (batch,) = make_batches(1, spec, size=2)
    impl.train_epoch(impl.create_trainer(model, recipe), [(batch, 0.2)])
    after = impl.read_weights(model)
    for name, array in start.items():
        if "running" in name:
            continue
        rate = 0.2 if name in {f"{spec.head}.weight", f"{spec.head}.bias"} else 0.02
        kept = 1 - rate * 0.5 if array.ndim > 1 else 1.0
        np.testing.assert_allclose(after[name], kept * array.astype(float), rtol=EXACT, err_msg=name)


def test_a_second_epoch_goes_on_with_the_optimizer_and_a_new_trainer_begins_anew() -> None:
    pairs = [(batch, 0.01) for batch in make_batches(4, PERCEPTRON)]
    _, expected = oracle.train_perceptron(started(PERCEPTRON)[1], RECIPE, pairs)
    model, _ = started(PERCEPTRON)
    trainer = impl.create_trainer(model, RECIPE)
    for half in (pairs[:2], pairs[2:]):
        impl.train_epoch(trainer, iter(half))
        predict(model, [half[0][0]])  # judging an epoch must not disturb the next
    np.testing.assert_allclose(
        impl.read_weights(model)["hidden.weight"], expected["hidden.weight"], atol=EXACT
    )

    model, _ = started(PERCEPTRON)
    for half in (pairs[:2], pairs[2:]):
        impl.train_epoch(impl.create_trainer(model, RECIPE), half)
    assert np.abs(impl.read_weights(model)["hidden.weight"] - expected["hidden.weight"]).max() > 1e-4


# --- head first ---------------------------------------------------------------------------------------------------


def features_of(
    spec: ModelSpec, weights: dict[str, np.ndarray], batches: list[Batch]
) -> dict[int, np.ndarray]:
    """What the last layer is given in evaluation mode, (N, F), by the batch's `id`: the logits of a head that hands
    them through.
    """
    count = weights[f"{spec.head}.weight"].shape[1]
    model = impl.build(dataclasses.replace(spec, outputs=count))
    through = {f"{spec.head}.weight": np.eye(count), f"{spec.head}.bias": np.zeros(count)}
    impl.write_weights(model, weights | through)
    return {
        id(batch): logits for batch, logits in zip(batches, impl.predict_logits(model, batches), strict=True)
    }


@pytest.mark.parametrize(
    "spec",
    [DENSENET, dataclasses.replace(CONVNEXT, stochastic_depth=0.5)],
    ids=lambda spec: spec.name,
)
def test_the_head_learns_alone_and_then_all_learn(spec: ModelSpec) -> None:
    recipe = recipe_for(spec, weight_decay=0.3, backbone_rate_fraction=0.1, adam_epsilon=1e-3)
    model, start = started(spec)
    batches = make_batches(3, spec, size=4)
    pairs = list(zip(batches, [0.05, 0.02, 0.03], strict=True))
    features = features_of(spec, start, batches)
    head = {f"{spec.head}.weight", f"{spec.head}.bias"}

    expected_losses, expected = oracle.train(
        start,
        spec.head,
        recipe,
        pairs,
        lambda weights, batch: oracle.head_gradients(weights, spec.head, features[id(batch)], batch),
    )
    for repeated in (False, True):  # the second time after a phase in which all learnt
        impl.write_weights(model, start)
        found_losses = impl.train_epoch(impl.create_trainer(model, recipe, trainable="head"), pairs)
        found = impl.read_weights(model)
        np.testing.assert_allclose(found_losses, expected_losses, rtol=LOSS_RTOL)
        assert differing(found, {name: array.astype(np.float64) for name, array in start.items()}) == head
        for name in head:
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=EXACT, err_msg=name)
        if not repeated:
            impl.train_epoch(impl.create_trainer(model, recipe), pairs)
            assert differing(impl.read_weights(model), found) == found.keys()  # statistics too


# --- mode and seed ------------------------------------------------------------------------------------------------


def test_training_drops_and_evaluation_does_not() -> None:
    model, weights = started(DROPPING)
    batches = make_batches(2, DROPPING)
    expected = np.concatenate([oracle.cnn_logits(SPEC, weights, batch.images) for batch in batches])
    found = predict(model, batches)
    np.testing.assert_allclose(found, expected, rtol=0, atol=EXACT)

    trainer = impl.create_trainer(model, RECIPE)
    still = [(batches[0], 0.0)] * 3  # a rate of 0 leaves the weights alone, so only the draws differ
    dropped = impl.train_epoch(trainer, still)
    whole = mean_loss(RECIPE, expected[: len(batches[0].targets)], batches[0])
    assert len({*dropped, whole}) == 4
    np.testing.assert_array_equal(predict(model, batches), found)  # back in evaluation mode


def test_a_head_that_learns_alone_drops_too() -> None:
    model, _ = started(DROPPING)
    (batch,) = make_batches(1, DROPPING)
    trainer = impl.create_trainer(model, RECIPE, trainable="head")
    assert len(set(impl.train_epoch(trainer, [(batch, 0.0)] * 3))) == 3


def test_equal_seeds_give_equal_bits_and_others_do_not() -> None:
    """In the precision of a study."""
    spec = dataclasses.replace(DROPPING, image_size=8, features=(4,))

    def train(seed: int) -> tuple[bytes, ...]:
        configure("float32", seed)
        model, _ = started(spec)
        pairs = [(batch, 0.01) for batch in make_batches(3, spec)]
        found = impl.train_epoch(impl.create_trainer(model, RECIPE), pairs)
        return (found.tobytes(), *(array.tobytes() for array in impl.read_weights(model).values()))

    once = train(1)
    assert train(1) == once
    assert train(2) != once
