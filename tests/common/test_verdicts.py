"""Verdicts at known differences: the rule on made-up differences, and from a study's files to the word."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mask_study_fixture import make_mask_study
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from study_fixture import make_study, write_complete_run

from common import config, results
from common.config import Run
from common.metrics.classification import auroc_score
from common.random_numbers import generator
from common.report.evidence import Arm, Level
from common.report.pairings import OverPatients, Pairing, over_patients
from common.report.reading import read_evidence
from common.results import Predictions, read_study
from common.statistics import (
    Estimate,
    corrected_resampled_ttest,
    equivalence,
    mean_over_runs,
    paired_cluster_bootstrap,
)
from common.verdicts import Verdict, both, judged, least_seeds, verdicts, within_families

BOTH = TORCH, KERAS = "torch", "keras-tensorflow"
WAVE = np.array([1, -1, 1, -1, 1, -1, 1, -1, 0.5, -0.5])
SURE = Estimate(np.nan, np.nan, np.nan, 0.001)  # of which only p is looked at


# --- the rule -----------------------------------------------------------------------------------------------------


def made_up(
    differences: Sequence[float] | NDArray[np.float64],
    p_patients: float,
    narrow: tuple[float, float],
    lane: str = "aligned",
    by_fold: NDArray[np.float64] | None = None,
) -> Verdict:
    """A verdict before its word: differences over seeds, p and 90 % interval over patients."""
    over_seeds = np.asarray(differences, dtype=float)
    mean = float(over_seeds.mean()) if len(over_seeds) else np.nan
    folds = 0.6 + (over_seeds[:, None] if by_fold is None else by_fold)
    estimate = Estimate(mean, *narrow, p_patients)
    pairing = Pairing(
        KERAS, TORCH, tuple(range(len(over_seeds))),
        {KERAS: 0.6 + over_seeds, TORCH: np.full(len(over_seeds), 0.6)},
        {KERAS: folds, TORCH: np.full(folds.shape, 0.6)},
        0.2, 30, OverPatients(estimate, estimate, 1e-4), False, "", np.empty(0), None,
    )  # fmt: skip
    comparison: Any = SimpleNamespace(
        lane=lane, task="binary", model="cnn", primary_metric="auroc_score",
        folds=tuple(range(folds.shape[1] if by_fold is not None else 1)),
    )  # fmt: skip
    return judged(comparison, pairing)


NEAR, FAR, WIDE = (-0.01, 0.01), (0.15, 0.25), (-0.2, 0.2)


@pytest.mark.parametrize(
    ("differences", "p_patients", "narrow", "word"),
    [
        (0.005 * WAVE, 0.6, NEAR, "equivalent"),
        (0.2 + 0.01 * WAVE, 0.001, FAR, "different"),
        (-0.2 + 0.01 * WAVE, 0.001, (-0.25, -0.15), "different"),
        (0.01 + 0.001 * WAVE, 0.001, (0.005, 0.015), "negligible"),
        (0.2 * WAVE, 0.6, NEAR, "undecided"),  # the seeds are too noisy for either
        (0.2 + 0.01 * WAVE, 0.3, WIDE, "undecided"),  # other patients would not show it
        (0.03 + 0.2 * WAVE, 0.001, FAR, "undecided"),  # other seeds would not
        (0.005 * WAVE, 0.6, (-0.01, 0.051), "undecided"),  # close over seeds, not surely over patients
        (0.2 + 0.01 * WAVE, np.nan, (np.nan, np.nan), "undecided"),  # nothing is known of other patients
        (0.2 + 0.01 * WAVE[:5], 0.001, FAR, "too few seeds"),
        (0.2 + 0.01 * WAVE[:6], 0.001, FAR, "different"),
        ([0.0, 0.0], 1.0, (0.0, 0.0), "too few seeds"),  # two seeds make no equivalence
        (0.005 * WAVE[:4], 0.6, NEAR, "equivalent"),  # which fewer seeds can show than a difference
        ([], np.nan, (np.nan, np.nan), "no score"),
    ],
)
def test_the_word_at_known_differences(
    differences: Sequence[float], p_patients: float, narrow: tuple[float, float], word: str
) -> None:
    (found,) = within_families([made_up(differences, p_patients, narrow)])
    assert found.word == word


def test_a_difference_must_show_in_seeds_and_in_patients() -> None:
    """The p-value is the larger of the two, whichever it is; unknown where one is."""
    clear = made_up(0.2 + 0.01 * WAVE, 0.04, FAR)
    assert clear.over_seeds.p_value < 0.01
    assert clear.p_value == 0.04
    hidden = made_up(0.2 * WAVE, 0.001, FAR)
    assert hidden.p_value == hidden.over_seeds.p_value > 0.05
    assert np.isnan(made_up(0.2 + 0.01 * WAVE, np.nan, FAR).p_value)
    backwards = dataclasses.replace(
        clear.over_patients, estimate=-0.2
    )  # pooled folds against the mean of folds
    assert both(clear.over_seeds, backwards) == 1.0


def test_holm_is_within_the_lane() -> None:
    """Two of p 0.03 are 0.06 together, and stay 0.03 in two lanes."""
    two = [made_up(0.2 + 0.01 * WAVE, 0.03, FAR, lane) for lane in ("aligned", "aligned")]
    assert [one.word for one in within_families(two)] == ["undecided"] * 2
    assert [one.p_holm for one in within_families(two)] == [0.06, 0.06]
    apart = within_families([two[0], dataclasses.replace(two[1], lane="native")])
    assert [one.word for one in apart] == ["different"] * 2
    unknown = made_up(0.2 + 0.01 * WAVE, np.nan, FAR)  # what cannot be tested does not count
    assert [one.word for one in within_families([two[0], unknown])] == ["different", "undecided"]


def test_a_larger_family_takes_more_seeds() -> None:
    assert [least_seeds(count) for count in (1, 2, 4, 25)] == [6, 7, 8, 10]
    assert least_seeds() == config.MIN_VERDICT_SEEDS
    for count in (1, 2, 4, 25):
        n = least_seeds(count)
        assert count * 2 / 2**n <= config.ALPHA < count * 2 / 2 ** (n - 1)
    six = made_up(0.2 + 0.01 * WAVE[:6], 0.001, FAR)
    noisy = made_up(0.2 * WAVE[:6], 0.6, WIDE)
    assert [one.word for one in within_families([six, noisy])] == ["too few seeds"] * 2
    ten = made_up(0.2 + 0.01 * WAVE, 0.001, FAR)  # a smaller p beside it leaves the last step to six seeds
    assert [one.word for one in within_families([ten, six])] == ["different"] * 2


CALM = np.array(
    [[0.10, 0.09, 0.11, 0.10, 0.12], [0.11, 0.10, 0.09, 0.11, 0.09], [0.09, 0.11, 0.10, 0.09, 0.10]]
)
NOISY = 0.1 + 8 * (CALM - 0.1)
UNEVEN = CALM + np.array([0.1, -0.09, 0.08, -0.1, 0.06])  # folds differ, seeds hardly


def test_folds_are_tested_over_seed_and_fold() -> None:
    """Nadeau and Bengio's variance, by the more cautious of two ways to count the runs."""
    widest = []
    for table in (NOISY, UNEVEN):
        found = made_up(table.mean(axis=1), 0.001, (0.06, 0.14), by_fold=table)
        ways = [corrected_resampled_ttest(one, 0.2) for one in (table.ravel(), table.mean(axis=0))]
        widths = [one.ci_high - one.ci_low for one in ways]
        widest.append(int(np.argmax(widths)))
        assert found.over_seeds.ci_high - found.over_seeds.ci_low == pytest.approx(max(widths))
        assert found.over_seeds.p_value == pytest.approx(max(one.p_value for one in ways))
        limits = [equivalence(one, 0.05, 0.2) for one in (table.ravel(), table.mean(axis=0))]
        assert found.equivalence.p_value == pytest.approx(max(one.p_value for one in limits))
        assert found.equivalence.ci_high == pytest.approx(max(one.ci_high for one in limits))
    assert widest == [0, 1]  # neither way is always the cautious one
    naive = corrected_resampled_ttest(CALM.ravel(), 0.0)
    calm = made_up(CALM.mean(axis=1), 0.001, (0.06, 0.14), by_fold=CALM)
    assert calm.over_seeds.ci_high - calm.over_seeds.ci_low > 2 * (naive.ci_high - naive.ci_low)
    assert within_families([calm])[0].word == "different"  # 15 runs of 3 seeds are enough
    level = CALM[:1] - 0.1  # close in every fold, of one seed
    alone = made_up(level.mean(axis=1), 0.6, NEAR, by_fold=level)
    assert alone.equivalence.equivalent
    assert within_families([alone])[0].word == "too few seeds"
    single = made_up(CALM[:1].mean(axis=1), 0.001, (0.06, 0.14), by_fold=CALM[:1])
    assert within_families([single])[0].word == "too few seeds"  # of one seed others cannot be told


