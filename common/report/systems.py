"""What the models cost: time and memory of all comparisons in one table, and each run's anatomy below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from common.report.reading import AnyComparison
from common.report.run_figures import time_figure
from common.report.tables import keys
from common.report.views import cost_cell, cost_view

# What is paid once, what is paid every step, what is waited for, what judging costs; each has a column of its own.
COLUMNS = {
    "first_step_seconds": ("First step", "s, compiling included"),
    "step_p50_seconds": ("Steady step", "s, median"),
    "steady_images_per_second": ("Steady training", "images/s"),
    "wait_seconds": ("Waiting for data", "s a run"),
    "evaluate_seconds": ("Evaluation", "s a run"),
    "total_seconds": ("Whole run", "s"),
    "peak_rss_mib": ("Peak memory", "MiB"),
    "peak_device_mib": ("Peak device memory", "MiB"),
}


def systems_section(
    comparisons: Sequence[AnyComparison], costs: pd.DataFrame, titles: Mapping[str, str], figures: Path
) -> dict[str, Any] | None:
    """The table (`columns`, `groups` of rows), and of each comparison its anatomy and figures; None without a cost.

    Writes the figures.
    """
    if costs.empty:
        return None
    measured = set(costs["quantity"])
    columns = {name: words for name, words in COLUMNS.items() if name in measured}
    return {
        "columns": [{"title": title, "unit": unit} for title, unit in columns.values()],
        "groups": [group(one, costs, list(columns), titles[one.key]) for one in comparisons if one.records],
        "anatomies": [
            {
                "comparison": one,
                "title": titles[one.key],
                "slug": one.slug,
                "frameworks": one.frameworks,
                "rows": cost_view(one, costs),
                "pictures": time_figure(one, figures),
            }
            for one in comparisons
            if one.records
        ],
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
