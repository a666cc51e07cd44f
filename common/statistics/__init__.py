"""How sure a number is: intervals over patients, tests over seeds, and where the spread comes from.

Three uncertainties stay apart: which patients were tested (the bootstraps, `delong`, `mcnemar`, `wilcoxon_test`), which
seed trained the model (`sign_flip_test`, `equivalence`, `effect_size`) and which split was drawn
(`corrected_resampled_ttest`). `variance_components` sets them side by side. Plain arrays in, frozen dataclasses out,
NaN where undefined. What is said of coverage and false findings was simulated: `benchmarks/statistics_simulation.py`.
"""

from common.statistics.auroc import delong
from common.statistics.bootstrap import (
    bootstrap_metrics,
    cluster_bootstrap,
    mean_over_runs,
    paired_cluster_bootstrap,
)
from common.statistics.decisions import Churn, churn
from common.statistics.draws import Draws, interval_of
from common.statistics.estimates import Estimate, Spread, mean_interval, spread
from common.statistics.families import holm
from common.statistics.over_patients import mcnemar, wilcoxon_test
from common.statistics.over_seeds import (
    EffectSize,
    Equivalence,
    corrected_resampled_ttest,
    effect_size,
    equivalence,
    sign_flip_test,
)
from common.statistics.planning import SeedPlan, plan_seeds
from common.statistics.variance import Component, variance_components

__all__ = [
    "Churn",
    "Component",
    "Draws",
    "EffectSize",
    "Equivalence",
    "Estimate",
    "SeedPlan",
    "Spread",
    "bootstrap_metrics",
    "churn",
    "cluster_bootstrap",
    "corrected_resampled_ttest",
    "delong",
    "effect_size",
    "equivalence",
    "holm",
    "interval_of",
    "mcnemar",
    "mean_interval",
    "mean_over_runs",
    "paired_cluster_bootstrap",
    "plan_seeds",
    "sign_flip_test",
    "spread",
    "variance_components",
    "wilcoxon_test",
]
