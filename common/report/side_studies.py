"""Two studies as `compare.py report A B` needs them: computed anew from their files, so that no number is stale."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from common import config
from common.report import tables
from common.report.alerts import Alert, alerts
from common.report.audit_views import audit_section
from common.report.checks import study_checks
from common.report.class_scores import class_table
from common.report.evidence import UNREADABLE, Level, flatten
from common.report.gated import read_cascades, table_of
from common.report.judged import Judged, judge, title_of
from common.report.mask_levels import MaskLevel
from common.report.reading import AnyComparison, Evidence, members, read_evidence
from common.report.summary import summary
from common.report.verdict_tables import verdict_numbers
from common.report.wording import listed, plural
from common.verdicts import Verdict, verdicts

OF_RUNS = ("device", "threads", "precision", "environment", "variables", "pretrained", "git_commit")
DIGEST = 64  # characters of a sha256


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two studies."""

    name: str
    evidence: Evidence
    judged: tuple[Judged, ...]
    verdicts: tuple[Verdict, ...]
    numbers: Mapping[str, Mapping[str, Any]]  # as summary.json has them: scores, differences, verdicts, costs
    alerts: tuple[Alert, ...]

    @property
    def study(self) -> config.Study:
        return self.evidence.record.study

    @property
    def data(self) -> str:
        """On which data, in words."""
        return (
            listed([Path(folder).name for folder in self.study.data])
            or "the drawn phantom (no real patients)"
        )

    @property
    def comparisons(self) -> dict[str, AnyComparison]:
        """Key (lane/task/model) -> comparison, of those that have scores."""
        return {one.comparison.key: one.comparison for one in self.judged if one.comparison.levels}


def read_side(directory: Path, name: str) -> Side:
    """A study with all its numbers computed from its predictions. Raises StudyError where there is no study."""
    evidence = read_evidence(directory)
    judged = tuple(judge(one, evidence.record.study) for one in evidence.comparisons)
    found = verdicts(evidence.record, evidence.comparisons)
    scored = [(one.comparison, one.scores) for one in judged]
    numbers = summary(
        tables.score_table(scored),
        tables.difference_table(scored),
        class_table([(one.comparison, one.classes) for one in judged]),
        tables.cost_table(evidence.comparisons),
        table_of(read_cascades(evidence.record)),
        pd.DataFrame(),  # the sizes of the parts: what differs in them shows in the split's digest
    ) | verdict_numbers(found)
    titles = {one.comparison.key: title_of(one, evidence) for one in judged}
    checks = [
        *(("", check) for check in study_checks(evidence)),
        *((titles[one.comparison.key], check) for one in judged for check in one.checks),
    ]
    return Side(
        name,
        evidence,
        judged,
        found,
        {key: fields for key, fields in numbers.items() if key != "about"},
        alerts(evidence, checks, titles, audit_section(evidence.audit), ()),
    )


# --- what differs -------------------------------------------------------------------------------------------------


def differing_settings(a: Side, b: Side) -> list[dict[str, str]]:
    """Everything recorded that is not the same in both: what it is of, setting, A's value, B's. Nothing else.

    Frameworks and models that only one study has are told by the study's own settings; what changed for every shared
    framework alike is one row.
    """
    rows = [
        {"part": part, "setting": name, "a": ours.get(name, "–"), "b": theirs.get(name, "–")}
        for part, ours, theirs in (
            ("data", data_settings(a), data_settings(b)),
            ("study", study_settings(a), study_settings(b)),
        )
        for name in dict.fromkeys((*ours, *theirs))
    ]
    shared = [name for name in a.evidence.frameworks if name in b.evidence.frameworks]
    pairs = set(a.study.pairs) & set(b.study.pairs)
    by_setting: dict[str, dict[str, tuple[str, str]]] = {}
    for framework in shared:
        ours, theirs = (run_settings(side, framework, pairs) for side in (a, b))
        for name in dict.fromkeys((*ours, *theirs)):
            by_setting.setdefault(name, {})[framework] = (ours.get(name, "–"), theirs.get(name, "–"))
    for name, values in by_setting.items():
        if len(values) == len(shared) > 1 and len(set(values.values())) == 1:
            values = {"every framework": values[shared[0]]}
        rows += [{"part": part, "setting": name, "a": x, "b": y} for part, (x, y) in values.items()]
    return [row for row in rows if row["a"] != row["b"]]


