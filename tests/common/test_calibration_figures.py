"""Calibration and decision curves: numbers against scikit-learn and brute force, pictures against the numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve as sklearn_curve
from sklearn.metrics import confusion_matrix
from study_fixture import make_study

from common import config
from common.metrics.calibration import calibration_curve
from common.metrics.decision import net_benefit
from common.random_numbers import generator
from common.report.calibration_figures import bins_of, calibration_figures, judged
from common.report.confusion_figures import confusion_figures
from common.report.decision_figures import decision_figures, thresholds
from common.report.evidence import Comparison, compare
from common.report.plotting import Picture, style
from common.results import read_study

TORCH, KERAS = "torch", "keras-tensorflow"


def case(count: int = 240) -> tuple[np.ndarray, np.ndarray]:
    draws = generator("calibration")
    score = draws.random(count)
    return (draws.random(count) < score**1.5).astype(int), score


# --- the numbers --------------------------------------------------------------------------------------------------


def test_bins_of_equal_count_are_those_of_scikit_learn() -> None:
    truth, score = case()
    observed, predicted = sklearn_curve(truth, score, n_bins=8, strategy="quantile")
    ours = calibration_curve(truth, score, bins=8)
    np.testing.assert_allclose(ours.observed, observed)
    np.testing.assert_allclose(ours.predicted, predicted)
    np.testing.assert_array_equal(ours.weight, 30)


def test_a_replicate_judges_the_bins_of_the_whole() -> None:
    truth, score = case(40)
    weights = generator("weights").integers(0, 3, size=(5, 40))
    found = calibration_curve(truth, score, 4, weights)
    edges = np.quantile(score, [0.25, 0.5, 0.75])
    for row, weight in enumerate(weights):
        drawn = np.repeat(np.arange(40), weight)
        bins = np.searchsorted(edges, score[drawn])
        for number in range(4):
            assert found.observed[row, number] == pytest.approx(truth[drawn][bins == number].mean())
            assert found.predicted[row, number] == pytest.approx(score[drawn][bins == number].mean())


def test_equal_scores_share_a_bin_and_an_empty_one_is_undefined() -> None:
    curve = calibration_curve([0, 1, 1, 1], [0.5, 0.5, 0.5, 0.9], bins=4)
    assert curve.weight.sum() == 4
    assert np.isnan(curve.observed[curve.weight == 0]).all()
    assert curve.observed[0] == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match=r"must hold probabilities"):
        calibration_curve([0, 1], [0.5, 1.5])
    with pytest.raises(ValueError, match=r"bins \(=0\)"):
        calibration_curve([0, 1], [0.5, 0.6], 0)


def test_net_benefit_is_hits_less_false_alarms() -> None:
    truth, score = case(60)
    weights = generator("weights").integers(0, 3, size=(3, 60))
    found = net_benefit(truth, score, [0.1, 0.5, 0.8], weights)
    for row, weight in enumerate(weights):
        for column, at in enumerate((0.1, 0.5, 0.8)):
            hits = weight[(score >= at) & (truth == 1)].sum()
            alarms = weight[(score >= at) & (truth == 0)].sum()
            assert found[row, column] == pytest.approx((hits - alarms * at / (1 - at)) / weight.sum())
    # four false alarms for a hit at 0.2 (Vickers & Elkin 2006): one hit and four alarms are worth nothing
    assert net_benefit([1, 0, 0, 0, 0], np.ones(5), [0.2]) == pytest.approx(0)
    assert net_benefit([1, 0], [0.3, 0.3], [0.3])[0] > 0  # called at the threshold itself
    with pytest.raises(ValueError, match=r"thresholds .* must lie from 0"):
        net_benefit([0, 1], [0.5, 0.6], [1.0])


# --- the pictures -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def comparisons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Comparison]:
    pairs = (("binary", "cnn"), ("subtype", "densenet121"))
    record = read_study(make_study(tmp_path_factory.mktemp("study"), seeds=2, pairs=pairs))
    return {task: compare("aligned", task, model, record.complete) for task, model in pairs}


@pytest.fixture(autouse=True)
def no_rasters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the PNG files, which take longest."""
    monkeypatch.setattr("common.report.plotting.write_atomically", lambda path, write: None)


