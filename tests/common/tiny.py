"""What the tests of the core share: data sets of a few small pictures and a framework that is only NumPy."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from common import config, engines
from common.config import CnnSpec, ModelSpec, Recipe, Study, UnetSpec
from common.data.batches import batch_bytes
from common.data.cache import Cache, open_cache
from common.data.decoding import Slice
from common.data.samples import NO_LESION, sample_table
from common.data.shards import Sample, write_shard
from common.files import file_digest
from common.framework import Array, Batch, Settings, Weights
from common.losses import MeanLoss, sigmoid, softmax
from common.random_numbers import generator
from common.results import pack_masks, write_json
from common.weights import check_weights

SPEC = CnnSpec(image_size=16, channels=1, pixel_mean=(0.5,), pixel_std=(0.5,))
SUBTYPE_SPEC = dataclasses.replace(SPEC, outputs=3)
MASK_SPEC = UnetSpec(image_size=16, features=(2, 4), pixel_mean=(0.5,), pixel_std=(0.5,))
RECIPE = Recipe(epochs=2, batch_size=4, learning_rate=0.5)
SUBTYPE_RECIPE = dataclasses.replace(RECIPE, loss="cross_entropy")
MASK_RECIPE = dataclasses.replace(
    RECIPE, loss="dice_cross_entropy", sampling="foreground", class_weights="none"
)
POOL = 4  # px, side of the windows whose means are the features


def hash_batches(batches: Iterable[Batch]) -> str:
    """One digest of everything in a stream."""
    return hashlib.sha256(b"".join(piece for batch in batches for piece in batch_bytes(batch))).hexdigest()


# --- data ---------------------------------------------------------------------------------------------------------


def make_mask(label: str, size: int = 16) -> NDArray[np.bool_]:
    """Where a stroke is: the first quarter of the picture, the last one for an ischemia."""
    mask = np.zeros((size, size), dtype=bool)
    half = size // 2
    if label == "ischemia":
        mask[half:, half:] = True
    elif label != "normal":
        mask[:half, :half] = True
    return mask


def make_slice(label: str, *key: str | int, size: int = 16) -> NDArray[np.uint8]:
    """Noise, and in a stroke a bright quarter."""
    image = generator("tiny", label, *key).integers(0, 120, (size, size)).astype(np.uint8)
    image[make_mask(label, size)] += 100
    return image


def write_pictures(
    folder: Path, patients: int = 12, slices: int = 2, more_normal: int = 0, masks: bool = False
) -> Path:
    """A two-class data set; every second patient has a stroke, the others `more_normal` slices more.

    Returns the folder.
    """
    for patient in range(patients):
        label = "stroke" if patient % 2 else "normal"
        for number in range(slices + more_normal * (label == "normal")):
            name = f"{label.capitalize()}/{patient} ({number}).png"
            _write_png(folder / name, make_slice(label, patient, number))
            if masks and label == "stroke":
                _write_png(folder / "masks" / name, make_mask(label).astype(np.uint8) * 255)
    return folder


def write_strokes(folder: Path, patients: int = 15, slices: int = 2) -> Path:
    """A three-class data set with masks and patients.csv; the patients are bleeding, ischemic and healthy in turn.

    Returns the folder.
    """
    rows = ["image_id,patient"]
    for patient in range(patients):
        label = ("bleeding", "ischemia", "normal")[patient % 3]
        for number in range(slices):
            name = str(10_000 + 10 * patient + number)
            rows.append(f"{name},p{patient}")
            _write_png(
                folder / label.capitalize() / "PNG" / f"{name}.png", make_slice(label, patient, number)
            )
            if label != "normal":
                mask = make_mask(label).astype(np.uint8) * 255
                _write_png(folder / label.capitalize() / "MASKS" / f"{name}.png", mask)
    (folder / "patients.csv").write_text("\n".join(rows) + "\n")
    return folder


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)


def make_row(name: str, label: str, patient: str, **changes: str) -> dict[str, str]:
    """A row of the sample table, every column that is not given as for a plain picture without a mask."""
    row = {
        "id": name,
        "path": f"{name}.png",
        "label": label,
        "patient": patient,
        "patient_from": "name",
        "mask": "",
        "sha256": hashlib.sha256(name.encode()).hexdigest(),
        "mask_sha256": "",
        "pixel_mm": "",
        "split": "",
        "source": "tiny",
    }
    return row | changes


def make_samples(count: int, labels: tuple[str, ...] = ("stroke", "normal", "normal")) -> pd.DataFrame:
    """A sample table of `count` images with masks, two a patient, the patients labelled in turn; no files behind it."""
    rows = []
    for number in range(count):
        label = labels[number // 2 % len(labels)]
        name = f"p{number // 2:04d}/{number % 2}"
        mask = NO_LESION if label == "normal" else f"{name}.mask.png"
        rows.append(make_row(name, label, name.split("/")[0], sha256=f"{number:064x}", mask=mask))
    return sample_table(rows)


def write_cache(directory: Path, samples: pd.DataFrame, size: int = 16) -> Cache:
    """A finished cache of drawn slices and masks, in the row order of the table; no picture is decoded."""
    directory.mkdir(parents=True, exist_ok=True)
    rows, slices = [], []
    for name, path, label, mask in samples[["id", "path", "label", "mask"]].itertuples(index=False):
        packed = None if label == "normal" else pack_masks(make_mask(label, size)[np.newaxis])[0]
        rows.append(Sample(name, path, mask, "" if packed is None else mask, ""))
        slices.append(Slice(make_slice(label, name, size=size), size, packed, None))
    part = write_shard(directory, 0, rows, iter(slices), size, with_masks=True, kept=len(rows))
    digests = {"sha256": part["sha256"], "masks_sha256": part["masks"]["sha256"]}
    document = {"form": 2, "size": size, "rows_per_shard": len(rows), **digests}
    write_json(directory / "cache.json", document | {"shards": [file_digest(directory / "shard-00000.json")]})
    return open_cache(directory)


def make_study(data: Path, frameworks: tuple[str, ...] = ("tiny-a", "tiny-b"), **changes: object) -> Study:
    """Two seeds of each framework on a folder of pictures, two epochs each; the two-class task unless told."""
    study = Study(
        data=(str(data),),
        frameworks=frameworks,
        device="cpu",
        recipes={
            "binary/cnn": RECIPE,
            "subtype/cnn": SUBTYPE_RECIPE,
            "segmentation/unet": MASK_RECIPE,
        },
        specs={"binary/cnn": SPEC, "subtype/cnn": SUBTYPE_SPEC, "segmentation/unet": MASK_SPEC},
    )
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
    """Logistic regression by gradient descent: `common.framework.Framework` in NumPy.

    A classifier reads pooled pixels; a segmenter reads each pixel alone, and descends the cross-entropy only.
    """

    def __init__(self, name: str = "tiny-a") -> None:
        self._name = name
        self.settings: list[Settings] = []  # of every `configure`
        self.trainable: list[str] = []  # of every `create_trainer`
        self.epochs_trained = 0
        self._recipe = RECIPE

    def name(self) -> str:
        return self._name

    def configure(self, settings: Settings) -> str:
        self.settings.append(settings)
        return "cpu"

    def environment(self) -> dict[str, str]:
        return {"framework": f"{self._name} 1.0", "backend": "NumPy"}

    def build(self, spec: ModelSpec) -> Model:
        if isinstance(spec, UnetSpec):
            return {
                "dense.weight": np.full((1, spec.channels, 1, 1), np.nan),
                "dense.bias": np.full(1, np.nan),
            }
        features = (spec.image_size // POOL) ** 2 * spec.channels
        return {
            "dense.weight": np.full((spec.outputs, features), np.nan),
            "dense.bias": np.full(spec.outputs, np.nan),
        }

    def read_weights(self, model: Model) -> dict[str, Array]:
        return {name: array.astype(np.float32) for name, array in model.items()}

    def write_weights(self, model: Model, weights: Weights) -> None:
        check_weights(weights, {name: array.shape for name, array in model.items()})
        for name, array in weights.items():
            model[name] = array.astype(np.float64)

    def create_trainer(self, model: Model, recipe: Recipe, trainable: str = "all") -> Model:
        self.trainable.append(trainable)  # there is nothing before the last layer: both are the same
        self._recipe = recipe
        return model

    def train_epoch(self, trainer: Model, batches: Iterable[tuple[Batch, float]]) -> NDArray[np.float64]:
        losses = []
        for batch, learning_rate in batches:
            features, logits = _features(trainer, batch), _logits(trainer, batch)
            loss = MeanLoss(self._recipe)
            loss.add(logits, batch.targets, batch.weights)
            losses.append(loss.value())
            probabilities = softmax(logits) if logits.shape[1:] == (3,) else sigmoid(logits)
            weights = batch.weights.astype(np.float64).reshape(-1, *[1] * (logits.ndim - 1))
            slope = weights * (probabilities - batch.targets) / weights.sum()
            slope /= np.prod(logits.shape[1:-1])  # the mean over a mask's pixels
            slope, features = slope.reshape(-1, logits.shape[-1]), features.reshape(-1, features.shape[-1])
            shape = trainer["dense.weight"].shape
            trainer["dense.weight"] = trainer["dense.weight"] - learning_rate * (slope.T @ features).reshape(
                shape
            )
            trainer["dense.bias"] = trainer["dense.bias"] - learning_rate * slope.sum(axis=0)
        self.epochs_trained += 1
        return np.array(losses)

    def predict_logits(self, model: Model, batches: Iterable[Batch]) -> Iterator[NDArray[np.float64]]:
        for batch in batches:
            yield _logits(model, batch)

    def synchronise(self) -> None:
        pass

    def peak_device_mib(self) -> float | None:
        return None

    def describe_replicas(self) -> dict[str, Any] | None:
        return None


def _features(model: Model, batch: Batch) -> NDArray[np.float64]:
    """(N, features), or of a segmenter (N, S, S, C)."""
    return batch.images.astype(np.float64) if model["dense.weight"].ndim == 4 else pool(batch.images)


def _logits(model: Model, batch: Batch) -> NDArray[np.float64]:
    """(N, outputs), or of a segmenter (N, S, S, 1)."""
    weight = model["dense.weight"]
    return _features(model, batch) @ weight.reshape(len(weight), -1).T + model["dense.bias"]


@pytest.fixture
def tiny_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny frameworks count as installed, and the models are as small as the pictures."""
    for specs in (config.MODELS, config.QUICK_SPECS):
        monkeypatch.setitem(specs, "cnn", SPEC)
        monkeypatch.setitem(specs, "unet", MASK_SPEC)
    for name in ("tiny-a", "tiny-b", "tiny-c"):
        monkeypatch.setitem(engines.PACKAGES, name, ("numpy",))
