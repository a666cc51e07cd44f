"""The lock-step proof, carried out: every training in a process of its own, compared when both sides are done.

While it goes on `OUT/parity/` holds the data, the traces and the workers' words; data and traces are removed at the
end, for a published model leaves gigabytes.
"""

from __future__ import annotations

import dataclasses
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from common import config
from common.config import BACKBONES, NOTICE, PARITY_TASKS, ModelSpec, Recipe, Study
from common.errors import StudyError
from common.holding import hold
from common.parity import compare_traces
from common.parity_table import (
    REFERENCE,
    clipped_steps,
    describe_training,
    failed_row,
    floor_of,
    judged_row,
    notes,
    read_parity,
    step_rows,
    tables,
    write_parity,
    write_steps,
)
from common.parity_words import Finding
from common.progress import CountProgress
from common.results import StudyRecord, read_json
from common.study import describe_source, prepare_study
from common.trace import read_trace
from common.tracing import Side, trace_directory, trace_sides


@dataclass(frozen=True)
class Asked:
    """What is to be proved."""

    models: tuple[str, ...]
    frameworks: tuple[str, ...]  # beside the reference
    data: tuple[str, ...] = ()  # folders; empty: the phantom
    profile: str = "standard"
    precision: str = "float64"
    steps: int = config.PARITY_STEPS
    device: str = "cpu"
    workers: int = 1
    every_model: bool = (
        True  # the models are all there are: those whose task the data cannot serve are left out
    )


def training_of(model: str, profile: str) -> tuple[ModelSpec, Recipe]:
    """A model of a profile on a small image, with everything switched on that has to be proved: dropout and stochastic
    depth, clipping, and for a backbone the phase in which the head learns alone.
    """
    task = PARITY_TASKS[model]
    spec = dataclasses.replace(config.spec_of(task, model, profile), image_size=config.PARITY_IMAGE_SIZE)
    if isinstance(spec, config.ConvNextSpec):
        spec = dataclasses.replace(spec, stochastic_depth=config.ConvNextSpec().stochastic_depth)
    weights = "imagenet" if model in BACKBONES else "random"
    recipe = config.recipe_of(task, model, profile, weights=weights)
    return spec, dataclasses.replace(recipe, gradient_clip_norm=config.PARITY_CLIP_NORM)


def prepare(asked: Asked, directory: Path, console: Console) -> StudyRecord:
    """The study that every traced training reads: pixels, split, specs and recipes."""
    trainings = {
        f"{PARITY_TASKS[model]}/{model}": training_of(model, asked.profile) for model in asked.models
    }
    study = Study(
        data=asked.data,
        profile=asked.profile,
        patients=0 if asked.data else config.PARITY_PATIENTS,
        tasks=tuple(dict.fromkeys(PARITY_TASKS[model] for model in asked.models)),
        skippable=asked.every_model,
        frameworks=(REFERENCE, *asked.frameworks),
        seeds=1,
        device=asked.device,
        precision=asked.precision,
        accepted=config.AUDIT_REFUSALS,  # steps are compared, not scores: no fault of the data makes that invalid
        specs={key: spec for key, (spec, _) in trainings.items()},
        recipes={key: recipe for key, (_, recipe) in trainings.items()},
    )
    with CountProgress(console, "reading pictures") as progress:
        return prepare_study(study, directory, progress.tell)


def require_provable(precision: str) -> None:
    """Raise StudyError for a precision in which equal algorithms cannot be told from unequal ones."""
    if precision not in config.PARITY_TOLERANCES:
        known = " or ".join(sorted(config.PARITY_TOLERANCES, reverse=True))
        raise StudyError(
            f"--precision {precision} proves nothing: its numbers have 2 to 3 digits, and faults hide in the others; "
            f"give {known}"
        )


def prove(asked: Asked, directory: Path, console: Console) -> bool:
    """Trace what is asked for and write `parity.json` and `parity_steps.csv`; whether everything agrees.

    Raises StudyError for what the user can mend.
    """
    require_provable(asked.precision)
    read_parity(directory)  # lest another program's file be found out at the end
    workshop = directory / "parity"
    study, traces = workshop / "study", workshop / "traces"
    with hold(workshop):
        try:
            remove(study, traces)
            record = prepare(asked, study, console)
            proof = Proof(asked, record, traces, directory)
            trace_sides(proof.sides, record, asked.steps, asked.workers, traces, console, proof.settle)
        finally:
            remove(study, traces)
    for shown in tables(proof.rows):
        console.print(shown)
    for note in notes(proof.rows):
        console.print(note, markup=False)
    console.print(f"{describe_source(record.study)}. {NOTICE}", markup=False)
    return all(row["passed"] for row in proof.rows)


