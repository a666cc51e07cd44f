"""Out of memory, told apart from a fault of the program by what frameworks say. What the kernel says: `workers`."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from common import measure
from common.errors import StudyError

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


def advice(batch_size: int, device: str = "", peak_mib: float | None = None) -> str:
    """One sentence: what ran out, with which batch, and what to try."""
    where = "the GPU's memory" if device == "cuda" else "memory"
    held = f" (this process held up to {peak_mib:.0f} MiB)" if peak_mib else ""
    if batch_size > 1:
        remedy = (
            f"try --batch-size {batch_size // 2} in another --out, fewer --workers, or a machine with more"
        )
    else:
        remedy = "try smaller images, fewer --workers, or a machine with more"
    return f"out of {where} with batches of {batch_size}{held}; {remedy}"


@contextmanager
def shortage_named(batch_size: int, device: str) -> Iterator[None]:
    """A StudyError in place of a framework's own when memory runs out, whose traceback goes to standard error."""
    try:
        yield
    except StudyError:
        raise
    except Exception as error:
        if not is_shortage(error):
            raise
        traceback.print_exc()
        raise StudyError(advice(batch_size, device, measure.peak_rss_mib())) from error
