"""The figures of training and cost, from `history.csv` and `run.json` of the complete runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from common.report.plotting import DASHES, INK, MARKERS, PAPER, Picture, colour, finish, new_figure, style
from common.report.reading import AnyComparison
from common.report.terms import metric_title
from common.results import RunRecord

PARTS = {  # of a run's wall time; what they leave of the total is "other"
    "import": "import_seconds",
    "build": "build_seconds",
    "train": "train_seconds",
    "evaluate": "evaluate_seconds",
    "checkpoint": "checkpoint_seconds",
}


def training_figures(comparison: AnyComparison, directory: Path) -> list[Picture]:
    """Losses, validation score and learning rate by epoch. Runs without a readable history are left out."""
    tables = []
    for record in comparison.records:
        try:
            history = record.history()
        except (OSError, ValueError):
            continue
        chosen = (record.document.get("choice") or {}).get("epoch")
        run = record.run
        if "epoch" in history:
            keys = pd.DataFrame(
                {"framework": run.framework, "seed": run.seed, "fold": run.fold}, index=history.index
            )
            tables.append(pd.concat([keys, history, (history["epoch"] == chosen).rename("chosen")], axis=1))
    if not tables:
        return []
    history = pd.concat(tables, ignore_index=True)
    score = metric_title(comparison.task, comparison.primary_metric)
    panels = (
        (
            "train_loss",
            "Training loss",
            "Mean of the epoch's steps, on augmented images."
            + (
                " Each framework averages in its own way, so levels need not compare."
                if comparison.lane == "native"
                else ""
            ),
        ),
        (
            "val_loss",
            "Validation loss",
            "Open marks: the epoch whose weights each run kept.",
        ),
        (
            "val_score",
            f"Validation {score}",
            "On the validation part. Few patients make it rough.",
        ),
        ("learning_rate", "Learning rate", "At each epoch's last step. The lines should lie on each other."),
    )
    with style():
        return [
            training_figure(comparison, history, column, title, caption, directory)
            for column, title, caption in panels
            if column in history and history[column].notna().any()
        ]


def training_figure(
    comparison: AnyComparison, history: pd.DataFrame, column: str, title: str, caption: str, directory: Path
) -> Picture:
    figure, axes = new_figure(4.3, 2.9)
    words = []
    for framework in comparison.frameworks:
        runs = history[history["framework"] == framework]
        if runs.empty:
            continue
        paint = colour(framework)
        for _, run in runs.groupby(["seed", "fold"]):
            if runs[["seed", "fold"]].drop_duplicates().shape[0] > 1 and column != "learning_rate":
                axes.plot(run["epoch"], run[column], color=paint, alpha=0.35, linewidth=0.8)
            if column == "val_loss":
                chosen = run[run["chosen"]]
                axes.plot(chosen["epoch"], chosen[column], linestyle="", marker=MARKERS.get(framework, "o"),
                          markerfacecolor=PAPER, markeredgecolor=paint, markersize=6, zorder=3)  # fmt: skip
        mean = runs.groupby("epoch")[column].mean()
        width = 4.5 if column == "learning_rate" and framework == comparison.frameworks[0] else 2
        axes.plot(mean.index, mean, color=paint, linewidth=width, linestyle=DASHES.get(framework, "-"), label=framework,
                  alpha=0.5 if width > 2 else 1)  # fmt: skip
        words.append(f"{framework} from {mean.iloc[0]:.3g} to {mean.iloc[-1]:.3g}")
    axes.set(xlabel="Epoch", ylabel=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if column == "learning_rate":
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        axes.set_ylim(bottom=0)
    axes.legend()
    keys = ["framework", "seed", "fold", "epoch", column] + (["chosen"] if column == "val_loss" else [])
    return finish(
        figure, directory, f"{comparison.slug}-{column}", title,
        f"{caption} Thick: mean of the runs; thin: single runs." if column != "learning_rate" else caption,
        f"{title} by epoch: {'; '.join(words)}.",
        history[keys],
    )  # fmt: skip


def time_figure(comparison: AnyComparison, directory: Path) -> list[Picture]:
    """Where a run's seconds go: mean over the runs of each framework, as stacked bars."""
    means: dict[str, dict[str, float]] = {}
    for framework in comparison.frameworks:
        parts = [time_parts(one) for one in comparison.records if one.run.framework == framework]
        parts = [part for part in parts if part]
        if parts:
            means[framework] = {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}
    if not means:
        return []
    with style():
        figure, axes = new_figure(5.4, 1.2 + 0.5 * len(means))
        axes.grid(axis="y", visible=False)
        names = [name for name in (*PARTS, "other") if any(part.get(name, 0) > 0 for part in means.values())]
        shades = np.linspace(0.85, 0.12, len(names))
        for row, (_framework, part) in enumerate(means.items()):
            left = 0.0
            for name, shade in zip(names, shades, strict=True):
                axes.barh(
                    row, part.get(name, 0), left=left, height=0.55, color=INK, alpha=shade,
                    edgecolor=PAPER, linewidth=0.8, label=name if row == 0 else None,
                )  # fmt: skip
                left += part.get(name, 0)
            axes.text(left, row, f" {left:.0f} s", va="center", fontsize=10)
        axes.set_yticks(range(len(means)), list(means))
        longest = max(sum(part.values()) for part in means.values())
        axes.set(
            ylim=(len(means) - 0.5, -0.5), xlim=(0, 1.12 * longest), xlabel="Seconds of a run, wall clock"
        )
        axes.tick_params(axis="y", length=0)
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=3,
            borderaxespad=0.2,
            handlelength=1,
            columnspacing=1.2,
        )
        words = "; ".join(f"{name} {sum(part.values()):.1f} s" for name, part in means.items())
        table = pd.DataFrame([{"framework": name, **part} for name, part in means.items()])
        return [finish(
            figure, directory, f"{comparison.slug}-time", "Where the time of a run goes",
            "Mean over runs. Importing and building are paid once a process; only training grows with the data.",
            f"Mean wall time of a run: {words}.",
            table,
        )]  # fmt: skip


def time_parts(record: RunRecord) -> dict[str, float]:
    """Seconds of each part; empty where the record lacks its total."""
    timings = record.document.get("timings") or {}
    total = timings.get("total_seconds")
    if not isinstance(total, int | float):
        return {}
    parts = {name: float(timings.get(key) or 0.0) for name, key in PARTS.items()}
    return parts | {"other": max(0.0, float(total) - sum(parts.values()))}
