"""The lesion mask that a row of the sample table speaks of, wherever it comes from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.data.images import read_image, read_mask
from common.data.overlays import read_overlay
from common.data.phantom import draw
from common.data.samples import NO_LESION, OVERLAY
from common.errors import StudyError


def read_lesion_mask(mask: str, path: str) -> NDArray[np.bool_]:
    """The mask, bool (H, W), of the size of the picture at `path`; `mask` as in `common.data.samples`.

    Raises ImageError for a file that cannot be used, StudyError where no mask is known.
    """
    if not mask:
        raise StudyError(f"no lesion mask is known of {path}; leave the sample out of segmentation")
    if mask.startswith("phantom:"):
        return draw(mask).mask
    if mask.startswith(OVERLAY):
        return read_overlay(mask.removeprefix(OVERLAY), path).mask
    shape = (draw(path).image if path.startswith("phantom:") else read_image(path)).shape
    if mask == NO_LESION:
        return np.zeros(shape, dtype=bool)
    return read_mask(mask, (shape[0], shape[1]))
