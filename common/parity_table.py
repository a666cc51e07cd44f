"""Rows of the proof: `parity.json` and `parity_steps.csv`, and the table that a person sees.

Rows accumulate: a new one replaces that of the same model, framework and precision, and leaves the others.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from common import config
from common.config import FRAMEWORKS, MODELS, NOTICE, PRECISIONS, ModelSpec, Recipe
from common.errors import StudyError
from common.files import read_typed_table
from common.parity import Floor, by_step, drift, first_divergence, largest, total_norm
from common.parity_words import Divergence, Finding
from common.results import read_json, write_csv, write_json
from common.trace import Trace, stretches

FORMAT = 1
REFERENCE = "torch"  # with one thread
FILE, STEPS_FILE = "parity.json", "parity_steps.csv"
STEP_COLUMNS = ("model", "framework", "precision", "step", "loss", "loss_rel", "gradients_rel")
# Numbers of a row -> title, and the stage whose largest difference they are
MEASURES = {
    "outputs_max_rel": ("layer outputs", "outputs"),
    "forward_max_abs": ("logits before, absolute", "forward"),
    "loss_max_rel": ("loss", "loss"),
    "gradients_max_rel": ("gradients' norms", "gradients"),
    "weights_max_rel": ("weights", "weights"),
    "statistics_max_rel": ("batch norm's statistics", "statistics"),
    "logits_max_abs": ("logits after, absolute", "logits"),
}


# --- one training ---------------------------------------------------------------------------------------------------


def describe_training(
    task: str, spec: ModelSpec, recipe: Recipe, profile: str, precision: str, steps: int, data: str
) -> dict[str, Any]:
    """What was trained, as every row says it."""
    head = [one.steps for one in stretches(recipe, steps) if one.trainable == "head"]
    return {
        "task": task,
        "model": spec.name,
        "reference": REFERENCE,
        "precision": precision,
        "steps": steps,
        "profile": profile,
        "image_size": spec.image_size,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "gradient_clip_norm": recipe.gradient_clip_norm,
        "head_steps": sum(head),
        "data": data,
    }


def floor_of(findings: Iterable[Sequence[Finding]]) -> Floor | None:
    """The largest drift of the reference from itself; None where it was not traced again."""
    found = list(findings)
    if not found:
        return None
    losses, logits = ([largest(one, stage) for one in found] for stage in ("loss", "logits"))
    return Floor(max(losses), max(logits))


def judged_row(findings: Sequence[Finding], precision: str, floor: Floor | None) -> dict[str, Any]:
    """The numbers of a training's row, and where it parts from the reference, if it does."""
    tolerances = config.PARITY_TOLERANCES[precision]
    divergence = first_divergence(findings, tolerances, first_step_only=precision != "float64")
    if divergence is None and floor is not None:
        factor = config.PARITY_FLOOR_FACTOR
        limits = Floor(
            max(factor * floor.loss_max_rel, tolerances["loss"]),
            max(factor * floor.logits_max_abs, tolerances["logits"]),
        )
        divergence = drift(findings, floor, limits)
    compared = {one.stage for one in findings}
    numbers = {
        name: _number(largest(findings, stage)) if stage in compared else None
        for name, (_, stage) in MEASURES.items()
    }
    threads = " and ".join(map(str, config.PARITY_FLOOR_THREADS))
    described = floor and {
        **{name: _number(value) for name, value in config.to_json(floor).items()},
        "of": f"{REFERENCE} with {threads} threads, and in float64, against itself",
    }
    return {
        **numbers,
        "tolerances": tolerances,
        "floor": described,
        "first_divergence": divergence and divergence_to_json(divergence),
        "passed": divergence is None,
        "reason": None,
    }


def failed_row(reason: str, precision: str) -> dict[str, Any]:
    """The numbers of a row whose training came to no end."""
    return {
        **dict.fromkeys(MEASURES),
        "tolerances": config.PARITY_TOLERANCES[precision],
        "floor": None,
        "first_divergence": None,
        "passed": False,
        "reason": reason,
    }


def divergence_to_json(divergence: Divergence) -> dict[str, Any]:
    return {**dataclasses.asdict(divergence), "difference": _number(divergence.difference)}


def clipped_steps(trace: Trace, recipe: Recipe) -> int:
    """At how many of the steps with known gradients clipping changed them."""
    limit = recipe.gradient_clip_norm
    return sum(total_norm(norms) > limit for norms in trace.gradients.values()) if limit else 0


def step_rows(
    model: str, framework: str, precision: str, trace: Trace, findings: Sequence[Finding]
) -> pd.DataFrame:
    """STEP_COLUMNS of one training; gradients are empty where they were not kept."""
    steps = range(1, len(trace.losses) + 1)
    columns: dict[str, Any] = {"step": list(steps), "loss": trace.losses}
    for stage in ("loss", "gradients"):
        columns[f"{stage}_rel"] = pd.Series(by_step(findings, stage), dtype=float).reindex(steps).to_numpy()
    table = pd.DataFrame(columns).assign(model=model, framework=framework, precision=precision)
    return table[list(STEP_COLUMNS)]


def _number(value: float) -> float | None:
    """JSON knows no infinity."""
    return value if math.isfinite(value) else None


# --- files ----------------------------------------------------------------------------------------------------------


