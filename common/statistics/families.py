"""Several tests in one declared family."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from common.statistics.estimates import Floats, row_of_numbers


def holm(p_values: ArrayLike) -> Floats:
    """p-values of one family, (n,), adjusted so that alpha bounds the chance of any false finding (Holm 1979).

    Holds for dependent tests too. NaN, a test that could not be made, passes through and does not count.
    """
    given = row_of_numbers(p_values, "p_values")
    known = np.flatnonzero(~np.isnan(given))
    if ((given[known] < 0) | (given[known] > 1)).any():
        raise ValueError(f"p_values (={given.tolist()}) must lie between 0 and 1")
    rising = known[np.argsort(given[known], kind="stable")]
    adjusted = given.copy()
    steps = len(rising) - np.arange(len(rising))
    adjusted[rising] = np.minimum(1.0, np.maximum.accumulate(steps * given[rising]))
    return adjusted
