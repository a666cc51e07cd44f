"""What the files of a study hold, arranged for comparison: per (lane, task, model), per slice and per patient.

A seed's test predictions are pooled over its folds (every patient is tested in one fold at most). Only a full
rectangle of seeds and folds is compared, so that every number of a table rests on the same patients.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common import config
from common.config import FRAMEWORKS
from common.errors import StudyError
from common.metrics.classification import choose_threshold, patient_table
from common.results import Predictions, RunRecord, StudyRecord, read_study

NO_THRESHOLD = 0.5  # of a probability, for a run that recorded none
LEVELS = ("slice", "patient")
UNREADABLE = (OSError, ValueError, KeyError, StudyError)  # what a missing or damaged file of a study raises


@dataclass(frozen=True)
class Arm:
    """One framework's test predictions over its seeds, S seeds and N units (slices or patients)."""

    framework: str
    seeds: tuple[int, ...]
    y_score: NDArray[np.float64]  # (S, N), or (S, N, C) with C classes
    y_pred: NDArray[np.int64]  # (S, N), at each run's own threshold

    def of(self, seeds: Sequence[int]) -> Arm:
        """The arm with these of its seeds."""
        rows = [self.seeds.index(seed) for seed in seeds]
        return Arm(self.framework, tuple(seeds), self.y_score[rows], self.y_pred[rows])


@dataclass(frozen=True)
class Level:
    """The test set in one grain; all arms share its units."""

    name: str  # "slice" | "patient"
    unit: NDArray[np.str_]  # (N,), sample ids or patients
    patient: NDArray[np.str_]  # (N,), the resampling unit
    y_true: NDArray[np.int64]  # (N,)
    arms: tuple[Arm, ...]  # in the order of config.FRAMEWORKS

    @property
    def patients(self) -> int:
        return len(np.unique(self.patient))

    @property
    def pairs(self) -> list[tuple[Arm, Arm]]:
        """Each further framework beside the first (torch, where it ran), cut to the seeds that both have."""
        pairs = []
        for arm in self.arms[1:]:
            seeds = [seed for seed in self.arms[0].seeds if seed in arm.seeds]
            if seeds:
                pairs.append((arm.of(seeds), self.arms[0].of(seeds)))
        return pairs


@dataclass(frozen=True)
class Comparison:
    """All frameworks on one (lane, task, model)."""

    lane: str
    task: str
    model: str
    classes: tuple[str, ...]
    primary_metric: str
    folds: tuple[int, ...]
    levels: tuple[Level, ...]  # empty where no run can be scored
    records: tuple[RunRecord, ...]  # complete runs
    notes: tuple[str, ...]  # what was left out of the scores, and why

    @property
    def key(self) -> str:
        return f"{self.lane}/{self.task}/{self.model}"

    @property
    def slug(self) -> str:
        return self.key.replace("/", "-")

    @property
    def frameworks(self) -> list[str]:
        return ordered({record.run.framework for record in self.records})


@dataclass(frozen=True)
class Evidence:
    """A study read once; every table, figure and sentence of the report is a function of it."""

    record: StudyRecord
    comparisons: tuple[Comparison, ...]
    failed: tuple[RunRecord, ...]
    missing: tuple[config.Run, ...]  # asked for, not on disk
    audit: dict[str, Any] = field(default_factory=dict)

    @property
    def frameworks(self) -> list[str]:
        return ordered({framework for one in self.comparisons for framework in one.frameworks})


def ordered(frameworks: set[str]) -> list[str]:
    """Frameworks in their fixed order, so that colours and signs of differences never depend on a study."""
    return sorted(frameworks, key=lambda name: (FRAMEWORKS.index(name) if name in FRAMEWORKS else 99, name))


def read_evidence(directory: Path) -> Evidence:
    """Read a study's files. Raises StudyError where there is no study; what else is missing, the report tells."""
    record = read_study(directory)
    keys = sorted({(one.run.lane, one.run.task, one.run.model) for one in record.runs})
    found = {one.run for one in record.runs}
    try:
        audit = record.audit()
    except StudyError:
        audit = {}
    return Evidence(
        record,
        tuple(compare(lane, task, model, record.complete) for lane, task, model in keys),
        tuple(one for one in record.runs if not one.complete),
        tuple(run for run in record.study.runs() if run not in found),
        audit,
    )


def compare(lane: str, task: str, model: str, complete: Sequence[RunRecord]) -> Comparison:
    """The comparison of one (lane, task, model) from its complete runs."""
    records = tuple(
        one for one in complete if (one.run.lane, one.run.task, one.run.model) == (lane, task, model)
    )
    predictions, notes = read_predictions(records)
    grid: dict[tuple[str, int], set[int]] = {}  # (framework, seed) -> folds
    for framework, seed, fold in predictions:
        grid.setdefault((framework, seed), set()).add(fold)
    folds = largest_rectangle(list(grid.values()))
    seeds: dict[str, list[int]] = {}
    for (framework, seed), have in sorted(grid.items()):
        if set(folds) <= have:
            seeds.setdefault(framework, []).append(seed)
        else:
            lacking = ", ".join(str(fold) for fold in sorted(set(folds) - have))
            notes.append(f"{framework}, seed {seed} is not scored: fold {lacking} is missing.")
    levels = []
    for name in LEVELS:
        level = pool(
            name, predictions, {key: seeds[key] for key in ordered(set(seeds))}, folds, records, notes
        )
        if level is not None:
            levels.append(level)
    settings = config.TASKS.get(task)
    if settings is None:
        raise StudyError(
            f"the study's task {task!r} is none of {list(config.TASKS)}; it is from another version"
        )
    return Comparison(
        lane,
        task,
        model,
        settings.classes,
        settings.primary_metric,
        folds,
        tuple(levels),
        records,
        tuple(notes),
    )


