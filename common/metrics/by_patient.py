"""Every metric of the tables as a function of how often each patient counts, for the bootstrap of many runs at once.

A metric of `common.metrics.classification` judges one run by weights a sample. Here all runs of a framework are judged
together by weights a patient: samples are sorted, decided and summed by patient once, and a replicate then costs a
matrix product, or for rankings one pass over the sorted samples. The values are the same.

`counts` is float64 (P, R): how often each of the P patients, sorted by name, is drawn in each of R replicates. Results
are (runs, R), NaN where undefined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common import config
from common.metrics.classification import TITLE
from common.metrics.counts import Counts, Floats, check_probabilities, checked, ratio
from common.metrics.per_class import RATES

ByPatient: TypeAlias = Callable[[Floats], dict[str, Floats]]


def classification_by_patient(
    y_true: ArrayLike, y_score: NDArray[Any], y_pred: NDArray[Any], patients: ArrayLike
) -> ByPatient:
    """The metrics of `classification.TITLE`, of runs that judged the same samples.

    `y_true` int (N,); `y_score` probabilities (runs, N), or (runs, N, C) with C classes; `y_pred` int (runs, N), the
    decisions at each run's own threshold; `patients` (N,). Several classes are decided by the largest probability.
    """
    scores = np.asarray(y_score, dtype=np.float64)
    for of_run in scores:
        truth, _, _ = checked(y_true, of_run, None)
        check_probabilities(of_run)
    decided = np.asarray(y_pred, dtype=np.int64) if scores.ndim == 2 else scores.argmax(-1)
    row = np.unique(np.asarray(patients), return_inverse=True)[1]
    classes = np.arange(1, 2) if scores.ndim == 2 else np.arange(scores.shape[2])
    positive = (truth[:, None] == classes).T[None]  # (1, K, N)
    called = decided[:, None] == classes[:, None]  # (runs, K, N)
    outcomes = [
        summed(kind, row)
        for kind in (positive & called, ~positive & called, positive & ~called, ~positive & ~called)
    ]
    right = summed(decided == truth, row)
    squares = summed(squared_error(truth, scores), row)
    excess = summed(calibration_excess(truth, scores), row)
    by_class = scores[:, None] if scores.ndim == 2 else np.moveaxis(scores, 2, 1)  # (runs, K, N)
    rankings = [
        [ranked(truth == k, column, row) for k, column in zip(classes, of_run, strict=True)]
        for of_run in by_class
    ]

    def evaluate(counts: Floats) -> dict[str, Floats]:
        total = samples @ counts  # (R,), never 0: each patient has samples
        areas = np.array(
            [[ranking_areas(ranking, counts) for ranking in of_run] for of_run in rankings]
        )  # (runs, K, 2, R)
        found = {
            "auroc_score": areas[:, :, 0].mean(axis=1),
            "average_precision_score": areas[:, :, 1].mean(axis=1),
        }
        drawn = Counts(*(kind @ counts for kind in outcomes))  # each (runs, K, R)
        found |= {name: rate(drawn).mean(axis=1) for name, rate in RATES.items()}
        found["accuracy_score"] = right @ counts / total
        found["brier_score"] = squares @ counts / total
        found["expected_calibration_error"] = np.abs(excess @ counts).sum(axis=1) / total
        return {name: found[name] for name in TITLE}

    samples = np.bincount(row).astype(np.float64)  # of each patient
    return evaluate


def means_by_patient(values: Mapping[str, NDArray[np.float64]], patients: ArrayLike) -> ByPatient:
    """Means over cases that are not NaN, as `segmentation.weighted_mean`; metric -> the cases' values (runs, N)."""
    row = np.unique(np.asarray(patients), return_inverse=True)[1]
    parts = {}
    for name, cases in values.items():
        defined = ~np.isnan(cases)
        parts[name] = (summed(np.where(defined, cases, 0.0), row), summed(defined, row))

    def evaluate(counts: Floats) -> dict[str, Floats]:
        return {name: ratio(total @ counts, defined @ counts) for name, (total, defined) in parts.items()}

    return evaluate


def summed(values: NDArray[Any], row: NDArray[np.int64]) -> Floats:
    """Sums over each patient's samples: (..., N) -> float64 (..., P)."""
    order = np.argsort(row, kind="stable")
    starts = np.flatnonzero(np.diff(row[order], prepend=-1))
    sums: Floats = np.add.reduceat(values[..., order].astype(np.float64), starts, axis=-1)
    return sums


@dataclass(frozen=True)
class Ranking:
    """One run's samples by falling score of one class; p positives and n negatives, ties in the score together."""

    positives: NDArray[np.int64]  # (p,), the patient of each
    negatives: NDArray[np.int64]  # (n,)
    tie_end: NDArray[np.int64]  # (p,), index of the last positive that ties with each
    negatives_above: NDArray[np.int64]  # (p,), how many negatives score higher than each positive
    negatives_until: NDArray[np.int64]  # (p,), how many as high or higher


def ranked(positive: NDArray[np.bool_], score: Floats, row: NDArray[np.int64]) -> Ranking:
    """`positive` bool (N,), `score` (N,), `row` the patient of each sample (N,)."""
    order = np.argsort(-score, kind="stable")
    yes, no = order[positive[order]], order[~positive[order]]
    rising_yes, rising_no = -score[yes], -score[no]
    return Ranking(
        row[yes],
        row[no],
        np.searchsorted(rising_yes, rising_yes, "right") - 1,
        np.searchsorted(rising_no, rising_yes, "left"),
        np.searchsorted(rising_no, rising_yes, "right"),
    )


def ranking_areas(ranking: Ranking, counts: Floats) -> tuple[Floats, Floats]:
    """AUROC and average precision, each (R,): `per_class.roc_area` and `per_class.precision_recall_area`."""
    positive, negative = counts[ranking.positives], counts[ranking.negatives]  # (p, R), (n, R)
    fp = np.zeros((len(negative) + 1, counts.shape[1]))
    np.cumsum(negative, axis=0, out=fp[1:])
    tp, until = np.cumsum(positive, axis=0)[ranking.tie_end], fp[ranking.negatives_until]
    lost = (fp[ranking.negatives_above] + until) / 2  # to negatives above, half to those that tie
    positives, negatives = positive.sum(axis=0), fp[-1]
    pairs_won = positives * negatives - np.einsum("pr,pr->r", positive, lost)
    precision = tp / np.maximum(
        tp + until, 1.0
    )  # counts are whole: 0 only where the positive is not drawn either
    return (
        ratio(pairs_won, positives * negatives),
        ratio(np.einsum("pr,pr->r", positive, precision), positives),
    )


def squared_error(truth: NDArray[np.int64], scores: Floats) -> Floats:
    """Of each probability, summed over classes: (runs, N); see `classification.brier_score`."""
    if scores.ndim == 2:
        return (scores - truth) ** 2
    error: Floats = ((scores - (truth[:, None] == np.arange(scores.shape[2]))) ** 2).sum(-1)
    return error


def calibration_excess(truth: NDArray[np.int64], scores: Floats) -> Floats:
    """Truth less probability in the sample's bin, else 0: (runs, bins, N); see `expected_calibration_error`."""
    bins = config.CALIBRATION_BINS
    hit = truth == 1 if scores.ndim == 2 else truth == scores.argmax(-1)
    probability = scores if scores.ndim == 2 else scores.max(-1)
    bin_of = np.minimum((probability * bins).astype(np.int64), bins - 1)
    return (bin_of[:, None] == np.arange(bins)[:, None]) * (hit - probability)[:, None]
