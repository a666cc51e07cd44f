"""Arrays in and out, precision, threads, seed, environment. Twin of `keras_impl.tensors`."""

import random
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import nn

from common.framework import Array, Settings, Weights
from common.weights import check_weights
from torch_impl import devices, replicas

_in_bfloat16 = False  # set by `configure`, once a process


def name() -> str:
    """`torch`."""
    return "torch"


def configure(settings: Settings) -> str:
    """Fix device, precision, threads and seed; returns the device that is used, "cpu" or "cuda".

    Raises StudyError if a CUDA device is asked for and there is none.
    """
    global _in_bfloat16  # noqa: PLW0603 - one process runs one framework in one precision
    device = devices.choose(settings.device, settings.deterministic)
    replicas.join(settings.devices)
    torch.set_num_threads(settings.threads)
    _in_bfloat16 = settings.precision == "bfloat16"
    # With bfloat16, too, all that is kept is in float32; see `autocast`
    torch.set_default_dtype(torch.float32 if _in_bfloat16 else getattr(torch, settings.precision))
    random.seed(settings.seed)
    np.random.seed(settings.seed)  # noqa: NPY002 - for third-party code; ours draws from common.random_numbers
    torch.manual_seed(settings.seed)
    return device


def environment() -> dict[str, str]:
    """Versions and settings that a reader needs to repeat a run."""
    return {
        "framework": f"PyTorch {torch.__version__}",
        "torch": torch.__version__,
        "backend": f"CUDA {torch.version.cuda}" if devices.current().type == "cuda" else "CPU",
        "compilation": "eager",
        "memory_layout": "channels_last",
        **devices.settings(),
    }


def autocast() -> AbstractContextManager[object]:
    """Where a model is called: with precision bfloat16, convolutions and matrix products are in it there.

    Weights, gradients, the optimizer's state and batch norm's statistics are in float32 even then, and the last layer,
    so the logits (`layers.logits`).
    """
    return torch.autocast(devices.current().type, torch.bfloat16, enabled=_in_bfloat16)


def to_device(model: nn.Module) -> nn.Module:
    """The model on the configured device, its memory channels-last."""
    model.to(devices.current(), torch.get_default_dtype())
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def to_tensor(array: Array) -> torch.Tensor:
    """The array on the configured device, in the configured precision (float32 for bfloat16).

    To a GPU it goes by way of a page-locked copy, without waiting. PyTorch's allocator gives that copy's memory to
    nobody else before the transfer is done, and the array itself is free at once.
    """
    tensor = torch.from_numpy(array).to(torch.get_default_dtype())
    if devices.current().type == "cuda":
        return tensor.pin_memory().to(devices.current(), non_blocking=True)
    return tensor


def to_array(tensor: torch.Tensor) -> Array:
    """The values on the host, in float64."""
    return tensor.detach().to("cpu", torch.float64).numpy()


def read_weights(model: nn.Module) -> dict[str, Array]:
    """A copy of every parameter and statistic, under PyTorch names and layout."""
    return {key: value.cpu().contiguous().numpy().copy() for key, value in _named_tensors(model).items()}


def write_weights(model: nn.Module, weights: Weights) -> None:
    """Set every parameter and statistic. Raises StudyError unless names and shapes are exactly the model's."""
    tensors = _named_tensors(model)
    check_weights(weights, {key: tuple(tensor.shape) for key, tensor in tensors.items()})
    with torch.no_grad():
        for key, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(weights[key])))


def read_draws(model: nn.Module) -> dict[str, Array]:
    """Where the framework's own draws stand, `draws.NAME`: here of the generator of each device."""
    del model  # its layers keep nothing
    return {f"draws.{name}": state for name, state in devices.read_generators().items()}


def write_draws(model: nn.Module, draws: Weights) -> None:
    """Inverse of `read_draws`; what has another name is passed over."""
    del model
    devices.write_generators({name: draws[f"draws.{name}"] for name in devices.read_generators()})


def _named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    state = model.state_dict()  # detached, and the model's own memory
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
