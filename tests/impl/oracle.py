"""The models' mathematics in NumPy, float64: what both frameworks are tested against. Shapes are those of the seam."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from common.config import CnnSpec, Recipe
from common.framework import Batch
from common.losses import binary_cross_entropy, cross_entropy, sigmoid, softmax

Array = NDArray[np.float64]
Weights = Mapping[str, Array]
Gradients = tuple[float, dict[str, Array]]  # the loss, and its gradient by each tensor


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


def head_gradients(weights: Weights, head: str, features: Array, batch: Batch) -> Gradients:
    """Of the dense layer `head` alone, (N, F) -> (N, K); one logit is judged by its sigmoid, several by softmax.

    The gradient by the features comes under the name "features".
    """
    logits = features @ weights[f"{head}.weight"].T + weights[f"{head}.bias"]
    targets, binary = batch.targets.astype(np.float64), logits.shape[1] == 1
    share = (batch.weights.astype(np.float64) / batch.weights.sum(dtype=np.float64))[:, None]
    loss = (binary_cross_entropy if binary else cross_entropy)(logits, targets, batch.weights)
    # Smoothed labels in float32 sum to 1 within 1e-7 only
    probabilities = sigmoid(logits) if binary else softmax(logits) * targets.sum(axis=1, keepdims=True)
    d_logits = share * (probabilities - targets)  # (N, K)
    return loss, {
        f"{head}.weight": d_logits.T @ features,
        f"{head}.bias": d_logits.sum(axis=0),
        "features": d_logits @ weights[f"{head}.weight"],
    }


def perceptron_gradients(weights: Weights, batch: Batch) -> Gradients:
    """Of the CNN without a convolution: flatten, dense, ReLU, dense."""
    x = batch.images.reshape(len(batch.images), -1).astype(np.float64)
    before = x @ weights["hidden.weight"].T + weights["hidden.bias"]  # (N, hidden)
    loss, gradients = head_gradients(weights, "head", np.maximum(before, 0), batch)
    d_before = gradients.pop("features") * (before > 0)
    return loss, gradients | {"hidden.weight": d_before.T @ x, "hidden.bias": d_before.sum(axis=0)}


def train(
    start: Weights,
    head: str,
    recipe: Recipe,
    pairs: Sequence[tuple[Batch, float]],
    gradients_of: Callable[[Weights, Batch], Gradients],
) -> tuple[Array, dict[str, Array]]:
    """The loss of each step and the final weights under AdamW, as `torch_impl.optimizers` states it.

    What has no gradient stays.
    """
    weights = {name: array.astype(np.float64) for name, array in start.items()}
    first = {name: np.zeros_like(array) for name, array in weights.items()}
    second = {name: np.zeros_like(array) for name, array in weights.items()}
    losses = []
    for step, (batch, rate) in enumerate(pairs, start=1):
        loss, gradients = gradients_of(weights, batch)
        losses.append(loss)
        for name in gradients.keys() & weights.keys():
            own = rate if name.startswith(f"{head}.") else rate * recipe.backbone_rate_fraction
            first[name] = recipe.adam_beta1 * first[name] + (1 - recipe.adam_beta1) * gradients[name]
            second[name] = recipe.adam_beta2 * second[name] + (1 - recipe.adam_beta2) * gradients[name] ** 2
            first_hat = first[name] / (1 - recipe.adam_beta1**step)
            second_hat = second[name] / (1 - recipe.adam_beta2**step)
            decay = recipe.weight_decay if weights[name].ndim > 1 else 0.0
            weights[name] = (
                weights[name] * (1 - own * decay)
                - own * first_hat / (np.sqrt(second_hat) + recipe.adam_epsilon)
            )  # fmt: skip
    return np.array(losses), weights


def train_perceptron(
    start: Weights, recipe: Recipe, pairs: Sequence[tuple[Batch, float]]
) -> tuple[Array, dict[str, Array]]:
    """The loss of each step and the final weights of the CNN without a convolution."""
    return train(start, "head", recipe, pairs, perceptron_gradients)
