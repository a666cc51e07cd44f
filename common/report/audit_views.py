"""The audit of the data as the report shows it: what is wrong first, each with its evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.data.findings import VERDICTS
from common.report.wording import listed, plural

TITLE = {
    "unreadable-files": "Unreadable files",
    "painted-inputs": "Painted pictures among the inputs",
    "contradicting-labels": "One slice under two labels",
    "patient-on-two-sides": "Patients on two sides of the split",
    "copies-on-two-sides": "Copies on two sides of the split",
    "classes-in-parts": "Classes in every part",
    "no-split": "A split that serves a task",
    "exact-copies": "The same picture twice",
    "near-copies": "Pictures that look like copies",
    "patient-key": "How patients are known",
    "labels": "Labels",
    "masks": "Lesion masks",
    "label-shortcut": "A label without looking at the head",
    "picture-kinds": "Kinds of files",
    "odd-pictures": "Empty and outlying pictures",
}
# verdict -> (word, mark, class of the badge); an accepted refusal is a verdict of its own here
LOOK = {
    "refuse": ("makes comparisons invalid", "✗", "bad"),
    "accepted": ("invalid, accepted by name", "✗", "bad"),
    "warn": ("warning", "!", "open"),
    "note": ("note", "i", "open"),
    "pass": ("passed", "✓", ""),
}


def audit_section(audit: Mapping[str, Any], heading: str = "h3") -> dict[str, Any] | None:
    """What `audit.html.j2` and `audit.md.j2` show of an `audit.json`; None for one without findings.

    `heading` is the level at which the section stands. `alerts` are sentences for the very top of a report: findings
    that refuse the data, and were accepted by name or came with the data later.
    """
    findings = [one for one in _objects(audit.get("findings")) if one.get("verdict") in VERDICTS]
    if not findings:
        return None
    accepted = {str(name) for name in audit.get("accepted") or ()}
    views = [_view(one, accepted) for one in findings]
    views.sort(key=lambda one: list(LOOK).index(one["verdict"]))
    wrong = [one for one in views if one["verdict"] in ("refuse", "accepted")]
    open_ = [one for one in views if one["verdict"] in ("warn", "note")]
    return {
        "heading": heading,
        "headline": _headline(views),
        "invalid": bool(wrong),
        "refused": any(one["verdict"] == "refuse" for one in wrong),
        "alerts": [
            {
                "text": f"{one['title']}: {one['sentence']}"
                + (
                    " Accepted by name; numbers may not mean what they say."
                    if one["verdict"] == "accepted"
                    else ""
                ),
                "anchor": one["id"],
            }
            for one in wrong
        ],
        "wrong": wrong,
        "open": open_,
        "passed": [one for one in views if one["verdict"] == "pass"],
    }


def _headline(views: Sequence[Mapping[str, Any]]) -> str:
    count = {name: sum(one["verdict"] == name for one in views) for name in LOOK}
    if count["refuse"]:
        head = f"{plural(count['refuse'], 'finding')} would make a comparison on these data invalid."
    elif count["accepted"]:
        names = listed([str(one["name"]) for one in views if one["verdict"] == "accepted"])
        head = f"These data would have been refused; that was overridden by name ({names})."
    else:
        head = "Nothing was found that makes a comparison on these data invalid."
    rest = [
        plural(count[name], noun) for name, noun in (("warn", "warning"), ("note", "note")) if count[name]
    ]
    rest += [f"{count['pass']} of {len(views)} questions passed"]
    return f"{head} {listed(rest)[:1].upper()}{listed(rest)[1:]}."


def _view(finding: Mapping[str, Any], accepted: set[str]) -> dict[str, Any]:
    name = str(finding.get("name", ""))
    verdict = str(finding["verdict"])
    if verdict == "refuse" and name in accepted:
        verdict = "accepted"
    word, mark, badge = LOOK[verdict]
    rows = _objects(finding.get("evidence"))
    columns = list(dict.fromkeys(str(column) for row in rows for column in row))
    total = finding.get("evidence_total")
    return {
        "id": f"audit-{name}",
        "name": name,
        "title": TITLE.get(name, name),
        "verdict": verdict,
        "word": word,
        "mark": mark,
        "badge": badge,
        "sentence": str(finding.get("sentence", "")),
        "remedy": str(finding.get("remedy", "")),
        "columns": [column.replace("_", " ") for column in columns],
        "rows": [[str(row.get(column, "")) for column in columns] for row in rows],
        "total": max(len(rows), total if isinstance(total, int) else 0),
    }


def _objects(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
