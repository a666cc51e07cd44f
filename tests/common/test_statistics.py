"""Patient-cluster intervals: what they cover, what they pair, what they refuse."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from common.metrics.classification import accuracy_score, auroc_score, f1_score, recall_score
from common.statistics import (
    Draws,
    bootstrap,
    cluster_bootstrap,
    interval_of,
    mean_interval,
    mean_over_runs,
    paired_cluster_bootstrap,
    spread,
)


def weighted_mean(y_true: np.ndarray, y_score: np.ndarray, sample_weight: np.ndarray) -> np.ndarray:
    """Mean score: a metric whose standard error is known."""
    return (sample_weight @ y_score) / np.sum(sample_weight, axis=-1)


def clustered(seed: int, patients: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Names, truth and scores of 3 to 8 slices a patient, whose scores share the patient's offset."""
    rng = np.random.default_rng(seed)
    row = np.repeat(np.arange(patients), rng.integers(3, 9, patients))
    truth = rng.integers(0, 2, patients)[row]
    score = 0.6 * truth + rng.normal(0, 0.8, patients)[row] + rng.normal(0, 0.3, len(row))
    return np.array([f"patient {index:03d}" for index in row]), truth, score


# --- spread ---------------------------------------------------------------------------------------------------


def test_spread_divides_by_n_minus_1() -> None:
    result = spread([1.0, 2.0, 4.0])
    assert (result.minimum, result.maximum, result.count) == (1.0, 4.0, 3)
    assert result.mean == pytest.approx(7 / 3)
    assert result.sd == pytest.approx(np.sqrt(((4 / 3) ** 2 + (1 / 3) ** 2 + (5 / 3) ** 2) / 2))


def test_one_run_has_no_spread_and_an_undefined_run_shows() -> None:
    assert np.isnan(spread([0.5]).sd)
    assert spread([0.5]).mean == 0.5
    assert np.isnan(spread([0.5, np.nan]).mean)
    assert spread([]).count == 0
    assert np.isnan(spread([]).mean)


# --- one score ------------------------------------------------------------------------------------------------


def test_estimate_is_the_metric_itself_and_nothing_is_tested() -> None:
    names, truth, score = clustered(0)
    result = cluster_bootstrap(auroc_score, truth, score, names, replicates=100)
    assert result.estimate == auroc_score(truth, score)
    assert result.ci_low < result.estimate < result.ci_high
    assert np.isnan(result.p_value)


def test_interval_has_the_width_of_the_standard_error_of_patients() -> None:
    rng = np.random.default_rng(1)
    offsets = rng.normal(0, 1, 200)
    score = np.repeat(offsets, 5)  # five equal slices a patient: 200 independent numbers, not 1000
    names = np.repeat(np.arange(200), 5)
    result = cluster_bootstrap(weighted_mean, np.zeros(1000, int), score, names, replicates=4000)
    expected = 2 * 1.96 * offsets.std() / np.sqrt(200)
    # sd of a 2.5 % quantile of 4000 draws is 4 % of the half-width
    assert result.ci_high - result.ci_low == pytest.approx(expected, rel=0.08)


def test_95_percent_intervals_cover_the_truth_and_slice_intervals_do_not() -> None:
    by_patient = by_slice = 0
    trials = 200
    for trial in range(trials):
        rng = np.random.default_rng([2, trial])
        row = np.repeat(np.arange(50), 6)
        score = rng.normal(0, 1, 50)[row] + rng.normal(0, 0.5, 300)
        zeros = np.zeros(300, int)
        cluster = cluster_bootstrap(weighted_mean, zeros, score, row, replicates=300, seed=trial)
        slices = cluster_bootstrap(
            weighted_mean, zeros, score, np.arange(300), replicates=300, seed=trial, method="percentile"
        )
        by_patient += cluster.ci_low <= 0 <= cluster.ci_high
        by_slice += slices.ci_low <= 0 <= slices.ci_high
    assert 0.90 <= by_patient / trials <= 0.99  # 95 % less 3 binomial standard errors of 1.5 %
    assert by_slice / trials < 0.75


