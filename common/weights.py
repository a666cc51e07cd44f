"""Starting weights, drawn once in NumPy, and the one checkpoint format that both frameworks read and write.

Names and layout are those of the PyTorch model: `conv1.weight` (out, in, h, w), depthwise (channels, 1, h, w),
transposed (in, out, h, w), `fc1.weight` (out, in), `*.bias`, `*.running_mean`, `*.running_var`, `*.gamma`. A
checkpoint is one safetensors file; its header carries, as JSON, what a reader needs to use it without the study it
came from (model spec, task, threshold, who trained it).
"""

from __future__ import annotations

import hashlib
import json
import math
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save

from common import config
from common.config import ConvNextSpec, ModelSpec, UnetSpec
from common.errors import StudyError
from common.framework import Array, Weights
from common.random_numbers import generator
from common.results import write_atomically

HEADER_KEY = "checkpoint"  # of the safetensors metadata; holds one JSON object
TRANSPOSED = "up."  # a U-Net's transposed convolutions, (in, out, h, w)
TRUNCATION = 2.0  # standard deviations
TRUNCATED_STD = (
    0.87962566103423978  # of a standard normal cut at 2 sigma; dividing by it restores the variance
)


def initial_weights(shapes: Mapping[str, tuple[int, ...]], spec: ModelSpec, seed: int) -> dict[str, Array]:
    """Starting weights of a model, float32, each tensor drawn under its own name.

    Kernels: normal cut at 2 sigma with variance 2 / fan_in (He et al. 2015, eq. 10), but 0 in a classifier's last layer
    (`spec.head`): training then starts from the loss of knowing nothing, not from the dropout noise of random logits,
    which pushes so plain a network as the CNN into silence. (A U-Net has none; from 0 no probability reaches 0.5 for
    240 steps; drawn like any other kernel its last one leads there in 120, to a Dice of 0.7.) Scales and running
    variances 1, biases and running means 0, ConvNeXt's `gamma` at `spec.layer_scale`. Drawn in float64 and rounded
    once, so that every precision starts from equal numbers.

    fan_in counts the numbers that an output is a sum of: in x h x w for a convolution (h x w for a depthwise one, in
    for a dense layer), and in alone for a U-Net's `up.*`, transposed convolutions whose kernel is as large as their
    stride, (in, out, h, w).
    """
    return {name: _initial_tensor(name, shape, spec, seed) for name, shape in shapes.items()}


def _initial_tensor(name: str, shape: tuple[int, ...], spec: ModelSpec, seed: int) -> Array:
    if name == f"{spec.head}.weight" and not isinstance(spec, UnetSpec):
        return np.zeros(shape, dtype=np.float32)
    if len(shape) >= 2:
        transposed = isinstance(spec, UnetSpec) and name.startswith(TRANSPOSED)
        fan_in = shape[0] if transposed else math.prod(shape[1:])
        normal = _truncated_normal(math.prod(shape), "weights", seed, name)
        return (normal * math.sqrt(2 / fan_in)).reshape(shape).astype(np.float32)
    kind = name.rsplit(".", 1)[-1]
    if kind in ("weight", "running_var"):
        return np.ones(shape, dtype=np.float32)
    if kind in ("bias", "running_mean"):
        return np.zeros(shape, dtype=np.float32)
    if kind == "gamma" and isinstance(spec, ConvNextSpec):
        return np.full(shape, spec.layer_scale, dtype=np.float32)
    raise StudyError(
        f"tensor {name!r} of shape {shape} has no starting rule; name it weight, bias or running_*"
    )


def _truncated_normal(count: int, *key: str | int) -> Array:
    """Standard normal numbers within +-2 by redrawing, scaled back to variance 1, (count,)."""
    source = generator(*key)
    numbers = source.standard_normal(count)
    while (outside := np.abs(numbers) > TRUNCATION).any():
        numbers[outside] = source.standard_normal(int(outside.sum()))
    return numbers / TRUNCATED_STD


def weights_digest(weights: Weights) -> str:
    """sha256 over names, shapes, types and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name])
        digest.update(f"{name}:{array.dtype}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def check_weights(weights: Weights, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise StudyError unless the weights have exactly the model's names and shapes."""
    missing, surplus = sorted(shapes.keys() - weights.keys()), sorted(weights.keys() - shapes.keys())
    if missing or surplus:
        raise StudyError(f"the weights are of another model: missing {missing[:3]}, surplus {surplus[:3]}")
    for name, shape in shapes.items():
        if tuple(weights[name].shape) != tuple(shape):
            raise StudyError(
                f"tensor {name!r} has shape {tuple(weights[name].shape)}; the model needs {tuple(shape)}"
            )


def save_checkpoint(path: Path, weights: Weights, header: Mapping[str, Any]) -> None:
    """Write weights and header atomically."""
    tensors = {name: np.ascontiguousarray(array) for name, array in weights.items()}
    blob = save(tensors, metadata={HEADER_KEY: json.dumps(header)})
    write_atomically(path, lambda stream: stream.write(blob))


def read_checkpoint(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Weights and header. Raises StudyError for a file that is no checkpoint of this project."""
    with _opened(path) as file:
        weights = {name: _finite(path, name, file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 - no mapping
        return weights, _header_of(path, file.metadata())


def _finite(path: Path, name: str, tensor: Array) -> Array:
    if not np.isfinite(tensor).all():
        raise StudyError(
            f"tensor {name!r} of {path} holds NaN or infinity; give a checkpoint of a run that did not diverge"
        )
    return tensor


def count_values(path: Path) -> int:
    """How many numbers a checkpoint holds, without reading them."""
    with _opened(path) as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 - no mapping
    return sum(math.prod(shape) for shape in shapes)


def read_header(path: Path) -> dict[str, Any]:
    """The header alone; no tensor is read. Raises StudyError for a file that is no checkpoint of this project."""
    with _opened(path) as file:
        return _header_of(path, file.metadata())


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        check_weights_file(path)
        with safetensors.safe_open(path, framework="numpy") as file:
            yield file
    except FileNotFoundError:
        raise StudyError(f"checkpoint {path} does not exist") from None
    except (OSError, ValueError, TypeError, AttributeError, safetensors.SafetensorError) as error:
        raise StudyError(f"{path} is no safetensors file ({error})") from error


def check_weights_file(path: Path) -> None:
    """Raise OSError for what is no file of weights by its looks: opening a pipe would wait for ever, and hashing a file
    of terabytes nearly so.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no regular file")
    if status.st_size > config.MAX_WEIGHTS_BYTES:
        raise OSError(
            f"it has {status.st_size / 2**20:.0f} MiB, more than the {config.MAX_WEIGHTS_BYTES / 2**20:.0f} MiB allowed"
        )


def _header_of(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    try:
        header = json.loads((metadata or {})[HEADER_KEY])
        if isinstance(header, dict):
            return header
    except (KeyError, ValueError, RecursionError):
        pass
    raise StudyError(
        f"{path} carries no {HEADER_KEY!r} header; give a model.safetensors that this project wrote"
    ) from None
