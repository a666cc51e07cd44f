"""The figures of one comparison of classifiers: differences, curves, confusion matrices, agreement."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from common import config
from common.report.confusion_figures import confusion_figures
from common.report.curve_figures import precision_recall, roc
from common.report.evidence import Arm, Comparison, Level
from common.report.mask_levels import MaskLevel
from common.report.plotting import INK, MARKERS, OTHER, PAPER, Picture, colour, finish, new_figure, style
from common.report.reading import AnyComparison
from common.report.scores import Scores
from common.report.terms import level_words, metric_direction, metric_titles
from common.report.wording import lower_first, percent, signed

MARKS = (("o", 13), ("x", 16), ("^", 14), ("s", 12))  # of the true classes: shape and size


def comparison_figures(comparison: Comparison, scores: Scores, directory: Path) -> dict[str, list[Picture]]:
    """Figures by section of the report: "differences", "curves", "confusion", "agreement", and "external" with
    everything of the external set.
    """
    pictures: dict[str, list[Picture]] = {
        name: [] for name in ("differences", "curves", "confusion", "agreement", "external")
    }
    with style():
        for level in comparison.levels:
            outside = level.name == "external"
            differences = forest(comparison, level, scores, directory)
            pictures["external" if outside else "differences"] += differences
            curves = precision_recall(comparison, level, directory) + roc(comparison, level, directory)
            pictures["external" if outside else "curves"] += curves
            pictures["external" if outside else "confusion"] += confusion_figures(
                comparison, level, directory
            )
        if comparison.levels:
            pictures["agreement"] += agreement(comparison, comparison.levels[0], directory)
    return pictures


def forest(
    comparison: AnyComparison, level: Level | MaskLevel, scores: Scores, directory: Path
) -> list[Picture]:
    """Paired differences of every metric with their intervals; nothing where only one framework ran."""
    defined = [one for one in scores.differences if one.level == level.name and np.isfinite(one.difference)]
    titles = metric_titles(comparison.task)
    metrics = [metric for metric in titles if any(one.metric == metric for one in defined)]
    names = list(dict.fromkeys((one.framework, one.reference) for one in defined))
    if not defined:
        return []
    figure, axes = new_figure(4.3, 1.0 + 0.32 * len(metrics) * max(1.0, 0.75 * len(names)))
    axes.axvline(0, color=INK, linewidth=0.9, alpha=0.7)
    axes.grid(axis="y", visible=False)
    step = 0.56 / len(names)  # between the frameworks of one metric
    for one in defined:
        place = names.index((one.framework, one.reference))
        at = metrics.index(one.metric) + (place - (len(names) - 1) / 2) * step
        paint = colour(one.framework)
        axes.plot([one.ci_low, one.ci_high], [at, at], color=paint, linewidth=2, solid_capstyle="butt")
        if len(one.per_seed) > 1:
            axes.plot(
                one.per_seed, [at + 0.45 * step] * len(one.per_seed),
                linestyle="", marker="|", color=paint, markersize=5, alpha=0.8,
            )  # fmt: skip
        axes.plot(
            one.difference, at, marker=MARKERS.get(one.framework, "o"), color=paint, markersize=6, linestyle="",
            markeredgecolor=PAPER, markeredgewidth=0.8, label=f"{one.framework} − {one.reference}",
        )  # fmt: skip
    arrows = {"up": "↑", "down": "↓"}
    axes.set_yticks(
        range(len(metrics)),
        [f"{titles[metric]} {arrows[metric_direction(comparison.task, metric)]}" for metric in metrics],
    )
    axes.tick_params(axis="y", length=0, labelsize=9)
    axes.set(ylim=(len(metrics) - 0.4, -0.6), xlabel="Difference")
    ends = [
        value for one in defined for value in (one.ci_low, one.ci_high, *one.per_seed) if np.isfinite(value)
    ]
    reach = 1.1 * max(0.02, *np.abs(ends))
    axes.set_xlim(-reach, reach)
    axes.xaxis.set_major_locator(MaxNLocator(5, symmetric=True))
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(unique.values(), unique.keys(), loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    words = "; ".join(
        f"{one.framework} − {one.reference}, {titles[one.metric]} {signed(one.difference)} "
        f"({signed(one.ci_low)} to {signed(one.ci_high)})"
        for one in defined
    )
    columns = ("difference", "sd", "ci_low", "ci_high")
    table = pd.DataFrame(
        [
            {"metric": one.metric, "comparison": one.name, **{c: getattr(one, c) for c in columns}}
            for one in defined
        ]
    )
    where = lower_first(level_words(comparison.task, level.name)[0])
    higher = " or ".join(framework for framework, _ in names)
    return [finish(
        figure, directory, f"{comparison.slug}-{level.name}-differences", f"Paired differences, {where}",
        f"Right of the line: higher in {higher}. Mark: mean over seeds; bar: {percent(config.CONFIDENCE)} interval "
        "over test patients; ticks: single seeds. Where a bar crosses the line, other patients "
        "could have turned the sign.",
        f"Paired differences, {where}: {words}.",
        table,
    )]  # fmt: skip


def agreement(comparison: Comparison, level: Level, directory: Path) -> list[Picture]:
    """Score against score of the same slice, mean over the seeds that both frameworks have: the probability of the
    positive class, of several classes that of the true one.
    """
    several = len(comparison.classes) > 2
    of = "the true class" if several else comparison.classes[1]
    pictures = []
    for arm, reference in level.pairs:
        x, y = (true_scores(level, one) for one in (reference, arm))
        figure, axes = new_figure()
        axes.plot([0, 1], [0, 1], color=INK, alpha=0.55, linewidth=1, linestyle=":")
        for true, (mark, size) in zip(range(len(comparison.classes)), MARKS, strict=False):
            rows = level.y_true == true
            paint = (OTHER if mark == "o" else INK) if several else (INK if true else "#888888")
            axes.scatter(x[rows], y[rows], s=size, marker=mark, color=paint, alpha=0.75, linewidths=0.9,
                         label=comparison.classes[true])  # fmt: skip
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set(xlabel=f"{reference.framework}: probability of {of}")
        axes.set(ylabel=f"{arm.framework}: probability of {of}")
        axes.legend(loc="upper left", title="True class").set_alignment("left")
        table = pd.DataFrame(
            {"id": level.unit, "y_true": level.y_true, reference.framework: x, arm.framework: y}
        )
        gap = float(np.abs(x - y).mean())
        pictures.append(finish(
            figure, directory, f"{comparison.slug}-agreement-{arm.framework}",
            f"The same {level.name}, judged twice: {arm.framework} and {reference.framework}",
            f"On the dotted line both frameworks say the same. {seed_gaps(arm, reference)}",
            f"Scatter of the probability of {of} by {reference.framework} and {arm.framework} for the same test "
            f"slices; mean absolute difference {gap:.3f}.",
            table,
        ))  # fmt: skip
    return pictures


def true_scores(level: Level, arm: Arm) -> NDArray[np.float64]:
    """Mean probability over the seeds of the positive class, or of each slice's true class, (N,)."""
    mean = arm.y_score.mean(axis=0)
    return mean if mean.ndim == 1 else mean[np.arange(len(mean)), level.y_true]


def seed_gaps(arm: Arm, reference: Arm) -> str:
    """How far two runs differ on one slice: two frameworks at equal seed, against two seeds of one framework."""
    each = " of a class" if arm.y_score.ndim > 2 else ""
    across = float(np.abs(arm.y_score - reference.y_score).mean())
    words = (
        f"At equal seed, two frameworks differ by {across:.3f} on a slice (mean absolute difference{each})"
    )
    if len(arm.seeds) < 2:
        return f"{words}."
    within = [
        np.abs(one.y_score[i] - one.y_score[j]).mean()
        for one in (arm, reference)
        for i in range(len(one.seeds))
        for j in range(i)
    ]
    return f"{words}; two seeds of one framework by {float(np.mean(within)):.3f}."
