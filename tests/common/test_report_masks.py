"""The masks' and the cascade's part of the report against brute force over the masks themselves."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest
from markupsafe import Markup
from mask_study_fixture import PIXEL_MM, SIZE, make_mask_study, slice_pixels
from report_fixture import leave_rasters

from common import config, results
from common.config import Run
from common.metrics.segmentation import dice_score, hd95, precision_score
from common.report.cascade import CascadeSection, cascade_section
from common.report.gated import read_cascades, table_of
from common.report.mask_agreement import agreement_words
from common.report.mask_evidence import MaskComparison, compare_masks
from common.report.mask_figures import MANY_POINTS, dice_strip, mask_figures, running_median
from common.report.mask_gallery import build_mask_gallery, choose, path_data, runs_drawn, trace
from common.report.mask_levels import MASK_DIRECTION, MASK_TITLE
from common.report.mask_scores import score_masks
from common.report.mask_slices import read_masks
from common.report.plotting import COLOURS, Picture, style
from common.report.scores import Scores
from common.report.segmentation import SegmentationSection, segmentation_section
from common.results import MaskPredictions, read_study, unpack_masks
from common.statistics import cluster_bootstrap

BOTH = TORCH, KERAS = "torch", "keras-tensorflow"
TEMPLATES = Path(__file__).resolve().parents[2] / "common" / "report" / "templates"
Edit = Callable[[MaskPredictions], MaskPredictions]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two frameworks, two seeds and a gate, shared by the tests that only read it."""
    return make_mask_study(tmp_path_factory.mktemp("masks") / "demo", external=4)


def compared(directory: Path) -> MaskComparison:
    return compare_masks("aligned", "unet", read_study(directory).complete)


def path_of(directory: Path, framework: str, seed: int, fold: int = 0) -> Path:
    run = Run("segmentation", "unet", framework, "aligned", seed, fold)
    return results.run_directory(directory, run) / "predictions.npz"


def read(directory: Path, framework: str, seed: int, fold: int = 0, part: str = "test") -> MaskPredictions:
    return results.read_mask_predictions(path_of(directory, framework, seed, fold)).of(part)


def masks_of(found: MaskPredictions) -> tuple[np.ndarray, np.ndarray]:
    return unpack_masks(found.y_true, SIZE), unpack_masks(found.y_pred, SIZE)


def edit(directory: Path, framework: str, seed: int, change: Edit) -> None:
    path = path_of(directory, framework, seed)
    results.write_predictions(path, change(results.read_mask_predictions(path)))


def rows_of(found: MaskPredictions, rows: np.ndarray) -> MaskPredictions:
    return MaskPredictions(
        **{name: getattr(found, name)[rows] for name in MaskPredictions.__dataclass_fields__}
    )


# --- levels and scores --------------------------------------------------------------------------------------------


