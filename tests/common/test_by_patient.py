"""All metrics of all runs at once: the numbers of the metrics one by one."""

from __future__ import annotations

import numpy as np
import pytest

from common.metrics.by_patient import classification_by_patient, means_by_patient
from common.metrics.classification import TITLE, metrics_at
from common.metrics.segmentation import weighted_mean
from common.statistics import bootstrap_metrics, cluster_bootstrap, interval_of, paired_cluster_bootstrap

DECIDED = ("accuracy_score", "recall_score", "specificity_score", "precision_score", "f1_score")


def scene(seed: int, classes: int, samples: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth (N,), scores of two runs with many ties, and the names of 12 patients in no order."""
    rng = np.random.default_rng(seed)
    names = np.array([f"patient {i:02d}" for i in rng.permutation(np.arange(samples) % 12)])
    truth = rng.integers(0, classes, samples)
    shape = (2, samples) if classes == 2 else (2, samples, classes)
    score = rng.integers(0, 8, shape) / 8  # ties between and within the classes
    return truth, score, names


@pytest.mark.parametrize("classes", [2, 3])
def test_each_metric_is_that_of_the_weights(classes: int) -> None:
    truth, score, names = scene(1, classes)
    row = np.unique(names, return_inverse=True)[1]
    counts = np.random.default_rng(2).integers(0, 3, (12, 40)).astype(float)  # (P, R), some patients absent
    counts[:, 0] = 0
    counts[row[truth == 1], 0] = (
        1  # every patient of class 1 once, so that this replicate may lack the others
    )
    decided = (score >= 0.4).astype(int) if classes == 2 else score.argmax(-1)
    found = classification_by_patient(truth, score, decided, names)(counts)
    assert list(found) == list(TITLE)
    for name, metric in metrics_at(0.4).items():
        for run in range(2):
            expected = metric(truth, score[run], sample_weight=counts.T[:, row])
            np.testing.assert_allclose(found[name][run], expected, atol=1e-12, err_msg=name)


def test_what_is_undefined_is_nan() -> None:
    truth = np.array([1, 1, 0, 0, 0, 0])
    score = np.array([[0.9, 0.3, 0.8, 0.2, 0.1, 0.1]])
    judge = classification_by_patient(truth, score, (score >= 0.5).astype(int), np.arange(6))
    counts = np.array([[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 1, 0, 0, 1, 1]], dtype=float).T
    found = judge(counts)
    np.testing.assert_array_equal(found["auroc_score"][0], [np.nan, np.nan, 1.0])
    np.testing.assert_array_equal(found["average_precision_score"][0], [1.0, np.nan, 1.0])
    np.testing.assert_array_equal(found["recall_score"][0], [0.5, np.nan, 0.0])
    np.testing.assert_array_equal(found["precision_score"][0], [1.0, 0.0, np.nan])
    alone = classification_by_patient(np.ones(2, int), np.ones((1, 2)), np.ones((1, 2), int), [0, 1])(
        np.ones((2, 1))
    )
    assert np.isnan(alone["auroc_score"][0, 0])
    assert alone["average_precision_score"][0, 0] == 1.0


def test_means_leave_out_what_is_nan() -> None:
    rng = np.random.default_rng(5)
    values = np.where(rng.random((2, 30)) < 0.3, np.nan, rng.random((2, 30)))
    values[:, 3] = np.nan
    names = np.arange(30) // 3
    counts = np.concatenate([rng.integers(0, 3, (10, 20)), np.eye(10)], axis=1)
    found = means_by_patient({"dice": values}, names)(counts)["dice"]
    for run in range(2):
        np.testing.assert_allclose(
            found[run], weighted_mean(None, values[run], counts.T[:, names]), atol=1e-12
        )


def test_intervals_are_those_of_the_bootstraps_of_one_metric() -> None:
    truth, score, names = scene(3, 2, samples=90)
    decided = (score >= 0.4).astype(int)
    draws = bootstrap_metrics(
        classification_by_patient(truth, score, decided, names), names, replicates=300, seed=4
    )
    for name, metric in metrics_at(0.4).items():
        alone = cluster_bootstrap(metric, truth, score[1], names, replicates=300, seed=4)
        ours = interval_of(draws[name].of([1]).mean(), method="bca")
        np.testing.assert_allclose([ours.ci_low, ours.ci_high], [alone.ci_low, alone.ci_high], atol=1e-12)
        pair = paired_cluster_bootstrap(metric, truth, score[0], score[1], names, replicates=300, seed=4)
        gap = interval_of(draws[name].of([0]).mean() - draws[name].of([1]).mean(), test=True)
        np.testing.assert_allclose(
            [gap.ci_low, gap.ci_high, gap.p_value], [pair.ci_low, pair.ci_high, pair.p_value], atol=1e-12
        )


def test_too_few_patients_have_scores_and_no_intervals() -> None:
    truth, score = np.array([0, 1, 1, 0]), np.array([[0.1, 0.9, 0.8, 0.2]])
    judge = classification_by_patient(truth, score, (score >= 0.5).astype(int), [0, 1, 2, 3])
    draws = bootstrap_metrics(judge, [0, 1, 2, 3], replicates=10)
    found = interval_of(draws["auroc_score"].mean())
    assert found.estimate == 1.0
    assert np.isnan([found.ci_low, found.ci_high]).all()
