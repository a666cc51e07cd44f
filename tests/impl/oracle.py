"""The models' mathematics in NumPy, float64: what both frameworks are tested against. Shapes are those of the seam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from common.config import CnnSpec, Recipe
from common.framework import Batch
from common.losses import sigmoid

Array = NDArray[np.float64]
Weights = Mapping[str, Array]


def convolve(images: Array, kernel: Array, bias: Array) -> Array:
    """(N, H, W, C) with a kernel (F, C, k, k), k odd, zeros around -> (N, H, W, F). A cross-correlation."""
    reach = kernel.shape[-1] // 2
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[2:], axis=(1, 2))
    return np.einsum("nhwcij,fcij->nhwf", windows, kernel) + bias


def max_pool(images: Array) -> Array:
    """(N, H, W, C) -> (N, H // 2, W // 2, C)."""
    n, h, w, c = images.shape
    whole = images[:, : h // 2 * 2, : w // 2 * 2]
    return whole.reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))


def cnn_logits(spec: CnnSpec, weights: Weights, images: Array) -> Array:
    """Evaluation-mode logits, (N, outputs)."""
    x = images.astype(np.float64)
    for stage in range(len(spec.features)):
        kernel, bias = (weights[f"convolutions.{stage}.{kind}"] for kind in ("weight", "bias"))
        x = max_pool(np.maximum(convolve(x, kernel, bias), 0))
    x = x.reshape(len(x), -1)  # (N, H, W, F) -> (N, H * W * F)
    x = np.maximum(x @ weights["hidden.weight"].T + weights["hidden.bias"], 0)
    return x @ weights["head.weight"].T + weights["head.bias"]


def perceptron_gradients(weights: Weights, batch: Batch) -> tuple[float, dict[str, Array]]:
    """Loss and gradients of the CNN without a convolution: flatten, dense, ReLU, dense."""
    x = batch.images.reshape(len(batch.images), -1).astype(np.float64)
    before = x @ weights["hidden.weight"].T + weights["hidden.bias"]  # (N, hidden)
    hidden = np.maximum(before, 0)
    logits = (hidden @ weights["head.weight"].T + weights["head.bias"])[:, 0]
    share = batch.weights.astype(np.float64) / batch.weights.sum(dtype=np.float64)
    losses = np.logaddexp(0, logits) - logits * batch.labels
    d_logits = (share * (sigmoid(logits) - batch.labels))[:, None]  # (N, 1)
    d_before = d_logits @ weights["head.weight"] * (before > 0)
    gradients = {
        "hidden.weight": d_before.T @ x,
        "hidden.bias": d_before.sum(axis=0),
        "head.weight": d_logits.T @ hidden,
        "head.bias": d_logits.sum(axis=0),
    }
    return float(np.sum(share * losses)), gradients


def train_perceptron(
    start: Weights, recipe: Recipe, pairs: Sequence[tuple[Batch, float]]
) -> tuple[Array, dict[str, Array]]:
    """The loss of each step and the final weights under AdamW, as `torch_impl.optimizers` states it."""
    weights = {name: array.astype(np.float64) for name, array in start.items()}
    first = {name: np.zeros_like(array) for name, array in weights.items()}
    second = {name: np.zeros_like(array) for name, array in weights.items()}
    losses = []
    for step, (batch, rate) in enumerate(pairs, start=1):
        loss, gradients = perceptron_gradients(weights, batch)
        losses.append(loss)
        for name, gradient in gradients.items():
            first[name] = recipe.adam_beta1 * first[name] + (1 - recipe.adam_beta1) * gradient
            second[name] = recipe.adam_beta2 * second[name] + (1 - recipe.adam_beta2) * gradient**2
            first_hat = first[name] / (1 - recipe.adam_beta1**step)
            second_hat = second[name] / (1 - recipe.adam_beta2**step)
            decay = recipe.weight_decay if weights[name].ndim > 1 else 0.0
            weights[name] = (
                weights[name] * (1 - rate * decay)
                - rate * first_hat / (np.sqrt(second_hat) + recipe.adam_epsilon)
            )  # fmt: skip
    return np.array(losses), weights
