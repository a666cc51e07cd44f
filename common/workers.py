"""Worker processes: started, listened to, ended together.

Only the standard library is needed here: on a cluster this module travels to nodes that need not have our code.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

EVENT_NUMBERS = {  # what an event needs beside its first key, for the display divides and prints them
    "steps": ("of",),
    "epoch": ("epochs", "train_loss", "val_loss"),
}
# By hand, by a scheduler, by a system short of memory
KILLED = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
# The engines' own words: a worker, or a library in it, that prints them is not heard
ENGINE_EVENTS = frozenset({"started", "again", "waits", "complete"})

LAST_WORDS_BYTES = 64 * 1024  # at the end of a log, in which a worker's last line is looked for

Item = TypeVar("Item")


class Ending(NamedTuple):
    """How a worker ended."""

    code: int | None  # exit code, below 0 the signal that ended it; None: it was lost with its node
    reason: str  # one sentence; of no meaning where all went well
    told: bool = False  # whether the worker gave the reason itself
    short: bool = (
        False  # whether memory had run out, or may have: what to try is told by `common.memory_shortage`
    )

    @property
    def unexplained(self) -> bool:
        """Killed from outside or lost: nothing says that the same would happen again, as of a crash of its own."""
        return not self.told and (self.code is None or -self.code in KILLED)


def start_worker(
    command: Sequence[str], environment: Mapping[str, str], words: BinaryIO, folder: Path | None = None
) -> subprocess.Popen:
    """Start a worker, in a folder of its own if one is given: `python -m` looks for modules where it is started.

    Its events come by its standard output; what else it says goes to `words`.
    """
    return subprocess.Popen(
        command,
        env=environment,
        cwd=folder,
        stdin=subprocess.PIPE,  # held open: its end tells the worker that we are gone
        stdout=subprocess.PIPE,
        stderr=words,
    )


def listen(process: subprocess.Popen, words: BinaryIO) -> Generator[dict[str, Any], None, None]:
    """The events of a worker until its last; lines that are none go to `words`.

    The process has ended when the iterator has; where it is closed or thrown into, the process is ended.
    """
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        for line in process.stdout:
            event = parse_event(line)
            if event is None:
                words.write(line)
            else:
                yield event
        process.wait()
    except BaseException:  # of who listens: it has had enough
        process.terminate()
        process.wait()
        raise
    finally:
        process.stdin.close()
        process.stdout.close()


def follow(
    process: subprocess.Popen,
    words: BinaryIO,
    log: Path,
    on_event: Callable[[dict[str, Any]], object],
    since: int = 0,
) -> Ending:
    """Listen to a worker to its end; its last word on why it failed is kept, its other events are passed on. Before
    byte `since` of the log are the words of earlier tries.
    """
    reason = ""
    killed_before = kernel_kills()
    events = listen(process, words)
    try:
        for event in events:
            if "failed" in event:
                reason = str(event["failed"])
            else:
                on_event(event)
    except BaseException as error:
        events.throw(error)  # ends the process, and raises it again
    code = process.returncode
    explained = reason or explain_exit(code, log, kernel_kills() > killed_before, since)
    return Ending(code, explained, bool(reason), short=not reason and code == -signal.SIGKILL)


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
        append: bool = False,
    ) -> Ending:
        """Run a worker to its end, its words going to `log`, behind what is there with `append`."""
        with log.open("ab" if append else "wb") as words:
            since = words.tell()
            process = start_worker(command, environment, words)
            self._processes.add(process)
            if self.stopping.is_set():  # raised while this process was being started
                process.terminate()
            try:
                return follow(process, words, log, on_event, since)
            finally:
                self._processes.discard(process)

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


def parse_event(line: bytes) -> dict[str, Any] | None:
    """A worker's message, or None for a line that some library printed, JSON or not."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or event.keys() & ENGINE_EVENTS:
        return None
    for key, others in EVENT_NUMBERS.items():
        if key in event and not all(isinstance(event.get(name), int | float) for name in (key, *others)):
            return None
    return None if "steps" in event and event["of"] <= 0 else event


def explain_exit(code: int, log: Path, out_of_memory: bool = False, since: int = 0) -> str:
    """One sentence for a process that ended without saying why; `out_of_memory`: the kernel ended one for that. Its own
    words begin `since` so many bytes of the log.
    """
    own = read_end(log, LAST_WORDS_BYTES, since).decode(errors="replace")
    lines = [line.strip() for line in own.splitlines() if line.strip()]
    last = f"; its last words in {log.name}: {lines[-1][:300]}" if lines else ""
    crashes = [number for number, line in enumerate(lines) if line.startswith("Current thread")]
    if code < 0 and crashes:  # faulthandler's, of which what follows tells the place
        place = "".join(lines[crashes[-1] + 1 : crashes[-1] + 2])[:300]
        last = f" at {place}; {log.name} tells how it came there"
    if code == -signal.SIGKILL and out_of_memory:
        return "the kernel killed the process, for memory had run out"
    if code == -signal.SIGKILL:
        return "the process was killed by SIGKILL, which is how a system short of memory ends it"
    if code < 0:
        return f"the process was ended by {signal.Signals(-code).name}{last}"
    return f"the process ended with exit code {code}{last}"


def read_end(path: Path, most_bytes: int, since: int = 0) -> bytes:
    """The last bytes of a file, but none before `since`."""
    with path.open("rb") as stream:
        stream.seek(max(since, stream.seek(0, os.SEEK_END) - most_bytes))
        return stream.read(most_bytes)


def kernel_kills() -> int:
    """How many processes the kernel has ended for want of memory, in this control group or on this machine.

    Counted before and after, it tells whether a SIGKILL may have been the kernel's. 0 where nothing tells.
    """
    counts = [0]
    for path, name in _counters():
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        counts += [int(line.split()[1]) for line in lines if line.split()[:1] == [name]]
    return max(counts)


def _counters() -> list[tuple[Path, str]]:
    """Files with the kernel's counts: of the machine, and of the control group in its second and first version."""
    found = [(Path("/proc/vmstat"), "oom_kill")]
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return found
    for line in groups:  # cgroups(7): number:controllers:place, number 0 of the second version
        number, controllers, place = line.split(":", 2)
        inside = place.lstrip("/")
        if number == "0":
            found.append((Path("/sys/fs/cgroup", inside, "memory.events"), "oom_kill"))
        elif "memory" in controllers.split(","):
            found.append((Path("/sys/fs/cgroup/memory", inside, "memory.oom_control"), "oom_kill"))
    return found
