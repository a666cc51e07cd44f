"""The table of all comparisons, `speed.csv`: one row each. Rows of what was not measured again are kept."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from common import config
from common.results import write_text

NAN = math.nan


@dataclass(frozen=True)
class Row:
    """Ours beside one peer. Numbers that there are not are NaN."""

    table: str  # "steps", "overhead", ...
    ours: str
    peer: str
    model: str
    framework: str
    setting: str  # "shipped" | "same": of the peer; ours is always as a study runs it
    unit: str  # of the rates, e.g. "images/s"; of "s" and "MiB" less is better
    ratio: float = NAN  # above 1 ours is ahead: rate over rate, or the peer's seconds over ours
    low: float = NAN
    high: float = NAN
    ours_rate: float = NAN
    peer_rate: float = NAN
    cpu_ratio: float = NAN  # the same of images a CPU-second, all processes of a loader counted
    ours_peak_mib: float = NAN
    peer_peak_mib: float = NAN
    target: float | None = None  # the ratio that is wanted at least
    rounds: int = 0
    coverage: float = NAN  # probability that low .. high holds the true median
    load: float = NAN  # largest load average before a block
    note: str = ""

    @property
    def place(self) -> tuple[str, ...]:
        """What is measured together, in its settings, and replaced together."""
        return self.table, self.ours, self.peer, self.model, self.framework

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none, or nothing was measured."""
        return None if self.target is None or math.isnan(self.ratio) else self.ratio >= self.target


def missing_row(
    table: str, ours: str, peer: str, model: str, framework: str, setting: str, unit: str, reason: str
) -> Row:
    """The row of a peer that cannot be had here."""
    return Row(table, ours, peer, model, framework, setting, unit, note=f"not measured: {reason}")


def merge(old: Sequence[Row], new: Iterable[Row]) -> list[Row]:
    """The new rows instead of the old ones of the same comparison; the rest as it was. Sorted by table, framework and
    model, else in the order of measurement.
    """
    new = list(new)
    places = {row.place for row in new}
    models = [*config.MODELS]

    def order(row: Row) -> tuple[str, int, int]:
        framework = config.FRAMEWORKS.index(row.framework) if row.framework in config.FRAMEWORKS else -1
        return row.table, framework, models.index(row.model) if row.model in models else -1

    return sorted([row for row in old if row.place not in places] + new, key=order)


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """The table as CSV; numbers with five digits, an empty cell where there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Row)])
    for row in rows:
        writer.writerow([_cell(value) for value in asdict(row).values()])
    write_text(path, text.getvalue())


def read_rows(path: Path) -> list[Row]:
    """Inverse of `write_rows`; empty where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return [Row(**_values(line)) for line in csv.DictReader(stream)]


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _values(line: dict[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in fields(Row):
        text = line[field.name]
        if field.type == "str":
            values[field.name] = text
        elif field.type == "int":
            values[field.name] = int(text)
        else:
            values[field.name] = float(text) if text else None if "None" in str(field.type) else NAN
    return values
