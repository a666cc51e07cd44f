"""Which class builds which model spec."""

from typing import Any

import keras

from common.config import ModelSpec
from keras_impl import tensors
from keras_impl.cnn import Cnn
from keras_impl.convnext import ConvNext
from keras_impl.densenet import DenseNet
from keras_impl.unet import Unet

MODELS: dict[str, Any] = {"cnn": Cnn, "densenet121": DenseNet, "convnext_tiny": ConvNext, "unet": Unet}


def build(spec: ModelSpec) -> keras.Model:
    """A model that maps (N, H, W, C) images to logits; its weights are those of the framework's own initialisers.

    Logits are (N, outputs), those of a U-Net (N, H, W, outputs).
    """
    return tensors.to_device(MODELS[spec.name](spec))
