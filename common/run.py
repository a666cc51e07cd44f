"""One run, from the seed to the files: load -> build -> fit -> predict -> save.

The framework is handed in. Everything that could make two frameworks differ by choice is fixed here or below: which
samples in which order, the starting weights, the rate of each step, the epoch that is kept, the threshold. In the
native lane order and starting weights are the framework's own; what is judged, when and how, never is.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from common import config, distributed, energy, measure, seals
from common.alarms import STOP_RULE
from common.config import LANES, NOTICE, TASKS, ModelSpec, Recipe, Run, Task, in_lane
from common.data import batches as stream
from common.data.batches import Part
from common.data.cache import open_cache
from common.data.splits import count_split, split_digest
from common.errors import StudyError
from common.fence import Fence
from common.fitting import Emit, describe_speed, fit_model
from common.flops import forward_work
from common.framework import Array, Framework, Model, Settings
from common.latency import measure_latency
from common.measure import utc_now
from common.metrics import classification
from common.prediction import choose_mask_threshold, predict_masks, predict_parts
from common.pretrained import Pretrained, load_pretrained, read_kept
from common.results import (
    FORMAT,
    AnyPredictions,
    StudyRecord,
    read_json,
    read_study,
    run_directory,
    write_csv,
    write_json,
    write_predictions,
)
from common.schedule import CHOICE_RULE, phases
from common.snapshots import SnapshotKeeper, code_digest, remove_snapshot
from common.weights import initial_weights, save_checkpoint, weights_digest

BATCH_NORM = {"head": "evaluation", "all": "training"}  # mode of batch norm, by what is trained
MASK_RULE = "pooled_dice"  # the validation threshold with the largest Dice of all pixels together
LARGEST_RULE = "largest"  # the class with the largest probability


@dataclass(frozen=True)
class RunData:
    """The parts of a run's split."""

    train: Part
    judged: dict[str, Part]  # "val", "test" and, where the data have one, "external"
    description: dict[str, Any]  # `data` of run.json


