"""Paired differences over seeds: each procedure against another implementation, an enumeration or a formula by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from common.statistics import (
    corrected_resampled_ttest,
    effect_size,
    equivalence,
    holm,
    mean_interval,
    plan_seeds,
    sign_flip_test,
)

TEN = np.array([0.021, -0.004, 0.013, 0.008, 0.017, -0.009, 0.011, 0.002, 0.019, 0.006])


# --- is there a difference? -----------------------------------------------------------------------------------


@pytest.mark.parametrize("differences", [TEN, TEN[:5], np.array([1.0, 1.0, -1.0, 0.0, 2.0, 1.0])])
def test_sign_flips_are_all_enumerated(differences: np.ndarray) -> None:
    signs = np.array(list(product([-1, 1], repeat=len(differences))))
    expected = np.mean(np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12)
    found = sign_flip_test(differences)
    assert found.p_value == pytest.approx(expected, abs=1e-15)
    assert (found.ci_low, found.ci_high) == (
        mean_interval(differences).ci_low,
        mean_interval(differences).ci_high,
    )


def test_five_seeds_cannot_reach_five_per_cent() -> None:
    assert sign_flip_test([1.0, 1.1, 0.9, 1.2, 0.8]).p_value == 2 / 2**5
    assert sign_flip_test([1.0, 1.1, 0.9, 1.2, 0.8, 1.0]).p_value == 2 / 2**6
    assert sign_flip_test([0.1] * 3).p_value == 2 / 2**3  # equal sums are equal, whatever their rounding
    assert sign_flip_test([0.0, 0.0, 0.0]).p_value == 1.0


def test_many_seeds_are_drawn_alike_in_any_order() -> None:
    many = np.random.default_rng(0).normal(0.35, 1, 40)
    found = sign_flip_test(many)
    # A normal approximation of the permutation law, whose variance is the sum of squares: exact to about 0.002 here
    assert found.p_value == pytest.approx(
        2 * stats.norm.sf(abs(many.sum()) / np.sqrt((many**2).sum())), abs=0.01
    )
    assert sign_flip_test(many[::-1]).p_value == found.p_value
    assert sign_flip_test(np.full(25, 2.0)).p_value == 1 / 100_000


def test_nadeau_bengio_by_hand_and_the_paired_t_test() -> None:
    """1, 2, 3, 4: mean 2.5, s^2 5/3; a third tested: (1/4 + 1/2) 5/3 = 1.25; t = 2.236 on 3 degrees of freedom."""
    found = corrected_resampled_ttest([1, 2, 3, 4], 1 / 3)
    assert found.p_value == pytest.approx(2 * stats.t.sf(2.5 / np.sqrt(1.25), 3))
    assert found.ci_high - found.estimate == pytest.approx(stats.t.ppf(0.975, 3) * np.sqrt(1.25))
    plain, theirs = corrected_resampled_ttest(TEN, 0.0), stats.ttest_1samp(TEN, 0.0)
    assert plain.p_value == pytest.approx(theirs.pvalue)
    assert plain.ci_low == pytest.approx(theirs.confidence_interval().low)


def test_resampled_splits_fool_the_plain_t_test_only() -> None:
    """Means of test parts of one sample that has no effect: what overlapping splits have in common."""
    rng = np.random.default_rng(1)
    found = {0.0: 0, 0.3: 0}
    for _ in range(300):
        sample = rng.normal(0, 1, 100)
        differences = [sample[rng.permutation(100)[:30]].mean() for _ in range(15)]
        for share in found:
            found[share] += corrected_resampled_ttest(differences, share).p_value < 0.05
    assert found[0.0] / 300 > 0.25
    assert found[0.3] / 300 < 0.10


# --- is it small enough? --------------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [0.01, 0.012, 0.02])
def test_tost_is_that_of_statsmodels(margin: float) -> None:
    found = equivalence(TEN, margin)
    expected = ttost_paired(TEN, np.zeros(10), -margin, margin)[0]
    assert found.p_value == pytest.approx(expected)
    assert found.equivalent == (expected < 0.05) == (-margin < found.ci_low and found.ci_high < margin)
    assert found.ci_high == pytest.approx(stats.ttest_1samp(TEN, 0).confidence_interval(0.9).high)


def test_differences_beyond_the_margin_are_not_equivalent_on_either_side() -> None:
    assert equivalence(TEN + 0.03, 0.02).p_value > 0.95
    assert equivalence(TEN, 0.02).p_value == equivalence(-TEN, 0.02).p_value


def test_equal_differences_are_judged_by_the_margin_alone() -> None:
    inside, on, outside = (equivalence([value] * 3, 0.05) for value in (0.01, 0.05, -0.1))
    assert (inside.p_value, inside.equivalent, inside.ci_low) == (0.0, True, inside.ci_high)
    assert (on.p_value, on.equivalent) == (1.0, False)
    assert (outside.p_value, outside.equivalent) == (1.0, False)


def test_the_corrected_variance_makes_equivalence_harder() -> None:
    plain, corrected = equivalence(TEN, 0.02), equivalence(TEN, 0.02, test_share=0.2)
    assert corrected.ci_high - corrected.estimate == pytest.approx(
        (plain.ci_high - plain.estimate) * np.sqrt((0.1 + 0.25) / 0.1)
    )
    assert corrected.p_value > plain.p_value


# --- how large is it? -----------------------------------------------------------------------------------------


def test_effect_sizes_by_their_formulas() -> None:
    found = effect_size(TEN)
    size = TEN.mean() / TEN.std(ddof=1)
    assert found.cohens_dz == pytest.approx(size)
    assert found.hedges_g == pytest.approx(
        size * (1 - 3 / (4 * 9 - 1)), rel=1e-3
    )  # Hedges' own approximation
    assert found.superiority == 0.8
    assert effect_size([0.0, 1.0, -1.0]).superiority == 0.5
    reached = stats.nct.cdf(size * np.sqrt(10), 9, np.sqrt(10) * np.array([found.ci_low, found.ci_high]))
    np.testing.assert_allclose(reached, [0.975, 0.025], atol=1e-5)


def test_effect_sizes_of_nearly_equal_differences_are_found_at_once() -> None:
    """mean / sd 200,000, where the search of the noncentral t distribution no longer ends."""
    found = effect_size([0.5, 0.500001, 0.500005, 0.499999])
    assert 0 < found.ci_low < found.cohens_dz < found.ci_high
    assert effect_size([-0.5, -0.500001, -0.500005, -0.499999]).ci_high == pytest.approx(-found.ci_low)
    noise = np.array([-1.0, 0.0, 1.0, 0.5])  # on both sides of the change of method
    below, above = (effect_size(noise + shift) for shift in (212.0, 214.0))
    assert above.ci_low / above.cohens_dz == pytest.approx(below.ci_low / below.cohens_dz, rel=1e-3)
    assert above.ci_high / above.cohens_dz == pytest.approx(below.ci_high / below.cohens_dz, rel=1e-3)


# --- what can so many seeds show? -----------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [3, 5, 10, 40])
def test_detectable_differences_are_those_of_statsmodels(seeds: int) -> None:
    found = plan_seeds(0.02, seeds, 0.05)
    expected = 0.02 * TTestPower().solve_power(nobs=seeds, alpha=0.05, power=0.8)
    assert found.detectable_difference == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("seeds", [3, 8])
def test_the_smallest_margin_has_the_power_it_claims(seeds: int) -> None:
    margin = plan_seeds(2.0, seeds, 1.0).smallest_margin
    rng = np.random.default_rng(seeds)
    draws = 2 * rng.normal(size=(40_000, seeds))
    half = stats.t.ppf(0.95, seeds - 1) * draws.std(axis=1, ddof=1) / np.sqrt(seeds)
    assert np.mean(np.abs(draws.mean(axis=1)) + half < margin) == pytest.approx(
        0.8, abs=0.006
    )  # 3 standard errors


def test_a_plan_says_how_many_seeds_are_enough() -> None:
    plan = plan_seeds(0.02, 5, 0.01)
    assert (plan.p_floor, plan.seeds_for_significance) == (0.0625, 6)
    assert plan.smallest_margin > 0.01
    assert plan.seeds_for_margin is not None
    assert plan_seeds(0.02, plan.seeds_for_margin, 0.01).smallest_margin <= 0.01
    assert plan_seeds(0.02, plan.seeds_for_margin - 1, 0.01).smallest_margin > 0.01
    assert plan_seeds(0.02, 5, 1e-6).seeds_for_margin is None
    assert plan_seeds(0.0, 5, 0.01).seeds_for_margin == 3
    few, unknown = plan_seeds(0.02, 2, 0.05), plan_seeds(np.nan, 5, 0.05)
    assert np.isnan([few.detectable_difference, few.smallest_margin, unknown.smallest_margin]).all()
    assert unknown.seeds_for_margin is None


# --- a family -------------------------------------------------------------------------------------------------


def test_holm_is_that_of_statsmodels_and_counts_no_missing_test() -> None:
    given = np.array([0.01, 0.04, 0.03, 0.5, 0.01, 0.9])
    np.testing.assert_allclose(holm(given), multipletests(given, method="holm")[1])
    np.testing.assert_allclose(holm([0.02, np.nan, 0.03]), [0.04, np.nan, 0.04])
    assert len(holm([])) == 0
    with pytest.raises(ValueError, match="p_values"):
        holm([0.5, 1.5])


# --- undefined and refused ------------------------------------------------------------------------------------


def test_too_few_differences_or_a_missing_one_show_nothing() -> None:
    for few in ([0.1, 0.2], [0.1, np.nan, 0.2, 0.1], []):
        corrected, tost, size = corrected_resampled_ttest(few, 0.2), equivalence(few, 0.05), effect_size(few)
        assert np.isnan(
            [corrected.ci_low, corrected.p_value, tost.ci_low, tost.p_value, size.cohens_dz]
        ).all()
        assert not tost.equivalent
    assert np.isnan(sign_flip_test([0.1, np.nan, 0.2]).p_value)
    assert np.isnan(effect_size([0.1, 0.1, 0.1]).hedges_g)
    assert effect_size([0.1, 0.1, 0.1]).superiority == 1.0


def test_arguments_that_mean_nothing_are_named() -> None:
    with pytest.raises(ValueError, match=r"margin \(=0\)"):
        equivalence(TEN, 0)
    with pytest.raises(ValueError, match=r"test_share \(=1\)"):
        corrected_resampled_ttest(TEN, 1)
    with pytest.raises(ValueError, match=r"alpha \(=5\)"):
        equivalence(TEN, 0.1, alpha=5)
    with pytest.raises(ValueError, match=r"differences \(shape \(2, 5\)\)"):
        sign_flip_test(TEN.reshape(2, 5))
    with pytest.raises(ValueError, match=r"power \(=80\)"):
        plan_seeds(0.1, 5, 0.1, power=80)
