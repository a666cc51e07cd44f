"""The kinds of trouble that `benchmarks.disturbances` makes for a study: what is done to it, and how it is undone."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from common.attempts import LOG
from common.holding import NAME as LOCK
from common.results import read_study

DISK_MIB = 256
SLEEP_SECONDS = 5.0
POLL_SECONDS = 0.1
ROOMS_MIB = (64, 16, 4, 0)  # of address space that a worker may still take, less and less while it goes on
ROOM_SECONDS = 0.3  # an epoch of the study, about
STUCK_SECONDS = 60.0  # without any memory, and neither done nor failed
# What systems, Python, PyTorch, TensorFlow and their libraries call a shortage of memory
SHORTAGE = re.compile(
    r"MemoryError|(can't|cannot|could not|failed to) (allocate|map segment)|bad_alloc|out of memory|RESOURCE_EXHAUSTED"
    r"|can't start new thread|Resource temporarily unavailable",
    re.IGNORECASE,
)

# Preloaded: the clock of the wall goes back by a day after so many seconds; that of the machine does not
CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
static int (*own)(clockid_t, struct timespec *);
int clock_gettime(clockid_t clock, struct timespec *found) {
    struct timespec now;
    const char *after = getenv("CLOCK_JUMPS_AT");
    if (!own) own = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int code = own(clock, found);
    if (clock == CLOCK_REALTIME && after && !own(CLOCK_MONOTONIC, &now) && now.tv_sec >= atol(after))
        found->tv_sec -= 86400;
    return code;
}
"""


class UnavailableError(Exception):
    """Why a kind cannot be tried here."""


@dataclass(frozen=True)
class Scene:
    """A command at work, and where."""

    folder: Path  # for files of the trouble
    out: Path  # the study's
    process: psutil.Process
    same_command: Callable[[], tuple[int, str]]  # once more, to its end: exit code, last line


def _nothing_before(folder: Path, out: Path, moment: float) -> dict[str, str]:
    del folder, out, moment
    return {}


def _nothing_to_mend(scene: Scene) -> None:
    del scene


def _always(scene: Scene) -> bool:
    del scene
    return True


def _nothing_after(folder: Path, out: Path) -> None:
    del folder, out


@dataclass(frozen=True)
class Trouble:
    """One kind. `act` makes it while the command works; False: it came too late. `came` is asked after the command has
    ended, whether it met the trouble. `before` is called before the command starts, and returns environment variables
    for it; `mend` after the command has ended, before the next; `after` at the very end.
    """

    about: str
    act: Callable[[Scene], object]
    before: Callable[[Path, Path, float], dict[str, str]] = _nothing_before
    mend: Callable[[Scene], object] = _nothing_to_mend
    after: Callable[[Path, Path], object] = _nothing_after
    came: Callable[[Scene], bool] = _always


# --- processes ----------------------------------------------------------------------------------------------------


def _worker(scene: Scene) -> psutil.Process | None:
    """A process that trains, waited for while the command is at work; None where there comes none."""
    with contextlib.suppress(psutil.NoSuchProcess):
        while scene.process.status() != psutil.STATUS_ZOMBIE:
            for process in scene.process.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if {"torch_impl", "keras_impl"} & set(process.cmdline()) and "run" in process.cmdline():
                        return process
            time.sleep(POLL_SECONDS)
    return None


