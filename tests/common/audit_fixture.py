"""Folders of drawn heads to audit, and the short way from folders to findings."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from common.audit import judge
from common.config import Phantom
from common.data.audit import Judged, find_all
from common.data.findings import Finding
from common.data.layouts import open_dataset
from common.data.looks import Looks, take_looks
from common.data.phantom import draw, phantom_samples

Image = NDArray[np.uint8]
HEADS = Phantom(patients=9, image_size=160, slices_min=4, slices_max=5)


def draw_heads() -> dict[int, list[Image]]:
    """The slices of nine heads."""
    heads: dict[int, list[Image]] = {}
    for path in phantom_samples(HEADS)["path"]:
        heads.setdefault(int(path.split("/")[-2]), []).append(draw(path).image)
    return heads


def write_heads(folder: Path, heads: dict[int, list[Image]], strokes: tuple[int, ...] = (1, 3, 5, 7)) -> Path:
    """The two-class layout, PNG; the label is the patient's. Returns the folder."""
    for patient, images in heads.items():
        for k, image in enumerate(images):
            label = "Stroke" if patient in strokes else "Normal"
            save(folder / label / f"{patient} ({k}).png", image)
    return folder


def save(path: Path, image: Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def look(*folders: Path) -> tuple[Judged, Looks]:
    """What the audit of the folders stands on."""
    samples = open_dataset(*folders)
    looks = take_looks(samples, masks=True)
    return judge(samples, looks), looks


def audited(*folders: Path) -> dict[str, Finding]:
    """Name -> finding."""
    return {one.name: one for one in find_all(*look(*folders))}
