"""The numbers of the masks: means over cases, with their spread over seeds and their interval over patients.

As in `scores`: `mean`, `sd`, `minimum` and `maximum` are over the seeds' means over cases; the interval is the
bootstrap of the mean over seeds, patients drawn with replacement and the seeds held fixed.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np

from common.metrics.by_patient import ByPatient, means_by_patient
from common.metrics.segmentation import weighted_mean
from common.report.mask_evidence import MaskComparison
from common.report.mask_levels import MaskArm, MaskLevel
from common.report.scores import Scores, joined, score_level


def score_masks(comparison: MaskComparison) -> Scores:
    """Every metric at every level."""
    return score_levels(comparison.levels)


def score_levels(levels: Iterable[MaskLevel]) -> Scores:
    """Every metric of each level that any framework has a value of, in the order level, metric, framework."""
    return joined(score_level(level, level.metrics, partial(judge, level), seed_means) for level in levels)


def judge(level: MaskLevel, arm: MaskArm) -> ByPatient:
    return means_by_patient({metric: arm.values[metric] for metric in level.metrics}, level.patient)


def seed_means(arm: MaskArm, metric: str) -> tuple[float, ...]:
    """The mean over cases of each seed, the mean over its models where it has several."""
    rows = np.array([weighted_mean(values, values) for values in arm.values[metric]])
    return tuple(float(value) for value in rows.reshape(len(arm.seeds), arm.models).mean(axis=1))