def read_predictions(
    records: Sequence[RunRecord],
) -> tuple[dict[tuple[str, int, int], Predictions], list[str]]:
    """The usable predictions by (framework, seed, fold), and a sentence for each file that is not usable."""
    usable, notes = {}, []
    for record in records:
        run = record.run
        name = f"{run.framework}, seed {run.seed}, fold {run.fold}"
        try:
            predictions = record.predictions()
        except StudyError as error:
            notes.append(f"{name} is not scored: {error}.")
            continue
        if not ((predictions.y_score >= 0) & (predictions.y_score <= 1)).all():  # NaN is not
            notes.append(f"{name} is not scored: its predictions are not all probabilities from 0 to 1.")
        elif not (predictions.split == "test").any():
            notes.append(f"{name} is not scored: it has no test predictions.")
        else:
            usable[run.framework, run.seed, run.fold] = predictions
    return usable, notes


def largest_rectangle(fold_sets: Sequence[set[int]]) -> tuple[int, ...]:
    """The fold set, among those found, that keeps most runs when each seed must have all of it; larger on a tie."""
    if not fold_sets:
        return ()

    kept = {frozenset(folds): sum(len(folds) for have in fold_sets if folds <= have) for folds in fold_sets}
    return max(
        (tuple(sorted(folds)) for folds in kept),
        key=lambda folds: (kept[frozenset(folds)], len(folds), folds),
    )


def pool(
    name: str,
    predictions: dict[tuple[str, int, int], Predictions],
    seeds: dict[str, list[int]],
    folds: tuple[int, ...],
    records: Sequence[RunRecord],
    notes: list[str],
) -> Level | None:
    """Join the folds of each (framework, seed) and stack the seeds. None where nothing can be joined."""
    thresholds = {(one.run.framework, one.run.seed, one.run.fold): threshold_of(one) for one in records}
    reference: tuple[NDArray, NDArray, NDArray] | None = None
    arms = []
    for framework, its_seeds in seeds.items():
        rows: dict[int, tuple[NDArray, NDArray]] = {}
        for seed in its_seeds:
            parts = [
                grain(name, predictions[framework, seed, fold], thresholds[framework, seed, fold])
                for fold in folds
            ]
            if any(part is None for part in parts):
                continue
            unit, patient, y_true, y_score, y_pred = (
                np.concatenate(column)
                for column in zip(*[part for part in parts if part is not None], strict=True)
            )
            order = np.argsort(unit, kind="stable")
            units = (unit[order], patient[order], y_true[order])
            if reference is None:
                reference = units
            if not all(np.array_equal(a, b) for a, b in zip(units, reference, strict=True)):
                notes.append(
                    f"{framework}, seed {seed} is not scored per {name}: its test {name}s are not the others'."
                )
                continue
            rows[seed] = (y_score[order], y_pred[order])
        if rows:
            y_scores, y_preds = (np.stack(column) for column in zip(*rows.values(), strict=True))
            arms.append(Arm(framework, tuple(rows), y_scores, y_preds))
    if reference is None or not arms:
        return None
    return Level(name, *reference, tuple(arms))


def threshold_of(record: RunRecord) -> float:
    """The run's own threshold, chosen on its validation slices; 0.5 where it recorded none."""
    value = (record.document.get("threshold") or {}).get("value")
    return NO_THRESHOLD if value is None else float(value)


def grain(name: str, predictions: Predictions, threshold: float) -> tuple[NDArray, ...] | None:
    """(unit, patient, y_true, y_score, y_pred) of the test part.

    Per patient the threshold is chosen anew, on validation patients (the slices' where those are of one class).
    None for patients of a task with more than two classes: the mean of slice probabilities is not defined for them.
    """
    test = predictions.of("test")
    if test.y_score.ndim > 1:
        y_pred = test.y_score.argmax(axis=1)
        return (test.sample_id, test.patient, test.y_true, test.y_score, y_pred) if name == "slice" else None
    if name == "slice":
        return (
            test.sample_id,
            test.patient,
            test.y_true,
            test.y_score,
            (test.y_score >= threshold).astype(np.int64),
        )
    val = predictions.of("val")
    if len(val.y_true):
        _, y_true, y_score = patient_table(val.patient, val.y_true, val.y_score)
        if 0 < y_true.sum() < len(y_true):
            threshold = choose_threshold(y_true, y_score, config.THRESHOLD_RULE)
    patient, y_true, y_score = patient_table(test.patient, test.y_true, test.y_score)
    return patient, patient, y_true, y_score, (y_score >= threshold).astype(np.int64)


def members(evidence: Evidence) -> pd.DataFrame:
    """The sample table joined with the split: one row a (task, fold, sample). Raises one of UNREADABLE."""
    split = evidence.record.split()
    if "task" not in split:
        split = split.assign(task="any")
    return evidence.record.samples().merge(split, on="id")


def flatten(document: Any, prefix: str = "") -> dict[str, str]:
    """Nested JSON as {"a.b": text}, for tables of settings."""
    if isinstance(document, dict):
        rows: dict[str, str] = {}
        for key, value in document.items():
            rows |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
        return rows
    return {prefix: document if isinstance(document, str) else json.dumps(document)}
