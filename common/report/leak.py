"""The leak meter as its files have it: read without trust, and what it says in words.

Two of its arms let slices of one patient stand on both sides, and two have labels that mean nothing. No score of it is
a result: what a reader may take from it is how much a split by slice would have added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from common.config import FRAMEWORKS, TASKS
from common.data.leaky_splits import ARMS, Arm
from common.errors import StudyError
from common.leak_table import COLUMNS, EFFECTS, Effect, describe_unit
from common.report.attachments import (
    attached,
    document_of,
    number_of,
    one_of,
    rows_of,
    table_of,
    version_words,
    whole_of,
    words_of,
)
from common.report.terms import MODEL_TITLE, metric_title
from common.report.wording import decimals, lower_first, plain, plural, signed

COMMAND = "python compare.py leak"
TEXT = ("task", "model", "framework", "arm")
NUMBERS = tuple(name for name in COLUMNS[6:-1] if name != "metric")
LEAST_CLAIM = 0.05  # above chance; of less, no share is worth naming


@dataclass(frozen=True)
class ArmScores:
    """The seeds' scores in one arm."""

    arm: Arm
    seeds: tuple[int, ...]
    scores: tuple[float, ...]  # NaN where undefined
    mean: float
    sd: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class Found:
    """An effect with its interval over splits and seeds; NaN where there is none."""

    effect: Effect
    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    seeds: int

    @property
    def visible(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.ci_low > 0 or self.ci_high < 0


@dataclass(frozen=True)
class Measure:
    """One (task, model, framework)."""

    task: str
    model: str
    framework: str
    metric: str
    epochs: int
    chance: float  # NaN where the metric has no such value
    equal_training: bool
    labels: str  # what was shuffled: "patient" | "most severe" | "" where nothing was
    left_out: str  # which arms could not be had, and why
    arms: tuple[ArmScores, ...]
    effects: tuple[Found, ...]

    @property
    def key(self) -> str:
        """Of summary.json."""
        return f"leak/{self.task}/{self.model}/{self.framework}"

    @property
    def title(self) -> str:
        """Of the metric, and of what: AUROC per test slice."""
        return f"{metric_title(self.task, self.metric)} {describe_unit(self.task)}"

    @property
    def digits(self) -> int:
        return decimals((one.ci_low, one.ci_high) for one in self.effects)

    def scores_of(self, name: str) -> ArmScores | None:
        return next((one for one in self.arms if one.arm.name == name), None)

    def effect(self, name: str) -> Found | None:
        return next((one for one in self.effects if one.effect.name == name), None)


@dataclass(frozen=True)
class Leak:
    """Everything of `leak.json` and `leak.csv`."""

    data: str
    profile: str
    warning: str
    seeds: int
    complete: int
    asked: int
    failed: tuple[tuple[str, str], ...]  # training, reason
    versions: tuple[str, ...]
    measures: tuple[Measure, ...]
    trainings: pd.DataFrame  # leak.csv


# --- reading ------------------------------------------------------------------------------------------------------


def read_leak(directory: Path) -> tuple[Leak | None, str]:
    """The leak meter beside a study; None with a sentence where its files cannot be used, without one where none is."""
    return attached(directory / "leak.json", leak_of, COMMAND)


def leak_of(path: Path) -> Leak:
    """Raises one of `attachments.ODD` for files that are not what `compare.py leak` writes."""
    document = document_of(path)
    table = table_of(path.parent / "leak.csv", TEXT, NUMBERS)
    return Leak(
        words_of(document, "data"),
        words_of(document, "profile"),
        words_of(document, "warning"),
        whole_of(document, "seeds"),
        whole_of(document, "complete"),
        whole_of(document, "asked"),
        tuple((words_of(row, "training"), words_of(row, "reason")) for row in rows_of(document, "failed")),
        version_words(document.get("environment")),
        tuple(measure_of(row) for row in rows_of(document, "measures")),
        table[table["arm"].isin(list(ARMS))].reset_index(drop=True),
    )


def measure_of(row: Mapping[str, Any]) -> Measure:
    """Raises one of `attachments.ODD`."""
    task = one_of(row, "task", list(TASKS))
    settings = TASKS[task]
    return Measure(
        task,
        one_of(row, "model", settings.models),
        one_of(row, "framework", FRAMEWORKS),
        one_of(row, "metric", [settings.primary_metric]),
        whole_of(row, "epochs"),
        number_of(row, "chance"),
        row["equal_training"] is True,
        words_of(row, "labels"),
        words_of(row, "left_out"),
        tuple(arm_of(one) for one in rows_of(row, "arms")),
        tuple(found_of(one) for one in rows_of(row, "effects")),
    )


def arm_of(row: Mapping[str, Any]) -> ArmScores:
    scores = [number_of({"score": value}, "score") for value in row["scores"]]
    seeds = [whole_of({"seed": value}, "seed") for value in row["seeds"]]
    if not seeds or len(seeds) != len(scores):
        raise StudyError(f"an arm has {len(scores)} scores of {len(seeds)} seeds")
    numbers = (number_of(row, name) for name in ("mean", "sd", "minimum", "maximum"))
    return ArmScores(ARMS[one_of(row, "arm", list(ARMS))], tuple(seeds), tuple(scores), *numbers)


def found_of(row: Mapping[str, Any]) -> Found:
    effects = {one.name: one for one in EFFECTS}
    return Found(
        effects[one_of(row, "effect", list(effects))],
        number_of(row, "difference"),
        number_of(row, "ci_low"),
        number_of(row, "ci_high"),
        number_of(row, "p_value"),
        whole_of(row, "seeds"),
    )


# --- in words -----------------------------------------------------------------------------------------------------


def findings(one: Measure) -> list[str]:
    """What the split by slice would have claimed, what it is made of, and whether the meter itself is sound."""
    patient, leaky = one.scores_of("patient"), one.scores_of("slice")
    inflation, digits = one.effect("inflation"), one.digits
    if patient is None or leaky is None or inflation is None:
        return [f"{one.title}: the two splits have no seed in common yet."]
    sentences = [
        f"A split by slice would have claimed {plain(leaky.mean, digits)} ({one.title}, {model_words(one)}); "
        f"on patients that training has not seen it is {plain(patient.mean, digits)}. The split alone is worth "
        f"{with_interval(inflation, digits)}{told(inflation, 'no inflation can be told from chance')}."
    ]
    memory, shuffled = one.effect("memory"), one.scores_of("shuffled")
    if memory is not None and shuffled is not None:
        sentences.append(
            "With the labels of other patients, where nothing is left to learn but whose slice it is, the split by "
            f"slice scores {plain(shuffled.mean, digits)}, {with_interval(memory, digits)} from chance"
            f"{told(memory, 'no memory of patients can be told from chance')}."
        )
        claim = leaky.mean - one.chance
        if memory.visible and memory.difference > 0 and claim > LEAST_CLAIM:
            sentences.append(
                f"Of the {plain(claim, digits)} above chance that the split by slice claims, recognising patients "
                f"alone reaches {plain(memory.difference, digits)}."
            )
    control, beside = one.effect("control"), one.scores_of("shuffled-patient")
    if control is not None and beside is not None:
        verdict = ", which is more than chance explains" if control.visible else ", as they must"
        if not math.isfinite(control.ci_low):
            verdict = told(control, "")
        sentences.append(
            f"By patient, shuffled labels score {plain(beside.mean, digits)}, {with_interval(control, digits)} from "
            f"chance{verdict}."
        )
    return sentences


def about(leak: Leak) -> list[str]:
    """How it was measured."""
    lines = [
        f"Data: {leak.data or 'not recorded'}; profile {leak.profile}; {plural(leak.seeds, 'seed')}, each with splits, "
        "shuffled labels, starting weights and order of its own. The arms of a seed differ in nothing but who "
        "stands where, and in the labels where they are shuffled.",
        "Intervals are over splits and seeds together, corrected for training parts that overlap (Nadeau & Bengio "
        "2003). Below three seeds there is none.",
    ]
    kinds = {one.labels for one in leak.measures}
    if "most severe" in kinds:
        lines.append(
            "Slices of one patient have different labels here: shuffled, every slice of a patient gets the most severe "
            "label of another one."
        )
    elif "patient" in kinds:
        lines.append("The labels are given per patient; shuffled, a patient gets that of another one.")
    if all(one.equal_training for one in leak.measures):
        lines.append("All arms of a seed train on as many slices, from the same starting weights.")
    else:
        lines.append(
            "Not all arms of a seed train on as many slices from the same weights: see the trainings."
        )
    return lines


def told(found: Found, otherwise: str) -> str:
    """What the interval adds to a sentence."""
    if not math.isfinite(found.ci_low):
        return f" ({plural(found.seeds, 'seed')}: no interval)"
    return "" if found.visible else f": with {plural(found.seeds, 'seed')} {otherwise}"


def with_interval(found: Found, digits: int) -> str:
    """+0.15 (+0.05 to +0.25), without the bracket where there is no interval."""
    return f"{signed(found.difference, digits)}{bracket(found, digits)}"


def bracket(found: Found, digits: int) -> str:
    if not (math.isfinite(found.ci_low) and math.isfinite(found.ci_high)):
        return ""
    return f" ({signed(found.ci_low, digits)} to {signed(found.ci_high, digits)})"


def model_words(one: Measure) -> str:
    title = MODEL_TITLE[one.model]
    return lower_first(title) if one.model == "cnn" else title