def test_every_way_of_calling_a_metric_gives_the_same_interval() -> None:
    def without_weights(y_true: np.ndarray, y_score: np.ndarray) -> float:
        return float(roc_auc_score(y_true, y_score))

    names, truth, score = clustered(3)
    batched = cluster_bootstrap(auroc_score, truth, score, names, replicates=60)
    single = cluster_bootstrap(auroc_score, truth, score, names, replicates=60, batched=False)
    repeated = cluster_bootstrap(without_weights, truth, score, names, replicates=60)
    foreign = cluster_bootstrap(roc_auc_score, truth, score, names, replicates=60, batched=False)
    for other in (single, repeated, foreign):
        np.testing.assert_allclose(
            [other.estimate, other.ci_low, other.ci_high],
            [batched.estimate, batched.ci_low, batched.ci_high],
            rtol=1e-12,
        )


def test_interval_depends_on_names_not_on_rows_or_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    names, truth, score = clustered(4)
    order = np.random.default_rng(4).permutation(len(names))
    first = cluster_bootstrap(auroc_score, truth, score, names, replicates=90)
    assert (
        cluster_bootstrap(auroc_score, truth[order], score[order], names[order], replicates=90).ci_low
        == first.ci_low
    )
    monkeypatch.setattr(bootstrap, "BLOCK_ELEMENTS", 7 * len(names))
    assert cluster_bootstrap(auroc_score, truth, score, names, replicates=90).ci_low == first.ci_low
    assert cluster_bootstrap(auroc_score, truth, score, names, replicates=90, seed=1).ci_low != first.ci_low


def test_confidence_widens_the_interval() -> None:
    names, truth, score = clustered(5)
    wide = cluster_bootstrap(auroc_score, truth, score, names, replicates=300, confidence=0.99)
    narrow = cluster_bootstrap(auroc_score, truth, score, names, replicates=300, confidence=0.5)
    assert wide.ci_low < narrow.ci_low < narrow.ci_high < wide.ci_high


def test_undefined_replicates_are_left_out_until_they_are_too_many() -> None:
    score = np.linspace(0, 1, 40)
    rare = np.zeros(40, int)
    rare[-1] = 1  # drawn in 1 - (39/40)^40 = 64 % of the replicates
    few = np.zeros(40, int)
    few[30::2] = 1  # five of 40: absent from (35/40)^40 = 0.5 % of the replicates
    lost = cluster_bootstrap(recall_score, rare, score, np.arange(40), replicates=400)
    assert lost.estimate == 1.0
    assert np.isnan([lost.ci_low, lost.ci_high]).all()
    kept = cluster_bootstrap(auroc_score, few, score, np.arange(40), replicates=2000)
    assert 0 < kept.ci_low < kept.estimate < kept.ci_high <= 1


def test_no_interval_from_one_patient_or_none() -> None:
    one = cluster_bootstrap(accuracy_score, [0, 1], [0.1, 0.9], ["a", "a"], replicates=10)
    assert one.estimate == 1.0
    assert np.isnan([one.ci_low, one.ci_high]).all()
    assert np.isnan(cluster_bootstrap(accuracy_score, [], [], [], replicates=10).estimate)


# --- two scores -----------------------------------------------------------------------------------------------


def test_a_score_differs_from_itself_by_exactly_nothing() -> None:
    names, truth, score = clustered(6)
    result = paired_cluster_bootstrap(auroc_score, truth, score, score, names, replicates=50)
    assert (result.estimate, result.ci_low, result.ci_high) == (0.0, 0.0, 0.0)


def test_pairing_sees_a_small_difference_that_two_intervals_hide() -> None:
    names, truth, score = clustered(7, patients=80)
    rng = np.random.default_rng(7)
    better = score + 0.25 * truth + rng.normal(0, 0.02, len(score))
    result = paired_cluster_bootstrap(auroc_score, truth, better, score, names, replicates=300)
    assert result.estimate == auroc_score(truth, better) - auroc_score(truth, score)
    assert result.ci_low > 0  # a - b, and a is better
    separate = [cluster_bootstrap(auroc_score, truth, s, names, replicates=300) for s in (better, score)]
    assert separate[0].ci_low < separate[1].ci_high  # the two intervals overlap


