"""The processes of a ladder: one a framework and seed, which works through a list of trainings.

A process a training would take longer to start than to train; one for all of a framework would leave cores idle and
grow with every graph that TensorFlow keeps. A process that dies loses the training that it was at: another goes on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import config, engines, measure
from common.config import Study
from common.engines import core_slots, worker_environment
from common.errors import StudyError
from common.fitting import Emit
from common.framework import Framework
from common.ladder_runs import Numbers
from common.memory_shortage import explained
from common.results import read_json, write_json
from common.rungs import Training, climb, training_from_json
from common.workers import Crew, work_through

THREADS = 1  # a process: the trainings are small, and every core has one
DEATHS = 2  # in a row, without a training between them: what is left of the list is given up


@dataclass(frozen=True)
class Listener:
    """Who is told what the processes do; from several threads."""

    on_start: Callable[[str, dict[str, str]], object]  # framework, environment
    on_end: Callable[[Training, Numbers | None, str], object]  # its numbers or None, why it failed or ""


def train_all(
    study: Study, directory: Path, trainings: Sequence[Training], steps: int, listener: Listener
) -> None:
    """Carry out trainings in a prepared study's folder, as many processes at a time as there are cores."""
    lists: dict[tuple[str, int], list[Training]] = {}
    for one in trainings:
        lists.setdefault((one.framework, one.seed), []).append(one)
    longest_first = sorted(
        lists.values(), key=len, reverse=True
    )  # so that no core waits for a long one at the end
    workers = max(1, min(len(lists), measure.usable_cores()))
    cores = core_slots(workers, THREADS)

    def work(todo: list[Training], slot: int, crew: Crew) -> None:
        environment = worker_environment(todo[0].framework, study.device, study.precision, THREADS, slot)
        try:
            _work_through_list(directory, todo, steps, environment, cores[slot], crew, listener)
        except BaseException:
            crew.stop()  # the others need not end first for this to be told
            raise

    work_through(longest_first, workers, work)


def _work_through_list(
    directory: Path,
    todo: list[Training],
    steps: int,
    environment: Mapping[str, str],
    cores: Sequence[int],
    crew: Crew,
    listener: Listener,
) -> None:
    """Start a process for a list, and again for the rest where it dies."""
    framework, deaths = todo[0].framework, 0
    name = f"{framework}-seed{todo[0].seed}"
    path = directory / f"{name}.json"
    command = engines.worker_command(framework, "climb", str(directory), str(path))
    command += ["--threads", str(THREADS)]
    if cores:
        command += ["--cores", ",".join(map(str, cores))]
    for attempt in itertools.count(1):
        write_json(path, {"steps": steps, "trainings": [config.to_json(one) for one in todo]})
        answers = _Answers(todo, listener)
        log = directory / f"{name}-{attempt}.log"
        ending = explained(crew.run(command, environment, log, answers.take))
        todo = todo[answers.count :]
        if not todo or crew.stopping.is_set():
            return
        deaths = 1 if answers.count else deaths + 1
        lost = len(todo) if deaths == DEATHS else 1
        for training in todo[:lost]:
            listener.on_end(training, None, ending.reason)
        todo = todo[lost:]
        if not todo:
            return


class _Answers:
    """What a process said of the trainings on its list so far; they are answered in order."""

    def __init__(self, todo: Sequence[Training], listener: Listener) -> None:
        self.count = 0
        self._todo, self._listener = todo, listener

    def take(self, event: Mapping[str, Any]) -> None:
        """One event of `rungs.climb`; anything else, as a library may print, is passed over."""
        if isinstance(environment := event.get("environment"), dict):
            self._listener.on_start(self._todo[0].framework, environment)
        if self.count < len(self._todo) and event.get("training") == self.count:
            training = self._todo[self.count]
            self.count += 1
            if "diverged" in event:
                self._listener.on_end(training, None, str(event["diverged"]))
            else:
                score = float("nan") if event["score"] is None else float(event["score"])
                self._listener.on_end(training, Numbers(float(event["loss"]), score), "")


def climb_list(framework: Framework, directory: Path, path: Path, threads: int, emit: Emit) -> None:
    """What a framework's process does with its list."""
    document = read_json(path)
    trainings = [training_from_json(one) for one in document["trainings"]]
    if other := next((one.framework for one in trainings if one.framework != framework.name()), None):
        raise StudyError(f"{path} is for {other}, and this is {framework.name()}")
    climb(framework, directory, trainings, document["steps"], threads, emit)
