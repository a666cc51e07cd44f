"""The losses against hand values, and where float64 ends."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.config import Recipe
from common.losses import (
    MeanLoss,
    binary_cross_entropy,
    cross_entropy,
    dice_cross_entropy,
    sigmoid,
    softmax,
)
from common.random_numbers import generator

ONE = np.ones(1)
# (2, N, 1): logits and targets
logits_and_targets = st.lists(st.tuples(st.floats(-30, 30), st.booleans()), min_size=1, max_size=20).map(
    lambda pairs: np.array(pairs, dtype=np.float64).T[..., np.newaxis]
)


def loss_of(logit: float, label: float) -> float:
    return binary_cross_entropy(np.array([[logit]]), np.array([[label]]), ONE)


# --- binary -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("logit", "label", "expected"),
    [
        (0.0, 0.0, math.log(2)),
        (0.0, 1.0, math.log(2)),
        (math.log(3), 1.0, math.log(4 / 3)),  # probability 3/4
        (math.log(3), 0.0, math.log(4)),
        (-math.log(3), 1.0, math.log(4)),
        (1.0, 0.25, math.log1p(math.e) - 0.25),  # a soft label
        (1000.0, 1.0, 0.0),
        (1000.0, 0.0, 1000.0),
        (-1000.0, 1.0, 1000.0),
        (-1000.0, 0.0, 0.0),
        (40.0, 1.0, math.exp(-40)),  # naive log(sigmoid) gives 0
        (-1e300, 1.0, 1e300),
    ],
)
def test_one_sample_by_hand(logit: float, label: float, expected: float) -> None:
    assert loss_of(logit, label) == pytest.approx(expected, rel=1e-12, abs=0)


def test_the_mean_is_divided_by_the_weights_not_by_the_samples() -> None:
    """(3 * log 2 + 1 * log 4) / 4."""
    logits, targets = np.array([[0], [math.log(3)]]), np.array([[1.0], [0]])
    loss = binary_cross_entropy(logits, targets, np.array([3.0, 1.0]))
    assert loss == pytest.approx((3 * math.log(2) + math.log(4)) / 4, rel=1e-12)


@given(logits_and_targets, st.floats(0.01, 100))
def test_the_scale_of_the_weights_does_not_matter(pairs: NDArray[np.float64], factor: float) -> None:
    logits, targets = pairs
    weights = np.linspace(0.5, 1.5, len(logits))
    expected = binary_cross_entropy(logits, targets, weights)
    assert binary_cross_entropy(logits, targets, factor * weights) == pytest.approx(expected, rel=1e-9)


@given(logits_and_targets)
def test_it_is_the_log_likelihood_where_that_can_be_computed(pairs: NDArray[np.float64]) -> None:
    logits, targets = pairs
    p = 1 / (1 + np.exp(-logits))
    expected = -np.mean(targets * np.log(p) + (1 - targets) * np.log(1 - p))
    loss = binary_cross_entropy(logits, targets, np.ones(len(logits)))
    assert loss == pytest.approx(expected, rel=1e-4, abs=1e-12)  # 1 - p cancels at logit 30: 1e-13 of 1e-13
    mirrored = binary_cross_entropy(-logits, 1 - targets, np.ones(len(logits)))
    assert mirrored == pytest.approx(loss, rel=1e-9, abs=1e-15)


# --- several classes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("logits", "targets", "expected"),
    [
        ([0, 0, 0], [0, 1, 0], math.log(3)),
        ([math.log(2), 0, 0], [1, 0, 0], math.log(2)),  # probabilities 1/2, 1/4, 1/4
        ([math.log(2), 0, 0], [0, 0, 1], math.log(4)),
        ([math.log(2), 0, 0], [0.5, 0.5, 0], 1.5 * math.log(2)),
        ([7 + math.log(2), 7, 7], [0, 0, 1], math.log(4)),  # a common shift changes nothing
        ([1000, 0, -1000], [1, 0, 0], 0),
        ([1000, 0, -1000], [0, 0, 1], 2000),
        ([40, 0], [1, 0], math.exp(-40)),  # naive log(softmax) gives 0
    ],
)
def test_cross_entropy_by_hand(logits: list[float], targets: list[float], expected: float) -> None:
    loss = cross_entropy(np.array([logits], dtype=float), np.array([targets], dtype=float), ONE)
    assert loss == pytest.approx(expected, rel=1e-12, abs=1e-15 if expected < 1e-9 else 0)


@given(logits_and_targets)
def test_two_classes_are_the_binary_case(pairs: NDArray[np.float64]) -> None:
    logits, targets = pairs
    weights = np.linspace(0.5, 1.5, len(logits))
    loss = cross_entropy(
        np.hstack([np.zeros_like(logits), logits]), np.hstack([1 - targets, targets]), weights
    )
    assert loss == pytest.approx(binary_cross_entropy(logits, targets, weights), rel=1e-9, abs=1e-15)


def test_samples_of_several_classes_are_weighed() -> None:
    """(3 log 3 + 1 log 4) / 4, for softmax (1/3, 1/3, 1/3) and (1/2, 1/4, 1/4)."""
    logits = np.array([[0, 0, 0], [math.log(2), 0, 0]])
    loss = cross_entropy(logits, np.eye(3)[[1, 2]], np.array([3.0, 1.0]))
    assert loss == pytest.approx((3 * math.log(3) + math.log(4)) / 4, rel=1e-12)


def test_softmax_by_hand_and_at_both_ends() -> None:
    logits = np.array([[0, math.log(3)], [1000, 1000 + math.log(3)], [-1000, 1000], [5, -np.inf]])
    np.testing.assert_allclose(
        softmax(logits), [[0.25, 0.75], [0.25, 0.75], [0, 1], [1, 0]], rtol=1e-12, atol=0
    )


# --- masks --------------------------------------------------------------------------------------------------------


def test_dice_cross_entropy_by_hand() -> None:
    """Two samples of two pixels, weights 3 and 1, probabilities 1/2 but for one of 3/4."""
    logits = np.array([[0, 0], [0, math.log(3)]]).reshape(2, 1, 2, 1)
    targets = np.array([[0.0, 1], [0, 1]]).reshape(2, 1, 2, 1)
    pixel_mean = (3 * math.log(2) + 1 * (math.log(2) + math.log(4 / 3)) / 2) / 4
    overlap = 3 * 0.5 + 1 * 0.75
    areas = 3 * (0.5 + 0.5 + 1) + 1 * (0.5 + 0.75 + 1)
    for smooth in (1.0, 0.25):
        expected = pixel_mean + 1 - (2 * overlap + smooth) / (areas + smooth)
        loss = dice_cross_entropy(logits, targets, np.array([3.0, 1.0]), smooth)
        assert loss == pytest.approx(expected, rel=1e-12)


def test_a_perfect_mask_and_a_perfectly_wrong_one() -> None:
    targets = np.zeros((1, 4, 4, 1))
    targets[0, 0, 0] = 1
    logits = np.where(targets > 0, 1000.0, -1000.0)
    assert dice_cross_entropy(logits, targets, ONE, 1.0) == 0
    # cross-entropy 1000; Dice (0 + 1) / (16 + 1)
    assert dice_cross_entropy(-logits, targets, ONE, 1.0) == pytest.approx(1001 - 1 / 17, rel=1e-12)


def test_dice_is_pooled_so_that_an_empty_slice_is_no_success() -> None:
    """One slice half found, one empty and left empty: Dice stays that of the first, not (its + 1) / 2."""
    targets = np.zeros((2, 1, 4, 1))
    targets[0, 0, :2] = 1
    logits = np.full((2, 1, 4, 1), -1000.0)
    logits[0, 0, 0] = 1000
    smooth = 1e-9
    both, first = (
        dice_cross_entropy(logits[:n], targets[:n], np.ones(n), smooth) - binary(logits[:n], targets[:n])
        for n in (2, 1)
    )
    assert both == pytest.approx(first, rel=1e-9)
    assert first == pytest.approx(1 - 2 / 3, rel=1e-6)


def binary(logits: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    return binary_cross_entropy(logits, targets, np.ones(len(logits)))


def test_a_padded_slice_counts_nowhere() -> None:
    source = generator("losses", "padded")
    logits, targets = source.standard_normal((3, 4, 4, 1)), (source.random((3, 4, 4, 1)) < 0.3).astype(float)
    weights = np.array([1.0, 2.0, 0.0])
    whole = dice_cross_entropy(logits, targets, weights, 1.0)
    assert dice_cross_entropy(logits[:2], targets[:2], weights[:2], 1.0) == pytest.approx(whole, rel=1e-12)
    assert dice_cross_entropy(logits, targets, np.ones(3), 1.0) != pytest.approx(whole, rel=1e-3)


# --- many batches -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "cross_entropy", "dice_cross_entropy"])
@pytest.mark.parametrize("size", [1, 3, 10])
def test_batches_add_up_to_the_whole(loss: str, size: int) -> None:
    """Weights differ between batches, so that a mean of the batches' losses would show."""
    recipe = dataclasses.replace(Recipe(epochs=1), loss=loss, dice_smooth=0.5)
    source = generator("losses", loss)
    shape = {"binary_cross_entropy": (10, 1), "cross_entropy": (10, 3), "dice_cross_entropy": (10, 4, 4, 1)}
    logits, targets = source.standard_normal(shape[loss]), source.random(shape[loss])
    weights = np.linspace(0, 5, 10)
    whole = {
        "binary_cross_entropy": lambda: binary_cross_entropy(logits, targets, weights),
        "cross_entropy": lambda: cross_entropy(logits, targets, weights),
        "dice_cross_entropy": lambda: dice_cross_entropy(logits, targets, weights, 0.5),
    }[loss]()
    mean = MeanLoss(recipe)
    for start in range(0, 10, size):
        piece = slice(start, start + size)
        mean.add(logits[piece], targets[piece], weights[piece])
    assert mean.value() == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize(
    ("logits", "targets", "weights"), [((4, 1), (4,), 4), ((4, 1), (4, 2), 4), ((4, 1), (4, 1), 3)]
)
def test_shapes_that_would_broadcast_are_refused(
    logits: tuple[int, ...], targets: tuple[int, ...], weights: int
) -> None:
    with pytest.raises(ValueError, match="do not belong together"):
        binary_cross_entropy(np.zeros(logits), np.zeros(targets), np.ones(weights))


# --- sigmoid ------------------------------------------------------------------------------------------------------


def test_sigmoid_by_hand_and_at_both_ends() -> None:
    values = sigmoid(np.array([0, math.log(3), -math.log(3), 1000, -1000, -700, np.inf, -np.inf]))
    np.testing.assert_allclose(values, [0.5, 0.75, 0.25, 1, 0, math.exp(-700), 1, 0], rtol=1e-12, atol=0)


@given(st.floats(-745, 745))
def test_sigmoid_rises_and_mirrors(logit: float) -> None:
    low, high = sigmoid(np.array([logit, logit + 1.0]))
    assert 0 <= low <= high <= 1
    assert low + sigmoid(np.array([-logit]))[0] == pytest.approx(1, rel=1e-12)
