"""Scores of lesion masks: counts first, formulas second.

A metric of one slice takes `y_true` and `y_pred`, bool (H, W), and returns a float. Undefined is NaN, never 0 or 1 by
convention: an empty truth with an empty prediction has no Dice, no overlap and no lesion F1, and is reported apart
(`clean_slice_score`); nothing predicted has no precision; no lesion has no sensitivity and no volume error. An empty
truth with a prediction has Dice, IoU, precision, surface Dice and lesion F1 of 0.

`case_table` counts a stack of slices, `case_scores` makes the metrics of the tables of it. Whole patients are the same
formulas of summed counts: `sum_by_patient`, then `scores_from_counts`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common import config
from common.metrics.counts import Floats, Weights, ratio
from common.metrics.distances import border_distances, hd95_of, surface_dice_of
from common.metrics.lesions import LesionCounts, lesion_counts
from common.metrics.mask_threshold import best_threshold, count_at_thresholds, pooled_dice
from common.results import MaskPredictions

__all__ = [
    "DIRECTION",
    "TITLE",
    "CaseTable",
    "LesionCounts",
    "PixelCounts",
    "best_threshold",
    "case_scores",
    "case_table",
    "count_at_thresholds",
    "count_pixels",
    "dice_score",
    "hd95",
    "iou_score",
    "lesion_counts",
    "lesion_f1_score",
    "pixel_accuracy_score",
    "pooled_dice",
    "precision_score",
    "scores_from_counts",
    "sensitivity_score",
    "sum_by_patient",
    "surface_dice_score",
    "volume_error",
    "weighted_mean",
]

Masks = NDArray[np.bool_]
Counts = NDArray[np.int64]

# Every metric of a slice, in the order of the tables.
TITLE: dict[str, str] = {
    "dice_score": "Dice",
    "iou_score": "IoU (Jaccard)",
    "sensitivity_score": "Sensitivity (recall)",
    "precision_score": "Precision",
    "surface_dice_score": f"Surface Dice ({config.SURFACE_TOLERANCE_PX:g} px)",
    "hd95_px": "HD95 (px)",
    "lesion_f1_score": "Lesion F1",
    "volume_error": "Volume error",
    "pixel_accuracy_score": "Pixel accuracy",
    "clean_slice_score": "Clean slices left clean",
}
DIRECTION: dict[str, Literal["up", "down"]] = {
    name: "down" if name in ("hd95_px", "volume_error") else "up" for name in TITLE
}


class PixelCounts(NamedTuple):
    """Pixels of each slice, int64 (N,)."""

    tp: Counts
    fp: Counts
    fn: Counts
    tn: Counts


# --- formulas of pixel counts -----------------------------------------------------------------------------------

FORMULAS: dict[str, Callable[[PixelCounts], Floats]] = {
    "dice_score": lambda c: ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn),  # Dice 1945
    "iou_score": lambda c: ratio(c.tp, c.tp + c.fp + c.fn),  # Jaccard 1901
    "sensitivity_score": lambda c: ratio(c.tp, c.tp + c.fn),
    "precision_score": lambda c: ratio(c.tp, c.tp + c.fp),
    "volume_error": lambda c: ratio(np.abs(c.fp - c.fn), c.tp + c.fn),
    "pixel_accuracy_score": lambda c: ratio(c.tp + c.tn, c.tp + c.fp + c.fn + c.tn),
}


def scores_from_counts(counts: PixelCounts) -> dict[str, Floats]:
    """Every metric that is a formula of pixel counts, each (N,): of slices, or of patients' sums."""
    return {name: formula(counts) for name, formula in FORMULAS.items()}


def count_pixels(y_true: Masks, y_pred: Masks) -> PixelCounts:
    """Outcomes of the pixels of each slice of two stacks, bool (N, H, W)."""
    _check_masks(y_true, y_pred, axes=3)
    tp, true, pred = (mask.sum((1, 2), dtype=np.int64) for mask in (y_true & y_pred, y_true, y_pred))
    pixels = y_true.shape[1] * y_true.shape[2]
    return PixelCounts(tp, pred - tp, true - tp, pixels - true - pred + tp)


