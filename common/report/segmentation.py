"""The segmentation's part of the page: its tables, rules, figures and slices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import config
from common.report.gallery import ReadSlice
from common.report.mask_evidence import MaskComparison
from common.report.mask_figures import mask_figures
from common.report.mask_gallery import MaskGallery, build_mask_gallery
from common.report.mask_levels import MASK_DIRECTION, MASK_TITLE, MaskLevel
from common.report.mask_slices import Slices
from common.report.mask_views import level_view
from common.report.plotting import Picture
from common.report.score_views import metric_row
from common.report.scores import Scores
from common.report.wording import plain, plural

HEADINGS = {
    "lesion": "Scores on slices with a lesion",
    "clean": "Scores on slices without a lesion",
    "patient": "Scores per patient with a lesion",
    "external": "External set: slices with a lesion",
    "external_clean": "External set: slices without a lesion",
}
SIZES = {"small": "up to {px} px", "large": "above {px} px"}  # levels that share one table


@dataclass(frozen=True)
class SegmentationSection:
    """What the templates show; a level is a dict as `views.score_view` gives it."""

    levels: tuple[dict[str, Any], ...]
    rules: tuple[str, ...]  # how the scores are counted
    pictures: dict[str, list[Picture]]  # by section: "cases", "agreement"
    gallery: MaskGallery


def segmentation_section(
    comparison: MaskComparison, scores: Scores, read_slice: ReadSlice | None, figures_directory: Path
) -> SegmentationSection:
    """Everything between the verdict and the training of a segmentation; writes its figures."""
    return SegmentationSection(
        tuple(level_views(comparison, scores)),
        rules(comparison.test) if comparison.test else (),
        mask_figures(comparison, scores, figures_directory),
        build_mask_gallery(comparison, read_slice, figures_directory),
    )


def level_views(comparison: MaskComparison, scores: Scores) -> list[dict[str, Any]]:
    """A table a level; the two sizes of lesions in one, before the external set."""
    views = {
        level.name: level_view(
            comparison.key, level, scores, MASK_TITLE, MASK_DIRECTION, HEADINGS[level.name], about(level)
        )
        for level in comparison.levels
        if level.name in HEADINGS
    }
    sizes = [level for level in comparison.levels if level.name in SIZES]
    if len(sizes) > 1:  # of one size alone the table would repeat the first
        views["size"] = size_view(comparison.key, sizes, scores)
    order = ("lesion", "clean", "patient", "size", "external", "external_clean")
    return [views[name] for name in order if name in views]


def size_view(prefix: str, levels: list[MaskLevel], scores: Scores) -> dict[str, Any]:
    """Small and larger lesions in one table, a row a metric and size."""
    px = config.SMALL_LESION_PX
    rows = [
        metric_row(prefix, level.name, metric, scores,
                   f"{MASK_TITLE[metric]}, {SIZES[level.name].format(px=px)}", MASK_DIRECTION[metric])
        for metric in levels[0].metrics for level in levels
    ]  # fmt: skip
    counts = [
        f"{plural(len(level.unit), 'slice')} of {plural(level.patients, 'patient')} {SIZES[level.name].format(px=px)}"
        for level in levels
    ]
    first = level_view(prefix, levels[0], scores, {}, {}, "Scores by lesion size", "")
    about = f"{'; '.join(counts)} (true area of the slice). Small lesions are usually harder."
    return {**first, "name": "size", "about": about, "rows": rows}


def about(level: MaskLevel) -> str:
    """What the scores of a level rest on."""
    if level.name == "patient":
        words = (
            f"{plural(len(level.unit), 'test patient')} with a lesion. The pixels of all slices of a patient are "
            "counted together, so that large lesions weigh more and false marks on lesion-free slices count."
        )
    else:
        part = "external" if level.name.startswith("external") else "test"
        words = f"{plural(len(level.unit), f'{part} slice')} of {plural(level.patients, 'patient')}."
    models = max(arm.models for arm in level.arms)
    return f"{words} Each seed counts with the mean over its {models} folds' models." if models > 1 else words


def rules(slices: Slices) -> tuple[str, ...]:
    """How the scores are counted, for a reader who knows other ways."""
    return (
        f"Scores are means over slices, on the model's grid of {slices.size} × {slices.size} px; each run's "
        "probability threshold was chosen on its validation slices by the largest pooled Dice.",
        "A missed lesion counts: its Dice is 0 and its HD95 the diagonal of the grid, "
        f"{plain(slices.diagonal_px, 1)} px. Precision is a mean over the slices where anything was marked.",
        "An empty mask on a slice without a lesion is never a Dice of 1: such slices are scored apart, by whether they "
        "stay empty.",
        "HD95 is the larger of the two 95th percentiles of distances between border pixels; surface Dice forgives "
        f"{config.SURFACE_TOLERANCE_PX:g} px; a lesion is found from an IoU of {config.LESION_OVERLAP:g} on.",
    )
