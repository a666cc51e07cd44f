"""Runs on a real Ray cluster of two nodes, with what happens on clusters: the same tables as of local processes."""

import contextlib
import dataclasses
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from interpreter_fixture import write_interpreter
from rich.console import Console
from tiny import RECIPE, make_study, tiny_world, write_pictures
from worker_fixture import (
    FAKE_WORKER,
    HERE,
    ROOT,
    TINY_DRIVER,
    TINY_WORKER,
    gone,
    hang_file,
    wait_until,
)

from common import attempts, config, engines, fence, interpreters, measure, node, ray_cluster, workers
from common.attempts import FILE
from common.config import Engine, Run, Study
from common.engines import execute, opened
from common.errors import StudyError
from common.memory_shortage import explained
from common.progress import GridProgress
from common.ray_cluster import check_address, connected
from common.ray_engine import MARK, _explain_loss
from common.results import RunRecord, read_json, read_run, run_directory
from common.study import carry_out, missing_runs, prepare_study

__all__ = ["tiny_world"]  # a fixture

ray = pytest.importorskip("ray", reason="ray is not installed (common/requirements-ray.txt)")
# Ray forgets the log of its client server
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file .*ray_client_server:ResourceWarning")
STORE_BYTES = 80 * 2**20
SECONDS = 240.0  # for anything to happen on a busy machine

# As the engine expects of a worker: it ends with the process that holds its standard input
SUPERVISED_WORKER = (
    """
import os, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(3)), daemon=True).start()
"""
    + FAKE_WORKER
)


@dataclasses.dataclass
class World:
    """A cluster whose nodes know the fake workers."""

    cluster: Any
    hangs: Path  # a file here named as a run makes its first try hang, and then holds its pid
    engine: Engine
    client: Engine  # as from a machine outside of the cluster

    def add_node(self, **resources: int) -> Any:
        wanted = {"num_cpus": 1, "object_store_memory": STORE_BYTES} | resources
        return patiently(lambda: self.cluster.add_node(**wanted))


def patiently(start: Callable[[], Any]) -> Any:
    """What `start` gives. Ray gives a node 30 s, which are not enough on a machine that does much else."""
    for tries in range(3):
        try:
            return start()
        except Exception as error:
            late = ("timed out during startup", "Starting Ray client server failed")
            if tries == 2 or not any(words in str(error) for words in late):
                raise
    raise AssertionError


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:  # Ray's sockets leave little room for a path
        yield from world_in(Path(folder))


