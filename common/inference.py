"""Using a checkpoint without the study it came from: which model it is, and what it says of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import seals
from common.config import FRAMEWORKS, MODELS, TASKS, ModelSpec, Task, model_spec_from_json
from common.data.batches import normalise
from common.errors import StudyError
from common.files import read_json
from common.flops import kernel_values
from common.framework import Array, Batch, Framework, Model
from common.records import record_fault, spec_fault
from common.weights import count_values, read_checkpoint, read_header

BATCH_SIZE = 32
UNDOUBTED_VALUES = 10_000_000  # a model of so many weights, 40 MB, may be built on the word of a header


@dataclass(frozen=True)
class TrainedModel:
    """A trained model and what its checkpoint's header says of it."""

    model: Model
    spec: ModelSpec
    task: Task
    threshold: (
        float | None
    )  # chosen on the validation part of the run that trained it; None: largest score decides
    header: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file by its header alone."""

    path: Path
    task: Task
    spec: ModelSpec
    header: dict[str, Any]


def describe_checkpoint(path: Path) -> Checkpoint:
    """Read the header. Raises StudyError for a file that holds no model of this project."""
    header = read_header(path)
    described = header.get("spec")
    model = described.get("name") if isinstance(described, dict) else None
    for name, known in ((model, MODELS), (header.get("task"), TASKS)):
        if isinstance(name, str) and name not in known:
            raise StudyError(
                f"{path} holds the model or task {name!r}; this version knows {', '.join(MODELS)} and "
                f"{', '.join(TASKS)}"
            )
    try:
        spec, task = model_spec_from_json(header["spec"]), TASKS[header["task"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StudyError(
            f"the header of {path} does not describe a model of this project ({error!r}); "
            "give a model.safetensors that this version wrote"
        ) from error
    if fault := _header_fault(header):
        raise StudyError(f"the header of {path} {fault}; give a model.safetensors that this version wrote")
    needed = spec_fault(spec) or _surplus(spec, count_values(path))
    if needed:
        raise StudyError(f"the header of {path} describes no model of its tensors: it {needed}")
    return Checkpoint(path, task, spec, header)


def run_of(header: Mapping[str, Any]) -> Mapping[str, Any]:
    """Which run trained a checkpoint; empty where its header does not say."""
    return header.get("run") or {}


def _header_fault(header: Mapping[str, Any]) -> str:
    """What is odd in a header, in words; empty where nothing is."""
    if fault := record_fault({"recipe": header["recipe"]} if "recipe" in header else {}):
        return fault
    run, data, threshold = run_of(header), header.get("data", []), header.get("threshold")
    if not isinstance(run, dict) or not all(isinstance(run.get(name, 0), int) for name in ("seed", "fold")):
        return "has an odd run"
    if not isinstance(data, list) or not all(isinstance(one, str) for one in data):
        return "names no data sets"
    if threshold is not None and (
        isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1
    ):
        return f"has the threshold {str(threshold)[:40]!r}, which is no probability"
    return ""


def _surplus(spec: ModelSpec, values: int) -> str:
    """That a spec asks for more weights than a file holds, in words: building it might fill the memory."""
    asked = kernel_values(spec)
    return f"has {asked} weights, and the file {values}" if asked > max(values, UNDOUBTED_VALUES) else ""


def load_model(framework: Framework, path: Path) -> TrainedModel:
    """Build the checkpoint's model and load its weights, whichever framework trained them.

    Raises StudyError where the record of a run lies beside it and names another file.
    """
    if (path.parent / "run.json").is_file():
        seals.check_file(path, read_json(path.parent / "run.json"))
    found = describe_checkpoint(path)
    weights, header = read_checkpoint(path)
    threshold = header.get("threshold")
    if threshold is None and found.task.outputs == 1:
        raise StudyError(f"the header of {path} has no threshold; give a model.safetensors of a finished run")
    model = framework.build(found.spec)
    framework.write_weights(model, weights)
    return TrainedModel(
        model, found.spec, found.task, None if threshold is None else float(threshold), header
    )


def find_checkpoints(places: Sequence[Path], framework: str) -> dict[str, Checkpoint]:
    """The checkpoint of each task among files and folders (a study's folder too): task -> checkpoint.

    Of several for one task, those of this framework come first, then the lowest seed and fold, then the model that
    stands first in `config.MODELS`. Raises StudyError where there is none.
    """
    files = []
    for place in places:
        if not place.exists():
            raise StudyError(
                f"checkpoint {place} does not exist; give a model.safetensors or a folder of some"
            )
        files += sorted(place.rglob("model.safetensors")) if place.is_dir() else [place]
    if not files:
        raise StudyError(
            f"{', '.join(map(str, places))} holds no model.safetensors; give a study's folder or a run's"
        )

    def preference(one: Checkpoint) -> tuple[bool, int, int, int, int, str]:
        run = run_of(one.header)
        trained_by = str(run.get("framework"))
        rank = FRAMEWORKS.index(trained_by) if trained_by in FRAMEWORKS else len(FRAMEWORKS)
        place = int(run.get("seed", 0)), int(run.get("fold", 0)), list(MODELS).index(one.spec.name)
        return (trained_by != framework, rank, *place, str(one.path))

    chosen: dict[str, Checkpoint] = {}
    for one in sorted((describe_checkpoint(file) for file in files), key=preference):
        chosen.setdefault(one.task.name, one)
    return chosen


def logits_of_slices(
    framework: Framework, trained: TrainedModel, slices: Sequence[NDArray[np.uint8]]
) -> Array:
    """Logits of at most BATCH_SIZE slices of the model's size, (n, outputs) or (n, S, S, 1)."""
    size = trained.spec.image_size
    padded = np.zeros((BATCH_SIZE, size, size), dtype=np.uint8)  # one shape, so that nothing compiles twice
    for place, pixels in enumerate(slices):
        padded[place] = pixels
    images = normalise(padded, trained.spec)
    shape = (size, size, 1) if trained.task.kind == "segmentation" else (trained.task.outputs,)
    targets, weights = np.zeros((BATCH_SIZE, *shape), np.float32), np.zeros(BATCH_SIZE, np.float32)
    batch = Batch(images, targets, weights, np.arange(BATCH_SIZE))
    return next(iter(framework.predict_logits(trained.model, [batch])))[: len(slices)]