def rows(picture: Picture, framework: str, curve: str) -> pd.DataFrame:
    table = picture.table
    return table[(table["framework"] == framework) & (table["curve"] == curve)]


@pytest.mark.parametrize("task", ["binary", "subtype"])
def test_a_calibration_figure_draws_what_the_runs_say(
    comparisons: dict[str, Comparison], task: str, tmp_path: Path
) -> None:
    level = comparisons[task].levels[0]
    (picture,) = calibration_figures(comparisons[task], tmp_path)
    arm, bins = level.arms[1], bins_of(level)
    runs = []
    for y_score, label in zip(arm.y_score, arm.labels, strict=True):
        several = y_score.ndim > 1
        truth = y_score.argmax(1) == level.y_true if several else level.y_true
        score = y_score.max(1) if several else y_score
        observed, predicted = sklearn_curve(truth, score, n_bins=bins, strategy="quantile")
        drawn = rows(picture, KERAS, label)
        np.testing.assert_allclose(drawn["observed"], observed)
        np.testing.assert_allclose(drawn["predicted"], predicted)
        runs.append(observed)
    mean = rows(picture, KERAS, "mean")
    np.testing.assert_allclose(mean["observed"], np.mean(runs, axis=0))
    assert (mean["ci_low"] <= mean["observed"]).all()
    assert (mean["observed"] <= mean["ci_high"]).all()
    assert (mean["ci_high"] - mean["ci_low"]).mean() > 0.05
    assert f"{bins} bins" in picture.caption
    assert 2 <= bins <= config.CALIBRATION_BINS


def test_several_classes_are_judged_by_their_decision(comparisons: dict[str, Comparison]) -> None:
    level = comparisons["subtype"].levels[0]
    right, score = judged(level, level.arms[0])
    np.testing.assert_array_equal(right, level.arms[0].y_pred == level.y_true)
    assert score.min() >= 1 / 3


@pytest.mark.parametrize("task", ["binary", "subtype"])
def test_a_decision_figure_draws_what_the_runs_say(
    comparisons: dict[str, Comparison], task: str, tmp_path: Path
) -> None:
    level, at = comparisons[task].levels[0], thresholds()
    (picture,) = decision_figures(comparisons[task], tmp_path)
    stroke = level.y_true > 0
    expected = []
    for y_score, label in zip(level.arms[0].y_score, level.arms[0].labels, strict=True):
        score = 1 - y_score[:, 0] if y_score.ndim > 1 else y_score
        called = score[:, None] >= at
        curve = (called[stroke].sum(0) - called[~stroke].sum(0) * at / (1 - at)) / len(stroke)
        np.testing.assert_allclose(rows(picture, TORCH, label)["net_benefit"], curve, atol=1e-12)
        expected.append(curve)
    np.testing.assert_allclose(
        rows(picture, TORCH, "mean")["net_benefit"], np.mean(expected, axis=0), atol=1e-12
    )
    everybody = rows(picture, "call all", "")["net_benefit"]
    np.testing.assert_allclose(everybody, stroke.mean() - (1 - stroke.mean()) * at / (1 - at), atol=1e-12)
    assert (rows(picture, "call none", "")["net_benefit"] == 0).all()
    assert at[0] == config.DECISION_THRESHOLDS[0]
    assert at[-1] == config.DECISION_THRESHOLDS[1]


def test_two_classes_have_a_difference_of_confusion_matrices(
    comparisons: dict[str, Comparison], tmp_path: Path
) -> None:
    level = comparisons["binary"].levels[0]
    with style():
        pictures = confusion_figures(comparisons["binary"], level, tmp_path)
    assert [picture.name.split("confusion-")[1] for picture in pictures] == [
        TORCH,
        KERAS,
        f"{KERAS}-vs-{TORCH}",
    ]
    mean = {
        arm.framework: np.mean(
            [confusion_matrix(level.y_true, y_pred, normalize="true") for y_pred in arm.y_pred], axis=0
        )
        for arm in level.arms
    }
    points = mean[KERAS] - mean[TORCH]
    np.testing.assert_allclose(pictures[2].table["row_share"], points.ravel(), atol=1e-12)
    shown = f"{100 * points[1, 1]:+.0f} pp".replace("-", "−")
    assert shown in pictures[2].svg
    assert np.abs(points).max() > 0.01  # else the sign was not tested
