"""Do probabilities mean what they say? The calibration curve: mean probability against frequency, bin by bin."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from common import config
from common.metrics.counts import Floats, Weights, check_binary, check_probabilities, checked, ratio


class CalibrationCurve(NamedTuple):
    """A value a bin, the bins rising; each (B,), or (R, B) for weights (R, N). NaN for a bin without weight."""

    predicted: Floats  # mean probability, 0 to 1
    observed: Floats  # share of positives, 0 to 1
    weight: Floats  # of the samples in the bin; without weights their number


def calibration_curve(
    y_true: ArrayLike,
    y_score: ArrayLike,
    bins: int = config.CALIBRATION_BINS,
    sample_weight: Weights = None,
) -> CalibrationCurve:
    """Predicted against observed frequency of class 1 in bins of equal count (Bröcker & Smith 2007).

    `y_true` int (N,), 0 or 1; `y_score` (N,), probabilities. The bins are cut at the quantiles of the samples as they
    are, as scikit-learn's `calibration_curve(strategy="quantile")` cuts them, and `sample_weight` does not move them:
    a bootstrap replicate judges the same bins. Equal scores share a bin, so that many of them leave others empty.

    Raises ValueError for fewer than one bin, for scores that are no probabilities, and for several classes.
    """
    truth, score, weight = checked(y_true, y_score, sample_weight)
    check_binary(score)
    check_probabilities(score)
    if bins < 1:
        raise ValueError(f"bins (={bins}) must be at least 1")
    inner = np.quantile(score, np.linspace(0, 1, bins + 1)[1:-1]) if len(score) else np.empty(0)
    inside = (np.searchsorted(inner, score)[:, None] == np.arange(bins)).astype(np.float64)  # (N, B)
    sums = weight @ np.hstack([inside, inside * score[:, None], inside * truth[:, None]])
    total, predicted, observed = np.split(sums, 3, axis=-1)
    return CalibrationCurve(ratio(predicted, total), ratio(observed, total), total)
