"""Every number of the page, back to its key in summary.json, and every score there, back to the predictions.

The scores are computed again here, by scikit-learn and plain NumPy, and not by anything of `common`.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as oracle

from common.report.wording import decimals, plain, signed, spread

Summary: TypeAlias = dict[str, dict[str, Any]]
Arrays: TypeAlias = dict[str, NDArray[Any]]
FRAMEWORKS = ("torch", "keras-tensorflow")
SEEDS = 3
SMALL_PX, TOLERANCE = 100, 1e-9
CLASSES = ("normal", "bleeding", "ischemia")


@pytest.fixture(scope="module")
def summary(whole_study: Path) -> Summary:
    return json.loads((whole_study / "summary.json").read_text(encoding="utf-8"))


# --- the page against summary.json --------------------------------------------------------------------------------


class Keyed(HTMLParser):
    """(key, field, text) of every element with `data-key`."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str]] = []
        self.at: tuple[str, str] | None = None
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        key = dict(attrs).get("data-key")
        if key:
            name, _, field = key.rpartition("#")
            self.at, self.text = (name, field), ""

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_endtag(self, tag: str) -> None:
        if self.at:
            self.found.append((*self.at, self.text))
            self.at = None


@pytest.fixture(scope="module")
def keyed(whole_study: Path) -> list[tuple[str, str, str]]:
    return Keyed((whole_study / "report.html").read_text(encoding="utf-8")).found


def is_rounded(text: str, value: float) -> bool:
    """Whether `text` is `value`, correctly rounded to the digits that it shows."""
    shown = text.replace("\u00a0", " ").replace("−", "-").replace(",", "").strip()
    if found := re.fullmatch(r"<\s?([\d.]+)( %)?", shown):  # "<0.01": some, but too little to show
        return 0 < value * (100 if found[2] else 1) < float(found[1])
    found = re.fullmatch(r"([+-]?\d+(?:\.(\d+))?)(e-?\+?\d+)?( %)?", shown)
    if not found:
        return False
    value *= 100 if found[4] else 1
    digits = len(found[2] or "")
    expected = f"{value:.{digits}e}" if found[3] else f"{value:.{digits}f}"
    return float(found[1] + (found[3] or "")) == float(expected)


def test_every_number_shown_is_that_of_its_key(keyed: list[tuple[str, str, str]], summary: Summary) -> None:
    assert len(keyed) > 1500
    wrong = [
        (key, field, text, summary.get(key, {}).get(field))
        for key, field, text in keyed
        if summary.get(key, {}).get(field) is None or not is_rounded(text, float(summary[key][field]))
    ]
    assert wrong == []


def test_all_scores_and_differences_are_on_the_page(
    keyed: list[tuple[str, str, str]], summary: Summary
) -> None:
    shown = {(key, field) for key, field, _ in keyed}
    for key, entry in summary.items():
        if key == "about" or entry.get("headline") is False:
            continue
        for field in ("mean", "difference"):
            if entry.get(field) is not None:
                assert (key, field) in shown, (key, field)


def test_digits_fit_the_interval(keyed: list[tuple[str, str, str]], summary: Summary) -> None:
    """Two significant digits of the half width of the widest interval beside each other, here by another way. A
    verdict has two intervals, over patients and over seeds, and is also shown in a row with the first alone.
    """
    rows: dict[str, list[float]] = defaultdict(list)  # a row of means; a difference is a row of its own
    for key, entry in summary.items():
        if key != "about" and entry.get("ci_low") is not None and not key.startswith("leak/"):
            rows[row_of(key)].append((entry["ci_high"] - entry["ci_low"]) / 2)
    checked = 0
    for key, field, text in keyed:
        if field in ("mean", "ci_low", "ci_high", "difference") and not key.startswith("leak/"):
            widest = max(rows.get(row_of(key), [0.0]))
            over_seeds = [summary[key].get(f"seeds_ci_{end}") for end in ("low", "high")]
            allowed = {digits_of(widest)}
            if None not in over_seeds:
                allowed.add(digits_of(max(widest, (over_seeds[1] - over_seeds[0]) / 2)))
            if widest > 1e-6:
                assert len(text.partition(".")[2]) in allowed, (key, field, text, widest)
                checked += 1
    assert checked > 400


