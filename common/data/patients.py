"""Whose slice is it? From `patients.csv` where there is one, otherwise from the picture's name, never by a guess."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.errors import StudyError

PATIENTS_FILE = "patients.csv"
# "58 (1)": anything with a digit, then the running number. Without the digit, "stroke (1)" would be a patient
# named "stroke".
PATIENT_IN_NAME = re.compile(r"(?P<patient>.*\d.*?) ?\(\d+\)")


def find_patients(rows: Sequence[Mapping[str, str]], folders: Sequence[Path]) -> dict[str, str]:
    """Sample id -> patient, for rows with `id` and `path`.

    `folders` may hold `patients.csv` with the columns `image_id,patient`, the first that does decides; without one the
    names must follow `PATIENT (k).jpg`. Raises StudyError unless every row has exactly one patient.
    """
    file = next((folder / PATIENTS_FILE for folder in folders if (folder / PATIENTS_FILE).is_file()), None)
    return _patients_from_names(rows, folders[0]) if file is None else _patients_from_file(rows, file)


def _patients_from_names(rows: Sequence[Mapping[str, str]], base: Path) -> dict[str, str]:
    matches = {row["id"]: PATIENT_IN_NAME.fullmatch(Path(row["path"]).stem) for row in rows}
    nameless = [name for name, match in matches.items() if match is None]
    if nameless:
        raise StudyError(
            f"the patient of {len(nameless)} pictures in {base} is unknown, e.g. of {nameless[0]!r}: their names do "
            f"not follow 'PATIENT (k).jpg', such as '58 (1).jpg', and there is no {PATIENTS_FILE}. Without patients a "
            f"split would put slices of one head on both sides, so add {PATIENTS_FILE} with one line a picture:\n"
            f"image_id,patient\n{nameless[0]},58"
        )
    return {name: match["patient"].strip() for name, match in matches.items() if match}


def _patients_from_file(rows: Sequence[Mapping[str, str]], file: Path) -> dict[str, str]:
    """`image_id` may be the id, the file's name or its stem, as long as it means one picture."""
    patient_of = _read_patients(file)
    meant: dict[str, set[str]] = {}
    for row in rows:
        for key in _image_ids(row):
            meant.setdefault(key, set()).add(row["id"])
    patients: dict[str, str] = {}
    for row in rows:
        keys = [key for key in _image_ids(row) if key in patient_of]
        if not keys:
            continue
        if len(meant[keys[0]]) > 1:
            names = " or ".join(sorted(meant[keys[0]]))
            raise StudyError(f"image_id {keys[0]!r} in {file} may mean {names}; write the one that is meant")
        patients[row["id"]] = patient_of[keys[0]]
    without = [row["id"] for row in rows if row["id"] not in patients]
    if without:
        raise StudyError(
            f"{file} names no patient for {len(without)} of {len(rows)} pictures, e.g. {without[0]!r}; add the line "
            f"'{without[0]},PATIENT' for each"
        )
    return patients


def _image_ids(row: Mapping[str, str]) -> tuple[str, ...]:
    """How patients.csv may call a picture, the most exact first."""
    file = Path(row["path"])
    return row["id"], row["id"] + file.suffix, file.name, file.stem


def _read_patients(file: Path) -> dict[str, str]:
    needed = ("image_id", "patient")
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True, strict=True)
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            lines = [tuple((line.get(name) or "").strip() for name in needed) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StudyError(
            f"{file} cannot be read as CSV ({error}); it needs the columns image_id,patient"
        ) from error
    missing = [name for name in needed if name not in columns]
    if missing:
        raise StudyError(
            f"{file} lacks the column {missing[0]!r}; it needs image_id,patient and has {columns}"
        )
    patients: dict[str, str] = {}
    for image, patient in lines:
        if not patient:
            raise StudyError(f"{file} has no patient for image_id {image!r}; fill it in")
        if patients.setdefault(image, patient) != patient:
            raise StudyError(
                f"{file} gives image_id {image!r} to {patients[image]!r} and to {patient!r}; keep one"
            )
    return patients
