"""The lock-step proof as `parity.json` has it, read without trust.

A row is one training of a framework beside the reference's; a mutation is one default left alone on one side, which the
proof must find.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from common import config
from common.config import FRAMEWORKS, MODELS, PRECISIONS, TASKS
from common.errors import StudyError
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
from common.report.context import model_title
from common.report.terms import MODEL_TITLE
from common.report.wording import listed

COMMAND = "python compare.py parity"
DIGITS = {"float32": 7, "float64": 15}  # that a number has; agreement cannot be told beyond
# Of a row: what was compared -> (title, the stage whose tolerance judges it)
QUANTITIES = {
    "outputs_max_rel": ("Layer outputs", "outputs"),
    "loss_max_rel": ("Loss", "loss"),
    "gradients_max_rel": ("Gradients", "gradients"),
    "weights_max_rel": ("Weights", "weights"),
    "statistics_max_rel": ("Batch-norm statistics", "statistics"),
    "forward_max_abs": ("Logits before", "logits"),
    "logits_max_abs": ("Logits after", "logits"),
}
STEP_COLUMNS = ("model", "framework", "precision")
STEP_NUMBERS = ("step", "loss", "loss_rel", "gradients_rel")


@dataclass(frozen=True)
class Divergence:
    """Where two trainings part, or where a planted fault was found."""

    step: int  # from 1; 0 where not recorded
    stage: str
    layer: str
    tensor: str
    difference: float
    words: str

    @property
    def place(self) -> str:
        """Layer and tensor; empty where the stage has none, as the loss."""
        return ".".join(name for name in (self.layer, self.tensor) if name)


@dataclass(frozen=True)
class Row:
    """One training beside the reference's, step by step."""

    task: str
    model: str
    framework: str
    reference: str
    precision: str
    steps: int
    profile: str
    image_size: int  # px
    parameters: int
    batch_size: int
    gradient_clip_norm: float
    head_steps: int  # the first steps, in which the last layer learns alone
    differences: Mapping[str, float]  # of QUANTITIES; NaN where not measured
    tolerances: Mapping[str, float]  # stage -> largest difference that counts as rounding
    floor: Mapping[
        str, float
    ]  # of the reference from itself: "loss_max_rel", "logits_max_abs"; empty without
    floor_of: str
    divergence: Divergence | None
    clipped_steps: int | None  # in which clipping changed the gradients; None where not recorded
    told: bool  # the file says that it passed
    reason: str  # why the training came to no end; empty where it did

    @property
    def above(self) -> list[str]:
        """The quantities above their tolerance. In float32 that of the first step alone is no measure of a training."""
        if self.precision != "float64":
            return []
        return [
            name
            for name, (_, stage) in QUANTITIES.items()
            if self.differences[name] > self.tolerances.get(stage, math.inf)
        ]

    @property
    def passed(self) -> bool:
        """Said and borne out by the numbers: a loss was compared, and in float64 nothing is above its tolerance."""
        return (
            self.told
            and not self.above
            and self.divergence is None
            and math.isfinite(self.differences["loss_max_rel"])
        )

    @property
    def digits(self) -> int:
        """Leading digits to which all losses agree: floor(-log10 of the largest relative difference)."""
        most, relative = DIGITS[self.precision], self.differences["loss_max_rel"]
        return most if relative == 0 else min(most, max(0, math.floor(-math.log10(relative))))

    @property
    def title(self) -> str:
        """The model; "(reduced)" where it is a small relative of the published one."""
        try:
            return model_title(self.model, config.spec_of(self.task, self.model, self.profile))
        except KeyError:
            return MODEL_TITLE[self.model]

    @property
    def failure(self) -> str:
        """Why it did not pass, in words."""
        if self.reason:
            return self.reason
        if self.divergence is not None and self.divergence.words:
            return self.divergence.words
        if self.above:
            names = listed([QUANTITIES[name][0].lower() for name in self.above])
            return f"largest differences above the tolerance: {names}"
        return "the training came to no end, or nothing was compared"


@dataclass(frozen=True)
class Mutation:
    """One default left alone on one side, and where the proof found it."""

    model: str
    framework: str  # the side that was changed
    name: str
    title: str
    about: str
    caught: bool
    harmless: bool  # known to change nothing beyond rounding: not to be found
    found: Divergence


