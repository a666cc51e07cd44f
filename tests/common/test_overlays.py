"""A painted lesion comes back as it was, however it was painted; what is doubtful says so."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common import config
from common.data import overlay_preview
from common.data.images import ImageError, read_image
from common.data.masks import read_lesion_mask
from common.data.outlines import find_lesions
from common.data.overlays import interpret_overlay, main, mask_from_overlay, read_overlay
from common.data.phantom import draw, paint_overlay, phantom_samples
from common.errors import StudyError

PX = 256
RED = (255, 0, 0)


def with_lesion(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Slices with lesions of at least 60 px, of different patients."""
    table = phantom_samples(config.Phantom(patients=40, image_size=PX))
    found = []
    for _, slices in table[table["label"] != "normal"].groupby("patient"):
        drawing = draw(slices["path"].iloc[len(slices) // 2])
        if drawing.mask.sum() >= 60:
            found.append((drawing.image, drawing.mask))
    return found[:count]


SLICES = with_lesion(5)
IMAGE, MASK = SLICES[0]


def painted(
    image: np.ndarray,
    mask: np.ndarray,
    colour: tuple[int, int, int] = RED,
    opacity: float = 0.35,
    outline_px: int = 1,
    smooth: bool = False,
    quality: int = 0,
) -> np.ndarray:
    """A reader's painting: opacity 0 is no fill, outline 0 no line, `smooth` anti-aliased, `quality` through JPEG."""
    colours = np.repeat(image[..., None], 3, axis=2)
    blend = colours[mask] * (1 - opacity) + np.array(colour) * opacity
    colours[mask] = np.round(blend).astype(np.uint8)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if outline_px:
        cv2.drawContours(colours, contours, -1, colour, outline_px, cv2.LINE_AA if smooth else cv2.LINE_8)
    return through_jpeg(colours, quality) if quality else colours


def through_jpeg(colours: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(colours).save(stream, "JPEG", quality=quality)  # chroma at half resolution
    return np.array(Image.open(stream).convert("RGB"))


def enclosed(mask: np.ndarray) -> np.ndarray:
    """What an outline says of a lesion: it cannot tell its holes."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros(mask.shape, np.uint8), contours, -1, 1, cv2.FILLED) > 0


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def blob(rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
    """An ellipse within the given rows and columns."""
    y, x = np.mgrid[:PX, :PX]
    (top, bottom), (left, right) = rows, columns
    height, width = (bottom - top) / 2, (right - left) / 2
    return ((y - (top + bottom) / 2) / height) ** 2 + ((x - (left + right) / 2) / width) ** 2 <= 1


FLAT = np.full((PX, PX), 100, np.uint8)


# --- renderings ---------------------------------------------------------------------------------------------------

# Rendering, least mean Dice: some way below what was measured, far above what a broken rule gives.
RENDERINGS: dict[str, tuple[dict[str, Any], float]] = {
    "fill and outline": ({}, 0.9999),
    "faint fill and outline": ({"opacity": 0.15}, 0.9999),
    "strong fill and outline": ({"opacity": 0.6}, 0.9999),
    "fill": ({"outline_px": 0}, 0.9999),
    "faint fill": ({"outline_px": 0, "opacity": 0.15}, 0.9999),
    "outline": ({"opacity": 0}, 0.999),
    "outline of 2 px": ({"opacity": 0, "outline_px": 2}, 0.96),
    "outline of 3 px": ({"opacity": 0, "outline_px": 3}, 0.94),
    "fill and outline of 2 px": ({"outline_px": 2}, 0.96),
    "smooth outline": ({"opacity": 0, "smooth": True}, 0.99),
    "fill and smooth outline": ({"smooth": True}, 0.99),
    "green": ({"colour": (0, 255, 0)}, 0.9999),
    "blue": ({"colour": (0, 0, 255)}, 0.9999),
    "yellow": ({"colour": (255, 255, 0)}, 0.9999),
    "magenta": ({"colour": (255, 0, 255)}, 0.9999),
    "cyan": ({"colour": (0, 255, 255)}, 0.9999),
    "brown": ({"colour": (150, 80, 40)}, 0.9999),
    "jpeg, fill and outline": ({"quality": 75}, 0.95),
    "jpeg, fill": ({"quality": 75, "outline_px": 0}, 0.95),
    "jpeg, outline": ({"quality": 75, "opacity": 0}, 0.95),
    "jpeg, outline of 2 px": ({"quality": 75, "opacity": 0, "outline_px": 2}, 0.95),
    "jpeg, smooth yellow outline": (
        {"quality": 75, "opacity": 0, "smooth": True, "colour": (255, 255, 0)},
        0.94,
    ),
    "jpeg, faint fill": ({"quality": 75, "opacity": 0.15, "outline_px": 0}, 0.94),
}


@pytest.mark.parametrize("beside", [True, False], ids=["with the slice", "alone"])
@pytest.mark.parametrize("name", RENDERINGS)
def test_renderings_come_back(name: str, beside: bool) -> None:
    options, least = RENDERINGS[name]
    scores = []
    for image, mask in SLICES:
        found = interpret_overlay(painted(image, mask, **options), image if beside else None)
        scores.append(dice(found.mask, enclosed(mask) if options.get("opacity") == 0 else mask))
        assert found.method == ("difference" if beside else "saturation")
        assert found.confidence >= (0.8 if beside else 0.7)
    assert np.mean(scores) >= least


@pytest.mark.parametrize("colour", [(255, 255, 255), (170, 170, 170), (0, 0, 0)])
def test_paint_without_colour_is_seen_beside_the_slice(colour: tuple[int, int, int]) -> None:
    """But where the slice is as bright as the paint, which is told."""
    for image, mask in SLICES:
        overlay = painted(image, mask, colour=colour)
        found = interpret_overlay(overlay, image)
        # White on a saturated bleed leaves little to see.
        assert dice(found.mask, mask) >= 0.9 or (found.confidence < 0.7 and "may not show" in found.note)
        assert np.count_nonzero(found.mask & ~mask) <= 0.01 * mask.sum()
        alone = interpret_overlay(overlay)
        assert alone.kind == "none"
        assert alone.confidence == 0
        assert "plain slice" in alone.note


def test_the_phantoms_own_painting_comes_back() -> None:
    for image, mask in SLICES:
        np.testing.assert_array_equal(mask_from_overlay(paint_overlay(image, mask)), mask)


@settings(max_examples=12)
@given(st.tuples(*[st.integers(0, 255)] * 3).filter(lambda c: max(c) - min(c) >= 80), st.floats(0.2, 0.6))
def test_no_colour_is_special(colour: tuple[int, int, int], opacity: float) -> None:
    found = interpret_overlay(painted(IMAGE, MASK, colour=colour, opacity=opacity))
    np.testing.assert_array_equal(found.mask, MASK)
    assert found.kind == "fill"


def test_grey_rgb_and_alpha_are_one_picture() -> None:
    overlay = painted(IMAGE, MASK)
    seen = np.dstack([overlay, np.full(MASK.shape, 255, np.uint8)])
    for image in (IMAGE, np.dstack([IMAGE] * 3), np.dstack([IMAGE] * 3 + [np.full_like(IMAGE, 7)])):
        np.testing.assert_array_equal(mask_from_overlay(seen, image), MASK)
    layer = np.zeros((PX, PX, 4), np.uint8)  # the paint alone, see-through elsewhere
    layer[MASK] = (0, 200, 0, 100)
    np.testing.assert_array_equal(mask_from_overlay(layer, IMAGE), MASK)


# --- shapes -------------------------------------------------------------------------------------------------------


def line_about(mask: np.ndarray) -> np.ndarray:
    return painted(FLAT, mask, opacity=0)


def test_several_lesions() -> None:
    mask = blob((40, 70), (40, 90)) | blob((150, 210), (120, 150)) | blob((100, 109), (200, 212))
    for opacity, kind in ((0, "outline"), (0.3, "fill")):
        found = interpret_overlay(painted(FLAT, mask, opacity=opacity), FLAT)
        np.testing.assert_array_equal(found.mask, mask)
        assert found.kind == kind
        assert found.confidence == 1


def test_a_ring_that_is_filled_keeps_its_hole() -> None:
    ring = blob((60, 180), (60, 180)) & ~blob((90, 150), (90, 150))
    for outline_px in (0, 1):
        np.testing.assert_array_equal(mask_from_overlay(painted(FLAT, ring, outline_px=outline_px)), ring)


def test_an_outline_within_an_outline_is_a_hole_and_within_that_a_lesion() -> None:
    outer, hole, inner = blob((40, 200), (40, 200)), blob((80, 160), (80, 160)), blob((105, 135), (105, 135))
    overlay = np.repeat(FLAT[..., None], 3, axis=2)
    ring = outer & ~hole
    contours, _ = cv2.findContours(ring.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(overlay, contours, -1, RED, 1)
    np.testing.assert_array_equal(mask_from_overlay(overlay), ring)
    contours, _ = cv2.findContours(inner.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(overlay, contours, -1, RED, 1)
    np.testing.assert_array_equal(mask_from_overlay(overlay), ring | inner)


@pytest.mark.parametrize("edge", ["top", "left", "corner"])
def test_a_lesion_cut_by_the_pictures_border(edge: str) -> None:
    rows = (-40, 60) if edge in ("top", "corner") else (80, 160)
    columns = (-40, 60) if edge in ("left", "corner") else (80, 160)
    mask = blob(rows, columns)
    np.testing.assert_array_equal(mask_from_overlay(line_about(mask)), mask)
    open_at_the_border = line_about(mask)  # a pen that stops there
    open_at_the_border[0] = open_at_the_border[:, 0] = 100
    assert dice(mask_from_overlay(open_at_the_border), mask) > 0.95
    np.testing.assert_array_equal(mask_from_overlay(painted(FLAT, mask)), mask)


@pytest.mark.parametrize("gap_px", [1, 3, 6])
def test_a_small_gap_of_an_outline_is_closed(gap_px: int) -> None:
    mask = blob((60, 180), (60, 180))
    overlay = line_about(mask)
    overlay[: PX // 2, 118 : 118 + gap_px] = 100
    found = interpret_overlay(overlay, FLAT)
    assert dice(found.mask, mask) > 0.99
    assert found.kind == "outline"


def test_an_open_line_encloses_nothing_and_is_doubtful() -> None:
    mask = blob((60, 180), (60, 180))
    overlay = line_about(mask)
    overlay[:, 120:] = 100
    found = interpret_overlay(overlay, FLAT)
    assert found.mask.sum() < 0.05 * mask.sum()
    assert found.confidence < config.OVERLAY_CONFIDENCE_MIN
    assert "enclose nothing" in found.note


def test_a_thin_filled_lesion_is_no_open_line() -> None:
    mask = blob((30, 210), (60, 200)) & ~blob((30, 216), (65, 206))  # a crescent, 5 px at most
    found = interpret_overlay(painted(FLAT, mask), FLAT)
    assert dice(found.mask, mask) > 0.99
    assert found.confidence > 0.9


def test_the_middle_of_a_wide_line_is_the_border() -> None:
    mask = blob((60, 180), (60, 180))
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for opacity in (0, 0.3):
        overlay = painted(FLAT, mask, opacity=opacity, outline_px=0)
        cv2.drawContours(overlay, contours, -1, RED, 4)
        found = mask_from_overlay(overlay)
        assert dice(found, mask) > 0.985
        assert dice(found, mask) > dice(found | (overlay[..., 1] < 50), mask) + 0.01


def test_lines_and_fills_are_told_apart_on_large_pictures_too() -> None:
    mask = blob((60, 180), (60, 180))
    large = cv2.resize(line_about(mask), (1024, 1024), interpolation=cv2.INTER_NEAREST)
    found = interpret_overlay(large)
    assert found.kind == "outline"
    assert dice(found.mask, cv2.resize(mask.astype(np.uint8), (1024, 1024)) > 0) > 0.97


def test_no_paint_no_lesions() -> None:
    nothing = np.zeros((PX, PX), bool)
    assert not find_lesions(nothing, nothing, np.zeros((PX, PX), np.float32), nothing).mask.any()


# --- the pair -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"opacity": 0}, {"colour": (255, 255, 0), "outline_px": 0}])
def test_another_size_brightness_and_jpeg_of_the_plain_slice(options: dict[str, Any]) -> None:
    wanted = enclosed(MASK) if options.get("opacity") == 0 else MASK
    overlay = painted(IMAGE, MASK, **options)
    brighter = np.clip(overlay * 0.85 + 20, 0, 255).astype(np.uint8)
    noisy = through_jpeg(np.dstack([IMAGE] * 3), 80)[..., 0]
    smaller = cv2.resize(overlay, (240, 240), interpolation=cv2.INTER_AREA)
    larger = cv2.resize(overlay, (384, 384), interpolation=cv2.INTER_CUBIC)
    for other, plain in ((brighter, IMAGE), (overlay, noisy), (smaller, IMAGE), (larger, IMAGE)):
        found = interpret_overlay(other, plain)
        assert found.mask.shape == IMAGE.shape
        assert found.method == "difference"
        assert dice(found.mask, wanted) > 0.96


def test_a_tinted_picture_is_not_painted_all_over() -> None:
    overlay = painted(IMAGE, MASK, colour=(0, 0, 255)).astype(np.float64) * [1, 0.93, 0.85]
    for image in (IMAGE, None):
        found = interpret_overlay(overlay.astype(np.uint8), image)
        assert dice(found.mask, MASK) > 0.98
        assert "tinted" in found.note
        assert found.confidence < config.OVERLAY_CONFIDENCE_MIN


def test_an_overlay_equal_to_its_picture_is_empty_and_says_so() -> None:
    for quality in (0, 75):
        plain = np.dstack([IMAGE] * 3)
        found = interpret_overlay(through_jpeg(plain, quality) if quality else plain, IMAGE)
        assert not found.mask.any()
        assert (found.kind, found.confidence) == ("none", 0)
        assert "nothing is painted" in found.note
    black = interpret_overlay(np.zeros((PX, PX, 3), np.uint8))
    assert (black.kind, black.confidence, black.note) == ("none", 0, "the picture is black")


def test_marks_beside_the_head_are_no_lesion_and_cost_confidence() -> None:
    overlay = painted(IMAGE, MASK)
    plain = interpret_overlay(overlay, IMAGE)
    cv2.putText(overlay, "3 cm", (4, PX - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 200, 0), 2)
    for image in (IMAGE, None):
        found = interpret_overlay(overlay, image)
        np.testing.assert_array_equal(found.mask, MASK)
        assert found.confidence < plain.confidence - 0.02
        assert "beside the head" in found.note


def test_a_coloured_picture_is_doubtful() -> None:
    overlay = np.ascontiguousarray(cv2.applyColorMap(IMAGE, cv2.COLORMAP_JET)[..., ::-1])
    for image in (IMAGE, None):
        assert interpret_overlay(overlay, image).confidence < config.OVERLAY_CONFIDENCE_MIN


@pytest.mark.parametrize("beside", [True, False])
def test_paint_over_most_of_the_head_is_doubtful(beside: bool) -> None:
    """What most of the picture has is taken for its tint, and what has not for paint."""
    rows = np.flatnonzero((IMAGE > 30).any(axis=1))
    for share, doubtful in ((0.3, False), (0.75, True)):
        end = rows[0] + int(share * len(rows))
        most = (IMAGE > 30) & (np.arange(PX) < end)[:, None]
        found = interpret_overlay(painted(IMAGE, most, outline_px=0), IMAGE if beside else None)
        assert (found.confidence < config.OVERLAY_CONFIDENCE_MIN) == doubtful


def test_a_line_about_the_whole_head_is_doubtful() -> None:
    found = interpret_overlay(painted(IMAGE, enclosed(IMAGE > 30), opacity=0), IMAGE)
    assert found.kind == "outline"
    assert re.search(r"\d\d% of the head is painted", found.note)
    assert found.confidence < config.OVERLAY_CONFIDENCE_MIN


def test_another_slice_is_doubtful() -> None:
    for other, _ in SLICES[1:]:
        found = interpret_overlay(painted(IMAGE, MASK), other)
        assert found.method == "saturation"
        assert found.confidence < config.OVERLAY_CONFIDENCE_MIN
        assert "another slice" in found.note


def test_noise_costs_confidence() -> None:
    values = [
        interpret_overlay(painted(IMAGE, MASK, quality=quality), IMAGE).confidence
        for quality in (0, 90, 60, 30)
    ]
    assert values == sorted(values, reverse=True)
    assert values[0] == 1


def test_what_cannot_be_a_pair_is_refused(tmp_path: Path) -> None:
    overlay = painted(IMAGE, MASK)
    with pytest.raises(StudyError, match="proportion than its picture"):
        mask_from_overlay(overlay, IMAGE[:200])
    with pytest.raises(StudyError, match="overlay must be uint8 of shape"):
        mask_from_overlay(overlay.astype(np.float32))  # type: ignore[arg-type]
    with pytest.raises(StudyError, match="overlay must be uint8 of shape"):
        mask_from_overlay(overlay[..., :2])
    with pytest.raises(StudyError, match="image has 256 x 10 px"):
        mask_from_overlay(overlay, IMAGE[:10])
    saved(tmp_path / "o.png", overlay)
    saved(tmp_path / "i.png", IMAGE[:200])
    with pytest.raises(ImageError, match=r"o\.png does not fit its picture"):
        read_overlay(tmp_path / "o.png", tmp_path / "i.png")
    with pytest.raises(ImageError, match="does not exist"):
        read_overlay(tmp_path / "none.png", tmp_path / "i.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "o.png").read_bytes()[:-200])
    with pytest.raises(ImageError, match=r"bad\.png"):
        read_overlay(tmp_path / "bad.png")


# --- files --------------------------------------------------------------------------------------------------------


def saved(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def test_overlays_of_any_kind_of_file(tmp_path: Path) -> None:
    overlay = painted(IMAGE, MASK)
    layer = np.zeros((PX, PX, 4), np.uint8)
    layer[MASK] = (0, 200, 0, 100)
    image = saved(tmp_path / "slice.png", IMAGE)
    files = {
        "rgba.png": Image.fromarray(np.dstack([overlay, np.full_like(IMAGE, 255)])),
        "palette.png": Image.fromarray(np.where(MASK, 1, 0).astype(np.uint8), mode="P"),
        "layer.png": Image.fromarray(layer),
        "rgb.tif": Image.fromarray(overlay),
    }
    files["palette.png"].putpalette([90, 90, 90, 200, 30, 30])
    for name, picture in files.items():
        picture.save(tmp_path / name)
        beside = None if name == "palette.png" else image
        np.testing.assert_array_equal(read_overlay(tmp_path / name, beside).mask, MASK)


def test_the_mask_of_a_sample(tmp_path: Path) -> None:
    image = saved(tmp_path / "PNG" / "1.png", IMAGE)
    overlay = saved(tmp_path / "OVERLAY" / "1.png", painted(IMAGE, MASK))
    drawn = saved(tmp_path / "MASKS" / "1.png", MASK.astype(np.uint8) * 255)
    for mask in (f"overlay:{overlay}", str(drawn)):
        np.testing.assert_array_equal(read_lesion_mask(mask, str(image)), MASK)
    healthy = read_lesion_mask("none", str(image))
    assert healthy.shape == MASK.shape
    assert not healthy.any()
    phantom = config.Phantom(patients=6, image_size=64)
    table = phantom_samples(phantom)
    for row in (table[table["mask"] != "none"].iloc[0], table[table["mask"] == "none"].iloc[0]):
        found = read_lesion_mask(row["mask"], row["path"])
        np.testing.assert_array_equal(found, draw(row["path"]).mask)
    with pytest.raises(StudyError, match="no lesion mask is known"):
        read_lesion_mask("", str(image))
    with pytest.raises(ImageError, match="does not exist"):
        read_lesion_mask("overlay:/nowhere.png", str(image))


def data_set(root: Path) -> Path:
    """Four overlays, one without paint, one without its slice, one damaged; a name that is HTML."""
    for number, (image, mask) in enumerate(SLICES[:2]):
        saved(root / "Wrapped" / "Bleeding" / "PNG" / f"{number}.png", image)
        saved(root / "Wrapped" / "Bleeding" / "OVERLAY" / f"{number}.png", painted(image, mask))
    saved(root / "Wrapped" / "Ischemia" / "PNG" / "<b>&2.png", IMAGE)
    saved(root / "Wrapped" / "Ischemia" / "OVERLAY" / "<b>&2.png", np.dstack([IMAGE] * 3))
    saved(root / "Wrapped" / "Ischemia" / "OVERLAY" / "3.png", painted(IMAGE, MASK, opacity=0))
    (root / "Wrapped" / "Ischemia" / "OVERLAY" / "4.png").write_bytes(b"no picture")
    saved(root / "Wrapped" / "Normal" / "PNG" / "5.png", IMAGE)
    return root


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = data_set(tmp_path / "data"), tmp_path / "out"
    assert main([str(data), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "4 masks out of 5 overlays, 1 by colour alone, 1 with nothing painted, 0 doubtful" in said
    assert config.NOTICE in said
    written = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*"))
    assert written == [
        "masks.csv",
        "masks/Bleeding/0.png",
        "masks/Bleeding/1.png",
        "masks/Ischemia/3.png",
        "masks/Ischemia/<b>&2.png",
        "preview.html",
    ]
    for number in range(2):
        pixels = read_image(out / "masks" / "Bleeding" / f"{number}.png")
        np.testing.assert_array_equal(pixels, SLICES[number][1] * np.uint8(255))
    table = pd.read_csv(out / "masks.csv", dtype=str, keep_default_na=False).set_index("id")
    assert list(table.columns) == ["method", "kind", "confidence", "pixels", "note"]
    assert list(table["method"]) == ["difference", "difference", "saturation", "unreadable", "difference"]
    assert list(table["kind"]) == ["fill", "fill", "outline", "", "none"]
    assert table.loc["Bleeding/0", "pixels"] == str(MASK.sum())
    assert "no plain slice" in table.loc["Ischemia/3", "note"]
    assert str(tmp_path) not in (out / "masks.csv").read_text()

    assert main([str(data), "--out", str(out)]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert main([str(out), "--out", str(tmp_path / "other")]) == 2
    assert "has no OVERLAY/" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = data_set(tmp_path / "data"), tmp_path / "out"
    assert main([str(data), "--out", str(out)]) == 0
    page = (out / "preview.html").read_text(encoding="utf-8")
    assert "<b>&2" not in page
    assert "&lt;b&gt;&amp;2" in page
    assert not re.search(r"(src|href)=\"(?!data:image/jpeg;base64,)", page)
    assert config.NOTICE in page
    shown = [float(text) for text in re.findall(r"confidence (\d\.\d\d)</span>", page)]
    assert shown == sorted(shown)
    assert len(shown) == 5
    assert page.count("<img") == 3 * 3 + 2
    first = re.search(r"data:image/jpeg;base64,([^\"]+)", page)
    assert first is not None
    assert Image.open(io.BytesIO(base64.b64decode(first[1]))).size == (overlay_preview.THUMB_PX,) * 2
    assert "All 5 are shown" in page

    monkeypatch.setattr(overlay_preview, "SHOWN", 2)
    assert main([str(data), "--out", str(tmp_path / "short")]) == 0
    page = (tmp_path / "short" / "preview.html").read_text(encoding="utf-8")
    assert "The 2 least trusted of 5 are shown; the other 3 are in masks.csv" in page
    assert re.findall(r"confidence (\d\.\d\d)</span>", page) == ["0.00", "0.00"]


def test_other_arrangements_of_folders(tmp_path: Path) -> None:
    overlay = painted(IMAGE, MASK)
    lone = tmp_path / "lone"
    saved(lone / "PNG" / "7.png", IMAGE)
    saved(lone / "OVERLAY" / "7.png", overlay)
    (pair,) = overlay_preview.find_pairs(lone)
    assert (pair.id, pair.image) == ("7", lone.resolve() / "PNG" / "7.png")

    shelves = tmp_path / "shelves"
    for part in ("train", "val"):
        saved(shelves / part / "png" / "bleeding" / "7.png", IMAGE)
        saved(shelves / part / "overlay" / "bleeding" / "7.jpg", overlay)
    pairs = overlay_preview.find_pairs(shelves)
    assert [pair.id for pair in pairs] == ["train/bleeding/7", "val/bleeding/7"]
    assert all(pair.image is not None and pair.image.parent.parent.name == "png" for pair in pairs)

    direct = tmp_path / "direct"
    saved(direct / "Bleeding" / "7.png", IMAGE)
    saved(direct / "Bleeding" / "OVERLAY" / "7.png", overlay)
    (pair,) = overlay_preview.find_pairs(direct)
    assert (pair.id, pair.image) == ("Bleeding/7", direct.resolve() / "Bleeding" / "7.png")


@pytest.mark.parametrize("label", ["Bleeding", "Ischemia"])
def test_real_slices(shared_data: Path, label: str) -> None:
    folder = shared_data / "strokes_ct"
    files = sorted((folder / "true_masks" / label).glob("*.png"))[::30]
    assert files
    classes = folder / "Brain_Stroke_CT_Dataset" / label
    for beside in (True, False):
        scores = []
        for file in files:
            plain = classes / "PNG" / file.name if beside else None
            found = read_overlay(classes / "OVERLAY" / file.name, plain)
            scores.append(dice(found.mask, read_image(file) > 0))
            assert found.confidence >= (0.95 if beside else 0.85)
        assert np.mean(scores) >= 0.995