def read_parity(directory: Path) -> dict[str, Any]:
    """`parity.json` as it stands, or an empty one. StudyError where another program wrote it."""
    path = directory / FILE
    if not path.exists():
        return {
            "format": FORMAT,
            "notice": NOTICE,
            "data": "",
            "environment": {},
            "rows": [],
            "mutations": [],
        }
    document = read_json(path)
    if document.get("format") != FORMAT:
        raise StudyError(
            f"{path} has format {document.get('format')!r}, and this version writes {FORMAT}; choose another --out"
        )
    return document


def write_parity(
    directory: Path,
    data: str,
    environment: Mapping[str, Mapping[str, str]],
    rows: Sequence[Mapping[str, Any]] = (),
    mutations: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Put rows into `parity.json`, those of the same training replaced, in the order of models and frameworks."""
    document = read_parity(directory)
    document["data"] = data
    document["environment"] |= environment
    document["rows"] = _replaced(document["rows"], rows, ("model", "framework", "precision"))
    document["mutations"] = _replaced(document["mutations"], mutations, ("model", "framework", "name"))
    write_json(directory / FILE, document)


def write_steps(directory: Path, tables: Sequence[pd.DataFrame]) -> None:
    """Put trainings into `parity_steps.csv`, the same ones replaced."""
    path, key = directory / STEPS_FILE, list(STEP_COLUMNS[:3])
    fresh = pd.concat(tables)
    if path.exists():
        numbers = STEP_COLUMNS[len(key) + 1 :]
        before = read_typed_table(path, STEP_COLUMNS, {"step": int} | dict.fromkeys(numbers, float))
        known = pd.MultiIndex.from_frame(fresh[key].drop_duplicates())
        fresh = pd.concat([before[~pd.MultiIndex.from_frame(before[key]).isin(known)], fresh])
    write_csv(path, fresh)


def _replaced(
    before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]], key: tuple[str, ...]
) -> list[Mapping[str, Any]]:
    kept = {tuple(row[name] for name in key): row for row in (*before, *now)}
    orders = {"model": tuple(MODELS), "framework": FRAMEWORKS, "precision": PRECISIONS}
    known = tuple(config.DEFAULTS)

    def place(row: Mapping[str, Any]) -> tuple[int, ...]:
        ranks = [(orders.get(name, known), row[name]) for name in key]
        return tuple(order.index(value) if value in order else len(order) for order, value in ranks)

    return sorted(kept.values(), key=place)


# --- for a person ---------------------------------------------------------------------------------------------------


def tables(rows: Sequence[Mapping[str, Any]]) -> Iterator[Text | Table]:
    """Of each model and precision the largest differences of every framework, beside what counts as rounding."""
    for model, precision in dict.fromkeys((row["model"], row["precision"]) for row in rows):
        group = [row for row in rows if (row["model"], row["precision"]) == (model, precision)]
        one = group[0]
        title = f"{model}, {precision}, {one['steps']} steps: largest difference from PyTorch"
        yield Text(title, style="bold")
        table = Table(box=SIMPLE_HEAD)
        table.add_column("")
        table.add_column("rounding", justify="right")
        for row in group:
            table.add_column(row["framework"].replace("-", "\n", 1), justify="right")
        for name, (head, stage) in MEASURES.items():
            limit = one["tolerances"].get("logits" if stage == "forward" else stage)
            table.add_row(head, _power(limit), *(_power(row[name]) for row in group))
        table.add_row("", "", *("agrees" if row["passed"] else "DIFFERS" for row in group))
        yield table


def _power(value: float | None) -> str:
    """`3e-12`; empty where there is none."""
    return "" if value is None else f"{value:.0e}".replace("e-0", "e-") if value else "0"


def mutations_table(mutations: Sequence[Mapping[str, Any]]) -> Table:
    """Where each default that was left alone on one side was found first."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("model", no_wrap=True)
    table.add_column("left alone", no_wrap=True)
    table.add_column("step", justify="right")
    table.add_column("found in", overflow="fold")
    table.add_column("by", justify="right")
    for one in mutations:
        place = ".".join(filter(None, (one["layer"], one["tensor"])))
        found = f"{one['stage']} {place}".strip() if one["caught"] else "nothing changes"
        mark = "" if one["caught"] or one["harmless"] else " (NOT FOUND)"
        name = f"{one['name']} (torch)" if one["framework"] == REFERENCE else one["name"]
        size = "" if one["stage"] == "batch" else _power(one["difference"])
        table.add_row(one["model"], name, str(one["step"] or ""), found + mark, size)
    return table


def notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a person should know besides the table: divergences in words, failures, a clipping that never was."""
    said = []
    for row in rows:
        name = f"{row['model']} {row['framework']}"
        if row["reason"]:
            said.append(f"{name}: {row['reason']}")
        elif row["first_divergence"]:
            said.append(f"{name}: {row['first_divergence']['words']}")
        if row.get("clipped_steps") == 0 and row["gradient_clip_norm"]:
            said.append(
                f"{name}: no gradient was longer than {row['gradient_clip_norm']:g}, so clipping was never tried"
            )
        if row["floor"] and row["passed"]:
            said.append(
                f"{name}: losses at most {row['loss_max_rel']:.0e} apart, {row['floor']['of']} "
                f"{row['floor']['loss_max_rel']:.0e}"
            )
    return said
