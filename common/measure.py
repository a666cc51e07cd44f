"""Clocks and memory, with one definition for every framework; and what machine the numbers come from."""

from __future__ import annotations

import datetime
import importlib
import math
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil

T = TypeVar("T")
# Name in the record -> module, of what makes or keeps numbers; not distributions: OpenCV comes under four names.
PACKAGES = {
    "numpy": "numpy",
    "pandas": "pandas",
    "pillow": "PIL",
    "opencv": "cv2",
    "safetensors": "safetensors",
}
UNKNOWN = "unknown"
COMMIT_VARIABLE = "STROKE_FRAMEWORKS_COMMIT"  # the commit of this code, where it is no checkout
DRIVER_FOLDER = Path("/proc/driver/nvidia/gpus")  # one entry a GPU
NVIDIA_SMI_SECONDS = 20  # more than a sleeping driver needs to wake


class StepClock:
    """Times training steps from outside the framework, by when it asks for the next batch.

    A step runs from the moment a batch is handed over until the next is asked for; waiting for data is kept apart.
    A cold step (the first, and the first of a further optimizer: it may compile, allocate, choose kernels) is
    synchronised and kept apart. Where steps overlap with the host (`overlaps`: an accelerator) single step times are
    those of the queue, and a wait may lie behind a step; their sum is exact, because every epoch ends with
    `synchronise`.

    A loop that reads batches ahead, in whatever thread (Keras's `fit`), does not ask when a step ends. With `steps`
    False nothing is timed, waiting is NaN, and only the wall time of whole epochs, taken by whoever runs them, tells.
    """

    def __init__(self, synchronise: Callable[[], None], steps: bool = True, overlaps: bool = False) -> None:
        self._synchronise = synchronise
        self.steps, self.overlaps = steps, overlaps
        self.step_seconds: list[float] = []
        self.wait_seconds = 0.0 if steps else math.nan
        self._cold = {0}  # numbers of the cold steps

    def expect_cold_step(self) -> None:
        """Tell that the next step runs with an optimizer that has not stepped yet."""
        self._cold.add(len(self.step_seconds))

    @property
    def cold_steps(self) -> tuple[int, ...]:
        """Places in `step_seconds`."""
        return tuple(sorted(step for step in self._cold if step < len(self.step_seconds)))

    def go_on_from(
        self, step_seconds: Iterable[float], cold_steps: Iterable[int], wait_seconds: float
    ) -> None:
        """Take over what another process timed of the same training; the next step is a cold one."""
        self.step_seconds, self._cold, self.wait_seconds = list(step_seconds), set(cold_steps), wait_seconds
        self.expect_cold_step()

    def watch(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches unchanged, timed where steps are."""
        if not self.steps:
            yield from batches
            return
        iterator = iter(batches)
        while True:
            asked = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            handed = time.perf_counter()
            self.wait_seconds += handed - asked
            yield batch
            if len(self.step_seconds) in self._cold:
                self._synchronise()
            self.step_seconds.append(time.perf_counter() - handed)

    @property
    def first_step_seconds(self) -> float:
        """All cold steps together."""
        return sum(self.step_seconds[step] for step in self.cold_steps)

    @property
    def compile_seconds(self) -> float | None:
        """What the cold steps took beyond steady ones, compiling above all; None where there is no steady one."""
        steady = self.steady_quantile_seconds(0.50)
        return None if steady is None else max(0.0, self.first_step_seconds - len(self.cold_steps) * steady)

    @property
    def steady_step_seconds(self) -> list[float]:
        return [seconds for step, seconds in enumerate(self.step_seconds) if step not in self._cold]

    def steady_quantile_seconds(self, q: float) -> float | None:
        """Quantile of the steady steps; None where there is none."""
        steady = self.steady_step_seconds
        return float(np.quantile(steady, q)) if steady else None


def seconds_since_start() -> float:
    """Wall-clock age of this process, to 10 ms on Linux."""
    status = Path("/proc/self/stat")
    if status.exists():  # psutil adds the ticks since boot to a boot time in whole seconds: up to 1 s wrong
        # Field 22 of proc(5), in clock ticks since boot; the second field, the name, may hold spaces.
        started = status.read_text().rsplit(")", 1)[1].split()[19]
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(started) / os.sysconf("SC_CLK_TCK")
    return time.time() - psutil.Process().create_time()


def cpu_seconds() -> float:
    """User and system time of this process and its threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def utc_now() -> str:
    """ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def peak_rss_mib() -> float:
    """Largest resident set of this process so far.

    Linux: VmHWM of proc(5), because ru_maxrss also holds the peak of the process that started this one (kernel,
    `exec_mmap`). macOS: ru_maxrss, in bytes.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10  # the field is in KiB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def cpu_name() -> str:
    """The processor's model name, as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores this process may use, which in a container or batch job can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The NVIDIA GPUs this process may use, as CUDA_VISIBLE_DEVICES writes them: indices or UUIDs."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = [name.strip() for name in chosen.split(",")]
        return list(
            takewhile(lambda name: name not in ("", "-1"), names)
        )  # CUDA stops at the first invalid one
    if DRIVER_FOLDER.is_dir():
        return [str(index) for index in range(len(list(DRIVER_FOLDER.iterdir())))]
    return _ask_nvidia_smi("index")  # WSL2 has the GPU and not the folder


def gpu_name() -> str | None:
    """Model name of the GPUs this process may use, equal ones once; None where there is none."""
    gpus = visible_gpus()
    names = _ask_nvidia_smi("name", f"--id={','.join(gpus)}") if gpus else []
    return ", ".join(dict.fromkeys(names)) or None


def _ask_nvidia_smi(field: str, *options: str) -> list[str]:
    """One value a GPU; empty where there is no NVIDIA driver."""
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader", *options]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=NVIDIA_SMI_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def common_environment() -> dict[str, str]:
    """Machine and versions that hold for every framework; never raises, what cannot be had is "unknown"."""
    facts: dict[str, Callable[[], str]] = {
        "python": platform.python_version,
        "system": lambda: f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name,
        "cores": lambda: str(usable_cores()),
        "memory_gib": lambda: f"{psutil.virtual_memory().total / 2**30:.0f}",
        "gpu": lambda: gpu_name() or "none",
    }
    facts |= {name: partial(_version_of, module) for name, module in PACKAGES.items()}
    return {name: _known(read) for name, read in facts.items()}


def _version_of(module: str) -> str:
    return str(importlib.import_module(module).__version__)


def _known(read: Callable[[], str]) -> str:
    try:
        return read() or UNKNOWN
    except Exception:  # a finished run must not be lost to a curious machine
        return UNKNOWN


def git_commit(folder: Path) -> str | None:
    """Commit of the checkout, with `+changes` if tracked files differ from it; None outside a checkout.

    A copy of the code that was sent to a node is told by COMMIT_VARIABLE where it comes from.
    """
    if (told := os.environ.get(COMMIT_VARIABLE)) is not None:
        return told or None
    try:
        git = ["git", "-C", str(folder)]
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
        changes = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")
