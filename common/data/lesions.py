"""Strokes in a drawn head: bleeding inside or around the brain, and infarcts of a vascular territory.

A lesion is a body through several levels; a slice shows its section. Lengths are canvas units (120 mm) and angles
run clockwise from the front, as in `common.data.anatomy`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.data.anatomy import ANGLES, Float, Frame, draw_canvas, frame
from common.data.heads import Head, generator

# Smallest section that counts as visible: 0.02 units2 = 288 mm2, a disc 19 mm across.
MIN_AREA = 0.02
LABEL_CANVAS = 80  # px; labels are decided on masks of this size, whatever the picture's
# Anterior, middle and posterior cerebral artery: direction of the middle, half opening, lowest level.
TERRITORIES = ((0.3, 0.3, 0.42), (1.6, 0.5, 0.36), (2.65, 0.4, 0.26))
TERRITORY_SHARES = (0.12, 0.7, 0.18)
OEDEMA = 9.0  # HU below the tissue around a bleed


@dataclass(frozen=True)
class Lesion:
    """One stroke. `angle` and `reach` place its axis; unused numbers are 0."""

    kind: str  # intraparenchymal | epidural | subdural | infarct
    level: float  # of its largest section
    height: float  # half extent, levels
    angle: float  # direction of its middle, radians
    span: float  # half opening, radians (epidural, subdural, infarct)
    reach: float  # distance of the centre (intraparenchymal) or inner end (infarct, fraction of the brain's radius)
    size: float  # radius (intraparenchymal) or thickness (epidural, subdural)
    hu: float  # density of blood, or HU lost in an infarct

    @property
    def label(self) -> str:
        return "ischemia" if self.kind == "infarct" else "bleeding"


def create_lesion(head: Head) -> Lesion | None:
    """The patient's stroke or None. Of each four patients in a row two are healthy, one bleeds, one has an infarct."""
    block, place = divmod(head.patient, 4)
    kind = ("none", "none", "bleeding", "infarct")[generator(head.seed, "block", block).permutation(4)[place]]
    if kind == "none":
        return None
    draw = generator(head.seed, head.patient, "lesion")
    side = 1 if draw.random() < 0.5 else -1
    if kind == "bleeding":
        kind = str(draw.choice(["intraparenchymal", "subdural", "epidural"], p=[0.5, 0.3, 0.2]))
    uniform = draw.uniform
    span, reach, size, hu = 0.0, 0.0, 0.0, uniform(64, 82)
    if kind == "intraparenchymal":
        where = draw.choice(["deep", "lobar", "cerebellar"], p=[0.5, 0.35, 0.15])
        size, height = uniform(0.15, 0.25), uniform(0.22, 0.36)
        if where == "deep":  # basal ganglia and thalamus: the bleed of hypertension
            level, angle, reach = uniform(0.42, 0.66), uniform(1.0, 2.0), uniform(0.16, 0.26)
        elif where == "lobar":
            level, angle, reach = uniform(0.4, 0.85), uniform(0.3, 2.8), uniform(0.22, 0.40)
            reach *= min(1.0, 1.6 - level)
        else:
            level, angle, reach, size = (
                uniform(0.14, 0.28),
                uniform(2.5, 3.0),
                uniform(0.30, 0.42),
                0.7 * size,
            )
    elif kind == "subdural":
        level, height, angle = uniform(0.35, 0.85), uniform(0.25, 0.5), uniform(1.1, 2.1)
        span, size = uniform(0.9, 1.3), uniform(0.10, 0.17)
    elif kind == "epidural":
        level, height, angle = uniform(0.32, 0.85), uniform(0.18, 0.35), uniform(0.6, 2.4)
        span, size = uniform(0.5, 0.75), uniform(0.18, 0.28)
    else:
        angle, span, low = TERRITORIES[draw.choice(len(TERRITORIES), p=TERRITORY_SHARES)]
        level, height, angle = uniform(low, 0.88), uniform(0.2, 0.4), angle + draw.normal(0, 0.15)
        span, reach, hu = span * uniform(1.3, 2.0), uniform(0.1, 0.3), uniform(15, 22)
    nearest = min(head.levels, key=lambda value: abs(value - level))  # so that one slice shows it in full
    return Lesion(kind, nearest, height, side * angle, span, reach, size, hu)


