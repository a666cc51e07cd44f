"""The reporting checklists CLAIM 2024 and TRIPOD+AI, filled in from a study's files as far as files can tell."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from common.report import tables
from common.report.checklist_facts import Answer, Facts
from common.report.checklist_items import GUIDELINES, Guideline
from common.report.checklist_results import RESULT_ANSWERS
from common.report.checklist_study import STUDY_ANSWERS
from common.report.checklist_training import TRAINING_ANSWERS
from common.report.reading import Evidence
from common.report.terms import TASK_TITLE

if TYPE_CHECKING:
    from common.verdicts import Verdict

ANSWERS = {**STUDY_ANSWERS, **TRAINING_ANSWERS, **RESULT_ANSWERS}
ALWAYS = ("#differs", "#data", "#limits", "#reproduce")  # sections that every page has
LINKS = {  # sections that answers point to -> words of the link
    "#verdicts": "Verdict",
    "#differs": "What differs",
    "#variance": "Where it varies",
    "#data": "Data",
    "#limits": "Limits",
    "#reproduce": "Reproduce",
    **{f"#{name}": title for name, title in TASK_TITLE.items()},
}
STATES = {  # in the order of the page: what is open first
    "missing": "Missing",
    "part": "In part",
    "filled": "Filled in",
    "inapplicable": "Not applicable",
}
MARKS = {"missing": "✗", "part": "◐", "filled": "✓", "inapplicable": "–"}


def checklist_section(evidence: Evidence, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Both lists for the page, by state, with counts; writes `tables/checklist.csv` and `.tex` of the study."""
    facts = Facts(evidence, verdicts)
    sections = {*ALWAYS, *(f"#{one.task}" for one in facts.comparisons)}
    sections |= {"#verdicts", "#variance"} if verdicts else set()
    found = {topic: answer(facts) for topic, answer in ANSWERS.items()}
    answers = {
        topic: one if one.link in sections else dataclasses.replace(one, link="")
        for topic, one in found.items()
    }
    tables.write_table(evidence.record.directory / "tables", "checklist", checklist_table(answers))
    return {
        "states": STATES,
        "marks": MARKS,
        "titles": LINKS,
        "lists": [list_view(one, answers) for one in GUIDELINES],
    }


def checklist_table(answers: Mapping[str, Answer]) -> pd.DataFrame:
    """One row an item: guideline, item, group, asks, state, study_says, open, section."""
    return pd.DataFrame(
        [
            {
                "guideline": guideline.name,
                "item": item.number,
                "group": group,
                "asks": item.text,
                "state": STATES[(answer := answers[item.topic]).state],
                "study_says": answer.words,
                "open": answer.missing,
                "section": answer.link.removeprefix("#"),
            }
            for guideline in GUIDELINES
            for group, items in guideline.groups
            for item in items
        ]
    )


def list_view(guideline: Guideline, answers: Mapping[str, Answer]) -> dict[str, Any]:
    """A guideline: how many items are in each state, and the items of each."""
    rows = [
        {"number": item.number, "group": group, "text": item.text, **vars(answers[item.topic])}
        for group, items in guideline.groups
        for item in items
    ]
    by_state = {state: [row for row in rows if row["state"] == state] for state in STATES}
    return {
        "name": guideline.name,
        "slug": guideline.name.lower().replace("+", "-").replace(" ", "-"),
        "source": guideline.source,
        "count": len(rows),
        "counts": {state: len(those) for state, those in by_state.items()},
        "states": [{"state": state, "rows": those} for state, those in by_state.items() if those],
    }
