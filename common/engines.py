"""Where runs execute: here, as local processes, one process a run.

A process of its own is not a matter of taste: PyTorch's optimizers abort an interpreter that has loaded TensorFlow,
thread and allocator settings are read once at start, and a run that is killed must not take the study with it.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from common import interpreters, measure
from common.config import WORKER_ENVIRONMENT, Run, Study
from common.cuda_packages import NO_GPU
from common.distributed import check_gpus
from common.errors import StudyError
from common.interpreters import interpreter_of
from common.measure import visible_gpus
from common.results import discard_damaged, run_directory
from common.run import clear_unfinished, record_failure, utc_now

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "torch": ("torch",),
    "keras-tensorflow": ("keras", "tensorflow"),
    "keras-jax": ("keras", "jax"),
    "keras-torch": ("keras", "torch"),
}
INSTALL = {
    "torch": "pip install -r torch_impl/requirements.txt",
    "keras-tensorflow": "pip install -r keras_impl/requirements.txt",
    "keras-jax": "pip install -r keras_impl/requirements.txt jax==0.10.2",
    "keras-torch": "pip install -r keras_impl/requirements.txt torch==2.13.0",
}

PROBE_TIMEOUT_SECONDS = 120  # TensorFlow's first import from a cold network disk
WORKER_MARK = "STROKE_FRAMEWORKS_WORKER"  # set in every process that has the environment of a worker
EVENT_NUMBERS = {  # what an event needs beside its first key, for the display divides and prints them
    "steps": ("of",),
    "epoch": ("epochs", "train_loss", "val_loss"),
}

OnEvent = Callable[[Run, dict[str, Any]], object]
Item = TypeVar("Item")


def missing_packages(name: str) -> list[str]:
    """The framework's packages that its interpreter does not find; imports nothing.

    An interpreter of its own is asked for the packages of `common` as well. Raises StudyError where it does not run.
    """
    return interpreters.missing(module_of(name), PACKAGES[name])


def check_framework(name: str) -> None:
    """Raise StudyError unless the framework is known and its packages are installed; imports nothing."""
    if name not in PACKAGES:
        backends = [known.removeprefix("keras-") for known in PACKAGES if known.startswith("keras-")]
        raise StudyError(
            f"framework {name!r} is none of {', '.join(PACKAGES)}; set KERAS_BACKEND to one of {', '.join(backends)}"
        )
    if missing := missing_packages(name):
        raise StudyError(
            f"framework {name!r} needs the package {' and '.join(missing)}, which is not installed here; "
            f"run `{install_command(name)}` (compare.py can also leave it out with --frameworks)"
        )


def install_command(name: str) -> str:
    """What installs a framework's packages where its workers look for them."""
    own = interpreters.own_interpreter(module_of(name))
    return f"{own} -m {INSTALL[name]}" if own else INSTALL[name]


def module_of(framework: str) -> str:
    """The package that implements a framework."""
    return "torch_impl" if framework == "torch" else "keras_impl"


def worker_command(framework: str, *words: str) -> list[str]:
    """The command of a worker of a framework, in its interpreter."""
    module = module_of(framework)
    return [interpreter_of(module), "-m", module, *words]


def framework_of(package: str) -> str:
    """The framework that a package means in this process: for Keras, the one of KERAS_BACKEND, else TensorFlow.

    A `keras.json` in the user's home has no say: a study must not depend on it.
    """
    return "torch" if package == "torch_impl" else f"keras-{os.environ.get('KERAS_BACKEND') or 'tensorflow'}"


def worker_environment(
    framework: str, device: str, precision: str, threads: int, slot: int = 0, devices: int = 1
) -> dict[str, str]:
    """The environment of a worker process: the same settings for every framework, plus which framework it is.

    `threads` are those of one device. Of several PyTorch has a process for each, Keras one for all.
    """
    environment = {**os.environ, **WORKER_ENVIRONMENT}
    environment[WORKER_MARK] = "1"
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment["OMP_NUM_THREADS"] = str(threads)
    environment["TF_NUM_INTRAOP_THREADS"] = str(threads * devices)
    environment["TF_NUM_INTEROP_THREADS"] = str(devices)
    environment.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as `nvidia-smi` counts, by which we tell GPUs
    if interpreters.own_interpreter(module_of(framework)):
        environment.pop("PYTHONHOME", None)  # of another installation
    for name in interpreters.VARIABLES.values():
        environment.pop(name, None)  # a worker is where it should be, and starts none
    if framework.startswith("keras-"):
        environment["KERAS_BACKEND"] = framework.removeprefix("keras-")
    if device == "cpu":
        environment |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "KERAS_TORCH_DEVICE": "cpu"}
        if devices > 1:
            environment["JAX_NUM_CPU_DEVICES"] = str(devices)
    elif gpus := visible_gpus():
        own = [gpus[(slot * devices + place) % len(gpus)] for place in range(devices)]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(own)
    if precision == "float64":
        environment["JAX_ENABLE_X64"] = "1"
    return environment


