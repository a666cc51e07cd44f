"""What the lanes differ in, for one framework: each form of a rule against NumPy, and what the proof reads.

Run by `test_impl.py` in a process of its own, with the framework in STUDY_IMPLEMENTATION.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import numpy as np
import pytest
from harness import (
    EXACT,
    PACKAGE,
    RECIPE,
    as_tensor,
    configure,
    draw,
    impl,
    layers,
    losses,
    make_batches,
    predict,
    started,
    tensors,
)

from common import losses as common_losses
from common.config import CnnSpec, ConvNextSpec, DenseNetSpec, ModelSpec, Recipe, UnetSpec
from common.errors import StudyError
from common.framework import Batch
from common.random_numbers import keep_mask

# Keras's own where it reads a variable; every other warning is an error
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)

KERAS = PACKAGE == "keras_impl"
CNN = CnnSpec(image_size=8, features=(3,), hidden=6, dropout=0.4, shared_masks=8)
CONVNEXT = ConvNextSpec(
    image_size=32,
    depths=(1, 1),
    features=(4, 6),
    stochastic_depth=0.5,
    dropout=0.3,
    outputs=3,
    shared_masks=8,
)
DENSENET = DenseNetSpec(image_size=32, stem_features=4, blocks=(1, 1), growth=4, bottleneck=2, outputs=3)
UNET = UnetSpec(image_size=8, features=(3, 5))
PLAIN = dataclasses.replace(CNN, dropout=0.0)
# With both betas 0 and a huge epsilon e a step of AdamW at rate e moves by the gradient
HUGE = 1e9
DESCENT = {"adam_beta1": 0.0, "adam_beta2": 0.0, "adam_epsilon": HUGE, "weight_decay": 0.0}


@pytest.fixture(autouse=True)
def in_float64() -> None:
    configure()


def recipe_for(spec: ModelSpec, **changes: Any) -> Recipe:
    loss = "cross_entropy" if spec.outputs > 1 else "binary_cross_entropy"
    loss = "dice_cross_entropy" if isinstance(spec, UnetSpec) else loss
    return dataclasses.replace(RECIPE, loss=loss, **changes)


def keyed(batches: list[Batch]) -> list[Batch]:
    return [dataclasses.replace(batch, key=(3, 1, step)) for step, batch in enumerate(batches)]


def answer(layer: Any, x: np.ndarray, training: bool = False) -> np.ndarray:
    """A layer's output for (N, F), or for an image, (N, H, W, C), channels last."""
    image, given = x.ndim == 4, as_tensor(x)
    given = layers.from_channels_last(given) if image else given
    if KERAS:
        output = layer(given, training=training)
    else:
        layer = layer.train(training).double()
        output = layer(given)
    return tensors.to_array(layers.to_channels_last(output) if image else output)


# --- dropout from common ------------------------------------------------------------------------------------------


def test_masks_are_those_of_common_and_only_in_training() -> None:
    model, _ = started(CNN)
    (batch,) = keyed(make_batches(1, CNN))
    assert not any("mask" in name for name in impl.read_weights(model))
    whole = impl.layer_outputs(model, batch, training=False)
    dropped = impl.layer_outputs(model, batch, training=True)
    mask = keep_mask((8, 6), 0.4, *batch.key, "dropout")
    assert 0 < (mask == 0).mean() < 1
    weights = impl.read_weights(model)
    hidden = np.maximum(whole["hidden"], 0)
    expected = (hidden * mask) @ weights["head.weight"].T + weights["head.bias"]
    np.testing.assert_array_equal(dropped["hidden"], whole["hidden"])
    np.testing.assert_allclose(dropped["head"], expected, rtol=0, atol=EXACT)
    np.testing.assert_allclose(whole["head"], predict(model, [batch]), rtol=0, atol=EXACT)


@pytest.mark.parametrize("spec", [CNN, CONVNEXT], ids=lambda spec: spec.name)
def test_training_steps_use_the_masks_of_their_batch(spec: ModelSpec) -> None:
    """At a rate of 0 the loss of a step is that of the outputs in training mode: of each batch its own."""
    model, _ = started(spec)
    recipe, batches = recipe_for(spec), keyed(make_batches(3, spec))
    found = impl.train_epoch(impl.create_trainer(model, recipe), [(batch, 0.0) for batch in batches])
    for batch, loss in zip(batches, found, strict=True):
        logits = impl.layer_outputs(model, batch, training=True)[spec.head]
        expected = getattr(common_losses, recipe.loss)(logits, batch.targets, batch.weights)
        np.testing.assert_allclose(loss, expected, rtol=1e-10)
    assert len(set(found)) == 3


