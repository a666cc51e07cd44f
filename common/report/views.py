"""Tables as the page shows them: formatted text, arrows and marks; no arithmetic beyond rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from common.report.class_scores import AVERAGES, ClassScore
from common.report.costs import TIMINGS
from common.report.evidence import Comparison, Level
from common.report.prose import Verdict
from common.report.reading import AnyComparison
from common.report.score_views import metric_row
from common.report.scores import Scores
from common.report.tables import keys
from common.report.terms import level_prefix, level_words, metric_direction, metric_title, metric_titles
from common.report.wording import listed, lower_first, plain, plural, spread

CLASS_DIGITS = 2


def score_view(comparison: Comparison, level: Level, scores: Scores) -> dict[str, Any]:
    """The summary table of one level: a row a metric, a column a framework, then the paired differences."""
    rows = [
        metric_row(
            comparison.key, level.name, metric, scores, title, metric_direction(comparison.task, metric)
        )
        for metric, title in metric_titles(comparison.task).items()
    ]
    where, unit = level_words(comparison.task, level.name)
    return {
        "name": level.name,
        "title": f"Scores {lower_first(where)}",
        "frameworks": [{"name": arm.framework, "seeds": len(arm.seeds)} for arm in level.arms],
        "pairs": [f"{arm.framework} − {reference.framework}" for arm, reference in level.pairs],
        "rows": rows,
        "about": about_level(comparison, level, unit),
    }


def about_level(comparison: Comparison, level: Level, unit: str) -> str:
    """What the scores of a level rest on: how many cases of which class, and how they were decided."""
    counts = [
        f"{int((level.y_true == index).sum()):,} {name}" for index, name in enumerate(comparison.classes)
    ]
    of = "" if level.name == "patient" else f" of {plural(level.patients, 'patient')}"
    if len(comparison.classes) > 2:
        rule = "The largest probability decides; macro is the mean over the classes, each against the rest."
    elif level.name == "patient":
        rule = (
            "A patient is positive if any of its slices is; its score is their mean, its threshold chosen on "
            "validation patients."
        )
    else:
        rule = "Decisions use each run's own threshold, chosen on its validation slices."
    if level.arms[0].models > 1:
        rule += f" Each seed counts with the mean over its {level.arms[0].models} folds' models."
    return f"{plural(len(level.unit), unit)}{of}: {listed(counts)}. {rule}"


def class_view(comparison: AnyComparison, level: str, scores: Sequence[ClassScore]) -> list[dict[str, Any]]:
    """The table of the classes of one level: a group a class or average, in it a row a framework. These scores have no
    interval; a class has few cases, so two decimals are enough.
    """
    groups: dict[str, dict[str, Any]] = {}
    for one in scores:
        if one.level != level:
            continue
        name = f"{one.name} average" if one.name in AVERAGES else one.name
        group = groups.setdefault(one.name, {"name": name, "support": f"{one.support:,}", "rows": {}})
        key = f"{comparison.key}/{one.framework}/{level_prefix(level)}{one.name}/{one.metric}"
        group["rows"].setdefault(one.framework, []).append(
            {
                "key": key,
                "mean": plain(one.mean, CLASS_DIGITS),
                "sd": spread(one.sd, CLASS_DIGITS) if len(one.per_seed) > 1 else "",
            }
        )
    return [
        {**group, "rows": [{"framework": name, "cells": cells} for name, cells in group["rows"].items()]}
        for group in groups.values()
    ]


def overview(comparison: AnyComparison, scores: Scores, verdict: Verdict) -> dict[str, Any]:
    """One line of the overview: the finding, and the primary numbers behind it."""
    metric = comparison.primary_metric
    level = comparison.levels[0].name if comparison.levels else ""
    direction = metric_direction(comparison.task, metric)
    where = level_words(comparison.task, level)[0] if level else ""
    row = metric_row(comparison.key, level, metric, scores, metric_title(comparison.task, metric), direction)
    return {
        **row,
        "slug": comparison.slug,
        "warning": verdict.warning,
        "findings": verdict.findings,
        "where": lower_first(where),
        "metric": f"{row['title']} {row['arrow']}, {lower_first(where)}" if level else "",
    }


def cost_view(comparison: AnyComparison, costs: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of times and memory: quantity, title, unit, and mean ± sd a framework."""
    found = {
        (row["quantity"], row["framework"]): row
        for row in costs.to_dict("records")
        if all(row[name] == value for name, value in keys(comparison).items())
    }
    rows = []
    for quantity, (title, unit) in TIMINGS.items():
        cells = [
            cost_cell(found.get((quantity, framework)), f"{comparison.key}/{framework}/{quantity}")
            for framework in comparison.frameworks
        ]
        if any(cell["mean"] for cell in cells):
            rows.append({"quantity": quantity, "title": title, "unit": unit, "cells": cells})
    return rows


def cost_cell(row: dict[Any, Any] | None, key: str) -> dict[str, str]:
    """Mean and sd with as many decimals as three digits of the mean need: 0.0123, 1.23, 12.3, 123, 1,234."""
    if row is None:
        return {"mean": "", "sd": "", "key": key}
    mean = float(row["mean"])
    digits = min(4, max(0, 2 - math.floor(math.log10(abs(mean))))) if mean else 0
    sd = f"{float(row['sd']):,.{digits}f}" if row["runs"] > 1 else ""
    return {"mean": f"{mean:,.{digits}f}", "sd": sd, "key": key}
