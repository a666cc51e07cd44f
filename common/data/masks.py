"""The lesion mask that a row of the sample table speaks of, wherever it comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common import config
from common.data.images import ImageError, read_image, read_mask
from common.data.overlays import read_overlay
from common.data.phantom import draw
from common.data.samples import NO_LESION, OVERLAY
from common.errors import StudyError


@dataclass(frozen=True)
class Doubt:
    """Why an overlay's mask, which is used, is not to be trusted: as in `common.data.overlays.OverlayMask`."""

    method: str
    confidence: float  # below `config.OVERLAY_CONFIDENCE_MIN`
    note: str


def read_lesion_mask(mask: str, path: str) -> NDArray[np.bool_]:
    """The mask, bool (H, W), of the size of the picture at `path`; `mask` as in `common.data.samples`.

    Raises ImageError for a file that cannot be used, StudyError where no mask is known. An overlay on which nothing is
    found painted is such a file: it was made to show a lesion, so that none found says nothing of the slice. A mask's
    file may be empty.
    """
    return read_judged_mask(mask, path)[0]


def read_judged_mask(mask: str, path: str) -> tuple[NDArray[np.bool_], Doubt | None]:
    """`read_lesion_mask`, and the doubt about it where there is one."""
    if not mask:
        raise StudyError(f"no lesion mask is known of {path}; leave the sample out of segmentation")
    if mask.startswith("phantom:"):
        return draw(mask).mask, None
    if mask.startswith(OVERLAY):
        return _read_painted_mask(mask.removeprefix(OVERLAY), path)
    shape = (draw(path).image if path.startswith("phantom:") else read_image(path)).shape
    if mask == NO_LESION:
        return np.zeros(shape, dtype=bool), None
    return read_mask(mask, (shape[0], shape[1])), None


def _read_painted_mask(overlay: str, path: str) -> tuple[NDArray[np.bool_], Doubt | None]:
    found = read_overlay(overlay, path)
    if not found.mask.any():
        fault = f"shows nothing painted ({found.note})" if found.note else "shows nothing painted"
        raise ImageError(overlay, fault, "give the overlay with the lesion on it, or a mask's file")
    if found.confidence >= config.OVERLAY_CONFIDENCE_MIN:
        return found.mask, None
    return found.mask, Doubt(found.method, found.confidence, found.note)
