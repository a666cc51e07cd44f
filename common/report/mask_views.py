"""Tables of mask scores as the page shows them: formatted text, arrows and marks; no arithmetic beyond rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from common.report.mask_levels import MaskLevel
from common.report.scores import Scores
from common.report.views import ARROW, ARROW_WORDS, best_framework, interval
from common.report.wording import plain, signed

COARSE = ("_px", "_mm")  # ends of metrics with a unit, shown with one decimal


def level_view(
    level: MaskLevel,
    scores: Scores,
    titles: Mapping[str, str],
    directions: Mapping[str, str],
    title: str,
    about: str,
) -> dict[str, Any]:
    """The table of one level, as `views.score_view` gives it: a row a metric that has a value, in the titles' order."""
    return {
        "name": level.name,
        "title": title,
        "about": about,
        "frameworks": [{"name": arm.framework, "seeds": len(arm.seeds)} for arm in level.arms],
        "pairs": [f"{arm.framework} − {reference.framework}" for arm, reference in level.pairs],
        "rows": [
            metric_view(level, scores, metric, titles[metric], directions[metric])
            for metric in titles
            if metric in level.metrics
        ],
    }


def metric_view(level: MaskLevel, scores: Scores, metric: str, title: str, direction: str) -> dict[str, Any]:
    """One row: the mean of each framework and the paired differences."""
    digits = 1 if metric.endswith(COARSE) else 3
    show, show_signed = partial(plain, digits=digits), partial(signed, digits=digits)
    ours = scores.of(level.name, metric)
    best = best_framework(ours, direction)
    return {
        "title": title,
        "arrow": ARROW[direction],
        "words": ARROW_WORDS[direction],
        "cells": [
            {
                "mean": show(one.mean),
                "sd": show(one.sd) if math.isfinite(one.sd) else "",
                "interval": interval(one.ci_low, one.ci_high, show),
                "best": one.framework == best,
            }
            for one in ours
        ],
        "differences": [
            {
                "name": f"{one.framework} − {one.reference}",
                "value": show_signed(one.difference),
                "interval": interval(one.ci_low, one.ci_high, show_signed),
                "visible": one.visible,
            }
            for one in scores.differences_of(level.name, metric)
        ],
    }
