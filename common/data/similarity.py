"""Which pictures show the same head? For data sets that do not say whose slices they are, or that overlap.

A fingerprint is the fine structure of a 64 px picture: bright values cut (all bone alike), local mean subtracted, mean
0 and length 1. Two fingerprints' product is their correlation. Two pictures are *copies* of one slice (encoded, sized,
windowed or cropped anew) above `config.COPY_SIMILARITY`; *neighbours* in one head where each is among the two most
similar of the other (a slice has one above and one below) above `config.NEIGHBOUR_SIMILARITY`. What this finds and what
it misses was measured; the numbers stand at these constants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from common import config
from common.data.bounds import Bound
from common.data.images import ImageError, read_image, resize_image

OnProgress = Callable[[int, int], object]  # pictures done, pictures in all

THREADS = 4
VIEW_PX = 256  # a picture is looked at in this size; most of the time goes into decoding it
FINGERPRINT_PX = 64
FINE_PX = (
    2.0  # sigma of the local mean, of the 64: sulci and the skull's edge remain, head size and shading do not
)
BONE_GREY = 150  # brain lies below in every usual window
BACKGROUND_GREY = 40
TABLE_PX = 5  # of 256; the table's arc is thinner, the head is not
# Fingerprints are whole numbers of this length: no sum of their products passes 2**24, so float32 products are exact,
# whatever the order of summation, the number of threads or the machine.
LENGTH = 4000
BLOCK = (
    512  # pictures compared with all others at a time, or fewer, so that no more than so many bytes are held
)
BLOCK_BYTES = 64 * 2**20
TILE = 1024  # of the others at a time
COPY_DIRECTIONS = 64  # for a bound that rules out nearly all that are no copies
ROWS = 16  # pictures whose bounds are looked at together: few, for what one of them needs is computed for all
NEIGHBOURS = 2


@dataclass(frozen=True)
class Fingerprints:
    """Of n pictures; all 0, and so like nothing, where a picture is blank or cannot be read.

    That of the whole frame tells heads apart best; that of the head, cut out, is alike in a cropped or shifted copy.
    """

    frame: NDArray[np.int16]  # (n, 4096)
    head: NDArray[np.int16]  # (n, 4096)

    @classmethod
    def blank(cls, count: int) -> Fingerprints:
        """Of so many pictures, nothing known yet. 16 kB a picture, once it is known."""
        return cls(*(np.zeros((count, FINGERPRINT_PX**2), np.int16) for _ in range(2)))


def group_similar(
    paths: Sequence[str], names: Sequence[str], on_progress: OnProgress = lambda done, total: None
) -> list[str]:
    """The group of each picture, named as the first, by name, of its pictures. The order of the files is of no account.

    `names` are unique and stable, one a path (sample ids). A picture that cannot be read is a group of its own.
    """
    order = np.argsort(np.array(names, dtype=object), kind="stable")
    prints = take_fingerprints([paths[k] for k in order], on_progress)
    _, group = connected_components(_neighbours(prints), directed=False)
    _, first = np.unique(group, return_index=True)
    named = {int(order[k]): names[order[first[g]]] for k, g in enumerate(group)}
    return [named[k] for k in range(len(names))]


def shared_across(
    samples: pd.DataFrame, on_progress: OnProgress = lambda done, total: None
) -> dict[str, str]:
    """Patient -> patient: one name, the first of them, for the patients of different sources that share a slice.

    Two public data sets may hold the same heads under other numbers; unless those patients are one, a split would put
    one head on both sides. Copies within one source are left to its own patients.
    """
    ordered = samples.sort_values("id", kind="stable")
    prints = take_fingerprints(ordered["path"].tolist(), on_progress)
    source = ordered["source"].to_numpy(dtype=object)
    patients, patient = np.unique(ordered["patient"].to_numpy(dtype=object), return_inverse=True)
    links = [(patient[first], patient[second]) for first, second in copies(prints, source)]
    rows, columns = np.array(links, dtype=np.int64).reshape(-1, 2).T
    _, merged = connected_components(
        coo_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(len(patients),) * 2),
        directed=False,
    )
    _, first_of = np.unique(merged, return_index=True)
    return {str(name): str(patients[first_of[m]]) for name, m in zip(patients, merged, strict=True)}


def copies(prints: Fingerprints, source: NDArray[np.object_]) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of pictures of different sources that are copies of one slice."""
    pairs = []
    for rows, above in bounds(prints, np.arange(len(prints.frame)), COPY_DIRECTIONS):
        columns = np.flatnonzero((above > config.COPY_SIMILARITY).any(axis=0))
        found = likeness_of(prints, rows, columns) > config.COPY_SIMILARITY
        found &= (source[rows, None] != source[columns]) & (rows[:, None] < columns)
        pairs += [(int(rows[i]), int(columns[j])) for i, j in np.argwhere(found)]
    return pairs


