"""Runs on a Ray cluster: each a task, which starts the very worker that the local engine would start.

The driver plans, judges and writes as for local processes. A task runs where its threads, GPUs and memory are free.
Where the node sees the study's folder (a shared file system; a file of ours tells), its worker writes there; else the
study's files go to the node once and the run's folder comes back. Ray's own retries are off: what is tried again, and
how often, is one rule for both engines (`common.attempts`).
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import config, engines, interpreters, measure, node, workers
from common.attempts import Attempt, is_complete, make_room, may_retry, settle, told_of_disk
from common.config import RECORDED_VARIABLES, Engine, Run, Study
from common.energy import BESIDE_OTHERS
from common.engines import OnEvent
from common.errors import StudyError
from common.measure import COMMIT_VARIABLE
from common.node import Job, Parcel
from common.resources import MIB, Memory, Node, demand_of, describe_nodes, node_of, threads_on
from common.results import read_run, read_study, run_directory
from common.run import utc_now
from common.shipping import bring_home, code_files, files_to_go_on, pack, study_files
from common.workers import Ending

INSTALL_RAY = "pip install -r common/requirements-ray.txt"
MARK = ".engine-"  # the name of the file by which a node sees whether the study's folder is its own begins so
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's coming default; a worker's environment is ours to set
}


def run_on_ray(
    study_directory: Path, study: Study, runs: Sequence[Run], on_event: OnEvent, engine: Engine
) -> None:
    """`common.engines.execute` on the cluster of `engine.address`, or on one of this machine alone."""
    if not runs:
        return
    directory = study_directory.resolve()
    with (
        connected(engine) as ray,
        told_of_disk(study_directory),
        marked(directory, engine) as mark,
    ):
        _Driver(ray, directory, study, on_event, engine, mark).drive(runs)


@contextlib.contextmanager
def connected(engine: Engine) -> Iterator[Any]:
    """The module `ray`, joined to the engine's cluster; left again where it was not joined before.

    Raises StudyError where Ray is not installed or the cluster does not answer.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        ray = importlib.import_module("ray")
    except ImportError:
        raise StudyError(
            f"the engine 'ray' needs the package ray, which is not installed here; run `{INSTALL_RAY}`"
        ) from None
    for module in (workers, node):  # by value, so that a node needs nothing of ours installed
        ray.cloudpickle.register_pickle_by_value(module)
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if engine.address is None:
        os.environ.setdefault("RAY_worker_niceness", "0")  # as local processes have it
        options |= {
            "num_cpus": measure.usable_cores(),
            "object_store_memory": config.RAY_STORE_BYTES,
            "include_dashboard": False,
        }
    try:
        ray.init(address=engine.address or "local", **options)
    except (OSError, RuntimeError, ValueError, ImportError) as error:  # a ConnectionError is an OSError
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StudyError(
            f"the Ray cluster {engine.address or 'of this machine'} cannot be joined ({said[:300]}); give --address as "
            "`ray start` named it, from a node of the cluster, or ray://HOST:10001 from elsewhere"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def describe_cluster(ray: Any) -> str:
    """What the cluster has, in words."""
    return f"Ray: {describe_nodes(list(_nodes(ray).values()))}"


def probe_cluster(frameworks: Sequence[str], engine: Engine) -> dict[str, dict[str, str]]:
    """What each framework says of itself on a node that has a GPU; nothing where none has.

    Raises StudyError if one cannot be started there.
    """
    with connected(engine) as ray:
        if not any(found.gpus for found in _nodes(ray).values()):
            return {}
        code = pack(engines.ROOT, code_files(engines.ROOT), ray.put, "code")
        ask = ray.remote(node.answer).options(num_cpus=1, num_gpus=min(1.0, engine.gpus), max_retries=2)
        facts = {}
        for name in frameworks:
            command = engines.worker_command(name, "info", "--brief")
            environment = engines.worker_environment(name, "cuda", "float32", 1)
            sent, without = _changes(environment, "cuda")
            own = _has_own_python(name)
            said = ray.get(
                ask.remote(tuple(command), own, sent, without, code, engines.PROBE_TIMEOUT_SECONDS)
            )
            facts[name] = engines.read_probe(name, command, *said)
        return facts


@contextlib.contextmanager
def marked(directory: Path, engine: Engine) -> Iterator[tuple[str, str] | None]:
    """Name and text of a file in the study's folder while runs execute; None where nobody is to look for it."""
    for stale in directory.glob(f"{MARK}*"):  # of a command that was killed; only one works here at a time
        stale.unlink()
    if engine.shared is False:
        yield None
        return
    token = secrets.token_hex(16)
    path = directory / f"{MARK}{token[:8]}"
    path.write_text(token)
    try:
        yield path.name, token
    finally:
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Try:
    """A run on its way."""

    run: Run
    queued: str
    number: int = 1
    past: tuple[Attempt, ...] = ()
    memory_factor: int = 1  # doubled where it was killed: it may have had too little


class _Driver:
    """One study's runs on a cluster, from the first to the last."""

    def __init__(
        self,
        ray: Any,
        directory: Path,
        study: Study,
        on_event: OnEvent,
        engine: Engine,
        mark: tuple[str, str] | None,
    ) -> None:
        self._ray, self._directory, self._study = ray, directory, study
        self._on_event, self._mark = on_event, mark
        self._gpus = engine.gpus * study.devices if study.device == "cuda" else 0.0
        self._memory = Memory(study, read_study(directory).complete)
        self._code = pack(engines.ROOT, code_files(engines.ROOT), ray.put, "code")
        self._told = {COMMIT_VARIABLE: measure.git_commit(engines.ROOT) or ""}
        if study.device == "cpu" or engine.gpus < 1:  # a GPU is given to one run alone, a processor never
            self._told[BESIDE_OTHERS] = "1"
        self._data: Parcel | None = None
        self._mailbox = self._open_mailbox()
        self._begun: dict[tuple[str, int], Mapping[str, Any]] = {}  # (run, try) -> {started, node}

    def drive(self, runs: Sequence[Run]) -> None:
        """Carry out the runs. An exception, KeyboardInterrupt included, ends what is under way and is raised."""
        self._threads = self._wait_for_a_node(runs[0])
        waiting = deque(_Try(run, utc_now()) for run in runs)
        flying: dict[Any, _Try] = {}
        try:
            while waiting or flying:
                while waiting and len(flying) < config.RAY_PENDING:
                    one = waiting.popleft()
                    if (task := self._submit(one)) is not None:
                        flying[task] = one
                ended = self._wait(list(flying))
                self._deliver(flying.values())
                for task in ended:
                    if (again := self._settle(flying.pop(task), task)) is not None:
                        waiting.append(again)
        except BaseException:
            self._stop(list(flying))
            raise
        finally:
            self._clean_up()

    # --- there

    def _submit(self, one: _Try) -> Any | None:
        """A task for a run; None where its folder may not be written, which is told."""
        run, study = one.run, self._study
        directory = run_directory(self._directory, run)
        if one.past and (record := read_run(self._directory, run)) and record.complete:
            self._on_event(run, {"complete": True})  # a try that was taken for lost has come to its end
            return None
        if fault := make_room(directory):
            self._on_event(run, {"failed": fault})
            return None
        threads = engines.threads_for(run, self._threads)
        sent, without = _changes(engines.run_environment(study, run, threads), study.device)
        job = Job(
            path=str(run.path),
            attempt=one.number,
            study=str(self._directory),
            mark=self._mark,
            threads=threads,
            cores=threads * study.devices,
            command=tuple(engines.worker_command(run.framework, "run")),
            own_python=_has_own_python(run.framework),
            environment=sent | self._told,
            without=without,
            code=self._code,
            data=self._data,
            files=files_to_go_on(directory, one.number > 1) if self._data else {},
        )
        memory = self._memory.expected_mib(run) * one.memory_factor
        nodes, usual = list(_nodes(self._ray).values()), self._threads * study.devices
        demand = demand_of(nodes, usual, job.cores, self._gpus, memory)
        task = self._ray.remote(node.carry_out).options(
            num_cpus=demand.cpus,
            num_gpus=demand.gpus,
            memory=demand.memory_mib * MIB,
            max_retries=0,
            name=str(run.path),
        )
        return task.remote(job, self._mailbox)

    def _wait_for_a_node(self, run: Run) -> int:
        """The threads of each run, as soon as there is a node that can take one; StudyError where none comes."""
        until = time.monotonic() + config.RAY_NODE_SECONDS
        while True:
            nodes = list(_nodes(self._ray).values())
            threads = threads_on(nodes, self._study, self._gpus)
            cpus = threads * self._study.devices
            demand = demand_of(nodes, cpus, cpus, self._gpus, self._memory.expected_mib(run))
            if any(demand.fits(one) for one in nodes):
                return threads
            if time.monotonic() > until:
                raise StudyError(
                    f"a run asks for {demand.cpus} CPUs and {demand.gpus:g} GPUs of one node, and the cluster has "
                    f"{describe_nodes(nodes)}, none of them so large; give fewer --threads or another --device"
                )
            time.sleep(1.0)

    # --- back

    def _wait(self, tasks: list[Any]) -> list[Any]:
        """The tasks that have ended, as soon as one has or it is time to look what the others told."""
        if not tasks:
            return []
        self._ray.wait(tasks, num_returns=1, timeout=config.RAY_LOOK_SECONDS)
        ended, _ = self._ray.wait(tasks, num_returns=len(tasks), timeout=0)
        return list(ended)

    def _settle(self, one: _Try, task: Any) -> _Try | None:
        """Judge a run's ended task; returns what is to be tried, None where the run has come to its end."""
        run, directory = one.run, run_directory(self._directory, one.run)
        begun: Mapping[str, Any] = self._begun.pop((str(run.path), one.number), {})
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(task)
        except errors.RayTaskError as error:
            broken = isinstance(error.cause, OSError)  # its disk, its mount: another node may do
            answer = {"ending": (None if broken else 1, f"its node could not carry it out: {error.cause!r}")}
        except errors.RayError as error:
            answer = {"ending": (None, _explain_loss(error))}
        if answer.get("unseen"):
            if self._data is None:
                self._data = pack(
                    self._directory, study_files(self._directory), self._ray.put, self._directory.name
                )
            return one
        begun = {**begun, **answer}
        if begun.get("files") is not None:
            bring_home(directory, begun["files"])
        ending = Ending(*answer["ending"])
        complete = is_complete(self._directory, run, ending)
        outcome = "complete" if complete else ending.reason
        last = Attempt(
            begun.get("node"), one.queued, begun.get("started"), begun.get("ended") or utc_now(), outcome
        )
        past = (*one.past, last)
        if not complete and may_retry(ending, len(past)):
            self._on_event(run, {"again": ending.reason})
            factor = one.memory_factor * (2 if ending.code is not None or "memory" in ending.reason else 1)
            return _Try(run, utc_now(), one.number + 1, past, factor)
        settle(self._directory, run, "ray", past, self._on_event)
        self._memory.learn(read_run(self._directory, run))
        return None

    def _deliver(self, flying: Iterable[_Try]) -> None:
        """Pass on what the nodes told."""
        known = {(str(one.run.path), one.number): one.run for one in flying}
        try:
            letters = self._ray.get(self._mailbox.take.remote())
        except self._ray.exceptions.RayError:  # lost, and with it what was to be shown: nothing else
            self._mailbox = self._open_mailbox()
            return
        for path, number, event in letters:
            run = known.get((path, number))
            if run is None:  # a straggler of a try that has ended
                continue
            if "started" in event:
                self._begun[path, number] = event
                event = {"started": event["started"]}
            self._on_event(run, event)

    def _open_mailbox(self) -> Any:
        """On the driver's own node, which is not lost without the driver."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=True)
        actor = self._ray.remote(node.Mailbox).options(num_cpus=0, scheduling_strategy=here)
        return actor.remote()

    # --- ends

    def _stop(self, tasks: list[Any]) -> None:
        """End what is under way, and wait until it has, lest it writes into a folder that the next command holds."""
        with contextlib.suppress(Exception):  # the cluster may be what is gone
            for task in tasks:
                self._ray.cancel(task, force=True)
            if tasks:
                self._ray.wait(tasks, num_returns=len(tasks), timeout=config.RAY_STOP_SECONDS)

    def _clean_up(self) -> None:
        """Remove the study's files from the nodes that they went to."""
        if self._data is None:
            return
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        with contextlib.suppress(Exception):
            forget = self._ray.remote(node.forget)
            asked = [
                forget.options(
                    num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False)
                ).remote(self._data.digest)
                for name in _nodes(self._ray)
            ]
            self._ray.wait(asked, num_returns=len(asked), timeout=config.RAY_STOP_SECONDS)


