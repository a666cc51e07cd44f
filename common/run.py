"""One run, from the seed to the files: load -> build -> fit -> predict -> save.

The framework is handed in. Everything that could make two frameworks differ by choice is fixed here or below: which
samples in which order, the starting weights, the rate of each step, the epoch that is kept, the threshold.
"""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common import config, measure
from common.config import NOTICE, TASKS, ModelSpec, Recipe, Run, Task
from common.data import batches as stream
from common.data.batches import Part
from common.data.cache import open_cache
from common.data.splits import count_split, split_digest
from common.errors import StudyError
from common.framework import Array, Batch, Framework, Model, Settings
from common.losses import binary_cross_entropy, sigmoid
from common.metrics import classification
from common.results import (
    FORMAT,
    HISTORY_COLUMNS,
    Predictions,
    StudyRecord,
    read_json,
    read_study,
    run_directory,
    write_csv,
    write_json,
    write_predictions,
)
from common.schedule import CHOICE_RULE, choose_epoch, learning_rate
from common.weights import initial_weights, save_checkpoint, weights_digest

# Receives progress: {"steps": done, "of": total} now and then, and one dict an epoch.
Emit = Callable[[dict[str, Any]], object]
PROGRESS_SECONDS = 0.25  # at most one step message in this time


@dataclass(frozen=True)
class RunData:
    """The parts of a run's split."""

    train: Part
    val: Part
    test: Part
    description: dict[str, Any]  # `data` of run.json


@dataclass(frozen=True)
class Fit:
    """What training left behind."""

    history: pd.DataFrame  # HISTORY_COLUMNS
    weights: dict[str, Array]  # of the chosen epoch
    epoch: int  # chosen, from 1
    val_loss: float
    train_seconds: float
    evaluate_seconds: float


def execute(framework: Framework, study_directory: Path, run: Run, threads: int, emit: Emit) -> None:
    """Carry out one run of a prepared study and write its folder, `run.json` last.

    Raises StudyError for what the user can mend; the folder then has no run.json (the caller records the failure).
    """
    import_seconds = measure.seconds_since_start()
    started, began = utc_now(), time.perf_counter()
    record = read_study(study_directory)
    task, spec = TASKS[run.task], record.study.specs[run.model]
    recipe = record.study.recipes[f"{run.task}/{run.model}"]
    directory = run_directory(study_directory, run)
    clear_unfinished(directory)

    settings = Settings(record.study.device, record.study.precision, threads, run.seed)
    device = framework.configure(settings)
    data = load_data(record, run, task, spec, recipe)
    # Asked before the work is done, lest it fail after.
    environment = {**framework.environment(), **measure.common_environment()}

    building = time.perf_counter()
    model = framework.build(spec)
    build_seconds = time.perf_counter() - building
    shapes = {name: array.shape for name, array in framework.read_weights(model).items()}
    start = initial_weights(shapes, run.seed)
    framework.write_weights(model, start)

    clock, witness = measure.StepClock(framework.synchronise), stream.Witness()
    fit = fit_model(framework, model, data, task, spec, recipe, run.seed, clock, witness, emit)
    framework.write_weights(model, fit.weights)

    predicting = time.perf_counter()
    predictions = predict_parts(framework, model, data, recipe.batch_size, spec)
    predict_seconds = time.perf_counter() - predicting
    val = predictions.of("val")
    threshold = classification.choose_threshold(val.y_true, val.y_score, config.THRESHOLD_RULE)

    saving = time.perf_counter()
    header = {
        "notice": NOTICE,
        "task": run.task,
        "classes": list(task.classes),
        "spec": config.to_json(spec),
        "threshold": threshold,
        "run": config.to_json(run),
        "data": [Path(folder).name for folder in record.study.data] or ["phantom"],
        "samples_sha256": data.description["samples_sha256"],
        "split_sha256": data.description["split_sha256"],
    }
    save_checkpoint(directory / "model.safetensors", fit.weights, header)
    write_csv(directory / "history.csv", fit.history)
    write_predictions(directory / "predictions.npz", predictions)
    checkpoint_seconds = time.perf_counter() - saving

    steady_steps = len(clock.step_seconds) - 1
    steady_seconds = fit.train_seconds - clock.first_step_seconds - clock.wait_seconds
    document = {
        "format": FORMAT,
        "status": "complete",
        "reason": None,
        "run": config.to_json(run),
        "spec": config.to_json(spec),
        "recipe": config.to_json(recipe),
        "environment": environment,
        "variables": {
            name: os.environ[name] for name in sorted(config.RECORDED_VARIABLES & os.environ.keys())
        },
        "device": device,
        "threads": threads,
        "precision": settings.precision,
        "git_commit": measure.git_commit(Path(__file__).parent),
        "command": run_command(framework.name(), study_directory, run),
        "data": data.description,
        "batches": witness.record(),
        "weights": {
            "initial_sha256": weights_digest(start),
            "final_sha256": weights_digest(fit.weights),
            "parameters": sum(array.size for array in fit.weights.values()),
        },
        "choice": {"epoch": fit.epoch, "val_loss": fit.val_loss, "rule": CHOICE_RULE},
        "threshold": {"value": threshold, "rule": config.THRESHOLD_RULE},
        "timings": {
            "import_seconds": import_seconds,
            "build_seconds": build_seconds,
            "first_step_seconds": clock.first_step_seconds,
            "step_p50_seconds": clock.steady_quantile_seconds(0.50),
            "step_p95_seconds": clock.steady_quantile_seconds(0.95),
            "steady_images_per_second": recipe.batch_size * steady_steps / steady_seconds
            if steady_steps
            else None,
            "wait_seconds": clock.wait_seconds,
            "train_seconds": fit.train_seconds,
            "evaluate_seconds": fit.evaluate_seconds + predict_seconds,
            "checkpoint_seconds": checkpoint_seconds,
            "total_seconds": import_seconds + time.perf_counter() - began,
            "cpu_seconds": measure.cpu_seconds(),
        },
        "memory": {"peak_rss_mib": measure.peak_rss_mib(), "peak_device_mib": None},
        "started": started,
        "finished": utc_now(),
        "notice": NOTICE,
    }
    write_json(directory / "run.json", document)


