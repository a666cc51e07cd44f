"""From painted pixels to lesions: a fill is taken as it is, an outline with what it encloses.

The outline belongs to the lesion, for readers and programs draw it on the lesion's border pixels. Of a line several
pixels wide, or smeared by JPEG, the border runs along the middle.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from common import config

Mask = NDArray[np.bool_]

MIN_PAINT_PX = 5  # a smaller painted spot is an artefact
CLOSURE = 0.5  # bridging a gap must enclose at least this share of the line's own pixels
WIDE_PX = (
    2.2  # from this width on the middle of a line is sought; the corners of a line 1 px wide look like 1.6
)
SLIVER_PX = 3.5  # an open "line" wider than this is a thin lesion
OUTLINE_CONTRAST = 1.4  # an outline about a fill is at least so much stronger than the fill
OUTLINE_COVERAGE = 0.8  # and runs along this share of the border


@dataclass(frozen=True)
class Lesions:
    """Painted regions, told apart by how they were painted; bool (H, W) each, disjoint."""

    filled: Mask
    outlined: Mask  # closed outlines with their inside
    open_lines: Mask  # lines that enclose nothing

    @property
    def mask(self) -> Mask:
        return self.filled | self.outlined | self.open_lines


def find_lesions(sure: Mask, perhaps: Mask, strength: NDArray[np.float32], hidden: Mask) -> Lesions:
    """Sort the connected parts of the painted pixels by their thickness, and complete each.

    `sure` within `perhaps`: painted pixels without and with their fringe (`common.data.paint`). `strength`: colour
    of each pixel, the same all over a fill. `hidden`: pixels that paint would not change, e.g. white under white.
    An outline within an outline encloses a hole. Where the picture's border closes a line, the smaller side is inside.
    """
    line_px = config.OVERLAY_LINE_PX * max(1.0, min(sure.shape) / 512)
    perhaps = _without_specks(perhaps)
    region = _completed(sure & perhaps, perhaps, hidden)
    lines, thick = _lines_and_fills(region, perhaps, line_px)
    inside = _enclosed(lines)
    crisp = lines & sure
    if (crisp != lines).any() and inside.any():
        within = _enclosed(crisp)  # of lines that close without their fringe, no middle need be sought
        if np.count_nonzero(within & inside) >= 0.98 * np.count_nonzero(inside):
            lines, inside = crisp, within
    closed = _touching(lines, inside)
    loose = lines & ~closed
    bridged, found = _bridged(loose)
    loose, closed, inside = loose & ~bridged, closed | bridged, inside | found
    outlined = inside | (closed & ~_beyond_middle(closed, inside, ~(closed | inside)))
    slivers = _wider_than(region & loose, SLIVER_PX)
    filled = _without_outer_fringe(region & thick, strength) | slivers
    return Lesions(filled & ~outlined, outlined, region & loose & ~slivers & ~outlined)


# --- parts --------------------------------------------------------------------------------------------------------


def _without_specks(painted: Mask) -> Mask:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(painted.astype(np.uint8), connectivity=8)
    kept = stats[:, cv2.CC_STAT_AREA] >= MIN_PAINT_PX
    kept[0] = False
    return kept[labels]


def _completed(sure: Mask, perhaps: Mask, hidden: Mask) -> Mask:
    """The sure pixels with what lies among them: next to a strong outline a weak fill is not sure by itself."""
    pad = 3
    padded = cv2.copyMakeBorder(sure.astype(np.uint8), pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, disc)[pad:-pad, pad:-pad] > 0
    region = sure | (closed & perhaps)
    count, gaps = cv2.connectedComponents((~region).astype(np.uint8), connectivity=4)
    unpainted = np.bincount(gaps[~perhaps & ~hidden], minlength=count) > 0
    if hidden.any():  # what reaches the border is enclosed by nothing
        unpainted[np.unique(np.concatenate([gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]]))] = True
    unpainted[0] = True
    return region | ~unpainted[gaps]


def _lines_and_fills(region: Mask, painted: Mask, line_px: float) -> tuple[Mask, Mask]:
    """The connected parts of `painted` whose region is nowhere thicker than a line, and the others.

    A thin part that is short and encloses nothing is a small lesion and no line.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(painted.astype(np.uint8), connectivity=8)
    thick = np.bincount(labels[region & (_depth(region) > line_px / 2)], minlength=count)
    thin = thick < 0.1 * np.bincount(labels[region], minlength=count)
    thin[0] = False
    extent = np.maximum(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    line = np.zeros(count, bool)
    line[np.unique(labels[_touching(thin[labels], _enclosed(thin[labels] & region))])] = True
    line = thin & (line | (extent > 2 * line_px))
    return line[labels], painted & ~line[labels]


def _enclosed(lines: Mask) -> Mask:
    """What lies within an odd number of closed lines, the lines left out."""
    count, regions, stats, _ = cv2.connectedComponentsWithStats((~lines).astype(np.uint8), connectivity=4)
    if count <= 2:
        return np.zeros(lines.shape, bool)
    _, parts = cv2.connectedComponents(lines.astype(np.uint8), connectivity=8)
    depth = np.full(count, -1)
    depth[1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))] = level = 0  # the outside
    while True:  # from region to region through the lines between them, one line a step
        walls = np.unique(parts[_grown((depth == level)[regions] & ~lines) & lines])
        beyond = np.unique(regions[_grown(np.isin(parts, walls) & lines) & ~lines])
        fresh = beyond[depth[beyond] < 0]
        if not len(fresh):
            return (depth % 2 == 1)[regions] & (depth > 0)[regions] & ~lines
        level += 1
        depth[fresh] = level


