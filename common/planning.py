"""What the asked-for seeds can show, said before anything is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from common import config
from common.config import TASKS, Study
from common.results import StudyRecord
from common.statistics import plan_seeds
from common.verdicts import could_differ, least_seeds, sd_of

METRIC = {"auroc_score": "AUROC", "dice_score": "Dice"}


@dataclass(frozen=True)
class Expected:
    """How much a paired difference varies over seeds, and how that is known."""

    sd: float
    seeds: int  # of finished runs that it was measured on; 0: `config.EXPECTED_SEED_SD`


def planned(study: Study, record: StudyRecord | None = None) -> list[str]:
    """A line for each lane and metric of a study that compares frameworks: the smallest difference that its seeds can
    show, and whether they can show equivalence within the margin.

    The spread is that of the finished runs of `record` where they have `config.MIN_INTERVAL_SEEDS` seeds of two
    frameworks, else what similar trainings had. Folds are not counted on: how much they differ nobody knows yet.
    """
    if len(study.frameworks) < 2:
        return []
    measured = measured_spread(record) if record else {}
    family = len(study.pairs) * (len(study.frameworks) - 1)
    alike: dict[tuple[str, str, float, Expected], list[str]] = {}  # -> models
    for lane in study.lanes:
        for name, model in study.pairs:
            task = TASKS[name]
            expected = measured.get((lane, name, model)) or Expected(
                config.EXPECTED_SEED_SD[lane][task.kind], 0
            )
            metric = METRIC.get(task.primary_metric, task.primary_metric)
            alike.setdefault((lane, metric, task.margin, expected), []).append(f"{name}/{model}")
    return [
        line(lane, metric, margin, expected, models, study, family)
        for (lane, metric, margin, expected), models in alike.items()
    ]


def line(
    lane: str, metric: str, margin: float, expected: Expected, models: list[str], study: Study, family: int
) -> str:
    """One group of models: what so many seeds can show, and what the rest would take."""
    seeds = study.seeds
    plan = plan_seeds(expected.sd, seeds, margin)
    strict = plan_seeds(expected.sd, seeds, margin, alpha=config.ALPHA / family)  # Holm's first step
    different = f"differences of {strict.detectable_difference:.2g} {metric} or more"
    equivalent = f"equivalence within ±{margin:g}"
    among = f" for one of {family} comparisons" if family > 1 else ""
    no_difference = f"difference (it takes {least_seeds(family)} seeds{among})"
    takes = f"{plan.seeds_for_margin} seeds" if plan.seeds_for_margin else "more than can be trained"
    no_equivalence = f"{equivalent} (it takes {takes})"
    if could_differ(seeds, 1, family) and math.isfinite(strict.detectable_difference):
        shown = f"{different}, " + (
            "and " + equivalent if plan.smallest_margin <= margin else "but no " + no_equivalence
        )
    elif plan.smallest_margin <= margin:
        shown = f"{equivalent}, but no {no_difference}"
    else:
        shown = f"neither a {no_difference} nor {no_equivalence}"
    split = " on one split" if study.folds > 1 else ""
    folds = f". The test over {study.folds} folds is another, and not planned here" if study.folds > 1 else ""
    return (
        f"{', '.join(models)}, {lane} lane: {seeds_words(seeds)}{split} can show {shown}; power {config.POWER:.0%} "
        f"of a paired t test, {source(expected)}, given patients enough{folds}"
    )


def seeds_words(seeds: int) -> str:
    return "1 seed" if seeds == 1 else f"{seeds} seeds"


def source(expected: Expected) -> str:
    """How the spread is known."""
    if expected.seeds:
        return f"differences varying by {expected.sd:.2g} as over the {expected.seeds} finished seeds"
    return f"differences varying by {expected.sd:g} over seeds as on the phantom"


def measured_spread(record: StudyRecord) -> dict[tuple[str, str, str], Expected]:
    """(lane, task, model) -> the largest spread of a framework's differences from the reference, of finished runs."""
    if len(record.complete) < 2 * config.MIN_INTERVAL_SEEDS:
        return {}
    from common.report.pairings import (
        seed_differences,
    )  # here: slow to load, and a new study has no use for it

    found = {}
    for key, differences in seed_differences(record).items():
        known = [
            Expected(sd_of(one), len(one)) for one in differences if len(one) >= config.MIN_INTERVAL_SEEDS
        ]
        known = [one for one in known if math.isfinite(one.sd)]
        if known:
            found[key] = max(known, key=lambda one: one.sd)
    return found
