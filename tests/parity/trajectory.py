"""Twenty training steps of one framework on given weights and batches, written to a file: one side of the parity test.

    python tests/parity/trajectory.py FRAMEWORK OUT.npz [FAULT ...]

Each fault changes one rule of PyTorch's side, as a faulty implementation would, and its case is trained as well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

from common.config import CnnSpec, ConvNextSpec, DenseNetSpec, ModelSpec, Recipe, UnetSpec
from common.engines import module_of
from common.framework import Array, Batch, Framework, Settings
from common.random_numbers import generator
from common.schedule import learning_rate

STEPS = 20
CLASS_WEIGHTS = np.array([0.7, 1.9, 1.3])
RECIPE = Recipe(epochs=1, batch_size=8)
# The head alone for the first steps, then all, the backbone slower; labels smoothed
TRANSFER = dataclasses.replace(
    RECIPE,
    loss="cross_entropy",
    learning_rate=1e-2,
    label_smoothing=0.05,
    head_epochs=1,
    backbone_rate_fraction=0.3,
)
HEAD_STEPS = 6


@dataclass(frozen=True)
class Case:
    """A model and how it is trained; without dropout and stochastic depth, whose draws cannot be shared."""

    spec: ModelSpec
    recipe: Recipe

    @property
    def phases(self) -> tuple[tuple[str, int, int], ...]:
        """What learns, from which step to which."""
        if self.recipe.head_epochs:
            return (("head", 0, HEAD_STEPS), ("all", HEAD_STEPS, STEPS))
        return (("all", 0, STEPS),)


CASES = {
    "cnn": Case(CnnSpec(image_size=32, features=(8, 16), hidden=24, dropout=0.0), RECIPE),
    "densenet121": Case(
        DenseNetSpec(image_size=32, stem_features=8, blocks=(2, 2), growth=4, bottleneck=2, outputs=3),
        TRANSFER,
    ),
    "convnext_tiny": Case(
        ConvNextSpec(image_size=32, depths=(1, 2), features=(6, 8), stochastic_depth=0.0, outputs=3),
        TRANSFER,
    ),
    "unet": Case(
        UnetSpec(image_size=16, features=(4, 6, 8)),
        dataclasses.replace(RECIPE, loss="dice_cross_entropy", learning_rate=1e-2),
    ),
}


def make_pairs(case: Case) -> list[tuple[Batch, float]]:
    """The batches and rates of the steps; classes weigh differently, each batch's weights have mean 1."""
    return [
        (make_batch(case, step), learning_rate(step - first, last - first, case.recipe))
        for _, first, last in case.phases
        for step in range(first, last)
    ]


def make_batch(case: Case, step: int) -> Batch:
    """Noise, brighter by the class; for masks brighter within, and every third slice without a lesion."""
    spec, size = case.spec, case.recipe.batch_size
    source = generator("parity", step)
    images = source.standard_normal((size, spec.image_size, spec.image_size, spec.channels))
    if case.recipe.loss == "dice_cross_entropy":
        labels = (np.arange(size) % 3 > 0).astype(int)
        targets = np.zeros(images.shape)
        targets[:, 3:9, 4:12] = labels[:, None, None, None]
        images += 2 * targets
    else:
        labels = source.integers(max(2, spec.outputs), size=size)
        images += labels[:, None, None, None]
        smoothing = case.recipe.label_smoothing
        targets = np.eye(spec.outputs)[labels] if spec.outputs > 1 else labels[:, None]
        targets = (1 - smoothing) * targets + smoothing / max(2, spec.outputs)
    weights = CLASS_WEIGHTS[labels] / CLASS_WEIGHTS[labels].mean()
    return Batch(
        images.astype(np.float32), targets.astype(np.float32), weights.astype(np.float32), np.arange(size)
    )


