"""The figures of training, from `history.csv` of the complete runs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.ticker import MaxNLocator

from common.report.evidence import UNREADABLE
from common.report.plotting import DASHES, MARKERS, PAPER, Picture, colour, finish, new_figure, style
from common.report.reading import AnyComparison
from common.report.terms import metric_title


def training_figures(comparison: AnyComparison, directory: Path) -> list[Picture]:
    """Losses, validation score and learning rate by epoch. Runs without a readable history are left out."""
    tables = []
    for record in comparison.records:
        try:
            history = record.history()
        except UNREADABLE:
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
