"""How often a run was tried and where: the rule of trying again, and `engine.json` beside the run's record.

```
engine     "local" | "ray"
attempts   [{node, queued, started, ended, outcome, token}, ...]  of the command that brought the run to its end
             node     null here; {id, host} on a cluster, id as Ray has it
             outcome  "complete", or the reason why not
             token    of the try (`common.fence`); the run's record tells that of the try which wrote it, `attempt`
notice     research only
```

It tells nothing of the run's result and no report reads it; without it a run is complete all the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import config, fence
from common.config import NOTICE, RETRIES, Run
from common.errors import StudyError
from common.fence import look_anew
from common.holding import check_there
from common.measure import utc_now
from common.names import printable
from common.results import (
    RunRecord,
    discard_damaged,
    read_json,
    read_run,
    run_directory,
    write_atomically,
    write_json,
)
from common.run import clear_finished, clear_unfinished, record_failure
from common.workers import Ending, read_end

FILE = "engine.json"
COMPLETE = "complete"
LOG = "run.log"  # the words of a run's processes, of every try and start
AGAIN = "--- started again "


@dataclass(frozen=True)
class Attempt:
    """One try of a run; times are UTC, ISO 8601."""

    node: Mapping[str, str] | None
    queued: str
    started: str | None  # None: it was lost before its node could tell
    ended: str
    outcome: str
    token: str


def may_retry(ending: Ending, tries: int) -> bool:
    """Whether a run that ended so, in the last of so many tries, is tried again.

    It is where its process was killed or lost, and only then: a wrong configuration, bad data, a training that diverges
    or a bug would end in the same way again.
    """
    return ending.unexplained and tries <= RETRIES


def claim(directory: Path, number: int) -> str:
    """Begin a try in a run's folder, the `number`th of this command, and clear what earlier ones left but their
    snapshot and their log. From here on none of them writes there.

    Returns the try's token, which no other one of the run has. Raises StudyError where an earlier one keeps writing,
    and where a finished run is there, maybe of another study or version: it is not ours to overwrite.
    """
    whose = f"{platform.node()} {os.getpid()} {time.time_ns()} {number} {directory}"
    token = (
        f"{number}-{hashlib.sha256(whose.encode()).hexdigest()[:16]}"  # a record should not tell who made it
    )
    directory.mkdir(parents=True, exist_ok=True)
    try:
        fence.begin(directory, token)
    except TimeoutError:
        raise StudyError(
            f"another process keeps writing into {directory}; end it and give the same command again"
        ) from None
    look_anew(directory)
    try:
        discard_damaged(directory)
        reason = _failure(directory)
        clear_unfinished(directory)
    except StudyError:
        fence.end(directory)
        raise
    _go_on_in_log(directory / LOG, reason)
    return token


def _failure(directory: Path) -> str:
    """When and why the run failed before; empty where it has no such record."""
    path = directory / "run.json"
    document = read_json(path) if path.exists() else {}
    if document.get("status") != "failed":
        return ""
    return f"--- failed {document.get('finished')}: {document.get('reason')}"


def _go_on_in_log(path: Path, reason: str) -> None:
    """Mark where the words of the next try begin, behind the last ones of those before: `config.RUN_LOG_BYTES`."""
    try:
        earlier = read_end(path, config.RUN_LOG_BYTES)
        cut = len(earlier) < path.stat().st_size
    except FileNotFoundError:
        earlier, cut = b"", False
    lines = earlier.splitlines(keepends=True)
    if cut:
        lines[0] = b"--- what was said before is left out\n"
    if lines and lines[-1].startswith(AGAIN.encode()):  # a try that never came to a word
        lines.pop()
    if lines and not lines[-1].endswith(b"\n"):  # it was killed within a line
        lines.append(b"\n")
    if reason:
        lines.append(f"{printable(reason)}\n".encode())
    if lines:
        lines.append(f"{AGAIN}{utc_now()}\n".encode())
        write_atomically(path, lambda stream: stream.writelines(lines))


def is_complete(study_directory: Path, run: Run) -> bool:
    """Whether a run has its record, however its last process ended: it may have been killed, or met a fault, between
    the last file and its end, and another try may have been there before it. `claim` has removed older ones.
    """
    record = _read_anew(study_directory, run)
    return record is not None and record.complete


def await_record(study_directory: Path, run: Run) -> bool:
    """Whether this machine sees the run's record, which another one has written to their common disk; waits for it, but
    no longer than `config.RECORD_SECONDS`.
    """
    until = time.monotonic() + config.RECORD_SECONDS
    while not (seen := _read_anew(study_directory, run) is not None) and time.monotonic() < until:
        time.sleep(config.RECORD_LOOK_SECONDS)
    return seen


def _read_anew(study_directory: Path, run: Run) -> RunRecord | None:
    look_anew(run_directory(study_directory, run))
    return read_run(study_directory, run)


def settle(
    study_directory: Path,
    run: Run,
    engine: str,
    attempts: Sequence[Attempt],
    on_event: Callable[[Run, dict[str, Any]], object],
) -> None:
    """Record what a run's tries came to, and tell. None of them writes any more, also where one is alive.

    StudyError where the study's folder has gone away: that is no failure of the run.
    """
    check_there(study_directory)
    last = attempts[-1]
    fence.end(run_directory(study_directory, run))
    record = _read_anew(study_directory, run)
    if record is not None and record.complete:
        clear_finished(run_directory(study_directory, run))
        attempts = _credited(attempts, record.document.get("attempt"))
        on_event(run, {"complete": True})
    else:
        record_failure(study_directory, run, last.outcome, last.started or last.queued)
        on_event(run, {"failed": last.outcome})
    rows = [dataclasses.asdict(attempt) for attempt in attempts]
    document = {"engine": engine, "attempts": rows, "notice": NOTICE}
    write_json(run_directory(study_directory, run) / FILE, document)


def _credited(attempts: Sequence[Attempt], token: Any) -> list[Attempt]:
    """The tries of a run that is complete: that which wrote its record is complete, and no other; the last one where
    the record does not tell.
    """
    places = [place for place, attempt in enumerate(attempts) if attempt.token == token]
    writer = places[0] if places else len(attempts) - 1
    late = f"the run's record is that of try {writer + 1}"
    outcomes = [late if attempt.outcome == COMPLETE else attempt.outcome for attempt in attempts]
    outcomes[writer] = COMPLETE
    return [
        dataclasses.replace(attempt, outcome=outcome)
        for attempt, outcome in zip(attempts, outcomes, strict=True)
    ]


@contextlib.contextmanager
def told_of_disk(study_directory: Path) -> Iterator[None]:
    """What the system refuses the engine is a StudyError: the rest of the runs would meet it too."""
    try:
        yield
    except OSError as error:
        check_there(study_directory)
        raise StudyError(
            f"the runs in {study_directory} cannot go on: {error.strerror or error}; what is finished is "
            "kept, the same command goes on from there"
        ) from error
