"""The figures of time: where a run's seconds go, and how good a model was after how many seconds of training."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from common.report.costs import time_parts
from common.report.plotting import (
    DASHES,
    INK,
    MARKERS,
    PAPER,
    Picture,
    colour,
    finish,
    new_figure,
    style,
)
from common.report.quality import QualityTime
from common.report.reading import AnyComparison
from common.report.terms import metric_title
from common.report.wording import plain

# Part of a run's wall time, in its order -> (words, colour). Of middling lightness, so that they stand out from a light
# page and from a dark one; none is a framework's. The training steps have the ink: they are the work, all else is paid
# for it; the rest has a frame alone.
PARTS = {
    "import": ("start and import", "#8d99a6"),
    "data": ("open the data", "#a3927b"),
    "build": ("build the model", "#6f7d8c"),
    "trainer": ("make the optimizer", "#3f8fa3"),
    "compile": ("compile, warm up", "#8b6cc4"),
    "wait": ("wait for data", "#c8434b"),
    "steps": ("training steps", INK),
    "evaluate": ("evaluation", "#9a7d0a"),
    "checkpoint": ("checkpoint", "#7d5a3c"),
    "latency": ("measure latency", "#76936a"),
    "other": ("rest", PAPER),
}
LABELLED = 0.09  # of the longest bar: a part has its seconds written into it
SEEN = 0.001  # of the longest bar: a part is in the legend


def time_figure(comparison: AnyComparison, directory: Path) -> list[Picture]:
    """Where a run's seconds go: mean over the runs of each framework, as stacked bars that add up to the whole run."""
    means: dict[str, dict[str, float]] = {}
    for framework in comparison.frameworks:
        parts = [time_parts(one) for one in comparison.records if one.run.framework == framework]
        parts = [part for part in parts if part]
        if parts:
            means[framework] = {name: float(np.mean([part[name] for part in parts])) for name in PARTS}
    if not means:
        return []
    longest = max(sum(part.values()) for part in means.values())
    names = [name for name in PARTS if any(part[name] > SEEN * longest for part in means.values())]
    with style():
        figure, axes = new_figure(4.7, 0.8 + 0.5 * len(means) + 0.2 * math.ceil(len(names) / 2))
        axes.grid(axis="y", visible=False)
        for row, part in enumerate(means.values()):
            left = 0.0
            for name in names:
                words, paint = PARTS[name]
                axes.barh(
                    row, part[name], left=left, height=0.58, color=paint, linewidth=0.8,
                    edgecolor=INK if paint == PAPER else PAPER, alpha=0.82 if paint == INK else None,
                    label=words if row == 0 else None,
                )  # fmt: skip
                if part[name] > LABELLED * longest:
                    axes.text(left + part[name] / 2, row, f"{part[name]:.1f}", fontsize=9,
                              color=INK if PARTS[name][1] == PAPER else PAPER,
                              fontweight="bold", ha="center", va="center")  # fmt: skip
                left += part[name]
            axes.text(left + 0.015 * longest, row, f"{sum(part.values()):.1f} s", va="center", fontsize=10)
        axes.set_yticks(range(len(means)), list(means))
        axes.set(
            ylim=(len(means) - 0.5, -0.5), xlim=(0, 1.16 * longest), xlabel="Seconds of a run, wall clock"
        )
        axes.tick_params(axis="y", length=0)
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.3, 1), ncols=2, borderaxespad=0.2, handlelength=1,
            columnspacing=1.2,
        )  # fmt: skip
        said = "; ".join(
            f"{framework} {sum(part.values()):.1f} s ("
            + ", ".join(f"{PARTS[name][0]} {part[name]:.1f}" for name in names)
            + ")"
            for framework, part in means.items()
        )
        native = " Compiling and waiting are within the steps, for whole epochs were timed."
        return [finish(
            figure, directory, f"{comparison.slug}-time", "Where the time of a run goes",
            "Mean over runs. All but the training steps, waiting and evaluation is paid once a process, however long "
            "it trains." + (native if comparison.lane == "native" else ""),
            f"Mean wall time of a run: {said}.",
            pd.DataFrame([{"framework": name, **part} for name, part in means.items()]),
        )]  # fmt: skip


def quality_figure(comparison: AnyComparison, found: QualityTime, directory: Path) -> Picture:
    """Validation score over seconds of training, a line a run, the level, and when half of the runs were there."""
    score = metric_title(comparison.task, comparison.primary_metric)
    words = []
    with style():
        figure, axes = new_figure(4.3, 2.9)
        axes.axhline(found.level, color=INK, alpha=0.55, linewidth=0.9, linestyle=(0, (2, 2)))
        for framework in comparison.frameworks:
            curves = [curve for key, curve in found.curves.items() if key[0] == framework]
            if not curves:
                continue
            paint, when = colour(framework), found.median(framework)
            for curve in curves:
                axes.plot(curve["seconds"], curve["val_score"], color=paint, alpha=0.35, linewidth=0.8)
            by_epoch = pd.concat(curves).groupby(level=0).mean()
            axes.plot(by_epoch["seconds"], by_epoch["val_score"], color=paint, linewidth=2, label=framework,
                      linestyle=DASHES.get(framework, "-"))  # fmt: skip
            axes.plot([when], [found.level], linestyle="", marker=MARKERS.get(framework, "o"), markersize=7,
                      markerfacecolor=PAPER, markeredgecolor=paint, markeredgewidth=1.6, zorder=4)  # fmt: skip
            words.append(
                f"{framework}: {found.reached(framework)} of {len(curves)} runs reached it, half of them all by "
                f"{when:.1f} s"
            )
        axes.set(xlabel="Seconds of training", ylabel=f"Validation {score}")
        axes.set_xlim(left=0)
        axes.legend()
        drawn = pd.concat(
            [
                curve.assign(framework=framework, seed=seed, fold=fold, epoch=curve.index + 1)
                for (framework, seed, fold), curve in found.curves.items()
            ]
        )[["framework", "seed", "fold", "epoch", "seconds", "val_score"]]
        return finish(
            figure, directory, f"{comparison.slug}-quality", "Time to a stated quality",
            f"Thin: single runs; thick: their mean by epoch. Dotted: a validation {score} of {plain(found.level)}, the "
            "smaller of the frameworks' median best; the marks: when half of the runs had reached it. Seconds of "
            "training hold compiling, not evaluation.",
            f"Validation {score} over seconds of training; level {plain(found.level)}. {'; '.join(words)}.",
            drawn,
        )  # fmt: skip