def test_lesion_scores_are_means_over_the_slices_with_a_lesion(study: Path) -> None:
    scores = score_masks(compared(study))
    for framework in BOTH:
        dice, precision, distance = [], [], []
        for seed in range(2):
            pairs = [(t, p) for t, p in zip(*masks_of(read(study, framework, seed)), strict=True) if t.any()]
            assert any(not p.any() for _, p in pairs), "the fixture must hold a missed lesion"
            dice.append(np.mean([dice_score(t, p) for t, p in pairs]))
            precision.append(np.mean([precision_score(t, p) for t, p in pairs if p.any()]))
            distance.append(np.mean([hd95(t, p) if p.any() else np.hypot(SIZE, SIZE) for t, p in pairs]))
        for metric, values in (("dice_score", dice), ("precision_score", precision), ("hd95_px", distance)):
            (score,) = (s for s in scores.of("lesion", metric) if s.framework == framework)
            assert score.per_seed == pytest.approx(values)
            assert (score.mean, score.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
            assert score.ci_low < score.mean < score.ci_high
        (in_mm,) = (s for s in scores.of("lesion", "hd95_mm") if s.framework == framework)
        assert in_mm.mean == pytest.approx(PIXEL_MM * np.mean(distance))


def test_a_further_run_costs_its_own_masks_alone(study: Path) -> None:
    """Of a large study the truth of every run, and slices that nobody judges, would fill the memory."""
    comparison = compared(study)
    assert comparison.test is not None
    runs = [run for arm in comparison.test.arms for run in arm.runs]
    assert len(runs) > 2
    assert {id(run.y_true) for run in runs} == {id(comparison.test.truth)}
    found, _ = read_masks(comparison.records)
    assert len({id(one.y_true) for one in found.values()}) == 1
    assert all("val" not in one.split for one in found.values())
    assert (read(study, TORCH, 0).split == "test").all()


def test_clean_slices_are_scored_apart(study: Path) -> None:
    scores = score_masks(compared(study))
    truth, predicted = masks_of(read(study, TORCH, 0))
    clean = ~truth.any(axis=(1, 2))
    (share, _), (area, _) = (scores.of("clean", m) for m in ("clean_slice_score", "false_positive_px"))
    assert 0 < share.per_seed[0] < 1
    assert share.per_seed[0] == pytest.approx(np.mean(~predicted[clean].any(axis=(1, 2))))
    assert area.per_seed[0] == pytest.approx(predicted[clean].sum() / clean.sum())
    assert not scores.of("clean", "dice_score")
    assert not scores.of("lesion", "clean_slice_score")


def test_patients_count_all_their_pixels_together(study: Path) -> None:
    found = read(study, KERAS, 1)
    truth, predicted = masks_of(found)
    dice, with_false_marks = [], 0
    for patient in np.unique(found.patient[truth.any(axis=(1, 2))]):
        rows = found.patient == patient
        dice.append(2 * (truth & predicted)[rows].sum() / (truth[rows].sum() + predicted[rows].sum()))
        with_false_marks += predicted[rows & ~truth.any(axis=(1, 2))].any()
    assert with_false_marks, "the fixture must hold a patient with a lesion and a falsely marked slice"
    (score,) = (s for s in score_masks(compared(study)).of("patient", "dice_score") if s.framework == KERAS)
    assert score.per_seed[1] == pytest.approx(np.mean(dice))


def test_sizes_divide_the_lesion_slices(study: Path) -> None:
    comparison = compared(study)
    levels = {level.name: level for level in comparison.levels}
    small, large = set(levels["small"].unit.tolist()), set(levels["large"].unit.tolist())
    assert small | large == set(levels["lesion"].unit.tolist())
    assert not small & large
    assert comparison.test is not None
    area = dict(zip(comparison.test.unit.tolist(), comparison.test.true_px.tolist(), strict=True))
    assert max(area[unit] for unit in small) <= config.SMALL_LESION_PX < min(area[unit] for unit in large)


def test_the_interval_is_over_patients(study: Path) -> None:
    """Values that differ between patients only: drawing slices would give an interval half as wide."""
    comparison = compared(study)
    level = comparison.levels[0]
    names, of_patient = np.unique(level.patient, return_inverse=True)
    values = np.linspace(0, 1, len(names))[of_patient]
    arm = dataclasses.replace(level.arms[0], values={"dice_score": np.stack([values, values])})
    one = dataclasses.replace(comparison, levels=(dataclasses.replace(level, arms=(arm,)),))
    (score,) = score_masks(one).scores
    by_slice = cluster_bootstrap(lambda t, v: float(np.mean(v)), values, values, np.arange(len(values)))
    assert score.ci_high - score.ci_low > 1.5 * (by_slice.ci_high - by_slice.ci_low)


def test_differences_are_paired_and_zero_between_equals(study: Path, tmp_path: Path) -> None:
    scores = score_masks(compared(study))
    (gap,) = scores.differences_of("lesion", "dice_score")
    torch, keras = (s.per_seed for s in scores.of("lesion", "dice_score"))
    assert (gap.framework, gap.reference) == (KERAS, TORCH)
    assert gap.per_seed == pytest.approx(np.subtract(keras, torch))
    copy = shutil.copytree(study, tmp_path / "copy")
    for seed in range(2):
        shutil.copy(path_of(copy, TORCH, seed), path_of(copy, KERAS, seed))
    equal = score_masks(compared(copy)).differences
    told = {(d.difference, d.ci_low, d.ci_high) for d in equal if not np.isnan(d.ci_low)}
    assert told == {(0.0, 0.0, 0.0)}
    assert {d.difference for d in equal} == {0.0}  # levels of too few patients too, which have no interval
    assert not any(d.visible for d in equal)


def test_every_metric_has_words_and_a_value_somewhere(study: Path) -> None:
    scores = score_masks(compared(study))
    assert {score.metric for score in scores.scores} == MASK_TITLE.keys() == MASK_DIRECTION.keys()
    assert all(np.isfinite(score.mean) for score in scores.scores)


def test_no_millimetres_where_one_slice_lacks_them(study: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(study, tmp_path / "copy")
    for framework in BOTH:
        for seed in range(2):
            edit(copy, framework, seed, lambda found: dataclasses.replace(
                found, pixel_mm=np.where(np.arange(len(found.size)) % 5 == 0, np.nan, found.pixel_mm)))  # fmt: skip
    scores = score_masks(compared(copy))
    assert not scores.of("lesion", "hd95_mm")
    assert scores.of("lesion", "hd95_px")


def test_nothing_depends_on_the_order_of_rows(study: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(study, tmp_path / "copy")
    edit(copy, KERAS, 0, lambda found: rows_of(found, np.arange(len(found.size))[::-1]))
    assert compared(copy).notes == ()
    assert score_masks(compared(copy)) == score_masks(compared(study))


def test_folds_are_pooled_and_external_models_averaged(tmp_path: Path) -> None:
    directory = make_mask_study(
        tmp_path / "study", frameworks=(TORCH,), seeds=1, folds=2, gates=(), external=4
    )
    comparison = compared(directory)
    levels = {level.name: level for level in comparison.levels}
    test = [read(directory, TORCH, 0, fold) for fold in range(2)]
    assert comparison.folds == (0, 1)
    assert len(levels["lesion"].unit) + len(levels["clean"].unit) == sum(len(one.size) for one in test)
    # Both folds' models judge the same external slices; here the second marks nothing.
    edit_fold = path_of(directory, TORCH, 0, 1)
    found = results.read_mask_predictions(edit_fold)
    results.write_predictions(edit_fold, emptied(found, found.split == "external"))
    scores = score_masks(compared(directory))
    first = read(directory, TORCH, 0, 0, "external")
    dice = [dice_score(t, p) for t, p in zip(*masks_of(first), strict=True) if t.any()]
    assert scores.of("external", "dice_score")[0].per_seed == pytest.approx([np.mean(dice) / 2])
    assert len(levels["external"].unit) == len(dice)


def emptied(found: MaskPredictions, rows: np.ndarray) -> MaskPredictions:
    """The predictions with nothing marked in these rows."""
    return dataclasses.replace(
        found,
        tp=np.where(rows, 0, found.tp), fp=np.where(rows, 0, found.fp),
        fn=np.where(rows, found.tp + found.fn, found.fn),
        tn=np.where(rows, found.tn + found.fp, found.tn), hd95_px=np.where(rows, np.nan, found.hd95_px),
        surface_dice=np.where(rows & (found.tp + found.fn == 0), np.nan, np.where(rows, 0, found.surface_dice)),
        lesion_fn=np.where(rows, found.lesion_tp + found.lesion_fn, found.lesion_fn),
        lesion_tp=np.where(rows, 0, found.lesion_tp), lesion_fp=np.where(rows, 0, found.lesion_fp),
        y_pred=np.where(rows[:, None], 0, found.y_pred).astype(np.uint8),
    )  # fmt: skip


# --- studies that are not whole -----------------------------------------------------------------------------------

FAULTS: dict[str, tuple[Edit, str]] = {
    "other slices": (lambda f: dataclasses.replace(f, sample_id=np.char.add(f.sample_id, "x")), "test slices are not"),
    "other truth": (lambda f: dataclasses.replace(f, y_true=f.y_pred, tp=f.tp + f.fp, fp=0 * f.fp, fn=0 * f.fn,
                                                  tn=f.tn + f.fn), "test slices are not"),
    "lying counts": (lambda f: dataclasses.replace(f, tp=f.tp + 1, tn=f.tn - 1), "counts are not those of its masks"),
    "other grid": (lambda f: dataclasses.replace(f, size=f.size + 1), "holds no masks of 49 px"),
    "no test part": (lambda f: rows_of(f, f.split != "test"), "no test predictions"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_unusable_predictions_are_told_and_left_out(study: Path, tmp_path: Path, fault: str) -> None:
    change, said = FAULTS[fault]
    copy = shutil.copytree(study, tmp_path / "copy")
    edit(copy, KERAS, 1, change)
    comparison = compared(copy)
    assert any(note.startswith(f"{KERAS}, seed 1") and said in note for note in comparison.notes)
    assert [arm.seeds for arm in comparison.levels[0].arms] == [(0, 1), (0,)]
    (gap,) = score_masks(comparison).differences_of("lesion", "dice_score")
    assert len(gap.per_seed) == 1


def test_a_damaged_file_and_a_missing_fold_are_told(tmp_path: Path) -> None:
    missing = {("unet", KERAS, 0, 1)}
    directory = make_mask_study(tmp_path / "study", seeds=2, folds=2, gates=(), missing=missing)
    path_of(directory, TORCH, 1).write_bytes(b"interrupted")
    comparison = compared(directory)
    assert any("torch, seed 1, fold 0 is not scored" in note for note in comparison.notes)
    assert any(note == f"{KERAS}, seed 0 is not scored: fold 1 is missing." for note in comparison.notes)
    assert {arm.framework: arm.seeds for arm in comparison.levels[0].arms} == {TORCH: (0,), KERAS: (1,)}
    assert not score_masks(comparison).differences


def test_nothing_is_scored_without_a_lesion(tmp_path: Path) -> None:
    directory = make_mask_study(tmp_path / "study", frameworks=(TORCH,), seeds=1, gates=())
    edit(directory, TORCH, 0, lambda f: rows_of(f, f.tp + f.fn == 0))
    comparison = compared(directory)
    assert comparison.levels == ()
    assert comparison.notes == ("Nothing is scored: no test slice has a lesion.",)
    section = segmentation_section(comparison, Scores((), ()), slice_pixels, tmp_path / "figures")
    assert not any(section.pictures.values())
    assert section.gallery.reason
    assert "Slices are shown where runs are scored" in render(comparison, section)


# --- figures ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(study: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Picture]]]:
    """The figures and their folder."""
    comparison = compared(study)
    folder = tmp_path_factory.mktemp("drawn")
    return folder, mask_figures(comparison, score_masks(comparison), folder)


def test_figures_hold_the_numbers_of_the_tables(
    study: Path, drawn: tuple[Path, dict[str, list[Picture]]]
) -> None:
    scores = score_masks(compared(study))
    folder, pictures = drawn
    strip, by_size, distance, area = pictures["cases"]
    for score in scores.of("lesion", "dice_score"):  # the error of the area, of each framework
        gaps = area.table[f"{score.framework}_px"] - area.table["true_px"]
        low, high = gaps.mean() - 1.96 * gaps.std(), gaps.mean() + 1.96 * gaps.std()
        for value in (gaps.mean(), low, high):
            assert f"{value:+.1f}".replace("-", "−") in area.caption
    for score in scores.of("lesion", "dice_score"):
        for table in (strip.table, by_size.table):
            drawn = table.loc[table["framework"] == score.framework, "dice_score"]
            assert drawn.mean() == pytest.approx(score.mean)
        curve = distance.table[
            (distance.table["framework"] == score.framework) & (distance.table["seed"] == "all")
        ]
        (marked,) = (s for s in scores.of("lesion", "marked_slice_score") if s.framework == score.framework)
        assert curve["share"].max() == pytest.approx(marked.mean)
        assert (curve["share"].diff().dropna() >= 0).all()
    for picture in (p for group in pictures.values() for p in group):
        for suffix in ("svg", "png", "csv"):
            assert (folder / f"{picture.name}.{suffix}").stat().st_size > 100
        assert picture.alt
        assert "#0072b2" not in picture.svg  # the page's colours, not fixed ones


def test_area_and_overlap_compare_the_frameworks(
    study: Path, drawn: tuple[Path, dict[str, list[Picture]]]
) -> None:
    comparison = compared(study)
    area, overlap = drawn[1]["agreement"]
    gaps = area.table[f"{KERAS}_px"] - area.table[f"{TORCH}_px"]
    limits = gaps.mean() - 1.96 * gaps.std(), gaps.mean() + 1.96 * gaps.std()
    for value in (gaps.mean(), *limits):
        assert f"{value:+.1f}".replace("-", "−") in area.caption
    assert (
        (area.table["true_px"] > 0) | (area.table[f"{KERAS}_px"] > 0) | (area.table[f"{TORCH}_px"] > 0)
    ).all()
    ours, theirs = ([masks_of(read(study, framework, seed)) for seed in range(2)] for framework in BOTH)
    lesion = ours[0][0].any(axis=(1, 2))
    between = [
        dice_score(a, b)
        for (_, one), (_, other) in zip(ours, theirs, strict=True)
        for a, b in zip(one[lesion], other[lesion], strict=True)
    ]
    assert f"overlap by a Dice of {np.nanmean(between):.3f}" in overlap.caption
    seeds = [
        dice_score(a, b)
        for runs in (ours, theirs) for a, b in zip(runs[0][1][lesion], runs[1][1][lesion], strict=True)
    ]  # fmt: skip
    assert f"two seeds of one framework by {np.nanmean(seeds):.3f}" in overlap.caption
    assert comparison.test is not None
    arm, reference = comparison.test.pairs[0]
    assert agreement_words(comparison.test, arm.of([0]), reference.of([0])).endswith("on a lesion slice.")


@pytest.mark.usefixtures("no_rasters")
def test_many_points_stay_small(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = compared(study)
    level, scores = comparison.levels[0], score_masks(comparison)
    assert len(level.unit) * 2 < MANY_POINTS
    with style():
        plain = dice_strip(comparison, level, scores, tmp_path).svg
        monkeypatch.setattr("common.report.mask_figures.MANY_POINTS", 10)
        dense = dice_strip(comparison, level, scores, tmp_path).svg
    assert "data:image/png" in dense
    assert "data:image/png" not in plain
    assert dense.count("<use") < plain.count("<use")


def test_running_median() -> None:
    assert len(running_median(np.arange(9.0))) == 0  # too few
    values = np.array([0.0] * 12 + [1.0] * 12)
    assert running_median(values).tolist() == [0.0] * 10 + [1.0] * 10


# --- slices -------------------------------------------------------------------------------------------------------


def test_slices_are_chosen_by_rule(study: Path, section: SegmentationSection) -> None:
    comparison = compared(study)
    slices = comparison.test
    assert slices is not None
    kinds = choose(slices, list(runs_drawn(slices).values()))
    dice = np.mean([arm.dice.mean(axis=0) for arm in slices.arms], axis=0)
    assert list(dice[kinds["worst"]]) == sorted(dice[slices.lesion])
    assert dice[kinds["best"][0]] == dice[slices.lesion].max()
    assert np.abs(dice[kinds["median"][0]] - np.median(dice[slices.lesion])) <= 0.05
    assert not slices.lesion[kinds["false_alarm"]].any()
    missed = kinds["worst"][dice[kinds["worst"]] == 0]
    assert list(slices.true_px[missed]) == sorted(slices.true_px[missed], reverse=True)
    gallery = section.gallery
    for _, examples in gallery.groups:
        patients = [one.patient for one in examples]
        assert len(set(patients)) == len(patients) <= 4
    assert gallery.sheet is not None
    table = gallery.sheet.table
    for row in table.to_dict("records"):
        found = read(study, row["framework"], 0)
        (at,) = np.flatnonzero(found.sample_id == row["id"])
        assert row["predicted_px"] == found.tp[at] + found.fp[at]
        truth, predicted = (masks[at] for masks in masks_of(found))
        expected = dice_score(truth, predicted) if truth.any() else np.nan
        assert row["dice_score"] == pytest.approx(expected, nan_ok=True)
    shown = [o.dice for _, examples in gallery.groups for e in examples for o in e.outlines if o.dice]
    assert shown == [f"{value:.2f}" for value in table["dice_score"] if np.isfinite(value)]


def test_outlines_lie_on_the_border_of_the_mask() -> None:
    mask = np.zeros((40, 40), dtype=bool)
    mask[10:20, 5:25] = True
    mask[13:16, 10:14] = False
    outlines = trace(mask)
    assert len(outlines) == 2  # the hole too
    outer = max(outlines, key=lambda points: np.ptp(points[:, 0]))
    np.testing.assert_allclose(outer.min(axis=0), (5, 10), atol=0.2)
    np.testing.assert_allclose(outer.max(axis=0), (25, 20), atol=0.2)
    (single,) = trace(np.eye(3, dtype=bool) & (np.arange(3) == 1))
    np.testing.assert_allclose(single.mean(axis=0), (1.5, 1.5), atol=0.2)
    assert re.fullmatch(r"M[-\d., ]+Z", path_data([single]))
    assert trace(np.zeros((8, 8), dtype=bool)) == []
    assert path_data([]) == ""


@pytest.mark.usefixtures("no_figures")
def test_the_gallery_says_why_it_is_empty(study: Path, tmp_path: Path) -> None:
    comparison = compared(study)
    assert "not at hand" in build_mask_gallery(comparison, None, tmp_path).reason
    assert "none of those chosen" in build_mask_gallery(comparison, lambda sample_id: None, tmp_path).reason


@pytest.mark.usefixtures("no_figures")
def test_one_framework_alone(tmp_path: Path) -> None:
    directory = make_mask_study(tmp_path / "study", frameworks=(KERAS,), seeds=1)
    comparison = compared(directory)
    scores = score_masks(comparison)
    assert not scores.differences
    section = segmentation_section(comparison, scores, slice_pixels, tmp_path / "figures")
    assert not section.pictures["agreement"]
    assert not section.pictures["differences"]
    assert "disagreed" not in {one.kind for _, examples in section.gallery.groups for one in examples}
    text = render(comparison, section)
    assert "Paired difference" not in text
    assert "Highest Dice" in text


# --- the cascade --------------------------------------------------------------------------------------------------


def gate_of(directory: Path, task: str, framework: str, seed: int) -> dict[str, bool]:
    model = "densenet121" if task == "subtype" else "cnn"
    folder = results.run_directory(directory, Run(task, model, framework, "aligned", seed, 0))
    found = results.read_predictions(folder / "predictions.npz").of("test")
    threshold = results.read_json(folder / "run.json")["threshold"]["value"]
    called = found.y_score >= threshold if found.y_score.ndim == 1 else found.y_score.argmax(axis=1) > 0
    return dict(zip(found.sample_id.tolist(), called.tolist(), strict=True))


@pytest.mark.parametrize(("task", "model"), [("subtype", "densenet121"), ("binary", "cnn")])
def test_the_gate_empties_the_masks_of_slices_it_stops(tmp_path: Path, task: str, model: str) -> None:
    directory = make_mask_study(tmp_path / "study", seeds=2, gates=[(task, model)])
    (one,) = read_cascades(read_study(directory))
    assert (one.gate_task, one.gate_model, one.notes) == (task, model, ())
    found = {(s.framework, s.level, s.metric): s.per_seed for s in one.scores.scores}
    for framework in BOTH:
        for seed in range(2):
            predictions, let = read(directory, framework, seed), gate_of(directory, task, framework, seed)
            passed = np.array([let[i] for i in predictions.sample_id])
            truth, predicted = masks_of(predictions)
            behind = predicted & passed[:, None, None]
            lesion = truth.any(axis=(1, 2))
            assert 0 < passed[lesion].mean() < 1
            before, after = (
                np.array([dice_score(t, p) for t, p in zip(truth[lesion], masks[lesion], strict=True)])
                for masks in (predicted, behind)
            )
            sick = np.unique(predictions.patient[lesion])
            of_patients = []
            for patient in sick:
                rows = predictions.patient == patient
                of_patients.append(
                    2 * (truth & behind)[rows].sum() / (truth[rows].sum() + behind[rows].sum())
                )
            expected = {
                ("lesion", "dice_score"): before.mean(),
                ("lesion", "gated_dice_score"): after.mean(),
                ("lesion", "gate_dice_loss"): (before - after).mean(),
                ("lesion", "gate_sensitivity_score"): passed[lesion].mean(),
                ("clean", "clean_slice_score"): (~predicted[~lesion].any(axis=(1, 2))).mean(),
                ("clean", "gated_clean_slice_score"): (~behind[~lesion].any(axis=(1, 2))).mean(),
                ("clean", "gate_specificity_score"): (~passed[~lesion]).mean(),
                ("patient", "gated_dice_score"): np.mean(of_patients),
            }
            for (level, metric), value in expected.items():
                assert found[framework, level, metric][seed] == pytest.approx(value), metric
    loss = next(s for s in one.scores.scores if s.metric == "gate_dice_loss" and s.level == "lesion")
    assert 0 < loss.ci_low < loss.mean < loss.ci_high


def test_a_gate_of_three_classes_comes_before_one_of_two(tmp_path: Path) -> None:
    gates = [("binary", "cnn"), ("subtype", "densenet121"), ("subtype", "convnext_tiny")]
    directory = make_mask_study(tmp_path / "study", frameworks=(TORCH,), seeds=1, gates=gates)
    record = read_study(directory)
    assert [one.gate_model for one in read_cascades(record)] == ["densenet121", "convnext_tiny"]
    table = table_of(read_cascades(record))
    assert set(table["gate_task"]) == {"subtype"}
    assert len(table) == 2 * len(table[table["gate_model"] == "densenet121"])


def test_only_slices_that_both_stages_answered_count(tmp_path: Path) -> None:
    directory = make_mask_study(tmp_path / "study", frameworks=(TORCH,), seeds=1)
    run = Run("subtype", "densenet121", TORCH, "aligned", 0, 0)
    path = results.run_directory(directory, run) / "predictions.npz"
    gate = results.read_predictions(path)
    dropped = {str(gate.sample_id[(gate.split == "test") & (gate.y_true > 0)][0])}
    keep = ~np.isin(gate.sample_id, list(dropped))
    results.write_predictions(
        path, results.Predictions(*(getattr(gate, f.name)[keep] for f in dataclasses.fields(gate)))
    )
    (one,) = read_cascades(read_study(directory))
    whole = {unit for level in compared(directory).levels[:2] for unit in level.unit.tolist()}
    assert {unit for level in one.levels[:2] for unit in level.unit.tolist()} == whole - dropped


def test_frameworks_are_gated_by_their_own_classifier(tmp_path: Path) -> None:
    missing = {("densenet121", KERAS, 0, 0), ("densenet121", KERAS, 1, 0), ("unet", TORCH, 1, 0)}
    directory = make_mask_study(tmp_path / "study", seeds=2, missing=missing)
    (one,) = read_cascades(read_study(directory))
    assert [(arm.framework, arm.seeds) for arm in one.levels[0].arms] == [(TORCH, (0,))]


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gates": ()}, "There is nothing to gate the masks with"),
        ({"missing": {("unet", TORCH, 0, 0)}}, "no complete segmentation run"),
    ],
)
def test_a_missing_stage_is_a_sentence(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    directory = make_mask_study(tmp_path / "study", frameworks=(TORCH,), seeds=1, **options)
    section = cascade_section(read_study(directory), tmp_path / "figures")
    assert said in section.reason
    assert section.table.empty
    assert said in render_cascade(section)


@pytest.mark.usefixtures("no_figures")
def test_what_the_cascade_says(study: Path, tmp_path: Path) -> None:
    section = cascade_section(read_study(study), tmp_path)
    (one,) = section.views
    table = section.table.set_index(["framework", "level", "metric"])["mean"]
    for framework, words in zip(BOTH, one.sentences[:2], strict=True):
        assert words.startswith(f"{framework}: the gate lets")
        for metric in ("dice_score", "gated_dice_score", "gate_dice_loss"):
            assert f"{table[framework, 'lesion', metric]:.3f}" in words
        assert f"{100 * (1 - table[framework, 'clean', 'clean_slice_score']):.0f}\u00a0%" in words
    gap = table[f"{KERAS}-vs-{TORCH}", "lesion", "gated_dice_score"]
    assert f"{KERAS} − {TORCH}: {gap:+.3f}".replace("-0", "−0") in one.sentences[2]
    assert f"torch {table[TORCH, 'lesion', 'gate_dice_loss']:.3f}" in one.overview["finding"]
    assert table[f"{KERAS}-vs-{TORCH}", "lesion", "gated_dice_score"] == pytest.approx(
        table[KERAS, "lesion", "gated_dice_score"] - table[TORCH, "lesion", "gated_dice_score"]
    )
    for document in (render_cascade(section), render_cascade(section, "md")):
        assert "DenseNet-121" in document
        assert "Dice lost to the gate" in document


# --- the page -----------------------------------------------------------------------------------------------------


def environment(suffix: str) -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=suffix == "html", trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    made.filters["cell"] = str
    return made


def render(comparison: MaskComparison, section: SegmentationSection, suffix: str = "html") -> str:
    return environment(suffix).get_template(f"segmentation.{suffix}.j2").render(
        one={"comparison": comparison, "title": "Lesion masks: U-Net", "strips": []}, masks=section, colours=COLOURS,
        confidence="95\u00a0%", svg=Markup,
    )  # fmt: skip


def render_cascade(section: CascadeSection, suffix: str = "html") -> str:
    return environment(suffix).get_template(f"cascade.{suffix}.j2").render(
        cascade=section, colours=COLOURS, confidence="95\u00a0%", svg=Markup
    )  # fmt: skip


@pytest.fixture(scope="module")
def section(study: Path, tmp_path_factory: pytest.TempPathFactory) -> SegmentationSection:
    comparison = compared(study)
    figures = tmp_path_factory.mktemp("figures")
    with pytest.MonkeyPatch.context() as patch:
        leave_rasters(patch)
        return segmentation_section(comparison, score_masks(comparison), slice_pixels, figures)


def test_page_and_markdown_give_the_tables_and_the_rules(study: Path, section: SegmentationSection) -> None:
    comparison = compared(study)
    (score, _), (gap,) = (
        found("lesion", "dice_score")
        for scores in [score_masks(comparison)]
        for found in (scores.of, scores.differences_of)
    )
    for suffix in ("html", "md"):
        text = render(comparison, section, suffix)
        for words in (f"{score.mean:.3f}", f"{gap.difference:+.3f}".replace("-", "−"), "HD95 (mm)", "67.9 px",
                      "never a Dice of 1", "External set: slices without a lesion", "up to 100 px"):  # fmt: skip
            assert words in text, (suffix, words)
    page = render(comparison, section)
    outlines = sum(
        bool(o.path) for _, examples in section.gallery.groups for e in examples for o in e.outlines
    )
    truths = sum(bool(e.truth) for _, examples in section.gallery.groups for e in examples)
    legend = len(section.gallery.legend) + 1
    assert page.count("<path d=") + page.count('<path class="truth"') >= outlines + truths + legend
    assert "stroke-dasharray" in page


def test_names_from_files_are_escaped(study: Path, section: SegmentationSection) -> None:
    evil = '"><script>alert(1)</script>'
    (heading, (first, *rest)), *others = section.gallery.groups
    worse = dataclasses.replace(first, sample_id=evil, alt=evil)
    gallery = dataclasses.replace(section.gallery, groups=((heading, (worse, *rest)), *others))
    text = render(compared(study), dataclasses.replace(section, gallery=gallery))
    assert "<script" not in text
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_outlines_lie_on_the_slice_in_a_browser(
    study: Path, section: SegmentationSection, browser: Any, width: int, scheme: str
) -> None:
    """The overlay covers its picture exactly, the page does not scroll sideways, and axe finds nothing."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    css = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "masks.css"))
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.set_content(
        f'<!doctype html><html lang="en"><head><title>Masks</title><meta name="viewport" content="width=device-width">'
        f"<style>{css}</style></head><body><main><h1>Report</h1><h2>Masks</h2><h3>U-Net</h3>"
        f"{render(compared(study), section)}</main></body></html>"
    )
    assert page.evaluate("document.documentElement.scrollWidth") == width
    boxes = page.evaluate(
        "[...document.querySelectorAll('.overlay')].map(o => [...o.children].map(c => {"
        "const b = c.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]}))"
    )
    assert boxes
    for picture, outlines in boxes:
        np.testing.assert_allclose(picture, outlines, atol=0.5)
        assert picture[2] == pytest.approx(picture[3], abs=0.5)
    found = axe.Axe().run(page)
    page.close()
    assert found.violations_count == 0, found.generate_report()
