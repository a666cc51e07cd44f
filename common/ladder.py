"""The ladder from the native lane to lockstep: which default explains how much of the gap between two frameworks.

```
OUT/ladder.json                 what was asked, on which data; the defaults of each model in the order of the walk
OUT/ladder_runs.csv             a row a rung, framework and seed, as trained; grows while the ladder runs
OUT/ladder.csv                  gaps, shares and their intervals (`common.gaps`)
OUT/ladder/                     the prepared data as a study has them, plan.json, each worker's list and log
```

A different plan in the same folder is refused; the same goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from common import config, gaps
from common.config import NOTICE, TASKS, Default, Study, defaults_of
from common.data.audit import describe_audit
from common.engines import check_framework
from common.errors import StudyError
from common.holding import hold
from common.ladder_runs import Numbers, append_training, read_finished, runs_table
from common.ladder_workers import Listener, train_all
from common.metrics import classification, segmentation
from common.progress import CountProgress, ListProgress
from common.results import read_json, write_csv, write_json
from common.rungs import Training, base_of, trainings_of
from common.study import describe_source, prepare_study

FORMAT = 1


def ladder_study(
    models: Sequence[str],
    frameworks: Sequence[str],
    data: Sequence[str] = (),
    profile: str = "quick",
    patients: int = 0,
    seeds: int = config.LADDER_SEEDS,
    device: str = "cpu",
) -> Study:
    """The models, each on the first task that trains it by default, from random numbers: what a ladder compares.

    `frameworks` are the reference and the other. Raises StudyError unless they are two.
    """
    if len(set(frameworks)) != 2 or len(frameworks) != 2:
        raise StudyError(f"a ladder compares two frameworks, not {', '.join(frameworks)}; name two")
    pairs = [
        next((task.name, model) for task in TASKS.values() if model in task.default_models)
        for model in dict.fromkeys(models)
    ]
    return Study(
        data=tuple(data),
        profile=profile,
        patients=patients,
        tasks=tuple(task for task in TASKS if task in dict(pairs)),
        skippable=True,
        frameworks=tuple(frameworks),
        lanes=("native",),
        seeds=seeds,
        device=device,
        threads=1,
        recipes={f"{task}/{model}": config.recipe_of(task, model, profile) for task, model in pairs},
        specs={f"{task}/{model}": config.spec_of(task, model, profile) for task, model in pairs},
    )


def climb_ladder(study: Study, steps: int, directory: Path, console: Console) -> dict[Training, str]:
    """Train what is missing of the ladder in a folder, write its files and show what they say.

    Returns the trainings that failed, each with the reason. A folder that holds a ladder is extended by models and
    seeds, and refused where anything else differs (StudyError).
    """
    console.print(f"{describe_source(study)}. {NOTICE}", markup=False)
    for framework in study.frameworks:
        check_framework(framework)  # before a folder is made for nothing
    with hold(directory):
        prepared, plan = _prepare(study, steps, directory, console)
        finished = read_finished(directory / "ladder_runs.csv", all_trainings(prepared))
        write_csv(directory / "ladder_runs.csv", runs_table(finished, ladders_of(prepared), study.frameworks))
        failed = _train_missing(prepared, plan, directory, console, finished)
        _write_tables(prepared, plan, directory, finished)
    show_ladder(directory, console)
    return failed


def ladders_of(study: Study) -> dict[gaps.Pair, tuple[Default, ...]]:
    """(task, model) -> the defaults of its ladder, in the order in which the walk aligns them."""
    return {pair: defaults_of(*base_of(study, *pair)) for pair in study.pairs}


def all_trainings(study: Study) -> list[Training]:
    """What the ladders of a study take, both frameworks."""
    return [training for framework in study.frameworks for training in trainings_of(study, framework)]


def describe_ladder(study: Study, steps: int) -> dict[str, Any]:
    """`ladder.json`, but for the environment."""
    return {
        "format": FORMAT,
        "notice": NOTICE,
        "data": ", ".join(Path(folder).name for folder in study.data) or "the drawn phantom (not patients)",
        "profile": study.profile,
        "steps": steps,
        "seeds": study.seeds,
        "frameworks": list(study.frameworks),
        "environment": {},
        "ladders": [
            {
                "task": task,
                "model": model,
                "metric": TASKS[task].primary_metric,
                "metric_title": _metric_title(task),
                "defaults": [
                    {name: getattr(one, name) for name in ("name", "title", "about")}
                    | {"torch": dict(one.torch), "keras": dict(one.keras)}
                    for one in defaults
                ],
            }
            for (task, model), defaults in ladders_of(study).items()
        ],
    }


def show_ladder(directory: Path, console: Console) -> None:
    """What the files of a ladder say, a table a model."""
    document, table = read_json(directory / "ladder.json"), gaps.read_gaps(directory / "ladder.csv")
    reference, other = document["frameworks"]
    for ladder in document["ladders"]:
        own = table[(table["task"] == ladder["task"]) & (table["model"] == ladder["model"])]
        titles = [one["title"] for one in ladder["defaults"]]
        title = f"{ladder['model']} on {ladder['task']}, validation loss: {other} minus {reference}"
        console.print(gaps.show_gaps(own, titles, title))
        console.print(gaps.describe_ends(own, ladder["metric_title"], len(titles)), markup=False)
    console.print(
        "gap left: once the default is aligned too; explained: what that removed; alone: the gap with this "
        "default alone left to the frameworks, less that in lockstep",
        markup=False,
    )
    seeds = document["seeds"]
    interval = "± reaches the ends of the 95 % t interval over the seeds"
    if seeds < config.MIN_INTERVAL_SEEDS:
        interval = f"without intervals, which take {config.MIN_INTERVAL_SEEDS} seeds"
    console.print(
        f"{seeds} seed{'s' * (seeds > 1)} of {document['steps']} steps, profile {document['profile']}, data: "
        f"{document['data']}; {interval}. {NOTICE}",
        markup=False,
    )
    console.print(f"numbers: {directory / 'ladder.csv'}", markup=False)


# --- steps of `climb_ladder` --------------------------------------------------------------------------------------


def _prepare(study: Study, steps: int, directory: Path, console: Console) -> tuple[Study, dict[str, Any]]:
    """The study of the folder, grown by what is asked for, and its plan, both written; refuses another plan."""
    path = directory / "ladder" / "plan.json"
    earlier = read_json(path) if path.exists() else None
    if earlier is None and (directory / "ladder_runs.csv").exists():
        raise StudyError(
            f"{directory / 'ladder_runs.csv'} is there without its {path}; delete it or choose another --out"
        )
    if earlier:
        _check_same(earlier, describe_ladder(study, steps), directory)
    with CountProgress(console, "reading images") as reading:
        record = prepare_study(study, directory / "ladder", reading.tell)
    for line in describe_audit(record.audit()):
        console.print(line, markup=False)
    prepared = dataclasses.replace(record.study, frameworks=study.frameworks)
    if not set(study.pairs) & set(prepared.pairs):
        raise StudyError(
            f"the data serve none of the models {', '.join(study.models)}; give others or more data"
        )
    plan = describe_ladder(prepared, steps) | ({"environment": earlier["environment"]} if earlier else {})
    write_json(path, plan)
    return prepared, plan


def _check_same(earlier: Mapping[str, Any], asked: Mapping[str, Any], directory: Path) -> None:
    """Raise StudyError where finished trainings would not fit to what is asked for."""
    for name in ("steps", "frameworks"):
        if earlier[name] != asked[name]:
            raise StudyError(
                f"{directory} holds a ladder with {name} {earlier[name]}, and {asked[name]} was asked for; "
                "give the same or choose another --out"
            )
    before = {(one["task"], one["model"]): one["defaults"] for one in earlier["ladders"]}
    for one in asked["ladders"]:
        if before.get((one["task"], one["model"]), one["defaults"]) != one["defaults"]:
            raise StudyError(
                f"{directory} holds a ladder of {one['model']} with other defaults than this version's; "
                "choose another --out"
            )


def _train_missing(
    study: Study,
    plan: dict[str, Any],
    directory: Path,
    console: Console,
    finished: dict[Training, Numbers],
) -> dict[Training, str]:
    """Train what is not finished, adding it to `finished` and its file, and to the plan with what."""
    waiting = [one for one in all_trainings(study) if one not in finished]
    if finished:
        console.print(
            f"{len(finished)} of {len(finished) + len(waiting)} trainings are finished already and kept",
            markup=False,
        )
    failed: dict[Training, str] = {}
    lock, ladders = threading.Lock(), ladders_of(study)

    def on_start(framework: str, environment: dict[str, str]) -> None:
        with lock:
            known = plan["environment"].setdefault(framework, environment)
            if known != environment:
                raise StudyError(
                    f"the ladder in {directory} was begun with {known.get('framework')} and another environment than "
                    f"this one ({environment.get('framework')}); choose another --out"
                )
            write_json(directory / "ladder" / "plan.json", plan)

    def on_end(training: Training, numbers: Numbers | None, reason: str) -> None:
        with lock:
            if numbers is None:
                failed[training] = reason
            else:
                append_training(directory / "ladder_runs.csv", training, numbers, ladders)
                finished[training] = numbers
            progress.tell(training.label, reason)

    with ListProgress(console, len(waiting), len(finished)) as progress:
        train_all(study, directory / "ladder", waiting, plan["steps"], Listener(on_start, on_end))
    return failed


def _write_tables(
    study: Study, plan: dict[str, Any], directory: Path, finished: Mapping[Training, Numbers]
) -> None:
    ladders = ladders_of(study)
    runs = runs_table(finished, ladders, study.frameworks)
    write_csv(directory / "ladder_runs.csv", runs)
    table = gaps.tabulate_gaps(runs, ladders, study.frameworks, study.seeds)
    write_csv(directory / "ladder.csv", table)
    write_json(directory / "ladder.json", plan)


def _metric_title(task: str) -> str:
    titles = segmentation.TITLE if TASKS[task].kind == "segmentation" else classification.TITLE
    return titles[TASKS[task].primary_metric]
