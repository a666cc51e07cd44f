"""How often a run was tried and where: the rule of trying again, and `engine.json` beside the run's record.

```
engine     "local" | "ray"
attempts   [{node, queued, started, ended, outcome}, ...]  of the command that brought the run to its end
             node     null here; {id, host} on a cluster, id as Ray has it
             outcome  "complete", or the reason why not
notice     research only
```

It tells nothing of the run's result and no report reads it; without it a run is complete all the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config import NOTICE, RETRIES, Run
from common.errors import StudyError
from common.results import discard_damaged, read_run, run_directory, write_json
from common.run import clear_unfinished, record_failure
from common.workers import Ending

FILE = "engine.json"


@dataclass(frozen=True)
class Attempt:
    """One try of a run; times are UTC, ISO 8601."""

    node: Mapping[str, str] | None
    queued: str
    started: str | None  # None: it was lost before its node could tell
    ended: str
    outcome: str


def may_retry(ending: Ending, tries: int) -> bool:
    """Whether a run that ended so, in the last of so many tries, is tried again.

    It is where its process was killed or lost, and only then: a wrong configuration, bad data, a training that diverges
    or a bug would end in the same way again.
    """
    return ending.unexplained and tries <= RETRIES


def make_room(directory: Path) -> str:
    """Clear a run's folder for a try; returns why that may not be: a finished run of another study or version is there,
    which is not ours to overwrite.
    """
    try:
        discard_damaged(directory)
        clear_unfinished(directory)
    except StudyError as error:
        return str(error)
    return ""


def is_complete(study_directory: Path, run: Run) -> bool:
    """Whether a run has its record, however its last process ended: it may have been killed, or met a fault, between
    the last file and its end, and another try may have been there before it. `make_room` has removed older ones.
    """
    record = read_run(study_directory, run)
    return record is not None and record.complete


def settle(
    study_directory: Path,
    run: Run,
    engine: str,
    attempts: Sequence[Attempt],
    on_event: Callable[[Run, dict[str, Any]], object],
) -> None:
    """Record what a run's last try came to, and tell."""
    last = attempts[-1]
    if last.outcome == "complete":
        on_event(run, {"complete": True})
    else:
        record_failure(study_directory, run, last.outcome, last.started or last.queued)
        on_event(run, {"failed": last.outcome})
    rows = [dataclasses.asdict(attempt) for attempt in attempts]
    document = {"engine": engine, "attempts": rows, "notice": NOTICE}
    write_json(run_directory(study_directory, run) / FILE, document)


@contextlib.contextmanager
def told_of_disk(study_directory: Path) -> Iterator[None]:
    """What the system refuses the engine is a StudyError: the rest of the runs would meet it too."""
    try:
        yield
    except OSError as error:
        raise StudyError(
            f"the runs in {study_directory} cannot go on: {error.strerror or error}; what is finished is "
            "kept, the same command goes on from there"
        ) from error
