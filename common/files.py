"""Plain files of a study: written whole or not at all, read back bounded and without trust."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from common import config
from common.errors import StudyError
from common.names import SOFT, printable

# --- writing ------------------------------------------------------------------------------------------------------


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write through a temporary sibling and a rename: `path` is absent, old or whole, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)  # mkstemp gives 0600, which would hide results from a group
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda stream: stream.write(text.encode()))


def write_page(path: Path, text: str) -> None:
    """Text for readers: nothing in it steers a terminal or turns writing round."""
    write_text(path, printable(text, keep=SOFT))


def write_json(path: Path, document: Any) -> None:
    """JSON with the keys in the order given; NaN is refused: it is not JSON, and hides a fault."""
    write_text(path, json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def defused(value: object) -> object:
    """Text that a spreadsheet would run as a formula, with an apostrophe before it, and so text that looks as if that
    had been done: `restored` undoes it. Numbers stay numbers.
    """
    formula = isinstance(value, str) and value.lstrip("'").startswith(FORMULA_STARTS)
    return f"'{value}" if formula else value


def restored(value: object) -> object:
    """Inverse of `defused`."""
    formula = isinstance(value, str) and value.lstrip("'").startswith(FORMULA_STARTS)
    return value[1:] if formula and isinstance(value, str) and value.startswith("'") else value


def write_text_table(path: Path, table: pd.DataFrame) -> None:
    """A table of names, which `read_text_table` gives back as they were and no spreadsheet runs."""
    write_csv(path, table.map(defused))


# --- reading ------------------------------------------------------------------------------------------------------


def read_text_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV file as text, gaps as empty text. Raises StudyError where it cannot be read or lacks a column."""
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            raise OSError("it is no file")
        if path.stat().st_size > config.MAX_TABLE_BYTES:
            raise OSError(f"it has more than {config.MAX_TABLE_BYTES} bytes")
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError, OverflowError, MemoryError) as error:
        raise StudyError(f"{path} cannot be read as a table ({error}); restore it from a copy") from error
    if missing := [name for name in columns if name not in table]:
        raise StudyError(f"{path} lacks the column {missing[0]!r}; restore it from a copy")
    return table.map(restored)


def read_typed_table(path: Path, columns: Sequence[str], kinds: Mapping[str, type]) -> pd.DataFrame:
    """A CSV file whose columns in `kinds` are numbers, gaps among floats NaN. Raises StudyError where it cannot be
    read, lacks a column, or holds what is no number.
    """
    table = read_text_table(path, columns)
    numbers = table[list(kinds)].replace("", "nan")
    try:
        return table.assign(**numbers.astype(float).astype(dict(kinds)))
    except (ValueError, OverflowError) as error:
        raise StudyError(f"{path} holds what is no number ({error}); restore it from a copy") from error


def read_json(path: Path, most_bytes: int = config.MAX_RECORD_BYTES) -> dict[str, Any]:
    """A JSON object; StudyError if the file is missing, larger than `most_bytes`, or is anything else. NaN and infinity
    are no JSON, nor is half a character.
    """
    try:
        if not path.exists():
            raise FileNotFoundError
        if not path.is_file():  # opening a pipe would wait for ever
            raise OSError("it is no file")
        if path.stat().st_size > most_bytes:
            raise OSError(f"it has more than {most_bytes} bytes")
        text = path.read_text(encoding="utf-8")
        document = json.loads(text, parse_constant=_no_number, parse_float=_finite)
        if "\\u" in text:
            json.dumps(document, ensure_ascii=False).encode()
    except FileNotFoundError:
        raise StudyError(f"{path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(document, dict):
        raise StudyError(f"{path} holds {type(document).__name__}, not an object")
    return document


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