# --- from files ---------------------------------------------------------------------------------------------------


def path_of(directory: Path, framework: str, seed: int, fold: int = 0, repeat: int = 0) -> Path:
    run = Run("binary", "cnn", framework, "aligned", seed, fold, repeat)
    return results.run_directory(directory, run) / "predictions.npz"


def rewrite(path: Path, change: Callable[[Predictions], NDArray[np.float64]]) -> None:
    """Give a run other probabilities."""
    found = results.read_predictions(path)
    results.write_predictions(path, dataclasses.replace(found, y_score=change(found)))


def sharper(found: Predictions) -> NDArray[np.float64]:
    """Nearly right about everything."""
    noise = generator("sharper", len(found.y_true)).normal(size=len(found.y_true))
    return 1 / (1 + np.exp(-(8.0 * found.y_true - 4 + noise)))


def judge_study(directory: Path) -> tuple[Verdict, ...]:
    evidence = read_evidence(directory)
    return verdicts(evidence.record, evidence.comparisons)


def area_of(path: Path) -> float:
    found = results.read_predictions(path).of("test")
    return float(roc_auc_score(found.y_true, found.y_score))


def test_a_study_from_its_files_to_the_word(tmp_path: Path) -> None:
    """Keras made nearly right in every seed: different, upwards; its numbers are those of scikit-learn."""
    directory = make_study(tmp_path / "study", seeds=6)
    for seed in range(6):
        rewrite(path_of(directory, KERAS, seed), sharper)
    (found,) = judge_study(directory)
    areas = {name: [area_of(path_of(directory, name, seed)) for seed in range(6)] for name in BOTH}
    np.testing.assert_allclose(found.scores[KERAS], areas[KERAS], rtol=1e-12)
    np.testing.assert_allclose(found.differences, np.subtract(areas[KERAS], areas[TORCH]), rtol=1e-9)
    assert (found.word, found.framework, found.reference) == ("different", KERAS, TORCH)
    assert found.difference > 0.1
    assert found.effect.superiority == 1
    assert found.key == "aligned/binary/cnn/keras-tensorflow-vs-torch/auroc_score"
    assert (found.patients, found.folds, found.seeds) == (10, 1, tuple(range(6)))
    level = read_evidence(directory).comparisons[0].levels[0]
    assert isinstance(level, Level)
    ours, theirs = (arm.y_score.T for arm in reversed(level.arms))
    oracle = paired_cluster_bootstrap(
        mean_over_runs([auroc_score] * 6), level.y_true, ours, theirs, level.patient
    )
    np.testing.assert_allclose(
        dataclasses.astuple(found.over_patients), dataclasses.astuple(oracle), rtol=1e-9
    )
    assert found.churn is not None
    assert found.churn.units == 10
    assert found.churn.between_frameworks > found.churn.between_seeds
    shares = {part.name: part.share for part in found.components}
    assert shares["framework"] > shares["seed"]
    assert "patients" in shares


