"""What two frameworks make of the same slices: the areas they mark, and how far their masks overlap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common.metrics.segmentation import weighted_mean
from common.report.mask_evidence import MaskComparison
from common.report.mask_slices import SliceArm, Slices, mask_dice
from common.report.plotting import DASHES, INK, MARKERS, OTHER, Picture, colour, finish, new_figure
from common.report.wording import percent, signed

MANY_POINTS = 600  # of a figure; beyond it the points are set as one picture, so that the page stays small
LIMITS_SD = 1.96  # limits of agreement (Bland & Altman 1986): where 95 % of normal differences lie


def area_agreement(
    comparison: MaskComparison, slices: Slices, arm: SliceArm, reference: SliceArm, directory: Path
) -> list[Picture]:
    """Predicted areas of two frameworks, mean against difference (Bland & Altman 1986)."""
    ours, theirs = arm.area_px.mean(axis=0), reference.area_px.mean(axis=0)
    keep = slices.lesion | (ours > 0) | (theirs > 0)
    middle, gap = (ours + theirs)[keep] / 2, (ours - theirs)[keep]
    if len(gap) < 3:
        return []
    bias, spread = float(gap.mean()), float(gap.std(ddof=1))
    limits = (bias - LIMITS_SD * spread, bias + LIMITS_SD * spread)
    figure, axes = new_figure()
    lesion = slices.lesion[keep]
    for label, rows, mark in (("lesion", lesion, "o"), ("no lesion", ~lesion, "x")):
        if rows.any():
            axes.plot(middle[rows], gap[rows], linestyle="", marker=mark, color=OTHER, alpha=0.8, markersize=4,
                      label=label, markeredgewidth=0 if mark == "o" else 0.9,
                      rasterized=len(gap) > MANY_POINTS)  # fmt: skip
    axes.axhline(0, color=INK, linewidth=0.7, alpha=0.5)
    axes.axhline(bias, color=colour(arm.framework), linewidth=1.6)
    for limit in limits:
        axes.axhline(limit, color=colour(arm.framework), linewidth=1.2, linestyle=(0, (4, 2)))
    reach = 1.12 * max(1.0, float(np.abs(gap).max()), *(abs(limit) for limit in limits))
    axes.set(ylim=(-reach, reach), xlabel="Mean predicted area of the two, px")
    axes.set(ylabel=f"{arm.framework} − {reference.framework}, px")
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=2, title="True slice"
    ).set_alignment("left")
    table = pd.DataFrame({
        "id": slices.unit[keep], "true_px": slices.true_px[keep],
        f"{reference.framework}_px": theirs[keep], f"{arm.framework}_px": ours[keep],
    })  # fmt: skip
    reached = f"{signed(limits[0], 1)} to {signed(limits[1], 1)} px"
    numbers = f"mean difference {signed(bias, 1)} px, limits of agreement {reached}"
    return [finish(
        figure, directory, f"{comparison.slug}-area-{arm.framework}",
        f"Area of the masks: {arm.framework} against {reference.framework}",
        f"Slices with a lesion or a mask, mean over seeds. Solid: {numbers.replace(', limits', '; dashed: limits')} "
        f"(± {LIMITS_SD} SD; slices of a patient are alike, so these are descriptive).",
        f"Bland-Altman plot of predicted areas, {len(gap)} slices: {numbers}.",
        table,
    )]  # fmt: skip


def area_error(comparison: MaskComparison, slices: Slices, directory: Path) -> list[Picture]:
    """Predicted minus true area of every lesion against the mean of both (Bland & Altman 1986), all frameworks."""
    truth = slices.true_px[slices.lesion].astype(np.float64)
    if len(truth) < 3:
        return []
    figure, axes = new_figure(height=3.5 + 0.17 * len(slices.arms))
    axes.axhline(0, color=INK, linewidth=0.7, alpha=0.5)
    columns: dict[str, NDArray] = {"id": slices.unit[slices.lesion], "true_px": truth}
    words, furthest = [], 1.0
    for arm in slices.arms:
        paint, dash = colour(arm.framework), DASHES.get(arm.framework, "-")
        area = arm.area_px.mean(axis=0)[slices.lesion]
        columns[f"{arm.framework}_px"] = area
        gap = area - truth
        bias, spread = float(gap.mean()), float(gap.std(ddof=1))
        axes.plot((area + truth) / 2, gap, linestyle="", marker=MARKERS.get(arm.framework, "o"), color=paint, alpha=0.4,
                  markersize=4, markeredgewidth=0, rasterized=len(gap) * len(slices.arms) > MANY_POINTS)  # fmt: skip
        limits = (bias - LIMITS_SD * spread, bias + LIMITS_SD * spread)
        axes.axhline(
            bias, color=paint, linewidth=1.8, linestyle=dash, label=f"{arm.framework}  {signed(bias, 1)} px"
        )
        for limit in limits:
            axes.axhline(limit, color=paint, linewidth=1, linestyle=dash, alpha=0.7)
        furthest = max(furthest, float(np.abs(gap).max()), *(abs(limit) for limit in limits))
        words.append(
            f"{arm.framework} {signed(bias, 1)} px, limits {signed(limits[0], 1)} to {signed(limits[1], 1)} px"
        )
    axes.set(ylim=(-1.1 * furthest, 1.1 * furthest), xlabel="Mean of predicted and true area, px")
    axes.set(ylabel="Predicted − true area, px")
    legend = axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, title="Mean difference")
    legend.set_alignment("left")
    return [finish(
        figure, directory, f"{comparison.slug}-area-truth", "Area of the masks against the truth",
        "Slices with a lesion, mean over seeds. Above the line at 0 the mask is too large, below it too small. Thick: "
        f"mean difference; thin: limits of agreement (± {LIMITS_SD} SD, descriptive: slices of a patient are alike): "
        f"{'; '.join(words)}.",
        f"Bland-Altman plot of predicted against true areas, {len(truth)} slices: {'; '.join(words)}.",
        pd.DataFrame(columns),
    )]  # fmt: skip


def mask_agreement(
    comparison: MaskComparison, slices: Slices, arm: SliceArm, reference: SliceArm, directory: Path
) -> list[Picture]:
    """Dice between two frameworks' masks of a slice against their Dice with the truth."""
    between = nan_mean(mask_dice(arm.masks, reference.masks))[slices.lesion]
    truth = (arm.dice.mean(axis=0) + reference.dice.mean(axis=0))[slices.lesion] / 2
    known = np.isfinite(between)
    if not known.any():
        return []
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1], color=INK, alpha=0.55, linewidth=1, linestyle=":")
    axes.plot(truth[known], between[known], linestyle="", marker="o", color=OTHER, alpha=0.8, markersize=4.5,
              markeredgewidth=0, rasterized=int(known.sum()) > MANY_POINTS)  # fmt: skip
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="Dice with the truth, mean of the two")
    axes.set(ylabel=f"Dice of {arm.framework} with {reference.framework}")
    above = float((between > truth)[known].mean())
    table = pd.DataFrame({
        "id": slices.unit[slices.lesion], "dice_with_truth": truth, "dice_between_frameworks": between,
    })  # fmt: skip
    said = agreement_words(slices, arm, reference)
    return [finish(
        figure, directory, f"{comparison.slug}-overlap-{arm.framework}",
        f"Do {arm.framework} and {reference.framework} mark the same?",
        f"Above the dotted line ({percent(above)} of the lesion slices) the two agree more with each other than with "
        f"the truth: they err alike. {said}",
        f"Dice between the masks of {arm.framework} and {reference.framework} against Dice with the truth. {said}",
        table,
    )]  # fmt: skip


def agreement_words(slices: Slices, arm: SliceArm, reference: SliceArm) -> str:
    """How far two runs agree on lesion slices: two frameworks at equal seed, against two seeds of one framework."""
    lesion = slices.lesion
    across = weighted_mean_of([mask_dice(arm.masks, reference.masks)[:, lesion]])
    words = f"At equal seed, two frameworks overlap by a Dice of {across:.3f} on a lesion slice"
    if len(arm.seeds) < 2:
        return f"{words}."
    within = weighted_mean_of([
        mask_dice(one.masks[i], one.masks[j])[lesion]
        for one in (arm, reference) for i in range(len(one.seeds)) for j in range(i)
    ])  # fmt: skip
    return f"{words}; two seeds of one framework by {within:.3f}."


def weighted_mean_of(arrays: list[NDArray[np.float64]]) -> float:
    """Mean of all values that are not NaN."""
    values = np.concatenate([array.ravel() for array in arrays])
    return float(weighted_mean(values, values))


def nan_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the first axis of what is not NaN, (R, N) -> (N,); NaN where all are."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
