"""Who is trained on, validated on and tested on: whole patients, stratified, keyed by the seed alone.

    python -m common.data.splits DIR... [--folds K] [--split-seed S] [--fold F] --materialise OUT

One split of the patients serves every task; `task_split` gives a task its rows of it. How parts are drawn stands in
`common.data.strata`. Guaranteed for what is drawn: no patient in two parts; every label that enough patients show in
every part of every fold; with several folds each patient tested exactly once; no influence of the row order, of paths
or of the tasks. A cut lies within half a patient of its wanted place wherever the presence of labels permits. Adding a
patient leaves the order of the others as it was, so that only patients next to a cut change their part.

A part that the data set itself gives is kept. `external` samples are only ever tested on: they are in every fold.
"""

from __future__ import annotations

import hashlib
import sys

import pandas as pd

from common.config import SPLITS, Task
from common.data.samples import class_indices, takes_part
from common.data.strata import describe_need, describe_remedy, draw_parts, patients_needed
from common.errors import StudyError

EXTERNAL = "external"


def split_table(samples: pd.DataFrame, folds: int, seed: int) -> pd.DataFrame:
    """The part of each sample in each fold: columns id, fold (int), split; sorted by fold, then id.

    `folds=1` is the hold-out with `config.TEST_FRACTION`; otherwise each fold tests 1 / folds of the samples.
    `config.VAL_FRACTION` is a share of all samples in either case. Parts given by the data set are kept, and a patient
    of a given part brings its other samples there. Raises StudyError for too few patients, for a source that gives a
    part to some of its samples only, and for a given split with several folds.
    """
    if folds < 1:
        raise StudyError(f"folds (={folds}) must be at least 1; 1 is the hold-out alone")
    _check_given(samples, folds)
    ordered = samples.sort_values("id", kind="stable", ignore_index=True)
    settled = _settled_parts(ordered)
    drawn = ordered[settled == ""]
    nothing_to_draw = drawn.empty and _has_given_parts(ordered)
    by_fold = [{}] if nothing_to_draw else draw_parts(drawn, folds, seed)
    tables = [
        pd.DataFrame(
            {
                "id": ordered["id"],
                "fold": fold,
                "split": settled.where(settled != "", ordered["patient"].map(part_of)).astype("str"),
            }
        )
        for fold, part_of in enumerate(by_fold)
    ]
    return pd.concat(tables, ignore_index=True)


def task_split(samples: pd.DataFrame, table: pd.DataFrame, task: Task) -> pd.DataFrame:
    """The rows of a split table that a task can use, with the column task; id, fold, split, task.

    External rows stay only if every class of the task is among them: what has one class has no score worth a name.
    Raises StudyError unless training, validation and test of every fold hold every class of the task.
    """
    inside = samples[takes_part(samples, task)]
    class_of = dict(zip(inside["id"], class_indices(inside, task).tolist(), strict=True))
    rows = table[table["id"].isin(class_of)].reset_index(drop=True).assign(task=task.name)
    shown = set(zip(rows["fold"], rows["split"], rows["id"].map(class_of), strict=True))
    folds = sorted(set(table["fold"]))
    for fold in folds:
        for part in SPLITS:
            for index, label in enumerate(task.classes):
                if (fold, part, index) not in shown:
                    raise StudyError(_why_incomplete(inside, task, len(folds), fold, part, label))
    external = rows["split"] == EXTERNAL
    if rows.loc[external, "id"].map(class_of).nunique() < len(task.classes):
        rows = rows[~external].reset_index(drop=True)
    return rows


def why_not(samples: pd.DataFrame, task: Task) -> str:
    """Why the data cannot serve a task at all, in words; "" if they can."""
    inner = samples[samples["split"] != EXTERNAL]
    inside = inner[takes_part(inner, task)]
    present = set(class_indices(inside, task).tolist())
    if task.kind == "segmentation" and 1 not in present:
        return "no lesion mask is known"
    for index, name in enumerate(task.classes):
        if index not in present:
            if task.kind == "segmentation":
                return "no sample is known to have no lesion"
            labels = [label for label in task.labels if task.class_index(label) == index]
            return f"no sample is labelled {' or '.join(map(repr, labels))}"
        if not _has_given_parts(samples):
            patients = _patients_with(inside, task, name)
            if patients < patients_needed(1):
                one = f"{patients} patients have" if patients > 1 else "only one patient has"
                return f"{one} images of {name!r}; training, validation and test need one each"
    return ""


