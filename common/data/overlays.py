"""A lesion mask out of a slice with the lesion painted on: a translucent fill, an outline, or both, in any colour.

    python -m common.data.overlays DIR --out FOLDER

reads every overlay of a data set and writes the masks, a table and a page to look through them.

With the plain slice at hand the two are compared (method "difference"); without it, paint is what has colour (method
"saturation"), and white or grey paint cannot be seen. The outline belongs to the lesion.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from common import config
from common.data.images import ImageError, read_image, read_painted
from common.data.outlines import Lesions, find_lesions
from common.data.overlay_pictures import HEAD_LEVEL, grey_of, head_of, opaque, resized
from common.data.paint import LUMA, PaintMap, Residual, compare, painted_pixels
from common.errors import StudyError
from common.options import Parser, run_guarded

MARK_SHARE = 0.5  # a painted part with less than this in the head is a mark beside it
SAME_SLICE = (
    0.9  # share of the unpainted head that must look alike; of other slices of a head, 0.2 to 0.86 did
)
LEAST_REST = 0.2  # share of the head that must be unpainted to tell
MOST_OF_HEAD = 0.5  # a lesion that covers more of the head is a coloured picture rather
TINTED_TRUST = 0.25
NOTED_SHARE = 0.05
HIDDEN_LEVEL = 5.0  # grey levels by which paint may change a pixel and be taken for unseen
SATURATION_TRUST = 0.9  # without the plain slice, white or grey paint goes unseen


@dataclass(frozen=True)
class OverlayMask:
    """The lesion that was painted, and how far to trust it."""

    mask: NDArray[np.bool_]  # (H, W) of the plain slice, where there is one
    method: str  # "difference" | "saturation"
    kind: str  # "fill" | "outline" | "none": how most of it was painted
    confidence: float  # 0 to 1, see `_judged`
    note: str  # what is odd, in words; empty where nothing is


def mask_from_overlay(
    overlay: NDArray[np.uint8], image: NDArray[np.uint8] | None = None
) -> NDArray[np.bool_]:
    """The lesion, bool (H, W), out of `overlay`, uint8 RGB(A) (h, w, 3 or 4) or grey (h, w).

    `image` is the plain slice, uint8 grey (H, W) or RGB(A) (H, W, 3 or 4), of the same proportions; the mask has its
    size. Raises StudyError where sizes or types do not fit.
    """
    return interpret_overlay(overlay, image).mask


def read_overlay(path: str | Path, image_path: str | Path | None = None) -> OverlayMask:
    """`interpret_overlay` of files. Raises ImageError for a file that cannot be used or shows another cut-out."""
    overlay = read_painted(path)
    image = None if image_path is None else read_image(image_path)
    try:
        return interpret_overlay(overlay, image)
    except StudyError as error:
        raise ImageError(path, f"does not fit its picture: {error}", "give the pair as exported") from None


def interpret_overlay(overlay: NDArray[np.uint8], image: NDArray[np.uint8] | None = None) -> OverlayMask:
    """What was painted on the slice; arguments and errors as of `mask_from_overlay`."""
    plain = None if image is None else grey_of(image, "image")
    painted = opaque(overlay, plain)
    blur = 0
    if plain is not None and painted.shape[:2] != plain.shape:
        painted, blur = resized(painted, plain.shape[0], plain.shape[1])
    grey = np.rint(painted @ LUMA).astype(np.uint8) if plain is None else plain
    if grey.max() <= HEAD_LEVEL:
        note = "the picture is black"
        return OverlayMask(np.zeros(grey.shape, bool), _method(plain), "none", 0.0, note)

    residual = compare(painted, plain, blur)
    lesions, sure, hidden = _lesions_of(residual, painted, grey)
    if plain is not None and residual.brightness is not None:
        alike = _alike(residual.brightness, lesions.mask, head_of(plain))
        if alike < SAME_SLICE:  # nothing can be said of the plain slice; of the paint, something
            alone = interpret_overlay(painted)
            note = "; ".join(
                filter(None, [f"looks like another slice ({alike:.0%} of the head alike)", alone.note])
            )
            return OverlayMask(alone.mask, "saturation", alone.kind, min(alone.confidence, 0.3) * alike, note)
    return _judged(lesions, sure, hidden, residual, grey, plain is None)


# --- reading the paint ---------------------------------------------------------------------------------------------


def _method(plain: NDArray[np.uint8] | None) -> str:
    return "saturation" if plain is None else "difference"


def _lesions_of(
    residual: Residual, painted: NDArray[np.uint8], grey: NDArray[np.uint8]
) -> tuple[Lesions, NDArray[np.bool_], NDArray[np.bool_]]:
    """(lesions, surely painted pixels, pixels where the paint could not be seen).

    Brightness adds to colour where it is exact, and serves where there is no colour.
    """
    sure, perhaps = painted_pixels(residual.colour)
    hidden = np.zeros(grey.shape, bool)
    brightness = residual.brightness
    if brightness is not None and (brightness.clean or not perhaps.any()):
        coloured = np.count_nonzero(perhaps)
        more, maybe = painted_pixels(brightness)
        sure, perhaps = sure | more, perhaps | maybe
        if coloured < 0.5 * np.count_nonzero(perhaps):  # white or grey paint
            hidden = _hidden(painted, grey, sure, brightness.threshold)
    return find_lesions(sure, perhaps, residual.colour.strength, hidden), sure, hidden


def _hidden(
    painted: NDArray[np.uint8], grey: NDArray[np.uint8], sure: NDArray[np.bool_], threshold: float
) -> NDArray[np.bool_]:
    """Where the slice is about as bright as the paint, so that it does not show.

    The change `a * (paint - grey)` is a line over the grey below, whose zero is the paint's brightness.
    """
    below = grey[sure].astype(np.float64)
    change = painted[sure] @ LUMA - below
    centred = below - below.mean() if len(below) else below
    opacity = -float(np.mean(centred * change)) / max(float(np.mean(centred**2)), 1e-6) if len(below) else 0.0
    if opacity <= 0:
        return np.zeros(grey.shape, bool)
    paint = min(max(float(below.mean() + change.mean() / opacity), 0.0), 255.0)
    return np.asarray(np.abs(grey - paint) * min(opacity, 1.0) <= max(threshold, HIDDEN_LEVEL)) & (
        grey > HEAD_LEVEL
    )


# --- how far to trust it ------------------------------------------------------------------------------------------


def _judged(
    lesions: Lesions,
    sure: NDArray[np.bool_],
    hidden: NDArray[np.bool_],
    residual: Residual,
    grey: NDArray[np.uint8],
    alone: bool,
) -> OverlayMask:
    """The mask within the head, and its confidence: the product of

    - contrast: 1 less the strongest (95th percentile) rest of colour or brightness about the lesion over that of the
      paint's median: how clearly painted and unpainted differ;
    - closedness: 1 less the share of the mask that is open lines, which enclose nothing;
    - place: from 0.5 to 1 with the share of the paint that lies in the head, not in marks or text beside it;
    - plausibility: 0.25 where more than half of the head is covered or has one tint, for of a picture painted over most
      of the head the rest stands out;
    - sight: 0.9 without the plain slice; with white or grey paint, 1 less the share of the mask's border beyond which
      the slice is as bright as the paint, and less the gaps of up to 9 px in the mask: paint that may not show.

    Nothing painted is 0: a picture that was meant to be painted on and is not, is itself in doubt.
    """
    method = "saturation" if alone else "difference"
    head = head_of(grey)
    mask, outside = _split_marks(lesions.mask, head)
    notes = []
    if outside.any():
        notes.append(f"{np.count_nonzero(outside)} painted pixels beside the head are left out")
    if not mask.any():
        absent = "no colour is found; white or grey paint is seen beside the plain slice only"
        notes.append(absent if alone else "the overlay equals its picture: nothing is painted")
        return OverlayMask(mask, method, "none", 0.0, "; ".join(notes))

    confidence = SATURATION_TRUST if alone else 1.0
    confidence *= _contrast(residual, mask, outside, sure)
    loose = _share(lesions.open_lines, mask)
    if loose > 0:
        notes.append(f"{loose:.0%} of it are lines that enclose nothing")
        confidence *= 1 - loose
    confidence *= 0.5 + 0.5 * _share(mask, mask | outside)
    covered = _share(mask, head)
    if covered > MOST_OF_HEAD:
        notes.append(f"{covered:.0%} of the head is painted")
        confidence *= TINTED_TRUST
    if residual.tint > config.OVERLAY_PAINT_LEVEL:
        notes.append("the whole picture is tinted, or most of it painted")
        confidence *= TINTED_TRUST
    if hidden.any():
        grown = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        unseen = _share(hidden, grown & ~mask)
        whole = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8)) > 0
        broken = 1 - _share(mask, whole)
        if max(unseen, broken) > NOTED_SHARE:
            notes.append("parts of the paint may not show, for the slice is as bright")
        confidence *= (1 - unseen) * (1 - broken)
    kind = "outline" if _share(lesions.outlined, mask) > 0.5 else "fill"
    return OverlayMask(mask, method, kind, round(confidence, 3), "; ".join(notes))


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float:
    """Share of the whole's pixels that lie in the part; 0 of nothing."""
    return float(np.mean(part[whole])) if whole.any() else 0.0


