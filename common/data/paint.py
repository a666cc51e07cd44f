"""How much paint lies on each pixel of a slice that somebody painted on.

Paint is an alpha blend, `painted = (1 - a) * grey + a * colour`. Two measures follow, both in grey levels of 255:
the spread of the channels, `a` times the spread of the paint's own colour whatever the grey below (so it is the same
all over a fill, where HSV saturation is not); and, where the plain slice is at hand, the change of brightness, which
shows white and grey paint as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from common import config

LUMA = np.array((0.299, 0.587, 0.114), np.float32)  # ITU-R 601, as in JPEG, which keeps it at full resolution
DARK, BRIGHT = 8, 247  # grey levels beyond which clipping hides a change of brightness
FIT_ROUNDS, BLOCK_PX = 5, 4
NOISE_FACTOR = 6.0  # paint stands out from the noise by so much; JPEG's errors have long tails
EXACT = 0.5  # grey levels that rounding may change
COPY_LEVEL = 1.5  # what counts as paint where overlay and slice are lossless copies of each other
NOISY_HEAD = (
    0.2  # share of the head's pixels that changed a little, from which brightness is noisy (JPEG: half)
)
NOISY_RING = 0.05  # the same for colour, among the pixels about the paint (JPEG rings there only)
RINGING_PX = 16  # side of the blocks within which JPEG smears colour
RINGING_SHARE = 0.2  # of the paint that causes it; more than JPEG of quality 60 shows
BORDER_SHARE, REACH_PX = 0.5, 2  # a smeared border is where half of the paint within this distance is left


@dataclass(frozen=True)
class PaintMap:
    """One measure of paint over the picture."""

    strength: NDArray[np.float32]  # (H, W), grey levels, 0 where there is no paint
    threshold: float  # above it there may be paint
    clean: bool  # no noise: what is not painted is 0


@dataclass(frozen=True)
class Residual:
    """What the overlay has that the plain slice has not."""

    colour: PaintMap  # spread of the channels
    brightness: PaintMap | None  # None without the plain slice
    tint: float  # grey levels of colour that most of the picture has, and that was taken out


def compare(overlay: NDArray[np.uint8], image: NDArray[np.uint8] | None = None, blur_px: int = 0) -> Residual:
    """Colour of the overlay (H, W, 3), and its brightness against the plain slice (H, W), where there is one.

    A tint of the whole picture and a change of its brightness or contrast are fitted on what most pixels say and taken
    out first. `blur_px`: how far resizing may have smeared an edge.
    """
    painted = overlay.astype(np.float32)
    brightness = np.asarray(painted @ LUMA, np.float32)
    fitted = [_fitted(brightness, painted[..., channel]) for channel in range(3)]
    spread = _spread([painted[..., channel] - fitted[channel] for channel in range(3)])
    head = brightness > DARK
    tint = float(np.median(_spread(fitted)[head])) if head.any() else 0.0
    colour = PaintMap(spread, _threshold(spread[head]), _colour_is_clean(spread, head))
    if image is None:
        return Residual(colour, None, tint)
    plain = image.astype(np.float32)
    expected = _fitted(plain, brightness)
    change = np.abs(brightness - expected)
    head = (plain > DARK) & (plain < BRIGHT)
    if not blur_px and _brightness_is_clean(change[head]):
        return Residual(colour, PaintMap(change, COPY_LEVEL, clean=True), tint)
    threshold = _threshold(change[head])
    around = np.ones((3 + 2 * blur_px,) * 2, np.uint8)  # an edge that moved by a pixel is no paint
    change = np.abs(
        brightness - np.clip(brightness, cv2.erode(expected, around), cv2.dilate(expected, around))
    )
    return Residual(colour, PaintMap(change, threshold, clean=False), tint)


def painted_pixels(measure: PaintMap) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(surely painted, perhaps painted), each bool (H, W).

    Perhaps: above the threshold, with the fringe that anti-aliasing, resizing and JPEG leave. Surely: at least half as
    strong as the strongest paint within `REACH_PX`, which puts the border of a smeared edge where it was.
    """
    strength = measure.strength
    perhaps = strength > measure.threshold
    if not measure.clean:
        nearby = _largest_within(strength, RINGING_PX)
        perhaps &= strength > RINGING_SHARE * nearby
        _, labels = cv2.connectedComponents(perhaps.astype(np.uint8), connectivity=8)
        perhaps &= np.isin(labels, np.unique(labels[perhaps & (strength >= BORDER_SHARE * nearby)]))
    return perhaps & (strength >= BORDER_SHARE * _largest_within(strength, REACH_PX)), perhaps


def _fitted(plain: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """`gain * plain + offset`, 0 to 255, as most of `other` says; paint is left out as outliers.

    Fitted on averages of 4 x 4 px and by the ratio of the deviations (reduced major axis): least squares over single
    pixels would take the texture that JPEG smooths away for a loss of contrast.
    """
    size = (max(1, plain.shape[1] // BLOCK_PX), max(1, plain.shape[0] // BLOCK_PX))
    x, y = (cv2.resize(values, size, interpolation=cv2.INTER_AREA).ravel() for values in (plain, other))
    usable = (x > DARK) & (x < BRIGHT) & (y > DARK) & (y < BRIGHT)
    x, y = x[usable], y[usable]
    if not len(x):
        return plain
    gain, offset = 1.0, float(np.median(y - x))
    for _ in range(FIT_ROUNDS):
        error = np.abs(y - gain * x - offset)
        near = error <= max(2.5 * 1.4826 * float(np.median(error)), 3.0)
        spread = float(np.std(x[near]))
        if spread < 1.0:  # one grey level tells no gain
            break
        gain = float(np.std(y[near])) / spread
        offset = float(y[near].mean()) - gain * float(x[near].mean())
    return np.asarray(np.clip(gain * plain + offset, 0, 255), np.float32)


def _spread(channels: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Largest less smallest of three channels; `np.ptp` over a last axis is 20 times slower."""
    red, green, blue = channels
    return np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)


def _threshold(values: NDArray[np.float32]) -> float:
    """The least paint counted, or a multiple of the noise: 1.4826 medians are a normal law's standard deviation."""
    noise = 1.4826 * float(np.median(np.abs(values))) if len(values) else 0.0
    return max(config.OVERLAY_PAINT_LEVEL, NOISE_FACTOR * noise)


def _colour_is_clean(spread: NDArray[np.float32], head: NDArray[np.bool_]) -> bool:
    """Whether nothing rings about the paint, beyond the pixels that anti-aliasing touches."""
    level = config.OVERLAY_PAINT_LEVEL
    strong = spread > np.maximum(level, BORDER_SHARE * _largest_within(spread, RINGING_PX))
    mark = strong.astype(np.float32)
    ring = spread[(_largest_within(mark, RINGING_PX) > 0) & (_largest_within(mark, 3) == 0) & head]
    return not len(ring) or float(np.mean((ring > 2 * EXACT) & (ring <= level))) <= NOISY_RING


def _brightness_is_clean(change: NDArray[np.float32]) -> bool:
    weak = (change > EXACT) & (change <= config.OVERLAY_PAINT_LEVEL)
    return not len(change) or float(np.mean(weak)) <= NOISY_HEAD


def _largest_within(values: NDArray[np.float32], reach_px: int) -> NDArray[np.float32]:
    """Largest value of the square about each pixel, `reach_px` to each side."""
    return np.asarray(cv2.dilate(values, np.ones((2 * reach_px + 1,) * 2, np.uint8)), np.float32)
