"""AdamW in one stated form (below), for both frameworks. Twin of `torch_impl.optimizers`.

With gradient g, step t from 1, rate a (a backbone's is the recipe's fraction of it), decay d (0 for tensors of one
axis: biases, norms, scales):
    w <- w - a d w
    m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2
    w <- w - a (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)
(Loshchilov & Hutter 2019, decay times rate; epsilon after the bias correction, as in Kingma & Ba 2015, algorithm 1.)
"""

from typing import Any

import keras
from keras import ops

from common.config import Recipe


def head_ids(model: keras.Model) -> set[int]:
    """`id` of each tensor of the last layer, the one that gives the logits."""
    layer = model.get_layer(model.spec.head.replace(".", "-"))  # as `layers` names it
    return {id(variable) for variable in layer.variables}


def create_optimizer(model: keras.Model, recipe: Recipe) -> keras.optimizers.Optimizer:
    """A fresh optimizer on the tensors that may learn; its rate is set before each step."""
    head = head_ids(model)
    variables = model.trainable_variables
    optimizer = _AdamW(
        recipe,
        [1.0 if id(variable) in head else recipe.backbone_rate_fraction for variable in variables],
        [recipe.weight_decay if len(variable.shape) > 1 else 0.0 for variable in variables],
    )
    optimizer.build(variables)
    return optimizer


def set_learning_rate(optimizer: keras.optimizers.Optimizer, learning_rate: float) -> None:
    """Rate of the steps that follow."""
    optimizer.learning_rate = learning_rate


class _AdamW(keras.optimizers.Optimizer):
    """Keras's own AdamW adds epsilon before the bias correction, which changes the early steps."""

    def __init__(self, recipe: Recipe, rate_fractions: list[float], decays: list[float]) -> None:
        super().__init__(learning_rate=recipe.learning_rate, name="adamw")
        self.recipe = recipe
        self.rate_fractions, self.decays = rate_fractions, decays  # of each variable, in the order of `build`

    def build(self, variables: list[Any]) -> None:
        if self.built:
            return
        super().build(variables)
        self.first_moments = self.add_optimizer_variables(variables, "first_moment")
        self.second_moments = self.add_optimizer_variables(variables, "second_moment")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        recipe, index = self.recipe, self._get_variable_index(variable)
        first, second = self.first_moments[index], self.second_moments[index]

        def constant(value: float) -> Any:  # `cast` would round a Python float through float32
            return ops.convert_to_tensor(value, variable.dtype)

        rate = ops.cast(learning_rate, variable.dtype)
        if self.rate_fractions[index] != 1:
            rate = rate * constant(self.rate_fractions[index])
        step = ops.cast(self.iterations + 1, variable.dtype)
        beta1, beta2 = constant(recipe.adam_beta1), constant(recipe.adam_beta2)
        if self.decays[index]:
            self.assign_sub(variable, variable * rate * constant(self.decays[index]))
        self.assign_add(first, (gradient - first) * constant(1 - recipe.adam_beta1))
        self.assign_add(second, (ops.square(gradient) - second) * constant(1 - recipe.adam_beta2))
        first_hat = first / (1 - ops.power(beta1, step))
        second_hat = second / (1 - ops.power(beta2, step))
        self.assign_sub(variable, rate * first_hat / (ops.sqrt(second_hat) + constant(recipe.adam_epsilon)))

    def get_config(self) -> dict[str, Any]:
        return {"recipe": self.recipe, "rate_fractions": self.rate_fractions, "decays": self.decays}
