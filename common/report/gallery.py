"""Test slices with what both frameworks said of them, chosen by rule and never by hand."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from common.report.evidence import Arm, Comparison, Level
from common.report.plotting import Picture, finish, new_sheet, style

ReadSlice = Callable[[str], NDArray[np.uint8] | None]

A_KIND = 4  # slices shown of each kind
SLICE_PX = 224  # longest side of a slice on the page

TWO_CLASSES = {
    "missed": "Missed: {positive} taken for {negative}, most confident first",
    "false_alarm": "False alarms: {negative} taken for {positive}, most confident first",
    "disagreed": "Most disagreed: the largest gap between two frameworks' scores",
    "found": "Correct: {positive}, the most typical score first",
    "cleared": "Correct: {negative}, the most typical score first",
}
SEVERAL_CLASSES = {
    "wrong": "Confidently wrong in every framework: the least probability of the true class first",
    "disagreed": "Most disagreed: the largest gap between two frameworks' probabilities",
}
CORRECT = "correct"  # "correct_CLASS"


NO_PICTURES = "The slices are not shown: their pixels were not at hand, or were not to be shown."


@dataclass(frozen=True)
class Opinion:
    """What one framework said of one slice; the score is the mean over its seeds."""

    framework: str
    score: float  # probability of the positive class, or with several classes of the predicted one
    votes: int  # seeds that predicted it
    seeds: int
    predicted: str  # by most seeds
    right: bool


@dataclass(frozen=True)
class Example:
    kind: str
    sample_id: str
    patient: str
    truth: str
    opinions: tuple[Opinion, ...]
    image: str  # data URI of a PNG


@dataclass(frozen=True)
class Group:
    """Examples of one kind; `routine` ones are right, and may be folded away."""

    heading: str
    examples: tuple[Example, ...]
    routine: bool


@dataclass(frozen=True)
class Gallery:
    """Groups of examples under their headings; `note` says how they were chosen, or why there are none."""

    groups: tuple[Group, ...]
    note: str
    sheet: Picture | None


def build_gallery(comparison: Comparison, read_slice: ReadSlice | None, directory: Path) -> Gallery:
    """Up to four slices of each kind, one a patient; slices that cannot be read are passed over."""
    if read_slice is None:
        return Gallery((), NO_PICTURES, None)
    if not comparison.levels:
        return Gallery((), "The slices are not shown: no run is scored.", None)
    level = comparison.levels[0]
    groups, drawn = [], []
    for kind, rows in choose(level, comparison.classes).items():
        examples: list[Example] = []
        patients: set[str] = set()
        for row in rows:
            if len(examples) == A_KIND:
                break
            patient = str(level.patient[row])
            pixels = read_slice(str(level.unit[row])) if patient not in patients else None
            if pixels is None:
                continue
            patients.add(patient)
            examples.append(example(kind, level, int(row), comparison.classes, pixels))
            drawn.append((examples[-1], pixels))
        if examples:
            routine = kind in ("found", "cleared") or kind.startswith(CORRECT)
            groups.append(Group(heading(kind, comparison.classes), tuple(examples), routine))
    if not drawn:
        return Gallery((), "The slices are not shown: none of those chosen could be read.", None)
    return Gallery(tuple(groups), rule(comparison.classes), contact_sheet(comparison, drawn, directory))


def heading(kind: str, classes: tuple[str, ...]) -> str:
    if kind.startswith(CORRECT):
        return f"Correct: {kind.removeprefix(f'{CORRECT}_')}, the most typical score first"
    if len(classes) > 2:
        return SEVERAL_CLASSES[kind]
    return TWO_CLASSES[kind].format(negative=classes[0], positive=classes[1])


def rule(classes: tuple[str, ...]) -> str:
    """How the slices were chosen and what stands beside them."""
    score, call = (
        ("the predicted class", "the largest probability decides")
        if len(classes) > 2
        else (classes[1], "each at its own threshold")
    )
    return (
        f"Test slices chosen by rule, at most one a patient. Score: probability of {score}, mean over seeds. "
        f"Call: by most seeds, {call}. ✗ wrong."
    )


def choose(level: Level, classes: tuple[str, ...]) -> dict[str, NDArray[np.int64]]:
    """Rows of each kind, best example first; right or wrong is what every framework's majority of seeds is."""
    return choose_of_two(level) if len(classes) == 2 else choose_of_several(level, classes)


