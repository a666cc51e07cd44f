"""Random changes of a training image: one affine warp with an optional flip, then one intensity table.

Pure functions of (image, numbers in [0, 1)); both frameworks receive the resulting pixels, so that no
framework's own resize, rotation unit or interpolation enters the comparison. A lesion mask takes the same warp.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from common.config import Augmentation
from common.random_numbers import uniform

NUMBERS = 7  # random numbers an image uses: flip, rotation, shift x, shift y, scale, brightness, contrast


def draw_numbers(seed: int, epoch: int, sample_id: str, repeat: int = 0) -> NDArray[np.float64]:
    """The random numbers of one image in one epoch, (NUMBERS,), in [0, 1); `repeat` counts its earlier showings."""
    key = (seed, epoch, sample_id, repeat) if repeat else (seed, epoch, sample_id)
    return uniform(NUMBERS, "augment", *key)


def affine_matrix(size: int, numbers: NDArray[np.float64], ranges: Augmentation) -> NDArray[np.float64]:
    """Destination <- source matrix, (2, 3), in px: flip, then zoom and rotate about the centre, then shift."""
    flip = -1.0 if numbers[0] < ranges.flip_probability else 1.0
    angle = math.radians(ranges.rotation_degrees) * (2 * numbers[1] - 1)
    shift_x, shift_y = ranges.shift_fraction * size * (2 * numbers[2:4] - 1)
    scale = 1 + ranges.scale_fraction * (2 * numbers[4] - 1)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    centre = (size - 1) / 2
    linear = np.array([[flip * cos, -sin], [flip * sin, cos]])
    offset = np.array([centre + shift_x, centre + shift_y]) - linear @ np.array([centre, centre])
    return np.column_stack([linear, offset])


def intensity_table(numbers: NDArray[np.float64], ranges: Augmentation) -> NDArray[np.uint8]:
    """New value of each of the 256 grey values: contrast about mid-grey, then brightness, rounded and clipped."""
    brightness = 255 * ranges.brightness * (2 * numbers[5] - 1)
    contrast = 1 + ranges.contrast * (2 * numbers[6] - 1)
    values = (np.arange(256) - 127.5) * contrast + 127.5 + brightness
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def augment_image(
    image: NDArray[np.uint8], numbers: NDArray[np.float64], ranges: Augmentation
) -> NDArray[np.uint8]:
    """The changed image, uint8 (S, S); what the warp pulls in from outside is black (air)."""
    warped = _warp(image, numbers, ranges)
    return np.asarray(cv2.LUT(warped, intensity_table(numbers, ranges)), dtype=np.uint8)


def augment_mask(
    mask: NDArray[np.bool_], numbers: NDArray[np.float64], ranges: Augmentation
) -> NDArray[np.bool_]:
    """The mask of the changed image, bool (S, S): lesion where the warped lesion covers at least half of a pixel.

    A lesion of a pixel or two may vanish. Outside there is none.
    """
    return _warp(mask.astype(np.float32), numbers, ranges) >= 0.5


def _warp(values: NDArray, numbers: NDArray[np.float64], ranges: Augmentation) -> NDArray:
    size = values.shape[0]
    matrix = affine_matrix(size, numbers, ranges)
    return cv2.warpAffine(
        values, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
