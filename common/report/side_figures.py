"""The primary scores of two studies as dots: A filled, B open, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common import config
from common.report.plotting import INK, MARKERS, PAPER, Picture, colour, finish, new_figure, style
from common.report.side_numbers import SharedNumber, difference_rows
from common.report.terms import MODEL_TITLE, TASK_TITLE, metric_title
from common.report.wording import percent, plain

APART = 0.16  # of B below A, in rows


def primary_scores(found: Sequence[SharedNumber]) -> list[SharedNumber]:
    """The declared metric of each task at its main level, framework by framework."""
    return [
        one
        for one in found
        if one.place.kind == "score"
        and not one.place.other_level
        and one.place.metric == config.TASKS[one.place.comparison.split("/")[1]].primary_metric
    ]


def beside_figure(found: Sequence[SharedNumber], names: tuple[str, str], directory: Path) -> Picture | None:
    """A row a primary score that both studies have; None without one."""
    rows = [one for one in primary_scores(found) if np.isfinite([one.a.value, one.b.value]).all()]
    if not rows:
        return None
    lanes = len({one.place.comparison.split("/")[0] for one in rows}) > 1
    with style():
        figure, axes = new_figure(5.8, 1.3 + 0.52 * len(rows))
        for at, one in enumerate(rows):
            paint = colour(one.place.who)
            for shift, number, open_mark in ((-APART, one.a, False), (APART, one.b, True)):
                axes.plot([number.low, number.high], [at + shift] * 2, color=paint, linewidth=1.8, alpha=0.85,
                          solid_capstyle="butt")  # fmt: skip
                axes.plot(
                    number.value, at + shift, linestyle="", marker=MARKERS.get(one.place.who, "o"), markersize=7,
                    color=paint, markerfacecolor=PAPER if open_mark else paint, markeredgewidth=1.6,
                )  # fmt: skip
        for open_mark, letter, name in zip((False, True), "AB", names, strict=True):
            axes.plot([], [], linestyle="", marker="o", markersize=7, color=INK, markeredgewidth=1.6,
                      markerfacecolor=PAPER if open_mark else INK, label=f"{letter}, {name}")  # fmt: skip
        axes.set_yticks(range(len(rows)), [row_title(one, lanes) for one in rows])
        axes.tick_params(axis="y", length=0, labelsize=8.5)
        axes.grid(axis="y", visible=False)
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel="Score")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
        words = "; ".join(
            f"{row_title(one, lanes, ', ')}: {plain(one.a.value)} in A, {plain(one.b.value)} in B"
            for one in rows
        )
        table = difference_rows(rows)
        return finish(
            figure, directory, "beside", "The primary scores of both studies",
            f"Filled: A, {names[0]}. Open: B, {names[1]}. Bar: {percent(config.CONFIDENCE)} interval over test "
            "patients. Bars that overlap do not say that two studies agree; the table has the paired difference, where "
            "there is one.",
            f"Primary scores of two studies. {words}.",
            table,
        )  # fmt: skip


def row_title(one: SharedNumber, lanes: bool, between: str = "\n") -> str:
    """Task, model and framework; the lane where there are several."""
    lane, task, model = one.place.comparison.split("/")
    metric = metric_title(task, one.place.metric)
    where = f"{TASK_TITLE[task]}, {MODEL_TITLE.get(model, model)}{f', {lane}' if lanes else ''}"
    return f"{where}{between}{metric}, {one.place.who}"
