"""Which cases a mean over masks runs over, and each case's values.

| level | cases |
|---|---|
| lesion | test slices with a lesion |
| clean | test slices without one |
| patient | test patients with a lesion, the pixels of all their slices counted together |
| small, large | the lesion slices with a true area up to, or above, `config.SMALL_LESION_PX` |
| external, external_clean | as lesion and clean, on the external test set |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common import config
from common.metrics import segmentation
from common.metrics.segmentation import PixelCounts, case_scores, scores_from_counts, sum_by_patient
from common.report.mask_slices import EXTERNAL, Slices
from common.results import MaskPredictions

Values = Mapping[str, NDArray[np.float64]]

# The metrics of masks in the order of the tables; three need no more than the counts of a slice.
OWN_TITLE = {
    "hd95_mm": "HD95 (mm)",
    "marked_slice_score": "Lesion slices with a mask",
    "false_positive_px": "Wrongly marked (px a slice)",
}
OWN_PLACE = {
    "hd95_px": "hd95_mm",
    "lesion_f1_score": "marked_slice_score",
    "clean_slice_score": "false_positive_px",
}
MASK_TITLE: dict[str, str] = {
    name: (segmentation.TITLE | OWN_TITLE)[name]
    for given in segmentation.TITLE
    for name in (given, OWN_PLACE.get(given))
    if name is not None
}
MASK_DIRECTION = {
    **segmentation.DIRECTION,
    "hd95_mm": "down",
    "marked_slice_score": "up",
    "false_positive_px": "down",
}
BY_SIZE = ("dice_score", "sensitivity_score", "surface_dice_score", "marked_slice_score")
BY_PATIENT = ("dice_score", "iou_score", "sensitivity_score", "precision_score", "volume_error")


@dataclass(frozen=True)
class MaskArm:
    """One framework's values over its seeds: R rows of N cases."""

    framework: str
    seeds: tuple[int, ...]
    values: Values  # metric -> (R, N); NaN where a mean must leave a case out
    models: int = 1  # rows of a seed: one, or one a fold where each fold's model judges all cases

    def of(self, seeds: Sequence[int]) -> MaskArm:
        """The arm with these of its seeds."""
        rows = [self.seeds.index(seed) * self.models + i for seed in seeds for i in range(self.models)]
        values = {name: of[rows] for name, of in self.values.items()}
        return MaskArm(self.framework, tuple(seeds), values, self.models)


@dataclass(frozen=True)
class MaskLevel:
    """The cases of one mean; all arms share them."""

    name: str
    unit: NDArray[np.str_]  # (N,), sample ids or patients
    patient: NDArray[np.str_]  # (N,), the resampling unit
    arms: tuple[MaskArm, ...]  # in the order of config.FRAMEWORKS

    @property
    def patients(self) -> int:
        return len(np.unique(self.patient))

    @property
    def metrics(self) -> list[str]:
        """Those that any arm has a value of, in the order of the tables."""
        found = {name for arm in self.arms for name, of in arm.values.items() if np.isfinite(of).any()}
        return sorted(found, key=list(self.arms[0].values).index)

    @property
    def pairs(self) -> list[tuple[MaskArm, MaskArm]]:
        """Each further framework beside the first (torch, where it ran), cut to the seeds that both have."""
        found = [(arm, [seed for seed in self.arms[0].seeds if seed in arm.seeds]) for arm in self.arms[1:]]
        return [(arm.of(seeds), self.arms[0].of(seeds)) for arm, seeds in found if seeds]


def levels_of(slices: Slices, part: str) -> list[MaskLevel]:
    """Every level of a part that has a case, the lesion slices first."""
    lesion, true_px = slices.lesion, slices.true_px
    size = slices.size

    def values(run: MaskPredictions) -> Values:
        return slice_values(run, size)

    if part == EXTERNAL:
        levels = [
            slice_level(EXTERNAL, slices, lesion, values),
            slice_level(f"{EXTERNAL}_clean", slices, ~lesion, values),
        ]
    else:
        small = true_px <= config.SMALL_LESION_PX
        levels = [
            slice_level("lesion", slices, lesion, values),
            slice_level("clean", slices, ~lesion, values),
            patient_level(slices),
            slice_level("small", slices, lesion & small, lambda run: some(values(run), BY_SIZE)),
            slice_level("large", slices, lesion & ~small, lambda run: some(values(run), BY_SIZE)),
        ]
    return [level for level in levels if len(level.unit)]


def slice_values(run: MaskPredictions, size: int) -> Values:
    """Every metric of `MASK_TITLE` of each slice, (N,); NaN for slices that a metric is not of.

    A missed lesion has Dice 0 and an HD95 of the grid's diagonal (see `case_scores`). An empty prediction of an empty
    truth has no Dice and is counted by `clean_slice_score` alone. Millimetres only where every slice has them.
    """
    lesion = run.tp + run.fn > 0
    scores = case_scores(run, size)
    known = bool(np.isfinite(run.pixel_mm).all())
    own = {
        "hd95_mm": scores["hd95_px"] * run.pixel_mm if known else np.full(len(lesion), np.nan),
        "marked_slice_score": np.where(lesion, run.tp + run.fp > 0, np.nan),
        "false_positive_px": np.where(lesion, np.nan, run.fp),
    }
    return {name: scores[name] if name in scores else own[name] for name in MASK_TITLE}


def some(values: Values, names: Sequence[str]) -> Values:
    return {name: values[name] for name in names}


def slice_level(
    name: str,
    slices: Slices,
    keep: NDArray[np.bool_],
    values_of: Callable[[MaskPredictions], Values],
) -> MaskLevel:
    """The kept slices, each with the values of every run."""
    arms = []
    for arm in slices.arms:
        runs = [values_of(run) for run in arm.runs]
        stacked = {metric: np.stack([run[metric] for run in runs])[:, keep] for metric in runs[0]}
        arms.append(MaskArm(arm.framework, arm.seeds, stacked, arm.models))
    return MaskLevel(name, slices.unit[keep], slices.patient[keep], tuple(arms))


def patient_level(slices: Slices) -> MaskLevel:
    """Patients with a lesion; what was wrongly marked on their lesion-free slices counts against them."""
    arms = []
    patients = np.unique(slices.patient[slices.lesion])
    for arm in slices.arms:
        runs = []
        for run in arm.runs:
            names, sums = sum_by_patient(slices.patient, PixelCounts(run.tp, run.fp, run.fn, run.tn))
            runs.append({k: v[np.isin(names, patients)] for k, v in scores_from_counts(sums).items()})
        stacked = {metric: np.stack([run[metric] for run in runs]) for metric in BY_PATIENT}
        arms.append(MaskArm(arm.framework, arm.seeds, stacked, arm.models))
    return MaskLevel("patient", patients, patients, tuple(arms))
