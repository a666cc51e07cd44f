"""What the classifiers' files hold, arranged for comparison: per (lane, task, model), per slice, per patient, external.

A seed's test predictions are pooled over its folds (every patient is tested in one fold at most). Only a full
rectangle of seeds and folds is compared, so that every number of a table rests on the same patients. An external test
set is judged by the runs of all folds, so there a seed's value is the mean over its folds' models.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import config
from common.config import FRAMEWORKS
from common.errors import StudyError
from common.metrics.classification import choose_threshold, patient_table
from common.results import Predictions, RunRecord

NO_THRESHOLD = 0.5  # of a probability, for a run that recorded none
LEVELS = ("slice", "patient", "external")
PER = {"slice": "per slice", "patient": "per patient", "external": "on the external set"}
NO_PATIENT_LEVEL = (
    "Nothing is scored per patient: with more than two classes no rule is agreed on. A patient's slices may show "
    "several of them, and the mean over mostly normal slices is no probability of any."
)
UNREADABLE = (OSError, ValueError, KeyError, StudyError)  # what a missing or damaged file of a study raises


@dataclass(frozen=True)
class Arm:
    """One framework's predictions over its seeds: R rows of N units (slices or patients)."""

    framework: str
    seeds: tuple[int, ...]
    y_score: NDArray[np.float64]  # (R, N), or (R, N, C) with C classes
    y_pred: NDArray[np.int64]  # (R, N), at each run's own threshold
    models: int = 1  # rows of a seed: one, or one a fold where each fold's model judges all units

    @property
    def labels(self) -> list[str]:
        """What each row is, (R,)."""
        if self.models == 1:
            return [f"seed {seed}" for seed in self.seeds]
        return [f"seed {seed}, fold {fold}" for seed in self.seeds for fold in range(self.models)]

    def of(self, seeds: Sequence[int]) -> Arm:
        """The arm with these of its seeds."""
        rows = [self.seeds.index(seed) * self.models + i for seed in seeds for i in range(self.models)]
        return Arm(self.framework, tuple(seeds), self.y_score[rows], self.y_pred[rows], self.models)


@dataclass(frozen=True)
class Level:
    """The test set in one grain; all arms share its units."""

    name: str  # one of LEVELS
    unit: NDArray[np.str_]  # (N,), sample ids or patients
    patient: NDArray[np.str_]  # (N,), the resampling unit
    y_true: NDArray[np.int64]  # (N,), class index
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


def ordered(frameworks: set[str]) -> list[str]:
    """Frameworks in their fixed order, so that colours and signs of differences never depend on a study."""
    return sorted(frameworks, key=lambda name: (FRAMEWORKS.index(name) if name in FRAMEWORKS else 99, name))


def compare(lane: str, task: str, model: str, complete: Sequence[RunRecord], repeat: int = 0) -> Comparison:
    """The comparison of one (lane, task, model) of classifiers from its complete runs; of the A/A runs, which compare
    nothing but a framework with itself, only where `repeat` asks for them.
    """
    records = chosen(complete, lane, task, model, repeat)
    settings = task_of(task)
    predictions, notes = read_predictions(records, len(settings.classes))
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
    seeds = {framework: seeds[framework] for framework in ordered(set(seeds))}
    levels = [pool(name, predictions, seeds, folds, records, notes) for name in LEVELS]
    if len(settings.classes) > 2 and predictions:
        notes.append(NO_PATIENT_LEVEL)
    return Comparison(
        lane,
        task,
        model,
        settings.classes,
        settings.primary_metric,
        folds,
        tuple(level for level in levels if level is not None),
        records,
        tuple(notes),
    )


def chosen(
    complete: Iterable[RunRecord], lane: str, task: str, model: str, repeat: int
) -> tuple[RunRecord, ...]:
    """The records of one comparison."""
    key = (lane, task, model, repeat)
    return tuple(
        one for one in complete if (one.run.lane, one.run.task, one.run.model, one.run.repeat) == key
    )


def task_of(name: str) -> config.Task:
    """The task of a study's file. Raises StudyError for one that this version does not know."""
    if name not in config.TASKS:
        raise StudyError(
            f"the study's task {name!r} is none of {list(config.TASKS)}; it is from another version"
        )
    return config.TASKS[name]