def weight(lesion: Lesion, sight: Frame, level: float) -> Float:
    """How much of each canvas pixel the lesion fills at a level, 0 to 1, (S, S); the mask is where it exceeds 0.5."""
    extent = 1 - ((level - lesion.level) / lesion.height) ** 2
    if extent <= 0:
        return np.zeros_like(sight.depth)
    swell = np.float32(np.sqrt(extent))
    inside = sight.depth > 0
    if lesion.kind == "intraparenchymal":
        return np.clip((1 - _distance(lesion, sight, swell)) * 6 + 0.5, 0, 1) * inside
    direction = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    turn = (direction - lesion.angle + np.pi) % (2 * np.pi) - np.pi
    across = (turn / (lesion.span * swell)).astype(np.float32)[sight.angle]
    if lesion.kind == "infarct":
        ragged = np.abs(across) + 0.12 * sight.folds
        along = (1 - sight.depth / sight.inner - lesion.reach) / (1 - lesion.reach) + 0.08 * sight.folds
        return np.clip((1 - ragged) * 2.5 + 0.5, 0, 1) * np.clip(along * 3 + 0.5, 0, 1) * inside
    # The epidural is held by the sutures and bulges (a lens); the subdural spreads and thins out at its ends only.
    power = 2 if lesion.kind == "epidural" else 6
    thickness = lesion.size * swell * np.clip(1 - np.abs(across) ** power, 0, 1) + 0.003 * sight.folds
    return np.clip((thickness - sight.depth) / np.float32(0.012) + 0.5, 0, 1) * (
        inside & (np.abs(across) < 1)
    )


def visible(lesion: Lesion | None, head: Head, level: float) -> bool:
    """Whether the slice at a level shows at least MIN_AREA of the lesion."""
    if lesion is None or abs(level - lesion.level) >= lesion.height:
        return False
    sight = frame(head, level, LABEL_CANVAS)
    section = paint_lesion(draw_canvas(head, level, sight), lesion, sight, level)
    return float(section.mean()) * 4 >= MIN_AREA  # the canvas measures 2 x 2 units


def paint_lesion(hu: Float, lesion: Lesion, sight: Frame, level: float) -> NDArray[np.bool_]:
    """Change the densities of a canvas in place; returns the lesion's pixels, (S, S)."""
    tissue = (hu > -20) & (hu < 300)  # neither bone nor air
    amount = weight(lesion, sight, level) * tissue
    if lesion.kind == "infarct":
        amount_tissue = amount * np.clip((hu - 14) / 10, 0, 1)  # CSF stays what it is
        flat = np.float32(_mean_tissue(hu, amount) - lesion.hu)
        hu += amount_tissue * (0.35 * hu + 0.65 * (flat + lesion.hu) - lesion.hu - hu)
    else:
        if lesion.kind == "intraparenchymal":
            swell = np.float32(np.sqrt(1 - ((level - lesion.level) / lesion.height) ** 2))
            rim = np.clip((1.5 - _distance(lesion, sight, swell)) * 3, 0, 1) * tissue
            hu -= np.float32(OEDEMA) * rim * np.clip((hu - 14) / 10, 0, 1)
        hu += amount * (np.float32(lesion.hu) + 2.5 * sight.folds - hu)
    return amount > 0.5


def _distance(lesion: Lesion, sight: Frame, swell: np.float32) -> Float:
    """Distance from the centre of an intraparenchymal bleed, 1 at its ragged edge."""
    x, y = lesion.reach * np.sin(lesion.angle), -lesion.reach * np.cos(lesion.angle)
    across, along = sight.x - np.float32(x), (sight.y - np.float32(y)) * np.float32(0.75)
    return np.hypot(across, along) / np.float32(lesion.size * swell) + np.float32(0.13) * sight.folds


def _mean_tissue(hu: Float, amount: Float) -> float:
    """Mean density of brain tissue under the lesion, HU."""
    chosen = hu[(amount > 0.5) & (hu > 20) & (hu < 60)]
    return float(chosen.mean()) if chosen.size else 32.0
