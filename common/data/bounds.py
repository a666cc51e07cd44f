"""What the products of vectors cannot exceed, at a sixteenth of their price, so that most pairs need no closer look.

Of a few orthonormal directions let p be a vector's part along them and q the rest: <a, b> = <p_a, p_b> + <q_a, q_b>,
and by Cauchy and Schwarz <q_a, q_b> <= |q_a| |q_b|. The directions are the principal ones of some of the vectors, which
leave the least beside them. Whatever they are, the bound holds: they decide about time, and nothing that is found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAMPLE = 2  # times as many vectors as directions: those that the directions are found from
PIECE = 1024  # vectors at a time
SLACK = 1e-4  # for what is lost to float32: sums of 1024 products, together at most 1, are good to 6e-5


@dataclass(frozen=True)
class Bound:
    """Of the products of n vectors of length about 1."""

    along: NDArray[np.float32]  # (n, d): the parts along the directions
    beside: NDArray[np.float32]  # (n,): the lengths of the rests

    @classmethod
    def of(cls, vectors: NDArray[np.int16], length: int, directions: int) -> Bound:
        """Of whole numbers (n, w), `length` of which are 1."""
        basis = principal_directions(vectors, directions)
        along = np.empty((len(vectors), basis.shape[1]), np.float32)
        beside = np.empty(len(vectors), np.float32)
        for first in range(0, len(vectors), PIECE):
            piece = slice(first, first + PIECE)
            some = vectors[piece].astype(np.float64) / length
            parts = some @ basis
            along[piece] = parts
            left = np.einsum("ij,ij->i", some, some) - np.einsum("ij,ij->i", parts, parts)
            beside[piece] = np.sqrt(np.maximum(left, 0))
        return cls(along, beside)

    def above(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """What the products of some vectors with all do not exceed, (rows, n)."""
        found: NDArray[np.float32] = self.along[rows] @ self.along.T
        found += np.outer(self.beside[rows], self.beside)
        found += np.float32(SLACK)
        return found


def principal_directions(vectors: NDArray[np.int16], directions: int) -> NDArray[np.float64]:
    """Orthonormal columns (w, at most d), the principal directions of evenly spaced vectors (n, w)."""
    count, width = vectors.shape
    chosen = np.linspace(0, count - 1, min(count, SAMPLE * directions)).astype(np.int64)
    some = vectors[chosen].astype(np.float64)
    _, mixes = np.linalg.eigh(some @ some.T)  # ascending
    basis, _ = np.linalg.qr(some.T @ mixes[:, ::-1][:, : min(directions, width)])
    return basis