def remove(*folders: Path) -> None:
    """Delete folders, where they are there."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def floors(model: str) -> list[Side]:
    """The reference again, rounding otherwise: with other numbers of threads, which may split sums in other places, and
    in float64, which hardly rounds at all. How far it drifts from itself is how far another may drift from it.
    """
    threads = [Side(model, REFERENCE, threads=threads) for threads in config.PARITY_FLOOR_THREADS]
    return [*threads, Side(model, REFERENCE, precision="float64")]


class Proof:
    """What the sides have left so far: each is compared, and its trace removed, as soon as the reference of its model
    is there; when all sides of a model are in, its rows are written.
    """

    def __init__(self, asked: Asked, record: StudyRecord, traces: Path, directory: Path) -> None:
        self._asked, self._record, self._traces, self._directory = asked, record, traces, directory
        self._lock = threading.Lock()
        self._ended: dict[Side, str] = {}  # and why, where it failed
        self._findings: dict[Side, Sequence[Finding]] = {}
        self._documents: dict[Side, dict[str, Any]] = {}
        self._steps: list[pd.DataFrame] = []
        self._sides = {
            model: [
                Side(model, REFERENCE),
                *(floors(model) if asked.precision != "float64" else ()),
                *(Side(model, framework) for framework in asked.frameworks),
            ]
            for _, model in record.study.pairs
        }
        self.rows: list[dict[str, Any]] = []

    @property
    def sides(self) -> list[Side]:
        """All that have to be traced; the reference of a model comes first."""
        return [side for sides in self._sides.values() for side in sides]

    def settle(self, side: Side, reason: str) -> None:
        """A side ended; `reason` says why, if it failed. May be called from several threads."""
        with self._lock:
            self._ended[side] = reason
            reference, *others = self._sides[side.model]
            if self._ended.get(reference) == "":
                for other in others:
                    if self._ended.get(other) == "" and other not in self._findings:
                        self._compare(reference, other)
            if all(one in self._ended for one in (reference, *others)):
                self._write(reference, others)
                remove(self._traces / side.model)

    def _compare(self, reference: Side, other: Side) -> None:
        ours, theirs = (trace_directory(self._traces, side) for side in (reference, other))
        trace = read_trace(theirs)
        findings = compare_traces(read_trace(ours), trace)
        self._findings[other] = findings
        self._documents[other] = read_json(theirs / "trace.json")
        self._steps.append(step_rows(other.model, other.title, self._asked.precision, trace, findings))
        remove(theirs)

    def _write(self, reference: Side, others: Sequence[Side]) -> None:
        asked, model = self._asked, reference.model
        key = f"{PARITY_TASKS[model]}/{model}"
        spec, recipe = self._record.study.specs[key], self._record.study.recipes[key]
        source = describe_source(self._record.study).removeprefix("data: ")
        training = describe_training(
            PARITY_TASKS[model], spec, recipe, asked.profile, asked.precision, asked.steps, source
        )
        environment = {}
        if self._ended[reference] == "":
            folder = trace_directory(self._traces, reference)
            self._documents[reference] = read_json(folder / "trace.json")
            training["clipped_steps"] = clipped_steps(read_trace(folder), recipe)
            environment[REFERENCE] = self._documents[reference]["environment"]
        again = [side for side in others if side.framework == REFERENCE]
        floor = floor_of(self._findings[side] for side in again if side in self._findings)
        rows = []
        for side in others:
            if side in again:
                continue
            row = {**training, "framework": side.framework, "parameters": None, "seconds": None}
            failed = [one for one in (reference, *again, side) if self._ended[one]]
            if failed:
                row |= failed_row(f"{failed[0].title}: {self._ended[failed[0]]}", asked.precision)
            else:
                document = self._documents[side]
                environment[side.framework] = document["environment"]
                row |= {name: document[name] for name in ("parameters", "seconds")}
                row |= judged_row(self._findings[side], asked.precision, floor)
            rows.append(row)
        self.rows += rows
        write_parity(self._directory, source, environment, rows=rows)
        if self._steps:
            write_steps(self._directory, self._steps)
