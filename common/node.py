"""What a Ray task does on its node: start a run's worker, listen to it, and bring home what it wrote.

Only the standard library, `common.workers`, `common.parcels` and part of `common.fence` are needed here. They travel to
the node by value, and the code that the worker runs travels as files: whatever a node has installed or checked out of
this project, a study runs one version.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.fence import begin, is_current
from common.parcels import Parcel, held, locked, own_folder, remove, sweep
from common.workers import follow, start_worker

try:
    import fcntl
except ImportError:  # a system without it has no locks; Ray's nodes are Linux or macOS
    fcntl = None  # type: ignore[assignment]

LETTER_SECONDS = 60.0  # that a run's end waits for its last event to be told


@dataclass(frozen=True)
class Job:
    """One try of a run, as its node is told."""

    path: str  # of the run
    attempt: int
    token: str  # of the try (`common.fence`)
    study: str  # the folder, where the driver sees it
    mark: tuple[str, str] | None  # a file there and what it says; None: nobody shares the folder
    threads: int  # of each of its devices
    cores: int
    command: tuple[str, ...]  # interpreter and words, up to the study's folder
    own_python: bool  # the interpreter was chosen: no other will do
    environment: dict[str, str]  # what sets the worker's apart
    without: tuple[str, ...]  # variables that it lacks
    code: Parcel
    data: Parcel | None  # the study's files; None: not packed so far
    files: dict[str, bytes]  # of the run's folder, e.g. a snapshot and the log, where it is not shared
    owner: str  # name of the mailbox, an actor that ends with the driver
    keep_seconds: float  # of code that nobody uses


class Mailbox:
    """Where the events of all nodes wait for the driver; a Ray actor."""

    def __init__(self) -> None:
        self._letters: list[Any] = []

    def put(self, letter: Any) -> None:
        self._letters.append(letter)

    def take(self) -> list[Any]:
        letters, self._letters = self._letters, []
        return letters


def carry_out(job: Job, mailbox: Any) -> dict[str, Any]:
    """Carry out a run on this node; returns how it ended:

    node           {id, host}
    started, ended  UTC, ISO 8601
    ending         (code, reason, told), see `common.workers.Ending`
    complete       whether the run's record is there and says so: a network disk may show it to the driver later only
    files          name -> bytes of the run's folder, where that is a copy of ours; None where it is the study's own

    Or {node, unseen: True}: the study's folder is not seen from here, and its files are needed.
    """
    import ray

    node = {"id": ray.get_runtime_context().get_node_id()[:12], "host": socket.gethostname()}
    shared = job.mark is not None and _reads(Path(job.study) / job.mark[0]) == job.mark[1].encode()
    if not shared and job.data is None:
        return {"node": node, "unseen": True}
    started = _now()
    python = python_here(job.command[0], job.own_python)
    if python is None:
        reason = f"the node {node['host']} has no {job.command[0]}, which was chosen to run the framework"
        return {"node": node, "started": started, "ended": _now(), "ending": (2, reason, True)}
    last = None  # reference to the last letter's arrival

    def tell(event: dict[str, Any]) -> None:
        nonlocal last
        last = mailbox.put.remote((job.path, job.attempt, event))

    tell({"started": started, "node": node})
    base = own_folder()
    with contextlib.ExitStack() as using:
        code, study = using.enter_context(held(job.code, base, ray.get)), Path(job.study)
        if not shared and job.data is not None:
            study = using.enter_context(held(job.data, base, ray.get, job.owner))
        with contextlib.suppress(Exception):  # no run is to fail for that
            sweep(base, living_mailboxes, job.keep_seconds)
        done = work(job, python, code, study, base, shared, tell)
    with contextlib.suppress(ray.exceptions.RayError):  # so that nothing is told of a run after its end
        ray.get(last, timeout=LETTER_SECONDS)
    return {"node": node, "started": started, "ended": _now()} | done


def work(
    job: Job,
    python: str,
    code: Path,
    study: Path,
    base: Path,
    shared: bool,
    tell: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Carry out a run in the folder of a study; returns its `ending`, `complete` and `files`."""
    directory = study / "runs" / job.path
    if not shared:
        shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)
    if not shared:  # else the driver has done so
        begin(directory, job.token)
        for name, content in job.files.items():
            (directory / name).write_bytes(content)
    with claim_cores(job.cores, base) as cores:
        command = [python, *job.command[1:], str(study), job.path]
        command += ["--threads", str(job.threads), "--supervised", "--attempt", job.token]
        if cores:
            command += ["--cores", ",".join(map(str, cores))]
        environment = environment_here(job.environment, job.without, code)
        log = directory / "run.log"
        with log.open("ab") as words:
            since = words.tell()
            process = start_worker(command, environment, words, folder=code)
            ending = follow(process, words, log, tell, since)
    complete = says_complete(directory / "run.json")
    files: dict[str, bytes] | None = None if shared else {}
    if not shared and is_current(directory, job.token):  # else a later try on this node works there
        files = {
            one.name: one.read_bytes()
            for one in directory.iterdir()
            if one.is_file() and not one.name.startswith(".")
        }
        shutil.rmtree(directory, ignore_errors=True)
    return {"ending": tuple(ending), "complete": complete, "files": files}


