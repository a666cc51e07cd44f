"""The loss, once, in NumPy: what the validation loss is, and what both frameworks' losses are tested against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-logits)), without overflow on either side."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))


def binary_cross_entropy(
    logits: NDArray[np.float64], labels: NDArray[np.float64], weights: NDArray[np.float64]
) -> float:
    """Weighted mean of log(1 + exp(z)) - y z over the samples; all arguments (N,).

    The sum is divided by the sum of the weights, so that a class weight moves the balance and not the step length.
    """
    losses = np.maximum(logits, 0) - logits * labels + np.log1p(np.exp(-np.abs(logits)))
    return float(np.sum(weights * losses) / np.sum(weights))
