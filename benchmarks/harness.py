"""Two programs, block by block in turn on one machine, and the ratio of their rates with an interval.

The two are processes of their own (`benchmarks.contestant`). Blocks run in the order A B B A, so that a slow drift of
the machine cancels within a round; the process whose turn it is not is stopped by signal, so that no loader works ahead
and no thread spins. A round gives one ratio; the median over the rounds is the result, and its interval is made of two
of the ratios themselves: order statistics, exact whatever the noise is like (Conover 1999, section 3.2).
"""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, Any

from common import config, engines
from common.codebase import ROOT
from common.errors import StudyError
from common.measure import usable_cores

SETTINGS = ("shipped", "same")
START_SECONDS = 600.0  # until a contestant must be ready: a compiler may take minutes
BLOCK_SECONDS = 600.0
END_SECONDS = 5.0  # from the end of its input until a contestant is killed
CALIBRATIONS = 6  # at most, besides the first blocks
LARGEST_GROWTH = 8  # of a block's units from one calibration to the next

# What a user's shell does not have and a worker of ours does (`config.WORKER_ENVIRONMENT`), or that would tune a peer
THREAD_VARIABLES = frozenset(
    {
        "OMP_NUM_THREADS",
        "OMP_PROC_BIND",
        "GOMP_CPU_AFFINITY",
        "KMP_AFFINITY",
        "KMP_BLOCKTIME",
        "LD_PRELOAD",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "TF_NUM_INTEROP_THREADS",
        "TF_NUM_INTRAOP_THREADS",
    }
)


class ContestantError(StudyError):
    """A contestant did not start, failed, or gave no answer."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name} {what}")
        self.name = name


# Kept for a peer as well: one is about messages, and without the others the first to start takes a whole GPU's memory
HARMLESS = ("TF_CPP_MIN_LOG_LEVEL", "TF_FORCE_GPU_ALLOW_GROWTH", "XLA_PYTHON_CLIENT_PREALLOCATE")


@dataclass(frozen=True)
class Contestant:
    """A program that speaks the protocol of `benchmarks.contestant`."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Missing:
    """A contestant that cannot be had here."""

    name: str
    reason: str


@dataclass(frozen=True)
class Block:
    """One answer to `block N`."""

    seconds: float
    cpu_seconds: float
    images: int
    peak_rss_mib: float
    load: float  # load average of the last minute, before the block began
    wait_seconds: float = 0.0  # for data, where the program can tell
    children_mib: float = 0.0  # what processes started by it had for themselves alone, when the block ended


@dataclass(frozen=True)
class Comparison:
    """A beside B; ratios are A's rate over B's, so above 1 A is the faster."""

    a: str
    b: str
    ratios: tuple[float, ...]  # of images a second, one a round
    cpu_ratios: tuple[float, ...]  # of images a CPU-second
    low: float  # interval of the median ratio ...
    high: float
    coverage: float  # ... and the probability that it holds the true median; 0 for a single round
    a_blocks: tuple[Block, ...] = field(repr=False)
    b_blocks: tuple[Block, ...] = field(repr=False)
    a_ready: Mapping[str, Any] = field(repr=False)
    b_ready: Mapping[str, Any] = field(repr=False)

    @property
    def ratio(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.ratios)

    @property
    def cpu_ratio(self) -> float:
        return statistics.median(self.cpu_ratios)

    @property
    def a_rate(self) -> float:
        """Images a second of all of A's blocks together."""
        return _rate(self.a_blocks)

    @property
    def b_rate(self) -> float:
        return _rate(self.b_blocks)

    @property
    def a_peak_mib(self) -> float:
        """Largest resident set of A's process; processes that it started are not in it."""
        return max(block.peak_rss_mib for block in self.a_blocks)

    @property
    def b_peak_mib(self) -> float:
        return max(block.peak_rss_mib for block in self.b_blocks)

    @property
    def children_mib(self) -> tuple[float, float]:
        """The most that processes started by A, and by B, had for themselves."""
        a, b = (max(block.children_mib for block in blocks) for blocks in (self.a_blocks, self.b_blocks))
        return a, b

    @property
    def a_wait_share(self) -> float:
        """Part of A's time in which it waited for data."""
        return sum(block.wait_seconds for block in self.a_blocks) / sum(
            block.seconds for block in self.a_blocks
        )

    @property
    def load(self) -> float:
        """Largest load average before a block."""
        return max(block.load for block in (*self.a_blocks, *self.b_blocks))


