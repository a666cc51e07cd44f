"""Small tables beside the pictures that say one thing of each: `patients.csv`, `labels.csv`."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from common import config
from common.errors import StudyError
from common.files import restored
from common.names import UNSHOWN


def read_id_table(file: Path, value: str) -> dict[str, str]:
    """image_id -> what the column `value` says; letter case and spaces of the header are of no account, further columns
    neither. Raises StudyError for a file without the two columns, an empty value, or two values of one id.
    """
    needed = ("image_id", value)
    columns = f"image_id,{value}"
    try:
        if not file.is_file():  # opening a pipe would wait for ever
            raise OSError("it is no file")
        if file.stat().st_size > config.MAX_ID_TABLE_BYTES:
            raise OSError(f"it has more than {config.MAX_ID_TABLE_BYTES} bytes")
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True, strict=True)
            header = list(reader.fieldnames or ())
            reader.fieldnames = [_plain(name) for name in header]
            lines = [tuple(_cell(line.get(_plain(name))) for name in needed) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StudyError(f"{file} cannot be read as CSV ({error}); it needs the columns {columns}") from error
    missing = [name for name in needed if _plain(name) not in reader.fieldnames]
    if missing:
        raise StudyError(f"{file} lacks the column {missing[0]!r}; it needs {columns} and has {header}")
    odd = next((cell for line in lines for cell in line if UNSHOWN.search(cell)), None)
    if odd is not None:
        raise StudyError(f"{file} has a cell with unprintable characters, {odd[:60]!a}; mend it")
    table: dict[str, str] = {}
    for image, found in lines:
        if not found:
            raise StudyError(f"{file} has no {value} for image_id {image!r}; fill it in")
        if table.setdefault(image, found) != found:
            raise StudyError(
                f"{file} gives image_id {image!r} to {table[image]!r} and to {found!r}; keep one"
            )
    return table


def _cell(value: str | None) -> str:
    """Without the apostrophe that we write before what a spreadsheet would run as a formula."""
    return str(restored((value or "").strip()))


def match_ids(files: Mapping[str, Path], table: Mapping[str, str], file: Path, value: str) -> dict[str, str]:
    """Sample id -> what the table of `file` says of it, for every sample of `files` (sample id -> picture).

    The table may call a picture by its id, its file's name or its stem, as long as that means one picture. Raises
    StudyError for a name that may mean two, and where pictures are missing from the table.
    """
    meant: dict[str, set[str]] = {}
    for sample_id, picture in files.items():
        for key in _keys(sample_id, picture):
            meant.setdefault(key, set()).add(sample_id)
    found: dict[str, str] = {}
    for sample_id, picture in files.items():
        keys = [key for key in _keys(sample_id, picture) if key in table]
        if not keys:
            continue
        if len(meant[keys[0]]) > 1:
            names = " or ".join(sorted(meant[keys[0]]))
            raise StudyError(f"image_id {keys[0]!r} in {file} may mean {names}; write the one that is meant")
        found[sample_id] = table[keys[0]]
    without = [sample_id for sample_id in files if sample_id not in found]
    if without:
        raise StudyError(
            f"{file} names no {value} for {len(without)} of {len(files)} pictures, e.g. {without[0]!r}; add the line "
            f"'{without[0]},{value.upper()}' for each"
        )
    return found


def _keys(sample_id: str, picture: Path) -> Sequence[str]:
    """How a table may call a picture, the most exact first."""
    return sample_id, sample_id + picture.suffix, picture.name, picture.stem


def _plain(column: str) -> str:
    return "_".join(column.split()).casefold()
