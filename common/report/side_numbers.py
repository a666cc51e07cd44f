"""The numbers that two studies share, A, B and B - A; paired where both judged the same cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from common.report import mask_scores, scores
from common.report.evidence import Level
from common.report.mask_levels import MaskLevel
from common.report.side_studies import Side, level_of, why_unpaired
from common.report.summary import CASCADE
from common.report.terms import LEVELS, MAIN_LEVELS
from common.statistics import Draws, bootstrap_metrics, interval_of

JUDGED = ("score", "difference")  # kinds of numbers whose cases can be drawn again


@dataclass(frozen=True)
class Interval:
    """A number with its interval over test patients; NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Place:
    """What a key of summary.json is about."""

    kind: str  # "score" | "difference" | "class" | "cost" | "cascade"
    comparison: str  # lane/task/model
    who: str  # a framework, or a-vs-b
    level: str  # empty for a cost
    group: str  # a class, else empty
    metric: str

    @property
    def other_level(self) -> bool:
        """Whether it is of another level than the task's main one."""
        return self.level not in MAIN_LEVELS


@dataclass(frozen=True)
class SharedNumber:
    """One number of summary.json that both studies have."""

    key_a: str
    key_b: str  # another than A's only where the studies are in different lanes
    place: Place  # of A's key
    a: Interval
    b: Interval
    change: Interval  # b - a; its interval draws the patients together, with the seeds of both held fixed
    paired: bool | None  # whether both judged the same cases; None where there are none, as of a cost
    verdict_a: str  # empty where there is none
    verdict_b: str


def shared_numbers(a: Side, b: Side) -> list[SharedNumber]:
    """Every key that both have, in A's order."""
    found: dict[tuple[str, str], Mapping[tuple[str, str], Interval] | None] = {}
    numbers = []
    for key_a, key_b in matched(a, b).items():
        ours, theirs = a.numbers[key_a], b.numbers[key_b]
        place, there = place_of(key_a, ours), place_of(key_b, theirs)
        at = (place.comparison, place.level)
        cases = place.kind in (*JUDGED, "class")
        if cases and at not in found:
            found[at] = changes(a, b, place, there)
        first, second = number_of(ours), number_of(theirs)
        change = Interval(second.value - first.value)
        if place.kind in JUDGED and (same := found[at]) is not None:
            drawn = same.get((place.who, place.metric), Interval(math.nan))
            change = Interval(change.value, drawn.low, drawn.high)
        numbers.append(
            SharedNumber(
                key_a,
                key_b,
                place,
                first,
                second,
                change,
                found[at] is not None if cases else None,
                str(ours.get("verdict", "")),
                str(theirs.get("verdict", "")),
            )
        )
    return numbers


def matched(a: Side, b: Side) -> dict[str, str]:
    """A's key -> B's. Where each study has one lane and another one, the lane is left out of the comparison."""
    one, other = ({key.split("/")[0] for key in side.numbers} for side in (a, b))
    if len(one) == len(other) == 1 and one != other:
        lane_a, lane_b = *one, *other
        moved = {key: lane_b + key.removeprefix(lane_a) for key in a.numbers}
        return {key: there for key, there in moved.items() if there in b.numbers}
    return {key: key for key in a.numbers if key in b.numbers}


def place_of(key: str, fields: Mapping[str, Any]) -> Place:
    """What a key with these fields is about."""
    lane, task, model, who, *rest = key.split("/")
    level = rest.pop(0) if len(rest) > 1 and rest[0] in LEVELS else ""
    if task == CASCADE:
        kind = "cascade"
    elif "runs" in fields:
        kind = "cost"
    elif "support" in fields:
        kind = "class"
    else:
        kind = "difference" if "difference" in fields else "score"
    if not level and kind != "cost":
        level = MAIN_LEVELS[task in ("segmentation", CASCADE)]
    return Place(kind, f"{lane}/{task}/{model}", who, level, "/".join(rest[:-1]), rest[-1])


def number_of(fields: Mapping[str, Any]) -> Interval:
    """The main number of a key and its interval; null is NaN."""
    found = (fields.get("difference", fields.get("mean")), fields.get("ci_low"), fields.get("ci_high"))
    return Interval(*(math.nan if value is None else float(value) for value in found))


# --- B - A on the same cases --------------------------------------------------------------------------------------


def changes(a: Side, b: Side, ours: Place, theirs: Place) -> dict[tuple[str, str], Interval] | None:
    """(framework or a-vs-b, metric) -> B - A at a level, with its interval; None where the cases are not the same."""
    if why_unpaired(a, b, ours.comparison, theirs.comparison, ours.level):
        return None
    first, second = level_of(a, ours.comparison, ours.level), level_of(b, theirs.comparison, theirs.level)
    if first is None or second is None:
        return None
    one, other = draws_of(first), draws_of(second)
    found = {}
    for name in one.keys() & other.keys():
        estimate = interval_of(other[name] - one[name], method="percentile")
        found[name] = Interval(estimate.estimate, estimate.ci_low, estimate.ci_high)
    return found


def draws_of(level: Level | MaskLevel) -> dict[tuple[str, str], Draws]:
    """(framework or a-vs-b, metric) -> the mean over seeds, in each draw of the patients; equal draws for equal
    patients, so that those of two studies can be subtracted.
    """
    judge = partial(scores.judge, level) if isinstance(level, Level) else partial(mask_scores.judge, level)
    arms = {arm.framework: arm for arm in level.arms}
    drawn = {name: bootstrap_metrics(judge(arm), level.patient) for name, arm in arms.items()}
    found = {(name, metric): draws.mean() for name, of in drawn.items() for metric, draws in of.items()}
    for arm, reference in level.pairs:  # cut to the seeds that both have
        for metric in drawn[arm.framework].keys() & drawn[reference.framework].keys():
            ours, theirs = (
                drawn[one.framework][metric].of(scores.rows_of(arms[one.framework], one.seeds)).mean()
                for one in (arm, reference)
            )
            found[f"{arm.framework}-vs-{reference.framework}", metric] = ours - theirs
    return found


# --- tables -------------------------------------------------------------------------------------------------------


def only_in_one(a: Side, b: Side) -> dict[str, list[str]]:
    """The keys that only one study has: "a" and "b"."""
    pairs = matched(a, b)
    there = set(pairs.values())
    return {
        "a": [key for key in a.numbers if key not in pairs],
        "b": [key for key in b.numbers if key not in there],
    }


def difference_rows(numbers: Sequence[SharedNumber]) -> pd.DataFrame:
    """differences.csv: one row a shared number, verdict changes first."""
    ordered = sorted(numbers, key=lambda one: one.verdict_a == one.verdict_b)  # stable
    return pd.DataFrame(
        [
            {
                "key_a": one.key_a,
                "key_b": one.key_b,
                "kind": one.place.kind,
                "a": one.a.value,
                "a_low": one.a.low,
                "a_high": one.a.high,
                "b": one.b.value,
                "b_low": one.b.low,
                "b_high": one.b.high,
                "b_minus_a": one.change.value,
                "low": one.change.low,
                "high": one.change.high,
                "same_cases": "" if one.paired is None else ("yes" if one.paired else "no"),
                "verdict_a": one.verdict_a,
                "verdict_b": one.verdict_b,
            }
            for one in ordered
        ]
    )
