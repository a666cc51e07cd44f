"""What the ladder found, from the numbers of its trainings alone: gaps between two frameworks, and who explains them.

A gap is the other framework's number minus the reference's, seed by seed. Every interval is the two-sided 95 % t
interval of the mean over the seeds, paired: of the seeds' own gaps, or of their own changes from rung to rung.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from common.config import Default
from common.files import read_typed_table
from common.rungs import ARMS, rungs_of
from common.statistics import mean_interval

RUN_COLUMNS = ("task", "model", "arm", "rung", "default", "framework", "seed", "loss", "score")
KEY_COLUMNS = ("task", "model", "measure", "arm", "rung", "default")
GAP_COLUMNS = (
    *KEY_COLUMNS,
    "gap",  # mean over seeds of other - reference
    "gap_low",
    "gap_high",
    "distance",  # mean over seeds of |other - reference|: gaps of either sign do not cancel
    "share",  # walk: what aligning this default removed of the gap; alone: the gap that it causes by itself
    "share_low",
    "share_high",
)
MEASURES = ("loss", "score")

Pair = tuple[str, str]  # task, model
Place = tuple[str, int]  # arm, rung


def tabulate_gaps(
    runs: pd.DataFrame,
    ladders: Mapping[Pair, Sequence[Default]],
    frameworks: Sequence[str],
    seeds: int,
) -> pd.DataFrame:
    """A row a measure and rung (`GAP_COLUMNS`), from the numbers of all trainings (`RUN_COLUMNS`).

    `frameworks` are the reference and the other. A rung counts only where both have a number of every seed, so that
    every mean is over the same seeds and the shares of a whole walk add up to the gap in the native lane less that in
    lockstep; the others are left out, and a share that needs one is NaN.
    """
    rows = []
    for (task, model), defaults in ladders.items():
        own = runs[(runs["task"] == task) & (runs["model"] == model)]
        for measure in MEASURES:
            gaps = gaps_of(own, measure, frameworks, seeds)
            for rung in rungs_of(defaults):
                if (place := (rung.arm, rung.rung)) not in gaps:
                    continue
                key = (task, model, measure, *place, rung.default)
                base = gaps.get(_base_of(place, len(defaults)))
                rows.append((*key, *_row(gaps[place], None if base is None else _share(place, gaps, base))))
    return pd.DataFrame(rows, columns=list(GAP_COLUMNS))


def gaps_of(
    runs: pd.DataFrame, measure: str, frameworks: Sequence[str], seeds: int
) -> dict[Place, NDArray[np.float64]]:
    """(arm, rung) -> other - reference, (seeds,), of one model's rungs at which all numbers are there and finite."""
    numbers: dict[Place, NDArray[np.float64]] = {}
    columns = (runs[name].tolist() for name in ("arm", "rung", "framework", "seed", measure))
    for arm, rung, framework, seed, value in zip(*columns, strict=True):
        if framework in frameworks and seed < seeds:
            places = numbers.setdefault((arm, rung), np.full((2, seeds), np.nan))
            places[list(frameworks).index(framework), seed] = value
    gaps = {place: other - reference for place, (reference, other) in numbers.items()}
    return {place: gap for place, gap in gaps.items() if np.isfinite(gap).all()}


def _base_of(place: Place, defaults: int) -> Place:
    """The rung that a rung's share is measured from: the one before, or for a default alone, lockstep."""
    arm, rung = place
    return ("walk", rung - 1) if arm == "walk" else ("walk", defaults)


def _share(
    place: Place, gaps: Mapping[Place, NDArray[np.float64]], base: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Of each seed: what aligning removed, or what leaving alone added, (seeds,)."""
    return base - gaps[place] if place[0] == "walk" else gaps[place] - base


def _row(gap: NDArray[np.float64], share: NDArray[np.float64] | None) -> tuple[float, ...]:
    mean = mean_interval(gap)
    part = mean_interval(share if share is not None else np.full(len(gap), np.nan))
    distance = float(np.abs(gap).mean())
    return (
        *(mean.estimate, mean.ci_low, mean.ci_high, distance),
        *(part.estimate, part.ci_low, part.ci_high),
    )


# --- the console --------------------------------------------------------------------------------------------------


def read_gaps(path: Path) -> pd.DataFrame:
    """`ladder.csv` as it was written. Raises StudyError where it cannot be read."""
    numbers = GAP_COLUMNS[len(KEY_COLUMNS) :]
    return read_typed_table(path, GAP_COLUMNS, {"rung": int} | dict.fromkeys(numbers, float))


def show_gaps(table: pd.DataFrame, defaults: Sequence[str], title: str, measure: str = "loss") -> Table:
    """One model's rows of the gaps for the console: a line a default (its title), in the order of the walk."""
    found = _places(table, measure)
    shown = Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, show_edge=False
    )  # 80 columns suffice
    shown.add_column("aligned, one after the other")
    for heading in ("gap left", "explained", "alone"):
        shown.add_column(heading, justify="right")
    for rung, name in enumerate(["nothing: native", *defaults]):
        walk, alone = (found.get((arm, rung)) for arm in ARMS)
        shown.add_row(name, _number(walk, "gap"), _number(walk, "share"), _number(alone, "share"))
    return shown


def describe_ends(table: pd.DataFrame, metric: str, defaults: int) -> str:
    """The gap of one model's score at both ends of the walk of so many defaults, in a sentence."""
    found = _places(table, "score")
    native, lockstep = (_number(found.get(("walk", rung)), "gap") for rung in (0, defaults))
    return f"{metric}, gap in the native lane: {native}; in lockstep: {lockstep}"


def _places(table: pd.DataFrame, measure: str) -> dict[Place, dict[str, Any]]:
    rows = table[table["measure"] == measure].to_dict("records")
    return {(str(row["arm"]), int(row["rung"])): {str(name): row[name] for name in row} for row in rows}


def _number(row: Mapping[str, float] | None, name: str) -> str:
    """A signed number with half its interval, which is symmetric; a dash where there is none."""
    if row is None or math.isnan(row[name]):
        return "–"
    text = f"{round(row[name], 3) + 0.0:+.3f}"  # no -0.000
    half = (row[f"{name}_high"] - row[f"{name}_low"]) / 2
    return text if math.isnan(half) else f"{text} ±{half:.3f}"
