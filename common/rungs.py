"""The rungs of the ladder: which trainings it takes, and how a framework's process carries them out.

On the walk rung 0 is the native lane, and each further rung aligns one default more, the last all of them: lockstep.
"alone" is lockstep but for one default. Every training has the same number of steps and is judged alike: by the
validation loss in the form that all share and by the task's primary metric. The training loss would not do: some of the
defaults change what it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.config import TASKS, Default, ModelSpec, Recipe, Run, Study, defaults_of, with_defaults
from common.data import batches as stream
from common.data.batches import Part
from common.errors import StudyError
from common.fitting import Emit, judge
from common.framework import Batch, Framework, Settings
from common.results import read_study
from common.run import RunData, load_data, starting_weights
from common.schedule import learning_rate

ARMS = ("walk", "alone")


@dataclass(frozen=True)
class Rung:
    """A place on the ladder of one (task, model)."""

    arm: str  # of `ARMS`
    rung: int  # walk: 0 is native, k has the first k defaults aligned; alone: from 1, in the order of the ladder
    default: str  # that this rung aligned (walk; "" at 0) or left alone
    names: tuple[str, ...]  # of the defaults that the frameworks are left with


@dataclass(frozen=True)
class Training:
    """What one framework trains from one seed for all rungs on which it would train the very same."""

    task: str
    model: str
    framework: str
    seed: int
    names: tuple[str, ...]  # of the defaults that it is left with
    rungs: tuple[tuple[str, int], ...]  # (arm, rung) of each

    @property
    def label(self) -> str:
        arm, rung = self.rungs[0]
        return f"{self.task} {self.model} {self.framework} seed {self.seed} {arm} {rung}"


def rungs_of(defaults: Sequence[Default]) -> list[Rung]:
    """The walk, native first, then each default alone."""
    names = tuple(one.name for one in defaults)
    walk = [Rung("walk", k, names[k - 1] if k else "", names[k:]) for k in range(len(names) + 1)]
    return walk + [Rung("alone", k, name, (name,)) for k, name in enumerate(names, start=1)]


def trainings_of(study: Study, framework: str) -> list[Training]:
    """What a framework has to train for the ladders of a study's models, in the order of pairs, seeds and rungs.

    A default that is already as the framework has it changes nothing there: its rung shares the training of the rung
    with the same spec and recipe. That is exact, for a training is a function of these, the seed and the data.
    """
    found = []
    for task, model in study.pairs:
        spec, recipe = base_of(study, task, model)
        alike: dict[int, list[Rung]] = {}
        resolved: list[tuple[ModelSpec, Recipe]] = []
        for rung in rungs_of(defaults_of(spec, recipe)):
            settings = with_defaults(spec, recipe, framework, rung.names)
            if settings not in resolved:
                resolved.append(settings)
            alike.setdefault(resolved.index(settings), []).append(rung)
        for seed in range(study.seeds):
            for rungs in alike.values():
                places = tuple((rung.arm, rung.rung) for rung in rungs)
                found.append(Training(task, model, framework, seed, rungs[0].names, places))
    return found


def base_of(study: Study, task: str, model: str) -> tuple[ModelSpec, Recipe]:
    """Spec and recipe of a (task, model) before a framework is left with anything."""
    return study.specs[f"{task}/{model}"], study.recipes[f"{task}/{model}"]


# --- the framework's process --------------------------------------------------------------------------------------


def climb(
    framework: Framework,
    directory: Path,
    trainings: Sequence[Training],
    steps: int,
    threads: int,
    emit: Emit,
) -> None:
    """Carry out trainings in a prepared study's folder, one after the other.

    Emits {"environment"}, then of each training, as {"training": its index}, "loss" and "score" (None where undefined)
    or, where it diverged, "diverged" with the reason.
    """
    record = read_study(directory)
    data: dict[tuple[str, str], RunData] = {}
    for index, training in enumerate(trainings):
        settings = Settings(record.study.device, record.study.precision, threads, training.seed)
        framework.configure(settings)
        if not index:
            emit({"environment": framework.environment()})
        pair = training.task, training.model
        base = base_of(record.study, *pair)
        if pair not in data:  # the same on every rung
            run = Run(*pair, framework.name(), "lockstep", seed=0, fold=0)
            data = {pair: load_data(record, run, TASKS[training.task], *base)}
        try:
            loss, score = train_and_judge(framework, data[pair], *base, training.names, training.seed, steps)
            emit({"training": index, "loss": loss, "score": None if np.isnan(score) else score})
        except StudyError as error:
            emit({"training": index, "diverged": str(error)})


def train_and_judge(
    framework: Framework,
    data: RunData,
    spec: ModelSpec,
    recipe: Recipe,
    names: Sequence[str],
    seed: int,
    steps: int,
) -> tuple[float, float]:
    """Loss and primary score on validation after a training of `steps` steps, in which the framework, configured with
    the seed, is left with the named defaults and the schedule runs over just these steps.

    Raises StudyError where training diverges.
    """
    own_spec, own_recipe = with_defaults(spec, recipe, framework.name(), names)
    model = framework.build(own_spec)
    framework.write_weights(model, starting_weights(framework, model, own_spec, seed, None))
    trainer = framework.create_trainer(model, own_recipe)
    rates = [learning_rate(step, steps, own_recipe) for step in range(steps)]
    batches = first_batches(data.train, own_recipe, own_spec, seed, framework.name(), steps)
    losses = framework.train_epoch(trainer, zip(batches, rates, strict=True))
    framework.synchronise()
    if not np.isfinite(losses).all():
        step = int(np.flatnonzero(~np.isfinite(losses))[0]) + 1
        raise StudyError(f"the training loss is {losses[step - 1]} at step {step}")
    loss, score, _ = judge(framework, model, data.judged["val"], own_spec, recipe)  # the loss that all share
    if not np.isfinite(loss):
        raise StudyError(f"the validation logits after {steps} steps are not finite")
    return loss, score


def first_batches(
    part: Part, recipe: Recipe, spec: ModelSpec, seed: int, framework: str, steps: int
) -> Iterator[Batch]:
    """The first `steps` training batches, one epoch after the other."""
    for epoch in itertools.count(1):
        for batch in stream.training_batches(part, recipe, spec, seed, epoch, framework):
            yield batch
            steps -= 1
            if not steps:
                return


def training_from_json(document: Mapping[str, Any]) -> Training:
    """Inverse of `config.to_json` for a Training."""
    rungs = tuple((str(arm), int(rung)) for arm, rung in document["rungs"])
    return Training(**{**document, "names": tuple(document["names"]), "rungs": rungs})
