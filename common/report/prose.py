"""The report's sentences: what was found, in plain words, and no more than was found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from common import config, verdicts
from common.report.checks import Check
from common.report.evidence import Level
from common.report.mask_levels import MaskLevel
from common.report.reading import AnyComparison
from common.report.scores import Difference, Scores
from common.report.tables import keys
from common.report.terms import level_words, metric_title
from common.report.verdict_words import finding, plain_text, sentence
from common.report.wording import listed, percent, plain, plural, signed

TOLD = ("slice", "lesion", "patient", "external")  # levels that the verdict speaks of


UNEVEN = "Differences use only the seeds that both have, so they need not be those of the means."


@dataclass(frozen=True)
class Verdict:
    """What a reader who reads one thing should read."""

    warning: str  # empty unless a check failed
    headlines: tuple[str, ...]
    details: tuple[str, ...]
    findings: tuple[str, ...] = ()  # the headlines without their numbers, for an overview

    @property
    def sentences(self) -> tuple[str, ...]:
        return (*([self.warning] if self.warning else []), *self.headlines, *self.details)


def verdict(
    comparison: AnyComparison,
    scores: Scores,
    checks: Sequence[Check],
    costs: pd.DataFrame,
    judgements: Sequence[verdicts.Verdict] = (),
) -> Verdict:
    """The judgements on the primary metric in words, and the numbers of every level behind them."""
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
    metric, mine = (
        comparison.primary_metric,
        [one for one in judgements if one.key.startswith(f"{comparison.key}/")],
    )
    headlines = tuple(plain_text(sentence(one)) for one in mine)
    findings = tuple(f"{finding(one)}." for one in mine)
    if not scores.differences_of(comparison.levels[0].name, metric):
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
        details.append(UNEVEN)
    speed = [f"{framework} {value}" for framework, value in speeds(comparison, costs).items()]
    if speed:
        details.append(f"Training speed after the first step, in images/s: {', '.join(speed)}.")
    return Verdict(warning, headlines, tuple(details), findings)


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
