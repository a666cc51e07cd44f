"""One epoch of training, one pass of prediction. Order, rates and batches are given; nothing is decided here."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.config import Recipe
from common.framework import Batch
from torch_impl.losses import binary_cross_entropy
from torch_impl.optimizers import create_optimizer, set_learning_rate
from torch_impl.tensors import to_array, to_tensor


@dataclass(frozen=True)
class Trainer:
    """A model in training."""

    model: nn.Module
    optimizer: torch.optim.Optimizer


def create_trainer(model: nn.Module, recipe: Recipe) -> Trainer:
    """Bind model, loss and a fresh optimizer."""
    return Trainer(model, create_optimizer(model, recipe))


def train_epoch(trainer: Trainer, batches: Iterable[tuple[Batch, float]]) -> NDArray[np.float64]:
    """One optimizer step per (batch, learning rate), in order; returns the loss of each step, (steps,)."""
    trainer.model.train()
    losses = []
    for batch, learning_rate in batches:
        set_learning_rate(trainer.optimizer, learning_rate)
        logits = trainer.model(to_tensor(batch.images))[:, 0]
        loss = binary_cross_entropy(logits, to_tensor(batch.labels), to_tensor(batch.weights))
        trainer.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        trainer.optimizer.step()
        losses.append(loss.detach())  # read after the epoch: reading here would stop the device at every step
    return to_array(torch.stack(losses))


@torch.inference_mode()
def predict_logits(model: nn.Module, batches: Iterable[Batch]) -> NDArray[np.float64]:
    """Evaluation-mode logits of the batches in order, padded rows included, (batches * N, outputs)."""
    model.eval()
    return np.concatenate([to_array(model(to_tensor(batch.images))) for batch in batches])
