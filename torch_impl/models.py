"""Which class builds which model spec."""

from typing import Any

from torch import nn

from common.config import ModelSpec
from torch_impl import tensors
from torch_impl.cnn import Cnn
from torch_impl.convnext import ConvNext
from torch_impl.densenet import DenseNet
from torch_impl.unet import Unet

MODELS: dict[str, Any] = {"cnn": Cnn, "densenet121": DenseNet, "convnext_tiny": ConvNext, "unet": Unet}


def build(spec: ModelSpec) -> nn.Module:
    """A model that maps (N, H, W, C) images to logits; its weights are those of the framework's own initialisers.

    Logits are (N, outputs), those of a U-Net (N, H, W, outputs).
    """
    return tensors.to_device(MODELS[spec.name](spec))