def sum_by_patient(patient: ArrayLike, counts: PixelCounts) -> tuple[NDArray[Any], PixelCounts]:
    """Patients sorted by name (P,), and the counts of all their slices together, each (P,)."""
    names, row = np.unique(np.asarray(patient), return_inverse=True)
    sums = np.zeros((len(names), 4), dtype=np.int64)
    np.add.at(sums, row, np.stack(counts, axis=1))
    return names, PixelCounts(*sums.T)


# --- one slice --------------------------------------------------------------------------------------------------


def dice_score(y_true: Masks, y_pred: Masks) -> float:
    """2 tp / (2 tp + fp + fn), the overlap; 0 where one mask is empty, NaN where both are."""
    return _of_slice("dice_score", y_true, y_pred)


def iou_score(y_true: Masks, y_pred: Masks) -> float:
    """tp / (tp + fp + fn), intersection over union; 0 where one mask is empty, NaN where both are."""
    return _of_slice("iou_score", y_true, y_pred)


def pixel_accuracy_score(y_true: Masks, y_pred: Masks) -> float:
    """(tp + tn) / all pixels. Near 1 for an empty prediction of a small lesion, so nothing to judge by."""
    return _of_slice("pixel_accuracy_score", y_true, y_pred)


def sensitivity_score(y_true: Masks, y_pred: Masks) -> float:
    """tp / (tp + fn), the share of the lesion that was found; NaN without a lesion."""
    return _of_slice("sensitivity_score", y_true, y_pred)


def precision_score(y_true: Masks, y_pred: Masks) -> float:
    """tp / (tp + fp), the share of the prediction that is lesion; NaN where nothing is predicted."""
    return _of_slice("precision_score", y_true, y_pred)


def volume_error(y_true: Masks, y_pred: Masks) -> float:
    """|predicted - true area| / true area, 0 and up; NaN without a lesion. Says nothing of the place."""
    return _of_slice("volume_error", y_true, y_pred)


def hd95(y_true: Masks, y_pred: Masks, pixel_mm: float = 1.0) -> float:
    """95 % Hausdorff distance of the masks' borders in mm (in px for `pixel_mm` 1); NaN where either is empty.

    The larger of the two directed 95th percentiles (linear between ranks) of the distances between border pixels'
    centres, a border pixel having a 4-neighbour outside: the definition of MONAI (`percentile=95, directed=False`)
    and of Metrics Reloaded (Maier-Hein et al. 2024). Others differ: medpy and nnU-Net 1 take one percentile of both
    directions together; DeepMind's surface-distance measures between pixel corners and weighs
    them by the length of the border; some take all pixels of the masks.
    """
    _check_masks(y_true, y_pred, axes=2)
    return hd95_of(border_distances(y_true, y_pred)) * pixel_mm


def surface_dice_score(
    y_true: Masks, y_pred: Masks, tolerance_px: float = config.SURFACE_TOLERANCE_PX
) -> float:
    """Share of both borders that lies within the tolerance of the other (Nikolov et al. 2021, normalised).

    Every border pixel weighs the same (theirs, the length of border in it). 0 where one mask is empty, NaN where both
    are.
    """
    _check_masks(y_true, y_pred, axes=2)
    if y_true.any() != y_pred.any():
        return 0.0
    return surface_dice_of(border_distances(y_true, y_pred), tolerance_px)


def lesion_f1_score(y_true: Masks, y_pred: Masks, overlap: float = config.LESION_OVERLAP) -> float:
    """2 tp / (2 tp + fp + fn) of whole lesions, paired as in `lesion_counts`; NaN where there is none in either."""
    _check_masks(y_true, y_pred, axes=2)
    tp, fp, fn = lesion_counts(y_true, y_pred, overlap)
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else np.nan


# --- many slices ------------------------------------------------------------------------------------------------