def _nodes(ray: Any) -> dict[str, Node]:
    """The nodes that live, by Ray's identity."""
    return {one["NodeID"]: node_of(one["Resources"]) for one in ray.nodes() if one["Alive"]}


def _changes(environment: Mapping[str, str], device: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """What of a worker's environment is to be equal on a node: what sets it apart from this process's, and all that a
    record tells; and which variables it lacks. Where Ray gives out GPUs, it says which.
    """
    own = {"PYTHONPATH"} | ({"CUDA_VISIBLE_DEVICES"} if device == "cuda" else set())
    sent = {
        name: value
        for name, value in environment.items()
        if name not in own and (name in RECORDED_VARIABLES or os.environ.get(name) != value)
    }
    return sent, tuple(name for name in os.environ if name not in environment)


def _has_own_python(framework: str) -> bool:
    return interpreters.own_interpreter(engines.module_of(framework)) is not None


def _explain_loss(error: Exception) -> str:
    """One sentence for a task that ended without an answer."""
    known = {
        "OutOfMemoryError": "its node ran out of memory, and Ray ended it; try a smaller batch or fewer runs at a time",
        "NodeDiedError": "its node was lost",
        "WorkerCrashedError": "its process on the cluster was killed, or its node was lost",
    }
    name = type(error).__name__
    said = (str(error).strip().splitlines() or [""])[0][:200]
    return known.get(name, f"the cluster lost it ({name}: {said})")
