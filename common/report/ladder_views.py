"""The ladder as the page shows it: tables, and the waterfall from the native gap to that of lockstep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from common import config
from common.report.context import model_title
from common.report.ladder import (
    COMMAND,
    INTERVAL,
    Climb,
    Ladder,
    ModelLadder,
    Rung,
    finding,
    read_ladder,
    signed_to,
)
from common.report.plotting import INK, MARKERS, PAPER, Picture, colour, finish, new_figure, style
from common.report.terms import MODEL_TITLE, TASK_TITLE
from common.report.wording import lower_first, percent, plural

BETTER = {"up": "higher is better", "down": "lower is better"}
ARROW = {"up": "↑", "down": "↓"}


@dataclass(frozen=True)
class LadderSection:
    """What the templates show of the ladder."""

    about: tuple[str, ...]
    models: tuple[dict[str, Any], ...]
    versions: tuple[str, ...]
    tables: dict[str, pd.DataFrame]  # name of the file -> tables/NAME.csv
    rungs: pd.DataFrame  # ladder.csv, for summary.json
    command: str = COMMAND


def ladder_section(directory: Path) -> tuple[LadderSection | None, str]:
    """The ladder beside a study; writes the figures. None, with a sentence where files were there and could not be
    used.
    """
    ladder, fault = read_ladder(directory)
    if ladder is None:
        return None, fault
    tables = {
        f"ladder-{one.task}-{one.model}-{climb.measure}": climb_table(climb, one)
        for one in ladder.models
        for climb in one.climbs
    }
    models = tuple(model_view(one, ladder, directory / "figures") for one in ladder.models)
    return LadderSection(tuple(about(ladder)), models, ladder.versions, tables, ladder.table), ""


def about(ladder: Ladder) -> list[str]:
    confidence = percent(config.CONFIDENCE)
    intervals = (
        f"Intervals are {confidence}, over {plural(ladder.seeds, 'seed')} and nothing else, each by itself: of twenty "
        "shares without an effect, one leaves out zero by chance."
        if ladder.seeds > 2
        else f"{plural(ladder.seeds, 'seed')} give no interval."
    )
    return [
        f"{ladder.other} − {ladder.reference}, short trainings of {plural(ladder.steps, 'step')} with each of "
        f"{plural(ladder.seeds, 'seed')} on {ladder.data or 'data that are not recorded'} (profile {ladder.profile}), "
        "judged on its validation part.",
        "The walk begins in the native lane, where each framework is left with its defaults, aligns one more on every "
        "rung and ends in lockstep, where all are. What a rung removes depends on those before it, so each default is "
        "also left alone, with all others aligned.",
        f"{intervals} Gaps of different seeds may cancel; the distance, the mean of their sizes, cannot.",
    ]


def model_view(one: ModelLadder, ladder: Ladder, figures: Path) -> dict[str, Any]:
    try:
        title = model_title(one.model, config.spec_of(one.task, one.model, ladder.profile))
    except KeyError:
        title = MODEL_TITLE[one.model]
    return {
        "slug": f"ladder-{one.task}-{one.model}",
        "title": f"{TASK_TITLE[one.task]}: {title}",
        "climbs": [
            {
                "measure": climb.measure,
                "title": f"{climb.title} {ARROW[climb.direction]}",
                "better": BETTER[climb.direction],
                "sentences": finding(climb, one, ladder),
                "rows": climb_rows(climb, one),
                "alone": bool(climb.alone),
                "pictures": [
                    picture
                    for picture in (
                        waterfall(climb, one, ladder, figures),
                        alone_figure(climb, one, ladder, figures),
                    )
                    if picture is not None
                ],
            }
            for climb in one.climbs
        ],
    }


# --- tables -------------------------------------------------------------------------------------------------------


def climb_rows(climb: Climb, one: ModelLadder) -> list[dict[str, Any]]:
    """The rungs from native down; beside each the same default alone. Each cell names its entry of `summary.json`."""
    digits = climb.digits
    described = {default.name: default for default in one.defaults}
    prefix = f"ladder/{one.task}/{one.model}/{climb.measure}"
    rows = []
    for rung in climb.walk:
        default = described.get(rung.default)
        alone = climb.alone_of(rung.default) if rung.default else None
        key = f"{prefix}/walk/{rung.default or 'native'}"
        rows.append({
            "title": default.title if default else "Native lane",
            "about": default.about.replace("`", "") if default else "nothing aligned",
            "key": key,
            "gap": number_cell(key, "gap", (rung.gap, rung.gap_low, rung.gap_high), digits),
            "distance": f"{rung.distance:.{digits}f}" if math.isfinite(rung.distance) else "–",
            "share": share_cell(key, climb, rung) if default else None,
            "alone": share_cell(f"{prefix}/alone/{rung.default}", climb, alone) if alone else None,
        })  # fmt: skip
    return rows


def number_cell(key: str, name: str, of: tuple[float, float, float], digits: int) -> dict[str, Any]:
    """A value with the ends of its interval, empty where it has none."""
    value, low, high = (signed_to(number, digits) if math.isfinite(number) else "" for number in of)
    ends = (low, high) if low and high else ("", "")
    interval = f"{low} to {high}" if all(ends) else ""
    return {
        "key": key,
        "name": name,
        "value": value or "–",
        "low": ends[0],
        "high": ends[1],
        "interval": interval,
        "visible": False,
    }


def share_cell(key: str, climb: Climb, rung: Rung) -> dict[str, Any]:
    shown = number_cell(key, "share", (rung.share, rung.share_low, rung.share_high), climb.digits)
    return {**shown, "visible": climb.visible(rung)}


def climb_table(climb: Climb, one: ModelLadder) -> pd.DataFrame:
    """The walk with its numbers, and beside each default what it does alone."""
    rows = []
    for rung in climb.walk:
        alone = climb.alone_of(rung.default) if rung.default else None
        rows.append({
            "rung": rung.rung,
            "default": rung.default or "native",
            **{name: getattr(rung, name) for name in INTERVAL},
            **{f"alone_{name}": getattr(alone, name) if alone else math.nan for name in INTERVAL[3:]},
        })  # fmt: skip
    return pd.DataFrame(rows)


# --- figures ------------------------------------------------------------------------------------------------------


def waterfall(climb: Climb, one: ModelLadder, ladder: Ladder, directory: Path) -> Picture | None:
    """From the native gap to that of lockstep, a bar for what each default took away."""
    digits, rows = climb.digits, list(climb.walk)
    if not any(math.isfinite(rung.gap) for rung in rows):
        return None
    paint, mark = colour(ladder.other), MARKERS.get(ladder.other, "s")
    with style():
        figure, axes = rows_axes([label_of(rung, one) for rung in rows] + ["Lockstep"])
        for place, rung in enumerate(rows):
            if rung.default and math.isfinite(rung.share):
                draw_share(axes, place, rung, climb.visible(rung))
            if math.isfinite(rung.gap) and place + 1 < len(rows):
                axes.plot([rung.gap] * 2, [place, place + 1], color=INK, alpha=0.35, linewidth=0.8)
        for place, end in ((0, climb.native), (len(rows), climb.lockstep(len(one.defaults)))):
            if end is not None and math.isfinite(end.gap):
                if math.isfinite(end.gap_low) and math.isfinite(end.gap_high):
                    axes.plot([end.gap_low, end.gap_high], [place] * 2, color=paint, linewidth=2)
                axes.plot(end.gap, place, linestyle="", marker=mark, color=paint, markersize=6.5,
                          markeredgecolor=PAPER, markeredgewidth=0.8)  # fmt: skip
                if place:
                    axes.plot([end.gap] * 2, [place - 1, place], color=INK, alpha=0.35, linewidth=0.8)
        gap_axis(axes, climb, ladder)
        words = "; ".join(
            f"{label_of(rung, one)} {signed_to(rung.share if rung.default else rung.gap, digits)}"
            for rung in rows
        )
        return finish(
            figure, directory, f"ladder-{one.task}-{one.model}-{climb.measure}-walk",
            f"{climb.title}: from native to lockstep",
            f"Marks: the gap at both ends, mean over seeds with its {percent(config.CONFIDENCE)} interval. A bar leads "
            "from the gap before a default is aligned to the gap after it; its whisker is the interval of that step. "
            "Filled: the interval leaves out zero.",
            f"Waterfall of the gap in {lower_first(climb.title)}, {ladder.other} minus {ladder.reference}; what "
            f"aligning each default took away: {words}.",
            climb_table(climb, one),
        )  # fmt: skip


def draw_share(axes: Axes, place: int, rung: Rung, visible: bool) -> None:
    """A floating bar from the gap before to the gap after, and the interval of the step around its end."""
    low, high = sorted((rung.before, rung.gap))
    axes.barh(
        place, high - low, left=low, height=0.5, facecolor=INK if visible else PAPER, edgecolor=INK,
        alpha=0.85 if visible else 1, linewidth=0.9, zorder=2,
    )  # fmt: skip
    if math.isfinite(rung.share_low) and math.isfinite(rung.share_high):
        ends = [rung.before - rung.share_high, rung.before - rung.share_low]
        axes.plot(ends, [place + 0.36] * 2, color=INK, linewidth=1.1, alpha=0.75)


def alone_figure(climb: Climb, one: ModelLadder, ladder: Ladder, directory: Path) -> Picture | None:
    """What each default does by itself, in the order of the walk."""
    rows = [rung for rung in climb.alone if rung.default and math.isfinite(rung.share)]
    if not rows:
        return None
    digits = climb.digits
    with style():
        figure, axes = rows_axes([label_of(rung, one) for rung in rows])
        for place, rung in enumerate(rows):
            if math.isfinite(rung.share_low) and math.isfinite(rung.share_high):
                axes.plot(
                    [rung.share_low, rung.share_high], [place] * 2, color=INK, linewidth=1.6, alpha=0.75
                )
            axes.plot(rung.share, place, linestyle="", marker="D", markersize=6, markeredgecolor=INK,
                      markerfacecolor=INK if climb.visible(rung) else PAPER)  # fmt: skip
        gap_axis(axes, climb, ladder)
        words = "; ".join(f"{label_of(rung, one)} {signed_to(rung.share, digits)}" for rung in rows)
        return finish(
            figure, directory, f"ladder-{one.task}-{one.model}-{climb.measure}-alone",
            f"{climb.title}: each default alone",
            "Everything aligned but this one: the gap beyond that of lockstep, mean over seeds with its "
            f"{percent(config.CONFIDENCE)} interval. Filled: the interval leaves out zero.",
            f"Gap in {lower_first(climb.title)} that each default causes by itself, {ladder.other} minus "
            f"{ladder.reference}: {words}.",
            pd.DataFrame([numbers_of(rung) for rung in rows]),
        )  # fmt: skip


def numbers_of(rung: Rung) -> dict[str, Any]:
    return {"default": rung.default, **{name: getattr(rung, name) for name in INTERVAL}}


def rows_axes(labels: Sequence[str]) -> tuple[Any, Axes]:
    figure, axes = new_figure(4.6, 0.9 + 0.27 * len(labels))
    axes.axvline(0, color=INK, linewidth=0.9, alpha=0.7)
    axes.grid(axis="y", visible=False)
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0, labelsize=9)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    return figure, axes


def gap_axis(axes: Axes, climb: Climb, ladder: Ladder) -> None:
    axes.set_xlabel(
        f"{climb.title} {ARROW[climb.direction]}, {ladder.other} − {ladder.reference}", fontsize=9
    )
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(axis="x", labelsize=9)


def label_of(rung: Rung, one: ModelLadder) -> str:
    return one.title_of(rung.default) if rung.default else "Native"
