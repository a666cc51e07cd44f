"""Layers and models of one framework: the layers against NumPy, the models written down to be compared.

`test_models.py` runs this file once a framework, in a child process (see `suite.py`); STUDY_OUTPUTS is the folder for
what the models answer. One framework by hand:
`STUDY_IMPLEMENTATION=torch_impl python -m pytest tests/impl/models_suite.py`.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_cases import BATCH, FULL_SIZE, SPECS, faint_image_of, images_of, timm_names, weights_of
from numpy.typing import NDArray
from scipy.special import erf

from common.config import ModelSpec
from common.framework import Framework, Settings
from common.random_numbers import generator
from common.weights import read_checkpoint, save_checkpoint

# Keras's own where it reads a variable; every other warning is an error
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)

PACKAGE = os.environ["STUDY_IMPLEMENTATION"]
TORCH = PACKAGE == "torch_impl"
impl: Framework = importlib.import_module(PACKAGE)  # type: ignore[assignment]
layers, tensors = (importlib.import_module(f"{PACKAGE}.{name}") for name in ("layers", "tensors"))

Array = NDArray[np.float64]
EXACT = 1e-13
EPSILON = 1e-3  # large, so that its place matters
# XLA compiles each operation anew: jax answers for the small models in one precision
PRECISIONS = ("float64",) if impl.name() == "keras-jax" else ("float64", "float32")
OUTPUTS = Path(os.environ.get("STUDY_OUTPUTS", "."))


@pytest.fixture(autouse=True)
def in_float64() -> None:
    configure("float64")


def configure(precision: str) -> None:
    impl.configure(Settings("cpu", precision, threads=1, seed=3))


def draw(*shape: int, key: str = "values") -> Array:
    return generator("models", key).standard_normal(shape)


def tensor_of(array: NDArray[Any]) -> Any:
    tensor = tensors.to_tensor(array)
    return tensor if TORCH else importlib.import_module("keras").ops.convert_to_tensor(tensor)


def run(layer: Any, x: NDArray[Any], training: bool = False) -> Array:
    """Output of a layer or a function of images, (N, H, W, C) in and out, or of (N, C)."""
    tensor = tensor_of(x)
    if x.ndim == 4:
        tensor = layers.from_channels_last(tensor)
    if TORCH:
        output = layer.train(training)(tensor) if hasattr(layer, "train") else layer(tensor)
    else:
        takes_mode = hasattr(layer, "call") and "training" in layer.call.__code__.co_varnames
        output = layer(tensor, training=training) if takes_mode else layer(tensor)
    return tensors.to_array(layers.to_channels_last(output) if len(output.shape) == 4 else output)


def given(layer: Any, x: Array, **weights: Array) -> Any:
    """The layer with its tensors made for inputs like x, and set."""
    if TORCH:
        layer.to(tensor_of(x).dtype)
    run(layer, x)
    names = {name.rsplit(".", 1)[-1]: name for name in impl.read_weights(layer)}
    assert names.keys() == weights.keys()
    impl.write_weights(layer, {names[kind]: array for kind, array in weights.items()})
    return layer


def answer(model: Any, images: NDArray[Any], training: bool) -> Array:
    """Logits of a model in either mode."""
    if TORCH:
        return tensors.to_array(model.train(training)(tensor_of(images)))
    return tensors.to_array(model(tensor_of(images), training=training))


def started(spec: ModelSpec) -> Any:
    model = impl.build(spec)
    shapes = {name: array.shape for name, array in impl.read_weights(model).items()}
    impl.write_weights(model, weights_of(shapes))
    return model


# --- layers -------------------------------------------------------------------------------------------------------


def convolved(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """Cross-correlation of (N, H, W, C) with (F, C, k, k), zeros around, by its definition."""
    around = (padding, padding)
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(x, ((0, 0), around, around, (0, 0))), kernel.shape[2:], axis=(1, 2)
    )
    return np.einsum("nhwcij,fcij->nhwf", windows[:, ::stride, ::stride], kernel)


@pytest.mark.parametrize(
    ("size", "stride", "padding", "side"),
    [
        (7, 2, 3, 8),
        (7, 2, None, 9),
        (3, 1, None, 8),
        (1, 1, None, 8),
        (4, 4, 0, 9),
        (2, 2, 0, 8),
        (2, 2, 0, 9),
    ],
)
def test_convolution(size: int, stride: int, padding: int | None, side: int) -> None:
    x, kernel, bias = draw(2, side, side, 3), draw(4, 3, size, size, key="kernel"), draw(4, key="bias")
    zeros = size // 2 if padding is None else padding
    expected = convolved(x, kernel, stride, zeros)
    parts = {"stride": stride, "padding": padding, "name": "convolution"}
    layer = given(layers.convolution(3, 4, size, **parts), x, weight=kernel, bias=bias)
    np.testing.assert_allclose(run(layer, x), expected + bias, rtol=0, atol=EXACT * 100)
    layer = given(layers.convolution(3, 4, size, bias=False, **parts), x, weight=kernel)
    np.testing.assert_allclose(run(layer, x), expected, rtol=0, atol=EXACT * 100)


def test_depthwise_convolution() -> None:
    x, kernel, bias = draw(2, 8, 5, 3), draw(3, 1, 7, 7, key="kernel"), draw(3, key="bias")
    layer = given(layers.depthwise_convolution(3, 7, name="depthwise"), x, weight=kernel, bias=bias)
    apart = [convolved(x[..., [c]], kernel[[c]], 1, 3) + bias[c] for c in range(3)]
    np.testing.assert_allclose(run(layer, x), np.concatenate(apart, axis=-1), rtol=0, atol=EXACT * 100)


def test_transposed_convolution() -> None:
    x, kernel, bias = draw(2, 3, 5, 3), draw(3, 4, 2, 2, key="kernel"), draw(4, key="bias")
    layer = given(layers.transposed_convolution(3, 4, name="up"), x, weight=kernel, bias=bias)
    blocks = np.einsum("nhwc,cfij->nhiwjf", x, kernel)  # each pixel becomes a block of 2x2
    np.testing.assert_allclose(run(layer, x), blocks.reshape(2, 6, 10, 4) + bias, rtol=0, atol=EXACT * 10)


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 4, 5)])
def test_dense_and_layer_norm_are_over_the_channels(shape: tuple[int, ...]) -> None:
    x, kernel, bias = draw(*shape), draw(6, 5, key="kernel"), draw(6, key="bias")
    layer = given(layers.dense(5, 6, name="dense"), x, weight=kernel, bias=bias)
    np.testing.assert_allclose(run(layer, x), x @ kernel.T + bias, rtol=0, atol=EXACT * 10)

    x = 3 * x + 2
    weight, bias = draw(5, key="weight"), draw(5, key="bias")
    layer = given(layers.layer_norm(5, EPSILON, name="norm"), x, weight=weight, bias=bias)
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + EPSILON)
    np.testing.assert_allclose(run(layer, x), normal * weight + bias, rtol=0, atol=EXACT * 10)


def test_batch_norm_divides_by_the_biased_and_keeps_the_unbiased_variance() -> None:
    x = 3 * draw(2, 3, 3, 4) + 2
    tensors_of_layer = {"weight": draw(4, key="weight"), "bias": draw(4, key="bias")}
    statistics = {"running_mean": draw(4, key="mean"), "running_var": np.abs(draw(4, key="variance"))}
    layer = given(layers.batch_norm(4, 0.8, EPSILON, name="norm"), x, **tensors_of_layer, **statistics)
    weight, bias = tensors_of_layer.values()

    def normalised(mean: Array, variance: Array) -> Array:
        return (x - mean) / np.sqrt(variance + EPSILON) * weight + bias

    evaluated = normalised(*statistics.values())
    np.testing.assert_allclose(run(layer, x), evaluated, rtol=0, atol=EXACT * 10)
    over = (0, 1, 2)
    trained = normalised(x.mean(over), x.var(over))
    np.testing.assert_allclose(run(layer, x, training=True), trained, rtol=0, atol=EXACT * 10)
    found = {name.rsplit(".", 1)[-1]: array for name, array in impl.read_weights(layer).items()}
    moved = {
        "running_mean": 0.8 * statistics["running_mean"] + 0.2 * x.mean(over),
        "running_var": 0.8 * statistics["running_var"] + 0.2 * x.var(over, ddof=1),
    }
    for kind, expected in (tensors_of_layer | moved).items():
        np.testing.assert_allclose(found[kind], expected, rtol=0, atol=EXACT * 10, err_msg=kind)
    run(layer, x)
    for name, array in impl.read_weights(layer).items():  # evaluation keeps the statistics
        np.testing.assert_array_equal(array, found[name.rsplit(".", 1)[-1]], err_msg=name)


def test_gelu_is_exact() -> None:
    x = np.linspace(-9, 9, 2001)[None]
    np.testing.assert_allclose(
        run(layers.gelu, x), x * 0.5 * (1 + erf(x / np.sqrt(2))), rtol=0, atol=EXACT / 10
    )


def test_pools() -> None:
    x = draw(2, 7, 6, 3) - 5  # all negative: zeros around would win
    whole = x[:, :6].reshape(2, 3, 2, 3, 2, 3)
    np.testing.assert_array_equal(run(layers.max_pool, x), whole.max((2, 4)))
    np.testing.assert_allclose(run(layers.average_pool, x), whole.mean((2, 4)), rtol=0, atol=EXACT)
    np.testing.assert_allclose(run(layers.global_average_pool, x), x.mean((1, 2)), rtol=0, atol=EXACT)
    around = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(around, (3, 3), axis=(1, 2))[:, ::2, ::2]
    found = run(lambda images: layers.max_pool(images, size=3, stride=2, padding=1), x)
    np.testing.assert_array_equal(found, windows.max((-2, -1)))


def test_concatenate_and_scale() -> None:
    x, factors = draw(2, 3, 4, 5), draw(5, key="factors")
    expected = np.concatenate([x, x * factors], axis=-1)
    found = run(lambda images: layers.concatenate([images, layers.scale(images, tensor_of(factors))]), x)
    np.testing.assert_array_equal(found, expected)


def test_stochastic_depth_drops_whole_samples_in_training_only() -> None:
    ones = np.ones((4000, 2, 2, 3))
    layer = layers.stochastic_depth(0.2, name="drop_path")
    np.testing.assert_array_equal(run(layer, ones), ones)
    dropped = run(layer, ones, training=True)
    np.testing.assert_array_equal(dropped, np.broadcast_to(dropped[:, :1, :1, :1], ones.shape))
    np.testing.assert_allclose(np.unique(dropped), [0, 1 / 0.8], rtol=1e-7)
    # 4000 draws: a standard deviation of 0.006
    np.testing.assert_allclose(np.mean(dropped[:, 0, 0, 0] == 0), 0.2, atol=0.03)
    never = layers.stochastic_depth(0.0, name="never")
    np.testing.assert_array_equal(run(never, ones, training=True), ones)


# --- models -------------------------------------------------------------------------------------------------------


def with_rate(spec: ModelSpec, rate: float) -> ModelSpec:
    return dataclasses.replace(spec, stochastic_depth=rate)  # type: ignore[call-arg]


def test_stochastic_depth_of_a_model_rises_linearly() -> None:
    convnext = importlib.import_module(f"{PACKAGE}.convnext")
    model = convnext.ConvNext(with_rate(SPECS["convnext_tiny"], 0.3))
    rates = [block.drop_path.rate for stage in model.stages for block in stage.blocks]
    np.testing.assert_allclose(rates, [0, 0.15, 0.3], rtol=1e-12)


@pytest.mark.parametrize("name", [name for name in SPECS if name != "cnn"])
def test_a_frozen_model_trains_nothing_before_the_last_dropout(name: str) -> None:
    spec = with_rate(SPECS[name], 0.5) if name == "convnext_tiny" else SPECS[name]
    images = images_of(spec)
    model = started(spec)
    assert model.frozen is False
    evaluated, before = answer(model, images, False), impl.read_weights(model)
    model.frozen = True
    np.testing.assert_array_equal(answer(model, images, True), evaluated)
    for tensor, array in impl.read_weights(model).items():
        np.testing.assert_array_equal(array, before[tensor], err_msg=tensor)
    model.frozen = False
    assert np.abs(answer(model, images, True) - evaluated).max() > 1e-3
    moved = {tensor for tensor, array in impl.read_weights(model).items() if (array != before[tensor]).any()}
    assert moved == {tensor for tensor in before if "running_" in tensor}


@pytest.mark.parametrize("name", ["densenet121", "convnext_tiny"])
def test_a_frozen_model_still_drops_before_its_last_layer(name: str) -> None:
    spec = dataclasses.replace(SPECS[name], dropout=0.5)  # type: ignore[call-arg]
    images = images_of(spec)
    model = started(spec)
    model.frozen = True
    evaluated, first, second = (answer(model, images, training) for training in (False, True, True))
    assert np.abs(first - evaluated).max() > 1e-3
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize("name", SPECS)
def test_small_models_answer(name: str) -> None:
    """Writes logits of both modes, the weights after one step's forward pass, and a checkpoint."""
    spec = SPECS[name]
    images = images_of(spec)
    found = {}
    for precision in PRECISIONS:
        configure(precision)
        model = started(spec)
        save_checkpoint(OUTPUTS / f"{name}-{precision}.safetensors", impl.read_weights(model), {"name": name})
        found[f"evaluated-{precision}"] = answer(model, images, False)
        found[f"trained-{precision}"] = answer(model, images, True)
        for tensor, array in impl.read_weights(model).items():
            if "running_" in tensor:
                found[f"{tensor}-{precision}"] = array
        weights, _ = read_checkpoint(OUTPUTS / f"{name}-{precision}.safetensors")
        impl.write_weights(model, weights)
        np.testing.assert_array_equal(answer(model, images, False), found[f"evaluated-{precision}"])
    pixels = (spec.image_size, spec.image_size) if name == "unet" else ()
    assert found["evaluated-float64"].shape == (BATCH, *pixels, spec.outputs)
    np.savez(OUTPUTS / f"{name}.npz", **found)


@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_models_answer(name: str) -> None:
    """Writes evaluation-mode logits; the tensors are those of the public weights files. PyTorch's only: Keras's stand
    beside those of keras.applications.
    """
    spec = FULL_SIZE[name]
    model = started(spec)
    assert impl.read_weights(model).keys() == timm_names(name)
    np.savez(OUTPUTS / f"full-{name}.npz", logits=answer(model, faint_image_of(spec), False))
