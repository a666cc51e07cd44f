"""Forms that only Keras has, which the native lane uses: they do what they should, in Keras on one backend.

Run by `test_impl.py` in a process of its own.
"""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from harness import EXACT, RECIPE, as_tensor, impl, losses, make_batches, started, tensors
from lanes_suite import CNN, CONVNEXT, DENSENET, PLAIN, in_float64, keyed, recipe_for

from common import losses as common_losses
from common.config import ModelSpec

__all__ = ["in_float64"]  # the fixture
# Keras's own where it reads a variable; every other warning is an error
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)


@pytest.mark.parametrize("spec", [CNN, CONVNEXT], ids=lambda spec: spec.name)
def test_stock_layers_are_the_same_formulas(spec: ModelSpec) -> None:
    model, start = started(spec)
    stock = impl.build(dataclasses.replace(spec, stock_layers=True))
    impl.write_weights(stock, start)
    (batch,) = keyed(make_batches(1, spec))
    ours, theirs = (impl.layer_outputs(one, batch, training=True) for one in (model, stock))
    assert list(ours) == list(theirs)
    for name, array in ours.items():  # Keras's own are partly in float32
        np.testing.assert_allclose(theirs[name], array, rtol=0, atol=2e-5, err_msg=name)


def test_fit_does_what_the_steps_do() -> None:
    """Rates and masks of each step, statistics, no step too many, and each step's loss out of the running means."""
    spec = dataclasses.replace(DENSENET, blocks=(1,), dropout=0.4, shared_masks=8)
    batches = keyed(make_batches(5, spec))
    pairs = list(zip(batches, [0.01, 0.03, 0.02, 0.005, 0.01], strict=True))
    found = {}
    for loop in ("steps", "fit"):
        model, _ = started(spec)
        trainer = impl.create_trainer(model, recipe_for(spec, weight_decay=0.3, loop=loop))
        curve = [impl.train_epoch(trainer, iter(half)) for half in (pairs[:3], pairs[3:])]
        found[loop] = np.concatenate(curve), impl.read_weights(model)
    np.testing.assert_allclose(found["fit"][0], found["steps"][0], rtol=1e-5)
    for name, array in found["steps"][1].items():
        np.testing.assert_allclose(found["fit"][1][name], array, rtol=0, atol=EXACT, err_msg=name)


def test_the_native_optimizer_is_keras_own() -> None:
    """All tensors decay, epsilon stands before the correction: `keras.optimizers.AdamW`, to rounding."""
    own = {"adam_form": "uncorrected", "decay_scope": "all", "weight_decay": 0.02, "adam_epsilon": 1e-4}
    batches = make_batches(4, PLAIN)
    model, start = started(PLAIN)
    trainer = impl.create_trainer(model, recipe_for(PLAIN, **own))
    impl.train_epoch(trainer, [(batch, 0.01) for batch in batches])
    found = impl.read_weights(model)
    impl.write_weights(model, start)
    trainer = impl.create_trainer(model, recipe_for(PLAIN, **own))
    stock = keras.optimizers.AdamW(0.01, weight_decay=0.02, epsilon=1e-4)
    trainer.model.compile(stock, loss=trainer.model.loss, jit_compile=False)
    impl.train_epoch(dataclasses.replace(trainer, optimizer=stock), [(batch, 0.01) for batch in batches])
    for name, array in impl.read_weights(model).items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-8, err_msg=name)
        assert np.abs(array - start[name]).max() > 1e-3


@pytest.mark.parametrize(
    ("loss", "logits", "targets"),
    [
        ("binary_cross_entropy", [[0.3], [-1.1]], [[1.0], [0.2]]),
        ("cross_entropy", [[0.3, 1.0, -2], [-1.1, 0.0, 0.4]], [[1.0, 0, 0], [0.1, 0.1, 0.8]]),
    ],
)
def test_losses_of_probabilities_are_those_of_logits_where_nothing_is_clipped(
    loss: str, logits: list[list[float]], targets: list[list[float]]
) -> None:
    z, y, weights = np.array(logits), np.array(targets), np.array([0.5, 2.0])
    recipe = dataclasses.replace(RECIPE, loss=loss, loss_input="probabilities")
    found = tensors.to_array(losses.loss_of(recipe)(*map(as_tensor, (z, y, weights))))
    np.testing.assert_allclose(found, getattr(common_losses, loss)(z, y, weights), rtol=1e-6)
