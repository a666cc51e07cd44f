"""One framework behind the seam, against NumPy: the same tests for every framework.

Two frameworks must not share a process, so `test_impl.py` runs this file and `training_suite.py` once a framework, in
a child process, with the package in STUDY_IMPLEMENTATION and Keras's backend in KERAS_BACKEND. One framework by hand:
`STUDY_IMPLEMENTATION=torch_impl STUDY_FRAMEWORK=torch python -m pytest tests/impl/suite.py`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import oracle
import pytest
from harness import (
    EXACT,
    PACKAGE,
    SPEC,
    as_tensor,
    configure,
    draw,
    impl,
    layers,
    make_batches,
    predict,
    started,
    tensors,
)

from common.config import UnetSpec
from common.errors import StudyError
from common.framework import Batch, Settings

# Keras's own where it reads a variable; every other warning is an error
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)


@pytest.fixture(autouse=True)
def in_float64() -> None:
    configure()


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
    layer = layers.dropout(0.2, 1000, name="dropout")
    ones = np.ones((100, 400))
    np.testing.assert_array_equal(apply(layer, ones), ones)
    dropped = in_training(layer, ones)
    np.testing.assert_allclose(np.unique(dropped), [0, 1 / (1 - 0.2)], rtol=1e-7)
    # 40,000 draws: a standard deviation of 0.002
    np.testing.assert_allclose(np.mean(dropped == 0), 0.2, atol=0.01)


# --- prediction ---------------------------------------------------------------------------------------------------


def test_logits_depend_on_their_own_image_only() -> None:
    model, _ = started(dataclasses.replace(SPEC, dropout=0.5))
    (batch,) = make_batches(1, SPEC)
    whole = predict(model, [batch])
    assert whole.shape == (8, 1)
    assert whole.dtype == np.float64
    order = np.array([5, 0, 7, 3, 1, 6, 2, 4])
    turned = dataclasses.replace(batch, images=batch.images[order])
    np.testing.assert_allclose(predict(model, [turned]), whole[order], rtol=0, atol=EXACT)
    blank = np.zeros_like(batch.images)
    blank[:3] = batch.images[:3]
    padded = dataclasses.replace(batch, images=blank, rows=np.array([0, 1, 2, -1, -1, -1, -1, -1]))
    found, again = impl.predict_logits(model, [padded, batch])
    assert found.shape == (8, 1)  # padded rows included, for the caller to drop
    np.testing.assert_allclose(found[:3], whole[:3], rtol=0, atol=EXACT)
    np.testing.assert_allclose(again, whole, rtol=0, atol=EXACT)


def test_prediction_holds_one_batch_at_a_time() -> None:
    model, _ = started(SPEC)
    batches = make_batches(3, SPEC)
    read = []

    def watched() -> Iterator[Batch]:
        for number, batch in enumerate(batches):
            read.append(number)
            yield batch

    logits = impl.predict_logits(model, watched())
    first = next(logits)
    assert read == [0]
    rest = list(logits)
    assert read == [0, 1, 2]
    assert [array.shape for array in (first, *rest)] == [(8, 1)] * 3
    np.testing.assert_array_equal(np.concatenate([first, *rest]), predict(model, batches))


def test_a_segmenter_predicts_each_pixel() -> None:
    spec = UnetSpec(image_size=8, features=(3, 5))
    model, _ = started(spec)
    (batch,) = make_batches(1, spec, size=2)
    (logits,) = impl.predict_logits(model, [batch])
    assert logits.shape == (2, 8, 8, 1) == batch.targets.shape
    assert logits.dtype == np.float64


def test_precision_is_what_was_asked_for() -> None:
    errors = {}
    for precision in ("float32", "float64"):
        configure(precision)
        model, weights = started(SPEC)
        assert {array.dtype for array in impl.read_weights(model).values()} == {np.dtype(precision)}
        (batch,) = make_batches(1, SPEC)
        expected = oracle.cnn_logits(SPEC, weights, batch.images)
        errors[precision] = np.abs(predict(model, [batch]) - expected).max()
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
    before = predict(model, [batch])
    read = impl.read_weights(model)
    for name, array in weights.items():
        np.testing.assert_array_equal(read[name], array, err_msg=name)
        read[name][...] = 0  # must not reach the model
        array[...] = 0
    np.testing.assert_array_equal(predict(model, [batch]), before)


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
