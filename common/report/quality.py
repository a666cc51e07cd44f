"""Time to a stated quality: training seconds until a run's validation score first reached a level that is the same for
all frameworks of a comparison.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from common.report.cost_ratios import CostRatio, paired_ratio
from common.report.costs import was_interrupted
from common.report.evidence import UNREADABLE
from common.report.reading import AnyComparison
from common.report.tables import finite, keys

QUANTITY = "seconds_to_quality"
ROUNDING = 1e-12
Key: TypeAlias = tuple[str, int, int]  # framework, seed, fold


@dataclass(frozen=True)
class QualityTime:
    """How long the runs of a comparison trained until they were as good as `level`."""

    level: float  # of the validation score: the smaller of the frameworks' medians of their runs' best
    curves: Mapping[
        Key, pd.DataFrame
    ]  # a run's `seconds` (of training so far) and `val_score`, a row an epoch
    seconds: Mapping[Key, float]  # infinite where a run never was

    def of(self, framework: str) -> list[float]:
        return [value for key, value in self.seconds.items() if key[0] == framework]

    def reached(self, framework: str) -> int:
        """How many of the framework's runs got there."""
        return sum(map(math.isfinite, self.of(framework)))

    def median(self, framework: str) -> float:
        """When half of the framework's runs were there: by the choice of the level at least so many ever were. A mean
        would leave those out that never were, and flatter whoever has many of them.
        """
        return float(np.median(self.of(framework)))


def time_to_quality(comparison: AnyComparison) -> QualityTime | None:
    """None where no run has a readable history with a validation score; runs that were interrupted are left out."""
    curves: dict[Key, pd.DataFrame] = {}
    for record in comparison.records:
        if was_interrupted(record):
            continue
        try:
            history = record.history()
            curve = pd.DataFrame(
                {"seconds": history["seconds"].cumsum(), "val_score": history["val_score"]}
            ).astype(float)
        except (*UNREADABLE, TypeError):
            continue
        if curve["val_score"].notna().any():
            curves[record.run.framework, record.run.seed, record.run.fold] = curve
    if not curves:
        return None
    best: dict[str, list[float]] = {}
    for (framework, _, _), curve in curves.items():
        best.setdefault(framework, []).append(float(curve["val_score"].max()))
    level = min(sorted(scores)[(len(scores) - 1) // 2] for scores in best.values())
    return QualityTime(level, curves, {key: _first(curve, level) for key, curve in curves.items()})


def _first(curve: pd.DataFrame, level: float) -> float:
    there = curve.loc[curve["val_score"] >= level - ROUNDING, "seconds"]
    return float(there.iloc[0]) if len(there) else math.inf


def quality_ratios(comparison: AnyComparison, found: QualityTime) -> list[CostRatio]:
    """Of each further framework over the first, over the seeds whose runs got there in both."""
    ratios = (
        paired_ratio(framework, comparison.frameworks[0], QUANTITY, found.seconds)
        for framework in comparison.frameworks[1:]
    )
    return [one for one in ratios if one is not None]


def quality_rows(found: Sequence[tuple[AnyComparison, QualityTime]]) -> list[dict[str, Any]]:
    """Of each framework the level, its runs and how many got there, and when half of them had."""
    return [
        {**keys(comparison), "framework": framework, "level": one.level, "median": finite(one.median(framework)),
         "reached": one.reached(framework), "runs": len(one.of(framework))}
        for comparison, one in found
        for framework in comparison.frameworks
        if one.of(framework)
    ]  # fmt: skip


def quality_numbers(found: Sequence[tuple[AnyComparison, QualityTime]]) -> dict[str, dict[str, Any]]:
    """Of summary.json: `LANE/TASK/MODEL/FRAMEWORK/seconds_to_quality`."""
    return {
        "/".join([row.pop(name) for name in ("lane", "task", "model", "framework")] + [QUANTITY]): row
        for row in quality_rows(found)
    }
