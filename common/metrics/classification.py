"""Scores of a classifier from its saved predictions: counts first, formulas second.

Every metric takes `y_true` int (N,), the class index, and `y_score`: (N,), the score of class 1, or (N, C), a
column a class. With (N, C) the largest column decides (the first of equals), and precision, recall,
specificity, F1, AUROC and average precision are the mean over classes of one class against the rest (macro);
`per_class_scores` has each class, `weighted_scores` the means by the classes' counts. The curves of a class k are
those of `y_true == k` and `y_score[:, k]`.

`sample_weight` is None, (N,) or (R, N). A bootstrap replicate is a weight vector: how often each sample was
drawn. With (R, N) a metric returns (R,), a value a replicate, from one sort; otherwise it returns a float.

Undefined is NaN, never 0 or 1 by convention: no positive in truth (recall, AUROC, average precision), none
called (precision), a macro mean with an absent class. Bad input is a ValueError that names argument, value and
rule.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common import config
from common.metrics.counts import (
    THRESHOLD,
    Floats,
    Weights,
    check_binary,
    check_probabilities,
    checked,
    confusion_matrix,
    count_outcomes,
    ratio,
)
from common.metrics.curves import choose_threshold, precision_recall_curve, roc_curve
from common.metrics.per_class import (
    RATES,
    over_classes,
    per_class_scores,
    precision_recall_area,
    roc_area,
    weighted_scores,
)

__all__ = [
    "DIRECTION",
    "TITLE",
    "PatientTable",
    "accuracy_score",
    "auroc_score",
    "average_precision_score",
    "brier_score",
    "choose_threshold",
    "classification_scores",
    "confusion_matrix",
    "count_outcomes",
    "expected_calibration_error",
    "f1_score",
    "metrics_at",
    "patient_table",
    "per_class_scores",
    "precision_recall_curve",
    "precision_score",
    "recall_score",
    "roc_curve",
    "specificity_score",
    "weighted_scores",
]

Score: TypeAlias = Any  # float; (R,) float64 where sample_weight is (R, N)
Metric: TypeAlias = Callable[..., Score]  # (y_true, y_score, sample_weight=None) -> Score

# Every scalar metric, in the order of the tables.
TITLE: dict[str, str] = {
    "auroc_score": "AUROC",
    "average_precision_score": "Average precision",
    "accuracy_score": "Accuracy",
    "recall_score": "Recall (sensitivity)",
    "specificity_score": "Specificity",
    "precision_score": "Precision",
    "f1_score": "F1",
    "brier_score": "Brier score",
    "expected_calibration_error": "Calibration error (ECE)",
}
DIRECTION: dict[str, Literal["up", "down"]] = {
    name: "down" if name in ("brier_score", "expected_calibration_error") else "up" for name in TITLE
}


# --- decisions ----------------------------------------------------------------------------------------------


def accuracy_score(
    y_true: ArrayLike, y_score: ArrayLike, threshold: float = THRESHOLD, sample_weight: Weights = None
) -> Score:
    """Share of samples whose decision is their class: (tp + tn) / all."""
    matrix = confusion_matrix(y_true, y_score, threshold, sample_weight)
    return _plain(ratio(matrix.trace(axis1=-2, axis2=-1), matrix.sum((-2, -1))))


def precision_score(
    y_true: ArrayLike, y_score: ArrayLike, threshold: float = THRESHOLD, sample_weight: Weights = None
) -> Score:
    """tp / (tp + fp), the positive predictive value."""
    return _macro(RATES["precision_score"](count_outcomes(y_true, y_score, threshold, sample_weight)))


def recall_score(
    y_true: ArrayLike, y_score: ArrayLike, threshold: float = THRESHOLD, sample_weight: Weights = None
) -> Score:
    """tp / (tp + fn), the sensitivity."""
    return _macro(RATES["recall_score"](count_outcomes(y_true, y_score, threshold, sample_weight)))


def specificity_score(
    y_true: ArrayLike, y_score: ArrayLike, threshold: float = THRESHOLD, sample_weight: Weights = None
) -> Score:
    """tn / (tn + fp)."""
    return _macro(RATES["specificity_score"](count_outcomes(y_true, y_score, threshold, sample_weight)))


def f1_score(
    y_true: ArrayLike, y_score: ArrayLike, threshold: float = THRESHOLD, sample_weight: Weights = None
) -> Score:
    """2 tp / (2 tp + fp + fn); by this formula 0, not undefined, where positives exist and none is called."""
    return _macro(RATES["f1_score"](count_outcomes(y_true, y_score, threshold, sample_weight)))


# --- rankings -----------------------------------------------------------------------------------------------


def auroc_score(y_true: ArrayLike, y_score: ArrayLike, sample_weight: Weights = None) -> Score:
    """Chance that a positive outscores a negative, a tie counting half (Mann-Whitney; Hanley & McNeil 1982)."""
    return _macro(over_classes(roc_area, y_true, y_score, sample_weight))


def average_precision_score(y_true: ArrayLike, y_score: ArrayLike, sample_weight: Weights = None) -> Score:
    """Area under the precision-recall curve in steps: the sum of (step of recall) x precision.

    Not interpolated: a line between the points is too optimistic (Davis & Goadrich 2006).
    """
    return _macro(over_classes(precision_recall_area, y_true, y_score, sample_weight))


# --- probabilities ------------------------------------------------------------------------------------------


def brier_score(y_true: ArrayLike, y_score: ArrayLike, sample_weight: Weights = None) -> Score:
    """Mean of (p - y)^2, 0 to 1; with classes its sum over them, 0 to 2 (Brier 1950). Lower is better."""
    truth, score, weight = checked(y_true, y_score, sample_weight)
    check_probabilities(score)
    if score.ndim == 1:
        error = (score - truth) ** 2
    else:
        error = ((score - (truth[:, None] == np.arange(score.shape[1]))) ** 2).sum(1)
    return _plain(ratio(weight @ error, weight.sum(-1)))


def expected_calibration_error(
    y_true: ArrayLike,
    y_score: ArrayLike,
    sample_weight: Weights = None,
    bins: int = config.CALIBRATION_BINS,
) -> Score:
    """Gap between mean probability and frequency in equal-width bins, averaged by the bins' weight, 0 to 1.

    A binary score is binned by the probability of class 1 (Naeini et al. 2015); classes by the probability of
    the decision, against its being right (Guo et al. 2017). A bin holds its lower edge; the last holds 1 too.
    """
    truth, score, weight = checked(y_true, y_score, sample_weight)
    check_probabilities(score)
    if bins < 1:
        raise ValueError(f"bins (={bins}) must be at least 1")
    hit = truth == 1 if score.ndim == 1 else truth == score.argmax(1)
    probability = score if score.ndim == 1 else score.max(1)
    bin_of = np.minimum((probability * bins).astype(np.int64), bins - 1)
    excess = (bin_of[:, None] == np.arange(bins)) * (hit - probability)[:, None]  # (N, bins)
    return _plain(ratio(np.abs(weight @ excess).sum(-1), weight.sum(-1)))  # |sum of w (y - p)| of each bin


# --- together -----------------------------------------------------------------------------------------------


def metrics_at(threshold: float) -> dict[str, Metric]:
    """Every scalar metric by name, in the order of `TITLE`, as `Metric`."""
    return {
        "auroc_score": auroc_score,
        "average_precision_score": average_precision_score,
        "accuracy_score": partial(accuracy_score, threshold=threshold),
        "recall_score": partial(recall_score, threshold=threshold),
        "specificity_score": partial(specificity_score, threshold=threshold),
        "precision_score": partial(precision_score, threshold=threshold),
        "f1_score": partial(f1_score, threshold=threshold),
        "brier_score": brier_score,
        "expected_calibration_error": expected_calibration_error,
    }


def classification_scores(
    y_true: ArrayLike, y_score: ArrayLike, threshold: float = THRESHOLD, sample_weight: Weights = None
) -> dict[str, Score]:
    """Every scalar metric of the probabilities `y_score`, in the order of `TITLE`."""
    metrics = metrics_at(threshold)
    return {name: metric(y_true, y_score, sample_weight=sample_weight) for name, metric in metrics.items()}


class PatientTable(NamedTuple):
    """A row a patient, sorted by name, each (P,)."""

    patient: NDArray[Any]
    y_true: NDArray[np.int64]
    y_score: Floats


def patient_table(
    patient: ArrayLike, y_true: ArrayLike, y_score: ArrayLike, rule: str = config.PATIENT_SCORE_RULE
) -> PatientTable:
    """Patients of a binary task: positive if any sample is, scored by the samples' "mean" (or "max")."""
    truth, score, _ = checked(y_true, y_score, None)
    check_binary(score)
    names = np.asarray(patient)
    if names.shape != truth.shape:
        raise ValueError(f"patient (shape {names.shape}) must be as long as y_true (length {len(truth)})")
    if rule not in ("mean", "max"):
        raise ValueError(f"rule (={rule!r}) must be 'mean' or 'max'")
    if not len(names):
        return PatientTable(names, truth, score)
    order = np.lexsort((score, names))  # by score too: a rounded sum must not depend on the order of the rows
    unique, first, count = np.unique(names[order], return_index=True, return_counts=True)
    positive = np.maximum.reduceat(truth[order], first)
    if rule == "max":
        return PatientTable(unique, positive, np.maximum.reduceat(score[order], first))
    return PatientTable(unique, positive, np.add.reduceat(score[order], first) / count)


# --- arithmetic ---------------------------------------------------------------------------------------------


def _macro(values: Floats) -> Score:
    """Mean over the classes, the last axis."""
    return _plain(values.mean(-1))


def _plain(value: Floats) -> Score:
    return float(value) if np.ndim(value) == 0 else value
