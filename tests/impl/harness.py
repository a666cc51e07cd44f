"""What the suites of one framework share: the framework under test, known weights, drawn batches."""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np

from common.config import CnnSpec, ModelSpec, Recipe, UnetSpec
from common.framework import Batch, Framework, Settings
from common.random_numbers import generator

PACKAGE = os.environ["STUDY_IMPLEMENTATION"]
impl: Framework = importlib.import_module(PACKAGE)  # type: ignore[assignment]
layers, losses, tensors = (
    importlib.import_module(f"{PACKAGE}.{name}") for name in ("layers", "losses", "tensors")
)

SPEC = CnnSpec(image_size=16, features=(4, 6), hidden=10, dropout=0.0)
RECIPE = Recipe(epochs=1, batch_size=8)
EXACT = 1e-12  # relative: some hundred float64 roundings


def configure(precision: str = "float64", seed: int = 0) -> None:
    impl.configure(Settings("cpu", precision, threads=1, seed=seed))


def draw(*shape: int, key: str = "values") -> np.ndarray:
    return generator("suite", key).standard_normal(shape)


def draw_weights(shape: tuple[int, ...], name: str) -> np.ndarray:
    """Kernels that keep the variance of what they pass on, scales and variances about 1, small biases and means."""
    if len(shape) > 1:
        array = np.sqrt(2 / np.prod(shape[1:])) * draw(*shape, key=name)
    elif name.endswith(("bias", "running_mean")):
        array = 0.1 * draw(*shape, key=name)
    else:
        array = generator("suite", name).uniform(0.7, 1.3, shape)
    return array.astype(np.float32)


def started(spec: ModelSpec) -> tuple[Any, dict[str, np.ndarray]]:
    """A model with known weights, none of them 0, and those weights."""
    model = impl.build(spec)
    shapes = {name: array.shape for name, array in impl.read_weights(model).items()}
    weights = {name: draw_weights(shape, name) for name, shape in shapes.items()}
    impl.write_weights(model, weights)
    return model, weights


def make_batches(count: int, spec: ModelSpec, size: int = 8, key: str = "batches") -> list[Batch]:
    """Noise, in two classes of 0 and 1, several with smoothed labels, or masks, by the spec; weights of mean 1."""
    source = generator("suite", key, spec.image_size)
    found = []
    for _ in range(count):
        weights = source.uniform(0.5, 1.5, size)
        images = source.standard_normal((size, spec.image_size, spec.image_size, spec.channels))
        if isinstance(spec, UnetSpec):
            targets = (source.random((size, spec.image_size, spec.image_size, 1)) < 0.2).astype(float)
        elif spec.outputs > 1:
            labels = source.integers(spec.outputs, size=size)
            targets = 0.9 * np.eye(spec.outputs)[labels] + 0.1 / spec.outputs
        else:
            targets = (source.random((size, 1)) < 0.4).astype(float)
        found.append(
            Batch(
                images.astype(np.float32),
                targets.astype(np.float32),
                (weights / weights.mean()).astype(np.float32),
                np.arange(size),
            )
        )
    return found


def predict(model: Any, batches: list[Batch]) -> np.ndarray:
    """The logits of all batches in one array."""
    return np.concatenate(list(impl.predict_logits(model, batches)))


def as_tensor(array: np.ndarray) -> Any:
    """In the configured precision; `to_tensor` of Keras leaves it to the model to make a tensor of the array."""
    tensor = tensors.to_tensor(array)
    return (
        tensor if PACKAGE == "torch_impl" else importlib.import_module("keras").ops.convert_to_tensor(tensor)
    )
