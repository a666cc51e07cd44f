"""Every overlay of a data set as a mask's file, a row of a table, and a picture on a page to look through."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from common import config
from common.data.folders import PICTURE_SUFFIXES, by_stem, existing_folder, pictures_in, subfolders
from common.data.images import ImageError, read_image, read_painted
from common.data.overlay_pictures import head_of
from common.data.overlays import OverlayMask, read_overlay
from common.errors import StudyError
from common.results import write_page, write_text_table

TEMPLATES = Path(__file__).parents[1] / "report" / "templates"
LEVELS = 4  # folders below the given one among which OVERLAY/ may lie
PLAIN_FOLDERS = ("png", "dicom")  # that may hold the plain slices, the first that does
SHOWN = 200  # pictures on the page
THUMB_PX = 192
THREADS = 2
CONTOUR = (0, 229, 255)  # cyan: neither grey nor the usual red and green


@dataclass(frozen=True)
class Pair:
    """An overlay and its plain slice."""

    id: str  # folders below those that all have in common, without OVERLAY, then the stem
    overlay: Path
    image: Path | None


@dataclass(frozen=True)
class Reading:
    """What came of an overlay; `mask` is None where it cannot be read."""

    pair: Pair
    mask: OverlayMask | None
    pixels: int
    note: str

    @property
    def confidence(self) -> float:
        return 0.0 if self.mask is None else self.mask.confidence


def convert_overlays(data: Path, out: Path) -> str:
    """Write `masks/{class}/NAME.png` (0 and 255), `masks.csv` and `preview.html` to `out`; returns a summary.

    Raises StudyError for a folder without overlays, and for an `out` that holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StudyError(f"{out} is not an empty folder; name a new one, nothing is overwritten")
    pairs = find_pairs(data)
    readings = []
    with ThreadPoolExecutor(THREADS) as pool:
        for number, (reading, png) in enumerate(pool.map(_read, pairs), start=1):
            readings.append(reading)
            if png:
                path = out / "masks" / f"{reading.pair.id}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png)
            if number % 100 == 0 or number == len(pairs):
                print(f"{number} of {len(pairs)} overlays read", flush=True)
    write_text_table(out / "masks.csv", _table(readings))
    write_page(out / "preview.html", preview_page(data.resolve().name, readings))
    return f"{summary(readings)} Look through {out / 'preview.html'}. {config.NOTICE}"


def find_pairs(data: Path) -> list[Pair]:
    """Every picture of every `OVERLAY/` in a folder, with the plain slice of its name, sorted by id.

    The plain slices lie beside (`Bleeding/{OVERLAY,PNG}`), under the same classes (`{OVERLAY,PNG}/Bleeding`), or
    directly in the class's folder.
    """
    root, pairs = existing_folder(data), []
    level = [root]
    for _ in range(LEVELS):
        for shelf in (folder for folder in level if folder.name.casefold() == "overlay" and folder != root):
            for overlays in (shelf, *subfolders(shelf)):
                below = overlays.relative_to(shelf)
                files = by_stem(pictures_in(overlays, beside=_names_of(subfolders(overlays))))
                plain = _plain_slices(shelf.parent, below) if files else {}
                place = PurePosixPath(*shelf.parent.relative_to(root).parts, *below.parts)
                pairs += [Pair(str(place / stem), file, plain.get(stem)) for stem, file in files.items()]
        level = [
            child for folder in level if folder.name.casefold() != "overlay" for child in subfolders(folder)
        ]
    if not pairs:
        raise StudyError(
            f"{root} has no OVERLAY/ with pictures; give the folder that holds PNG/ and OVERLAY/, or the classes "
            "with them"
        )
    wrapper = _wrapper([PurePosixPath(pair.id).parts[:-1] for pair in pairs])
    ids = (str(PurePosixPath(*PurePosixPath(pair.id).parts[wrapper:])) for pair in pairs)
    return sorted((replace(pair, id=id_) for pair, id_ in zip(pairs, ids, strict=True)), key=lambda p: p.id)


def _wrapper(places: Sequence[tuple[str, ...]]) -> int:
    """How many folders all have in common before the first that names a class."""
    shared = 0
    for parts in zip(*places, strict=False):
        if len(set(parts)) > 1 or parts[0].casefold() in config.LABELS:
            break
        shared += 1
    return shared


def _plain_slices(parent: Path, below: Path) -> dict[str, Path]:
    shelves = {folder.name.casefold(): folder for folder in subfolders(parent)}
    for name in PLAIN_FOLDERS:
        if name in shelves and (folder := shelves[name] / below).is_dir():
            suffixes = PICTURE_SUFFIXES | ({""} if name == "dicom" else set())
            if found := by_stem(pictures_in(folder, suffixes, beside=_names_of(subfolders(folder)))):
                return found
    folder = parent / below
    return by_stem(pictures_in(folder, beside=_names_of(subfolders(folder)))) if folder.is_dir() else {}


def _names_of(folders: Sequence[Path]) -> frozenset[str]:
    return frozenset(folder.name.casefold() for folder in folders)


