"""The curves of a binary score, and the threshold chosen on one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from common import config
from common.errors import StudyError
from common.metrics.counts import Floats, Weights, binary_counts_at_scores, ratio

SCORE_RESOLUTION = 1e-6  # closer scores count as one: float32 frameworks agree on a probability to about 1e-7


class RocCurve(NamedTuple):
    """From (0, 0) to (1, 1), a point a distinct score, thresholds falling from infinity; each (K + 1,)."""

    fpr: Floats
    tpr: Floats
    thresholds: Floats


def roc_curve(y_true: ArrayLike, y_score: ArrayLike, sample_weight: Weights = None) -> RocCurve:
    """The ROC curve of a binary score. A rate is NaN throughout where its class is absent."""
    scores, tp, fp = binary_counts_at_scores(y_true, y_score, sample_weight)
    tp, fp = np.append(0.0, tp), np.append(0.0, fp)
    fpr, tpr = ratio(fp, np.full_like(fp, fp[-1])), ratio(tp, np.full_like(tp, tp[-1]))
    return RocCurve(fpr, tpr, np.append(np.inf, scores))


class PrecisionRecallCurve(NamedTuple):
    """Thresholds (K,) rise; precision and recall (K + 1,) end in (1, 0), which only anchors the drawing."""

    precision: Floats
    recall: Floats
    thresholds: Floats


def precision_recall_curve(
    y_true: ArrayLike, y_score: ArrayLike, sample_weight: Weights = None
) -> PrecisionRecallCurve:
    """The precision-recall curve of a binary score, in scikit-learn's order. Recall is NaN without positives.

    Draw precision over recall with `drawstyle="steps-post"`: the area is then the average precision.
    """
    scores, tp, fp = binary_counts_at_scores(y_true, y_score, sample_weight)
    precision, recall = ratio(tp, tp + fp), ratio(tp, np.full_like(tp, tp[-1] if len(tp) else 0.0))
    return PrecisionRecallCurve(np.append(precision[::-1], 1.0), np.append(recall[::-1], 0.0), scores[::-1])


def choose_threshold(y_true: ArrayLike, y_score: ArrayLike, rule: str = config.THRESHOLD_RULE) -> float:
    """The threshold of a binary score; rule "youden" maximises sensitivity + specificity - 1 (Youden 1950).

    It lies midway between two neighbouring scores more than `SCORE_RESOLUTION` apart, so that the frameworks'
    rounding does not move it to another place. Of equally good cuts the lowest is taken: it misses fewest. Where
    none beats calling every sample positive it lies just below all scores.

    Raises StudyError where a class is absent, for then no cut can be judged.
    """
    if rule != "youden":
        raise ValueError(f"rule (={rule!r}) must be 'youden'")
    scores, tp, fp = binary_counts_at_scores(y_true, y_score, None)
    positives, negatives = (tp[-1], fp[-1]) if len(scores) else (0.0, 0.0)
    if not positives or not negatives:
        raise StudyError(
            f"no threshold can be chosen from {positives:.0f} positive and {negatives:.0f} negative samples, "
            "as both kinds are needed; enlarge the validation part or add patients of the missing class"
        )
    below = np.append(scores[1:], scores[-1] - 2 * SCORE_RESOLUTION)  # the next score down
    gain = tp * negatives - fp * positives  # Youden's J times both counts: whole, so ties are exact
    gain[scores - below <= SCORE_RESOLUTION] = -np.inf  # no cut here
    best = np.flatnonzero(gain == gain.max())[-1]
    return float((scores[best] + below[best]) / 2)
