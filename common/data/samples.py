"""The sample table: one row an image. Everything downstream speaks of its rows and of nothing on disk.

| column | type | meaning |
|---|---|---|
| id     | str | unique and stable: the path below the data set's folder without its suffix, e.g. `Stroke/58 (1)` |
| path   | str | the picture's file, or `phantom:...`, the recipe of a drawn slice |
| label  | str | one of `config.LABELS` |
| patient| str | grouping unit of splits and intervals, unique across sources |
| mask   | str | the lesion mask's file (a drawn slice with a lesion: its recipe); empty: none known |
| sha256 | str | digest of the file's bytes (of the drawing's recipe for the phantom) |
| source | str | the data set the row came from, e.g. the folder's name, or `phantom` |
"""

from __future__ import annotations

import hashlib

import pandas as pd

from common.config import LABELS
from common.errors import StudyError

COLUMNS = ("id", "path", "label", "patient", "mask", "sha256", "source")


def sample_table(rows: list[dict[str, str]]) -> pd.DataFrame:
    """A checked table of the rows, sorted by id, so that nothing depends on the order of files on disk."""
    table = pd.DataFrame(rows, columns=list(COLUMNS), dtype="str")
    check_samples(table)
    return table.sort_values("id", kind="stable", ignore_index=True)


def check_samples(samples: pd.DataFrame) -> None:
    """Raise StudyError unless the table has the columns, unique ids, known labels and a patient on every row."""
    missing = [name for name in COLUMNS if name not in samples.columns]
    if missing:
        raise StudyError(f"the sample table lacks the columns {missing}; it needs {list(COLUMNS)}")
    repeated = samples.loc[samples["id"].duplicated(), "id"]
    if len(repeated):
        raise StudyError(f"sample id {repeated.iloc[0]!r} stands for several images; ids must be unique")
    unknown = sorted(set(samples["label"]) - set(LABELS))
    if unknown:
        raise StudyError(f"label {unknown[0]!r} is none of {list(LABELS)}")
    nameless = samples.loc[samples["patient"] == "", "id"]
    if len(nameless):
        raise StudyError(f"sample {nameless.iloc[0]!r} has no patient; without one a split could leak")


def samples_digest(samples: pd.DataFrame) -> str:
    """One sha256 for the data set: ids, labels, patients and content digests; independent of paths and row order."""
    columns = ["id", "label", "patient", "sha256"]
    ordered = samples.sort_values("id", kind="stable")[columns]
    lines = ("\x1f".join(row) for row in ordered.itertuples(index=False, name=None))
    return hashlib.sha256("\x1e".join(lines).encode()).hexdigest()
