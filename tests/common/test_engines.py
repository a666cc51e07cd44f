"""Worker processes: what they are given, how their deaths are told, and that none outlives its study."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from interpreter_fixture import write_interpreter
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

from common import attempts, config, engines, fence, interpreters, measure
from common.config import WORKER_ENVIRONMENT, Run, Study
from common.engines import (
    check_framework,
    core_slots,
    framework_of,
    module_of,
    probe_framework,
    resolve_device,
    run_locally,
    threads_for,
    threads_of,
    visible_gpus,
    worker_environment,
)
from common.errors import StudyError
from common.results import read_json, read_run, run_directory
from common.study import prepare_study

__all__ = ["tiny_world"]  # a fixture


def write_worker(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that workers run in place of a framework's package."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(HERE)]))
    monkeypatch.setattr(engines, "module_of", lambda framework: name)


def grid_of(seeds: int) -> Study:
    """One run a seed."""
    return Study(frameworks=("torch",), seeds=seeds, recipes={"binary/cnn": RECIPE})


class Scene:
    """A study folder for fake workers, and the events that came from it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.events: list[tuple[Run, dict[str, Any]]] = []
        self.on_event: Callable[[Run, dict[str, Any]], object] = lambda run, event: None

    def run(self, faults: dict[int, str], runs: int, workers: int = 1, threads: int = 1) -> list[Run]:
        (self.directory / "faults.json").write_text(json.dumps(faults))
        study = dataclasses.replace(grid_of(runs), workers=workers, threads=threads, device="cpu")
        run_locally(self.directory, study, study.runs(), self._take)
        return study.runs()

    def _take(self, run: Run, event: dict[str, Any]) -> None:
        self.events.append((run, event))
        self.on_event(run, event)

    def of(self, run: Run) -> list[dict[str, Any]]:
        return [event for told, event in self.events if told == run]

    def seen(self, seed: int) -> dict[str, Any]:
        return read_json(self.directory / f"seen{seed}.json")

    def status(self, run: Run) -> tuple[str, str | None]:
        record = read_run(self.directory, run)
        assert record is not None
        return record.document["status"], record.document["reason"]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    write_worker(tmp_path / "modules", "fake_worker", FAKE_WORKER, monkeypatch)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text("{}")  # of which only its being there is looked at
    return Scene(tmp_path / "study")


# --- frameworks ---------------------------------------------------------------------------------------------------


def test_every_framework_has_a_package_here() -> None:
    assert {module_of(name) for name in config.FRAMEWORKS} == {"torch_impl", "keras_impl"}
    assert module_of("torch") == "torch_impl"
    assert all((ROOT / module_of(name) / "__main__.py").exists() for name in config.FRAMEWORKS)


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engines.PACKAGES, "keras-jax", ("no_such_a", "numpy", "no_such_b"))
    with pytest.raises(
        StudyError, match=r"needs the package no_such_a and no_such_b, .*`pip install .*jax==.*`"
    ):
        check_framework("keras-jax")
    monkeypatch.setitem(engines.PACKAGES, "keras-jax", ("numpy",))
    check_framework("keras-jax")


def test_an_unknown_framework_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        StudyError, match=r"'keras-numpy' is none of torch, .*KERAS_BACKEND to one of tensorflow, jax"
    ):
        check_framework("keras-numpy")


@pytest.mark.parametrize(
    ("backend", "name"), [(None, "tensorflow"), ("", "tensorflow"), ("jax", "jax"), ("foo", "foo")]
)
def test_the_environment_says_which_keras_is_meant(
    monkeypatch: pytest.MonkeyPatch, backend: str | None, name: str
) -> None:
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    if backend is not None:
        monkeypatch.setenv("KERAS_BACKEND", backend)
    assert framework_of("keras_impl") == f"keras-{name}"
    assert framework_of("torch_impl") == "torch"


# --- the device ---------------------------------------------------------------------------------------------------

