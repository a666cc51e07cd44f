"""A proof that cannot fail proves nothing: each default is left alone on one side, and the proof has to find it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from common import config
from common.config import DEFAULTS, NOTICE, defaults_of, with_defaults
from common.holding import hold
from common.parity import compare_traces, first_divergence, largest
from common.parity_study import Asked, prepare, remove
from common.parity_table import REFERENCE, divergence_to_json, mutations_table, read_parity, write_parity
from common.parity_words import Finding
from common.results import StudyRecord
from common.study import describe_source
from common.trace import finished, read_trace
from common.tracing import Side, trace_directory, trace_sides

TOLERANCES = config.PARITY_TOLERANCES["float64"]


def where_planted(record: StudyRecord, key: str, other: str) -> dict[str, str]:
    """Name of each default that matters for a task/model -> the framework that it is left to: the other one, or the
    reference where only that departs from lockstep.
    """
    spec, recipe = record.study.specs[key], record.study.recipes[key]
    lockstep = with_defaults(spec, recipe, other, ())
    return {
        one.name: other if with_defaults(spec, recipe, other, (one.name,)) != lockstep else REFERENCE
        for one in defaults_of(spec, recipe)
    }


def plant(asked: Asked, directory: Path, console: Console) -> bool:
    """Plant every default that matters in each of the models and write what was found to `parity.json`; whether
    all were found that change anything, and the two sides agree without.

    In float64, on the small models of PARITY_MUTATION_PROFILE; the other side is the first framework asked for.
    """
    read_parity(directory)
    other = asked.frameworks[0]
    asked = dataclasses.replace(
        asked,
        profile=config.PARITY_MUTATION_PROFILE,
        steps=config.PARITY_MUTATION_STEPS,
        precision="float64",
        frameworks=(other,),
    )
    workshop = directory / "parity"
    study, traces = workshop / "study", workshop / "traces"
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    with hold(workshop):
        try:
            remove(study, traces)
            record = prepare(asked, study, console)
            planted = {
                model: where_planted(record, f"{task}/{model}", other) for task, model in record.study.pairs
            }
            sides = [
                Side(
                    model,
                    framework,
                    names=((), *((name,) for name, in_ in where.items() if in_ == framework)),
                )
                for model, where in planted.items()
                for framework in (REFERENCE, other)
            ]
            lock, ended = threading.Lock(), dict[Side, str]()

            def settle(side: Side, reason: str) -> None:
                with lock:
                    ended[side] = reason
                    pair = [one for one in sides if one.model == side.model]
                    if all(one in ended for one in pair):
                        faults.extend(f"{one.model} {one.title}: {ended[one]}" for one in pair if ended[one])
                        judged, differ = _judge_model(pair, planted[side.model], traces)
                        rows.extend(judged)
                        faults.extend(differ)
                        remove(traces / side.model)

            trace_sides(sides, record, asked.steps, asked.workers, traces, console, settle)
        finally:
            remove(study, traces)
    source = describe_source(record.study)
    write_parity(directory, source.removeprefix("data: "), {}, mutations=rows)
    console.print("Each default left alone on one side, and where that is found first", style="bold")
    console.print(mutations_table(rows))
    for fault in faults:
        console.print(fault, markup=False)
    console.print(f"{source}. {NOTICE}", markup=False)
    return not faults and all(row["caught"] or row["harmless"] for row in rows)


def _judge_model(
    pair: Sequence[Side], planted: Mapping[str, str], traces: Path
) -> tuple[list[dict[str, Any]], list[str]]:
    """A row of "mutations" for each planted default that was traced, and how the two sides differ without any."""
    folders = [trace_directory(traces, side) for side in pair]
    if not all(finished(folder) for folder in folders):
        return [], []
    clean = [read_trace(folder) for folder in folders]
    divergence = first_divergence(compare_traces(*clean), TOLERANCES)
    rows = []
    for name, where in planted.items():
        place = [side.framework for side in pair].index(where)
        folder = trace_directory(traces, pair[place], (name,))
        if finished(folder):
            reference, candidate = (
                read_trace(folder) if place == number else one for number, one in enumerate(clean)
            )
            rows.append(mutation_row(pair[0].model, name, where, compare_traces(reference, candidate)))
    return rows, [f"{pair[0].model}, nothing planted: {divergence.words}"] if divergence else []


def mutation_row(model: str, name: str, framework: str, findings: Sequence[Finding]) -> dict[str, Any]:
    """A row of "mutations": where a default that was left alone on the framework's side was found, if it was."""
    default, divergence = DEFAULTS[name], first_divergence(findings, TOLERANCES)
    row: dict[str, Any] = {
        "model": model,
        "framework": framework,
        "name": name,
        "title": default.title,
        "about": default.about,
        "harmless": name in config.PARITY_HARMLESS,
        "caught": divergence is not None,
    }
    if divergence is None:
        words = f"nothing changes: the losses differ by {largest(findings, 'loss'):.0e} of their size"
        return row | {"step": 0, "stage": "", "layer": "", "tensor": "", "difference": None, "words": words}
    found = divergence_to_json(divergence)
    return row | {key: found[key] for key in ("step", "stage", "layer", "tensor", "difference", "words")}
