"""The grid task x model x framework x seed x fold: prepare the data once, run what is missing, resume."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from common import config, interpreters, measure
from common.config import BACKBONES, NOTICE, PROFILES, TASKS, Engine, Run, Study
from common.data.audit import Judged, audit_data, describe_audit, earlier_audit
from common.data.cache import keep_readable
from common.data.caches import build_caches
from common.data.findings import refuse
from common.data.layouts import open_dataset
from common.data.phantom import phantom_samples
from common.data.samples import OVERLAY, samples_digest
from common.data.splits import split_table, task_split, why_not
from common.distributed import check_devices
from common.engines import LOCAL, check_framework, execute, opened, resolve_device
from common.errors import StudyError
from common.holding import hold, told_where_gone, unwritable
from common.measure import utc_now
from common.pretrained import Pretrained, resolve_weights
from common.progress import CountProgress, GridProgress
from common.results import (
    FORMAT,
    RunRecord,
    StudyRecord,
    read_run,
    read_study,
    write_json,
    write_text_table,
)
from common.run import clear_finished
from common.seals import file_digests
from common.slices import slice_reader
from common.starts import FindWeights, find_starts, keep_weights, pretrained_of

FIXED = (
    "data",
    "profile",
    "patients",
    "device",
    "devices",
    "folds",
    "split_seed",
    "precision",
    "deterministic",
    "threads",  # where both are deterministic
    "weights",  # where both have backbones
    "recipes",
    "specs",
)  # one value a folder; tasks, models, frameworks, lanes, seeds and repeats may grow


def prepare_study(
    study: Study,
    directory: Path,
    on_progress: Callable[[int, int], object] = lambda done, total: None,
    find_weights: FindWeights = lambda models: {},
    engine: Engine = LOCAL,
    say: Callable[[str], object] = lambda text: None,
) -> StudyRecord:
    """Write `study.json` and `data/`: the samples that can be read, their split, the cache of their pixels, and the
    files that backbones start from, which `find_weights` is asked for where the folder does not hold them yet.

    A folder that already holds a study is extended when it is the same study on the same data with a larger grid,
    and refused otherwise (StudyError): finished runs must stay comparable with new ones. The device "auto" is resolved
    here, once for all runs. Data that the audit refuses, unless by a finding in `study.accepted`, are a StudyError;
    what was found is written then, `study.json` is not. `say` hears of the disk and of damage to the cache.
    """
    for framework in study.frameworks:
        check_framework(framework)
    study = dataclasses.replace(study, device=resolve_device(study.device, study.frameworks, engine))
    check_devices(study)
    record = read_study(directory) if (directory / "study.json").exists() else None
    earlier = record.document if record else None
    if record:
        _check_comparable(record.study, study, directory)
    _check_writable(directory)
    # What is missing is best told before pictures are read; but nothing is fetched for a task that may be left out.
    wait = study.skippable and study.weights == "imagenet"
    pretrained = {} if wait else find_starts(study, record, directory, find_weights)
    try:
        samples = open_samples(study, on_progress)
        study, skipped = choose_tasks(study, samples)
        if wait:
            pretrained = find_starts(study, record, directory, find_weights)
        grid = _merge(record.study, study) if record else study
        caches = build_caches(grid, samples, directory / "data" / "cache", on_progress, say)
        readable = samples
        for cache in caches.values():
            readable = keep_readable(readable, cache)
        # What cannot be read may have been all that a task had
        study, unserved = choose_tasks(study, readable)
        grid = _merge(record.study, study) if record else study
        # Masks as they were found: whether they were read is the tasks' affair, and tasks may be added
        digest = samples_digest(samples[samples["id"].isin(readable["id"])])
        if earlier and earlier.get("samples_sha256") != digest:
            raise StudyError(
                f"the data in {list(study.data) or 'the phantom'} differ from those of the study in {directory}; "
                "choose another --out"
            )
        table = split_table(readable, study.folds, study.split_seed)
        grid, split, unsplit = split_tasks(grid, readable, table)
        pretrained = {model: one for model, one in pretrained.items() if model in grid.models}
        judged = Judged(
            samples, readable, list(caches.values()), table, grid.tasks, skipped + unserved + unsplit
        )
        audit = audit_data(
            judged,
            grid.accepted,
            earlier=earlier_audit(directory / "data" / "audit.json"),
            drawn=caches[max(caches)],
            on_progress=on_progress,
        )
        write_json(directory / "data" / "audit.json", audit)
        refuse(audit["findings"], grid.accepted, str(directory / "data" / "audit.json"))
        # Not before the audit has let the data pass: study.json has their digests
        write_text_table(directory / "data" / "samples.csv", _with_relative_paths(readable, directory))
        write_text_table(directory / "data" / "split.csv", split)
        document = {
            "format": FORMAT,
            "notice": NOTICE,
            "study": config.to_json(grid),
            "samples_sha256": digest,
            "caches": {
                str(size): str(cache.directory.relative_to(directory)) for size, cache in caches.items()
            },
            "pretrained": keep_weights(pretrained, pretrained_of(record), directory),
            "environment": measure.common_environment(),
            "own_interpreters": interpreters.chosen(),
            "git_commit": measure.git_commit(Path(__file__).parent),
            "created": (earlier or {}).get("created") or utc_now(),
            "files": file_digests(directory / "data", ("samples.csv", "split.csv")),
        }
        write_json(directory / "study.json", document)
    except OSError as error:
        raise StudyError(
            f"{directory} cannot be written: {error.strerror or error}; free space or choose another --out"
        ) from error
    return read_study(directory)


def open_samples(
    study: Study, on_progress: Callable[[int, int], object] = lambda done, total: None
) -> pd.DataFrame:
    """The sample table of the study's folders, or of its profile's phantom."""
    if study.data:
        return open_dataset(*study.data, on_progress=on_progress)
    phantom = PROFILES[study.profile].phantom
    return phantom_samples(dataclasses.replace(phantom, patients=study.patients or phantom.patients))


def choose_tasks(study: Study, samples: pd.DataFrame) -> tuple[Study, list[dict[str, str]]]:
    """The study with the tasks that the data can serve, and what was left out: [{"task", "reason"}].

    Raises StudyError where a task that was asked for by name cannot be served, or none can.
    """
    reasons = {task: why_not(samples, TASKS[task]) for task in study.tasks}
    skipped = [{"task": task, "reason": reason} for task, reason in reasons.items() if reason]
    kept = tuple(task for task, reason in reasons.items() if not reason)
    if skipped and (not study.skippable or not kept):
        remedy = "give more data" if study.skippable else "leave it out of --tasks"
        raise StudyError(
            f"the data cannot serve the task {skipped[0]['task']!r}: {skipped[0]['reason']}; {remedy}"
        )
    return dataclasses.replace(study, tasks=kept), skipped


def split_tasks(
    study: Study, samples: pd.DataFrame, table: pd.DataFrame
) -> tuple[Study, pd.DataFrame, list[dict[str, str]]]:
    """The study with the tasks of which every part shows every class, their rows of the split table, and what was left
    out: [{"task", "reason"}].

    Raises StudyError where a task that was asked for by name lacks a class somewhere, or every task does.
    """
    splits: dict[str, pd.DataFrame] = {}
    skipped: list[dict[str, str]] = []
    for task in study.tasks:
        try:
            splits[task] = task_split(samples, table, TASKS[task])
        except StudyError as error:
            if not study.skippable:
                raise
            skipped.append({"task": task, "reason": str(error)})
    if not splits:
        raise StudyError(skipped[0]["reason"])
    kept = dataclasses.replace(study, tasks=tuple(splits))
    return kept, pd.concat(splits.values(), ignore_index=True), skipped


def missing_runs(study: Study, directory: Path) -> list[Run]:
    """The runs of the grid that are not complete; failed ones are tried again."""
    return [
        run for run in study.runs() if (record := read_run(directory, run)) is None or not record.complete
    ]


def run_study(
    study: Study,
    directory: Path,
    on_event: Callable[[Run, dict[str, Any]], object],
    engine: Engine = LOCAL,
) -> list[Run]:
    """Carry out what is missing of the grid in a prepared folder; returns the runs that were tried."""
    runs = missing_runs(study, directory)
    execute(directory, study, runs, on_event, engine)
    return runs


def carry_out(study: Study, directory: Path, console: Console, engine: Engine = LOCAL) -> list[RunRecord]:
    """Prepare, run what is missing, and show it all on the console; returns the records of the runs that failed."""
    console.print(f"{describe_source(study)}. {NOTICE}", markup=False)
    for framework in study.frameworks:
        check_framework(framework)  # before a folder is made for nothing

    def find_weights(models: Sequence[str]) -> Mapping[str, Pretrained]:
        return resolve_weights(study.weights, models, lambda text: console.print(text, markup=False))

    with hold(directory):
        with CountProgress(console, "reading images") as reading:
            record = prepare_study(study, directory, reading.tell, find_weights, engine, reading.say)
        for done in record.complete:
            clear_finished(done.directory)
        tasks = tuple(task for task in study.tasks if task in record.study.tasks)
        study = dataclasses.replace(study, device=record.study.device, tasks=tasks)
        for line in describe_audit(record.audit()):
            console.print(line, markup=False)
        waiting = missing_runs(study, directory)
        for line in what_to_expect(study, record) if waiting else ():
            console.print(line, markup=False)
        finished = len(study.runs()) - len(waiting)
        if finished:
            console.print(
                f"{finished} of {len(study.runs())} runs are finished already and kept", markup=False
            )
        with told_where_gone(directory), opened(engine if waiting else LOCAL) as cluster:
            if cluster:
                console.print(cluster, markup=False)
            with GridProgress(console, waiting, finished) as progress:
                run_study(study, directory, progress.tell, engine)
        tried = [read_run(directory, run) for run in waiting]
    return [record for record in tried if record is not None and not record.complete]


def what_to_expect(study: Study, record: StudyRecord) -> list[str]:
    """What the asked-for seeds can show, line by line."""
    from common.planning import planned  # here: workers import this module, not the statistics

    return planned(study, record)


def report_study(directory: Path, console: Console, pictures: bool = True) -> None:
    """Write the report from the study's files and show its summary on the console; without `pictures`, no slices."""
    from common.report import (  # here: workers import this module, not Matplotlib
        terminal_summary,
        write_report,
    )

    with told_where_gone(directory):
        path = write_report(directory, slice_reader(read_study(directory)) if pictures else None)
        console.print(terminal_summary(directory))
    console.print(f"report: {path}", markup=False, soft_wrap=True)


