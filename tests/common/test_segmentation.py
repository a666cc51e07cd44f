"""Mask metrics against hand-worked values, brute force, scikit-learn, SciPy and DeepMind's surface-distance."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from scipy.spatial.distance import cdist

from common import config
from common.errors import StudyError
from common.metrics import segmentation as ours
from common.metrics.distances import border_distances
from common.results import MaskPredictions, pack_masks
from common.statistics import cluster_bootstrap, mean_over_runs, paired_cluster_bootstrap

SLICE_METRICS = (
    ours.dice_score,
    ours.iou_score,
    ours.pixel_accuracy_score,
    ours.sensitivity_score,
    ours.precision_score,
    ours.hd95,
    ours.surface_dice_score,
    ours.lesion_f1_score,
    ours.volume_error,
)
EMPTY = np.zeros((5, 6), dtype=bool)


def drawn(*rows: str) -> np.ndarray:
    """A mask from text, `#` inside."""
    return np.array([[character == "#" for character in row] for row in rows])


def square(top: int, left: int, side: int, size: int = 32) -> np.ndarray:
    mask = np.zeros((size, size), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def ellipse(column: int, row: int, wide: int, high: int) -> np.ndarray:
    canvas = np.zeros((64, 64), dtype=np.uint8)
    return cv2.ellipse(canvas, (column, row), (wide, high), 0, 0, 360, 1, cv2.FILLED).astype(bool)


def blobs(count: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth random lesions and imperfect predictions of them, some empty, bool (count, size, size)."""
    rng = np.random.default_rng(seed)
    truth, change = (
        np.stack(
            [cv2.GaussianBlur(field, (0, 0), size / 16) for field in rng.standard_normal((count, size, size))]
        )
        for _ in range(2)
    )
    cut = rng.uniform(1.0, 3.5, (count, 1, 1)) * truth.std()
    return truth > cut, truth + 0.4 * change > cut


MASK = arrays(bool, (7, 6), elements=st.booleans(), fill=st.just(False))
FULL_MASK = arrays(bool, (7, 6), elements=st.booleans())


# --- worked by hand -----------------------------------------------------------------------------------------------

TRUE = drawn(
    "......",
    ".###..",
    ".###..",
    "......",
    ".....#",
)
PRED = drawn(
    "......",
    "..###.",
    "..###.",
    "......",
    "#.....",
)


def test_a_slice_by_hand() -> None:
    """4 of 7 lesion pixels found, 3 in vain; the other 20 left alone."""
    assert [int(count[0]) for count in ours.count_pixels(TRUE[None], PRED[None])] == [4, 3, 3, 20]
    assert ours.dice_score(TRUE, PRED) == 8 / 14
    assert ours.iou_score(TRUE, PRED) == 4 / 10
    assert ours.sensitivity_score(TRUE, PRED) == ours.precision_score(TRUE, PRED) == 4 / 7
    assert ours.pixel_accuracy_score(TRUE, PRED) == 24 / 30
    assert ours.volume_error(TRUE, PRED) == 0.0  # equal areas in different places
    assert ours.lesion_counts(TRUE, PRED) == (1, 1, 1)  # IoU 0.5; the single pixels lie apart
    assert ours.lesion_f1_score(TRUE, PRED) == 2 / 4
    # Every pixel is border. Both ways: 0 four times, 1 twice, and the root of 5 once, e.g. from (4, 5) to (2, 4). Rank
    # 0.95 * 6 lies 0.7 of the way from 1 to that root.
    assert ours.hd95(TRUE, PRED) == pytest.approx(1 + 0.7 * (5**0.5 - 1), rel=1e-12)
    assert ours.hd95(TRUE, PRED, pixel_mm=0.5) == pytest.approx(0.5 * ours.hd95(TRUE, PRED), rel=1e-12)
    assert ours.surface_dice_score(TRUE, PRED, tolerance_px=2.0) == 12 / 14
    assert ours.surface_dice_score(TRUE, PRED, tolerance_px=0.0) == 8 / 14


