"""The cascade's part of the page: what the gate costs and saves, in sentences, tables and one figure a gate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from common import config
from common.config import Study
from common.report.context import model_title
from common.report.gated import CASCADE_DIRECTION, CASCADE_TITLE, Cascade, read_cascades, table_of
from common.report.mask_evidence import TASK
from common.report.mask_levels import MaskLevel
from common.report.mask_views import level_view
from common.report.plotting import MARKERS, PAPER, Picture, colour, finish, new_figure, style
from common.report.score_views import metric_row
from common.report.scores import Score
from common.report.summary import CASCADE
from common.report.terms import MODEL_TITLE, TASK_TITLE
from common.report.wording import listed, percent, plain, plural, signed
from common.results import StudyRecord

HEADINGS = {
    "lesion": "Slices with a lesion",
    "clean": "Slices without a lesion",
    "patient": "Patients with a lesion",
}
STEPS = (  # of the figure: (title, level, without the gate, behind it)
    ("Dice, lesion slices", "lesion", "dice_score", "gated_dice_score"),
    ("Dice, patients", "patient", "dice_score", "gated_dice_score"),
    ("Clean slices\nleft clean", "clean", "clean_slice_score", "gated_clean_slice_score"),
)


@dataclass(frozen=True)
class CascadeView:
    """One gate before one segmenter."""

    slug: str
    title: str
    sentences: tuple[str, ...]
    levels: tuple[dict[str, Any], ...]  # as `views.score_view` gives them
    pictures: tuple[Picture, ...]
    overview: dict[str, Any]  # the row of the level "lesion" that counts: the Dice behind the gate
    notes: tuple[str, ...]


@dataclass(frozen=True)
class CascadeSection:
    """What the templates show; `reason` says why there is nothing, if there is nothing."""

    about: str
    views: tuple[CascadeView, ...]
    reason: str
    table: pd.DataFrame  # tables/cascade.csv


def cascade_section(record: StudyRecord, figures_directory: Path) -> CascadeSection:
    """Every gate before every segmenter of a study; writes the figures."""
    cascades = read_cascades(record)
    scored = [one for one in cascades if one.levels]
    if not scored:
        return CascadeSection("", (), nothing(record, cascades), table_of(cascades))
    about = (
        "A classifier looks first; the segmenter's mask counts only where the classifier of the same framework, seed "
        "and fold calls a stroke. Computed from the saved predictions of the test slices that both have answered."
    )
    return CascadeSection(
        about, tuple(view(one, record.study, figures_directory) for one in cascades), "", table_of(cascades)
    )


def nothing(record: StudyRecord, cascades: list[Cascade]) -> str:
    """Why no two stages can be joined."""
    found = {one.run.task for one in record.complete}
    gates = listed([TASK_TITLE[task].lower() for task in config.GATE_TASKS])
    if TASK not in found:
        return "There is no complete segmentation run to put behind a gate."
    if not found & set(config.GATE_TASKS):
        return f"There is nothing to gate the masks with: no classifier ({gates}) has a complete run."
    notes = [note for one in cascades for note in one.notes]
    return " ".join(["No classifier and segmenter share a scored test slice with a lesion.", *notes])


def view(one: Cascade, study: Study, directory: Path) -> CascadeView:
    spec = study.specs.get(f"{one.gate_task}/{one.gate_model}")
    gate = f"{model_title(one.gate_model, spec)}, {TASK_TITLE[one.gate_task].lower()}"
    levels = tuple(
        level_view(prefix_of(one), level, one.scores, CASCADE_TITLE, CASCADE_DIRECTION, HEADINGS[level.name],
                   about(level))
        for level in one.levels
    )  # fmt: skip
    return CascadeView(
        one.slug,
        f"{gate}; then {MODEL_TITLE[one.model]}",
        (*(sentence(one, arm.framework) for arm in one.levels[0].arms), *compared(one)) if one.levels else (),
        levels,
        (before_after(one, directory),) if one.levels else (),
        overview(one),
        one.notes,
    )


def prefix_of(one: Cascade) -> str:
    """With which the keys of its numbers in `summary.json` begin."""
    return f"{one.lane}/{CASCADE}/{one.gate_model}-{one.model}"


def about(level: MaskLevel) -> str:
    if level.name == "patient":
        return f"{plural(level.patients, 'test patient')}."
    return f"{plural(len(level.unit), 'test slice')} of {plural(level.patients, 'patient')}."


def overview(one: Cascade) -> dict[str, Any]:
    """Dice behind the gate on lesion slices, as `score_views.metric_row` gives it; empty where there is none."""
    if not one.levels:
        return {}
    metric, level = "gated_dice_score", one.levels[0]
    row = metric_row(
        prefix_of(one),
        level.name,
        metric,
        one.scores,
        f"{CASCADE_TITLE[metric]}, {HEADINGS[level.name].lower()}",
        CASCADE_DIRECTION[metric],
    )
    losses = [f"{s.framework} {plain(s.mean)}" for s in one.scores.of(level.name, "gate_dice_loss")]
    return {
        "metric": row["title"],
        "words": row["words"],
        "arrow": row["arrow"],
        "finding": f"The gate costs {listed(losses)} of the Dice on slices with a lesion.",
        "cells": row["cells"],
        "differences": row["differences"],
    }


def sentence(one: Cascade, framework: str) -> str:
    """What the gate costs and saves for one framework."""
    found = {(s.level, s.metric): s for s in one.scores.scores if s.framework == framework}
    loss = found["lesion", "gate_dice_loss"]
    interval = (
        f" ({percent(config.CONFIDENCE)} interval over patients {signed(loss.ci_low)} to {signed(loss.ci_high)})"
        if np.isfinite(loss.ci_low)
        else ""
    )
    words = (
        f"{framework}: the gate lets {share(found['lesion', 'gate_sensitivity_score'])} of the lesion slices through. "
        f"Dice on them falls from {plain(found['lesion', 'dice_score'].mean)} to "
        f"{plain(found['lesion', 'gated_dice_score'].mean)}: {plain(loss.mean)} lost{interval}."
    )
    if ("clean", "clean_slice_score") not in found:
        return words
    before, after = (found["clean", name] for name in ("clean_slice_score", "gated_clean_slice_score"))
    return (
        f"{words} Slices without a lesion that carry a false mask go from {share(before, rest=True)} to "
        f"{share(after, rest=True)}."
    )


def compared(one: Cascade) -> list[str]:
    """How the frameworks' two stages compare as a whole."""
    return [
        f"Dice behind the gate, {d.framework} − {d.reference}: {signed(d.difference)}"
        + (
            f", {percent(config.CONFIDENCE)} interval over patients {signed(d.ci_low)} to {signed(d.ci_high)}."
            if np.isfinite(d.ci_low)
            else ", without an interval."
        )
        for d in one.scores.differences_of("lesion", "gated_dice_score")
    ]


