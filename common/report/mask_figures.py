"""The figures of the masks: each lesion slice's Dice and HD95, by framework and by lesion size.

A point is a slice, its value the mean over seeds; what a table gives is drawn from the same numbers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from common import config
from common.random_numbers import uniform
from common.report.figures import forest
from common.report.mask_agreement import MANY_POINTS, area_agreement, area_error, mask_agreement
from common.report.mask_evidence import MaskComparison
from common.report.mask_levels import MaskArm, MaskLevel
from common.report.mask_slices import Slices
from common.report.plotting import DASHES, INK, MARKERS, PAPER, Picture, colour, finish, new_figure, style
from common.report.score_views import COARSE
from common.report.scores import Scores
from common.report.wording import percent, plain, plural

MEDIAN_SHARE = 0.2  # of the slices, in the window of a running median
MEDIAN_SLICES = 5  # at least in that window, and twice as many in all


def mask_figures(comparison: MaskComparison, scores: Scores, directory: Path) -> dict[str, list[Picture]]:
    """Figures by section of the report: "differences", "cases", "agreement"; empty where nothing is scored."""
    pictures: dict[str, list[Picture]] = {"differences": [], "cases": [], "agreement": []}
    if comparison.test is None:
        return pictures
    slices, level = comparison.test, comparison.levels[0]
    shares = tuple(one for one in scores.differences if not one.metric.endswith(COARSE))
    with style():
        for one in comparison.levels:
            if one.name in ("lesion", "patient"):
                pictures["differences"] += forest(comparison, one, Scores(scores.scores, shares), directory)
        pictures["cases"] = [
            dice_strip(comparison, level, scores, directory),
            dice_by_size(comparison, slices, directory),
            hd95_curve(comparison, level, directory),
        ]
        pictures["cases"] += area_error(comparison, slices, directory)
        for arm, reference in slices.pairs:
            pictures["agreement"] += area_agreement(comparison, slices, arm, reference, directory)
            pictures["agreement"] += mask_agreement(comparison, slices, arm, reference, directory)
    return pictures


def dice_strip(comparison: MaskComparison, level: MaskLevel, scores: Scores, directory: Path) -> Picture:
    """Every lesion slice's Dice, and below it the mean with its interval and the seeds' means."""
    metric = comparison.primary_metric
    found = {one.framework: one for one in scores.of(level.name, metric)}
    figure, axes = new_figure(4.3, 1.0 + 0.85 * len(level.arms))
    axes.grid(axis="y", visible=False)
    jitter = uniform(len(level.unit), "strip", comparison.slug) - 0.5
    rows, words = [], []
    for place, arm in enumerate(level.arms):
        paint, score = colour(arm.framework), found[arm.framework]
        dice = arm.values[metric].mean(axis=0)
        axes.plot(
            dice, place - 0.12 + 0.42 * jitter, linestyle="", marker=MARKERS.get(arm.framework, "o"), color=paint,
            markersize=4, markeredgewidth=0, alpha=0.45, rasterized=dense(level),
        )  # fmt: skip
        below = place + 0.32
        axes.plot([score.ci_low, score.ci_high], [below, below], color=paint, linewidth=2)
        if len(score.per_seed) > 1:
            axes.plot(score.per_seed, [below + 0.09] * len(score.per_seed), linestyle="", marker="|",
                      color=paint, markersize=5)  # fmt: skip
        axes.plot(score.mean, below, marker=MARKERS.get(arm.framework, "o"), color=paint, markersize=6.5,
                  markeredgecolor=PAPER, markeredgewidth=0.8)  # fmt: skip
        rows += [
            {"framework": arm.framework, "id": unit, "patient": patient, "dice_score": value}
            for unit, patient, value in zip(level.unit, level.patient, dice, strict=True)
        ]
        words.append(
            f"{arm.framework} mean {plain(score.mean)}, median slice {np.median(dice):.3f}, "
            f"{plural(int((dice == 0).sum()), 'slice')} at 0"
        )
    axes.set_yticks(range(len(level.arms)), [arm.framework for arm in level.arms])
    axes.tick_params(axis="y", length=0)
    axes.set(ylim=(len(level.arms) - 0.45, -0.5), xlim=(-0.02, 1.02), xlabel="Dice")
    seeds = "; ticks: single seeds" if any(len(arm.seeds) > 1 for arm in level.arms) else ""
    return finish(
        figure, directory, f"{comparison.slug}-dice", "Dice of every slice with a lesion",
        f"A point is a slice (mean over seeds). Below: the mean with its {percent(config.CONFIDENCE)} interval over "
        f"patients{seeds}. At 0 lie lesions of which nothing was found.",
        f"Dice of {len(level.unit)} lesion slices: {'; '.join(words)}.",
        pd.DataFrame(rows),
    )  # fmt: skip


def dice_by_size(comparison: MaskComparison, slices: Slices, directory: Path) -> Picture:
    """Dice against the true area, with a running median: small lesions are harder, for everybody."""
    area = slices.true_px[slices.lesion]
    order = np.argsort(area, kind="stable")
    figure, axes = new_figure(height=3.4 + 0.17 * len(slices.arms))
    rows, words = [], []
    for arm in slices.arms:
        paint = colour(arm.framework)
        dice = arm.dice.mean(axis=0)[slices.lesion]
        axes.plot(
            area, dice, linestyle="", marker=MARKERS.get(arm.framework, "o"), color=paint, markersize=4,
            markeredgewidth=0, alpha=0.4, rasterized=len(area) * len(slices.arms) > MANY_POINTS,
        )  # fmt: skip
        median = running_median(dice[order])
        at = running_median(area[order].astype(np.float64))
        axes.plot(at, median, color=paint, linewidth=2, linestyle=DASHES.get(arm.framework, "-"),
                  marker="" if len(at) else MARKERS.get(arm.framework, "o"), label=arm.framework)  # fmt: skip
        rows += [
            {"framework": arm.framework, "id": unit, "true_px": size, "dice_score": value}
            for unit, size, value in zip(slices.unit[slices.lesion], area, dice, strict=True)
        ]
        small = area <= config.SMALL_LESION_PX
        parts = [f"small {dice[small].mean():.3f}"] if small.any() else []
        parts += [] if small.all() else [f"larger {dice[~small].mean():.3f}"]
        words.append(f"{arm.framework} {' and '.join(parts)}")
    axes.axvline(config.SMALL_LESION_PX, color=INK, alpha=0.55, linewidth=1, linestyle=":")
    axes.set(
        xscale="log", ylim=(-0.03, 1.03), xlabel="Area of the true lesion, px (log scale)", ylabel="Dice"
    )
    plain_ticks(axes, float(area.min()), float(area.max()))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    window = (
        f" Lines: running median of {window_of(len(area))} slices of like size."
        if window_of(len(area))
        else ""
    )
    return finish(
        figure, directory, f"{comparison.slug}-dice_by_size", "Dice by lesion size",
        f"A point is a slice (mean over seeds).{window} Dotted: {config.SMALL_LESION_PX} px, up to which a lesion is "
        "called small here.",
        f"Dice against lesion area; mean Dice of small and larger lesions: {'; '.join(words)}.",
        pd.DataFrame(rows),
    )  # fmt: skip


def hd95_curve(comparison: MaskComparison, level: MaskLevel, directory: Path) -> Picture:
    """The share of lesion slices whose HD95 is at most x; what a curve lacks of 100 % was missed."""
    figure, axes = new_figure(height=3.4 + 0.17 * len(level.arms))
    rows, words = [], []
    found = [hd95_found(arm) for arm in level.arms]
    reach = max([1.0, *(float(values.max()) for runs in found for values in runs if len(values))])
    for arm, runs in zip(level.arms, found, strict=True):
        paint = colour(arm.framework)
        for label, values in [*zip(arm.seeds, runs, strict=True), ("all", np.concatenate(runs))]:
            slices_asked = len(level.unit) * (len(runs) if label == "all" else 1)
            x = np.concatenate([[0.0], np.sort(values), [1.04 * reach]])
            y = np.minimum(np.arange(len(x)), len(values)) / slices_asked
            rows += [
                {"framework": arm.framework, "seed": label, "hd95_px": a, "share": b}
                for a, b in zip(x[:-1], y[:-1], strict=True)
            ]
            if label == "all":
                axes.plot(x, y, drawstyle="steps-post", color=paint, linewidth=2,
                          linestyle=DASHES.get(arm.framework, "-"), label=arm.framework)  # fmt: skip
            elif len(runs) > 1:
                axes.plot(x, y, drawstyle="steps-post", color=paint, linewidth=0.8, alpha=0.35)
        every = np.concatenate(runs)
        missed = 1 - len(every) / (len(level.unit) * len(runs))
        middle = f"median of those marked {np.median(every):.1f} px, " if len(every) else ""
        words.append(f"{arm.framework} {middle}{percent(missed)} missed")
    axes.set(ylim=(0, 1.03), xlim=(0, 1.04 * reach), xlabel="HD95, px", ylabel="Share of lesion slices")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    several = any(len(arm.seeds) > 1 for arm in level.arms)
    return finish(
        figure, directory, f"{comparison.slug}-hd95", "How far the borders are off",
        "The share of lesion slices with an HD95 up to x: further up and left is better. What a line lacks of 1 at the "
        f"right was not marked at all.{' Thick: all seeds; thin: single seeds.' if several else ''}",
        f"Cumulative distribution of HD95: {'; '.join(words)}.",
        pd.DataFrame(rows),
    )  # fmt: skip


def hd95_found(arm: MaskArm) -> list[NDArray[np.float64]]:
    """The HD95 of each run's marked lesions; the others stand at the grid's diagonal in the tables."""
    return [
        values[marked == 1]
        for values, marked in zip(arm.values["hd95_px"], arm.values["marked_slice_score"], strict=True)
    ]


def running_median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Medians of the windows of sorted slices; empty where there are too few."""
    window = window_of(len(values))
    if not window:
        return np.empty(0)
    return np.median(np.lib.stride_tricks.sliding_window_view(values, window), axis=1)


def window_of(count: int) -> int:
    """Slices in a window of the running median; 0 for none."""
    return max(MEDIAN_SLICES, round(MEDIAN_SHARE * count)) if count >= 2 * MEDIAN_SLICES else 0


def dense(level: MaskLevel) -> bool:
    return len(level.unit) * len(level.arms) > MANY_POINTS


def plain_ticks(axes: Axes, low: float, high: float) -> None:
    """1, 2, 5, 10, ... on a log axis in place of powers."""
    steps = [m * 10**e for e in range(6) for m in (1, 2, 5)]
    shown = [step for step in steps if 0.8 * low <= step <= 1.25 * high] or [round(low)]
    shown = shown if len(shown) <= 7 else shown[:: -(-len(shown) // 6)]
    axes.set_xticks(shown, [f"{step:,}" for step in shown])
    axes.minorticks_off()
