"""A drawn head in Hounsfield units: outline, skull, brain, ventricles, skull base; one patient, any level.

Coordinates. A slice is drawn upright on a square canvas that spans [-1, 1] in x (right of the picture) and y (down,
towards the back of the head); one unit is 120 mm. `level` runs from 0 (orbits, petrous bones) to 1 (vertex). The
shapes of `common.data.shapes` are in brain units: 1 is the half width (x) or half length (y) of the brain at its
largest. Tilt, shift and individual irregularity come last, as one smooth warp from the canvas to the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from common.data.heads import Head, generator
from common.data.shapes import BONES_AND_FACE, BRAIN, MEMBRANES, Structure

Float = NDArray[np.float32]

# Hounsfield units: typical values of radiology textbooks; bone is far above any brain window.
AIR, FAT, SKIN, MUSCLE, BONE, CSF = -1000.0, -90.0, 25.0, 55.0, 950.0, 9.0
WINDOW_CENTRE, WINDOW_WIDTH = 40.0, 80.0  # the brain window

SUPERSAMPLING = 1.375  # canvas pixels a picture pixel: edges are smooth without antialiased drawing
ANGLES = 1024  # entries of an outline table, radius over angle (0 = front, clockwise)
PARTIAL_VOLUME = 0.004  # of the canvas: blur of soft borders, about 1 mm, as a slice is 5 mm thick
WIDEST = 0.42  # level of the largest brain outline
DOME = 0.62  # levels from there to the inner vertex
FIELD_LEVELS = 9  # random fields are given at so many levels and blended between them
FOLDS = 36  # cells across a fold field: gyri are about 12 mm apart, 240 mm / 36 = 6.7 mm a cell
WARP = 7  # cells across a warp field


@dataclass(frozen=True)
class Frame:
    """Where each pixel of an upright slice lies, (S, S) each."""

    x: Float
    y: Float
    angle: NDArray[np.intp]  # index into an outline table
    depth: Float  # distance below the inner table; negative outside the brain
    inner: Float  # radius of the inner table in the pixel's direction
    shell: Float  # distance below the outer table
    folds: Float  # the field whose zero lines are sulci


def frame(head: Head, level: float, size: int) -> Frame:
    """The geometry of a slice on a canvas of `size` pixels a side."""
    x, y, radius, angle = _grid(size)
    inner_table, outer_table = outline(head, level)
    inner = inner_table[angle]
    folds = _at_level(_fields(head.seed, head.patient)[0], level, size)
    return Frame(x, y, angle, inner - radius, inner, outer_table[angle] - radius, folds)


def draw_canvas(head: Head, level: float, sight: Frame) -> Float:
    """Densities of the head without any lesion, HU, (S, S)."""
    x, y, depth, shell = sight.x, sight.y, sight.depth, sight.shell
    hu = np.full_like(depth, AIR)
    box = _box(size=len(hu), half_width=head.half_width * 1.1, half_length=head.half_length * 1.1)
    hu[box] = _brain(head, level, depth[box], sight.folds[box], x[box], y[box])
    for structure in BRAIN:
        _fill(hu, head, structure, level)
    hu[box] = cv2.GaussianBlur(hu[box], (0, 0), len(hu) * PARTIAL_VOLUME)
    for structure in MEMBRANES:
        _fill(hu, head, structure, level)
    # Towards the vertex a slice cuts the skull obliquely, and bone bleeds into the brain's rim.
    slope = 0.006 + 0.05 * max(0.0, level - 0.7)
    hu[box] += (35 + 60 * max(0.0, level - 0.8)) * np.exp(-np.maximum(depth[box], 0) / np.float32(slope))
    np.copyto(hu, BONE, where=depth < 0)
    np.copyto(hu, FAT, where=shell < 0)
    np.copyto(hu, MUSCLE, where=(shell < 0) & (shell > -_muscle(head, level, y)))
    np.copyto(hu, SKIN, where=shell < 0.028 - head.scalp)
    np.copyto(hu, AIR, where=shell < -head.scalp)
    for structure in BONES_AND_FACE:
        _fill(hu, head, structure, level)
    _harden(hu, head, level, x, y)
    return hu


def outline(head: Head, level: float) -> tuple[Float, Float]:
    """Radius of the inner and outer table of the skull over the angle, (ANGLES,) each."""
    angle = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    sine, cosine = np.sin(angle), np.cos(angle)
    wobble = 1 + sum(
        c * np.cos(k * angle) + s * np.sin(k * angle)
        for k, (c, s) in enumerate(zip(head.outline[::2], head.outline[1::2], strict=True), start=2)
    )

    def egg(margin: float | NDArray[np.float64]) -> NDArray[np.float64]:
        rise = (level - WIDEST) / (DOME + margin)
        scale = (
            np.sqrt(np.maximum(0.0, 1 - rise**2)) if level > WIDEST else 1 - 0.12 * (1 - level / WIDEST) ** 2
        )
        width = (head.half_width + margin) * scale * (1 - 0.07 * cosine)  # narrower in front
        length = (head.half_length + margin) * scale
        return wobble * (np.abs(sine / width) ** 2.25 + np.abs(cosine / length) ** 2.25) ** (-1 / 2.25)

    signed = np.minimum(angle, 2 * np.pi - angle)
    crests = 0.025 * np.exp(-((signed / 0.05) ** 2)) + 0.03 * np.exp(-(((np.pi - signed) / 0.07) ** 2))
    brow = 0.05 * np.exp(-((signed / 0.45) ** 2)) * np.exp(-(((level - 0.3) / 0.1) ** 2))  # frontal sinus
    furrows = 0.0035 * np.cos(9 * angle + 40 * head.outline[0] / 0.008) * np.cos(5 * angle + 3 * level)
    inner = egg(0.0) - crests * min(1.0, max(0.0, 1.1 - level)) + furrows
    thickness = head.skull * (1 + 0.18 * np.cos(2 * angle))  # thinnest at the temples
    return inner.astype(np.float32), (egg(thickness) + brow).astype(np.float32)


def place(head: Head, size: int, canvas: Float, border: float) -> Float:
    """The canvas as it lies in the picture: tilted, shifted, zoomed, and irregular as heads are; (size, size)."""
    turn = np.deg2rad(head.tilt_degrees)
    axis = (2 * np.arange(size, dtype=np.float32) + 1) / size - 1
    u, v = axis[None, :] - head.shift[0], axis[:, None] - head.shift[1]
    bend = _fields(head.seed, head.patient)[1]
    rotation = ((np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn)))
    map_x, map_y = (
        (np.float32(head.zoom * across) * u + np.float32(head.zoom * down) * v + _enlarge(field, size) + 1)
        * np.float32(len(canvas) / 2)
        - np.float32(0.5)
        for (across, down), field in zip(rotation, bend, strict=True)
    )
    return cv2.remap(
        canvas, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=border
    )


def finish(head: Head, level: float, hu: Float) -> NDArray[np.uint8]:
    """Head rest, blur of the scanner, correlated noise, brain window: a placed slice in HU -> uint8 (H, W)."""
    size = len(hu)
    if head.table:
        centre, reach = (size // 2, round(size * 0.46)), round(size * head.table / 2)
        cv2.ellipse(hu, centre, (reach, reach), 0, 25, 155, 300.0, max(1, round(size / 110)))
    hu = cv2.GaussianBlur(hu, (0, 0), max(0.3, 0.6 * size / 256))
    noise = generator(head.seed, head.patient, "noise", round(level * 1e6)).standard_normal(
        (size, size), np.float32
    )
    # Reconstruction correlates neighbours. A 3x3 blur leaves a third of the deviation, so this sums to 0.98 of it.
    hu += np.float32(head.noise) * (np.float32(0.6) * noise + np.float32(1.8) * cv2.blur(noise, (3, 3)))
    grey = (hu - np.float32(WINDOW_CENTRE - WINDOW_WIDTH / 2)) * np.float32(255 / WINDOW_WIDTH)
    return np.clip(grey, 0, 255).astype(np.uint8)


# --- parts of a slice ---------------------------------------------------------------------------------------------


def _brain(head: Head, level: float, depth: Float, folds: Float, x: Float, y: Float) -> Float:
    """Cortex along the surface and along the sulci, white matter between, CSF in the sulci and around the falx."""
    cerebellum = level < 0.3
    narrow = folds / np.float32(0.35 if cerebellum else 0.6)
    near = np.exp(-(narrow * narrow))  # 1 on a sulcus
    reach = np.clip(1.7 - depth / np.float32(0.19), 0, 1)  # sulci end 25 to 30 mm below the surface
    rind = np.clip(1.6 - depth / np.float32(0.05), 0, 1)  # cortex is about 4 mm thick
    cortex = np.maximum(rind, near * reach)
    hu: Float = np.float32(head.white) + np.float32(head.grey - head.white) * cortex
    width = (0.16 + 0.26 * head.atrophy) * (0.8 + 1.2 * max(0.0, level - 0.4))
    thin = folds / np.float32(width)
    open_ = 0.35 + 0.50 * head.atrophy + 1.2 * max(0.0, level - 0.55)
    sulci = np.exp(-(thin * thin)) * np.clip(1.3 - depth / np.float32(0.08 + 0.10 * level), 0, 1)
    surface = np.exp(-np.maximum(depth, 0) / np.float32(0.006 + 0.012 * head.atrophy))
    fissure = x / np.float32(0.016 + 0.014 * head.atrophy)
    ends = np.clip((np.abs(y) - np.float32(0.35)) * 8, 0, 1) if level < 0.68 else np.float32(1)
    between = np.exp(-(fissure * fissure)) * ends * (0.0 if level < 0.3 else 0.55)
    hu += (np.float32(CSF) - hu) * np.clip(open_ * np.maximum(sulci, surface) + between, 0, 0.9)
    if head.white_disease and 0.4 < level < 0.85:
        spread = (np.abs(x) - 0.19) ** 2 / 0.018 + (np.abs(y) - 0.26) ** 2 / 0.03
        hu -= np.float32(head.white_disease) * np.exp(-spread) * (1 - cortex)
    if head.cyst is not None:
        cx, cy, at, size = head.cyst
        radius = size * size - (0.55 * (level - at)) ** 2  # half of 1.1: the level axis is about 130 mm long
        if radius > 0:
            np.copyto(
                hu, np.float32(CSF), where=(x - np.float32(cx)) ** 2 + (y - np.float32(cy)) ** 2 < radius
            )
    return hu


def _muscle(head: Head, level: float, y: Float) -> Float:
    """Thickness of the muscle on the skull: of chewing at the temples, of the neck behind the skull base."""
    thickest = np.float32(head.scalp - 0.036)
    temples = 1 - ((y + 0.22) / np.float32(0.34 - 0.2 * level)) ** 2 if level < 0.55 else np.zeros_like(y)
    neck = np.clip((y - 0.40) * 8, 0, 1) * np.float32(level < 0.16)
    return thickest * np.clip(2 * np.maximum(temples, neck), 0, 1)


def _fill(hu: Float, head: Head, structure: Structure, level: float) -> None:
    """Paint one structure, on both sides where it has two."""
    outline_points = structure.at(level)
    if outline_points is None:
        return
    centre = outline_points.mean(axis=0)
    points = _spline(len(outline_points)) @ outline_points
    unit = np.array([head.half_width, head.half_length])
    for side, scale in zip((-1, 1), head.ventricles, strict=True):
        if side < 0 and not structure.paired:
            continue
        if structure.name == "pineal":
            density = head.calcified[0]
        elif structure.name == "choroid plexus":
            density = head.calcified[1]
        elif structure.name in ("falx", "tentorium"):
            density = head.falx if structure.name == "falx" else 0.5 * (head.falx + head.grey)
        else:
            density = structure.hu
        shape = centre + (points - centre) * (scale if structure.ventricle else 1)
        _polygon(hu, shape * unit * (side, 1), density)


def _polygon(hu: Float, points: NDArray[np.float64], density: float) -> None:
    """Fill a closed outline given in canvas units."""
    fixed = np.round(((points + 1) * (len(hu) / 2) - 0.5) * 256).astype(np.int32)
    cv2.fillPoly(hu, [fixed], density, lineType=cv2.LINE_8, shift=8)


def _harden(hu: Float, head: Head, level: float, x: Float, y: Float) -> None:
    """Beam hardening: cupping everywhere, a dark streaked band between the petrous bones."""
    hu += np.float32(2.5) * (x * x + y * y) - np.float32(0.6)
    strength = float(np.exp(-(((level - 0.12) / 0.12) ** 2)))
    if strength > 0.05:
        rows = generator(head.seed, head.patient, "streaks", round(level * 1e6)).standard_normal(len(hu))
        streaks = cv2.GaussianBlur(rows.astype(np.float32)[:, None], (0, 0), len(hu) / 120)
        band = np.exp(-(((y[:, :1] - 0.06) / 0.13) ** 2)) * (np.float32(-7) + np.float32(12) * streaks)
        hu += np.float32(strength) * band * np.exp(-((x[:1] / 0.4) ** 2))


# --- cached tables ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _grid(size: int) -> tuple[Float, Float, Float, NDArray[np.intp]]:
    """x, y, radius and index into an outline table of each canvas pixel."""
    axis = ((2 * np.arange(size, dtype=np.float32) + 1) / size - 1).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    turn = np.arctan2(x, -y) % (2 * np.pi)
    angle = np.round(turn * (ANGLES / (2 * np.pi))).astype(np.intp) % ANGLES
    return x, y, np.hypot(x, y), angle


@lru_cache(maxsize=8)
def _fields(seed: int, patient: int) -> tuple[Float, Float]:
    """A patient's random fields: folds (FIELD_LEVELS, FOLDS, FOLDS) of unit deviation, warp (2, WARP, WARP)."""
    draw = generator(seed, patient, "fields")
    folds = draw.standard_normal((FIELD_LEVELS, FOLDS, FOLDS), np.float32)
    folds = np.stack([cv2.GaussianBlur(field, (0, 0), 0.8) for field in folds])
    return folds / folds.std(), np.float32(0.009) * draw.standard_normal((2, WARP, WARP), np.float32)


