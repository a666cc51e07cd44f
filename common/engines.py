"""Where runs execute: as local processes, or on a Ray cluster (`common.ray_engine`), one process a run.

A process of its own is not a matter of taste: PyTorch's optimizers abort an interpreter that has loaded TensorFlow,
thread and allocator settings are read once at start, and a run that is killed must not take the study with it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from common import interpreters, measure
from common.attempts import COMPLETE, LOG, Attempt, claim, is_complete, may_retry, settle, told_of_disk
from common.codebase import ROOT
from common.config import (
    DETERMINISTIC_ENVIRONMENT,
    DETERMINISTIC_THREADS,
    DETERMINISTIC_XLA,
    WORKER_ENVIRONMENT,
    Engine,
    Run,
    Study,
)
from common.cuda_packages import NO_GPU
from common.distributed import check_gpus
from common.errors import StudyError
from common.holding import check_there
from common.interpreters import interpreter_of
from common.measure import utc_now, visible_gpus
from common.memory_shortage import explained
from common.results import run_directory
from common.workers import Crew, work_through

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

OnEvent = Callable[[Run, dict[str, Any]], object]
LOCAL = Engine()


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
    framework: str,
    device: str,
    precision: str,
    threads: int,
    slot: int = 0,
    devices: int = 1,
    deterministic: bool = False,
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
    if deterministic:
        flags = (environment.get("XLA_FLAGS"), DETERMINISTIC_XLA)
        environment |= {**DETERMINISTIC_ENVIRONMENT, "XLA_FLAGS": " ".join(filter(None, flags))}
        environment["PJRT_NPROC"] = str(threads)  # else JAX takes as many as there are cores for it
    return environment


def run_environment(study: Study, run: Run, threads: int, slot: int = 0) -> dict[str, str]:
    """`worker_environment` of a run, whichever engine carries it out."""
    return worker_environment(
        run.framework, study.device, study.precision, threads, slot, study.devices, study.deterministic
    )


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
    return read_probe(framework, command, answer.returncode, answer.stdout, answer.stderr)


def read_probe(framework: str, command: Sequence[str], code: int, said: str, errors: str) -> dict[str, str]:
    """What a framework said of itself; StudyError where it did not."""
    facts = dict(parts for line in said.splitlines() if len(parts := line.split(None, 1)) == 2)
    if code or not {"framework", "backend", "device"} <= facts.keys():
        last = (errors.strip().splitlines() or ["no message"])[-1]
        raise StudyError(f"{framework} does not start: {last[:300]}; try `{command[0]} -m {command[2]} info`")
    return facts


def resolve_device(device: str, frameworks: Sequence[str], engine: Engine = LOCAL) -> str:
    """The one device that every framework is to use: as asked for, or for "auto" what they all see, where runs execute.

    Raises StudyError where "cuda" is asked for and one does not see it, and where for "auto" some see a GPU and others
    do not: their times would tell nothing.
    """
    if device == "cpu":
        return device
    if engine.address:
        from common.ray_cluster import probe_cluster  # here: it stands on this module

        facts, none = probe_cluster(frameworks, engine), "no node of the cluster has a GPU"
    else:
        names = frameworks if visible_gpus() else ()
        facts, none = {framework: probe_framework(framework) for framework in names}, NO_GPU
    if not facts:
        if device == "auto":
            return "cpu"
        raise StudyError(f"device 'cuda' was asked for, but {none}; use --device cpu")
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


def asked_threads(study: Study) -> int:
    """The threads that a study fixes, whatever machine it runs on; 0 where it leaves them open."""
    return study.threads or (DETERMINISTIC_THREADS if study.deterministic else 0)


def threads_of(study: Study) -> int:
    """Compute threads of each device of a run: as asked for, else the cores divided fairly."""
    return asked_threads(study) or max(1, measure.usable_cores() // (study.workers * study.devices))


def threads_for(run: Run, threads: int) -> int:
    """Threads of one run: a repeat takes another number, so that its sums are added up in another order."""
    return threads if not run.repeat else threads - 1 if threads > 1 else threads + 1


def execute(
    study_directory: Path, study: Study, runs: Sequence[Run], on_event: OnEvent, engine: Engine = LOCAL
) -> None:
    """Carry out runs of a prepared study, each in a process of its own; the one way from a list of runs to folders.

    A run that dies is recorded as failed with its reason and the rest goes on; one that was killed or lost without
    saying why is tried again first (`config.RETRIES`). Events reach `on_event` from several threads. On
    KeyboardInterrupt the workers are ended, what is finished stays, and what was under way never happened, but for its
    snapshot. Raises StudyError where the folder cannot be written or the cluster not be had.
    """
    if engine.name == "ray":
        from common.ray_engine import run_on_ray  # here: it stands on this module

        run_on_ray(study_directory, study, runs, on_event, engine)
    else:
        run_locally(study_directory, study, runs, on_event)


@contextlib.contextmanager
def opened(engine: Engine) -> Iterator[str]:
    """The engine ready for work; yields what it has, in words, or nothing where there is nothing to tell.

    `execute` opens what is not. Raises StudyError where the cluster cannot be had.
    """
    if engine.name == "ray":
        from common.ray_cluster import connected, describe_cluster  # here: it stands on this module

        with connected(engine) as ray:
            yield describe_cluster(ray)
    else:
        yield ""


def run_locally(study_directory: Path, study: Study, runs: Sequence[Run], on_event: OnEvent) -> None:
    """`execute` on this machine, `study.workers` runs at a time."""
    check_gpus(study)
    threads = threads_of(study)
    cores = core_slots(study.workers, threads * study.devices)

    def work(run: Run, slot: int, crew: Crew) -> None:
        check_there(study_directory)
        its = threads_for(run, threads)
        _run_process(study_directory, study, run, its, slot, cores[slot], crew, on_event)

    with told_of_disk(study_directory):
        work_through(runs, study.workers, work)


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
    directory = run_directory(study_directory, run)
    command = worker_command(run.framework, "run", str(study_directory), str(run.path))
    command += ["--threads", str(threads), "--supervised"]
    if cores:
        command += ["--cores", ",".join(map(str, cores))]
    environment = run_environment(study, run, threads, slot)
    attempts: list[Attempt] = []
    while True:
        number, started = len(attempts) + 1, utc_now()
        try:
            token = claim(directory, number)
        except StudyError as error:
            on_event(run, {"failed": str(error)})
            return
        on_event(run, {"started": started})
        ending = crew.run(
            [*command, "--attempt", token],
            environment,
            directory / LOG,
            lambda event: on_event(run, event),
            append=True,
        )
        ending = explained(ending, study.recipes[f"{run.task}/{run.model}"].batch_size, study.devices)
        complete = is_complete(study_directory, run)
        if crew.stopping.is_set() and not complete:
            return
        outcome = COMPLETE if complete else ending.reason
        attempts.append(Attempt(None, started, started, utc_now(), outcome, token))
        if complete or not may_retry(ending, len(attempts)):
            break
        on_event(run, {"again": ending.reason})
    settle(study_directory, run, "local", attempts, on_event)
