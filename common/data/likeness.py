"""Which pictures of a data set are one and the same slice, and which is the most similar to each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common import config
from common.data.looks import Looks
from common.data.similarity import Fingerprints, bounds, likeness_of, rows_at_once

# Of the 4096 of a fingerprint. Of real slices 256 hold four fifths of the squared length, 1024 nearly all
DIRECTIONS = (256, 1024)
FEW = 20_000  # pictures that are compared with all sooner than bounds are found
MANY = 1 / 32  # of all pictures: what may be like so many waits for the next bound, and at last for all


@dataclass(frozen=True)
class Likeness:
    """Over the rows of `Looks.table`. Pictures of one grey value are like nothing: they show no slice."""

    equal: NDArray[np.int64]  # (n,): the first row with the very same pixels
    near: NDArray[np.int64]  # (p, 2): pairs of rows, i < j, above `config.COPY_SIMILARITY` but not equal
    similarity: NDArray[np.float64]  # (p,): correlation of the fingerprints of each pair
    nearest: NDArray[np.int64]  # (n,): the most similar row that is not equal; -1 for none


def compare_looks(looks: Looks) -> Likeness:
    """Every picture with every other: those that may be alike exactly, all others by a bound (`common.data.bounds`)."""
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
    best, alike = compare_prints(prints)
    nearest[first] = np.where(best >= 0, first[best], -1)
    for i, j, value in alike:
        # Pictures that equal either of the two are as near
        both = [(a, b) for a in members[first[i]] for b in members[first[j]]]
        pairs += [(min(pair), max(pair)) for pair in both]
        similarity += [value] * len(both)
    nearest = nearest[equal]
    return Likeness(equal, np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array(similarity), nearest)


def compare_prints(prints: Fingerprints) -> tuple[NDArray[np.int64], list[tuple[int, int, float]]]:
    """The most similar other of each of n pictures, (n,), the first of equals, -1 for none; and, ordered, the pairs
    (i, j, likeness), i < j, above `config.COPY_SIMILARITY`.
    """
    count = len(prints.frame)
    nearest = np.full(count, -1, dtype=np.int64)
    alike: list[tuple[int, int, float]] = []

    def look(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        """Rows whose nearest and whose copies are among some columns."""
        like = likeness_of(prints, rows, columns)
        like[rows[:, None] == columns] = 0  # itself
        best = like.argmax(axis=1)
        known = like[np.arange(len(rows)), best] > 0
        nearest[rows[known]] = columns[best[known]]
        for i, j in np.argwhere(like > config.COPY_SIMILARITY):
            if rows[i] < columns[j]:
                alike.append((int(rows[i]), int(columns[j]), float(like[i, j])))

    rest = np.flatnonzero(prints.frame.any(axis=1) | prints.head.any(axis=1))
    for directions in DIRECTIONS if count > max(FEW, 1) else ():
        if not len(rest):
            break
        like_many = [np.zeros(0, np.int64)]
        for rows, above in bounds(prints, rest, directions):
            above[np.arange(len(rows)), rows] = -np.inf  # itself
            guesses, guess = np.unique(above.argmax(axis=1), return_inverse=True)
            # The nearest is at least as near as the guess
            least = likeness_of(prints, rows, guesses)[np.arange(len(rows)), guess]
            wanted = above >= np.minimum(least, config.COPY_SIMILARITY)[:, None]
            many = wanted.sum(axis=1) > MANY * count
            like_many.append(rows[many])
            if not many.all():
                look(rows[~many], np.flatnonzero(wanted[~many].any(axis=0)))
        rest = np.concatenate(like_many)
    step = rows_at_once(count)
    for start in range(0, len(rest), step):
        look(rest[start : start + step], np.arange(count))
    return nearest, sorted(alike)


def _first_equal(digests: list[str], constant: NDArray[np.bool_]) -> NDArray[np.int64]:
    seen: dict[str, int] = {}
    return np.array(
        [row if constant[row] else seen.setdefault(digest, row) for row, digest in enumerate(digests)],
        dtype=np.int64,
    )
