"""The numbers of the report: every metric with its spread over seeds and its interval over patients.

`mean`, `sd`, `minimum` and `maximum` are over seeds. The interval is the bootstrap of the mean over seeds, test
patients drawn with replacement and the seeds held fixed: it says how far other patients could have moved the mean, and
nothing about other seeds or splits. Of a score it is BCa, of a difference percentile, for simulated coverage
(`common.statistics.draws`). All metrics and frameworks are judged on the same draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.metrics.by_patient import ByPatient, classification_by_patient
from common.metrics.classification import TITLE, metrics_at
from common.report.evidence import Arm, Comparison, Level
from common.report.mask_levels import MaskArm, MaskLevel
from common.statistics import bootstrap_metrics, interval_of, spread

# These judge decisions, made at each run's own validation threshold; the others judge probabilities.
DECIDED = ("accuracy_score", "recall_score", "specificity_score", "precision_score", "f1_score")
METRICS = metrics_at(0.5)
ROUNDING = 1e-12  # a bound this near zero is zero, off by the order of a sum


@dataclass(frozen=True)
class Score:
    """One metric of one framework. NaN where undefined (an sd of one seed, an interval of too few patients)."""

    framework: str
    level: str
    metric: str
    per_seed: tuple[float, ...]
    mean: float
    sd: float
    minimum: float
    maximum: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True)
class Difference:
    """One metric of one framework minus that of another, on equal seeds and patients."""

    framework: str
    reference: str
    level: str
    metric: str
    per_seed: tuple[float, ...]
    difference: float
    sd: float
    ci_low: float
    ci_high: float

    @property
    def name(self) -> str:
        return f"{self.framework}-vs-{self.reference}"

    @property
    def visible(self) -> bool:
        """Whether the interval leaves out zero. A description of this test set, no verdict."""
        return self.ci_low > ROUNDING or self.ci_high < -ROUNDING


@dataclass(frozen=True)
class Scores:
    """All of one comparison, in the order level, metric, framework."""

    scores: tuple[Score, ...]
    differences: tuple[Difference, ...]

    def of(self, level: str, metric: str) -> list[Score]:
        return [one for one in self.scores if (one.level, one.metric) == (level, metric)]

    def differences_of(self, level: str, metric: str) -> list[Difference]:
        return [one for one in self.differences if (one.level, one.metric) == (level, metric)]


def score_comparison(comparison: Comparison) -> Scores:
    """Every metric at every level."""
    return joined(
        score_level(level, list(TITLE), partial(judge, level), partial(seed_values, level))
        for level in comparison.levels
    )


def judge(level: Level, arm: Arm) -> ByPatient:
    return classification_by_patient(level.y_true, arm.y_score, arm.y_pred, level.patient)


def joined(parts: Iterable[Scores]) -> Scores:
    """Those of all levels, in their order."""
    found = list(parts)
    return Scores(
        tuple(score for one in found for score in one.scores),
        tuple(difference for one in found for difference in one.differences),
    )


def score_level(
    level: Level | MaskLevel,
    metrics: Sequence[str],
    judge_arm: Callable[[Any], ByPatient],
    values: Callable[[Any, str], tuple[float, ...]],
) -> Scores:
    """These metrics at one level, in the order metric, framework.

    `judge_arm(arm)` is the arm's metrics by how often each patient is drawn, `values(arm, metric)` are its
    seeds' own.
    """
    draws = {arm.framework: bootstrap_metrics(judge_arm(arm), level.patient) for arm in level.arms}
    whole = {arm.framework: arm for arm in level.arms}
    scores, differences = [], []
    for metric in metrics:
        for arm in level.arms:
            interval = interval_of(draws[arm.framework][metric].mean(), method="bca")
            over = spread(values(arm, metric))
            scores.append(Score(
                arm.framework, level.name, metric, values(arm, metric), over.mean, over.sd, over.minimum,
                over.maximum, interval.ci_low, interval.ci_high,
            ))  # fmt: skip
        for pair in level.pairs:  # both cut to the seeds that both have
            ours, theirs = (
                draws[arm.framework][metric].of(rows_of(whole[arm.framework], arm.seeds)).mean()
                for arm in pair
            )
            interval = interval_of(ours - theirs, method="percentile")
            per_seed = tuple(a - b for a, b in zip(*(values(arm, metric) for arm in pair), strict=True))
            over = spread(per_seed)
            differences.append(Difference(
                pair[0].framework, pair[1].framework, level.name, metric, per_seed, over.mean, over.sd,
                interval.ci_low, interval.ci_high,
            ))  # fmt: skip
    return Scores(tuple(scores), tuple(differences))


def rows_of(arm: Arm | MaskArm, seeds: Sequence[int]) -> list[int]:
    """Which of the arm's rows are of these seeds."""
    return [arm.seeds.index(seed) * arm.models + i for seed in seeds for i in range(arm.models)]


def judged(arm: Arm, metric: str) -> NDArray[np.float64]:
    """What the metric judges, (R, N) or (R, N, C): two-class decisions enter as 0 and 1, cut at 0.5."""
    if metric in DECIDED and arm.y_score.ndim == 2:
        return arm.y_pred.astype(np.float64)
    return arm.y_score


def seed_values(level: Level, arm: Arm, metric: str) -> tuple[float, ...]:
    """The metric of each seed, the mean over its models where it has several."""
    values = [float(METRICS[metric](level.y_true, scores)) for scores in judged(arm, metric)]
    return tuple(np.mean(np.reshape(values, (len(arm.seeds), arm.models)), axis=1).tolist())


def runs_last(arm: Arm, metric: str) -> NDArray[np.float64]:
    """`judged` with the samples first, (N, R) or (N, R, C), as the bootstrap wants it."""
    return np.moveaxis(judged(arm, metric), 0, 1)
