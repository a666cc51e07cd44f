"""Paired differences over seeds, or over (seed, fold): is there one, how large, and is it small enough?

Each takes `differences` (n,), framework minus reference on equal seed, split and patients, and says nothing of other
patients. A NaN among them, a run without a value, makes the result NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import chdtri, gammaln, nctdtrinc, stdtr, stdtrit

from common import config
from common.random_numbers import generator
from common.statistics.estimates import (
    Estimate,
    Floats,
    check_alpha,
    check_confidence,
    check_test_share,
    mean_interval,
    row_of_numbers,
)

EXACT_SIGNS = 20  # differences up to which all 2^n signs are tried: a million sums
SIGN_DRAWS = 99_999  # beyond it; with the observed signs a round 100,000
ROUNDING = 1e-12  # relative: sums this close are equal
LARGE_T = 500.0  # beyond it the noncentral t distribution is its limit, to 0.02 %


# --- is there a difference? -----------------------------------------------------------------------------------------


def sign_flip_test(differences: ArrayLike, confidence: float = config.CONFIDENCE) -> Estimate:
    """The mean difference, tested by flipping signs (Fisher 1935, 21): two-sided, exact up to `EXACT_SIGNS` of them.

    If the frameworks are equal, each difference was as likely to have the other sign. p is the share of all 2^n signs
    whose mean is at least as far from 0 as the observed one, so never below 2 / 2^n: 5 seeds cannot reach 0.05. More
    than 20 differences are judged by seeded draws, (1 + as far) / (1 + draws).

    It assumes independent differences, each symmetric about 0 under the null hypothesis: no normality, no equal
    variance. In a simulation without a difference it found one at the 5 % level in 5.1 % of studies of 10 seeds, and in
    2.7 % of 6, whose p takes few values; of strongly skewed differences (log-normal, which the null hypothesis
    excludes) in 10 and 6 %. The interval is no inversion of it but the t interval of `mean_interval`.
    """
    numbers = row_of_numbers(differences, "differences")
    around = mean_interval(numbers, confidence)
    if not len(numbers) or not np.isfinite(numbers).all():
        return Estimate(around.estimate, around.ci_low, around.ci_high, np.nan)
    size = np.sort(np.abs(numbers))  # the signs are drawn for sizes: no order of the rows matters
    least = abs(float(numbers.sum())) - ROUNDING * float(size.sum())
    if len(numbers) <= EXACT_SIGNS:
        sums = np.zeros(1)
        for one in size:
            sums = np.concatenate([sums + one, sums - one])
        p_value = float(np.mean(np.abs(sums) >= least))
    else:
        signs = generator("sign flips", len(size)).integers(2, size=(SIGN_DRAWS, len(size)), dtype=np.int8)
        sums = (2.0 * signs - 1.0) @ size
        p_value = float(1 + np.sum(np.abs(sums) >= least)) / (1 + SIGN_DRAWS)
    return Estimate(around.estimate, around.ci_low, around.ci_high, p_value)


def corrected_resampled_ttest(
    differences: ArrayLike, test_share: float, confidence: float = config.CONFIDENCE
) -> Estimate:
    """The mean of differences over resampled splits, with the corrected variance of Nadeau & Bengio (2003).

    Splits of one data set share most of their training data, so their differences are alike and the plain t test
    claims too much. The variance of the mean is taken as (1/n + test_share / (1 - test_share)) s^2, t on n - 1 degrees
    of freedom; `test_share` is the test part of what a run sees, 1/K in K-fold cross-validation (Bouckaert & Frank
    2004 use it so for repeated folds). With `test_share` 0 it is the paired t test.

    The correction is a heuristic: it assumes that two splits' differences correlate by `test_share`. In a simulation of
    15 random splits it found a difference that is not there in 4.0 % at the 5 % level, the plain t test in 43 %. Of 10
    seeds on each of 5 folds it found one in 0.1 %, being careful, but in 10 % where the folds alone decide, for the
    seeds of a fold are then no replicates; of the seeds' means, a value a fold, in 1 to 2 %.

    NaN for fewer than `config.MIN_INTERVAL_SEEDS` differences. Where all are equal p is 0 (1 if they are 0) and the
    width 0, which is no certainty.
    """
    check_confidence(confidence)
    check_test_share(test_share)
    numbers = row_of_numbers(differences, "differences")
    mean, error = _mean_and_error(numbers, test_share)
    if math.isnan(error):
        return Estimate(mean, np.nan, np.nan, np.nan)
    degrees = len(numbers) - 1
    half = float(stdtrit(degrees, (1 + confidence) / 2)) * error
    p_value = 2 * float(stdtr(degrees, -_ratio(abs(mean), error)))
    return Estimate(mean, mean - half, mean + half, p_value)


# --- is it small enough? --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests: `equivalent` where p < alpha, that is where the 1 - 2 alpha interval is inside +-margin."""

    estimate: float
    ci_low: float
    ci_high: float
    p_value: float
    margin: float
    equivalent: bool