PROBED = """
import json, os, sys
answers = json.loads(os.environ["PROBE_ANSWERS"])
assert sys.argv[1:] == ["info", "--brief"], sys.argv
text, code = answers[os.environ.get("KERAS_BACKEND", "torch")]
print(text, file=sys.stderr if code else sys.stdout)
sys.exit(code)
"""


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_gpus: None) -> Callable[..., None]:
    """Sets what each framework prints as `info` and its exit code; PROBED stands in for the packages."""
    write_worker(tmp_path / "modules", "probed", PROBED, monkeypatch)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)

    def give(**said: tuple[str, int]) -> None:
        monkeypatch.setenv("PROBE_ANSWERS", json.dumps(said))

    return give


def info(device: str, why: str = "") -> tuple[str, int]:
    reason = f"no_cuda  {why}\n" if why else ""
    return f"device    {device}\nframework  Some 1.0 on something\nbackend  any\n{reason}\nloose", 0


def test_auto_is_the_cpu_at_once_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(framework: str) -> dict[str, str]:
        raise AssertionError(f"{framework} was started")

    monkeypatch.setattr(engines, "probe_framework", refuse)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert resolve_device("auto", config.FRAMEWORKS) == "cpu"
    with pytest.raises(StudyError, match=r"^device 'cuda' .* no NVIDIA GPU is visible .*; use --device cpu$"):
        resolve_device("cuda", config.FRAMEWORKS)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert resolve_device("cpu", config.FRAMEWORKS) == "cpu"


def test_auto_is_what_every_framework_sees(answers: Callable[..., None]) -> None:
    answers(torch=info("cuda"), tensorflow=info("cuda"), jax=info("cpu"))
    assert probe_framework("torch")["framework"] == "Some 1.0 on something"
    assert resolve_device("auto", ["torch", "keras-tensorflow"]) == "cuda"
    assert resolve_device("auto", ["keras-jax"]) == "cpu"
    with pytest.raises(StudyError, match=r"^torch sees cuda, keras-jax only cpu; .* or give --device cpu$"):
        resolve_device("auto", ["torch", "keras-jax"])
    answers(torch=info("cuda"), tensorflow=info("cpu", "it lacks libraries"))
    remedy = r"mend that \(keras-tensorflow: it lacks libraries\) or give --device cpu$"
    with pytest.raises(StudyError, match=f"^torch sees cuda, keras-tensorflow only cpu; {remedy}"):
        resolve_device("auto", ["torch", "keras-tensorflow"])


def test_cuda_is_refused_before_the_work_where_a_framework_does_not_see_it(
    answers: Callable[..., None],
) -> None:
    answers(torch=info("cuda"), tensorflow=info("cuda"))
    assert resolve_device("cuda", ["torch", "keras-tensorflow"]) == "cuda"
    answers(torch=info("cpu", "built without"), tensorflow=info("cpu", "it lacks libraries"))
    assert resolve_device("auto", ["torch", "keras-tensorflow"]) == "cpu"
    with pytest.raises(
        StudyError, match=r"^device 'cuda' was asked for: torch, .* \(torch: built without; keras-"
    ):
        resolve_device("cuda", ["torch", "keras-tensorflow"])


def test_a_framework_that_does_not_start_is_named(answers: Callable[..., None]) -> None:
    answers(torch=("first\nlibcudart.so.12 is missing", 1), tensorflow=("device cpu", 0))
    with pytest.raises(StudyError, match=r"torch does not start: libcudart\.so\.12 is missing; try"):
        resolve_device("auto", ["torch"])
    with pytest.raises(StudyError, match="keras-tensorflow does not start: no message"):
        probe_framework("keras-tensorflow")


# --- the environment of a worker ----------------------------------------------------------------------------------


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")


def test_every_framework_gets_the_declared_settings(two_gpus: None) -> None:
    environments = {
        name: worker_environment(name, "auto", "float32", threads=3) for name in config.FRAMEWORKS
    }
    for environment in environments.values():
        assert environment.items() >= WORKER_ENVIRONMENT.items()
        assert environment["OMP_NUM_THREADS"] == environment["TF_NUM_INTRAOP_THREADS"] == "3"
        assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)
    backends = {name: environment.get("KERAS_BACKEND") for name, environment in environments.items()}
    assert backends["keras-tensorflow"] == "tensorflow"
    assert backends["keras-jax"] == "jax"
    assert backends["keras-torch"] == "torch"
    alike = [{k: v for k, v in env.items() if k != "KERAS_BACKEND"} for env in environments.values()]
    assert all(environment == alike[0] for environment in alike)