def data_settings(side: Side) -> dict[str, str]:
    """Digests of the samples and of each task's split."""
    samples = side.evidence.record.document.get("samples_sha256", "–")
    return {"samples_sha256": brief(str(samples)), **splits_of(side.evidence)}


def study_settings(side: Side) -> dict[str, str]:
    """What was asked for; models and recipes as the runs had them stand there."""
    asked = {
        name: value for name, value in config.to_json(side.study).items() if name not in ("specs", "recipes")
    }
    return {name: brief(value) for name, value in flatten(asked).items()}


def run_settings(side: Side, framework: str, pairs: Collection[tuple[str, str]]) -> dict[str, str]:
    """What the complete runs of a framework on these (task, model) recorded; several values joined."""
    found: dict[str, set[str]] = {}
    for record in side.evidence.record.complete:
        run = record.run
        if run.framework != framework or (run.task, run.model) not in pairs:
            continue
        parts = {name: record.document.get(name) for name in OF_RUNS}
        parts[f"{run.task}/{run.model}"] = {name: record.document.get(name) for name in ("spec", "recipe")}
        for name, value in flatten(parts).items():
            found.setdefault(name, set()).add(brief(value))
    return {name: ", ".join(sorted(values)) for name, values in found.items()}


def splits_of(evidence: Evidence) -> dict[str, str]:
    """Digest of the split of each task, from the tables themselves."""
    try:
        split = evidence.record.split().sort_values(["task", "fold", "id"])
    except UNREADABLE:
        return {}
    return {
        f"split of {task}": brief(digest(rows[["fold", "id", "split"]]))
        for task, rows in split.groupby("task")
    }


def digest(table: pd.DataFrame) -> str:
    """The sha256 of a table's rows as they stand."""
    return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()


def brief(value: str) -> str:
    """A sha256 by its start, a list by its words, anything else as it stands."""
    if value.startswith("["):
        return ", ".join(map(str, json.loads(value))) or "none"
    return f"{value[:12]}…" if len(value) == DIGEST and value.isalnum() else value


# --- the same cases? ----------------------------------------------------------------------------------------------


def why_unpaired(a: Side, b: Side, key_a: str, key_b: str, level: str) -> str:
    """Why the scores of a level were not computed on the same cases in both studies; empty where they were.

    The same cases: the same slices of the same patients, the same pictures and truth (by digest), and for masks the
    same grid.
    """
    ours, theirs = level_of(a, key_a, level), level_of(b, key_b, level)
    if ours is None or theirs is None:
        return "one of the studies has no such score"
    if not (np.array_equal(ours.unit, theirs.unit) and np.array_equal(ours.patient, theirs.patient)):
        mine, other = set(ours.unit.tolist()), set(theirs.unit.tolist())
        patients = f"{plural(ours.patients, 'patient')} in A, {theirs.patients:,} in B"
        return f"{plural(len(mine), 'case')} in A, {len(other):,} in B, {len(mine & other):,} in both; {patients}"
    task, model = key_a.split("/")[1:]
    external = level.startswith("external")
    try:
        if truth_of(a.evidence, task, external) != truth_of(b.evidence, task, external):
            return "the pictures, labels or masks behind equal names are others"
    except UNREADABLE:
        return "the data files of one study cannot be read"
    pair = f"{task}/{model}"
    sizes = [side.study.specs[pair].image_size for side in (a, b)]
    if config.TASKS[task].kind == "segmentation" and sizes[0] != sizes[1]:
        return f"masks are judged on another grid ({sizes[0]} px in A, {sizes[1]} px in B)"
    return ""


def level_of(side: Side, key: str, level: str) -> Level | MaskLevel | None:
    comparison = side.comparisons.get(key)
    found = [one for one in comparison.levels if one.name == level] if comparison else []
    return found[0] if found else None


def truth_of(evidence: Evidence, task: str, external: bool) -> str:
    """Digest of what a task is tested on: ids, patients, labels, pictures and masks; of its external part, or the rest.
    Raises one of UNREADABLE.
    """
    rows = members(evidence)
    part = rows[(rows["task"] == task) & (rows["split"] == ("external" if external else "test"))]
    columns = ["id", "patient", "label", "sha256", "mask_sha256"]
    return digest(part[columns].drop_duplicates().sort_values("id"))