def test_each_side_may_have_its_own_threshold() -> None:
    names, truth, score = clustered(8)
    low, high = partial(f1_score, threshold=0.1), partial(f1_score, threshold=0.8)
    result = paired_cluster_bootstrap(low, truth, score, score, names, replicates=50, metric_b=high)
    assert result.estimate == low(truth, score) - high(truth, score) != 0
    assert result.ci_low < result.ci_high


def test_mean_over_runs_judges_each_run_by_its_own_metric() -> None:
    names, truth, score = clustered(9)
    runs = np.stack([score, score + 1], axis=1)
    metric = mean_over_runs([partial(f1_score, threshold=0.3), partial(f1_score, threshold=1.3)])
    alone = cluster_bootstrap(partial(f1_score, threshold=0.3), truth, score, names, replicates=80)
    assert cluster_bootstrap(metric, truth, runs, names, replicates=80).ci_low == pytest.approx(alone.ci_low)
    assert mean_over_runs([auroc_score] * 2)(truth, np.stack([score, -score], axis=1)) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="a column for each of 2 runs"):
        metric(truth, score)


def test_a_difference_has_a_p_value_and_a_score_has_none() -> None:
    names, truth, score = clustered(12, patients=60)
    noise = np.random.default_rng(12).normal(0, 0.4, len(score))
    equal = paired_cluster_bootstrap(auroc_score, truth, score + noise, score - noise, names, replicates=400)
    worse = paired_cluster_bootstrap(auroc_score, truth, score, -score, names, replicates=400)
    assert equal.p_value > 0.05
    assert 0 < worse.p_value < 0.05  # never 0: another draw might have fallen on the other side
    assert paired_cluster_bootstrap(auroc_score, truth, score, score, names, replicates=400).p_value == 1.0


# --- intervals of draws ---------------------------------------------------------------------------------------


def drawn(values: np.ndarray, observed: float, left_out: np.ndarray | None = None) -> Draws:
    return Draws(np.array(observed), np.zeros(30) if left_out is None else left_out, values)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_p_is_below_alpha_exactly_where_the_interval_leaves_out_zero(method: str) -> None:
    rng = np.random.default_rng(3)
    jackknife = rng.gamma(2, 0.1, 30)  # skewed: an acceleration of some -0.05
    agree = 0
    for shift in np.linspace(-3, 3, 200):
        values = rng.gamma(4, 0.5, 2000) - 2 + shift
        found = interval_of(drawn(values, shift, jackknife), method=method, test=True)
        agree += (found.p_value < 0.05) == (found.ci_low > 0 or found.ci_high < 0)
    assert agree >= 199  # but for a replicate that lies on the border


def test_few_patients_widen_the_levels_by_hesterbergs_rule() -> None:
    """Normal replicates of 9 patients: t of 8 degrees of freedom, sqrt(9 / 8) wider; with 2000 patients 1.96."""
    values = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    few = interval_of(Draws(np.array(0.0), np.zeros(9), values))
    many = interval_of(Draws(np.array(0.0), np.zeros(2000), values))
    assert few.ci_high == pytest.approx(stats.t.ppf(0.975, 8) * np.sqrt(9 / 8), rel=1e-3)
    assert -few.ci_low == pytest.approx(few.ci_high)
    assert many.ci_high == pytest.approx(1.96, rel=2e-3)
    assert interval_of(Draws(np.array(0.0), np.zeros(9), values + 2), test=True).p_value == pytest.approx(
        2 * stats.t.sf(2 / np.sqrt(9 / 8), 8), rel=1e-3
    )