def record_failure(study_directory: Path, run: Run, reason: str, started: str) -> None:
    """Write the run.json of a run that did not finish."""
    document = {
        "format": FORMAT,
        "status": "failed",
        "reason": reason,
        "run": config.to_json(run),
        "started": started,
        "finished": utc_now(),
        "notice": NOTICE,
    }
    write_json(run_directory(study_directory, run) / "run.json", document)


def clear_unfinished(directory: Path) -> None:
    """Remove what an interrupted or failed try left; a complete run is never touched (StudyError)."""
    if (directory / "run.json").exists() and read_json(directory / "run.json").get("status") == "complete":
        raise StudyError(f"{directory} holds a finished run; delete that folder to run it again")
    for name in ("run.json", "history.csv", "predictions.npz", "model.safetensors"):
        (directory / name).unlink(missing_ok=True)
    for partial in directory.glob(".*.partial"):
        partial.unlink()
    directory.mkdir(parents=True, exist_ok=True)


def load_data(record: StudyRecord, run: Run, task: Task, spec: ModelSpec, recipe: Recipe) -> RunData:
    """The three parts of the run's split, reading pixels from the study's cache."""
    samples, table = record.samples(), record.split()
    table = table[table["task"] == run.task]
    split = table[table["fold"] == run.fold].set_index("id")["split"]
    cache = open_cache(record.directory / record.document["caches"][str(spec.image_size)])

    train = stream.select_part(cache, samples, split, "train", task)
    weights = stream.weigh_classes(train.labels, len(task.classes), recipe.class_weights)

    def part(name: str) -> Part:  # every part is weighed by the classes of the training part
        return stream.select_part(cache, samples, split, name, task, weights)

    description = {
        "samples_sha256": record.document["samples_sha256"],
        "split_sha256": split_digest(table),
        "cache_sha256": cache.sha256,
        "counts": count_split(samples, split, task),
    }
    return RunData(part("train"), part("val"), part("test"), description)


