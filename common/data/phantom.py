"""The embedded data set: drawn CT heads with strokes, their masks, and the public folder layouts written from them.

    python -m common.data.phantom OUT --layout binary|strokes [--patients N] [--seed N] [--image-size N]

A slice is a path, `phantom:SEED/SIZE/MIN-MAX/PATIENT/SLICE`, that holds all that is needed to draw it: any slice can be
drawn alone, in any order and process, and the number of patients does not matter. The pictures look like CT; they
are no medical evidence of anything.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common import config
from common.data.anatomy import (
    AIR,
    SUPERSAMPLING,
    draw_canvas,
    finish,
    frame,
    place,
)
from common.data.heads import PHANTOM_VERSION, create_head, generator
from common.data.lesions import create_lesion, paint_lesion, visible
from common.data.samples import NO_LESION, sample_table
from common.errors import StudyError
from common.options import Parser, run_guarded

LAYOUTS = ("binary", "strokes")
BINARY_PX, STROKES_PX = 650, 512  # side of the pictures in the public sets
MIN_PX, MAX_PX = 32, 2048
PATH = re.compile(r"phantom:(\d{1,18})/(\d{1,4})/(\d{1,3})-(\d{1,3})/(\d{1,9})/(\d{1,3})")


@dataclass(frozen=True)
class Drawing:
    """One drawn slice."""

    image: NDArray[np.uint8]  # (H, W), brain window
    mask: NDArray[np.bool_]  # (H, W), the lesion; empty if and only if the label is normal
    label: str  # normal | bleeding | ischemia


def phantom_samples(phantom: config.Phantom) -> pd.DataFrame:
    """The sample table of a phantom. Labels come from low-resolution masks; no picture is drawn.

    Raises StudyError if a number of the phantom is out of range.
    """
    if phantom.patients < 1:
        raise StudyError(f"phantom.patients (={phantom.patients}) must be at least 1")
    rows = []
    for patient in range(phantom.patients):
        prefix = (
            f"phantom:{phantom.seed}/{phantom.image_size}/{phantom.slices_min}-{phantom.slices_max}/{patient}"
        )
        _parse(f"{prefix}/0")
        head = create_head(phantom.seed, patient, phantom.slices_min, phantom.slices_max)
        lesion = create_lesion(head)
        for index, level in enumerate(head.levels):
            path = f"{prefix}/{index}"
            label = lesion.label if lesion is not None and visible(lesion, head, level) else "normal"
            rows.append(
                {
                    "id": f"p{patient:03d}/s{index:02d}",
                    "path": path,
                    "label": label,
                    "patient": f"p{patient:03d}",
                    "patient_from": "phantom",
                    "mask": NO_LESION if label == "normal" else path,
                    "sha256": (digest := hashlib.sha256(f"{PHANTOM_VERSION}\n{path}".encode()).hexdigest()),
                    "mask_sha256": "" if label == "normal" else digest,
                    "pixel_mm": "",
                    "split": "",
                    "source": "phantom",
                }
            )
    return sample_table(rows)


def draw(path: str) -> Drawing:
    """Draw one slice. The same path gives the same pixels. Raises StudyError for a path that names no slice."""
    return _draw(path, with_lesion=True)


def _draw(path: str, with_lesion: bool) -> Drawing:
    """`draw`, or the same slice as it would look without its lesion."""
    seed, size, slices_min, slices_max, patient, index = _parse(path)
    head = create_head(seed, patient, slices_min, slices_max)
    if index >= len(head.levels):
        raise StudyError(
            f"{path!r}: patient {patient} has the slices 0 to {len(head.levels) - 1}, no {index}"
        )
    level = head.levels[index]
    sight = frame(head, level, round(size * SUPERSAMPLING))
    hu = draw_canvas(head, level, sight)
    lesion = create_lesion(head)
    mask, label = np.zeros((size, size), bool), "normal"
    if with_lesion and lesion is not None and visible(lesion, head, level):
        section = paint_lesion(hu, lesion, sight, level)
        mask, label = place(head, size, section.astype(np.float32), border=0.0) >= 0.5, lesion.label
    return Drawing(finish(head, level, place(head, size, hu, border=AIR)), mask, label)


def _parse(path: str) -> tuple[int, int, int, int, int, int]:
    """Seed, size, fewest and most slices, patient, slice of a path."""
    found = PATH.fullmatch(path)
    if found is None:
        raise StudyError(f"{path!r} is no phantom slice; one reads phantom:SEED/SIZE/MIN-MAX/PATIENT/SLICE")
    seed, size, slices_min, slices_max, patient, index = (int(text) for text in found.groups())
    if not MIN_PX <= size <= MAX_PX:
        raise StudyError(f"{path!r}: the image size (={size}) must be {MIN_PX} to {MAX_PX} px")
    if not 1 <= slices_min <= slices_max:
        raise StudyError(
            f"{path!r}: the slices a patient (={slices_min}-{slices_max}) must rise from at least 1"
        )
    return seed, size, slices_min, slices_max, patient, index


def paint_overlay(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    colour: tuple[int, int, int] = (255, 0, 0),
    opacity: float = 0.35,
    outline_px: int = 1,
) -> NDArray[np.uint8]:
    """The picture with the lesion painted on, as readers mark it: translucent fill, thin outline; RGB (H, W, 3)."""
    painted = np.repeat(image[:, :, None], 3, axis=2)
    fill = painted[mask] * (1 - opacity) + np.array(colour) * opacity
    painted[mask] = np.round(fill).astype(np.uint8)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(painted, contours, -1, colour, outline_px)
    return painted


# --- folders ------------------------------------------------------------------------------------------------------


def write_phantom(out: Path, phantom: config.Phantom, layout: str) -> None:
    """Write the phantom as one of the public data sets: `binary` (two classes) or `strokes` (three classes).

    Raises StudyError for an unknown layout or a folder that already holds something.
    """
    if layout not in LAYOUTS:
        raise StudyError(f"layout {layout!r} is none of {list(LAYOUTS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StudyError(f"{out} is not an empty folder; name a new one, nothing is overwritten")
    samples = phantom_samples(phantom)
    (_write_binary if layout == "binary" else _write_strokes)(out, samples, phantom.seed)


def _write_binary(out: Path, samples: pd.DataFrame, seed: int) -> None:
    """`Brain_Data_Organised/{Normal,Stroke}/PATIENT (k).jpg`; the class is the patient's, k is in no order."""
    for number, (_, slices) in enumerate(_patients(samples), start=1):
        folder = "Stroke" if (slices["label"] != "normal").any() else "Normal"
        order = generator(seed, "names", number).permutation(len(slices)) + 1
        for path, k in zip(slices["path"], order, strict=True):
            drawing = draw(path)
            name = f"{folder}/{number} ({k})"
            _write(out / "Brain_Data_Organised" / f"{name}.jpg", _resize(drawing.image, BINARY_PX))
            if drawing.mask.any():
                _write(out / "masks" / f"{name}.png", _resize(drawing.mask, BINARY_PX).astype(np.uint8) * 255)


