"""Who is trained on, validated on and tested on: whole patients, stratified, keyed by the seed alone.

The patients of a stratum (the patient's most severe class) stand in a random order that is drawn per patient from
(seed, patient). The test parts are consecutive stretches of that order, cut where the number of images comes nearest
to the wanted share; the validation part follows its test part, around the end if need be; the rest is trained on.
What one stratum has too much or too little of is carried to the next, so that the totals come out as well.

Guaranteed: no patient in two parts; every class in every part of every fold; with several folds each patient tested
exactly once; no influence of the row order, of paths or of the task's name. A cut lies within half a patient of its
wanted place wherever class presence permits. Adding a patient leaves the order of the others as it was, so that only
patients next to a cut change their part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common.config import SPLITS, Task
from common.errors import StudyError
from common.random_numbers import philox


def split_samples(samples: pd.DataFrame, task: Task, folds: int, fold: int, seed: int) -> pd.Series:
    """The part of each sample: "train", "val" or "test", indexed by sample id in the order of the table.

    `folds=1` is the hold-out with `task.test_fraction`; otherwise fold `fold` of `folds`, each testing 1 / folds of
    the samples. `task.val_fraction` is a share of all samples in either case. Raises StudyError for a fold that does
    not exist and for data with too few patients of a class.
    """
    by_fold = _parts_by_fold(samples, task, folds, seed)
    if not 0 <= fold < folds:
        raise StudyError(f"fold (={fold}) does not exist; the {folds} folds are numbered from 0")
    part_of = by_fold[fold]
    parts = [part_of[patient] for patient in samples["patient"]]
    return pd.Series(parts, index=pd.Index(samples["id"], name="id"), name="split", dtype="str")


def split_table(samples: pd.DataFrame, task: Task, folds: int, seed: int) -> pd.DataFrame:
    """All folds as one table with the columns id, fold (int), split; sorted by fold, then id."""
    ordered = samples.sort_values("id", kind="stable")
    tables = [
        pd.DataFrame(
            {
                "id": ordered["id"].to_numpy(),
                "fold": fold,
                "split": [part_of[patient] for patient in ordered["patient"]],
            }
        )
        for fold, part_of in enumerate(_parts_by_fold(samples, task, folds, seed))
    ]
    return pd.concat(tables, ignore_index=True)


def split_digest(table: pd.DataFrame) -> str:
    """The sha256 of a split table, whatever the order of its rows."""
    rows = sorted(zip(table["fold"].astype(int), table["id"], table["split"], strict=True))
    lines = (f"{fold}\x1f{sample}\x1f{part}" for fold, sample, part in rows)
    return hashlib.sha256("\x1e".join(lines).encode()).hexdigest()


def count_split(samples: pd.DataFrame, split: pd.Series, task: Task) -> dict[str, dict[str, int]]:
    """How many samples, patients and samples of each class a part holds: {part: {"samples", "patients", class: n}}."""
    part = split.loc[samples["id"]].to_numpy()
    classes = _class_indices(samples, task)
    counts: dict[str, dict[str, int]] = {}
    for name in SPLITS:
        inside = part == name
        counts[name] = {
            "samples": int(inside.sum()),
            "patients": int(samples.loc[inside, "patient"].nunique()),
        }
        counts[name] |= {
            label: int((classes[inside] == index).sum()) for index, label in enumerate(task.classes)
        }
    return counts


# --- patients and strata ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Patient:
    name: str
    samples: int
    classes: frozenset[int]  # those that any of its samples shows


def _class_indices(samples: pd.DataFrame, task: Task) -> NDArray[np.int64]:
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


def _patients_in_random_order(samples: pd.DataFrame, task: Task, seed: int) -> list[_Patient]:
    """Each patient's place comes from (seed, its name) alone, never from the other patients."""
    classes: dict[str, list[int]] = {}
    for name, index in zip(samples["patient"], _class_indices(samples, task).tolist(), strict=True):
        classes.setdefault(name, []).append(index)
    patients = [_Patient(name, len(shown), frozenset(shown)) for name, shown in classes.items()]

    def place(patient: _Patient) -> tuple[int, str]:
        return int(philox("split", seed, patient.name).random_raw()), patient.name

    return sorted(patients, key=place)


def _strata(patients: Sequence[_Patient], task: Task, least: int) -> list[list[_Patient]]:
    """Patients by their most severe class: in the order of the task's classes, "normal" always at the end.

    A stratum of fewer than `least` patients joins its neighbour: patients may show several classes, so that the parts
    may still hold them all, which is checked in the end. No stratum at all: too few patients whatever their class.
    """
    severity = sorted(range(len(task.classes)), key=lambda index: (task.classes[index] == "normal", index))
    strata: list[list[_Patient]] = []
    pool: set[str] = set()
    dealt: set[str] = set()
    for index in severity:
        pool |= {patient.name for patient in patients if index in patient.classes} - dealt
        if len(pool) >= least:
            strata.append([patient for patient in patients if patient.name in pool])
            dealt |= pool
            pool = set()
    if strata and pool:
        last = {patient.name for patient in strata[-1]} | pool
        strata[-1] = [patient for patient in patients if patient.name in last]
    return strata


