"""The only place where a framework's layer default is set or overridden. Twin of `torch_impl.layers`.

Every function has the same name, parameters and meaning there. Tensors inside a model are channels last; `flatten`
runs in (height, width, channel) order in both, so that dense weights can be carried over. Starting values are Keras's
own; outside the native lane those of `common.weights` replace them.

Both lanes stand side by side: a parameter whose values are told apart by a word (`sides`, `variance`, `order`, `stock`)
has the aligned form first and a framework's own second. What is not stock is written out for a reason: means are sums
divided by counts, and GELU uses `ops.erf`, because `ops.mean`, `ops.var` and `ops.gelu` are in float32 inside on some
backends, whatever the precision asked for.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from common.random_numbers import keep_mask
from keras_impl.replicas import Dropout, own_rows, parts, summed


class Part(keras.Layer):
    """Layers under one name, which begins the names of theirs."""

    def __init__(self, name: str) -> None:
        super().__init__(name=_keras_name(name))


# --- layers with weights ------------------------------------------------------------------------------------------


def convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    padding: int | None = None,
    sides: str = "symmetric",
    bias: bool = True,
    name: str,
) -> keras.Layer:
    """Convolution with `padding` zeros on all four sides; as many as keep the size (odd kernels) unless given.

    `sides` "same" pads as Keras does where a stride leaves an odd number of zeros: one more at the bottom and right.
    """
    del in_channels  # read from the input
    padding = kernel_size // 2 if padding is None else padding
    same = sides == "same" or (stride == 1 and kernel_size == 2 * padding + 1)
    return _Convolution(out_channels, kernel_size, stride, None if same else padding, bias, _keras_name(name))


def depthwise_convolution(channels: int, kernel_size: int, *, stock: bool = False, name: str) -> keras.Layer:
    """Convolution of each channel with a kernel of its own, with bias, stride 1, output as large as the input."""
    if stock:
        return _StockDepthwiseConvolution(
            kernel_size, padding="same", data_format="channels_last", name=_keras_name(name)
        )
    return _DepthwiseConvolution(channels, kernel_size, _keras_name(name))


def transposed_convolution(in_channels: int, out_channels: int, *, name: str) -> keras.Layer:
    """Each pixel becomes 2x2 pixels: a transposed convolution, 2x2 with stride 2, with bias."""
    del in_channels
    return keras.layers.Conv2DTranspose(
        out_channels,
        2,
        strides=2,
        padding="valid",
        data_format="channels_last",
        name=_keras_name(name),
    )


def dense(in_features: int, out_features: int, *, stock: bool = False, name: str) -> keras.Layer:
    """Fully connected layer with bias over the channels: of (N, C), or of each pixel of an image."""
    if stock:
        return keras.layers.Dense(out_features, name=_keras_name(name))
    return _Dense(in_features, out_features, _keras_name(name))


def batch_norm(
    features: int, decay: float, epsilon: float, variance: str = "unbiased", *, name: str
) -> keras.Layer:
    """Batch normalisation (Ioffe & Szegedy 2015) of each channel over batch and pixels.

    Training divides by the biased variance of the batch, and moves the statistics by 1 - `decay` towards the batch's
    mean and unbiased variance, n / (n - 1) as large; `variance` "biased" is Keras's own rule. The batch is the whole
    one, where several devices share it.
    """
    if variance == "biased":
        return keras.layers.BatchNormalization(momentum=decay, epsilon=epsilon, name=_keras_name(name))
    return _BatchNorm(features, decay, epsilon, _keras_name(name))


def layer_norm(features: int, epsilon: float, *, stock: bool = False, name: str) -> keras.Layer:
    """Layer normalisation (Ba et al. 2016) over the channels: of (N, C), or of each pixel of an image."""
    if stock:
        return keras.layers.LayerNormalization(epsilon=epsilon, name=_keras_name(name))
    return _LayerNorm(features, epsilon, _keras_name(name))


def layer_scale(features: int, owner: keras.Layer, *, name: str) -> keras.KerasTensor:
    """A factor for each channel (Touvron et al. 2021, LayerScale), a parameter of `owner` itself; see `scale`."""
    del name  # `gamma`, but Keras calls the scale of its norms so
    return owner.add_weight(shape=(features,), initializer="ones", name="layer_scale")


# --- layers without weights ---------------------------------------------------------------------------------------


def dropout(rate: float, features: int, samples: int = 0, *, name: str) -> keras.Layer:
    """Zeroes a share `rate` of the values of (N, features) in training and scales the rest by 1 / (1 - rate).

    With `samples` the masks of batches of that size are handed over by `set_masks`; 0: Keras draws them.
    """
    if samples and rate:
        return _SharedMask(rate, (samples, features), name)
    return Dropout(rate, name=_keras_name(name))


def stochastic_depth(rate: float, samples: int = 0, *, name: str) -> keras.Layer:
    """Zeroes whole samples with probability `rate` in training and scales the rest by 1 / (1 - rate).

    On the branch of a residual block it skips the block (Huang et al. 2016). `samples` as in `dropout`.
    """
    if samples and rate:
        return _SharedMask(rate, (samples, 1, 1, 1), name)
    # Dropout's own noise shape: one draw a sample
    return Dropout(rate, noise_shape=(None, 1, 1, 1), name=_keras_name(name))


def set_masks(model: keras.Model, key: tuple[str | int, ...]) -> None:
    """Hand the masks of a step to every layer that does not draw its own; `key` is that of the batch."""
    for layer in model._flatten_layers():
        if isinstance(layer, _SharedMask):
            layer.mask.assign(keep_mask(layer.shape, layer.rate, *key, layer.own_name))


def logits(layer: keras.Layer, x: keras.KerasTensor) -> keras.KerasTensor:
    """The last layer's output, in float32 even where the others compute in bfloat16: logits of 8 bits would tie."""
    layer.dtype_policy = keras.config.floatx()
    return layer(x)