def take_fingerprints(
    paths: Sequence[str], on_progress: OnProgress = lambda done, total: None
) -> Fingerprints:
    """The fingerprints of picture files, decoded by a few threads."""
    prints = Fingerprints.blank(len(paths))
    with ThreadPoolExecutor(THREADS) as pool:
        for k, picture in enumerate(pool.map(_view, paths)):
            if picture is not None:
                prints.frame[k], prints.head[k] = fingerprint(picture), fingerprint(cut_head(picture))
            on_progress(k + 1, len(paths))
    return prints


def _view(path: str) -> NDArray[np.uint8] | None:
    """The picture in a common size; None where it cannot be read (decoding for the study says why)."""
    try:
        return resize_image(read_image(path), VIEW_PX)
    except ImageError:
        return None


def fingerprint(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Whole numbers of about length `LENGTH`, (4096,), of a grey picture (H, W); 0 for a picture without structure."""
    small = cv2.resize(picture, (FINGERPRINT_PX, FINGERPRINT_PX), interpolation=cv2.INTER_AREA)
    grey = np.minimum(small, BONE_GREY).astype(np.float32)
    fine = (grey - cv2.GaussianBlur(grey, (0, 0), FINE_PX)).ravel().astype(np.float64)
    fine -= fine.mean()
    length = float(np.linalg.norm(fine))
    return np.trunc(fine * (LENGTH / length if length > 1 else 0)).astype(np.float32)


def cut_head(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The box around the largest bright thing but for thin ones; the picture itself where there is none."""
    solid = (picture > BACKGROUND_GREY).astype(np.uint8)
    solid = cv2.morphologyEx(solid, cv2.MORPH_OPEN, np.ones((TABLE_PX, TABLE_PX), np.uint8))
    count, _, boxes, _ = cv2.connectedComponentsWithStats(solid)
    if count < 2:  # background alone
        return picture
    left, top, width, height, _ = boxes[1 + int(np.argmax(boxes[1:, cv2.CC_STAT_AREA]))]
    return picture[top : top + height, left : left + width]


def bounds(
    prints: Fingerprints, rows: NDArray[np.int64], directions: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Some of the rows, and what their `likeness_of` all pictures does not exceed, (up to ROWS, n)."""
    of_frames, of_heads = (Bound.of(one, LENGTH, directions) for one in (prints.frame, prints.head))
    step = rows_at_once(len(prints.frame))
    for start in range(0, len(rows), step):
        some = rows[start : start + step]  # many, for memory is read once for all of them
        above = np.maximum(of_frames.above(some), of_heads.above(some))
        for first in range(0, len(some), ROWS):
            yield some[first : first + ROWS], above[first : first + ROWS]


def likeness_of(
    prints: Fingerprints, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The larger of the correlations of frames and of heads, (rows, columns)."""
    return np.maximum(_products(prints.frame, rows, columns), _products(prints.head, rows, columns))


def similarities(prints: Fingerprints) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.float32]]]:
    """(first row, correlations of the frames, of the heads), each (up to BLOCK, n), by blocks of bounded size."""
    count = len(prints.frame)
    step = rows_at_once(count)
    everyone = np.arange(count)
    for start in range(0, count, step):
        rows = everyone[start : start + step]
        yield start, _products(prints.frame, rows, everyone), _products(prints.head, rows, everyone)


def rows_at_once(count: int) -> int:
    """How many pictures are compared with all `count` in one go."""
    return max(1, min(BLOCK, BLOCK_BYTES // (4 * max(1, count))))


def _products(
    prints: NDArray[np.int16], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Correlations of some fingerprints with others, exact in float32 (see `LENGTH`)."""
    some = prints[rows].astype(np.float32)
    found = np.empty((len(rows), len(columns)), np.float32)
    for first in range(0, len(columns), TILE):
        others = slice(first, first + TILE)
        found[:, others] = some @ prints[columns[others]].astype(np.float32).T
    found *= np.float32(1 / LENGTH**2)
    return found


def _neighbours(prints: Fingerprints) -> coo_array:
    """Sparse (n, n): copies, and neighbours of each other. Copies do not take a neighbour's place."""
    count = len(prints.frame)
    linked: list[tuple[int, int]] = []
    near: set[tuple[int, int]] = set()
    for start, frame, head in similarities(prints):
        here = np.arange(len(frame))
        frame[here, start + here] = head[here, start + here] = 0  # itself
        found = np.maximum(frame, head) > config.COPY_SIMILARITY
        linked += [(start + int(i), int(j)) for i, j in np.argwhere(found)]
        frame[found] = 0
        nearest = np.argpartition(-frame, min(NEIGHBOURS, count) - 1, axis=1)[:, :NEIGHBOURS]
        for i, j in np.argwhere(np.take_along_axis(frame, nearest, axis=1) > config.NEIGHBOUR_SIMILARITY):
            near.add((start + int(i), int(nearest[i, j])))
    linked += [(i, j) for i, j in near if (j, i) in near]
    rows, columns = np.array(linked, dtype=np.int64).reshape(-1, 2).T
    return coo_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(count, count))
