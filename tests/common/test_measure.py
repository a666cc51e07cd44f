"""One definition of a step, of a peak and of a core, checked against what is known."""

import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from common import measure
from common.measure import StepClock

ROOT = Path(__file__).resolve().parents[2]


class FakeTime:
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(measure, "time", fake)
    return fake


# --- steps --------------------------------------------------------------------------------------------------------


def test_steps_and_waiting_are_told_apart(clock_time: FakeTime) -> None:
    """Batches take 3 s to come; steps 10, 1, 2 and 4 s; the device needs 5 s more for the first."""
    synchronised: list[float] = []

    def synchronise() -> None:
        synchronised.append(clock_time.now)
        clock_time.now += 5

    def batches() -> Iterator[int]:
        for number in range(4):
            clock_time.now += 3
            yield number

    clock = StepClock(synchronise)
    seen = []
    for number, seconds in zip(clock.watch(batches()), (10, 1, 2, 4), strict=False):
        seen.append(number)
        clock_time.now += seconds
        if number == 3:
            break
    assert seen == [0, 1, 2, 3]
    assert clock.wait_seconds == 12
    assert clock.step_seconds == [15, 1, 2]  # nobody asked for a batch after the fourth step
    assert clock.first_step_seconds == 15
    assert synchronised == [113]  # once, before the first step is taken as done
    assert clock.compile_seconds == 15 - 1.5


def test_a_loop_that_runs_out_times_every_step(clock_time: FakeTime) -> None:
    clock = StepClock(lambda: None)
    for _ in range(2):  # two epochs on one clock: only the first step of the run is apart
        for seconds in clock.watch([4.0, 1.0, 2.0, 3.0]):
            clock_time.now += seconds
    assert clock.step_seconds == [4, 1, 2, 3, 4, 1, 2, 3]
    assert clock.wait_seconds == 0
    assert clock.steady_quantile_seconds(0.5) == 2
    assert clock.steady_quantile_seconds(1.0) == 4


def test_the_first_step_of_a_further_optimizer_is_cold_too(clock_time: FakeTime) -> None:
    synchronised: list[float] = []
    clock = StepClock(lambda: synchronised.append(clock_time.now))
    clock.expect_cold_step()  # said before the first step too: it is cold anyway
    for phase in ([9.0, 1.0, 2.0], [7.0, 4.0]):
        clock.expect_cold_step()
        for seconds in clock.watch(phase):
            clock_time.now += seconds
    assert clock.first_step_seconds == 16
    assert clock.steady_step_seconds == [1, 2, 4]
    assert synchronised == [109, 119]


def test_one_step_has_no_steady_state(clock_time: FakeTime) -> None:
    clock = StepClock(lambda: None)
    list(clock.watch([1]))
    assert clock.steady_quantile_seconds(0.5) is None


def test_a_loop_that_reads_ahead_is_not_timed_by_its_steps(clock_time: FakeTime) -> None:
    """In another thread, as Keras's `fit` does: every batch comes through, and nothing is made up."""
    synchronised: list[float] = []
    clock = StepClock(lambda: synchronised.append(clock_time.now), steps=False)
    clock.expect_cold_step()
    read: list[int] = []
    reader = threading.Thread(target=lambda: read.extend(clock.watch(range(5))))
    reader.start()
    reader.join()
    assert read == [0, 1, 2, 3, 4]
    assert synchronised == []  # a device is not to be waited for from a thread that only reads
    assert math.isnan(clock.wait_seconds)
    assert clock.step_seconds == []
    assert clock.steady_quantile_seconds(0.5) is None
    assert clock.compile_seconds is None


# --- the process --------------------------------------------------------------------------------------------------

PEAK_PROGRAM = """
from common.measure import peak_rss_mib
before = peak_rss_mib()
block = bytearray(b"x" * (100 * 2**20))
del block
print(before, peak_rss_mib())
"""


def test_peak_memory_is_this_process_alone_and_does_not_fall() -> None:
    """100 MiB taken and given back are seen; 300 MiB of the process that starts this one are not."""
    ballast = bytearray(b"x" * (300 * 2**20))
    answer = subprocess.run(
        [sys.executable, "-c", PEAK_PROGRAM], capture_output=True, text=True, check=True, cwd=ROOT
    )
    before, peak = map(float, answer.stdout.split())
    assert len(ballast) == 300 * 2**20
    assert 10 < before < 250
    assert 95 < peak - before < 260  # the literal and the copy may be there at once


def test_cpu_time_counts_work_and_not_sleep() -> None:
    before = measure.cpu_seconds()
    time.sleep(0.2)
    rested = measure.cpu_seconds()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    assert rested - before < 0.15
    assert measure.cpu_seconds() - rested >= 0.15


