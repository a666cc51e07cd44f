"""What Keras does when nothing is said, found by looking and by trying. Twin of `torch_impl.defaults`."""

import sys

import keras
import numpy as np
from keras import layers, losses, ops

from common import rules
from common.framework import Array, Probe
from common.rules import absent, precision_of
from keras_impl.layer_defaults import probe_layers
from keras_impl.training_defaults import probe_training

NO_SWITCH = "Keras has no switch for it: the backend decides"


def probe_defaults() -> dict[str, Probe]:
    """What this framework does unless told otherwise (`common.atlas.ITEMS` -> probe).

    The process must be configured for a CPU and float64. Takes seconds; draws random numbers.
    """
    return probe_layers() | probe_training() | _precision() | _models()


def _precision() -> dict[str, Probe]:
    x, picture = _tensor(rules.NUMBERS), _tensor(rules.NUMBERS.reshape(1, *rules.NUMBERS.shape, 1))
    truth = _tensor(rules.TRUTH)
    found = {
        "float64_constant": (ops.cast(rules.CONSTANT, "float64"), "ops.cast of a Python number"),
        "float64_mean": (ops.mean(x, 1), "ops.mean"),
        "float64_variance": (ops.var(x, 1), "ops.var"),
        "float64_erf": (ops.erf(x), "ops.erf"),
        "float64_gelu": (layers.Activation("gelu")(x), "Activation('gelu')"),
        "float64_softplus": (ops.softplus(x), "ops.softplus"),
        "float64_matmul": (ops.matmul(x, x), "ops.matmul"),
        "float64_layer_norm": (layers.LayerNormalization(epsilon=1e-5)(x), "LayerNormalization"),
        "float64_batch_norm": (
            layers.BatchNormalization(epsilon=1e-5)(picture, training=True),
            "BatchNormalization",
        ),
        "float64_loss": (losses.BinaryCrossentropy(from_logits=True)(truth, x), "BinaryCrossentropy"),
    }
    exact = rules.exact_numbers()
    return {
        **{item: precision_of(_array(value), exact[item], what) for item, (value, what) in found.items()},
        "tf32_matmul": absent(NO_SWITCH),
        "tf32_convolution": absent(NO_SWITCH),
    }


def _models() -> dict[str, Probe]:
    convnext = sys.modules[keras.applications.ConvNeXtTiny.__module__]  # what its variants share
    densenet = sys.modules[keras.applications.DenseNet121.__module__]
    image = keras.Input((8, 8, 4))
    block = keras.Model(image, densenet.conv_block(image, 4, "probe"))
    norm = next(layer for layer in block.layers if isinstance(layer, layers.BatchNormalization))
    return {
        "stochastic_depth": rules.signed(convnext.ConvNeXt, "drop_path_rate"),
        "convnext_preprocessing": rules.signed(keras.applications.ConvNeXtTiny, "include_preprocessing"),
        "model_weights": rules.signed(keras.applications.ConvNeXtTiny, "weights"),
        "densenet_norm_epsilon": Probe(
            norm.epsilon, "signature", "the first norm of applications.densenet.conv_block"
        ),
    }


def _tensor(array: Array) -> keras.KerasTensor:
    return ops.convert_to_tensor(array, "float64")


def _array(tensor: keras.KerasTensor) -> Array:
    return np.array(ops.convert_to_numpy(tensor), np.float64)