class CaseTable(NamedTuple):
    """What `common.results.MaskPredictions` keeps of each slice's masks, each (N,)."""

    tp: Counts
    fp: Counts
    fn: Counts
    tn: Counts
    hd95_px: Floats  # NaN where truth or prediction is empty
    surface_dice: Floats  # NaN where both are
    lesion_tp: Counts
    lesion_fp: Counts
    lesion_fn: Counts


def case_table(y_true: Masks, y_pred: Masks) -> CaseTable:
    """The counts and distances of every slice of two stacks, bool (N, H, W)."""
    pixels = count_pixels(y_true, y_pred)
    surface = np.full((2, len(y_true)), np.nan)  # HD95, surface Dice
    lesions = np.zeros((3, len(y_true)), dtype=np.int64)
    for i in np.flatnonzero(pixels.tp + pixels.fp + pixels.fn):
        distances = border_distances(y_true[i], y_pred[i])
        surface[:, i] = (
            (np.nan, 0.0) if distances is None else (hd95_of(distances), surface_dice_of(distances))
        )
        lesions[:, i] = lesion_counts(y_true[i], y_pred[i])
    return CaseTable(*pixels, *surface, *lesions)


def case_scores(cases: CaseTable | MaskPredictions, side_px: int) -> dict[str, Floats]:
    """Every metric of `TITLE` of each slice, (N,), NaN where a mean over slices must leave it out.

    `clean_slice_score` is of the slices without a lesion: 1 where nothing is predicted, else 0. All others are of the
    slices with one. A missed lesion counts: its Dice, IoU, sensitivity, surface Dice and lesion F1 are 0, its volume
    error is 1, and its HD95 is the diagonal of the grid of `side_px` x `side_px`; only its precision is undefined.
    """
    counts = PixelCounts(cases.tp, cases.fp, cases.fn, cases.tn)
    lesion, silent = counts.tp + counts.fn > 0, counts.tp + counts.fp == 0
    scores = {
        **scores_from_counts(counts),
        "surface_dice_score": cases.surface_dice,
        "hd95_px": np.where(silent, np.hypot(side_px, side_px), cases.hd95_px),
        "lesion_f1_score": ratio(
            2 * cases.lesion_tp, 2 * cases.lesion_tp + cases.lesion_fp + cases.lesion_fn
        ),
        "clean_slice_score": silent.astype(np.float64),
    }
    return {name: np.where(lesion != (name == "clean_slice_score"), scores[name], np.nan) for name in TITLE}


def weighted_mean(y_true: ArrayLike, values: ArrayLike, sample_weight: Weights = None) -> Any:
    """Mean of the values (N,) that are not NaN: the `metric` for bootstraps of `case_scores`.

    `sample_weight` None or (N,) gives a float, (R, N) gives (R,); NaN where no value is left. `y_true` is not looked
    at: the values are judged already.
    """
    del y_true
    value = np.asarray(values, dtype=np.float64)
    weight = np.ones(len(value)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if value.ndim != 1 or weight.ndim not in (1, 2) or weight.shape[-1] != len(value):
        raise ValueError(
            f"values (shape {value.shape}) must be (N,), and sample_weight (shape {weight.shape}) (N,) or (R, N)"
        )
    defined = ~np.isnan(value)
    mean = ratio(weight @ np.where(defined, value, 0.0), weight @ defined.astype(np.float64))
    return float(mean) if mean.ndim == 0 else mean


# --- checks -----------------------------------------------------------------------------------------------------


def _of_slice(name: str, y_true: Masks, y_pred: Masks) -> float:
    _check_masks(y_true, y_pred, axes=2)
    return float(FORMULAS[name](count_pixels(y_true[None], y_pred[None]))[0])


def _check_masks(y_true: Masks, y_pred: Masks, axes: int) -> None:
    for name, mask in (("y_true", y_true), ("y_pred", y_pred)):
        if mask.ndim != axes or mask.dtype != bool:
            shape = "(H, W)" if axes == 2 else "(N, H, W)"
            raise ValueError(f"{name} (shape {mask.shape}, {mask.dtype}) must be bool {shape}")
    if y_true.shape != y_pred.shape:
        raise ValueError(f"y_pred (shape {y_pred.shape}) must have the shape of y_true ({y_true.shape})")