def test_stochastic_depth_skips_the_samples_of_its_mask() -> None:
    model, _ = started(CONVNEXT)
    (batch,) = keyed(make_batches(1, CONVNEXT))
    dropped = impl.layer_outputs(model, batch, training=True)
    name = "stages.1.blocks.0"  # the last block: its rate is that of the spec
    mask = keep_mask((8, 1, 1, 1), 0.5, *batch.key, f"{name}.drop_path")
    gamma = impl.read_weights(model)[f"{name}.gamma"]
    branch = dropped[f"{name}.mlp.fc2"] * gamma * mask
    np.testing.assert_allclose(dropped[name], dropped["stages.1.downsample.1"] + branch, rtol=0, atol=EXACT)
    assert {0.0, 2.0} == set(mask.ravel().tolist())


# --- what the proof reads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [CNN, DENSENET, UNET], ids=lambda spec: spec.name)
def test_layer_outputs_come_in_order_and_leave_the_model_alone(spec: ModelSpec) -> None:
    model, _ = started(spec)
    (batch,) = keyed(make_batches(1, spec))
    before = impl.read_weights(model)
    for training in (True, False):
        found = impl.layer_outputs(model, batch, training)
        assert list(found)[-1] == spec.head
        assert set(found) == {name.rpartition(".")[0] for name in before}
        assert all(array.dtype == np.float64 for array in found.values())
    for name, array in impl.read_weights(model).items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    np.testing.assert_allclose(found[spec.head], predict(model, [batch]), rtol=0, atol=1e-11)


def test_gradient_norms_and_clipping() -> None:
    model, start = started(PLAIN)
    (batch,) = make_batches(1, PLAIN)

    def gradients(**changes: Any) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        impl.write_weights(model, start)
        trainer = impl.create_trainer(model, recipe_for(PLAIN, **DESCENT, **changes), traced=True)
        impl.train_epoch(trainer, [(batch, HUGE)])
        after = impl.read_weights(model)
        moves = {name: array.astype(np.float64) - after[name] for name, array in start.items()}
        return moves, impl.gradient_norms(trainer)

    plain, norms = gradients()
    assert norms.keys() == plain.keys()
    for name, norm in norms.items():
        np.testing.assert_allclose(norm, np.linalg.norm(plain[name]), rtol=1e-6, err_msg=name)
    total = np.sqrt(sum(norm**2 for norm in norms.values()))
    limit = float(np.median(list(norms.values())))
    for scope in ("global", "tensor"):
        clipped, reported = gradients(gradient_clip_norm=limit, gradient_clip_scope=scope)
        assert reported == pytest.approx(norms, rel=1e-12)  # before clipping
        for name, norm in norms.items():
            factor = min(1.0, limit / (total if scope == "global" else norm))
            np.testing.assert_allclose(clipped[name], factor * plain[name], rtol=1e-6, atol=1e-12)


# --- forms of a rule ----------------------------------------------------------------------------------------------


def test_everything_decays_where_the_recipe_says_so() -> None:
    recipe = recipe_for(PLAIN, weight_decay=0.5, adam_epsilon=1e30, decay_scope="all")
    model, start = started(PLAIN)
    (batch,) = make_batches(1, PLAIN)
    impl.train_epoch(impl.create_trainer(model, recipe), [(batch, 0.2)])
    for name, array in impl.read_weights(model).items():
        np.testing.assert_allclose(array, 0.9 * start[name].astype(float), rtol=EXACT, err_msg=name)


@pytest.mark.parametrize(("loss", "shape"), [("binary_cross_entropy", (9, 1)), ("cross_entropy", (9, 3))])
def test_loss_divided_by_the_samples(loss: str, shape: tuple[int, ...]) -> None:
    logits, weights = draw(*shape, key="logits"), np.abs(draw(shape[0], key="weights")) + 0.1
    targets = (
        np.eye(shape[1])[np.arange(9) % 3] if shape[1] > 1 else (np.arange(9)[:, None] % 2).astype(float)
    )
    recipe = dataclasses.replace(RECIPE, loss=loss, loss_divisor="samples")
    found = tensors.to_array(losses.loss_of(recipe)(*map(as_tensor, (logits, targets, weights))))
    expected = getattr(common_losses, loss)(logits, targets, weights) * weights.sum() / 9
    np.testing.assert_allclose(found, expected, rtol=EXACT)


