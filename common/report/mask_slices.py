"""The slices of a study's segmentation runs: read, checked, a seed's folds joined, the same for every framework."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from common.errors import StudyError
from common.metrics.counts import ratio
from common.metrics.segmentation import PixelCounts, scores_from_counts
from common.report.evidence import largest_rectangle, ordered
from common.results import MaskPredictions, RunRecord, unpack_masks

TEST, EXTERNAL = "test", "external"  # parts of the split
Key = tuple[str, int, int]  # framework, seed, fold


@dataclass(frozen=True)
class SliceArm:
    """One framework's answers to the same N slices: R runs."""

    framework: str
    seeds: tuple[int, ...]
    runs: tuple[MaskPredictions, ...]  # in the order of the seeds, rows in that of the slices
    models: int = 1  # runs of a seed: one, or one a fold where each fold's model judges all slices

    @property
    def masks(self) -> NDArray[np.uint8]:
        """Predicted masks, packed, (R, N, B)."""
        return np.stack([run.y_pred for run in self.runs])

    @property
    def area_px(self) -> NDArray[np.int64]:
        """Predicted area of each slice, (R, N)."""
        return np.stack([run.tp + run.fp for run in self.runs])

    @property
    def dice(self) -> NDArray[np.float64]:
        """Dice of each slice, (R, N); 0 where one mask is empty, NaN where truth and prediction are."""
        counts = (PixelCounts(run.tp, run.fp, run.fn, run.tn) for run in self.runs)
        return np.stack([scores_from_counts(one)["dice_score"] for one in counts])

    def of(self, seeds: Sequence[int]) -> SliceArm:
        """The arm with these of its seeds."""
        rows = [self.seeds.index(seed) * self.models + i for seed in seeds for i in range(self.models)]
        return SliceArm(self.framework, tuple(seeds), tuple(self.runs[row] for row in rows), self.models)


