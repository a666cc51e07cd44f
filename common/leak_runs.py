"""The trainings of the leak meter: which there are, and what a framework's process does for one.

A training is a study's run in all but its split and labels: the same stream, recipe, steps, choice of the epoch and
threshold (`common.fitting`, `common.run`). It is no run of a study: what it leaves has a folder of its own,
`training.json` last, and no report reads it as a score.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from common import config, measure
from common.config import NOTICE, TASKS, Study, Task, in_lane
from common.data.batches import Witness
from common.data.leaky_splits import ARMS, Arm, deal, shared_patients, why_not_shuffled
from common.data.splits import split_digest
from common.errors import StudyError
from common.fitting import Emit, fit_model
from common.framework import Framework, Settings
from common.metrics import classification, segmentation
from common.results import (
    AnyPredictions,
    Predictions,
    read_json,
    read_study,
    write_csv,
    write_json,
    write_predictions,
)
from common.run import load_parts, predict, starting_weights
from common.statistics import Estimate, cluster_bootstrap
from common.weights import weights_digest

FORMAT = 1
LANE = "aligned"  # spec and recipe are those of this lane
HEADLINE = False  # of every number here: no result to quote


@dataclass(frozen=True, order=True)
class LeakTraining:
    """The key of one training."""

    task: str
    model: str
    framework: str
    seed: int  # of the split, the shuffled labels, the starting weights and the order
    arm: str  # of `ARMS`

    @property
    def path(self) -> PurePosixPath:
        """Folder of the training, relative to `leak/trainings/`."""
        return PurePosixPath(self.task, self.model, self.framework, self.arm, f"seed{self.seed}")

    @property
    def label(self) -> str:
        return f"{self.task} {self.model} {self.framework} seed {self.seed}, {ARMS[self.arm].title.lower()}"


def arms_of(samples: pd.DataFrame, task: Task) -> list[Arm]:
    """The arms that a task has on these samples: without shuffled labels where they cannot be had."""
    shuffled = not why_not_shuffled(samples, task)
    return [arm for arm in ARMS.values() if shuffled or not arm.shuffled]


def trainings_of(study: Study, samples: pd.DataFrame) -> list[LeakTraining]:
    """What the leak meter trains; the arms of one seed stand next to each other, so that early results are whole."""
    return [
        LeakTraining(task, model, framework, seed, arm.name)
        for seed in range(study.seeds)
        for task, model in study.pairs
        for framework in study.frameworks
        for arm in arms_of(samples, TASKS[task])
    ]


def training_directory(directory: Path, training: LeakTraining) -> Path:
    """Below the folder of the prepared study."""
    return directory / "trainings" / training.path


def read_training(directory: Path, training: LeakTraining) -> dict[str, Any] | None:
    """`training.json`; None where it is not there, damaged, or another's."""
    try:
        document = read_json(training_directory(directory, training) / "training.json")
    except StudyError:
        return None
    same = document.get("format") == FORMAT and document.get("training") == config.to_json(training)
    return document if same else None


# --- the framework's process --------------------------------------------------------------------------------------


def carry_out_training(framework: Framework, directory: Path, path: str, threads: int, emit: Emit) -> None:
    """Train and judge one of the trainings of a prepared study's folder and write its own folder, `training.json` last.

    Raises StudyError for a path that is none of them, and where training diverges or a part lacks a class.
    """
    import_seconds, began = measure.seconds_since_start(), time.perf_counter()
    record = read_study(directory)
    samples = record.samples()
    named = {str(one.path): one for one in trainings_of(record.study, samples)}
    training = named.get(path)
    if training is None:
        raise StudyError(f"{path!r} is no training of {directory}; its first is {next(iter(named))}")
    if training.framework != framework.name():
        raise StudyError(f"{path!r} is for {training.framework}, and this is {framework.name()}")
    task, key = TASKS[training.task], f"{training.task}/{training.model}"
    spec, recipe = in_lane(record.study.specs[key], record.study.recipes[key], framework.name(), LANE)
    settings = Settings(record.study.device, record.study.precision, threads, training.seed)
    device = framework.configure(settings)
    used, split = deal(samples, task, ARMS[training.arm], training.seed)
    data = load_parts(record, used, split, _digest(split), task, spec, recipe)

    model = framework.build(spec)
    start = starting_weights(framework, model, spec, training.seed, None)
    framework.write_weights(model, start)
    clock, witness = measure.StepClock(framework.synchronise), Witness()
    parts = data.train, data.judged["val"]
    fit = fit_model(framework, model, *parts, spec, recipe, training.seed, clock, witness, emit)
    framework.write_weights(model, fit.weights)
    predictions, _ = predict(framework, model, data, task, spec, recipe)

    own = training_directory(directory, training)
    write_csv(own / "history.csv", fit.history)
    write_predictions(own / "predictions.npz", predictions)
    document = {
        "format": FORMAT,
        "notice": NOTICE,
        "headline": HEADLINE,
        "training": config.to_json(training),
        **describe_score(predictions, task, spec.image_size),
        "test_patients_in_training": shared_patients(used, split),
        "data": data.description,
        "epoch": fit.epoch,
        "weights": {"initial_sha256": weights_digest(start)},
        "environment": {**framework.environment(), **measure.common_environment()},
        "device": device,
        "threads": threads,
        "seconds": import_seconds + time.perf_counter() - began,
    }
    write_json(own / "training.json", document)


def describe_score(predictions: AnyPredictions, task: Task, size: int) -> dict[str, Any]:
    """The task's primary metric per test slice, with its interval over test patients; None where undefined."""
    found = score_test(predictions, task, size)
    values = {"score": found.estimate, "ci_low": found.ci_low, "ci_high": found.ci_high}
    return {
        "metric": task.primary_metric,
        **{name: float(value) if np.isfinite(value) else None for name, value in values.items()},
    }


def score_test(predictions: AnyPredictions, task: Task, size: int) -> Estimate:
    """The task's primary metric on the test slices (of masks the mean over slices with a lesion), and its interval over
    patients. `size`: px a side of the masks.
    """
    if isinstance(predictions, Predictions):
        test = predictions.of("test")
        metric = getattr(classification, task.primary_metric)
        return cluster_bootstrap(metric, test.y_true, test.y_score, test.patient)
    found = predictions.of("test")
    values = segmentation.case_scores(found, size)[task.primary_metric]
    return cluster_bootstrap(segmentation.weighted_mean, np.zeros(len(values)), values, found.patient)


def _digest(split: pd.Series) -> str:
    return split_digest(pd.DataFrame({"id": split.index, "fold": 0, "split": split.to_numpy()}))
