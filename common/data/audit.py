"""The inventory of a study's data: what was found, what was left out and why, and how much is known of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from common.config import NOTICE, OVERLAY_CONFIDENCE_MIN
from common.data.cache import Cache
from common.data.folders import number
from common.data.samples import NO_LESION, OVERLAY
from common.data.splits import patients_on_two_sides


def describe_data(
    samples: pd.DataFrame,
    readable: pd.DataFrame,
    caches: Sequence[Cache],
    skipped: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """The inventory in `audit.json`: what was found, what was left out and why."""
    labels_of_patient = readable.groupby("patient")["label"].nunique()
    unreadable = {row.id: row for cache in caches for row in cache.unreadable}
    unreadable_masks = {row.id: row for cache in caches for row in cache.unreadable_masks}
    doubtful_masks = {row.id: row for cache in caches for row in cache.doubtful_masks}
    return {
        "notice": NOTICE,
        "sources": sorted(samples["source"].unique()),
        "found": len(samples),
        "used": len(readable),
        "patients": int(readable["patient"].nunique()),
        "patients_from": _counts(readable["patient_from"]),
        "labels": _counts(readable["label"]),
        "masks": _counts(readable["mask"].map(mask_kind)),
        "patients_with_several_labels": int((labels_of_patient > 1).sum()),
        "patients_on_two_sides": patients_on_two_sides(readable),
        "identical_files": int(readable["sha256"].duplicated(keep=False).sum()),
        "skipped_tasks": list(skipped),
        "unreadable": [dataclasses.asdict(row) for row in unreadable.values()],
        "unreadable_masks": [dataclasses.asdict(row) for row in unreadable_masks.values()],
        "doubtful_masks": [dataclasses.asdict(row) for row in doubtful_masks.values()],
    }


def describe_audit(audit: Mapping[str, Any]) -> Iterator[str]:
    """The inventory in lines for the console."""
    yield f"{audit['used']} images of {audit['patients']} patients: {audit['labels']}"
    if audit["patients_from"].get("similarity"):
        yield "patients unknown, grouped by similarity: slices of one head may still stand on both sides"
    for row in audit["skipped_tasks"]:
        yield f"task {row['task']} is left out: {row['reason']}"
    for row in (*audit["unreadable"], *audit["unreadable_masks"]):
        yield f"left out: {row['reason']}"
    if doubtful := audit["doubtful_masks"]:
        masks = number(doubtful, "painted mask")
        yield (
            f"used although doubtful (confidence below {OVERLAY_CONFIDENCE_MIN:g}): {masks}, e.g. of "
            f"{doubtful[0]['id']}; the report lists them"
        )


def mask_kind(mask: str) -> str:
    """Where a mask of the sample table comes from: "unknown", "none", "overlay", "drawn" or "file"."""
    if mask in ("", NO_LESION):
        return "none" if mask else "unknown"
    return "overlay" if mask.startswith(OVERLAY) else "drawn" if mask.startswith("phantom:") else "file"


def _counts(column: pd.Series) -> dict[str, int]:
    return {str(value): int(count) for value, count in column.value_counts().sort_index().items()}
