"""The report's sentences: what was found, in plain words, and no more than was found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from common import config
from common.report.checks import Check
from common.report.evidence import Level
from common.report.mask_levels import MaskLevel
from common.report.reading import AnyComparison
from common.report.scores import Difference, Scores
from common.report.tables import keys
from common.report.terms import level_words, metric_direction, metric_title
from common.report.wording import listed, percent, plain, plural, signed

TOLD = ("slice", "lesion", "patient", "external")  # levels that the verdict speaks of
OF_WHOM = {"lesion": " with a lesion"}  # the test patients of a main level, where they are not all


@dataclass(frozen=True)
class Verdict:
    """What a reader who reads one thing should read."""

    warning: str  # empty unless a check failed
    headlines: tuple[str, ...]
    details: tuple[str, ...]
    findings: tuple[str, ...] = ()  # the headlines without what they do not say, for an overview

    @property
    def sentences(self) -> tuple[str, ...]:
        return (*([self.warning] if self.warning else []), *self.headlines, *self.details)


def verdict(
    comparison: AnyComparison, scores: Scores, checks: Sequence[Check], costs: pd.DataFrame
) -> Verdict:
    """The finding on the primary metric: what was seen, and what could not have been seen."""
    broken = [check.name for check in checks if check.verdict == "fail"]
    warning = (
        f"This is not a controlled comparison: {plural(len(broken), 'check')} failed ({'; '.join(broken)}). "
        "Read the numbers below as those of different experiments."
        if broken
        else ""
    )
    if not comparison.levels:
        nothing = ("No run of this task can be scored, so nothing is compared.",)
        return Verdict(warning, nothing, (), nothing)
    level, metric = comparison.levels[0], comparison.primary_metric
    gaps = scores.differences_of(level.name, metric)
    headlines = tuple(headline(one, level, comparison.task) for one in gaps)
    findings = tuple(finding(one, level, comparison.task) for one in gaps)
    if not gaps:
        headlines = findings = (
            "No two frameworks have a scored run of the same seed, so no difference can be told.",
        )
    details = []
    for level in comparison.levels:
        if level.name not in TOLD or not scores.of(level.name, metric):
            continue
        words = [reached(comparison, level, scores)]
        words += [compared(one) for one in scores.differences_of(level.name, metric)]
        details.append(" ".join(words))
    if len({arm.seeds for arm in comparison.levels[0].arms}) > 1:
        details.append(
            "Differences use only the seeds that both have, so they need not be those of the means."
        )
    speed = [f"{framework} {value}" for framework, value in speeds(comparison, costs).items()]
    if speed:
        details.append(f"Training speed after the first step, in images/s: {', '.join(speed)}.")
    return Verdict(warning, headlines, tuple(details), findings)


def headline(one: Difference, level: Level | MaskLevel, task: str) -> str:
    """One paired difference in words, with what it does not say. A visible one is no proof, an invisible one no
    equality.
    """
    seen = finding(one, level, task)
    if not defined(one):
        return seen
    if one.visible:
        return f"{seen} Whether other seeds or splits would show it is not answered here."
    half = (one.ci_high - one.ci_low) / 2
    blind = f"One smaller than about {half:.2g} could not have been seen," if half else "So few may hide one,"
    return f"{seen} {blind} so this is no proof of equality."


def finding(one: Difference, level: Level | MaskLevel, task: str) -> str:
    """What was seen of one paired difference, and nothing more."""
    metric = metric_title(task, one.metric)
    patients = plural(level.patients, "test patient") + OF_WHOM.get(level.name, "")
    if not defined(one):
        return f"{patients} are too few to compare the {metric} of {one.framework} and {one.reference}."
    if not one.visible:
        return (
            f"No difference in {metric} between {one.framework} and {one.reference} is visible on {patients}."
        )
    higher, lower = (one.framework, one.reference) if one.difference > 0 else (one.reference, one.framework)
    alike = sum(value * one.difference > 0 for value in one.per_seed)
    which = " (lower is better)" if metric_direction(task, one.metric) == "down" else ""
    return (
        f"On these {patients}, {higher} is above {lower} in {metric}{which}, with {alike} of "
        f"{plural(len(one.per_seed), 'seed')}."
    )


def defined(one: Difference) -> bool:
    return math.isfinite(one.ci_low) and math.isfinite(one.ci_high)


def reached(comparison: AnyComparison, level: Level | MaskLevel, scores: Scores) -> str:
    """Where each framework stands, on how many patients."""
    parts = []
    for one in scores.of(level.name, comparison.primary_metric):
        spread = f"\u00a0±\u00a0{one.sd:.3f}" if math.isfinite(one.sd) else ""
        parts.append(f"{one.framework} {plain(one.mean)}{spread}")
    seeds = sorted({len(arm.seeds) for arm in level.arms})
    over = "one seed" if seeds == [1] else f"mean ± SD over {' or '.join(str(n) for n in seeds)} seeds"
    folds = ""
    if len(comparison.folds) > 1:
        each = "mean of the models of" if level.name == "external" else "out of fold over"
        folds = f", {each} {len(comparison.folds)} folds"
    where, unit = level_words(comparison.task, level.name)
    size, metric = plural(len(level.unit), unit), metric_title(comparison.task, comparison.primary_metric)
    return f"{where}, {metric}: {listed(parts)} ({over}; {size}{folds})."


def compared(one: Difference) -> str:
    """The paired difference and its interval."""
    gap = f"{one.framework} − {one.reference}: {signed(one.difference)}"
    if not defined(one):
        return f"{gap}, without an interval."
    interval = f"{signed(one.ci_low)} to {signed(one.ci_high)}"
    return f"{gap}, {percent(config.CONFIDENCE)} interval over test patients {interval}."


def speeds(comparison: AnyComparison, costs: pd.DataFrame) -> dict[str, str]:
    """Mean images/s of each framework."""
    wanted = {**keys(comparison), "quantity": "steady_images_per_second"}
    rows = [
        row for row in costs.to_dict("records") if all(row[name] == value for name, value in wanted.items())
    ]
    return {row["framework"]: f"{row['mean']:,.0f}" for row in rows}
