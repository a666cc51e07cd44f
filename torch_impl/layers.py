"""The only place where a framework's layer default is set or overridden. Twin of `keras_impl.layers`.

Every function has the same name, parameters and meaning there. Tensors inside a model are channels first with
channels-last memory; `flatten` runs in (height, width, channel) order in both, so that dense weights can be carried
over. Starting values are PyTorch's own; outside the native lane those of `common.weights` replace them.

Both lanes stand side by side: a parameter whose values are told apart by a word (`sides`, `variance`, `order`, `stock`)
has the aligned form first and a framework's own second. PyTorch's layers are stock in both.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from common.random_numbers import keep_mask
from torch_impl.replicas import Dropout, own_rows, parts, summed
from torch_impl.tensors import to_tensor


class Part(nn.Module):
    """Layers under one name, which begins the names of theirs."""

    def __init__(self, name: str) -> None:
        super().__init__()
        del name  # the attribute names the part


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
) -> nn.Module:
    """Convolution with `padding` zeros on all four sides; as many as keep the size (odd kernels) unless given.

    `sides` "same" pads as Keras does where a stride leaves an odd number of zeros: one more at the bottom and right.
    """
    del name  # the attribute names the layer
    padding = kernel_size // 2 if padding is None else padding
    if sides == "same":
        return _SameConvolution(in_channels, out_channels, kernel_size, stride, bias=bias)
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=bias)


def depthwise_convolution(channels: int, kernel_size: int, *, stock: bool = False, name: str) -> nn.Module:
    """Convolution of each channel with a kernel of its own, with bias, stride 1, output as large as the input."""
    del name, stock
    return nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)


def transposed_convolution(in_channels: int, out_channels: int, *, name: str) -> nn.Module:
    """Each pixel becomes 2x2 pixels: a transposed convolution, 2x2 with stride 2, with bias."""
    del name
    return nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)


def dense(in_features: int, out_features: int, *, stock: bool = False, name: str) -> nn.Module:
    """Fully connected layer with bias over the channels: of (N, C), or of each pixel of an image."""
    del name, stock
    return _Dense(in_features, out_features)


def batch_norm(
    features: int, decay: float, epsilon: float, variance: str = "unbiased", *, name: str
) -> nn.Module:
    """Batch normalisation (Ioffe & Szegedy 2015) of each channel over batch and pixels.

    Training divides by the biased variance of the batch, and moves the statistics by 1 - `decay` towards the batch's
    mean and unbiased variance, n / (n - 1) as large; `variance` "biased" is Keras's own rule. The batch is the whole
    one, where several devices share it.
    """
    del name
    kind = _BiasedBatchNorm if variance == "biased" else _BatchNorm
    return kind(features, eps=epsilon, momentum=1 - decay)


def layer_norm(features: int, epsilon: float, *, stock: bool = False, name: str) -> nn.Module:
    """Layer normalisation (Ba et al. 2016) over the channels: of (N, C), or of each pixel of an image."""
    del name, stock
    return _LayerNorm(features, eps=epsilon)


def layer_scale(features: int, owner: nn.Module, *, name: str) -> torch.Tensor:
    """A factor for each channel (Touvron et al. 2021, LayerScale), a parameter of `owner` itself; see `scale`."""
    del owner, name
    return nn.Parameter(torch.ones(features))


# --- layers without weights ---------------------------------------------------------------------------------------


def dropout(rate: float, features: int, samples: int = 0, *, name: str) -> nn.Module:
    """Zeroes a share `rate` of the values of (N, features) in training and scales the rest by 1 / (1 - rate).

    With `samples` the masks of batches of that size are handed over by `set_masks`; 0: PyTorch draws them.
    """
    return _SharedMask(rate, (samples, features), name) if samples and rate else Dropout(rate)


def stochastic_depth(rate: float, samples: int = 0, *, name: str) -> nn.Module:
    """Zeroes whole samples with probability `rate` in training and scales the rest by 1 / (1 - rate).

    On the branch of a residual block it skips the block (Huang et al. 2016). `samples` as in `dropout`.
    """
    return _SharedMask(rate, (samples, 1, 1, 1), name) if samples and rate else _StochasticDepth(rate)


def set_masks(model: nn.Module, key: tuple[str | int, ...]) -> None:
    """Hand the masks of a step to every layer that does not draw its own; `key` is that of the batch."""
    for layer in model.modules():
        if isinstance(layer, _SharedMask):
            layer.mask = own_rows(to_tensor(keep_mask(layer.shape, layer.rate, *key, layer.name)))


def logits(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The last layer's output, in float32 even where the others compute in bfloat16: logits of 8 bits would tie."""
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.to(torch.get_default_dtype()))


