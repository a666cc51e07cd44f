"""The threshold that makes a mask of lesion probabilities, chosen on validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import config
from common.errors import StudyError
from common.metrics.counts import ratio

Counts = NDArray[np.int64]


def count_at_thresholds(
    probabilities: NDArray[np.floating],
    y_true: NDArray[np.bool_],
    thresholds: Sequence[float] = config.MASK_THRESHOLDS,
) -> tuple[Counts, Counts, Counts]:
    """tp, fp and fn of each slice at each threshold, int64 (T, N), from stacks (N, H, W).

    A pixel is called lesion where its probability >= threshold.
    """
    if probabilities.shape != y_true.shape or probabilities.ndim != 3 or y_true.dtype != bool:
        raise ValueError(
            f"probabilities (shape {probabilities.shape}) and y_true (shape {y_true.shape}, {y_true.dtype}) "
            "must be (N, H, W), y_true bool"
        )
    tp = np.empty((len(thresholds), len(y_true)), dtype=np.int64)
    fp = np.empty_like(tp)
    for i, (probability, true) in enumerate(zip(probabilities, y_true, strict=True)):
        lesion, clean = probability[true], probability[~true]
        for k, threshold in enumerate(thresholds):
            tp[k, i] = np.count_nonzero(lesion >= threshold)
            fp[k, i] = np.count_nonzero(clean >= threshold)
    return tp, fp, y_true.sum((1, 2), dtype=np.int64) - tp


def pooled_dice(tp: Counts, fp: Counts, fn: Counts) -> Any:
    """Dice of all slices together, as if they were one picture: sums over the last axis, (..., N) -> (...)."""
    tp, fp, fn = (np.asarray(count).sum(-1) for count in (tp, fp, fn))
    return ratio(2 * tp, 2 * tp + fp + fn)


def best_threshold(
    tp: Counts, fp: Counts, fn: Counts, thresholds: Sequence[float] = config.MASK_THRESHOLDS
) -> float:
    """The threshold with the largest pooled Dice, from counts (T, N); of equals the one nearest 0.5, then the lowest.

    Pooled, because the mean over slices would let the smallest lesions decide. Raises StudyError without a lesion.
    """
    if np.shape(tp)[:1] != (len(thresholds),):
        raise ValueError(
            f"tp (shape {np.shape(tp)}) must have a row for each of {len(thresholds)} thresholds"
        )
    if not (tp[0] + fn[0]).sum():
        raise StudyError(
            "no mask threshold can be chosen, as no slice of the validation part shows a lesion; "
            "enlarge the validation part or add patients with lesions"
        )
    dice = pooled_dice(tp, fp, fn)
    best = [threshold for threshold, value in zip(thresholds, dice, strict=True) if value == dice.max()]
    return float(min(best, key=lambda threshold: (round(abs(threshold - 0.5), 9), threshold)))