def world_in(folder: Path) -> Iterator[World]:
    from ray.cluster_utils import Cluster

    for name, text in (("fake_worker", SUPERVISED_WORKER), ("tiny_worker", TINY_WORKER)):
        (folder / f"{name}.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ray_cluster.QUIET.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(HERE)]))
        patch.setenv("TINY_HANGS", str(folder / "hangs"))
        patch.setenv("TMPDIR", str(folder))  # where nodes keep what was sent to them
        patch.setenv("RAY_worker_niceness", "0")
        (folder / "hangs").mkdir()
        head = {
            "num_cpus": 1,
            "object_store_memory": STORE_BYTES,
            "include_dashboard": False,
            "ray_client_server_port": (port := free_port()),
            # a lost node is told after some seconds, and a busy machine is not taken for one
            "_system_config": {"health_check_period_ms": 2000, "health_check_failure_threshold": 5},
        }
        cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
        outside = Engine("ray", f"ray://127.0.0.1:{port}")
        yield World(cluster, folder / "hangs", Engine("ray", cluster.address), outside)
        cluster.shutdown()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Told:
    """What came from the engine."""

    def __init__(self) -> None:
        self.events: list[tuple[Run, dict[str, Any]]] = []

    def __call__(self, run: Run, event: dict[str, Any]) -> None:
        self.events.append((run, event))

    def of(self, run: Run, key: str) -> list[Any]:
        return [event[key] for told, event in self.events if told == run and key in event]


def as_worker(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "module_of", lambda framework: name)


def fake_study(directory: Path, faults: dict[int, str], seeds: int) -> Study:
    """A folder for fake workers: one run a seed."""
    directory.mkdir(exist_ok=True)
    (directory / "faults.json").write_text(json.dumps(faults))
    study = Study(
        frameworks=("torch",),
        seeds=seeds,
        device="cpu",
        threads=1,
        recipes={"binary/cnn": RECIPE},
        specs={"binary/cnn": config.spec_of("binary", "cnn", "quick")},
    )
    (directory / "study.json").write_text(json.dumps({"study": config.to_json(study)}))
    return study


def attempts_of(directory: Path, run: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_json(run_directory(directory, run) / FILE)["attempts"]
    return found


def same_results(a: Path, b: Path, runs: list[Run]) -> None:
    """What the runs of two folders came to is equal, to the last bit."""
    for run in runs:
        one, other = (read_run(directory, run) for directory in (a, b))
        assert one is not None
        assert other is not None
        assert one.complete, one.document["reason"]
        assert other.complete, other.document["reason"]
        for name in (
            "weights",
            "data",
            "batches",
            "choice",
            "threshold",
            "threads",
            "variables",
            "git_commit",
        ):
            assert one.document[name] == other.document[name], (run, name)
        mine, yours = one.predictions(), other.predictions()
        np.testing.assert_array_equal(mine.sample_id, yours.sample_id)
        np.testing.assert_array_equal(mine.y_score, yours.y_score)
        columns = ["epoch", "step", "learning_rate", "train_loss", "val_loss", "val_score"]
        pd.testing.assert_frame_equal(one.history()[columns], other.history()[columns])


@pytest.fixture
def prepared(tmp_path: Path, tiny_world: None) -> tuple[Study, Path, Path]:
    """A study of three runs, prepared in two folders."""
    study = make_study(write_pictures(tmp_path / "pictures"), ("tiny-a",), seeds=3, threads=1, workers=2)
    directories = tmp_path / "there", tmp_path / "here"
    for directory in directories:
        prepare_study(study, directory)
    return study, *directories


def test_a_killed_worker_and_a_lost_node_cost_no_run(
    world: World, prepared: tuple[Study, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_worker("tiny_worker", monkeypatch)
    study, there, here = prepared
    runs = study.runs()
    asked = {run: hang_file(world.hangs, run) for run in runs[:2]}
    second = world.add_node()
    faults: dict[str, Run] = {}

    def disturb() -> None:
        if not wait_until(lambda: all(path.read_text() for path in asked.values()), SECONDS):
            return
        below = raylet_of(second)
        for run, path in asked.items():
            pid = int(path.read_text())
            if below in {parent.pid for parent in psutil.Process(pid).parents()}:
                faults["lost"] = run
            else:
                faults["killed"] = run
                os.kill(pid, signal.SIGKILL)
        world.cluster.remove_node(second, allow_graceful=False)

    thread, told = threading.Thread(target=disturb), Told()
    thread.start()
    execute(there, study, runs, told, world.engine)
    thread.join()
    assert set(faults) == {"lost", "killed"}  # each node had one of the two
    assert missing_runs(study, there) == []

    (why,) = told.of(faults["killed"], "again")
    assert "killed by SIGKILL" in why
    assert len(told.of(faults["lost"], "again")) == 1
    for run in runs:
        tries = attempts_of(there, run)
        assert [one["outcome"] == "complete" for one in tries] == [False] * (run in asked) + [True]
        assert [bool(one["node"]["id"]) for one in tries] == [True] * len(tries)
        assert told.of(run, "complete") == [True]
        assert told.of(run, "epoch")[-2:] == [1, 2]
        assert (run_directory(there, run) / "run.log").exists()
    first, last = attempts_of(there, faults["lost"])
    assert first["node"]["id"] != last["node"]["id"]
    record = read_json(run_directory(there, faults["lost"]) / "run.json")
    assert record["attempt"] == last["token"] != first["token"]
    assert not list(there.glob(f"{MARK}*"))

    execute(here, study, runs, Told())
    same_results(there, here, runs)

    # Without a shared folder: files go there, and the run's folder comes back
    shipped = here.parent / "shipped"
    prepare_study(study, shipped)
    log = run_directory(shipped, runs[0]) / "run.log"
    log.parent.mkdir(parents=True)
    log.write_text("of an earlier start\n")
    told = Told()
    execute(shipped, study, runs[:1], told, dataclasses.replace(world.engine, shared=False))
    same_results(shipped, here, runs[:1])
    for run in runs[:1]:
        names = {path.name for path in run_directory(shipped, run).iterdir()}
        assert names == {path.name for path in run_directory(here, run).iterdir()}
        command = read_json(run_directory(shipped, run) / "run.json")["command"]
        assert command.split()[-2:] == ["results/shipped", str(run.path)]
    assert log.read_text().startswith("of an earlier start\n--- started again ")
    assert log.read_text().count("--- started again ") == 1
    assert not list(world.hangs.parent.glob("stroke-frameworks-*/*/shipped"))  # nothing is left on the nodes


def test_memory_that_ray_saw_run_out_is_told_from_other_losses() -> None:
    short, lost = (_explain_loss(one("gone")) for one in (ray.exceptions.OutOfMemoryError, ConnectionError))
    assert "--batch-size 2 in another --out" in explained(short, 4).reason
    assert explained(lost, 4).reason == "the cluster lost it (ConnectionError: gone)"
    assert (short.unexplained, lost.unexplained) == (True, True)


def raylet_of(added: Any) -> int:
    (process,) = added.all_processes["raylet"]
    pid: int = process.process.pid
    return pid


def test_a_wrong_configuration_is_not_tried_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_worker("fake_worker", monkeypatch)
    faults = {0: "says why", 1: "killed", 2: "exits", 3: "babbles"}
    directory, told = tmp_path / "study", Told()
    study = fake_study(directory, faults, seeds=4)
    runs = study.runs()
    execute(directory, study, runs, told, world.engine)
    assert [len(attempts_of(directory, run)) for run in runs] == [1, config.RETRIES + 1, 1, 1]
    reasons = [told.of(run, "failed") for run in runs]
    assert reasons[0] == ["the device has no memory left"]
    assert "killed by SIGKILL" in reasons[1][0]
    assert f"try --batch-size {RECIPE.batch_size // 2} in another --out" in reasons[1][0]
    assert reasons[2][0].endswith("its last words in run.log: ImportError: no module named nothing")
    assert reasons[3] == []
    assert told.of(runs[3], "steps") == [2]
    seen = read_json(directory / "seen3.json")
    assert seen["environment"].items() >= config.WORKER_ENVIRONMENT.items()
    assert seen["environment"]["CUDA_VISIBLE_DEVICES"] == ""
    assert seen["argv"][:6] == ["run", str(directory), str(runs[3].path), "--threads", "1", "--supervised"]

    study, hasty = dataclasses.replace(study, threads=64), dataclasses.replace(world.engine, node_seconds=0.1)
    with pytest.raises(
        StudyError, match=r"asks for 64 CPUs, .* has 1 node with 1 CPUs, .* none came in 0 s; give"
    ):
        execute(directory, study, runs[:1], told, hasty)


def demands_of(cluster: Any) -> list[dict[str, float]]:
    """What an autoscaler would read of what the cluster lacks."""
    from ray.autoscaler.v2.sdk import get_cluster_status

    demands = get_cluster_status(cluster.address).resource_demands.ray_task_actor_demand
    return [dict(one.bundles_by_count[0].bundle) for one in demands]


def test_a_cluster_is_asked_to_grow_and_waited_for(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_worker("fake_worker", monkeypatch)
    study = dataclasses.replace(fake_study(tmp_path, {}, seeds=2), threads=2)
    runs, told, text, added = study.runs(), Told(), io.StringIO(), []
    progress = GridProgress(Console(file=text, width=300), runs)

    def interrupt(run: Run, event: dict[str, Any]) -> None:
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()

    with deadline(60), pytest.raises(KeyboardInterrupt):  # while it waits
        execute(tmp_path, study, runs, interrupt, world.engine)
    assert wait_until(lambda: demands_of(world.cluster) == [], 30)

    def grow(run: Run, event: dict[str, Any]) -> None:
        told(run, event)
        progress.tell(run, event)
        if "waits" in event:
            asked = {"CPU": 2.0}.items()
            assert wait_until(lambda: any(one.items() >= asked for one in demands_of(world.cluster)), 30)
            added.append(world.add_node(num_cpus=2))

    try:
        with deadline(SECONDS):
            execute(tmp_path, study, runs, grow, world.engine)
    finally:
        for one in added:
            world.cluster.remove_node(one)
    assert [told.of(run, "complete") for run in runs] == [[True], [True]]
    (words,) = (event["waits"] for _, event in told.events if "waits" in event)  # once
    assert words.startswith(
        "a run asks for 2 CPUs, 0 GPUs and 1.2 GiB of one node, and the cluster has 1 node with 1 CPU"
    )
    assert words.endswith("none of them so large; waiting for one, 30 min 00 s at most (--node-timeout)")
    assert text.getvalue().startswith(words)


def test_a_record_that_this_machine_sees_late_or_not_at_all_is_not_written_over(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network disk may hide it, which the node that wrote it does not."""
    as_worker("fake_worker", monkeypatch)
    told, read, hidden = Told(), attempts.read_run, {0: 2, 1: 10**9}
    study = fake_study(tmp_path, {}, seeds=2)

    def read_late(study_directory: Path, run: Run) -> RunRecord | None:
        record = read(study_directory, run)
        if record is not None:
            hidden[run.seed] -= 1
        return None if hidden[run.seed] >= 0 else record

    monkeypatch.setattr(attempts, "read_run", read_late)
    monkeypatch.setattr(config, "RECORD_SECONDS", 3.0)
    monkeypatch.setattr(config, "RECORD_LOOK_SECONDS", 0.1)
    late, never = study.runs()
    execute(tmp_path, study, [late, never], told, world.engine)
    assert told.of(late, "complete") == [True]
    (reason,) = told.of(never, "failed")
    assert "complete on its node" in reason
    for run in (late, never):
        assert read_json(run_directory(tmp_path, run) / "run.json")["status"] == "complete"


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Fail what would last for ever."""

    def fail(number: int, frame: object) -> None:
        raise AssertionError(f"not done in {seconds:g} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(("threads", "comes"), [(1, False), (2, False), (2, True)])
def test_runs_that_wait_for_a_lost_node_take_another_or_wait_for_one_or_the_study_ends(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, comes: bool
) -> None:
    """The first run is on the large node, the second waits for its memory. Then the node is gone."""
    as_worker("fake_worker", monkeypatch)
    mib = psutil.virtual_memory().total // 2**20
    monkeypatch.setattr(config, "RUN_BASE_MIB", 10 * mib)
    monkeypatch.setattr(config, "RAY_STRANDED_SECONDS", 2.0)
    engine = world.engine if comes else dataclasses.replace(world.engine, node_seconds=4.0)
    large = world.add_node(num_cpus=2, memory=15 * mib * 2**20)
    others = []
    study = dataclasses.replace(fake_study(tmp_path, {0: "sleeps", 1: "sleeps"}, seeds=2), threads=threads)
    runs, told = study.runs(), Told()

    def lose(run: Run, event: dict[str, Any]) -> None:
        told(run, event)
        if "pid" in event and not told.of(run, "again") and large in world.cluster.worker_nodes:
            (tmp_path / "faults.json").write_text("{}")
            world.cluster.remove_node(large)
        if "waits" in event and comes:
            others.append(world.add_node(num_cpus=2, memory=15 * mib * 2**20))

    ends = threads == 1 or comes
    with deadline(SECONDS):
        if ends:
            execute(tmp_path, study, runs, lose, engine)
        else:
            with pytest.raises(StudyError, match=r"^a run asks for 2 CPUs, .* the same command goes on from"):
                execute(tmp_path, study, runs, lose, engine)
    for one in others:
        world.cluster.remove_node(one)
    assert [told.of(run, "complete") for run in runs] == [[True] if ends else []] * 2
    assert sorted(len(told.of(run, "again")) for run in runs) == [0, 1]  # to wait is no try
    assert len([event for _, event in told.events if "waits" in event]) == (threads == 2)


def test_an_interrupt_ends_what_is_under_way(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_worker("fake_worker", monkeypatch)
    directory = tmp_path / "study"
    study = fake_study(directory, {1: "sleeps"}, seeds=3)
    runs, pids, interrupted = study.runs(), [], []

    def interrupt(run: Run, event: dict[str, Any]) -> None:
        if run.seed == 1 and "pid" in event:
            pids.append(event["pid"])
            interrupted.append(time.monotonic())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(directory, study, runs, interrupt, world.engine)
    assert wait_until(
        lambda: gone(pids[0]), 40 - (time.monotonic() - interrupted[0])
    )  # it would sleep for 60 s
    records = [read_run(directory, run) for run in runs]
    assert records[0] is not None
    assert records[0].complete
    assert records[1] is None
    assert not ray.is_initialized()


def test_workers_end_when_their_driver_is_killed_and_the_study_goes_on(
    world: World, prepared: tuple[Study, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_worker("tiny_worker", monkeypatch)
    study, there, _ = prepared
    run = study.runs()[0]
    asked = hang_file(world.hangs, run)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])}
    command = [sys.executable, "-c", TINY_DRIVER, str(there), "ray", world.cluster.address]
    with subprocess.Popen(command, env=environment) as driver:
        try:
            assert wait_until(lambda: asked.read_text() != "", SECONDS)
            worker = int(asked.read_text())
            assert not gone(worker)
        finally:
            driver.kill()
    assert wait_until(lambda: gone(worker), SECONDS)
    assert read_run(there, run) is None
    (there / f"{MARK}of-a-dead-driver").touch()
    on_nodes = [
        folder for folder in world.hangs.parent.glob("stroke-frameworks-*/*") if (folder / "there").exists()
    ]
    assert len(on_nodes) == 1  # the study's files, which nobody could remove
    for path in world.hangs.parent.glob("stroke-frameworks-*/*/code/common/study.py"):
        path.unlink()  # as a cleaner of temporary files does
    text = io.StringIO()
    study = dataclasses.replace(study, seeds=1)
    assert carry_out(study, there, Console(file=text, width=200), world.engine) == []
    lines = text.getvalue().splitlines()
    assert any(line.startswith("Ray: 1 node with 1 CPUs, 0 GPUs and ") for line in lines)
    assert any(line.endswith("done") and line.startswith("[1/1]") for line in lines)
    assert not list(there.glob(f"{MARK}*"))
    assert not on_nodes[0].exists()  # the next command did


def test_a_cluster_may_be_used_from_outside(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Ray Client: runs, tries, events and an interrupt as on a node of the cluster."""
    pytest.importorskip("grpc", reason="ray[client] is not installed")
    as_worker("fake_worker", monkeypatch)
    study, told, pids = fake_study(tmp_path, {1: "killed once", 2: "sleeps"}, seeds=3), Told(), []
    runs = study.runs()

    def interrupt(run: Run, event: dict[str, Any]) -> None:
        told(run, event)
        if run.seed == 2 and "pid" in event:
            pids.append(event["pid"])
            raise KeyboardInterrupt

    patiently(lambda: execute(tmp_path, study, runs[:2], told, world.client))
    with pytest.raises(KeyboardInterrupt):
        patiently(lambda: execute(tmp_path, study, runs[2:], interrupt, world.client))
    assert [told.of(run, "complete") for run in runs] == [[True], [True], []]
    assert "killed by SIGKILL" in told.of(runs[1], "again")[0]
    assert wait_until(lambda: gone(pids[0]), 40)
    assert not ray.is_initialized()


def test_a_framework_runs_under_the_interpreter_that_was_chosen_or_not_at_all(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_worker("fake_worker", monkeypatch)
    directory, told = tmp_path / "study", Told()
    study = fake_study(directory, {}, seeds=1)
    (run,) = study.runs()
    monkeypatch.setitem(interpreters.VARIABLES, "fake_worker", "STROKE_PYTHON_FAKE")
    monkeypatch.setenv("STROKE_PYTHON_FAKE", str(tmp_path / "nowhere" / "python"))
    execute(directory, study, [run], told, world.engine)
    (reason,) = told.of(run, "failed")
    assert "nowhere/python, which was chosen to run the framework" in reason
    assert len(attempts_of(directory, run)) == 1
    wrapper = write_interpreter(tmp_path / "python", f'exec env OWN_PYTHON=1 "{sys.executable}" "$@"')
    monkeypatch.setenv("STROKE_PYTHON_FAKE", wrapper)
    execute(directory, study, [run], told, world.engine)
    assert told.of(run, "complete") == [True]
    environment = read_json(directory / "seen0.json")["environment"]
    assert environment["OWN_PYTHON"] == "1"
    assert "STROKE_PYTHON_FAKE" not in environment


def test_without_an_address_ray_is_started_here_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = dataclasses.replace(fake_study(tmp_path, {}, seeds=1), threads=64)

    def look() -> None:
        with opened(Engine("ray")) as words:
            assert words.startswith(f"Ray: 1 node with {measure.usable_cores()} CPUs, ")
            assert ray.is_initialized()
            began = time.monotonic()  # no node can come here
            with pytest.raises(
                StudyError, match=r"^a run asks for 64 CPUs, .* so large; give fewer --threads"
            ):
                execute(tmp_path, study, study.runs(), Told(), Engine("ray"))
            assert time.monotonic() - began < 30

    patiently(look)
    assert not ray.is_initialized()


def test_what_travels_to_a_node_needs_nothing_of_ours_there(tmp_path: Path) -> None:
    """By value, and so does all that it refers to."""
    for module in (workers, fence, node):
        ray.cloudpickle.register_pickle_by_value(module)
    sent = [node.carry_out, node.answer, node.forget, node.Mailbox]
    (tmp_path / "sent").write_bytes(ray.cloudpickle.dumps(sent))
    read = "import pickle, sys; print([one.__name__ for one in pickle.load(open('sent', 'rb'))])"
    read += "; assert 'common' not in sys.modules"
    said = subprocess.check_output([sys.executable, "-I", "-c", read], cwd=tmp_path, text=True)
    assert said.strip() == "['carry_out', 'answer', 'forget', 'Mailbox']"


def refused_by(address: str, fault: str) -> None:
    with (
        deadline(10),
        pytest.raises(StudyError, match=rf"cannot be joined \(({fault})\); give --address"),
        connected(Engine("ray", address)),
    ):
        pass


def speak_other_words(listener: socket.socket) -> None:
    with listener.accept()[0] as stream:
        stream.sendall(b"HTTP/1.1 400 Bad Request\r\n")
        stream.recv(100)


def test_a_cluster_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(StudyError, match=r"Ray cluster nowhere cannot be joined .*; give --address"),
        connected(Engine("ray", "nowhere")),
    ):
        pass
    monkeypatch.setattr(config, "RAY_CONNECT_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        talker = threading.Thread(target=speak_other_words, args=(listener,))
        talker.start()
        refused_by(address, "what listens there is no Ray cluster")
        talker.join()
        refused_by(address, "there is no answer in 1 s")
        monkeypatch.setenv("RAY_USE_TLS", "1")  # which greets otherwise: that something listens must do
        check_address(address)
        monkeypatch.delenv("RAY_USE_TLS")
        refused_by(f"ray://{address}", "there is no answer in 1 s")
    refused_by(address, "Connection refused")
    monkeypatch.setenv("RAY_ADDRESS", address)
    refused_by("auto", "Connection refused")
    monkeypatch.delenv("RAY_ADDRESS")
    # Nothing runs here, and a head that is dead left its address behind
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", set)
    monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda folder: address)
    refused_by("auto", "Connection refused")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(StudyError, match=r"needs the package ray, .* `pip install -r common/requirements-ray"),
        contextlib.ExitStack() as stack,
    ):
        stack.enter_context(connected(Engine("ray")))