def alternate(a: Contestant, b: Contestant, rounds: int = 5, seconds: float = 3.0) -> Comparison:
    """Rounds of A B B A, each block about `seconds` long, never both at once.

    Raises StudyError where a contestant does not start, fails or does not answer.
    """
    return alternate_all(a, [b], rounds, seconds)[0]


def alternate_all(
    a: Contestant,
    others: Sequence[Contestant],
    rounds: int = 5,
    seconds: float = 3.0,
    start_together: bool = False,
) -> list[Comparison]:
    """A beside each of the others, in rounds of A B C ... C B A. Raises StudyError as `alternate`.

    `start_together` saves time where nobody asks how long a start takes.
    """
    if rounds < 1:
        raise StudyError(f"rounds (={rounds}) must be at least 1; give --rounds 5")
    with ExitStack() as stack:
        sessions = []
        for one in (a, *others):
            sessions.append(stack.enter_context(Session(one)))
            if not start_together:
                sessions[-1].await_ready()
        for session in sessions:
            session.await_ready()
        units = [session.calibrate(seconds) for session in sessions]
        blocks: list[list[Block]] = [[] for _ in sessions]
        for _ in range(rounds):
            turns = [*range(len(sessions)), *reversed(range(len(sessions)))]
            for turn in turns:
                blocks[turn].append(sessions[turn].block(units[turn]))
    return [
        _compare(sessions[0], blocks[0], other, its)
        for other, its in zip(sessions[1:], blocks[1:], strict=True)
    ]


def _compare(a: Session, a_blocks: Sequence[Block], b: Session, b_blocks: Sequence[Block]) -> Comparison:
    ratios = _ratios(a_blocks, b_blocks, "seconds")
    return Comparison(
        a.contestant.name,
        b.contestant.name,
        ratios,
        _ratios(a_blocks, b_blocks, "cpu_seconds"),
        *median_interval(ratios),
        tuple(a_blocks),
        tuple(b_blocks),
        a.ready,
        b.ready,
    )


def _rate(blocks: Sequence[Block]) -> float:
    return sum(block.images for block in blocks) / sum(block.seconds for block in blocks)


