"""One epoch of training, one pass of prediction. Order, rates and batches are given; nothing is decided here."""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from common.config import Recipe
from common.framework import Array, Batch
from keras_impl import optimizers, replicas
from keras_impl.layers import set_masks
from keras_impl.losses import Loss, loss_of
from keras_impl.optimizers import create_optimizer, head_ids, set_learning_rate
from keras_impl.tensors import compiles_with_xla, read_weights, to_array, to_tensor, write_weights


@dataclass(frozen=True)
class Trainer:
    """A model in training."""

    model: keras.Model
    loss: Loss
    optimizer: keras.optimizers.Optimizer
    loop: str  # of the recipe
    stateless_step: Callable[..., Any] | None = None  # on JAX, see `_train_statelessly`


def create_trainer(
    model: keras.Model, recipe: Recipe, trainable: str = "all", traced: bool = False
) -> Trainer:
    """Bind model, the recipe's loss and a fresh optimizer.

    `trainable` is "all", or "head": only the last layer (`spec.head`) learns, and all before it is fixed and runs in
    evaluation mode. `traced`: keep what `gradient_norms` tells.
    """
    head = head_ids(model)
    model.trainable = False  # because on TensorFlow a flag that is True already passes nothing on
    model.trainable = True  # every parameter, no statistic
    for variable in model.trainable_variables:
        variable.trainable = trainable == "all" or id(variable) in head
    model.frozen = trainable == "head"
    loss, optimizer = loss_of(recipe), create_optimizer(model, recipe, traced)
    # Drops the step that was traced before, whose variables and mode were others
    model.compile(
        optimizer,
        loss=_loss_of_packed(loss),
        jit_compile="auto" if recipe.loop == "fit" else compiles_with_xla(),
    )
    stateless = keras.backend.backend() == "jax" and recipe.loop == "steps"
    step = _stateless_step(model, loss, optimizer) if stateless else None
    return Trainer(model, loss, optimizer, recipe.loop, step)


def train_epoch(trainer: Trainer, batches: Iterable[tuple[Batch, float]]) -> NDArray[np.float64]:
    """One optimizer step per (batch, learning rate), in order; returns the loss of each step, (steps,)."""
    if trainer.loop == "fit":
        return _fit(trainer, batches)
    if trainer.stateless_step is not None:
        return _train_statelessly(trainer, batches)
    losses = []
    for batch, learning_rate in batches:
        set_learning_rate(trainer.optimizer, learning_rate)
        set_masks(trainer.model, batch.key)
        # As quick as `fit` or a traced function of our own (measured on TensorFlow), in the given order; and its logged
        # loss is the step's, that of `fit` a running mean
        images, packed = (replicas.share(to_tensor(one)) for one in (batch.images, _pack(batch)))
        train = (
            trainer.model.train_on_batch if replicas.parts() == 1 else partial(_train_on_parts, trainer.model)
        )
        logged = train(images, packed)
        losses.append(logged if keras.config.floatx() == "float32" else _exact_loss(trainer.model))
    return np.array(losses, dtype=np.float64)


def gradient_norms(trainer: Trainer) -> dict[str, float]:
    """L2 norm of the last step's gradient of each tensor that learns, before clipping; `trainer` must be traced."""
    return optimizers.gradient_norms(trainer.optimizer)


def layer_outputs(model: keras.Model, batch: Batch, training: bool) -> dict[str, Array]:
    """Output of each layer that has weights, in order of execution, float64, (N, F) or (N, H, W, F).

    `training`: as in a training step, dropout included where its masks come from common; weights and statistics stay
    as they were.
    """
    before, found = read_weights(model), {}
    names = {key.rpartition(".")[0] for key in before}
    watched = [layer for layer in model._flatten_layers() if layer.name.replace("-", ".") in names]
    for layer in watched:

        def keep(*arguments: Any, layer: Any = layer, own: Any = layer.call, **settings: Any) -> Any:
            output = own(*arguments, **settings)
            found[layer.name.replace("-", ".")] = to_array(output)
            return output

        layer.call = keep
    if training:
        set_masks(model, batch.key)
    model(ops.convert_to_tensor(to_tensor(batch.images)), training=training)
    for layer in watched:
        del layer.call
    write_weights(model, before)
    return found


def predict_logits(model: keras.Model, batches: Iterable[Batch]) -> Iterator[NDArray[np.float64]]:
    """Evaluation-mode logits, batch by batch in order, padded rows included: (N, outputs) or (N, H, W, 1)."""
    for batch in batches:
        # Of replicas that are told nothing each predicts the whole batch
        yield to_array(model.predict_on_batch(to_tensor(batch.images)))[: len(batch.images)]


