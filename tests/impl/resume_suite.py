"""Training that goes on from what was read of a trainer, as if nothing had happened; run like `suite.py`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from harness import RECIPE, SPEC, configure, impl, make_batches, predict, started

from common.config import ConvNextSpec, DenseNetSpec, ModelSpec, Recipe, UnetSpec
from common.errors import StudyError
from common.framework import Batch

# Keras's own where it reads a variable; every other warning is an error
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)

DROPPING = dataclasses.replace(SPEC, dropout=0.5)
DENSENET = DenseNetSpec(image_size=32, stem_features=4, blocks=(1, 1), growth=4, bottleneck=2, dropout=0.3)
CONVNEXT = ConvNextSpec(image_size=32, depths=(1, 1), features=(4, 6), stochastic_depth=0.5, dropout=0.3)
UNET = UnetSpec(image_size=8, features=(3, 5))
RATES = (0.01, 0.02, 0.005, 0.01)
SEED = 3


def recipe_for(spec: ModelSpec, **changes: Any) -> Recipe:
    loss = "dice_cross_entropy" if isinstance(spec, UnetSpec) else "binary_cross_entropy"
    return dataclasses.replace(RECIPE, loss=loss, backbone_rate_fraction=0.5, **changes)


def epochs_of(spec: ModelSpec) -> list[list[tuple[Batch, float]]]:
    """Two epochs of two steps."""
    pairs = list(zip(make_batches(4, spec, size=4), RATES, strict=True))
    return [pairs[:2], pairs[2:]]


@dataclasses.dataclass(frozen=True)
class State:
    """What a training is picked up from."""

    weights: dict[str, np.ndarray]
    trainer: dict[str, np.ndarray]


def begin(spec: ModelSpec, recipe: Recipe, trainable: str = "all", seed: int = SEED) -> tuple[Any, Any]:
    """A model with known weights and its trainer, in the precision of a study."""
    configure("float32", seed)
    model, _ = started(spec)
    return model, impl.create_trainer(model, recipe, trainable=trainable)


def pick_up(spec: ModelSpec, recipe: Recipe, state: State, trainable: str = "all") -> tuple[Any, Any]:
    """As another process does it: another model, other draws before."""
    model, trainer = begin(spec, recipe, trainable, seed=SEED + 1)
    impl.write_weights(model, state.weights)
    impl.write_trainer_state(trainer, state.trainer)
    return model, trainer


def outcome(model: Any, losses: np.ndarray) -> Iterator[tuple[str, bytes]]:
    yield "losses", losses.tobytes()
    for name, array in impl.read_weights(model).items():
        yield name, array.tobytes()


@pytest.mark.parametrize("spec", [DROPPING, DENSENET, CONVNEXT, UNET], ids=lambda spec: spec.name)
def test_a_training_goes_on_to_the_bit(spec: ModelSpec) -> None:
    """Moments, count, statistics and draws; validation between the epochs leaves no trace."""
    first, second = epochs_of(spec)
    model, trainer = begin(spec, recipe_for(spec))
    impl.train_epoch(trainer, first)
    predict(model, [first[0][0]])
    state = State(impl.read_weights(model), impl.read_trainer_state(trainer))
    expected = dict(outcome(model, impl.train_epoch(trainer, second)))

    model, trainer = pick_up(spec, recipe_for(spec), state)
    assert dict(outcome(model, impl.train_epoch(trainer, second))) == expected


def test_each_part_of_the_state_matters_and_is_restored() -> None:
    """Left out one by one, each changes what follows: the test above would else prove nothing."""
    first, second = epochs_of(DROPPING)
    model, trainer = begin(DROPPING, RECIPE)
    impl.train_epoch(trainer, first)
    state = State(impl.read_weights(model), impl.read_trainer_state(trainer))
    expected = dict(outcome(model, impl.train_epoch(trainer, second)))
    model, trainer = begin(DROPPING, RECIPE, seed=SEED + 1)
    fresh = impl.read_trainer_state(trainer)
    assert fresh.keys() == state.trainer.keys()
    for part in ("steps", "first.", "second.", "draws."):
        lacking = {
            name: fresh[name] if name.startswith(part) else array for name, array in state.trainer.items()
        }
        model, trainer = pick_up(DROPPING, RECIPE, State(state.weights, lacking))
        assert dict(outcome(model, impl.train_epoch(trainer, second))) != expected, part


def test_the_next_phase_goes_on_with_the_draws_of_the_one_before() -> None:
    """The head alone, then all with a fresh optimizer; picked up within a phase and at its end."""
    first, second = epochs_of(CONVNEXT)
    recipe = recipe_for(CONVNEXT)
    model, trainer = begin(CONVNEXT, recipe, "head")
    within = []
    for epoch in (first, second):
        impl.train_epoch(trainer, epoch)
        within.append(State(impl.read_weights(model), impl.read_trainer_state(trainer)))
    assert set(within[0].trainer) - {"steps"} >= {"first.head.fc.weight", "second.head.fc.bias"}
    assert not any(name.startswith("first.stages") for name in within[0].trainer)  # they do not learn
    trainer = impl.create_trainer(model, recipe)
    expected = dict(outcome(model, impl.train_epoch(trainer, first)))

    for state, left in ((within[0], [second]), (within[1], [])):
        model, trainer = pick_up(CONVNEXT, recipe, state, "head")
        for epoch in left:
            impl.train_epoch(trainer, epoch)
        trainer = impl.create_trainer(model, recipe)
        assert dict(outcome(model, impl.train_epoch(trainer, first))) == expected


def test_the_state_has_the_names_and_layout_of_pytorch() -> None:
    """After one step from nothing the first moment points against the step, place by place."""
    spec = dataclasses.replace(SPEC, channels=2, pixel_mean=(0.5, 0.5), pixel_std=(1.0, 1.0))
    configure()
    model, before = started(spec)
    trainer = impl.create_trainer(model, dataclasses.replace(RECIPE, weight_decay=0.0))
    (batch,) = make_batches(1, spec)
    impl.train_epoch(trainer, [(batch, 0.01)])
    state, after = impl.read_trainer_state(trainer), impl.read_weights(model)
    assert state["steps"].shape == ()
    assert state["steps"] == 1
    for name, array in after.items():
        step = array - before[name]
        first, second = state[f"first.{name}"], state[f"second.{name}"]
        np.testing.assert_array_equal(np.sign(first), -np.sign(step), err_msg=name)
        gradient = first / (1 - RECIPE.adam_beta1)
        np.testing.assert_allclose(second, (1 - RECIPE.adam_beta2) * gradient**2, rtol=1e-9, err_msg=name)
    state["first.hidden.weight"][...] = 7  # a copy
    assert not (impl.read_trainer_state(trainer)["first.hidden.weight"] == 7).any()


def test_the_state_of_another_trainer_is_refused() -> None:
    _, trainer = begin(DROPPING, RECIPE)
    state = impl.read_trainer_state(trainer)
    with pytest.raises(StudyError, match=r"missing \['steps'\]"):
        impl.write_trainer_state(trainer, {name: array for name, array in state.items() if name != "steps"})
    with pytest.raises(StudyError, match=r"'first.head.bias' has shape \(2,\)"):
        impl.write_trainer_state(trainer, state | {"first.head.bias": np.zeros(2)})


def test_the_loop_of_the_native_lane_goes_on_to_the_bit() -> None:
    """Keras's `fit`, its own Adam and stock layers; PyTorch's loop is the same in every lane."""
    if not impl.name().startswith("keras"):
        own: dict[str, Any] = {"decay_scope": "all"}
    else:
        own = {"loop": "fit", "adam_form": "uncorrected", "decay_scope": "all"}
    spec = dataclasses.replace(DROPPING, stock_layers=True)
    first, second = epochs_of(spec)
    model, trainer = begin(spec, recipe_for(spec, **own))
    impl.train_epoch(trainer, first)
    state = State(impl.read_weights(model), impl.read_trainer_state(trainer))
    expected = dict(outcome(model, impl.train_epoch(trainer, second)))
    model, trainer = pick_up(spec, recipe_for(spec, **own), state)
    assert dict(outcome(model, impl.train_epoch(trainer, second))) == expected
