"""Whose slice is it? The surest source that speaks for every picture decides, and the sample table says which."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.data.headers import patients_from_headers
from common.data.id_tables import match_ids, read_id_table
from common.data.similarity import OnProgress, group_similar
from common.errors import StudyError

if TYPE_CHECKING:
    from common.data.dicom import DicomHeader

PATIENTS_FILE = "patients.csv"
# "58 (1)": anything with a digit, then the running number. Without the digit, "stroke (1)" would be a patient
# named "stroke".
PATIENT_IN_NAME = re.compile(r"(?P<patient>.*\d.*?) ?\(\d+\)")


def find_patients(
    files: Mapping[str, Path],
    folders: Sequence[Path],
    names_tell: bool,
    headers: Mapping[str, DicomHeader],
    on_progress: OnProgress = lambda done, total: None,
) -> tuple[dict[str, str], str]:
    """Sample id -> patient for every sample of `files` (sample id -> picture), and how it is known.

    - "table": `patients.csv` (`image_id,patient`) in one of `folders`, the first that has one;
    - "name": every name is `PATIENT (k)`;
    - "dicom": the DICOM headers tell patients or series apart;
    - "similarity": groups of pictures that look like one head, which are parts of patients at best.

    Raises StudyError where a source speaks for some pictures only: a table, or names in a layout whose `names_tell`.
    """
    tables = (folder / PATIENTS_FILE for folder in folders)
    file = next((table for table in tables if os.path.lexists(table)), None)  # one that is no file is told
    if file is not None:
        return match_ids(files, read_id_table(file, "patient"), file, "patient"), "table"
    matches = {name: PATIENT_IN_NAME.fullmatch(picture.stem) for name, picture in files.items()}
    nameless = [name for name, match in matches.items() if match is None]
    if not nameless:
        return {name: match["patient"].strip() for name, match in matches.items() if match}, "name"
    if names_tell and len(nameless) < len(files):
        raise StudyError(
            f"the patient of {len(nameless)} pictures in {folders[0]} is unknown, e.g. of {nameless[0]!r}: unlike the "
            f"others', their names do not follow 'PATIENT (k).jpg', such as '58 (1).jpg'. Rename them, or add "
            f"{PATIENTS_FILE} with one line a picture:\nimage_id,patient\n{nameless[0]},58"
        )
    patients = patients_from_headers(list(files), headers)
    if patients is not None:
        return patients, "dicom"
    names = list(files)
    groups = group_similar([str(files[name]) for name in names], names, on_progress)
    return dict(zip(names, groups, strict=True)), "similarity"
