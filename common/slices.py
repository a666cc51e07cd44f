"""The slices that a report shows, from the study's folder."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from common.data.cache import open_cache
from common.data.phantom import draw
from common.errors import StudyError
from common.results import StudyRecord


def slice_reader(record: StudyRecord) -> Callable[[str], NDArray[np.uint8] | None] | None:
    """What shows a sample's slice in the report: a drawing at its full size, else the study's largest cache; nothing
    where that is gone or damaged.
    """
    try:
        cache = open_cache(record.cache_directory(max(map(int, record.document["caches"]))))
        paths = record.samples().set_index("id")["path"]
    except (StudyError, OSError, KeyError, TypeError, ValueError):
        return None

    def read(sample_id: str) -> NDArray[np.uint8] | None:
        path = str(paths.get(sample_id, ""))
        if path.startswith("phantom:"):
            return draw(path).image
        try:
            return cache.read([sample_id])[0]
        except StudyError:  # unknown, or not kept and its file is gone
            return None

    return read
