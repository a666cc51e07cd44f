"""Findings on labels and patients: who has which, whether each part shows each class, whether the patient key fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from common import config
from common.config import SPLITS, TASKS
from common.data.findings import Finding, Row, counted
from common.data.likeness import Likeness
from common.data.samples import class_indices, takes_part
from common.data.splits import EXTERNAL

KNOWN_FROM = {
    "table": "patients.csv",
    "name": "the files' names, PATIENT (k)",
    "dicom": "the DICOM headers",
    "phantom": "the drawing",
    "similarity": "likeness alone",
}


def find_labels(frame: pd.DataFrame) -> Finding:
    """Labels by data set: slices and patients; and whether they are of slices or of patients."""
    rows: list[Row] = []
    for (source, label), those in frame.groupby(["source", "label"]):
        slices = those["patient"].value_counts()
        rows.append(
            {
                "set": str(source),
                "label": str(label),
                "slices": len(those),
                "patients": len(slices),
                "slices_a_patient": f"{slices.min()} to {slices.max()}, median {slices.median():g}",
            }
        )
    guessed = bool((frame["patient_from"] == "similarity").any())
    unit = "group" if guessed else "patient"
    parts = [
        f"{counted(len(those), f'{label} slice')} of {counted(those['patient'].nunique(), unit)}"
        for label, those in frame.groupby("label")
    ]
    sentence = "; ".join(parts) + "."
    if guessed:
        sentence += " A group: slices of one head, by their look."
        return Finding("labels", "note", sentence, tuple(rows))
    patients = frame.groupby("patient").agg(slices=("id", "size"), labels=("label", "nunique"))
    several = patients[patients["slices"] > 1]
    mixed = int((patients["labels"] > 1).sum())
    if mixed:
        sentence += f" Labels are of slices: {counted(mixed, 'patient')} with slices of several."
        return Finding("labels", "note", sentence, tuple(rows))
    if len(several) and len(parts) > 1:
        sentence += (
            f" Labels are constant within each patient ({len(several):,} with several slices), so they are per "
            "patient: a slice need not show what it is labelled."
        )
        return Finding("labels", "note", sentence, tuple(rows))
    return Finding("labels", "pass", sentence, tuple(rows))


def find_classes(
    frame: pd.DataFrame,
    table: pd.DataFrame | None,
    tasks: Sequence[str],
    skipped: Sequence[Mapping[str, str]],
    why_no_split: str = "",
) -> Finding:
    """Whether every part shows every class of each task that is compared. A class that a part does not show cannot be
    learnt, or has no score: refused. Tasks that a study leaves out for that (`skipped`) are not compared: a note.

    A class of few test patients warns: below `config.MIN_INTERVAL_PATIENTS` no interval is given.
    """
    name = "classes-in-parts"
    reasons = "; ".join(f"{row['task']}: {row['reason']}" for row in skipped)
    if table is None or not tasks:
        why = why_no_split if table is None else f"they serve no task ({reasons})"
        remedy = "Add what is missing, and see whether shared slices have made several patients one."
        return Finding("no-split", "refuse", f"The data cannot be split for any task: {why}.", (), remedy)
    rows: list[Row] = []
    missing: list[str] = []
    few: list[str] = []
    folds = sorted({int(fold) for fold in table["fold"]})
    for task in tasks:
        settings = TASKS[task]
        inside = frame[takes_part(frame, settings)]
        joined = inside.assign(index=class_indices(inside, settings)).merge(
            table, on="id", suffixes=("_given", "")
        )
        for fold in folds:
            those = joined[joined["fold"] == fold]
            for part in (*SPLITS, *([EXTERNAL] if (those["split"] == EXTERNAL).any() else [])):
                for index, label in enumerate(settings.classes):
                    here = those[(those["split"] == part) & (those["index"] == index)]
                    patients = here["patient"].nunique()
                    where = f"{label} in {part} ({task})" + (f", fold {fold}" if fold else "")
                    if not patients and part != EXTERNAL:
                        missing.append(where)
                    elif patients < config.MIN_INTERVAL_PATIENTS and part == "test":
                        few.append(f"{where}: {patients}")
                    rows.append(
                        {"task": task, "fold": fold, "part": part, "class": label, "slices": len(here),
                         "patients": patients}
                    )  # fmt: skip
    rows.sort(
        key=lambda row: (row["part"] != "test", int(row["patients"])) if row["patients"] else (False, -1)
    )
    if missing:
        return Finding(
            name, "refuse", f"Classes are missing in parts of the split: {_some(missing)}.", tuple(rows),
            "Complete the part, or leave the task out with --tasks.",
        )  # fmt: skip
    what = f"Every part of the split shows every class of {', '.join(tasks)}."
    if skipped:
        what += f" Tasks left out: {', '.join(row['task'] for row in skipped)}."
        rows += [{"task": row["task"], "left_out": row["reason"]} for row in skipped]
    if few:
        return Finding(
            name, "warn",
            f"{what} But few test patients have one: {_some(few)}; below {config.MIN_INTERVAL_PATIENTS} no interval "
            "is given.",
            tuple(rows), "More patients, or more folds (--folds), in which each patient is tested once.",
        )  # fmt: skip
    return Finding(name, "note" if skipped else "pass", what, tuple(rows))


def _some(words: Sequence[str], most: int = 4) -> str:
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return "; ".join(words[:most]) + more


def find_patient_key(frame: pd.DataFrame, likeness: Likeness) -> Finding:
    """How patients are known, and whether the pictures agree: neighbours in a scan look alike, so that of a right key
    most slices have a slice of their own patient as the nearest of all; of a wrong one, as few as by chance.
    """
    name = "patient-key"
    how = ", ".join(KNOWN_FROM[one] for one in sorted(set(frame["patient_from"])))
    slices = frame["patient"].value_counts()
    spread = f"{slices.min()} to {slices.max()} (median {slices.median():g})"
    sentence = f"Patients are known from {how}: {len(slices):,}, of {spread} slices."
    sizes = Counter(slices.tolist())
    rows: list[Row] = [{"slices_a_patient": size, "patients": sizes[size]} for size in sorted(sizes)]
    if (frame["patient_from"] == "similarity").any():
        # Measured where patients are known, see `config.NEIGHBOUR_SIMILARITY`
        return Finding(
            name, "warn",
            f"Patients are not known: slices were grouped by {how} into {len(slices):,} groups ({spread} slices). "
            "Where patients are known, 95 to 99 % of such links are right, but a patient falls into several groups, so "
            "one head may still be on two sides.",
            tuple(rows), "Add patients.csv (image_id,patient).",
        )  # fmt: skip
    compared = likeness.nearest >= 0
    if not compared.any() or set(frame["patient_from"]) == {"phantom"}:
        return Finding(name, "pass", sentence, tuple(rows))
    if slices.max() == 1:
        return Finding(
            name, "warn", f"{sentence} One slice each: are these patients, or pictures?", tuple(rows),
            "If they are pictures' names, give patients.csv (image_id,patient).",
        )  # fmt: skip
    share, chance = neighbour_share(frame, likeness)
    told = (
        f"{sentence} The nearest neighbour of a slice is of the same patient for {share:.0%}; by chance it would be "
        f"{chance:.1%}."
    )
    if share >= config.AUDIT_NEIGHBOUR_SHARE_MIN:
        return Finding(name, "pass", f"{told} The key fits the pictures.", tuple(rows))
    return Finding(
        name, "warn",
        f"{told} A key that fits reaches {config.AUDIT_NEIGHBOUR_SHARE_MIN:.0%} and more, unless slices lie far apart.",
        tuple(rows), "Check where the patients' names come from.",
    )  # fmt: skip


def neighbour_share(frame: pd.DataFrame, likeness: Likeness) -> tuple[float, float]:
    """Share of the slices, of patients with several, whose nearest neighbour is of the same patient, and the share that
    a key dealt out at random would have: sum over patients n (n - 1) / (N (N - 1)).
    """
    patient = frame["patient"].to_numpy(object)
    sizes = frame.groupby("patient")["id"].transform("size").to_numpy()
    usable = (likeness.nearest >= 0) & (sizes > 1)
    same = patient[likeness.nearest] == patient
    total = len(frame)
    chance = float((sizes[usable] - 1).mean() / max(1, total - 1)) if usable.any() else float("nan")
    return float(np.mean(same[usable])) if usable.any() else float("nan"), chance
