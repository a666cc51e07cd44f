"""The tables' files inside the page: `data:` links to their very bytes, so that one file carries all numbers."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

TITLES = {
    "verdicts": "Verdicts",
    "scores": "Scores",
    "differences": "Paired differences",
    "classes": "Scores of each class",
    "variance": "Where the variance comes from",
    "churn": "Decisions that flip",
    "noise": "A framework beside itself",
    "other_tests": "Other tests",
    "cascade": "Two stages",
    "costs": "Time and memory",
    "cost_ratios": "Time and memory, one framework over another",
    "time_to_quality": "Time to a stated quality",
    "model_sizes": "Sizes of the models",
    "checks": "Checks of fairness",
    "data": "Parts of the data",
    "left_out": "What was left out",
    "doubtful_masks": "Masks in doubt",
    "runs": "Every run",
    "parity": "The proof",
    "mutations": "Planted faults",
    "defaults": "Defaults of each framework",
    "checklist": "Reporting checklists",
    "audit": "Audit of the data",
}
ENDS = {"-settings": "Settings"}  # of names that begin with a comparison
STARTS = {"ladder-": "Ladder", "leak-": "Leak meter"}
KINDS = {"csv": "text/csv", "tex": "application/x-tex"}


def downloads(directory: Path) -> list[dict[str, Any]]:
    """Every table of `directory`: name, title, and of each kind of file its link and size."""
    stems = {path.stem for path in directory.glob("*.csv")}
    known = [name for name in TITLES if name in stems]
    return [
        {
            "name": name,
            "title": title_of(name),
            "files": {
                kind: embedded(path)
                for kind in KINDS
                if (path := directory / f"{name}.{kind}").exists()
            },
        }
        for name in (*known, *sorted(stems - set(TITLES)))
    ]  # fmt: skip


def title_of(name: str) -> str:
    """What a table is called: "Settings: aligned, binary, cnn" where its name is made of parts."""
    if name in TITLES:
        return TITLES[name]
    for end, words in ENDS.items():
        if name.endswith(end):
            return f"{words}: {parts_of(name.removesuffix(end))}"
    for start, words in STARTS.items():
        if name.startswith(start):
            return f"{words}: {parts_of(name.removeprefix(start))}"
    return parts_of(name).capitalize()


def parts_of(name: str) -> str:
    return name.replace("_", " ").replace("-", ", ")


def embedded(path: Path) -> dict[str, str]:
    """A file as a link that needs no other file."""
    content = path.read_bytes()
    kind = KINDS[path.suffix[1:]]
    return {
        "link": f"data:{kind};charset=utf-8;base64,{base64.b64encode(content).decode()}",
        "size": f"{max(1, round(len(content) / 1000)):,} kB",
    }