def test_bca_is_scipys() -> None:
    """The mean of skewed numbers, of 100 patients: the widening is 2 % of half the width, and SciPy's BCa has none."""
    values = np.random.default_rng(8).lognormal(0, 1, 100)
    arguments = (weighted_mean, np.zeros(100), values, np.arange(100), 8000)
    ours, plain = cluster_bootstrap(*arguments), cluster_bootstrap(*arguments, method="percentile")
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=8000, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.ci_low == pytest.approx(theirs.low, abs=0.04 * width)
    assert ours.ci_high == pytest.approx(theirs.high, abs=0.04 * width)
    assert plain.ci_low < theirs.low - 0.05 * width  # the percentile interval does not follow the skew


def test_bca_without_bias_and_skew_is_the_percentile_interval() -> None:
    values = np.linspace(-1, 1, 2001)
    plain = interval_of(drawn(values, 0.0, np.linspace(-1, 1, 30)), method="percentile")
    assert interval_of(drawn(values, 0.0, np.linspace(-1, 1, 30)), method="bca") == plain
    assert interval_of(drawn(np.ones(50), 1.0), method="bca", test=True).ci_low == 1.0
    unjudged = interval_of(drawn(values, 0.0, np.array([0.0] * 29 + [np.nan])), method="bca")
    assert np.isnan(unjudged.ci_low)
    with pytest.raises(ValueError, match="method"):
        interval_of(drawn(values, 0.0), method="basic")  # type: ignore[arg-type]


# --- seeds ----------------------------------------------------------------------------------------------------


def test_t_interval_by_hand() -> None:
    """1, 2, 3: sd 1, t of 2 degrees of freedom 4.3027 (95 %) and 2.9200 (90 %), over sqrt(3)."""
    found = mean_interval([1, 2, 3])
    assert found.estimate == 2
    assert found.ci_low == pytest.approx(2 - 4.302652729749464 / 3**0.5)
    assert found.ci_high == pytest.approx(2 + 4.302652729749464 / 3**0.5)
    assert mean_interval([1, 2, 3], confidence=0.9).ci_high == pytest.approx(2 + 2.919985580355516 / 3**0.5)


def test_t_interval_holds_the_truth_as_often_as_it_says() -> None:
    draws = np.random.default_rng(5).normal(3, 2, (4000, 4))
    inside = [found.ci_low <= 3 <= found.ci_high for found in map(mean_interval, draws)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.01)  # three standard errors


def test_too_few_values_have_a_mean_and_no_interval() -> None:
    found = mean_interval([1, 2])
    assert found.estimate == 1.5
    assert np.isnan([found.ci_low, found.ci_high, found.p_value]).all()
    assert np.isnan(mean_interval([1, 2, np.nan]).ci_low)
    with pytest.raises(ValueError, match=r"confidence \(=95\)"):
        mean_interval([1, 2, 3], confidence=95)


# --- refused -------------------------------------------------------------------------------------------------


def test_bad_arguments_are_named() -> None:
    names, truth, score = clustered(10, patients=5)
    with pytest.raises(ValueError, match=r"y_score \(shape .* must be as long as patients"):
        cluster_bootstrap(auroc_score, truth, score[1:], names)
    with pytest.raises(ValueError, match=r"y_score_b \(shape"):
        paired_cluster_bootstrap(auroc_score, truth, score, score[1:], names)
    with pytest.raises(ValueError, match=r"replicates \(=0\)"):
        cluster_bootstrap(auroc_score, truth, score, names, replicates=0)
    with pytest.raises(ValueError, match=r"confidence \(=95\)"):
        cluster_bootstrap(auroc_score, truth, score, names, confidence=95)


def test_a_metric_that_mixes_the_replicates_is_found_out() -> None:
    names, truth, score = clustered(11)

    def mixing(y_true: np.ndarray, y_score: np.ndarray, sample_weight: np.ndarray) -> np.ndarray:
        return (sample_weight @ y_score) / sample_weight.sum()  # the sum runs over the replicates too

    with pytest.raises(ValueError, match="row by row, or pass batched=False"):
        cluster_bootstrap(mixing, truth, score, names, replicates=20)
    expected = cluster_bootstrap(weighted_mean, truth, score, names, replicates=20)
    np.testing.assert_allclose(
        cluster_bootstrap(mixing, truth, score, names, replicates=20, batched=False).ci_low, expected.ci_low
    )
