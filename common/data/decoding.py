"""One sample from its files to the study's size: the slice, and its lesion mask where one is asked for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from common.allocator import keep_freed_memory
from common.data.images import ImageError, read_image, resize_image, resize_mask
from common.data.masks import Doubt, read_judged_mask
from common.data.phantom import draw
from common.data.samples import OVERLAY
from common.errors import StudyError
from common.results import pack_masks

DECODE_AHEAD = 64  # decoded slices waiting to be written; bounds memory
CHUNK = 16  # slices that a process decodes at a time
CHUNKS_AHEAD = 3  # of each process
Item = tuple[str, str]  # a sample's path, and its mask as in the table, "" for none asked for
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


def decode_in_order(
    items: Iterable[Item], size: int, threads: int = 2, processes: int = 1
) -> Generator[Slice | ImageError, None, None]:
    """Every item decoded, in order, by threads of this process or, where several are given, by processes of their own.

    The results are the same whoever makes them, and no more than a few are in memory. Raises StudyError where a process
    was killed.
    """
    if processes <= 1:
        with ThreadPoolExecutor(threads) as pool:
            yield from map_in_order(pool, lambda item: decode_sample(*item, size), items)
        return
    # Spawned, not forked: a fork of a process with threads (OpenCV's, a progress bar's) may hang
    spawn = multiprocessing.get_context("spawn")
    workers = ProcessPoolExecutor(processes, mp_context=spawn, initializer=_start_decoder)
    try:
        work = partial(_decode_chunk, size=size)
        for chunk in map_in_order(workers, work, _chunks(items), ahead=CHUNKS_AHEAD * processes):
            yield from chunk
    except BrokenProcessPool as error:
        raise StudyError(
            "a process that decodes pictures was killed, by a lack of memory perhaps; what is finished is kept: give "
            "the same command again"
        ) from error
    finally:
        workers.shutdown(cancel_futures=True)


def _decode_chunk(items: list[Item], size: int) -> list[Slice | ImageError]:
    return [decode_sample(*item, size) for item in items]


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    remaining = iter(items)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk


def _start_decoder() -> None:
    """A decoding process keeps to one core, leaves Ctrl-C to its parent, and dies with it, even if that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    keep_freed_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def map_in_order(
    pool: Executor, work: Callable[[T], R], items: Iterable[T], ahead: int = DECODE_AHEAD
) -> Iterator[R]:
    """`map(work, items)` by the pool, at most `ahead` results in memory."""
    remaining = iter(items)
    waiting = deque(pool.submit(work, item) for item in islice(remaining, ahead))
    while waiting:
        result = waiting.popleft().result()
        waiting.extend(pool.submit(work, item) for item in islice(remaining, 1))
        yield result
