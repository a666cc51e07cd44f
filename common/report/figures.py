"""The figures of one comparison: curves, confusion matrices, score intervals, agreement."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from common import config
from common.metrics.classification import DIRECTION, TITLE, precision_recall_curve, roc_curve
from common.report.curves import mean_precision_recall, mean_roc
from common.report.evidence import Arm, Comparison, Level
from common.report.plotting import DASHES, INK, MARKERS, PAPER, Picture, colour, finish, new_figure, style
from common.report.scores import Scores
from common.report.wording import percent, signed


def comparison_figures(comparison: Comparison, scores: Scores, directory: Path) -> dict[str, list[Picture]]:
    """Figures by section of the report: "differences", "curves", "confusion", "agreement"."""
    pictures: dict[str, list[Picture]] = {"differences": [], "curves": [], "confusion": [], "agreement": []}
    two_classes = len(comparison.classes) == 2
    with style():
        for level in comparison.levels:
            pictures["differences"] += forest(comparison, level, scores, directory)
            if two_classes and len(np.unique(level.y_true)) == 2:
                pictures["curves"].append(precision_recall(comparison, level, scores, directory))
                pictures["curves"].append(roc(comparison, level, scores, directory))
            pictures["confusion"] += [confusion(comparison, level, arm, directory) for arm in level.arms]
        if two_classes and comparison.levels:
            pictures["agreement"] += agreement(comparison, comparison.levels[0], directory)
    return pictures


def precision_recall(comparison: Comparison, level: Level, scores: Scores, directory: Path) -> Picture:
    """Step-wise, as average precision counts it; the prevalence is what chance reaches."""
    figure, axes = new_figure(height=3.5 + 0.17 * len(level.arms))
    rows = []
    prevalence = float(level.y_true.mean())
    axes.axhline(prevalence, color=INK, alpha=0.55, linewidth=1, linestyle=":")
    below = prevalence > 0.1  # no curve ends below the line
    axes.text(
        1.0, prevalence + (-0.02 if below else 0.02), f"chance {prevalence:.2f}",
        ha="right", va="top" if below else "bottom", fontsize=9,
    )  # fmt: skip
    means = {one.framework: one.mean for one in scores.of(level.name, "average_precision_score")}
    for arm in level.arms:
        curves = []
        for seed, y_score in zip(arm.seeds, arm.y_score, strict=True):
            precision, recall, _ = precision_recall_curve(level.y_true, y_score)
            curves.append((recall[::-1], precision[::-1]))
            rows += curve_rows(arm.framework, f"seed {seed}", "recall", "precision", *curves[-1])
            if len(arm.seeds) > 1:
                axes.plot(
                    *curves[-1], drawstyle="steps-pre", color=colour(arm.framework), alpha=0.35, linewidth=0.8
                )
        recall, precision = mean_precision_recall(curves)
        rows += curve_rows(arm.framework, "mean", "recall", "precision", recall, precision)
        axes.plot(
            recall, precision, drawstyle="steps-pre", color=colour(arm.framework), linewidth=2,
            linestyle=DASHES.get(arm.framework, "-"), label=f"{arm.framework}  {means[arm.framework]:.3f}",
        )  # fmt: skip
    unit_square(axes, "Recall", "Precision", "Average precision")
    words = "; ".join(f"{name} {value:.3f}" for name, value in means.items())
    return finish(
        figure, directory, f"{comparison.slug}-{level.name}-precision_recall",
        f"Precision and recall, per {level.name}",
        f"Further up and right is better. {lines_words(level)} is the average precision of the table. "
        f"Dotted: the share of positives ({prevalence:.2f}), which chance reaches.",
        f"Precision-recall curves per {level.name}; average precision: {words}; chance {prevalence:.2f}.",
        pd.DataFrame(rows),
    )  # fmt: skip


def roc(comparison: Comparison, level: Level, scores: Scores, directory: Path) -> Picture:
    figure, axes = new_figure(height=3.5 + 0.17 * len(level.arms))
    rows = []
    axes.plot([0, 1], [0, 1], color=INK, alpha=0.55, linewidth=1, linestyle=":")
    means = {one.framework: one.mean for one in scores.of(level.name, "auroc_score")}
    for arm in level.arms:
        curves = []
        for seed, y_score in zip(arm.seeds, arm.y_score, strict=True):
            fpr, tpr, _ = roc_curve(level.y_true, y_score)
            curves.append((fpr, tpr))
            rows += curve_rows(
                arm.framework, f"seed {seed}", "false_positive_rate", "true_positive_rate", fpr, tpr
            )
            if len(arm.seeds) > 1:
                axes.plot(fpr, tpr, color=colour(arm.framework), alpha=0.35, linewidth=0.8)
        fpr, tpr = mean_roc(curves)
        rows += curve_rows(arm.framework, "mean", "false_positive_rate", "true_positive_rate", fpr, tpr)
        axes.plot(
            fpr, tpr, color=colour(arm.framework), linewidth=2, linestyle=DASHES.get(arm.framework, "-"),
            label=f"{arm.framework}  {means[arm.framework]:.3f}",
        )  # fmt: skip
    unit_square(axes, "False positive rate (1 − specificity)", "True positive rate (sensitivity)", "AUROC")
    words = "; ".join(f"{name} {value:.3f}" for name, value in means.items())
    return finish(
        figure, directory, f"{comparison.slug}-{level.name}-roc", f"ROC, per {level.name}",
        f"Further up and left is better. {lines_words(level)} is the AUROC of the table. Dotted: chance.",
        f"ROC curves per {level.name}; AUROC: {words}; chance 0.5.",
        pd.DataFrame(rows),
    )  # fmt: skip


def lines_words(level: Level) -> str:
    several = any(len(arm.seeds) > 1 for arm in level.arms)
    return (
        "Thin: single seeds; thick: their mean. The area under it"
        if several
        else "One seed. The area under a line"
    )


def curve_rows(
    framework: str, curve: str, x_name: str, y_name: str, x: np.ndarray, y: np.ndarray
) -> list[dict]:
    return [{"framework": framework, "curve": curve, x_name: a, y_name: b} for a, b in zip(x, y, strict=True)]


def unit_square(axes: Axes, x_label: str, y_label: str, legend_title: str) -> None:
    """Both axes from 0 to 1; the legend above them, where no curve can run through it."""
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel=x_label, ylabel=y_label)
    legend = axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, title=legend_title)
    legend.set_alignment("left")
    legend.get_title().set_fontsize(9.5)


def confusion(comparison: Comparison, level: Level, arm: Arm, directory: Path) -> Picture:
    """Mean counts over seeds, at each run's own threshold; shading and percentages are shares of a true class."""
    size = len(comparison.classes)
    counts = np.zeros((size, size))
    for y_pred in arm.y_pred:
        np.add.at(counts, (level.y_true, y_pred), 1 / len(arm.seeds))
    figure, axes = new_figure(2.7, 2.5)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    rows = []
    for true in range(size):
        for predicted in range(size):
            count, total = counts[true, predicted], counts[true].sum()
            share = count / total if total else 0.0
            axes.add_patch(
                Rectangle(
                    (predicted - 0.48, true - 0.48),
                    0.96,
                    0.96,
                    color=colour(arm.framework),
                    alpha=0.04 + 0.46 * share,
                    linewidth=0,
                )
            )
            number = f"{count:.1f}" if len(arm.seeds) > 1 else f"{count:.0f}"
            axes.text(predicted, true - 0.06, number, ha="center", va="center", fontsize=15)
            axes.text(
                predicted,
                true + 0.22,
                f"{percent(share)}" if total else "none",
                ha="center",
                va="center",
                fontsize=10,
            )
            rows.append({"framework": arm.framework, "true": comparison.classes[true],
                         "predicted": comparison.classes[predicted], "count": count, "row_share": share})  # fmt: skip
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), xlabel="Predicted", ylabel="True")
    axes.set_title(arm.framework, fontsize=10)  # the file is also used without the page around it
    axes.set_xticks(range(size), comparison.classes)
    axes.set_yticks(range(size), comparison.classes, rotation=90, va="center")
    axes.tick_params(length=0)
    words = "; ".join(
        f"true {r['true']}, predicted {r['predicted']}: {r['count']:.1f} ({percent(r['row_share'])})"
        for r in rows
    )
    return finish(
        figure, directory, f"{comparison.slug}-{level.name}-confusion-{arm.framework}",
        f"{arm.framework}, per {level.name}",
        f"{seeds_words(arm).capitalize()}. Each row adds up to 100\u00a0%; the diagonal is right.",
        f"Confusion matrix of {arm.framework} per {level.name}. {words}.",
        pd.DataFrame(rows),
    )  # fmt: skip


