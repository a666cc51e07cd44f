"""Which class builds which model spec."""

from torch import nn

from common.config import ModelSpec
from torch_impl import tensors
from torch_impl.cnn import Cnn

MODELS = {"cnn": Cnn}


def build(spec: ModelSpec) -> nn.Module:
    """A model that maps (N, H, W, C) images to (N, outputs) logits; its weights are not meant to be used."""
    return tensors.to_device(MODELS[spec.name](spec))
