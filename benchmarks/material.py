"""The pictures that every program of the benchmark reads: phantom slices as PNG files, 512 px a side as in the public
sets, in a folder a class for those who read folders, with their masks, and the cache that ours reads.

    FOLDER/subtype/{normal,bleeding,ischemia}/NAME.png   FOLDER/binary/{normal,stroke}/NAME.png (hard links)
    FOLDER/segmentation/{images,masks}/NAME.png          FOLDER/samples.csv   FOLDER/cache/
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from common.config import TASKS, Phantom, Recipe
from common.data import batches as stream
from common.data.cache import build_cache
from common.data.phantom import draw, phantom_samples
from common.data.samples import NO_LESION
from common.errors import StudyError

FILE_PX = 512
PATIENTS, QUICK_PATIENTS = 40, 6  # some 560 and 80 slices


def write_material(folder: Path, sizes: tuple[int, ...] = (128,), quick: bool = False) -> Path:
    """Draw the slices, write files and caches; returns the folder. Where it is written already, only opens it."""
    table = folder / "samples.csv"
    if not table.exists():
        samples = phantom_samples(Phantom(patients=QUICK_PATIENTS if quick else PATIENTS))
        written = [_write_slice(folder, number, path) for number, path in enumerate(samples["path"])]
        samples["path"] = [str(image) for image, _ in written]
        samples["mask"] = [str(mask) if mask else NO_LESION for _, mask in written]
        samples.to_csv(table, index=False)
    for size in sizes:
        build_cache(read_samples(folder), size, folder / "cache", masks=True)
    return folder


def read_samples(folder: Path) -> pd.DataFrame:
    """The sample table of the material."""
    return pd.read_csv(folder / "samples.csv", dtype=str, keep_default_na=False)


def training_part(folder: Path, task: str, size: int, recipe: Recipe) -> stream.Part:
    """All slices as one training part, weighed by class as the recipe says."""
    samples = read_samples(folder)
    cache = build_cache(samples, size, folder / "cache", masks=True)  # is there: opened
    everything = pd.Series("train", index=samples["id"])
    part = stream.select_part(cache, samples, everything, "train", TASKS[task])
    weights = stream.weigh_classes(part.labels, len(TASKS[task].classes), recipe.class_weights)
    return stream.select_part(cache, samples, everything, "train", TASKS[task], weights)


def _write_slice(folder: Path, number: int, path: str) -> tuple[Path, Path | None]:
    """Files of one slice: its picture, and its mask if it shows a lesion."""
    drawing, name = draw(path), f"{number:05d}.png"
    image = cv2.resize(drawing.image, (FILE_PX, FILE_PX), interpolation=cv2.INTER_CUBIC)
    mask = cv2.resize(
        drawing.mask.astype(np.uint8) * 255, (FILE_PX, FILE_PX), interpolation=cv2.INTER_NEAREST
    )
    first = folder / "subtype" / drawing.label / name
    kind = "normal" if drawing.label == "normal" else "stroke"
    _write(first, image)
    for other in (folder / "binary" / kind / name, folder / "segmentation" / "images" / name):
        other.parent.mkdir(parents=True, exist_ok=True)
        os.link(first, other)
    shown = folder / "segmentation" / "masks" / name
    _write(shown, mask)
    return first, shown if drawing.mask.any() else None


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise StudyError(f"{path} cannot be written; free space or choose another TMPDIR")