def _split_marks(
    mask: NDArray[np.bool_], head: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(parts in the head, parts mostly beside it)."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    area = np.bincount(labels.ravel(), minlength=count)
    within = np.bincount(labels[head], minlength=count) >= MARK_SHARE * area
    within[0] = False
    return within[labels], mask & ~within[labels]


def _contrast(
    residual: Residual, mask: NDArray[np.bool_], marks: NDArray[np.bool_], sure: NDArray[np.bool_]
) -> float:
    """The better of what colour and brightness say."""
    grown = cv2.dilate((mask | marks).astype(np.uint8), np.ones((7, 7), np.uint8))
    around = (cv2.dilate(grown, np.ones((27, 27), np.uint8)) > 0) & (grown == 0)
    best = 0.0
    for measure in (residual.colour, residual.brightness):
        if measure is None or not (mask & sure).any():
            continue
        paint = float(np.median(measure.strength[mask & sure]))
        rest = float(np.percentile(measure.strength[around], 95)) if around.any() else 0.0
        if paint > measure.threshold:
            best = max(best, 1 - rest / paint)
    return best


def _alike(brightness: PaintMap, mask: NDArray[np.bool_], head: NDArray[np.bool_]) -> float:
    """Share of the head off the paint where overlay and slice are equally bright, but for noise; 0 if there is hardly
    any head left.
    """
    rest = head & (cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8)) == 0)
    if _share(rest, head) < LEAST_REST:
        return 0.0
    return float(np.mean(brightness.strength[rest] <= config.OVERLAY_PAINT_LEVEL))


# --- the command --------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit code."""
    from common.data.overlay_preview import convert_overlays  # it uses this module

    parser = Parser(
        prog="python -m common.data.overlays",
        description=f"Lesion masks out of pictures with the lesion painted on. {config.NOTICE}",
    )
    parser.add_argument("data", type=Path, metavar="DIR", help="a data set with OVERLAY/ beside PNG/")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new or empty folder")
    options = parser.parse_args(arguments)

    def convert() -> int:
        print(convert_overlays(options.data, options.out))
        return 0

    return run_guarded(parser.prog, convert)


if __name__ == "__main__":
    sys.exit(main())
