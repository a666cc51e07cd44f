"""Bands of curves: the curve at whole weights, and the intervals of the tables at one place of it."""

from __future__ import annotations

import numpy as np
import pytest

from common import config
from common.metrics.classification import accuracy_score
from common.metrics.curves import precision_recall_curve, roc_curve
from common.random_numbers import generator
from common.report.bands import patient_band, precision_at, tpr_at
from common.statistics import cluster_bootstrap


def case() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, scores with ties, patients of three slices."""
    draws = generator("band")
    score = np.round(draws.random(90), 2)
    truth = (draws.random(90) < score).astype(np.int64)
    return truth, score, np.repeat([f"p{i:02d}" for i in range(30)], 3)


def test_heights_are_those_of_the_curve_of_the_drawn_rows() -> None:
    truth, score, _ = case()
    grid = np.linspace(0, 1, 21)
    weights = np.stack([np.ones(90), np.repeat(generator("w").integers(0, 4, size=30), 3)])
    sensitivity = tpr_at(truth == 1, score, grid)(weights)
    precision = precision_at(truth == 1, score, grid[1:])(weights)
    for row, weight in enumerate(weights.astype(int)):
        drawn = np.repeat(np.arange(90), weight)
        fpr, tpr, _ = roc_curve(truth[drawn], score[drawn])
        between = ~np.isin(grid, fpr)  # at a vertical step either height is right
        np.testing.assert_allclose(sensitivity[row][between], np.interp(grid, fpr, tpr)[between])
        heights, recall, _ = precision_recall_curve(truth[drawn], score[drawn])
        steps = [heights[::-1][np.argmax(recall[::-1] >= at - 1e-12)] for at in grid[1:]]
        np.testing.assert_allclose(precision[row], steps)


def test_a_band_is_the_interval_of_the_tables_at_every_place(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, score, patient = case()
    monkeypatch.setattr(config, "BAND_REPLICATES", 200)
    monkeypatch.setattr("common.report.bands.BLOCK_ELEMENTS", 7 * 90)  # blocks must not matter
    band = patient_band(
        patient, [lambda weights: accuracy_score(truth, score, sample_weight=weights)[:, None]] * 2
    )
    expected = cluster_bootstrap(accuracy_score, truth, score, patient, replicates=200, method="percentile")
    assert band is not None
    assert band.low[0] == pytest.approx(expected.ci_low)
    assert band.high[0] == pytest.approx(expected.ci_high)


def test_too_little_gives_no_band() -> None:
    truth, score, patient = case()
    few = slice(0, 3 * (config.MIN_INTERVAL_PATIENTS - 1))
    assert patient_band(patient[few], [tpr_at(truth[few] == 1, score[few], np.linspace(0, 1, 5))]) is None
    rare = np.arange(90) == 4  # one positive: a third of the draws miss its patient
    band = patient_band(patient, [tpr_at(rare, score, np.linspace(0, 1, 5))])
    assert band is not None
    assert np.isnan(band.low).all()
    nobody = tpr_at(np.zeros(90, dtype=bool), score, np.linspace(0, 1, 5))(np.ones((2, 90)))
    assert np.isnan(nobody).all()
