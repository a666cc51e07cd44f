"""Random changes of a training image: one affine warp with an optional flip, then one intensity table.

Pure functions of (image, numbers in [0, 1)); both frameworks receive the resulting pixels, so that no
framework's own resize, rotation unit or interpolation enters the comparison. A lesion mask takes the same warp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from common.config import Augmentation
from common.random_numbers import uniform_rows

NUMBERS = 7  # random numbers an image uses: flip, rotation, shift x, shift y, scale, brightness, contrast

# The smallest share of a pixel that counts as half: `cv2.threshold` keeps what is above, not what is at least.
_BELOW_HALF = float(np.nextafter(np.float32(0.5), np.float32(0)))


def draw_numbers(seed: int, epoch: int, sample_id: str, repeat: int = 0) -> NDArray[np.float64]:
    """The random numbers of one image in one epoch, (NUMBERS,), in [0, 1); `repeat` counts its earlier showings."""
    return draw_batch(seed, epoch, [sample_id], [repeat])[0]


def draw_batch(
    seed: int, epoch: int, sample_ids: Sequence[str], repeats: Sequence[int]
) -> NDArray[np.float64]:
    """`draw_numbers` of several images, (N, NUMBERS)."""
    keys = [
        ("augment", seed, epoch, sample_id, repeat) if repeat else ("augment", seed, epoch, sample_id)
        for sample_id, repeat in zip(sample_ids, repeats, strict=True)
    ]
    return uniform_rows(NUMBERS, keys)


def affine_matrix(size: int, numbers: NDArray[np.float64], ranges: Augmentation) -> NDArray[np.float64]:
    """Destination <- source matrix, (2, 3), in px: flip, then zoom and rotate about the centre, then shift."""
    flipped, turn, right, down, zoom = numbers[:5].tolist()  # Python's floats are the quicker scalars
    flip = -1.0 if flipped < ranges.flip_probability else 1.0
    angle = math.radians(ranges.rotation_degrees) * (2 * turn - 1)
    scale = 1 + ranges.scale_fraction * (2 * zoom - 1)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    centre, reach = (size - 1) / 2, ranges.shift_fraction * size
    matrix = np.array([[flip * cos, -sin, 0.0], [flip * sin, cos, 0.0]])
    moved = matrix[:, :2] @ np.array([centre, centre])
    matrix[0, 2] = centre + reach * (2 * right - 1) - moved[0]
    matrix[1, 2] = centre + reach * (2 * down - 1) - moved[1]
    return matrix


def intensity_table(numbers: NDArray[np.float64], ranges: Augmentation) -> NDArray[np.uint8]:
    """New value of each of the 256 grey values: contrast about mid-grey, then brightness, rounded and clipped.

    Numbers (..., NUMBERS) give tables (..., 256).
    """
    brightness = 255 * ranges.brightness * (2 * numbers[..., 5:6] - 1)
    contrast = 1 + ranges.contrast * (2 * numbers[..., 6:7] - 1)
    values = (np.arange(256) - 127.5) * contrast + 127.5 + brightness
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def changes_shape(ranges: Augmentation) -> bool:
    """Whether any number within the ranges moves a pixel; if not, every warp is the identity, which is exact."""
    return any(
        (ranges.flip_probability, ranges.rotation_degrees, ranges.shift_fraction, ranges.scale_fraction)
    )


def augment_image(
    image: NDArray[np.uint8], numbers: NDArray[np.float64], ranges: Augmentation
) -> NDArray[np.uint8]:
    """The changed image, uint8 (S, S); what the warp pulls in from outside is black (air)."""
    warped = warp_image(image, affine_matrix(image.shape[0], numbers, ranges))
    return np.asarray(cv2.LUT(warped, intensity_table(numbers, ranges)), dtype=np.uint8)


def augment_mask(
    mask: NDArray[np.bool_], numbers: NDArray[np.float64], ranges: Augmentation
) -> NDArray[np.bool_]:
    """The mask of the changed image, bool (S, S): lesion where the warped lesion covers at least half of a pixel.

    A lesion of a pixel or two may vanish. Outside there is none.
    """
    changed = np.empty(mask.shape, dtype=np.float32)
    warp_mask(mask, affine_matrix(mask.shape[0], numbers, ranges), changed)
    return changed.astype(np.bool_)


def warp_image(
    image: NDArray[np.uint8], matrix: NDArray[np.float64], out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """The moved image, uint8 (S, S), in `out` where that is given."""
    return _warp(image, matrix, out)


def warp_mask(
    mask: NDArray[np.bool_], matrix: NDArray[np.float64], out: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The moved mask as 0 and 1 in `out`, float32 (S, S); see `augment_mask`."""
    _warp(mask.astype(np.float32), matrix, out)
    cv2.threshold(out, _BELOW_HALF, 1.0, cv2.THRESH_BINARY, dst=out)
    return out


def _warp(values: NDArray, matrix: NDArray[np.float64], out: NDArray | None) -> NDArray:
    size = values.shape[0]
    return cv2.warpAffine(
        values, matrix, (size, size), dst=out, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
