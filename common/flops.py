"""How much arithmetic a model is, counted from its spec alone: no framework, so the same for all.

Counted are the multiply-adds of what has a kernel (convolutions, transposed and depthwise ones, dense layers), one
multiply-add as two floating-point operations (FLOPs), as PyTorch's `FlopCounterMode` does. Biases, norms, activations,
pooling and losses are left out: a percent or two of these models' arithmetic. A training step is taken as three forward
passes, for the backward pass computes the gradient of the inputs and that of the kernels, each as much work as the
forward pass (Kaplan et al. 2020, section 2.1; Hobbhahn & Sevilla 2021).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from common.config import CnnSpec, ConvNextSpec, DenseNetSpec, ModelSpec, UnetSpec

OPERATIONS = 2  # of a multiply-add
TRAINING_PASSES = 3  # forward passes that a training step is worth


@dataclass(frozen=True)
class Work:
    """The forward pass of one image."""

    flops: int
    activations: int  # values put out by the layers with a kernel (Radosavovic et al. 2020, section 3.2)


@dataclass(frozen=True)
class _Layer:
    multiply_adds: int
    values: int  # of its output
    weights: int  # of its kernel


def forward_work(spec: ModelSpec) -> Work:
    """FLOPs and activations of the forward pass of one image, (image_size, image_size, channels)."""
    layers = list(_layers_of(spec))
    return Work(
        OPERATIONS * sum(layer.multiply_adds for layer in layers), sum(layer.values for layer in layers)
    )


def kernel_values(spec: ModelSpec) -> int:
    """How many numbers the kernels of a model hold: nearly all of its weights, and never more."""
    return sum(layer.weights for layer in _layers_of(spec))


def _layers_of(spec: ModelSpec) -> Iterator[_Layer]:
    if isinstance(spec, CnnSpec):
        return _cnn(spec)
    if isinstance(spec, DenseNetSpec):
        return _densenet(spec)
    if isinstance(spec, ConvNextSpec):
        return _convnext(spec)
    return _unet(spec)


def _convolution(side: int, inputs: int, outputs: int, kernel: int, groups: int = 1) -> _Layer:
    """One whose output is (side, side, outputs)."""
    values = side**2 * outputs
    weights = kernel**2 * inputs * outputs // groups
    return _Layer(values * kernel**2 * inputs // groups, values, weights)


def _cnn(spec: CnnSpec) -> Iterator[_Layer]:
    side = spec.image_size
    for inputs, outputs in pairwise((spec.channels, *spec.features)):
        yield _convolution(side, inputs, outputs, spec.kernel_size)
        side //= 2
    for inputs, outputs in pairwise((side**2 * spec.features[-1], spec.hidden, spec.outputs)):
        yield _convolution(1, inputs, outputs, 1)


def _densenet(spec: DenseNetSpec) -> Iterator[_Layer]:
    side, channels, narrow = -(-spec.image_size // 2), spec.stem_features, spec.bottleneck * spec.growth
    yield _convolution(side, spec.channels, channels, 7)
    side = -(-side // 2)  # the max-pool keeps an odd row, the average pools below drop it
    for block, depth in enumerate(spec.blocks, start=1):
        for _ in range(depth):
            yield _convolution(side, channels, narrow, 1)
            yield _convolution(side, narrow, spec.growth, 3)
            channels += spec.growth
        if block < len(spec.blocks):
            yield _convolution(side, channels, channels // 2, 1)
            side, channels = side // 2, channels // 2
    yield _convolution(1, channels, spec.outputs, 1)


def _convnext(spec: ConvNextSpec) -> Iterator[_Layer]:
    side = spec.image_size // 4
    yield _convolution(side, spec.channels, spec.features[0], 4)
    for stage, (depth, features) in enumerate(zip(spec.depths, spec.features, strict=True)):
        if stage:
            side //= 2
            yield _convolution(side, spec.features[stage - 1], features, 2)
        for _ in range(depth):
            yield _convolution(side, features, features, spec.kernel_size, groups=features)
            yield _convolution(side, features, spec.expansion * features, 1)
            yield _convolution(side, spec.expansion * features, features, 1)
    yield _convolution(1, spec.features[-1], spec.outputs, 1)


def _unet(spec: UnetSpec) -> Iterator[_Layer]:
    side = spec.image_size
    for inputs, outputs in pairwise((spec.channels, *spec.features)):
        yield _convolution(side, inputs, outputs, 3)
        yield _convolution(side, outputs, outputs, 3)
        side //= 2
    side *= 2
    for inputs, outputs in pairwise(reversed(spec.features)):
        side *= 2
        yield _convolution(
            side, inputs, outputs, 1
        )  # transposed, 2x2 with stride 2: each output has one input
        yield _convolution(side, 2 * outputs, outputs, 3)
        yield _convolution(side, outputs, outputs, 3)
    yield _convolution(side, spec.features[0], spec.outputs, 1)
