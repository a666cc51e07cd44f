"""How far two masks' borders lie apart, exact on the pixel grid.

A border is the pixels of a mask with a 4-neighbour outside it; what lies beyond the image is outside. Distances run
between centres of border pixels, each from a border pixel of one mask to the nearest of the other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from common import config
from common.metrics.counts import Floats

PERCENTILE = 95.0


class BorderDistances(NamedTuple):
    """In px, in row order of the border pixels; the other mask's border must not be empty."""

    true_to_pred: Floats  # (border pixels of the truth,)
    pred_to_true: Floats  # (border pixels of the prediction,)


def border_distances(y_true: NDArray[np.bool_], y_pred: NDArray[np.bool_]) -> BorderDistances | None:
    """Both ways, from masks (H, W); None where either is empty."""
    if not (y_true.any() and y_pred.any()):
        return None
    true, pred = np.argwhere(border(y_true)), np.argwhere(border(y_pred))
    return BorderDistances(_to_nearest(true, pred), _to_nearest(pred, true))


def _to_nearest(points: NDArray[np.intp], others: NDArray[np.intp]) -> Floats:
    """Distance of each point to the nearest of the others, (points,), from indices (points, 2)."""
    # From 1, not 0: beside 0 the tree splits at the smallest number above it, which a process that flushes denormals
    # to zero cannot tell from 0, and it splits until the stack is full.
    return np.asarray(cKDTree(others + 1).query(points + 1)[0], dtype=np.float64)


def border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The border pixels of a mask, both (H, W)."""
    inner = np.zeros_like(mask)
    inner[1:-1, 1:-1] = mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    return mask & ~inner


def hd95_of(distances: BorderDistances | None) -> float:
    """The larger of the two directed 95th percentiles (linear between ranks), in px; NaN for None."""
    if distances is None:
        return np.nan
    return float(max(np.percentile(directed, PERCENTILE) for directed in distances))


def surface_dice_of(
    distances: BorderDistances | None, tolerance_px: float = config.SURFACE_TOLERANCE_PX
) -> float:
    """Share of both masks' border pixels within the tolerance of the other border; NaN for None."""
    if distances is None:
        return np.nan
    return float(np.mean(np.concatenate(distances) <= tolerance_px))
