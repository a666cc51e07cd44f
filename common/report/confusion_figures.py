"""Who is confused with whom: a matrix a framework, and how two of them differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from common.report.evidence import Arm, Comparison, Level
from common.report.plotting import Picture, colour, finish, new_figure
from common.report.terms import level_words
from common.report.wording import MINUS, lower_first, percent, plural, signed

CELL_INCHES = {2: 1.1, 3: 1.0}  # by the number of classes


def confusion_figures(comparison: Comparison, level: Level, directory: Path) -> list[Picture]:
    """A matrix of each framework, then the difference of each further one from the first."""
    return [
        *(confusion(comparison, level, arm, directory) for arm in level.arms),
        *(confusion_difference(comparison, level, *pair, directory) for pair in level.pairs),
    ]


def mean_counts(level: Level, arm: Arm, classes: int) -> NDArray[np.float64]:
    """Mean count over the runs, (C, C): row the true class, column the decision."""
    counts = np.zeros((classes, classes))
    for y_pred in arm.y_pred:
        np.add.at(counts, (level.y_true, y_pred), 1 / len(arm.y_pred))
    return counts


def row_shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of a true class, (C, C); NaN for a class without cases."""
    totals = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)


def confusion(comparison: Comparison, level: Level, arm: Arm, directory: Path) -> Picture:
    """Mean counts over seeds, at each run's own decisions; shading and percentages are shares of a true class."""
    classes = comparison.classes
    counts = mean_counts(level, arm, len(classes))
    shares = row_shares(counts)
    figure, axes = matrix_axes(classes, arm.framework)
    rows = []
    for true in range(len(classes)):
        for predicted in range(len(classes)):
            count, share = counts[true, predicted], shares[true, predicted]
            shade = 0.04 + 0.46 * np.nan_to_num(share)
            number = f"{count:.1f}" if len(arm.y_pred) > 1 else f"{count:.0f}"
            cell(
                axes,
                true,
                predicted,
                colour(arm.framework),
                shade,
                number,
                percent(share) if share == share else "none",
            )
            rows.append({"framework": arm.framework, "true": classes[true], "predicted": classes[predicted],
                         "count": count, "row_share": share})  # fmt: skip
    words = "; ".join(
        f"true {r['true']}, predicted {r['predicted']}: {r['count']:.1f} ({percent(np.nan_to_num(r['row_share']))})"
        for r in rows
    )
    where = level_words(comparison.task, level.name)[0]
    return finish(
        figure, directory, f"{comparison.slug}-{level.name}-confusion-{arm.framework}",
        f"{arm.framework}, {lower_first(where)}",
        f"{runs_words(arm)} Each row adds up to 100\u00a0%; the diagonal is right.",
        f"Confusion matrix of {arm.framework}, {lower_first(where)}. {words}.",
        pd.DataFrame(rows),
    )  # fmt: skip


def confusion_difference(
    comparison: Comparison, level: Level, arm: Arm, reference: Arm, directory: Path
) -> Picture:
    """Difference of the row shares, and below it of the mean counts, over the seeds that both have. White is none; the
    colours are the two frameworks'.
    """
    classes = comparison.classes
    ours, theirs = (mean_counts(level, one, len(classes)) for one in (arm, reference))
    counts, shares = ours - theirs, row_shares(ours) - row_shares(theirs)
    figure, axes = matrix_axes(classes, f"{arm.framework} − {reference.framework}")
    rows = []
    for true in range(len(classes)):
        for predicted in range(len(classes)):
            count, share = counts[true, predicted], shares[true, predicted]
            paint = colour(arm.framework if count > 0 else reference.framework)
            shade = min(0.5, 1.6 * abs(np.nan_to_num(share))) if count else 0.0
            points = f"{signed(100 * share, 0)} pp" if share == share else "none"
            cell(axes, true, predicted, paint, shade, points, signed_count(count))
            rows.append({"comparison": f"{arm.framework}-vs-{reference.framework}", "true": classes[true],
                         "predicted": classes[predicted], "count": count, "row_share": share})  # fmt: skip
    words = "; ".join(
        f"true {r['true']}, predicted {r['predicted']}: {signed(100 * r['row_share'], 0)} percentage points"
        for r in rows
    )
    where = lower_first(level_words(comparison.task, level.name)[0])
    return finish(
        figure, directory, f"{comparison.slug}-{level.name}-confusion-{arm.framework}-vs-{reference.framework}",
        f"Difference, {where}",
        f"{arm.framework} minus {reference.framework}, mean of {plural(len(arm.seeds), 'seed')}: percentage points "
        f"(pp) of a true class; below, the number of {level_words(comparison.task, level.name)[1]}s. A cell has the "
        "colour of the framework that decides so more often; white: both as often.",
        f"Difference of the confusion matrices of {arm.framework} and {reference.framework}. {words}.",
        pd.DataFrame(rows),
    )  # fmt: skip


def matrix_axes(classes: tuple[str, ...], title: str) -> tuple[Figure, Axes]:
    size = len(classes)
    inches = 0.5 + size * CELL_INCHES.get(size, 0.9)
    figure, axes = new_figure(inches, inches - 0.2)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), xlabel="Predicted", ylabel="True")
    axes.set_title(title, fontsize=10)  # the file is also used without the page around it
    axes.set_xticks(range(size), classes)
    axes.set_yticks(range(size), classes, rotation=90, va="center")
    axes.tick_params(length=0)
    return figure, axes


def cell(axes: Axes, true: int, predicted: int, paint: str, shade: float, number: str, share: str) -> None:
    axes.add_patch(
        Rectangle((predicted - 0.48, true - 0.48), 0.96, 0.96, color=paint, alpha=float(shade), linewidth=0)
    )
    axes.text(predicted, true - 0.06, number, ha="center", va="center", fontsize=15)
    axes.text(predicted, true + 0.22, share, ha="center", va="center", fontsize=10)


def signed_count(count: float) -> str:
    return f"{count:+.1f}".replace("-", MINUS) if abs(count) >= 0.05 else "0"


def runs_words(arm: Arm) -> str:
    if len(arm.y_pred) == 1:
        return f"Counts of {arm.labels[0]}."
    return f"Mean count over {plural(len(arm.y_pred), 'run' if arm.models > 1 else 'seed')}."
