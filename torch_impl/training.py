"""One epoch of training, one pass of prediction. Order, rates and batches are given; nothing is decided here."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.config import Recipe
from common.errors import StudyError
from common.framework import Array, Batch, Weights
from common.weights import check_weights
from torch_impl import optimizers, replicas
from torch_impl.layers import set_masks
from torch_impl.losses import Loss, loss_of
from torch_impl.optimizers import create_optimizer, head_ids, read_memory, set_learning_rate, write_memory
from torch_impl.tensors import (
    autocast,
    read_draws,
    read_weights,
    to_array,
    to_tensor,
    write_draws,
    write_weights,
)


@dataclass(frozen=True)
class Trainer:
    """A model in training."""

    model: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    loop: str  # of the recipe


def create_trainer(model: nn.Module, recipe: Recipe, trainable: str = "all", traced: bool = False) -> Trainer:
    """Bind model, the recipe's loss and a fresh optimizer.

    `trainable` is "all", or "head": only the last layer (`spec.head`) learns, and all before it is fixed and runs in
    evaluation mode. `traced`: keep what `gradient_norms` tells. Raises StudyError for a loop that PyTorch lacks.
    """
    if recipe.loop != "steps":
        raise StudyError(f"loop {recipe.loop!r} is Keras's own; PyTorch has 'steps'")
    head = head_ids(model)
    for parameter in model.parameters():
        parameter.requires_grad_(trainable == "all" or id(parameter) in head)
    model.frozen = trainable == "head"  # type: ignore[assignment]
    return Trainer(model, loss_of(recipe), create_optimizer(model, recipe, traced), recipe.loop)


def train_epoch(trainer: Trainer, batches: Iterable[tuple[Batch, float]]) -> NDArray[np.float64]:
    """One optimizer step per (batch, learning rate), in order; returns the loss of each step, (steps,)."""
    trainer.model.train()
    model = replicas.spread(trainer.model)
    losses = []
    for batch, learning_rate in batches:
        set_learning_rate(trainer.optimizer, learning_rate)
        set_masks(trainer.model, batch.key)
        with autocast():
            logits = model(to_tensor(replicas.share(batch.images)))
        targets, weights = (to_tensor(replicas.share(one)) for one in (batch.targets, batch.weights))
        loss = trainer.loss(logits, targets, weights)
        trainer.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        trainer.optimizer.step()
        losses.append(loss.detach())  # read after the epoch: reading here would stop the device at every step
    trainer.optimizer.zero_grad(set_to_none=True)  # their memory serves what comes between two epochs
    return to_array(torch.stack(losses))


def read_trainer_state(trainer: Trainer) -> dict[str, Array]:
    """A copy of all that training goes on from beside the model's weights.

    `steps`, int64 (): done by the optimizer; `first.NAME`, `second.NAME`: its moments of each tensor that learns,
    under PyTorch's names and in its layout; `draws.NAME`: where the framework's own draws (dropout) stand.
    """
    return read_memory(trainer.optimizer) | read_draws(trainer.model)


def write_trainer_state(trainer: Trainer, state: Weights) -> None:
    """Inverse of `read_trainer_state`. Raises StudyError unless names and shapes are exactly the trainer's."""
    check_weights(state, {name: array.shape for name, array in read_trainer_state(trainer).items()})
    write_memory(trainer.optimizer, state)
    write_draws(trainer.model, state)


def gradient_norms(trainer: Trainer) -> dict[str, float]:
    """L2 norm of the last step's gradient of each tensor that learns, before clipping; `trainer` must be traced."""
    return optimizers.gradient_norms(trainer.optimizer)


def layer_outputs(model: nn.Module, batch: Batch, training: bool) -> dict[str, Array]:
    """Output of each layer that has weights, in order of execution, float64, (N, F) or (N, H, W, F).

    `training`: as in a training step, dropout included where its masks come from common; weights and statistics stay
    as they were.
    """
    before, found = read_weights(model), {}
    hooks = []
    for name in dict.fromkeys(key.rpartition(".")[0] for key in before):

        def keep(layer: nn.Module, args: object, output: torch.Tensor, name: str = name) -> None:
            del layer, args
            values = to_array(output.permute(0, 2, 3, 1) if output.ndim == 4 else output)
            found[name] = values.copy()  # a ReLU may write over it

        hooks.append(model.get_submodule(name).register_forward_hook(keep))
    model.train(training)
    if training:
        set_masks(model, batch.key)
    with torch.no_grad():
        model(to_tensor(batch.images))
    for hook in hooks:
        hook.remove()
    write_weights(model, before)
    return found


@torch.inference_mode()
def predict_logits(model: nn.Module, batches: Iterable[Batch]) -> Iterator[NDArray[np.float64]]:
    """Evaluation-mode logits, batch by batch in order, padded rows included: (N, outputs) or (N, H, W, 1)."""
    model.eval()
    for batch in batches:
        with autocast():
            logits = model(to_tensor(batch.images))
        yield to_array(logits)
