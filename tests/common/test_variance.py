"""Parts of the variance and churn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from common.statistics import churn, mean_interval, variance_components


def crossed(seed: int, shape: tuple[int, int, int], sds: tuple[float, float, float, float]) -> np.ndarray:
    """Scores with random effects of framework, seed, split and remainder."""
    rng = np.random.default_rng(seed)
    sizes = ((shape[0], 1, 1), (1, shape[1], 1), (1, 1, shape[2]), shape)
    return 0.8 + sum(sd * rng.normal(size=size) for sd, size in zip(sds, sizes, strict=True))


def test_parts_by_hand() -> None:
    """[[1, 2, 3], [3, 4, 8]]: frameworks 2 and 5 about 3.5, seeds 2, 3, 5.5; squares 13.5, 13, 3 on 1, 2, 2 degrees."""
    framework, seed, split, rest = variance_components(np.array([[[1], [2], [3]], [[3], [4], [8]]]))
    assert rest.variance == pytest.approx(1.5)
    assert framework.variance == pytest.approx((13.5 - 1.5) / 3)
    assert seed.variance == pytest.approx((6.5 - 1.5) / 2)
    assert np.isnan([split.variance, split.share, split.ci_low]).all()
    assert [one.name for one in (framework, seed, split, rest)] == ["framework", "seed", "split", "remainder"]
    assert framework.share == pytest.approx(4 / (4 + 2.5 + 1.5))
    assert (rest.ci_low, rest.ci_high) == (
        pytest.approx(3 / stats.chi2.ppf(0.975, 2)),
        pytest.approx(3 / stats.chi2.ppf(0.025, 2)),
    )


def test_many_levels_find_every_part() -> None:
    sds = (1.0, 2.0, 1.5, 0.5)
    parts = variance_components(crossed(0, (60, 60, 60), sds))
    for part, sd in zip(parts, sds, strict=True):
        assert part.variance == pytest.approx(sd**2, rel=0.5)  # 2.7 standard errors of a variance from 60
        assert part.ci_low < part.variance < part.ci_high
    assert sum(part.share for part in parts) == pytest.approx(1)


def test_intervals_hold_the_truth() -> None:
    """2 frameworks, 6 seeds, 4 splits; the frameworks stay where they are, 0.6 apart: a part of 0.18."""
    truth = {"framework": 0.18, "seed": 1.0, "split": 0.25, "remainder": 0.04}
    inside = dict.fromkeys(truth, 0)
    for trial in range(150):
        scores = crossed(trial, (2, 6, 4), (0, 1, 0.5, 0.2)) + np.array([0.3, -0.3])[:, None, None]
        for part in variance_components(scores):
            inside[part.name] += part.ci_low <= truth[part.name] <= part.ci_high
    for name, count in inside.items():
        assert count / 150 >= 0.90, (name, count)  # 95 % less 3 standard errors of 1.8 %


def test_no_effect_is_no_part() -> None:
    parts = {one.name: one for one in variance_components(crossed(3, (2, 10, 1), (0, 0, 0, 1)))}
    assert parts["framework"].variance < 0.3
    assert parts["framework"].ci_low == parts["seed"].ci_low == 0


def test_the_part_of_two_frameworks_is_half_the_squared_difference() -> None:
    """So is its interval, from that of the paired difference."""
    scores = crossed(6, (2, 8, 1), (0, 1, 0, 0.1)) + np.array([1.0, 0.0])[:, None, None]
    gap = mean_interval(scores[0, :, 0] - scores[1, :, 0])
    framework = variance_components(scores)[0]
    assert framework.variance == pytest.approx(gap.estimate**2 / 2, rel=0.01)
    assert (framework.ci_low, framework.ci_high) == (
        pytest.approx(gap.ci_low**2 / 2),
        pytest.approx(gap.ci_high**2 / 2),
    )


def test_scores_that_are_all_equal_have_no_shares() -> None:
    equal = variance_components(np.full((2, 3, 1), 0.5), patient_variance=0.0)
    assert all(np.isnan(one.share) for one in equal)


def test_patients_are_a_part_where_there_is_one_split() -> None:
    scores = crossed(4, (2, 5, 1), (0.1, 1, 0, 0.5))
    *_, patients = variance_components(scores, patient_variance=2.0)
    assert (patients.name, patients.variance) == ("patients", 2.0)
    assert sum(one.share for one in variance_components(scores, 2.0) if one.name != "split") == pytest.approx(
        1
    )
    assert (
        len(variance_components(crossed(4, (2, 5, 3), (0, 1, 1, 1)), 2.0)) == 4
    )  # in the split's part already


def test_designs_that_can_tell_nothing_are_nan() -> None:
    assert all(np.isnan(one.variance) for one in variance_components(np.ones((1, 4, 1)))[:1])
    missing = crossed(5, (2, 5, 2), (1, 1, 1, 1))
    missing[0, 0, 0] = np.nan
    for one in variance_components(missing):
        assert np.isnan([one.variance, one.share, one.ci_low, one.ci_high]).all()
    with pytest.raises(ValueError, match=r"scores \(shape \(2, 5\)\)"):
        variance_components(np.ones((2, 5)))
    with pytest.raises(ValueError, match="patient_variance"):
        variance_components(np.ones((2, 2, 1)), -1.0)


# --- churn ----------------------------------------------------------------------------------------------------


def test_churn_by_hand() -> None:
    a = np.array([[0, 0, 1, 1], [0, 1, 1, 1]])  # seeds differ in 1 of 4
    b = np.array([[0, 0, 0, 1], [0, 0, 1, 0]])  # in 2 of 4; from a in 1 and 2 of 4
    found = churn(a, b, repeats=[[1, 1, 1, 1]])  # 2 of 4 from the first seed of a
    assert (found.between_frameworks, found.between_seeds, found.between_repeats) == (0.375, 0.375, 0.5)
    assert found.units == 4


def test_churn_needs_a_pair() -> None:
    found = churn([[0, 1]], [[0, 1]])
    assert found.between_frameworks == 0.0
    assert np.isnan([found.between_seeds, found.between_repeats]).all()
    with pytest.raises(ValueError, match=r"y_pred_b \(shape \(1, 3\)\)"):
        churn([[0, 1]], [[0, 1, 1]])
    with pytest.raises(ValueError, match="repeats"):
        churn([[0, 1]], [[0, 1]], [[0, 1], [1, 1]])
