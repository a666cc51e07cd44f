"""What the tests of the core share: a data set of a few small pictures and a framework that is only NumPy."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from common import config, engines
from common.config import CnnSpec, Recipe, Study
from common.data.batches import batch_bytes
from common.data.cache import Cache, open_cache
from common.data.samples import sample_table
from common.framework import Array, Batch, Settings, Weights
from common.losses import binary_cross_entropy, sigmoid
from common.random_numbers import generator
from common.results import write_json
from common.weights import check_weights

SPEC = CnnSpec(image_size=16, channels=1, pixel_mean=0.5, pixel_std=0.5)
RECIPE = Recipe(epochs=2, batch_size=4, learning_rate=0.5)
POOL = 4  # px, side of the windows whose means are the features


def hash_batches(batches: Iterable[Batch]) -> str:
    """One digest of everything in a stream."""
    return hashlib.sha256(b"".join(map(batch_bytes, batches))).hexdigest()


# --- data ---------------------------------------------------------------------------------------------------------


def make_slice(label: str, *key: str | int, size: int = 16) -> NDArray[np.uint8]:
    """Noise, and in a stroke a bright quarter."""
    image = generator("tiny", label, *key).integers(0, 120, (size, size)).astype(np.uint8)
    if label != "normal":
        image[: size // 2, : size // 2] += 100
    return image


def write_pictures(folder: Path, patients: int = 12, slices: int = 2, more_normal: int = 0) -> Path:
    """A two-class data set; every second patient has a stroke, the others `more_normal` slices more.

    Returns the folder.
    """
    for patient in range(patients):
        label = "stroke" if patient % 2 else "normal"
        target = folder / label.capitalize()
        target.mkdir(parents=True, exist_ok=True)
        for number in range(slices + more_normal * (label == "normal")):
            cv2.imwrite(str(target / f"{patient} ({number}).png"), make_slice(label, patient, number))
    return folder


def make_samples(count: int) -> pd.DataFrame:
    """A sample table of `count` images, two a patient, a third of the patients with a stroke; no files behind it."""
    rows = []
    for number in range(count):
        patient = f"p{number // 2:04d}"
        label = "stroke" if number // 2 % 3 == 0 else "normal"
        name = f"{patient}/{number % 2}"
        rows.append(
            {
                "id": name,
                "path": f"{name}.png",
                "label": label,
                "patient": patient,
                "mask": "",
                "sha256": f"{number:064x}",
                "source": "tiny",
            }
        )
    return sample_table(rows)


def write_cache(directory: Path, samples: pd.DataFrame, size: int = 16) -> Cache:
    """A finished cache of drawn slices, written straight to disk, in the row order of the table."""
    directory.mkdir(parents=True, exist_ok=True)
    ids = samples["id"].tolist()
    pixels = [
        make_slice(label, sample_id, size=size)
        for sample_id, label in zip(ids, samples["label"], strict=True)
    ]
    np.save(directory / "images.npy", np.stack(pixels))
    offset = (directory / "images.npy").stat().st_size - len(ids) * size * size
    document = {"size": size, "offset": offset, "sha256": "", "ids": ids, "unreadable": []}
    write_json(directory / "cache.json", document)
    return open_cache(directory)


def make_study(data: Path, frameworks: tuple[str, ...] = ("tiny-a", "tiny-b"), **changes: object) -> Study:
    """Two seeds of each framework on a folder of pictures, two epochs each."""
    study = Study(data=(str(data),), frameworks=frameworks, device="cpu", recipes={"binary/cnn": RECIPE})
    return dataclasses.replace(study, **changes)  # type: ignore[arg-type]


# --- a framework --------------------------------------------------------------------------------------------------


def pool(images: NDArray[np.float32]) -> NDArray[np.float64]:
    """Means of POOL x POOL windows, (N, S, S, C) -> (N, features)."""
    n, size, _, channels = images.shape
    side = size // POOL
    windows = images.astype(np.float64).reshape(n, side, POOL, side, POOL, channels)
    return windows.mean(axis=(2, 4)).reshape(n, -1)


Model = dict[str, Array]


class TinyFramework:
    """Logistic regression on pooled pixels by gradient descent: `common.framework.Framework` in NumPy."""

    def __init__(self, name: str = "tiny-a") -> None:
        self._name = name
        self.settings: list[Settings] = []  # of every `configure`
        self.epochs_trained = 0

    def name(self) -> str:
        return self._name

    def configure(self, settings: Settings) -> str:
        self.settings.append(settings)
        return "cpu"

    def environment(self) -> dict[str, str]:
        return {"framework": f"{self._name} 1.0", "backend": "NumPy"}

    def build(self, spec: CnnSpec) -> Model:
        features = (spec.image_size // POOL) ** 2 * spec.channels
        return {"dense.weight": np.full((1, features), np.nan), "dense.bias": np.full(1, np.nan)}

    def read_weights(self, model: Model) -> dict[str, Array]:
        return {name: array.astype(np.float32) for name, array in model.items()}

    def write_weights(self, model: Model, weights: Weights) -> None:
        check_weights(weights, {name: array.shape for name, array in model.items()})
        for name, array in weights.items():
            model[name] = array.astype(np.float64)

    def create_trainer(self, model: Model, recipe: Recipe) -> Model:
        del recipe  # gradient descent has no further number
        return model

    def train_epoch(self, trainer: Model, batches: Iterable[tuple[Batch, float]]) -> NDArray[np.float64]:
        losses = []
        for batch, learning_rate in batches:
            features = pool(batch.images)
            logits = features @ trainer["dense.weight"][0] + trainer["dense.bias"]
            labels, weights = batch.labels.astype(np.float64), batch.weights.astype(np.float64)
            losses.append(binary_cross_entropy(logits, labels, weights))
            slope = weights * (sigmoid(logits) - labels) / weights.sum()
            trainer["dense.weight"] = trainer["dense.weight"] - learning_rate * (slope @ features)
            trainer["dense.bias"] = trainer["dense.bias"] - learning_rate * slope.sum()
        self.epochs_trained += 1
        return np.array(losses)

    def predict_logits(self, model: Model, batches: Iterable[Batch]) -> NDArray[np.float64]:
        outputs = [
            pool(batch.images) @ model["dense.weight"].T + model["dense.bias"]  # (N, 1)
            for batch in batches
        ]
        return np.concatenate(outputs)

    def synchronise(self) -> None:
        pass


@pytest.fixture
def tiny_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two tiny frameworks count as installed, and the one model is as small as the pictures."""
    monkeypatch.setitem(config.MODELS, "cnn", SPEC)
    for name in ("tiny-a", "tiny-b", "tiny-c"):
        monkeypatch.setitem(engines.PACKAGES, name, ("numpy",))
