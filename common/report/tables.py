"""Every table of the report as a DataFrame, written as CSV and, for papers, as LaTeX."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from common.config import SPLITS
from common.names import printable
from common.report.costs import TIMINGS, cost, number
from common.report.evidence import UNREADABLE, flatten
from common.report.reading import AnyComparison, Evidence, members
from common.report.scores import Scores
from common.results import defused, write_csv, write_page
from common.statistics import spread

SETTINGS = (
    "device",
    "threads",
    "precision",
    "environment",
    "variables",
    "spec",
    "recipe",
    "pretrained",
    "phases",
    "git_commit",
)


def score_table(comparisons: Sequence[tuple[AnyComparison, Scores]]) -> pd.DataFrame:
    rows = []
    for one, scores in comparisons:
        for score in scores.scores:
            numbers = {
                "mean": score.mean, "sd": score.sd, "minimum": score.minimum, "maximum": score.maximum,
                "ci_low": score.ci_low, "ci_high": score.ci_high,
            }  # fmt: skip
            rows.append({**keys(one), "framework": score.framework, "level": score.level, "metric": score.metric,
                         **numbers, **sizes(one, score.level, len(score.per_seed))})  # fmt: skip
    return pd.DataFrame(rows)


def difference_table(comparisons: Sequence[tuple[AnyComparison, Scores]]) -> pd.DataFrame:
    rows = []
    for one, scores in comparisons:
        for d in scores.differences:
            numbers = {"difference": d.difference, "sd": d.sd, "ci_low": d.ci_low, "ci_high": d.ci_high}
            rows.append({**keys(one), "comparison": d.name, "level": d.level, "metric": d.metric,
                         **numbers, **sizes(one, d.level, len(d.per_seed))})  # fmt: skip
    return pd.DataFrame(rows)


def keys(comparison: AnyComparison) -> dict[str, str]:
    return {"lane": comparison.lane, "task": comparison.task, "model": comparison.model}


def sizes(comparison: AnyComparison, level_name: str, seeds: int) -> dict[str, int]:
    patients, units = {one.name: (one.patients, len(one.unit)) for one in comparison.levels}[level_name]
    return {"seeds": seeds, "folds": len(comparison.folds), "patients": patients, "units": units}


def cost_table(comparisons: Sequence[AnyComparison]) -> pd.DataFrame:
    """Mean, sd, minimum and maximum over the runs of each framework."""
    rows = []
    for one in comparisons:
        for framework in one.frameworks:
            runs = [cost(record) for record in one.records if record.run.framework == framework]
            for name, (_, unit) in TIMINGS.items():
                values = [run[name] for run in runs if not math.isnan(run[name])]
                if values:
                    over = asdict(spread(values))
                    over["runs"] = over.pop("count")
                    rows.append({**keys(one), "framework": framework, "quantity": name, "unit": unit, **over})
    return pd.DataFrame(rows)


def run_table(evidence: Evidence) -> pd.DataFrame:
    """One row for each run that was asked for."""
    rows = []
    for record in evidence.record.runs:
        document, run = record.document, record.run
        choice, threshold = document.get("choice") or {}, document.get("threshold") or {}
        rows.append({
            "task": run.task, "model": run.model, "framework": run.framework, "lane": run.lane, "seed": run.seed,
            "fold": run.fold, "repeat": run.repeat, "status": document["status"],
            "reason": document.get("reason") or "",
            "chosen_epoch": number(choice.get("epoch")), "val_loss": number(choice.get("val_loss")),
            "threshold": number(threshold.get("value")), **cost(record), "command": document.get("command") or "",
        })  # fmt: skip
    rows += [
        {"task": run.task, "model": run.model, "framework": run.framework, "lane": run.lane, "seed": run.seed,
         "fold": run.fold, "repeat": run.repeat, "status": "not run", "reason": "", "command": ""}
        for run in evidence.missing
    ]  # fmt: skip
    return pd.DataFrame(rows)


def data_table(evidence: Evidence) -> pd.DataFrame:
    """Samples, patients and labels of each part, by task and fold; empty where the data files are missing."""
    try:
        joined = members(evidence)
    except UNREADABLE:
        return pd.DataFrame()
    labels = sorted(set(joined["label"]))
    rows = []
    for (task, fold), those in joined.groupby(["task", "fold"]):
        for name in (*SPLITS, *(["external"] if (those["split"] == "external").any() else [])):
            part = those[those["split"] == name]
            counted = {f"{label}_samples": int((part["label"] == label).sum()) for label in labels}
            counted |= {
                f"{label}_patients": part.loc[part["label"] == label, "patient"].nunique() for label in labels
            }
            sizes = {"samples": len(part), "patients": part["patient"].nunique()}
            rows.append({"task": task, "fold": fold, "split": name, **sizes, **counted})
    return pd.DataFrame(rows)


def left_out_table(evidence: Evidence) -> pd.DataFrame:
    """Pictures and masks that could not be read: what, id, path, reason."""
    rows = [
        {"what": what, **{name: str(row.get(name, "")) for name in ("id", "path", "reason")}}
        for what, key in (("image", "unreadable"), ("mask", "unreadable_masks"))
        for row in entries(evidence.audit, key)
    ]
    return pd.DataFrame(rows)


def doubtful_table(evidence: Evidence) -> pd.DataFrame:
    """Masks that were used although their reader was not sure of them: id, method, confidence, note."""
    names = ("id", "method", "confidence", "note")
    rows = entries(evidence.audit, "doubtful_masks")
    return pd.DataFrame([{name: str(row.get(name, "")) for name in names} for row in rows])


def entries(audit: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """A list of objects of the inventory; what is missing or of another shape is left out."""
    found = audit.get(key)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def setting_table(comparison: AnyComparison) -> pd.DataFrame:
    """One row a setting, one column a framework; several values of one framework are joined."""
    found: dict[str, dict[str, set[str]]] = {}
    for record in comparison.records:
        parts = {name: record.document.get(name) for name in SETTINGS}
        for name, value in flatten(parts).items():
            found.setdefault(name, {}).setdefault(record.run.framework, set()).add(value)
    frameworks = comparison.frameworks
    rows = []
    for name, values in found.items():
        shown = {framework: ", ".join(sorted(values.get(framework, {"–"}))) for framework in frameworks}
        rows.append({"setting": name, **shown})
    return pd.DataFrame(rows, columns=["setting", *frameworks])


def common_settings(tables: Sequence[pd.DataFrame]) -> set[str]:
    """The settings that have the same values in every table."""
    rows = [
        {str(row[0]): row[1:] for row in table.itertuples(index=False)} | {"": tuple(table.columns)}
        for table in tables
    ]
    if not rows or any(one[""] != rows[0][""] for one in rows):
        return set()
    return {name for name in rows[0] if name and all(one.get(name) == rows[0][name] for one in rows)}


def differing(settings: pd.DataFrame) -> pd.DataFrame:
    """The settings in which the frameworks differ."""
    return settings[[len(set(values)) > 1 for _, *values in settings.itertuples(index=False)]]


def write_table(directory: Path, name: str, table: pd.DataFrame, latex: bool = True) -> None:
    """Write NAME.csv and, unless told not to, NAME.tex (booktabs); a table without rows is not written."""
    if table.empty:
        return
    write_csv(directory / f"{name}.csv", table.map(shown))
    if latex:
        write_page(directory / f"{name}.tex", latex_of(table))


def shown(value: object) -> object:
    """Text that neither a spreadsheet runs nor a terminal obeys. Numbers stay numbers."""
    return defused(printable(value) if isinstance(value, str) else value)


LATEX_HEAD = "% \\usepackage[utf8]{inputenc}, \\usepackage{booktabs}\n"
LATEX_SIGNS = {  # that plain LaTeX does not know -> what it writes for them
    "\u2212": "$-$", "\u00b1": "$\\pm$", "\u00d7": "$\\times$", "\u2191": "$\\uparrow$",
    "\u2193": "$\\downarrow$", "\u2192": "$\\rightarrow$", "\u2265": "$\\geq$", "\u2264": "$\\leq$",
    "\u2026": "\\dots{}", "\u2013": "--", "\u00a0": "~", "\u25cf": "$\\bullet$",
}  # fmt: skip


def latex_of(table: pd.DataFrame) -> str:
    """The table for a paper: special characters escaped, numbers to four decimals, small ones with an exponent."""
    text = table.to_latex(index=False, escape=True, float_format=four_decimals, na_rep="--")
    for sign, written in LATEX_SIGNS.items():
        text = text.replace(sign, written)
    return LATEX_HEAD + text


def four_decimals(value: float) -> str:
    """0.1235; 1.2e-13 where four decimals would leave nothing."""
    return f"{value:.4f}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}"


def finite(value: float) -> float | None:
    """For JSON, which has no NaN; NumPy's scalars become Python's."""
    return float(value) if np.isfinite(value) else None
