"""The verdicts as tables and as fields of summary.json."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from common.report.tables import finite
from common.statistics import Component
from common.verdicts import Verdict, sd_of


def verdict_numbers(verdicts: Sequence[Verdict]) -> dict[str, dict[str, Any]]:
    """For summary.json, under each verdict's key; every field that `summary` gives a difference is among them.

    `ci_*` is over patients, `seeds_ci_*` over seeds (with folds over seed and fold), `tost_*` the interval over seeds
    that lies within the margin where `equivalent_over_seeds`; p_value is the larger of p_seeds and p_patients.
    """
    return {one.key: fields_of(one) for one in verdicts}


def fields_of(one: Verdict) -> dict[str, Any]:
    """Plain JSON values; null is undefined."""
    numbers = {
        "difference": one.difference,
        "sd": sd_of(one.differences),
        "ci_low": one.over_patients.ci_low,
        "ci_high": one.over_patients.ci_high,
        "seeds_ci_low": one.over_seeds.ci_low,
        "seeds_ci_high": one.over_seeds.ci_high,
        "tost_low": one.equivalence.ci_low,
        "tost_high": one.equivalence.ci_high,
        "p_seeds": one.over_seeds.p_value,
        "p_patients": one.over_patients.p_value,
        "p_value": one.p_value,
        "p_holm": one.p_holm,
        "p_equivalence": one.equivalence.p_value,
        "margin": one.margin,
        "cohens_dz": one.effect.cohens_dz,
        "hedges_g": one.effect.hedges_g,
        "superiority": one.effect.superiority,
        "detectable_difference": one.plan.detectable_difference,
        "smallest_margin": one.plan.smallest_margin,
        "noise_max": furthest(one),
        "churn_between_frameworks": one.churn.between_frameworks if one.churn else math.nan,
        "churn_between_seeds": one.churn.between_seeds if one.churn else math.nan,
        "churn_between_repeats": one.churn.between_repeats if one.churn else math.nan,
    }
    for part in parts_of(one):
        numbers |= {
            f"share_{part.name}": part.share,
            f"sd_{part.name}": math.sqrt(part.variance),
            f"sd_{part.name}_low": math.sqrt(part.ci_low),
            f"sd_{part.name}_high": math.sqrt(part.ci_high),
        }
    return {
        "verdict": one.word,
        **{name: finite(float(value)) for name, value in numbers.items()},
        "seeds_for_margin": one.plan.seeds_for_margin,
        "equivalent": one.word in ("equivalent", "negligible"),
        "equivalent_over_seeds": one.equivalence.equivalent,
        "equivalent_over_patients": one.equivalent_over_patients,
        "identical": one.identical,
        "guessing": one.guessing,
        "seeds": len(one.seeds),
        "folds": one.folds,
        "patients": one.patients,
    }


def parts_of(one: Verdict) -> list[Component]:
    """The components that the design can tell: not the split of one split."""
    return [part for part in one.components if math.isfinite(part.variance)]


def furthest(one: Verdict) -> float:
    """Size of the largest difference of the reference from its own repeat; NaN without repeats."""
    return float(np.abs(one.noise).max()) if len(one.noise) else math.nan


VERDICT_COLUMNS = (
    "difference", "ci_low", "ci_high", "seeds_ci_low", "seeds_ci_high", "p_seeds", "p_patients", "p_value", "p_holm",
    "tost_low", "tost_high", "margin", "equivalent_over_seeds", "equivalent_over_patients", "identical", "hedges_g",
    "superiority", "noise_max", "seeds", "folds", "patients", "seeds_for_margin",
)  # fmt: skip


def verdict_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """tables/verdicts: one row a verdict."""
    return pd.DataFrame([
        {
            **{"lane": one.lane, "task": one.task, "model": one.model, "metric": one.metric,
               "comparison": f"{one.framework}-vs-{one.reference}", "verdict": one.word},
            **{name: fields_of(one)[name] for name in VERDICT_COLUMNS},
        }
        for one in verdicts
    ])  # fmt: skip


def variance_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """tables/variance: one row a part of the scores' variance: its share, and its size as a standard deviation."""
    return pd.DataFrame([
        {**who(one), "part": part.name, "share": part.share, "sd": math.sqrt(part.variance),
         "sd_low": math.sqrt(part.ci_low), "sd_high": math.sqrt(part.ci_high)}
        for one in verdicts
        for part in parts_of(one)
    ])  # fmt: skip


def churn_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """tables/churn: the share of decisions that differ."""
    return pd.DataFrame([
        {**who(one), "of": churn_unit(one), "units": one.churn.units,
         "between_frameworks": one.churn.between_frameworks, "between_seeds": one.churn.between_seeds,
         "between_repeats": one.churn.between_repeats}
        for one in verdicts
        if one.churn is not None
    ])  # fmt: skip


def churn_unit(one: Verdict) -> str:
    """What churn counts: test patients with two classes, else slices."""
    return "test patients" if one.task == "binary" else "test slices"


def noise_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """tables/noise: every difference between a run of the reference and its repeat."""
    return pd.DataFrame([
        {**who(one), "repeat": number, "difference": float(value)}
        for one in verdicts
        for number, value in enumerate(one.noise)
    ])  # fmt: skip


def who(one: Verdict) -> dict[str, str]:
    return {
        "lane": one.lane,
        "task": one.task,
        "model": one.model,
        "comparison": f"{one.framework}-vs-{one.reference}",
        "metric": one.metric,
    }
