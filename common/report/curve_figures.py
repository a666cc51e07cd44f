"""Precision-recall and ROC curves: of the positive class, or of each class against the rest, one panel a class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from common import config
from common.metrics.classification import (
    auroc_score,
    average_precision_score,
    precision_recall_curve,
    roc_curve,
)
from common.report.bands import CurveOf, patient_band, precision_at, tpr_at
from common.report.curves import Curve, mean_precision_recall, mean_roc
from common.report.evidence import Arm, Comparison, Level
from common.report.plotting import DASHES, INK, Picture, colour, finish, new_figure
from common.report.terms import level_words
from common.report.wording import lower_first, percent

BAND_GRID = np.linspace(0, 1, 101)  # places of a band along the x axis
BAND_ALPHA = 0.13
PANEL_INCHES = 3.3  # side of one of several panels; the page sets up to three beside each other
BAND_WORDS = (
    f"Shaded: where the mean would lie with other test patients ({percent(config.CONFIDENCE)} at each place, patients "
    "drawn with replacement). "
)


@dataclass(frozen=True)
class Panel:
    """One class against the rest."""

    name: str  # of the class; empty where it is the only panel
    y_true: NDArray[np.bool_]  # (N,)
    patient: NDArray[np.str_]  # (N,)
    arms: tuple[tuple[Arm, NDArray[np.float64]], ...]  # with the scores of the class, (R, N)

    @property
    def prevalence(self) -> float:
        return float(self.y_true.mean())


def panels(comparison: Comparison, level: Level) -> Iterator[Panel]:
    """The positive class of two, or every class of several; none without both positives and negatives."""
    several = len(comparison.classes) > 2
    for index in range(0 if several else 1, len(comparison.classes)):
        y_true = level.y_true == index
        if 0 < y_true.sum() < len(y_true):
            arms = tuple((arm, arm.y_score[..., index] if several else arm.y_score) for arm in level.arms)
            yield Panel(comparison.classes[index] if several else "", y_true, level.patient, arms)


def precision_recall(comparison: Comparison, level: Level, directory: Path) -> list[Picture]:
    """Step-wise, as average precision counts it; the prevalence is what chance reaches."""
    return [
        precision_recall_panel(comparison, level, panel, directory) for panel in panels(comparison, level)
    ]


def precision_recall_panel(comparison: Comparison, level: Level, panel: Panel, directory: Path) -> Picture:
    figure, axes = panel_axes(panel)
    prevalence = panel.prevalence
    axes.axhline(prevalence, color=INK, alpha=0.55, linewidth=1, linestyle=":")
    below = prevalence > 0.1  # no curve ends below the line
    axes.text(
        1.0, prevalence + (-0.02 if below else 0.02), f"chance {prevalence:.2f}",
        ha="right", va="top" if below else "bottom", fontsize=9,
    )  # fmt: skip

    def curve_of(y_score: NDArray[np.float64]) -> Curve:
        precision, recall, _ = precision_recall_curve(panel.y_true, y_score)
        return recall[::-1], precision[::-1]

    means, rows = draw_curves(
        axes, panel, curve_of, mean_precision_recall, average_precision_score, ("recall", "precision"), "steps-pre"
    )  # fmt: skip
    banded = draw_bands(axes, panel, BAND_GRID[1:], precision_at, ("recall", "precision"), rows)
    unit_square(axes, "Recall", "Precision", "Average precision")
    return finish(
        figure, directory, file_name(comparison, level, "precision_recall", panel),
        title("Precision and recall", comparison, level, panel),
        f"Further up and right is better. {lines_words(level.arms)} is the average precision of the table. {banded}"
        f"Dotted: {'chance' if panel.name else f'the share of positives ({prevalence:.2f}), which chance reaches'}.",
        f"Precision-recall curves{of_class(panel)}; average precision: {listing(means)}; chance {prevalence:.2f}.",
        pd.DataFrame(rows),
    )  # fmt: skip


def roc(comparison: Comparison, level: Level, directory: Path) -> list[Picture]:
    return [roc_panel(comparison, level, panel, directory) for panel in panels(comparison, level)]


def roc_panel(comparison: Comparison, level: Level, panel: Panel, directory: Path) -> Picture:
    figure, axes = panel_axes(panel)
    axes.plot([0, 1], [0, 1], color=INK, alpha=0.55, linewidth=1, linestyle=":")

    def curve_of(y_score: NDArray[np.float64]) -> Curve:
        fpr, tpr, _ = roc_curve(panel.y_true, y_score)
        return fpr, tpr

    names = ("false_positive_rate", "true_positive_rate")
    means, rows = draw_curves(axes, panel, curve_of, mean_roc, auroc_score, names, "default")
    banded = draw_bands(axes, panel, BAND_GRID, tpr_at, names, rows)
    long = not panel.name  # a narrow panel has no room for both words
    unit_square(
        axes,
        "False positive rate (1 − specificity)" if long else "1 − specificity",
        "True positive rate (sensitivity)" if long else "Sensitivity",
        "AUROC",
    )
    return finish(
        figure, directory, file_name(comparison, level, "roc", panel), title("ROC", comparison, level, panel),
        f"Further up and left is better. {lines_words(level.arms)} is the AUROC of the table. {banded}Dotted: "
        "chance.",
        f"ROC curves{of_class(panel)}; AUROC: {listing(means)}; chance 0.5.",
        pd.DataFrame(rows),
    )  # fmt: skip


def draw_curves(
    axes: Axes,
    panel: Panel,
    curve_of: Callable[[NDArray[np.float64]], Curve],
    mean_of: Callable[[Sequence[Curve]], Curve],
    area_of: Callable[..., float],
    names: tuple[str, str],
    drawstyle: str,
) -> tuple[dict[str, float], list[dict]]:
    """Each run thin, each framework's mean thick; returns the mean areas and the points drawn."""
    means, rows = {}, []
    for arm, scores in panel.arms:
        curves = [curve_of(y_score) for y_score in scores]
        for label, curve in zip(arm.labels, curves, strict=True):
            rows += curve_rows(arm.framework, label, names, curve)
            if len(curves) > 1:
                axes.plot(*curve, drawstyle=drawstyle, color=colour(arm.framework), alpha=0.35, linewidth=0.8)
        means[arm.framework] = float(np.mean([area_of(panel.y_true, y_score) for y_score in scores]))
        mean = mean_of(curves)
        rows += curve_rows(arm.framework, "mean", names, mean)
        axes.plot(
            *mean, drawstyle=drawstyle, color=colour(arm.framework), linewidth=2,
            linestyle=DASHES.get(arm.framework, "-"), label=f"{arm.framework}  {means[arm.framework]:.3f}",
        )  # fmt: skip
    return means, rows


