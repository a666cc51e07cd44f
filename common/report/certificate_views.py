"""The proof as the page shows it: tables, marks and the curve of the losses' differences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from common import config
from common.report.certificate import (
    COMMAND,
    DIGITS,
    QUANTITIES,
    Certificate,
    Mutation,
    Row,
    read_certificate,
)
from common.report.certificate_words import (
    beside_the_runs,
    caught_words,
    missed_faults,
    verdicts,
    what_was_done,
)
from common.report.plotting import DASHES, INK, OTHER, Picture, colour, finish, new_figure, style
from common.report.terms import FRAMEWORK_TITLE, MODEL_TITLE
from common.report.wording import MINUS, plural, tiny

LEAST = {"float32": 1e-9, "float64": 1e-18}  # a difference of exactly 0 is drawn here: a log axis has no 0

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class ProofSection:
    """What the templates show of the proof."""

    verdicts: tuple[tuple[bool, str], ...]
    about: tuple[str, ...]
    groups: tuple[dict[str, Any], ...]  # a precision each: its table and figures
    faults: dict[str, Any] | None  # the table of planted faults
    versions: tuple[str, ...]
    note: str
    parity: pd.DataFrame  # tables/parity.csv
    mutations: pd.DataFrame  # tables/mutations.csv
    command: str = COMMAND


def proof_section(directory: Path, study: config.Study, runs: int) -> tuple[ProofSection | None, str]:
    """The proof beside a study of so many complete runs; writes the figures. None, with a sentence where a file was
    there and could not be used.
    """
    certificate, fault = read_certificate(directory)
    if certificate is None:
        return None, fault
    beside = beside_the_runs(certificate, study) if runs else ""
    return ProofSection(
        tuple(verdicts(certificate)),
        (*what_was_done(certificate), *([beside] if beside else [])),
        tuple(group(certificate, precision, directory / "figures") for precision in certificate.precisions),
        fault_view(certificate.mutations) if certificate.mutations else None,
        certificate.versions,
        certificate.note,
        parity_table(certificate.rows),
        mutation_table(certificate.mutations),
    ), ""


# --- tables -------------------------------------------------------------------------------------------------------


def group(certificate: Certificate, precision: str, figures: Path) -> dict[str, Any]:
    """The table of one precision: a group of rows a model, in it a row a framework; and its figures."""
    rows = certificate.of(precision)
    floor = any(row.floor for row in rows)
    return {
        "precision": precision,
        "columns": [
            {"title": title, "tolerance": tolerance_words(rows, stage)}
            for title, stage in QUANTITIES.values()
        ],
        "floor": floor,
        "first_step": precision != "float64",
        "models": [
            {
                "title": those[0].title,
                "about": model_words(those[0]),
                "rows": [row_view(row) for row in those],
            }
            for those in ([row for row in rows if row.model == model] for model in config.MODELS)
            if those
        ],
        "pictures": step_figures(certificate, precision, figures),
    }


def model_words(row: Row) -> str:
    return f"{row.parameters:,} parameters, {row.image_size} px, {plural(row.steps, 'step')}"


def tolerance_words(rows: Sequence[Row], stage: str) -> str:
    """The tolerance of a stage where all rows share it; a row's own stands in the CSV."""
    found = {row.tolerances.get(stage, math.nan) for row in rows}
    value = found.pop()
    return f"≤ {value:.0e}".replace("-", MINUS) if not found and math.isfinite(value) else ""


def row_view(row: Row) -> dict[str, Any]:
    at_fault = set(row.above) | {
        name
        for name, (_, stage) in QUANTITIES.items()
        if row.divergence is not None and stage == row.divergence.stage
    }
    return {
        "framework": row.framework,
        "passed": row.passed,
        "digits": plural(row.digits, "digit") if row.precision == "float64" and row.passed else "",
        "failure": "" if row.passed else row.failure,
        "cells": [
            {
                "key": f"lockstep/{row.model}/{row.framework}/{row.precision}/{name}",
                "value": tiny(value),
                "wrong": name in at_fault and not row.passed,
                "digits": name == "loss_max_rel",
                "floor": tiny(row.floor[name]) if name in row.floor else "",
            }
            for name, value in row.differences.items()
        ],
        "floor": row.floor_of,
    }


def fault_view(mutations: Sequence[Mutation]) -> dict[str, Any]:
    """A row a planted fault, a column a model: whether and where it was found."""
    models = [model for model in config.MODELS if any(one.model == model for one in mutations)]
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    usual = Counter(one.framework for one in mutations).most_common(1)[0][0]
    for one in mutations:
        row = rows.setdefault(
            (one.name, one.title),
            {"title": one.title or one.name, "about": one.about.replace("`", ""), "cells": {}},
        )
        row["cells"].setdefault(one.model, []).append(fault_cell(one, usual))
    return {
        "words": caught_words(mutations),
        "side": FRAMEWORK_TITLE[usual],
        "missed": len(missed_faults(mutations)),
        "models": [MODEL_TITLE[model] for model in models],
        "rows": [
            {**row, "cells": [row["cells"].get(model, []) for model in models]} for row in rows.values()
        ],
    }


