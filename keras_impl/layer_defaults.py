"""What Keras's layers do unless told otherwise, by trying them in float64. Twin of `torch_impl.layer_defaults`."""

import keras
import numpy as np
from keras import layers, ops

from common import rules
from common.framework import Array, Probe
from common.rules import measured

ROW = np.arange(8.0)
ONES = np.ones((8, 8))


def probe_layers() -> dict[str, Probe]:
    """Item -> probe, of starting values, normalisation, shapes, activations and dropout."""
    return _starting_values() | _normalisation() | _shapes() | _resizing() | _activations()


def _starting_values() -> dict[str, Probe]:
    dense = _built(layers.Dense(1000), 30)
    convolution = _built(layers.Conv2D(50, 3), 8, 8, 20)
    depthwise = _built(layers.DepthwiseConv2D(7), 8, 8, 500)
    transposed = _built(layers.Conv2DTranspose(100, 2, strides=2), 8, 8, 60)
    narrow = _array(keras.initializers.TruncatedNormal(stddev=0.02)((10_000,)))
    unit = _array(keras.initializers.TruncatedNormal(stddev=1.0)((10_000,)))
    kernels = {
        "dense_kernel": (dense, {"in": 30, "out": 1000}),
        "convolution_kernel": (convolution, {"k²·in": 180, "k²·out": 450}),
        "depthwise_kernel": (depthwise, {"k²": 49, "k²·channels": 24_500}),
        "transposed_kernel": (transposed, {"k²·in": 240, "k²·out": 400}),
    }
    return {
        **{
            item: measured(rules.drawing_rule(_array(layer.kernel), sizes), f"{type(layer).__name__}.kernel")
            for item, (layer, sizes) in kernels.items()
        },
        "bias": measured(rules.drawing_rule(_array(dense.bias), {"in": 30, "out": 1000}), "Dense.bias"),
        "truncated_normal": measured(
            rules.truncation_rule(narrow, unit, 0.02), "initializers.TruncatedNormal, stddev 0.02 and 1"
        ),
        "convolution_bias": measured(convolution.bias is not None, "Conv2D has a bias"),
    }


def _normalisation() -> dict[str, Probe]:
    small = 0.01 * np.array([-1.5, -0.5, 0.5, 1.5]).reshape(4, 1, 1, 1)
    large = np.array([1.0, 2.0, 4.0, 9.0]).reshape(4, 1, 1, 1)

    def after_a_batch(batch: Array, frozen: bool = False) -> tuple[Array, float, float]:
        """Output, running mean, running variance of a fresh BatchNormalization in training."""
        layer = layers.BatchNormalization()
        layer.trainable = not frozen
        y = _array(layer(_tensor(batch), training=True))
        return y, *(_array(one).item() for one in (layer.moving_mean, layer.moving_variance))

    _, mean, variance = after_a_batch(large)
    decay = rules.decay_rule(0.0, float(large.mean()), mean)
    target = (variance - decay) / (1 - decay)  # from a running variance of 1
    moves = after_a_batch(large, frozen=True)[1] != 0
    layer_normed = _array(layers.LayerNormalization()(_tensor(small.reshape(1, 4))))
    return {
        "batch_norm_epsilon": measured(
            rules.epsilon_rule(small, after_a_batch(small)[0]),
            "BatchNormalization on a batch of known variance",
        ),
        "batch_norm_decay": measured(decay, "BatchNormalization's moving mean after one batch"),
        "batch_norm_variance": measured(
            rules.variance_rule(large, target), "BatchNormalization's moving variance after one batch"
        ),
        "frozen_batch_norm": measured("moves" if moves else "stays", "BatchNormalization, trainable False"),
        "layer_norm_epsilon": measured(
            rules.epsilon_rule(small.reshape(1, 4), layer_normed),
            "LayerNormalization on numbers of known variance",
        ),
    }


