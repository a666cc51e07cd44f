"""Two stages: say whether a slice shows a stroke, then where, only if it does.

Either stage may be missing: a classifier alone gives probabilities, a segmenter alone segments every slice. A picture
that cannot be read is an answer with its reason, never a stop.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common.config import GATE_TASKS, NOTICE
from common.data.dicom import is_dicom, read_dicom_header
from common.data.folders import LEAVINGS, NOT_INPUT, PICTURE_SUFFIXES
from common.data.images import ImageError, read_image, resize_image, restore_mask
from common.errors import StudyError
from common.framework import Framework
from common.inference import BATCH_SIZE, TrainedModel, find_checkpoints, load_model, logits_of_slices
from common.losses import sigmoid
from common.names import printable
from common.prediction import probabilities_of
from common.results import defused, write_atomically, write_csv

CONTOUR_COLOUR = (0, 215, 255)  # BGR, amber: not the red or green of painted lesions


@dataclass(frozen=True)
class Pipeline:
    """The two stages, at least one of them."""

    gate: TrainedModel | None
    segmenter: TrainedModel | None


@dataclass(frozen=True)
class Answer:
    """What the pipeline says of one picture."""

    path: Path
    fault: str = ""  # why there is no answer; all that follows is then empty
    probabilities: dict[str, float] | None = None  # class -> probability; None without a classifier
    label: str = ""  # the class decided for
    image: NDArray[np.uint8] | None = None  # (H, W), as read
    mask: NDArray[np.bool_] | None = None  # (H, W); None where the slice was not segmented
    pixel_mm: float | None = None  # side of a pixel, where the file says it

    @property
    def lesion_px(self) -> int | None:
        """Area of the lesion in pixels of the picture."""
        return None if self.mask is None else int(self.mask.sum())

    @property
    def lesion_mm2(self) -> float | None:
        """Area of the lesion in mm2, where the size of a pixel is known."""
        return None if self.mask is None or self.pixel_mm is None else self.mask.sum() * self.pixel_mm**2


def load_pipeline(framework: Framework, places: Sequence[Path]) -> tuple[Pipeline, list[Path]]:
    """The stages among checkpoint files and folders, and the files they came from.

    The first of `config.GATE_TASKS` that is there classifies. Raises StudyError where there is none.
    """
    found = find_checkpoints(places, framework.name())
    gate = next((found[task] for task in GATE_TASKS if task in found), None)
    segmenter = found.get("segmentation")
    paths = [one.path for one in (gate, segmenter) if one is not None]
    return Pipeline(
        load_model(framework, gate.path) if gate else None,
        load_model(framework, segmenter.path) if segmenter else None,
    ), paths


def calls_stroke(y_score: NDArray[np.float64], threshold: float | None) -> NDArray[np.bool_]:
    """Which slices go on to the second stage, (N,): a binary score (N,) at the threshold, or (N, C) where the largest
    probability is not that of class 0, the healthy one.
    """
    if y_score.ndim == 1:
        if threshold is None:
            raise ValueError("a binary score needs a threshold")
        return y_score >= threshold
    return y_score.argmax(axis=1) != 0


def list_pictures(places: Sequence[Path]) -> list[Path]:
    """Files as given, and of folders every picture below, in the order of their names. Hidden ones are passed over, and
    folders of masks and overlays, which show the answer.

    Raises StudyError for a folder without a picture. A file that does not exist becomes a row with its reason.
    """
    files: list[Path] = []
    for place in places:
        if not place.is_dir():
            files.append(place)
            continue
        below = [file for file in sorted(place.rglob("*")) if _is_picture(file, place)]
        if not below:
            raise StudyError(f"folder {place} holds no picture; give pictures, DICOM files or their folder")
        files += below
    return files


def _is_picture(file: Path, folder: Path) -> bool:
    below = file.relative_to(folder)
    if any(part.startswith(".") or part in LEAVINGS for part in below.parts):
        return False
    if any(part.casefold() in NOT_INPUT for part in below.parent.parts):
        return False
    if file.suffix.casefold() in PICTURE_SUFFIXES:
        return not file.is_dir()  # a broken link or a pipe is answered with its fault
    return is_dicom(file)


def run_pipeline(framework: Framework, pipeline: Pipeline, paths: Sequence[Path]) -> Iterator[Answer]:
    """An answer a picture, in order, a batch at a time."""
    for start in range(0, len(paths), BATCH_SIZE):
        answers = [_read(path) for path in paths[start : start + BATCH_SIZE]]
        sound = [place for place, one in enumerate(answers) if not one.fault]
        classified = _classify(framework, pipeline.gate, [answers[place] for place in sound])
        for place, one in zip(sound, classified, strict=True):
            answers[place] = one
        healthy = pipeline.gate.task.classes[0] if pipeline.gate else None
        suspect = [place for place in sound if healthy is None or answers[place].label != healthy]
        segmented = _segment(framework, pipeline.segmenter, [answers[place] for place in suspect])
        for place, one in zip(suspect, segmented, strict=True):
            answers[place] = one
        yield from answers


def _read(path: Path) -> Answer:
    try:
        image = read_image(path)
        pixel_mm = read_dicom_header(path).pixel_mm if is_dicom(path) else None
    except ImageError as error:
        return Answer(path, fault=f"{error.fault}; {error.remedy}")
    return Answer(path, image=image, pixel_mm=pixel_mm)


def _classify(framework: Framework, gate: TrainedModel | None, answers: Sequence[Answer]) -> list[Answer]:
    if gate is None or not answers:
        return list(answers)
    slices = [resize_image(_pixels(one), gate.spec.image_size) for one in answers]
    scores = probabilities_of(logits_of_slices(framework, gate, slices))
    columns = np.column_stack([1 - scores, scores]) if scores.ndim == 1 else scores  # (N, C)
    classes = gate.task.classes
    return [
        replace(
            one,
            probabilities=dict(zip(classes, row.tolist(), strict=True)),
            label=classes[1 + int(row[1:].argmax())] if stroke else classes[0],
        )
        for one, row, stroke in zip(answers, columns, calls_stroke(scores, gate.threshold), strict=True)
    ]


def _segment(framework: Framework, segmenter: TrainedModel | None, answers: Sequence[Answer]) -> list[Answer]:
    if segmenter is None or not answers:
        return list(answers)
    threshold = segmenter.threshold
    assert threshold is not None  # a segmenter has one: see `load_model`
    slices = [resize_image(_pixels(one), segmenter.spec.image_size) for one in answers]
    lesion = sigmoid(logits_of_slices(framework, segmenter, slices)[..., 0]) >= threshold  # (N, S, S)
    return [
        replace(one, mask=restore_mask(mask, _pixels(one).shape))
        for one, mask in zip(answers, lesion, strict=True)
    ]


def _pixels(answer: Answer) -> NDArray[np.uint8]:
    assert answer.image is not None  # only pictures that were read come here
    return answer.image


# --- files --------------------------------------------------------------------------------------------------------


def write_answers(answers: Iterable[Answer], out: Path, about: dict[str, Any]) -> Iterator[Answer]:
    """The answers unchanged, writing as they come `predictions.jsonl` and, where there is a lesion, `overlays/`; and at
    the end `predictions.csv`.

    The first line of the JSON lines is `about`. Raises StudyError where `out` holds something already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StudyError(f"--out {out} is not an empty folder; name a new one, nothing is overwritten")
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    with (out / "predictions.jsonl").open("w", encoding="utf-8") as lines:
        lines.write(json.dumps({"notice": NOTICE, **about}, ensure_ascii=False) + "\n")
        for number, answer in enumerate(answers):
            name = ""
            if answer.mask is not None and answer.mask.any():
                name = f"overlays/{number:06d}.png"
                _write_overlay(out / name, answer)
            rows.append(row_of(answer, name))
            lines.write(json.dumps(rows[-1], ensure_ascii=False) + "\n")
            lines.flush()  # what is answered stays, whatever comes after
            yield answer
    table = pd.json_normalize(rows, sep="_") if rows else pd.DataFrame(columns=["path", "error"])
    write_csv(out / "predictions.csv", table.map(defused))