def draw_weights(shape: tuple[int, ...], name: str) -> Array:
    """Kernels that keep the variance of what they pass on, the last layer's too; biases 0, scales 1."""
    if len(shape) > 1:
        drawn = np.sqrt(2 / np.prod(shape[1:])) * generator("parity", name).standard_normal(shape)
        return drawn.astype(np.float32)
    return np.full(shape, not name.endswith(("bias", "running_mean")), np.float32)


def started(impl: Framework, case: Case, precision: str) -> Any:
    impl.configure(Settings("cpu", precision, threads=1))
    model = impl.build(case.spec)
    shapes = {name: array.shape for name, array in impl.read_weights(model).items()}
    impl.write_weights(model, {name: draw_weights(shape, name) for name, shape in shapes.items()})
    return model


def predict(impl: Framework, model: Any, pairs: list[tuple[Batch, float]]) -> Array:
    return np.concatenate(list(impl.predict_logits(model, (batch for batch, _ in pairs[:3]))))


def follow(impl: Framework, case: Case) -> dict[str, Array]:
    """`forward` logits before training, `losses` of the steps, `logits` after, and every weight under its name."""
    model, pairs = started(impl, case, "float64"), make_pairs(case)
    forward = predict(impl, model, pairs)
    losses = [
        impl.train_epoch(impl.create_trainer(model, case.recipe, trainable=trainable), pairs[first:last])
        for trainable, first, last in case.phases
    ]
    logits = predict(impl, model, pairs)
    found = {"forward": forward, "losses": np.concatenate(losses), "logits": logits}
    return found | impl.read_weights(model)


# --- faults -------------------------------------------------------------------------------------------------------

Patch = contextlib.AbstractContextManager


def epsilon_before_correction() -> Patch:
    """Keras's own form: epsilon is added to the uncorrected root, so it counts 1 / sqrt(1 - beta2^t) times."""
    from torch_impl import training

    steps = iter(range(1, STEPS + 1))

    def set_learning_rate(optimizer: Any, rate: float) -> None:
        epsilon = RECIPE.adam_epsilon / np.sqrt(1 - RECIPE.adam_beta2 ** next(steps))
        for group in optimizer.param_groups:
            group |= {"lr": rate, "eps": float(epsilon)}

    return mock.patch.object(training, "set_learning_rate", set_learning_rate)


def decayed_biases() -> Patch:
    from torch_impl import training

    original = training.create_optimizer

    def create_optimizer(model: Any, recipe: Recipe) -> Any:
        optimizer = original(model, recipe)
        for group in optimizer.param_groups:
            group["weight_decay"] = recipe.weight_decay
        return optimizer

    return mock.patch.object(training, "create_optimizer", create_optimizer)


def channels_first_flatten() -> Patch:
    from torch_impl import layers

    return mock.patch.object(layers, "flatten", lambda x: x.flatten(1))


def unweighted_classes() -> Patch:
    from torch_impl import training

    original = training.loss_of

    def loss_of(recipe: Recipe) -> Any:
        loss = original(recipe)
        return lambda logits, targets, weights: loss(logits, targets, weights**0)

    return mock.patch.object(training, "loss_of", loss_of)


def rate_of_the_step_before() -> Patch:
    from torch_impl import training

    original, rates = training.set_learning_rate, [0.0]

    def set_learning_rate(optimizer: Any, rate: float) -> None:
        original(optimizer, rates[-1])
        rates.append(rate)

    return mock.patch.object(training, "set_learning_rate", set_learning_rate)


def running_mean_loss() -> Patch:
    """What `fit` logs: the mean of the epoch so far."""
    import torch_impl

    original = torch_impl.train_epoch

    def train_epoch(trainer: Any, batches: Any) -> np.ndarray:
        losses = original(trainer, batches)
        return np.cumsum(losses) / np.arange(1, len(losses) + 1)

    return mock.patch.object(torch_impl, "train_epoch", train_epoch)