def patients_on_two_sides(samples: pd.DataFrame) -> int:
    """Patients that the data set's own split, external samples included, puts into more than one part."""
    sides = samples.assign(split=_settled_parts(samples))[["patient", "split"]].drop_duplicates()
    return int((sides["patient"].value_counts() > 1).sum())


def split_digest(table: pd.DataFrame) -> str:
    """The sha256 of a split table, whatever the order of its rows."""
    rows = sorted(zip(table["fold"].astype(int), table["id"], table["split"], strict=True))
    lines = (f"{fold}\x1f{sample}\x1f{part}" for fold, sample, part in rows)
    return hashlib.sha256("\x1e".join(lines).encode()).hexdigest()


def count_split(samples: pd.DataFrame, split: pd.Series, task: Task) -> dict[str, dict[str, int]]:
    """How many samples, patients and samples of each class a part holds: {part: {"samples", "patients", class: n}}.

    `split` is one fold of a task's split, sample id -> part; "external" is counted where there is any.
    """
    inside = samples[samples["id"].isin(split.index)]
    part = inside["id"].map(split).to_numpy()
    classes = class_indices(inside, task)
    counts: dict[str, dict[str, int]] = {}
    for name in (*SPLITS, *([EXTERNAL] if EXTERNAL in part else [])):
        within = part == name
        counts[name] = {
            "samples": int(within.sum()),
            "patients": int(inside.loc[within, "patient"].nunique()),
        }
        counts[name] |= {
            label: int((classes[within] == index).sum()) for index, label in enumerate(task.classes)
        }
    return counts


# --- parts that the data set gives --------------------------------------------------------------------------------


def _has_given_parts(samples: pd.DataFrame) -> bool:
    return bool(samples["split"].isin(SPLITS).any())


def _check_given(samples: pd.DataFrame, folds: int) -> None:
    inner = samples[samples["split"] != EXTERNAL]
    if inner.empty and len(samples):
        raise StudyError(f"all {len(samples)} samples are external, so there is nothing to train on")
    for source, rows in inner.groupby("source"):
        without = rows.loc[rows["split"] == "", "id"]
        if 0 < len(without) < len(rows):
            raise StudyError(
                f"the data set {source!r} gives a part to {len(rows) - len(without)} of its {len(rows)} samples, but "
                f"none to {without.iloc[0]!r}; give one to all or to none"
            )
    if folds > 1 and _has_given_parts(samples):
        raise StudyError(
            f"the data set gives its own split into {', '.join(SPLITS)}, so folds (={folds}) must be 1"
        )


def _settled_parts(samples: pd.DataFrame) -> pd.Series:
    """The part of each sample that is not to be drawn, "" for the others: its own, else that of its patient's samples
    in another data set (of several parts the one nearest to training).
    """
    part_of: dict[str, str] = {}
    for part in reversed(SPLITS):
        part_of |= dict.fromkeys(samples.loc[samples["split"] == part, "patient"], part)
    rows = zip(samples["split"], samples["patient"], strict=True)
    settled = [given or part_of.get(patient, "") for given, patient in rows]
    return pd.Series(settled, index=samples.index, dtype="str")


# --- what is missing ----------------------------------------------------------------------------------------------


def _patients_with(inside: pd.DataFrame, task: Task, name: str) -> int:
    """Patients of the rows, external ones left out, that show a class of the task."""
    shows = (class_indices(inside, task) == task.classes.index(name)) & (inside["split"] != EXTERNAL)
    return int(inside.loc[shows, "patient"].nunique())


def _why_incomplete(inside: pd.DataFrame, task: Task, folds: int, fold: int, part: str, missing: str) -> str:
    if _has_given_parts(inside):
        return (
            f"the part {part!r} of the given split has no image of {missing!r}, which the task {task.name!r} needs in "
            "every part; complete it or leave the task out"
        )
    patients = {name: _patients_with(inside, task, name) for name in task.classes}
    if min(patients.values()) < patients_needed(folds):
        found = ", ".join(f"{count} of {name!r}" for name, count in patients.items())
        return (
            f"the data hold too few patients to split for the task {task.name!r}: patients with images {found}; "
            f"at least {patients_needed(folds)} of each class are needed ({describe_need(folds)}), "
            f"so {describe_remedy(folds)}"
        )
    return (
        f"the part {part!r} of fold {fold} has no image of {missing!r}, which the task {task.name!r} needs in every "
        f"part, though {patients[missing]} patients show it; {describe_remedy(folds)}, or choose another split seed"
    )


if __name__ == "__main__":
    from common.data.split_tree import main  # here: it imports this module

    sys.exit(main())
