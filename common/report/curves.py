"""Means of curves whose area is the mean of the areas, so that picture and table agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]  # (K,) x ascending, (K,) y


def mean_roc(curves: Sequence[Curve]) -> Curve:
    """Vertical mean of ROC curves (Fawcett 2006, algorithm 3) at every false positive rate that any of them has.

    Each rate enters twice, with the limits from the left and from the right, so that vertical steps stay vertical and
    the trapezoid area under the mean is the mean of the areas.
    """
    grid = np.unique(np.concatenate([fpr for fpr, _ in curves]))
    left = np.mean([limit(fpr, tpr, grid, "left") for fpr, tpr in curves], axis=0)
    right = np.mean([limit(fpr, tpr, grid, "right") for fpr, tpr in curves], axis=0)
    return np.repeat(grid, 2), np.stack([left, right], axis=1).ravel()


def limit(
    x: NDArray[np.float64], y: NDArray[np.float64], at: NDArray[np.float64], side: str
) -> NDArray[np.float64]:
    """The piecewise linear curve at `at`, from the left or the right where x repeats."""
    after = np.clip(np.searchsorted(x, at, side="left"), 0, len(x) - 1)  # the first point not before `at`
    last = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 1)
    exact = x[after] == at
    return np.where(exact, y[after if side == "left" else last], np.interp(at, x, y))


def mean_precision_recall(curves: Sequence[Curve]) -> Curve:
    """Mean precision as a step function of recall, over curves of one test set.

    In each curve precision holds from the previous recall up to its own (the non-interpolated curve of average
    precision), so the area under the mean is the mean average precision. Recall in, precision out, both ascending in
    recall, to be drawn with `steps-pre`.
    """
    grid = np.unique(np.concatenate([recall for recall, _ in curves]))
    grid = grid[grid > 0]
    precision = np.mean(
        [values[np.searchsorted(recall, grid, side="left")] for recall, values in curves], axis=0
    )
    return np.concatenate([[0.0], grid]), np.concatenate([precision[:1], precision])
