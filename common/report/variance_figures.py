"""Where the spread of scores comes from, and how many decisions it turns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from common import config
from common.report.plotting import INK, MARKERS, OTHER, PAPER, Picture, colour, finish, style
from common.report.verdict_rows import arrange, arrow, name_of, row_axes, row_keys, uprights, write
from common.report.verdict_tables import churn_unit, parts_of
from common.report.wording import percent, plain
from common.statistics import Churn, Component
from common.verdicts import Verdict

PARTS = {
    "framework": "Framework",
    "seed": "Seed",
    "split": "Split",
    "patients": "Patients",
    "remainder": "Remainder",
}


def variance_figure(verdicts: Sequence[Verdict], directory: Path) -> Picture | None:
    """The parts of each comparison's variance, side by side; None where no part is known."""
    known = [one for one in verdicts if parts_of(one)]
    if not known:
        return None
    found = {part.name for one in known for part in parts_of(one)}
    names = [name for name in PARTS if name in found]
    top = 1.25 * max(deviation(part.variance) for one in known for part in parts_of(one))
    with style():
        rows = arrange(known, lambda _: 1.55)
        figure, panels = row_axes(rows, 1.0, len(names))
        for axes, name in zip(panels, names, strict=True):
            axes.set_xlim(0, top or 1.0)
            axes.xaxis.set_major_locator(MaxNLocator(2))
            axes.set_xlabel(PARTS[name], loc="left", fontsize=9.5)
            axes.xaxis.set_label_position("top")
            uprights(axes, [(0, row.at + 1.5, row.end) for row in rows.rows], alpha=0.7)
            for row in rows.rows:
                for part in parts_of(row.verdict):
                    if part.name == name:
                        paint = colour(row.verdict.framework) if name == "framework" else INK
                        draw_part(axes, row.at + 1.95, part, paint)
        figure.supxlabel("Standard deviation, in the metric's unit", fontsize=10)
        words = "; ".join(
            f"{name_of(one)}: "
            + ", ".join(
                f"{PARTS[part.name].lower()} {plain(deviation(part.variance))}" for part in parts_of(one)
            )
            for one in known
        )
        return finish(
            figure, directory, "verdict-variance", "What moves a score",
            "How far each cause moves the score of a single run; percentages: shares of the variance. Lines: "
            f"{percent(config.CONFIDENCE)} intervals, with an arrow where they go on; of few seeds they are wide. The "
            "framework matters where its bar stands out from the others.",
            f"Standard deviations of the parts of the variance. {words}.",
            pd.DataFrame([
                row_keys(one) | {name: getattr(part, name) for name in
                                 ("variance", "share", "ci_low", "ci_high")} | {"part": part.name}
                for one in known for part in parts_of(one)
            ]),
        )  # fmt: skip


def deviation(variance: float) -> float:
    return math.sqrt(max(0.0, variance))


def draw_part(axes: Axes, at: float, part: Component, paint: str) -> None:
    """A bar from the left, its interval, and the share above it."""
    axes.barh(at, deviation(part.variance), height=0.62, color=paint, alpha=0.45, linewidth=0)
    edge = axes.get_xlim()[1]
    if np.isfinite(part.ci_low) and np.isfinite(part.ci_high):
        low, high = deviation(part.ci_low), deviation(part.ci_high)
        axes.hlines(at, min(low, edge), min(high, edge), color=paint, linewidth=1.3)
        if high > edge:
            arrow(axes, at, edge, paint)
    if np.isfinite(part.share):
        axes.text(0, at - 0.86, percent(part.share), ha="left", va="center", fontsize=8.5, in_layout=False)


