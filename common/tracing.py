"""Processes that trace trainings: which framework, which model, how many threads, and the folders that they leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from common import config
from common.config import PARITY_TASKS, Run
from common.engines import worker_command, worker_environment
from common.memory_shortage import explained
from common.progress import GridProgress
from common.results import StudyRecord, write_json
from common.trace import TraceJob, TracePlan
from common.workers import Crew, work_through


@dataclass(frozen=True)
class Side:
    """One process: a model in a framework with a number of threads, trained once for each entry of `names`."""

    model: str
    framework: str
    threads: int = 1
    precision: str = ""  # another than the study's
    # Of each training, the defaults that the framework is left with: none, or a fault
    names: tuple[tuple[str, ...], ...] = ((),)

    @property
    def title(self) -> str:
        """The framework, and what sets this side apart from its plain one."""
        threads = f"{self.threads} threads" if self.threads > 1 else ""
        return ", ".join(filter(None, (self.framework, threads, self.precision)))

    @property
    def run(self) -> Run:
        """Its key for the display of progress."""
        return Run(PARITY_TASKS[self.model], self.model, self.title, "lockstep", seed=0, fold=0)


def trace_directory(traces: Path, side: Side, names: tuple[str, ...] = ()) -> Path:
    """Where a side leaves the trace of a training."""
    return traces / side.model / side.title / ("+".join(names) or "lockstep")


def trace_sides(
    sides: Sequence[Side],
    record: StudyRecord,
    steps: int,
    workers: int,
    traces: Path,
    console: Console,
    settle: Callable[[Side, str], object],
) -> None:
    """Trace every side on a prepared study, `workers` at a time, in their order.

    `settle(side, reason)` is called from several threads, for each that ended, with the reason if it failed. What a
    worker says goes to a log beside `traces`. On KeyboardInterrupt the workers are ended.
    """
    study = record.study

    def work(side: Side, slot: int, crew: Crew) -> None:
        jobs = tuple(
            TraceJob(
                study=str(record.directory),
                task=PARITY_TASKS[side.model],
                model=side.model,
                steps=steps,
                directory=str(trace_directory(traces, side, names)),
                names=names,
            )
            for names in side.names
        )
        path, precision = traces / side.model / f"{side.title}.json", side.precision or study.precision
        plan = TracePlan(side.framework, study.device, precision, side.threads, jobs)
        write_json(path, config.to_json(plan))
        progress.tell(side.run, {"started": ""})
        ending = crew.run(
            worker_command(side.framework, "trace", str(path)),
            worker_environment(side.framework, study.device, precision, side.threads, slot),
            traces.parent / f"{side.model}, {side.title}.log",
            lambda event: progress.tell(side.run, event),
        )
        code, reason = ending.code, explained(ending).reason
        if not crew.stopping.is_set():
            progress.tell(side.run, {"failed": reason} if code else {"complete": True})
            settle(side, reason if code else "")

    def label(run: Run) -> str:
        return f"{run.model} {run.framework}"

    with GridProgress(console, [side.run for side in sides], label=label) as progress:
        work_through(sides, workers, work)
