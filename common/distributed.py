"""One run on several devices: which of its processes this is, what such a run must be, and who watches whom.

PyTorch has one process a device, its rank: the same program on the same stream, each on its share of every batch. The
first one is the worker that the engine started; it starts the others and alone writes files. Keras has one process for
all devices. This module knows no framework.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from common import config
from common.config import Study
from common.errors import StudyError
from common.measure import visible_gpus

RANK = "STROKE_FRAMEWORKS_RANK"  # "rank/of" of a process that the first one started
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")  # what it tells of a process's place
MEETING = "STROKE_FRAMEWORKS_MEETING"  # the file by which they find each other
BATCH_NORM_RULE = "synchronised: mean and variance of the whole batch"
# Why a framework cannot share a run; keyed by its name
REFUSED = {
    "keras-torch": "Keras has no distribution for its torch backend, and its training step does not go through "
    "PyTorch's DistributedDataParallel",
}

_watchers: list[threading.Thread] = []
_over = threading.Event()  # this process ends: the others may


@dataclass(frozen=True)
class Place:
    """Of a process among those of its run."""

    rank: int = 0
    processes: int = 1
    local_rank: int = 0  # among those of its machine: which GPU is its own
    meeting: str = ""  # the file of `start_ranks`; empty: alone, or under torchrun


def place() -> Place:
    """This process's, by its environment: torchrun's, or that of `start_ranks`."""
    if under_torchrun():
        rank, processes, local_rank = (int(os.environ[name]) for name in TORCHRUN)
        return Place(rank, processes, local_rank)
    rank, processes = map(int, os.environ.get(RANK, "0/1").split("/"))
    return Place(rank, processes, rank, os.environ.get(MEETING, ""))


def under_torchrun() -> bool:
    """Whether `torchrun` started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def leads() -> bool:
    """Whether this process may write files: it is alone, or the first of its run."""
    return place().rank == 0


def take_share_of_cores(here: Place) -> None:
    """Keep this process to its share of the cores that its run was given, where they can be divided evenly."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    share, rest = divmod(len(cores), here.processes)
    if share and not rest:
        os.sched_setaffinity(0, cores[here.rank * share : (here.rank + 1) * share])


def check_devices(study: Study) -> None:
    """Raise StudyError unless every run of the study can be shared by `study.devices` devices."""
    devices = study.devices
    if devices == 1:
        return
    for key, recipe in study.recipes.items():
        size = recipe.batch_size
        if size % devices:
            below, above = size // devices * devices, (size // devices + 1) * devices
            sizes = f"{below} or {above}" if below else str(above)
            raise StudyError(
                f"batch_size {size} of {key} must be divisible by --devices {devices}, which share each batch; give "
                f"--batch-size {sizes}"
            )
    if study.lanes != ("aligned",):
        raise StudyError(
            f"--devices {devices} goes with the aligned lane alone: natively each device would have a batch norm and "
            "draws of its own; leave --lane out"
        )
    for framework in study.frameworks:
        if reason := REFUSED.get(framework):
            able = " ".join(name for name in config.FRAMEWORKS if name not in REFUSED)
            raise StudyError(f"{framework} has no --devices {devices}: {reason}; take --frameworks {able}")


def check_share(gpus: float, devices: int) -> None:
    """Raise StudyError for GPUs per device that Ray does not give to a run of so many devices: a part of one GPU, or
    whole ones.
    """
    asked = f"--gpus-per-run {gpus:g}"
    if gpus < 1 and devices > 1:
        raise StudyError(
            f"{asked} does not go with --devices {devices}, for a run that shares a GPU with others has but that one; "
            "give --gpus-per-run 1 or leave --devices out"
        )
    if gpus > 1 and gpus % 1:
        raise StudyError(
            f"{asked} is more than one GPU and no whole number, and Ray divides no GPU but among runs that take less "
            f"than one; give --gpus-per-run {int(gpus)} or {int(gpus) + 1}"
        )


def check_gpus(study: Study) -> None:
    """Raise StudyError where a run is for more GPUs than this machine shows."""
    gpus = len(visible_gpus())
    if study.device == "cuda" and study.devices > max(gpus, 1):
        raise StudyError(
            f"--devices {study.devices} was asked for, and this machine shows {gpus} GPU(s); ask for fewer"
        )


def check_torchrun(study: Study, framework: str) -> None:
    """Raise StudyError unless this process, which torchrun started, is one of as many as the study's runs have."""
    started = place().processes
    if framework != "torch":
        raise StudyError(f"torchrun is PyTorch's, and this is {framework}; start its run without torchrun")
    if os.environ.get("LOCAL_WORLD_SIZE", str(started)) != str(started):
        raise StudyError(
            f"torchrun started {started} processes on several machines, and a run is of one: its ranks read the same "
            "folder; give torchrun --nnodes 1"
        )
    if started != study.devices:
        raise StudyError(
            f"torchrun started {started} processes, and the runs of this study are for --devices {study.devices}; give "
            f"torchrun --nproc-per-node {study.devices}"
        )


# --- the ranks of a run -------------------------------------------------------------------------------------------


def start_ranks(processes: int) -> Place:
    """Start the other ranks of this process's run with its own command; returns the place of this one, the first.

    They end with this process, and it ends with any of them that fails: with that one's sentence where it gave one,
    else by the same signal or with exit code 1, the rank's name its last words.
    """
    folder = tempfile.TemporaryDirectory(prefix="ranks-")
    atexit.register(folder.cleanup)
    atexit.register(_over.set)
    meeting = str(Path(folder.name) / "meeting")
    for rank in range(1, processes):
        process = subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            env={**os.environ, RANK: f"{rank}/{processes}", MEETING: meeting},
            stdin=subprocess.PIPE,  # its end tells the rank that we are gone
            stdout=subprocess.PIPE,
        )
        watcher = threading.Thread(target=_watch, args=(process, rank, processes), daemon=True)
        watcher.start()
        _watchers.append(watcher)
    sys.excepthook = _after_the_watchers
    return Place(0, processes, 0, meeting)


def _watch(process: subprocess.Popen[bytes], rank: int, processes: int) -> None:
    """Wait for a rank's end, and end this process unless all went well."""
    assert process.stdout is not None
    sentence = ""
    for line in process.stdout:  # steps and epochs are told by the first rank
        if line.startswith(b'{"failed"'):
            sentence = str(json.loads(line)["failed"])
    code = process.wait()
    if code == 0 or _over.is_set():
        return
    if sentence:
        print(json.dumps({"failed": sentence}), flush=True)
        os._exit(2)
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    print(f"rank {rank} of the {processes} that share this run {how}", file=sys.stderr, flush=True)
    if code < 0:  # the engine is to see how, for it tries again what was killed
        signal.pthread_kill(threading.get_ident(), -code)
    os._exit(1)


def _after_the_watchers(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Report an exception, but let a watcher speak first: a lost rank shows here as a broken connection."""
    for watcher in _watchers:
        watcher.join(config.LOST_RANK_SECONDS / len(_watchers))
    sys.__excepthook__(kind, error, traceback)
