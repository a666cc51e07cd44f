"""AdamW in one stated form (below), for both frameworks. Twin of `torch_impl.optimizers`.

With gradient g, step t from 1, rate a (a backbone's is the recipe's fraction of it), decay d (0 for tensors of one
axis: biases, norms, scales; in the native lane they decay too):
    g <- g min(1, c / |g|)     where the recipe clips: |g| over all tensors (native Keras: over each)
    w <- w - a d w
    m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2
    w <- w - a (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)
(Loshchilov & Hutter 2019, decay times rate; epsilon after the bias correction, as in Kingma & Ba 2015, algorithm 1.
PyTorch's AdamW has this form in every lane; Keras's own adds epsilon before the correction.)
"""

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from common.config import Recipe
from common.framework import Array, Weights
from keras_impl import replicas
from keras_impl.tensors import from_torch_layout, tensor_name, to_array, to_torch_layout

MOMENTS = {"first": "_momentums", "second": "_velocities"}  # common's name -> Keras's


def head_ids(model: keras.Model) -> set[int]:
    """`id` of each tensor of the last layer, the one that gives the logits."""
    layer = model.get_layer(model.spec.head.replace(".", "-"))  # as `layers` names it
    return {id(variable) for variable in layer.variables}


def create_optimizer(model: keras.Model, recipe: Recipe, traced: bool = False) -> keras.optimizers.Optimizer:
    """A fresh optimizer on the tensors that may learn; its rate is set before each step.

    `traced`: it keeps the gradients' norms for `gradient_norms`.
    """
    head = head_ids(model)
    variables = model.trainable_variables
    optimizer = _AdamW(
        recipe,
        [1.0 if id(variable) in head else recipe.backbone_rate_fraction for variable in variables],
        [
            recipe.weight_decay if len(variable.shape) > 1 or recipe.decay_scope == "all" else 0.0
            for variable in variables
        ],
        traced,
    )
    optimizer.build(variables)
    return optimizer


def gradient_norms(optimizer: keras.optimizers.Optimizer) -> dict[str, float]:
    """Tensor name -> L2 norm of its gradient at the last step, before clipping, of a traced optimizer."""
    return dict(zip(optimizer.tensor_names, to_array(optimizer.norms).tolist(), strict=True))


def set_learning_rate(optimizer: keras.optimizers.Optimizer, learning_rate: float) -> None:
    """Rate of the steps that follow."""
    optimizer.learning_rate = learning_rate


def read_memory(optimizer: keras.optimizers.Optimizer) -> dict[str, Array]:
    """A copy of what the steps so far left: `steps` (), and of each tensor its moments `first.NAME`, `second.NAME`."""
    found = {
        f"{moment}.{name}": to_torch_layout(variable, like)
        for moment, name, variable, like in _memory(optimizer)
    }
    return {"steps": np.array(ops.convert_to_numpy(optimizer.iterations), dtype=np.int64), **found}


def write_memory(optimizer: keras.optimizers.Optimizer, memory: Weights) -> None:
    """Inverse of `read_memory`; what has another name is passed over."""
    optimizer.iterations.assign(int(memory["steps"]))
    for moment, name, variable, like in _memory(optimizer):
        variable.assign(from_torch_layout(memory[f"{moment}.{name}"], like))


def _memory(optimizer: keras.optimizers.Optimizer) -> Iterator[tuple[str, str, Any, Any]]:
    """(moment, name of the tensor, Keras's variable of the moment, the tensor itself) of all that is stepped."""
    # Keras's own list of them; one of ours it would take for further variables of the optimizer
    tensors = zip(optimizer.tensor_names, optimizer._trainable_variables, strict=True)
    for index, (name, like) in enumerate(tensors):
        for moment, own in MOMENTS.items():
            yield moment, name, getattr(optimizer, own)[index], like