def _write_strokes(out: Path, samples: pd.DataFrame, seed: int) -> None:
    """`Brain_Stroke_CT_Dataset/{Bleeding,Ischemia}/{PNG,OVERLAY}`, `Normal/PNG`, RGBA; and `patients.csv`."""
    root = out / "Brain_Stroke_CT_Dataset"
    ids = (10_000 + generator(seed, "ids").permutation(len(samples))).tolist()
    rows = []
    for patient, slices in _patients(samples):
        for path in slices["path"]:
            drawing, image_id = draw(path), ids.pop()
            folder = root / drawing.label.capitalize()
            image, mask = _resize(drawing.image, STROKES_PX), _resize(drawing.mask, STROKES_PX)
            _write(folder / "PNG" / f"{image_id}.png", cv2.cvtColor(image, cv2.COLOR_GRAY2BGRA))
            if drawing.label != "normal":
                overlay = cv2.cvtColor(paint_overlay(image, mask), cv2.COLOR_RGB2BGRA)
                _write(folder / "OVERLAY" / f"{image_id}.png", overlay)
            rows.append((image_id, patient))
    table = pd.DataFrame(sorted(rows), columns=["image_id", "patient"])
    table.to_csv(root / "patients.csv", index=False, lineterminator="\n")


def _patients(samples: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Patients one by one, telling now and then how far it is."""
    groups = list(samples.groupby("patient", sort=True))
    for number, (patient, slices) in enumerate(groups, start=1):
        yield str(patient), slices
        if number % 20 == 0 or number == len(groups):
            print(f"{number} of {len(groups)} patients written", flush=True)


def _resize(image: NDArray, size: int) -> NDArray:
    """To a square of `size` px; a mask stays a mask."""
    if image.dtype == np.bool_:
        return cv2.resize(image.astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST).astype(bool)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)


def _write(path: Path, image: NDArray[np.uint8]) -> None:
    """Encode by the name's suffix and write; colour pictures in OpenCV's order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, encoded = cv2.imencode(path.suffix, image)
    if not done:
        raise StudyError(f"{path} cannot be encoded")
    path.write_bytes(encoded.tobytes())


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = Parser(
        prog="python -m common.data.phantom", description=f"Write drawn CT heads to a folder. {config.NOTICE}"
    )
    default = config.PROFILES["quick"].phantom
    parser.add_argument("out", type=Path, help="a new or empty folder")
    parser.add_argument("--layout", choices=LAYOUTS, required=True)
    parser.add_argument("--patients", type=int, default=default.patients)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument(
        "--image-size", type=int, default=default.image_size, help="px, before resizing to the layout's"
    )
    options = parser.parse_args(arguments)
    phantom = config.Phantom(patients=options.patients, seed=options.seed, image_size=options.image_size)

    def write() -> int:
        write_phantom(options.out, phantom, options.layout)
        print(f"{options.out}: drawn pictures in the {options.layout} layout. {config.NOTICE}")
        return 0

    return run_guarded(parser.prog, write)


if __name__ == "__main__":
    sys.exit(main())