def digits_of(half_width: float) -> int:
    return min(6, max(0, 1 - int(f"{half_width:.1e}".split("e")[1])))


def row_of(key: str) -> str:
    lane, task, model, who, *rest = key.split("/")
    return key if "-vs-" in who else "/".join([lane, task, model, *rest])


@pytest.mark.parametrize(
    ("interval", "digits"),
    [((0.2, 0.9), 2), ((0.61, 0.69), 3), ((-0.0098, 0.0102), 3), ((0.0, 0.0198), 4), ((10.0, 34.0), 0),
     ((0.4, 0.4), 3), ((math.nan, math.nan), 3), ((0.5, 0.5 + 1e-9), 3)],
)  # fmt: skip
def test_decimals_of_one_interval(interval: tuple[float, float], digits: int) -> None:
    assert decimals([interval]) == digits


def test_words_of_numbers() -> None:
    assert decimals([(0.6, 0.7), (0.0, 0.9), (math.nan, 1.0)]) == 2
    assert decimals([], usual=1) == 1
    assert [plain(value, 2) for value in (0.126, -0.126, -0.001, math.nan)] == ["0.13", "−0.13", "0.00", "–"]
    assert [signed(value, 2) for value in (0.126, -0.126, 0.001, -0.001, 0.0)] == [
        "+0.13", "−0.13", "0.00", "0.00", "0.00"
    ]  # fmt: skip
    assert [spread(value, 2) for value in (0.126, 0.004, 0.0, math.nan)] == ["0.13", "<0.01", "0.00", ""]


# --- summary.json against the predictions -------------------------------------------------------------------------


def arrays(directory: Path, task: str, model: str, framework: str, seed: int) -> Arrays:
    folder = directory / "runs" / task / model / framework / "aligned" / f"seed{seed}-fold0"
    with np.load(folder / "predictions.npz") as archive:
        found = {name: archive[name] for name in archive.files}
    document = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return found | {"threshold": np.array(document["threshold"]["value"])}


def part(found: Arrays, name: str) -> Arrays:
    keep = found["split"] == name
    return {key: value[keep] if value.ndim else value for key, value in found.items()}


def calibration_error(hit: NDArray[np.bool_], probability: NDArray[np.float64]) -> float:
    total = 0.0
    for low in range(10):
        rows = (probability >= low / 10) & ((probability < (low + 1) / 10) | (low == 9))
        if rows.any():
            total += rows.mean() * abs(hit[rows].mean() - probability[rows].mean())
    return total


def two_classes(y_true: NDArray[Any], y_score: NDArray[Any], threshold: float) -> dict[str, float]:
    y_pred = y_score >= threshold
    precision = oracle.precision_score(y_true, y_pred) if y_pred.any() else math.nan
    return {
        "auroc_score": oracle.roc_auc_score(y_true, y_score),
        "average_precision_score": oracle.average_precision_score(y_true, y_score),
        "accuracy_score": oracle.accuracy_score(y_true, y_pred),
        "recall_score": oracle.recall_score(y_true, y_pred),
        "specificity_score": oracle.recall_score(y_true, y_pred, pos_label=0),
        "precision_score": precision,
        "f1_score": oracle.f1_score(y_true, y_pred),
        "brier_score": oracle.brier_score_loss(y_true, y_score),
        "expected_calibration_error": calibration_error(y_true == 1, y_score),
    }


def several_classes(y_true: NDArray[Any], y_score: NDArray[Any]) -> dict[str, float]:
    y_pred = y_score.argmax(axis=1)
    found: dict[str, float] = {}
    for index, name in enumerate(CLASSES):
        one = two_classes((y_true == index).astype(int), y_score[:, index], 2.0)
        decided = two_classes((y_true == index).astype(int), (y_pred == index).astype(float), 0.5)
        for metric in ("auroc_score", "average_precision_score"):
            found[f"{name}/{metric}"] = one[metric]
        for metric in ("recall_score", "specificity_score", "precision_score", "f1_score"):
            found[f"{name}/{metric}"] = decided[metric]
    share = [(y_true == index).mean() for index in range(len(CLASSES))]
    for metric in [key.split("/")[1] for key in found if key.startswith("normal/")]:
        values = [found[f"{name}/{metric}"] for name in CLASSES]
        found[metric] = found[f"macro/{metric}"] = float(np.mean(values))
        found[f"weighted/{metric}"] = float(np.dot(share, values))
    truth = np.eye(len(CLASSES))[y_true]
    return found | {
        "accuracy_score": oracle.accuracy_score(y_true, y_pred),
        "brier_score": float(((y_score - truth) ** 2).sum(axis=1).mean()),
        "expected_calibration_error": calibration_error(y_pred == y_true, y_score.max(axis=1)),
    }


