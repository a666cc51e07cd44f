"""The arms of the leak meter: one patient split, and beside it what a study must never do.

| arm | slices are dealt | labels |
|---|---|---|
| `patient` | by patient, as in a study | as they are |
| `slice` | one by one, whoever they are of | as they are |
| `shuffled` | one by one | another patient's |
| `shuffled-patient` | by patient | another patient's |

Slices of one patient look alike. Dealt one by one, they come to stand in training and in the test part, and a model
that knows the patient again scores well without knowing the disease. Labels that went to other patients leave nothing
to learn but whose slice it is: what `shuffled` still scores above chance is recognition (Yagis et al. 2021).

Two arms with the same labels have exactly as many slices of each class in each part, so that only the patients differ.
Everything comes from the seed and the ids of samples and patients, whatever the order of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from common.config import SPLITS, Task
from common.data.samples import class_indices, takes_part
from common.data.splits import EXTERNAL, split_table, task_split
from common.data.strata import SEVERITY, patients_needed
from common.errors import StudyError
from common.random_numbers import philox


@dataclass(frozen=True)
class Arm:
    """One way to deal and to label."""

    name: str
    title: str
    leaky: bool  # slices of one patient stand on both sides
    shuffled: bool  # the labels are those of other patients


ARMS: dict[str, Arm] = {
    one.name: one
    for one in (
        Arm("patient", "Split by patient", leaky=False, shuffled=False),
        Arm("slice", "Split by slice", leaky=True, shuffled=False),
        Arm("shuffled", "Split by slice, labels shuffled", leaky=True, shuffled=True),
        Arm("shuffled-patient", "Split by patient, labels shuffled", leaky=False, shuffled=True),
    )
}


def deal(samples: pd.DataFrame, task: Task, arm: Arm, seed: int) -> tuple[pd.DataFrame, pd.Series]:
    """The samples of an arm, sorted by id and with its labels, and the part of each (sample id -> part).

    The split by patient is that of `splits.split_table` for the seed: a part that the data set gives is not kept, for
    each seed draws anew, and external samples are left out. Raises StudyError where a part lacks a class.
    """
    inner = samples[samples["split"] != EXTERNAL].sort_values("id", kind="stable", ignore_index=True)
    inner = inner.assign(split="")
    table = task_split(inner, split_table(inner, 1, seed), task)
    split = table.set_index("id")["split"]
    used = inner[inner["id"].isin(split.index)].reset_index(drop=True)
    if arm.shuffled:
        used = shuffle_labels(used, split, seed)
    if arm.leaky:
        split = deal_slices(used, split, task, seed)
    return used, split


def deal_slices(samples: pd.DataFrame, split: pd.Series, task: Task, seed: int) -> pd.Series:
    """A split of the same samples slice by slice, sample id -> part: as many of each class in each part as `split` has,
    the slices of a class in a random order that is drawn per slice from (seed, its id).
    """
    classes = class_indices(samples, task)
    dealt: dict[str, str] = {}
    for index in sorted(set(classes.tolist())):
        ids = samples.loc[classes == index, "id"]
        order = sorted(ids, key=lambda name: (int(philox("slice split", seed, name).random_raw()), name))
        counts = ids.map(split).value_counts()
        parts = [part for part in SPLITS for _ in range(int(counts.get(part, 0)))]
        dealt |= dict(zip(order, parts, strict=True))
    return samples["id"].map(dealt).set_axis(samples["id"]).rename("split")


def shuffle_labels(samples: pd.DataFrame, split: pd.Series, seed: int) -> pd.DataFrame:
    """The samples with every patient's label (`patient_labels`) given to a patient drawn at random from the same part
    of `split`, a split by patient; all slices of a patient have one label then.

    Within the part, because so each part keeps its patients of each class, and the labels of the test part tell
    nothing of those of the training part. Every order of a part's patients is equally likely, none left out.
    """
    labels = patient_labels(samples)
    part_of = samples.groupby("patient")["id"].first().map(split)
    given: dict[str, str] = {}
    for part in SPLITS:
        names = sorted(part_of.index[part_of == part])
        order = sorted(names, key=lambda name: (int(philox("shuffle", seed, name).random_raw()), name))
        given |= dict(zip(order, labels[names], strict=True))
    return samples.assign(label=samples["patient"].map(given).astype("str"))


def patient_labels(samples: pd.DataFrame) -> pd.Series:
    """patient -> label: the most severe of its slices', as a scan is read and as splits are stratified."""
    severity = samples["label"].map(SEVERITY.index)
    return severity.groupby(samples["patient"]).min().map(dict(enumerate(SEVERITY)))


def why_not_shuffled(samples: pd.DataFrame, task: Task) -> str:
    """Why the arms with shuffled labels cannot be had, in words; "" if they can."""
    if task.kind == "segmentation":
        return "a mask belongs to its picture and cannot be another patient's"
    inner = samples[takes_part(samples, task) & (samples["split"] != EXTERNAL)]
    labels = patient_labels(inner)
    classes = labels.map(task.class_index)
    for index, name in enumerate(task.classes):
        count = int((classes == index).sum())
        if count < patients_needed(1):
            return (
                f"only {count} of {len(labels)} patients have {name!r} as their most severe label, and training, "
                "validation and test need one each"
            )
    return ""


def shared_patients(samples: pd.DataFrame, split: pd.Series) -> int:
    """Patients of the test part whose slices are in training or validation as well."""
    parts = samples["id"].map(split)
    tested = set(samples.loc[parts == "test", "patient"])
    return len(tested & set(samples.loc[parts.isin(["train", "val"]), "patient"]))


def require_patients(samples: pd.DataFrame) -> None:
    """Raise StudyError where patients are not known: a split by patient could not be drawn."""
    guessed = samples.loc[samples["patient_from"] == "similarity", "source"]
    if len(guessed):
        raise StudyError(
            f"the patients of {len(guessed)} images of {guessed.iloc[0]!r} are not known (images were grouped by "
            "similarity), so there is no split by patient to measure a leak against; add patients.csv "
            "(image_id,patient) or leave that data set out"
        )