def seeds_words(arm: Arm) -> str:
    return (
        f"mean count over {len(arm.seeds)} seeds" if len(arm.seeds) > 1 else f"counts of seed {arm.seeds[0]}"
    )


def forest(comparison: Comparison, level: Level, scores: Scores, directory: Path) -> list[Picture]:
    """Paired differences of every metric with their intervals; nothing where only one framework ran."""
    defined = [one for one in scores.differences if one.level == level.name and np.isfinite(one.difference)]
    metrics = [metric for metric in TITLE if any(one.metric == metric for one in defined)]
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
        range(len(metrics)), [f"{TITLE[metric]} {arrows[DIRECTION[metric]]}" for metric in metrics]
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
        f"{one.framework} − {one.reference}, {TITLE[one.metric]} {signed(one.difference)} "
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
    higher = " or ".join(framework for framework, _ in names)
    return [finish(
        figure, directory, f"{comparison.slug}-{level.name}-differences", f"Paired differences, per {level.name}",
        f"Right of the line: higher in {higher}. Mark: mean over seeds; bar: {percent(config.CONFIDENCE)} interval "
        "over test patients; ticks: single seeds. Where a bar crosses the line, other patients "
        "could have turned the sign.",
        f"Paired differences per {level.name}: {words}.",
        table,
    )]  # fmt: skip


