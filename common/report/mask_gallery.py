"""Test slices with the outlines of the true lesion and of what each framework marked, chosen by rule, never by hand.

A slice is chosen by the mean Dice over seeds, disagreement by the outlines shown; outlines and numbers are those of one
seed, so that picture and number agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common.report.gallery import A_KIND, NO_PICTURES, ReadSlice, data_uri
from common.report.mask_evidence import MaskComparison
from common.report.mask_slices import SliceArm, Slices, mask_dice
from common.report.plotting import COLOURS, DASHES, OTHER, Picture, finish, new_sheet, style
from common.report.wording import plain

ENLARGED = 4  # outlines are traced on a mask enlarged so many times
SIMPLER = 0.6  # of an enlarged pixel; an outline may lie so far off to need fewer points
TRUTH_COLOUR = "#ffe14d"
LINE_PX = 1.6  # width of an outline on the page

KINDS = {
    "worst": "Lowest Dice, of equals the largest lesions",
    "disagreed": "Most disagreed: the outlines of two frameworks overlap least",
    "median": "Middle: the Dice of the median slice",
    "best": "Highest Dice",
    "false_alarm": "False alarms: the largest masks on slices without a lesion",
}


@dataclass(frozen=True)
class Outline:
    """What one framework marked on one slice."""

    framework: str
    area: str  # "212 px (190 mm²)"
    dice: str  # "" on a slice without a lesion
    path: str  # SVG path data on the mask's grid; empty where nothing is marked
    dash: str  # SVG stroke-dasharray, the framework's own; empty for a solid line


@dataclass(frozen=True)
class MaskExample:
    kind: str
    sample_id: str
    patient: str
    size: int  # px a side of the mask's grid
    area: str  # of the true lesion, "" without one
    truth: str  # SVG path data
    outlines: tuple[Outline, ...]
    image: str  # data URI of a PNG
    alt: str


@dataclass(frozen=True)
class MaskGallery:
    """Groups of examples under their headings; `reason` says why it is empty, if it is."""

    groups: tuple[tuple[str, tuple[MaskExample, ...]], ...]
    note: str
    legend: tuple[tuple[str, str], ...]  # framework, stroke-dasharray
    reason: str
    sheet: Picture | None


def build_mask_gallery(
    comparison: MaskComparison, read_slice: ReadSlice | None, directory: Path
) -> MaskGallery:
    """Up to four slices of each kind, one a patient; slices that cannot be read are passed over."""
    slices = comparison.test
    if slices is None:
        return nothing("Slices are shown where runs are scored.")
    if read_slice is None:
        return nothing(NO_PICTURES)
    drawn_runs = runs_drawn(slices)
    groups, drawn = [], []
    for kind, rows in choose(slices, list(drawn_runs.values())).items():
        examples: list[MaskExample] = []
        patients: set[str] = set()
        for row in rows:
            if len(examples) == A_KIND:
                break
            patient = str(slices.patient[row])
            pixels = read_slice(str(slices.unit[row])) if patient not in patients else None
            if pixels is None:
                continue
            patients.add(patient)
            examples.append(example(kind, slices, int(row), drawn_runs, pixels))
            drawn.append((int(row), examples[-1], pixels))
        if examples:
            groups.append((KINDS[kind], tuple(examples)))
    if not drawn:
        return nothing("The slices are not shown: none of those chosen could be read.")
    names = [(arm.framework, dash(arm.framework)) for arm, _ in drawn_runs.values()]
    seeds = {arm.seeds[place] for arm, place in drawn_runs.values()}
    several = any(len(arm.seeds) > 1 for arm in slices.arms)
    note = "Test slices chosen by rule, at most one a patient; point at one to see it without outlines." + (
        f" Chosen by the mean over seeds; outlines and numbers are those of seed {min(seeds)}."
        if several and len(seeds) == 1
        else ""
    )
    sheet = contact_sheet(comparison, slices, drawn, drawn_runs, directory)
    return MaskGallery(tuple(groups), note, tuple(names), "", sheet)


def nothing(reason: str) -> MaskGallery:
    return MaskGallery((), "", (), reason, None)


def choose(slices: Slices, drawn_runs: Sequence[tuple[SliceArm, int]]) -> dict[str, NDArray[np.int64]]:
    """Rows of each kind, best example first; of equals the one with the larger masks, then the first by id."""
    dice = np.mean([arm.dice.mean(axis=0) for arm in slices.arms], axis=0)
    marked = np.mean([arm.area_px.mean(axis=0) for arm in slices.arms], axis=0)
    lesion, true_px = slices.lesion, slices.true_px

    def rows(keep: NDArray[np.bool_], by: NDArray[np.float64], size: NDArray[Any]) -> NDArray[np.int64]:
        found = np.flatnonzero(keep)
        return found[np.lexsort((found, -size[found], by[found]))]

    kinds = {"worst": rows(lesion, dice, true_px)}
    if len(drawn_runs) > 1:
        (first, place), *others = drawn_runs
        between = np.stack(
            [
                mask_dice(first.masks[place], arm.masks[seed]) for arm, seed in others
            ]  # NaN where both are empty
        )
        least = np.min(np.where(np.isnan(between), 1.0, between), axis=0)
        kinds["disagreed"] = rows(lesion & (least < 1), least, marked)
    kinds["median"] = rows(lesion, np.abs(dice - np.median(dice[lesion])), true_px)
    kinds["best"] = rows(lesion, -dice, true_px)
    kinds["false_alarm"] = rows(~lesion & (marked > 0), -marked, marked)
    return kinds


def runs_drawn(slices: Slices) -> dict[str, tuple[SliceArm, int]]:
    """Of each framework the run whose outlines are shown: the first seed that all have, else its own first."""
    shared = set.intersection(*(set(arm.seeds) for arm in slices.arms))
    return {arm.framework: (arm, arm.seeds.index(min(shared)) if shared else 0) for arm in slices.arms}


def example(
    kind: str,
    slices: Slices,
    row: int,
    drawn_runs: dict[str, tuple[SliceArm, int]],
    pixels: NDArray[np.uint8],
) -> MaskExample:
    pixel_mm, true_px = float(slices.pixel_mm[row]), int(slices.true_px[row])
    outlines = []
    for framework, (arm, place) in drawn_runs.items():
        run = arm.runs[place]
        outlines.append(
            Outline(
                framework,
                area_words(int(run.tp[row] + run.fp[row]), pixel_mm),
                plain(float(arm.dice[place, row]), 2) if true_px else "",
                path_data(trace(slices.mask(run.y_pred[row]))),
                dash(framework),
            )
        )
    area = area_words(true_px, pixel_mm) if true_px else ""
    told = "; ".join(
        f"{one.framework} {one.area}{f', Dice {one.dice}' if one.dice else ''}" for one in outlines
    )
    sample_id = str(slices.unit[row])
    alt = f"CT slice {sample_id} with outlines. True lesion {area or 'none'}; {told}"
    truth = path_data(trace(slices.mask(slices.truth[row])))
    patient = str(slices.patient[row])
    return MaskExample(
        kind, sample_id, patient, slices.size, area, truth, tuple(outlines), data_uri(pixels), alt
    )


def area_words(area_px: int, pixel_mm: float) -> str:
    """In px of the mask's grid, and in mm² where the size of a pixel is known."""
    if not area_px:
        return "nothing marked"
    known = f" ({area_px * pixel_mm**2:,.0f} mm²)" if np.isfinite(pixel_mm) else ""
    return f"{area_px:,} px{known}"


