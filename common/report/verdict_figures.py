"""The verdicts as pictures: all differences beside their margins, and the seeds behind one of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from common import config
from common.report.plotting import (
    INK,
    MARKERS,
    OTHER,
    PAPER,
    Picture,
    colour,
    finish,
    new_panels,
    style,
)
from common.report.terms import metric_title
from common.report.variance_figures import churn_figure, variance_figure
from common.report.verdict_rows import Row, arrange, arrow, name_of, row_axes, row_keys, uprights, write
from common.report.wording import percent, plain, plural, signed
from common.verdicts import Verdict

__all__ = ["churn_figure", "forest_figure", "strip_figure", "variance_figure"]

MARGINS_SHOWN = 4  # an interval that reaches further than so many margins is cut, with an arrow
MARGIN_ALPHA = 0.2
WIDE = "\u2002"  # a space that a browser does not fold into its neighbour


# --- every difference -----------------------------------------------------------------------------------------------


def forest_figure(verdicts: Sequence[Verdict], directory: Path) -> Picture | None:
    """Every verdict's difference with its two intervals, its margin, and what a repeated run differs by.

    None where no verdict has a difference.
    """
    known = [one for one in verdicts if np.isfinite(one.difference)]
    if not known:
        return None
    repeats = any(len(one.noise) for one in known)
    with style():
        height = 2.2 if repeats else 1.75
        rows = arrange(verdicts, lambda one: height if np.isfinite(one.difference) else 0)
        figure, (axes,) = row_axes(rows, 1.25 + 0.18 * repeats)
        reach = forest_reach(known)
        axes.set_xlim(-reach, reach)
        for row in rows.rows:
            forest_row(axes, row, reach)
        axes.xaxis.set_major_locator(MaxNLocator(5, symmetric=True))
        ticks = [tick for tick in axes.get_xticks() if 0 < abs(tick) < reach]
        drawn = [row for row in rows.rows if np.isfinite(row.verdict.difference)]
        uprights(axes, [(tick, row.at + 0.6, row.end) for row in drawn for tick in ticks])
        uprights(axes, [(0, row.at + 0.6, row.end) for row in drawn], alpha=0.7)
        pairs = {(one.framework, one.reference) for one in verdicts}
        other, reference = next(iter(pairs)) if len(pairs) == 1 else ("the other", known[0].reference)
        axes.set_xlabel("Difference")
        for x, words in ((0, f"← {reference} higher"), (1, f"{other} higher →")):
            axes.annotate(
                words, (x, 0), (0, -27.5), xycoords="axes fraction", textcoords="offset points", va="bottom",
                ha="right" if x else "left", fontsize=9, in_layout=False,
            )  # fmt: skip
        forest_legend(axes, repeats)
        words = "; ".join(
            f"{name_of(one)}: {signed(one.difference)} {metric_title(one.task, one.metric)}, {one.word}"
            for one in known
        )
        lows = [low for one in known for low in (one.over_patients.ci_low, one.over_seeds.ci_low)]
        bare = "" if np.isfinite(lows).all() else " No line: no interval, from too few or too many undefined."
        floor = (
            " Grey ticks: the reference trained twice with one seed (A/A), its own noise." if repeats else ""
        )
        return finish(
            figure, directory, "verdict-forest", "Every primary difference beside its margin",
            f"Filled mark: interval over test patients; open mark: over seeds, both {percent(config.CONFIDENCE)}, the "
            f"thick part {percent(1 - 2 * config.ALPHA)} as the test of equivalence takes it. Equivalent: patients and "
            "thick part stay inside the shaded margin. Different: neither interval touches zero, the number of "
            f"comparisons taken into account. Arrow: the interval goes on.{bare}{floor}",
            f"Differences with intervals and margins. {words}.",
            pd.DataFrame([forest_numbers(one) for one in verdicts]),
        )  # fmt: skip


def forest_reach(known: Sequence[Verdict]) -> float:
    """Half the width of the x axis: every mark and margin, and of the intervals as much as is useful."""
    margin = max(one.margin for one in known)
    ends = [
        end
        for one in known
        for end in (one.over_patients.ci_low, one.over_patients.ci_high, one.over_seeds.ci_low,
                    one.over_seeds.ci_high, *one.noise)
        if np.isfinite(end)
    ]  # fmt: skip
    furthest = max(abs(one.difference) for one in known)
    widest = max([furthest, *np.abs(ends)])
    return max(1.3 * margin, 1.2 * furthest, min(1.06 * widest, MARGINS_SHOWN * margin))


def forest_row(axes: Axes, row: Row, reach: float) -> None:
    one, paint = row.verdict, colour(row.verdict.framework)
    if not np.isfinite(one.difference):
        write(axes, 1, row.at, one.word)
        return
    write(axes, 1, row.at, f"{signed(one.difference)}{WIDE}{one.word}", weight="bold")
    top, bottom = row.at + 0.6, row.end
    axes.add_patch(
        Rectangle((-one.margin, top), 2 * one.margin, bottom - top, color=OTHER, alpha=MARGIN_ALPHA, linewidth=0)
    )  # fmt: skip
    mark = MARKERS.get(one.framework, "o")
    for at, over, face in ((row.at + 1.05, one.over_patients, paint), (row.at + 1.85, one.over_seeds, PAPER)):
        bar(axes, at, over.ci_low, over.ci_high, reach, paint, 1.4)
        if over is one.over_seeds:
            bar(axes, at, one.equivalence.ci_low, one.equivalence.ci_high, reach, paint, 3.6, arrows=False)
        axes.plot(over.estimate, at, marker=mark, markersize=6, color=paint, markerfacecolor=face,
                  markeredgecolor=PAPER if face == paint else paint, markeredgewidth=0.8 if face == paint else 1.4,
                  linestyle="")  # fmt: skip
    axes.plot(one.noise, [row.at + 2.6] * len(one.noise), linestyle="", marker="|", markersize=6.5, color=OTHER,
              markeredgewidth=1.3)  # fmt: skip


def bar(
    axes: Axes,
    at: float,
    low: float,
    high: float,
    reach: float,
    paint: str,
    width: float,
    arrows: bool = True,
) -> None:
    """An interval, cut at the edge of the axes with an arrow; nothing where it is undefined."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return
    edge = 0.985 * reach
    axes.plot(
        np.clip([low, high], -edge, edge), [at, at], color=paint, linewidth=width, solid_capstyle="butt"
    )
    for end in (low, high) if arrows else ():
        if abs(end) > edge:
            arrow(axes, at, float(np.copysign(edge, end)), paint)


