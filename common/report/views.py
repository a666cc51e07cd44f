"""Tables as the page shows them: formatted text, arrows and marks; no arithmetic beyond rounding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from common.report.class_scores import AVERAGES, ClassScore
from common.report.evidence import Comparison, Level
from common.report.prose import Verdict
from common.report.reading import AnyComparison
from common.report.scores import Difference, Score, Scores
from common.report.tables import TIMINGS, keys
from common.report.terms import level_words, metric_direction, metric_title, metric_titles
from common.report.wording import listed, lower_first, plain, plural, signed

ARROW = {"up": "↑", "down": "↓"}
ARROW_WORDS = {"up": "higher is better", "down": "lower is better"}


def score_view(comparison: Comparison, level: Level, scores: Scores) -> dict[str, Any]:
    """The summary table of one level: a row a metric, a column a framework, then the paired differences."""
    rows = []
    for metric, title in metric_titles(comparison.task).items():
        ours, direction = scores.of(level.name, metric), metric_direction(comparison.task, metric)
        best = best_framework(ours, direction)
        rows.append({
            "title": title,
            "arrow": ARROW[direction],
            "words": ARROW_WORDS[direction],
            "cells": [{**score_cell(s), "best": s.framework == best} for s in ours],
            "differences": [difference_cell(d) for d in scores.differences_of(level.name, metric)],
        })  # fmt: skip
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


def score_cell(score: Score) -> dict[str, str]:
    return {
        "mean": plain(score.mean),
        "sd": plain(score.sd) if math.isfinite(score.sd) else "",
        "interval": interval(score.ci_low, score.ci_high, plain),
    }


def difference_cell(one: Difference) -> dict[str, Any]:
    return {
        "name": f"{one.framework} − {one.reference}",
        "value": signed(one.difference),
        "interval": interval(one.ci_low, one.ci_high, signed),
        "visible": one.visible,
    }


def best_framework(scores: list[Score], direction: str) -> str | None:
    """The framework with the better mean; None where alone, undefined, equal as shown, or over unequal seeds."""
    if (
        len(scores) < 2
        or len({len(one.per_seed) for one in scores}) > 1
        or not all(math.isfinite(one.mean) for one in scores)
    ):
        return None
    ranked = sorted(scores, key=lambda one: one.mean, reverse=direction == "up")
    return ranked[0].framework if plain(ranked[0].mean) != plain(ranked[1].mean) else None


def class_view(level: str, scores: Sequence[ClassScore]) -> list[dict[str, Any]]:
    """The table of the classes of one level: a group a class or average, in it a row a framework."""
    groups: dict[str, dict[str, Any]] = {}
    for one in scores:
        if one.level != level:
            continue
        average = one.name in AVERAGES
        group = groups.setdefault(
            one.name,
            {
                "name": f"{one.name} average" if average else one.name,
                "support": f"{one.support:,}",
                "rows": {},
            },
        )
        cells = group["rows"].setdefault(one.framework, [])
        cells.append({"mean": plain(one.mean), "sd": plain(one.sd) if math.isfinite(one.sd) else ""})
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
    return {
        "slug": comparison.slug,
        "warning": verdict.warning,
        "findings": verdict.findings,
        "metric": f"{metric_title(comparison.task, metric)} {ARROW[direction]}, {lower_first(where)}"
        if level
        else "",
        "cells": [{"framework": s.framework, **score_cell(s)} for s in scores.of(level, metric)],
        "differences": [difference_cell(d) for d in scores.differences_of(level, metric)],
    }


def interval(low: float, high: float, show: Callable[[float], str]) -> str:
    return f"{show(low)} to {show(high)}" if math.isfinite(low) and math.isfinite(high) else ""


def cost_view(comparison: AnyComparison, costs: pd.DataFrame) -> list[dict[str, Any]]:
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