def fault_cell(one: Mutation, usual: str) -> dict[str, Any]:
    """Where a fault was found; the side it was planted on only where that is not the usual one."""
    found = one.found
    by = size_words(found.difference) if found.stage != "batch" else ""  # a batch is equal or it is not
    details = [found.place, by] if one.caught else []
    side = f"in {FRAMEWORK_TITLE[one.framework]}" if one.framework != usual else ""
    return {
        "caught": one.caught,
        "harmless": one.harmless,
        "where": f"step {found.step}, {found.stage}"
        if one.caught
        else "changes nothing"
        if one.harmless
        else "missed",
        "details": [text for text in (*details, side) if text],
        "words": found.words,
    }


def size_words(difference: float) -> str:
    """How far off; empty where not recorded."""
    return "" if math.isnan(difference) else f"by {tiny(difference)}"


def parity_table(rows: Sequence[Row]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                **{name: getattr(row, name) for name in (
                    "task", "model", "framework", "reference", "precision", "steps", "profile", "image_size",
                    "parameters", "batch_size", "gradient_clip_norm", "head_steps",
                )},
                **row.differences,
                **{f"{stage}_tolerance": row.tolerances.get(stage, math.nan) for _, stage in QUANTITIES.values()},
                **{f"floor_{name}": row.floor.get(name, math.nan) for name in ("loss_max_rel", "logits_max_abs")},
                "passed": row.passed,
                "failure": "" if row.passed else row.failure,
            }
            for row in rows
        ]
    )  # fmt: skip


def mutation_table(mutations: Sequence[Mutation]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                **{name: getattr(one, name) for name in ("model", "framework", "name", "title", "caught", "harmless")},
                **{name: getattr(one.found, name) for name in ("step", "stage", "layer", "tensor", "difference")},
                "words": one.found.words,
            }
            for one in mutations
        ]
    )  # fmt: skip


# --- figures ------------------------------------------------------------------------------------------------------


def step_figures(certificate: Certificate, precision: str, directory: Path) -> list[Picture]:
    """How far the loss of each step is from the reference's: a figure a model, on axes of one scale."""
    steps, rows = certificate.steps, certificate.of(precision)
    steps = steps[(steps["precision"] == precision) & steps["model"].isin([row.model for row in rows])]
    steps = steps[np.isfinite(steps["step"]) & np.isfinite(steps["loss_rel"])]
    if steps.empty:
        return []
    limits = [limit for row in rows if (limit := limit_of(row))]
    least, most = LEAST[precision], max(1e-3 if precision == "float32" else 1e-8, *steps["loss_rel"], *limits)
    with style():
        return [
            step_figure(model, precision, steps[steps["model"] == model], rows, (least, 3 * most), directory)
            for model in config.MODELS
            if (steps["model"] == model).any()
        ]


def limit_of(row: Row) -> float:
    """What the losses of a whole training are judged by; 0 where the row does not say."""
    if row.precision == "float64":
        limit = row.tolerances.get("loss", 0.0)
    else:
        limit = config.PARITY_FLOOR_FACTOR * row.floor.get("loss_max_rel", 0.0)
    return limit if math.isfinite(limit) else 0.0


def step_figure(
    model: str,
    precision: str,
    steps: pd.DataFrame,
    rows: Sequence[Row],
    reach: tuple[float, float],
    directory: Path,
) -> Picture:
    """One model: a line a framework, in grey the reference from itself, dotted what a training is judged by."""
    figure, axes = new_figure(4.3, 2.9)
    words, greys = [], cycle(("-", (0, (3, 1.5))))
    for framework, line in steps.sort_values("step").groupby("framework", sort=False):
        floor = framework not in config.FRAMEWORKS
        axes.plot(
            line["step"], line["loss_rel"].clip(lower=reach[0]), label=framework,
            color=OTHER if floor else colour(str(framework)), linewidth=1.2 if floor else 1.8,
            linestyle=next(greys) if floor else DASHES.get(str(framework), "-"), zorder=1.5 if floor else 2,
        )  # fmt: skip
        words.append(f"{framework} at most {tiny(float(line['loss_rel'].max()))}")
    limits = {limit for row in rows if row.model == model and (limit := limit_of(row))}
    for limit in limits:
        axes.axhline(limit, color=INK, alpha=0.6, linewidth=1, linestyle=":")
    axes.set(yscale="log", ylim=reach, xlabel="Step", ylabel="Loss, relative difference")
    axes.yaxis.set_major_locator(LogLocator(numticks=7))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(power_of_ten))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=2, columnspacing=1.2)
    judged = (
        "Dotted: the tolerance."
        if precision == "float64"
        else "Grey: the reference from itself with other numbers of threads and in float64. Dotted: "
        f"{config.PARITY_FLOOR_FACTOR:g} times that, the limit."
    )
    return finish(
        figure, directory, f"lockstep-{precision}-{model}", f"{MODEL_TITLE[model]}, {precision}",
        f"Lower is closer; {precision} has {DIGITS[precision]} digits. A loss that is equal to the last bit lies on "
        f"the lower edge. {judged if limits else ''}".rstrip(),
        f"Relative difference of the loss to the reference's by step, {MODEL_TITLE[model]} in {precision}: "
        f"{'; '.join(words)}.",
        steps,
    )  # fmt: skip


def power_of_ten(value: float, _place: int | None = None) -> str:
    """10⁻³ as plain text: as a formula it takes Matplotlib longer than the rest of the figure."""
    return f"10{str(round(math.log10(value))).translate(RAISED)}" if value > 0 else ""
