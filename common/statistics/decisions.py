"""How many decisions change between frameworks, between seeds and between repeats of one run."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Churn:
    """Shares of units whose decision differs, 0 to 1; NaN where there is no pair to compare."""

    between_frameworks: float
    between_seeds: float
    between_repeats: float
    units: int


def churn(y_pred_a: ArrayLike, y_pred_b: ArrayLike, repeats: ArrayLike | None = None) -> Churn:
    """Decisions (R, N) of two frameworks, a row a seed: the share of the N units that fall differently.

    a against b at equal seed; every pair of seeds within a framework, the mean of both frameworks; a against its
    repeat (r, N) at equal seed, the first r seeds of a. Two models of equal score may still disagree on patients
    (churn, Milani Fard et al. 2016): between frameworks it says something only beside that between seeds and repeats.
    """
    a, b = np.asarray(y_pred_a), np.asarray(y_pred_b)
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"y_pred_a (shape {a.shape}) and y_pred_b (shape {b.shape}) must both be (R, N)")
    again = a[:0] if repeats is None else np.asarray(repeats)
    if again.ndim != 2 or again.shape[1] != a.shape[1] or len(again) > len(a):
        raise ValueError(
            f"repeats (shape {again.shape}) must be (r, N) with r up to R, as y_pred_a {a.shape}"
        )
    within = [
        _share([_differ(one[i], one[j]) for i, j in combinations(range(len(one)), 2)]) for one in (a, b)
    ]
    return Churn(
        _share([_differ(ours, theirs) for ours, theirs in zip(a, b, strict=True)]),
        (within[0] + within[1]) / 2,
        _share([_differ(ours, repeat) for ours, repeat in zip(a, again, strict=False)]),
        a.shape[1],
    )


def _differ(ours: NDArray[np.generic], theirs: NDArray[np.generic]) -> float:
    return float(np.mean(ours != theirs)) if len(ours) else np.nan


def _share(values: list[float]) -> float:
    return float(np.mean(values)) if values else np.nan
