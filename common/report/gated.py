"""Two stages judged as one: a classifier says whether there is a stroke, and only then the segmenter's mask counts.

Everything is computed from saved predictions. Gate and segmenter are of the same framework, lane, seed and fold, the
slices those of the test part that both answered. The gate calls a stroke where the largest of several probabilities is
not that of `normal`, or, with two classes, from the run's own threshold on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common import config
from common.metrics.segmentation import PixelCounts, scores_from_counts, sum_by_patient
from common.report import evidence
from common.report.mask_evidence import TASK
from common.report.mask_levels import MaskArm, MaskLevel, Values
from common.report.mask_scores import score_levels
from common.report.mask_slices import TEST, Key, SliceArm, Slices, gather, read_masks, rectangle, some_slices
from common.report.scores import Scores
from common.results import MaskPredictions, RunRecord, StudyRecord

CASCADE_TITLE = {
    "dice_score": "Dice without the gate",
    "gated_dice_score": "Dice behind the gate",
    "gate_dice_loss": "Dice lost to the gate",
    "gate_sensitivity_score": "Lesion slices let through",
    "clean_slice_score": "Left clean without the gate",
    "gated_clean_slice_score": "Left clean behind the gate",
    "gate_specificity_score": "Clean slices stopped",
}
CASCADE_DIRECTION = {name: "down" if name.endswith("_loss") else "up" for name in CASCADE_TITLE}


@dataclass(frozen=True)
class Cascade:
    """One gate before one segmenter, for every framework that trained both."""

    lane: str
    gate_task: str
    gate_model: str
    model: str  # the segmenter
    folds: tuple[int, ...]
    levels: tuple[MaskLevel, ...]  # "lesion", "clean", "patient"; empty where no run of both can be joined
    scores: Scores
    notes: tuple[str, ...]

    @property
    def slug(self) -> str:
        return f"{self.lane}-cascade-{self.gate_model}-{self.model}"


def read_cascades(record: StudyRecord) -> list[Cascade]:
    """Each gate before each segmenter, lane by lane; empty where a lane lacks one of the stages.

    The gates are the models of the first task of `config.GATE_TASKS` that has complete runs.
    """
    cascades = []
    for lane in dict.fromkeys(one.run.lane for one in record.complete):
        runs = [one for one in record.complete if one.run.lane == lane and not one.run.repeat]
        found = {one.run.task for one in runs}
        gate_task = next((task for task in config.GATE_TASKS if task in found), None)
        if gate_task is None:
            continue
        cascades += [
            cascade(lane, gate_task, gate_model, model, runs)
            for model in models_of(runs, TASK)
            for gate_model in models_of(runs, gate_task)
        ]
    return cascades


def models_of(runs: Sequence[RunRecord], task: str) -> list[str]:
    """The models of a task that ran, in the order of `config.MODELS`."""
    found = {one.run.model for one in runs if one.run.task == task}
    return [model for model in config.MODELS if model in found]


def cascade(lane: str, gate_task: str, gate_model: str, model: str, runs: Sequence[RunRecord]) -> Cascade:
    """Join the two stages, run by run, and score them."""
    gates = [one for one in runs if (one.run.task, one.run.model) == (gate_task, gate_model)]
    masks, notes = read_masks([one for one in runs if (one.run.task, one.run.model) == (TASK, model)])
    let, gate_notes = read_gates(gates, gate_task)
    joined = {key: keep(masks[key], let[key]) for key in masks if key in let}
    joined = {key: found for key, found in joined.items() if len(found.sample_id)}
    notes = [f"Gate: {note}" for note in gate_notes] + notes
    folds, seeds = rectangle(joined, notes)
    slices = gather(TEST, joined, seeds, folds, notes)
    levels = cascade_levels(slices, let, folds) if slices is not None and slices.lesion.any() else ()
    return Cascade(lane, gate_task, gate_model, model, folds, levels, score_levels(levels), tuple(notes))


def read_gates(records: Sequence[RunRecord], task: str) -> tuple[dict[Key, dict[str, bool]], list[str]]:
    """For each run of the gate: test slice -> whether it is called a stroke. And notes on what cannot be read."""
    predictions, notes = evidence.read_predictions(records, len(config.TASKS[task].classes))
    thresholds = {
        (one.run.framework, one.run.seed, one.run.fold): evidence.threshold_of(one) for one in records
    }
    let: dict[Key, dict[str, bool]] = {}
    for key, found in predictions.items():
        rows = evidence.grain("slice", found, thresholds[key])
        if rows is not None:
            let[key] = dict(zip(rows[0].tolist(), (rows[4] != 0).tolist(), strict=True))
    return let, notes


def keep(found: MaskPredictions, let: dict[str, bool]) -> MaskPredictions:
    """The test slices that the gate answered too."""
    return some_slices(found, (found.split == TEST) & np.isin(found.sample_id, list(let)))


def cascade_levels(
    slices: Slices, let: dict[Key, dict[str, bool]], folds: Sequence[int]
) -> tuple[MaskLevel, ...]:
    """Values before and behind the gate, of lesion slices, clean slices and patients with a lesion."""
    lesion = slices.lesion
    sick = np.unique(slices.patient[lesion])
    arms: dict[str, list[MaskArm]] = {"lesion": [], "clean": [], "patient": []}
    for arm in slices.arms:
        runs = [
            (PixelCounts(run.tp, run.fp, run.fn, run.tn), passes(slices, let, arm, seed, folds))
            for seed, run in zip(arm.seeds, arm.runs, strict=True)
        ]
        found = {
            "lesion": [at_lesions(counts, passed, lesion) for counts, passed in runs],
            "clean": [at_clean(counts, passed, ~lesion) for counts, passed in runs],
            "patient": [at_patients(counts, passed, slices.patient, sick) for counts, passed in runs],
        }
        for name, values in found.items():
            stacked = {metric: np.stack([one[metric] for one in values]) for metric in values[0]}
            arms[name].append(MaskArm(arm.framework, arm.seeds, stacked))
    levels = (
        MaskLevel("lesion", slices.unit[lesion], slices.patient[lesion], tuple(arms["lesion"])),
        MaskLevel("clean", slices.unit[~lesion], slices.patient[~lesion], tuple(arms["clean"])),
        MaskLevel("patient", sick, sick, tuple(arms["patient"])),
    )
    return tuple(level for level in levels if len(level.unit))


def passes(
    slices: Slices, let: dict[Key, dict[str, bool]], arm: SliceArm, seed: int, folds: Sequence[int]
) -> NDArray[np.bool_]:
    """Which slices a seed's gates let through, (N,); each slice is a test slice of one fold."""
    called: dict[str, bool] = {}
    for fold in folds:
        called |= let[arm.framework, seed, fold]
    return np.array([called[unit] for unit in slices.unit.tolist()], dtype=bool)


