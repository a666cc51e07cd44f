"""The leak meter: how much more a split by slice would have claimed than a split by patient holds.

```
OUT/leak.json             arms and effects (`common.leak_table`), marked as no result
OUT/leak.csv              a row a training: score with its interval over patients, sizes, who was seen in training
OUT/leak/                 the prepared data as a study has them; its split.csv is not used, for each seed draws a split
OUT/leak/trainings/TASK/MODEL/FRAMEWORK/ARM/seed0/
    training.json  history.csv  predictions.npz  worker.log
```

Both files are written anew after each training. The same command goes on where it stopped; more seeds, models, tasks or
another framework are added.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from common import config, engines
from common.config import NOTICE, TASKS, Study
from common.data.audit import describe_audit
from common.data.leaky_splits import require_patients
from common.engines import check_framework, core_slots, worker_environment
from common.errors import StudyError
from common.holding import hold
from common.leak_runs import LeakTraining, training_directory, trainings_of
from common.leak_table import WARNING, describe_leak, read_trained, show_measure, training_table
from common.memory_shortage import explained
from common.progress import CountProgress, ListProgress
from common.results import StudyRecord, read_json, write_csv, write_json
from common.study import describe_source, prepare_study
from common.workers import Crew, work_through

THREADS = 1  # a process: the models are small, and no number depends on how many work at a time


def leak_study(
    models: Sequence[str] = config.LEAK_MODELS,
    tasks: Sequence[str] | None = None,
    framework: str = "torch",
    data: Sequence[str] = (),
    profile: str = "quick",
    patients: int = 0,
    seeds: int = config.LEAK_SEEDS,
    epochs: int | None = None,
    device: str = "cpu",
    workers: int = 1,
    accepted: Sequence[str] = (),
) -> Study:
    """What the leak meter trains, from random numbers: each model on the tasks that are named, else on the first that
    trains it by default. Raises StudyError for a model that none of the named tasks has.
    """
    pairs = [(task, model) for model in dict.fromkeys(models) for task in _tasks_of(model, tasks)]
    return Study(
        data=tuple(data),
        profile=profile,
        patients=patients,
        tasks=tuple(task for task in TASKS if task in dict(pairs)),
        skippable=tasks is None,
        frameworks=(framework,),
        seeds=seeds,
        device=device,
        threads=THREADS,
        workers=workers,
        accepted=tuple(dict.fromkeys(accepted)),
        recipes={f"{task}/{model}": config.recipe_of(task, model, profile, epochs) for task, model in pairs},
        specs={f"{task}/{model}": config.spec_of(task, model, profile) for task, model in pairs},
    )


def measure_leak(asked: Study, directory: Path, console: Console) -> dict[LeakTraining, str]:
    """Train what is missing of the arms in a folder, write its files and show what they say.

    Returns the trainings that failed, each with the reason. Raises StudyError where patients are not known, and where
    the folder holds a leak meter of other data or recipes.
    """
    console.print(f"{describe_source(asked)}. {NOTICE}", markup=False)
    for framework in asked.frameworks:
        check_framework(framework)  # before a folder is made for nothing
    with hold(directory):
        study, record = _prepare(asked, directory, console)
        failed = _train_missing(study, record, directory, console)
    show_leak(directory, console)
    return failed


def show_leak(directory: Path, console: Console) -> None:
    """What the files of a leak meter say, a table a model."""
    document = read_json(directory / "leak.json")
    for one in document["measures"]:
        console.print(show_measure(one))
        if one["left_out"]:
            console.print(one["left_out"], markup=False)
    seeds, least = document["seeds"], config.MIN_INTERVAL_SEEDS
    interval = "intervals: 95 % over splits and seeds together (Nadeau & Bengio)"
    console.print(
        f"{seeds} seed{'s' * (seeds > 1)}, each with a split of its own, profile {document['profile']}, data: "
        f"{document['data']}; {interval if seeds >= least else f'no interval below {least} seeds'}.",
        markup=False,
    )
    console.print(f"{WARNING} {NOTICE}", markup=False)
    console.print(f"numbers: {directory / 'leak.csv'}", markup=False)


# --- steps of `measure_leak` --------------------------------------------------------------------------------------


def _tasks_of(model: str, tasks: Sequence[str] | None) -> list[str]:
    if tasks is None:
        return [next(task.name for task in TASKS.values() if model in task.default_models)]
    found = [name for name in dict.fromkeys(tasks) if model in TASKS[name].models]
    if not found:
        possible = ", ".join(task.name for task in TASKS.values() if model in task.models)
        raise StudyError(f"model {model!r} is for the task {possible}; give it with --tasks")
    return found


def _prepare(asked: Study, directory: Path, console: Console) -> tuple[Study, StudyRecord]:
    """What is asked for, as far as the data serve it, and the folder's prepared study, grown by it."""
    with CountProgress(console, "reading images") as reading:
        record = prepare_study(asked, directory / "leak", reading.tell)
    for line in describe_audit(record.audit()):
        console.print(line, markup=False)
    require_patients(record.samples())
    tasks = tuple(task for task in asked.tasks if task in record.study.tasks)
    study = dataclasses.replace(asked, tasks=tasks, device=record.study.device)
    if not study.pairs:
        raise StudyError(
            f"the data serve none of the models {', '.join(asked.models)}; give others or more data"
        )
    return study, record


def _train_missing(
    study: Study, record: StudyRecord, directory: Path, console: Console
) -> dict[LeakTraining, str]:
    """Train what is not finished; the folder's files are written anew after each training."""
    samples, own = record.samples(), record.directory
    everything, asked = trainings_of(record.study, samples), trainings_of(study, samples)
    trained = read_trained(own, everything)
    waiting = [one for one in asked if one not in trained]
    if len(waiting) < len(asked):
        console.print(
            f"{len(asked) - len(waiting)} of {len(asked)} trainings are finished already and kept",
            markup=False,
        )
    failed: dict[LeakTraining, str] = {}
    lock = threading.Lock()

    def write() -> None:
        ordered = {one: trained[one] for one in everything if one in trained}
        write_csv(directory / "leak.csv", training_table(ordered))
        write_json(directory / "leak.json", describe_leak(record.study, samples, ordered, failed))

    def on_end(training: LeakTraining, reason: str) -> None:
        with lock:
            trained.update(read_trained(own, [training]))
            if training not in trained:
                failed[training] = reason
            write()
            progress.tell(training.label, failed.get(training, ""))

    write()
    with ListProgress(console, len(waiting), len(asked) - len(waiting)) as progress:
        _train_all(own, study, waiting, on_end)
    return failed


def _train_all(
    directory: Path,
    study: Study,
    trainings: Sequence[LeakTraining],
    on_end: Callable[[LeakTraining, str], object],
) -> None:
    """Carry out trainings, `study.workers` at a time, each in a process of its own with one core."""
    cores = core_slots(study.workers, THREADS)

    def work(training: LeakTraining, slot: int, crew: Crew) -> None:
        own = training_directory(directory, training)
        own.mkdir(parents=True, exist_ok=True)
        command = engines.worker_command(training.framework, "leak", str(directory), str(training.path))
        command += ["--threads", str(THREADS)]
        if cores[slot]:
            command += ["--cores", ",".join(map(str, cores[slot]))]
        environment = worker_environment(training.framework, study.device, study.precision, THREADS, slot)
        ending = explained(crew.run(command, environment, own / "worker.log", lambda event: None))
        if not crew.stopping.is_set():
            on_end(training, ending.reason)

    work_through(trainings, study.workers, work)
