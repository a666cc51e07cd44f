"""The loss against hand values, and where float64 ends."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.losses import binary_cross_entropy, sigmoid

ONE = np.ones(1)
logits_and_labels = st.lists(st.tuples(st.floats(-30, 30), st.booleans()), min_size=1, max_size=20).map(
    lambda pairs: np.array(pairs, dtype=np.float64).T
)


def loss_of(logit: float, label: float) -> float:
    return binary_cross_entropy(np.array([logit]), np.array([label]), ONE)


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
    loss = binary_cross_entropy(np.array([0, math.log(3)]), np.array([1.0, 0]), np.array([3.0, 1.0]))
    assert loss == pytest.approx((3 * math.log(2) + math.log(4)) / 4, rel=1e-12)


@given(logits_and_labels, st.floats(0.01, 100))
def test_the_scale_of_the_weights_does_not_matter(pairs: NDArray[np.float64], factor: float) -> None:
    logits, labels = pairs
    weights = np.linspace(0.5, 1.5, len(logits))
    expected = binary_cross_entropy(logits, labels, weights)
    assert binary_cross_entropy(logits, labels, factor * weights) == pytest.approx(expected, rel=1e-9)


@given(logits_and_labels)
def test_it_is_the_log_likelihood_where_that_can_be_computed(pairs: NDArray[np.float64]) -> None:
    logits, labels = pairs
    p = 1 / (1 + np.exp(-logits))
    expected = -np.mean(labels * np.log(p) + (1 - labels) * np.log(1 - p))
    loss = binary_cross_entropy(logits, labels, np.ones(len(logits)))
    assert loss == pytest.approx(expected, rel=1e-4, abs=1e-12)  # 1 - p cancels at logit 30: 1e-13 of 1e-13
    mirrored = binary_cross_entropy(-logits, 1 - labels, np.ones(len(logits)))
    assert mirrored == pytest.approx(loss, rel=1e-9, abs=1e-15)


def test_sigmoid_by_hand_and_at_both_ends() -> None:
    values = sigmoid(np.array([0, math.log(3), -math.log(3), 1000, -1000, -700, np.inf, -np.inf]))
    np.testing.assert_allclose(values, [0.5, 0.75, 0.25, 1, 0, math.exp(-700), 1, 0], rtol=1e-12, atol=0)


@given(st.floats(-745, 745))
def test_sigmoid_rises_and_mirrors(logit: float) -> None:
    low, high = sigmoid(np.array([logit, logit + 1.0]))
    assert 0 <= low <= high <= 1
    assert low + sigmoid(np.array([-logit]))[0] == pytest.approx(1, rel=1e-12)
