"""What a run said of its validation and test samples, on disk as `predictions.npz`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common import config, npz
from common.errors import StudyError
from common.files import write_atomically
from common.names import UNSHOWN


@dataclass(frozen=True)
class Predictions:
    """What a classifier said of each validation and test sample; arrays of equal length N."""

    sample_id: NDArray[np.str_]
    patient: NDArray[np.str_]
    split: NDArray[np.str_]  # "val" | "test" | "external"
    y_true: NDArray[np.int64]  # class index
    y_score: NDArray[np.float64]  # probability of class 1, (N,), or of each class, (N, C)

    def of(self, split: str) -> Predictions:
        """The rows of one split."""
        keep = self.split == split
        return Predictions(
            self.sample_id[keep], self.patient[keep], self.split[keep], self.y_true[keep], self.y_score[keep]
        )


@dataclass(frozen=True)
class MaskPredictions:
    """What a segmenter said of each validation and test slice, on the model's grid; arrays of equal length N.

    Counts are of pixels at the run's own threshold, chosen on validation. `y_true` and `y_pred` are masks packed by
    `numpy.packbits`, row by row: see `unpack`.
    """

    sample_id: NDArray[np.str_]
    patient: NDArray[np.str_]
    split: NDArray[np.str_]  # "val" | "test" | "external"
    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]
    tn: NDArray[np.int64]
    hd95_px: NDArray[np.float64]  # NaN where truth or prediction is empty
    surface_dice: NDArray[np.float64]  # NaN where both are empty
    lesion_tp: NDArray[np.int64]  # lesions found, reported in vain, missed
    lesion_fp: NDArray[np.int64]
    lesion_fn: NDArray[np.int64]
    y_score: NDArray[np.float64]  # the largest lesion probability of the slice
    pixel_mm: NDArray[np.float64]  # side of a pixel of the grid; NaN where unknown
    y_true: NDArray[np.uint8]  # (N, ceil(size * size / 8))
    y_pred: NDArray[np.uint8]
    size: NDArray[np.int64]  # (N,), px a side of the grid, the same for all

    def of(self, split: str) -> MaskPredictions:
        """The rows of one split."""
        keep = self.split == split
        return MaskPredictions(
            **{name: getattr(self, name)[keep] for name in MaskPredictions.__dataclass_fields__}
        )


def pack_masks(masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """bool (N, S, S) -> uint8 (N, ceil(S * S / 8))."""
    return np.packbits(masks.reshape(len(masks), -1), axis=1)


def unpack_masks(packed: NDArray[np.uint8], size: int) -> NDArray[np.bool_]:
    """Inverse of `pack_masks`, bool (N, size, size)."""
    flat = np.unpackbits(packed, axis=1, count=size * size)
    return flat.reshape(len(packed), size, size).astype(bool)


AnyPredictions: TypeAlias = Predictions | MaskPredictions


def write_predictions(path: Path, predictions: AnyPredictions) -> None:
    arrays = {name: getattr(predictions, name) for name in type(predictions).__dataclass_fields__}
    write_atomically(path, lambda stream: np.savez_compressed(stream, **arrays))


def read_predictions(path: Path) -> Predictions:
    """Those of a classifier; raises StudyError for anything but its arrays, all of one length."""
    return Predictions(**_read_arrays(path, Predictions))


def read_mask_predictions(path: Path) -> MaskPredictions:
    """Those of a segmenter; raises StudyError for anything but its arrays, all of one length."""
    return MaskPredictions(**_read_arrays(path, MaskPredictions))


_LETTERS = {"str_": "U", "int64": "iu", "float64": "f", "uint8": "u"}  # NumPy's letters of a type


def _read_arrays(path: Path, kind: type[AnyPredictions]) -> dict[str, NDArray[Any]]:
    fields = kind.__dataclass_fields__
    letters = {name: next(v for k, v in _LETTERS.items() if k in str(fields[name].type)) for name in fields}
    try:
        most = config.MAX_PREDICTIONS_BYTES if kind is MaskPredictions else config.MAX_TABLE_BYTES
        arrays = npz.read_arrays(path, letters, most)
    except npz.FAULTS as error:
        raise StudyError(
            f"{path} is no predictions file ({error}); delete its run folder to run it again"
        ) from error
    if npz.of_equal_length(arrays.values()) is None:
        lengths = sorted({array.shape[:1] for array in arrays.values()})
        raise StudyError(f"{path} holds arrays of different lengths {lengths}; delete its run folder")
    if fault := _array_fault(arrays):
        raise StudyError(f"{path} {fault}; delete its run folder to run it again")
    return arrays


def _array_fault(arrays: Mapping[str, NDArray[Any]]) -> str:
    """What predictions cannot hold, in words; empty where nothing is. Scores are judged by who reads them."""
    wide = {"y_score": (1, 2), "y_true": (1,), "y_pred": (2,)} | (
        {"y_true": (2,)} if "size" in arrays else {}
    )
    for name, array in arrays.items():
        if array.ndim not in wide.get(name, (1,)):
            return f"holds {name} of shape {array.shape}"
        if array.dtype.kind == "U" and (np.ascontiguousarray(array).view(np.uint32) > sys.maxunicode).any():
            return f"holds what are no characters in {name}"
        if array.dtype.kind == "U" and any(UNSHOWN.search(one) for one in np.unique(array)):
            return f"holds unprintable characters in {name}"
    if "size" not in arrays or not len(arrays["size"]):
        return ""
    size = int(arrays["size"][0])
    if not (arrays["size"] == size).all() or not 1 <= size <= config.MAX_IMAGE_PX:
        return f"holds masks of {size} px, or of several sizes"
    packed = -(-size * size // 8)
    if any(arrays[name].shape[1] != packed for name in ("y_true", "y_pred")):
        return f"holds no masks of {size} px"
    if any(
        (arrays[name] < 0).any() for name in ("tp", "fp", "fn", "tn", "lesion_tp", "lesion_fp", "lesion_fn")
    ):
        return "holds counts below 0"
    if np.any(sum(arrays[name] for name in ("tp", "fp", "fn", "tn")) != size * size):
        return f"holds counts that do not add up to {size} x {size} pixels"
    return ""
