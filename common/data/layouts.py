"""Folders on disk -> the sample table. Layouts are recognised by themselves, in the given folder or up to two levels
below it, in any letter case; what fits none is refused.

- Three classes: `{Bleeding,Ischemia,Normal}/PNG` with `OVERLAY` (the lesion painted on) or `MASKS` beside PNG, or the
  pictures directly in the class's folder, or `DICOM` in place of PNG; optional `External_Test/` with `labels.csv`
  (`image_id,Stroke`), which is only ever tested on.
- Two classes: `{Normal,Stroke}/PATIENT (k).jpg`, optional `masks/{Normal,Stroke}/NAME.png`.
- A split tree: `{train,val,test}/{PNG,OVERLAY,MASKS}/{class}` or `{train,val,test}/{class}`; its split is kept.

Beside the classes, or further up within the given folder, may stand `masks/` and `patients.csv` (`image_id,patient`);
without the latter see `common.data.patients`. Pictures are listed and hashed here, and decoded only where patients must
be found by likeness. What cannot be opened stays in the table with an empty sha256, so that decoding names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from common.config import SPLITS
from common.data.class_folders import (
    CLASSES,
    ClassFolder,
    Picture,
    class_folders,
    default_mask,
    find_dicoms,
    find_masks,
    find_pictures,
    with_masks_above,
)
from common.data.external import external_pictures
from common.data.folders import (
    describe,
    digests,
    entries,
    existing_folder,
    levels,
    named_subfolders,
    number,
    source_names,
    upwards,
)
from common.data.headers import pixel_mm, read_headers
from common.data.patients import find_patients
from common.data.samples import NO_LESION, OVERLAY, sample_table
from common.data.similarity import OnProgress, shared_across
from common.errors import StudyError

TWO_CLASSES = ("normal", "stroke")
THREE_CLASSES = ("bleeding", "ischemia", "normal")
PART_OF = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
EXPECTED = (
    "expected: Normal/ and Stroke/ with pictures named 'PATIENT (k).jpg', optionally masks/{Normal,Stroke}/NAME.png;\n"
    "  or {Bleeding,Ischemia,Normal}/PNG, optionally OVERLAY/ or MASKS/ beside PNG/, External_Test/ with labels.csv;\n"
    "  or {train,val,test}/{PNG,OVERLAY,MASKS}/{class}; each optionally with patients.csv (image_id,patient)"
)


@dataclass(frozen=True)
class Layout:
    """A data set as found on disk."""

    pictures: list[Picture]
    folders: list[Path]  # where tables may lie, the nearest first
    names_tell: bool = False  # of patients, by the rule of this layout


Reader = Callable[[Path, Sequence[Path]], Layout]


def open_dataset(
    *directories: Path | str, on_progress: OnProgress = lambda done, total: None
) -> pd.DataFrame:
    """The sample table of one or several folders (see `common.data.samples`); paths in it are absolute.

    An id is the path below the folder that holds the classes or parts, without suffix and kind of folder:
    `Stroke/58 (1)`, `Bleeding/10000`, `train/Bleeding/10000`, `External_Test/10000`. With several folders, ids and
    patients get the prefix `SOURCE:`, the folder's name, numbered where two are equal; and patients of different
    sources that share a slice become one (`common.data.similarity.shared_across`). `on_progress` hears of pictures that
    are decoded to compare them. Raises StudyError for anything that fits no layout.
    """
    if not directories:
        raise StudyError("no data folder was given; name at least one")
    roots = [existing_folder(directory) for directory in directories]
    sources = source_names(roots)
    layouts = [recognise(root) for root in roots]
    _refuse_repeated_files(picture.path for layout in layouts for picture in layout.pictures)
    rows: list[dict[str, str]] = []
    for source, layout in zip(sources, layouts, strict=True):
        prefix = f"{source}:" if len(roots) > 1 else ""
        rows += [
            row | {"id": prefix + row["id"], "patient": prefix + row["patient"], "source": source}
            for row in _rows(layout, on_progress)
        ]
    samples = sample_table(rows)
    if len(roots) > 1:
        samples["patient"] = samples["patient"].map(shared_across(samples, on_progress)).astype("str")
    return samples


def _rows(layout: Layout, on_progress: OnProgress) -> list[dict[str, str]]:
    """The table's rows of one data set, all columns but `source`."""
    files = {picture.id: picture.path for picture in layout.pictures}
    if len(files) < len(layout.pictures):
        repeated = next(p for p in layout.pictures if files[p.id] != p.path)
        raise StudyError(f"{repeated.path} and {files[repeated.id]} have one id {repeated.id!r}; rename one")
    headers = read_headers({p.id: p.dicom for p in layout.pictures if p.dicom})
    patients, patient_from = find_patients(files, layout.folders, layout.names_tell, headers, on_progress)
    masks = {
        p.id: Path(p.mask.removeprefix(OVERLAY)) for p in layout.pictures if p.mask not in ("", NO_LESION)
    }
    sha256 = digests([*files.values(), *masks.values()])
    return [
        {
            "id": picture.id,
            "path": str(picture.path),
            "label": picture.label,
            "patient": patients[picture.id],
            "patient_from": patient_from,
            "mask": picture.mask,
            "sha256": sha256[picture.path],
            "mask_sha256": sha256[masks[picture.id]] if picture.id in masks else "",
            "pixel_mm": pixel_mm(picture.path, headers.get(picture.id)),
            "split": picture.split,
        }
        for picture in layout.pictures
    ]


