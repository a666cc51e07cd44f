"""Drawing the parts of a split: patients in strata, in a random order, cut where the shares come out.

The patients of a stratum (the patient's most severe label) stand in a random order that is drawn per patient from
(seed, patient). The test parts are consecutive stretches of that order, cut where the number of images comes nearest
to the wanted share; the validation part follows its test part, around the end if need be; the rest is trained on. What
one stratum has too much or too little of is carried to the next, so that the totals come out as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from common.config import TEST_FRACTION, VAL_FRACTION
from common.errors import StudyError
from common.random_numbers import philox

SEVERITY = ("bleeding", "ischemia", "stroke", "normal")  # the first that a patient shows is its stratum


def draw_parts(samples: pd.DataFrame, folds: int, seed: int) -> list[dict[str, str]]:
    """For each fold, patient -> part. Raises StudyError for fewer patients than any split needs."""
    patients = _patients_in_random_order(samples, seed)
    strata = _strata(patients, least=patients_needed(folds))
    if not strata:
        raise StudyError(
            f"the data hold {len(patients)} patients to split; at least {patients_needed(folds)} are needed "
            f"({describe_need(folds)}), so {describe_remedy(folds)}"
        )
    stretches = _holdout_stretch(strata) if folds == 1 else _fold_stretches(strata, folds)
    return [_name_parts(strata, stretch) for stretch in stretches]


def patients_needed(folds: int) -> int:
    """Of each class: every fold tests one patient and leaves two more, one for validation and one for training."""
    return 4 if folds == 2 else max(3, folds)


def describe_need(folds: int) -> str:
    """What `patients_needed` are needed for."""
    return "one each for training, validation and test" if folds == 1 else f"for {folds} folds"


def describe_remedy(folds: int) -> str:
    """What helps against too few patients."""
    return "add patients" if folds == 1 else "add patients or ask for fewer folds"


# --- patients and strata ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Patient:
    name: str
    samples: int
    labels: frozenset[str]  # those that any of its samples shows


def _patients_in_random_order(samples: pd.DataFrame, seed: int) -> list[_Patient]:
    """Each patient's place comes from (seed, its name) alone, never from the other patients."""
    labels: dict[str, list[str]] = {}
    for name, label in zip(samples["patient"], samples["label"], strict=True):
        labels.setdefault(name, []).append(label)
    patients = [_Patient(name, len(shown), frozenset(shown)) for name, shown in labels.items()]

    def place(patient: _Patient) -> tuple[int, str]:
        return int(philox("split", seed, patient.name).random_raw()), patient.name

    return sorted(patients, key=place)


def _strata(patients: Sequence[_Patient], least: int) -> list[list[_Patient]]:
    """Patients by their most severe label.

    A stratum of fewer than `least` patients joins its neighbour: patients may show several labels, so that the parts
    may still hold them all, which `task_split` checks. No stratum at all: too few patients whatever their label.
    """
    strata: list[list[_Patient]] = []
    pool: set[str] = set()
    dealt: set[str] = set()
    for label in SEVERITY:
        pool |= {patient.name for patient in patients if label in patient.labels} - dealt
        if len(pool) >= least:
            strata.append([patient for patient in patients if patient.name in pool])
            dealt |= pool
            pool = set()
    if strata and pool:
        last = {patient.name for patient in strata[-1]} | pool
        strata[-1] = [patient for patient in patients if patient.name in last]
    return strata


# --- cutting ------------------------------------------------------------------------------------------------------


# A stretch gives each stratum's test part as (start, stop) in its random order.


def _holdout_stretch(strata: Sequence[list[_Patient]]) -> list[list[tuple[int, int]]]:
    stretch = []
    wanted = 0.0
    for stratum in strata:
        wanted += TEST_FRACTION * _count(stratum)
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


def _name_parts(strata: Sequence[list[_Patient]], stretch: Sequence[tuple[int, int]]) -> dict[str, str]:
    parts: dict[str, str] = {}
    wanted = 0.0
    for stratum, (start, stop) in zip(strata, stretch, strict=True):
        rest = stratum[stop:] + stratum[:start]
        wanted += VAL_FRACTION * _count(stratum)
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