def equivalence(
    differences: ArrayLike, margin: float, test_share: float = 0.0, alpha: float = config.ALPHA
) -> Equivalence:
    """Whether the mean difference lies within +-margin: TOST (Schuirmann 1987) on paired differences, t on n - 1.

    A difference that was not found is no equality; this turns the burden of proof round. The margin must have been
    declared before training. `test_share` above 0 takes the variance of `corrected_resampled_ttest`. The interval is
    that of 1 - 2 alpha, which is what the two tests look at. It assumes independent, nearly normal differences. In a
    simulation with the truth on the margin it called 4.7 to 5.5 % equivalent, with 3 to 10 seeds; of strongly skewed
    differences (log-normal) 15 %: look at the seeds' own values too.

    NaN and not equivalent for fewer than `config.MIN_INTERVAL_SEEDS` differences. Where all are equal p is 0 inside
    the margin and 1 on it or outside.
    """
    check_alpha(alpha)
    check_test_share(test_share)
    if not margin > 0:
        raise ValueError(f"margin (={margin}) must be above 0")
    numbers = row_of_numbers(differences, "differences")
    mean, error = _mean_and_error(numbers, test_share)
    if math.isnan(error):
        return Equivalence(mean, np.nan, np.nan, np.nan, margin, False)
    degrees = len(numbers) - 1
    half = float(stdtrit(degrees, 1 - alpha)) * error
    inside = margin - abs(mean)  # the nearer border decides
    p_value = float(stdtr(degrees, -_ratio(inside, error)))
    if error == 0:
        p_value = 0.0 if inside > 0 else 1.0
    return Equivalence(mean, mean - half, mean + half, p_value, margin, p_value < alpha)


def _mean_and_error(numbers: Floats, test_share: float) -> tuple[float, float]:
    """Mean and its standard error; the error is NaN where too few differences or a NaN allow none."""
    mean = float(numbers.mean()) if len(numbers) else math.nan
    if len(numbers) < config.MIN_INTERVAL_SEEDS or not np.isfinite(numbers).all():
        return mean, math.nan
    return mean, math.sqrt(1 / len(numbers) + test_share / (1 - test_share)) * _sd(numbers)


def _sd(numbers: Floats) -> float:
    """Standard deviation, divided by n - 1; exactly 0 where the numbers differ by rounding alone."""
    sd = float(numbers.std(ddof=1))
    return sd if sd > ROUNDING * float(np.abs(numbers).max()) else 0.0


def _ratio(value: float, error: float) -> float:
    """value / error; infinite with the value's sign for an error of 0, and 0 where both are 0."""
    if error > 0:
        return value / error
    return math.copysign(math.inf, value) if value else 0.0


# --- how large is it? -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EffectSize:
    """A mean difference in units of its own spread; NaN where undefined."""

    cohens_dz: float
    hedges_g: float
    superiority: float
    ci_low: float
    ci_high: float


def effect_size(differences: ArrayLike, confidence: float = config.CONFIDENCE) -> EffectSize:
    """How large paired differences are beside their own spread.

    `cohens_dz` is mean / sd (Cohen 1988); `hedges_g` the same without its bias upwards from few values (Hedges 1981,
    the exact factor); `superiority` the share of differences above 0, ties half. The interval is of the true mean / sd,
    by the noncentral t distribution (Steiger & Fouladi 1997): it assumes normal differences.

    Over seeds the spread is that of the seeds alone, so a difference of no practical worth can be many sd large: the
    margin, not this, says what matters. The sizes are NaN where all differences are equal or there are fewer than
    `config.MIN_INTERVAL_SEEDS`.
    """
    check_confidence(confidence)
    numbers = row_of_numbers(differences, "differences")
    if not len(numbers) or not np.isfinite(numbers).all():
        return EffectSize(np.nan, np.nan, np.nan, np.nan, np.nan)
    superiority = float(np.mean((numbers > 0) + (numbers == 0) / 2))
    if len(numbers) < config.MIN_INTERVAL_SEEDS or _sd(numbers) == 0:
        return EffectSize(np.nan, np.nan, superiority, np.nan, np.nan)
    size, root, degrees = float(numbers.mean()) / _sd(numbers), math.sqrt(len(numbers)), len(numbers) - 1
    unbiased = math.exp(gammaln(degrees / 2) - gammaln((degrees - 1) / 2)) / math.sqrt(degrees / 2)
    low, high = (
        _noncentrality(degrees, tail, size * root) / root
        for tail in ((1 + confidence) / 2, (1 - confidence) / 2)
    )
    return EffectSize(size, unbiased * size, superiority, low, high)


def _noncentrality(degrees: int, tail: float, observed: float) -> float:
    """That of the t distribution of which `observed` is the quantile `tail`."""
    if abs(observed) <= LARGE_T:
        return float(nctdtrinc(degrees, tail, observed))
    # The noise of the mean no longer matters, only that of the sd; SciPy's search would take minutes, then hours
    upper = tail if observed > 0 else 1 - tail
    return observed * math.sqrt(float(chdtri(degrees, upper)) / degrees)
