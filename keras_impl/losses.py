"""Losses on logits; the formulas are those of `common.losses`. Twin of `torch_impl.losses`.

By log-sigmoid and log-softmax: finite for any logit, exact in float64, and with the right gradient at 0.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import keras
from keras import ops

from common.config import Recipe

# (logits, targets, weights) -> the scalar to minimise; targets in the shape of the logits, weights (N,)
Loss: TypeAlias = Callable[[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor], keras.KerasTensor]


def binary_cross_entropy(
    logits: keras.KerasTensor, targets: keras.KerasTensor, weights: keras.KerasTensor
) -> keras.KerasTensor:
    """Weighted mean over the samples; logits and targets (N, 1), or (N, H, W, 1) with the mean over the pixels."""
    log_likelihood = targets * ops.log_sigmoid(logits) + (1 - targets) * ops.log_sigmoid(-logits)
    total = ops.sum(_spread(weights, logits) * log_likelihood)
    return -total / (math.prod(logits.shape[1:]) * ops.sum(weights))


def cross_entropy(
    logits: keras.KerasTensor, targets: keras.KerasTensor, weights: keras.KerasTensor
) -> keras.KerasTensor:
    """Weighted mean over the samples; logits and targets (N, K), each target sums to 1."""
    log_likelihood = targets * ops.log_softmax(logits, -1)
    return -ops.sum(_spread(weights, logits) * log_likelihood) / ops.sum(weights)


def dice_cross_entropy(
    logits: keras.KerasTensor, targets: keras.KerasTensor, weights: keras.KerasTensor, smooth: float
) -> keras.KerasTensor:
    """Binary cross-entropy plus 1 - soft Dice pooled over the batch; logits and targets (N, H, W, 1)."""
    probabilities, spread = ops.sigmoid(logits), _spread(weights, logits)
    overlap = ops.sum(spread * probabilities * targets)
    areas = ops.sum(spread * (probabilities + targets))
    return binary_cross_entropy(logits, targets, weights) + (1 - (2 * overlap + smooth) / (areas + smooth))


def loss_of(recipe: Recipe) -> Loss:
    """The recipe's loss."""
    losses: dict[str, Loss] = {
        "binary_cross_entropy": binary_cross_entropy,
        "cross_entropy": cross_entropy,
        "dice_cross_entropy": partial(dice_cross_entropy, smooth=recipe.dice_smooth),
    }
    return losses[recipe.loss]


def _spread(weights: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """(N,) -> (N, 1) or (N, 1, 1, 1): a sample's weight beside each of its logits."""
    return ops.reshape(weights, (-1,) + (1,) * (len(logits.shape) - 1))