# --- recognition --------------------------------------------------------------------------------------------------


def recognise(root: Path) -> Layout:
    """The data set in a folder or up to two levels below it. Raises StudyError for none, several or half a one.

    Half a one beside a whole one (`true_masks/{Bleeding,Ischemia}`) is something else, and left alone.
    """
    if not entries(root):
        raise StudyError(f"data folder {root} is empty; {EXPECTED}")
    for level in levels(root):
        candidates = {folder: found for folder in level if (found := _reader(folder))}
        whole = [folder for folder, (_, complete) in candidates.items() if complete] or list(candidates)
        if len(whole) > 1:
            names = ", ".join(f"{folder.relative_to(root).as_posix()}/" for folder in whole[:5])
            raise StudyError(f"{root} holds several data sets ({names}); give each folder by its own")
        for folder in whole:
            read, _ = candidates[folder]
            return read(folder, upwards(folder, root))
    raise StudyError(f"{root} fits no known layout.\nfound: {describe(root)}\n{EXPECTED}{_hint(root)}")


def _reader(folder: Path) -> tuple[Reader, bool] | None:
    """How to read a folder, and whether all that its layout needs is there; None if it has no class or part."""
    if parts := _part_folders(folder):
        return read_split_tree, set(parts) == set(SPLITS)
    labels = set(class_folders(folder))
    if labels & {"bleeding", "ischemia"}:
        return read_three_class, labels >= set(THREE_CLASSES)
    return (read_two_class, labels >= set(TWO_CLASSES)) if labels else None


def _hint(root: Path) -> str:
    if root.name.casefold() in CLASSES:
        return f"\n{root.name}/ is one class; give the folder above it"
    return ""


def _refuse_repeated_files(paths: Iterable[Path]) -> None:
    seen: set[Path] = set()
    for path in paths:
        if path in seen:
            raise StudyError(
                f"{path} is reached through two of the data folders; give folders that do not overlap"
            )
        seen.add(path)


# --- layouts: `base` holds the classes, `folders` are it and those above that may hold tables and masks -------------


def read_two_class(base: Path, folders: Sequence[Path]) -> Layout:
    """`{Normal,Stroke}/` with pictures, masks and patients.csv beside."""
    classes = with_masks_above(class_folders(base), folders)
    pictures = {label: find_pictures(c, kinds_below=False) for label, c in classes.items()}
    _require_classes(base, TWO_CLASSES, classes, pictures)
    return Layout(_join(classes, pictures), list(folders), names_tell=True)


