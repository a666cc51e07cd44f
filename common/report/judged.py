"""A comparison with everything that is computed from it, and what it is called."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from common import config
from common.report import context, tables
from common.report.checks import Check, comparison_checks
from common.report.class_scores import ClassScore, class_scores
from common.report.evidence import Comparison
from common.report.mask_scores import score_masks
from common.report.reading import AnyComparison, Evidence
from common.report.scores import Scores, score_comparison
from common.report.terms import TASK_TITLE


@dataclass(frozen=True)
class Judged:
    """A comparison with everything that is computed from it."""

    comparison: AnyComparison
    scores: Scores
    classes: tuple[ClassScore, ...]  # empty for two classes and for masks
    checks: tuple[Check, ...]
    settings: pd.DataFrame
    spec: config.ModelSpec | None  # the model's numbers as the study has them, before a lane changes any


def judge(comparison: AnyComparison, study: config.Study) -> Judged:
    if isinstance(comparison, Comparison):
        scores, classes = score_comparison(comparison), class_scores(comparison)
    else:
        scores, classes = score_masks(comparison), ()
    checks = tuple(comparison_checks(comparison)) if comparison.records else ()
    spec = study.specs.get(f"{comparison.task}/{comparison.model}")
    return Judged(comparison, scores, classes, checks, tables.setting_table(comparison), spec)


def title_of(one: Judged, evidence: Evidence) -> str:
    """Task and model; the lane where there are several, or it is not the study's usual one."""
    comparison = one.comparison
    several = len({other.lane for other in evidence.comparisons}) > 1
    lane = f", {comparison.lane} lane" if several or comparison.lane != "aligned" else ""
    return f"{TASK_TITLE[comparison.task]}: {context.model_title(comparison.model, one.spec)}{lane}"
