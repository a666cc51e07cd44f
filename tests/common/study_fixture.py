"""A small, plausible study folder without any training: written through `common.results`, drawn from Philox.

Both frameworks see the same patients and nearly the same evidence, so that their scores differ by about as much as
two seeds of one framework do. Classification only; the study with masks is another fixture's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from common import config, results, seals
from common.config import TASKS, Run
from common.random_numbers import generator

PATIENTS = 40
SLICES = 9  # a patient
EPOCHS = 6
STEPS = 20  # an epoch


AUDIT: dict[str, Any] = {
    "unreadable": [
        {"id": "Normal/99 (1)", "path": "Normal/99 (1).jpg", "reason": "the file ends after 312 bytes"}
    ],
    "patients_from": {"name": PATIENTS * SLICES},
    "masks": {"unknown": PATIENTS * SLICES},
}


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def samples_and_split(
    folds: int, tasks: Sequence[str] = ("binary",), external: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """40 patients of 9 slices, 16 with a stroke; test patients of different folds are different patients. The slices of
    `external` more patients are the external part of every fold. With "subtype" see `label_of`.
    """
    samples, split = [], []
    for patient in range(PATIENTS + external):
        for number in range(SLICES):
            label = label_of(patient, number, "subtype" in tasks)
            folder = label.capitalize()
            name = f"{folder}/{50 + patient} ({number + 1})"
            part = "external" if patient >= PATIENTS else ""
            samples.append(
                {
                    "id": name,
                    "path": f"{name}.jpg",
                    "label": label,
                    "patient": f"fixture/{50 + patient}",
                    "patient_from": "name",
                    "mask": "",
                    "sha256": digest(name),
                    "mask_sha256": "",
                    "pixel_mm": "",
                    "split": part,
                    "source": "fixture",
                }
            )
            for task in tasks:
                for fold in range(folds):
                    turn = (patient // 5 + fold) % max(folds, 4)
                    own = {0: "test", 1: "val"}.get(turn, "train")
                    split.append({"id": name, "task": task, "fold": fold, "split": part or own})
    return pd.DataFrame(samples), pd.DataFrame(split)


def label_of(patient: int, number: int, subtypes: bool) -> str:
    """Of a patient's slices: all alike, or with subtypes mixed, for too few patients of a class leave no interval."""
    if not subtypes:
        return "stroke" if patient % 5 in (1, 3) else "normal"
    if number < 3 or patient % 5 in (0, 2):
        return "normal"
    kinds = {1: ("bleeding", "bleeding"), 3: ("ischemia", "ischemia"), 4: ("bleeding", "ischemia")}
    return kinds[patient % 5][number % 2]


def scores(samples: pd.DataFrame, run: Run) -> np.ndarray:
    """Probabilities, (n,) or (n, classes): a patient's evidence and a slice's are shared by all runs; seed, fold and
    framework add a little.
    """

    def noise(name: str, *key: str | int) -> float:
        return float(generator(name, *key).normal())

    def evidence(row: dict[str, str], name: str) -> float:
        """For one class."""
        own = [run.framework, run.seed, *([run.model, run.fold] if run.task != "binary" or run.fold else [])]
        return (
            0.8 * noise(f"patient{name}", row["patient"])
            + 0.5 * noise(f"slice{name}", row["id"])
            + 0.5 * noise(f"run{name}", row["id"], *own)
        )

    rows = samples.astype(str).to_dict("records")
    if run.task == "binary":
        logits = [1.1 * (row["label"] != "normal") - 0.5 + evidence(row, "") for row in rows]
        return 1 / (1 + np.exp(-np.array(logits)))
    classes = TASKS[run.task].classes
    of_class = np.array(
        [[1.3 * (row["label"] == name) + evidence(row, f" {name}") for name in classes] for row in rows]
    )
    return np.exp(of_class) / np.exp(of_class).sum(axis=1, keepdims=True)


def history(run: Run) -> pd.DataFrame:
    epoch = np.arange(1, EPOCHS + 1)
    draws = generator("history", run.framework, run.seed, run.fold)
    rate = 1e-3 * 0.5 * (1 + np.cos(np.pi * epoch / EPOCHS)) + 1e-5
    seconds = 2.0 + 0.2 * draws.random(EPOCHS) + (run.framework != "torch") * 0.4
    return pd.DataFrame(
        {
            "epoch": epoch,
            "step": epoch * STEPS,
            "learning_rate": rate,
            "train_loss": 0.69 * np.exp(-0.12 * epoch) + 0.02 * draws.random(EPOCHS),
            "val_loss": 0.69 - 0.1 * np.sin(epoch / 2) + 0.03 * draws.random(EPOCHS),
            "val_score": 0.6 + 0.1 * np.sin(epoch / 2) + 0.02 * draws.random(EPOCHS),
            "seconds": seconds,
            "images_per_second": STEPS * 32 / seconds,
            "wait_seconds": 0.05 * draws.random(EPOCHS),
        },
        columns=list(results.HISTORY_COLUMNS),
    )


