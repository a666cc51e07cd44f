"""What the audit sees of each picture: its file's kind, its pixels' digest and statistics, its fingerprint; read once.

| column | type | meaning |
|---|---|---|
| id | str | of the sample |
| format | str | `JPEG`, `PNG`, ..., `DICOM`, or `drawn` |
| mode | str | how the file stores a pixel, in Pillow's words: `L`, `RGB`, `RGBA`, `P`, `I;16`; empty for DICOM |
| bits | int | of a stored channel; 0 where the header does not say in passing (DICOM) |
| width, height | int | px |
| bytes | int | of the file; 0 for a drawing |
| quantisation | int | sum of a JPEG's luminance table: the smaller, the finer it was saved; 0 elsewhere |
| pixels_sha256 | str | of the size and the decoded grey values: equal for a renamed or losslessly re-encoded copy |
| mean, sd | float | of the grey values, 0 to 255 |
| border | float | mean of the frame about the picture, `config.AUDIT_BORDER_SHARE` wide |
| lit | float | share of the pixels brighter than background |
| constant | bool | every pixel has one value |
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from common import config
from common.data.cache import Cache
from common.data.decoding import map_in_order, read_slice
from common.data.images import ColouredError, ImageError, resize_image, seems_dicom
from common.data.masks import Doubt, read_judged_mask
from common.data.samples import NO_LESION
from common.data.shards import DoubtfulMask, Unreadable, describe_fault
from common.data.similarity import (
    BACKGROUND_GREY,
    VIEW_PX,
    Fingerprints,
    OnProgress,
    cut_head,
    fingerprint,
)

THREADS = 2
DRAWN = "drawn"
BITS = {"1": 1, "I;16": 16, "I;16B": 16, "I;16L": 16}  # of Pillow's modes; 8 in all others that are read


@dataclass(frozen=True)
class Looks:
    """All pictures of a sample table; the parts named as in `common.data.cache.Cache` mean the same."""

    table: pd.DataFrame  # the readable pictures, in the order of the sample table
    prints: (
        Fingerprints | None
    )  # row by row of the table; None where all are drawn slices, taken from a cache
    unreadable: tuple[Unreadable, ...] = ()  # the painted ones among them
    painted: tuple[Unreadable, ...] = ()
    with_masks: bool = False
    empty_masks: frozenset[str] = frozenset()
    unreadable_masks: tuple[Unreadable, ...] = ()
    doubtful_masks: tuple[DoubtfulMask, ...] = ()


@dataclass(frozen=True)
class _Seen:
    """One picture."""

    row: dict[str, Any]
    frame: NDArray[np.float32] | None  # fingerprints, (4096,); None for one that is not compared
    head: NDArray[np.float32] | None
    lesion: bool | None  # whether its mask shows one; None where it was not read
    mask_fault: ImageError | None
    doubt: Doubt | None


def take_looks(
    samples: pd.DataFrame,
    drawn: Cache | None = None,
    masks: bool = False,
    on_progress: OnProgress = lambda done, total: None,
) -> Looks:
    """Decode every picture of a sample table once, and with `masks` every known lesion mask.

    Drawn slices are taken from the cache `drawn` where one is given: drawing takes longer than all else. They are not
    compared then; each has a recipe of its own.
    """
    rows: list[tuple[Any, ...]] = []
    unreadable: list[Unreadable] = []
    painted: list[Unreadable] = []
    empty: list[str] = []
    unreadable_masks: list[Unreadable] = []
    doubtful: list[DoubtfulMask] = []
    alone = drawn is not None and bool(samples["path"].str.startswith("phantom:").all())
    prints = None if alone else Fingerprints.blank(len(samples))
    columns = ("id", "path", "mask", "sha256")

    def asked() -> Iterator[dict[str, str]]:
        for row in zip(*(samples[name] for name in columns), strict=True):
            yield dict(zip(columns, row, strict=True))

    with ThreadPoolExecutor(THREADS) as pool:
        seen = map_in_order(pool, lambda sample: _look(sample, drawn, masks), asked())
        for done, (sample, one) in enumerate(zip(asked(), seen, strict=True), start=1):
            key, path, mask = sample["id"], sample["path"], sample["mask"]
            if isinstance(one, ImageError):
                unreadable.append(describe_fault(key, path, mask, one))
                if isinstance(one, ColouredError):
                    painted.append(unreadable[-1])
            else:
                if prints and one.frame is not None and one.head is not None:
                    prints.frame[len(rows)], prints.head[len(rows)] = one.frame, one.head
                rows.append(tuple(one.row[name] for name in _COLUMNS))
                if one.mask_fault:
                    unreadable_masks.append(describe_fault(key, path, mask, one.mask_fault))
                if one.lesion is False:
                    empty.append(key)
                if one.doubt:
                    doubtful.append(DoubtfulMask(key, **vars(one.doubt)))
            on_progress(done, len(samples))
    count = len(rows)
    return Looks(
        pd.DataFrame(rows, columns=list(_COLUMNS)),
        prints and Fingerprints(prints.frame[:count], prints.head[:count]),
        tuple(unreadable),
        tuple(painted),
        masks,
        frozenset(empty),
        tuple(unreadable_masks),
        tuple(doubtful),
    )


_COLUMNS = (
    "id", "format", "mode", "bits", "width", "height", "bytes", "quantisation", "pixels_sha256",
    "mean", "sd", "border", "lit", "constant",
)  # fmt: skip


def _look(sample: dict[str, str], drawn: Cache | None, masks: bool) -> _Seen | ImageError:
    key, path, mask = sample["id"], sample["path"], sample["mask"]
    is_drawing = path.startswith("phantom:")
    compared = not (is_drawing and drawn)
    try:
        image = drawn.read([key])[0] if is_drawing and drawn else read_slice(path)
        kind = _drawing(image) if is_drawing else _file_kind(Path(path))
    except ImageError as error:
        return error
    digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    row = {"id": key, **kind, "pixels_sha256": digest if compared else sample["sha256"], **_statistics(image)}
    lesion, fault, doubt = None, None, None
    if masks and mask not in ("", NO_LESION):
        try:
            shown, doubt = read_judged_mask(mask, path)
            lesion = bool(shown.any())
        except ImageError as error:
            fault = error
    if not compared:
        return _Seen(row, None, None, lesion, fault, doubt)
    view = resize_image(image, VIEW_PX)
    return _Seen(row, fingerprint(view), fingerprint(cut_head(view)), lesion, fault, doubt)


def _drawing(image: NDArray[np.uint8]) -> dict[str, Any]:
    height, width = image.shape
    return {
        "format": DRAWN, "mode": "L", "bits": 8, "width": width, "height": height, "bytes": 0, "quantisation": 0,
    }  # fmt: skip


def _file_kind(path: Path) -> dict[str, Any]:
    """From the header of a file that was decoded before."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        first = stream.read(132)
    if seems_dicom(path, first):
        from common.data.dicom import read_dicom_header  # pydicom is loaded only where there is a DICOM file

        header = read_dicom_header(path)
        return {
            "format": "DICOM", "mode": "", "bits": 0, "width": header.columns, "height": header.rows, "bytes": size,
            "quantisation": 0,
        }  # fmt: skip
    with Image.open(path) as picture:
        tables = getattr(picture, "quantization", None) or {}
        return {
            "format": str(picture.format),
            "mode": picture.mode,
            "bits": BITS.get(picture.mode, 8),
            "width": picture.width,
            "height": picture.height,
            "bytes": size,
            "quantisation": int(sum(tables[0])) if 0 in tables else 0,
        }


def _statistics(image: NDArray[np.uint8]) -> dict[str, Any]:
    """From the histogram, (256,), which is far quicker than the pixels."""
    counts = cv2.calcHist([image], [0], None, [256], [0, 256]).ravel().astype(np.float64)
    greys = np.arange(256)
    mean = float(counts @ greys / image.size)
    return {
        "mean": mean,
        "sd": float(np.sqrt(max(counts @ (greys - mean) ** 2 / image.size, 0.0))),
        "border": border_mean(image),
        "lit": float(counts[BACKGROUND_GREY + 1 :].sum() / image.size),
        "constant": bool(counts.max() == image.size),
    }


def border_mean(image: NDArray[np.uint8]) -> float:
    """Mean grey value of the frame about a picture (H, W)."""
    width = max(1, round(config.AUDIT_BORDER_SHARE * min(image.shape)))
    inner = image[width:-width, width:-width]
    return float((image.sum(dtype=np.int64) - inner.sum(dtype=np.int64)) / (image.size - inner.size))
