"""How long does it take to bootstrap every metric of a study?

    python benchmarks/bootstrap.py [--replicates N] [--runs N] [--samples N] [--patients N]

Times `bootstrap_metrics` on one core beside `cluster_bootstrap`, one metric and run at a time, and a loop over
scikit-learn, the latter two from a few replicates. CPU seconds of this process, so that a busy machine matters less.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from sklearn import metrics as sklearn_metrics

from common.metrics.by_patient import classification_by_patient, means_by_patient
from common.metrics.classification import expected_calibration_error, metrics_at
from common.metrics.segmentation import TITLE as MASK_TITLE
from common.random_numbers import generator
from common.statistics import bootstrap_metrics, cluster_bootstrap

FEW, FEWER = 500, 20  # replicates that the slower ways are timed by


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replicates", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--patients", type=int, default=80)
    given = parser.parse_args()
    rng = generator("bootstrap benchmark", given.runs, given.samples, given.patients)
    patients = rng.integers(0, given.patients, given.samples)
    truth = rng.integers(0, 2, given.samples)
    score = np.clip(0.25 * truth + rng.random((given.runs, given.samples)) * 0.75, 0, 1)
    called = (score >= 0.5).astype(int)
    several = rng.dirichlet([1, 1, 1], (given.runs, given.samples))
    cases = {metric: rng.random((given.runs, given.samples)) for metric in MASK_TITLE}
    kinds = rng.integers(0, 3, given.samples)

    def all_at_once() -> None:
        bootstrap_metrics(
            classification_by_patient(truth, score, called, patients), patients, given.replicates
        )

    def three_classes() -> None:
        judge = classification_by_patient(kinds, several, several.argmax(-1), patients)
        bootstrap_metrics(judge, patients, given.replicates)

    def masks() -> None:
        bootstrap_metrics(means_by_patient(cases, patients), patients, given.replicates)

    def one_by_one() -> None:
        for metric in metrics_at(0.5).values():
            cluster_bootstrap(metric, truth, score[0], patients, FEW, method="percentile")

    def naive() -> None:
        rows_of = [np.flatnonzero(patients == patient) for patient in np.unique(patients)]
        for _ in range(FEWER):
            drawn = np.concatenate([rows_of[i] for i in rng.integers(0, len(rows_of), len(rows_of))])
            by_scikit_learn(truth[drawn], score[0][drawn], called[0][drawn])

    share = given.runs * given.replicates
    print(
        f"{given.replicates} replicates of {given.runs} runs x {given.samples} samples of {given.patients} patients"
    )
    print(f"{'':58s}{'CPU seconds':>12s}")
    report("bootstrap_metrics: 9 metrics of two classes", all_at_once, 1)
    report("bootstrap_metrics: 9 metrics of three classes", three_classes, 1)
    report(f"bootstrap_metrics: {len(cases)} metrics of masks", masks, 1)
    report(f"cluster_bootstrap, one by one (from {FEW} of one run)", one_by_one, share / FEW)
    report(f"loop over scikit-learn (from {FEWER} of one run)", naive, share / FEWER)
    return 0


def by_scikit_learn(truth: np.ndarray, score: np.ndarray, called: np.ndarray) -> list[float]:
    return [
        sklearn_metrics.roc_auc_score(truth, score),
        sklearn_metrics.average_precision_score(truth, score),
        sklearn_metrics.accuracy_score(truth, called),
        sklearn_metrics.recall_score(truth, called),
        sklearn_metrics.recall_score(truth, called, pos_label=0),
        sklearn_metrics.precision_score(truth, called),
        sklearn_metrics.f1_score(truth, called),
        sklearn_metrics.brier_score_loss(truth, score),
        expected_calibration_error(truth, score),  # scikit-learn has none
    ]


def report(words: str, work: Callable[[], None], factor: float) -> None:
    begin = time.process_time()
    work()
    print(f"{words:58s}{(time.process_time() - begin) * factor:12.1f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
