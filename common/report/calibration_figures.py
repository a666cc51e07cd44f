"""Do the probabilities mean what they say? A reliability diagram of each set of slices, with the scores below it.

Of two classes the probability of the positive one is judged. Of several it is that of the decision against its being
right (top-label calibration, Guo et al. 2017), as the expected calibration error of the table does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from common import config
from common.metrics.calibration import CalibrationCurve, calibration_curve
from common.report.bands import CurveOf, patient_band
from common.report.evidence import Arm, Comparison, Level
from common.report.plotting import DASHES, INK, MARKERS, PAPER, Picture, colour, finish, new_panels, style
from common.report.terms import level_words
from common.report.wording import lower_first, percent, plain

SLICES_A_BIN = 20  # at least; fewer bins otherwise
HISTOGRAM_BINS = 20
LEVELS = ("slice", "external")  # a patient's mean over slices is no probability that was trained


def calibration_figures(comparison: Comparison, directory: Path) -> list[Picture]:
    """The test slices first, then the external ones; none where a level has fewer slices than two bins need."""
    with style():
        return [
            calibration_figure(comparison, level, directory)
            for level in comparison.levels
            if level.name in LEVELS and bins_of(level) > 1
        ]


def bins_of(level: Level) -> int:
    return min(config.CALIBRATION_BINS, len(level.unit) // SLICES_A_BIN)


def judged(level: Level, arm: Arm) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """What came true, 0 or 1, (R, N), and the probability that was given to it, (R, N)."""
    if arm.y_score.ndim == 2:
        return np.broadcast_to(level.y_true, arm.y_score.shape), arm.y_score
    return (arm.y_score.argmax(axis=2) == level.y_true).astype(np.int64), arm.y_score.max(axis=2)


def calibration_figure(comparison: Comparison, level: Level, directory: Path) -> Picture:
    several = len(comparison.classes) > 2
    figure, (axes, below) = new_panels(4.3, 4.9 + 0.17 * len(level.arms), rows=(3.2, 1))
    axes.plot([0, 1], [0, 1], color=INK, alpha=0.55, linewidth=1, linestyle=":")
    rows, words = [], []
    for place, arm in enumerate(level.arms):
        happened, scores = judged(level, arm)
        curves = [
            calibration_curve(truth, score, bins_of(level))
            for truth, score in zip(happened, scores, strict=True)
        ]
        mean = mean_curve(curves)
        low, high = intervals(level, happened, scores)
        shift = 0.006 * (
            place - (len(level.arms) - 1) / 2
        )  # so that bars of two frameworks do not hide each other
        draw_arm(axes, arm, curves, mean, (low, high), shift)
        draw_scores(below, arm, happened, scores)
        rows += [
            {"framework": arm.framework, "curve": label, "bin": number + 1, "slices": curve.weight[number],
             "predicted": curve.predicted[number], "observed": curve.observed[number],
             "ci_low": low[number] if label == "mean" else np.nan,
             "ci_high": high[number] if label == "mean" else np.nan}
            for label, curve in (*zip(arm.labels, curves, strict=True), ("mean", mean))
            for number in range(bins_of(level))
        ]  # fmt: skip
        gap = float(np.nanmean(np.abs(mean.observed - mean.predicted)))
        words.append(f"{arm.framework} {plain(gap)}")
    decision = "the decision's class" if several else comparison.classes[1]
    label_axes(axes, below, several, comparison.classes)
    below.set_xlabel(f"Probability of {decision}")
    where = lower_first(level_words(comparison.task, level.name)[0])
    what = (
        "The probability of the class decided for, against how often it was right."
        if several
        else f"The probability of {decision}, against how often it was there."
    )
    up = "right decisions up, wrong" if several else f"those with {decision} up, the others"
    return finish(
        figure, directory, f"{comparison.slug}-{level.name}-calibration", f"Calibration, {where}",
        f"{what} On the dotted line probabilities mean what they say; below it they promise too much. "
        f"{lines_of(level)}, in {bins_of(level)} bins of equal count; bars: {percent(config.CONFIDENCE)} over test "
        f"patients. Below: the slices by their score, {up} down. The table's calibration error takes "
        f"{config.CALIBRATION_BINS} bins of equal width.",
        f"Calibration curves, {where}; mean gap between probability and frequency: {'; '.join(words)}.",
        pd.DataFrame(rows),
    )  # fmt: skip


def lines_of(level: Level) -> str:
    several = any(len(arm.y_score) > 1 for arm in level.arms)
    return "Thin: single runs; thick: their mean" if several else "One run each"


def mean_curve(curves: list[CalibrationCurve]) -> CalibrationCurve:
    """Bin by bin, over the runs that have slices in it."""
    stacked = (np.stack(values) for values in zip(*curves, strict=True))
    return CalibrationCurve(*(mean_of_known(values) for values in stacked))


def mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the first axis of what is not NaN; NaN where all are."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def intervals(
    level: Level, happened: NDArray[np.int64], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of the mean curve's observed shares, over patients, each (B,); NaN where it is unknown."""
    bins = bins_of(level)

    def observed(truth: NDArray[np.int64], score: NDArray[np.float64]) -> CurveOf:
        return lambda weights: calibration_curve(truth, score, bins, weights).observed

    band = patient_band(level.patient, [observed(*run) for run in zip(happened, scores, strict=True)])
    return (np.full(bins, np.nan),) * 2 if band is None else (band.low, band.high)


def draw_arm(
    axes: Axes,
    arm: Arm,
    curves: list[CalibrationCurve],
    mean: CalibrationCurve,
    limits: tuple[NDArray[np.float64], NDArray[np.float64]],
    shift: float,
) -> None:
    paint = colour(arm.framework)
    for curve in curves if len(curves) > 1 else []:
        full = curve.weight > 0
        axes.plot(curve.predicted[full], curve.observed[full], color=paint, alpha=0.3, linewidth=0.8)
    known = ~np.isnan(mean.observed)
    axes.vlines(
        mean.predicted[known] + shift,
        limits[0][known],
        limits[1][known],
        color=paint,
        linewidth=1.3,
        alpha=0.75,
    )
    axes.plot(
        mean.predicted[known] + shift, mean.observed[known], color=paint, linewidth=1.8,
        linestyle=DASHES.get(arm.framework, "-"), marker=MARKERS.get(arm.framework, "o"), markersize=5.5,
        markeredgecolor=PAPER, markeredgewidth=0.7, label=arm.framework,
    )  # fmt: skip


def draw_scores(axes: Axes, arm: Arm, happened: NDArray[np.int64], scores: NDArray[np.float64]) -> None:
    """How often each score is given, a mean over runs: up what came true, down what did not."""
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    for sign, wanted in ((1, 1), (-1, 0)):
        counts = np.histogram(scores[happened == wanted], edges)[0] / len(scores)
        axes.stairs(
            sign * counts, edges, color=colour(arm.framework), linewidth=1.3, linestyle=DASHES.get(arm.framework, "-")
        )  # fmt: skip


def label_axes(axes: Axes, below: Axes, several: bool, classes: tuple[str, ...]) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.02, 1.02))
    axes.set_ylabel("Share that was right" if several else f"Share with {classes[1]}")
    axes.tick_params(labelbottom=False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=2)
    below.axhline(0, color=INK, linewidth=0.7)
    below.set(xlim=(-0.01, 1.01), ylabel="Slices")
    most = max(abs(value) for value in below.get_ylim())
    below.set_ylim(-most, most)
    below.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