def _shapes() -> dict[str, Probe]:
    ones, kernel, rows = (
        _tensor(ONES[None, :, :, None]),
        _tensor(np.ones((3, 3, 1, 1))),
        _tensor(ROW[None, :, None]),
    )
    strided = _array(ops.conv(ones, kernel, strides=2, padding="same"))[0, :, :, 0]
    down, up = (_array(ops.max_pool(one, 3, 2, padding="same")).ravel() for one in (rows, 7 - rows))
    averaged = _array(layers.AveragePooling2D(3, strides=1, padding="same")(ones))[0, :, :, 0]
    picture = np.arange(1.0, 10.0).reshape(3, 3, 1, 1)
    doubled = ops.conv_transpose(ones[:, :1, :1], _tensor(picture), strides=2, padding="same")
    halved = layers.MaxPooling2D(2)(ones[:, :5, :5])
    places = 100 * np.arange(3) + 10 * np.arange(4)[:, None, None] + np.arange(5)[:, None]  # (H, W, C)
    one = layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones")
    summed = one(_tensor(np.ones((1, 5, 6, 7))))
    return {
        "layout": measured(rules.axis_rule(_array(summed).flat[0], 5, 7), "Conv2D, 1x1"),
        "flatten_order": measured(
            rules.flattening_rule(_array(layers.Flatten()(_tensor(places[None]))).ravel()), "Flatten"
        ),
        "strided_convolution": measured(
            rules.padded_side(strided[0, 0], strided[-1, -1], 9), "ops.conv, 3x3, stride 2, padding 'same'"
        ),
        "strided_max_pool": measured(
            rules.padded_side(down[0] + 1, up[-1] + 1, 3), "ops.max_pool, 3, stride 2, padding 'same'"
        ),
        "padded_average_pool": measured(
            "counts" if averaged[0, 0] < 1 else "does not count",
            "AveragePooling2D(3, strides=1, padding='same')",
        ),
        "odd_size": measured(rules.halving_rule(5, halved.shape[2]), "MaxPooling2D(2) of 5 px"),
        "transposed_convolution": measured(
            rules.cut_side(_array(doubled)[0, :, :, 0], picture[:, :, 0, 0]),
            "ops.conv_transpose, 3x3, strides 2, padding 'same'",
        ),
    }


def _resizing() -> dict[str, Probe]:
    point = np.zeros((1, 8, 8, 1))
    point[:, 0, 0] = 1
    step = _tensor(np.array([[0.0, 1.0], [0.0, 1.0]])[None, :, :, None])
    shrunk = ops.image.resize(_tensor(point), (2, 2), interpolation="bilinear")
    doubled = _array(layers.UpSampling2D(2, interpolation="bilinear")(step))
    return {
        "resize_method": rules.signed(ops.image.resize, "interpolation"),
        "resize_antialias": measured(
            bool(_array(shrunk)[0, 0, 0, 0] > 0), "ops.image.resize, bilinear, a point of 8 px to 2 px"
        ),
        "upsample_method": rules.signed(layers.UpSampling2D, "interpolation"),
        "bilinear_grid": measured(
            rules.doubling_rule(doubled[0, 0, :, 0]), "UpSampling2D(2, bilinear) of (0, 1)"
        ),
    }


def _activations() -> dict[str, Probe]:
    drawn = _array(layers.Dropout(0.75)(_tensor(np.ones(1000)), training=True))
    fresh = _array(layers.Dropout(0.75)(_tensor(np.ones(1000))))
    spread = _tensor(rules.SPREAD)
    return {
        "gelu_layer": measured(
            rules.gelu_rule(_array(layers.Activation("gelu")(spread))), "Activation('gelu')"
        ),
        "gelu_function": measured(rules.gelu_rule(_array(ops.gelu(spread))), "ops.gelu"),
        "leaky_relu_slope": measured(-_array(layers.LeakyReLU()(_tensor(-ONES))).flat[0], "LeakyReLU of -1"),
        "dropout_scale": measured(float(drawn.max()), "Dropout(0.75) of ones: the largest value"),
        "fresh_mode": measured(
            "training" if (fresh == 0).any() else "evaluation", "Dropout(0.75), called as it was made"
        ),
    }


def _built(layer: keras.Layer, *shape: int) -> keras.Layer:
    """The layer with its variables drawn for samples of a shape."""
    layer.build((1, *shape))
    return layer


def _tensor(array: Array) -> keras.KerasTensor:
    return ops.convert_to_tensor(array, "float64")


def _array(tensor: keras.KerasTensor) -> Array:
    return np.array(ops.convert_to_numpy(tensor), np.float64)