def backbone_as_fast_as_the_head() -> Patch:
    from torch_impl import training

    original = training.create_optimizer
    return mock.patch.object(
        training,
        "create_optimizer",
        lambda model, recipe: original(model, dataclasses.replace(recipe, backbone_rate_fraction=1.0)),
    )


def statistics_that_move_while_frozen() -> Patch:
    """PyTorch's default: parameters that do not learn, batch norm in training mode all the same."""
    import torch_impl

    original = torch_impl.create_trainer

    def create_trainer(model: Any, recipe: Recipe, trainable: str = "all") -> Any:
        trainer = original(model, recipe, trainable)
        model.frozen = False
        return trainer

    return mock.patch.object(torch_impl, "create_trainer", create_trainer)


def biased_running_variance() -> Patch:
    """Keras's own: the statistic moves towards the variance that the batch was divided by."""
    from torch import nn

    from torch_impl import layers

    class BatchNorm(nn.BatchNorm2d):
        def forward(self, x: Any) -> Any:
            before, values = self.running_var.clone(), x.numel() / x.shape[1]
            y = super().forward(x)
            if self.training:
                now = self.running_var.data
                now -= (now - (1 - self.momentum) * before) / values
            return y

    def batch_norm(features: int, decay: float, epsilon: float, *, name: str) -> Any:
        del name
        return BatchNorm(features, eps=epsilon, momentum=1 - decay)

    return mock.patch.object(layers, "batch_norm", batch_norm)


def optimizer_that_goes_on() -> Patch:
    """The second phase keeps the head's moments of the first."""
    from torch_impl import training

    original, kept = training.create_optimizer, []

    def create_optimizer(model: Any, recipe: Recipe) -> Any:
        optimizer = original(model, recipe)
        for state in kept:
            optimizer.state |= state
        kept.append(optimizer.state)
        return optimizer

    return mock.patch.object(training, "create_optimizer", create_optimizer)


def dice_of_each_slice() -> Patch:
    """The mean over the slices, an empty one that is left empty counting 1."""
    import torch

    from torch_impl import losses, training

    def loss_of(recipe: Recipe) -> Any:
        def loss(logits: Any, targets: Any, weights: Any) -> Any:
            p, smooth = torch.sigmoid(logits), recipe.dice_smooth
            overlap, areas = ((x).sum(dim=(1, 2, 3)) for x in (p * targets, p + targets))
            dice = (2 * overlap + smooth) / (areas + smooth)
            return losses.binary_cross_entropy(logits, targets, weights) + (1 - dice).mean()

        return loss

    return mock.patch.object(training, "loss_of", loss_of)


# fault -> the case that it is trained on
FAULTS: dict[Callable[[], Patch], str] = {
    epsilon_before_correction: "cnn",
    decayed_biases: "cnn",
    channels_first_flatten: "cnn",
    unweighted_classes: "cnn",
    rate_of_the_step_before: "cnn",
    running_mean_loss: "cnn",
    backbone_as_fast_as_the_head: "convnext_tiny",
    statistics_that_move_while_frozen: "densenet121",
    biased_running_variance: "densenet121",
    optimizer_that_goes_on: "densenet121",
    dice_of_each_slice: "unet",
}


def trajectories(framework: str, faults: list[str]) -> Iterator[tuple[str, Array]]:
    """(PART/NAME, array): a part is a case, a case's name with `-float32` (the forward pass only), or a fault."""
    impl: Framework = importlib.import_module(module_of(framework))  # type: ignore[assignment]
    for name, case in CASES.items():
        model = started(impl, case, "float32")
        yield f"{name}-float32/forward", predict(impl, model, make_pairs(case))
        for key, array in follow(impl, case).items():
            yield f"{name}/{key}", array
    for fault, name in FAULTS.items():
        if fault.__name__ in faults:
            with fault():
                for key, array in follow(impl, CASES[name]).items():
                    yield f"{fault.__name__}/{key}", array


if __name__ == "__main__":
    np.savez(sys.argv[2], **dict(trajectories(sys.argv[1], sys.argv[3:])))
