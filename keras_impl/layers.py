"""The only place where a framework's layer default is set or overridden. Twin of `torch_impl.layers`.

Every function has the same name, parameters and meaning there. Tensors inside a model are channels last; `flatten`
runs in (height, width, channel) order in both, so that dense weights can be carried over. Starting values do not
matter here: they come from `common.weights`.
"""

import keras
from keras import ops


def convolution(in_channels: int, out_channels: int, kernel_size: int, *, name: str) -> keras.Layer:
    """Convolution with bias, stride 1, output as large as the input (odd kernels: equal padding on both sides)."""
    del in_channels  # read from the input
    return keras.layers.Conv2D(
        out_channels, kernel_size, padding="same", data_format="channels_last", name=_keras_name(name)
    )


def dense(in_features: int, out_features: int, *, name: str) -> keras.Layer:
    """Fully connected layer with bias."""
    del in_features
    # `Dense` multiplies by `ops.matmul`, which on the torch backend computes float64 operands in float32
    return keras.layers.EinsumDense("ni,io->no", out_features, bias_axes="o", name=_keras_name(name))


def dropout(rate: float, *, name: str) -> keras.Layer:
    """Zeroes a share `rate` of the values in training and scales the rest by 1 / (1 - rate)."""
    return keras.layers.Dropout(rate, name=_keras_name(name))


def relu(x: keras.KerasTensor) -> keras.KerasTensor:
    return ops.relu(x)


def max_pool(x: keras.KerasTensor) -> keras.KerasTensor:
    """Largest value of each 2x2 window; an odd last row or column is dropped."""
    return ops.max_pool(x, 2, strides=2, padding="valid", data_format="channels_last")


def from_channels_last(images: keras.KerasTensor) -> keras.KerasTensor:
    """(N, H, W, C) as the framework's own axis order."""
    return images


def flatten(x: keras.KerasTensor) -> keras.KerasTensor:
    """(N, H * W * C), values in the order height, width, channel."""
    return ops.reshape(x, (x.shape[0] or -1, x.shape[1] * x.shape[2] * x.shape[3]))


def _keras_name(name: str) -> str:
    """PyTorch's dotted name as Keras can take it: on its torch backend a name must not contain a dot."""
    return name.replace(".", "-")
