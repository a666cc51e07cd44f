"""U-Net: down to small maps and up again, each size given the maps of the way down (Ronneberger et al. 2015).

Images (N, S, S, C) -> logits (N, S, S, outputs), S divisible by 2 ** (len(features) - 1). Departs from the paper: the
convolutions are padded, so that logits are as large as the image, and each is followed by BatchNorm.
"""

from itertools import pairwise

import keras

from common.config import UnetSpec
from keras_impl import layers


class Unet(keras.Model):
    def __init__(self, spec: UnetSpec) -> None:
        super().__init__(name=spec.name)
        self.spec = spec
        self.frozen = False  # True: all before the last layer is in evaluation mode, even in training
        down = list(pairwise((spec.channels, *spec.features)))
        up = list(pairwise(reversed(spec.features)))
        self.encoder = [
            _DoubleConvolution(spec, inputs, outputs, name=f"encoder.{level}")
            for level, (inputs, outputs) in enumerate(down)
        ]
        self.up = [
            layers.transposed_convolution(inputs, outputs, name=f"up.{level}")
            for level, (inputs, outputs) in enumerate(up)
        ]
        self.decoder = [
            _DoubleConvolution(spec, 2 * outputs, outputs, name=f"decoder.{level}")
            for level, (_, outputs) in enumerate(up)
        ]
        self.head = layers.convolution(spec.features[0], spec.outputs, 1, name="head")

    def call(self, images: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        learning = bool(training) and not self.frozen
        x = layers.from_channels_last(images)
        kept: list[keras.KerasTensor] = []
        for encode in self.encoder:  # each but the first at half the size of the one before
            x = encode(layers.max_pool(x) if kept else x, training=learning)
            kept.append(x)
        # (N, H, W, F) -> (N, 2H, 2W, F')
        for up, decode, skip in zip(self.up, self.decoder, reversed(kept[:-1]), strict=True):
            x = decode(layers.concatenate([skip, up(x)]), training=learning)
        return layers.to_channels_last(layers.logits(self.head, x))  # (N, S, S, outputs)


class _DoubleConvolution(layers.Part):
    """(N, H, W, F) -> (N, H, W, F'): twice a 3x3 convolution, BatchNorm and ReLU."""

    def __init__(self, spec: UnetSpec, inputs: int, outputs: int, *, name: str) -> None:
        super().__init__(name)
        norm = spec.norm_decay, spec.norm_epsilon, spec.norm_variance
        self.conv1 = layers.convolution(inputs, outputs, 3, bias=spec.conv_bias, name=f"{name}.conv1")
        self.norm1 = layers.batch_norm(outputs, *norm, name=f"{name}.norm1")
        self.conv2 = layers.convolution(outputs, outputs, 3, bias=spec.conv_bias, name=f"{name}.conv2")
        self.norm2 = layers.batch_norm(outputs, *norm, name=f"{name}.norm2")

    def call(self, x: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        x = layers.relu(self.norm1(self.conv1(x), training=training))
        return layers.relu(self.norm2(self.conv2(x), training=training))