def churn_figure(verdicts: Sequence[Verdict], directory: Path) -> Picture | None:
    """How many patients or slices are decided otherwise by another framework, another seed, the same run again.

    None where no decisions were compared.
    """
    known = [(one, one.churn) for one in verdicts if one.churn and np.isfinite(one.churn.between_frameworks)]
    if not known:
        return None
    with style():
        rows = arrange([one for one, _ in known], lambda _: 0.9, metrics=False)
        figure, (axes,) = row_axes(rows, 1.2)
        most = max(value for _, one in known for value in shares(one) if np.isfinite(value))
        for row in rows.rows:
            found, at = row.verdict.churn, row.at + 1.15
            if found is None:
                continue
            write(axes, 1, row.at, f"{found.units:,} {churn_unit(row.verdict)}", fontsize=9)
            values = [value for value in shares(found) if np.isfinite(value)]
            axes.plot([min(values), max(values)], [at, at], color=INK, linewidth=1, alpha=0.35)
            paint, mark = colour(row.verdict.framework), MARKERS.get(row.verdict.framework, "o")
            axes.plot(
                found.between_repeats,
                at,
                linestyle="",
                marker="x",
                markersize=6,
                color=OTHER,
                markeredgewidth=1.5,
            )
            axes.plot(found.between_seeds, at, linestyle="", marker="o", markersize=6.5, color=INK,
                      markerfacecolor=PAPER, markeredgewidth=1.3)  # fmt: skip
            axes.plot(found.between_frameworks, at, linestyle="", marker=mark, markersize=7, color=paint,
                      markeredgecolor=PAPER, markeredgewidth=0.7)  # fmt: skip
        axes.set_xlim(-0.015 * max(most, 0.05), 1.12 * max(most, 0.05))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= axes.get_xlim()[1]]
        uprights(axes, [(tick, row.at + 0.7, row.end) for row in rows.rows for tick in ticks])
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol="\u00a0%"))
        axes.set_xlabel("Decided otherwise")
        repeats = any(np.isfinite(one.between_repeats) for _, one in known)
        churn_legend(axes, [one for one, _ in known], repeats)
        again = ", and the very same run again" if repeats else ""
        words = "; ".join(
            f"{name_of(one)}: frameworks {share_words(found.between_frameworks)}, "
            f"seeds {share_words(found.between_seeds)}, repeats {share_words(found.between_repeats)}"
            for one, found in known
        )
        return finish(
            figure, directory, "verdict-churn", "Who would be decided otherwise",
            "The share of patients or slices that the other framework decides otherwise at equal seed, beside the "
            f"share that another seed of the same framework does{again}. A change of framework matters for a patient "
            "where its mark lies right of the seed's.",
            f"Share decided otherwise. {words}.",
            pd.DataFrame([
                row_keys(one) | {"unit": churn_unit(one), "units": found.units, **dict(zip(
                    ("between_frameworks", "between_seeds", "between_repeats"), shares(found), strict=True))}
                for one, found in known
            ]),
        )  # fmt: skip


def shares(churn: Churn) -> tuple[float, float, float]:
    return churn.between_frameworks, churn.between_seeds, churn.between_repeats


def share_words(share: float) -> str:
    return percent(share) if np.isfinite(share) else "unknown"


def churn_legend(axes: Axes, verdicts: Sequence[Verdict], repeats: bool) -> None:
    frameworks = {one.framework for one in verdicts}
    only = next(iter(frameworks)) if len(frameworks) == 1 else ""
    handles = [
        Line2D([], [], linestyle="", marker=MARKERS.get(only, "o"), markersize=7, color=colour(only) if only else INK,
               label="other framework"),
        Line2D([], [], linestyle="", marker="o", markersize=6.5, color=INK, markerfacecolor=PAPER,
               markeredgewidth=1.3, label="other seed"),
    ]  # fmt: skip
    if repeats:
        handles.append(
            Line2D([], [], linestyle="", marker="x", markersize=6, color=OTHER, markeredgewidth=1.5,
                   label="same run again")
        )  # fmt: skip
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.1, borderpad=0,
        handlelength=1, columnspacing=1.4, handletextpad=0.4,
    )  # fmt: skip
