"""Intervals over patients: of any metric, and of the difference of two."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common import config
from common.statistics.draws import (
    Draws,
    Method,
    check_replicates,
    interval_of,
    multiplicities,
    one_left_out,
    patient_rows,
)
from common.statistics.estimates import Estimate, Floats, check_confidence

Metric: TypeAlias = Callable[..., Any]  # (y_true, y_score, sample_weight) -> float; (R,) for (R, N)
ByPatient: TypeAlias = Callable[[Floats], Mapping[str, Floats]]  # counts (P, R) -> name -> (runs, R)

BLOCK_ELEMENTS = 250_000  # weights held at a time, 2 MB: stays in a core's cache and bounds memory
REPLICATE_BLOCK = 256  # replicates of all runs at a time: 1 MB for 500 samples


def mean_over_runs(metrics: Sequence[Metric]) -> Metric:
    """One metric of scores (N, runs) or (N, runs, C): the mean over runs, run s judged by `metrics[s]`.

    A metric a run, since each run has its own threshold. As the `metric` of a bootstrap it gives an interval over
    patients alone, for the mean of the runs as they are.
    """

    def mean_metric(y_true: NDArray[Any], y_score: NDArray[Any], sample_weight: Floats | None = None) -> Any:
        if y_score.ndim < 2 or y_score.shape[1] != len(metrics):
            raise ValueError(
                f"y_score (shape {y_score.shape}) must have a column for each of {len(metrics)} runs"
            )
        values = [
            metric(y_true, y_score[:, s], sample_weight=sample_weight) for s, metric in enumerate(metrics)
        ]
        return np.mean(values, axis=0)

    return mean_metric


def cluster_bootstrap(
    metric: Metric,
    y_true: ArrayLike,
    y_score: ArrayLike,
    patients: ArrayLike,
    replicates: int = config.BOOTSTRAP_REPLICATES,
    confidence: float = config.CONFIDENCE,
    seed: int = 0,
    batched: bool = True,
    method: Method = "bca",
) -> Estimate:
    """The metric with an interval over patients (Davison & Hinkley 1997, 3.8; Field & Welsh 2007).

    Arrays share their first axis, the samples (N). Whole patients are drawn with replacement, by name and not by
    row, so that equal `seed` gives equal draws for every framework and order of rows. `metric` is called as
    `metric(y_true, y_score, sample_weight=weights)` with weights (R, N) and returns (R,), as those of
    `common.metrics.classification` do; with `batched=False` it gets one (N,) at a time and returns a float. A
    metric without a `sample_weight` is given repeated rows instead.

    It assumes that patients are independent and alike those of interest; nothing about the slices of one. Seeds and
    splits are held fixed. The interval is BCa, which held one score's truth more often than percentile intervals did:
    see `common.statistics.draws` for how often, and `interval_of` for when it is NaN. The p-value is NaN: nothing is
    tested. Where all replicates agree (an AUROC of 1), a width of 0 is no certainty.
    """
    truth, score = np.asarray(y_true), np.asarray(y_score)
    return _bootstrap(
        lambda weights: _evaluate(metric, truth, score, weights, batched),
        patient_rows(patients, y_true=truth, y_score=score),
        replicates,
        confidence,
        seed,
        method,
        test=False,
    )


def paired_cluster_bootstrap(
    metric: Metric,
    y_true: ArrayLike,
    y_score_a: ArrayLike,
    y_score_b: ArrayLike,
    patients: ArrayLike,
    replicates: int = config.BOOTSTRAP_REPLICATES,
    confidence: float = config.CONFIDENCE,
    seed: int = 0,
    batched: bool = True,
    metric_b: Metric | None = None,
    method: Method = "percentile",
) -> Estimate:
    """The difference metric(a) - metric(b), both judged on each draw of the same patients, tested against zero.

    `metric_b` judges b where it differs from a's, e.g. by a threshold of its own; the rest as `cluster_bootstrap`.
    The interval is percentile, which held differences more often than BCa did. The p-value inverts it: a test of equal
    metrics on patients like these, with the two trained models as they are.
    """
    truth, score_a, score_b = np.asarray(y_true), np.asarray(y_score_a), np.asarray(y_score_b)
    return _bootstrap(
        lambda weights: (
            _evaluate(metric, truth, score_a, weights, batched)
            - _evaluate(metric_b or metric, truth, score_b, weights, batched)
        ),
        patient_rows(patients, y_true=truth, y_score_a=score_a, y_score_b=score_b),
        replicates,
        confidence,
        seed,
        method,
        test=True,
    )


def bootstrap_metrics(
    evaluate: ByPatient,
    patients: ArrayLike,
    replicates: int = config.BOOTSTRAP_REPLICATES,
    seed: int = 0,
) -> dict[str, Draws]:
    """Many metrics of many runs in one pass, all on the same draws: name -> `Draws` with a first axis of runs.

    `patients` (N,) names each sample's; `evaluate` maps how often each of the P of them is drawn, float64 (P, R) in the
    order of their sorted names, to name -> (runs, R): those of `common.metrics.by_patient`. Draws are those of
    `cluster_bootstrap` at equal seed. Means over runs, differences of frameworks and their intervals then cost next to
    nothing: `interval_of(a["auroc_score"].mean() - b["auroc_score"].mean(), test=True)`.
    """
    check_replicates(replicates)
    count = len(np.unique(patients))
    observed = evaluate(np.ones((count, 1)))
    if count < config.MIN_INTERVAL_PATIENTS:  # `interval_of` makes NaN of it
        return {
            name: Draws(values[:, 0], np.empty((len(values), count)), np.empty((len(values), 0)))
            for name, values in observed.items()
        }
    blocks = {
        "left_out": one_left_out(count, REPLICATE_BLOCK),
        "drawn": multiplicities(count, replicates, REPLICATE_BLOCK, seed),
    }
    found = {
        part: [evaluate(np.ascontiguousarray(block.T, dtype=np.float64)) for block in those]
        for part, those in blocks.items()
    }
    return {
        name: Draws(
            values[:, 0],
            np.concatenate([block[name] for block in found["left_out"]], axis=1),
            np.concatenate([block[name] for block in found["drawn"]], axis=1),
        )
        for name, values in observed.items()
    }


# --- one metric ---------------------------------------------------------------------------------------------------


def _bootstrap(
    statistic: Callable[[NDArray[np.int64]], Floats],
    patient_of_row: NDArray[np.int64],
    replicates: int,
    confidence: float,
    seed: int,
    method: Method,
    test: bool,
) -> Estimate:
    """Interval of `statistic`, which maps whole weights (R, N) to (R,)."""
    check_replicates(replicates)
    check_confidence(confidence)
    rows = len(patient_of_row)
    observed = statistic(np.ones((1, rows), dtype=np.int64))[0]
    count = int(patient_of_row.max()) + 1 if rows else 0
    if count < config.MIN_INTERVAL_PATIENTS:
        return Estimate(float(observed), np.nan, np.nan, np.nan)
    block = max(1, BLOCK_ELEMENTS // rows)
    drawn = [statistic(part[:, patient_of_row]) for part in multiplicities(count, replicates, block, seed)]
    left_out = [np.full(count, np.nan)]
    if method == "bca":
        left_out = [statistic(part[:, patient_of_row]) for part in one_left_out(count, block)]
    draws = Draws(observed, np.concatenate(left_out), np.concatenate(drawn))
    return interval_of(draws, confidence, method, test)


def _evaluate(
    metric: Metric, y_true: NDArray[Any], y_score: NDArray[Any], weights: NDArray[np.int64], batched: bool
) -> Floats:
    """The metric on each replicate, (R,)."""
    if not _takes_weights(metric):
        rows = [np.repeat(np.arange(len(y_true)), weight) for weight in weights]
        return np.array([metric(y_true[row], y_score[row]) for row in rows], dtype=np.float64)
    if not batched:
        return np.array(
            [metric(y_true, y_score, sample_weight=weight) for weight in weights], dtype=np.float64
        )
    values = np.asarray(metric(y_true, y_score, sample_weight=weights), dtype=np.float64)
    alone = metric(y_true, y_score, sample_weight=weights[0])
    if values.shape != (len(weights),) or not np.isclose(values[0], alone, equal_nan=True):
        raise ValueError(
            f"metric (={metric}) must map sample_weight (R, N) to (R,) row by row, or pass batched=False"
        )
    return values


def _takes_weights(metric: Metric) -> bool:
    parameters = inspect.signature(metric).parameters
    return "sample_weight" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
