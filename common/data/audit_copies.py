"""Findings on pictures and patients that are there more than once: twice counted, on two sides, or under two labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common import config
from common.data.findings import Finding, Row, counted
from common.data.likeness import Likeness

SAME_FILE, SAME_PIXELS, ALIKE = "same file", "same pixels", "look alike"
HOW = {SAME_FILE: "the file", SAME_PIXELS: "the pixels", ALIKE: "the look"}  # the surest first


@dataclass(frozen=True)
class Pair:
    """Two rows of the audit's frame that show one slice."""

    first: int
    second: int
    similarity: float  # 1 where the pixels are equal
    how: str  # SAME_FILE | SAME_PIXELS | ALIKE


def pairs_of(frame: pd.DataFrame, likeness: Likeness) -> list[Pair]:
    """Every pair of copies; of equal ones each with the first of them, and with the first of each label and patient."""
    sha256 = frame["sha256"].tolist()
    kind = list(zip(frame["label"], frame["patient"], strict=True))
    found = []
    for rows in _equal_groups(likeness):
        heads: dict[tuple[str, str], int] = {}
        for row in rows:
            heads.setdefault(kind[row], row)
        for row in rows:
            for head in sorted({rows[0], *heads.values()}):
                if head < row:
                    how = SAME_FILE if sha256[head] == sha256[row] != "" else SAME_PIXELS
                    found.append(Pair(head, row, 1.0, how))
    near = zip(likeness.near.tolist(), likeness.similarity.tolist(), strict=True)
    return found + [Pair(i, j, value, ALIKE) for (i, j), value in near]


def _equal_groups(likeness: Likeness) -> Iterator[list[int]]:
    members: dict[int, list[int]] = {}
    for row, first in enumerate(likeness.equal.tolist()):
        members.setdefault(first, []).append(row)
    return (rows for rows in members.values() if len(rows) > 1)


def find_exact_copies(frame: pd.DataFrame, likeness: Likeness) -> Finding:
    """The same picture twice, under two names or in two files' forms. It counts double; that is no fault of a
    comparison, whose frameworks are judged on the same pictures, but one of every score: a warning.
    """
    groups = list(_equal_groups(likeness))
    if not groups:
        return Finding(
            "exact-copies", "pass", "No picture is there twice, neither by its file nor by its pixels."
        )
    rows: list[Row] = []
    same_file = crossing = 0
    for group in groups:
        those = frame.iloc[group]
        files = len(set(those["sha256"])) == 1
        patients, sources = those["patient"].nunique(), those["source"].nunique()
        same_file += files
        crossing += patients > 1
        rows.append(
            {
                "files": " = ".join(those["file"]),
                "how": SAME_FILE if files else SAME_PIXELS,
                "patients": patients,
                "sets": sources,
            }
        )
    rows.sort(key=lambda row: (-int(row["patients"]), -int(row["sets"]), str(row["files"])))
    extra = sum(len(group) - 1 for group in groups)
    sentence = (
        f"{counted(len(groups), 'slice')} there more than once, pixel for pixel ({same_file:,} byte for byte too). "
        f"Superfluous, and counted again in every score: {counted(extra, 'picture')} of {len(frame):,}."
    )
    if crossing:
        sentence += f" Given to more than one patient: {crossing:,}."
    return Finding("exact-copies", "warn", sentence, tuple(rows), "Keep one of each.")


def find_near_copies(frame: pd.DataFrame, pairs: list[Pair]) -> Finding:
    """One slice in another encoding, size, window or crop, within a data set and between two of them.

    Between data sets, or between patients, a warning; among one patient's own slices a note, for neighbours in a scan
    may be as alike.
    """
    source, patient = frame["source"].to_numpy(object), frame["patient"].to_numpy(object)
    sentences, reupload = _overlap(source, pairs)
    shared_sets = len(sentences)
    near = [pair for pair in pairs if pair.how == ALIKE]
    inside = [pair for pair in near if source[pair.first] == source[pair.second]]
    strange = [pair for pair in inside if patient[pair.first] != patient[pair.second]]
    own = len(inside) - len(strange)
    if strange:
        sentences.append(
            f"Within a data set, {counted(len(strange), 'pair')} of pictures of different patients look the same."
        )
    if own:
        sentences.append(
            f"Within a patient, {counted(own, 'pair')} of nearly equal slices: neighbours, or one slice twice."
        )
    if shared_sets:
        sentences.insert(shared_sets, "Patients that share a slice count as one.")
    if not sentences:
        return Finding(
            "near-copies", "pass", "No picture looks like another of a different name, size or encoding."
        )
    shown = [pair for pair in pairs if source[pair.first] != source[pair.second]] + strange
    shown = sorted(shown, key=lambda pair: -pair.similarity)
    kept = {(pair.first, pair.second) for pair in shown}
    shown += sorted((p for p in inside if (p.first, p.second) not in kept), key=lambda pair: -pair.similarity)
    remedy = ""
    if reupload:
        remedy = "Give one of the data sets only: a copy under another name is no second data set."
    elif len(shown) > own:
        remedy = "Keep one of each, or give both one patient in patients.csv."
    verdict = "warn" if len(shown) > own else "note"
    return Finding("near-copies", verdict, " ".join(sentences), tuple(pair_rows(frame, shown)), remedy)