def test_same_padding_puts_the_odd_zero_last() -> None:
    """An even size at stride 2 and kernel 3 needs one row of zeros: at the bottom and right."""
    x, kernel = draw(2, 6, 6, 1), draw(3, 3, key="kernel")
    layer = layers.convolution(1, 1, 3, stride=2, sides="same", bias=False, name="conv")
    if KERAS:
        layer.build((None, 6, 6, 1))
        layer.kernel.assign(kernel[:, :, None, None])
    else:
        layer.weight.data = as_tensor(kernel[None, None])
    around = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(around[..., 0], (3, 3), axis=(1, 2))[:, ::2, ::2]
    np.testing.assert_allclose(
        answer(layer, x)[..., 0], np.einsum("nhwij,ij->nhw", windows, kernel), rtol=0, atol=EXACT
    )
    lowest = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(lowest[..., 0], (3, 3), axis=(1, 2))[:, ::2, ::2]
    pooled = layers.max_pool(layers.from_channels_last(as_tensor(x)), 3, 2, 1, sides="same")
    np.testing.assert_array_equal(
        tensors.to_array(layers.to_channels_last(pooled))[..., 0], windows.max((-2, -1))
    )


def test_flatten_channel_by_channel() -> None:
    x = draw(2, 3, 4, 5)
    found = layers.flatten(layers.from_channels_last(as_tensor(x)), "channels_first")
    np.testing.assert_array_equal(tensors.to_array(found), x.transpose(0, 3, 1, 2).reshape(2, -1))


def test_running_variance_by_keras_rule() -> None:
    """And a decay and an epsilon of the spec's; the unbiased variance is that of `models_suite.py`."""
    spec = dataclasses.replace(UNET, norm_variance="biased", norm_decay=0.7, norm_epsilon=0.01)
    model, start = started(spec)
    (batch,) = make_batches(1, spec)
    given = impl.layer_outputs(model, batch, training=True)["encoder.0.conv1"]
    outputs = impl.layer_outputs(model, batch, training=True)["encoder.0.norm1"]
    impl.train_epoch(impl.create_trainer(model, recipe_for(spec)), [(batch, 0.0)])
    biased = given.var(axis=(0, 1, 2))
    moved = 0.7 * start["encoder.0.norm1.running_var"] + 0.3 * biased
    np.testing.assert_allclose(impl.read_weights(model)["encoder.0.norm1.running_var"], moved, rtol=1e-6)
    expected = (given - given.mean((0, 1, 2))) / np.sqrt(biased + 0.01)
    expected = expected * start["encoder.0.norm1.weight"] + start["encoder.0.norm1.bias"]
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=2e-6)


def test_own_starting_weights() -> None:
    """PyTorch: U(+-1/sqrt(fan_in)), biases too; Keras: U(+-sqrt(6 / (fan_in + fan_out))), biases 0."""
    spec = dataclasses.replace(CNN, features=(40,), hidden=50)
    found = impl.read_weights(impl.build(spec))
    kernel, bias = found["convolutions.0.weight"], found["convolutions.0.bias"]
    bound = np.sqrt(6 / (3 * 9 + 40 * 9)) if KERAS else np.sqrt(1 / 27)
    assert 0.95 * bound < np.abs(kernel).max() <= bound * (1 + 1e-6)
    np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.1)
    assert np.abs(bias).max() == 0 if KERAS else 0.8 * bound < np.abs(bias).max() <= bound
    configure(seed=1)
    other = impl.read_weights(impl.build(spec))["convolutions.0.weight"]
    configure(seed=0)
    again = impl.read_weights(impl.build(spec))["convolutions.0.weight"]
    np.testing.assert_array_equal(again, kernel)
    assert not np.array_equal(other, kernel)


@pytest.mark.parametrize(
    "own", [{"adam_form": "uncorrected"}, {"loss_input": "probabilities"}, {"loop": "fit"}]
)
def test_pytorch_refuses_what_only_keras_has(own: dict[str, str]) -> None:
    model, _ = started(CNN)
    refused = contextlib.nullcontext() if KERAS else pytest.raises(StudyError, match=next(iter(own)))
    with refused:
        impl.create_trainer(model, recipe_for(CNN, **own))
