"""The seam: what `common` asks of a framework, and all that it knows of one.

`torch_impl` and `keras_impl` are modules that satisfy `Framework`; nothing else connects them to `common`. Arrays
cross the seam as NumPy, images as (N, H, W, C), weights under the names and in the layout of the PyTorch model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.config import ModelSpec, Recipe

Array: TypeAlias = NDArray[Any]
Weights: TypeAlias = Mapping[
    str, Array
]  # tensor name -> array, convolution kernels (out, in, h, w), dense (out, in)
Model: TypeAlias = Any  # torch.nn.Module or keras.Model
Trainer: TypeAlias = Any  # model, loss and optimizer state, opaque to common


@dataclass(frozen=True)
class Settings:
    """What is fixed before the first tensor exists."""

    device: str = "auto"  # auto | cpu | cuda
    precision: str = "float32"  # bfloat16 | float32 | float64
    threads: int = 1  # compute threads of this process
    seed: int = 0  # of the framework's own draws (dropout); everything else is drawn in common
    deterministic: bool = False  # refuse what cannot be repeated to the bit
    devices: int = 1  # that share each training batch


@dataclass(frozen=True)
class Batch:
    """One step's worth of samples. The batch size never changes within a stream."""

    images: NDArray[np.float32]  # (N, H, W, C), normalised
    # The truth in the shape of the logits: (N, outputs), the probability of class 1 or of each class (label smoothing
    # included), or (N, H, W, 1), the lesion mask as 0 and 1.
    targets: NDArray[np.float32]
    weights: NDArray[np.float32]  # (N,), loss weight of the sample's class; 0 where padded
    rows: NDArray[
        np.int64
    ]  # (N,), index into the stream's samples; -1 where a last evaluation batch is padded
    # What dropout masks that come from common are drawn under (`common.random_numbers.keep_mask`): seed, epoch, step
    key: tuple[str | int, ...] = ()


@dataclass(frozen=True)
class Probe:
    """What a framework does when nothing is said, found by looking or by trying."""

    value: str | float | int | bool | None
    how: str  # "signature": read from the installed function; "numeric": computed with it
    detail: str  # which function, or what was computed


class Framework(Protocol):
    """The verbs that each framework package exports, with equal names, parameters and defaults."""

    def name(self) -> str:
        """`torch`, `keras-tensorflow`, `keras-jax` or `keras-torch`."""

    def configure(self, settings: Settings) -> str:
        """Fix device, precision, threads and seed; returns the device that is used, "cpu" or "cuda".

        Raises StudyError if the device or precision cannot be had.
        """

    def environment(self) -> dict[str, str]:
        """Versions and settings that a reader needs to repeat a run."""

    def describe_replicas(self) -> dict[str, Any] | None:
        """How the devices of a run share its batches: `replicas` of run.json; None for one device."""

    def build(self, spec: ModelSpec) -> Model:
        """A model that maps (N, H, W, C) images to logits; its weights are those of the framework's own initialisers.

        Logits are (N, outputs), those of a U-Net (N, H, W, outputs).
        """

    def read_weights(self, model: Model) -> dict[str, Array]:
        """A copy of every parameter and statistic, under PyTorch names and layout."""

    def write_weights(self, model: Model, weights: Weights) -> None:
        """Set every parameter and statistic. Raises StudyError unless names and shapes are exactly the model's."""

    def create_trainer(
        self, model: Model, recipe: Recipe, trainable: str = "all", traced: bool = False
    ) -> Trainer:
        """Bind model, the recipe's loss and a fresh optimizer.

        `trainable` is "all", or "head": only the last layer (`spec.head`) learns, and all before it is fixed and runs
        in evaluation mode. `traced`: keep what `gradient_norms` tells.
        """

    def train_epoch(self, trainer: Trainer, batches: Iterable[tuple[Batch, float]]) -> NDArray[np.float64]:
        """One optimizer step per (batch, learning rate), in order; returns the loss of each step, (steps,)."""

    def read_trainer_state(self, trainer: Trainer) -> dict[str, Array]:
        """A copy of all that training goes on from beside the model's weights.

        `steps`, int64 (): done by the optimizer; `first.NAME`, `second.NAME`: its moments of each tensor that learns,
        under PyTorch's names and in its layout; `draws.NAME`: where the framework's own draws (dropout) stand.
        """

    def write_trainer_state(self, trainer: Trainer, state: Weights) -> None:
        """Inverse of `read_trainer_state`. Raises StudyError unless names and shapes are exactly the trainer's."""

    def gradient_norms(self, trainer: Trainer) -> dict[str, float]:
        """L2 norm of the last step's gradient of each tensor that learns, before clipping; `trainer` must be traced."""

    def layer_outputs(self, model: Model, batch: Batch, training: bool) -> dict[str, Array]:
        """Output of each layer that has weights, in order of execution, float64, (N, F) or (N, H, W, F).

        `training`: as in a training step, dropout included where its masks come from common; weights and statistics
        stay as they were.
        """

    def predict_logits(self, model: Model, batches: Iterable[Batch]) -> Iterator[NDArray[np.float64]]:
        """Evaluation-mode logits, batch by batch in order, padded rows included: (N, outputs) or (N, H, W, 1)."""

    def probe_defaults(self) -> dict[str, Probe]:
        """What this framework does unless told otherwise (`common.atlas.ITEMS` -> probe)."""

    def synchronise(self) -> None:
        """Return when the device has finished all work given to it."""

    def peak_device_mib(self) -> float | None:
        """Largest memory that tensors held on the device so far, as its allocator counts it; None on a CPU."""