def counts(samples: pd.DataFrame, split: pd.DataFrame, fold: int) -> dict[str, dict[str, int]]:
    joined = samples.drop(columns="split").merge(split[split["fold"] == fold], on="id")
    return {
        str(name): {
            "samples": len(part),
            "patients": part["patient"].nunique(),
            **{str(label): int(count) for label, count in part["label"].value_counts().items()},
        }
        for name, part in joined.groupby("split")
    }


def spec_of(task: str, model: str) -> config.ModelSpec:
    return config.spec_of(task, model, "quick")


def recipe_of(task: str) -> config.Recipe:
    return config.Recipe(epochs=EPOCHS, loss="cross_entropy" if task == "subtype" else "binary_cross_entropy")


def document(run: Run, samples: pd.DataFrame, split: pd.DataFrame, learnt: pd.DataFrame) -> dict[str, Any]:
    """A complete `run.json`."""
    draws = generator("timings", run.framework, run.seed, run.fold)
    keras = run.framework.startswith("keras")
    first_step, build, imports = (9.0, 0.6, 7.0) if keras else (0.3, 0.1, 2.5)
    train = float(learnt["seconds"].sum()) + first_step
    evaluate = 1.2 + 0.1 * float(draws.random())
    best = int(learnt["val_loss"].to_numpy().argmin())
    spec, recipe = config.in_lane(spec_of(run.task, run.model), recipe_of(run.task), run.framework, run.lane)
    own = (
        [run.framework] if run.lane == "native" else []
    )  # order and starting weights are each framework's own
    environment = {"python": "3.11.9", "numpy": "2.4.0", "platform": "Linux x86_64"}
    environment |= {"keras": "3.15.1", "backend": run.framework[6:]} if keras else {"torch": "2.13.0"}
    return {
        "format": results.FORMAT,
        "status": "complete",
        "reason": None,
        "run": config.to_json(run),
        "spec": config.to_json(spec),
        "recipe": config.to_json(recipe),
        "environment": environment,
        "variables": dict(config.WORKER_ENVIRONMENT),
        "device": "cpu",
        "threads": 2,
        "precision": "float32",
        "git_commit": digest("commit")[:40],
        "command": f"python -m {'keras_impl' if keras else 'torch_impl'} train --seed {run.seed} --fold {run.fold}",
        "data": {
            "samples_sha256": digest("samples"),
            "split_sha256": digest("split", run.task),
            "cache_sha256": digest("cache"),
            "counts": counts(samples, split, run.fold),
        },
        "batches": {
            "hashed": config.HASHED_BATCHES,
            "sha256": digest("batches", run.seed, run.fold, *own),
            "order_sha256": digest("order", run.seed, run.fold, *own),
        },
        "weights": {
            "initial_sha256": digest("initial", run.seed, *own),
            "final_sha256": digest("final", run),
            "parameters": 4_287_937,
        },
        "model": {"flops": 11_337_984, "checkpoint_bytes": 658_764},
        "choice": {
            "epoch": int(learnt["epoch"][best]),
            "val_loss": float(learnt["val_loss"][best]),
            "rule": "least val_loss",
        },
        "threshold": {"value": 0.48 + 0.04 * float(draws.random()), "rule": config.THRESHOLD_RULE}
        if TASKS[run.task].outputs == 1
        else {"value": None, "rule": "largest"},
        "pretrained": None,
        "phases": [{"trainable": "all", "epochs": EPOCHS, "batch_norm": "training"}],
        "timings": {
            "import_seconds": imports + float(draws.random()),
            "data_seconds": 0.2,
            "build_seconds": build,
            "trainer_seconds": 0.4,
            "compile_seconds": first_step - float(learnt["seconds"].median()) / STEPS,
            "first_step_seconds": first_step,
            "step_p50_seconds": float(learnt["seconds"].median()) / STEPS,
            "step_p95_seconds": 1.3 * float(learnt["seconds"].median()) / STEPS,
            "steady_images_per_second": float(learnt["images_per_second"].median()),
            "wait_seconds": float(learnt["wait_seconds"].sum()),
            "train_seconds": train,
            "evaluate_seconds": evaluate,
            "checkpoint_seconds": 0.2,
            "latency_seconds": 0.5,
            "latency": {
                "1": 0.004 + 0.001 * keras + 0.001 * float(draws.random()),
                "8": 0.02 + 0.002 * float(draws.random()),
                "batch_size": 8,
            },
            "total_seconds": imports + build + train + evaluate + 3.5,
            "cpu_seconds": 1.8 * train,
        },
        "energy": {"joules": 900.0 * train / 20, "source": "rapl"},
        "memory": {"peak_rss_mib": 1450.0 if keras else 610.0, "peak_device_mib": None},
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:01:00+00:00",
        "notice": config.NOTICE,
    }