def fit_model(
    framework: Framework,
    model: Model,
    data: RunData,
    task: Task,
    spec: ModelSpec,
    recipe: Recipe,
    seed: int,
    clock: measure.StepClock,
    witness: stream.Witness,
    emit: Emit,
) -> Fit:
    """Train for the recipe's epochs, judging each on the validation part, and keep the chosen epoch's weights."""
    trainer = framework.create_trainer(model, recipe)
    steps = stream.steps_per_epoch(len(data.train), recipe.batch_size)
    total = steps * recipe.epochs
    score = getattr(classification, task.primary_metric)
    rows: list[dict[str, float]] = []
    kept: dict[str, Array] = {}
    train_seconds = evaluate_seconds = 0.0
    for epoch in range(1, recipe.epochs + 1):
        rates = [learning_rate(step, total, recipe) for step in range((epoch - 1) * steps, epoch * steps)]
        waited, began = clock.wait_seconds, time.perf_counter()
        batches = witness.watch(stream.training_batches(data.train, recipe, spec, seed, epoch))
        pairs = zip(batches, rates, strict=True)
        reported = report_steps(pairs, (epoch - 1) * steps, total, emit)
        losses = framework.train_epoch(trainer, clock.watch(reported))
        framework.synchronise()
        seconds = time.perf_counter() - began
        if not np.isfinite(losses).all():
            step = int(np.flatnonzero(~np.isfinite(losses))[0]) + 1
            raise StudyError(
                f"the training loss is {losses[step - 1]} at step {step} of epoch {epoch}; lower the learning rate"
            )
        began = time.perf_counter()
        logits = predict_part(framework, model, data.val, recipe.batch_size, spec)
        if not np.isfinite(logits).all():  # the epoch's last step may overflow after its loss was taken
            raise StudyError(
                f"the validation logits after epoch {epoch} are not finite; lower the learning rate"
            )
        val_loss = binary_cross_entropy(logits, data.val.labels.astype(np.float64), data.val.weights)
        rows.append(
            {
                "epoch": epoch,
                "step": epoch * steps,
                "learning_rate": rates[-1],
                "train_loss": float(losses.mean()),
                "val_loss": val_loss,
                "val_score": float(score(data.val.labels, sigmoid(logits))),
                "seconds": seconds,
                "images_per_second": steps * recipe.batch_size / seconds,
                "wait_seconds": clock.wait_seconds - waited,
            }
        )
        if choose_epoch([row["val_loss"] for row in rows]) == epoch - 1:
            kept = framework.read_weights(model)
        train_seconds += seconds
        evaluate_seconds += time.perf_counter() - began
        emit(
            {
                "epoch": epoch,
                "epochs": recipe.epochs,
                **{k: rows[-1][k] for k in ("train_loss", "val_loss", "val_score")},
            }
        )
    best = choose_epoch([row["val_loss"] for row in rows])
    history = pd.DataFrame(rows, columns=list(HISTORY_COLUMNS))
    return Fit(history, kept, best + 1, rows[best]["val_loss"], train_seconds, evaluate_seconds)


def report_steps(
    pairs: Iterable[tuple[Batch, float]], done: int, total: int, emit: Emit
) -> Iterator[tuple[Batch, float]]:
    """The pairs unchanged, telling `emit` now and then how far training is."""
    last = 0.0
    for step, pair in enumerate(pairs, start=done):
        if time.monotonic() - last > PROGRESS_SECONDS:
            last = time.monotonic()
            emit({"steps": step, "of": total})
        yield pair


def predict_part(
    framework: Framework, model: Model, part: Part, batch_size: int, spec: ModelSpec
) -> NDArray[np.float64]:
    """Evaluation-mode logits of a part in table order, (n,)."""
    logits = framework.predict_logits(model, stream.evaluation_batches(part, batch_size, spec))
    return logits[: len(part), 0]  # padding stands at the end


def predict_parts(
    framework: Framework, model: Model, data: RunData, batch_size: int, spec: ModelSpec
) -> Predictions:
    """Probabilities of the validation and the test part."""
    parts = {"val": data.val, "test": data.test}
    scores = [sigmoid(predict_part(framework, model, part, batch_size, spec)) for part in parts.values()]
    return Predictions(
        sample_id=np.array([sample_id for part in parts.values() for sample_id in part.ids]),
        patient=np.array([patient for part in parts.values() for patient in part.patients]),
        split=np.repeat(list(parts), [len(part) for part in parts.values()]),
        y_true=np.concatenate([part.labels for part in parts.values()]),
        y_score=np.concatenate(scores),
    )


def run_command(framework: str, study_directory: Path, run: Run) -> str:
    """The command that repeats one run of a study, once its folder is deleted, for a reader to copy."""
    shown = Path("results", study_directory.name) if study_directory.is_absolute() else study_directory
    if framework == "torch":
        return f"python -m torch_impl run {shown} {run.path}"
    return f"KERAS_BACKEND={framework.removeprefix('keras-')} python -m keras_impl run {shown} {run.path}"


def utc_now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
