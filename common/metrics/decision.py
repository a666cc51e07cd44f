"""Is acting on a score better than acting on everybody, or on nobody? Net benefit, the height of a decision curve."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from common.metrics.counts import Floats, Weights, check_binary, check_probabilities, checked, ratio


def net_benefit(
    y_true: ArrayLike, y_score: ArrayLike, thresholds: ArrayLike, sample_weight: Weights = None
) -> Floats:
    """Net benefit at each threshold probability (Vickers & Elkin 2006), (T,), or (R, T) for weights (R, N).

    (tp - fp t / (1 - t)) / n, where a sample is called positive at `y_score >= t`: true positives a sample, less the
    false ones at the rate of exchange that the threshold implies (to act from 20 % on is to find one hit worth four
    false alarms). `y_true` int (N,), 0 or 1; `y_score` (N,), probabilities; `thresholds` (T,), from 0 up to but
    without 1. To act on everybody is a score of 1 for all; to act on nobody is 0. NaN without weight.

    Raises ValueError for a threshold outside [0, 1), for scores that are no probabilities, and for several classes.
    """
    truth, score, weight = checked(y_true, y_score, sample_weight)
    check_binary(score)
    check_probabilities(score)
    at = np.asarray(thresholds, dtype=np.float64)
    if at.ndim != 1:
        raise ValueError(f"thresholds (shape {at.shape}) must be (T,)")
    if at.size and not (at.min() >= 0 and at.max() < 1):
        raise ValueError(f"thresholds (from {at.min()} to {at.max()}) must lie from 0 up to but without 1")
    gain = np.where(truth[:, None] == 1, 1.0, -at / (1 - at))  # (N, T), of calling the sample positive
    total = weight.sum(-1, keepdims=True)
    return ratio(
        weight @ (gain * (score[:, None] >= at)), np.broadcast_to(total, (*weight.shape[:-1], len(at)))
    )
