"""`ladder_runs.csv`: what each training of a ladder came to, a row a rung, appended as soon as it is known."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from common.config import Default
from common.gaps import RUN_COLUMNS, Pair
from common.rungs import ARMS, Training, rungs_of


class Numbers(NamedTuple):
    """How a training ended, on validation."""

    loss: float
    score: float  # the task's primary metric; NaN where undefined


Key = tuple[str, str, str, int, str, int]  # task, model, framework, seed, arm, rung


def runs_table(
    finished: Mapping[Training, Numbers],
    ladders: Mapping[Pair, Sequence[Default]],
    frameworks: Sequence[str],
) -> pd.DataFrame:
    """A row a rung, framework and seed (`RUN_COLUMNS`), in the order of models, arms, rungs, frameworks and seeds."""
    rows = [row for training, numbers in finished.items() for row in _rows(training, numbers, ladders)]
    table = pd.DataFrame(rows, columns=list(RUN_COLUMNS))
    order = {"arm": list(ARMS), "framework": list(frameworks)}
    keys = ["task", "model", "arm", "rung", "framework", "seed"]
    return table.sort_values(
        keys,
        key=lambda column: column.map(order[str(column.name)].index) if column.name in order else column,
        kind="stable",
        ignore_index=True,
    )


def append_training(
    path: Path, training: Training, numbers: Numbers, ladders: Mapping[Pair, Sequence[Default]]
) -> None:
    """Add a training's rows to the file in one piece, on disk when this returns."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        ["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row]
        for row in _rows(training, numbers, ladders)
    )
    with path.open("ab") as stream:
        stream.write(text.getvalue().encode())
        stream.flush()
        os.fsync(stream.fileno())


def read_finished(path: Path, trainings: Sequence[Training]) -> dict[Training, Numbers]:
    """The trainings of which the file has every row; those of which a kill left a part count as never done."""
    known = _read_rows(path) if path.exists() else {}
    found = {}
    for one in trainings:
        keys = [(one.task, one.model, one.framework, one.seed, arm, rung) for arm, rung in one.rungs]
        if all(key in known for key in keys):
            found[one] = known[keys[0]]
    return found


def _rows(
    training: Training, numbers: Numbers, ladders: Mapping[Pair, Sequence[Default]]
) -> list[tuple[str | int | float, ...]]:
    rungs = {(rung.arm, rung.rung): rung for rung in rungs_of(ladders[training.task, training.model])}
    return [
        (
            *(training.task, training.model, arm, rung, rungs[arm, rung].default),
            *(training.framework, training.seed, *numbers),
        )
        for arm, rung in training.rungs
    ]


def _read_rows(path: Path) -> dict[Key, Numbers]:
    """Every whole row; a line that was cut off lacks its end or some fields."""
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = text[: text.rfind("\n") + 1].splitlines()
    found: dict[Key, Numbers] = {}
    for row in csv.DictReader(lines):
        try:
            key = (
                row["task"],
                row["model"],
                row["framework"],
                int(row["seed"]),
                row["arm"],
                int(row["rung"]),
            )
            found[key] = Numbers(float(row["loss"]), float(row["score"] or "nan"))
        except (KeyError, TypeError, ValueError):
            continue
    return found
