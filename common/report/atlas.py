"""What each framework does of itself, as `defaults.json` has it: a table by sections, what differs marked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from common.atlas import differing
from common.config import FRAMEWORKS
from common.errors import StudyError
from common.report.attachments import attached, document_of, rows_of, version_words, words_of
from common.report.wording import plural

COMMAND = "python compare.py defaults"
HOW = {"signature": "read off the signature", "numeric": "found by computing"}


@dataclass(frozen=True)
class Answer:
    """What one framework does, and how that was found; `value` is None where it has no such thing."""

    value: Any
    how: str
    detail: str

    @property
    def shown(self) -> str:
        if isinstance(self.value, bool):
            return "yes" if self.value else "no"
        if isinstance(self.value, float):
            return f"{self.value:.6g}"
        return "–" if self.value is None else words_of({"value": self.value}, "value")


@dataclass(frozen=True)
class Item:
    """One thing that a framework may do of itself."""

    name: str
    title: str
    about: str  # what the values mean
    section: str
    aligned: str  # what the aligned lane does; empty where it says nothing
    answers: Mapping[str, Answer]  # framework -> answer
    differs: bool  # whether two frameworks that have it answer differently


@dataclass(frozen=True)
class AtlasSection:
    """What the templates show of the atlas."""

    frameworks: tuple[str, ...]
    versions: tuple[str, ...]
    sections: tuple[tuple[str, tuple[Item, ...]], ...]
    words: str
    table: pd.DataFrame  # tables/defaults.csv
    command: str = COMMAND


def atlas_section(directory: Path) -> tuple[AtlasSection | None, str]:
    """The atlas beside a study; None with a sentence where its file cannot be used, without one where there is none."""
    return attached(directory / "defaults.json", section_of, COMMAND)


def section_of(path: Path) -> AtlasSection:
    """Raises one of `attachments.ODD` for a file that is not what `compare.py defaults` writes."""
    document = document_of(path)
    found = document["frameworks"]
    frameworks = tuple(name for name in FRAMEWORKS if name in found)
    if not frameworks:
        raise StudyError(f"it names none of the frameworks {list(FRAMEWORKS)}")
    unequal = set(differing(document))
    items = [
        item_of(row, {name: found[name]["items"] for name in frameworks}, unequal)
        for row in rows_of(document, "items")
    ]
    if not items:
        raise StudyError("it has no item")
    sections: dict[str, list[Item]] = {}
    for item in items:
        sections.setdefault(item.section, []).append(item)
    return AtlasSection(
        frameworks,
        version_words({name: found[name].get("versions") for name in frameworks}),
        tuple((section, tuple(those)) for section, those in sections.items()),
        sentence(items, len(frameworks)),
        atlas_table(items),
    )


def item_of(row: Mapping[str, Any], answers: Mapping[str, Mapping[str, Any]], unequal: set[str]) -> Item:
    name = words_of(row, "item")
    return Item(
        name,
        words_of(row, "title") or name,
        words_of(row, "about"),
        words_of(row, "section"),
        words_of(row, "aligned"),
        {
            framework: Answer(its[name]["value"], words_of(its[name], "how"), words_of(its[name], "detail"))
            for framework, its in answers.items()
            if name in its
        },
        name in unequal,
    )


def sentence(items: list[Item], frameworks: int) -> str:
    if frameworks < 2:
        return f"{plural(len(items), 'default')}, of one framework: there is nothing to compare."
    differing = sum(item.differs for item in items)
    return f"{differing} of {plural(len(items), 'default')} {'differs' if differing == 1 else 'differ'}."


def atlas_table(items: list[Item]) -> pd.DataFrame:
    """One row an item and framework."""
    return pd.DataFrame(
        [
            {
                "section": item.section,
                "item": item.name,
                "title": item.title,
                "differs": item.differs,
                "framework": framework,
                "value": answer.shown,
                "how": answer.how,
                "detail": answer.detail,
                "aligned": item.aligned,
            }
            for item in items
            for framework, answer in item.answers.items()
        ]
    )