def test_the_age_of_a_process() -> None:
    code = (
        "import time; time.sleep(0.3); from common.measure import seconds_since_start as s; "
        "a = s(); time.sleep(0.2); print(a, s())"
    )
    began = time.monotonic()
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    first, second = map(float, answer.stdout.split())
    assert 0.25 < first < second < time.monotonic() - began + 0.1
    assert second - first >= 0.19


def test_usable_cores_are_those_this_process_may_use() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no core affinity")
    core = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{core}}}); from common import measure; print(measure.usable_cores())"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert answer.stdout.strip() == "1"
    assert measure.usable_cores() == len(os.sched_getaffinity(0))


# --- the machine and the code -------------------------------------------------------------------------------------


def test_the_environment_is_words_and_has_no_gap() -> None:
    environment = measure.common_environment()
    machine = {"python", "system", "cpu", "cores", "memory_gib", "gpu"}
    assert machine | measure.PACKAGES.keys() == environment.keys()
    assert all(isinstance(value, str) and value for value in environment.values())
    assert re.fullmatch(r"3\.\d+\.\d+.*", environment["python"])


def test_nothing_about_a_machine_can_end_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where OpenCV is installed under another name, where a module has no version, where the system tells nothing."""

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    whole = measure.common_environment()
    assert whole["opencv"] == cv2.__version__
    monkeypatch.setitem(measure.PACKAGES, "pandas", "no_such_module_here")
    monkeypatch.setitem(measure.PACKAGES, "safetensors", "keyword")
    monkeypatch.setattr(measure.psutil, "virtual_memory", fail)
    monkeypatch.setattr(measure, "cpu_name", fail)
    unknown = dict.fromkeys(("pandas", "safetensors", "memory_gib", "cpu"), "unknown")
    assert measure.common_environment() == whole | unknown


# --- GPUs ---------------------------------------------------------------------------------------------------------

NVIDIA_SMI = """#!/bin/sh
case "$1 $3" in
    "--query-gpu=index ") printf '0\\n1\\n2\\n' ;;
    "--query-gpu=name --id=0,1,2") printf 'NVIDIA H200\\nNVIDIA H200\\nNVIDIA L4\\n' ;;
    "--query-gpu=name --id=1") echo 'NVIDIA H200' ;;
    *) exit 6 ;;
esac
"""


@pytest.fixture
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without the driver's folder in /proc; `nvidia-smi` may be put into the folder returned."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(measure, "DRIVER_FOLDER", tmp_path / "absent")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_without_a_driver_there_is_no_gpu(no_gpu: Path) -> None:
    assert measure.visible_gpus() == []
    assert measure.gpu_name() is None
    assert measure.common_environment()["gpu"] == "none"


def test_gpus_are_found_where_only_nvidia_smi_knows_them(
    no_gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (no_gpu / "nvidia-smi").write_text(NVIDIA_SMI)
    (no_gpu / "nvidia-smi").chmod(0o755)
    assert measure.visible_gpus() == ["0", "1", "2"]
    assert measure.gpu_name() == "NVIDIA H200, NVIDIA L4"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert measure.common_environment()["gpu"] == "NVIDIA H200"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert measure.common_environment()["gpu"] == "none"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "77")
    assert measure.gpu_name() is None  # nvidia-smi fails


@pytest.mark.parametrize(
    ("chosen", "gpus"),
    [("", []), ("-1", []), ("4, 6", ["4", "6"]), ("2,-1,3", ["2"]), ("GPU-8a", ["GPU-8a"])],
)
def test_chosen_gpus_end_at_the_first_invalid_one(
    monkeypatch: pytest.MonkeyPatch, chosen: str, gpus: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert measure.visible_gpus() == gpus


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    answer = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True
    )
    return answer.stdout.strip()


def test_the_commit_says_when_tracked_files_differ_from_it(tmp_path: Path) -> None:
    assert measure.git_commit(tmp_path) is None
    assert measure.git_commit(tmp_path / "absent") is None
    git(tmp_path, "init", "--quiet")
    assert measure.git_commit(tmp_path) is None  # nothing committed yet
    (tmp_path / "code.py").write_text("x = 1\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "--quiet", "--message=first")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert measure.git_commit(tmp_path) == head
    (tmp_path / "notes.txt").write_text("untracked files do not count")
    assert measure.git_commit(tmp_path) == head
    (tmp_path / "code.py").write_text("x = 2\n")
    assert measure.git_commit(tmp_path) == f"{head}+changes"


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert measure.git_commit(ROOT) is None
