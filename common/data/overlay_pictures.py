"""Overlay and plain slice brought to one form, whatever channels and size they come in; and where the head is."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from common import config
from common.data.paint import LUMA
from common.errors import StudyError

ASPECT_TOLERANCE = 0.02  # by which the sides of overlay and slice may be in different proportion
HEAD_LEVEL = 24  # grey level between air and head


def grey_of(picture: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    """(H, W) of a grey picture in 1, 3 or 4 channels."""
    if picture.dtype != np.uint8 or not (
        picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (3, 4))
    ):
        raise StudyError(
            f"{name} must be uint8 of shape (H, W), (H, W, 3) or (H, W, 4), not {picture.dtype} {picture.shape}"
        )
    if min(picture.shape[:2]) < config.MIN_IMAGE_PX:
        height, width = picture.shape[:2]
        raise StudyError(
            f"{name} has {width} x {height} px; a side must have at least {config.MIN_IMAGE_PX} px"
        )
    if picture.ndim == 2:
        return picture
    return np.rint(picture[..., :3].astype(np.float32) @ LUMA).astype(np.uint8)


def opaque(overlay: NDArray[np.uint8], plain: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """(H, W, 3). What shows through is the plain slice where it is at hand, so that a layer of paint alone serves."""
    below = grey_of(overlay, "overlay")
    if overlay.ndim == 2:
        return np.repeat(below[..., None], 3, axis=2)
    colour = overlay[..., :3]
    if overlay.shape[2] == 3 or overlay[..., 3].min() == overlay[..., 3].max():
        return colour
    ground = np.zeros(below.shape, np.uint8) if plain is None else plain
    if ground.shape != below.shape:
        ground = cv2.resize(ground, below.shape[::-1], interpolation=cv2.INTER_AREA)
    alpha = overlay[..., 3:].astype(np.float32) / 255
    return np.rint(colour * alpha + ground[..., None] * (1 - alpha)).astype(np.uint8)


def resized(painted: NDArray[np.uint8], height: int, width: int) -> tuple[NDArray[np.uint8], int]:
    """(the overlay at the size of its slice, how many px that smears)."""
    across, down = width / painted.shape[1], height / painted.shape[0]
    if abs(math.log(across / down)) > ASPECT_TOLERANCE:
        sizes = f"{painted.shape[1]} x {painted.shape[0]} px against {width} x {height} px"
        raise StudyError(f"the overlay is in another proportion than its picture ({sizes})")
    how = cv2.INTER_AREA if across < 1 else cv2.INTER_LINEAR
    return cv2.resize(painted, (width, height), interpolation=how), max(1, math.ceil(across))


def head_of(grey: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The largest thing that is no air, with all within its outer border and a margin of 3 px, bool (H, W)."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((grey > HEAD_LEVEL).astype(np.uint8))
    if count == 1:
        return np.zeros(grey.shape, bool)
    largest = labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    contours, _ = cv2.findContours(largest.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    head = cv2.drawContours(np.zeros(grey.shape, np.uint8), contours, -1, 1, cv2.FILLED)
    return np.asarray(cv2.dilate(head, np.ones((7, 7), np.uint8)) > 0)
