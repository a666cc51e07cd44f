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
    "cascade": "Two stages",
    "costs": "Time and memory",
    "checks": "Checks of fairness",
    "data": "Parts of the data",
    "left_out": "What was left out",
    "doubtful_masks": "Masks in doubt",
    "runs": "Every run",
    "parity": "The proof",
    "mutations": "Planted faults",
    "defaults": "Defaults of each framework",
    "checklist": "Reporting checklist",
}
KINDS = {"csv": "text/csv", "tex": "application/x-tex"}


def downloads(directory: Path) -> list[dict[str, Any]]:
    """Every table of `directory`: name, title, and of each kind of file its link and size."""
    stems = {path.stem for path in directory.glob("*.csv")}
    known = [name for name in TITLES if name in stems]
    return [
        {
            "name": name,
            "title": TITLES.get(name, name.replace("_", " ").replace("-", ", ")),
            "files": {
                kind: embedded(path)
                for kind in KINDS
                if (path := directory / f"{name}.{kind}").exists()
            },
        }
        for name in (*known, *sorted(stems - set(TITLES)))
    ]  # fmt: skip


def embedded(path: Path) -> dict[str, str]:
    """A file as a link that needs no other file."""
    content = path.read_bytes()
    kind = KINDS[path.suffix[1:]]
    return {
        "link": f"data:{kind};charset=utf-8;base64,{base64.b64encode(content).decode()}",
        "size": f"{max(1, round(len(content) / 1000)):,} kB",
    }
