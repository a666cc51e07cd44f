"""Random changes of a training image: one affine warp with an optional flip, then one intensity table.

Pure functions of (image, numbers in [0, 1)); both frameworks receive the resulting pixels, so that no
framework's own resize, rotation unit or interpolation enters the comparison.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from common.config import Augmentation
from common.random_numbers import uniform

NUMBERS = 7  # random numbers an image uses: flip, rotation, shift x, shift y, scale, brightness, contrast


def draw_numbers(seed: int, epoch: int, sample_id: str) -> NDArray[np.float64]:
    """The random numbers of one image in one epoch, (NUMBERS,), in [0, 1)."""
    return uniform(NUMBERS, "augment", seed, epoch, sample_id)


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
    size = image.shape[0]
    matrix = affine_matrix(size, numbers, ranges)
    warped = cv2.warpAffine(
        image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    return np.asarray(cv2.LUT(warped, intensity_table(numbers, ranges)), dtype=np.uint8)
