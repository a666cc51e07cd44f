"""`External_Test/{PNG,DICOM,MASKS,OVERLAY,labels.csv}`: pictures that are only ever tested on."""

from __future__ import annotations

from pathlib import Path

from common.data.class_folders import Picture, find_dicoms, find_masks, find_pictures, lone_folder
from common.data.folders import entries, named_subfolders
from common.data.id_tables import match_ids, read_id_table
from common.data.samples import NO_LESION
from common.errors import StudyError

FOLDER = frozenset({"external_test"})
LABELS_FILE = "labels.csv"
LABELS = {"0": "normal", "1": "stroke"}


def external_pictures(base: Path) -> list[Picture]:
    """The pictures of `External_Test/` in `base`, labelled by its `labels.csv`; none where there is no such folder.

    Lines of the table that name no picture are ignored; a picture that it does not name is a StudyError.
    """
    external = next(iter(named_subfolders(base, FOLDER).values()), None)
    if external is None:
        return []
    folder = lone_folder(external, "stroke")
    pictures = find_pictures(folder)
    if not pictures:
        raise StudyError(f"{external} holds no pictures; fill its PNG/ or remove the folder")
    labels = _read_labels(external, {f"{external.name}/{stem}": file for stem, file in pictures.items()})
    masks, dicoms = find_masks(folder, pictures), find_dicoms(folder, pictures)
    found = []
    for stem, file in pictures.items():
        name = f"{external.name}/{stem}"
        mask = NO_LESION if labels[name] == "normal" else masks.get(stem, "")
        found.append(Picture(name, file, labels[name], mask, "external", dicoms.get(stem)))
    return found


def _read_labels(external: Path, files: dict[str, Path]) -> dict[str, str]:
    """Sample id -> label, from the columns `image_id,Stroke`."""
    table = next((entry for entry in entries(external) if entry.name.casefold() == LABELS_FILE), None)
    if table is None:
        raise StudyError(
            f"{external} has no {LABELS_FILE}; add one with the columns image_id,Stroke (1 for a stroke, else 0)"
        )
    stroke = match_ids(files, read_id_table(table, "Stroke"), table, "Stroke")
    odd = next((name for name, value in stroke.items() if value not in LABELS), None)
    if odd is not None:
        raise StudyError(f"{table} says {stroke[odd]!r} in the column Stroke of {odd!r}; it must be 0 or 1")
    return {name: LABELS[value] for name, value in stroke.items()}