def row_of(answer: Answer, overlay: str = "") -> dict[str, Any]:
    """An answer as plain values; `overlay` is its picture's name in the folder."""
    return {
        "path": name_of(answer.path),
        "label": answer.label,
        "probability": answer.probabilities or {},
        "segmented": answer.mask is not None,
        "lesion_px": answer.lesion_px,
        "lesion_mm2": answer.lesion_mm2,
        "overlay": overlay,
        "error": answer.fault,
    }


def name_of(path: Path) -> str:
    """A path that can be written; bytes of it that are no UTF-8, which some disks allow, are replaced."""
    return os.fsencode(path).decode("utf-8", errors="replace")


def describe_answer(answer: Answer) -> str:
    """One line for the console."""
    if answer.fault:
        return printable(f"{name_of(answer.path)}  {answer.fault}")
    words = [printable(name_of(answer.path))]
    if answer.probabilities:
        words.append(f"{answer.label} {answer.probabilities[answer.label]:.4f}")
    if answer.mask is None:
        words += [] if answer.probabilities else ["nothing to say"]
    elif not answer.lesion_px:
        words.append("no lesion found")
    else:
        area = "" if answer.lesion_mm2 is None else f" ({answer.lesion_mm2:.0f} mm2)"
        words.append(f"lesion {answer.lesion_px:,} px{area}")
    return "  ".join(words)


def _write_overlay(path: Path, answer: Answer) -> None:
    """The slice with the lesion's contour; the slice itself is not painted over."""
    assert answer.mask is not None
    picture = cv2.cvtColor(_pixels(answer), cv2.COLOR_GRAY2BGR)
    contours, _ = cv2.findContours(answer.mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, CONTOUR_COLOUR, 1)
    encoded = cv2.imencode(".png", picture)[1].tobytes()
    write_atomically(path, lambda stream: stream.write(encoded))