def read_three_class(base: Path, folders: Sequence[Path]) -> Layout:
    """`{Bleeding,Ischemia,Normal}/{PNG,OVERLAY,MASKS,DICOM}` and `External_Test/`."""
    classes = with_masks_above(class_folders(base), folders)
    if "stroke" in classes:
        raise StudyError(
            f"{base} has {classes['stroke'].name}/ beside Bleeding/ or Ischemia/, which are strokes too; keep "
            "either, or give them as two data folders"
        )
    pictures = {label: find_pictures(c) for label, c in classes.items()}
    _require_classes(base, THREE_CLASSES, classes, pictures)
    return Layout(_join(classes, pictures) + external_pictures(base), list(folders))


def read_split_tree(base: Path, folders: Sequence[Path]) -> Layout:
    """`{train,val,test}/` with classes, each of any of the four names, and `External_Test/`; the parts are kept."""
    parts = _part_folders(base)
    lacking = [part for part in SPLITS if part not in parts]
    if lacking:
        there = ", ".join(f"{folder.name}/" for folder in parts.values())
        raise StudyError(
            f"{base} is divided into {there} but has no {' and no '.join(f'{part}/' for part in lacking)} with "
            "classes; a ready-made split needs train/, val/ and test/. Add what is missing, or put all pictures "
            "into one folder a class, which are then divided by patients"
        )
    classes = {part: class_folders(folder) for part, folder in parts.items()}
    pictures = {part: {k: find_pictures(c) for k, c in classes[part].items()} for part in parts}
    for part, folder in parts.items():
        if not any(pictures[part].values()):
            raise StudyError(f"{folder} holds no pictures; a ready-made split needs some in each part")
    masks_given = any(_any_mask(classes[part], pictures[part]) for part in parts)
    joined = [
        picture
        for part, folder in parts.items()
        for picture in _join(classes[part], pictures[part], part, f"{folder.name}/", masks_given)
    ]
    return Layout(joined + external_pictures(base), list(folders))


def _part_folders(folder: Path) -> dict[str, Path]:
    """Part -> the folder so named that holds classes."""
    found: dict[str, Path] = {}
    for name, child in named_subfolders(folder, frozenset(PART_OF)).items():
        if class_folders(child):
            if (part := PART_OF[name]) in found:
                raise StudyError(
                    f"{folder} has both {found[part].name}/ and {child.name}/; merge them into one"
                )
            found[part] = child
    return found


def _join(
    classes: Mapping[str, ClassFolder],
    pictures: Mapping[str, dict[str, Path]],
    split: str = "",
    prefix: str = "",
    masks_given: bool | None = None,
) -> list[Picture]:
    """Every picture of every class, with its mask. `masks_given`: whether stroke slices without a mask have no lesion;
    None: if any picture here has a mask.
    """
    if masks_given is None:
        masks_given = _any_mask(classes, pictures)
    joined = []
    for label, folder in classes.items():
        masks, dicoms = find_masks(folder, pictures[label]), find_dicoms(folder, pictures[label])
        joined += [
            Picture(
                f"{prefix}{folder.name}/{stem}",
                file,
                label,
                masks.get(stem, default_mask(label, masks_given)),
                split,
                dicoms.get(stem),
            )
            for stem, file in pictures[label].items()
        ]
    return joined


def _any_mask(classes: Mapping[str, ClassFolder], pictures: Mapping[str, dict[str, Path]]) -> bool:
    return any(find_masks(folder, pictures[label]) for label, folder in classes.items())


def _require_classes(
    base: Path,
    wanted: Sequence[str],
    classes: Mapping[str, ClassFolder],
    pictures: Mapping[str, dict[str, Path]],
) -> None:
    if all(pictures.get(label) for label in wanted):
        return
    found = [f"{folder.name}/ has {number(pictures[label], 'picture')}" for label, folder in classes.items()]
    missing = [f"{label.capitalize()}/ is missing" for label in wanted if label not in classes]
    needed = "both" if len(wanted) == 2 else "all three"
    raise StudyError(f"{base} lacks a class: {', '.join(found + missing)}; {needed} are needed")
