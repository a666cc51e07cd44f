"""The audit of a study's data: the inventory, what was left out and why, and findings that pass, warn or refuse.

The same at the start of each study and in `compare.py audit`; written to `audit.json`. Which findings refuse the data,
and why, stands where they are made (`audit_pictures`, `audit_copies`, `audit_labels`, `audit_shortcuts`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from common import config
from common.config import NOTICE, OVERLAY_CONFIDENCE_MIN
from common.data.audit_copies import (
    find_contradictions,
    find_copies_on_two_sides,
    find_exact_copies,
    find_near_copies,
    find_patients_on_two_sides,
    pairs_of,
)
from common.data.audit_labels import find_classes, find_labels, find_patient_key
from common.data.audit_pictures import (
    Readings,
    find_kinds,
    find_masks,
    find_odd,
    find_painted,
    find_unreadable,
)
from common.data.audit_shortcuts import find_shortcuts
from common.data.cache import Cache
from common.data.findings import VERDICTS, Finding, check_accepted, finding_json, is_finding, refusals
from common.data.folders import number
from common.data.likeness import compare_looks
from common.data.looks import Looks, take_looks
from common.data.samples import NO_LESION, OVERLAY, samples_digest
from common.data.similarity import Fingerprints, OnProgress
from common.data.splits import patients_on_two_sides, split_digest
from common.errors import StudyError
from common.results import read_json

AUDIT_VERSION = 1  # raise when a finding changes its rule


@dataclasses.dataclass(frozen=True)
class Judged:
    """What a comparison on the data would stand on."""

    samples: pd.DataFrame  # all pictures that were found
    readable: pd.DataFrame  # those that are used, masks as they were read
    readings: Sequence[Readings]
    table: (
        pd.DataFrame | None
    )  # the split, as of `common.data.splits.split_table`; None where there can be none
    tasks: Sequence[str]  # that are compared
    skipped: Sequence[Mapping[str, str]]  # [{"task", "reason"}]
    why_no_split: str = ""


def audit_data(
    judged: Judged,
    accepted: Collection[str] = (),
    looks: Looks | None = None,
    earlier: Mapping[str, Any] | None = None,
    drawn: Cache | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> dict[str, Any]:
    """The document of `audit.json`. Raises StudyError for a name in `accepted` that is no refusal.

    The pictures are looked at unless `looks` are given, or `earlier`, an audit of the same data, split and tasks.
    """
    check_accepted(accepted)
    key = audit_key(judged)
    if earlier is not None and earlier.get("findings_key") == key:
        findings = earlier["findings"]
    else:
        looks = looks or take_looks(judged.samples, drawn, on_progress=on_progress)
        findings = [finding_json(one) for one in find_all(judged, looks)]
    inventory = describe_data(judged.samples, judged.readable, judged.readings, judged.skipped)
    return with_findings(inventory, findings, accepted, key)


def earlier_audit(path: Path) -> dict[str, Any] | None:
    """The audit of an earlier command, whose findings hold as long as nothing they rest on changes."""
    try:
        audit = read_json(path, config.MAX_TABLE_BYTES)
    except StudyError:  # there is none, or it is damaged: it is made again
        return None
    findings = audit.get("findings")
    return audit if isinstance(findings, list) and all(map(is_finding, findings)) else None


def find_all(judged: Judged, looks: Looks) -> list[Finding]:
    """Every finding, the worst first."""
    found = [find_unreadable(len(judged.samples), looks), find_painted(looks)]
    frame = frame_of(judged.readable, looks)
    if len(frame):
        likeness = compare_looks(_rows_of(looks, frame))
        pairs = pairs_of(frame, likeness)
        found.append(find_contradictions(frame, pairs))
        if judged.table is not None:
            found.append(find_patients_on_two_sides(frame, judged.table))
            found.append(find_copies_on_two_sides(frame, judged.table, pairs))
        found += [
            find_classes(frame, judged.table, judged.tasks, judged.skipped, judged.why_no_split),
            find_exact_copies(frame, likeness),
            find_near_copies(frame, pairs),
            find_patient_key(frame, likeness),
            find_labels(frame),
            find_masks(frame, judged.readings),
            find_shortcuts(frame),
            find_kinds(frame),
            find_odd(frame),
        ]
    return sorted(found, key=lambda one: VERDICTS.index(one.verdict))


def frame_of(readable: pd.DataFrame, looks: Looks) -> pd.DataFrame:
    """The readable samples with what was seen of each, and `file`: its id with the file's suffix, which tells nobody's
    folders.
    """
    frame = readable.merge(looks.table, on="id", how="inner", validate="one_to_one")
    frame = frame.sort_values(
        "id", kind="stable", ignore_index=True
    )  # so that no finding depends on the order
    suffix = ["" if path.startswith("phantom:") else Path(path).suffix for path in frame["path"]]
    return frame.assign(file=frame["id"] + suffix)


def _rows_of(looks: Looks, frame: pd.DataFrame) -> Looks:
    """The looks of the frame's rows, in its order."""
    row_of = {name: row for row, name in enumerate(looks.table["id"])}
    rows = [row_of[name] for name in frame["id"]]
    if rows == list(range(len(looks.table))):  # fingerprints are large: 16 kB a picture
        return looks
    prints = looks.prints and Fingerprints(looks.prints.frame[rows], looks.prints.head[rows])
    return dataclasses.replace(looks, table=looks.table.iloc[rows].reset_index(drop=True), prints=prints)


