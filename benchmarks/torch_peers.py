"""The PyTorch models that a user would pick instead: those of timm, MONAI and segmentation_models_pytorch, and the
plain CNN and U-Net as they are written in tutorials. Images are (N, C, H, W), everything else as it comes.
"""

from __future__ import annotations

import importlib
import sys
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from common.config import CnnSpec, UnetSpec


def create(peer: str, outputs: int, image_size: int, features: tuple[int, ...]) -> nn.Module:
    """The model of a peer: `cnn`, `unet`, `densenet121`, `convnext_tiny` (timm), `monai`, `smp`."""
    if peer == "cnn":
        return plain_cnn(CnnSpec(), image_size)
    if peer == "unet":
        return PlainUnet(features)
    if peer == "monai":
        nets: Any = importlib.import_module("monai.networks.nets")
        # `BasicUNet` takes the widths of the way down and that of the last maps on the way up
        return nets.BasicUNet(
            spatial_dims=2, in_channels=1, out_channels=1, features=(*features, features[0])
        )
    declare_torchvision()
    if peer == "smp":
        smp: Any = importlib.import_module("segmentation_models_pytorch")
        return smp.Unet("resnet34", encoder_weights=None, in_channels=1, classes=1)
    timm: Any = importlib.import_module("timm")
    return timm.create_model(peer, pretrained=False, num_classes=outputs)


def declare_torchvision() -> None:
    """Make `import torchvision` work beside a build of PyTorch for which its compiled operators are not made.

    timm and segmentation_models_pytorch import torchvision, whose models are plain Python. It fails at import only
    because it describes two operators on boxes that its compiled part would have brought: they are declared instead.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)
        importlib.import_module("torchvision")


_kept: list[Any] = []  # a library's definitions end with it


def plain_cnn(spec: CnnSpec, image_size: int) -> nn.Sequential:
    """The CNN of the public two-class project: (convolution, ReLU, max-pool) x stages, then two dense layers."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((spec.channels, *spec.features)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    side = image_size // 2 ** len(spec.features)
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(spec.features[-1] * side**2, spec.hidden),
        nn.ReLU(),
        nn.Dropout(spec.dropout),
        nn.Linear(spec.hidden, 1),
    )


class PlainUnet(nn.Module):
    """U-Net (Ronneberger et al. 2015) as it is usually written, padded and with batch norm."""

    def __init__(self, features: tuple[int, ...] = UnetSpec().features) -> None:
        super().__init__()
        self.downs, self.ups, self.decoders = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for inputs, outputs in pairwise((1, *features)):
            self.downs.append(_double_conv(inputs, outputs))
        for inputs, outputs in pairwise(features[::-1]):
            self.ups.append(nn.ConvTranspose2d(inputs, outputs, 2, stride=2))
            self.decoders.append(_double_conv(2 * outputs, outputs))
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(features[0], 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for down in self.downs[:-1]:
            x = down(x)
            skips.append(x)
            x = self.pool(x)
        x = self.downs[-1](x)
        for up, decoder, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            x = decoder(torch.cat([skip, up(x)], dim=1))
        return self.head(x)


def _double_conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
