"""Each class against the rest: the values that the metrics of several classes are means of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from common.metrics.counts import (
    Counts,
    Floats,
    Weights,
    checked,
    count_outcomes,
    counts_at_scores,
    ratio,
)

# --- formulas ---------------------------------------------------------------------------------------------------

# Of decisions, from their counts (..., K). By its formula F1 is 0, not undefined, where positives exist and none is
# called.
RATES: dict[str, Callable[[Counts], Floats]] = {
    "recall_score": lambda c: ratio(c.tp, c.tp + c.fn),
    "specificity_score": lambda c: ratio(c.tn, c.tn + c.fp),
    "precision_score": lambda c: ratio(c.tp, c.tp + c.fp),
    "f1_score": lambda c: ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn),
}


def roc_area(tp: Floats, fp: Floats) -> Floats:
    """Of counts (..., points), falling scores: pairs of a positive and a negative that are in order, a tie half."""
    # the negatives at a score lose to the positives above it, and to half of those at it
    pairs_won = (_steps(fp) * (tp - _steps(tp) / 2)).sum(-1)
    return ratio(pairs_won, tp[..., -1] * fp[..., -1])


def precision_recall_area(tp: Floats, fp: Floats) -> Floats:
    """Of counts (..., points), falling scores: the sum of (step of recall) x precision."""
    precision = ratio(tp, tp + fp, undefined=0.0)  # above the first drawn sample: a step of 0
    return ratio((_steps(tp) * precision).sum(-1), tp[..., -1])


# Of rankings, from the counts at each score.
AREAS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "auroc_score": roc_area,
    "average_precision_score": precision_recall_area,
}


def over_classes(
    area: Callable[[Floats, Floats], Floats], y_true: ArrayLike, y_score: ArrayLike, sample_weight: Weights
) -> Floats:
    """`area(tp, fp)` of class 1, or of each class against the rest, (..., K)."""
    truth, score, weight = checked(y_true, y_score, sample_weight)
    columns = {1: score} if score.ndim == 1 else dict(enumerate(score.T))
    if not len(truth):
        return np.full((*weight.shape[:-1], len(columns)), np.nan)
    counts = (counts_at_scores(truth == index, column, weight) for index, column in columns.items())
    return np.stack([area(tp, fp) for _, tp, fp in counts], axis=-1)


def _steps(cumulative: Floats) -> Floats:
    """What each point adds to the one before it, the first to 0."""
    return np.diff(cumulative, prepend=0.0, axis=-1)


# --- tables -----------------------------------------------------------------------------------------------------


def per_class_scores(
    y_true: ArrayLike, y_score: ArrayLike, sample_weight: Weights = None
) -> dict[str, Floats]:
    """Each class against the rest: metric -> (C,), or (R, C) where `sample_weight` is (R, N).

    `y_score` is (N, C), the largest column decides. Metrics in the order of the tables: AUROC, average precision,
    recall, specificity, precision, F1. NaN where a class is absent or, for its precision, never called.
    """
    _, score, _ = checked(y_true, y_score, sample_weight)
    if score.ndim != 2:
        raise ValueError(f"y_score (shape {score.shape}) must be (N, C), a column a class")
    counts = count_outcomes(y_true, y_score, sample_weight=sample_weight)
    areas = {name: over_classes(area, y_true, y_score, sample_weight) for name, area in AREAS.items()}
    return areas | {name: rate(counts) for name, rate in RATES.items()}


def weighted_scores(y_true: ArrayLike, y_score: ArrayLike, sample_weight: Weights = None) -> dict[str, Any]:
    """`per_class_scores` averaged by the classes' sample counts: metric -> float, or (R,).

    A common class counts more here, where the macro mean of `classification_scores` counts all alike. A class without
    samples has no weight and is left out; weighted recall is the accuracy.
    """
    scores = per_class_scores(y_true, y_score, sample_weight)
    counts = count_outcomes(y_true, y_score, sample_weight=sample_weight)
    support = counts.tp + counts.fn  # (..., C)
    means = {}
    for name, values in scores.items():
        mean = ratio((support * np.where(support > 0, values, 0.0)).sum(-1), support.sum(-1))
        means[name] = float(mean) if mean.ndim == 0 else mean
    return means