def choose_of_two(level: Level) -> dict[str, NDArray[np.int64]]:
    mean = np.mean([arm.y_score.mean(axis=0) for arm in level.arms], axis=0)
    called = np.array([majority(arm) for arm in level.arms]) == 1
    sick = level.y_true == 1
    kinds = {
        "missed": first(sick & ~called.any(axis=0), mean),
        "false_alarm": first(~sick & called.all(axis=0), -mean),
    }
    if level.pairs:
        gaps = [np.abs(arm.y_score.mean(axis=0) - other.y_score.mean(axis=0)) for arm, other in level.pairs]
        kinds["disagreed"] = first(np.ones(len(mean), dtype=bool), -np.max(gaps, axis=0))
    kinds["found"] = typical(sick & called.all(axis=0), mean)
    kinds["cleared"] = typical(~sick & ~called.any(axis=0), mean)
    return kinds


def choose_of_several(level: Level, classes: tuple[str, ...]) -> dict[str, NDArray[np.int64]]:
    mean = np.mean([arm.y_score.mean(axis=0) for arm in level.arms], axis=0)  # (N, C)
    of_truth = mean[np.arange(len(mean)), level.y_true]
    right = np.array([majority(arm) for arm in level.arms]) == level.y_true
    kinds = {"wrong": first(~right.any(axis=0), of_truth)}
    if level.pairs:  # the total variation distance: the most probability that any set of classes gains
        gaps = [
            np.abs(arm.y_score.mean(axis=0) - other.y_score.mean(axis=0)).sum(axis=1) / 2
            for arm, other in level.pairs
        ]
        kinds["disagreed"] = first(np.ones(len(mean), dtype=bool), -np.max(gaps, axis=0))
    for index, name in enumerate(classes):
        kinds[f"{CORRECT}_{name}"] = typical((level.y_true == index) & right.all(axis=0), of_truth)
    return kinds


def first(keep: NDArray[np.bool_], by: NDArray[np.float64]) -> NDArray[np.int64]:
    """The rows that are kept, the smallest first; of equals the first by id."""
    found = np.flatnonzero(keep)
    return found[np.argsort(by[found], kind="stable")]


def typical(keep: NDArray[np.bool_], score: NDArray[np.float64]) -> NDArray[np.int64]:
    """The rows that are kept, the nearest to their median first."""
    return first(keep, np.abs(score - np.median(score[keep]))) if keep.any() else np.array([], dtype=np.int64)


def majority(arm: Arm) -> NDArray[np.int64]:
    """The class that most seeds predict, (N,); of equally many the lower one with two classes, else the one with the
    larger mean probability.
    """
    if arm.y_score.ndim == 2:
        return (arm.y_pred.mean(axis=0) > 0.5).astype(np.int64)
    votes = (arm.y_pred[..., None] == np.arange(arm.y_score.shape[2])).sum(axis=0)  # (N, C)
    return (votes + 0.5 * arm.y_score.mean(axis=0)).argmax(axis=1)


def example(
    kind: str, level: Level, row: int, classes: tuple[str, ...], pixels: NDArray[np.uint8]
) -> Example:
    opinions = []
    for arm in level.arms:
        decided = int(majority(arm)[row])
        score = arm.y_score[:, row].mean(axis=0)
        opinions.append(Opinion(
            arm.framework, float(score[decided] if score.ndim else score), int((arm.y_pred[:, row] == decided).sum()),
            len(arm.seeds), classes[decided], decided == level.y_true[row],
        ))  # fmt: skip
    truth = classes[level.y_true[row]]
    return Example(
        kind, str(level.unit[row]), str(level.patient[row]), truth, tuple(opinions), data_uri(pixels)
    )


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """A grey slice (H, W) as an inline PNG of at most SLICE_PX a side."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((SLICE_PX, SLICE_PX), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def contact_sheet(
    comparison: Comparison, drawn: list[tuple[Example, NDArray[np.uint8]]], directory: Path
) -> Picture:
    """The same slices on one sheet, for slides."""
    rows = []
    with style():
        figure, cells = new_sheet(len(drawn), columns=A_KIND, cell=2.0)
        for cell, (one, pixels) in zip(cells, drawn, strict=True):
            cell.show(pixels)
            lines = [f"{o.framework} {o.score:.2f} {o.predicted}" for o in one.opinions]
            cell.write(f"{one.kind.replace('_', ' ')}\ntrue: {one.truth}", "\n".join(lines), size=7)
            for o in one.opinions:
                rows.append({"kind": one.kind, "id": one.sample_id, "patient": one.patient, "true": one.truth,
                             "framework": o.framework, "score": o.score, "predicted": o.predicted,
                             "votes": o.votes, "seeds": o.seeds})  # fmt: skip
        return finish(
            figure, directory, f"{comparison.slug}-examples", "Example slices", "Chosen by rule from the test part.",
            f"{len(drawn)} example slices.", pd.DataFrame(rows),
        )  # fmt: skip
