"""Lesions as objects: which of the true ones were found, and what was reported in vain."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from common import config


class LesionCounts(NamedTuple):
    """Lesions found, reported in vain, missed."""

    tp: int
    fp: int
    fn: int


def lesion_counts(
    y_true: NDArray[np.bool_], y_pred: NDArray[np.bool_], overlap: float = config.LESION_OVERLAP
) -> LesionCounts:
    """Count the lesions of two masks (H, W); a lesion is a set of pixels connected through 8 neighbours.

    A true and a predicted lesion may be paired where their intersection over union reaches `overlap`. Each takes part
    in one pair at most, and as many pairs are formed as can be (a maximum matching), so that the counts depend on no
    order. One large prediction over two lesions has thus found one of them.
    """
    if not 0 < overlap <= 1:
        raise ValueError(f"overlap (={overlap}) must lie above 0 and up to 1")
    true, true_area = _components(y_true)
    pred, pred_area = _components(y_pred)
    pairs = _pairs(true, true_area, pred, pred_area, overlap)
    return LesionCounts(pairs, len(pred_area) - pairs, len(true_area) - pairs)


def _components(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The lesion of each pixel (H, W), from 1, 0 outside; the area of each lesion in px, (lesions,)."""
    count, lesion = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    return lesion, np.bincount(lesion.ravel(), minlength=count)[1:]


def _pairs(
    true: NDArray[np.int32],
    true_area: NDArray[np.int64],
    pred: NDArray[np.int32],
    pred_area: NDArray[np.int64],
    overlap: float,
) -> int:
    """Size of the largest one-to-one matching of lesions that overlap enough."""
    both = (true > 0) & (pred > 0)
    if not both.any():
        return 0
    shape = (len(true_area), len(pred_area))
    cell, intersection = np.unique(
        np.ravel_multi_index((true[both] - 1, pred[both] - 1), shape), return_counts=True
    )
    row, column = np.unravel_index(cell, shape)
    enough = intersection / (true_area[row] + pred_area[column] - intersection) >= overlap
    graph = csr_array((np.ones(enough.sum()), (row[enough], column[enough])), shape=shape)
    return int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
