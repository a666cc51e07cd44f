"""ConvNeXt: a residual network of depthwise convolutions and pointwise layers (Liu et al. 2022, section 2).

Images (N, S, S, C) -> logits (N, outputs), S at least 32. Tensor names are those of timm's `convnext_tiny`; in the
head the maps are averaged before they are normalised.
"""

import torch
from torch import nn

from common.config import ConvNextSpec
from torch_impl import layers


class ConvNext(nn.Module):
    def __init__(self, spec: ConvNextSpec) -> None:
        super().__init__()
        self.spec = spec
        self.frozen = False  # True: all before the dropout is in evaluation mode, even in training
        first, last, epsilon = spec.features[0], spec.features[-1], spec.norm_epsilon
        stock = spec.stock_layers
        self.stem = nn.ModuleList(
            [
                layers.convolution(spec.channels, first, 4, stride=4, padding=0, name="stem.0"),
                layers.layer_norm(first, epsilon, stock=stock, name="stem.1"),
            ]
        )
        self.stages = nn.ModuleList(
            _Stage(spec, stage, name=f"stages.{stage}") for stage in range(len(spec.depths))
        )
        self.dropout = layers.dropout(spec.dropout, last, spec.shared_masks, name="dropout")
        self.head = nn.ModuleDict(
            {
                "norm": layers.layer_norm(last, epsilon, stock=stock, name="head.norm"),
                "fc": layers.dense(last, spec.outputs, stock=stock, name="head.fc"),
            }
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.frozen:
            self.stages.eval()
        x = layers.from_channels_last(images)
        for layer in self.stem:
            x = layer(x)  # (N, S/4, S/4, F)
        for stage in self.stages:
            x = stage(x)  # (N, H, W, F)
        x = self.head["norm"](layers.global_average_pool(x))  # (N, F')
        return layers.logits(self.head["fc"], self.dropout(x))  # (N, outputs)


class _Stage(layers.Part):
    """Blocks at one size, behind what halves the size; the first stage has the stem for that."""

    def __init__(self, spec: ConvNextSpec, stage: int, *, name: str) -> None:
        super().__init__(name)
        features = spec.features[stage]
        self.downsample = nn.ModuleList()
        if stage > 0:
            before = spec.features[stage - 1]
            self.downsample.extend(
                [
                    layers.layer_norm(
                        before, spec.norm_epsilon, stock=spec.stock_layers, name=f"{name}.downsample.0"
                    ),
                    layers.convolution(before, features, 2, stride=2, padding=0, name=f"{name}.downsample.1"),
                ]
            )
        first, last = sum(spec.depths[:stage]), sum(spec.depths) - 1  # blocks, counted over all stages
        rates = [
            spec.stochastic_depth * (first + block) / max(last, 1) for block in range(spec.depths[stage])
        ]
        self.blocks = nn.ModuleList(
            _Block(spec, features, rate, name=f"{name}.blocks.{block}") for block, rate in enumerate(rates)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.downsample:
            x = layer(x)  # (N, H, W, F) -> (N, H/2, W/2, F')
        for block in self.blocks:
            x = block(x)
        return x


class _Block(layers.Part):
    """(N, H, W, F) -> (N, H, W, F): the input plus a correction of it."""

    def __init__(self, spec: ConvNextSpec, features: int, rate: float, *, name: str) -> None:
        super().__init__(name)
        hidden, stock = spec.expansion * features, spec.stock_layers
        self.stock = stock
        self.conv_dw = layers.depthwise_convolution(
            features, spec.kernel_size, stock=stock, name=f"{name}.conv_dw"
        )
        self.norm = layers.layer_norm(features, spec.norm_epsilon, stock=stock, name=f"{name}.norm")
        self.mlp = nn.ModuleDict(
            {
                "fc1": layers.dense(features, hidden, stock=stock, name=f"{name}.mlp.fc1"),
                "fc2": layers.dense(hidden, features, stock=stock, name=f"{name}.mlp.fc2"),
            }
        )
        self.gamma = layers.layer_scale(features, self, name=f"{name}.gamma")
        self.drop_path = layers.stochastic_depth(rate, spec.shared_masks, name=f"{name}.drop_path")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv_dw(x))
        y = self.mlp["fc2"](layers.gelu(self.mlp["fc1"](y), self.stock))  # (N, H, W, 4F) in between
        return x + self.drop_path(layers.scale(y, self.gamma))