def _read(pair: Pair) -> tuple[Reading, bytes | None]:
    """(what came of it without the pixels, the mask's file)."""
    try:
        found = read_overlay(pair.overlay, pair.image)
    except ImageError as error:
        fault = f"{Path(error.path).name} {error.fault}; {error.remedy}"
        return Reading(pair, None, 0, fault), None
    notes = [] if pair.image else ["there is no plain slice of this name"]
    note = "; ".join([*notes, *([found.note] if found.note else [])])
    png = cv2.imencode(".png", found.mask.astype(np.uint8) * 255)[1].tobytes()
    return Reading(pair, found, int(np.count_nonzero(found.mask)), note), png


def _table(readings: Sequence[Reading]) -> pd.DataFrame:
    rows = [
        (
            one.pair.id,
            one.mask.method if one.mask else "unreadable",
            one.mask.kind if one.mask else "",
            f"{one.confidence:.3f}",
            one.pixels,
            one.note,
        )
        for one in readings
    ]
    return pd.DataFrame(rows, columns=["id", "method", "kind", "confidence", "pixels", "note"])


def summary(readings: Sequence[Reading]) -> str:
    """One sentence of counts."""
    unreadable = sum(one.mask is None for one in readings)
    empty = sum(one.mask is not None and one.pixels == 0 for one in readings)
    doubtful = sum(_is_doubtful(one) for one in readings) - unreadable - empty
    alone = sum(one.mask is not None and one.mask.method == "saturation" for one in readings)
    parts = [
        f"{len(readings) - unreadable} masks out of {len(readings)} overlays",
        f"{alone} by colour alone",
        f"{empty} with nothing painted",
        f"{doubtful} doubtful (confidence below {config.OVERLAY_CONFIDENCE_MIN:g})",
        f"{unreadable} unreadable",
    ]
    return ", ".join(parts) + "."


def _is_doubtful(one: Reading) -> bool:
    return one.confidence < config.OVERLAY_CONFIDENCE_MIN


# --- the page -----------------------------------------------------------------------------------------------------


def preview_page(name: str, readings: Sequence[Reading]) -> str:
    """One self-contained HTML page: the least trusted `SHOWN` overlays, lowest confidence first."""
    order = sorted(readings, key=lambda one: (one.confidence, one.pair.id))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    page = environment.get_template("overlays.html.j2")
    return page.render(
        name=name,
        notice=config.NOTICE,
        css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),  # ours, not the user's
        summary=summary(readings),
        total=len(readings),
        shown=min(SHOWN, len(readings)),
        least=f"{config.OVERLAY_CONFIDENCE_MIN:g}",
        cards=[_card(one) for one in order[:SHOWN]],
    )


def _card(one: Reading) -> dict[str, Any]:
    """What the page shows of one overlay; its pictures are read again, so that memory does not grow with the data."""
    card: dict[str, Any] = {
        "id": one.pair.id,
        "confidence": f"{one.confidence:.2f}",
        "doubtful": _is_doubtful(one),
        "note": one.note[:1].upper() + one.note[1:] if one.mask else one.note,
        "pixels": f"{one.pixels:,}",
        "kind": one.mask.kind if one.mask else "",
        "method": one.mask.method if one.mask else "",
        "pictures": [],
    }
    if one.mask is None:
        return card
    mask, painted = one.mask.mask, read_painted(one.pair.overlay)[..., :3]
    height, width = mask.shape
    if painted.shape[:2] != mask.shape:
        painted = cv2.resize(painted, (width, height), interpolation=cv2.INTER_AREA)
    plain = read_image(one.pair.image) if one.pair.image else cv2.cvtColor(painted, cv2.COLOR_RGB2GRAY)
    window = _cut_out(plain)
    slice_, overlay, found = _thumb(plain[window]), _thumb(painted[window]), mask[window]
    pictures = [("Overlay", overlay), ("Mask's border", _with_border(slice_, found))]
    if one.pair.image is not None:
        pictures.insert(0, ("Slice", slice_))
    card["pictures"] = [(title, _data_uri(pixels)) for title, pixels in pictures]
    return card


def _cut_out(plain: NDArray[np.uint8]) -> tuple[slice, slice]:
    """The rows and columns of the head; all of a picture without one."""
    rows, columns = np.nonzero(head_of(plain))
    if not len(rows):
        return np.s_[:, :]
    return np.s_[int(rows.min()) : int(rows.max()) + 1, int(columns.min()) : int(columns.max()) + 1]


def _thumb(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Fitted into a square of THUMB_PX, RGB, the rest black."""
    colour = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
    scale = THUMB_PX / max(colour.shape[:2])
    size = tuple(max(1, round(side * scale)) for side in colour.shape[1::-1])
    fitted = cv2.resize(colour, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top, left = ((THUMB_PX - side) // 2 for side in fitted.shape[:2])
    framed = np.zeros((THUMB_PX, THUMB_PX, 3), np.uint8)
    framed[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    return framed


def _with_border(thumb: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The mask's outer and inner borders on the thumb, one px wide."""
    drawn = thumb.copy()
    scaled = _thumb(mask.astype(np.uint8) * 255)[..., 0] >= 128
    contours, _ = cv2.findContours(scaled.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(drawn, contours, -1, CONTOUR, 1), np.uint8)


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    """A JPEG of full colour resolution: a page of PNGs would be four times as large."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=85, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
