"""Faults of implementations: each changes one rule of PyTorch's side, as a faulty program would."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any
from unittest import mock

from common.config import ModelSpec, Recipe
from common.framework import Array

Patch = contextlib.AbstractContextManager


# --- the stream ---------------------------------------------------------------------------------------------------


def other_normalisation() -> Patch:
    """A hundredth added to the mean that is taken from the pixels."""
    from common.data import batches

    original = batches.grey_table

    def grey_table(spec: ModelSpec) -> Array:
        shift = tuple(mean + 0.01 for mean in spec.pixel_mean)
        return original(dataclasses.replace(spec, pixel_mean=shift))

    return mock.patch.object(batches, "grey_table", grey_table)


def labels_not_smoothed() -> Patch:
    from common.data import batches

    original = batches.class_targets
    return mock.patch.object(
        batches, "class_targets", lambda labels, task, smoothing=0.0: original(labels, task)
    )


def classes_not_weighed() -> Patch:
    from common.data import batches

    original = batches.weigh_classes
    return mock.patch.object(
        batches, "weigh_classes", lambda labels, classes, rule: original(labels, classes, "none")
    )


# --- layers -------------------------------------------------------------------------------------------------------


def gelu_by_tanh() -> Patch:
    from torch.nn import functional

    from torch_impl import layers

    return mock.patch.object(layers, "gelu", lambda x, stock=False: functional.gelu(x, approximate="tanh"))


def one_sided_max_pool() -> Patch:
    from torch_impl import layers

    original = layers.max_pool

    def max_pool(x: Any, size: int = 2, stride: int = 2, padding: int = 0, sides: str = "") -> Any:
        del sides
        return original(x, size, stride, padding, sides="same")

    return mock.patch.object(layers, "max_pool", max_pool)


def layer_norm_epsilon() -> Patch:
    """PyTorch's default."""
    from torch_impl import layers

    original = layers.layer_norm

    def layer_norm(features: int, epsilon: float, *, stock: bool = False, name: str) -> Any:
        del epsilon
        return original(features, 1e-5, stock=stock, name=name)

    return mock.patch.object(layers, "layer_norm", layer_norm)


def exchanged_channels() -> Patch:
    """What is put together, in the other order."""
    from torch_impl import layers

    original = layers.concatenate
    return mock.patch.object(layers, "concatenate", lambda parts: original(list(parts)[::-1]))


def masks_of_other_steps() -> Patch:
    """Dropout whose masks are not those of the step."""
    from torch_impl import layers, training

    original = layers.set_masks
    return mock.patch.object(training, "set_masks", lambda model, key: original(model, (*key, "again")))


def statistics_that_move_while_frozen() -> Patch:
    """PyTorch's default: parameters that do not learn, batch norm in training mode all the same."""
    import torch_impl

    original = torch_impl.create_trainer

    def create_trainer(model: Any, recipe: Recipe, trainable: str = "all", traced: bool = False) -> Any:
        trainer = original(model, recipe, trainable, traced)
        model.frozen = False
        return trainer

    return mock.patch.object(torch_impl, "create_trainer", create_trainer)


def evaluation_by_batch_statistics() -> Patch:
    """`model.eval()` forgotten."""
    import torch_impl
    from torch_impl import tensors

    def predict_logits(model: Any, batches: Any) -> Any:
        import torch

        model.train()
        before = torch_impl.read_weights(model)
        with torch.no_grad():
            for batch in batches:
                yield tensors.to_array(model(tensors.to_tensor(batch.images)))
        torch_impl.write_weights(model, before)

    return mock.patch.object(torch_impl, "predict_logits", predict_logits)


# --- loss ---------------------------------------------------------------------------------------------------------


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


def loss_without_weights() -> Patch:
    from torch_impl import training

    original = training.loss_of

    def loss_of(recipe: Recipe) -> Any:
        loss = original(recipe)
        return lambda logits, targets, weights: loss(logits, targets, weights**0)

    return mock.patch.object(training, "loss_of", loss_of)


