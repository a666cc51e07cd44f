"""Runs on a Ray cluster: each a task, which starts the very worker that the local engine would start.

The driver plans, judges and writes as for local processes. A task runs where its threads, GPUs and memory are free.
Where the node sees the study's folder (a shared file system; a file of ours tells), its worker writes there; else the
study's files go to the node once and the run's folder comes back. Ray's own retries are off: what is tried again, and
how often, is one rule for both engines (`common.attempts`).
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common import config, engines, measure, node
from common.attempts import (
    COMPLETE,
    Attempt,
    await_record,
    claim,
    is_complete,
    may_retry,
    settle,
    told_of_disk,
)
from common.codebase import ROOT
from common.config import Engine, Run, Study
from common.distributed import check_share
from common.energy import BESIDE_OTHERS
from common.engines import OnEvent
from common.errors import StudyError
from common.holding import check_there
from common.measure import COMMIT_VARIABLE, utc_now
from common.memory_shortage import explained
from common.node import Job
from common.parcels import Parcel
from common.progress import format_seconds
from common.ray_cluster import changes_of, connected, has_own_python, nodes_of
from common.resources import MIB, Demand, Memory, Node, demand_of, describe_nodes, threads_on
from common.results import read_run, read_study, run_directory
from common.shipping import bring_home, code_files, files_to_go_on, pack, study_files
from common.workers import Ending

MARK = ".engine-"  # the name of the file by which a node sees whether the study's folder is its own begins so


def run_on_ray(
    study_directory: Path, study: Study, runs: Sequence[Run], on_event: OnEvent, engine: Engine
) -> None:
    """`common.engines.execute` on the cluster of `engine.address`, or on one of this machine alone."""
    if not runs:
        return
    if study.device == "cuda":
        check_share(engine.gpus, study.devices)
    directory = study_directory.resolve()
    with (
        connected(engine) as ray,
        told_of_disk(study_directory),
        marked(directory, engine) as mark,
    ):
        _Driver(ray, directory, study, on_event, engine, mark).drive(runs)


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
    token: str = ""  # once it has the run's folder


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
        self._on_event, self._mark, self._engine = on_event, mark, engine
        self._gpus = engine.gpus * study.devices if study.device == "cuda" else 0.0
        self._memory = Memory(study, read_study(directory).complete)
        self._code = pack(ROOT, code_files(ROOT), ray.put, "code")
        self._told = {COMMIT_VARIABLE: measure.git_commit(ROOT) or ""}
        if study.device == "cpu" or engine.gpus < 1:  # a GPU is given to one run alone, a processor never
            self._told[BESIDE_OTHERS] = "1"
        self._data: Parcel | None = None
        self._owner, self._mailbox = self._open_mailbox()
        self._awaited: set[Demand] = set()  # of which it was told that a node is waited for
        self._begun: dict[tuple[str, int], Mapping[str, Any]] = {}  # (run, try) -> {started, node}
        self._demands: dict[Any, Demand] = {}  # of the tasks that are under way
        self._met: dict[Demand, float] = {}  # when a living node could last meet it

    def drive(self, runs: Sequence[Run]) -> None:
        """Carry out the runs. An exception, KeyboardInterrupt included, ends what is under way and is raised."""
        self._threads = self._wait_for_a_node(runs[0])
        self._deliver(())  # the mailbox is there before anyone writes to it
        waiting = deque(_Try(run, utc_now()) for run in runs)
        flying: dict[Any, _Try] = {}
        try:
            while waiting or flying:
                while waiting and len(flying) < config.RAY_PENDING:
                    if (one := self._claim(waiting.popleft())) is not None:
                        flying[self._submit(one)] = one
                ended = self._wait(list(flying))
                self._deliver(flying.values())
                for task in ended:
                    del self._demands[task]
                    if (again := self._settle(flying.pop(task), task)) is not None:
                        waiting.append(again)
                waiting.extend(flying.pop(task) for task in self._take_back_stranded(flying))
        except BaseException:
            self._stop(list(flying))
            raise
        finally:
            self._clean_up()

    # --- there

    def _claim(self, one: _Try) -> _Try | None:
        """The try with its token, as which it has the run's folder; None where it may not have it, which is told."""
        try:
            return replace(one, token=claim(run_directory(self._directory, one.run), one.number))
        except StudyError as error:
            if one.past and is_complete(self._directory, one.run):  # of a try that was taken for lost
                settle(self._directory, one.run, "ray", one.past, self._on_event)
            else:
                self._on_event(one.run, {"failed": str(error)})
            return None

    def _submit(self, one: _Try) -> Any:
        """A task for a try."""
        run, study = one.run, self._study
        directory = run_directory(self._directory, run)
        threads = engines.threads_for(run, self._threads)
        sent, without = changes_of(engines.run_environment(study, run, threads), study.device)
        job = Job(
            path=str(run.path),
            attempt=one.number,
            token=one.token,
            study=str(self._directory),
            mark=self._mark,
            threads=threads,
            cores=threads * study.devices,
            command=tuple(engines.worker_command(run.framework, "run")),
            own_python=has_own_python(run.framework),
            environment=sent | self._told,
            without=without,
            code=self._code,
            data=self._data,
            files=files_to_go_on(directory) if self._data else {},
            owner=self._owner,
            keep_seconds=config.RAY_CODE_SECONDS,
        )
        demand = self._demand_of(one, list(nodes_of(self._ray).values()))
        task = self._remote(node.carry_out, demand, str(run.path)).remote(job, self._mailbox)
        self._demands[task], self._met[demand] = demand, time.monotonic()
        return task

    def _remote(self, function: Any, demand: Demand, name: str) -> Any:
        """A function as a task that asks for this."""
        return self._ray.remote(function).options(
            num_cpus=demand.cpus,
            num_gpus=demand.gpus,
            memory=demand.memory_mib * MIB,
            max_retries=0,
            name=name,
        )

    def _demand_of(self, one: _Try, nodes: Sequence[Node]) -> Demand:
        """What a try asks for on a cluster of such nodes."""
        cores = engines.threads_for(one.run, self._threads) * self._study.devices
        memory = self._memory.expected_mib(one.run) * one.memory_factor
        return demand_of(nodes, self._threads * self._study.devices, cores, self._gpus, memory)

    def _take_back_stranded(self, flying: Mapping[Any, _Try]) -> list[Any]:
        """Cancel the tasks that ask for more than any living node has, for the one that had it is gone, and return
        them, if one has what they would ask for anew. The others stay, for a cluster that grows sees by them what it
        lacks; StudyError where that takes too long.

        None of them is under way: its node would be one that lives.
        """
        nodes, now = list(nodes_of(self._ray).values()), time.monotonic()
        for demand in set(self._demands.values()):
            if any(demand.fits(one) for one in nodes):
                self._met[demand] = now
        patient = now - config.RAY_STRANDED_SECONDS
        late = [task for task, demand in self._demands.items() if self._met[demand] < patient]
        if not late:
            self._awaited.clear()
        _, stranded = self._ray.wait(late, num_returns=len(late), timeout=0) if late else ([], [])
        back = []
        for task in stranded:
            anew = self._demand_of(flying[task], nodes)
            if any(anew.fits(one) for one in nodes):
                back.append(task)
            else:
                remedy = "what is finished is kept, the same command goes on from there"
                self._bear(flying[task].run, anew, nodes, now - self._met[self._demands[task]], remedy)
        self._stop(back)
        for task in back:
            del self._demands[task]
        return back

    def _wait_for_a_node(self, run: Run) -> int:
        """The threads of each run, as soon as there is a node that can take one; StudyError where none comes."""
        began, asked = time.monotonic(), None
        asking: list[Any] = []
        try:
            while True:
                nodes = list(nodes_of(self._ray).values())
                threads = threads_on(nodes, self._study, self._gpus)
                cpus = threads * self._study.devices
                demand = demand_of(nodes, cpus, cpus, self._gpus, self._memory.expected_mib(run))
                if any(demand.fits(one) for one in nodes):
                    return threads
                if demand != asked:
                    self._stop(asking)
                    asked = demand
                    asking = [self._remote(node.take_place, demand, "a place for a run").remote()]
                remedy = "give fewer --threads or another --device"
                self._bear(run, demand, nodes, time.monotonic() - began, remedy)
                time.sleep(1.0)
        finally:
            self._stop(asking)

    def _bear(self, run: Run, demand: Demand, nodes: Sequence[Node], seconds: float, remedy: str) -> None:
        """Tell, once, that a node is waited for. StudyError where that was for too long, or none can come."""
        if self._engine.address is None:
            raise StudyError(f"{_no_node(demand, nodes)}; {remedy}")
        patience = self._engine.node_seconds
        if seconds > patience:
            raise StudyError(
                f"{_no_node(demand, nodes)}, and none came in {format_seconds(patience)}; {remedy}"
            )
        if demand not in self._awaited:
            self._awaited.add(demand)
            words = f"{_no_node(demand, nodes)}; waiting for one, {format_seconds(patience)} at most (--node-timeout)"
            self._on_event(run, {"waits": words})

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
        check_there(self._directory)
        run, directory = one.run, run_directory(self._directory, one.run)
        begun: Mapping[str, Any] = self._begun.pop((str(run.path), one.number), {})
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(task)
        except errors.RayTaskError as error:
            broken = isinstance(error.cause, OSError)  # its disk, its mount: another node may do
            answer = {"ending": (None if broken else 1, f"its node could not carry it out: {error.cause!r}")}
        except errors.RayError as error:
            answer = {"ending": _explain_loss(error)}
        if answer.get("unseen"):
            if self._data is None:
                self._data = pack(
                    self._directory, study_files(self._directory), self._ray.put, self._directory.name
                )
            return one
        begun = {**begun, **answer}
        if begun.get("files") is not None:
            bring_home(directory, begun["files"])
        recipe = self._study.recipes[f"{run.task}/{run.model}"]
        ending = explained(Ending(*answer["ending"]), recipe.batch_size, self._study.devices)
        if answer.get("complete") and not await_record(self._directory, run):  # over which nothing is written
            reason = f"it is complete on its node, but {directory} does not show that here; mend the disk they share"
            self._on_event(run, {"failed": f"{reason} and give the same command again"})
            return None
        complete = is_complete(self._directory, run)
        outcome = COMPLETE if complete else ending.reason
        times = one.queued, begun.get("started"), begun.get("ended") or utc_now()
        last = Attempt(begun.get("node"), *times, outcome, one.token)
        past = (*one.past, last)
        if not complete and may_retry(ending, len(past)):
            self._on_event(run, {"again": ending.reason})
            factor = one.memory_factor * (2 if ending.code is not None or ending.short else 1)
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
            self._owner, self._mailbox = self._open_mailbox()
            return
        for path, number, event in letters:
            run = known.get((path, number))
            if run is None:  # a straggler of a try that has ended
                continue
            if "started" in event:
                self._begun[path, number] = event
                event = {"started": event["started"]}
            self._on_event(run, event)

    def _open_mailbox(self) -> tuple[str, Any]:
        """Its name, by which nodes can tell that this driver lives, and itself: on the driver's own node, which is not
        lost without the driver.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=False)
        name = f"mailbox-{secrets.token_hex(16)}"
        actor = self._ray.remote(node.Mailbox).options(num_cpus=0, scheduling_strategy=here, name=name)
        return name, actor.remote()

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
                for name in nodes_of(self._ray)
            ]
            self._ray.wait(asked, num_returns=len(asked), timeout=config.RAY_STOP_SECONDS)


def _no_node(demand: Demand, nodes: Sequence[Node]) -> str:
    return (
        f"a run asks for {demand.cpus} CPUs, {demand.gpus:g} GPUs and {demand.memory_mib / 1024:.1f} GiB of one node, "
        f"and the cluster has {describe_nodes(nodes)}, none of them so large"
    )


def _explain_loss(error: Exception) -> Ending:
    """Of a task that ended without an answer."""
    known = {
        "OutOfMemoryError": "its node ran out of memory, and Ray ended it",
        "NodeDiedError": "its node was lost",
        "WorkerCrashedError": "its process on the cluster was killed, or its node was lost",
    }
    name = type(error).__name__
    said = (str(error).strip().splitlines() or [""])[0][:200]
    reason = known.get(name, f"the cluster lost it ({name}: {said})")
    return Ending(None, reason, short=name == "OutOfMemoryError")
