"""The sample table: one row an image. Everything downstream speaks of its rows and of nothing on disk.

| column | type | meaning |
|---|---|---|
| id     | str | unique and stable: the path below the data set's folder without its suffix, e.g. `Stroke/58 (1)` |
| path   | str | the picture's file, or `phantom:...`, the recipe of a drawn slice |
| label  | str | one of `config.LABELS` |
| patient| str | grouping unit of splits and intervals, unique across sources |
| patient_from | str | one of `config.PATIENT_SOURCES`: how the patient is known |
| mask   | str | where the lesion mask comes from, see below |
| sha256 | str | digest of the file's bytes (of the drawing's recipe for the phantom) |
| mask_sha256 | str | digest of the mask's (or overlay's) file; empty where there is none |
| pixel_mm | str | side of a pixel in mm, where the files say it; else empty |
| split  | str | the part that the data set itself gives: `train`, `val`, `test`, `external`; else empty |
| source | str | the data set the row came from, e.g. the folder's name, or `phantom` |

`mask` is empty where nothing is known; `none` where there is no lesion, without a file (Normal); `overlay:PATH`, a
picture with the lesion painted on; `phantom:...`, the recipe of a drawn slice; or the mask's file.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common.config import LABELS, PATIENT_SOURCES, Task
from common.errors import StudyError

COLUMNS = (
    "id",
    "path",
    "label",
    "patient",
    "patient_from",
    "mask",
    "sha256",
    "mask_sha256",
    "pixel_mm",
    "split",
    "source",
)
NO_LESION = "none"  # of the mask column: known to be empty
OVERLAY = "overlay:"  # prefix of the mask column
GIVEN_SPLITS = ("", "train", "val", "test", "external")


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
    for column, known in (("patient_from", PATIENT_SOURCES), ("split", GIVEN_SPLITS)):
        odd = sorted(set(samples[column]) - set(known))
        if odd:
            raise StudyError(f"{column} {odd[0]!r} is none of {list(known)}")
    nameless = samples.loc[samples["patient"] == "", "id"]
    if len(nameless):
        raise StudyError(f"sample {nameless.iloc[0]!r} has no patient; without one a split could leak")


def samples_digest(samples: pd.DataFrame) -> str:
    """One sha256 for the data set, masks and given parts included; independent of paths and row order."""
    columns = ["id", "label", "patient", "sha256", "mask_sha256", "pixel_mm", "split"]
    ordered = samples.sort_values("id", kind="stable")[columns]
    digest = hashlib.sha256()  # of one line after the other: not all of them in memory at once
    for number, row in enumerate(ordered.itertuples(index=False, name=None)):
        digest.update(("\x1e" * (number > 0) + "\x1f".join(row)).encode())
    return digest.hexdigest()


def takes_part(samples: pd.DataFrame, task: Task) -> NDArray[np.bool_]:
    """Which rows a task can use, (n,): those of its labels; for segmentation, those whose mask is known."""
    usable = samples["label"].isin(task.labels)
    if task.kind == "segmentation":
        usable &= samples["mask"] != ""
    return usable.to_numpy(dtype=bool)


def class_indices(samples: pd.DataFrame, task: Task) -> NDArray[np.int64]:
    """Class of each sample, (n,); for segmentation 1 where there is a mask to find. Raises StudyError for a label
    that is no class of the task.
    """
    if task.kind == "segmentation":
        return np.asarray(~samples["mask"].isin(["", NO_LESION]), dtype=np.int64)
    index_of = {}
    for label in sorted(set(samples["label"])):
        try:
            index_of[label] = task.class_index(label)
        except ValueError:
            raise StudyError(
                f"label {label!r} is no class of the task {task.name!r}, whose classes are {list(task.classes)}; "
                "leave those samples or this task out"
            ) from None
    return samples["label"].map(index_of).to_numpy(dtype=np.int64)
