"""Which class builds which model spec."""

import keras

from common.config import ModelSpec
from keras_impl import tensors
from keras_impl.cnn import Cnn

MODELS = {"cnn": Cnn}


def build(spec: ModelSpec) -> keras.Model:
    """A model that maps (N, H, W, C) images to (N, outputs) logits; its weights are not meant to be used."""
    return tensors.to_device(MODELS[spec.name](spec))
