"""Rows of a figure that has a row a verdict: a heading a task, above each row its name, so that a phone has room."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.config import TASKS
from common.report.plotting import INK, new_panels
from common.report.terms import MODEL_TITLE, TASK_TITLE, metric_title
from common.verdicts import Verdict

WIDTH = 4.6  # inches; set at this size on a phone, and up to twice as large on a desk
LINE = 0.19  # inches
HEADING, GAP, BEFORE_HEADING = 1.25, 0.55, 0.4  # lines


@dataclass(frozen=True)
class Row:
    """A verdict and where it stands, in lines from the top."""

    verdict: Verdict
    label: str
    at: float  # of the label; what is drawn lies below it
    end: float


@dataclass(frozen=True)
class Rows:
    """All rows of a figure, those of a task together."""

    headings: tuple[tuple[float, str], ...]
    rows: tuple[Row, ...]
    lines: float  # high in all


def arrange(verdicts: Sequence[Verdict], height: Callable[[Verdict], float], metrics: bool = True) -> Rows:
    """`height`: lines below a row's label. The headings name the metrics unless told otherwise."""
    pairs = {(one.framework, one.reference) for one in verdicts}
    lanes = {one.lane for one in verdicts}
    ordered = sorted(verdicts, key=lambda one: (list(TASKS).index(one.task), one.lane))
    headings: list[tuple[float, str]] = []
    rows, at, group = [], 0.0, ("", "")
    for one in ordered:
        if (one.task, one.lane) != group:
            group = (one.task, one.lane)
            at += BEFORE_HEADING if headings else 0
            title = TASK_TITLE[one.task] + (f", {one.lane} lane" if lanes != {"aligned"} else "")
            metric = metric_title(one.task, one.metric).removesuffix(" (macro)")
            headings.append((at, f"{title}: {metric}" if metrics else title))
            at += HEADING
        label = MODEL_TITLE[one.model]
        if len(pairs) > 1:
            several = len({reference for _, reference in pairs}) > 1
            label += f": {one.framework}" + (f" − {one.reference}" if several else "")
        rows.append(Row(one, label, at, at + 1 + height(one)))
        at += 1 + height(one) + GAP
    return Rows(tuple(headings), tuple(rows), at - GAP)


def row_axes(rows: Rows, extra: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Axes beside each other without a y axis, the rows' labels written across them; `extra` inches above and below
    for legend and x axis.
    """
    figure, panels = new_panels(WIDTH, rows.lines * LINE + extra, columns=(1,) * columns)
    for axes in panels:
        axes.grid(visible=False)
        axes.patch.set_visible(False)  # it would hide the labels that reach into it
        axes.spines["left"].set_visible(False)
        axes.set_yticks(
            [row.at + 1 for row in rows.rows], [row.label for row in rows.rows]
        )  # for the page's script
        axes.tick_params(left=False, labelleft=False)
        axes.set_ylim(rows.lines + 0.3, -0.75)
        uprights(axes, [(0, 1, at + 0.55) for at, _ in rows.headings], level=True, alpha=0.25)
    for at, words in rows.headings:
        write(panels[0], 0, at, words, weight="bold", fontsize=10)
    for row in rows.rows:
        write(panels[0], 0, row.at, row.label)
    return figure, panels


def uprights(
    axes: Axes, lines: Sequence[tuple[float, float, float]], level: bool = False, alpha: float = 0.12
) -> None:
    """Vertical lines (x, top, bottom) as one path; `level`: horizontal (left, right, y) in shares of the width."""
    points = [
        point
        for one in lines
        for point in ([(one[0], one[2]), (one[1], one[2])] if level else [(one[0], one[1]), (one[0], one[2])])
        + [(math.nan, math.nan)]
    ]
    transform = axes.get_yaxis_transform() if level else axes.transData
    axes.plot(
        *zip(*points, strict=True), color=INK, linewidth=0.7, alpha=alpha, transform=transform, zorder=0.5
    )


def write(
    axes: Axes, x: float, line: float, words: str, weight: str = "normal", fontsize: float = 9.5
) -> None:
    """Text in a row, `x` as a share of the width, 0 to 1."""
    axes.text(
        x, line, words, transform=axes.get_yaxis_transform(), ha="left" if x < 0.5 else "right", va="center",
        weight=weight, fontsize=fontsize, in_layout=False,
    )  # fmt: skip


def arrow(axes: Axes, at: float, x: float, paint: str) -> None:
    """The head of an arrow where an interval is cut, pointing away from 0; no mark, whose value a reader would take."""
    look = {
        "arrowstyle": "-|>",
        "color": paint,
        "linewidth": 0,
        "mutation_scale": 11,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    axes.annotate("", (x, at), (0.96 * x, at), annotation_clip=False, arrowprops=look)


def name_of(verdict: Verdict) -> str:
    """For a listener."""
    one = verdict
    return f"{TASK_TITLE[one.task]}, {MODEL_TITLE[one.model]}, {one.lane} lane, {one.framework} and {one.reference}"


def row_keys(verdict: Verdict) -> dict[str, object]:
    """The first columns of a table."""
    names = ("lane", "task", "model", "framework", "reference", "metric")
    return {name: getattr(verdict, name) for name in names}
