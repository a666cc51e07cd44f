"""The ladder from the native lane to lockstep as its files have it: read without trust, and what it says in words.

A gap is the other framework's number minus the reference's at equal seed, mean over the seeds. On the walk every rung
aligns one default more; alone, all are aligned but one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from common.config import FRAMEWORKS, TASKS
from common.errors import StudyError
from common.report.attachments import (
    attached,
    document_of,
    one_of,
    rows_of,
    table_of,
    version_words,
    whole_of,
    words_of,
)
from common.report.terms import metric_direction
from common.report.wording import listed, plain, plural, signed

COMMAND = "python compare.py ladder"
ARMS = ("walk", "alone")
MEASURES = ("loss", "score")
LARGEST = 3  # contributors that a sentence names
INTERVAL = ("gap", "gap_low", "gap_high", "distance", "share", "share_low", "share_high")
TEXT = ("task", "model", "measure", "arm", "default")


@dataclass(frozen=True)
class Rung:
    """One rung of the walk, or one default left alone; NaN where not defined."""

    rung: int
    default: str  # its name; empty at the native end
    gap: float
    gap_low: float
    gap_high: float
    distance: float  # mean over seeds of |other - reference|
    share: float  # walk: what aligning it removed; alone: what it causes by itself
    share_low: float
    share_high: float

    @property
    def before(self) -> float:
        """The gap before this default was aligned, on the walk."""
        return self.gap + self.share


@dataclass(frozen=True)
class Default:
    """One default of the ladder, as the file describes it."""

    name: str
    title: str
    about: str
    torch: Mapping[str, Any]
    keras: Mapping[str, Any]


@dataclass(frozen=True)
class Climb:
    """One measure of one model: the walk from native to lockstep, and each default alone."""

    task: str
    model: str
    measure: str  # "loss" | "score"
    title: str  # of the measure
    direction: str  # which way is better, "up" | "down"
    walk: tuple[Rung, ...]  # native first
    alone: tuple[Rung, ...]

    def alone_of(self, default: str) -> Rung | None:
        return next((rung for rung in self.alone if rung.default == default), None)

    @property
    def digits(self) -> int:
        """Places after the point that show three digits of the largest number; at least 3, at most 6."""
        values = [
            abs(value)
            for rung in (*self.walk, *self.alone)
            for value in (rung.gap, rung.share, rung.distance)
            if math.isfinite(value) and value
        ]
        return min(6, max(3, 2 - math.floor(math.log10(max(values))))) if values else 3

    def visible(self, rung: Rung) -> bool:
        """Whether the interval of a share leaves out zero, and the share is not zero itself as shown: rounding errors
        that all seeds share are no cause.
        """
        return (rung.share_low > 0 or rung.share_high < 0) and bool(round(rung.share, self.digits))

    @property
    def native(self) -> Rung | None:
        return next((rung for rung in self.walk if rung.rung == 0), None)

    def lockstep(self, defaults: int) -> Rung | None:
        """The end of the walk; None where it was not reached."""
        return next((rung for rung in self.walk if rung.rung == defaults), None)


@dataclass(frozen=True)
class ModelLadder:
    """Both measures of one model."""

    task: str
    model: str
    defaults: tuple[Default, ...]  # in the order of the walk
    climbs: tuple[Climb, ...]  # those that have rungs

    def title_of(self, name: str) -> str:
        return next((one.title for one in self.defaults if one.name == name), name)


@dataclass(frozen=True)
class Ladder:
    """Everything of `ladder.json` and `ladder.csv`."""

    data: str
    profile: str
    steps: int
    seeds: int
    reference: str
    other: str
    versions: tuple[str, ...]  # a line a framework
    models: tuple[ModelLadder, ...]
    table: pd.DataFrame  # ladder.csv


# --- reading ------------------------------------------------------------------------------------------------------


def read_ladder(directory: Path) -> tuple[Ladder | None, str]:
    """The ladder beside a study; None with a sentence where its files cannot be used, without one where none is."""
    return attached(directory / "ladder.json", ladder_of, COMMAND)


def ladder_of(path: Path) -> Ladder:
    """Raises one of `attachments.ODD` for files that are not what `compare.py ladder` writes."""
    document = document_of(path)
    table = table_of(path.parent / "ladder.csv", TEXT, ("rung", *INTERVAL))
    table = table[table["measure"].isin(MEASURES) & table["arm"].isin(ARMS) & table["rung"].notna()]
    pair = document["frameworks"]
    if not isinstance(pair, list) or len(pair) != 2 or not set(pair) <= set(FRAMEWORKS):
        raise StudyError(f"its frameworks {pair!r} are not two of {list(FRAMEWORKS)}")
    seeds = document.get("seeds")
    models = [model_of(row, table) for row in rows_of(document, "ladders")]
    if not any(one.climbs for one in models):
        raise StudyError("it has no rung of any model")
    return Ladder(
        words_of(document, "data"),
        words_of(document, "profile"),
        whole_of(document, "steps"),
        len(seeds) if isinstance(seeds, list) else whole_of(document, "seeds"),
        pair[0],
        pair[1],
        version_words(document.get("environment")),
        tuple(one for one in models if one.climbs),
        table,
    )


def model_of(row: Mapping[str, Any], table: pd.DataFrame) -> ModelLadder:
    task = one_of(row, "task", list(TASKS))
    model = one_of(row, "model", TASKS[task].models)
    metric, title = words_of(row, "metric"), words_of(row, "metric_title")
    defaults = tuple(
        Default(words_of(one, "name"), words_of(one, "title"), words_of(one, "about"), one["torch"], one["keras"])
        for one in rows_of(row, "defaults")
    )  # fmt: skip
    known = {one.name for one in defaults} | {""}
    own = table[(table["task"] == task) & (table["model"] == model) & table["default"].isin(known)]
    measures = {
        "loss": ("Validation loss", "down"),
        "score": (f"Validation {title or metric}", metric_direction(task, metric)),
    }
    climbs = []
    for measure, (words, direction) in measures.items():
        walk, alone = (rungs_of(own[(own["measure"] == measure) & (own["arm"] == arm)]) for arm in ARMS)
        if walk:
            climbs.append(Climb(task, model, measure, words, direction, walk, alone))
    return ModelLadder(task, model, defaults, tuple(climbs))


def rungs_of(rows: pd.DataFrame) -> tuple[Rung, ...]:
    rows = rows.sort_values("rung", kind="stable")
    return tuple(
        Rung(int(row["rung"]), str(row["default"]), *(float(row[name]) for name in INTERVAL))
        for row in rows.to_dict("records")
    )


# --- in words -----------------------------------------------------------------------------------------------------


def finding(climb: Climb, one: ModelLadder, ladder: Ladder) -> list[str]:
    """What the two ends are, and which defaults lie between them beyond what seeds explain."""
    native, lockstep = climb.native, climb.lockstep(len(one.defaults))
    digits = climb.digits
    ends = []
    for name, rung in (("native", native), ("lockstep", lockstep)):
        if rung is not None and math.isfinite(rung.gap):
            interval = bracket(rung.gap_low, rung.gap_high, digits)
            ends.append(
                f"{signed_to(rung.gap, digits)}{interval} in the {name} lane, mean distance at equal seed "
                f"{rung.distance:.{digits}f}"
            )
    sentences = [
        f"{climb.title}, {ladder.other} − {ladder.reference}: {'; '.join(ends)}."
        if ends
        else f"{climb.title}: neither end of the ladder was reached."
    ]
    for arm, words in (("walk", "On the walk"), ("alone", "Left alone in lockstep")):
        rungs = [rung for rung in getattr(climb, arm) if rung.default]
        if not rungs:
            continue
        visible = sorted((rung for rung in rungs if climb.visible(rung)), key=lambda rung: -abs(rung.share))
        if not visible:
            told = any(math.isfinite(rung.share_low) for rung in rungs)
            sentences.append(
                f"{words}, no default's share leaves out zero: with {plural(ladder.seeds, 'seed')} none can be told "
                "from chance."
                if told
                else f"{words}, no share has an interval: {plural(ladder.seeds, 'seed')} are too few."
            )
            continue
        named = [
            f"{one.title_of(rung.default)} {signed_to(rung.share, digits)}" for rung in visible[:LARGEST]
        ]
        most = "; the largest" if len(visible) > len(named) else ""
        count = f"{len(visible)} of {plural(len(rungs), 'share')} {'leaves' if len(visible) == 1 else 'leave'} out zero"
        sentences.append(f"{words}, {count}{most}: {listed(named)}.")
    return sentences


def signed_to(value: float, digits: int) -> str:
    """Signed with so many decimals; a number that rounds to zero without a sign."""
    return plain(0.0, digits) if math.isfinite(value) and round(value, digits) == 0 else signed(value, digits)


def bracket(low: float, high: float, digits: int) -> str:
    """The interval in brackets, empty where there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f" ({signed_to(low, digits)} to {signed_to(high, digits)})"
