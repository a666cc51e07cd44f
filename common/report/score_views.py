"""Scores and differences as a table shows them: text with the digits that its interval deserves, and its key.

A cell names the entry of `summary.json` that its numbers come from (`key`); the page writes `KEY#field` beside each of
them, so that a reader's script, or a test, can find where a number is from.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from common.report.scores import Difference, Score, Scores
from common.report.terms import level_prefix
from common.report.wording import DIGITS, decimals, plain, signed, spread

ARROW = {"up": "↑", "down": "↓"}
ARROW_WORDS = {"up": "higher is better", "down": "lower is better"}
COARSE = ("_px", "_mm")  # ends of metrics with a unit: without an interval one decimal is enough


def metric_row(
    prefix: str, level: str, metric: str, scores: Scores, title: str, direction: str
) -> dict[str, Any]:
    """One row: the mean of each framework, then the paired differences. `prefix` is LANE/TASK/MODEL."""
    ours, gaps = scores.of(level, metric), scores.differences_of(level, metric)
    usual = 1 if metric.endswith(COARSE) else DIGITS
    digits = decimals([(one.ci_low, one.ci_high) for one in ours], usual)
    best = best_framework(ours, direction, digits)
    return {
        "metric": metric,
        "title": title,
        "arrow": ARROW[direction],
        "words": ARROW_WORDS[direction],
        "cells": [{**score_cell(prefix, one, digits), "best": one.framework == best} for one in ours],
        "differences": [difference_cell(prefix, one, usual) for one in gaps],
    }


def score_cell(prefix: str, score: Score, digits: int) -> dict[str, Any]:
    return {
        "framework": score.framework,
        "key": f"{prefix}/{score.framework}/{level_prefix(score.level)}{score.metric}",
        "mean": plain(score.mean, digits),
        "sd": spread(score.sd, digits),
        **bounds(score.ci_low, score.ci_high, digits, plain),
    }


def difference_cell(prefix: str, one: Difference, usual: int = DIGITS) -> dict[str, Any]:
    digits = decimals([(one.ci_low, one.ci_high)], usual)
    return {
        "name": f"{one.framework} − {one.reference}",
        "key": f"{prefix}/{one.name}/{level_prefix(one.level)}{one.metric}",
        "value": signed(one.difference, digits),
        "visible": one.visible,
        **bounds(one.ci_low, one.ci_high, digits, signed),
    }


def bounds(low: float, high: float, digits: int, show: Callable[[float, int], str]) -> dict[str, str]:
    """`low` and `high` as text, and `interval` in one; all empty where undefined."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return {"low": "", "high": "", "interval": ""}
    ends = show(low, digits), show(high, digits)
    return {"low": ends[0], "high": ends[1], "interval": f"{ends[0]} to {ends[1]}"}


def best_framework(scores: list[Score], direction: str, digits: int = DIGITS) -> str | None:
    """The framework with the better mean; None where alone, undefined, equal as shown, or over unequal seeds."""
    if (
        len(scores) < 2
        or len({len(one.per_seed) for one in scores}) > 1
        or not all(math.isfinite(one.mean) for one in scores)
    ):
        return None
    ranked = sorted(scores, key=lambda one: one.mean, reverse=direction == "up")
    first, second = (plain(one.mean, digits) for one in ranked[:2])
    return ranked[0].framework if first != second else None