def execute(
    framework: Framework, study_directory: Path, run: Run, threads: int, emit: Emit, token: str = ""
) -> None:
    """Carry out one run of a prepared study and write its folder, `run.json` last.

    `token`: of the try, where an engine may begin another one beside it (`common.fence`).

    Raises StudyError for what the user can mend; the folder then has no run.json (the caller records the failure).
    """
    import_seconds = measure.seconds_since_start()
    started, began = utc_now(), time.perf_counter()
    record = read_study(study_directory)
    task, key = TASKS[run.task], f"{run.task}/{run.model}"
    spec, recipe = in_lane(record.study.specs[key], record.study.recipes[key], framework.name(), run.lane)
    entry = (record.document.get("pretrained") or {}).get(run.model)
    directory = run_directory(study_directory, run)
    fence = Fence(directory, token if distributed.leads() else "")
    fence.await_turn()
    if distributed.leads():
        with fence.turn():
            clear_unfinished(directory)

    draws = run.seed + config.REPEAT_SEED * run.repeat  # the framework's own
    study = record.study
    settings = Settings(
        study.device,
        study.precision,
        threads,
        draws,
        deterministic=study.deterministic,
        devices=study.devices,
    )
    device = framework.configure(settings)
    opening = time.perf_counter()
    data = load_data(record, run, task, spec, recipe)
    data_seconds = time.perf_counter() - opening
    # Asked before the work is done, lest it fail after.
    environment = {**framework.environment(), **measure.common_environment()}

    building = time.perf_counter()
    model = framework.build(spec)
    build_seconds = time.perf_counter() - building
    pretrained = read_kept(study_directory, entry) if entry else None
    start = starting_weights(framework, model, spec, run.seed, pretrained)
    framework.write_weights(model, start)
    initial_sha256 = weights_digest(start)
    del start  # as large as the model, and not needed again

    # Frameworks that are left their own loops are timed alike: by whole epochs
    clock = measure.StepClock(framework.synchronise, "loop" not in LANES[run.lane], overlaps=device != "cpu")
    witness = stream.Witness()
    train, val = data.train, data.judged["val"]
    meter = energy.start_meter(device, study.workers <= 1, study.devices)
    identity = {
        "run": config.to_json(run),
        "spec": config.to_json(spec),
        "recipe": config.to_json(recipe),
        "data": data.description,
        "starting weights": initial_sha256,
        "device": device,
        "precision": settings.precision,
        "threads": threads if study.deterministic else None,  # else no bits are promised
        "framework": framework.environment(),
        "packages": {name: environment[name] for name in measure.PACKAGES},
        "code": code_digest(),
    }
    # Every rank goes on from the snapshot, which the first one writes
    every = study.checkpoint_every if distributed.leads() else 0
    keeper = SnapshotKeeper(directory, identity, every, fence.turn)
    tell = fence.watch(meter.watch(emit))
    fit = fit_model(framework, model, train, val, spec, recipe, run.seed, clock, witness, tell, keeper)
    if not distributed.leads():  # a rank that has done its share
        return
    joules = None if fit.resumed else meter.record()  # the meter of a killed process is lost
    framework.write_weights(model, fit.weights)

    predicting = time.perf_counter()
    predictions, threshold = predict(framework, model, data, task, spec, recipe)
    predict_seconds = time.perf_counter() - predicting
    rule = MASK_RULE if task.kind == "segmentation" else config.THRESHOLD_RULE

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
    with fence.turn():
        save_checkpoint(directory / "model.safetensors", fit.weights, header)
        write_csv(directory / "history.csv", fit.history)
        write_predictions(directory / "predictions.npz", predictions)
        files = seals.file_digests(directory, ("history.csv", "predictions.npz", "model.safetensors"))
    checkpoint_seconds = time.perf_counter() - saving

    memory = {"peak_rss_mib": measure.peak_rss_mib(), "peak_device_mib": framework.peak_device_mib()}
    asking = time.perf_counter()  # last, for a new number of images may compile, and take memory
    try:
        latency = measure_latency(framework, model, val, recipe.batch_size, spec)
    except Exception:  # what is trained must not be lost to a curiosity
        latency = None
    latency_seconds = time.perf_counter() - asking

    document = {
        "format": FORMAT,
        "status": "complete",
        "reason": None,
        "run": config.to_json(run),
        "attempt": token or None,
        "spec": config.to_json(spec),
        "recipe": config.to_json(recipe),
        "environment": environment,
        "variables": {
            name: os.environ[name] for name in sorted(config.RECORDED_VARIABLES & os.environ.keys())
        },
        "device": device,
        "threads": threads,
        "workers": study.workers,
        "replicas": framework.describe_replicas(),
        "precision": settings.precision,
        "git_commit": measure.git_commit(Path(__file__).parent),
        "command": run_command(framework.name(), study_directory, run),
        "data": data.description,
        "batches": witness.record(),
        "weights": {
            "initial_sha256": initial_sha256,
            "final_sha256": weights_digest(fit.weights),
            "parameters": sum(array.size for array in fit.weights.values()),
        },
        "model": {
            "flops": forward_work(spec).flops,
            "checkpoint_bytes": (directory / "model.safetensors").stat().st_size,
        },
        "choice": {"epoch": fit.epoch, "val_loss": fit.val_loss, "rule": CHOICE_RULE},
        "threshold": {"value": threshold, "rule": LARGEST_RULE if threshold is None else rule},
        "pretrained": {"source": pretrained.source, "sha256": pretrained.sha256} if pretrained else None,
        "phases": [
            {"trainable": one.trainable, "epochs": one.epochs, "batch_norm": BATCH_NORM[one.trainable]}
            for one in phases(recipe)
        ],
        "timings": {
            "import_seconds": import_seconds,
            "data_seconds": data_seconds,
            "build_seconds": build_seconds,
            "trainer_seconds": fit.trainer_seconds,
            "compile_seconds": clock.compile_seconds,
            **describe_speed(fit, clock, recipe),
            "evaluate_seconds": fit.evaluate_seconds + predict_seconds,
            "checkpoint_seconds": checkpoint_seconds + fit.snapshot_seconds,
            "latency_seconds": latency_seconds,
            "latency": latency,
            "total_seconds": import_seconds + time.perf_counter() - began,
            "cpu_seconds": measure.cpu_seconds(),
        },
        "memory": memory,
        "energy": joules,
        "resumed": list(fit.resumed),
        "alarms": list(fit.alarms),
        "stopped": {"epoch": len(fit.history), "rule": STOP_RULE}
        if len(fit.history) < recipe.epochs
        else None,
        "started": started,
        "finished": utc_now(),
        "notice": NOTICE,
        "files": files,
    }
    with fence.turn():
        write_json(directory / "run.json", seals.sealed(document))
        keeper.remove()


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
    write_json(run_directory(study_directory, run) / "run.json", seals.sealed(document))


