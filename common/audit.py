"""The audit of data folders before anything is trained: `python compare.py audit`.

```
DIR/audit.json      as in a study's data/ (see `common.data.audit`), and `data`, the folders' names
DIR/audit.html      the same to read
DIR/audit.csv       a row a finding          DIR/evidence.csv    every row of evidence
```
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from common.config import AUDIT_REFUSALS, NOTICE, TASKS, Study
from common.data.audit import Judged, audit_data, find_all
from common.data.findings import describe_row, refusals
from common.data.looks import Looks, take_looks
from common.data.samples import NO_LESION
from common.data.splits import split_table, why_not
from common.errors import StudyError
from common.progress import CountProgress
from common.results import defused, write_csv, write_json
from common.study import describe_source, open_samples

STYLE = {"refuse": "bold red", "warn": "yellow", "note": "cyan", "pass": "green"}
SHOWN = 3  # rows of evidence on the console


def audit_folders(
    data: Sequence[str], patients: int, accepted: Collection[str], out: Path, console: Console
) -> bool:
    """Audit data folders, or the drawn phantom, write what was found to `out` and show it; whether nothing refuses them
    but what was accepted by name.

    Sides are those of the split that the data give, else of the hold-out that a study draws. Raises StudyError for
    folders that fit no layout.
    """
    study = Study(data=tuple(data), patients=patients)
    console.print(f"{describe_source(study)}. {NOTICE}", markup=False)
    with CountProgress(console, "reading images") as reading:
        samples = open_samples(study, reading.tell)
        looks = take_looks(samples, masks=True, on_progress=reading.tell)
    judged = judge(samples, looks)
    findings = find_all(judged, looks)
    audit = audit_data(judged, accepted, looks=looks)
    audit = {"data": [Path(folder).resolve().name for folder in data] or ["the drawn phantom"], **audit}
    evidence = [{"finding": one.name, **row} for one in findings for row in one.evidence]
    write_audit(audit, evidence, out)
    show(audit, console)
    console.print(f"written: {out / 'audit.html'}, audit.json, audit.csv, evidence.csv", markup=False)
    return not refusals(audit["findings"], accepted)


def judge(samples: pd.DataFrame, looks: Looks) -> Judged:
    """What a study of every task that the data serve would stand on."""
    readable = as_read(samples, looks)
    table, why = None, "no picture can be read"
    if len(readable):
        try:
            table = split_table(readable, folds=1, seed=0)
        except StudyError as error:
            why = str(error)
    reasons = {name: why_not(readable, task) for name, task in TASKS.items()}
    skipped = [{"task": name, "reason": reason} for name, reason in reasons.items() if reason]
    tasks = [name for name, reason in reasons.items() if not reason]
    return Judged(samples, readable, [looks], table, tasks, skipped, why)


def as_read(samples: pd.DataFrame, looks: Looks) -> pd.DataFrame:
    """The rows of readable pictures, their masks as `common.data.cache.keep_readable` leaves them."""
    readable = samples[samples["id"].isin(looks.table["id"])].reset_index(drop=True)
    lost = readable["id"].isin([row.id for row in looks.unreadable_masks])
    readable.loc[lost, ["mask", "mask_sha256"]] = ""
    readable.loc[readable["id"].isin(list(looks.empty_masks)), "mask"] = NO_LESION
    return readable


def write_audit(audit: Mapping[str, Any], evidence: Sequence[Mapping[str, Any]], out: Path) -> None:
    """The four files."""
    from common.report.audit_page import write_audit_page  # here: workers import this package, not templates

    columns = ["name", "verdict", "accepted", "finding", "remedy", "evidence"]
    rows = [
        [one["name"], one["verdict"], one["name"] in audit["accepted"], one["sentence"], one["remedy"],
         one["evidence_total"]]
        for one in audit["findings"]
    ]  # fmt: skip
    write_csv(out / "audit.csv", pd.DataFrame(rows, columns=columns))
    table = pd.DataFrame(evidence, dtype=object) if evidence else pd.DataFrame(columns=["finding"])
    write_csv(out / "evidence.csv", table.map(defused))
    write_json(out / "audit.json", audit)
    write_audit_page(audit, out / "audit.html")


def show(audit: Mapping[str, Any], console: Console) -> None:
    """The findings on the console, a line each; of those that refuse, some of the evidence."""
    console.print(f"{audit['used']} images of {audit['patients']} patients: {audit['labels']}", markup=False)
    for one in audit["findings"]:
        accepted = one["verdict"] == "refuse" and one["name"] in audit["accepted"]
        word = "accepted" if accepted else one["verdict"]
        line = Text.assemble(
            (f"{word:>8}  ", STYLE[one["verdict"]]), (one["name"], "bold"), f": {one['sentence']}"
        )
        console.print(line)
        if one["verdict"] != "pass":
            rows = one["evidence"][:SHOWN] if one["verdict"] in ("refuse", "warn") else []
            for row in rows:
                console.print(f"{'':10}- {describe_row(row)}", markup=False)
            if rows and one["evidence_total"] > len(rows):
                console.print(f"{'':10}- and {one['evidence_total'] - len(rows):,} more", markup=False)
            if one["remedy"]:
                console.print(f"{'':10}{one['remedy']}", markup=False, style="dim")
    refused = [one["name"] for one in refusals(audit["findings"], audit["accepted"])]
    if refused:
        known = [name for name in refused if name in AUDIT_REFUSALS]
        unless = f", unless told --accept {' '.join(known)}" if known == refused else ""
        console.print(
            f"A comparison on these data would be invalid: {', '.join(refused)}. A study refuses them{unless}.",
            markup=False, style="red",
        )  # fmt: skip
    else:
        console.print("Nothing was found that makes a comparison on these data invalid.", markup=False)