def forest_legend(axes: Axes, repeats: bool) -> None:
    handles: list[Artist]
    handles = [
        Line2D(
            [], [], color=INK, linewidth=1.4, marker="o", markersize=5.5, markerfacecolor=face, label=label
        )
        for face, label in ((INK, "over patients"), (PAPER, "over seeds"))
    ] + [
        Patch(color=OTHER, alpha=MARGIN_ALPHA, linewidth=0, label="margin"),
    ]
    if repeats:
        handles.append(
            Line2D(
                [], [], color=OTHER, linestyle="", marker="|", markersize=8, markeredgewidth=1.3, label="A/A"
            )
        )
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.1, columnspacing=1.4,
        handlelength=1.8, borderpad=0,
    )  # fmt: skip


def forest_numbers(one: Verdict) -> dict[str, object]:
    noise = one.noise if len(one.noise) else np.array([np.nan])
    return row_keys(one) | {
        "difference": one.difference,
        "ci_low": one.over_patients.ci_low,
        "ci_high": one.over_patients.ci_high,
        "seeds_ci_low": one.over_seeds.ci_low,
        "seeds_ci_high": one.over_seeds.ci_high,
        "equivalence_ci_low": one.equivalence.ci_low,
        "equivalence_ci_high": one.equivalence.ci_high,
        "margin": one.margin,
        "noise_low": noise.min(),
        "noise_high": noise.max(),
        "verdict": one.word,
    }


# --- the seeds of one -----------------------------------------------------------------------------------------------