def test_a_setting_of_the_caller_does_not_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    environment = worker_environment("torch", "cpu", "float32", threads=2)
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["PYTHONPATH"] == os.pathsep.join([str(ROOT), "elsewhere"])


def test_cpu_hides_the_gpus_and_slots_share_them_out(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert visible_gpus() == ["4", "6"]
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    hidden = worker_environment("keras-jax", "cpu", "float32", threads=1)
    assert hidden["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"  # as nvidia-smi counts
    assert (hidden["CUDA_VISIBLE_DEVICES"], hidden["JAX_PLATFORMS"]) == ("", "cpu")
    assert hidden["KERAS_TORCH_DEVICE"] == "cpu"
    shared = [
        worker_environment("torch", "auto", "float32", threads=1, slot=slot)["CUDA_VISIBLE_DEVICES"]
        for slot in range(4)
    ]
    assert shared == ["4", "6", "4", "6"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(engines, "visible_gpus", list)
    for device in ("auto", "cuda"):  # a GPU that we do not see is not hidden from the framework
        assert "CUDA_VISIBLE_DEVICES" not in worker_environment("torch", device, "float32", threads=1)


def test_only_float64_asks_jax_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAX_ENABLE_X64", raising=False)
    assert worker_environment("keras-jax", "cpu", "float64", threads=1)["JAX_ENABLE_X64"] == "1"
    assert "JAX_ENABLE_X64" not in worker_environment("keras-jax", "cpu", "float32", threads=1)


def test_devices_of_one_run_share_its_gpus_and_threads(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same settings for every framework; PyTorch has a process for each device, Keras one for all."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7,9")
    environments = [
        worker_environment(name, "cuda", "float32", threads=3, slot=1, devices=2)
        for name in ("torch", "keras-jax")
    ]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in environments] == ["7,9", "7,9"]
    for one in environments:
        assert (one["OMP_NUM_THREADS"], one["TF_NUM_INTRAOP_THREADS"]) == ("3", "6")
        assert one["TF_NUM_INTEROP_THREADS"] == "2"
    on_cpu = worker_environment("keras-jax", "cpu", "float32", threads=3, devices=2)
    assert on_cpu["JAX_NUM_CPU_DEVICES"] == "2"
    assert "JAX_NUM_CPU_DEVICES" not in worker_environment("keras-jax", "cpu", "float32", threads=3)


def test_core_slots_are_equal_and_disjoint_while_there_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 3, 5, 7, 8, 9}, raising=False)
    assert core_slots(3, 2) == [[2, 3], [5, 7], [8, 9]]
    assert core_slots(2, 2) == [[2, 3], [5, 7]]
    assert core_slots(1, 6) == [[2, 3, 5, 7, 8, 9]]
    assert core_slots(4, 2) == [[2, 3, 5, 7, 8, 9]] * 4


def test_threads_are_shared_out_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "usable_cores", lambda: 10)
    assert [threads_of(Study(workers=workers)) for workers in (1, 3, 20)] == [10, 3, 1]
    assert threads_of(Study(workers=3, threads=8)) == 8
    assert threads_of(Study(workers=2, devices=2)) == 2


def test_what_a_worker_really_gets(scene: Scene) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    if cores < 2:
        pytest.skip("two workers need two cores")
    runs = scene.run({}, runs=3, workers=2, threads=1)
    for run in runs:
        seen = scene.seen(run.seed)
        assert seen["environment"].items() >= WORKER_ENVIRONMENT.items()
        assert seen["environment"]["CUDA_VISIBLE_DEVICES"] == ""
        assert seen["argv"][:3] == ["run", str(scene.directory), str(run.path)]
        assert seen["argv"][3:6] == ["--threads", "1", "--supervised"]
        assert seen["argv"][7].isdigit()  # one core
        (attempt,) = read_json(run_directory(scene.directory, run) / attempts.FILE)["attempts"]
        assert seen["argv"][8:] == ["--attempt", attempt["token"]]
        assert not (run_directory(scene.directory, run) / fence.NAME).exists()
        assert scene.status(run) == ("complete", None)
        (pid, steps) = scene.of(run)[1:3]
        assert pid == {"pid": seen["pid"]}
        assert steps == {"steps": 1, "of": 2}
        assert scene.of(run)[0].keys() == {"started"}
        assert scene.of(run)[-1] == {"complete": True}
    assert {scene.seen(seed)["argv"][7] for seed in (0, 1)} == {
        str(core) for core in sorted(os.sched_getaffinity(0))[:2]
    }


