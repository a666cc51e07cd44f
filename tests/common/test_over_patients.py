"""Two models on the same patients: AUROC in closed form, decisions and signed ranks against other implementations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar

from common.metrics.classification import auroc_score
from common.statistics import delong, mcnemar, paired_cluster_bootstrap, wilcoxon_test

# Hamilton depression scale before and after a tranquillizer (Hollander, Wolfe & Chicken 2014, example 3.1)
BEFORE = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
AFTER = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])


def judged(seed: int, patients: int = 30) -> tuple[np.ndarray, ...]:
    """Slices of patients with both labels: names, truth, two scores with ties."""
    rng = np.random.default_rng(seed)
    name = np.repeat(np.arange(patients), rng.integers(1, 6, patients))
    truth = (rng.random(len(name)) < rng.beta(1, 1, patients)[name]).astype(int)
    shared = rng.normal(0, 1, patients)[name]
    a, b = (np.round(shift * truth + shared + rng.normal(0, 1, len(name)), 1) for shift in (1.5, 0.9))
    return name, truth, a, b


# --- AUROC ----------------------------------------------------------------------------------------------------


def obuchowski(truth: np.ndarray, a: np.ndarray, b: np.ndarray, names: np.ndarray) -> float:
    """The variance of the difference of two AUROCs, pair by pair and patient by patient (Obuchowski 1997)."""
    pairs = {}
    for key, score in (("a", a), ("b", b)):
        x, y = score[truth == 1][:, None], score[truth == 0][None]
        pairs[key] = (x > y) + 0.5 * (x == y)
    psi = pairs["a"] - pairs["b"]  # (m, n)
    m, n, theta = *psi.shape, psi.mean()
    of_x, of_y = names[truth == 1], names[truth == 0]
    s10 = s01 = s11 = 0.0
    for name in np.unique(names):
        x = (psi.mean(axis=1)[of_x == name] - theta).sum()
        y = (psi.mean(axis=0)[of_y == name] - theta).sum()
        s10, s01, s11 = s10 + x * x, s01 + y * y, s11 + x * y
    i10, i01, i = len(set(of_x)), len(set(of_y)), len(set(names))
    s10, s01, s11 = i10 / ((i10 - 1) * m) * s10, i01 / ((i01 - 1) * n) * s01, i / (i - 1) * s11
    return s10 / m + s01 / n + 2 * s11 / (m * n)


@pytest.mark.parametrize("seed", range(3))
def test_clustered_variance_is_that_of_the_formula(seed: int) -> None:
    names, truth, a, b = judged(seed)
    found = delong(truth, a, b, names)
    error = np.sqrt(obuchowski(truth, a, b, names))
    assert found.estimate == pytest.approx(roc_auc_score(truth, a) - roc_auc_score(truth, b))
    assert found.ci_high - found.estimate == pytest.approx(stats.norm.ppf(0.975) * error)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(found.estimate) / error))


def test_delong_on_patients_is_the_clustered_one_on_their_equal_slices() -> None:
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 2, 40)
    a, b = truth + rng.normal(0, 1, (2, 40))
    alone = delong(truth, a, b)
    grouped = delong(np.repeat(truth, 6), np.repeat(a, 6), np.repeat(b, 6), np.repeat(np.arange(40), 6))
    assert grouped.ci_low == pytest.approx(alone.ci_low)
    x, y = (
        np.array([[(i > j) + 0.5 * (i == j) for j in s[truth == 0]] for i in s[truth == 1]]) for s in (a, b)
    )
    psi = x - y  # DeLong 1988: the components' variances over their numbers
    variance = psi.mean(1).var(ddof=1) / len(psi) + psi.mean(0).var(ddof=1) / psi.shape[1]
    assert alone.ci_high - alone.estimate == pytest.approx(stats.norm.ppf(0.975) * np.sqrt(variance))


def test_delong_and_the_bootstrap_tell_the_same_story() -> None:
    names, truth, a, b = judged(11, patients=150)
    b = b + np.random.default_rng(11).normal(0, 1.5, 150)[names]  # each model has hard patients of its own
    closed, drawn = delong(truth, a, b, names), paired_cluster_bootstrap(auroc_score, truth, a, b, names)
    width = closed.ci_high - closed.ci_low
    assert drawn.ci_high - drawn.ci_low == pytest.approx(width, rel=0.08)
    assert drawn.ci_low == pytest.approx(closed.ci_low, abs=0.06 * width)
    slices = delong(truth, a, b)
    assert slices.ci_high - slices.ci_low < 0.9 * width  # slices of a patient are no new patients


def test_the_mean_of_runs_is_one_score() -> None:
    names, truth, a, b = judged(7)
    runs = np.stack([a, a + np.random.default_rng(0).normal(0, 1, len(a))], axis=1)
    found = delong(truth, runs, np.stack([b, b], axis=1), names)
    mean = np.mean([roc_auc_score(truth, run) for run in runs.T])
    assert found.estimate == pytest.approx(mean - roc_auc_score(truth, b))
    assert delong(truth, np.stack([a, a], axis=1), b, names) == delong(truth, a, b, names)


def test_auroc_without_a_class_or_a_spread_has_no_interval() -> None:
    assert np.isnan(delong([1, 1, 1], [0.1, 0.2, 0.3], [0.3, 0.2, 0.1]).estimate)
    equal = delong([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.9], [0.1, 0.4, 0.3, 0.9])
    assert (equal.estimate, equal.ci_low, equal.p_value) == (0.0, 0.0, 1.0)
    certain = delong([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], [0.9, 0.8, 0.2, 0.1])
    assert certain.estimate == 1.0
    assert np.isnan([certain.ci_low, certain.p_value]).all()
    assert np.isnan(
        delong([0, 0, 1, 1], [0, 1, 0, 1], [1, 1, 0, 1], ["a", "b", "c", "c"]).ci_low
    )  # one has positives
    with pytest.raises(ValueError, match="y_true"):
        delong([0, 1, 2], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3])


# --- decisions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("only_a", "only_b"), [(9, 2), (3, 3), (0, 6), (1, 0)])
def test_mcnemar_is_that_of_statsmodels(only_a: int, only_b: int) -> None:
    kinds = np.repeat([0, 1, 2, 3], [only_a, only_b, 20, 5])  # right: a alone, b alone, both, none
    a, b = np.isin(kinds, (0, 2)), np.isin(kinds, (1, 2))
    found = mcnemar(a, b)
    assert found.p_value == pytest.approx(their_mcnemar([[20, only_a], [only_b, 5]], exact=True).pvalue)
    assert found.estimate == pytest.approx(a.mean() - b.mean())
    assert found.ci_low < found.estimate < found.ci_high


def test_bonett_and_price_by_hand() -> None:
    """10 of 40 to 4 of 40: shares 11/42 and 5/42, difference 0.1429, variance (16/42 - 0.0204) / 42."""
    kinds = np.repeat([0, 1, 2], [10, 4, 26])
    found = mcnemar(kinds != 1, kinds != 0)
    half = 1.959964 * np.sqrt((16 / 42 - (6 / 42) ** 2) / 42)
    assert (found.ci_low, found.ci_high) == (pytest.approx(6 / 42 - half), pytest.approx(6 / 42 + half))


def test_decisions_that_never_differ_are_no_finding() -> None:
    same = np.array([True, False, True, True])
    assert mcnemar(same, same).p_value == 1.0
    assert np.isnan(mcnemar(np.zeros(0, bool), np.zeros(0, bool)).estimate)
    with pytest.raises(ValueError, match=r"correct_b \(length 3\)"):
        mcnemar(same, same[1:])
    with pytest.raises(ValueError, match=r"correct_a .* must be bool"):
        mcnemar(same.astype(int), same)


# --- signed ranks ---------------------------------------------------------------------------------------------


def test_signed_ranks_of_the_textbook() -> None:
    found = wilcoxon_test(AFTER - BEFORE, confidence=0.96)
    assert found.estimate == pytest.approx(-0.46)
    assert (found.ci_low, found.ci_high) == (pytest.approx(-0.786), pytest.approx(-0.010))
    assert found.p_value == pytest.approx(0.0390625)


def test_the_normal_ends_are_near_the_exact_ones_and_ties_are_allowed() -> None:
    numbers = np.random.default_rng(3).normal(0.2, 1, 50)
    exact, normal = wilcoxon_test(numbers), wilcoxon_test(np.append(numbers, numbers[:1]))  # a tie: not exact
    assert normal.ci_low == pytest.approx(exact.ci_low, abs=0.05)
    assert normal.ci_high == pytest.approx(exact.ci_high, abs=0.05)
    ties = np.append(np.zeros(8), numbers)
    assert wilcoxon_test(ties).p_value == stats.wilcoxon(ties, zero_method="pratt").pvalue


def test_interval_and_test_of_signed_ranks_agree() -> None:
    rng = np.random.default_rng(4)
    for numbers in rng.normal(0.5, 1, (100, 14)):
        found = wilcoxon_test(numbers)
        assert (found.p_value < 0.05) == (found.ci_low > 0 or found.ci_high < 0)


def test_too_few_ranks_have_no_interval() -> None:
    five = wilcoxon_test([0.1, 0.2, 0.3, 0.4, 0.5])
    assert five.estimate == pytest.approx(0.3)
    assert np.isnan([five.ci_low, five.ci_high]).all()  # 2 / 2^5 is above 5 %
    assert wilcoxon_test([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).ci_low == pytest.approx(0.1)
    assert wilcoxon_test([0.0, 0.0, 0.0]).p_value == 1.0
    assert np.isnan(wilcoxon_test([0.1, np.nan]).estimate)