def running_mean_loss() -> Patch:
    """What `fit` logs: the mean of the epoch so far."""
    import torch_impl

    original, seen = torch_impl.train_epoch, list[float]()

    def train_epoch(trainer: Any, batches: Any) -> Array:
        losses = original(trainer, batches)
        seen.extend(losses)
        return losses - losses + sum(seen) / len(seen)

    return mock.patch.object(torch_impl, "train_epoch", train_epoch)


def halved_gradient() -> Patch:
    """Half of the maps carry no gradient, as after a stray `.detach()`; the values are right."""
    from torch_impl import layers

    original = layers.flatten
    return mock.patch.object(
        layers, "flatten", lambda x, order="channels_last": original(0.5 * x + 0.5 * x.detach(), order)
    )


# --- optimizer ----------------------------------------------------------------------------------------------------


def _with_optimizer(change: Callable[[Any, Recipe], None]) -> Patch:
    """Every optimizer changed after it was made."""
    from torch_impl import training

    original = training.create_optimizer

    def create_optimizer(model: Any, recipe: Recipe, traced: bool = False) -> Any:
        optimizer = original(model, recipe, traced)
        change(optimizer, recipe)
        return optimizer

    return mock.patch.object(training, "create_optimizer", create_optimizer)


def decay_after_the_step() -> Patch:
    """Decoupled decay of what the step made, not of what it began with: second order in the rate."""

    def change(optimizer: Any, recipe: Recipe) -> None:
        import torch

        for group in optimizer.param_groups:
            group["late_decay"], group["weight_decay"] = group["weight_decay"], 0.0

        def decay(optimizer: Any, args: Any, kwargs: Any) -> None:
            with torch.no_grad():
                for group in optimizer.param_groups:
                    for parameter in group["params"]:
                        parameter *= 1 - group["lr"] * group["late_decay"]

        optimizer.register_step_post_hook(decay)

    return _with_optimizer(change)


def optimizer_that_goes_on() -> Patch:
    """The second phase keeps the head's moments of the first."""
    kept: list[Any] = []

    def change(optimizer: Any, recipe: Recipe) -> None:
        for state in kept:
            optimizer.state |= state
        kept.append(optimizer.state)

    return _with_optimizer(change)


def backbone_as_fast_as_the_head() -> Patch:
    def change(optimizer: Any, recipe: Recipe) -> None:
        for group in optimizer.param_groups:
            group["rate_fraction"] = 1.0

    return _with_optimizer(change)


def gradients_not_clipped() -> Patch:
    from torch_impl import optimizers

    return mock.patch.object(optimizers, "_clip", return_value=None)


def rate_of_the_step_before() -> Patch:
    from torch_impl import training

    original, rates = training.set_learning_rate, [0.0]

    def set_learning_rate(optimizer: Any, rate: float) -> None:
        original(optimizer, rates[-1])
        rates.append(rate)

    return mock.patch.object(training, "set_learning_rate", set_learning_rate)


def moments_that_forget() -> Patch:
    """Another beta2: the first step, whose bias correction cancels it, is equal."""

    def change(optimizer: Any, recipe: Recipe) -> None:
        for group in optimizer.param_groups:
            group["betas"] = (recipe.adam_beta1, 0.99)

    return _with_optimizer(change)


FAULTS: dict[str, Callable[[], Patch]] = {
    fault.__name__: fault
    for fault in (
        other_normalisation,
        labels_not_smoothed,
        classes_not_weighed,
        gelu_by_tanh,
        one_sided_max_pool,
        layer_norm_epsilon,
        exchanged_channels,
        masks_of_other_steps,
        statistics_that_move_while_frozen,
        evaluation_by_batch_statistics,
        dice_of_each_slice,
        loss_without_weights,
        running_mean_loss,
        halved_gradient,
        decay_after_the_step,
        optimizer_that_goes_on,
        backbone_as_fast_as_the_head,
        gradients_not_clipped,
        rate_of_the_step_before,
        moments_that_forget,
    )
}
