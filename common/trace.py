"""A training written down step by step, in the lane "lockstep": what one process leaves for `common.parity` to compare.

The folder of a trace, float64 throughout:

```
trace.json                environment, parameters, seconds, steps, phases, batches: [{field: sha256}, ...] a step
arrays.npz                forward, losses, logits; gradients-K of phase K, (its steps in "kept", its "tensors")
outputs-S.npz             layer -> output in training mode at step S, the first of a phase, in order of execution
weights-S.npz             tensor -> value after step S, the first of a phase and the last of all
```
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common import config, measure
from common.config import TASKS, ModelSpec, Recipe, Run, with_defaults
from common.data import batches as stream
from common.data.batches import Part
from common.errors import StudyError
from common.fitting import Emit
from common.framework import Array, Batch, Framework, Settings, Weights
from common.random_numbers import generator
from common.results import read_json, read_study, write_atomically, write_json
from common.run import load_data, starting_weights
from common.schedule import learning_rate

SEED = 0  # of the starting weights, the order, the augmentation and the masks
BATCH_FIELDS = ("rows", "images", "targets", "weights")  # what explains the others first


@dataclass(frozen=True)
class TraceJob:
    """One training to be traced."""

    study: str  # folder of the prepared study
    task: str
    model: str
    steps: int
    directory: str  # of the trace
    names: tuple[str, ...] = ()  # of the defaults that the framework is left with: none, or a planted fault


@dataclass(frozen=True)
class TracePlan:
    """What one process does, one job after the other."""

    framework: str
    device: str
    precision: str
    threads: int
    jobs: tuple[TraceJob, ...]


@dataclass(frozen=True)
class Trace:
    """A training, as far as it can be compared. Steps count from 1."""

    batches: tuple[Mapping[str, str], ...]  # of each step: field -> sha256
    forward: Array  # evaluation logits before training
    losses: Array  # (steps,)
    gradients: Mapping[int, Mapping[str, float]]  # step -> tensor -> norm before clipping
    logits: Array  # evaluation logits after training
    outputs: Mapping[int, Mapping[str, Array]]  # step -> layer -> output, in order of execution
    weights: Mapping[int, Mapping[str, Array]]  # step -> tensor -> value after it


@dataclass(frozen=True)
class Stretch:
    """Steps with one optimizer and schedule."""

    trainable: str  # "head" | "all"
    first: int  # step, from 1
    steps: int


def stretches(recipe: Recipe, steps: int) -> list[Stretch]:
    """The phases of a traced training; the recipe says whether the head learns alone first, config for how long."""
    head = round(steps * config.PARITY_HEAD_FRACTION) if recipe.head_epochs else 0
    both = [Stretch("head", 1, head), Stretch("all", 1 + head, steps - head)]
    return [one for one in both if one.steps]


def plan_from_json(document: Mapping[str, Any]) -> TracePlan:
    """Inverse of `config.to_json` for a TracePlan."""
    jobs = (TraceJob(**(job | {"names": tuple(job["names"])})) for job in document["jobs"])
    return TracePlan(**{**document, "jobs": tuple(jobs)})


def carry_out_plan(framework: Framework, plan: TracePlan, emit: Emit) -> None:
    """Trace every job, telling `emit` {"steps", "of"} of all jobs together.

    A job that fails leaves no `trace.json` and the others go on; StudyError at the end, with what failed.
    """
    total, faults = sum(job.steps for job in plan.jobs), []
    for number, job in enumerate(plan.jobs):
        done = sum(before.steps for before in plan.jobs[:number])
        try:
            for step in trace_job(framework, job, Settings(plan.device, plan.precision, plan.threads, SEED)):
                emit({"steps": done + step, "of": total})
        except Exception as error:  # whatever a planted fault leads to
            if not isinstance(error, StudyError):
                traceback.print_exc()
            what = f"{' and '.join(job.names)} left alone: " if job.names else ""
            faults.append(f"{what}{error if isinstance(error, StudyError) else repr(error)}")
    if faults:
        raise StudyError("; ".join(faults))


# --- tracing ------------------------------------------------------------------------------------------------------


def trace_job(framework: Framework, job: TraceJob, settings: Settings) -> Iterator[int]:
    """Trace one training of a prepared study; yields each step when it is done. `trace.json` is written last."""
    record, key = read_study(Path(job.study)), f"{job.task}/{job.model}"
    spec, recipe = with_defaults(
        record.study.specs[key], record.study.recipes[key], framework.name(), job.names
    )
    framework.configure(settings)
    run = Run(job.task, job.model, framework.name(), "lockstep", settings.seed, fold=0)
    data = load_data(record, run, TASKS[job.task], spec, recipe)
    train, val = data.train, data.judged["val"]
    batches = training_stream(train, recipe, spec, settings.seed, framework.name())
    yield from trace_training(
        framework, spec, recipe, batches, evaluation_of(val, recipe, spec), job, settings
    )


def training_stream(
    part: Part, recipe: Recipe, spec: ModelSpec, seed: int, framework: str
) -> Iterator[Batch]:
    """The batches of one epoch after the other, without end."""
    for epoch in itertools.count(1):
        yield from stream.training_batches(part, recipe, spec, seed, epoch, framework)


def evaluation_of(part: Part, recipe: Recipe, spec: ModelSpec) -> list[Batch]:
    """The first batches of the validation part."""
    batches = stream.evaluation_batches(part, recipe.batch_size, spec)
    return list(itertools.islice(batches, config.PARITY_EVALUATION_BATCHES))


def trace_training(
    framework: Framework,
    spec: ModelSpec,
    recipe: Recipe,
    batches: Iterator[Batch],
    evaluation: list[Batch],
    job: TraceJob,
    settings: Settings,
) -> Iterator[int]:
    """Train for the job's steps on the first of the batches and write the trace; yields each step when it is done."""
    began, directory = time.perf_counter(), Path(job.directory)
    directory.mkdir(parents=True, exist_ok=True)
    model = framework.build(spec)
    # A last layer of zeros would make the first outputs and gradients equal without merit: it is drawn like any other.
    start = starting_weights(framework, model, dataclasses.replace(spec, head=""), settings.seed, None)
    if spec.initialiser == "common":
        start = stirred(start, settings.seed)
    framework.write_weights(model, start)
    arrays = {"forward": _logits(framework, model, evaluation)}
    losses: list[Array] = []
    digests: list[dict[str, str]] = []
    described: list[dict[str, Any]] = []
    for number, stretch in enumerate(stretches(recipe, job.steps)):
        trainer = framework.create_trainer(model, recipe, trainable=stretch.trainable, traced=True)
        norms: dict[int, dict[str, float]] = {}
        for count in chunks(stretch, recipe):
            given = list(itertools.islice(batches, count))
            first = len(digests) + 1
            digests += map(digest_batch, given)
            if first == stretch.first:
                outputs = framework.layer_outputs(model, given[0], training=True)
                _save(directory / f"outputs-{first}.npz", outputs)
            rates = (
                learning_rate(first - stretch.first + offset, stretch.steps, recipe)
                for offset in range(count)
            )
            losses.append(framework.train_epoch(trainer, zip(given, rates, strict=True)))
            norms[len(digests)] = framework.gradient_norms(trainer)
            if first == stretch.first or len(digests) == job.steps:
                _save(directory / f"weights-{len(digests)}.npz", framework.read_weights(model))
            yield from range(first, first + count)
        tensors = list(next(iter(norms.values())))
        arrays[f"gradients-{number}"] = np.array([[one[name] for name in tensors] for one in norms.values()])
        described.append({**config.to_json(stretch), "tensors": tensors, "kept": list(norms)})
    arrays |= {"losses": np.concatenate(losses), "logits": _logits(framework, model, evaluation)}
    _save(directory / "arrays.npz", arrays)
    document = {
        "framework": framework.name(),
        "names": list(job.names),
        "environment": {**framework.environment(), **measure.common_environment()},
        "parameters": sum(array.size for array in start.values()),
        "seconds": time.perf_counter() - began,
        "steps": job.steps,
        "phases": described,
        "batches": digests,
    }
    write_json(directory / "trace.json", document)