def test_volume_error_is_a_share_of_the_true_area() -> None:
    assert ours.volume_error(square(2, 2, 4), square(2, 2, 6)) == (36 - 16) / 16
    assert ours.volume_error(square(2, 2, 6), square(2, 2, 4)) == (36 - 16) / 36


def test_hd95_takes_the_worse_direction() -> None:
    """A far false lesion of a tenth of the border; the truth itself is covered, so pooling would dilute it."""
    truth = square(2, 2, 6)  # 20 border pixels
    pred = truth | square(2, 27, 2)  # and 4 more, 20 px and 21 px to the right of column 7
    # Of the prediction's 24, rank 0.95 * 23 lies 0.85 of the way from a 20 to a 21.
    assert ours.hd95(truth, pred) == ours.hd95(pred, truth) == pytest.approx(20.85, rel=1e-12)
    assert np.percentile([0] * 40 + [20, 20, 21, 21], 95) == 20  # both directions together say less


def test_a_border_pixel_has_a_neighbour_outside_and_the_image_edge_is_outside() -> None:
    filled = np.ones((5, 6), dtype=bool)
    # The border of the full image is its rim; against its own centre pixel, the corner is farthest.
    centre = np.zeros_like(filled)
    centre[2, 2] = True
    rim = [(r, c) for r in range(5) for c in range(6) if r in (0, 4) or c in (0, 5)]
    to_centre = [np.hypot(r - 2, c - 2) for r, c in rim]
    assert ours.hd95(filled, centre) == pytest.approx(np.percentile(to_centre, 95), rel=1e-12)
    for shape in ((1, 1), (1, 4), (2, 2)):  # no pixel of so thin a mask is inside
        assert ours.hd95(np.ones(shape, bool), np.ones(shape, bool)) == 0.0


# --- empty masks --------------------------------------------------------------------------------------------------


def test_two_empty_masks_have_no_score() -> None:
    scores = {metric.__name__: metric(EMPTY, EMPTY) for metric in SLICE_METRICS}
    assert scores.pop("pixel_accuracy_score") == 1.0
    assert all(np.isnan(score) for score in scores.values()), scores


def test_a_prediction_without_a_lesion_scores_nothing() -> None:
    scores = {metric.__name__: metric(EMPTY, PRED) for metric in SLICE_METRICS}
    for name in ("dice_score", "iou_score", "precision_score", "surface_dice_score", "lesion_f1_score"):
        assert scores[name] == 0.0
    for name in ("sensitivity_score", "hd95", "volume_error"):
        assert np.isnan(scores[name])


def test_a_missed_lesion_scores_nothing() -> None:
    scores = {metric.__name__: metric(TRUE, EMPTY) for metric in SLICE_METRICS}
    for name in ("dice_score", "iou_score", "sensitivity_score", "surface_dice_score", "lesion_f1_score"):
        assert scores[name] == 0.0
    assert scores["volume_error"] == 1.0
    assert np.isnan(scores["hd95"])
    assert np.isnan(scores["precision_score"])


# --- oracles ------------------------------------------------------------------------------------------------------


@given(FULL_MASK, FULL_MASK)
def test_overlap_equals_scikit_learn(truth: np.ndarray, pred: np.ndarray) -> None:
    if not (truth.any() and pred.any()):
        return
    y, p = truth.ravel(), pred.ravel()
    np.testing.assert_allclose(
        [
            ours.dice_score(truth, pred),
            ours.iou_score(truth, pred),
            ours.sensitivity_score(truth, pred),
            ours.precision_score(truth, pred),
            ours.pixel_accuracy_score(truth, pred),
        ],
        [
            reference.f1_score(y, p),
            reference.jaccard_score(y, p),
            reference.recall_score(y, p),
            reference.precision_score(y, p),
            reference.accuracy_score(y, p),
        ],
        rtol=1e-12,
    )


