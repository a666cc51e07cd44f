"""Using a checkpoint without the study it came from: on a data set, or on a handful of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config import MODELS, TASKS, ModelSpec, Task, model_spec_from_json
from common.data.batches import Part, normalise, steps_per_epoch
from common.data.images import ImageError, read_image, resize_image
from common.errors import StudyError
from common.framework import Batch, Framework, Model
from common.losses import sigmoid
from common.run import predict_part
from common.weights import read_checkpoint

BATCH_SIZE = 32


@dataclass(frozen=True)
class Classifier:
    """A trained model and what its checkpoint's header says of it."""

    model: Model
    spec: ModelSpec
    task: Task
    threshold: float  # chosen on the validation part of the run that trained it
    header: dict[str, Any]


def load_classifier(framework: Framework, checkpoint: Path) -> Classifier:
    """Build the checkpoint's model and load its weights, whichever framework trained them."""
    weights, header = read_checkpoint(checkpoint)
    try:
        spec, task = model_spec_from_json(header["spec"]), TASKS[header["task"]]
        threshold = float(header["threshold"])
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(
            f"the header of {checkpoint} does not describe a model of this project ({error!r}); "
            "give a model.safetensors that this version wrote"
        ) from error
    if spec.name not in MODELS:
        raise StudyError(
            f"{checkpoint} holds the model {spec.name!r}; this version knows {', '.join(MODELS)}"
        )
    model = framework.build(spec)
    framework.write_weights(model, weights)
    return Classifier(model, spec, task, threshold, header)


def score_part(framework: Framework, classifier: Classifier, part: Part) -> NDArray[np.float64]:
    """Probabilities of a part's samples in table order, (n,)."""
    return sigmoid(predict_part(framework, classifier.model, part, BATCH_SIZE, classifier.spec))


def score_pictures(
    framework: Framework, classifier: Classifier, paths: Sequence[Path]
) -> list[float | ImageError]:
    """The probability of each picture, or why it cannot be read."""
    results: list[float | ImageError] = []
    for step in range(steps_per_epoch(len(paths), BATCH_SIZE)):
        read = [
            _read(path, classifier.spec.image_size)
            for path in paths[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
        ]
        slices = [picture for picture in read if not isinstance(picture, ImageError)]
        scores = iter(_score_slices(framework, classifier, slices))
        results.extend(
            picture if isinstance(picture, ImageError) else float(next(scores)) for picture in read
        )
    return results


def _score_slices(
    framework: Framework, classifier: Classifier, slices: Sequence[NDArray[np.uint8]]
) -> NDArray[np.float64]:
    if not slices:
        return np.empty(0)
    size = classifier.spec.image_size
    padded = np.zeros((BATCH_SIZE, size, size), dtype=np.uint8)  # one shape, so that nothing compiles twice
    padded[: len(slices)] = slices
    unused = np.zeros(BATCH_SIZE, dtype=np.float32)
    batch = Batch(normalise(padded, classifier.spec), unused, unused, np.arange(BATCH_SIZE))
    return sigmoid(framework.predict_logits(classifier.model, [batch])[: len(slices), 0])


def _read(path: Path, size: int) -> NDArray[np.uint8] | ImageError:
    try:
        return resize_image(read_image(path), size)
    except ImageError as error:
        return error