def test_a_framework_runs_under_an_interpreter_of_its_own(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = write_interpreter(tmp_path / "python", f'exec env OWN_PYTHON=1 "{sys.executable}" "$@"')
    monkeypatch.setitem(interpreters.VARIABLES, "fake_worker", "STROKE_PYTHON_FAKE")
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    monkeypatch.setenv("STROKE_PYTHON_FAKE", wrapper)
    (run,) = scene.run({}, runs=1)
    assert scene.status(run) == ("complete", None)
    environment = scene.seen(0)["environment"]
    assert environment["OWN_PYTHON"] == "1"
    assert "STROKE_PYTHON_FAKE" not in environment  # lest it ask another whether its packages are there
    assert "PYTHONHOME" not in environment  # of this Python, and it would keep another from starting


# --- deaths -------------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_is_recorded_and_the_others_finish(scene: Scene) -> None:
    faults = {0: "killed", 2: "exits", 3: "aborted", 4: "silent", 5: "says why", 7: "crashes"}
    # What has its record is complete, for that is written last, whatever becomes of its process
    runs = scene.run({**faults, 6: "fails after its record"}, runs=9, workers=2)
    reasons = {}
    for run in runs:
        status, reason = scene.status(run)
        assert status == ("failed" if run.seed in faults else "complete")
        expected = {"failed": reason} if run.seed in faults else {"complete": True}
        assert scene.of(run)[-1] == expected
        reasons[run.seed] = reason or ""
    assert "killed by SIGKILL" in reasons[0]
    assert f"try --batch-size {RECIPE.batch_size // 2} in another --out" in reasons[0]
    assert reasons[2] == (
        "the process ended with exit code 7; its last words in run.log: ImportError: no module named nothing"
    )
    assert reasons[3] == (
        "the process was ended by SIGABRT; its last words in run.log: terminate called recursively"
    )
    assert reasons[4] == "the process ended with exit code 0"
    assert reasons[5] == "the device has no memory left"
    assert reasons[7].startswith("the process was ended by SIGSEGV at File ")
    assert reasons[7].endswith("in <module>; run.log tells how it came there")


def test_only_a_run_that_did_not_say_why_it_ended_is_tried_again(scene: Scene) -> None:
    faults = {0: "killed once", 1: "killed", 2: "says why", 3: "exits", 4: "killed at the end"}
    runs = scene.run(faults, runs=5, workers=2)
    tries = [sum("started" in event for event in scene.of(run)) for run in runs]
    assert tries == [2, config.RETRIES + 1, 1, 1, 1]
    statuses = [scene.status(run)[0] for run in runs]
    assert statuses == ["complete", "failed", "failed", "failed", "complete"]
    assert "killed by SIGKILL" in scene.of(runs[0])[2]["again"]
    document = read_json(run_directory(scene.directory, runs[0]) / attempts.FILE)
    first, second = document["attempts"]
    assert (document["engine"], first["node"]) == ("local", None)
    assert "killed by SIGKILL" in first["outcome"]
    assert second["outcome"] == "complete"
    assert first["started"] <= first["ended"] <= second["started"]
    assert "a first try" in (run_directory(scene.directory, runs[0]) / "run.log").read_text()


def test_the_log_keeps_why_earlier_starts_failed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = scene.run({0: "exits"}, runs=1)
    log = run_directory(scene.directory, run) / "run.log"
    first = log.read_text()
    scene.run({0: "silent"}, runs=1)
    assert scene.status(run)[1] == "the process ended with exit code 0"  # not with the words of the first
    time_of_day = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"
    reason = "the process ended with exit code 7; .* nothing"
    marks = rf"--- failed {time_of_day}: {reason}\n--- started again {time_of_day}\n"
    assert re.fullmatch(re.escape(first) + marks, log.read_text())
    scene.run({0: "says why"}, runs=1)
    third = log.read_text()
    assert third.startswith(first)
    assert "exit code 7" in third
    assert "exit code 0" in third
    assert third.count("--- started again") == 1  # of a try without a word nothing but its reason is kept

    monkeypatch.setattr(config, "RUN_LOG_BYTES", 500)
    log.write_text("y" * 300 + "\n" + "z" * 300 + "\nthe last")
    scene.run({}, runs=1)
    assert scene.status(run) == ("complete", None)
    assert log.read_text().startswith(
        f"--- what was said before is left out\n{'z' * 300}\nthe last\n--- failed "
    )
    whole = log.read_bytes()
    scene.run({}, runs=1)
    assert log.read_bytes() == whole  # of a finished run


def test_a_settled_run_has_no_snapshot(scene: Scene) -> None:
    run = grid_of(1).runs()[0]
    folder = run_directory(scene.directory, run)
    folder.mkdir(parents=True)
    for name in ("snapshot.json", "snapshot.safetensors"):
        (folder / name).write_bytes(b"{}")
    scene.run({0: "killed at the end"}, runs=1)
    assert scene.status(run) == ("complete", None)
    assert not list(folder.glob("snapshot.*"))


def test_what_a_library_prints_goes_to_the_log(scene: Scene) -> None:
    (run,) = scene.run({0: "babbles"}, runs=1)
    assert scene.status(run) == ("complete", None)
    assert [list(event) for event in scene.of(run)] == [["started"], ["pid"], ["steps", "of"], ["complete"]]
    assert scene.of(run)[2] == {"steps": 2, "of": 2}
    log = (run_directory(scene.directory, run) / "run.log").read_bytes()
    assert b"\xff\xfe no text\n[1, 2]\n3\nnull\n{broken\n" in log
    assert b'{"steps": 3}\n{"steps": 3, "of": 0}\n' in log
    assert b"x" * 200_000 in log
    assert b"y" * 200_000 in log


def test_a_damaged_record_is_run_again_and_a_finished_one_of_another_kind_is_kept(scene: Scene) -> None:
    damaged, other, last = grid_of(3).runs()
    for run, text in ((damaged, "{"), (other, '{"format": 9, "status": "complete"}')):
        run_directory(scene.directory, run).mkdir(parents=True)
        (run_directory(scene.directory, run) / "run.json").write_text(text)
    scene.run({}, runs=3)
    assert scene.status(damaged) == ("complete", None)
    assert scene.status(last) == ("complete", None)
    (event,) = scene.of(other)
    assert "holds a finished run" in event["failed"]
    assert read_json(run_directory(scene.directory, other) / "run.json")["format"] == 9


def test_a_folder_that_can_no_longer_be_written_is_named(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(attempts, "record_failure", fail)
    with pytest.raises(StudyError, match="cannot go on: No space left on device; what is finished is kept"):
        scene.run({1: "exits"}, runs=3)
    study = grid_of(3)
    assert scene.status(study.runs()[0]) == ("complete", None)
    assert read_run(scene.directory, study.runs()[2]) is None  # never begun


def test_a_study_that_goes_away_ends_the_grid_and_is_named(scene: Scene) -> None:
    """A mount that is gone: what is left is no failure of runs, and nothing is written to where the mount was."""
    lost = scene.directory.with_name("lost")

    def lose(run: Run, event: dict[str, Any]) -> None:
        if run.seed == 1 and "pid" in event:
            scene.directory.rename(lost)
            scene.directory.mkdir()

    scene.on_event = lose
    with pytest.raises(StudyError, match=r"study was there .* gone away .*the same command goes on"):
        scene.run({1: "fails after a second"}, runs=3)
    written = {path.name for path in scene.directory.rglob("*") if path.is_file()}
    assert not written - {"seen1.json"}  # by the fake worker, right after it has told its process
    assert [run.seed for run, _ in scene.events if run.seed == 2] == []
    shutil.rmtree(scene.directory)
    lost.rename(scene.directory)
    scene.on_event = lambda run, event: None
    study = scene.run({}, runs=3)
    assert [scene.status(run) for run in study] == [("complete", None)] * 3


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """A shell's background jobs ignore SIGINT, and Python then installs no handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_ends_the_workers_and_leaves_no_record_of_them(scene: Scene) -> None:
    pids: list[int] = []

    def interrupt_when_both_run(run: Run, event: dict[str, Any]) -> None:
        if run.seed in (1, 2) and "pid" in event:
            pids.append(event["pid"])
            if len(pids) == 2:
                os.kill(os.getpid(), signal.SIGINT)

    scene.on_event = interrupt_when_both_run
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        scene.run({1: "sleeps", 2: "sleeps"}, runs=5, workers=2)
    assert time.monotonic() - began < 30  # not the 60 s that they sleep
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)
    runs = grid_of(5).runs()
    assert scene.status(runs[0]) == ("complete", None)
    assert [read_run(scene.directory, run) for run in runs[1:]] == [None] * 4
    assert {run.seed for run, event in scene.events if "started" in event} == {0, 1, 2}


# --- the real worker ----------------------------------------------------------------------------------------------


@pytest.fixture
def prepared(tmp_path: Path, tiny_world: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_worker(tmp_path / "modules", "tiny_worker", TINY_WORKER, monkeypatch)
    (tmp_path / "hangs").mkdir()
    monkeypatch.setenv("TINY_HANGS", str(tmp_path / "hangs"))
    data = write_pictures(tmp_path / "pictures")
    prepare_study(make_study(data, seeds=1, workers=2, threads=1), tmp_path / "study")
    return tmp_path / "study"


def test_two_frameworks_in_processes_of_their_own(prepared: Path) -> None:
    study = dataclasses.replace(make_study(prepared), seeds=1, workers=2, threads=1)
    events: list[tuple[Run, dict[str, Any]]] = []
    run_locally(prepared, study, study.runs(), lambda run, event: events.append((run, event)))
    documents = []
    for run in study.runs():
        record = read_run(prepared, run)
        assert record is not None
        assert record.complete, record.document["reason"]
        documents.append(record.document)
        epochs = [event["epoch"] for told, event in events if told == run and "epoch" in event]
        assert epochs == [1, 2]
        assert record.document["variables"].items() >= WORKER_ENVIRONMENT.items()
        assert record.document["threads"] == 1
        assert record.document["environment"]["cores"] == "1"
        (attempt,) = read_json(run_directory(prepared, run) / attempts.FILE)["attempts"]
        assert record.document["attempt"] == attempt["token"]
    assert documents[0]["weights"] == documents[1]["weights"]
    assert documents[0]["batches"] == documents[1]["batches"]


@pytest.mark.parametrize("stopped", [False, True])
def test_workers_end_when_their_study_is_killed(prepared: Path, tmp_path: Path, stopped: bool) -> None:
    """A stopped one too, which would else go on beside its successor."""
    if stopped and sys.platform != "linux":
        pytest.skip("only Linux ends a process with the one that started it")
    study = make_study(prepared, seeds=1)
    asked = [hang_file(tmp_path / "hangs", run) for run in study.runs()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])}
    driver = subprocess.Popen([sys.executable, "-c", TINY_DRIVER, str(prepared)], env=environment)
    try:
        assert wait_until(lambda: all(path.read_text() for path in asked), seconds=60)
        workers = [int(path.read_text()) for path in asked]
        assert not any(gone(worker) for worker in workers)
        if stopped:
            os.kill(workers[0], signal.SIGSTOP)
    finally:
        driver.kill()
        driver.wait()
    assert wait_until(lambda: all(gone(worker) for worker in workers), seconds=10)
    assert [read_run(prepared, run) for run in study.runs()] == [None, None]


@pytest.mark.parametrize(("threads", "again"), [(1, 2), (2, 1), (8, 7)])
def test_a_repeat_computes_with_another_number_of_threads(threads: int, again: int) -> None:
    run = Run("binary", "cnn", "torch", "aligned", seed=0, fold=0)
    assert threads_for(run, threads) == threads
    assert threads_for(dataclasses.replace(run, repeat=1), threads) == again
