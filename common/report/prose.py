"""The report's sentences: what was found, in plain words, and no more than was found."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from common import config
from common.config import Study
from common.metrics.classification import TITLE
from common.report.checks import Check
from common.report.evidence import Comparison, Evidence, Level
from common.report.scores import Difference, Scores
from common.report.tables import keys
from common.report.wording import listed, percent, plain, plural, signed

FEW_PATIENTS = 30  # below, percentile intervals are markedly too narrow (see `cluster_bootstrap`)


@dataclass(frozen=True)
class Verdict:
    """What a reader who reads one thing should read."""

    warning: str  # empty unless a check failed
    headlines: tuple[str, ...]
    details: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        return (*([self.warning] if self.warning else []), *self.headlines, *self.details)


def verdict(comparison: Comparison, scores: Scores, checks: Sequence[Check], costs: pd.DataFrame) -> Verdict:
    """The finding on the primary metric: what was seen, and what could not have been seen."""
    broken = [check.name for check in checks if check.verdict == "fail"]
    warning = (
        f"This is not a controlled comparison: {plural(len(broken), 'check')} failed ({'; '.join(broken)}). "
        "Read the numbers below as those of different experiments."
    )
    if not comparison.levels:
        return Verdict(
            warning if broken else "", ("No run of this task can be scored, so nothing is compared.",), ()
        )
    level, metric = comparison.levels[0], comparison.primary_metric
    headlines = [headline(one, level) for one in scores.differences_of(level.name, metric)]
    if not headlines:
        headlines = ["No two frameworks have a scored run of the same seed, so no difference can be told."]
    details = []
    for level in comparison.levels:
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
    return Verdict(warning if broken else "", tuple(headlines), tuple(details))


def headline(one: Difference, level: Level) -> str:
    """One paired difference in words. A visible one is no proof, an invisible one no equality."""
    metric, patients = TITLE[one.metric], plural(level.patients, "test patient")
    if not (math.isfinite(one.ci_low) and math.isfinite(one.ci_high)):
        return f"{patients} are too few to compare the {metric} of {one.framework} and {one.reference}."
    if one.visible:
        higher, lower = (
            (one.framework, one.reference) if one.difference > 0 else (one.reference, one.framework)
        )
        alike = sum(value * one.difference > 0 for value in one.per_seed)
        return (
            f"On these {patients}, {higher} is above {lower} in {metric}, with {alike} of "
            f"{plural(len(one.per_seed), 'seed')}. Whether other seeds or splits would show it is not answered here."
        )
    none = f"No difference in {metric} between {one.framework} and {one.reference} is visible on {patients}."
    half = (one.ci_high - one.ci_low) / 2
    blind = (
        f" One smaller than about {half:.2g} could not have been seen," if half else " So few may hide one,"
    )
    return f"{none}{blind} so this is no proof of equality."


def reached(comparison: Comparison, level: Level, scores: Scores) -> str:
    """Where each framework stands, on how many patients."""
    parts = []
    for one in scores.of(level.name, comparison.primary_metric):
        spread = f"\u00a0±\u00a0{one.sd:.3f}" if math.isfinite(one.sd) else ""
        parts.append(f"{one.framework} {plain(one.mean)}{spread}")
    seeds = sorted({len(arm.seeds) for arm in level.arms})
    over = "one seed" if seeds == [1] else f"mean ± SD over {' or '.join(str(n) for n in seeds)} seeds"
    folds = f", out of fold over {len(comparison.folds)} folds" if len(comparison.folds) > 1 else ""
    size = plural(len(level.unit), f"test {level.name}")
    return f"Per {level.name}, {TITLE[comparison.primary_metric]}: {listed(parts)} ({over}; {size}{folds})."


def compared(one: Difference) -> str:
    """The paired difference and its interval."""
    gap = f"{one.framework} − {one.reference}: {signed(one.difference)}"
    if not (math.isfinite(one.ci_low) and math.isfinite(one.ci_high)):
        return f"{gap}, without an interval."
    interval = f"{signed(one.ci_low)} to {signed(one.ci_high)}"
    return f"{gap}, {percent(config.CONFIDENCE)} interval over test patients {interval}."


def speeds(comparison: Comparison, costs: pd.DataFrame) -> dict[str, str]:
    """Mean images/s of each framework."""
    wanted = {**keys(comparison), "quantity": "steady_images_per_second"}
    rows = [
        row for row in costs.to_dict("records") if all(row[name] == value for name, value in wanted.items())
    ]
    return {row["framework"]: f"{row['mean']:,.0f}" for row in rows}


def limits(evidence: Evidence) -> list[str]:
    """What the numbers do not say."""
    comparisons = evidence.comparisons
    first = (
        listed(sorted({TITLE[one.primary_metric] for one in comparisons}))
        if comparisons
        else "the primary metric"
    )
    lines = [
        "A difference that is not visible here is not proof that the frameworks are equal: nothing is tested, and no "
        "margin of equivalence was declared.",
        "The intervals are over test patients only. The spread over seeds stands beside them and is no part of them; "
        "other splits and other hospitals are in neither.",
        f"Many metrics are shown, none corrected for being one of many: only {first} was named beforehand.",
        "Times are those of this machine with these process settings, and of runs that may have shared it.",
    ]
    patients = [level.patients for one in comparisons for level in one.levels[:1]]
    if patients and min(patients) < FEW_PATIENTS:
        lines.insert(1, (
            f"There are {min(patients)} test patients. Under about {FEW_PATIENTS}, a bootstrap interval called "
            "95\u00a0% covers nearer 90\u00a0%."
        ))  # fmt: skip
    if any(len(one.folds) > 1 for one in comparisons):
        lines.append(
            "Folds are pooled: scores of different models are ranked together, which can lower the AUROC against the "
            "mean over folds."
        )
    if evidence.record.study.data:
        lines.append(
            "Labels are taken as published. Where they were given per patient, a slice's label need not be what the "
            "slice shows."
        )
    else:
        lines.append("The slices are drawn, so the scores say nothing about medicine.")
    found, used = evidence.audit.get("patients"), evidence.audit.get("used")
    if isinstance(found, int) and found == used and found > 1:
        lines.append(
            "No patient is known to have two slices here, so each slice counts as a patient of its own: slices of one "
            "patient may stand on both sides of the split, and the intervals are too narrow."
        )
    return lines


def command(study: Study, name: str) -> str:
    """What repeats the study, one group of options a line; what equals the profile's numbers is left out."""
    options = [
        ["--data", *study.data] if study.data else [],
        ["--patients", str(study.patients)] if study.patients else [],
        ["--profile", study.profile, "--lane", study.lane],
        ["--tasks", *study.tasks],
        ["--models", *study.models],
        ["--frameworks", *study.frameworks],
        ["--seeds", str(study.seeds), "--folds", str(study.folds)],
        [*changed(study, "epochs"), *changed(study, "batch_size")],
        ["--device", study.device, "--precision", study.precision],
        ["--threads", str(study.threads)] if study.threads else [],
        ["--workers", str(study.workers)] if study.workers > 1 else [],
        ["--out", f"results/{name}"],
    ]
    return " \\\n    ".join(["python compare.py study", *(shlex.join(words) for words in options if words)])


def changed(study: Study, name: str) -> list[str]:
    """The option that set a number of the recipes, where one did."""
    for key, recipe in study.recipes.items():
        task, model = key.split("/")
        if getattr(recipe, name) != getattr(config.recipe_of(task, model, study.profile), name):
            return [f"--{name.replace('_', '-')}", str(getattr(recipe, name))]
    return []
