"""What distinguishes one drawn patient from another: size, age, density, pose, calcifications.

Lengths are canvas units (120 mm), levels run from 0 (orbits) to 1 (vertex); see `common.data.anatomy`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common import random_numbers

PHANTOM_VERSION = "1"  # part of every random key and digest: raise it when the drawing changes

# Hounsfield units of white and grey matter: typical values of radiology textbooks.
WHITE, GREY = 28.5, 38.0


@dataclass(frozen=True)
class Head:
    """What distinguishes one patient, drawn once; lengths in canvas units, densities in HU."""

    seed: int
    patient: int
    levels: tuple[float, ...]  # of the slices, base to vertex
    half_width: float
    half_length: float
    skull: float  # thickness
    scalp: float
    outline: tuple[float, ...]  # Fourier coefficients of the outline, orders 2 to 5, cosine and sine
    tilt_degrees: float
    shift: tuple[float, float]
    zoom: float  # canvas units a picture half width
    white: float
    grey: float
    atrophy: float  # 0 young and tight .. 1 wide sulci and ventricles
    ventricles: tuple[float, float]  # scale of the left and right ones
    white_disease: float  # HU lost around the ventricles on both sides: a distractor of ischemia
    falx: float  # HU; calcified or partial volume when high
    calcified: tuple[float, float]  # HU of pineal and choroid plexus; GREY: not calcified
    cyst: tuple[float, float, float, float] | None  # x, y, level, radius: an old CSF-filled defect
    table: float  # radius of the head rest in picture half widths; 0: outside the picture
    noise: float  # HU, standard deviation


def generator(*names: str | int) -> np.random.Generator:
    """Random numbers of this version of the phantom that depend on the names alone."""
    return random_numbers.generator("phantom", PHANTOM_VERSION, *names)


def create_head(seed: int, patient: int, slices_min: int, slices_max: int) -> Head:
    """The head of a patient. Numbers only: nothing is drawn yet."""
    draw = generator(seed, patient, "head")
    slices = int(draw.integers(slices_min, slices_max + 1))
    first, last = draw.uniform(0.0, 0.14), draw.uniform(0.92, 0.985)
    atrophy = float(draw.beta(1.3, 2.2))
    size, balance = draw.normal(0.85 + 0.6 * atrophy, 0.10), draw.normal(0, 0.10)
    cyst = None
    if draw.random() < 0.15:
        angle, reach = draw.uniform(-np.pi, np.pi), draw.uniform(0.25, 0.5)
        cyst = (
            reach * np.sin(angle),
            -reach * np.cos(angle),
            draw.uniform(0.4, 0.85),
            draw.uniform(0.03, 0.08),
        )
    return Head(
        seed=seed,
        patient=patient,
        levels=tuple(float(level) for level in np.linspace(first, last, slices)),
        half_width=draw.normal(0.575, 0.018),
        half_length=draw.normal(0.70, 0.022),
        skull=draw.uniform(0.035, 0.075),
        scalp=draw.uniform(0.045, 0.085),
        outline=tuple(draw.normal(0, (0.008, 0.008, 0.006, 0.006, 0.003, 0.003, 0.002, 0.002))),
        tilt_degrees=draw.normal(0, 4),
        shift=(draw.normal(0, 0.025), draw.normal(0, 0.025)),
        zoom=draw.uniform(0.88, 1.02),
        white=draw.normal(WHITE, 1.0),
        grey=draw.normal(GREY, 1.0),
        atrophy=atrophy,
        ventricles=(max(0.5, size * (1 + balance)), max(0.5, size * (1 - balance))),
        white_disease=float(draw.uniform(2, 6)) if draw.random() < 0.3 * (0.4 + atrophy) else 0.0,
        falx=draw.uniform(42, 62) if draw.random() < 0.8 else draw.uniform(62, 110),
        calcified=(
            draw.uniform(70, 200) if draw.random() < 0.4 else GREY,
            draw.uniform(70, 200) if draw.random() < 0.35 else GREY,
        ),
        cyst=cyst,
        table=draw.uniform(1.03, 1.3) if draw.random() < 0.7 else 0.0,
        noise=draw.uniform(1.8, 3.4),
    )
