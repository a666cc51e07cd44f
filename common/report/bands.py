"""How far other patients could have moved a curve: bootstrap bands around the mean of the runs.

Patients are drawn with replacement and the runs held fixed, the very draws of the tables' intervals. The limits are
percentiles (a correction as by BCa would take every curve once more without each patient). A band is pointwise: at each
place of the x axis it holds so many of the draws, which is less than holding so many whole curves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from common import config
from common.metrics.counts import counts_at_scores, ratio
from common.statistics.draws import MAX_UNDEFINED_SHARE, multiplicities

Floats: TypeAlias = NDArray[np.float64]
CurveOf: TypeAlias = Callable[[Floats], Floats]  # of one run: weights (R, N) -> heights (R, K)

SEED = 0  # of the draws: those of the tables' intervals
BLOCK_ELEMENTS = 1_000_000  # weights held at a time, 8 MB


@dataclass(frozen=True)
class Band:
    """Pointwise limits, each (K,); NaN where too many draws leave the curve undefined."""

    low: Floats
    high: Floats


def patient_band(patient: NDArray[np.str_], curves: Sequence[CurveOf]) -> Band | None:
    """The band of the mean over runs; `patient` (N,) is the resampling unit, `curves` has one a run.

    None for fewer patients than `config.MIN_INTERVAL_PATIENTS`.
    """
    names, row = np.unique(patient, return_inverse=True)
    if len(names) < config.MIN_INTERVAL_PATIENTS:
        return None
    blocks = multiplicities(len(names), config.BAND_REPLICATES, max(1, BLOCK_ELEMENTS // len(row)), SEED)
    draws = (block[:, row].astype(np.float64) for block in blocks)
    values = np.concatenate([np.mean([of(weights) for of in curves], axis=0) for weights in draws])
    undefined = np.isnan(values).mean(axis=0) > MAX_UNDEFINED_SHARE
    limits = np.full((2, values.shape[1]), np.nan)
    limits[:, ~undefined] = np.nanquantile(values[:, ~undefined], levels(len(names)), axis=0)
    return Band(*limits)


def levels(patients: int) -> list[float]:
    """The quantiles to read, as `common.statistics.interval_of` reads them: a bootstrap of few is too narrow."""
    reach = math.sqrt(patients / (patients - 1)) * stdtrit(patients - 1, (1 + config.CONFIDENCE) / 2)
    return [float(ndtr(-reach)), float(ndtr(reach))]


def tpr_at(positive: NDArray[np.bool_], y_score: Floats, grid: Floats) -> CurveOf:
    """Sensitivity at the false positive rates of `grid`, (K,) from 0 to 1, straight between a curve's points."""

    def curve_of(weights: Floats) -> Floats:
        _, tp, fp = counts_at_scores(positive, y_score, weights)
        fpr, tpr = (np.hstack([np.zeros((len(weights), 1)), share(one)]) for one in (fp, tp))
        known = ~np.isnan(fpr[:, -1] + tpr[:, -1])
        found = np.full((len(weights), len(grid)), np.nan)
        if known.any():
            x, places = in_a_row(fpr[known], grid)
            found[known] = np.interp(places, x, tpr[known].ravel()).reshape(-1, len(grid))
        return found

    return curve_of


def precision_at(positive: NDArray[np.bool_], y_score: Floats, grid: Floats) -> CurveOf:
    """Precision at the recalls of `grid`, (K,) above 0 and up to 1, in the steps of average precision."""

    def curve_of(weights: Floats) -> Floats:
        _, tp, fp = counts_at_scores(positive, y_score, weights)
        recall, precision = share(tp), ratio(tp, tp + fp)
        known = ~np.isnan(recall[:, -1])
        found = np.full((len(weights), len(grid)), np.nan)
        if known.any():
            x, places = in_a_row(recall[known], grid)
            at = np.minimum(np.searchsorted(x, places), x.size - 1)
            found[known] = precision[known].ravel()[at].reshape(-1, len(grid))
        return found

    return curve_of


def share(counts: Floats) -> Floats:
    """Running counts (R, K) as shares of their last; NaN where that is 0."""
    return ratio(counts, np.broadcast_to(counts[:, -1:], counts.shape))


def in_a_row(x: Floats, grid: Floats) -> tuple[Floats, Floats]:
    """Rising rows (R, K) from 0 to 1 and a grid for each, laid end to end, so that one search serves them all."""
    offset = 2.0 * np.arange(len(x))[:, None]
    return (x + offset).ravel(), (grid + offset).ravel()