def youden(y_true: NDArray[Any], y_score: NDArray[Any]) -> float:
    """Midway between the scores around the best cut, of equally good ones the lowest."""
    ends = np.append(np.unique(y_score), 2.0)
    cuts = [(a + b) / 2 for a, b in zip(np.append(-1.0, ends[:-2]), ends[:-1], strict=True)]
    gains = [(y_score[y_true == 1] >= c).mean() - (y_score[y_true == 0] >= c).mean() for c in cuts]
    return float(cuts[int(np.flatnonzero(np.isclose(gains, max(gains), atol=1e-12))[0])])


def of_patients(found: Arrays) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    names = np.unique(found["patient"])
    rows = [found["patient"] == name for name in names]
    return np.array([found["y_true"][r].max() for r in rows]), np.array(
        [found["y_score"][r].mean() for r in rows]
    )


def binary_scores(found: Arrays) -> dict[str, float]:
    test, val, outside = (part(found, name) for name in ("test", "val", "external"))
    threshold = float(found["threshold"])
    scores = two_classes(test["y_true"], test["y_score"], threshold)
    patients = two_classes(*of_patients(test), youden(*of_patients(val)))
    external = two_classes(outside["y_true"], outside["y_score"], threshold)
    return {
        **scores,
        **{f"patient/{name}": value for name, value in patients.items()},
        **{f"external/{name}": value for name, value in external.items()},
    }


def subtype_scores(found: Arrays) -> dict[str, float]:
    test, outside = part(found, "test"), part(found, "external")
    external = several_classes(outside["y_true"], outside["y_score"])
    return {
        **several_classes(test["y_true"], test["y_score"]),
        **{f"external/{name}": value for name, value in external.items()},
    }


def mask_scores(found: Arrays) -> dict[str, float]:
    scores: dict[str, float] = {}
    for name, prefix in (("test", ""), ("external", "external")):
        rows = part(found, name)
        size = int(rows["size"][0])
        truth, marked = (
            np.unpackbits(rows[key], axis=1, count=size**2).astype(bool) for key in ("y_true", "y_pred")
        )
        lesion = truth.any(axis=1)
        scores |= keyed_by(prefix, lesion_scores(rows, truth, marked, lesion, size))
        clean = {
            "clean_slice_score": (~marked[~lesion].any(axis=1)).mean(),
            "false_positive_px": marked[~lesion].sum(axis=1).mean(),
        }
        scores |= keyed_by(f"{prefix}_clean" if prefix else "clean", clean)
        if not prefix:
            small = lesion & (truth.sum(axis=1) <= SMALL_PX)
            for level, keep in (("small", small), ("large", lesion & ~small)):
                sized = lesion_scores(rows, truth, marked, keep, size)
                names = ("dice_score", "sensitivity_score", "surface_dice_score", "marked_slice_score")
                scores |= keyed_by(level, {key: sized[key] for key in names})
            scores |= keyed_by("patient", patient_scores(rows["patient"], truth, marked, lesion))
    return scores


def keyed_by(level: str, scores: dict[str, float]) -> dict[str, float]:
    return {f"{level}/{name}" if level else name: value for name, value in scores.items()}