def median_interval(
    values: Sequence[float], confidence: float = config.CONFIDENCE
) -> tuple[float, float, float]:
    """The narrowest symmetric pair of order statistics that holds the true median with at least `confidence`, and the
    probability that it does; the smallest and the largest value where even these hold it less often.

    With n values the k-th smallest and k-th largest hold it with 1 - 2 P(Binomial(n, 1/2) < k).
    """
    ordered, n = sorted(values), len(values)

    def coverage(k: int) -> float:
        return max(0.0, 1 - 2 * sum(math.comb(n, i) for i in range(k)) / 2**n)

    k = max((k for k in range(1, n // 2 + 1) if coverage(k) >= confidence), default=1)
    return ordered[k - 1], ordered[n - k], coverage(k)


def _ratios(a_blocks: Sequence[Block], b_blocks: Sequence[Block], unit: str) -> tuple[float, ...]:
    def rate(pair: Sequence[Block]) -> float:
        spent = sum(getattr(block, unit) for block in pair)
        return sum(block.images for block in pair) / max(spent, 1e-9)

    starts = range(0, len(a_blocks), 2)
    return tuple(rate(a_blocks[i : i + 2]) / rate(b_blocks[i : i + 2]) for i in starts)


# --- environments -------------------------------------------------------------------------------------------------


def our_environment(
    framework: str, device: str = "auto", threads: int | None = None, deterministic: bool = False
) -> dict[str, str]:
    """The environment of a worker of ours; `threads`: default all cores."""
    threads = threads or usable_cores()
    return engines.worker_environment(framework, device, "float32", threads, deterministic=deterministic)


def peer_environment(framework: str, setting: str, device: str = "auto") -> dict[str, str]:
    """The environment of a peer: `same` as a worker of ours, or as `shipped`: that of a user's shell."""
    ours = our_environment(framework, device)
    if setting == "same":
        return ours
    tuned = frozenset(config.WORKER_ENVIRONMENT) | THREAD_VARIABLES
    needed = ("PYTHONPATH", "KERAS_BACKEND", "CUDA_VISIBLE_DEVICES", *HARMLESS)
    shell = {name: value for name, value in os.environ.items() if name not in tuned}
    return shell | {name: ours[name] for name in needed if name in ours}


# --- one contestant -----------------------------------------------------------------------------------------------


class Session:
    """A contestant that runs; stopped except while it works. It is started at once; `await_ready` before any block."""

    def __init__(self, contestant: Contestant) -> None:
        self.contestant = contestant
        self.ready: dict[str, Any] = {}
        self._words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the session
        self._process = subprocess.Popen(
            contestant.argv,
            env=dict(contestant.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            cwd=ROOT,
            text=True,
            # A group of its own, to be stopped with all its children. Should this process be killed, the kernel wakes
            # and ends a stopped group that nobody waits for any more (setpgid(2), orphaned groups).
            process_group=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGCONT)
        try:
            self._input.close()
            self._process.wait(timeout=END_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            pass
        finally:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._output.close()
            self._words.close()

    def await_ready(self) -> None:
        """Return when it is set up; `ready` are its facts."""
        if not self.ready:
            self.ready = self._read("ready", START_SECONDS)["ready"]
            self._signal(signal.SIGSTOP)

    def block(self, units: int) -> Block:
        """So many units of work, all by itself."""
        load = os.getloadavg()[0]
        self._signal(signal.SIGCONT)
        try:
            self._input.write(f"block {units}\n")
            self._input.flush()
        except OSError:
            raise self._failure("ended by itself") from None
        answer = self._read("seconds", BLOCK_SECONDS)
        self._signal(signal.SIGSTOP)
        return Block(load=load, **answer)

    def calibrate(self, seconds: float) -> int:
        """Units that take about `seconds`; the blocks that find it out warm the contestant up."""
        self.block(1)  # starts a loader's processes, traces: it tells nothing
        units, spent = 1, self.block(1).seconds
        for _ in range(CALIBRATIONS):
            if spent >= 0.7 * seconds:
                break
            # Step by step, for a few units may have lain ready
            units = max(1, round(units * min(seconds / max(spent, 1e-9), LARGEST_GROWTH)))
            spent = self.block(units).seconds
        return max(1, round(units * seconds / max(spent, 1e-9)))

    def _read(self, key: str, limit: float) -> dict[str, Any]:
        """The next answer that has the key; whatever else the program prints is passed over."""
        late = threading.Event()

        def end() -> None:
            late.set()
            self._signal(signal.SIGKILL)

        timer = threading.Timer(limit, end)
        timer.start()
        try:
            for line in self._output:
                answer = _parse(line)
                if key in answer:
                    return answer
        finally:
            timer.cancel()
        raise self._failure(f"gave no answer in {limit:.0f} s" if late.is_set() else "ended by itself")

    def _failure(self, what: str) -> ContestantError:
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._words.seek(0)
        lines = self._words.read().decode(errors="replace").strip().splitlines()
        last = lines[-1][:300] if lines else "no message"
        return ContestantError(self.contestant.name, f"{what}: {last}")

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            return


def _parse(line: str) -> dict[str, Any]:
    """The JSON object of a line; empty where there is none."""
    if not line.startswith("{"):
        return {}
    try:
        answer: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}
    return answer