def _bridged(lines: Mask) -> tuple[Mask, Mask]:
    """(the lines that enclose something once their gaps are closed, what they enclose); of the smallest bridges."""
    for radius in range(1, config.OVERLAY_GAP_PX // 2 + 1) if lines.any() else ():
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
        core = _enclosed(cv2.dilate(lines.astype(np.uint8), disc) > 0)
        inside = (cv2.dilate(core.astype(np.uint8), disc) > 0) & ~lines
        if inside.any() and np.count_nonzero(inside) >= CLOSURE * np.count_nonzero(lines):
            return _touching(lines, inside), inside
    return np.zeros(lines.shape, bool), np.zeros(lines.shape, bool)


def _touching(region: Mask, other: Mask) -> Mask:
    """The connected parts of a region that lie at the other."""
    _, parts = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
    return np.isin(parts, np.unique(parts[_grown(other) & region])) & region


def _wider_than(region: Mask, width_px: float) -> Mask:
    """The connected parts of a region that are wider than `width_px`, taken as lines."""
    count, parts = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
    area = np.maximum(np.bincount(parts.ravel(), minlength=count), 1)
    depth = np.bincount(parts.ravel(), weights=_depth(region).ravel(), minlength=count) / area
    wide = np.array([_width(mean) > width_px for mean in depth])
    wide[0] = False
    return wide[parts]


# --- the border within a wide line --------------------------------------------------------------------------------


def _without_outer_fringe(region: Mask, strength: NDArray[np.float32]) -> Mask:
    """A fill, less what lies beyond the middle of the outline about it, where it has one."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=8)
    result = region.copy()
    for number in range(1, count):
        left, top, width, height, _ = (int(value) for value in stats[number])
        window = np.s_[max(top - 4, 0) : top + height + 4, max(left - 4, 0) : left + width + 4]
        result[window] &= ~_outer_fringe(parts[window] == number, strength[window])
    return result


def _outer_fringe(part: Mask, strength: NDArray[np.float32]) -> Mask:
    """Of one filled part, the pixels beyond the middle of its outline; none where no outline is seen."""
    none, depth = np.zeros(part.shape, bool), _depth(part)
    core, rim = strength[part & (depth > 4)], strength[part & (depth <= 3)]
    if len(core) < 20 or not len(rim):  # a part that fills the picture has no rim
        return none
    fill, outline = float(np.median(core)), float(np.percentile(rim, 90))
    if outline < OUTLINE_CONTRAST * fill or fill <= 0:
        return none
    line = part & (strength > (fill + outline) / 2)
    to_line = _distance_to(line)
    if np.mean(to_line[part & (depth == 1)] <= 2.5) < OUTLINE_COVERAGE:
        return none
    # Beyond the line are those whose nearest pixel of it lies deeper in the part than they do.
    _, nearest = cv2.distanceTransformWithLabels(
        (~line).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    depth_of_line = np.zeros(int(nearest.max()) + 1, np.float32)
    depth_of_line[nearest[line]] = depth[line]
    fringe = part & ~line & (depth <= 2.5) & (to_line <= 3) & (depth_of_line[nearest] > depth)
    return fringe | _beyond_middle(line, part & ~line & ~fringe, ~part | fringe)


def _beyond_middle(line: Mask, inside: Mask, outside: Mask) -> Mask:
    """The pixels of a line that are clearly nearer to the outside than to the inside; none of a thin line."""
    if not (line.any() and inside.any() and outside.any()):
        return np.zeros(line.shape, bool)
    width = _width(float(_depth(line)[line].mean()))
    if width < WIDE_PX:
        return np.zeros(line.shape, bool)
    to_inside, to_outside = _distance_to(inside), _distance_to(outside)
    return line & (to_inside >= to_outside + 1.2) & (to_inside <= width + 1)


# --- distances ----------------------------------------------------------------------------------------------------


def _width(mean_depth: float) -> float:
    """Width of a line, px, from the mean depth of its pixels: (w + 1)^2 / (4 w) for odd w, solved for w."""
    twice = 2 * mean_depth - 1
    return float(twice + np.sqrt(max(twice**2 - 1, 0.0)))


def _depth(region: Mask) -> NDArray[np.float32]:
    """Distance of each pixel to the nearest one outside the region, px; the picture's border is no outside."""
    padded = cv2.copyMakeBorder(region.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance[1:-1, 1:-1], np.float32)


def _distance_to(region: Mask) -> NDArray[np.float32]:
    """Distance of each pixel to the region, px."""
    distance = cv2.distanceTransform((~region).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance, np.float32)


def _grown(region: Mask) -> Mask:
    return np.asarray(cv2.dilate(region.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
