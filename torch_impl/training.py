"""One epoch of training, one pass of prediction. Order, rates and batches are given; nothing is decided here."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.config import Recipe
from common.framework import Batch
from torch_impl.losses import Loss, loss_of
from torch_impl.optimizers import create_optimizer, head_ids, set_learning_rate
from torch_impl.tensors import to_array, to_tensor


@dataclass(frozen=True)
class Trainer:
    """A model in training."""

    model: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer


def create_trainer(model: nn.Module, recipe: Recipe, trainable: str = "all") -> Trainer:
    """Bind model, the recipe's loss and a fresh optimizer.

    `trainable` is "all", or "head": only the last layer (`spec.head`) learns, and all before it is fixed and runs in
    evaluation mode.
    """
    head = head_ids(model)
    for parameter in model.parameters():
        parameter.requires_grad_(trainable == "all" or id(parameter) in head)
    model.frozen = trainable == "head"  # type: ignore[assignment]
    return Trainer(model, loss_of(recipe), create_optimizer(model, recipe))


def train_epoch(trainer: Trainer, batches: Iterable[tuple[Batch, float]]) -> NDArray[np.float64]:
    """One optimizer step per (batch, learning rate), in order; returns the loss of each step, (steps,)."""
    trainer.model.train()
    losses = []
    for batch, learning_rate in batches:
        set_learning_rate(trainer.optimizer, learning_rate)
        logits = trainer.model(to_tensor(batch.images))
        loss = trainer.loss(logits, to_tensor(batch.targets), to_tensor(batch.weights))
        trainer.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        trainer.optimizer.step()
        losses.append(loss.detach())  # read after the epoch: reading here would stop the device at every step
    return to_array(torch.stack(losses))


@torch.inference_mode()
def predict_logits(model: nn.Module, batches: Iterable[Batch]) -> Iterator[NDArray[np.float64]]:
    """Evaluation-mode logits, batch by batch in order, padded rows included: (N, outputs) or (N, H, W, 1)."""
    model.eval()
    for batch in batches:
        yield to_array(model(to_tensor(batch.images)))