class _AdamW(keras.optimizers.Adam):
    """Adam as Keras has it (the native lane), or with epsilon in its place; what comes before the step is ours.

    `keras.optimizers.AdamW` is this with the decay that stands above, but has one rate and one decay for all tensors.
    """

    def __init__(
        self, recipe: Recipe, rate_fractions: list[float], decays: list[float], traced: bool
    ) -> None:
        super().__init__(
            recipe.learning_rate, recipe.adam_beta1, recipe.adam_beta2, recipe.adam_epsilon, name="adamw"
        )
        self.recipe, self.traced = recipe, traced
        self.rate_fractions, self.decays = rate_fractions, decays  # of each variable, in the order of `build`

    def build(self, variables: list[Any]) -> None:
        if self.built:
            return
        super().build(variables)
        self.tensor_names = [tensor_name(variable) for variable in variables]
        if self.traced:
            shape, dtype = (len(variables),), keras.config.floatx()
            self.norms = self.add_variable(shape, "zeros", dtype, name="gradient_norms")

    def apply(self, gradients: Any, variables: Any = None) -> None:
        recipe = self.recipe
        gradients = replicas.summed(list(gradients))
        squares: list[Any] = []
        if self.traced or recipe.gradient_clip_norm:
            squares = [ops.sum(ops.square(gradient)) for gradient in gradients]
        if self.traced:
            self.norms.assign(ops.sqrt(ops.stack(squares)))
        # With c = sqrt(1 - b2^t) the step is a c / (1 - b1^t) m / (sqrt(v) + epsilon c). What all variables share is
        # computed once: a graph of fewer operations is made and run sooner
        step = ops.cast(self.iterations + 1, gradients[0].dtype)
        root = ops.sqrt(_correction(recipe.adam_beta2, step))
        self.rate_factor = root / _correction(recipe.adam_beta1, step)
        self.scaled_epsilon = root * _constant(recipe.adam_epsilon, step)
        super().apply(_clipped(gradients, squares, recipe), variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        recipe, index = self.recipe, self._get_variable_index(variable)
        rate = ops.cast(learning_rate, variable.dtype)
        if self.rate_fractions[index] != 1:
            rate = rate * _constant(self.rate_fractions[index], variable)
        if self.decays[index]:
            self.assign_sub(variable, variable * (rate * _constant(self.decays[index], variable)))
        if recipe.adam_form == "uncorrected":
            super().update_step(gradient, variable, rate)
            return
        first, second = self._momentums[index], self._velocities[index]
        if keras.backend.backend() == "tensorflow":
            _step_in_one_kernel(
                recipe, variable, first, second, rate * self.rate_factor, self.scaled_epsilon, gradient
            )
            return
        self.assign_add(first, (gradient - first) * _constant(1 - recipe.adam_beta1, variable))
        self.assign_add(second, (ops.square(gradient) - second) * _constant(1 - recipe.adam_beta2, variable))
        self.assign_sub(variable, rate * self.rate_factor * first / (ops.sqrt(second) + self.scaled_epsilon))

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        """What Keras does on TensorFlow after the gradients were clipped: here they are summed already."""
        return grads_and_vars

    def get_config(self) -> dict[str, Any]:
        return {"recipe": self.recipe, "rate_fractions": self.rate_fractions, "decays": self.decays}


def _step_in_one_kernel(
    recipe: Recipe, variable: Any, first: Any, second: Any, rate: Any, epsilon: Any, gradient: Any
) -> None:
    """TensorFlow's own kernel for Adam: both moments, then w <- w - rate m / (sqrt(v) + epsilon)."""
    import tensorflow as tf

    none = tf.zeros((), variable.dtype)  # of a correction: `rate` and `epsilon` hold them
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=first.value.handle,
        v=second.value.handle,
        beta1_power=none,
        beta2_power=none,
        lr=rate,
        beta1=tf.constant(recipe.adam_beta1, variable.dtype),
        beta2=tf.constant(recipe.adam_beta2, variable.dtype),
        epsilon=epsilon,
        grad=gradient,
    )


def _correction(beta: float, step: Any) -> Any:
    """1 - beta^step. Written as a difference it loses half of its digits in float32: 0.999 is close to 1."""
    if keras.backend.backend() == "tensorflow":  # whose kernel does lose them: what it takes for 1 - beta
        dtype = np.dtype(keras.backend.standardize_dtype(step.dtype))
        beta = 1 - float(dtype.type(1) - dtype.type(beta))
    return -ops.expm1(step * _constant(math.log(beta), step)) if beta else ops.ones_like(step)


def _constant(value: float, variable: Any) -> Any:
    """In the variable's precision; `cast` would round a Python float through float32."""
    return ops.convert_to_tensor(value, variable.dtype)


def _clipped(gradients: Any, squares: list[Any], recipe: Recipe) -> list[Any]:
    """The gradients scaled down to the recipe's norm."""
    if not recipe.gradient_clip_norm:
        return list(gradients)
    if recipe.gradient_clip_scope == "global":
        squares = [ops.sum(ops.stack(squares))] * len(squares)
    largest = [_constant(recipe.gradient_clip_norm, gradient) for gradient in gradients]
    return [
        # The larger of both; `ops.maximum` is in float32 on the torch backend, whatever it is given
        gradient * (norm / (norm + ops.relu(ops.sqrt(square) - norm)))
        for gradient, square, norm in zip(gradients, squares, largest, strict=True)
    ]
