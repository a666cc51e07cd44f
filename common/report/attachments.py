"""Files that other commands leave beside a study: read without trust, refused whole in one sentence where they are odd.

Each has its reader in the module that shows it; here is what the readers share.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from common.errors import StudyError
from common.files import read_text_table
from common.results import read_json

Content = TypeVar("Content")
FORMAT = 1
ODD = (
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    StudyError,
)


def attached(path: Path, read: Callable[[Path], Content], command: str) -> tuple[Content | None, str]:
    """What `read` makes of a file; None without a word where there is none, with a sentence where it cannot be used."""
    if not path.exists():
        return None, ""
    try:
        return read(path), ""
    except ODD as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        what = what.replace(f"{path.parent}/", "")  # a page to share tells nobody's folders
        return None, f"{path.name} cannot be used ({what}); delete it and run `{command}` again."


def document_of(path: Path) -> dict[str, Any]:
    """A JSON object in the format that this version reads. Raises StudyError."""
    document = read_json(path)
    if document.get("format") != FORMAT:
        raise StudyError(f"it is in format {document.get('format')!r}; this version reads {FORMAT}")
    return document


def table_of(path: Path, text: Sequence[str], numbers: Sequence[str]) -> pd.DataFrame:
    """A CSV file with these columns; what is no number becomes NaN. Raises StudyError where it cannot be read or
    lacks a column.
    """
    table = read_text_table(path, ())
    if missing := [name for name in (*text, *numbers) if name not in table]:
        raise StudyError(f"{path.name} lacks the columns {missing}")
    found = {name: pd.to_numeric(table[name], "coerce").astype(float) for name in numbers}
    return table[list(text)].assign(**found).replace([math.inf, -math.inf], math.nan)


def version_words(environment: Any) -> tuple[str, ...]:
    """A line a framework, of what its process recorded: {framework: {name: version}}."""
    if not isinstance(environment, dict):
        return ()
    return tuple(
        f"{framework}: "
        + str(versions.get("framework") or ", ".join(f"{name} {value}" for name, value in versions.items()))
        for framework, versions in environment.items()
        if isinstance(versions, dict) and versions
    )


def rows_of(document: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of objects."""
    rows = document[name]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise StudyError(f"its {name!r} is no list of objects")
    return rows


def one_of(row: Mapping[str, Any], name: str, known: Sequence[str]) -> str:
    """A name that this version knows: it may become a file's name or a key."""
    if row[name] not in known:
        raise StudyError(f"its {name} {row[name]!r} is none of {list(known)}")
    return str(row[name])


def number_of(row: Mapping[str, Any], name: str) -> float:
    """A number; NaN for null and where there is none."""
    value = row.get(name)
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise StudyError(f"its {name} {value!r} is no number")
    return float(value)


def whole_of(row: Mapping[str, Any], name: str) -> int:
    """A whole number; 0 for null and where there is none."""
    value = number_of(row, name)
    return int(value) if math.isfinite(value) else 0


def words_of(row: Mapping[str, Any], name: str) -> str:
    """Text; empty for null and where there is none. Other values as JSON."""
    value = row.get(name)
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
