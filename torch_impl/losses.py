"""Losses on logits; the formulas are those of `common.losses`. Twin of `keras_impl.losses`.

By log-sigmoid and log-softmax: finite for any logit, exact in float64, and with the right gradient at 0. The weighted
sum is divided by the sum of the weights; in the native lane (`divisor` "samples") by their number where a framework's
own loss does so.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from torch.nn import functional

from common.config import Recipe
from common.errors import StudyError
from torch_impl import replicas

# (logits, targets, weights) -> the scalar to minimise; targets in the shape of the logits, weights (N,)
Loss: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def binary_cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, divisor: str = "weights"
) -> torch.Tensor:
    """Weighted mean over the samples; logits and targets (N, 1), or (N, H, W, 1) with the mean over the pixels."""
    log_likelihood = targets * functional.logsigmoid(logits) + (1 - targets) * functional.logsigmoid(-logits)
    total = _total(_spread(weights, logits) * log_likelihood)
    return -total / (math.prod(logits.shape[1:]) * _count(weights, divisor))


def cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, divisor: str = "weights"
) -> torch.Tensor:
    """Weighted mean over the samples; logits and targets (N, K), each target sums to 1."""
    log_likelihood = targets * functional.log_softmax(logits, -1)
    return -_total(_spread(weights, logits) * log_likelihood) / _count(weights, divisor)


def dice_cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    smooth: float,
    pixel_loss: Loss = binary_cross_entropy,
) -> torch.Tensor:
    """Binary cross-entropy plus 1 - soft Dice pooled over the batch; logits and targets (N, H, W, 1)."""
    probabilities, spread = torch.sigmoid(logits), _spread(weights, logits)
    overlap = _total(spread * probabilities * targets)
    areas = _total(spread * (probabilities + targets))
    return pixel_loss(logits, targets, weights) + (1 - (2 * overlap + smooth) / (areas + smooth))


def loss_of(recipe: Recipe) -> Loss:
    """The recipe's loss. Raises StudyError for a form that PyTorch lacks."""
    if recipe.loss_input != "logits":
        raise StudyError(f"loss_input {recipe.loss_input!r} is Keras's own; PyTorch's losses take 'logits'")
    binary: Loss = partial(binary_cross_entropy, divisor=recipe.loss_divisor)
    losses: dict[str, Loss] = {
        "binary_cross_entropy": binary,
        "cross_entropy": partial(cross_entropy, divisor=recipe.loss_divisor),
        "dice_cross_entropy": partial(dice_cross_entropy, smooth=recipe.dice_smooth, pixel_loss=binary),
    }
    return losses[recipe.loss]


def _count(weights: torch.Tensor, divisor: str) -> torch.Tensor | int:
    return len(weights) * replicas.parts() if divisor == "samples" else _total(weights)


def _total(x: torch.Tensor) -> torch.Tensor:
    """The sum over the whole batch, whichever devices its samples are on."""
    return replicas.summed(torch.sum(x))


def _spread(weights: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """(N,) -> (N, 1) or (N, 1, 1, 1): a sample's weight beside each of its logits."""
    return torch.reshape(weights, (-1,) + (1,) * (len(logits.shape) - 1))