def relu(x: keras.KerasTensor) -> keras.KerasTensor:
    return ops.relu(x)


def gelu(x: keras.KerasTensor, stock: bool = False) -> keras.KerasTensor:
    """x times the normal distribution function of x, exactly, not by tanh (Hendrycks & Gimpel 2016)."""
    if stock:
        return keras.activations.gelu(x)
    wide = _widened(x)
    return ops.cast(wide * (0.5 * (1 + ops.erf(wide * math.sqrt(0.5)))), x.dtype)


def scale(x: keras.KerasTensor, factors: keras.KerasTensor) -> keras.KerasTensor:
    """Each channel of an image times its factor, (C,)."""
    return x * factors


def max_pool(
    x: keras.KerasTensor, size: int = 2, stride: int = 2, padding: int = 0, sides: str = "symmetric"
) -> keras.KerasTensor:
    """Largest value of each window. Windows must fit: unpadded, an odd last row or column is dropped.

    `sides` as in `convolution`.
    """
    if sides == "same":
        return ops.max_pool(x, size, strides=stride, padding="same", data_format="channels_last")
    x = _pad(x, padding, -math.inf)
    return ops.max_pool(x, size, strides=stride, padding="valid", data_format="channels_last")


def average_pool(x: keras.KerasTensor) -> keras.KerasTensor:
    """Mean of each 2x2 window; an odd last row or column is dropped."""
    return ops.average_pool(x, 2, strides=2, padding="valid", data_format="channels_last")


def global_average_pool(x: keras.KerasTensor) -> keras.KerasTensor:
    """Mean of each channel over all pixels, (N, C)."""
    return ops.cast(ops.sum(_widened(x), axis=(1, 2)) / (x.shape[1] * x.shape[2]), x.dtype)


