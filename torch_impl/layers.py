"""The only place where a framework's layer default is set or overridden. Twin of `keras_impl.layers`.

Every function has the same name, parameters and meaning there. Tensors inside a model are channels first with
channels-last memory; `flatten` runs in (height, width, channel) order in both, so that dense weights can be carried
over. Starting values do not matter here: they come from `common.weights`.
"""

import torch
from torch import nn
from torch.nn import functional


def convolution(in_channels: int, out_channels: int, kernel_size: int, *, name: str) -> nn.Module:
    """Convolution with bias, stride 1, output as large as the input (odd kernels: equal padding on both sides)."""
    del name  # the attribute names the layer
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)


def dense(in_features: int, out_features: int, *, name: str) -> nn.Module:
    """Fully connected layer with bias."""
    del name
    return nn.Linear(in_features, out_features)


def dropout(rate: float, *, name: str) -> nn.Module:
    """Zeroes a share `rate` of the values in training and scales the rest by 1 / (1 - rate)."""
    del name
    return nn.Dropout(rate)


def relu(x: torch.Tensor) -> torch.Tensor:
    return functional.relu(x)


def max_pool(x: torch.Tensor) -> torch.Tensor:
    """Largest value of each 2x2 window; an odd last row or column is dropped."""
    return functional.max_pool2d(x, 2)


def from_channels_last(images: torch.Tensor) -> torch.Tensor:
    """(N, H, W, C) as the framework's own axis order; a view, memory stays channels-last."""
    return images.permute(0, 3, 1, 2)


def flatten(x: torch.Tensor) -> torch.Tensor:
    """(N, H * W * C), values in the order height, width, channel."""
    return x.permute(0, 2, 3, 1).flatten(1)
