"""Out of memory, told apart from a fault of the program by what frameworks say. What the kernel says: `workers`."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from common import measure
from common.errors import StudyError
from common.workers import Ending

# PyTorch has a class of its own only for a GPU, JAX for neither; TensorFlow says OOM. Their words, of any version tried
_WORDS = re.compile(
    r"out of memory|\boom\b|resource_exhausted|can't allocate memory|cannot allocate memory|unable to allocate"
    r"|failed to allocate|bad_alloc|cudnn_status_alloc_failed|cublas_status_alloc_failed",
    re.IGNORECASE,
)
_CLASSES = frozenset({"OutOfMemoryError", "ResourceExhaustedError"})


def is_shortage(error: BaseException) -> bool:
    """Whether an exception, or what caused it, says that memory ran out, of the machine or of a GPU."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        if isinstance(one, MemoryError) or type(one).__name__ in _CLASSES or _WORDS.search(str(one)):
            return True
        one = one.__cause__ or one.__context__
    return False


def remedy(batch_size: int | None, devices: int = 1) -> str:
    """What to try where memory ran out: with a batch that the devices of a run can share, where there is a smaller one.

    `batch_size` None: of a command that has no option for it.
    """
    less = "a smaller model or a machine with more memory"
    if batch_size is None:
        return f"try fewer processes at a time, {less}"
    smaller = batch_size // 2 // devices * devices
    if smaller:
        return f"try --batch-size {smaller} in another --out, fewer --workers, {less}"
    share = f" that --devices {devices} can share" if devices > 1 else ""
    return f"{batch_size} is the smallest batch{share}: try fewer --workers, {less}"


def explained(ending: Ending, batch_size: int | None = None, devices: int = 1) -> Ending:
    """How a worker ended, with what to try where it was for want of memory and it could not say so itself."""
    if not ending.short:
        return ending
    return ending._replace(reason=f"{ending.reason}; {remedy(batch_size, devices)}")


def advice(batch_size: int, device: str = "", peak_mib: float | None = None, devices: int = 1) -> str:
    """One sentence: what ran out, with which batch, and what to try."""
    where = "the GPU's memory" if device == "cuda" else "memory"
    held = f" (this process held up to {peak_mib:.0f} MiB)" if peak_mib else ""
    return f"out of {where} with batches of {batch_size}{held}; {remedy(batch_size, devices)}"


@contextmanager
def shortage_named(batch_size: int, device: str, devices: int = 1) -> Iterator[None]:
    """A StudyError in place of a framework's own when memory runs out, whose traceback goes to standard error."""
    try:
        yield
    except StudyError:
        raise
    except Exception as error:
        if not is_shortage(error):
            raise
        traceback.print_exc()
        raise StudyError(advice(batch_size, device, measure.peak_rss_mib(), devices)) from error