def _overlap(source: NDArray[np.object_], pairs: list[Pair]) -> tuple[list[str], bool]:
    """What each two data sets share, in sentences, and whether one is a re-upload of the other."""
    sizes = {name: int((source == name).sum()) for name in sorted(set(source))}
    shared: dict[tuple[str, str], dict[int, str]] = {}  # (inner, outer) -> row of inner -> how, the surest
    for pair in pairs:
        for one, other in ((pair.first, pair.second), (pair.second, pair.first)):
            if source[one] != source[other]:
                rows = shared.setdefault((source[one], source[other]), {})
                rows[one] = min(rows.get(one, ALIKE), pair.how, key=list(HOW).index)
    sentences, reupload = [], False
    for names in sorted({tuple(sorted(names)) for names in shared}):
        # Told of the one of which more is in the other
        directions = [(names[0], names[1]), (names[1], names[0])]
        inner, outer = max(directions, key=lambda one: (len(shared[one]) / sizes[one[0]], -sizes[one[0]]))
        rows = shared[inner, outer]
        counts = [f"{n:,} by {word}" for how, word in HOW.items() if (n := list(rows.values()).count(how))]
        is_reupload = len(rows) / sizes[inner] >= config.AUDIT_REUPLOAD_SHARE
        reupload = reupload or is_reupload
        sentences.append(
            f"{len(rows):,} of {sizes[inner]:,} pictures of {inner} are in {outer} as well "
            f"(recognised {', '.join(counts)}){': a re-upload' if is_reupload else ''}."
        )
    return sentences, reupload


def find_contradictions(frame: pd.DataFrame, pairs: list[Pair]) -> Finding:
    """One slice under two labels that exclude each other: whichever is learnt, the truth is wrong somewhere. Refused,
    for equal pixels, and for copies of different patients or data sets.

    Slices of one patient that merely look alike may be neighbours, of which one shows the lesion's end: they only warn,
    and only above `config.SAME_SLICE_SIMILARITY`, which neighbours do not reach. "stroke" contradicts "normal" alone.
    """
    name = "contradicting-labels"
    label = frame["label"].tolist()
    apart = list(zip(frame["source"], frame["patient"], strict=True))
    opposed = [pair for pair in pairs if contradicts(label[pair.first], label[pair.second])]
    wrong = [pair for pair in opposed if pair.how != ALIKE or apart[pair.first] != apart[pair.second]]
    surely = set(wrong)
    odd = [pair for pair in opposed if pair not in surely and pair.similarity > config.SAME_SLICE_SIMILARITY]
    kinds = sorted({" and ".join(sorted((label[p.first], label[p.second]))) for p in (wrong or odd)})
    if wrong:
        count = len({row for pair in wrong for row in (pair.first, pair.second)})
        wrong.sort(key=lambda pair: -pair.similarity)
        return Finding(
            name, "refuse",
            f"Slices under two labels that exclude each other: {counted(count, 'picture')} in "
            f"{counted(len(wrong), 'pair')} of copies ({', '.join(kinds)}).",
            tuple(pair_rows(frame, wrong + odd)),
            "Find out which label is right, or leave these pictures out; a data set labelled by patient and one "
            "labelled by slice do not go together.",
        )  # fmt: skip
    if odd:
        return Finding(
            name, "warn",
            f"Slices of one patient as alike as copies, but with labels that exclude each other: "
            f"{counted(len(odd), 'pair')} ({', '.join(kinds)}). One slice with and without a lesion?",
            tuple(pair_rows(frame, odd)),
            "Look at the pairs; a lesion that was edited into a copy of a slice is no second slice.",
        )  # fmt: skip
    return Finding(name, "pass", "No slice is there under two labels that exclude each other.")