@dataclass(frozen=True)
class Slices:
    """One part of the data as every framework saw it: N slices on a grid of `size` px a side, sorted by id."""

    unit: NDArray[np.str_]  # (N,), sample ids
    patient: NDArray[np.str_]  # (N,)
    size: int
    pixel_mm: NDArray[np.float64]  # (N,), side of a pixel of the grid; NaN where unknown
    truth: NDArray[np.uint8]  # (N, B), packed
    arms: tuple[SliceArm, ...]  # in the order of config.FRAMEWORKS

    @property
    def true_px(self) -> NDArray[np.int64]:
        """Area of the true lesion, (N,)."""
        return np.bitwise_count(self.truth).sum(axis=1, dtype=np.int64)

    @property
    def lesion(self) -> NDArray[np.bool_]:
        """Which slices have a lesion, (N,)."""
        return self.true_px > 0

    @property
    def diagonal_px(self) -> float:
        """What the HD95 of a missed lesion counts as: no two points of the grid lie further apart."""
        return math.hypot(self.size, self.size)

    @property
    def pairs(self) -> list[tuple[SliceArm, SliceArm]]:
        """Each further framework beside the first (torch, where it ran), cut to the seeds that both have."""
        found = [(arm, [seed for seed in self.arms[0].seeds if seed in arm.seeds]) for arm in self.arms[1:]]
        return [(arm.of(seeds), self.arms[0].of(seeds)) for arm, seeds in found if seeds]

    def mask(self, packed: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """One packed mask, (B,), as bool (size, size)."""
        return unpack_masks(packed[None], self.size)[0]


def mask_dice(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Dice of packed masks (..., N, B), (..., N): how far two runs agree; NaN where both are empty."""
    both, first, second = (
        np.bitwise_count(masks).sum(axis=-1, dtype=np.int64) for masks in np.broadcast_arrays(a & b, a, b)
    )
    return ratio(2 * both, first + second)


def read_masks(records: Sequence[RunRecord]) -> tuple[dict[Key, MaskPredictions], list[str]]:
    """The usable predictions of the slices that are judged, all on one grid, and a sentence for each file that is not
    usable. Runs of one truth share its array, so that a further run costs its own masks alone.
    """
    usable: dict[Key, MaskPredictions] = {}
    truths: dict[bytes, NDArray[np.uint8]] = {}
    notes = []
    for record in records:
        run = record.run
        try:
            found = record.mask_predictions()
            fault = fault_of(found, next(iter(usable.values()), found))
        except StudyError as error:
            fault = str(error)
        if fault:
            notes.append(f"{run.framework}, seed {run.seed}, fold {run.fold} is not scored: {fault}.")
        else:
            judged = some_slices(found, np.isin(found.split, (TEST, EXTERNAL)))
            truth = truths.setdefault(hashlib.sha256(judged.y_true.tobytes()).digest(), judged.y_true)
            usable[run.framework, run.seed, run.fold] = replace(judged, y_true=truth)
    return usable, notes


def some_slices(found: MaskPredictions, keep: NDArray[np.bool_]) -> MaskPredictions:
    """The kept rows."""
    return MaskPredictions(
        **{name: getattr(found, name)[keep] for name in MaskPredictions.__dataclass_fields__}
    )


def fault_of(found: MaskPredictions, first: MaskPredictions) -> str:
    """Why predictions cannot be scored beside the first ones; empty if they can."""
    if not (found.split == TEST).any():
        return "it has no test predictions"
    size = int(first.size[0])
    packed = (len(found.size), -(-(size**2) // 8))
    if set(found.size.tolist()) != {size} or found.y_true.shape != packed or found.y_pred.shape != packed:
        return f"its masks are not all on a grid of {size} px a side, as the first run's are"
    true_px, pred_px, tp = (
        np.bitwise_count(masks).sum(axis=1, dtype=np.int64)
        for masks in (found.y_true, found.y_pred, found.y_true & found.y_pred)
    )
    counted = np.stack([tp, pred_px - tp, true_px - tp, size**2 - true_px - pred_px + tp])
    if not np.array_equal(np.stack([found.tp, found.fp, found.fn, found.tn]), counted):
        return "its counts are not those of its masks"
    return ""


def rectangle(keys: Iterable[Key], notes: list[str]) -> tuple[tuple[int, ...], dict[str, list[int]]]:
    """The folds that are pooled, and the seeds of each framework that have all of them.

    Frameworks in their fixed order; a note for each seed that is left out.
    """
    grid: dict[tuple[str, int], set[int]] = {}
    for framework, seed, fold in sorted(keys):
        grid.setdefault((framework, seed), set()).add(fold)
    folds = largest_rectangle(list(grid.values()))
    seeds: dict[str, list[int]] = {}
    for (framework, seed), have in grid.items():
        lacking = ", ".join(str(fold) for fold in sorted(set(folds) - have))
        if lacking:
            notes.append(f"{framework}, seed {seed} is not scored: fold {lacking} is missing.")
        else:
            seeds.setdefault(framework, []).append(seed)
    return folds, {framework: seeds[framework] for framework in ordered(set(seeds))}


def gather(
    part: str,
    predictions: Mapping[Key, MaskPredictions],
    seeds: Mapping[str, Sequence[int]],
    folds: tuple[int, ...],
    notes: list[str],
) -> Slices | None:
    """Join the folds of each (framework, seed); None where nobody has slices of this part.

    The folds of a seed test different slices and are joined; each of them judges all external slices. A run with other
    slices, or another truth, than the first is left out with a note.
    """
    together = [(fold,) for fold in folds] if part == EXTERNAL else [folds]
    first: MaskPredictions | None = None
    arms = []
    for framework, its_seeds in seeds.items():
        kept: dict[int, list[MaskPredictions]] = {}
        for seed in its_seeds:
            found = [
                joined([predictions[framework, seed, fold].of(part) for fold in some]) for some in together
            ]
            if first is None and len(found[0].sample_id):
                first = found[0]
            if first is None:
                continue
            if all(same_slices(one, first) for one in found):
                kept[seed] = [replace(one, y_true=first.y_true) for one in found]
            else:
                notes.append(
                    f"{framework}, seed {seed} is not scored: its {part} slices are not the others'."
                )
        if kept:
            runs = tuple(run for of_seed in kept.values() for run in of_seed)
            arms.append(SliceArm(framework, tuple(kept), runs, len(together)))
    if first is None:
        return None
    size = int(first.size[0])
    return Slices(first.sample_id, first.patient, size, first.pixel_mm, first.y_true, tuple(arms))


def joined(parts: Sequence[MaskPredictions]) -> MaskPredictions:
    """All rows, sorted by sample id."""
    order = np.argsort(np.concatenate([part.sample_id for part in parts]), kind="stable")
    return MaskPredictions(
        **{
            name: np.concatenate([getattr(part, name) for part in parts])[order]
            for name in MaskPredictions.__dataclass_fields__
        }
    )


def same_slices(ours: MaskPredictions, others: MaskPredictions) -> bool:
    """Whether two runs were asked about the same slices of the same patients, with the same truth."""
    return all(
        np.array_equal(getattr(ours, name), getattr(others, name))
        for name in ("sample_id", "patient", "y_true")
    ) and np.array_equal(ours.pixel_mm, others.pixel_mm, equal_nan=True)