def _signal_all(scene: Scene, number: int) -> None:
    for process in [scene.process, *scene.process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _kill_worker(scene: Scene) -> bool:
    if (process := _worker(scene)) is None:
        return False
    process.kill()
    return True


def _sleep(scene: Scene) -> None:
    _signal_all(scene, signal.SIGSTOP)
    time.sleep(SLEEP_SECONDS)
    _signal_all(scene, signal.SIGCONT)


def _second_command(scene: Scene) -> bool:
    # Before that the second one could be the first to hold the folder
    while _at_work(scene) and not (scene.out / LOCK).exists():
        time.sleep(POLL_SECONDS)
    code, said = scene.same_command()
    refused = code == 2 and "another command is working" in said
    if not refused and _at_work(scene):
        raise AssertionError(f"a second command on one folder ended with {code}: {said}")
    return refused


def _at_work(scene: Scene) -> bool:
    return scene.process.is_running() and scene.process.status() != psutil.STATUS_ZOMBIE


def _starve(scene: Scene) -> bool:
    if (process := _worker(scene)) is None:
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        limit, hard = sys.maxsize, process.rlimit(psutil.RLIMIT_AS)[1]
        for room in ROOMS_MIB:
            limit = min(limit, process.memory_info().vms + room * 2**20)
            process.rlimit(psutil.RLIMIT_AS, (limit, hard))
            if psutil.wait_procs([process], timeout=ROOM_SECONDS)[0]:
                break
        if psutil.wait_procs([process], timeout=STUCK_SECONDS)[1]:
            print("without memory a worker neither goes on nor ends; killed", flush=True)
            process.kill()
    return True


def reports_shortage(out: Path) -> bool:
    """Whether a run of the study in `out` has failed, and says itself that it was for want of memory."""
    for run in (run for run in read_study(out).runs if not run.complete):
        log = run.directory / LOG
        words = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        if SHORTAGE.search(f"{run.document.get('reason')}\n{words}"):
            return True
    return False


def _preload_clock(folder: Path, out: Path, moment: float) -> dict[str, str]:
    del out
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise UnavailableError("there is no C compiler")
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(CLOCK)
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    jump = int(time.clock_gettime(time.CLOCK_MONOTONIC) + moment)
    return {"LD_PRELOAD": str(library), "CLOCK_JUMPS_AT": str(jump)}


# --- disks --------------------------------------------------------------------------------------------------------


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True, timeout=60)


def _unmount(*words: str) -> None:
    subprocess.run(["umount", *words], check=False, capture_output=True, timeout=60)


def _make_disk(folder: Path, out: Path, moment: float) -> dict[str, str]:
    """A disk of its own for the study, in memory."""
    del folder, moment
    if os.geteuid() or not shutil.which("mount"):
        raise UnavailableError("only root can mount a disk")
    out.mkdir()
    try:
        _mount("-t", "tmpfs", "-o", f"size={DISK_MIB}m", "study", str(out))
    except subprocess.CalledProcessError as error:
        raise UnavailableError(f"no disk can be mounted here ({error.stderr.decode().strip()})") from error
    return {}


def _make_share(folder: Path, out: Path, moment: float) -> dict[str, str]:
    """The study's folder as another one that is mounted there."""
    _make_disk(folder, out, moment)
    _unmount(str(out))
    kept = folder / "share"
    kept.mkdir()
    _mount("--bind", str(kept), str(out))
    return {}


def _fill(scene: Scene) -> None:
    used = shutil.disk_usage(scene.out).used
    _mount("-o", f"remount,size={used // 1024 + 4}k", str(scene.out))


def _make_room(scene: Scene) -> None:
    _mount("-o", f"remount,size={DISK_MIB}m", str(scene.out))


def _forbid_writing(scene: Scene) -> None:
    # A disk with files open for writing refuses to become read-only, so the way to it does
    _mount("--bind", str(scene.out), str(scene.out))
    _mount("-o", "remount,bind,ro", str(scene.out))


def _unmount_once(scene: Scene) -> None:
    _unmount("-l", str(scene.out))


def _unmount_all(folder: Path, out: Path) -> None:
    del folder
    for _ in range(3):
        _unmount("-l", str(out))


def _find_again(scene: Scene) -> None:
    _mount("--bind", str(scene.folder / "share"), str(scene.out))


KINDS = {
    "kill_command": Trouble("the command is killed (-9)", lambda scene: scene.process.kill()),
    "kill_worker": Trouble("a worker is killed (-9)", _kill_worker),
    "power": Trouble("all are killed at once, as without power", lambda scene: _signal_all(scene, signal.SIGKILL)),
    "interrupt": Trouble("Ctrl-C", lambda scene: scene.process.send_signal(signal.SIGINT)),
    "terminate": Trouble("SIGTERM, as schedulers send it", lambda scene: scene.process.terminate()),
    "sleep": Trouble("all stand still for 5 s, as on a machine that sleeps", _sleep),
    "second": Trouble("a second command on the same folder, which is refused", _second_command),
    "clock": Trouble("the clock goes back by a day", lambda scene: None, before=_preload_clock),
    "memory": Trouble("a worker runs out of memory", _starve, came=lambda scene: reports_shortage(scene.out)),
    "full": Trouble("the disk is full; then there is room", _fill, _make_disk, _make_room, _unmount_all),
    "readonly": Trouble(
        "the folder becomes read-only; then it can be written", _forbid_writing, _make_disk, _unmount_once, _unmount_all
    ),
    "lost": Trouble(
        "the disk goes away; then it is there again", _unmount_once, _make_share, _find_again, _unmount_all
    ),
}  # fmt: skip
