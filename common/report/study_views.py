"""What a whole study shares, as the page shows it: data, checks, settings; each thing once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from common.config import TASKS
from common.report.checks import Check
from common.report.tables import common_settings, differing
from common.report.wording import listed, plural


def data_view(table: pd.DataFrame) -> dict[str, Any]:
    """The parts of the data: a group of rows a task and fold, tasks that use the same samples as one; labels as they
    stand in the sample table.
    """
    labels = [str(name).removesuffix("_samples") for name in table.columns if str(name).endswith("_samples")]
    numbers = [name for name in table.columns if name not in ("task", "fold")]
    alike: dict[str, list[str]] = {}  # what a task's rows say -> the tasks
    for task in TASKS:
        part = table[table["task"] == task] if len(table) else table
        if len(part):
            alike.setdefault(part[["fold", *numbers]].to_csv(index=False), []).append(task)
    groups = []
    for tasks in alike.values():
        part = table[table["task"] == tasks[0]]
        for fold, those in part.groupby("fold"):
            key = f"data/{tasks[0]}/fold{fold}"
            rows = [data_row(row, labels, key) for row in those.to_dict("records")]
            groups.append({"tasks": listed(tasks), "fold": fold, "rows": rows})
    first = [group for group in groups if group["fold"] == groups[0]["fold"]]
    return {"labels": labels, "groups": groups, "shown": first, "folds": len(groups) > len(first)}


def data_row(row: dict[Any, Any], labels: list[str], key: str) -> dict[str, Any]:
    counted = [
        {"name": label, **{grain: f"{row[f'{label}_{grain}']:,}" for grain in ("samples", "patients")}}
        for label in labels
    ]
    return {
        "key": f"{key}/{row['split']}",
        "split": row["split"],
        "samples": f"{row['samples']:,}",
        "patients": f"{row['patients']:,}",
        "labels": counted,
    }


MASK_ORIGIN = {
    "file": "from a file",
    "overlay": "recovered from a picture with the lesion painted on",
    "drawn": "drawn with the phantom",
    "none": "known to have no lesion",
    "unknown": "without a known mask",
}


def audit_view(audit: dict[str, Any]) -> list[str]:
    """The inventory as sentences, of what it holds."""
    sentences = []
    if "found" in audit and "used" in audit:
        sentences.append(f"{plural(audit['found'], 'image')} found, {audit['used']:,} used.")
    if "patients" in audit:
        sentences.append(f"{plural(audit['patients'], 'patient')}.")
    masks = audit.get("masks")
    if isinstance(masks, dict):
        parts = [f"{masks[name]:,} {words}" for name, words in MASK_ORIGIN.items() if masks.get(name)]
        sentences += [f"Lesion masks: {listed(parts)}."] if parts else []
    if audit.get("identical_files"):
        sentences.append(f"{plural(audit['identical_files'], 'file')} have an identical twin.")
    if audit.get("patients_with_several_labels"):
        sentences.append(
            f"{plural(audit['patients_with_several_labels'], 'patient')} have slices of several labels."
        )
    if audit.get("patients_on_two_sides"):
        sentences.append(
            f"The split that the data set gives puts {plural(audit['patients_on_two_sides'], 'patient')} on two sides."
        )
    return sentences


def check_view(checks: Sequence[tuple[str, Check]]) -> list[dict[str, Any]]:
    """Every promise once, over all it was checked for: (title of the comparison, or empty for the study; check)."""
    by_name: dict[str, list[tuple[str, Check]]] = {}
    for of, check in checks:
        by_name.setdefault(check.name, []).append((of, check))
    rows = []
    for name, found in by_name.items():
        worst = next(v for v in ("fail", "unknown", "pass") if any(check.verdict == v for _, check in found))
        details = list(dict.fromkeys(check.detail for _, check in found))
        if len(details) == 1:
            lines = [f"in each of {len(found)} comparisons: {details[0]}" if len(found) > 1 else details[0]]
        elif worst == "pass":
            lines = [f"in {plural(len(found), 'comparison')}"]
        else:
            lines = [
                f"{of}: {check.detail}" if of else check.detail
                for of, check in found
                if check.verdict == worst
            ]
        rows.append({"name": name, "verdict": worst, "details": lines})
    return rows


def setting_view(tables: Sequence[tuple[str, pd.DataFrame]]) -> dict[str, Any]:
    """Settings that all comparisons share once, then each comparison's own; first those that differ between frameworks.

    `tables` has the title of a comparison and its `setting_table`.
    """
    shared = common_settings([table for _, table in tables])
    first = tables[0][1] if tables else pd.DataFrame(columns=["setting"])
    common = first[first["setting"].isin(shared)]
    own = [(title, table[~table["setting"].isin(shared)]) for title, table in tables]
    return {
        "frameworks": [name for name in common.columns if name != "setting"],
        "differing": differing(common).to_dict("records"),
        "common": common.to_dict("records"),
        "own": [
            {
                "title": title,
                "frameworks": [name for name in table.columns if name != "setting"],
                "differing": differing(table).to_dict("records"),
                "rows": table.to_dict("records"),
            }
            for title, table in own
        ],
    }