def stirred(weights: Weights, seed: int) -> dict[str, Array]:
    """The weights with every tensor of one axis moved, float32: biases of 0 and scales of 1 would hide what is left out
    or exchanged. Biases and means get normal numbers of 0.1, all else is multiplied by 0.7 to 1.3.
    """
    moved = dict(weights)
    for name, array in weights.items():
        if array.ndim == 1:
            source = generator("stir", seed, name)
            if name.endswith(("bias", "running_mean")):
                moved[name] = (array + 0.1 * source.standard_normal(array.shape)).astype(np.float32)
            else:
                moved[name] = (array * source.uniform(0.7, 1.3, array.shape)).astype(np.float32)
    return moved


def chunks(stretch: Stretch, recipe: Recipe) -> list[int]:
    """How many steps each call makes: one. Keras's `fit` gets all but the first at once, for its order and its losses
    are what is to be seen; gradients are then known of the last alone.
    """
    if recipe.loop == "fit" and stretch.steps > 1:
        return [1, stretch.steps - 1]
    return [1] * stretch.steps


def digest_batch(batch: Batch) -> dict[str, str]:
    """sha256 of everything of a batch that a framework sees, field by field."""
    return {
        name: hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()
        for name in BATCH_FIELDS
        if (array := getattr(batch, name)) is not None
    }


def _logits(framework: Framework, model: Any, batches: list[Batch]) -> Array:
    return np.concatenate(list(framework.predict_logits(model, batches)))


def _save(path: Path, arrays: Mapping[str, Array]) -> None:
    write_atomically(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


# --- reading ------------------------------------------------------------------------------------------------------


class Snapshots(Mapping[int, Mapping[str, Array]]):
    """Arrays of some steps, read from disk when they are asked for: the weights of all steps may not fit together."""

    def __init__(self, directory: Path, kind: str) -> None:
        found = {int(path.stem.rsplit("-", 1)[1]): path for path in directory.glob(f"{kind}-*.npz")}
        self._paths = dict(sorted(found.items()))

    def __getitem__(self, step: int) -> dict[str, Array]:
        return _load(self._paths[step])

    def __iter__(self) -> Iterator[int]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def finished(directory: Path) -> bool:
    """Whether a folder holds a whole trace."""
    return (directory / "trace.json").exists()


def read_trace(directory: Path) -> Trace:
    """A finished trace. StudyError where there is none."""
    document = read_json(directory / "trace.json")
    arrays = _load(directory / "arrays.npz")
    gradients = {
        step: dict(zip(phase["tensors"], norms.tolist(), strict=True))
        for number, phase in enumerate(document["phases"])
        for step, norms in zip(phase["kept"], arrays[f"gradients-{number}"], strict=True)
    }
    return Trace(
        tuple(document["batches"]),
        arrays["forward"],
        arrays["losses"],
        gradients,
        arrays["logits"],
        Snapshots(directory, "outputs"),
        Snapshots(directory, "weights"),
    )


def _load(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
