"""Can the label be told without looking at the head? The AUROC of the best single number about a picture or its file.

A classifier finds such numbers: two classes collected in two hospitals, saved by two programs, are told apart by the
format, the size or the border, and every score is then about the programs (DeGrave et al. 2021, Nature Machine
Intelligence 3, 610). Unit is a patient's slices of one label, by their mean.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common import config
from common.data.findings import Finding, Row
from common.data.looks import DRAWN
from common.random_numbers import generator

# What it says of the label, if anything, is of the files; below, lesions may change it too
OF_FILE = {
    "width": "width",
    "height": "height",
    "bits": "bit depth",
    "density": "bytes a pixel",
    "quantisation": "JPEG quantisation",
    "border": "border's brightness",
}
OF_PICTURE = {"mean": "mean brightness", "sd": "contrast", "lit": "share of lit pixels"}
KINDS = {"format": "file format", "mode": "pixel mode", "source": "data set"}  # words; each value is 0 or 1

DRAWS_AT_A_TIME = 100  # permutations; bounds memory


def find_shortcuts(frame: pd.DataFrame) -> Finding:
    """The best single number for telling normal from stroke, and each label from the rest. A warning, not a refusal:
    both frameworks may take the same shortcut, so that their difference still stands; what the scores mean does not.
    Of a number about the picture itself a note, for lesions change it.
    """
    name = "label-shortcut"
    numbers = _numbers(frame)
    units = numbers.groupby([frame["patient"], frame["label"]], sort=True).mean()
    label = units.index.get_level_values("label").to_numpy(object)
    numbers_of = units.to_numpy(dtype=np.float64)  # (G, F)
    contrasts = list(_contrasts(label))
    varying = numbers_of.std(axis=0) > 0 if len(units) else np.zeros(0, bool)
    if not contrasts or not varying.any():
        return Finding(name, "pass", "Nothing about the files or their brightness varies with the label.")
    words = [column for column, varies in zip(units.columns, varying, strict=True) if varies]
    ranks = pd.DataFrame(numbers_of[:, varying]).rank().to_numpy().T  # (F, G)
    masks = np.stack([positive for _, positive in contrasts])  # (K, G)
    scores = separation(ranks, masks)  # (F, K)
    chance = _chance(ranks, masks)
    rows: list[Row] = [
        {
            "number": words[f],
            "tells": contrasts[k][0],
            "auroc": round(float(scores[f, k]), 3),
            "patients": int(masks[k].sum()),
            "others": int((~masks[k]).sum()),
        }
        for f, k in np.ndindex(*scores.shape)
    ]
    rows.sort(key=lambda row: (-float(row["auroc"]), str(row["number"]), str(row["tells"])))
    unit = "groups" if (frame["patient_from"] == "similarity").any() else "patients"
    by_chance = f"by chance the best of them reaches {np.quantile(chance, 0.95):.2f} in one case of twenty"
    named = [
        row
        for row in rows
        if float(row["auroc"]) >= config.AUDIT_SHORTCUT_AUROC
        and _p_value(float(row["auroc"]), chance) <= config.ALPHA
    ]
    of_files = [row for row in named if row["number"] not in OF_PICTURE.values()]
    best = (of_files or rows)[0]
    told = (
        f"The best single number{' about the files' if of_files else ''} is {best['number']}, which tells "
        f"{best['tells']} with an AUROC of {best['auroc']:.2f} over {unit}; {by_chance}."
    )
    if of_files:
        return Finding(
            name,
            "warn",
            f"{told} It says nothing of a brain, so that a high score may be about files.",
            (*of_files, *(row for row in rows if row not in of_files)),
            "Compare scores with this AUROC; prepare all pictures in one way, from their DICOM files if there are any.",
        )
    if named:
        said = f"{told} A lesion may change it, but so does the way in which slices were chosen and prepared."
        return Finding(name, "note", said, tuple(rows), "Compare scores with this AUROC.")
    return Finding(name, "pass", told, tuple(rows))


def _numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """What may give a label away, one column a number, by its name in words."""
    numbers = pd.DataFrame(index=frame.index)
    for column, words in (OF_FILE | OF_PICTURE).items():
        if column == "density":
            numbers[words] = frame["bytes"] / (frame["width"] * frame["height"]).clip(lower=1)
        else:
            numbers[words] = frame[column].astype(np.float64)
    if (frame["format"] == DRAWN).all():
        numbers = numbers.drop(columns=[OF_FILE["density"]])
    for column, words in KINDS.items():
        values = sorted(set(frame[column]))
        for value in values[1:] if len(values) == 2 else values if len(values) > 2 else []:
            numbers[f"{words} {value}"] = (frame[column] == value).astype(np.float64)
    return numbers


def _contrasts(label: NDArray[np.object_]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """(in words, which units are positive): stroke against normal, and each of several kinds against the rest."""
    normal = label == "normal"
    if normal.any() and not normal.all():
        yield "stroke from normal", ~normal
    kinds = sorted(set(label) - {"normal", "stroke"})
    for kind in kinds if len(set(label)) > 2 else []:
        yield f"{kind} from the rest", label == kind


def separation(ranks: NDArray[np.float64], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """AUROC of each number for each contrast, (F, K), whichever way round it is: at least 0.5.

    From the ranks (F, G) of the units and the contrasts (K, G), by Mann and Whitney's statistic.
    """
    inside = positive.sum(axis=1)
    outside = positive.shape[1] - inside
    wins = ranks @ positive.T.astype(np.float64) - inside * (inside + 1) / 2
    auroc = wins / (inside * outside)
    return np.asarray(np.maximum(auroc, 1 - auroc))


def _p_value(auroc: float, chance: NDArray[np.float64]) -> float:
    """Share of the permutations whose best does as well; the AUROC was rounded to three digits."""
    return (1 + int((chance >= auroc - 5e-4).sum())) / (1 + len(chance))


def _chance(ranks: NDArray[np.float64], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The best AUROC of all numbers and contrasts in each of many permutations of the labels over the units."""
    rng = generator("audit", "shortcuts")
    count = positive.shape[1]
    best: list[float] = []
    for start in range(0, config.AUDIT_SHORTCUT_DRAWS, DRAWS_AT_A_TIME):
        draws = min(DRAWS_AT_A_TIME, config.AUDIT_SHORTCUT_DRAWS - start)
        order = rng.permuted(np.tile(np.arange(count), (draws, 1)), axis=1)  # (D, G)
        shuffled = positive[:, order].transpose(1, 0, 2).reshape(-1, count)  # (D K, G)
        best += separation(ranks, shuffled).reshape(len(ranks), draws, -1).max(axis=(0, 2)).tolist()
    return np.array(best)