@dataclass(frozen=True)
class Certificate:
    """Everything of `parity.json` and, where it is, `parity_steps.csv`."""

    data: str  # on which the models were trained; several where the rows are of several commands
    versions: tuple[str, ...]  # a line a framework
    rows: tuple[Row, ...]  # in the order of PRECISIONS (float64 first), MODELS and FRAMEWORKS
    mutations: tuple[Mutation, ...]  # in the order of config.DEFAULTS and MODELS
    steps: pd.DataFrame  # STEP_COLUMNS and STEP_NUMBERS; empty where there are none
    note: str  # what could not be used of the steps

    @property
    def precisions(self) -> list[str]:
        return list(dict.fromkeys(row.precision for row in self.rows))

    def of(self, precision: str) -> list[Row]:
        return [row for row in self.rows if row.precision == precision]


# --- reading ------------------------------------------------------------------------------------------------------


def read_certificate(directory: Path) -> tuple[Certificate | None, str]:
    """The proof beside a study; None with a sentence where its file cannot be used, without one where there is none."""
    return attached(directory / "parity.json", certificate_of, COMMAND)


def certificate_of(path: Path) -> Certificate:
    """Raises one of `attachments.ODD` for a file that is not what `compare.py parity` writes."""
    document = document_of(path)
    rows = [row_of(row) for row in rows_of(document, "rows")]
    mutations = [mutation_of(row) for row in rows_of({"mutations": [], **document}, "mutations")]
    if not rows and not mutations:
        raise StudyError("it holds neither a comparison nor a planted fault")
    order = list(config.DEFAULTS)
    steps, note = attached(
        path.parent / "parity_steps.csv", lambda at: table_of(at, STEP_COLUMNS, STEP_NUMBERS), COMMAND
    )
    trained_on = dict.fromkeys(row["data"] for row in rows_of(document, "rows") if row.get("data"))
    return Certificate(
        listed([str(data) for data in trained_on]) if trained_on else words_of(document, "data"),
        version_words(document.get("environment")),
        tuple(
            sorted(
                rows,
                key=lambda row: (
                    -PRECISIONS.index(row.precision),
                    list(MODELS).index(row.model),
                    FRAMEWORKS.index(row.framework),
                ),
            )
        ),
        tuple(
            sorted(
                mutations,
                key=lambda one: (
                    order.index(one.name) if one.name in order else len(order),
                    list(MODELS).index(one.model),
                ),
            )
        ),
        no_steps() if steps is None else steps,
        note,
    )


def row_of(row: Mapping[str, Any]) -> Row:
    divergence, floor = row.get("first_divergence"), row.get("floor") or {}
    return Row(
        one_of(row, "task", list(TASKS)),
        one_of(row, "model", list(MODELS)),
        one_of(row, "framework", FRAMEWORKS),
        one_of(row, "reference", FRAMEWORKS),
        one_of(row, "precision", tuple(DIGITS)),
        whole_of(row, "steps"),
        words_of(row, "profile"),
        whole_of(row, "image_size"),
        whole_of(row, "parameters"),
        whole_of(row, "batch_size"),
        number_of(row, "gradient_clip_norm"),
        whole_of(row, "head_steps"),
        {name: number_of(row, name) for name in QUANTITIES},
        {stage: number_of(row["tolerances"], stage) for stage in row["tolerances"]},
        {name: number_of(floor, name) for name in ("loss_max_rel", "logits_max_abs") if name in floor},
        words_of(floor, "of"),
        divergence_of(divergence) if divergence else None,
        None if row.get("clipped_steps") is None else whole_of(row, "clipped_steps"),
        row["passed"] is True,
        words_of(row, "reason"),
    )


def divergence_of(row: Mapping[str, Any]) -> Divergence:
    return Divergence(
        whole_of(row, "step"),
        words_of(row, "stage"),
        words_of(row, "layer"),
        words_of(row, "tensor"),
        number_of(row, "difference"),
        words_of(row, "words"),
    )


def mutation_of(row: Mapping[str, Any]) -> Mutation:
    return Mutation(
        one_of(row, "model", list(MODELS)),
        one_of(row, "framework", FRAMEWORKS),
        words_of(row, "name"),
        words_of(row, "title"),
        words_of(row, "about"),
        row["caught"] is True,
        row.get("harmless") is True,
        divergence_of(row),
    )


def no_steps() -> pd.DataFrame:
    texts = {name: pd.Series(dtype=str) for name in STEP_COLUMNS}
    return pd.DataFrame(texts | {name: pd.Series(dtype=float) for name in STEP_NUMBERS})