def concatenate(parts: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
    """The channels of all parts, in their order."""
    return ops.concatenate(list(parts), axis=-1)


def from_channels_last(images: keras.KerasTensor) -> keras.KerasTensor:
    """(N, H, W, C) as the framework's own axis order."""
    return images


def to_channels_last(x: keras.KerasTensor) -> keras.KerasTensor:
    """Inverse of `from_channels_last`."""
    return x


def flatten(x: keras.KerasTensor, order: str = "channels_last") -> keras.KerasTensor:
    """(N, H * W * C), values in the order height, width, channel; or "channels_first": channel, height, width."""
    if order == "channels_first":
        x = ops.transpose(x, (0, 3, 1, 2))
    return ops.reshape(x, (x.shape[0] or -1, x.shape[1] * x.shape[2] * x.shape[3]))


class _Dense(keras.Layer):
    """Keras's Dense multiplies by `ops.matmul`, which on the torch backend computes float64 operands in float32.

    Pixels are laid out as rows first: TensorFlow's gradient of an einsum over "..." takes 20 times as long.
    """

    def __init__(self, in_features: int, out_features: int, name: str) -> None:
        super().__init__(name=name)
        self.kernel = self.add_weight(
            shape=(in_features, out_features), initializer="glorot_uniform", name="kernel"
        )
        self.bias = self.add_weight(shape=(out_features,), initializer="zeros", name="bias")

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        rows = ops.reshape(x, (-1, x.shape[-1])) if len(x.shape) > 2 else x
        y = ops.einsum("ni,io->no", rows, self.kernel) + self.bias
        return ops.reshape(y, (-1, *x.shape[1:-1], y.shape[-1])) if len(x.shape) > 2 else y


class _Convolution(keras.layers.Conv2D):
    """Keras's own "same" padding (`padding` None) is one-sided where stride and kernel do not fit."""

    def __init__(
        self, features: int, size: int, stride: int, padding: int | None, bias: bool, name: str
    ) -> None:
        super().__init__(
            features,
            size,
            strides=stride,
            padding="same" if padding is None else "valid",
            data_format="channels_last",
            use_bias=bias,
            name=name,
        )
        self.zeros = padding or 0

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return super().call(_pad(x, self.zeros, 0.0))


class _DepthwiseConvolution(keras.Layer):
    """Keras's DepthwiseConv2D, with a kernel whose name tells it from that of a full convolution.

    On JAX and a CPU it is written out, one product a place of the kernel: XLA's gradient of a grouped convolution there
    takes up to 10 s for 384 small maps in float64, this 0.02 s.
    """

    def __init__(self, channels: int, size: int, name: str) -> None:
        super().__init__(name=name)
        self.kernel = self.add_weight(
            shape=(size, size, channels, 1), initializer="glorot_uniform", name="depthwise_kernel"
        )
        on_cpu = "cpu" in str(ops.zeros(()).device).lower()
        self.written_out = keras.backend.backend() == "jax" and on_cpu
        self.bias = self.add_weight(shape=(channels,), initializer="zeros", name="bias")

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        if self.written_out:
            return self._products(x) + self.bias
        y = ops.depthwise_conv(x, self.kernel, padding="same", data_format="channels_last")
        return y + self.bias

    def _products(self, x: keras.KerasTensor) -> keras.KerasTensor:
        size, (height, width) = self.kernel.shape[0], x.shape[1:3]
        around = _pad(x, size // 2, 0.0)
        return sum(
            around[:, i : i + height, j : j + width] * self.kernel[i, j, :, 0]
            for i in range(size)
            for j in range(size)
        )


class _StockDepthwiseConvolution(keras.layers.DepthwiseConv2D):
    """With a kernel whose name tells it from that of a full convolution."""

    def add_weight(self, *arguments: Any, name: str, **settings: Any) -> keras.Variable:
        return super().add_weight(
            *arguments, name="depthwise_kernel" if name == "kernel" else name, **settings
        )


class _BatchNorm(keras.Layer):
    """Keras's own moves the running variance towards the biased variance of the batch."""

    def __init__(self, features: int, decay: float, epsilon: float, name: str) -> None:
        super().__init__(name=name)
        self.decay = decay
        self.epsilon = epsilon
        self.weight = _add_exact(self, features, "ones", "weight")
        self.bias = _add_exact(self, features, "zeros", "bias")
        self.running_mean = _add_exact(self, features, "zeros", "running_mean", trainable=False)
        self.running_var = _add_exact(self, features, "ones", "running_var", trainable=False)

    def call(self, x: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        return ops.cast(self._normalised(_widened(x), training), x.dtype)

    def _normalised(self, x: keras.KerasTensor, training: bool | None) -> keras.KerasTensor:
        alone = parts() == 1 or not training
        if keras.backend.backend() == "tensorflow" and x.dtype == "float32" and alone:
            y, mean, unbiased = self._in_one_kernel(x, bool(training))
        elif not training:
            centred = x - self.running_mean
            return centred * (self.weight * ops.rsqrt(self.running_var + self.epsilon)) + self.bias
        else:
            batch, height, width, _ = ops.shape(x)
            n = ops.cast(parts() * batch * height * width, x.dtype)
            mean = summed(ops.sum(x, axis=(0, 1, 2))) / n
            centred = x - mean
            variance = summed(ops.sum(ops.square(centred), axis=(0, 1, 2))) / n
            y = centred * (self.weight * ops.rsqrt(variance + self.epsilon)) + self.bias
            unbiased = variance * (n / (n - 1))
        if training:
            self._move(self.running_mean, mean)
            self._move(self.running_var, unbiased)
        return y

    def _in_one_kernel(self, x: keras.KerasTensor, training: bool) -> tuple[keras.KerasTensor, ...]:
        """Output, mean and unbiased variance from TensorFlow's own kernel, in half the time; it has no float64."""
        import tensorflow as tf

        known = [] if training else [self.running_mean, self.running_var]
        scale, offset, *statistics = (tf.convert_to_tensor(one) for one in (self.weight, self.bias, *known))
        mean, variance = statistics or ([], [])
        return tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=scale,
            offset=offset,
            mean=mean,
            variance=variance,
            epsilon=self.epsilon,
            is_training=training,
        )[:3]

    def _move(self, statistic: keras.Variable, value: keras.KerasTensor) -> None:
        statistic.assign(statistic * self.decay + ops.stop_gradient(value) * (1 - self.decay))


class _LayerNorm(keras.Layer):
    def __init__(self, features: int, epsilon: float, name: str) -> None:
        super().__init__(name=name)
        self.epsilon = epsilon
        self.weight = _add_exact(self, features, "ones", "weight")
        self.bias = _add_exact(self, features, "zeros", "bias")

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        wide, features = _widened(x), x.shape[-1]
        centred = wide - ops.sum(wide, axis=-1, keepdims=True) / features
        variance = ops.sum(ops.square(centred), axis=-1, keepdims=True) / features
        y = centred * ops.rsqrt(variance + self.epsilon) * self.weight + self.bias
        return ops.cast(y, x.dtype)


class _SharedMask(keras.Layer):
    """Multiplies by a mask that was handed over, in training. The mask is a variable: a traced step reads it anew."""

    def __init__(self, rate: float, shape: tuple[int, ...], name: str) -> None:
        super().__init__(name=_keras_name(name))
        self.rate, self.shape, self.own_name = rate, shape, name
        self.mask = self.add_weight(shape=shape, initializer="ones", trainable=False, name="mask")

    def call(self, x: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        return x * own_rows(self.mask) if training else x


def _add_exact(
    owner: keras.Layer, features: int, initializer: str, name: str, trainable: bool = True
) -> keras.Variable:
    """A parameter or statistic, (features,), that is read in float32 where the layer computes in bfloat16."""
    return owner.add_weight(
        shape=(features,), initializer=initializer, trainable=trainable, autocast=False, name=name
    )


def _widened(x: keras.KerasTensor) -> keras.KerasTensor:
    """bfloat16 as float32, in which statistics and sums are taken; anything else as it is."""
    return ops.cast(x, keras.config.floatx())


def _pad(x: keras.KerasTensor, padding: int, value: float) -> keras.KerasTensor:
    """`padding` rows and columns of a value on all four sides."""
    if padding == 0:
        return x
    around = (padding, padding)
    return ops.pad(x, ((0, 0), around, around, (0, 0)), constant_values=value)


def _keras_name(name: str) -> str:
    """PyTorch's dotted name as Keras can take it: on its torch backend a name must not contain a dot."""
    return name.replace(".", "-")
