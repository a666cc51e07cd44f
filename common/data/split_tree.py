"""The public split tree: `{train,val,test}/{PNG,OVERLAY,MASKS}/{Class}/NAME`, written from any data set we can read.

    python -m common.data.splits DIR... [--folds K] [--split-seed S] [--fold F] --materialise OUT

For other tools that want folders: the same pictures in the same parts as a study of these folders has. Beside the parts
stand, where all patients are known, `patients.csv`, and, where the data have external samples, `External_Test/` with
`labels.csv`. Patients that were grouped by similarity are not written down: the table would be taken for knowledge.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from common import config
from common.config import NOTICE, SPLITS
from common.data.images import ImageError, read_image
from common.data.layouts import open_dataset
from common.data.patients import PATIENTS_FILE
from common.data.samples import NO_LESION, OVERLAY
from common.data.splits import EXTERNAL, split_table
from common.errors import StudyError
from common.files import defused
from common.options import Parser, non_negative_integer, positive_integer, run_guarded

EXTERNAL_FOLDER = "External_Test"


def write_tree(samples: pd.DataFrame, split: pd.Series, out: Path) -> dict[str, int]:
    """Write the tree of a split (sample id -> part) to a new or empty folder; returns how many files came by which
    means: "hard link", "symbolic link" or "copy", the first of them that the disk allows.

    The folder appears whole or not at all. A name is the file's own, and where two are equal, made from the id. Raises
    StudyError for drawn slices, which have no files, for a folder that holds something, for a lost file, and where
    known and unknown masks of "stroke" slices meet, which the tree cannot tell apart.
    """
    drawn = samples.loc[samples["path"].str.startswith("phantom:"), "id"]
    if len(drawn):
        raise StudyError(
            f"sample {drawn.iloc[0]!r} is a drawn slice without a file; write the phantom to a folder first "
            "(python -m common.data.phantom OUT --layout strokes) and name that folder"
        )
    _refuse_unsaid_masks(samples)
    out = out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StudyError(f"{out} is not an empty folder; name a new one, nothing is overwritten")
    temporary = out.parent / f".{out.name}.partial"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        means = _fill(samples.sort_values("id", kind="stable"), split, temporary)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return dict(means)


def _refuse_unsaid_masks(samples: pd.DataFrame) -> None:
    """Where a tree holds masks, a slice labelled stroke without one has no lesion; "not known" cannot be said."""
    unknown = samples.loc[
        samples["label"].eq("stroke") & samples["mask"].eq("") & samples["split"].ne(EXTERNAL)
    ]
    if len(unknown) and not samples["mask"].isin(["", NO_LESION]).all():
        raise StudyError(
            f"the lesion masks of {len(unknown)} stroke slices are not known, e.g. of {unknown['id'].iloc[0]!r}, and "
            "of others they are; in one tree the former would count as without a lesion, so write each data set alone"
        )


def _fill(samples: pd.DataFrame, split: pd.Series, out: Path) -> Counter[str]:
    means: Counter[str] = Counter()
    names = _unique_names(samples)
    labels = []
    for row, name in zip(samples.to_dict("records"), names, strict=True):
        part = split[row["id"]]
        below = Path() if part == EXTERNAL else Path(row["label"].capitalize())
        folder = out / (EXTERNAL_FOLDER if part == EXTERNAL else part)
        if part == EXTERNAL:
            labels.append({"image_id": name, "Stroke": int(row["label"] != "normal")})
        means[_place(Path(row["path"]), folder / "PNG" / below, name)] += 1
        if row["mask"].startswith(OVERLAY):
            means[_place(Path(row["mask"].removeprefix(OVERLAY)), folder / "OVERLAY" / below, name)] += 1
        elif row["mask"] not in ("", NO_LESION):
            means[_place(Path(row["mask"]), folder / "MASKS" / below, name)] += 1
    if _patients_known(samples):
        patients = pd.DataFrame({"image_id": names, "patient": samples["patient"]}).map(defused)
        patients.to_csv(out / PATIENTS_FILE, index=False, lineterminator="\n")
    if labels:
        table = pd.DataFrame(labels).map(defused)
        table.to_csv(out / EXTERNAL_FOLDER / "labels.csv", index=False, lineterminator="\n")
    return means


def _patients_known(samples: pd.DataFrame) -> bool:
    """Whether all are: a table for some pictures only cannot be read back."""
    return not samples["patient_from"].eq("similarity").any()


def _unique_names(samples: pd.DataFrame) -> list[str]:
    """A file name without suffix for each row, whatever the letter case of the disk."""
    taken: set[str] = set()
    names = []
    for row in samples.to_dict("records"):
        plain = row["id"].replace("/", "_").replace(":", "_")
        numbered = (f"{plain}-{number}" for number in itertools.count(2))
        candidates = itertools.chain([Path(row["path"]).stem, plain], numbered)
        name = next(name for name in candidates if name.casefold() not in taken)
        taken.add(name.casefold())
        names.append(name)
    return names


def _place(source: Path, folder: Path, name: str) -> str:
    """Put a file into a folder, under a name that keeps its suffix; returns by which means."""
    source = source.resolve()
    if not source.is_file():
        raise StudyError(f"{source} is gone; look for it, or leave its sample out")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}{source.suffix or '.dcm'}"  # only DICOM files go without
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        try:
            target.symlink_to(source)
        except OSError:
            shutil.copyfile(source, target)
            return "copy"
        return "symbolic link"
    return "hard link"


# --- the command --------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code."""
    program = "python -m common.data.splits"
    parser = Parser(prog=program, description=f"Write the parts of a split as folders. {NOTICE}")
    parser.add_argument("data", nargs="+", type=Path, metavar="DIR", help="data folders in a known layout")
    parser.add_argument(
        "--folds", type=positive_integer, default=1, metavar="K", help="default: 1, the hold-out"
    )
    parser.add_argument(
        "--fold", type=non_negative_integer, default=0, metavar="F", help="which one to write"
    )
    parser.add_argument("--split-seed", type=non_negative_integer, default=0, metavar="S", help="default: 0")
    parser.add_argument(
        "--materialise", type=Path, required=True, metavar="OUT", help="a new or empty folder"
    )
    options = parser.parse_args(arguments)
    return run_guarded(program, lambda: _materialise(options))