def gated(counts: PixelCounts, passed: NDArray[np.bool_]) -> PixelCounts:
    """The counts with the masks of stopped slices emptied."""
    stopped = ~passed
    return PixelCounts(
        counts.tp * passed, counts.fp * passed, counts.fn + counts.tp * stopped, counts.tn + counts.fp * stopped
    )  # fmt: skip


def at_lesions(counts: PixelCounts, passed: NDArray[np.bool_], rows: NDArray[np.bool_]) -> Values:
    return {
        **dice_values(counts, gated(counts, passed), rows),
        "gate_sensitivity_score": passed[rows].astype(np.float64),
    }


def at_clean(counts: PixelCounts, passed: NDArray[np.bool_], rows: NDArray[np.bool_]) -> Values:
    silent = counts.tp + counts.fp == 0
    return {
        "clean_slice_score": silent[rows].astype(np.float64),
        "gated_clean_slice_score": (silent | ~passed)[rows].astype(np.float64),
        "gate_specificity_score": (~passed)[rows].astype(np.float64),
    }


def at_patients(
    counts: PixelCounts, passed: NDArray[np.bool_], patient: NDArray[np.str_], sick: NDArray[np.str_]
) -> Values:
    names, before = sum_by_patient(patient, counts)
    _, after = sum_by_patient(patient, gated(counts, passed))
    return dice_values(before, after, np.isin(names, sick))


def dice_values(before: PixelCounts, after: PixelCounts, rows: NDArray[np.bool_]) -> Values:
    dice, behind = (scores_from_counts(counts)["dice_score"][rows] for counts in (before, after))
    return {"dice_score": dice, "gated_dice_score": behind, "gate_dice_loss": dice - behind}


def table_of(cascades: Sequence[Cascade]) -> pd.DataFrame:
    """A row a (gate, segmenter, level, metric) and framework, or `a-vs-b` for a minus b."""
    rows = []
    for one in cascades:
        keys = {
            "lane": one.lane,
            "gate_task": one.gate_task,
            "gate_model": one.gate_model,
            "model": one.model,
        }
        sizes = {
            level.name: {"folds": len(one.folds), "patients": level.patients, "units": len(level.unit)}
            for level in one.levels
        }
        rows += [
            {**keys, "framework": s.framework, "level": s.level, "metric": s.metric, "mean": s.mean, "sd": s.sd,
             "ci_low": s.ci_low, "ci_high": s.ci_high, "seeds": len(s.per_seed), **sizes[s.level]}
            for s in one.scores.scores
        ]  # fmt: skip
        rows += [
            {**keys, "framework": d.name, "level": d.level, "metric": d.metric, "mean": d.difference, "sd": d.sd,
             "ci_low": d.ci_low, "ci_high": d.ci_high, "seeds": len(d.per_seed), **sizes[d.level]}
            for d in one.scores.differences
        ]  # fmt: skip
    return pd.DataFrame(rows)
