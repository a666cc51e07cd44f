"""What the audit says: findings with a verdict, and which of them refuse the data.

A finding refuses where numbers could not mean what they claim, whatever is trained: the answer is in the input, or a
test picture was seen in training, or the truth contradicts itself, or a class cannot be scored. What only makes numbers
less sure, or less general, warns. `config.AUDIT_REFUSALS` are overridden by name, by a person who knows why.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common import config
from common.errors import StudyError

VERDICTS = ("refuse", "warn", "note", "pass")  # the worst first
Row = Mapping[str, str | int | float]  # of a finding's evidence: column -> value


@dataclass(frozen=True)
class Finding:
    """One question to the data, and its answer."""

    name: str  # kebab-case, stable
    verdict: str  # of VERDICTS
    sentence: str  # what was found, in plain words with counts
    evidence: tuple[Row, ...] = ()  # the worst first
    remedy: str = ""  # empty where nothing has to be done

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict {self.verdict!r} is none of {', '.join(VERDICTS)}")
        if self.verdict == "refuse" and not self.remedy:
            raise ValueError(f"{self.name!r} refuses the data without a remedy")


def finding_json(finding: Finding) -> dict[str, Any]:
    """The finding as in `audit.json`, its evidence cut to `config.AUDIT_EVIDENCE_ROWS` with the total beside it."""
    return {
        "name": finding.name,
        "verdict": finding.verdict,
        "sentence": finding.sentence,
        "remedy": finding.remedy,
        "evidence": [dict(row) for row in finding.evidence[: config.AUDIT_EVIDENCE_ROWS]],
        "evidence_total": len(finding.evidence),
    }


def is_finding(one: object) -> bool:
    """Whether an entry of an `audit.json`, which may have been edited, is a finding as `finding_json` writes it."""
    return (
        isinstance(one, dict)
        and all(isinstance(one.get(name), str) for name in ("name", "sentence", "remedy"))
        and one.get("verdict") in VERDICTS
        and isinstance(one.get("evidence"), list)
        and all(isinstance(row, dict) for row in one["evidence"])
        and isinstance(one.get("evidence_total"), int)
    )


def refusals(findings: Sequence[Mapping[str, Any]], accepted: Collection[str]) -> list[Mapping[str, Any]]:
    """The findings, as JSON, that refuse the data and were not accepted by name."""
    return [one for one in findings if one["verdict"] == "refuse" and one["name"] not in accepted]


def check_accepted(names: Collection[str]) -> None:
    """StudyError for a name that is no refusal: a slip of the pen must not look like a decision."""
    unknown = [name for name in names if name not in config.AUDIT_REFUSALS]
    if unknown:
        known = ", ".join(config.AUDIT_REFUSALS)
        raise StudyError(f"--accept {unknown[0]} names no finding that can be accepted; those are {known}")


def refuse(findings: Sequence[Mapping[str, Any]], accepted: Collection[str], where: str) -> None:
    """StudyError where a finding refuses the data; `where` holds all of the evidence."""
    found = refusals(findings, accepted)
    if not found:
        return
    first = found[0]
    shown = "; ".join(describe_row(row) for row in first["evidence"][:3])
    others = f" (beside it: {', '.join(one['name'] for one in found[1:])})" if len(found) > 1 else ""
    names = [one["name"] for one in found if one["name"] in config.AUDIT_REFUSALS]
    override = f", or go on all the same with --accept {' '.join(names)}" if len(names) == len(found) else ""
    raise StudyError(
        f"the audit refuses these data: {first['name']}{others}: {_inner(first['sentence'])}"
        f"{f' [{shown}]' if shown else ''}; {_inner(first['remedy'], lower=True)}{override}; all that was "
        f"found: {where}"
    )


def counted(count: int, noun: str) -> str:
    """`1 slice`, `1,200 slices`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def describe_row(row: Row) -> str:
    """A row of evidence in a line of words."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in row.items() if value != "")


def _inner(sentence: str, lower: bool = False) -> str:
    """A sentence for the middle of another."""
    text = sentence.removesuffix(".")
    return text[:1].lower() + text[1:] if lower else text
