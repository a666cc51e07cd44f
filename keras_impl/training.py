"""One epoch of training, one pass of prediction. Order, rates and batches are given; nothing is decided here."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from common.config import Recipe
from common.framework import Array, Batch
from keras_impl.losses import Loss, loss_of
from keras_impl.optimizers import create_optimizer, head_ids, set_learning_rate
from keras_impl.tensors import compiles_with_xla, to_array, to_tensor


@dataclass(frozen=True)
class Trainer:
    """A model in training."""

    model: keras.Model
    loss: Loss
    optimizer: keras.optimizers.Optimizer


def create_trainer(model: keras.Model, recipe: Recipe, trainable: str = "all") -> Trainer:
    """Bind model, the recipe's loss and a fresh optimizer.

    `trainable` is "all", or "head": only the last layer (`spec.head`) learns, and all before it is fixed and runs in
    evaluation mode.
    """
    head = head_ids(model)
    model.trainable = False  # because on TensorFlow a flag that is True already passes nothing on
    model.trainable = True  # every parameter, no statistic
    for variable in model.trainable_variables:
        variable.trainable = trainable == "all" or id(variable) in head
    model.frozen = trainable == "head"
    loss, optimizer = loss_of(recipe), create_optimizer(model, recipe)
    # Drops the step that was traced before, whose variables and mode were others
    model.compile(optimizer, loss=_loss_of_packed(loss), jit_compile=compiles_with_xla())
    return Trainer(model, loss, optimizer)


def train_epoch(trainer: Trainer, batches: Iterable[tuple[Batch, float]]) -> NDArray[np.float64]:
    """One optimizer step per (batch, learning rate), in order; returns the loss of each step, (steps,)."""
    losses = []
    for batch, learning_rate in batches:
        set_learning_rate(trainer.optimizer, learning_rate)
        # `fit` would choose order and last batch by itself; its logged loss is a running mean, this one the step's
        losses.append(trainer.model.train_on_batch(to_tensor(batch.images), to_tensor(_pack(batch))))
    return np.array(losses, dtype=np.float64)


def predict_logits(model: keras.Model, batches: Iterable[Batch]) -> Iterator[NDArray[np.float64]]:
    """Evaluation-mode logits, batch by batch in order, padded rows included: (N, outputs) or (N, H, W, 1)."""
    for batch in batches:
        yield to_array(model.predict_on_batch(to_tensor(batch.images)))


def _pack(batch: Batch) -> Array:
    """Targets and weights in one array, for Keras has room for one: (N, K + 1), or (N, H, W, 2)."""
    packed = np.empty((*batch.targets.shape[:-1], batch.targets.shape[-1] + 1), dtype=np.float32)
    packed[..., :-1] = batch.targets
    packed.T[-1] = batch.weights  # (N,) along the first axis, repeated along the others
    return packed


def _loss_of_packed(loss: Loss) -> Callable[[keras.KerasTensor, keras.KerasTensor], keras.KerasTensor]:
    def value(packed: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
        weights = packed[..., -1]
        while len(weights.shape) > 1:
            weights = weights[:, 0]  # the same beside every pixel
        return ops.reshape(
            loss(logits, packed[..., :-1], weights), (1,)
        )  # Keras takes the mean of the values

    return value
