"""One sample from its files to the study's size: the slice, and its lesion mask where one is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from common.data.images import ImageError, read_image, resize_image, resize_mask
from common.data.masks import Doubt, read_judged_mask
from common.data.phantom import draw
from common.data.samples import OVERLAY
from common.results import pack_masks

DECODE_AHEAD = 64  # decoded slices waiting to be written; bounds memory
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Slice:
    """A decoded sample."""

    image: NDArray[np.uint8]  # (size, size)
    longest_px: int  # side of the picture as read
    mask: (
        NDArray[np.uint8] | None
    )  # packed; None where it shows no lesion, was not asked for or cannot be read
    mask_fault: ImageError | None
    mask_doubt: Doubt | None = None


def read_slice(path: str) -> NDArray[np.uint8]:
    """The slice of a sample's `path`, uint8 (H, W): a picture's file, or a drawing of the phantom."""
    return draw(path).image if path.startswith("phantom:") else read_image(path)


def decode_sample(path: str, mask: str, size: int) -> Slice | ImageError:
    """The slice at `size` px, or why it cannot be read; `mask` as in the sample table, "" for none asked for."""
    lesion, mask_fault, mask_doubt = None, None, None
    try:
        if mask == path and path.startswith("phantom:"):  # drawn once for both
            drawing = draw(path)
            image, lesion = drawing.image, drawing.mask
        else:
            image = read_slice(path)
    except ImageError as error:
        return error
    if mask and lesion is None:
        try:
            lesion, mask_doubt = _read_mask_of(image, mask, path)
        except ImageError as error:
            mask_fault = error
    packed = None
    if lesion is not None and lesion.any():
        packed = pack_masks(resize_mask(lesion, size)[np.newaxis])[0]
    resized = np.ascontiguousarray(resize_image(image, size))
    return Slice(resized, max(image.shape), packed, mask_fault, mask_doubt)


def _read_mask_of(image: NDArray[np.uint8], mask: str, path: str) -> tuple[NDArray[np.bool_], Doubt | None]:
    lesion, doubt = read_judged_mask(mask, path)
    if lesion.shape != image.shape:
        found, wanted = (f"{width} x {height} px" for height, width in (lesion.shape, image.shape))
        fault = f"is {found}, its picture {wanted}"
        raise ImageError(mask.removeprefix(OVERLAY), fault, "a mask must have its picture's size")
    return lesion, doubt


def map_in_order(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`map(work, items)` by the pool's threads, at most DECODE_AHEAD results in memory."""
    remaining = iter(items)
    waiting = deque(pool.submit(work, item) for item in islice(remaining, DECODE_AHEAD))
    while waiting:
        result = waiting.popleft().result()
        waiting.extend(pool.submit(work, item) for item in islice(remaining, 1))
        yield result