def strip_figure(verdict: Verdict, directory: Path) -> Picture | None:
    """Each seed's two scores joined by a line, and beside them the paired differences and the A/A floor.

    None where no seed has both scores.
    """
    one = verdict
    ours, theirs = (np.asarray(one.scores.get(name, ())) for name in (one.framework, one.reference))
    if not len(one.differences) or not np.isfinite(one.differences).all():
        return None
    metric = metric_title(one.task, one.metric)
    with style():
        figure, (left, right) = new_panels(4.6, 3.3, columns=(1.5, 1))
        for before, after in zip(theirs, ours, strict=True):
            left.plot([0, 1], [before, after], color=INK, alpha=0.3, linewidth=0.8)
        for place, name, scores in ((0, one.reference, theirs), (1, one.framework, ours)):
            paint, mark = colour(name), MARKERS.get(name, "o")
            left.plot([place] * len(scores), scores, linestyle="", marker=mark, color=paint, alpha=0.7, markersize=5.5,
                      markeredgecolor=PAPER, markeredgewidth=0.6)  # fmt: skip
            middle = (-0.36, 1.36)[place]
            left.plot([middle - 0.2, middle + 0.2], [scores.mean()] * 2, color=paint, linewidth=3)
            left.annotate(plain(scores.mean()), (middle, scores.mean()), xytext=(0, 5),
                          textcoords="offset points", ha="center", fontsize=9)  # fmt: skip
        left.set_xticks([0, 1], [one.reference, one.framework])
        left.set(xlim=(-0.68, 1.68), ylabel=metric)
        left.tick_params(axis="x", labelsize=9)
        left.grid(axis="x", visible=False)
        strip_differences(right, one)
        noise = f"; A/A {', '.join(signed(value) for value in one.noise)}" if len(one.noise) else ""
        seeds = plural(len(one.seeds), "seed")
        mean = (
            f"their mean with its {percent(config.CONFIDENCE)} interval over seeds"
            if np.isfinite(one.over_seeds.ci_low)
            else "their mean (too few seeds for an interval)"
        )
        floor = (
            " Grey crosses: the reference trained twice with one seed (A/A); a single seed's "
            "difference within them may be noise."
            if len(one.noise)
            else ""
        )
        return finish(
            figure, directory, f"verdict-strip-{one.slug}",
            f"Seed by seed: {metric} in {one.framework} and {one.reference}",
            f"Left: a line is one seed in both frameworks, a bar the mean of {seeds}. Right: the differences at equal "
            f"seed, {mean}, and the margin of ±{one.margin:g} shaded.{floor}",
            f"{metric} of {seeds}: {one.reference} mean {plain(theirs.mean())}, {one.framework} mean "
            f"{plain(ours.mean())}; paired differences {', '.join(signed(value) for value in one.differences)}{noise}.",
            strip_numbers(one, ours, theirs),
        )  # fmt: skip


def strip_differences(axes: Axes, one: Verdict) -> None:
    """The differences of the seeds in a column, their mean and interval in the next, the A/A floor in the last."""
    paint, mark = colour(one.framework), MARKERS.get(one.framework, "o")
    axes.axhspan(-one.margin, one.margin, color=OTHER, alpha=MARGIN_ALPHA, linewidth=0)
    axes.axhline(0, color=INK, linewidth=0.9, alpha=0.7)
    spread = np.linspace(-0.16, 0.16, len(one.differences)) if len(one.differences) > 1 else np.zeros(1)
    axes.plot(spread, one.differences, linestyle="", marker=mark, color=paint, alpha=0.7, markersize=5.5,
              markeredgecolor=PAPER, markeredgewidth=0.6)  # fmt: skip
    low, high = one.over_seeds.ci_low, one.over_seeds.ci_high
    shown = [*one.differences, *one.noise, one.margin, -one.margin]
    if np.isfinite(low):
        axes.plot([0.6, 0.6], [low, high], color=paint, linewidth=2, solid_capstyle="butt")
        shown += [low, high] if max(abs(low), abs(high)) < MARGINS_SHOWN * max(map(abs, shown)) else []
    axes.plot(0.6, one.over_seeds.estimate, marker=mark, color=paint, markersize=7, markeredgecolor=PAPER,
              markeredgewidth=0.8, linestyle="")  # fmt: skip
    places, names = [0.0, 0.6], ["seeds", "mean"]
    if len(one.noise):
        axes.plot([1.2] * len(one.noise), one.noise, linestyle="", marker="x", color=OTHER, markersize=5.5,
                  markeredgewidth=1.3)  # fmt: skip
        places, names = [*places, 1.2], [*names, "A/A"]
    reach = 1.12 * max(abs(value) for value in shown)
    axes.set(xlim=(-0.3, places[-1] + 0.3), ylim=(-reach, reach), ylabel=f"{one.framework} − {one.reference}")
    axes.set_xticks(places, names)
    axes.tick_params(axis="x", labelsize=9)
    axes.grid(axis="x", visible=False)


def strip_numbers(one: Verdict, ours: np.ndarray, theirs: np.ndarray) -> pd.DataFrame:
    rows: list[dict[str, object]] = [
        {
            "seed": seed,
            one.reference: before,
            one.framework: after,
            "difference": after - before,
            "kind": "seed",
        }
        for seed, before, after in zip(one.seeds, theirs, ours, strict=True)
    ]
    rows += [
        {"seed": "", one.reference: np.nan, one.framework: np.nan, "difference": value, "kind": "repeat"}
        for value in one.noise
    ]
    return pd.DataFrame(rows)