def _materialise(options: argparse.Namespace) -> int:
    out = options.materialise.resolve()
    inside = next((folder for folder in options.data if out.is_relative_to(folder.resolve())), None)
    if inside is not None:
        raise StudyError(f"{out} lies in the data folder {inside}, which would then hold every picture twice")
    if options.fold >= options.folds:
        raise StudyError(
            f"fold (={options.fold}) does not exist; the folds of --folds {options.folds} are numbered from 0"
        )
    samples = _readable(open_dataset(*options.data))
    table = split_table(samples, options.folds, options.split_seed)
    split = table[table["fold"] == options.fold].set_index("id")["split"]
    means = write_tree(samples, split, out)
    for part in (*SPLITS, EXTERNAL):
        inside_part = samples[samples["id"].map(split) == part]
        if len(inside_part):
            print(f"{part}: {len(inside_part)} images of {inside_part['patient'].nunique()} patients")
    if not _patients_known(samples):
        print(f"no {PATIENTS_FILE}: the patients are unknown, they were grouped by similarity")
    placed = ", ".join(f"{count} by {name}" for name, count in sorted(means.items()))
    print(f"{options.materialise}: {placed}. {NOTICE}")
    return 0


def _readable(samples: pd.DataFrame) -> pd.DataFrame:
    """The rows that can be decoded, the others told: a study splits those that it can read."""

    def fault(path: str) -> str:
        try:
            read_image(path)
        except ImageError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(config.PREFETCH_THREADS) as pool:
        faults = list(pool.map(fault, samples["path"]))
    for text in filter(None, faults):
        print(f"left out: {text}")
    return samples[[not text for text in faults]].reset_index(drop=True)