def describe_source(study: Study) -> str:
    """On which data, in words, for everything that is printed."""
    return f"data: {', '.join(study.data) or 'the drawn phantom (not patients)'}"


def _with_relative_paths(samples: pd.DataFrame, directory: Path) -> pd.DataFrame:
    """The table with paths relative to the study's folder: a record to share should not tell who made it."""

    def relative(path: str) -> str:
        if path.startswith(OVERLAY):
            return OVERLAY + relative(path.removeprefix(OVERLAY))
        return os.path.relpath(path, directory.resolve()) if Path(path).is_absolute() else path

    return samples.assign(path=samples["path"].map(relative), mask=samples["mask"].map(relative))


def _check_comparable(earlier: Study, asked: Study, directory: Path) -> None:
    """Raise StudyError where the runs of the two could not be compared."""
    for name in FIXED:
        before, now = getattr(earlier, name), getattr(asked, name)
        if name == "weights" and not (_has_backbones(earlier) and _has_backbones(asked)):
            continue
        if name == "threads" and not asked.deterministic:
            continue
        if name in ("recipes", "specs"):
            shared = {f"{task}/{model}" for task, model in earlier.pairs} & now.keys()
            before, now = {k: before[k] for k in shared}, {k: now[k] for k in shared}
        if before != now:
            raise StudyError(
                f"{directory} holds a study with {name} {_brief(before)}, and {_brief(now)} was asked for; "
                "give the same or choose another --out"
            )


def _has_backbones(study: Study) -> bool:
    return any(model in BACKBONES for model in study.models)


def _merge(earlier: Study, asked: Study) -> Study:
    """The earlier grid grown by what is asked for now."""

    def union(name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*getattr(earlier, name), *getattr(asked, name))))

    return dataclasses.replace(
        asked,
        tasks=union("tasks"),
        frameworks=union("frameworks"),
        lanes=tuple(lane for lane in config.STUDY_LANES if lane in union("lanes")),
        seeds=max(earlier.seeds, asked.seeds),
        repeats=max(earlier.repeats, asked.repeats),
        accepted=union("accepted"),
        weights=(asked if _has_backbones(asked) else earlier).weights,
        recipes={**earlier.recipes, **asked.recipes},
        specs={**earlier.specs, **asked.specs},
    )


def _brief(value: object) -> str:
    text = str(list(value)) if isinstance(value, tuple) else str(value)
    return text if len(text) < 80 else text[:77] + "..."


def _check_writable(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise unwritable(directory, error) from error
