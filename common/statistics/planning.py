"""What so many seeds can show, before they are trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaincinv, nctdtrinc, ndtr, stdtrit

from common import config
from common.statistics.estimates import check_alpha
from common.statistics.over_seeds import EXACT_SIGNS, SIGN_DRAWS

MAX_SEEDS = 10_000  # looked for; more is the answer "none"
QUADRATURE = 400  # points at which the chance over the sd is averaged: 1e-5 of a power


@dataclass(frozen=True)
class SeedPlan:
    """In the metric's own units. NaN, or None for a number of seeds, where nothing can be shown or said."""

    sd: float  # of the paired differences over seeds
    seeds: int
    detectable_difference: float  # a true difference this large is found with the asked-for power
    smallest_margin: (
        float  # frameworks without a true difference are called equivalent within it, with that power
    )
    p_floor: float  # of the exact sign-flip test
    seeds_for_margin: int | None  # ... for equivalence within `margin`
    seeds_for_significance: int | None  # from which the sign-flip test can fall below alpha at all


def plan_seeds(
    sd: float, seeds: int, margin: float, power: float = config.POWER, alpha: float = config.ALPHA
) -> SeedPlan:
    """What `seeds` paired seeds can show where the differences' standard deviation over seeds is `sd`.

    Differences: the two-sided paired t test (noncentral t). Equivalence: TOST without a true difference, where it is
    easiest; its power is averaged over the chi distribution of the sd (Owen 1965; Phillips 1990). Both assume normal
    differences and hold the test patients fixed: more seeds never make up for few patients.

    `sd` is itself estimated: from 5 seeds it may be 0.6 to 2.9 times as large (95 %, chi-square), so plan with room.
    Fewer seeds than `config.MIN_INTERVAL_SEEDS` show nothing (NaN); NaN too where `sd` is NaN.
    """
    check_alpha(alpha)
    if seeds < 0:
        raise ValueError(f"seeds (={seeds}) must not be negative")
    if not margin > 0:
        raise ValueError(f"margin (={margin}) must be above 0")
    if not 0.5 <= power < 1:
        raise ValueError(f"power (={power}) must be at least 0.5 and below 1")
    if sd < 0:
        raise ValueError(f"sd (={sd}) must not be negative")
    few = seeds < config.MIN_INTERVAL_SEEDS
    return SeedPlan(
        sd=sd,
        seeds=seeds,
        detectable_difference=math.nan if few else sd * _detectable(seeds, power, alpha),
        smallest_margin=math.nan if few else sd * _margin(seeds, power, alpha),
        p_floor=_p_floor(seeds),
        seeds_for_margin=_fewest(lambda n: sd * _margin(n, power, alpha) <= margin),
        seeds_for_significance=_fewest(lambda n: _p_floor(n) < alpha),
    )


def _p_floor(seeds: int) -> float:
    """The smallest p of `sign_flip_test`: two of all signs, or of those drawn none but the observed."""
    return min(1.0, 2.0 ** (1 - seeds)) if seeds <= EXACT_SIGNS else 1 / (1 + SIGN_DRAWS)


def _detectable(seeds: int, power: float, alpha: float) -> float:
    """True difference in sd that a two-sided paired t test of so many seeds finds with this power."""
    degrees = seeds - 1
    bound = float(stdtrit(degrees, 1 - alpha / 2))
    return float(nctdtrinc(degrees, 1 - power, bound)) / math.sqrt(
        seeds
    )  # less than 1e-4 lies in the other tail


def _margin(seeds: int, power: float, alpha: float) -> float:
    """Margin in sd within which TOST calls equal means equivalent with this power."""
    degrees = seeds - 1
    bound = float(stdtrit(degrees, 1 - alpha))
    points = (np.arange(QUADRATURE) + 0.5) / QUADRATURE
    sd = np.sqrt(2 * gammaincinv(degrees / 2, points) / degrees)  # quantiles of the observed over the true sd

    def excess(reach: float) -> float:  # of the margin, in standard errors
        return float(np.mean(np.maximum(0.0, 2 * ndtr(reach - bound * sd) - 1))) - power

    return float(brentq(excess, 0.0, 10 * bound + 10)) / math.sqrt(seeds)


def _fewest(enough: Callable[[int], bool]) -> int | None:
    """The smallest number of seeds that is enough, by bisection; None beyond `MAX_SEEDS`."""
    low, high = config.MIN_INTERVAL_SEEDS, MAX_SEEDS
    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