def _at_level(fields: Float, level: float, size: int) -> Float:
    """Blend the two nearest fields, keeping their deviation, and enlarge to the canvas."""
    position = min(max(level, 0.0), 0.999) * (len(fields) - 1)
    low, part = int(position), position % 1
    blend = (fields[low] * (1 - part) + fields[low + 1] * part) / np.hypot(part, 1 - part)
    return _enlarge(blend.astype(np.float32), size)


def _box(size: int, half_width: float, half_length: float) -> tuple[slice, slice]:
    """Rows and columns of the middle of a canvas."""
    rows, columns = (round(size / 2 * min(1.0, half)) for half in (half_length, half_width))
    middle = size // 2
    return slice(middle - rows, middle + rows), slice(middle - columns, middle + columns)


def _enlarge(field: Float, size: int) -> Float:
    return cv2.resize(field, (size, size), interpolation=cv2.INTER_CUBIC)


@lru_cache(maxsize=32)
def _spline(corners: int) -> NDArray[np.float64]:
    """Matrix from the corners of a closed polygon to 6 points a corner on its quadratic B-spline."""
    t = np.arange(6) / 6
    weights = np.stack([0.5 * (1 - t) ** 2, 0.5 + t * (1 - t), 0.5 * t**2])
    matrix = np.zeros((corners * 6, corners))
    for corner in range(corners):
        for offset in range(3):
            matrix[corner * 6 : corner * 6 + 6, (corner + offset) % corners] += weights[offset]
    return matrix
