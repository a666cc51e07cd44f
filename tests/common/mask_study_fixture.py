"""A small study folder with segmentation runs, and classifiers to gate them, without any training.

Lesions are ellipses on a grid of 48 px. A run marks the same ellipse a little off, by an amount drawn from Philox: most
of it is shared by all runs (some slices are hard), a part belongs to the seed and framework.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from study_fixture import digest, document, history

from common import config, results
from common.config import Run
from common.metrics.segmentation import case_table
from common.random_numbers import generator

SIZE = 48  # px, side of the grid
PATIENTS = 40
SLICES = 6  # a patient
PIXEL_MM = 4.5
Key = tuple[str, str, int, int]  # model, framework, seed, fold


def label_of(sample_id: str) -> str:
    patient, number = (int(part) for part in sample_id.split("/"))
    kind = ("normal", "bleeding", "normal", "ischemia")[patient % 4]
    return kind if 1 <= number <= 4 else "normal"


def samples_and_split(folds: int, external: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """40 patients of 6 slices, half with lesions on the middle four; and `external` more patients."""
    samples, split = [], []
    for patient in range(PATIENTS + external):
        for number in range(SLICES):
            name = f"{patient:02d}/{number}"
            label = label_of(name)
            samples.append({
                "id": name, "path": f"{name}.png", "label": label, "patient": f"p{patient:02d}",
                "patient_from": "phantom", "mask": "none" if label == "normal" else f"{name}.mask.png",
                "sha256": digest(name), "mask_sha256": "", "pixel_mm": "", "split": "", "source": "fixture",
            })  # fmt: skip
            for fold in range(folds):
                turn = (patient // 4 + fold) % 6
                part = {0: "test", 1: "test", 2: "val"}.get(turn, "train") if folds == 1 else (
                    {0: "test", 1: "val"}.get(turn, "train")
                )  # fmt: skip
                part = "external" if patient >= PATIENTS else part
                split += [{"id": name, "fold": fold, "split": part, "task": task} for task in config.TASKS]
    return pd.DataFrame(samples), pd.DataFrame(split)


def ellipse(row: float, column: float, height: float, width: float) -> NDArray[np.bool_]:
    """bool (SIZE, SIZE); half axes in px."""
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    return ((rows - row) / max(height, 0.1)) ** 2 + ((columns - column) / max(width, 0.1)) ** 2 <= 1


def true_mask(sample_id: str) -> NDArray[np.bool_]:
    if label_of(sample_id) == "normal":
        return np.zeros((SIZE, SIZE), dtype=bool)
    draws = generator("mask", sample_id).random(4)
    return ellipse(16 + 16 * draws[0], 16 + 16 * draws[1], 2 + 7 * draws[2], 2 + 7 * draws[3])


def predicted_mask(sample_id: str, run: Run) -> NDArray[np.bool_]:
    """The true ellipse, moved and scaled; one lesion in eight is missed, one clean slice in five marked."""
    hard = generator("hard", sample_id)
    own = generator("own", sample_id, run.framework, run.seed)
    if label_of(sample_id) == "normal":
        marked = hard.random() < 0.2 or own.random() < 0.03
        return ellipse(20 + 8 * own.random(), 20, 3, 4) if marked else np.zeros((SIZE, SIZE), dtype=bool)
    if hard.random() < 0.08 or own.random() < 0.05:
        return np.zeros((SIZE, SIZE), dtype=bool)
    draws = generator("mask", sample_id).random(4)
    moved = 1.5 * hard.normal(size=2) + 0.7 * own.normal(size=2)
    scale = np.exp(0.15 * hard.normal(size=2) + 0.1 * own.normal(size=2))
    return ellipse(
        16 + 16 * draws[0] + moved[0], 16 + 16 * draws[1] + moved[1],
        (2 + 7 * draws[2]) * scale[0], (2 + 7 * draws[3]) * scale[1],
    )  # fmt: skip


def mask_predictions(part: pd.DataFrame, run: Run) -> results.MaskPredictions:
    """What a run of the fixture says of the slices of `part`."""
    pairs = [(true_mask(i), predicted_mask(i, run)) for i in part["id"]]
    truth, predicted = (np.stack(masks) for masks in zip(*pairs, strict=True))
    cases = case_table(truth, predicted)
    return results.MaskPredictions(
        sample_id=part["id"].to_numpy(dtype=np.str_),
        patient=part["patient"].to_numpy(dtype=np.str_),
        split=part["split"].to_numpy(dtype=np.str_),
        **cases._asdict(),
        y_score=predicted.any(axis=(1, 2)) * 0.9,
        pixel_mm=np.full(len(part), PIXEL_MM),
        y_true=results.pack_masks(truth),
        y_pred=results.pack_masks(predicted),
        size=np.full(len(part), SIZE),
    )


def class_predictions(part: pd.DataFrame, run: Run) -> results.Predictions:
    """Probabilities of a classifier that is mostly right, for `subtype` (N, 3) or `binary` (N,)."""
    task = config.TASKS[run.task]
    truth = np.array([task.class_index(label) for label in part["label"]], dtype=np.int64)
    logits = np.stack([
        1.2 * (np.arange(len(task.classes)) == true)
        + generator("gate", i).normal(size=len(task.classes))
        + 0.3 * generator("gate", i, run.framework, run.seed).normal(size=len(task.classes))
        for i, true in zip(part["id"], truth, strict=True)
    ])  # fmt: skip
    score = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return results.Predictions(
        part["id"].to_numpy(dtype=np.str_),
        part["patient"].to_numpy(dtype=np.str_),
        part["split"].to_numpy(dtype=np.str_),
        truth,
        score[:, 1] if len(task.classes) == 2 else score,
    )


def make_mask_study(
    directory: Path,
    frameworks: Sequence[str] = ("torch", "keras-tensorflow"),
    seeds: int = 2,
    folds: int = 1,
    gates: Sequence[tuple[str, str]] = (("subtype", "densenet121"),),
    external: int = 0,
    missing: Collection[Key] = (),
) -> Path:
    """Write a study of the U-Net and of the `gates`, (task, model); `missing` names runs that never happened."""
    pairs = [*gates, ("segmentation", "unet")]
    study = config.Study(
        tasks=tuple(dict.fromkeys(task for task, _ in pairs)),
        frameworks=tuple(frameworks),
        seeds=seeds,
        folds=folds,
        recipes={f"{task}/{model}": config.Recipe(epochs=6) for task, model in pairs},
        specs={f"{task}/{model}": config.MODELS[model] for task, model in pairs},
    )
    samples, split = samples_and_split(folds, external)
    split = split[split["task"].isin(study.tasks)]
    results.write_json(directory / "study.json", {"format": results.FORMAT, "study": config.to_json(study)})
    results.write_csv(directory / "data" / "samples.csv", samples)
    results.write_csv(directory / "data" / "split.csv", split)
    results.write_json(directory / "data" / "audit.json", {"unreadable": []})
    for run in study.runs():
        if (run.model, run.framework, run.seed, run.fold) in missing:
            continue
        folder = results.run_directory(directory, run)
        mine = split[split["task"] == run.task]
        part = samples.drop(columns="split").merge(mine[mine["fold"] == run.fold], on="id")
        part = part[part["split"] != "train"].reset_index(drop=True)
        learnt = history(run)
        predict = mask_predictions if run.task == "segmentation" else class_predictions
        results.write_csv(folder / "history.csv", learnt)
        results.write_predictions(folder / "predictions.npz", predict(part, run))
        results.write_json(folder / "run.json", document(run, samples, mine, learnt))
    return directory


def slice_pixels(sample_id: str, size: int = 96) -> NDArray[np.uint8]:
    """A grey disc with its lesion a little brighter, uint8 (size, size)."""
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    image = np.where(rows**2 + columns**2 < 0.2, 90.0, 0.0)
    lesion = true_mask(sample_id)
    image += 40 * np.kron(lesion, np.ones((size // SIZE, size // SIZE)))
    return np.clip(image + generator("noise", sample_id).normal(0, 6, (size, size)), 0, 255).astype(np.uint8)