def relu(x: torch.Tensor) -> torch.Tensor:
    """Positive values as they are, others 0. Writes over `x`, which no layer of ours needs after its ReLU."""
    return functional.relu(x, inplace=True)


def gelu(x: torch.Tensor, stock: bool = False) -> torch.Tensor:
    """x times the normal distribution function of x, exactly, not by tanh (Hendrycks & Gimpel 2016)."""
    del stock
    return functional.gelu(x)


def scale(x: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Each channel of an image times its factor, (C,)."""
    return x * factors.to(x.dtype)[:, None, None]


def max_pool(
    x: torch.Tensor, size: int = 2, stride: int = 2, padding: int = 0, sides: str = "symmetric"
) -> torch.Tensor:
    """Largest value of each window. Windows must fit: unpadded, an odd last row or column is dropped.

    `sides` as in `convolution`.
    """
    if sides == "same":
        return functional.max_pool2d(_pad_same(x, size, stride, -torch.inf), size, stride)
    return functional.max_pool2d(x, size, stride, padding)


def average_pool(x: torch.Tensor) -> torch.Tensor:
    """Mean of each 2x2 window; an odd last row or column is dropped."""
    return functional.avg_pool2d(x, 2)


def global_average_pool(x: torch.Tensor) -> torch.Tensor:
    """Mean of each channel over all pixels, (N, C)."""
    return x.mean(dim=(2, 3))


def concatenate(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The channels of all parts, in their order."""
    return torch.cat(list(parts), dim=1)


def from_channels_last(images: torch.Tensor) -> torch.Tensor:
    """(N, H, W, C) as the framework's own axis order; a view, memory stays channels-last."""
    return images.permute(0, 3, 1, 2)


def to_channels_last(x: torch.Tensor) -> torch.Tensor:
    """Inverse of `from_channels_last`."""
    return x.permute(0, 2, 3, 1)


def flatten(x: torch.Tensor, order: str = "channels_last") -> torch.Tensor:
    """(N, H * W * C), values in the order height, width, channel; or "channels_first": channel, height, width."""
    if order == "channels_first":
        return x.flatten(1)
    return x.permute(0, 2, 3, 1).flatten(1)


class _Dense(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class _LayerNorm(nn.LayerNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x.movedim(1, -1)).movedim(-1, 1)
        return y.to(x.dtype)  # on CUDA alone PyTorch leaves bfloat16 here


class _SameConvolution(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(_pad_same(x, self.kernel_size[0], self.stride[0], 0.0))


class _BatchNorm(nn.BatchNorm2d):
    """PyTorch's own, but over the whole batch where several devices share it. Its SyncBatchNorm needs GPUs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, variance = self.running_mean, self.running_var
        if not self.training or parts() == 1 or mean is None or variance is None or self.momentum is None:
            return super().forward(x)
        wide, n = x.to(self.weight.dtype), parts() * (x.numel() // x.shape[1])
        batch_mean = summed(wide.sum((0, 2, 3))) / n
        centred = wide - batch_mean[:, None, None]
        batch_variance = summed(centred.square().sum((0, 2, 3))) / n
        with torch.no_grad():
            mean.lerp_(batch_mean, self.momentum)
            variance.lerp_(batch_variance * (n / (n - 1)), self.momentum)
        factor = self.weight * torch.rsqrt(batch_variance + self.eps)
        return (centred * factor[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class _BiasedBatchNorm(nn.BatchNorm2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        variance, share = self.running_var, self.momentum
        if not self.training or variance is None or share is None:
            return super().forward(x)
        kept, n = (1 - share) * variance, x.numel() // x.shape[1]
        y = super().forward(x)
        variance.data -= (variance.data - kept) / n  # what was added is n / (n - 1) as large as it should be
        return y


class _SharedMask(nn.Module):
    """Multiplies by a mask that was handed over, in training."""

    def __init__(self, rate: float, shape: tuple[int, ...], name: str) -> None:
        super().__init__()
        self.rate, self.shape, self.name = rate, shape, name
        self.mask = torch.ones(shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.mask if self.training else x


class _StochasticDepth(nn.Module):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return x
        # Of the whole batch, on every device that shares it; not in bfloat16, which rounds the rate
        draws = own_rows(torch.rand((parts() * len(x), 1, 1, 1), device=x.device))
        kept = draws >= self.rate
        return x * kept / (1 - self.rate)


def _pad_same(x: torch.Tensor, size: int, stride: int, value: float) -> torch.Tensor:
    """(N, C, H, W) padded as Keras's "same" does: as many as the last window needs, the odd one at the far end."""
    around: list[int] = []
    for length in reversed(x.shape[2:]):  # the last axis first
        needed = max((-(-length // stride) - 1) * stride + size - length, 0)
        around += [needed // 2, needed - needed // 2]
    return functional.pad(x, around, value=value)