def trace(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """The outlines of a mask (S, S), each (K, 2) of x and y from 0 to S, pixel edges at whole numbers.

    Traced half-way between the centres of pixels inside and outside, holes included.
    """
    size = len(mask) * ENLARGED
    smooth = cv2.resize(mask.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR) >= 0.5
    found, _ = cv2.findContours(smooth.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    simpler = (cv2.approxPolyDP(points, SIMPLER, True)[:, 0, :] for points in found)
    return [(points + 0.5) / ENLARGED for points in simpler]


def path_data(outlines: list[NDArray[np.float64]]) -> str:
    """Closed polygons as the `d` of an SVG path."""
    return "".join("M" + " ".join(f"{x:.2f},{y:.2f}" for x, y in points) + "Z" for points in outlines)


def dash(framework: str) -> str:
    """The framework's dashes as an SVG stroke-dasharray."""
    style_of_line = DASHES.get(framework, "-")
    lengths: Any = style_of_line[1] if isinstance(style_of_line, tuple) else ()
    return " ".join(f"{LINE_PX * length:g}" for length in np.atleast_1d(lengths))


def contact_sheet(
    comparison: MaskComparison,
    slices: Slices,
    drawn: list[tuple[int, MaskExample, NDArray[np.uint8]]],
    drawn_runs: dict[str, tuple[SliceArm, int]],
    directory: Path,
) -> Picture:
    """The same slices on one sheet, for slides, with their numbers as a table."""
    rows = []
    with style():
        figure, cells = new_sheet(len(drawn), columns=A_KIND, cell=2.3)
        for cell, (row, one, pixels) in zip(cells, drawn, strict=True):
            cell.show(pixels, units=one.size)
            for framework, (arm, place) in drawn_runs.items():
                run = arm.runs[place]
                for points in trace(slices.mask(run.y_pred[row])):
                    cell.plot(*closed(points), color=COLOURS.get(framework, OTHER), linewidth=1.1,
                              linestyle=DASHES.get(framework, "-"))  # fmt: skip
                rows.append({"kind": one.kind, "id": one.sample_id, "patient": one.patient,
                             "true_px": int(slices.true_px[row]), "pixel_mm": float(slices.pixel_mm[row]),
                             "framework": framework, **slice_numbers(arm, place, row)})  # fmt: skip
            for points in trace(slices.mask(slices.truth[row])):
                cell.plot(*closed(points), color=TRUTH_COLOUR, linewidth=1.2, linestyle=(0, (0.1, 2)),
                          dash_capstyle="round")  # fmt: skip
            lines = [f"{o.framework} {o.dice} {o.area}" for o in one.outlines]
            above = f"{one.kind.replace('_', ' ')}\ntrue: {one.area or 'no lesion'}"
            cell.write(above, "\n".join(lines), size=6.5)
        return finish(
            figure, directory, f"{comparison.slug}-examples", "Example slices",
            "Chosen by rule from the test part. Yellow dots: the true lesion; lines: what each framework marked.",
            f"{len(drawn)} example slices with outlines.", pd.DataFrame(rows),
        )  # fmt: skip


def slice_numbers(arm: SliceArm, place: int, row: int) -> dict[str, float]:
    """Of the seed that is shown, and over all seeds; without a lesion there is no Dice."""
    run = arm.runs[place]
    dice = arm.dice[:, row] if run.tp[row] + run.fn[row] else np.full(len(arm.runs), np.nan)
    return {
        "seed": arm.seeds[place],
        "predicted_px": int(arm.area_px[place, row]),
        "dice_score": float(dice[place]),
        "mean_dice_score": float(dice.mean()),
        "seeds": len(arm.seeds),
    }


def closed(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """x and y, (2, K + 1), the first point again at the end."""
    return np.concatenate([points, points[:1]]).T
