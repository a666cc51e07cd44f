"""What PyTorch does when nothing is said, found by looking and by trying. Twin of `keras_impl.defaults`."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from common import rules
from common.framework import Array, Probe
from common.rules import absent, precision_of
from torch_impl.devices import STOCK_TF32
from torch_impl.layer_defaults import probe_layers
from torch_impl.training_defaults import probe_training

NO_MODELS = "PyTorch itself has no such models; they are in torchvision"


def probe_defaults() -> dict[str, Probe]:
    """What this framework does unless told otherwise (`common.atlas.ITEMS` -> probe).

    The process must be configured for a CPU and float64. Takes seconds; draws random numbers.
    """
    return probe_layers() | probe_training() | _precision() | _models()


def _precision() -> dict[str, Probe]:
    x, picture = _tensor(rules.NUMBERS), _tensor(rules.NUMBERS.reshape(1, 1, *rules.NUMBERS.shape))
    truth = _tensor(rules.TRUTH)
    found = {
        "float64_constant": (
            torch.tensor(rules.CONSTANT, dtype=torch.float64),
            "torch.tensor of a Python number",
        ),
        "float64_mean": (torch.mean(x, 1), "torch.mean"),
        "float64_variance": (torch.var(x, 1, correction=0), "torch.var"),
        "float64_erf": (torch.erf(x), "torch.erf"),
        "float64_gelu": (nn.GELU()(x), "GELU"),
        "float64_softplus": (functional.softplus(x), "functional.softplus"),
        "float64_matmul": (torch.matmul(x, x), "torch.matmul"),
        "float64_layer_norm": (nn.LayerNorm(x.shape[1], eps=1e-5)(x), "LayerNorm"),
        "float64_batch_norm": (nn.BatchNorm2d(1, eps=1e-5)(picture), "BatchNorm2d"),
        "float64_loss": (functional.binary_cross_entropy_with_logits(x, truth), "BCEWithLogitsLoss"),
    }
    exact = rules.exact_numbers()
    return {
        **{item: precision_of(_array(value), exact[item], what) for item, (value, what) in found.items()},
        "tf32_matmul": Probe(STOCK_TF32[0], "signature", "backends.cuda.matmul.allow_tf32"),
        "tf32_convolution": Probe(STOCK_TF32[1], "signature", "backends.cudnn.allow_tf32"),
    }


def _models() -> dict[str, Probe]:
    return {
        "stochastic_depth": absent(NO_MODELS),
        "convnext_preprocessing": absent(NO_MODELS),
        "model_weights": absent(NO_MODELS),
        "densenet_norm_epsilon": absent(NO_MODELS),
    }


def _tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.array(array, np.float64))


def _array(tensor: torch.Tensor) -> Array:
    return tensor.detach().numpy().astype(np.float64)
