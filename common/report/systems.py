"""What the models cost: who was faster in words, all comparisons in one table, and each one's anatomy below it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from common.report.cost_ratios import ratio_cell
from common.report.quality import QUANTITY, QualityTime
from common.report.reading import AnyComparison, Evidence
from common.report.speed import SIZE, ModelSize, Speed, size_numbers
from common.report.speed_words import speed_context
from common.report.tables import keys
from common.report.terms import metric_title
from common.report.time_figures import quality_figure, time_figure
from common.report.views import cost_cell, cost_view
from common.report.wording import plain

# What is paid once, what is paid every step, what is waited for, what judging costs; each has a column of its own.
COLUMNS = {
    "compile_seconds": ("Compile", "s, once"),
    "steady_images_per_second": ("Training", "images/s"),
    "training_gflop_per_second": ("Arithmetic", "GFLOP/s"),
    "wait_seconds": ("Data wait", "s a run"),
    "latency_1_seconds": ("Latency", "s, one image"),
    "total_seconds": ("Whole run", "s"),
    "peak_rss_mib": ("Peak memory", "MiB"),
    "peak_device_mib": ("Peak device memory", "MiB"),
    "energy_joules": ("Energy", "J, training"),
}
SIZES = {  # field of the size -> (title, unit)
    "parameters": ("Parameters", "with statistics"),
    "forward_gflop": ("Arithmetic of one image", "GFLOP, forward"),
    "activations": ("Activations", "values, one image"),
    "checkpoint_mib": ("Checkpoint", "MiB"),
}


def systems_section(
    evidence: Evidence, speed: Speed, costs: pd.DataFrame, titles: Mapping[str, str], figures: Path
) -> dict[str, Any] | None:
    """What is said first, the table (`columns`, `groups` of rows), the models' sizes, the settings, and of each
    comparison its anatomy and figures; None without a cost.

    Writes the figures.
    """
    if costs.empty:
        return None
    measured = set(costs["quantity"])
    columns = {name: words for name, words in COLUMNS.items() if name in measured}
    present = [one for one in evidence.comparisons if one.records]
    return {
        **speed_context(speed, evidence.record.study, evidence.frameworks),
        "columns": [{"title": title, "unit": unit} for title, unit in columns.values()],
        "groups": [group(one, costs, list(columns), titles[one.key]) for one in present],
        "sizes": size_view(speed, titles),
        "anatomies": [anatomy(one, speed, costs, titles[one.key], figures) for one in present],
    }


def group(
    comparison: AnyComparison, costs: pd.DataFrame, columns: Sequence[str], title: str
) -> dict[str, Any]:
    """The rows of one comparison, a framework each."""
    found = {
        (row["framework"], row["quantity"]): row
        for row in costs.to_dict("records")
        if all(row[name] == value for name, value in keys(comparison).items())
    }
    return {
        "title": title,
        "comparison": comparison,
        "rows": [
            {
                "framework": framework,
                "cells": [
                    cost_cell(found.get((framework, name)), f"{comparison.key}/{framework}/{name}")
                    for name in columns
                ],
            }
            for framework in comparison.frameworks
        ],
    }


def anatomy(
    comparison: AnyComparison, speed: Speed, costs: pd.DataFrame, title: str, figures: Path
) -> dict[str, Any]:
    """All that one comparison cost, in numbers and pictures; each further framework's ratio to the first."""
    ratios, quality = speed.ratios_of(comparison), speed.quality_of(comparison)
    first, others = comparison.frameworks[0], comparison.frameworks[1:]

    def cells_of(quantity: str) -> list[dict[str, str]]:
        return [
            ratio_cell(ratios.get((name, quantity)), f"{comparison.key}/{name}-vs-{first}/{quantity}")
            for name in others
        ]

    rows = cost_view(comparison, costs)
    pictures = time_figure(comparison, figures)
    if quality is not None:
        pictures.append(quality_figure(comparison, quality, figures))
    return {
        "comparison": comparison,
        "title": title,
        "slug": comparison.slug,
        "frameworks": comparison.frameworks,
        "pairs": [f"{name} / {first}" for name in others],
        "rows": [row | {"ratios": cells_of(row["quantity"])} for row in rows],
        "quality": quality_view(comparison, quality) | {"ratios": cells_of(QUANTITY)} if quality else None,
        "pictures": pictures,
    }


def quality_view(comparison: AnyComparison, quality: QualityTime) -> dict[str, Any]:
    """A row: when half of each framework's runs were as good as the level, and how many ever were."""
    cells = []
    for framework in comparison.frameworks:
        runs, shown = len(quality.of(framework)), ""
        if runs:
            median = quality.median(framework)
            digits = min(4, max(0, 2 - math.floor(math.log10(median)))) if median > 0 else 0
            shown = f"{median:,.{digits}f}"
        key = f"{comparison.key}/{framework}/{QUANTITY}"
        cells.append({"median": shown, "reached": quality.reached(framework), "runs": runs, "key": key})
    score = metric_title(comparison.task, comparison.primary_metric)
    return {
        "title": f"Training until validation {score} {plain(quality.level)}",
        "cells": cells,
        "note": f"The level, a validation {score} of {plain(quality.level)}, is the smaller of the frameworks' median "
        "best, so that half of the runs of each reached it; the time is when half of them had. The ratio is over the "
        "seeds of which both sides reached it.",
    }


def size_view(speed: Speed, titles: Mapping[str, str]) -> dict[str, Any]:
    """A row a task and model: `columns` and `rows` of what the records tell."""
    first: dict[tuple[str, str], tuple[AnyComparison, ModelSize]] = {}
    for comparison, size in speed.sizes:
        first.setdefault((comparison.task, comparison.model), (comparison, size))
    numbers = [(comparison, size_numbers(size)) for comparison, size in first.values()]
    columns = [name for name in SIZES if any(found[name] is not None for _, found in numbers)]
    rows = [
        {
            "title": titles[comparison.key].removesuffix(f", {comparison.lane} lane"),
            "comparison": comparison,
            "cells": [size_cell(found[name], f"{comparison.key}/{SIZE}#{name}") for name in columns],
        }
        for comparison, found in numbers
    ]
    return {"columns": [dict(zip(("title", "unit"), SIZES[name], strict=True)) for name in columns],
            "rows": rows if columns else []}  # fmt: skip


def size_cell(value: float | None, key: str) -> dict[str, str]:
    """Whole numbers as they are, others in three digits."""
    if value is None:
        return {"text": "", "key": key}
    whole = float(value).is_integer()
    digits = 0 if whole or value <= 0 else min(4, max(0, 2 - math.floor(math.log10(value))))
    return {"text": f"{value:,.{digits}f}", "key": key}
