"""The numbers of the report: every metric with its spread over seeds and its interval over patients.

`mean`, `sd`, `minimum` and `maximum` are over seeds. The interval is the percentile bootstrap of the mean over seeds,
test patients drawn with replacement and the seeds held fixed: it says how far other patients could have moved the
mean, and nothing about other seeds or splits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.metrics.classification import TITLE, metrics_at
from common.report.evidence import Arm, Comparison, Level
from common.statistics import cluster_bootstrap, mean_over_runs, paired_cluster_bootstrap, spread

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
    scores, differences = [], []
    for level in comparison.levels:
        for metric in TITLE:
            scores += [score_arm(level, arm, metric) for arm in level.arms]
            differences += [score_pair(level, arm, reference, metric) for arm, reference in level.pairs]
    return Scores(tuple(scores), tuple(differences))


def score_arm(level: Level, arm: Arm, metric: str) -> Score:
    values = seed_values(level, arm, metric)
    mean = mean_over_runs([METRICS[metric]] * len(arm.y_score))
    interval = cluster_bootstrap(mean, level.y_true, runs_last(arm, metric), level.patient)
    over = spread(values)
    return Score(
        arm.framework, level.name, metric, values, over.mean, over.sd, over.minimum, over.maximum,
        interval.ci_low, interval.ci_high,
    )  # fmt: skip


def score_pair(level: Level, arm: Arm, reference: Arm, metric: str) -> Difference:
    values = tuple(
        a - b
        for a, b in zip(seed_values(level, arm, metric), seed_values(level, reference, metric), strict=True)
    )
    mean = mean_over_runs([METRICS[metric]] * len(arm.y_score))
    interval = paired_cluster_bootstrap(
        mean, level.y_true, runs_last(arm, metric), runs_last(reference, metric), level.patient
    )
    over = spread(values)
    return Difference(
        arm.framework, reference.framework, level.name, metric, values, over.mean, over.sd,
        interval.ci_low, interval.ci_high,
    )  # fmt: skip


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
