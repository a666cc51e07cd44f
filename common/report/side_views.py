"""Two studies side by side, as the templates show them: formatted text, no arithmetic beyond rounding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from common.report.costs import TIMINGS
from common.report.score_views import ARROW, ARROW_WORDS
from common.report.scores import ROUNDING
from common.report.side_figures import primary_scores
from common.report.side_numbers import Interval, SharedNumber
from common.report.side_studies import Side, why_unpaired
from common.report.summary import CASCADE
from common.report.terms import MODEL_TITLE, TASK_TITLE, level_words, metric_direction, metric_title
from common.report.wording import decimals, lower_first, plain, plural, signed

KINDS = {  # in the order of the page -> heading
    "score": "Scores",
    "difference": "Differences between frameworks",
    "class": "Scores of each class",
    "cascade": "Two stages",
    "cost": "Time and memory of a run",
}


def side_view(side: Side) -> dict[str, Any]:
    """A study in the header: name, data, grid, what is broken in it."""
    study = side.study
    return {
        "name": side.name,
        "data": side.data,
        "facts": f"{study.profile} profile, {' and '.join(study.lanes)}; {plural(study.seeds, 'seed')} × "
        f"{plural(study.folds, 'fold')}; {len(side.evidence.record.complete)} of {len(study.runs())} runs complete",
        "alerts": side.alerts,
    }


def verdict_views(found: Sequence[SharedNumber]) -> dict[str, list[dict[str, Any]]]:
    """The shared verdicts: "changed" and "kept"."""
    rows: dict[str, list[dict[str, Any]]] = {"changed": [], "kept": []}
    for one in found:
        if one.verdict_a or one.verdict_b:
            rows["kept" if one.verdict_a == one.verdict_b else "changed"].append(
                {**number_view(one), "place": comparison_title(one.place.comparison)}
            )
    return rows


def comparison_views(found: Sequence[SharedNumber], a: Side, b: Side) -> list[dict[str, Any]]:
    """A part of the page for each (lane, task, model) that both have: whether the cases are the same, and its tables,
    the scores of the main level first.
    """
    views = []
    for key in dict.fromkeys(one.place.comparison for one in found):
        own = [one for one in found if one.place.comparison == key]
        tables: dict[tuple[str, str], list[SharedNumber]] = {}
        for one in sorted(own, key=lambda one: list(KINDS).index(one.place.kind)):
            tables.setdefault((one.place.kind, one.place.level), []).append(one)
        views.append(
            {
                "slug": key.replace("/", "-"),
                "title": comparison_title(key),
                "cases": cases_words(key, own, a, b),
                "tables": [
                    {
                        "title": table_title(key, kind, level),
                        "rows": [number_view(one) for one in rows],
                        "open": kind == "score" and not rows[0].place.other_level,
                    }
                    for (kind, level), rows in tables.items()
                ],
            }
        )
    return views


def comparison_title(key: str) -> str:
    lane, task, model = key.split("/")
    if task == CASCADE:
        gate, _, segmenter = model.partition("-")
        models = f"{MODEL_TITLE.get(gate, gate)} before {MODEL_TITLE.get(segmenter, segmenter)}"
        return f"Two stages: {models}, {lane} lane"
    return f"{TASK_TITLE[task]}: {MODEL_TITLE.get(model, model)}, {lane} lane"


def table_title(key: str, kind: str, level: str) -> str:
    task = key.split("/")[1]
    if kind == "cost":
        return KINDS[kind]
    where = level_words("segmentation" if task == CASCADE else task, level)[0]
    return f"{KINDS[kind]}, {lower_first(where)}"


def cases_words(key: str, own: Sequence[SharedNumber], a: Side, b: Side) -> str:
    """Whether both studies judged the same cases, and what B - A then is."""
    main = [one for one in own if one.paired is not None and not one.place.other_level]
    if not main:
        return ""
    first = main[0]
    if first.paired:
        return (
            "The same test patients, pictures and truth in both: B − A is of the same cases, and its interval, "
            "where there are patients enough, is over these patients, drawn together for both studies, "
            "their seeds held fixed."
        )
    why = why_unpaired(a, b, key, "/".join(first.key_b.split("/")[:3]), first.place.level)
    return (
        f"Not the same test cases ({why}): B − A is told only side by side, and mixes studies with patients."
    )


def number_view(one: SharedNumber) -> dict[str, Any]:
    """A row: what it is, A, B and B - A, each with the interval that it has."""
    task = one.place.comparison.split("/")[1]
    show, change = shown(one)
    if one.place.kind == "cost":
        title, unit = TIMINGS.get(one.place.metric, (one.place.metric, ""))
        words = {"title": f"{title}, {unit}", "arrow": "", "words": ""}
    else:
        named = "segmentation" if task == CASCADE else task
        words = {"title": metric_title(named, one.place.metric), "arrow": "", "words": ""}
        if one.place.group:
            words["title"] = f"{one.place.group}: {words['title']}"
        elif task != CASCADE:
            direction = metric_direction(task, one.place.metric)
            words |= {"arrow": ARROW[direction], "words": ARROW_WORDS[direction]}
    return words | {
        "who": one.place.who,
        "pair": one.place.kind == "difference",
        "a": show(one.a.value),
        "b": show(one.b.value),
        "change": change(one.change.value),
        "a_interval": between(one.a, show),
        "b_interval": between(one.b, show),
        "interval": between(one.change, change),
        "visible": one.change.low > ROUNDING or one.change.high < -ROUNDING,
        "verdict_a": one.verdict_a,
        "verdict_b": one.verdict_b,
        "key": one.key_a,
    }


def shown(one: SharedNumber) -> tuple[Callable[[float], str], Callable[[float], str]]:
    """How a row's numbers and their change are written: as many digits as their intervals deserve, of costs three."""
    if one.place.kind == "cost":
        largest = max(abs(one.a.value), abs(one.b.value))
        digits = min(4, max(0, 2 - math.floor(math.log10(largest)))) if largest > 0 else 0
    else:
        digits = decimals([(one.a.low, one.a.high), (one.b.low, one.b.high)])
    change = decimals(
        [(one.change.low, one.change.high)], usual=digits
    )  # paired, it is known better than either
    show = signed if one.place.kind == "difference" else plain
    return (lambda value: show(value, digits)), (lambda value: signed(value, change))


def between(number: Interval, show: Callable[[float], str]) -> str:
    bounds = number.low, number.high
    return " to ".join(map(show, bounds)) if all(map(math.isfinite, bounds)) else ""


def primary_views(found: Sequence[SharedNumber]) -> list[dict[str, Any]]:
    """The primary scores, one row a framework: what most readers came for."""
    return [
        number_view(one) | {"place": comparison_title(one.place.comparison)} for one in primary_scores(found)
    ]
