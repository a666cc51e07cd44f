"""Which pictures of a data set are one and the same slice, and which is the most similar to each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common import config
from common.data.looks import Looks
from common.data.similarity import Fingerprints, similarities


@dataclass(frozen=True)
class Likeness:
    """Over the rows of `Looks.table`. Pictures of one grey value are like nothing: they show no slice."""

    equal: NDArray[np.int64]  # (n,): the first row with the very same pixels
    near: NDArray[np.int64]  # (p, 2): pairs of rows, i < j, above `config.COPY_SIMILARITY` but not equal
    similarity: NDArray[np.float64]  # (p,): correlation of the fingerprints of each pair
    nearest: NDArray[np.int64]  # (n,): the most similar row that is not equal; -1 for none


def compare_looks(looks: Looks) -> Likeness:
    """Every picture with every other: n^2 products of fingerprints, a block of rows at a time."""
    table = looks.table
    count = len(table)
    equal = _first_equal(table["pixels_sha256"].tolist(), table["constant"].to_numpy(dtype=bool))
    first = np.flatnonzero(equal == np.arange(count))
    members: dict[int, list[int]] = {}
    for row, of in enumerate(equal.tolist()):
        members.setdefault(of, []).append(row)
    pairs: list[tuple[int, int]] = []
    similarity: list[float] = []
    nearest = np.full(count, -1, dtype=np.int64)
    prints = looks.prints
    if prints is None:  # drawn slices, of which none is another's copy
        return Likeness(equal, np.zeros((0, 2), np.int64), np.zeros(0), nearest)
    if len(first) < count:
        prints = Fingerprints(prints.frame[first], prints.head[first])
    for start, frame, head in similarities(prints):
        like = np.maximum(frame, head)
        here = np.arange(len(like))
        like[here, start + here] = 0  # itself
        best = like.argmax(axis=1)
        known = like[here, best] > 0
        nearest[first[start + here[known]]] = first[best[known]]
        for i, j in np.argwhere(like > config.COPY_SIMILARITY):
            if start + i < j:
                # Pictures that equal either of the two are as near
                both = [(a, b) for a in members[first[start + i]] for b in members[first[j]]]
                pairs += [(min(pair), max(pair)) for pair in both]
                similarity += [float(like[i, j])] * len(both)
    nearest = nearest[equal]
    return Likeness(equal, np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array(similarity), nearest)


def _first_equal(digests: list[str], constant: NDArray[np.bool_]) -> NDArray[np.int64]:
    seen: dict[str, int] = {}
    return np.array(
        [row if constant[row] else seen.setdefault(digest, row) for row, digest in enumerate(digests)],
        dtype=np.int64,
    )
