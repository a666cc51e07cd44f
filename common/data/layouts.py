"""Folders on disk -> the sample table. Layouts are recognised by themselves; nothing is guessed.

The two-class layout: `Normal/` and `Stroke/` (any letter case) with pictures, in the given folder or up to two levels
below it (as in `Brain_Data_Organised/`). Beside them, or further up within the given folder, may stand
- `masks/{Normal,Stroke}/NAME.png`, the lesion masks, named as their pictures;
- `patients.csv` with the columns `image_id,patient`, which then decides; otherwise the patient is read from the name
  `PATIENT (k).jpg`. Where neither says it, nothing is read: a split by slices would leak.

Files are listed and hashed here, not decoded. What cannot be opened stays in the table with an empty sha256, so that
decoding names it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence, Sized
from pathlib import Path

import pandas as pd

from common import config
from common.data.patients import find_patients
from common.data.samples import sample_table
from common.errors import StudyError

# Listed as pictures; the last row is refused when decoded, by name, rather than left out in silence.
PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"} | {".gif", ".webp", ".jp2", ".heic", ".dcm"}
)
LEAVINGS = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
MASKS_FOLDER = "masks"
TWO_CLASSES = ("normal", "stroke")
SPLIT_FOLDERS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
EXPECTED = (
    "expected: Normal/ and Stroke/ with pictures named 'PATIENT (k).jpg', optionally masks/{Normal,Stroke}/NAME.png "
    "and patients.csv"
)
Row = dict[str, str]


def open_dataset(*directories: Path | str) -> pd.DataFrame:
    """The sample table of one or several folders (see `common.data.samples`); paths in it are absolute.

    An id is the path below the folder that holds the classes, without suffix: `Stroke/58 (1)`. With several folders,
    ids and patients get the prefix `SOURCE:`, the folder's name, numbered where two are equal. Raises StudyError for
    anything that fits no layout.
    """
    if not directories:
        raise StudyError("no data folder was given; name at least one")
    roots = [_existing_folder(directory) for directory in directories]
    rows: list[Row] = []
    for root, source in zip(roots, _source_names(roots), strict=True):
        found = _recognise(root)
        prefix = f"{source}:" if len(roots) > 1 else ""
        for row in found:
            row |= {"id": prefix + row["id"], "patient": prefix + row["patient"], "source": source}
        rows += found
    _refuse_repeated_files(rows)
    for row in rows:
        row["sha256"] = _sha256(Path(row["path"]))
    return sample_table(rows)


def _recognise(root: Path) -> list[Row]:
    for recognise in (recognise_three_class, recognise_two_class):
        rows = recognise(root)
        if rows is not None:
            return rows
    raise StudyError(f"{root} fits no known layout.\nfound: {_describe(root)}\n{EXPECTED}{_hint(root)}")


# --- layouts: each gives the rows without sha256 and source, or None where it does not apply -----------------------


def recognise_three_class(root: Path) -> list[Row] | None:
    """`{Bleeding,Ischemia,Normal}/`: known, and refused with a plain sentence."""
    for folder in (folder for level in _levels(root) for folder in level):
        if {"bleeding", "ischemia"} <= {child.name.casefold() for child in _folders(folder)}:
            raise StudyError(
                f"{folder} has the three-class layout (Bleeding, Ischemia, Normal), which is read from the next "
                "version on; this version reads Normal/ and Stroke/"
            )
    return None


def recognise_two_class(root: Path) -> list[Row] | None:
    """`{Normal,Stroke}/` with pictures, masks and patients.csv beside."""
    for level in _levels(root):
        candidates = [folder for folder in level if _class_folders(folder)]
        if candidates:
            base = _only_candidate(root, candidates)
            return _two_class_rows(root, base, _class_folders(base))
    return None


def _class_folders(folder: Path) -> dict[str, Path]:
    """Label -> folder, of those that are there. Two spellings of one class are refused."""
    found: dict[str, Path] = {}
    for child in _folders(folder):
        label = child.name.casefold()
        if label in TWO_CLASSES and label in found:
            raise StudyError(
                f"{folder} has both {found[label].name}/ and {child.name}/; merge them into one folder"
            )
        if label in TWO_CLASSES:
            found[label] = child
    return found


def _only_candidate(root: Path, candidates: Sequence[Path]) -> Path:
    if len(candidates) == 1:
        return candidates[0]
    names = ", ".join(f"{folder.relative_to(root).as_posix()}/" for folder in candidates[:5])
    if any(folder.name.casefold() in SPLIT_FOLDERS for folder in candidates):
        raise StudyError(
            f"{root} is divided into {names}, a layout that is read from a later version on; patients may sit on both "
            "sides of such a division, so put the pictures into one Normal/ and one Stroke/"
        )
    raise StudyError(f"{root} holds several data sets ({names}); give each folder by its own")


def _two_class_rows(root: Path, base: Path, classes: dict[str, Path]) -> list[Row]:
    pictures = {label: _pictures(folder) for label, folder in classes.items()}
    _require_both_classes(base, classes, pictures)
    folders = _upwards(base, root)
    masks = _masks(folders, pictures)
    rows = []
    seen: dict[str, Path] = {}
    for label, files in pictures.items():
        for file in files:
            name = f"{classes[label].name}/{file.stem}"
            if name in seen:
                raise StudyError(f"{seen[name]} and {file} differ in their suffix only; keep one of them")
            seen[name] = file
            mask = masks.get((label, file.stem))
            rows.append({"id": name, "path": str(file), "label": label, "mask": str(mask) if mask else ""})
    patients = find_patients(rows, folders)
    return [row | {"patient": patients[row["id"]]} for row in rows]


def _require_both_classes(base: Path, classes: dict[str, Path], pictures: dict[str, list[Path]]) -> None:
    if all(pictures.get(label) for label in TWO_CLASSES):
        return
    found = [f"{folder.name}/ has {_number(pictures[label], 'picture')}" for label, folder in classes.items()]
    missing = [f"{label.capitalize()}/ is missing" for label in TWO_CLASSES if label not in classes]
    raise StudyError(f"{base} lacks a class: {', '.join(found + missing)}; both are needed")


# --- masks --------------------------------------------------------------------------------------------------------


def _masks(folders: Iterable[Path], pictures: dict[str, list[Path]]) -> dict[tuple[str, str], Path]:
    """(label, stem) -> mask file, from the nearest masks folder."""
    nearest = next(
        (c for f in folders for c in _folders(f, with_masks=True) if c.name.casefold() == MASKS_FOLDER), None
    )
    if nearest is None:
        return {}
    masks = {
        (label, file.stem): file
        for label, folder in _class_folders(nearest).items()
        for file in _pictures(folder)
        if file.suffix.casefold() == ".png"
    }
    known = {(label, file.stem) for label, files in pictures.items() for file in files}
    if masks and known.isdisjoint(masks):
        label, stem = min(masks)
        raise StudyError(
            f"{nearest} holds {_number(masks, 'mask')}, but none is named as a picture, e.g. {stem!r} of {label}; "
            "name each mask as its picture, with the suffix .png"
        )
    return masks


# --- folders and files --------------------------------------------------------------------------------------------


def _existing_folder(directory: Path | str) -> Path:
    path = Path(directory)
    try:
        path.stat()
    except (OSError, ValueError) as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be opened ({error})"
        raise StudyError(f"data folder {path} {reason}; check the path") from None
    if not path.is_dir():
        raise StudyError(
            f"{path} is a file; give the folder that holds Normal/ and Stroke/ (unpack archives first)"
        )
    root = path.resolve()
    if not _entries(root):
        raise StudyError(f"data folder {root} is empty; {EXPECTED}")
    return root


def _source_names(roots: Sequence[Path]) -> list[str]:
    """Folder names, made unique in the order given: data, data-2, ..."""
    repeated = next((root for root in roots if roots.count(root) > 1), None)
    if repeated:
        raise StudyError(
            f"data folder {repeated} is given twice; its images would be on both sides of a split"
        )
    names: list[str] = []
    for root in roots:
        base = root.name or "data"
        numbered = (f"{base}-{number}" for number in itertools.count(2))
        names.append(next(name for name in itertools.chain([base], numbered) if name not in names))
    return names


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, by name, without hidden entries and the leavings of archivers."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise StudyError(
            f"folder {folder} cannot be listed ({error.strerror}); check its permissions"
        ) from error
    return [entry for entry in entries if not entry.name.startswith(".") and entry.name not in LEAVINGS]


def _folders(folder: Path, with_masks: bool = False) -> list[Path]:
    """The folders in a folder; none where it cannot be listed (`lost+found`), for no layout is seen there."""
    try:
        children = [entry for entry in _entries(folder) if entry.is_dir()]
    except StudyError:
        return []
    return [child for child in children if with_masks or child.name.casefold() != MASKS_FOLDER]


def _levels(root: Path) -> Iterator[list[Path]]:
    """The folder itself, those in it, and those in them."""
    level = [root]
    for _ in range(3):
        yield level
        level = [child for folder in level for child in _folders(folder)]


def _upwards(base: Path, root: Path) -> list[Path]:
    """`base` and the folders above it, as far as `root`."""
    return [base, *(parent for parent in base.parents if parent.is_relative_to(root))]


def _pictures(folder: Path) -> list[Path]:
    """The pictures that lie directly in a class folder; pictures deeper down are refused rather than missed."""
    files = []
    for entry in _entries(folder):
        if entry.is_dir():
            if any(child.suffix.casefold() in PICTURE_SUFFIXES for child in _entries(entry)):
                raise StudyError(
                    f"{entry} holds pictures, but those of a class must lie directly in {folder.name}/"
                )
        elif entry.suffix.casefold() in PICTURE_SUFFIXES:
            if not entry.name.isprintable():  # line breaks, and bytes that are no UTF-8
                raise StudyError(f"{str(entry)!a} has a name with unprintable characters; rename it")
            files.append(entry)
    return files


def _refuse_repeated_files(rows: Iterable[Row]) -> None:
    seen: set[str] = set()
    for row in rows:
        if row["path"] in seen:
            raise StudyError(
                f"{row['path']} is reached through two of the data folders; give folders that do not overlap"
            )
        seen.add(row["path"])


def _sha256(file: Path) -> str:
    """Digest of the file's bytes, read in pieces; empty for what cannot be opened or is too large to be decoded."""
    try:
        if (
            not file.is_file() or file.stat().st_size > config.MAX_FILE_BYTES
        ):  # opening a pipe would wait for ever
            return ""
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""


# --- what was found -----------------------------------------------------------------------------------------------


def _describe(root: Path, most: int = 10) -> str:
    entries = _entries(root)
    lines = []
    for entry in entries[:most]:
        if entry.is_dir():
            lines.append(f"  {entry.name}/ ({_number(_entries(entry), 'file')})")
        else:
            lines.append(f"  {entry.name}")
    if len(entries) > most:
        lines.append(f"  ... and {len(entries) - most} more")
    return "\n".join(["", *lines])


def _number(things: Sized, noun: str) -> str:
    return f"{len(things)} {noun}" if len(things) == 1 else f"{len(things)} {noun}s"


def _hint(root: Path) -> str:
    if root.name.casefold() in TWO_CLASSES:
        return f"\n{root.name}/ is one class; give the folder above it"
    return ""