def read_predictions(
    records: Sequence[RunRecord], classes: int
) -> tuple[dict[tuple[str, int, int], Predictions], list[str]]:
    """The usable predictions by (framework, seed, fold), and a sentence for each file that is not usable."""
    usable, notes = {}, []
    for record in records:
        run = record.run
        name = f"{run.framework}, seed {run.seed}, fold {run.fold}"
        try:
            predictions = record.predictions()
        except StudyError as error:
            notes.append(f"{name} is not scored: {without_place(error, record)}.")
            continue
        if not ((predictions.y_score >= 0) & (predictions.y_score <= 1)).all():  # NaN is not
            notes.append(f"{name} is not scored: its predictions are not all probabilities from 0 to 1.")
        elif predictions.y_score.shape[1:] != ((classes,) if classes > 2 else ()):
            notes.append(f"{name} is not scored: its predictions are not those of {classes} classes.")
        elif not ((predictions.y_true >= 0) & (predictions.y_true < classes)).all():
            notes.append(f"{name} is not scored: its truth names a class that the task has not.")
        elif not (predictions.split == "test").any():
            notes.append(f"{name} is not scored: it has no test predictions.")
        else:
            usable[run.framework, run.seed, run.fold] = predictions
    return usable, notes


def without_place(error: StudyError | str, record: RunRecord) -> str:
    """An error's words on a file of a run, without where the study lies: a report to share does not tell."""
    return str(error).replace(f"{record.directory}{os.sep}", f"runs/{record.run.path}/")


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
    # the folds of a seed test different patients and are joined; each of them judges the whole external set
    joined = [(fold,) for fold in folds] if name == "external" else [folds]
    reference: tuple[NDArray, ...] | None = None
    arms = []
    for framework, its_seeds in seeds.items():
        rows: dict[int, list[tuple[NDArray, ...]]] = {}
        for seed in its_seeds:
            found = [
                join([
                    grain(name, predictions[framework, seed, fold], thresholds[framework, seed, fold])
                    for fold in together
                ])
                for together in joined
            ]  # fmt: skip
            models = [one for one in found if one is not None]
            if len(models) < len(found):
                continue
            reference = reference or models[0][:3]
            if all(np.array_equal(a, b) for one in models for a, b in zip(one[:3], reference, strict=True)):
                rows[seed] = [one[3:] for one in models]
            else:
                notes.append(
                    f"{framework}, seed {seed} is not scored {PER[name]}: its test cases are not the others'."
                )
        if rows:
            every = [row for of_seed in rows.values() for row in of_seed]
            y_scores, y_preds = (np.stack(column) for column in zip(*every, strict=True))
            arms.append(Arm(framework, tuple(rows), y_scores, y_preds, len(joined)))
    if reference is None or not arms:
        return None
    unit, patient, y_true = reference
    return Level(name, unit, patient, y_true, tuple(arms))


def join(parts: Sequence[tuple[NDArray, ...] | None]) -> tuple[NDArray, ...] | None:
    """Folds as one part, its rows sorted by unit; None where a fold has none."""
    whole = [part for part in parts if part is not None]
    if not whole or len(whole) < len(parts):
        return None
    columns = [np.concatenate(column) for column in zip(*whole, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return tuple(column[order] for column in columns)


def threshold_of(record: RunRecord) -> float:
    """The run's own threshold, chosen on its validation slices; 0.5 where it recorded none."""
    value = (record.document.get("threshold") or {}).get("value")
    return NO_THRESHOLD if value is None else float(value)


def grain(name: str, predictions: Predictions, threshold: float) -> tuple[NDArray, ...] | None:
    """(unit, patient, y_true, y_score, y_pred) of the test part, or of the external one.

    Per patient the threshold is chosen anew, on validation patients (the slices' where those are of one class).
    None where there is nothing: no external part, and no patients with more than two classes (`NO_PATIENT_LEVEL`).
    """
    if name != "patient":
        part = predictions.of("external" if name == "external" else "test")
        several = part.y_score.ndim > 1
        y_pred = part.y_score.argmax(axis=1) if several else (part.y_score >= threshold).astype(np.int64)
        rows = (part.sample_id, part.patient, part.y_true, part.y_score, y_pred)
        return rows if len(part.y_true) else None
    test, val = predictions.of("test"), predictions.of("val")
    if test.y_score.ndim > 1:
        return None
    if len(val.y_true):
        _, y_true, y_score = patient_table(val.patient, val.y_true, val.y_score)
        if 0 < y_true.sum() < len(y_true):
            threshold = choose_threshold(y_true, y_score, config.THRESHOLD_RULE)
    patient, y_true, y_score = patient_table(test.patient, test.y_true, test.y_score)
    return patient, patient, y_true, y_score, (y_score >= threshold).astype(np.int64)


def flatten(document: Any, prefix: str = "") -> dict[str, str]:
    """Nested JSON as {"a.b": text}, for tables of settings."""
    if isinstance(document, dict):
        rows: dict[str, str] = {}
        for key, value in document.items():
            rows |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
        return rows
    return {prefix: document if isinstance(document, str) else json.dumps(document)}
