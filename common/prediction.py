"""What a model says of a part of the data: batch by batch, so that memory does not grow with the part.

Two shapes of answer: a classifier's probabilities (`Predictions`) and a segmenter's masks (`MaskPredictions`). Every
number that is kept is made here, from logits, by the same code for every framework.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import config
from common.config import ModelSpec
from common.data.batches import Part, evaluation_batches
from common.framework import Batch, Framework, Model
from common.losses import sigmoid, softmax
from common.metrics import segmentation
from common.results import MaskPredictions, Predictions, pack_masks


def predict_batches(
    framework: Framework, model: Model, part: Part, batch_size: int, spec: ModelSpec
) -> Iterator[tuple[Batch, NDArray[np.float64]]]:
    """(batch, evaluation-mode logits) over a part in table order, padded rows included."""
    waiting: deque[Batch] = deque()

    def remembered() -> Iterator[Batch]:
        for batch in evaluation_batches(part, batch_size, spec):
            waiting.append(batch)
            yield batch

    for logits in framework.predict_logits(model, remembered()):
        yield waiting.popleft(), logits


def probabilities_of(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 1) logits -> probability of class 1, (N,); (N, C) -> of each class, (N, C)."""
    return sigmoid(logits[:, 0]) if logits.shape[1] == 1 else softmax(logits)


# --- classification -----------------------------------------------------------------------------------------------


def predict_scores(
    framework: Framework, model: Model, part: Part, batch_size: int, spec: ModelSpec
) -> NDArray[np.float64]:
    """Probabilities of a part's samples in table order, (n,) or (n, C)."""
    logits = [logits for _, logits in predict_batches(framework, model, part, batch_size, spec)]
    return probabilities_of(np.concatenate(logits)[: len(part)])  # padding stands at the end


def predict_parts(
    framework: Framework, model: Model, parts: Mapping[str, Part], batch_size: int, spec: ModelSpec
) -> Predictions:
    """Probabilities of several parts, one after the other."""
    scores = [predict_scores(framework, model, part, batch_size, spec) for part in parts.values()]
    return Predictions(
        **_who(parts),
        y_true=np.concatenate([part.labels for part in parts.values()]),
        y_score=np.concatenate(scores),
    )


# --- segmentation -------------------------------------------------------------------------------------------------


def masks_of(batch: Batch, logits: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """True masks and lesion probabilities of a batch's samples without the padded rows, each (n, S, S)."""
    present = batch.rows >= 0
    return batch.targets[present, ..., 0] > 0.5, sigmoid(logits[present, ..., 0])


def choose_mask_threshold(
    framework: Framework, model: Model, part: Part, batch_size: int, spec: ModelSpec
) -> float:
    """The probability from which a pixel is called lesion: largest pooled Dice on the part (the validation part).

    Raises StudyError where the part holds no lesion.
    """
    thresholds = config.MASK_THRESHOLDS
    counts = np.zeros((3, len(thresholds), 1), dtype=np.int64)  # the whole part as one picture
    for batch, logits in predict_batches(framework, model, part, batch_size, spec):
        y_true, probabilities = masks_of(batch, logits)
        found = segmentation.count_at_thresholds(probabilities, y_true, thresholds)
        counts += np.stack(found).sum(axis=2, keepdims=True)
    tp, fp, fn = counts
    return segmentation.best_threshold(tp, fp, fn, thresholds)


def predict_masks(
    framework: Framework,
    model: Model,
    parts: Mapping[str, Part],
    batch_size: int,
    spec: ModelSpec,
    threshold: float,
) -> MaskPredictions:
    """Masks of several parts at a threshold, with what is counted on them, one after the other."""
    columns: dict[str, NDArray[Any]] = {}
    total, done = sum(len(part) for part in parts.values()), 0
    for part in parts.values():
        for batch, logits in predict_batches(framework, model, part, batch_size, spec):
            y_true, probabilities = masks_of(batch, logits)
            y_pred = probabilities >= threshold
            rows = {
                **segmentation.case_table(y_true, y_pred)._asdict(),
                "y_score": probabilities.max(axis=(1, 2)),
                "y_true": pack_masks(y_true),
                "y_pred": pack_masks(y_pred),
            }
            for name, values in rows.items():  # masks are large: into their place at once, and never copied
                if name not in columns:
                    columns[name] = np.empty((total, *values.shape[1:]), values.dtype)
                columns[name][done : done + len(values)] = values
            done += len(y_true)
    return MaskPredictions(
        **_who(parts),
        **columns,
        pixel_mm=np.concatenate([part.cache.pixel_mm(list(part.ids)) for part in parts.values()]),
        size=np.full(sum(len(part) for part in parts.values()), spec.image_size, dtype=np.int64),
    )


def _who(parts: Mapping[str, Part]) -> dict[str, NDArray[Any]]:
    return {
        "sample_id": np.array([sample_id for part in parts.values() for sample_id in part.ids]),
        "patient": np.array([patient for part in parts.values() for patient in part.patients]),
        "split": np.repeat(list(parts), [len(part) for part in parts.values()]),
    }