def write_failed_run(directory: Path, run: Run, reason: str) -> None:
    """The least that a failed run says."""
    record = {
        "format": results.FORMAT,
        "status": "failed",
        "reason": reason,
        "run": config.to_json(run),
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:00:10+00:00",
        "notice": config.NOTICE,
    }
    results.write_json(results.run_directory(directory, run) / "run.json", record)


def write_complete_run(directory: Path, run: Run, samples: pd.DataFrame, split: pd.DataFrame) -> None:
    folder = results.run_directory(directory, run)
    learnt = history(run)
    rows = split[(split["fold"] == run.fold) & (split["task"] == run.task)]
    part = samples.drop(columns="split").merge(rows, on="id")
    part = part[part["split"] != "train"].reset_index(drop=True)
    results.write_csv(folder / "history.csv", learnt)
    results.write_predictions(
        folder / "predictions.npz",
        results.Predictions(
            sample_id=part["id"].to_numpy(dtype=np.str_),
            patient=part["patient"].to_numpy(dtype=np.str_),
            split=part["split"].to_numpy(dtype=np.str_),
            y_true=np.array([TASKS[run.task].class_index(label) for label in part["label"]], dtype=np.int64),
            y_score=scores(part, run),
        ),
    )
    results.write_json(folder / "run.json", document(run, samples, split, learnt))


def make_study(
    directory: Path,
    frameworks: Sequence[str] = ("torch", "keras-tensorflow"),
    seeds: int = 3,
    folds: int = 1,
    failed: Collection[tuple[str, int, int]] = (),
    missing: Collection[tuple[str, int, int]] = (),
    pairs: Sequence[tuple[str, str]] = (("binary", "cnn"),),
    external: int = 0,
    lane: str = "aligned",
) -> Path:
    """Write a study of the (task, model) `pairs`; `failed` and `missing` name runs as (framework, seed, fold).

    `external` is the number of patients of an external test set.
    """
    tasks = tuple(dict.fromkeys(task for task, _ in pairs))
    study = config.Study(
        tasks=tasks,
        frameworks=tuple(frameworks),
        lanes=(lane,),
        seeds=seeds,
        folds=folds,
        recipes={f"{task}/{model}": recipe_of(task) for task, model in pairs},
        specs={f"{task}/{model}": spec_of(task, model) for task, model in pairs},
    )
    samples, split = samples_and_split(folds, tasks, external)
    results.write_json(directory / "study.json", {"format": results.FORMAT, "study": config.to_json(study)})
    results.write_csv(directory / "data" / "samples.csv", samples)
    results.write_csv(directory / "data" / "split.csv", split)
    results.write_json(directory / "data" / "audit.json", AUDIT)
    for run in study.runs():
        key = (run.framework, run.seed, run.fold)
        if key in failed:
            write_failed_run(directory, run, "the device has 512 MiB left and the model needs 610 MiB")
        elif key not in missing:
            write_complete_run(directory, run, samples, split)
    return directory


def seal_records(directory: Path) -> None:
    """Put in the digests that a study's own records have; what a fixture wrote is as if an earlier version had."""
    for path in (directory / "runs").rglob("run.json"):
        document = results.read_json(path)
        names = [name for name in ("predictions.npz", "history.csv") if (path.parent / name).exists()]
        results.write_json(path, seals.sealed({**document, "files": seals.file_digests(path.parent, names)}))
    study = results.read_json(directory / "study.json")
    files = seals.file_digests(directory / "data", ("samples.csv", "split.csv"))
    results.write_json(directory / "study.json", {**study, "files": files})