def agreement(comparison: Comparison, level: Level, directory: Path) -> list[Picture]:
    """Score against score of the same slice, mean over the seeds that both frameworks have."""
    pictures = []
    for arm, reference in level.pairs:
        x, y = reference.y_score.mean(axis=0), arm.y_score.mean(axis=0)
        figure, axes = new_figure()
        axes.plot([0, 1], [0, 1], color=INK, alpha=0.55, linewidth=1, linestyle=":")
        for true, (mark, size) in enumerate((("o", 13), ("x", 16))):
            rows = level.y_true == true
            axes.scatter(x[rows], y[rows], s=size, marker=mark, color=INK if true else "#888888", alpha=0.75,
                         linewidths=0.9, label=comparison.classes[true])  # fmt: skip
        positive = comparison.classes[1]
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set(xlabel=f"{reference.framework}: probability of {positive}")
        axes.set(ylabel=f"{arm.framework}: probability of {positive}")
        axes.legend(loc="upper left", title="True class").set_alignment("left")
        table = pd.DataFrame(
            {"id": level.unit, "y_true": level.y_true, reference.framework: x, arm.framework: y}
        )
        gap = float(np.abs(x - y).mean())
        between = seed_gaps(arm, reference)
        pictures.append(finish(
            figure, directory, f"{comparison.slug}-agreement-{arm.framework}",
            f"The same {level.name}, judged twice: {arm.framework} and {reference.framework}",
            f"On the dotted line both frameworks say the same. {between}",
            f"Scatter of the predicted probabilities of {reference.framework} and {arm.framework} for the same test "
            f"slices; mean absolute difference {gap:.3f}.",
            table,
        ))  # fmt: skip
    return pictures


def seed_gaps(arm: Arm, reference: Arm) -> str:
    """How far two runs differ on one slice: two frameworks at equal seed, against two seeds of one framework."""
    across = float(np.abs(arm.y_score - reference.y_score).mean())
    words = f"At equal seed, two frameworks differ by {across:.3f} on a slice (mean absolute difference)"
    if len(arm.seeds) < 2:
        return f"{words}."
    within = [
        np.abs(one.y_score[i] - one.y_score[j]).mean()
        for one in (arm, reference)
        for i in range(len(one.seeds))
        for j in range(i)
    ]
    return f"{words}; two seeds of one framework by {float(np.mean(within)):.3f}."