def draw_bands(
    axes: Axes,
    panel: Panel,
    grid: NDArray[np.float64],
    height_at: Callable[[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]], CurveOf],
    names: tuple[str, str],
    rows: list[dict],
) -> str:
    """How far other patients could have moved the means; adds its points to `rows`, returns words for the caption."""
    drawn = False
    for arm, scores in panel.arms:
        band = patient_band(panel.patient, [height_at(panel.y_true, score, grid) for score in scores])
        if band is None or not np.isfinite(band.low).any():
            continue
        drawn = True
        axes.fill_between(
            grid, band.low, band.high, color=colour(arm.framework), alpha=BAND_ALPHA, linewidth=0
        )
        for label, limit in (("band_low", band.low), ("band_high", band.high)):
            rows += curve_rows(arm.framework, label, names, (grid, limit))
    return BAND_WORDS if drawn else ""


def curve_rows(framework: str, label: str, names: tuple[str, str], curve: Curve) -> list[dict]:
    return [
        {"framework": framework, "curve": label, names[0]: x, names[1]: y}
        for x, y in zip(*curve, strict=True)
    ]


def panel_axes(panel: Panel) -> tuple[Figure, Axes]:
    """Room for the curves and, above them, a line a framework."""
    extra = 0.17 * len(panel.arms)
    if panel.name:
        return new_figure(PANEL_INCHES, PANEL_INCHES - 0.2 + extra)
    return new_figure(height=3.5 + extra)


def unit_square(axes: Axes, x_label: str, y_label: str, legend_title: str) -> None:
    """Both axes from 0 to 1; the legend above them, where no curve can run through it."""
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel=x_label, ylabel=y_label)
    legend = axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, title=legend_title)
    legend.set_alignment("left")
    legend.get_title().set_fontsize(9.5)


def file_name(comparison: Comparison, level: Level, kind: str, panel: Panel) -> str:
    return "-".join([comparison.slug, level.name, kind, *([panel.name] if panel.name else [])])


def title(kind: str, comparison: Comparison, level: Level, panel: Panel) -> str:
    where = lower_first(level_words(comparison.task, level.name)[0])
    return f"{kind}: {panel.name} against the rest, {where}" if panel.name else f"{kind}, {where}"


def of_class(panel: Panel) -> str:
    return f" of {panel.name} against the rest" if panel.name else ""


def lines_words(arms: Sequence[Arm]) -> str:
    several = any(len(arm.y_score) > 1 for arm in arms)
    return (
        "Thin: single runs; thick: their mean. The area under it"
        if several
        else "One seed. The area under a line"
    )


def listing(means: dict[str, float]) -> str:
    return "; ".join(f"{name} {value:.3f}" for name, value in means.items())