def brute_force_distances(truth: np.ndarray, pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Border distances both ways: SciPy's erosion, then every pair."""
    cross = ndimage.generate_binary_structure(2, 1)
    borders = [np.argwhere(mask & ~ndimage.binary_erosion(mask, cross)) for mask in (truth, pred)]
    distance = cdist(*borders)
    return distance.min(1), distance.min(0)


@given(FULL_MASK, FULL_MASK, st.sampled_from([0.0, 1.0, 2.0]))
def test_border_distances_equal_brute_force(truth: np.ndarray, pred: np.ndarray, tolerance: float) -> None:
    if not (truth.any() and pred.any()):
        return
    forth, back = brute_force_distances(truth, pred)
    expected = max(np.percentile(forth, 95), np.percentile(back, 95))
    assert ours.hd95(truth, pred) == pytest.approx(expected, rel=1e-12)
    near = (forth <= tolerance).sum() + (back <= tolerance).sum()
    assert ours.surface_dice_score(truth, pred, tolerance) == pytest.approx(
        near / (len(forth) + len(back)), rel=1e-12
    )


def brute_force_lesions(truth: np.ndarray, pred: np.ndarray, overlap: float) -> tuple[int, int, int]:
    """Lesions by SciPy's labels; of all one-to-one pairings, the one with most pairs that overlap enough."""
    eight = np.ones((3, 3))
    sides = [ndimage.label(mask, eight) for mask in (truth, pred)]
    true, found = ([labels == i + 1 for i in range(count)] for labels, count in sides)
    fits = [[(t & p).sum() / (t | p).sum() >= overlap for p in found] for t in true]
    short, long = (true, found) if len(true) <= len(found) else (found, true)
    best = 0
    for choice in itertools.permutations(range(len(long)), len(short)):
        pairs = enumerate(choice) if short is true else ((j, i) for i, j in enumerate(choice))
        best = max(best, sum(bool(fits[i][j]) for i, j in pairs))
    return best, len(found) - best, len(true) - best


@given(MASK, MASK, st.sampled_from([0.1, 0.25, 0.5]))
def test_lesions_equal_brute_force(truth: np.ndarray, pred: np.ndarray, overlap: float) -> None:
    assert ours.lesion_counts(truth, pred, overlap) == brute_force_lesions(truth, pred, overlap)


def test_lesions_are_paired_one_to_one() -> None:
    two = square(4, 4, 4) | square(4, 12, 4)
    cover = np.zeros_like(two)
    cover[4:8, 4:16] = True
    assert ours.lesion_counts(two, cover) == (
        1,
        0,
        1,
    )  # IoU 1/3 with each, but one prediction finds one lesion
    assert ours.lesion_counts(cover, two) == (1, 1, 0)
    diagonal = square(4, 4, 2) | square(6, 6, 2)
    assert ours.lesion_counts(diagonal, diagonal) == (1, 0, 0)  # corners touch: one lesion
    # The left prediction fits both lesions (IoU 3/8 and 1/8), the right one the upper (1/6): a choice by the largest
    # IoU would pair the left with the upper and nothing else.
    truth = drawn("######", "......", "####..")
    pred = drawn("###.#.", "#.....", "#.....")
    assert ours.lesion_counts(truth, pred, overlap=0.1) == (2, 0, 0)


def test_a_lesion_is_found_from_the_overlap_on() -> None:
    truth, pred = square(0, 0, 10), square(0, 0, 1)  # IoU 1 / 100
    assert ours.lesion_counts(truth, pred, overlap=0.01) == (1, 0, 0)
    assert ours.lesion_counts(truth, pred, overlap=0.011) == (0, 1, 1)
    assert ours.lesion_counts(truth, square(0, 0, 4)) == (1, 0, 0)  # 0.16, and config.LESION_OVERLAP is 0.1
    assert ours.lesion_counts(truth, square(0, 0, 3)) == (0, 1, 1)  # 0.09


# The library still uses SciPy's old module names.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_border_distances_agree_with_surface_distance() -> None:
    """DeepMind measures between the pixels' corners where ours takes centres of border pixels.

    Every such corner is half a diagonal from a border pixel and the other way round, hence Hausdorff distances differ
    by at most the root of 2. Percentiles and shares have no such bound, but differ little on one smooth lesion.
    """
    library = pytest.importorskip("surface_distance")
    for truth, pred in zip(*blobs(40, 64, seed=3), strict=True):
        distances = border_distances(truth, pred)
        if distances is None:
            continue
        theirs = library.compute_surface_distances(truth, pred, (1.0, 1.0))
        farthest = max(directed.max() for directed in distances)
        assert abs(library.compute_robust_hausdorff(theirs, 100) - farthest) <= 2**0.5
        assert ours.dice_score(truth, pred) == pytest.approx(
            library.compute_dice_coefficient(truth, pred), rel=1e-12
        )
    for shift, stretch in itertools.product(range(7), (-4, 0, 5)):
        truth, pred = ellipse(30, 30, 14, 10), ellipse(30 + shift, 30, 14 + stretch, 10)
        theirs = library.compute_surface_distances(truth, pred, (0.5, 0.5))
        assert abs(library.compute_robust_hausdorff(theirs, 95) - ours.hd95(truth, pred, pixel_mm=0.5)) <= 0.5
        near = library.compute_surface_dice_at_tolerance(theirs, 1.0)
        assert abs(near - ours.surface_dice_score(truth, pred, tolerance_px=2.0)) < 0.1


# --- many slices --------------------------------------------------------------------------------------------------


def test_a_case_table_has_the_values_of_its_slices() -> None:
    truth, pred = blobs(30, 48, seed=1)
    truth[0] = pred[0] = False
    truth[1], pred[2] = False, False
    cases = ours.case_table(truth, pred)
    for i, (t, p) in enumerate(zip(truth, pred, strict=True)):
        np.testing.assert_equal(cases.hd95_px[i], ours.hd95(t, p))
        np.testing.assert_equal(cases.surface_dice[i], ours.surface_dice_score(t, p))
        assert (cases.lesion_tp[i], cases.lesion_fp[i], cases.lesion_fn[i]) == ours.lesion_counts(t, p)
        outcomes = [(t & p).sum(), (~t & p).sum(), (t & ~p).sum(), (~t & ~p).sum()]
        assert [cases.tp[i], cases.fp[i], cases.fn[i], cases.tn[i]] == outcomes
    kept = set(MaskPredictions.__dataclass_fields__)
    assert set(cases._fields) < kept
    assert all(array.shape == (30,) for array in cases)
    assert all(cases._asdict()[name].dtype == np.int64 for name in ("tp", "fp", "fn", "tn", "lesion_tp"))


def test_case_scores_count_missed_lesions_and_keep_clean_slices_apart() -> None:
    """Slices: found; missed; clean and left alone; clean with a false lesion."""
    truth = np.stack([TRUE, TRUE, EMPTY, EMPTY])
    pred = np.stack([PRED, EMPTY, EMPTY, PRED])
    scores = ours.case_scores(ours.case_table(truth, pred), side_px=5)
    nan, diagonal = np.nan, 50**0.5
    expected = {
        "dice_score": [8 / 14, 0, nan, nan],
        "iou_score": [4 / 10, 0, nan, nan],
        "sensitivity_score": [4 / 7, 0, nan, nan],
        "precision_score": [4 / 7, nan, nan, nan],
        "surface_dice_score": [ours.surface_dice_score(TRUE, PRED), 0, nan, nan],
        "hd95_px": [ours.hd95(TRUE, PRED), diagonal, nan, nan],
        "lesion_f1_score": [0.5, 0, nan, nan],
        "volume_error": [0, 1, nan, nan],
        "pixel_accuracy_score": [24 / 30, 23 / 30, nan, nan],
        "clean_slice_score": [nan, nan, 1, 0],
    }
    assert list(scores) == list(expected) == list(ours.TITLE) == list(ours.DIRECTION)
    for name, values in expected.items():
        np.testing.assert_allclose(scores[name], values, rtol=1e-12, err_msg=name)
    assert {name for name, way in ours.DIRECTION.items() if way == "down"} == {"hd95_px", "volume_error"}


def test_case_scores_read_saved_predictions() -> None:
    truth, pred = blobs(6, 32, seed=5)
    cases = ours.case_table(truth, pred)
    names = np.array([str(i) for i in range(6)])
    saved = MaskPredictions(
        sample_id=names,
        patient=names,
        split=np.repeat("test", 6),
        **cases._asdict(),
        y_score=np.ones(6),
        pixel_mm=np.full(6, np.nan),
        y_true=pack_masks(truth),
        y_pred=pack_masks(pred),
        size=np.full(6, 32),
    )
    from_table, from_file = ours.case_scores(cases, 32), ours.case_scores(saved, 32)
    for name in ours.TITLE:
        np.testing.assert_array_equal(from_table[name], from_file[name])


def test_a_patient_is_judged_by_the_sum_of_its_slices() -> None:
    truth, pred = blobs(5, 32, seed=8)
    names, sums = ours.sum_by_patient(["b", "a", "b", "c", "a"], ours.count_pixels(truth, pred))
    assert list(names) == ["a", "b", "c"]
    scores = ours.scores_from_counts(sums)
    for row, slices in enumerate(([1, 4], [0, 2], [3])):
        whole = [np.concatenate(stack[slices]) for stack in (truth, pred)]  # the slices as one tall picture
        for metric in (ours.dice_score, ours.iou_score, ours.volume_error, ours.pixel_accuracy_score):
            np.testing.assert_equal(scores[metric.__name__][row], metric(*whole))


# --- means and bootstraps -----------------------------------------------------------------------------------------


def test_a_weighted_mean_leaves_out_what_is_undefined() -> None:
    values = np.array([0.2, np.nan, 0.8, 0.5])
    assert ours.weighted_mean(np.zeros(4), values) == pytest.approx(0.5)
    assert ours.weighted_mean(np.zeros(4), values, sample_weight=[2, 5, 1, 0]) == pytest.approx(0.4)
    weights = np.array([[2, 5, 1, 0], [0, 3, 0, 0], [1, 1, 1, 1]])
    np.testing.assert_allclose(ours.weighted_mean(np.zeros(4), values, weights), [0.4, np.nan, 0.5])
    assert np.isnan(ours.weighted_mean(np.zeros(0), []))
    with pytest.raises(ValueError, match=r"values \(shape \(4,\)\) must be \(N,\)"):
        ours.weighted_mean(np.zeros(4), values, sample_weight=[1, 2])


def test_a_weighted_mean_is_a_metric_of_the_cluster_bootstrap() -> None:
    """The estimate is the plain mean; patients, not slices, carry the interval; equal arms do not differ."""
    rng = np.random.default_rng(0)
    patient = np.repeat([f"p{i}" for i in range(30)], 10)
    level = np.repeat(rng.uniform(0.3, 0.9, 30), 10)
    runs = np.clip(level[:, None] + rng.normal(0, 0.02, (300, 2)), 0, 1)
    runs[::7] = np.nan
    metric = mean_over_runs([ours.weighted_mean] * 2)
    clustered = cluster_bootstrap(metric, np.zeros(300), runs, patient, replicates=400)
    by_slice = cluster_bootstrap(metric, np.zeros(300), runs, np.arange(300), replicates=400)
    assert clustered.estimate == pytest.approx(np.nanmean(runs), rel=1e-12)
    assert clustered.ci_low < clustered.estimate < clustered.ci_high
    width = clustered.ci_high - clustered.ci_low
    assert width > 2 * (by_slice.ci_high - by_slice.ci_low)
    pair = paired_cluster_bootstrap(metric, np.zeros(300), runs, runs - 0.1, patient, replicates=200)
    np.testing.assert_allclose([pair.estimate, pair.ci_low, pair.ci_high], 0.1, rtol=1e-9)


# --- the threshold ------------------------------------------------------------------------------------------------


def test_counts_at_thresholds_are_those_of_the_masks() -> None:
    rng = np.random.default_rng(2)
    truth, _ = blobs(6, 32, seed=2)
    probabilities = rng.integers(0, 11, truth.shape) / 10  # many pixels lie exactly on a threshold
    tp, fp, fn = ours.count_at_thresholds(probabilities, truth)
    assert tp.shape == (len(config.MASK_THRESHOLDS), 6)
    for k, threshold in enumerate(config.MASK_THRESHOLDS):
        counts = ours.count_pixels(truth, probabilities >= threshold)
        for mine, expected in zip((tp[k], fp[k], fn[k]), counts, strict=False):
            np.testing.assert_array_equal(mine, expected)
    calls = probabilities >= config.MASK_THRESHOLDS[4]
    whole = ours.dice_score(np.concatenate(truth), np.concatenate(calls))
    assert ours.pooled_dice(tp, fp, fn)[4] == pytest.approx(whole, rel=1e-12)


def test_the_threshold_with_the_largest_pooled_dice_wins() -> None:
    """One large slice outweighs two small ones, whose own best is another threshold."""
    thresholds = (0.2, 0.5, 0.8)
    tp = np.array([[90, 1, 1], [80, 2, 2], [50, 2, 2]])
    fp = np.array([[10, 9, 9], [10, 0, 0], [10, 0, 0]])
    fn = np.array([[10, 1, 1], [20, 0, 0], [50, 0, 0]])
    pooled = [2 * t.sum() / (2 * t + p + n).sum() for t, p, n in zip(tp, fp, fn, strict=True)]
    assert np.argmax(pooled) == 1
    assert ours.best_threshold(tp, fp, fn, thresholds) == 0.5
    large = np.s_[:, :1]
    assert ours.best_threshold(tp[large], fp[large], fn[large], thresholds) == 0.2


@pytest.mark.parametrize(
    ("equal", "chosen"),
    [((0.1, 0.3, 0.7), 0.3), ((0.6, 0.4), 0.4), ((0.2, 0.5, 0.6), 0.5), ((0.9, 0.7), 0.7)],
)
def test_of_equal_thresholds_the_one_nearest_a_half_wins(equal: tuple[float, ...], chosen: float) -> None:
    thresholds = config.MASK_THRESHOLDS
    tp = np.array([[6 if threshold in equal else 5] for threshold in thresholds])
    fp, fn = np.full_like(tp, 2), 10 - tp
    assert ours.best_threshold(tp, fp, fn) == chosen


def test_a_threshold_needs_a_lesion() -> None:
    tp, fp, fn = ours.count_at_thresholds(np.full((3, 4, 4), 0.6), np.zeros((3, 4, 4), dtype=bool))
    with pytest.raises(StudyError, match="no slice of the validation part shows a lesion"):
        ours.best_threshold(tp, fp, fn)


# --- bad arguments ------------------------------------------------------------------------------------------------


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"y_pred \(shape \(5, 6\), uint8\) must be bool \(H, W\)"):
        ours.hd95(TRUE, PRED.astype(np.uint8))
    with pytest.raises(ValueError, match=r"y_true \(shape \(5, 6\), bool\) must be bool \(N, H, W\)"):
        ours.case_table(TRUE, PRED)
    with pytest.raises(ValueError, match=r"y_pred \(shape \(4, 6\)\) must have the shape of y_true"):
        ours.dice_score(TRUE, PRED[:4])
    with pytest.raises(ValueError, match=r"overlap \(=0\) must lie above 0"):
        ours.lesion_counts(TRUE, PRED, overlap=0)
    with pytest.raises(ValueError, match="y_true bool"):
        ours.count_at_thresholds(np.zeros((2, 4, 4)), np.zeros((2, 4, 4), dtype=np.uint8))
    with pytest.raises(ValueError, match="a row for each of 9 thresholds"):
        ours.best_threshold(*np.ones((3, 2, 4), dtype=np.int64))
