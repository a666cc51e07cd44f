"""Tables of mask scores as the page shows them: formatted text, arrows and marks; no arithmetic beyond rounding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.report.mask_levels import MaskLevel
from common.report.score_views import metric_row
from common.report.scores import Scores


def level_view(
    prefix: str,
    level: MaskLevel,
    scores: Scores,
    titles: Mapping[str, str],
    directions: Mapping[str, str],
    title: str,
    about: str,
) -> dict[str, Any]:
    """The table of one level, as `views.score_view` gives it: a row a metric that has a value, in the titles' order.
    `prefix` is LANE/TASK/MODEL, with which the keys of its numbers in `summary.json` begin.
    """
    return {
        "name": level.name,
        "title": title,
        "about": about,
        "frameworks": [{"name": arm.framework, "seeds": len(arm.seeds)} for arm in level.arms],
        "pairs": [f"{arm.framework} − {reference.framework}" for arm, reference in level.pairs],
        "rows": [
            metric_row(prefix, level.name, metric, scores, titles[metric], directions[metric])
            for metric in titles
            if metric in level.metrics
        ],
    }