# --- cutting ------------------------------------------------------------------------------------------------------


def _parts_by_fold(samples: pd.DataFrame, task: Task, folds: int, seed: int) -> list[dict[str, str]]:
    """For each fold, patient -> part. Raises StudyError unless every part of every fold holds every class."""
    if folds < 1:
        raise StudyError(f"folds (={folds}) must be at least 1; 1 is the hold-out alone")
    patients = _patients_in_random_order(samples, task, seed)
    strata = _strata(patients, task, least=_patients_needed(folds))
    stretches = _holdout_stretch(strata, task) if folds == 1 else _fold_stretches(strata, folds)
    result = [_name_parts(strata, stretch, task) for stretch in stretches]
    if not strata or not all(_complete(patients, parts, task) for parts in result):
        raise StudyError(_too_few(patients, task, folds))
    return result


def _patients_needed(folds: int) -> int:
    """Of each class: every fold tests one patient and leaves two more, one for validation and one for training."""
    return 4 if folds == 2 else max(3, folds)


# A stretch gives each stratum's test part as (start, stop) in its random order.


def _holdout_stretch(strata: Sequence[list[_Patient]], task: Task) -> list[list[tuple[int, int]]]:
    stretch = []
    wanted = 0.0
    for stratum in strata:
        wanted += task.test_fraction * _count(stratum)
        cut = _nearest_cut(stratum, wanted, low=1, high=len(stratum) - 2)
        wanted -= _count(stratum[:cut])  # what is left over or missing goes to the next stratum
        stretch.append((0, cut))
    return [stretch]


def _fold_stretches(strata: Sequence[list[_Patient]], folds: int) -> list[list[tuple[int, int]]]:
    stretches: list[list[tuple[int, int]]] = [[] for _ in range(folds)]
    least = 2 if folds == 2 else 1  # patients in a test part; of two parts, each is all that the other leaves
    wanted = np.zeros(folds)
    for stratum in strata:
        start = 0
        for fold in range(folds):
            wanted[fold] += (fold + 1) / folds * _count(stratum)
            high = len(stratum) - (folds - 1 - fold) * least
            stop = high if fold == folds - 1 else _nearest_cut(stratum, wanted[fold], start + least, high)
            wanted[fold] -= _count(stratum[:stop])
            stretches[fold].append((start, stop))
            start = stop
    return stretches


def _name_parts(
    strata: Sequence[list[_Patient]], stretch: Sequence[tuple[int, int]], task: Task
) -> dict[str, str]:
    parts: dict[str, str] = {}
    wanted = 0.0
    for stratum, (start, stop) in zip(strata, stretch, strict=True):
        rest = stratum[stop:] + stratum[:start]
        wanted += task.val_fraction * _count(stratum)
        cut = _nearest_cut(rest, wanted, low=1, high=len(rest) - 1)
        wanted -= _count(rest[:cut])
        for part, members in (("test", stratum[start:stop]), ("val", rest[:cut]), ("train", rest[cut:])):
            parts |= {patient.name: part for patient in members}
    return parts


def _nearest_cut(stratum: Sequence[_Patient], wanted: float, low: int, high: int) -> int:
    """The number of leading patients, within low..high, whose samples come nearest to `wanted`."""
    samples = np.cumsum([0, *(patient.samples for patient in stratum)])
    return low + int(np.argmin(np.abs(samples[low : high + 1] - wanted)))


def _count(patients: Sequence[_Patient]) -> int:
    return sum(patient.samples for patient in patients)


def _complete(patients: Sequence[_Patient], parts: Mapping[str, str], task: Task) -> bool:
    shown = {(parts[patient.name], index) for patient in patients for index in patient.classes}
    return len(shown) == len(SPLITS) * len(task.classes)


def _too_few(patients: Sequence[_Patient], task: Task, folds: int) -> str:
    found = ", ".join(
        f"{sum(index in patient.classes for patient in patients)} of {label!r}"
        for index, label in enumerate(task.classes)
    )
    why = "one each for training, validation and test" if folds == 1 else f"for {folds} folds"
    remedy = "add patients" if folds == 1 else "add patients or ask for fewer folds"
    return (
        f"the data hold too few patients to split for the task {task.name!r}: patients with images {found}; "
        f"at least {_patients_needed(folds)} of each class are needed ({why}), so {remedy}"
    )