def clear_unfinished(directory: Path) -> None:
    """Remove what an interrupted or failed try left, but for its snapshot, which the next try may go on from.

    A complete run is never touched (StudyError).
    """
    if (directory / "run.json").exists() and read_json(directory / "run.json").get("status") == "complete":
        raise StudyError(f"{directory} holds a finished run; delete that folder to run it again")
    for name in ("run.json", "engine.json", "history.csv", "predictions.npz", "model.safetensors"):
        (directory / name).unlink(missing_ok=True)
    for partial in directory.glob(".*.partial"):
        partial.unlink()
    directory.mkdir(parents=True, exist_ok=True)


def clear_finished(directory: Path) -> None:
    """Remove what a process that was killed right after writing its record left beside it: its snapshot, and files that
    have no name yet. A disk that does not let them go keeps them: they cost room, not results.
    """
    with contextlib.suppress(OSError):
        remove_snapshot(directory)
        for partial in directory.glob(".*.partial"):
            partial.unlink(missing_ok=True)


def load_data(record: StudyRecord, run: Run, task: Task, spec: ModelSpec, recipe: Recipe) -> RunData:
    """The parts of the run's split, reading pixels from the study's cache."""
    table = record.split()
    table = table[table["task"] == run.task]
    split = table[table["fold"] == run.fold].set_index("id")["split"]
    return load_parts(record, record.samples(), split, split_digest(table), task, spec, recipe)


def load_parts(
    record: StudyRecord,
    samples: pd.DataFrame,
    split: pd.Series,
    split_sha256: str,
    task: Task,
    spec: ModelSpec,
    recipe: Recipe,
) -> RunData:
    """The parts of a split (sample id -> part) of samples that the study's cache holds."""
    samples = samples[samples["id"].isin(split.index)]
    cache = open_cache(record.cache_directory(spec.image_size))

    train = stream.select_part(cache, samples, split, "train", task)
    weights = stream.weigh_classes(train.labels, len(task.classes), recipe.class_weights)

    def part(name: str) -> Part:  # every part is weighed by the classes of the training part
        return stream.select_part(cache, samples, split, name, task, weights)

    judged = {name: part(name) for name in ("val", "test", "external")}
    description = {
        "samples_sha256": record.document.get("samples_sha256", ""),
        "split_sha256": split_sha256,
        "cache_sha256": cache.sha256,
        "counts": count_split(samples, split, task),
    }
    if task.kind == "segmentation":
        description["masks_sha256"] = cache.masks_sha256
    return RunData(part("train"), {name: part for name, part in judged.items() if len(part)}, description)


def starting_weights(
    framework: Framework, model: Model, spec: ModelSpec, seed: int, pretrained: Pretrained | None
) -> dict[str, Array]:
    """The weights of the seed; with a pretrained file, everything but the last layer from there.

    Where `spec.initialiser` is "framework" they are those that `model`, fresh from `build`, has, but for ConvNeXt's
    `gamma`: a layer scale is the model's, and no framework has a default for it.
    """
    own = framework.read_weights(model)
    shapes = {name: array.shape for name, array in own.items()}
    if spec.initialiser == "framework":
        gammas = {name: shape for name, shape in shapes.items() if name.rsplit(".", 1)[-1] == "gamma"}
        start = own | initial_weights(gammas, spec, seed)
    else:
        start = initial_weights(shapes, spec, seed)
    return start if pretrained is None else start | load_pretrained(pretrained.path, shapes, spec.head)


def predict(
    framework: Framework, model: Model, data: RunData, task: Task, spec: ModelSpec, recipe: Recipe
) -> tuple[AnyPredictions, float | None]:
    """The predictions of the judged parts and the threshold, chosen on validation; None where the largest score
    decides.
    """
    arguments = (data.judged, recipe.batch_size, spec)
    if task.kind == "segmentation":
        threshold = choose_mask_threshold(framework, model, data.judged["val"], recipe.batch_size, spec)
        return predict_masks(framework, model, *arguments, threshold), threshold
    predictions = predict_parts(framework, model, *arguments)
    val = predictions.of("val")
    if val.y_score.ndim > 1:
        return predictions, None
    return predictions, classification.choose_threshold(val.y_true, val.y_score, config.THRESHOLD_RULE)


def run_command(framework: str, study_directory: Path, run: Run) -> str:
    """The command that repeats one run of a study, once its folder is deleted, for a reader to copy."""
    shown = Path("results", study_directory.name) if study_directory.is_absolute() else study_directory
    if framework == "torch":
        return f"python -m torch_impl run {shown} {run.path}"
    return f"KERAS_BACKEND={framework.removeprefix('keras-')} python -m keras_impl run {shown} {run.path}"
