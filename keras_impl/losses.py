"""Losses on logits; the formulas are those of `common.losses`. Twin of `torch_impl.losses`.

By log-sigmoid and log-softmax: finite for any logit, exact in float64, and with the right gradient at 0. The weighted
sum is divided by the sum of the weights; in the native lane (`divisor` "samples") by their number where a framework's
own loss does so.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import keras
from keras import ops

from common.config import Recipe
from keras_impl import replicas

# (logits, targets, weights) -> the scalar to minimise; targets in the shape of the logits, weights (N,)
Loss: TypeAlias = Callable[[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor], keras.KerasTensor]


def binary_cross_entropy(
    logits: keras.KerasTensor,
    targets: keras.KerasTensor,
    weights: keras.KerasTensor,
    divisor: str = "weights",
) -> keras.KerasTensor:
    """Weighted mean over the samples; logits and targets (N, 1), or (N, H, W, 1) with the mean over the pixels."""
    log_likelihood = targets * ops.log_sigmoid(logits) + (1 - targets) * ops.log_sigmoid(-logits)
    total = _total(_spread(weights, logits) * log_likelihood)
    return -total / (math.prod(logits.shape[1:]) * _count(weights, divisor))


def cross_entropy(
    logits: keras.KerasTensor,
    targets: keras.KerasTensor,
    weights: keras.KerasTensor,
    divisor: str = "weights",
) -> keras.KerasTensor:
    """Weighted mean over the samples; logits and targets (N, K), each target sums to 1."""
    log_likelihood = targets * ops.log_softmax(logits, -1)
    return -_total(_spread(weights, logits) * log_likelihood) / _count(weights, divisor)


def dice_cross_entropy(
    logits: keras.KerasTensor,
    targets: keras.KerasTensor,
    weights: keras.KerasTensor,
    smooth: float,
    pixel_loss: Loss = binary_cross_entropy,
) -> keras.KerasTensor:
    """Binary cross-entropy plus 1 - soft Dice pooled over the batch; logits and targets (N, H, W, 1)."""
    probabilities, spread = ops.sigmoid(logits), _spread(weights, logits)
    overlap = _total(spread * probabilities * targets)
    areas = _total(spread * (probabilities + targets))
    return pixel_loss(logits, targets, weights) + (1 - (2 * overlap + smooth) / (areas + smooth))


def loss_of(recipe: Recipe) -> Loss:
    """The recipe's loss."""
    binary: Loss = partial(binary_cross_entropy, divisor=recipe.loss_divisor)
    categorical: Loss = partial(cross_entropy, divisor=recipe.loss_divisor)
    if recipe.loss_input == "probabilities":  # the native lane: Keras's own losses as they come
        binary = partial(_of_probabilities, keras.losses.binary_crossentropy, ops.sigmoid, recipe)
        categorical = partial(_of_probabilities, keras.losses.categorical_crossentropy, ops.softmax, recipe)
    losses: dict[str, Loss] = {
        "binary_cross_entropy": binary,
        "cross_entropy": categorical,
        "dice_cross_entropy": partial(dice_cross_entropy, smooth=recipe.dice_smooth, pixel_loss=binary),
    }
    return losses[recipe.loss]


def _of_probabilities(
    loss: Callable[[keras.KerasTensor, keras.KerasTensor], keras.KerasTensor],
    link: Callable[[keras.KerasTensor], keras.KerasTensor],
    recipe: Recipe,
    logits: keras.KerasTensor,
    targets: keras.KerasTensor,
    weights: keras.KerasTensor,
) -> keras.KerasTensor:
    each = loss(targets, link(logits))  # (N,) or (N, H, W)
    total = ops.sum(ops.reshape(weights, (-1,) + (1,) * (len(each.shape) - 1)) * each)
    return total / (math.prod(each.shape[1:]) * _count(weights, recipe.loss_divisor))


def _count(weights: keras.KerasTensor, divisor: str) -> keras.KerasTensor:
    samples = replicas.parts() * ops.shape(weights)[0]
    return ops.cast(samples, weights.dtype) if divisor == "samples" else _total(weights)


def _total(x: keras.KerasTensor) -> keras.KerasTensor:
    """The sum over the whole batch, whichever devices its samples are on."""
    return replicas.summed(ops.sum(x))


def _spread(weights: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """(N,) -> (N, 1) or (N, 1, 1, 1): a sample's weight beside each of its logits."""
    return ops.reshape(weights, (-1,) + (1,) * (len(logits.shape) - 1))
