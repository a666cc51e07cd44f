"""Small models with known weights and images, the same in every process. Knows no framework."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from common.config import CnnSpec, ConvNextSpec, DenseNetSpec, ModelSpec, UnetSpec
from common.random_numbers import generator

# Sizes that leave an odd row and column at the first pool, the last average pool and the last downsampling
SPECS: dict[str, ModelSpec] = {
    "cnn": CnnSpec(image_size=18, features=(3, 5), hidden=7, dropout=0.0),
    "densenet121": DenseNetSpec(
        image_size=36, stem_features=6, blocks=(2, 1), growth=4, bottleneck=2, outputs=3
    ),
    "convnext_tiny": ConvNextSpec(
        image_size=36, depths=(1, 2), features=(6, 10), stochastic_depth=0.0, outputs=3
    ),
    "unet": UnetSpec(image_size=16, features=(3, 5, 8)),
}
# As published, beside keras.applications
FULL_SIZE: dict[str, ModelSpec] = {
    "densenet121": DenseNetSpec(image_size=64, outputs=5, norm_epsilon=1.001e-5),  # as there
    "convnext_tiny": ConvNextSpec(image_size=64, outputs=5),
}
BATCH = 3


def images_of(spec: ModelSpec, count: int = BATCH) -> NDArray[np.float32]:
    """(count, S, S, C), standard normal."""
    shape = (count, spec.image_size, spec.image_size, spec.channels)
    return generator("models", "images", spec.name).standard_normal(shape).astype(np.float32)


def faint_image_of(spec: ModelSpec) -> NDArray[np.float32]:
    """One image of a hundredth of the usual contrast: the epsilon of the first layer norm is not lost in it."""
    return 0.01 * images_of(spec, 1)


def weights_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[np.float32]]:
    """Every tensor drawn under its name: kernels keep the variance, no scale is 1, no bias or statistic is 0."""
    return {name: _tensor(name, shape) for name, shape in shapes.items()}


def _tensor(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    source = generator("models", "weights", name)
    if len(shape) > 1:
        numbers = source.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
    elif name.rsplit(".", 1)[-1] in {"weight", "running_var", "gamma"}:
        numbers = source.uniform(0.5, 1.5, shape)
    else:
        numbers = 0.2 * source.standard_normal(shape)
    return numbers.astype(np.float32)


def timm_names(name: str) -> set[str]:
    """Tensors of timm's model file for the full-size model, as its source spells them."""
    if name == "densenet121":
        norm, kernel = ("weight", "bias", "running_mean", "running_var"), ("weight",)
        layers = {"features.conv0": kernel, "features.norm0": norm, "features.norm5": norm}
        for block, depth in enumerate((6, 12, 24, 16), start=1):
            for layer in range(1, depth + 1):
                prefix = f"features.denseblock{block}.denselayer{layer}"
                layers |= {f"{prefix}.norm{i}": norm for i in (1, 2)}
                layers |= {f"{prefix}.conv{i}": kernel for i in (1, 2)}
        for block in (1, 2, 3):
            layers |= {f"features.transition{block}.norm": norm, f"features.transition{block}.conv": kernel}
        layers["classifier"] = ("weight", "bias")
        return {f"{layer}.{kind}" for layer, kinds in layers.items() for kind in kinds}
    names = ["stem.0", "stem.1", "head.norm", "head.fc"]
    names += [f"stages.{stage}.downsample.{i}" for stage in (1, 2, 3) for i in (0, 1)]
    blocks = [f"stages.{stage}.blocks.{b}" for stage, depth in enumerate((3, 3, 9, 3)) for b in range(depth)]
    names += [f"{block}.{layer}" for block in blocks for layer in ("conv_dw", "norm", "mlp.fc1", "mlp.fc2")]
    return {f"{layer}.{kind}" for layer in names for kind in ("weight", "bias")} | {
        f"{block}.gamma" for block in blocks
    }
