"""Would acting on the score help? Decision curves (Vickers & Elkin 2006) of stroke against normal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common import config
from common.metrics.decision import net_benefit
from common.report.calibration_figures import LEVELS, lines_of
from common.report.evidence import Arm, Comparison, Level
from common.report.plotting import DASHES, INK, Picture, colour, finish, new_figure, style
from common.report.terms import level_words
from common.report.wording import lower_first, percent, plain

LEAST_SHOWN = -0.35  # of the prevalence: further down nobody would act on the score
ALL, NONE = "call all", "call none"


def decision_figures(comparison: Comparison, directory: Path) -> list[Picture]:
    """The test slices first, then the external ones; none of slices that are all normal or all stroke."""
    with style():
        return [
            decision_figure(comparison, level, directory)
            for level in comparison.levels
            if level.name in LEVELS and 0 < (level.y_true > 0).sum() < len(level.y_true)
        ]


def thresholds() -> NDArray[np.float64]:
    low, high = config.DECISION_THRESHOLDS
    return np.round(np.arange(low, high + 0.005, 0.01), 2)


def stroke_score(arm: Arm) -> NDArray[np.float64]:
    """The probability of a stroke of whatever kind, (R, N)."""
    return arm.y_score if arm.y_score.ndim == 2 else np.clip(1 - arm.y_score[..., 0], 0.0, 1.0)


def decision_figure(comparison: Comparison, level: Level, directory: Path) -> Picture:
    stroke = (level.y_true > 0).astype(np.int64)
    at, prevalence = thresholds(), float(stroke.mean())
    everybody = net_benefit(stroke, np.ones(len(stroke)), at)
    figure, axes = new_figure(height=3.7 + 0.17 * (len(level.arms) > 2))
    axes.axhline(0, color=INK, linewidth=1, alpha=0.8, label=NONE)
    axes.plot(at, everybody, color=INK, linewidth=1.1, linestyle=":", alpha=0.8, label=ALL)
    rows = curve_rows(NONE, "", at, 0 * at) + curve_rows(ALL, "", at, everybody)
    words, highest = [], float(np.max(everybody))
    for arm in level.arms:
        paint = colour(arm.framework)
        curves = [net_benefit(stroke, score, at) for score in stroke_score(arm)]
        mean = np.mean(curves, axis=0)
        for label, curve in zip(arm.labels, curves, strict=True):
            rows += curve_rows(arm.framework, label, at, curve)
            if len(curves) > 1:
                axes.plot(at, curve, color=paint, alpha=0.3, linewidth=0.8)
        rows += curve_rows(arm.framework, "mean", at, mean)
        dash = DASHES.get(arm.framework, "-")
        axes.plot(at, mean, color=paint, linewidth=2, linestyle=dash, label=arm.framework)
        highest = max(highest, float(mean.max()))
        words.append(f"{arm.framework} {useful_words(at, mean, everybody)}")
    axes.set(xlim=(0, 1), ylim=(LEAST_SHOWN * prevalence, 1.12 * highest))
    axes.set(xlabel="Threshold probability of a stroke", ylabel="Net benefit")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=2)
    where = lower_first(level_words(comparison.task, level.name)[0])
    against = " Stroke of either kind against normal." if len(comparison.classes) > 2 else ""
    return finish(
        figure, directory, f"{comparison.slug}-{level.name}-decision", f"Decision curve, {where}",
        "Strokes found a slice, less false alarms at the rate that the threshold implies (at 0.2 a stroke found is "
        "worth four false alarms). A score helps where its line lies above both calling all and calling none strokes."
        f"{against} {lines_of(level)}. Heights depend on the share of strokes, here {percent(prevalence)}; a clinic's "
        "is another.",
        f"Decision curves, {where}. Better than calling all or none: {'; '.join(words)}.",
        pd.DataFrame(rows),
    )  # fmt: skip


def curve_rows(
    framework: str, label: str, at: NDArray[np.float64], height: NDArray[np.float64]
) -> list[dict]:
    return [
        {"framework": framework, "curve": label, "threshold": x, "net_benefit": y}
        for x, y in zip(at, height, strict=True)
    ]


def useful_words(at: NDArray[np.float64], mean: NDArray[np.float64], everybody: NDArray[np.float64]) -> str:
    """Between which thresholds the score beats both simple rules."""
    useful = at[mean > np.maximum(everybody, 0) + 1e-12]
    return f"from {plain(useful.min(), 2)} to {plain(useful.max(), 2)}" if len(useful) else "nowhere"
