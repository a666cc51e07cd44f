"""One framework behind the seam, against NumPy: the same tests for every framework.

Two frameworks must not share a process, so `test_impl.py` runs this file once a framework, in a child process, with
the package in STUDY_IMPLEMENTATION and Keras's backend in KERAS_BACKEND. One framework by hand:
`STUDY_IMPLEMENTATION=torch_impl python -m pytest tests/impl/suite.py`.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import oracle
import pytest

from common.config import CnnSpec, Recipe
from common.errors import StudyError
from common.framework import Batch, Framework, Settings
from common.losses import binary_cross_entropy
from common.random_numbers import generator

# Keras's own where it reads a variable; every other warning is an error
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)

PACKAGE = os.environ["STUDY_IMPLEMENTATION"]
impl: Framework = importlib.import_module(PACKAGE)  # type: ignore[assignment]
layers, losses, tensors = (
    importlib.import_module(f"{PACKAGE}.{name}") for name in ("layers", "losses", "tensors")
)

SPEC = CnnSpec(image_size=16, features=(4, 6), hidden=10, dropout=0.0)
PERCEPTRON = CnnSpec(image_size=4, features=(), hidden=9, dropout=0.0)
DROPPING = dataclasses.replace(SPEC, dropout=0.5)
RECIPE = Recipe(epochs=1, batch_size=8)
EXACT = 1e-12  # relative: some hundred float64 roundings

# Keras divides the loss that it returns by the number of batches, and that division is in float32 on its torch
# backend. The gradients do not pass through it.
LOSS_RTOL = 1e-6 if impl.name() == "keras-torch" else EXACT


def configure(precision: str = "float64", seed: int = 0) -> None:
    impl.configure(Settings("cpu", precision, threads=1, seed=seed))


@pytest.fixture(autouse=True)
def in_float64() -> None:
    configure()


def draw(*shape: int, key: str = "values") -> np.ndarray:
    return generator("suite", key).standard_normal(shape)


def draw_weights(shape: tuple[int, ...], name: str) -> np.ndarray:
    """Kernels that keep the variance of what they pass on, small biases."""
    scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
    return (scale * draw(*shape, key=name)).astype(np.float32)


def started(spec: CnnSpec) -> tuple[Any, dict[str, np.ndarray]]:
    """A model with known weights, none of them 0, and those weights."""
    model = impl.build(spec)
    shapes = {name: array.shape for name, array in impl.read_weights(model).items()}
    weights = {name: draw_weights(shape, name) for name, shape in shapes.items()}
    impl.write_weights(model, weights)
    return model, weights


def make_batches(count: int, spec: CnnSpec, size: int = 8, key: str = "batches") -> list[Batch]:
    source = generator("suite", key, spec.image_size)
    found = []
    for _ in range(count):
        weights = source.uniform(0.5, 1.5, size)
        found.append(
            Batch(
                source.standard_normal((size, spec.image_size, spec.image_size, spec.channels)).astype(
                    np.float32
                ),
                (source.random(size) < 0.4).astype(np.float32),
                (weights / weights.mean()).astype(np.float32),
                np.arange(size),
            )
        )
    return found


def as_tensor(array: np.ndarray) -> Any:
    """In the configured precision; `to_tensor` of Keras leaves it to the model to make a tensor of the array."""
    tensor = tensors.to_tensor(array)
    return (
        tensor if PACKAGE == "torch_impl" else importlib.import_module("keras").ops.convert_to_tensor(tensor)
    )


def apply(layer: Any, images: np.ndarray, **weights: np.ndarray) -> np.ndarray:
    """Evaluation-mode output of a layer that was given weights; spatial axes come back as (N, H, W, C)."""
    tensor = as_tensor(images)
    if images.ndim == 4:
        tensor = layers.from_channels_last(tensor)
    if PACKAGE == "torch_impl":
        layer.to(tensor.dtype).eval()
    output = layer(tensor)  # Keras makes its variables here
    if weights:
        names = impl.read_weights(layer)
        assert {name.rsplit(".", 1)[-1] for name in names} == set(weights)
        impl.write_weights(layer, {name: weights[name.rsplit(".", 1)[-1]] for name in names})
        output = layer(tensor)
    if images.ndim == 4 and PACKAGE == "torch_impl":
        output = output.permute(0, 2, 3, 1)
    return tensors.to_array(output)


def in_training(layer: Any, x: np.ndarray) -> np.ndarray:
    tensor = as_tensor(x)
    return tensors.to_array(
        layer.train()(tensor) if PACKAGE == "torch_impl" else layer(tensor, training=True)
    )


# --- layers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_convolution_is_a_centred_cross_correlation(kernel_size: int) -> None:
    images = draw(2, 7, 5, 3)
    kernel, bias = draw(4, 3, kernel_size, kernel_size, key="kernel"), draw(4, key="bias")
    output = apply(
        layers.convolution(3, 4, kernel_size, name="convolution"), images, weight=kernel, bias=bias
    )
    np.testing.assert_allclose(output, oracle.convolve(images, kernel, bias), rtol=0, atol=1e-13)


def test_dense() -> None:
    # As wide as in the model: a sum of 2000 products shows float32 inside
    x, kernel, bias = draw(3, 2000), draw(4, 2000, key="kernel"), draw(4, key="bias")
    output = apply(layers.dense(2000, 4, name="dense"), x, weight=kernel, bias=bias)
    np.testing.assert_allclose(output, x @ kernel.T + bias, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("height", "width"), [(6, 4), (7, 5), (2, 3)])
def test_max_pool_drops_an_odd_last_row_and_column(height: int, width: int) -> None:
    images = draw(2, height, width, 3)
    np.testing.assert_array_equal(pooled(images), oracle.max_pool(images))


def pooled(images: np.ndarray) -> np.ndarray:
    output = layers.max_pool(layers.from_channels_last(as_tensor(images)))
    return tensors.to_array(output.permute(0, 2, 3, 1) if PACKAGE == "torch_impl" else output)


def test_flatten_runs_in_height_width_channel_order() -> None:
    images = draw(2, 3, 5, 4)
    output = tensors.to_array(layers.flatten(layers.from_channels_last(as_tensor(images))))
    np.testing.assert_array_equal(output, images.reshape(2, -1))


def test_relu() -> None:
    x = np.array([[-2.0, -0.0, 0.0, 3.5]])
    np.testing.assert_array_equal(tensors.to_array(layers.relu(as_tensor(x))), [[0, 0, 0, 3.5]])


def test_dropout_zeroes_its_share_and_scales_the_rest_in_training_only() -> None:
    layer = layers.dropout(0.2, name="dropout")
    ones = np.ones((100, 400))
    np.testing.assert_array_equal(apply(layer, ones), ones)
    dropped = in_training(layer, ones)
    np.testing.assert_allclose(np.unique(dropped), [0, 1 / (1 - 0.2)], rtol=1e-7)
    # 40,000 draws: a standard deviation of 0.002
    np.testing.assert_allclose(np.mean(dropped == 0), 0.2, atol=0.01)


# --- loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_loss_is_that_of_common(scale: float) -> None:
    logits = scale * draw(50, key="logits")
    logits[0] = 0
    labels = (draw(50, key="labels") > 0).astype(np.float64)
    weights = np.abs(draw(50, key="weights"))
    found = losses.binary_cross_entropy(*(as_tensor(array) for array in (logits, labels, weights)))
    np.testing.assert_allclose(
        tensors.to_array(found), binary_cross_entropy(logits, labels, weights), rtol=EXACT
    )


def test_gradients_are_those_of_the_numpy_model() -> None:
    """By central differences of the oracle, against one step of an AdamW that is plain gradient descent.

    With both betas 0 and a huge epsilon e the step is rate * g / (|g| + e): rate e makes it g, to |g| / e.
    """
    huge = 1e9
    descent = dataclasses.replace(RECIPE, adam_beta1=0.0, adam_beta2=0.0, adam_epsilon=huge, weight_decay=0.0)
    model, start = started(SPEC)
    (batch,) = make_batches(1, SPEC)
    impl.train_epoch(impl.create_trainer(model, descent), [(batch, huge)])
    after = impl.read_weights(model)

    def loss(weights: dict[str, np.ndarray]) -> float:
        logits = oracle.cnn_logits(SPEC, weights, batch.images)[:, 0]
        return binary_cross_entropy(logits, batch.labels.astype(float), batch.weights.astype(float))

    for name, array in start.items():
        exact = {key: value.astype(np.float64) for key, value in start.items()}
        gradient = exact[name] - after[name]
        # The steepest places and one at random: where the gradient is 0 nothing would be tested
        places = [*np.argsort(-np.abs(gradient).ravel())[:3], generator("suite", name).integers(array.size)]
        for place in places:
            ends = []
            for step in (1e-6, -1e-6):
                moved = exact[name].copy()
                moved.ravel()[place] += step
                ends.append(loss(exact | {name: moved}))
            expected = (ends[0] - ends[1]) / 2e-6
            np.testing.assert_allclose(gradient.ravel()[place], expected, rtol=1e-5, atol=1e-8, err_msg=name)
        assert np.abs(gradient).max() > 1e-4, name


# --- optimizer and training ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_training_is_adamw_by_numpy(weight_decay: float) -> None:
    """Loss of each step and every weight, over changing rates; a large epsilon makes its place matter."""
    recipe = dataclasses.replace(RECIPE, weight_decay=weight_decay, adam_epsilon=1e-3, adam_beta2=0.99)
    model, start = started(PERCEPTRON)
    pairs = list(zip(make_batches(7, PERCEPTRON), [0.01, 0.02, 0.05, 0.04, 0.0, 0.02, 0.001], strict=True))
    expected_losses, expected = oracle.train_perceptron(start, recipe, pairs)
    found_losses = impl.train_epoch(impl.create_trainer(model, recipe), pairs)
    found = impl.read_weights(model)
    assert found_losses.shape == (7,)
    assert found_losses.dtype == np.float64
    np.testing.assert_allclose(found_losses, expected_losses, rtol=LOSS_RTOL)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=EXACT, err_msg=name)


def test_a_second_epoch_goes_on_with_the_optimizer_and_a_new_trainer_begins_anew() -> None:
    pairs = [(batch, 0.01) for batch in make_batches(4, PERCEPTRON)]
    _, expected = oracle.train_perceptron(started(PERCEPTRON)[1], RECIPE, pairs)
    model, _ = started(PERCEPTRON)
    trainer = impl.create_trainer(model, RECIPE)
    for half in (pairs[:2], pairs[2:]):
        impl.train_epoch(trainer, iter(half))
        impl.predict_logits(model, [half[0][0]])  # judging an epoch must not disturb the next
    np.testing.assert_allclose(
        impl.read_weights(model)["hidden.weight"], expected["hidden.weight"], atol=EXACT
    )

    model, _ = started(PERCEPTRON)
    for half in (pairs[:2], pairs[2:]):
        impl.train_epoch(impl.create_trainer(model, RECIPE), half)
    assert np.abs(impl.read_weights(model)["hidden.weight"] - expected["hidden.weight"]).max() > 1e-4


def test_training_drops_and_evaluation_does_not() -> None:
    model, weights = started(DROPPING)
    batches = make_batches(2, DROPPING)
    expected = np.concatenate([oracle.cnn_logits(SPEC, weights, batch.images) for batch in batches])
    found = impl.predict_logits(model, iter(batches))
    np.testing.assert_allclose(found, expected, rtol=0, atol=EXACT)

    trainer = impl.create_trainer(model, RECIPE)
    still = [(batches[0], 0.0)] * 3  # a rate of 0 leaves the weights alone, so only the draws differ
    dropped = impl.train_epoch(trainer, still)
    logits = expected[: len(batches[0].labels), 0]
    whole = binary_cross_entropy(
        logits, *(getattr(batches[0], part).astype(float) for part in ("labels", "weights"))
    )
    assert len({*dropped, whole}) == 4
    np.testing.assert_array_equal(impl.predict_logits(model, batches), found)  # back in evaluation mode


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_equal_seeds_give_equal_bits_and_others_do_not(precision: str) -> None:
    def train(seed: int) -> tuple[bytes, ...]:
        configure(precision, seed)
        model, _ = started(DROPPING)
        pairs = [(batch, 0.01) for batch in make_batches(3, DROPPING)]
        found = impl.train_epoch(impl.create_trainer(model, RECIPE), pairs)
        return (found.tobytes(), *(array.tobytes() for array in impl.read_weights(model).values()))

    assert train(1) == train(1)
    assert train(1) != train(2)


# --- prediction ---------------------------------------------------------------------------------------------------


def test_logits_depend_on_their_own_image_only() -> None:
    model, _ = started(DROPPING)
    (batch,) = make_batches(1, SPEC)
    whole = impl.predict_logits(model, [batch])
    assert whole.shape == (8, 1)
    assert whole.dtype == np.float64
    order = np.array([5, 0, 7, 3, 1, 6, 2, 4])
    turned = dataclasses.replace(batch, images=batch.images[order])
    np.testing.assert_allclose(impl.predict_logits(model, [turned]), whole[order], rtol=0, atol=EXACT)
    blank = np.zeros_like(batch.images)
    blank[:3] = batch.images[:3]
    padded = dataclasses.replace(batch, images=blank, rows=np.array([0, 1, 2, -1, -1, -1, -1, -1]))
    found = impl.predict_logits(model, [padded, batch])
    assert found.shape == (16, 1)  # padded rows included, for the caller to drop
    np.testing.assert_allclose(found[:3], whole[:3], rtol=0, atol=EXACT)
    np.testing.assert_allclose(found[8:], whole, rtol=0, atol=EXACT)


def test_precision_is_what_was_asked_for() -> None:
    errors = {}
    for precision in ("float32", "float64"):
        configure(precision)
        model, weights = started(SPEC)
        assert {array.dtype for array in impl.read_weights(model).values()} == {np.dtype(precision)}
        (batch,) = make_batches(1, SPEC)
        expected = oracle.cnn_logits(SPEC, weights, batch.images)
        errors[precision] = np.abs(impl.predict_logits(model, [batch]) - expected).max()
    assert errors["float64"] < EXACT
    assert 1e-9 < errors["float32"] < 1e-5


# --- weights ------------------------------------------------------------------------------------------------------


def test_weights_have_the_names_and_layout_of_pytorch() -> None:
    shapes = {name: array.shape for name, array in impl.read_weights(impl.build(SPEC)).items()}
    assert shapes == {
        "convolutions.0.weight": (4, 3, 3, 3),  # (out, in, h, w)
        "convolutions.0.bias": (4,),
        "convolutions.1.weight": (6, 4, 3, 3),
        "convolutions.1.bias": (6,),
        "hidden.weight": (10, 4 * 4 * 6),  # (out, in)
        "hidden.bias": (10,),
        "head.weight": (1, 10),
        "head.bias": (1,),
    }


def test_weights_come_back_as_written_and_as_copies() -> None:
    model, weights = started(SPEC)
    (batch,) = make_batches(1, SPEC)
    before = impl.predict_logits(model, [batch])
    read = impl.read_weights(model)
    for name, array in weights.items():
        np.testing.assert_array_equal(read[name], array, err_msg=name)
        read[name][...] = 0  # must not reach the model
        array[...] = 0
    np.testing.assert_array_equal(impl.predict_logits(model, [batch]), before)


def weights_with(change: str) -> Iterator[tuple[str, np.ndarray]]:
    for name, array in impl.read_weights(impl.build(SPEC)).items():
        if name == "hidden.weight" and change != "nothing":
            if change == "renamed":
                yield "other.weight", array
            elif change == "transposed":
                yield name, array.T
            continue
        yield name, array
    if change == "surplus":
        yield from (("hidden.weight", np.zeros((10, 96))), ("extra.bias", np.zeros(3)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"missing \['hidden.weight'\], surplus \[\]"),
        ("renamed", r"missing \['hidden.weight'\], surplus \['other.weight'\]"),
        ("surplus", r"missing \[\], surplus \['extra.bias'\]"),
        ("transposed", r"'hidden.weight' has shape \(96, 10\); the model needs \(10, 96\)"),
    ],
)
def test_weights_of_another_model_are_refused_and_change_nothing(change: str, message: str) -> None:
    model, weights = started(SPEC)
    with pytest.raises(StudyError, match=message):
        impl.write_weights(model, dict(weights_with(change)))
    for name, array in impl.read_weights(model).items():
        np.testing.assert_array_equal(array, weights[name], err_msg=name)


# --- process ------------------------------------------------------------------------------------------------------


def test_name_and_environment() -> None:
    assert impl.name() == os.environ["STUDY_FRAMEWORK"]
    environment = impl.environment()
    assert all(isinstance(value, str) and value for value in environment.values())
    assert environment["framework"].startswith("Keras" if impl.name().startswith("keras") else "PyTorch")
    assert {"backend", "compilation", "memory_layout"} <= environment.keys()
    impl.synchronise()


def test_a_missing_gpu_is_one_sentence() -> None:
    with pytest.raises(StudyError, match=r"'cuda' was asked for, but .* use --device cpu"):
        impl.configure(Settings("cuda", "float64", threads=1))
    assert impl.configure(Settings("auto", "float64", threads=1)) == "cpu"
