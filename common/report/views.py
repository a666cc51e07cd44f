"""Tables as the page shows them: formatted text, arrows and marks; no arithmetic beyond rounding."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd

from common.metrics.classification import DIRECTION, TITLE
from common.report.evidence import Comparison, Level
from common.report.scores import Score, Scores
from common.report.tables import TIMINGS, keys
from common.report.wording import plain, plural, signed

ARROW = {"up": "↑", "down": "↓"}
ARROW_WORDS = {"up": "higher is better", "down": "lower is better"}


def score_view(level: Level, scores: Scores, classes: int) -> dict[str, Any]:
    """The summary table of one level: a row a metric, a column a framework, then the paired differences."""
    rows = []
    for metric, title in TITLE.items():
        ours, direction = scores.of(level.name, metric), DIRECTION[metric]
        best = best_framework(ours, metric)
        rows.append({
            "title": title,
            "arrow": ARROW[direction],
            "words": ARROW_WORDS[direction],
            "cells": [
                {"mean": plain(s.mean), "sd": plain(s.sd) if math.isfinite(s.sd) else "",
                 "interval": interval(s.ci_low, s.ci_high, plain), "best": s.framework == best}
                for s in ours
            ],
            "differences": [
                {"value": signed(d.difference), "interval": interval(d.ci_low, d.ci_high, signed), "visible": d.visible}
                for d in scores.differences_of(level.name, metric)
            ],
        })  # fmt: skip
    return {
        "name": level.name,
        "frameworks": [{"name": arm.framework, "seeds": len(arm.seeds)} for arm in level.arms],
        "pairs": [
            f"{d.framework} − {d.reference}" for d in scores.differences_of(level.name, next(iter(TITLE)))
        ],
        "rows": rows,
        "units": len(level.unit),
        "patients": level.patients,
        "classes": [int((level.y_true == i).sum()) for i in range(classes)],
    }


def best_framework(scores: list[Score], metric: str) -> str | None:
    """The framework with the better mean; None where alone, undefined, equal as shown, or over unequal seeds."""
    if (
        len(scores) < 2
        or len({len(one.per_seed) for one in scores}) > 1
        or not all(math.isfinite(one.mean) for one in scores)
    ):
        return None
    ranked = sorted(scores, key=lambda one: one.mean, reverse=DIRECTION[metric] == "up")
    return ranked[0].framework if plain(ranked[0].mean) != plain(ranked[1].mean) else None


def interval(low: float, high: float, show: Callable[[float], str]) -> str:
    return f"{show(low)} to {show(high)}" if math.isfinite(low) and math.isfinite(high) else ""


def cost_view(comparison: Comparison, costs: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of times and memory: title, unit, and mean ± sd a framework."""
    found = {
        (row["quantity"], row["framework"]): row
        for row in costs.to_dict("records")
        if all(row[name] == value for name, value in keys(comparison).items())
    }
    rows = []
    for quantity, (title, unit) in TIMINGS.items():
        cells = [cost_cell(found.get((quantity, framework))) for framework in comparison.frameworks]
        if any(cell["mean"] for cell in cells):
            rows.append({"title": title, "unit": unit, "cells": cells})
    return rows


def cost_cell(row: dict[Any, Any] | None) -> dict[str, str]:
    """Mean and sd with as many decimals as three digits of the mean need: 0.0123, 1.23, 12.3, 123, 1,234."""
    if row is None:
        return {"mean": "", "sd": ""}
    mean = float(row["mean"])
    decimals = min(4, max(0, 2 - math.floor(math.log10(abs(mean))))) if mean else 0
    sd = f"{float(row['sd']):,.{decimals}f}" if row["runs"] > 1 else ""
    return {"mean": f"{mean:,.{decimals}f}", "sd": sd}


def data_view(table: pd.DataFrame) -> dict[str, Any]:
    """The parts of the data, task by task and fold by fold; labels as they stand in the sample table."""
    labels = [str(name).removesuffix("_samples") for name in table.columns if str(name).endswith("_samples")]
    rows = []
    for row in table.to_dict("records"):
        counted = [
            {grain: f"{row[f'{label}_{grain}']:,}" for grain in ("samples", "patients")} for label in labels
        ]
        part = {"samples": f"{row['samples']:,}", "patients": f"{row['patients']:,}", "labels": counted}
        rows.append({"task": row["task"], "fold": row["fold"], "split": row["split"], **part})
    several = len({(row["task"], row["fold"]) for row in rows}) > 1
    return {"labels": labels, "rows": rows, "several": several}


def audit_view(audit: dict[str, Any]) -> list[str]:
    """The inventory as sentences, of what it holds."""
    sentences = []
    if "found" in audit and "used" in audit:
        sentences.append(f"{plural(audit['found'], 'image')} found, {audit['used']:,} used.")
    if "patients" in audit:
        sentences.append(f"{plural(audit['patients'], 'patient')}.")
    if audit.get("identical_files"):
        sentences.append(f"{plural(audit['identical_files'], 'file')} have an identical twin.")
    if audit.get("patients_with_several_labels"):
        sentences.append(
            f"{plural(audit['patients_with_several_labels'], 'patient')} have slices of several labels."
        )
    return sentences