def probe_framework(framework: str) -> dict[str, str]:
    """What the framework says of itself (`info`) when started as a worker would be, e.g. its device under "device".

    Raises StudyError if it cannot be started.
    """
    command = worker_command(framework, "info", "--brief")
    try:
        answer = subprocess.run(
            command,
            env=worker_environment(framework, "auto", "float32", measure.usable_cores()),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StudyError(f"{framework} gave no answer in {PROBE_TIMEOUT_SECONDS} s; try again") from None
    facts = dict(parts for line in answer.stdout.splitlines() if len(parts := line.split(None, 1)) == 2)
    if answer.returncode or not {"framework", "backend", "device"} <= facts.keys():
        last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        raise StudyError(f"{framework} does not start: {last[:300]}; try `{command[0]} -m {command[2]} info`")
    return facts


def resolve_device(device: str, frameworks: Sequence[str]) -> str:
    """The one device that every framework is to use: as asked for, or for "auto" what they all see.

    Raises StudyError where "cuda" is asked for and one does not see it, and where for "auto" some see a GPU and others
    do not: their times would tell nothing.
    """
    if device == "cpu":
        return device
    if not visible_gpus():
        if device == "auto":
            return "cpu"
        raise StudyError(f"device 'cuda' was asked for, but {NO_GPU}; use --device cpu")
    facts = {framework: probe_framework(framework) for framework in frameworks}
    blind = [name for name, found in facts.items() if found["device"] == "cpu"]
    if not blind:
        return "cuda"
    if len(blind) == len(facts) and device == "auto":
        return "cpu"
    seeing = ", ".join(name for name in facts if name not in blind)
    some = f"{seeing} sees cuda, " if seeing else "device 'cuda' was asked for: "
    why = "; ".join(f"{name}: {facts[name].get('no_cuda', 'no reason given')}" for name in blind)
    raise StudyError(f"{some}{', '.join(blind)} only cpu; mend that ({why}) or give --device cpu")


def core_slots(workers: int, threads: int) -> list[list[int]]:
    """The cores of each worker: equal, disjoint sets while there are enough cores, else all cores for everyone."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if workers * threads > len(cores):
        return [cores] * workers
    return [cores[slot * threads : (slot + 1) * threads] for slot in range(workers)]


def threads_of(study: Study) -> int:
    """Compute threads of each device of a run: as asked for, else the cores divided fairly."""
    return study.threads or max(1, measure.usable_cores() // (study.workers * study.devices))


def threads_for(run: Run, threads: int) -> int:
    """Threads of one run: a repeat takes another number, so that its sums are added up in another order."""
    return threads if not run.repeat else threads - 1 if threads > 1 else threads + 1


def run_locally(study_directory: Path, study: Study, runs: Sequence[Run], on_event: OnEvent) -> None:
    """Execute the runs, `study.workers` at a time, each in a process of its own.

    A run that dies is recorded as failed with its reason and the rest goes on. Events reach `on_event` from several
    threads. On KeyboardInterrupt the workers are ended, what is finished stays, and what was under way never happened.
    Raises StudyError where the folder cannot be written.
    """
    check_gpus(study)
    threads = threads_of(study)
    cores = core_slots(study.workers, threads * study.devices)

    def work(run: Run, slot: int, crew: Crew) -> None:
        its = threads_for(run, threads)
        _run_process(study_directory, study, run, its, slot, cores[slot], crew, on_event)

    try:
        work_through(runs, study.workers, work)
    except OSError as error:
        raise StudyError(
            f"the runs in {study_directory} cannot go on: {error.strerror or error}; what is finished is "
            "kept, the same command goes on from there"
        ) from error


class Crew:
    """Worker processes that are under way, to be ended together."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._processes: set[subprocess.Popen] = set()

    def run(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        on_event: Callable[[dict[str, Any]], object],
    ) -> tuple[int, str]:
        """Run a worker to its end, its words going to `log`; returns its exit code and, unless that is 0, why."""
        reason = ""
        with log.open("wb") as words:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,  # held open: its end tells the worker that we are gone
                stdout=subprocess.PIPE,
                stderr=words,
            )
            self._processes.add(process)
            if self.stopping.is_set():  # raised while this process was being started
                process.terminate()
            assert process.stdout is not None
            assert process.stdin is not None
            try:
                for line in process.stdout:
                    event = _parse_event(line)
                    if event is None:
                        words.write(line)
                    elif "failed" in event:
                        reason = str(event["failed"])
                    else:
                        on_event(event)
                code = process.wait()
            except BaseException:  # of `on_event`: who listens has had enough
                process.terminate()
                process.wait()
                raise
            finally:
                process.stdin.close()
                process.stdout.close()
                self._processes.discard(process)
        return code, reason or _explain_exit(code, log)

    def stop(self) -> None:
        """End every worker, and let none begin."""
        self.stopping.set()
        for process in list(self._processes):
            process.terminate()


