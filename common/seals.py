"""Whether files are still what was written: run.json holds digests of its run's files and one of itself, study.json of
the tables of the data.

A seal tells of a fault of the disk, an edit by hand, a file copied from another run. It is no signature: whoever
edits a record on purpose can seal it again. Records of earlier versions have none, and are read without.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import StudyError
from common.files import file_digest

SEAL = "seal_sha256"
FILES = "files"


def file_digests(directory: Path, names: Sequence[str]) -> dict[str, str]:
    """sha256 of each file: `files` of a record."""
    return {name: file_digest(directory / name) for name in names}


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """A record with the digest of all else in it, as its last entry."""
    rest = {name: value for name, value in document.items() if name != SEAL}
    return {**rest, SEAL: _digest(rest)}


def is_broken(document: Mapping[str, Any]) -> bool:
    """Whether a record, as read, has a seal and was changed since."""
    return SEAL in document and sealed(document)[SEAL] != document[SEAL]


def check_file(path: Path, document: Mapping[str, Any], record: str = "run.json") -> None:
    """Raises StudyError where a file is there and is not the one that its record names, or cannot be read."""
    files = document.get(FILES)
    named = files.get(path.name) if isinstance(files, Mapping) else None
    try:
        changed = named is not None and path.is_file() and file_digest(path) != named
    except OSError as error:
        raise StudyError(
            f"{path} cannot be read ({error.strerror or error}); restore it from a copy"
        ) from error
    if changed:
        again = "delete its folder to run it again" if record == "run.json" else "repeat the study's command"
        raise StudyError(
            f"{path} is not the file that was written there (its sha256 is not the one in {record}); restore it from "
            f"a copy, or {again}"
        )


def _digest(document: Mapping[str, Any]) -> str:
    """Of JSON with sorted names and nothing between: the order of names and the white space may change."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
