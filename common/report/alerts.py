"""What is broken, for the very top of the page: one sentence each, with the place that tells more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from common.report import lanes
from common.report.checks import SIDED, Check, one_side
from common.report.context import unknown_patients
from common.report.evidence import without_place
from common.report.reading import AnyComparison, Evidence
from common.report.tables import differing, setting_table
from common.report.wording import listed, plural

SHOWN = 3  # of several of one kind
OF_RUNS = ("spec.", "recipe.")  # settings that a lane promises to be equal


@dataclass(frozen=True)
class Alert:
    """`wrong` spoils the comparison; `missing` leaves a part of it out."""

    kind: Literal["wrong", "missing"]
    sentence: str
    link: str  # id of a part of the page


def alerts(
    evidence: Evidence,
    checks: Sequence[tuple[str, Check]],
    titles: Mapping[str, str],
    audit: Mapping[str, Any] | None,
    faults: Sequence[str],
) -> tuple[Alert, ...]:
    """Everything that a reader must know before the first number, what spoils most first.

    `checks` has the title of a comparison (empty for the study) and its check; `titles` is key -> title of a
    comparison; `audit` is what `audit_views.audit_section` gives; `faults` are sentences on files beside the study
    that cannot be used.
    """
    return (
        *unfair(evidence, checks, titles),
        *on_two_sides(checks),
        *refused(audit),
        *unknown(evidence),
        *failed(evidence),
        *constant(evidence),
        *unscored(evidence, titles),
        *without_curves(evidence),
        *missing(evidence),
        *(Alert("missing", fault, "reproduce") for fault in faults),
    )


def unfair(evidence: Evidence, checks: Sequence[tuple[str, Check]], titles: Mapping[str, str]) -> list[Alert]:
    """Promises of equality that were not kept, and by which settings."""
    sided = {one_side(noun) for noun in SIDED.values()}
    broken: dict[str, list[str]] = {}  # where -> names of its checks
    for of, check in checks:
        if check.verdict == "fail" and check.name not in sided:
            broken.setdefault(of, []).append(check.name)
    alike: dict[tuple[str, ...], list[str]] = {}
    for of, names in broken.items():
        alike.setdefault(tuple(names), []).append(of)
    by_title = {titles[one.key]: one for one in evidence.comparisons}
    found = []
    for failing, places in alike.items():
        settings = list(dict.fromkeys(text for of in places for text in unequal(by_title.get(of))))
        by = f" Different: {'; '.join(settings)}." if settings else ""
        found.append(Alert("wrong", (
            f"Not a controlled comparison: {listed([of for of in places if of])}. "
            f"{plural(len(failing), 'check')} of fairness failed ({'; '.join(failing)}).{by}"
        ), "checks"))  # fmt: skip
    return found


def unequal(comparison: AnyComparison | None) -> list[str]:
    """The settings of model and recipe that differ between the frameworks although their lane promises equality."""
    if comparison is None:
        return []
    own = lanes.own_fields(comparison.lane, comparison.model)
    table = differing(setting_table(comparison))
    rows: list[dict[Any, Any]] = pd.DataFrame(table).to_dict("records")
    return [
        f"{row['setting']} ({', '.join(f'{name} {row[name]}' for name in comparison.frameworks)})"
        for row in rows
        if str(row["setting"]).startswith(OF_RUNS) and str(row["setting"]).split(".")[1] not in own
    ]


def on_two_sides(checks: Sequence[tuple[str, Check]]) -> list[Alert]:
    """Patients and pictures in training and test at once, recomputed from `split.csv`."""
    sentences = {
        one_side(
            noun
        ): f"The same {noun} stands on two sides of a split: {{}}. Its scores are too good to be believed."
        for noun in SIDED.values()
    }
    return [
        Alert("wrong", sentences[check.name].format(check.detail), "data")
        for _, check in checks
        if check.verdict == "fail" and check.name in sentences
    ]


def refused(audit: Mapping[str, Any] | None) -> list[Alert]:
    """Findings of the audit that make a comparison invalid, those that somebody accepted by name included."""
    return [Alert("wrong", one["text"], one["anchor"]) for one in (audit or {}).get("alerts", [])]


def unknown(evidence: Evidence) -> list[Alert]:
    sentence = unknown_patients(evidence.audit)
    return [Alert("wrong", sentence, "data")] if sentence else []


def failed(evidence: Evidence) -> list[Alert]:
    if not evidence.failed:
        return []
    names = [
        f"{one.run.task}, {one.run.model}, {one.run.framework}, seed {one.run.seed}, fold {one.run.fold} "
        f"({one.document.get('reason') or 'no reason was recorded'})"
        for one in evidence.failed[:SHOWN]
    ]
    more = f"; and {len(evidence.failed) - SHOWN} more" if len(evidence.failed) > SHOWN else ""
    of = f"{len(evidence.failed)} of {plural(len(evidence.record.study.runs()), 'run')} failed"
    return [Alert("missing", f"{of}: {'; '.join(names)}{more}.", "runs")]


def constant(evidence: Evidence) -> list[Alert]:
    """Runs that answered the same for every image in the end: they are in the tables, and say nothing of the model."""
    stuck = [one for one in evidence.record.complete if one.document.get("stopped")]
    if not stuck:
        return []
    names = [
        f"{one.run.task}, {one.run.model}, {one.run.framework}, {one.run.lane} lane, seed {one.run.seed}, fold "
        f"{one.run.fold}"
        for one in stuck[:SHOWN]
    ]
    more = f"; and {len(stuck) - SHOWN} more" if len(stuck) > SHOWN else ""
    of = f"{len(stuck)} of {plural(len(evidence.record.complete), 'run')}"
    return [Alert("wrong", (
        f"{of} gave every image the same answer and stopped early: {'; '.join(names)}{more}. They stay in every "
        "table, for they are what the framework did; a comparison that holds them is of collapse, not of quality."
    ), "runs")]  # fmt: skip


def unscored(evidence: Evidence, titles: Mapping[str, str]) -> list[Alert]:
    """Runs that are complete and yet in no score; what became of failed and missing ones is said elsewhere."""
    return [
        Alert("missing", f"{titles[one.key]}: {note}", one.slug)
        for one in evidence.comparisons
        for note in [note for note in one.notes if " is not scored" in note][:SHOWN]
    ]


def without_curves(evidence: Evidence) -> list[Alert]:
    """Runs whose history was changed since: their scores stand, their curves and steps are in no figure or check."""
    found = [(one, change) for one in evidence.record.complete if (change := one.change("history.csv"))]
    return [
        Alert("missing", (
            f"{one.run.task}, {one.run.model}, {one.run.framework}, seed {one.run.seed}, fold {one.run.fold} has no "
            f"curves here: {without_place(change, one)}."
        ), "runs")
        for one, change in found[:SHOWN]
    ]  # fmt: skip


def missing(evidence: Evidence) -> list[Alert]:
    asked, complete = len(evidence.record.study.runs()), len(evidence.record.complete)
    found = []
    if evidence.missing:
        found.append(
            Alert("missing", f"{len(evidence.missing)} of {plural(asked, 'run')} not run yet.", "runs")
        )
    if not complete:
        found.append(Alert("wrong", (
            "No run of this study is complete, so nothing can be compared yet. What happened to the runs is told below."
        ), "runs"))  # fmt: skip
    return found