def share(score: Score, rest: bool = False) -> str:
    return percent(1 - score.mean if rest else score.mean)


def before_after(one: Cascade, directory: Path) -> Picture:
    """Each framework's score without the gate (open) and behind it (filled)."""
    steps = [step for step in STEPS if any(level.name == step[1] for level in one.levels)]
    frameworks = [arm.framework for arm in one.levels[0].arms]
    step = 0.56 / len(frameworks)
    rows, words = [], []
    with style():
        figure, axes = new_figure(4.3, 1.0 + 0.32 * len(steps) * max(1.5, len(frameworks)))
        axes.grid(axis="y", visible=False)
        for place, (title, level, without, behind) in enumerate(steps):
            for index, framework in enumerate(frameworks):
                before, after = (
                    next(s.mean for s in one.scores.of(level, metric) if s.framework == framework)
                    for metric in (without, behind)
                )
                at, paint = place + (index - (len(frameworks) - 1) / 2) * step, colour(framework)
                mark = MARKERS.get(framework, "o")
                axes.plot([before, after], [at, at], color=paint, linewidth=1.6)
                axes.plot(before, at, marker=mark, linestyle="", markersize=6, markerfacecolor=PAPER,
                          markeredgecolor=paint)  # fmt: skip
                axes.plot(after, at, marker=mark, linestyle="", markersize=6, color=paint,
                          label=framework if place == 0 else None)  # fmt: skip
                name = title.replace("\n", " ")
                rows.append(
                    {"framework": framework, "quantity": name, "without_gate": before, "behind_gate": after}
                )
                words.append(f"{framework}, {name}: {plain(before)} to {plain(after)}")
        axes.set_yticks(range(len(steps)), [title for title, *_ in steps])
        axes.tick_params(axis="y", length=0, labelsize=9)
        axes.set(ylim=(len(steps) - 0.5, -0.5), xlim=(-0.02, 1.02), xlabel="Mean over seeds")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
        return finish(
            figure, directory, one.slug, "Without the gate and behind it",
            "Open: every slice's mask counts; filled: only where the gate calls a stroke. A gate can only take Dice "
            "from lesion slices, and wrong masks from clean ones.",
            f"Scores without and behind the gate. {'; '.join(words)}.",
            pd.DataFrame(rows),
        )  # fmt: skip
