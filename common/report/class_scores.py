"""Each class against the rest: where a classifier of several classes is good, and where it is not.

`macro` is the plain mean over the classes, `weighted` the mean weighted by how many test cases each class has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common.metrics.classification import per_class_scores, weighted_scores
from common.report.evidence import Arm, Comparison, Level
from common.report.reading import AnyComparison
from common.report.tables import keys
from common.statistics import spread

METRICS = {
    "precision_score": "Precision",
    "recall_score": "Recall",
    "specificity_score": "Specificity",
    "f1_score": "F1",
    "auroc_score": "AUROC",
    "average_precision_score": "AP",
}
AVERAGES = ("macro", "weighted")


@dataclass(frozen=True)
class ClassScore:
    """One metric of one class of one framework; mean and sd over seeds, NaN where undefined."""

    level: str
    name: str  # the class, "macro" or "weighted"
    framework: str
    metric: str
    per_seed: tuple[float, ...]
    mean: float
    sd: float
    support: int  # test cases of the class; of all for an average


def class_scores(comparison: Comparison) -> tuple[ClassScore, ...]:
    """Every class and average at every level, in the order level, class, framework, metric; empty for two classes."""
    if len(comparison.classes) == 2:
        return ()
    found = []
    names = (*comparison.classes, *AVERAGES)
    for level in comparison.levels:
        values = {arm.framework: seed_values(level, arm) for arm in level.arms}  # metric -> (S, C + 2)
        support = [int((level.y_true == index).sum()) for index in range(len(comparison.classes))]
        support += [len(level.y_true)] * len(AVERAGES)
        for column, (name, count) in enumerate(zip(names, support, strict=True)):
            for framework, of in values.items():
                for metric in METRICS:
                    ours = tuple(of[metric][:, column].tolist())
                    over = spread(ours)
                    found.append(
                        ClassScore(level.name, name, framework, metric, ours, over.mean, over.sd, count)
                    )
    return tuple(found)


def seed_values(level: Level, arm: Arm) -> dict[str, NDArray[np.float64]]:
    """Each metric of the classes and of the two averages, (S, C + 2), the mean over a seed's models."""
    rows = [per_class_scores(level.y_true, y_score) for y_score in arm.y_score]
    weighted = [weighted_scores(level.y_true, y_score) for y_score in arm.y_score]
    found = {}
    for metric in METRICS:
        values = np.array([row[metric] for row in rows])  # (R, C)
        means = np.array([row[metric] for row in weighted])  # (R,)
        table = np.column_stack([values, values.mean(axis=1), means])
        found[metric] = table.reshape(len(arm.seeds), arm.models, -1).mean(axis=1)
    return found


def class_table(comparisons: Sequence[tuple[AnyComparison, tuple[ClassScore, ...]]]) -> pd.DataFrame:
    """One row a (lane, task, model, level, class, framework, metric)."""
    return pd.DataFrame(
        [
            {**keys(one), "level": s.level, "class": s.name, "framework": s.framework, "metric": s.metric,
             "mean": s.mean, "sd": s.sd, "seeds": len(s.per_seed), "support": s.support}
            for one, scores in comparisons for s in scores
        ]
    )  # fmt: skip
