"""The folders of one class: plain pictures, their DICOM files, masks, and pictures with the lesion painted on.

Two arrangements are read alike, `Bleeding/{PNG,DICOM,MASKS,OVERLAY}` and `{PNG,DICOM,MASKS,OVERLAY}/Bleeding`, in any
letter case. What lies in OVERLAY or MASKS is never a picture to classify: it shows the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common import config
from common.data.folders import (
    DICOM_SUFFIXES,
    PICTURE_SUFFIXES,
    by_stem,
    entries,
    named_subfolders,
    number,
    pictures_in,
)
from common.data.samples import NO_LESION, OVERLAY
from common.errors import StudyError

KINDS = frozenset({"png", "dicom", "masks", "overlay"})
CLASSES = frozenset(config.LABELS)


@dataclass(frozen=True)
class Picture:
    """One row of the sample table before anything was read."""

    id: str
    path: Path
    label: str
    mask: str  # as in the sample table
    split: str = ""
    dicom: Path | None = None  # whose header tells of the picture: itself, or the file it was made from


@dataclass(frozen=True)
class ClassFolder:
    """Where the files of one class lie; None where there is no such folder."""

    name: str  # as on disk
    label: str
    direct: Path | None  # the class's own folder
    png: Path | None = None
    dicom: Path | None = None
    masks: Path | None = None
    overlay: Path | None = None


def class_folders(base: Path) -> dict[str, ClassFolder]:
    """Label -> folders, of the classes of `base`, in either arrangement. Masks alone make no class."""
    direct = named_subfolders(base, CLASSES)
    shelves = {
        kind: named_subfolders(folder, CLASSES) for kind, folder in named_subfolders(base, KINDS).items()
    }
    labels = dict.fromkeys([*direct, *shelves.get("png", {}), *shelves.get("dicom", {})])
    found = {}
    for label in labels:
        own = direct.get(label)
        kinds = {kind: folders[label] for kind, folders in shelves.items() if label in folders}
        kinds |= named_subfolders(own, KINDS) if own else {}
        name = (own or kinds.get("png") or kinds["dicom"]).name
        found[label] = ClassFolder(name, label, own, **kinds)
    return found


def lone_folder(folder: Path, label: str) -> ClassFolder:
    """A folder of `{PNG,DICOM,MASKS,OVERLAY}` without classes below."""
    return ClassFolder(folder.name, label, folder, **named_subfolders(folder, KINDS))


def with_masks_above(classes: dict[str, ClassFolder], folders: Sequence[Path]) -> dict[str, ClassFolder]:
    """Classes without masks of their own get those of the nearest `masks/{class}` in `folders`."""
    nearest = next((masks for folder in folders for masks in _masks_folder(folder)), None)
    if nearest is None:
        return classes
    above = named_subfolders(nearest, CLASSES)
    return {label: replace(c, masks=c.masks or above.get(label)) for label, c in classes.items()}


def _masks_folder(folder: Path) -> list[Path]:
    return list(named_subfolders(folder, frozenset({"masks"})).values())


def find_pictures(folder: ClassFolder, kinds_below: bool = True) -> dict[str, Path]:
    """Stem -> the plain pictures: of PNG/, else of DICOM/, else those directly in the class's folder.

    Without `kinds_below`, pictures in folders below the class's own are refused.
    """
    beside = KINDS if kinds_below else frozenset()
    direct = pictures_in(folder.direct, beside=beside) if folder.direct else []
    for below, suffixes in ((folder.png, PICTURE_SUFFIXES), (folder.dicom, PICTURE_SUFFIXES | {""})):
        files = pictures_in(below, suffixes) if below else []
        if files and direct:
            raise StudyError(
                f"{folder.direct} holds pictures both directly, e.g. {direct[0].name}, and in {below}; keep one of them"
            )
        if files:
            return by_stem(files)
    return by_stem(direct)


def find_dicoms(folder: ClassFolder, pictures: dict[str, Path]) -> dict[str, Path]:
    """Stem -> the DICOM file that a picture is, or was made from, for those that have one."""
    listed = entries(folder.dicom) if folder.dicom else []
    beside = {file.stem: file for file in listed if file.suffix.casefold() in DICOM_SUFFIXES | {""}}
    own = {stem: file for stem, file in pictures.items() if file.suffix.casefold() in DICOM_SUFFIXES}
    found = {stem: file for stem, file in (beside | own).items() if stem in pictures}
    return {stem: file for stem, file in found.items() if file.is_file()}


def find_masks(folder: ClassFolder, pictures: dict[str, Path]) -> dict[str, str]:
    """Stem -> mask, as in the sample table, of the pictures that have a mask's file, or else an overlay.

    Further masks are ignored, but not a folder of them in which none is named as a picture.
    """
    masks = _named_as_pictures(folder.masks, "mask", folder, pictures)
    found = {stem: str(file) for stem, file in masks.items()}
    if folder.label != "normal":  # nothing is painted on a healthy slice
        overlays = _named_as_pictures(folder.overlay, "overlay", folder, pictures)
        found = {stem: f"{OVERLAY}{file}" for stem, file in overlays.items()} | found
    return found


def _named_as_pictures(
    below: Path | None, noun: str, folder: ClassFolder, pictures: dict[str, Path]
) -> dict[str, Path]:
    files = by_stem(pictures_in(below)) if below else {}
    named = {stem: file for stem, file in files.items() if stem in pictures}
    if files and pictures and not named:
        raise StudyError(
            f"{below} holds {number(files, noun)}, but none is named as a picture of {folder.name}, e.g. "
            f"{min(files)!r} is not; name each {noun} as its picture"
        )
    return named


def default_mask(label: str, masks_given: bool) -> str:
    """What a picture without a mask's file has: no lesion if it is normal, or if its data set draws masks for "stroke",
    a label of patients, where slices without a lesion have no file; else it is unknown.
    """
    return NO_LESION if label == "normal" or (label == "stroke" and masks_given) else ""
