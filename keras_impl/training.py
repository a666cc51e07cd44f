"""One epoch of training, one pass of prediction. Order, rates and batches are given; nothing is decided here."""

from collections.abc import Iterable
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from common.config import Recipe
from common.framework import Batch
from keras_impl.losses import binary_cross_entropy
from keras_impl.optimizers import create_optimizer, set_learning_rate
from keras_impl.tensors import compiles_with_xla, to_array, to_tensor


@dataclass(frozen=True)
class Trainer:
    """A model in training."""

    model: keras.Model
    optimizer: keras.optimizers.Optimizer


def create_trainer(model: keras.Model, recipe: Recipe) -> Trainer:
    """Bind model, loss and a fresh optimizer."""
    optimizer = create_optimizer(model, recipe)
    model.compile(optimizer, loss=_loss_of_targets, jit_compile=compiles_with_xla())
    return Trainer(model, optimizer)


def train_epoch(trainer: Trainer, batches: Iterable[tuple[Batch, float]]) -> NDArray[np.float64]:
    """One optimizer step per (batch, learning rate), in order; returns the loss of each step, (steps,)."""
    losses = []
    for batch, learning_rate in batches:
        set_learning_rate(trainer.optimizer, learning_rate)
        targets = np.stack([batch.labels, batch.weights], axis=1)  # (N, 2)
        # `fit` would choose order and last batch by itself; its logged loss is a running mean, this one the step's
        losses.append(trainer.model.train_on_batch(to_tensor(batch.images), to_tensor(targets)))
    return np.array(losses, dtype=np.float64)


def predict_logits(model: keras.Model, batches: Iterable[Batch]) -> NDArray[np.float64]:
    """Evaluation-mode logits of the batches in order, padded rows included, (batches * N, outputs)."""
    return np.concatenate([to_array(model.predict_on_batch(to_tensor(batch.images))) for batch in batches])


def _loss_of_targets(targets: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    return ops.reshape(binary_cross_entropy(logits[:, 0], targets[:, 0], targets[:, 1]), (1,))
