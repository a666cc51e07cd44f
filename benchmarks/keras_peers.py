"""The Keras models that a user would pick instead: those of `keras.applications`, the public CNN as a `Sequential`, and
a U-Net as it is usually written. Images are (N, H, W, C), everything else as it comes.
"""

from __future__ import annotations

from itertools import pairwise

import keras
from keras import layers

from common.config import CnnSpec


def create(peer: str, outputs: int, image_size: int, features: tuple[int, ...]) -> keras.Model:
    """The model of a peer: `cnn`, `unet`, `densenet121`, `convnext_tiny`."""
    shape = (image_size, image_size, 3)
    if peer == "cnn":
        return plain_cnn(CnnSpec(), shape)
    if peer == "unet":
        return plain_unet(features, image_size)
    build = keras.applications.DenseNet121 if peer == "densenet121" else keras.applications.ConvNeXtTiny
    return build(weights=None, classes=outputs, input_shape=shape)


def plain_cnn(spec: CnnSpec, shape: tuple[int, int, int]) -> keras.Model:
    """The CNN of the public two-class project."""
    model = keras.Sequential([keras.Input(shape)])
    for width in spec.features:
        model.add(layers.Conv2D(width, 3, padding="same", activation="relu"))
        model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dense(spec.hidden, activation="relu"))
    model.add(layers.Dropout(spec.dropout))
    model.add(layers.Dense(1, activation="sigmoid"))
    return model


def plain_unet(features: tuple[int, ...], image_size: int) -> keras.Model:
    """U-Net (Ronneberger et al. 2015), padded and with batch norm."""
    inputs = x = keras.Input((image_size, image_size, 1))
    skips = []
    for width in features[:-1]:
        x = _double_conv(x, width)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = _double_conv(x, features[-1])
    for (_, width), skip in zip(pairwise(features[::-1]), reversed(skips), strict=True):
        x = layers.Conv2DTranspose(width, 2, strides=2)(x)
        x = _double_conv(layers.Concatenate()([skip, x]), width)
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(x))


def _double_conv(x: keras.KerasTensor, width: int) -> keras.KerasTensor:
    for _ in range(2):
        x = layers.Conv2D(width, 3, padding="same")(x)
        x = layers.BatchNormalization()(x)
        x = layers.Activation("relu")(x)
    return x