def _stateless_step(
    model: keras.Model, loss: Loss, optimizer: keras.optimizers.Optimizer
) -> Callable[..., Any]:
    """One optimizer step as a function of values alone: (state, images, packed targets) -> (loss, new state)."""
    import jax

    value_of = _loss_of_packed(loss)

    def loss_and_rest(trainable: Any, rest: Any, images: Any, packed: Any) -> tuple[Any, Any]:
        logits, rest = model.stateless_call(trainable, rest, images, training=True)
        return value_of(packed, logits), rest

    def step(state: Any, images: Any, packed: Any) -> tuple[Any, Any]:
        trainable, rest, memory = state
        (value, rest), gradients = jax.value_and_grad(loss_and_rest, has_aux=True)(
            trainable, rest, images, packed
        )
        trainable, memory = optimizer.stateless_apply(memory, gradients, trainable)
        return value, (trainable, rest, memory)

    where = None  # XLA decides, and may leave a variable divided among devices
    if replicas.describe_replicas():  # as they are, whole on every device
        where = tuple(
            [variable.value.sharding for variable in group] for group in _state_of(model, optimizer)
        )
    return jax.jit(step, donate_argnums=0, out_shardings=(None, where))


def _state_of(
    model: keras.Model, optimizer: keras.optimizers.Optimizer
) -> tuple[list[keras.Variable], list[keras.Variable], list[keras.Variable]]:
    """All that a step changes."""
    return model.trainable_variables, model.non_trainable_variables, optimizer.variables


def _train_statelessly(trainer: Trainer, batches: Iterable[tuple[Batch, float]]) -> NDArray[np.float64]:
    """The epoch on JAX, where `train_on_batch` carries every variable in and out of the model at each step.

    Here they stay outside for the epoch, and a step may write over the values of the one before.
    """
    model, optimizer = trainer.model, trainer.optimizer
    groups = _state_of(model, optimizer)
    state = [[variable.value for variable in group] for group in groups]
    given = [  # what `set_learning_rate` and `set_masks` write
        (group, place)
        for group, variables in enumerate(groups)
        for place, variable in enumerate(variables)
        if variable.name in ("learning_rate", "mask")
    ]
    losses: list[Any] = []
    try:
        for batch, learning_rate in batches:
            set_learning_rate(optimizer, learning_rate)
            set_masks(model, batch.key)
            for group, place in given:  # a copy, for the step takes what it gets
                state[group][place] = groups[group][place].value + 0
            images, packed = (replicas.share(to_tensor(one)) for one in (batch.images, _pack(batch)))
            loss, state = trainer.stateless_step(state, images, packed)  # type: ignore[misc]
            # As `train_on_batch` does; else no clock can tell a step's end
            losses.append(loss.block_until_ready())
    finally:
        for variables, values in zip(groups, state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                if not value.is_deleted():  # by a step that failed, whose reason is to be heard
                    variable.assign(value)
    return np.array([float(loss) for loss in losses], dtype=np.float64)


def _fit(trainer: Trainer, batches: Iterable[tuple[Batch, float]]) -> NDArray[np.float64]:
    """Keras's own loop over one epoch.

    It asks for a batch before or after it begins its step, on TensorFlow in a thread of its own, so rates and masks
    come from a second reading of the same stream.
    """
    to_learn, to_begin = itertools.tee(batches)
    lock = threading.Lock()
    means: list[float] = []

    def pull(pairs: Iterator[tuple[Batch, float]]) -> tuple[Batch, float] | None:
        with lock:
            return next(pairs, None)

    def stream() -> Iterator[tuple[Array, Array]]:
        while (pair := pull(to_learn)) is not None:
            yield to_tensor(pair[0].images), to_tensor(_pack(pair[0]))

    class Steps(keras.callbacks.Callback):
        upcoming = pull(to_begin)

        def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            assert self.upcoming is not None
            if hasattr(self.model, "jax_state_sync"):  # JAX keeps the state elsewhere while it fits
                self.model.jax_state_sync()
            set_learning_rate(trainer.optimizer, self.upcoming[1])
            set_masks(trainer.model, self.upcoming[0].key)

        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            means.append((logs or {})["loss"])
            self.upcoming = pull(to_begin)
            # Else Keras begins one more step to find the end, and TensorFlow does all of it that needs no data: the
            # decay, and Adam's count
            self.model.stop_training = self.upcoming is None

    trainer.model.fit(stream(), epochs=1, shuffle=False, verbose=0, callbacks=[Steps()])
    steps = np.arange(1, len(means) + 1)
    # The logged loss is the mean of the epoch so far
    return np.diff(np.array(means, dtype=np.float64) * steps, prepend=0.0)


def _train_on_parts(model: keras.Model, images: Any, packed: Any) -> float:
    """`train_on_batch` for a batch of which each replica has a part, which Keras's own does not take."""
    model.make_train_function()
    model.reset_metrics()
    model.train_function(iter([(images, packed, None)]))
    return _exact_loss(model)


def _exact_loss(model: keras.Model) -> float:
    """The loss of the last step. Keras divides its sum by its count in float32 on the torch backend."""
    logged = model.metrics[0]
    return float(to_array(logged.total) / to_array(logged.count))


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
        value = loss(logits, packed[..., :-1], weights)  # of one value Keras takes no mean
        # Of replicas Keras adds up the gradients, and each has the loss of the whole batch
        return value if replicas.parts() == 1 else value / replicas.parts()

    return value
