"""Tests that a reader may know better than the verdict's. Descriptive: none of them decides anything.

McNemar's judges one pair of models, so it is done for each seed. DeLong's is of the seeds' mean AUROC; masks are
averaged over the seeds first, and over a patient's slices.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common import config
from common.metrics.segmentation import weighted_mean
from common.report.evidence import Arm, Comparison, Level
from common.report.mask_evidence import MaskComparison
from common.report.mask_levels import MaskLevel
from common.report.reading import AnyComparison
from common.report.terms import FRAMEWORK_TITLE, MODEL_TITLE, metric_title
from common.report.wording import decimals, percent, plain, signed
from common.statistics import Estimate, cluster_bootstrap, delong, mcnemar, wilcoxon_test

OF_MASKS = ("dice_score", "hd95_px")


@dataclass(frozen=True)
class OtherTest:
    """One test of a framework against the reference: an estimate a seed, or one of the seeds' mean."""

    lane: str
    task: str
    model: str
    framework: str
    reference: str
    test: str
    of: str  # what the estimate is of
    per_seed: bool
    estimates: tuple[Estimate, ...]


def other_tests(comparisons: Iterable[AnyComparison]) -> list[OtherTest]:
    """All that apply, comparison by comparison."""
    found: list[OtherTest] = []
    for one in comparisons:
        if isinstance(one, MaskComparison):
            found += mask_tests(one)
        elif len(one.classes) == 2:
            found += binary_tests(one)
    return found


def binary_tests(one: Comparison) -> list[OtherTest]:
    """DeLong of the slices' AUROC, with the variance of patients as clusters (Obuchowski 1997); McNemar on patients."""
    levels = {level.name: level for level in one.levels}
    tests = (
        ("DeLong, clustered", "difference in AUROC, mean of the seeds", "slice", compare_rankings, False),
        (
            "McNemar, exact",
            "difference in the share of patients judged rightly",
            "patient",
            compare_decisions,
            True,
        ),
    )
    return [
        OtherTest(one.lane, one.task, one.model, arm.framework, reference.framework, test, of, per_seed,
                  tuple(compare(levels[name], arm, reference)))
        for test, of, name, compare, per_seed in tests
        if name in levels
        for arm, reference in levels[name].pairs
    ]  # fmt: skip


def compare_rankings(level: Level, arm: Arm, reference: Arm) -> list[Estimate]:
    return [delong(level.y_true, arm.y_score.T, reference.y_score.T, level.patient)]


def compare_decisions(level: Level, arm: Arm, reference: Arm) -> list[Estimate]:
    return [
        mcnemar(ours == level.y_true, theirs == level.y_true)
        for ours, theirs in zip(arm.y_pred, reference.y_pred, strict=True)
    ]


def mask_tests(one: MaskComparison) -> list[OtherTest]:
    """Wilcoxon's signed rank test, and the mean difference over patients with its bootstrap interval."""
    if not one.levels:
        return []
    level, found = one.levels[0], []
    for arm, reference in level.pairs:
        for metric in OF_MASKS:
            if metric not in level.metrics:
                continue
            gaps = by_patient(level, arm.values[metric] - reference.values[metric])
            title = metric_title(one.task, metric)
            mean = cluster_bootstrap(weighted_mean, np.zeros(len(gaps)), gaps, np.arange(len(gaps)))
            for test, of, estimate in (
                ("Wilcoxon", f"typical difference in {title}, patients", wilcoxon_test(gaps)),
                ("Bootstrap", f"mean difference in {title}, patients", mean),
            ):
                found.append(
                    OtherTest(one.lane, one.task, one.model, arm.framework, reference.framework, test, of,
                              False, (estimate,))
                )  # fmt: skip
    return found


def by_patient(level: MaskLevel, gaps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Differences of slices, (R, N), averaged over the seeds and over each patient's slices: (patients,)."""
    table = pd.DataFrame({"patient": level.patient, "gap": gaps.mean(axis=0)}).dropna()
    return table.groupby("patient")["gap"].mean().to_numpy(dtype=np.float64)


# --- as tables ----------------------------------------------------------------------------------------------------


def other_table(tests: Sequence[OtherTest]) -> pd.DataFrame:
    """tables/other_tests: one row a test and seed; the seed counts from 0 among those that both have."""
    return pd.DataFrame([
        {"lane": one.lane, "task": one.task, "model": one.model,
         "comparison": f"{one.framework}-vs-{one.reference}", "test": one.test, "of": one.of,
         "pair": number if one.per_seed else "mean of seeds", "estimate": estimate.estimate,
         "ci_low": estimate.ci_low, "ci_high": estimate.ci_high, "p_value": estimate.p_value}
        for one in tests
        for number, estimate in enumerate(one.estimates)
    ])  # fmt: skip


def other_view(tests: Sequence[OtherTest]) -> list[dict[str, Any]]:
    """A row a test: the mean estimate, and the p-values of the seeds from least to largest."""
    rows = []
    for one in tests:
        p_values = sorted(e.p_value for e in one.estimates if math.isfinite(e.p_value))
        mean = float(np.mean([e.estimate for e in one.estimates]))
        spans = [(e.ci_low, e.ci_high) for e in one.estimates]
        digits = decimals(spans)
        only = one.estimates[0] if len(one.estimates) == 1 else None
        rows.append({
            "where": f"{MODEL_TITLE.get(one.model, one.model)}, {one.lane}",
            "pair": f"{FRAMEWORK_TITLE[one.framework]} − {FRAMEWORK_TITLE[one.reference]}",
            "test": one.test,
            "of": one.of,
            "estimate": signed(mean, digits),
            "interval": f"{signed(only.ci_low, digits)} to {signed(only.ci_high, digits)}"
            if only and math.isfinite(only.ci_low) and math.isfinite(only.ci_high) else "",
            "p": p_words(p_values),
            "below": f"{sum(p < config.ALPHA for p in p_values)} of {len(p_values)}" if one.per_seed else "",
        })  # fmt: skip
    return rows


def p_words(p_values: Sequence[float]) -> str:
    """0.031, or the least, middle and largest of several; a dash for none."""
    if not p_values:
        return "–"
    if len(p_values) == 1:
        return plain(p_values[0])
    return f"{plain(p_values[0])} … {plain(float(np.median(p_values)))} … {plain(p_values[-1])}"


OTHER_NOTE = (
    "Descriptive: none of these decides a verdict, and none is corrected for being one of many. All are over test "
    "patients, the trained models as they are. DeLong: a patient's slices count as one cluster (Obuchowski 1997). "
    "McNemar compares two models, so it is done seed by seed: the estimate is the mean over seeds, p the least, middle "
    f"and largest, and how many seeds are below {config.ALPHA:g}. Wilcoxon and the bootstrap take each patient's mean "
    "over lesion slices and seeds; Wilcoxon's estimate is Hodges and Lehmann's. Intervals: "
    f"{percent(config.CONFIDENCE)}."
)