def test_identical_predictions_are_said_to_be(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", seeds=3)
    for seed in range(3):
        same = results.read_predictions(path_of(directory, TORCH, seed))
        results.write_predictions(path_of(directory, KERAS, seed), same)
    (found,) = judge_study(directory)
    assert (found.identical, found.word, found.difference) == (True, "equivalent", 0.0)
    rewrite(path_of(directory, KERAS, 1), lambda one: np.nextafter(one.y_score, 1.0))
    assert not judge_study(directory)[0].identical


def test_repeats_are_a_floor_and_no_seed(tmp_path: Path) -> None:
    """A/A runs change no score; their differences from the runs are the noise."""
    directory = make_study(tmp_path / "study", seeds=3)
    before = judge_study(directory)[0]
    record = read_study(directory)
    study = dataclasses.replace(record.study, repeats=2)
    results.write_json(directory / "study.json", {**record.document, "study": config.to_json(study)})
    for seed in range(2):
        run = Run("binary", "cnn", TORCH, "aligned", seed, 0, 1)
        write_complete_run(directory, run, record.samples(), record.split())
        rewrite(path_of(directory, TORCH, seed, repeat=1), lambda one: np.sqrt(one.y_score) % 0.9)
    after = judge_study(directory)[0]
    np.testing.assert_array_equal(after.differences, before.differences)
    assert (len(before.noise), after.seeds) == (0, before.seeds)
    assert (before.repeated, after.repeated) == ("", TORCH)
    expected = [
        area_of(path_of(directory, TORCH, seed, repeat=1)) - area_of(path_of(directory, TORCH, seed))
        for seed in range(2)
    ]
    assert np.abs(expected).min() > 0
    np.testing.assert_allclose(after.noise, expected, rtol=1e-9)
    assert before.churn is not None
    assert after.churn is not None
    assert np.isnan(before.churn.between_repeats)
    assert 0 <= after.churn.between_repeats <= 1
    assert after.churn.between_frameworks == before.churn.between_frameworks


def test_folds_from_files(tmp_path: Path) -> None:
    """Every (seed, fold) is judged by itself for the test over runs, pooled for the one over patients."""
    directory = make_study(tmp_path / "study", seeds=2, folds=4)
    (found,) = judge_study(directory)
    areas = {
        name: np.array([[area_of(path_of(directory, name, seed, fold)) for fold in range(4)] for seed in range(2)])
        for name in BOTH
    }  # fmt: skip
    counts = read_study(directory).runs[0].document["data"]["counts"]
    share = counts["test"]["samples"] / (counts["test"]["samples"] + counts["train"]["samples"])
    gaps = areas[KERAS] - areas[TORCH]
    ways = [corrected_resampled_ttest(one, share) for one in (gaps.ravel(), gaps.mean(axis=0))]
    assert found.over_seeds.p_value == pytest.approx(max(one.p_value for one in ways))
    assert found.over_seeds.ci_low == pytest.approx(min(one.ci_low for one in ways))
    assert (found.folds, found.patients, len(found.differences)) == (4, 40, 2)
    shares = {part.name: part.share for part in found.components}
    assert "patients" not in shares
    assert shares["split"] > 0


def test_masks_and_what_was_not_scored(tmp_path: Path) -> None:
    missing = {("unet", "keras-jax", seed, 0) for seed in range(3)}
    directory = make_mask_study(
        tmp_path / "study", frameworks=(*BOTH, "keras-jax"), seeds=3, gates=(), missing=missing
    )
    keras, jax = judge_study(directory)
    assert (jax.word, jax.framework, jax.reference) == ("no score", "keras-jax", TORCH)
    assert (keras.metric, keras.patients, keras.churn) == ("dice_score", 8, None)
    per_slice = []
    for framework in (KERAS, TORCH):
        run = Run("segmentation", "unet", framework, "aligned", 0, 0)
        path = results.run_directory(directory, run) / "predictions.npz"
        one = results.read_mask_predictions(path).of("test")
        lesion = one.tp + one.fn > 0
        tp, wrong = one.tp[lesion], (one.fp + one.fn)[lesion]
        per_slice.append((2 * tp / (2 * tp + wrong)).mean())
    np.testing.assert_allclose(keras.differences[0], per_slice[0] - per_slice[1], rtol=1e-9)


def test_one_framework_has_no_verdict(tmp_path: Path) -> None:
    assert judge_study(make_study(tmp_path / "study", frameworks=(TORCH,), seeds=1)) == ()


@pytest.mark.parametrize(("signal", "guessing"), [(0.0, True), (2.0, False)])
def test_scores_that_know_nothing_are_called_guessing(signal: float, guessing: bool) -> None:
    draws = generator("guessing")
    y_true = np.tile([0, 1], 30)
    patient = np.array([f"p{i:02}" for i in range(60)])

    def arm(framework: str) -> Arm:
        y_score = draws.normal(size=(3, 60)) + signal * y_true
        return Arm(framework, (0, 1, 2), y_score, (y_score > 0).astype(np.int64))

    ours, theirs = arm("keras-tensorflow"), arm("torch")
    level = Level("slice", patient, patient, y_true, (theirs, ours))
    assert over_patients(level, ours, theirs, "auroc_score").guessing is guessing
