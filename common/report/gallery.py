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

from common.report.evidence import Comparison, Level
from common.report.plotting import Picture, finish, new_sheet, style

ReadSlice = Callable[[str], NDArray[np.uint8] | None]

A_KIND = 4  # slices shown of each kind
SLICE_PX = 224  # longest side of a slice on the page

KINDS = {
    "missed": "Missed: {positive} taken for {negative}, most confident first",
    "false_alarm": "False alarms: {negative} taken for {positive}, most confident first",
    "disagreed": "Most disagreed: the largest gap between two frameworks' scores",
    "found": "Correct: {positive}, the most typical score first",
    "cleared": "Correct: {negative}, the most typical score first",
}


@dataclass(frozen=True)
class Opinion:
    """What one framework said of one slice; the score is the mean over its seeds."""

    framework: str
    score: float  # probability of the positive class
    positive_seeds: int
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
class Gallery:
    """Groups of examples under their headings; `reason` says why it is empty, if it is."""

    groups: tuple[tuple[str, tuple[Example, ...]], ...]
    reason: str
    sheet: Picture | None


def build_gallery(comparison: Comparison, read_slice: ReadSlice | None, directory: Path) -> Gallery:
    """Up to four slices of each kind, one a patient; slices that cannot be read are passed over."""
    if read_slice is None:
        return Gallery(
            (), "The slices are not shown: their pixels were not at hand when the report was written.", None
        )
    if not comparison.levels or len(comparison.classes) != 2:
        return Gallery((), "Slices are shown for tasks of two classes with scored runs.", None)
    level = comparison.levels[0]
    negative, positive = comparison.classes
    groups, drawn = [], []
    for kind, rows in choose(level).items():
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
            groups.append((KINDS[kind].format(positive=positive, negative=negative), tuple(examples)))
    if not drawn:
        return Gallery((), "The slices are not shown: none of those chosen could be read.", None)
    return Gallery(tuple(groups), "", contact_sheet(comparison, drawn, directory))


def choose(level: Level) -> dict[str, NDArray[np.int64]]:
    """Rows of each kind, best example first; right or wrong is what every framework's majority of seeds is."""
    mean = np.mean([arm.y_score.mean(axis=0) for arm in level.arms], axis=0)
    called = np.array([arm.y_pred.mean(axis=0) > 0.5 for arm in level.arms])
    sick = level.y_true == 1

    def rows(keep: NDArray[np.bool_], by: NDArray[np.float64]) -> NDArray[np.int64]:
        found = np.flatnonzero(keep)
        return found[np.argsort(by[found], kind="stable")]

    def typical(keep: NDArray[np.bool_]) -> NDArray[np.int64]:
        return (
            rows(keep, np.abs(mean - np.median(mean[keep]))) if keep.any() else np.array([], dtype=np.int64)
        )

    kinds = {
        "missed": rows(sick & ~called.any(axis=0), mean),
        "false_alarm": rows(~sick & called.all(axis=0), -mean),
    }
    if level.pairs:
        gaps = [np.abs(arm.y_score.mean(axis=0) - other.y_score.mean(axis=0)) for arm, other in level.pairs]
        kinds["disagreed"] = rows(np.ones(len(mean), dtype=bool), -np.max(gaps, axis=0))
    kinds["found"] = typical(sick & called.all(axis=0))
    kinds["cleared"] = typical(~sick & ~called.any(axis=0))
    return kinds


def example(
    kind: str, level: Level, row: int, classes: tuple[str, ...], pixels: NDArray[np.uint8]
) -> Example:
    opinions = []
    for arm in level.arms:
        positive = int(arm.y_pred[:, row].sum())
        decided = int(positive > len(arm.seeds) / 2)
        opinions.append(Opinion(
            arm.framework, float(arm.y_score[:, row].mean()), positive, len(arm.seeds), classes[decided],
            decided == level.y_true[row],
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
        for axes, (one, pixels) in zip(cells, drawn, strict=False):
            axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
            axes.set_title(f"{one.kind.replace('_', ' ')}\ntrue: {one.truth}", fontsize=8)
            lines = [f"{o.framework} {o.score:.2f} {o.predicted}" for o in one.opinions]
            axes.set_xlabel("\n".join(lines), fontsize=7)
            for o in one.opinions:
                rows.append({"kind": one.kind, "id": one.sample_id, "patient": one.patient, "true": one.truth,
                             "framework": o.framework, "score": o.score, "predicted": o.predicted,
                             "positive_seeds": o.positive_seeds, "seeds": o.seeds})  # fmt: skip
        return finish(
            figure, directory, f"{comparison.slug}-examples", "Example slices", "Chosen by rule from the test part.",
            f"{len(drawn)} example slices.", pd.DataFrame(rows),
        )  # fmt: skip
