"""The only place where a framework's layer default is set or overridden. Twin of `keras_impl.layers`.

Every function has the same name, parameters and meaning there. Tensors inside a model are channels first with
channels-last memory; `flatten` runs in (height, width, channel) order in both, so that dense weights can be carried
over. Starting values do not matter here: they come from `common.weights`.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional


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
    bias: bool = True,
    name: str,
) -> nn.Module:
    """Convolution with `padding` zeros on all four sides; as many as keep the size (odd kernels) unless given."""
    del name  # the attribute names the layer
    padding = kernel_size // 2 if padding is None else padding
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=bias)


def depthwise_convolution(channels: int, kernel_size: int, *, name: str) -> nn.Module:
    """Convolution of each channel with a kernel of its own, with bias, stride 1, output as large as the input."""
    del name
    return nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)


def transposed_convolution(in_channels: int, out_channels: int, *, name: str) -> nn.Module:
    """Each pixel becomes 2x2 pixels: a transposed convolution, 2x2 with stride 2, with bias."""
    del name
    return nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)


def dense(in_features: int, out_features: int, *, name: str) -> nn.Module:
    """Fully connected layer with bias over the channels: of (N, C), or of each pixel of an image."""
    del name
    return _Dense(in_features, out_features)


def batch_norm(features: int, decay: float, epsilon: float, *, name: str) -> nn.Module:
    """Batch normalisation (Ioffe & Szegedy 2015) of each channel over batch and pixels.

    Training divides by the biased variance of the batch, and moves the statistics by 1 - `decay` towards the batch's
    mean and unbiased variance, n / (n - 1) as large.
    """
    del name
    return nn.BatchNorm2d(features, eps=epsilon, momentum=1 - decay)


def layer_norm(features: int, epsilon: float, *, name: str) -> nn.Module:
    """Layer normalisation (Ba et al. 2016) over the channels: of (N, C), or of each pixel of an image."""
    del name
    return _LayerNorm(features, eps=epsilon)


def layer_scale(features: int, owner: nn.Module, *, name: str) -> torch.Tensor:
    """A factor for each channel (Touvron et al. 2021, LayerScale), a parameter of `owner` itself; see `scale`."""
    del owner, name
    return nn.Parameter(torch.ones(features))


# --- layers without weights ---------------------------------------------------------------------------------------


def dropout(rate: float, *, name: str) -> nn.Module:
    """Zeroes a share `rate` of the values in training and scales the rest by 1 / (1 - rate)."""
    del name
    return nn.Dropout(rate)


def stochastic_depth(rate: float, *, name: str) -> nn.Module:
    """Zeroes whole samples with probability `rate` in training and scales the rest by 1 / (1 - rate).

    On the branch of a residual block it skips the block (Huang et al. 2016).
    """
    del name
    return _StochasticDepth(rate)


def relu(x: torch.Tensor) -> torch.Tensor:
    return functional.relu(x)


def gelu(x: torch.Tensor) -> torch.Tensor:
    """x times the normal distribution function of x, exactly, not by tanh (Hendrycks & Gimpel 2016)."""
    return functional.gelu(x)


def scale(x: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Each channel of an image times its factor, (C,)."""
    return x * factors[:, None, None]


def max_pool(x: torch.Tensor, size: int = 2, stride: int = 2, padding: int = 0) -> torch.Tensor:
    """Largest value of each window. Windows must fit: unpadded, an odd last row or column is dropped."""
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


def flatten(x: torch.Tensor) -> torch.Tensor:
    """(N, H * W * C), values in the order height, width, channel."""
    return x.permute(0, 2, 3, 1).flatten(1)


class _Dense(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class _LayerNorm(nn.LayerNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class _StochasticDepth(nn.Module):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand((len(x), 1, 1, 1), dtype=x.dtype, device=x.device) >= self.rate
        return x * kept / (1 - self.rate)