def contradicts(first: str, second: str) -> bool:
    """Whether a slice cannot have both labels; "stroke" leaves the kind open."""
    return first != second and ("stroke" not in (first, second) or "normal" in (first, second))


def find_patients_on_two_sides(frame: pd.DataFrame, table: pd.DataFrame) -> Finding:
    """A patient with slices in two parts of one fold: the test then asks for a head that was learnt. Refused."""
    name = "patient-on-two-sides"
    joined = table.merge(frame[["id", "patient", "patient_from"]], on="id")
    slices: dict[tuple[int, str], dict[str, list[str]]] = {}  # (fold, patient) -> part -> samples
    for sample, fold, part, patient in zip(
        joined["id"], joined["fold"], joined["split"], joined["patient"], strict=True
    ):
        slices.setdefault((int(fold), str(patient)), {}).setdefault(str(part), []).append(str(sample))
    shared = {key: parts for key, parts in sorted(slices.items()) if len(parts) > 1}
    folds, patients = int(table["fold"].nunique()), int(joined["patient"].nunique())
    if not shared:
        over = f" in any of {folds} folds" if folds > 1 else ""
        return Finding(name, "pass", f"Every patient ({patients:,}) is on one side of the split{over}.")
    rows: list[Row] = [
        {
            "patient": patient,
            "fold": fold,
            "slices": ", ".join(f"{part} {len(those)}" for part, those in sorted(parts.items())),
            "examples": " | ".join(those[0] for _, those in sorted(parts.items())),
        }
        for (fold, patient), parts in shared.items()
    ]
    names = {patient for _, patient in shared}
    guessed = (joined.loc[joined["patient"].isin(list(names)), "patient_from"] == "similarity").any()
    whose = "groups of slices that look like one head," if guessed else "patients"
    return Finding(
        name,
        "refuse",
        f"Of {patients:,} {whose} {len(names):,} with slices on two sides of the split: what is tested was learnt, and "
        "the scores are too good.",
        tuple(rows),
        "Give whole patients to each part, or no parts: they are then drawn by patients.",
    )


def find_copies_on_two_sides(frame: pd.DataFrame, table: pd.DataFrame, pairs: list[Pair]) -> Finding:
    """A slice in training whose copy, under another patient's name, is tested: known answers. Refused. (Copies within
    a patient are on two sides only where the patient is.)
    """
    name = "copies-on-two-sides"
    patient, ids = frame["patient"].to_numpy(object), frame["id"].to_numpy(object)
    strange = [pair for pair in pairs if patient[pair.first] != patient[pair.second]]
    found: dict[Pair, str] = {}
    for _, rows in table.groupby("fold"):
        part = dict(zip(rows["id"], rows["split"], strict=True))
        for pair in strange:
            sides = part.get(ids[pair.first]), part.get(ids[pair.second])
            if None not in sides and sides[0] != sides[1]:
                found.setdefault(pair, f"{sides[0]} | {sides[1]}")
    if not found:
        return Finding(name, "pass", "No picture has a copy on another side of the split.")
    order = sorted(found, key=lambda pair: -pair.similarity)
    rows_ = [row | {"sides": found[pair]} for row, pair in zip(pair_rows(frame, order), order, strict=True)]
    return Finding(
        name, "refuse",
        f"On two sides of the split, under the names of two patients: {counted(len(found), 'pair')} of copies. What is "
        "tested was learnt.",
        tuple(rows_),
        "Give both the same patient in patients.csv, or keep one of them.",
    )  # fmt: skip


def pair_rows(frame: pd.DataFrame, pairs: list[Pair]) -> Iterator[dict[str, str | int | float]]:
    """Pairs as evidence; labels where they differ."""
    columns = [frame[name].tolist() for name in ("file", "label", "patient")]
    files, labels, patients = columns
    for pair in pairs:
        i, j = pair.first, pair.second
        same = labels[i] == labels[j]
        yield {
            "file": files[i],
            "copy": files[j],
            "how": pair.how,
            "similarity": round(pair.similarity, 3),
            "labels": labels[i] if same else f"{labels[i]} | {labels[j]}",
            "patients": patients[i] if patients[i] == patients[j] else f"{patients[i]} | {patients[j]}",
        }
