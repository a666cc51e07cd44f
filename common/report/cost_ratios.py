"""One framework's times and memory as multiples of another's, paired by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from common.report.costs import TIMINGS, cost
from common.report.reading import AnyComparison
from common.report.tables import finite, keys
from common.statistics import mean_interval


@dataclass(frozen=True)
class CostRatio:
    """The geometric mean over seeds of framework / reference, with a t interval of its logarithm (NaN of few seeds)."""

    framework: str
    reference: str
    quantity: str  # of costs.TIMINGS, or another that is measured a run
    ratio: float
    low: float
    high: float
    seeds: int

    @property
    def pair(self) -> str:
        return f"{self.framework}-vs-{self.reference}"


def cost_ratios(comparison: AnyComparison) -> list[CostRatio]:
    """Every quantity of each further framework over the first (torch, where it ran), over the runs that both have."""
    costs = {(one.run.framework, one.run.seed, one.run.fold): cost(one) for one in comparison.records}
    found = []
    for framework in comparison.frameworks[1:]:
        for quantity in TIMINGS:
            values = {key: one[quantity] for key, one in costs.items()}
            ratio = paired_ratio(framework, comparison.frameworks[0], quantity, values)
            if ratio is not None:
                found.append(ratio)
    return found


def paired_ratio(
    framework: str, reference: str, quantity: str, values: Mapping[tuple[str, int, int], float]
) -> CostRatio | None:
    """The ratio of (framework, seed, fold) -> value; a seed counts with the geometric mean over its folds.

    None where no seed has both, or a value is not above 0, of which there is no ratio.
    """
    logs: dict[int, list[float]] = {}
    for (name, seed, fold), value in values.items():
        other = values.get((reference, seed, fold), math.nan)
        if name != framework or not (math.isfinite(value) and math.isfinite(other)):
            continue
        if value <= 0 or other <= 0:
            return None
        logs.setdefault(seed, []).append(math.log(value / other))
    if not logs:
        return None
    interval = mean_interval([float(np.mean(logs[seed])) for seed in sorted(logs)])
    ratio, low, high = (math.exp(value) for value in (interval.estimate, interval.ci_low, interval.ci_high))
    return CostRatio(framework, reference, quantity, ratio, low, high, len(logs))


def ratio_table(found: Sequence[tuple[AnyComparison, Sequence[CostRatio]]]) -> pd.DataFrame:
    """cost_ratios.csv."""
    return pd.DataFrame(
        [
            {**keys(comparison), "comparison": one.pair, "quantity": one.quantity, "ratio": one.ratio,
             "low": one.low, "high": one.high, "seeds": one.seeds}
            for comparison, ratios in found
            for one in ratios
        ]
    )  # fmt: skip


def ratio_numbers(found: Sequence[tuple[AnyComparison, Sequence[CostRatio]]]) -> dict[str, dict[str, Any]]:
    """Of summary.json: `LANE/TASK/MODEL/a-vs-b/QUANTITY`."""
    return {
        f"{comparison.key}/{one.pair}/{one.quantity}": {
            "ratio": finite(one.ratio), "low": finite(one.low), "high": finite(one.high), "seeds": one.seeds,
        }
        for comparison, ratios in found
        for one in ratios
    }  # fmt: skip


def ratio_cell(one: CostRatio | None, key: str) -> dict[str, str]:
    """Ratio and interval in three digits: 0.823, 1.40, 12.3."""
    if one is None:
        return {"ratio": "", "low": "", "high": "", "key": key}
    digits = min(4, max(0, 2 - math.floor(math.log10(one.ratio))))
    bounds = ("", "") if math.isnan(one.low) else (f"{one.low:,.{digits}f}", f"{one.high:,.{digits}f}")
    return {"ratio": f"{one.ratio:,.{digits}f}", "low": bounds[0], "high": bounds[1], "key": key}
