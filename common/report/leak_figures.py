"""The figure of the leak meter: the arms side by side, seeds joined, and what lies between them."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from common.data.leaky_splits import ARMS
from common.report.leak import Found, Measure, bracket
from common.report.plotting import INK, MARKERS, OTHER, PAPER, Picture, colour, finish, new_figure, style
from common.report.terms import TASK_TITLE
from common.report.wording import plain, signed

TICKS = {
    "patient": "by patient",
    "slice": "by slice\n(leaky)",
    "shuffled": "by slice,\nlabels shuffled\n(leaky)",
    "shuffled-patient": "by patient,\nlabels shuffled",
}
PAIRS = (
    ("patient", "slice"),
    ("shuffled", "shuffled-patient"),
)  # equal labels: the seeds of these are joined
HALF = 0.42  # width of an arm's column, of 1
ASIDE = 0.3  # where its effect stands, right of its middle


def leak_figure(one: Measure, directory: Path) -> Picture:
    """A column an arm, leaky ones hatched; points are seeds, bars means, brackets effects with their intervals."""
    places = {arm.arm.name: place for place, arm in enumerate(one.arms)}
    with style():
        figure, axes = new_figure(1.4 + 1.15 * len(places), 3.9)
        axes.grid(axis="x", visible=False)
        if math.isfinite(one.chance):
            axes.axhline(one.chance, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.7)
            axes.annotate("chance", (-0.58, one.chance), xytext=(0, 3), textcoords="offset points",
                          fontsize=8.5, alpha=0.8)  # fmt: skip
        draw_arms(axes, one, places)
        for found in one.effects:
            draw_effect(axes, found, one, places)
        axes.set_xticks(list(places.values()), [TICKS[name] for name in places])
        axes.tick_params(axis="x", length=0, labelsize=9)
        axes.set_xlim(-0.6, len(places) - 1 + 0.62)
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.12 * (high - low))  # room for the words above
        axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= min(high, 1.0)])
        axes.set_ylabel(f"{one.title} ↑")
        return finish(
            figure, directory, f"leak-{one.task}-{one.model}-{one.framework}",
            f"{TASK_TITLE[one.task]}, {one.framework}: what the split alone is worth",
            "No result of a model. A point is a seed with a split of its own, the short line the mean; grey lines join "
            "a seed's two splits. Hatched: slices of one patient stand on both sides. A bracket is the effect with its "
            "interval over splits and seeds, from the patient split's mean, or from chance where labels are shuffled.",
            describe(one),
            numbers_drawn(one),
        )  # fmt: skip


def draw_arms(axes: Axes, one: Measure, places: dict[str, int]) -> None:
    for left, right in PAIRS:
        first, second = one.scores_of(left), one.scores_of(right)
        if first is not None and second is not None:
            ours, theirs = (dict(zip(arm.seeds, arm.scores, strict=True)) for arm in (first, second))
            for seed in sorted(ours.keys() & theirs.keys()):
                axes.plot(
                    [places[left], places[right]], [ours[seed], theirs[seed]], color=OTHER, linewidth=0.7,
                    alpha=0.6, zorder=1.5,
                )  # fmt: skip
    for arm in one.arms:
        place, honest = places[arm.arm.name], arm.arm.name == "patient"
        if arm.arm.leaky:
            axes.axvspan(
                place - HALF, place + HALF, facecolor="none", edgecolor=OTHER, hatch="////", linewidth=0,
                alpha=0.25, zorder=0,
            )  # fmt: skip
        paint = colour(one.framework) if honest else OTHER
        axes.plot(
            [place] * len(arm.scores), arm.scores, linestyle="", marker=MARKERS.get(one.framework, "o"),
            markersize=6, markerfacecolor=paint if honest else PAPER, markeredgecolor=PAPER if honest else paint,
            markeredgewidth=0.8 if honest else 1.2, zorder=3,
        )  # fmt: skip
        axes.plot(
            [place - 0.2, place + 0.2],
            [arm.mean] * 2,
            color=INK if honest else OTHER,
            linewidth=2.4,
            zorder=2.5,
        )


def draw_effect(axes: Axes, found: Found, one: Measure, places: dict[str, int]) -> None:
    """A bracket from what the arm is measured against to the arm's mean, its interval, and the number above."""
    base = one.chance if found.effect.minus == "chance" else mean_of(one, found.effect.minus)
    if not (math.isfinite(base) and math.isfinite(found.difference)):
        return
    place = places[found.effect.arm] + ASIDE
    top = base + found.difference
    ends = [base + end for end in (found.ci_low, found.ci_high) if math.isfinite(end)]
    if found.effect.minus != "chance":
        axes.plot([places[found.effect.minus] + 0.2, place], [base] * 2, color=INK, linewidth=0.7, alpha=0.5)
    axes.plot([place] * len(ends), ends, color=INK, linewidth=1.3)
    for end in ends:
        axes.plot([place - 0.05, place + 0.05], [end] * 2, color=INK, linewidth=1.3)
    axes.plot(place, top, linestyle="", marker="D", markersize=4.5, color=INK)
    words = f"{signed(found.difference, one.digits)}{bracket(found, one.digits).replace(' (', chr(10) + '(')}"
    scores = [
        score
        for arm in one.arms
        if arm.arm.name == found.effect.arm
        for score in arm.scores
        if math.isfinite(score)
    ]
    highest = max([*ends, *scores])
    axes.annotate(words, (places[found.effect.arm], highest), xytext=(0, 8), textcoords="offset points",
                  ha="center", va="bottom", fontsize=8.5)  # fmt: skip


def mean_of(one: Measure, name: str) -> float:
    arm = one.scores_of(name)
    return math.nan if arm is None else arm.mean


def describe(one: Measure) -> str:
    """For a listener."""
    arms = "; ".join(
        f"{arm.arm.title.lower()}{' (leaky)' if arm.arm.leaky else ''} {plain(arm.mean, one.digits)}"
        for arm in one.arms
    )
    effects = "; ".join(
        f"{found.effect.title.lower()} {signed(found.difference, one.digits)}{bracket(found, one.digits)}"
        for found in one.effects
    )
    return f"{one.title}, mean over seeds: {arms}. Effects: {effects}."


def numbers_drawn(one: Measure) -> pd.DataFrame:
    """Points, means and effects, a row each."""
    rows: list[dict[str, object]] = []
    for arm in one.arms:
        fields = {"arm": arm.arm.name, "leaky": arm.arm.leaky, "labels_shuffled": arm.arm.shuffled}
        rows += [
            {"what": "seed", **fields, "seed": seed, "value": score}
            for seed, score in zip(arm.seeds, arm.scores, strict=True)
        ]
        rows.append({"what": "mean", **fields, "value": arm.mean})
    for found in one.effects:
        arm_of = ARMS[found.effect.arm]
        rows.append({
            "what": found.effect.name, "arm": arm_of.name, "leaky": arm_of.leaky, "labels_shuffled": arm_of.shuffled,
            "value": found.difference, "ci_low": found.ci_low, "ci_high": found.ci_high,
        })  # fmt: skip
    columns = ["what", "arm", "leaky", "labels_shuffled", "seed", "value", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=columns).astype({"seed": "Int64"})
