"""The losses, once, in NumPy: what a validation loss is, and what both frameworks' losses are tested against.

All take logits and targets of one shape, (N, K) or (N, H, W, 1), and one weight a sample, (N,), and divide by the sum
of the weights, so that a class weight moves the balance and not the step length. All are written by log-sigmoid or
log-softmax: finite for any logit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from common.config import Recipe
from common.framework import Array


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-logits)), without overflow on either side."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """exp(logits) over their sum along the last axis, without overflow."""
    return np.exp(log_softmax(logits))


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of the softmax along the last axis."""
    below = logits - logits.max(axis=-1, keepdims=True)
    return below - np.log(np.exp(below).sum(axis=-1, keepdims=True))


def binary_cross_entropy(logits: Array, targets: Array, weights: Array) -> float:
    """Weighted mean over the samples of log(1 + exp(z)) - y z; logits and targets (N, 1)."""
    return _loss(_binary_sums(logits, targets, weights))


def cross_entropy(logits: Array, targets: Array, weights: Array) -> float:
    """Weighted mean over the samples of -sum_k y_k log softmax(z)_k; logits and targets (N, K), targets sum to 1."""
    return _loss(_categorical_sums(logits, targets, weights))


def dice_cross_entropy(logits: Array, targets: Array, weights: Array, smooth: float) -> float:
    """Binary cross-entropy plus 1 - soft Dice; logits and targets (N, H, W, 1), `smooth` above 0, in pixels.

    The first is the weighted mean over the samples of the mean over their pixels. Soft Dice (Milletari et al. 2016,
    without the squares) is pooled: (2 sum(w p y) + smooth) / (sum(w p) + sum(w y) + smooth) over all pixels of the
    batch, so that a slice without a lesion neither divides by zero nor counts as a success.
    """
    return _loss(_mask_sums(logits, targets, weights), smooth)


class MeanLoss:
    """The recipe's loss of many batches as if they were one, at the memory of one."""

    def __init__(self, recipe: Recipe) -> None:
        self._sums_of = SUMS[recipe.loss]
        self._smooth = recipe.dice_smooth
        self._sums: list[NDArray[np.float64]] = []  # a few numbers a batch

    def add(self, logits: Array, targets: Array, weights: Array) -> None:
        """One batch, shaped as for the losses of this module; padded samples have weight 0."""
        self._sums.append(self._sums_of(logits, targets, weights))

    def value(self) -> float:
        """The loss of all that was added; some of it must have a weight above 0."""
        return _loss(np.sum(self._sums, axis=0), self._smooth)


# A loss is a function of a few sums over the samples, and the sums of batches add up to those of the whole:
# sum(w loss) and sum(w); where Dice has a part, also sum(w p y) and sum(w (p + y)) over the pixels.


def _binary_sums(logits: Array, targets: Array, weights: Array) -> NDArray[np.float64]:
    z, y, w = _checked(logits, targets, weights)
    losses = np.maximum(z, 0) - z * y + np.log1p(np.exp(-np.abs(z)))
    return np.array([w @ losses.reshape(len(w), -1).mean(axis=1), w.sum()])


def _categorical_sums(logits: Array, targets: Array, weights: Array) -> NDArray[np.float64]:
    z, y, w = _checked(logits, targets, weights)
    return np.array([w @ -np.sum(y * log_softmax(z), axis=-1), w.sum()])


def _mask_sums(logits: Array, targets: Array, weights: Array) -> NDArray[np.float64]:
    z, y, w = _checked(logits, targets, weights)
    p = sigmoid(z)
    overlap, areas = ((w @ pixels.reshape(len(w), -1)).sum() for pixels in (p * y, p + y))
    return np.array([*_binary_sums(z, y, w), overlap, areas])


SUMS: dict[str, Callable[[Array, Array, Array], NDArray[np.float64]]] = {
    "binary_cross_entropy": _binary_sums,
    "cross_entropy": _categorical_sums,
    "dice_cross_entropy": _mask_sums,
}


def _loss(sums: NDArray[np.float64], smooth: float = 0.0) -> float:
    mean, dice = sums[0] / sums[1], sums[2:]
    return float(mean + (1 - (2 * dice[0] + smooth) / (dice[1] + smooth) if len(dice) else 0))


def _checked(logits: Array, targets: Array, weights: Array) -> tuple[NDArray[np.float64], ...]:
    """All in float64. ValueError for shapes of which NumPy would make (N, N) without a word."""
    if logits.shape != targets.shape or weights.shape != logits.shape[:1]:
        raise ValueError(
            f"logits {logits.shape}, targets {targets.shape} and weights {weights.shape} do not belong together"
        )
    return tuple(np.asarray(array, dtype=np.float64) for array in (logits, targets, weights))
