"""The tiny framework as the proof asks for it: it tells layers and gradients, and may be given a fault."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from tiny import Model, TinyFramework

from common.config import Recipe
from common.framework import Array, Batch


class TracedTiny(TinyFramework):
    """`fault`: "", "rate" (a millionth too fast), "fast" (half as fast again), "evaluation" (logits a millionth off),
    "raises" or "killed".
    """

    def __init__(self, name: str = "tiny-a", fault: str = "") -> None:
        super().__init__(name)
        self.fault = fault
        self.calls: list[int] = []  # steps of every `train_epoch`
        self._norms: dict[str, float] = {}

    def read_weights(self, model: Model) -> dict[str, Array]:
        return {name: np.array(array, dtype=np.float64) for name, array in model.items()}

    def create_trainer(
        self, model: Model, recipe: Recipe, trainable: str = "all", traced: bool = False
    ) -> Model:
        assert traced
        return super().create_trainer(model, recipe, trainable)

    def train_epoch(self, trainer: Model, batches: Iterable[tuple[Batch, float]]) -> NDArray[np.float64]:
        if self.fault == "raises":
            raise RuntimeError("a layer has no gradient")
        if self.fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        losses = []
        for batch, rate in batches:
            before = dict(trainer)
            faster = rate * {"rate": 1 + 1e-6, "fast": 1.5}.get(self.fault, 1.0)
            losses.append(super().train_epoch(trainer, [(batch, faster)])[0])
            self._norms = {
                name: float(np.linalg.norm(trainer[name] - array)) / faster for name, array in before.items()
            }
        self.calls.append(len(losses))
        return np.array(losses)

    def gradient_norms(self, trainer: Model) -> dict[str, float]:
        return dict(self._norms)

    def layer_outputs(self, model: Model, batch: Batch, training: bool) -> dict[str, Array]:
        assert training
        return {"dense": next(super().predict_logits(model, [batch]))}

    def predict_logits(self, model: Model, batches: Iterable[Batch]) -> Iterator[NDArray[np.float64]]:
        for logits in super().predict_logits(model, batches):
            yield logits + 1e-6 if self.fault == "evaluation" else logits
