"""Arrays in and out, device, threads, seed, environment. Twin of `keras_impl.tensors`."""

import random

import numpy as np
import torch
from torch import nn

from common.errors import StudyError
from common.framework import Array, Settings, Weights
from common.weights import check_weights

_device = torch.device("cpu")  # set by `configure`, once a process


def name() -> str:
    """`torch`."""
    return "torch"


def configure(settings: Settings) -> str:
    """Fix device, precision, threads and seed; returns the device that is used, "cpu" or "cuda".

    Raises StudyError if a CUDA device is asked for and there is none.
    """
    global _device  # noqa: PLW0603 - one process runs one framework on one device
    available = torch.cuda.is_available()
    if settings.device == "cuda" and not available:
        raise StudyError("device 'cuda' was asked for, but PyTorch sees no CUDA device; use --device cpu")
    torch.set_num_threads(settings.threads)
    torch.set_default_dtype(getattr(torch, settings.precision))
    random.seed(settings.seed)
    np.random.seed(settings.seed)  # noqa: NPY002 - for third-party code; ours draws from common.random_numbers
    torch.manual_seed(settings.seed)
    _device = torch.device("cuda" if available and settings.device != "cpu" else "cpu")
    return _device.type


def environment() -> dict[str, str]:
    """Versions and settings that a reader needs to repeat a run."""
    return {
        "framework": f"PyTorch {torch.__version__}",
        "torch": torch.__version__,
        "backend": f"CUDA {torch.version.cuda}" if _device.type == "cuda" else "CPU",
        "compilation": "eager",
        "memory_layout": "channels_last",
    }


def to_device(model: nn.Module) -> nn.Module:
    """The model on the configured device, its memory channels-last."""
    model.to(_device, torch.get_default_dtype())
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def to_tensor(array: Array) -> torch.Tensor:
    """The array on the configured device, in the configured precision."""
    return torch.from_numpy(array).to(_device, torch.get_default_dtype(), non_blocking=True)


def to_array(tensor: torch.Tensor) -> Array:
    """The values on the host, in float64."""
    return tensor.detach().to("cpu", torch.float64).numpy()


def read_weights(model: nn.Module) -> dict[str, Array]:
    """A copy of every parameter and statistic, under PyTorch names and layout."""
    state = model.state_dict()
    return {
        key: value.detach().cpu().contiguous().numpy().copy()
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }


def write_weights(model: nn.Module, weights: Weights) -> None:
    """Set every parameter and statistic. Raises StudyError unless names and shapes are exactly the model's."""
    check_weights(weights, {key: array.shape for key, array in read_weights(model).items()})
    state = model.state_dict()
    with torch.no_grad():
        for key, array in weights.items():
            state[key].copy_(torch.from_numpy(np.ascontiguousarray(array)))


def synchronise() -> None:
    """Return when the device has finished all work given to it."""
    if _device.type == "cuda":
        torch.cuda.synchronize(_device)