def work_through(items: Sequence[Item], workers: int, work: Callable[[Item, int, Crew], object]) -> None:
    """`work(item, slot, crew)` for every item in their order, `workers` at a time, each in a slot of its own.

    An exception, KeyboardInterrupt included, ends the workers under way and is raised.
    """
    slots: queue.SimpleQueue[int] = queue.SimpleQueue()
    for slot in range(workers):
        slots.put(slot)
    crew = Crew()

    def take(item: Item) -> None:
        if crew.stopping.is_set():
            return
        slot = slots.get()
        try:
            work(item, slot, crew)
        finally:
            slots.put(slot)

    with ThreadPoolExecutor(workers, thread_name_prefix="worker") as pool:
        futures = [pool.submit(take, item) for item in items]
        try:
            for future in futures:
                future.result()
        except BaseException:
            crew.stop()
            raise


def _run_process(
    study_directory: Path,
    study: Study,
    run: Run,
    threads: int,
    slot: int,
    cores: Sequence[int],
    crew: Crew,
    on_event: OnEvent,
) -> None:
    started = utc_now()
    directory = run_directory(study_directory, run)
    discard_damaged(directory)
    try:
        clear_unfinished(directory)
    except StudyError as error:  # a finished run of another study or version: not ours to overwrite
        on_event(run, {"failed": str(error)})
        return
    on_event(run, {"started": started})
    command = worker_command(run.framework, "run", str(study_directory), str(run.path))
    command += ["--threads", str(threads), "--supervised"]
    if cores:
        command += ["--cores", ",".join(map(str, cores))]
    environment = worker_environment(
        run.framework, study.device, study.precision, threads, slot, study.devices
    )
    code, reason = crew.run(command, environment, directory / "run.log", lambda event: on_event(run, event))
    if code == 0 and (directory / "run.json").exists():
        on_event(run, {"complete": True})
    elif not crew.stopping.is_set():
        record_failure(study_directory, run, reason, started)
        on_event(run, {"failed": reason})


def _parse_event(line: bytes) -> dict[str, Any] | None:
    """A worker's message, or None for a line that some library printed, JSON or not."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or event.keys() & {"started", "complete"}:  # the engine's own words
        return None
    for key, others in EVENT_NUMBERS.items():
        if key in event and not all(isinstance(event.get(name), int | float) for name in (key, *others)):
            return None
    return None if "steps" in event and event["of"] <= 0 else event


def _explain_exit(code: int, log: Path) -> str:
    """One sentence for a process that ended without saying why."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = f"; its last words in {log.name}: {lines[-1][:300]}" if lines else ""
    if code == -signal.SIGKILL:
        return "the process was killed by SIGKILL, which is how a system short of memory ends it; try a smaller batch"
    if code < 0:
        return f"the process was ended by {signal.Signals(-code).name}{last}"
    return f"the process ended with exit code {code}{last}"