def lesion_scores(
    rows: Arrays,
    truth: NDArray[np.bool_],
    marked: NDArray[np.bool_],
    keep: NDArray[np.bool_],
    size: int,
) -> dict[str, float]:
    """Means over slices with a lesion; a missed one has Dice 0 and the grid's diagonal as its distance."""
    t, p = truth[keep], marked[keep]
    both, found = (t & p).sum(axis=1), p.any(axis=1)
    distance = np.where(found, rows["hd95_px"][keep], math.hypot(size, size))
    of_lesions = {name: rows[f"lesion_{name}"][keep] for name in ("tp", "fp", "fn")}
    return {
        "dice_score": (2 * both / (t.sum(axis=1) + p.sum(axis=1))).mean(),
        "iou_score": (both / (t | p).sum(axis=1)).mean(),
        "sensitivity_score": (both / t.sum(axis=1)).mean(),
        "precision_score": (both[found] / p[found].sum(axis=1)).mean(),
        "surface_dice_score": np.where(found, rows["surface_dice"][keep], 0.0).mean(),
        "hd95_px": distance.mean(),
        "hd95_mm": (distance * rows["pixel_mm"][keep]).mean(),
        "lesion_f1_score": (
            2 * of_lesions["tp"] / (2 * of_lesions["tp"] + of_lesions["fp"] + of_lesions["fn"])
        ).mean(),
        "marked_slice_score": found.mean(),
        "volume_error": (np.abs(p.sum(axis=1) - t.sum(axis=1)) / t.sum(axis=1)).mean(),
        "pixel_accuracy_score": (t == p).mean(),
    }


def patient_scores(
    patient: NDArray[Any], truth: NDArray[np.bool_], marked: NDArray[np.bool_], lesion: NDArray[np.bool_]
) -> dict[str, float]:
    """The pixels of all slices of a patient together, of patients with a lesion."""
    found = defaultdict(list)
    for name in np.unique(patient[lesion]):
        t, p = truth[patient == name], marked[patient == name]
        both = (t & p).sum()
        found["dice_score"].append(2 * both / (t.sum() + p.sum()))
        found["iou_score"].append(both / (t | p).sum())
        found["sensitivity_score"].append(both / t.sum())
        found["precision_score"].append(both / p.sum() if p.any() else math.nan)
        found["volume_error"].append(abs(int(p.sum()) - int(t.sum())) / t.sum())
    return {name: float(np.nanmean(values)) for name, values in found.items()}


AGAIN = {
    ("binary", "cnn"): binary_scores,
    ("subtype", "densenet121"): subtype_scores,
    ("segmentation", "unet"): mask_scores,
}


@pytest.mark.parametrize(("task", "model"), AGAIN)
def test_every_score_is_computed_again(whole_study: Path, summary: Summary, task: str, model: str) -> None:
    """Means and spreads over the seeds, and the paired differences; none left out."""
    seeds = {
        framework: [
            AGAIN[task, model](arrays(whole_study, task, model, framework, seed)) for seed in range(SEEDS)
        ]
        for framework in FRAMEWORKS
    }
    prefix = f"aligned/{task}/{model}"
    compared = 0
    for framework, runs in seeds.items():
        mine = {
            key for key in summary if key.startswith(f"{prefix}/{framework}/") and "runs" not in summary[key]
        }
        assert {key.removeprefix(f"{prefix}/{framework}/") for key in mine} == set(runs[0])
        for name in runs[0]:
            values, entry = [run[name] for run in runs], summary[f"{prefix}/{framework}/{name}"]
            check(entry["mean"], float(np.mean(values)), name)
            check(entry["sd"], float(np.std(values, ddof=1)), name)
            compared += 1
    pair = f"{FRAMEWORKS[1]}-vs-{FRAMEWORKS[0]}"
    for key in [
        key for key in summary if key.startswith(f"{prefix}/{pair}/") and "ratio" not in summary[key]
    ]:
        name = key.removeprefix(f"{prefix}/{pair}/")
        gaps = [ours[name] - theirs[name] for theirs, ours in zip(*seeds.values(), strict=True)]
        check(summary[key]["difference"], float(np.mean(gaps)), name)
        check(summary[key]["sd"], float(np.std(gaps, ddof=1)), name)
        compared += 1
    assert compared > 50


def check(told: float | None, again: float, name: str) -> None:
    if told is None:
        assert math.isnan(again), name
    else:
        assert told == pytest.approx(again, abs=TOLERANCE), name
