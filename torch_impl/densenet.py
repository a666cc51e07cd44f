"""DenseNet: every layer of a block sees the maps of all layers before it (Huang et al. 2017, DenseNet-BC, table 1).

Images (N, S, S, C) -> logits (N, outputs), S at least 32. Tensor names are those of timm's `densenet121`. Departs from
the paper in its dropout, which stands only before the last layer.
"""

import torch
from torch import nn

from common.config import DenseNetSpec
from torch_impl import layers


class DenseNet(nn.Module):
    def __init__(self, spec: DenseNetSpec) -> None:
        super().__init__()
        self.spec = spec
        self.frozen = False  # True: all before the dropout is in evaluation mode, even in training
        norm = spec.norm_decay, spec.norm_epsilon, spec.norm_variance
        channels = spec.stem_features
        features: dict[str, nn.Module] = {
            "conv0": layers.convolution(
                spec.channels, channels, 7, stride=2, sides=spec.padding, bias=False, name="features.conv0"
            ),
            "norm0": layers.batch_norm(channels, *norm, name="features.norm0"),
        }
        for block, depth in enumerate(spec.blocks, start=1):
            name = f"features.denseblock{block}"
            features[f"denseblock{block}"] = nn.ModuleDict(
                {
                    f"denselayer{layer + 1}": _DenseLayer(
                        spec, channels + layer * spec.growth, name=f"{name}.denselayer{layer + 1}"
                    )
                    for layer in range(depth)
                }
            )
            channels += depth * spec.growth
            if block < len(spec.blocks):
                features[f"transition{block}"] = _Transition(
                    spec, channels, name=f"features.transition{block}"
                )
                channels //= 2
        features["norm5"] = layers.batch_norm(channels, *norm, name="features.norm5")
        self.features = nn.ModuleDict(features)
        self.dropout = layers.dropout(spec.dropout, channels, spec.shared_masks, name="dropout")
        self.classifier = layers.dense(channels, spec.outputs, stock=spec.stock_layers, name="classifier")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features
        if self.frozen:
            features.eval()
        x = layers.from_channels_last(images)
        x = layers.relu(features["norm0"](features["conv0"](x)))  # (N, S/2, S/2, F)
        x = layers.max_pool(x, size=3, stride=2, padding=1, sides=self.spec.padding)  # (N, S/4, S/4, F)
        for block in range(1, len(self.spec.blocks) + 1):
            for layer in features[f"denseblock{block}"].values():  # type: ignore[operator]
                x = layer(x)
            if block < len(self.spec.blocks):
                x = features[f"transition{block}"](x)  # halves size and channels
        x = layers.global_average_pool(layers.relu(features["norm5"](x)))  # (N, F')
        return layers.logits(self.classifier, self.dropout(x))  # (N, outputs)


class _DenseLayer(layers.Part):
    """(N, H, W, F) -> (N, H, W, F + growth): the layer's own maps after those that it was given."""

    def __init__(self, spec: DenseNetSpec, channels: int, *, name: str) -> None:
        super().__init__(name)
        norm = spec.norm_decay, spec.norm_epsilon, spec.norm_variance
        narrow = spec.bottleneck * spec.growth
        self.norm1 = layers.batch_norm(channels, *norm, name=f"{name}.norm1")
        self.conv1 = layers.convolution(channels, narrow, 1, bias=False, name=f"{name}.conv1")
        self.norm2 = layers.batch_norm(narrow, *norm, name=f"{name}.norm2")
        self.conv2 = layers.convolution(narrow, spec.growth, 3, bias=False, name=f"{name}.conv2")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(layers.relu(self.norm1(x)))
        y = self.conv2(layers.relu(self.norm2(y)))
        return layers.concatenate([x, y])


class _Transition(layers.Part):
    """(N, H, W, F) -> (N, H/2, W/2, F/2)."""

    def __init__(self, spec: DenseNetSpec, channels: int, *, name: str) -> None:
        super().__init__(name)
        norm = spec.norm_decay, spec.norm_epsilon, spec.norm_variance
        self.norm = layers.batch_norm(channels, *norm, name=f"{name}.norm")
        self.conv = layers.convolution(channels, channels // 2, 1, bias=False, name=f"{name}.conv")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return layers.average_pool(self.conv(layers.relu(self.norm(x))))
