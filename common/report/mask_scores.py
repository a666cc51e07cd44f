"""The numbers of the masks: means over cases, with their spread over seeds and their interval over patients.

As in `scores`: `mean`, `sd`, `minimum` and `maximum` are over the seeds' means over cases; the interval is
the percentile bootstrap of the mean over seeds, patients drawn with replacement and the seeds held fixed.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from common.metrics.segmentation import weighted_mean
from common.report.mask_evidence import MaskComparison
from common.report.mask_levels import MaskArm, MaskLevel
from common.report.scores import Difference, Score, Scores
from common.statistics import cluster_bootstrap, mean_over_runs, paired_cluster_bootstrap, spread


def score_masks(comparison: MaskComparison) -> Scores:
    """Every metric at every level."""
    return score_levels(comparison.levels)


def score_levels(levels: Iterable[MaskLevel]) -> Scores:
    """Every metric of each level that any framework has a value of, in the order level, metric, framework."""
    scores, differences = [], []
    for level in levels:
        for metric in level.metrics:
            scores += [score_arm(level, arm, metric) for arm in level.arms]
            differences += [score_pair(level, arm, reference, metric) for arm, reference in level.pairs]
    return Scores(tuple(scores), tuple(differences))


def score_arm(level: MaskLevel, arm: MaskArm, metric: str) -> Score:
    values = seed_means(arm, metric)
    rows = arm.values[metric].T  # (N, R)
    mean = mean_over_runs([weighted_mean] * rows.shape[1])
    interval = cluster_bootstrap(mean, np.zeros(len(rows)), rows, level.patient)
    over = spread(values)
    return Score(
        arm.framework, level.name, metric, values, over.mean, over.sd, over.minimum, over.maximum,
        interval.ci_low, interval.ci_high,
    )  # fmt: skip


def score_pair(level: MaskLevel, arm: MaskArm, reference: MaskArm, metric: str) -> Difference:
    values = tuple(a - b for a, b in zip(seed_means(arm, metric), seed_means(reference, metric), strict=True))
    ours, theirs = arm.values[metric].T, reference.values[metric].T  # (N, R)
    mean = mean_over_runs([weighted_mean] * ours.shape[1])
    interval = paired_cluster_bootstrap(mean, np.zeros(len(ours)), ours, theirs, level.patient)
    over = spread(values)
    return Difference(
        arm.framework, reference.framework, level.name, metric, values, over.mean, over.sd,
        interval.ci_low, interval.ci_high,
    )  # fmt: skip


def seed_means(arm: MaskArm, metric: str) -> tuple[float, ...]:
    """The mean over cases of each seed, the mean over its models where it has several."""
    rows = np.array([weighted_mean(values, values) for values in arm.values[metric]])
    return tuple(float(value) for value in rows.reshape(len(arm.seeds), arm.models).mean(axis=1))