def audit_key(judged: Judged) -> str:
    """Changes with everything that the findings depend on, so that they can be kept until then."""
    numbers = {
        name: value
        for name, value in vars(config).items()
        if name.startswith("AUDIT_") or name.endswith("_SIMILARITY")
    }
    unread = [sorted(row.id for row in one.unreadable_masks) for one in judged.readings]
    parts = [
        AUDIT_VERSION,
        repr(sorted(numbers.items())),
        samples_digest(judged.samples),
        samples_digest(judged.readable),
        sorted(zip(judged.readable["id"], judged.readable["mask"], strict=True)),
        "" if judged.table is None else split_digest(judged.table),
        list(judged.tasks),
        [dict(row) for row in judged.skipped],
        unread,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def with_findings(
    inventory: Mapping[str, Any],
    findings: Sequence[Mapping[str, Any]],
    accepted: Collection[str],
    key: str = "",
) -> dict[str, Any]:
    """The document of `audit.json`: the inventory, the findings as JSON, which refusals were accepted by name, and the
    verdict over all, in which an accepted refusal counts as a warning.
    """
    left = [
        "warn" if one["verdict"] == "refuse" and one["name"] in accepted else one["verdict"]
        for one in findings
    ]
    return {
        **inventory,
        "verdict": min(left, key=VERDICTS.index, default="pass"),
        "accepted": sorted(accepted),
        "findings": list(findings),
        "findings_key": key,
    }


def describe_data(
    samples: pd.DataFrame,
    readable: pd.DataFrame,
    caches: Sequence[Readings],
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
    """The inventory in lines for the console, and the findings that warn or refuse."""
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
    told = {"unreadable-files", "masks"}
    told |= {"patient-key"} if audit["patients_from"].get("similarity") else set()
    findings, accepted = audit.get("findings", []), audit.get("accepted", [])
    refused = [one["name"] for one in refusals(findings, accepted)]
    for one in findings:
        if one["verdict"] == "refuse":
            how = (
                "REFUSED"
                if one["name"] in refused
                else "accepted by name, though it makes comparisons invalid"
            )
            yield f"audit: {how}: {one['name']}: {one['sentence']}"
        elif one["verdict"] == "warn" and one["name"] not in told:
            yield f"audit: {one['name']}: {one['sentence']}"


def mask_kind(mask: str) -> str:
    """Where a mask of the sample table comes from: "unknown", "none", "overlay", "drawn" or "file"."""
    if mask in ("", NO_LESION):
        return "none" if mask else "unknown"
    return "overlay" if mask.startswith(OVERLAY) else "drawn" if mask.startswith("phantom:") else "file"


def _counts(column: pd.Series) -> dict[str, int]:
    return {str(value): int(count) for value, count in column.value_counts().sort_index().items()}
