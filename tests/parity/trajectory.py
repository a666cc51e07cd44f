"""Twenty training steps of one framework on given weights and batches, written to a file: one side of the parity test.

    python tests/parity/trajectory.py FRAMEWORK OUT.npz [MUTATION ...]

Each mutation changes one rule of PyTorch's side, as a faulty implementation would, and is trained as well.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np

from common.config import CnnSpec, Recipe
from common.engines import module_of
from common.framework import Batch, Framework, Settings
from common.random_numbers import generator
from common.schedule import learning_rate

STEPS = 20
SPEC = CnnSpec(image_size=32, features=(8, 16), hidden=24, dropout=0.0)  # draws of dropout cannot be shared
RECIPE = Recipe(epochs=1, batch_size=8)
CLASS_WEIGHTS = np.array([0.7, 1.9])


def make_pairs() -> list[tuple[Batch, float]]:
    """The batches and rates of the steps; strokes weigh more, each batch's weights have mean 1."""
    pairs = []
    for step in range(STEPS):
        source = generator("parity", step)
        labels = (source.random(RECIPE.batch_size) < 0.4).astype(np.int64)
        images = source.standard_normal((RECIPE.batch_size, SPEC.image_size, SPEC.image_size, SPEC.channels))
        weights = CLASS_WEIGHTS[labels] / CLASS_WEIGHTS[labels].mean()
        batch = Batch(
            (images + labels[:, None, None, None]).astype(np.float32),
            labels.astype(np.float32),
            weights.astype(np.float32),
            np.arange(RECIPE.batch_size),
        )
        pairs.append((batch, learning_rate(step, STEPS, RECIPE)))
    return pairs


def draw_weights(shape: tuple[int, ...], name: str) -> np.ndarray:
    """Kernels that keep the variance of what they pass on, the last layer's too; biases 0."""
    if len(shape) == 1:
        return np.zeros(shape, np.float32)
    return (np.sqrt(2 / np.prod(shape[1:])) * generator("parity", name).standard_normal(shape)).astype(
        np.float32
    )


def follow(impl: Framework, precision: str) -> dict[str, np.ndarray]:
    """`forward` logits before training, `losses` of the steps, `logits` after, and every weight under its name."""
    impl.configure(Settings("cpu", precision, threads=1))
    model = impl.build(SPEC)
    shapes = {name: array.shape for name, array in impl.read_weights(model).items()}
    impl.write_weights(model, {name: draw_weights(shape, name) for name, shape in shapes.items()})
    pairs = make_pairs()
    batches = [batch for batch, _ in pairs[:3]]
    forward = impl.predict_logits(model, batches)
    losses = impl.train_epoch(impl.create_trainer(model, RECIPE), pairs)
    logits = impl.predict_logits(model, batches)
    return {"forward": forward, "losses": losses, "logits": logits} | impl.read_weights(model)


# --- faults -------------------------------------------------------------------------------------------------------


def epsilon_before_correction() -> Any:
    """Keras's own form: epsilon is added to the uncorrected root, so it counts 1 / sqrt(1 - beta2^t) times."""
    from torch_impl import training

    steps = iter(range(1, STEPS + 1))

    def set_learning_rate(optimizer: Any, rate: float) -> None:
        epsilon = RECIPE.adam_epsilon / np.sqrt(1 - RECIPE.adam_beta2 ** next(steps))
        for group in optimizer.param_groups:
            group |= {"lr": rate, "eps": float(epsilon)}

    return mock.patch.object(training, "set_learning_rate", set_learning_rate)


def decayed_biases() -> Any:
    import torch

    from torch_impl import training

    def create_optimizer(model: Any, recipe: Recipe) -> Any:
        return torch.optim.AdamW(
            model.parameters(), weight_decay=recipe.weight_decay, eps=recipe.adam_epsilon
        )  # its betas are the recipe's

    return mock.patch.object(training, "create_optimizer", create_optimizer)


def channels_first_flatten() -> Any:
    from torch_impl import layers

    return mock.patch.object(layers, "flatten", lambda x: x.flatten(1))


def unweighted_classes() -> Any:
    from torch_impl import training

    original = training.binary_cross_entropy
    return mock.patch.object(
        training, "binary_cross_entropy", lambda logits, labels, weights: original(logits, labels, weights**0)
    )


def rate_of_the_step_before() -> Any:
    from torch_impl import training

    original, rates = training.set_learning_rate, [0.0]

    def set_learning_rate(optimizer: Any, rate: float) -> None:
        original(optimizer, rates[-1])
        rates.append(rate)

    return mock.patch.object(training, "set_learning_rate", set_learning_rate)


def running_mean_loss() -> Any:
    """What `fit` logs: the mean of the epoch so far."""
    import torch_impl

    original = torch_impl.train_epoch

    def train_epoch(trainer: Any, batches: Any) -> np.ndarray:
        losses = original(trainer, batches)
        return np.cumsum(losses) / np.arange(1, len(losses) + 1)

    return mock.patch.object(torch_impl, "train_epoch", train_epoch)


MUTATIONS: dict[str, Callable[[], contextlib.AbstractContextManager]] = {
    function.__name__: function
    for function in (
        epsilon_before_correction,
        decayed_biases,
        channels_first_flatten,
        unweighted_classes,
        rate_of_the_step_before,
        running_mean_loss,
    )
}


def trajectories(framework: str, mutations: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    impl: Framework = importlib.import_module(module_of(framework))  # type: ignore[assignment]
    for precision in ("float32", "float64"):
        for name, array in follow(impl, precision).items():
            yield f"{precision}/{name}", array
    for mutation in mutations:
        with MUTATIONS[mutation]():
            for name, array in follow(impl, "float64").items():
                yield f"{mutation}/{name}", array


if __name__ == "__main__":
    np.savez(sys.argv[2], **dict(trajectories(sys.argv[1], sys.argv[3:])))
