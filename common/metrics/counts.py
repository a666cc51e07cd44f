"""The counts that classification metrics are formulas of, and the checks of their arguments.

`sample_weight` is None (each sample once), (N,), or (R, N): R weight vectors, one a bootstrap replicate, counted
in one go.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
Weights: TypeAlias = ArrayLike | None

THRESHOLD = 0.5  # of a probability, where no validation set has chosen one


class Counts(NamedTuple):
    """Weighted outcomes, each (..., K): K is 1 for a binary score, C for each class against the rest."""

    tp: Floats
    fp: Floats
    fn: Floats
    tn: Floats


def count_outcomes(
    y_true: ArrayLike, y_score: ArrayLike, threshold: float = THRESHOLD, sample_weight: Weights = None
) -> Counts:
    """Decide and count; a sample is called positive where `y_score >= threshold`.

    `threshold` is for a binary score; with (N, C) the largest column decides, the first of equals.
    """
    truth, score, weight = checked(y_true, y_score, sample_weight)
    classes = np.arange(1, 2) if score.ndim == 1 else np.arange(score.shape[1])
    positive, called = truth[:, None] == classes, decide(score, threshold)[:, None] == classes  # (N, K)
    return Counts(
        tp=weight @ (positive & called).astype(np.float64),
        fp=weight @ (~positive & called).astype(np.float64),
        fn=weight @ (positive & ~called).astype(np.float64),
        tn=weight @ (~positive & ~called).astype(np.float64),
    )


def confusion_matrix(
    y_true: ArrayLike, y_score: ArrayLike, threshold: float = THRESHOLD, sample_weight: Weights = None
) -> NDArray[Any]:
    """Counts (C, C), row the true class, column the decision; [[tn, fp], [fn, tp]] for a binary score.

    int64 without weights, float64 with; (R, C, C) for weights (R, N).
    """
    truth, score, weight = checked(y_true, y_score, sample_weight)
    size = 2 if score.ndim == 1 else score.shape[1]
    cell = truth * size + decide(score, threshold)
    counts = weight @ (cell[:, None] == np.arange(size * size)).astype(np.float64)
    matrix = counts.reshape(*counts.shape[:-1], size, size)
    return matrix.astype(np.int64) if sample_weight is None else matrix


def counts_at_scores(
    positive: NDArray[np.bool_], score: Floats, weight: Floats
) -> tuple[Floats, Floats, Floats]:
    """Distinct scores, falling, (K,), and tp and fp (..., K) if every sample from that score up is called."""
    order = np.argsort(-score, kind="stable")
    score, positive = score[order], positive[order]
    drawn = np.take(weight, order, axis=-1)
    last = np.flatnonzero(np.append(score[1:] != score[:-1], [True] * bool(len(score))))  # of each tie
    tp = np.cumsum(drawn * positive, axis=-1)[..., last]
    fp = np.cumsum(drawn * ~positive, axis=-1)[..., last]
    return score[last], tp, fp


def binary_counts_at_scores(
    y_true: ArrayLike, y_score: ArrayLike, sample_weight: Weights
) -> tuple[Floats, Floats, Floats]:
    """`counts_at_scores` of a binary score, without the samples that weigh nothing: the points of a curve."""
    truth, score, weight = checked(y_true, y_score, sample_weight)
    check_binary(score)
    if weight.ndim != 1:
        raise ValueError(f"sample_weight (shape {weight.shape}) must be (N,) for a curve")
    kept = weight > 0
    return counts_at_scores(truth[kept] == 1, score[kept], weight[kept])


def decide(score: Floats, threshold: float) -> NDArray[np.int64]:
    """Class index of each sample, (N,)."""
    if score.ndim == 2:
        return score.argmax(1)
    if not np.isfinite(threshold):
        raise ValueError(f"threshold (={threshold}) must be finite")
    return (score >= threshold).astype(np.int64)


def ratio(numerator: NDArray[Any], denominator: NDArray[Any], undefined: float = np.nan) -> Floats:
    """Elementwise quotient, `undefined` where the denominator is 0."""
    result = np.full(np.shape(denominator), undefined)
    return np.divide(numerator, denominator, out=result, where=np.asarray(denominator) > 0)


# --- checks -------------------------------------------------------------------------------------------------


def checked(
    y_true: ArrayLike, y_score: ArrayLike, sample_weight: Weights
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """int64 (N,), float64 (N,) or (N, C), float64 (N,) or (R, N); ValueError if they cannot be."""
    truth, score = np.asarray(y_true), np.asarray(y_score, dtype=np.float64)
    if truth.ndim != 1:
        raise ValueError(f"y_true (shape {truth.shape}) must be (N,)")
    if truth.size and truth.dtype.kind not in "iub":
        raise ValueError(f"y_true (dtype {truth.dtype}) must hold whole numbers, the class indices")
    if score.ndim not in (1, 2) or (score.ndim == 2 and score.shape[1] < 2):
        raise ValueError(f"y_score (shape {score.shape}) must be (N,) or (N, C) with C of at least 2")
    if len(score) != len(truth):
        raise ValueError(f"y_score (length {len(score)}) must be as long as y_true (length {len(truth)})")
    if not np.isfinite(score).all():
        row = int(np.argwhere(~np.isfinite(score))[0, 0])
        raise ValueError(f"y_score (={score[row]} in row {row}) must be finite")
    classes = 2 if score.ndim == 1 else score.shape[1]
    outside = np.flatnonzero((truth < 0) | (truth >= classes))
    if len(outside):
        row = int(outside[0])
        raise ValueError(f"y_true (={truth[row]} in row {row}) must be within 0..{classes - 1}")
    weight = np.ones(len(truth)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if weight.ndim not in (1, 2) or weight.shape[-1] != len(truth):
        raise ValueError(
            f"sample_weight (shape {weight.shape}) must be (N,) or (R, N) with N (={len(truth)})"
        )
    if weight.size and not (weight.min() >= 0 and weight.max() < np.inf):  # NaN fails the first
        raise ValueError(
            f"sample_weight (from {weight.min()} to {weight.max()}) must be finite and not negative"
        )
    return truth.astype(np.int64), score, weight


def check_binary(score: Floats) -> None:
    if score.ndim != 1:
        raise ValueError(
            f"y_score (shape {score.shape}) must be (N,); take one column against y_true == class"
        )


def check_probabilities(score: Floats) -> None:
    if score.size and not (score.min() >= 0 and score.max() <= 1):
        raise ValueError(f"y_score (from {score.min()} to {score.max()}) must hold probabilities, 0 to 1")