def answer(
    command: tuple[str, ...],
    own_python: bool,
    environment: dict[str, str],
    without: tuple[str, ...],
    code: Parcel,
    seconds: float,
) -> tuple[int, str, str]:
    """Exit code and what a command says on its standard output and error, started as a worker would be."""
    import ray

    python = python_here(command[0], own_python)
    if python is None:
        return 127, "", f"the node {socket.gethostname()} has no {command[0]}"
    with held(code, own_folder(), ray.get) as folder:
        said = subprocess.run(
            [python, *command[1:]],
            env=environment_here(environment, without, folder),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    return said.returncode, said.stdout, said.stderr


def forget(digest: str) -> None:
    """Remove what a parcel brought to this node."""
    remove(own_folder(), digest)


def living_mailboxes() -> set[str]:
    """The mailboxes of the drivers that live, by their names."""
    from ray.util import list_named_actors

    return {str(one["name"]) for one in list_named_actors(all_namespaces=True)}


def take_place() -> None:
    """Nothing. A task that waits to do it shows the cluster what a run will ask for, so that it can grow."""


def says_complete(record: Path) -> bool:
    """Whether there is a run's record that says that the run is complete."""
    try:
        document = json.loads(_reads(record) or b"")
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("status") == "complete"


def environment_here(changes: dict[str, str], without: tuple[str, ...], code: Path) -> dict[str, str]:
    """The environment of a worker on this node: this node's own, changed as the driver's would be."""
    environment = {name: value for name, value in os.environ.items() if name not in without} | changes
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH")]))
    return environment


def python_here(path: str, own: bool) -> str | None:
    """The driver's interpreter, or where it lies elsewhere on this node and was not chosen, that of the node's Ray."""
    if Path(path).exists():
        return path
    return None if own else sys.executable


@contextlib.contextmanager
def claim_cores(count: int, base: Path) -> Iterator[list[int]]:
    """So many cores of this machine that no other run holds, or all of them where there are not so many free.

    A lock a core, which the kernel opens when this process dies, however it does.
    """
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    with contextlib.ExitStack() as held:
        mine: list[int] = []
        if fcntl is not None and count < len(usable):
            with locked(base / "cores.lock"), contextlib.ExitStack() as candidates:
                for core in usable:
                    stream = candidates.enter_context((base / f"core{core}.lock").open("ab"))
                    with contextlib.suppress(BlockingIOError):
                        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        mine.append(core)
                    if len(mine) == count:
                        held.enter_context(candidates.pop_all())
                        break
        yield mine if len(mine) == count else usable


def _reads(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
