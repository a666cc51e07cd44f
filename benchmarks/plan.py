"""What a part of the benchmark is: a list of jobs, each of which measures something and gives rows of the table.

A part is a module with `jobs(options) -> list[Job]`: `stream`, `steps`, `overhead`, `memory`. Nothing is measured
until a job's `run` is called; `benchmarks.__main__` calls them one after the other and writes the table after each.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness import (
    Comparison,
    Contestant,
    ContestantError,
    alternate_all,
    our_environment,
    peer_environment,
)
from benchmarks.table import Row, missing_row
from common import config
from common.codebase import ROOT
from common.measure import usable_cores

PEERS = (
    Path(sys.prefix) / "bench-peers"
)  # where `make bench` puts the peers: the environment stays as it was locked
TASKS = {"cnn": "binary", "densenet121": "subtype", "convnext_tiny": "subtype", "unet": "segmentation"}
BATCH_SIZES = {"cnn": 16, "densenet121": 8, "convnext_tiny": 8, "unet": 8}


# Seconds until the first step is done, on two quiet cores: PyTorch imports, TensorFlow also traces the model
START_SECONDS = {"torch": 5.0}
TRACE_SECONDS = {"cnn": 8.0, "unet": 11.0, "convnext_tiny": 22.0, "densenet121": 34.0}


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    scratch: Path  # an empty folder that is removed at the end
    models: tuple[str, ...] = tuple(config.MODELS)
    frameworks: tuple[str, ...] = ("torch", "keras-tensorflow")
    rounds: int = 5
    seconds: float = 1.0  # a block
    image_size: int = 128  # px, of the training steps
    device: str = "auto"
    quick: bool = False  # small material, one round: only whether it works


@dataclass(frozen=True)
class Job:
    """One measurement."""

    title: str
    expected_seconds: float  # on two quiet cores, for the plan and the time that is left
    run: Callable[[], list[Row]] = field(repr=False)


def expected_seconds(options: Options, framework: str, model: str, contestants: int, together: bool) -> float:
    """Of a comparison; those that start together hinder each other, for a start takes more than one core."""
    start = START_SECONDS.get(framework, TRACE_SECONDS[model])
    starts = (1.5 if together else contestants) * start
    return starts + contestants * 2 * options.seconds * (1 + options.rounds)


def ours(
    framework: str,
    *arguments: str,
    device: str = "auto",
    name: str = "ours",
    threads: int | None = None,
    deterministic: bool = False,
) -> Contestant:
    """The program of this project, in the environment that a worker of a study has; `threads`: default all cores."""
    argv = (sys.executable, "-m", "benchmarks.ours", "--framework", framework, "--device", device, *arguments)
    threads = threads or usable_cores()
    argv += ("--threads", str(threads), *(["--deterministic"] if deterministic else []))
    return Contestant(name, argv, our_environment(framework, device, threads, deterministic))


def plain(
    framework: str, setting: str, *arguments: str, device: str = "auto", name: str = "plain"
) -> Contestant:
    """The program that a user would write, in the environment of a user or of a worker of ours."""
    module = "benchmarks.plain_torch" if framework == "torch" else "benchmarks.plain_keras"
    environment = peer_environment(framework, setting, device)
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(PEERS)])
    argv = (sys.executable, "-m", module, "--device", device, *arguments)
    return Contestant(f"{name}, {setting}", argv, environment)


def has_peer(package: str) -> bool:
    """Whether a peer's package lies in its folder or in the environment; imports nothing."""
    return (PEERS / package).is_dir() or importlib.util.find_spec(package) is not None


def row_of(
    comparison: Comparison,
    table: str,
    ours: str,
    peer: str,
    model: str,
    framework: str,
    setting: str,
    target: float | None = None,
    note: str = "",
    scale: float = 1.0,
    unit: str = "images/s",
) -> Row:
    """A comparison as a row; `scale` multiplies ratio and interval, e.g. by the FLOPs of ours over the peer's."""
    return Row(
        table,
        ours,
        peer,
        model,
        framework,
        setting,
        unit,
        comparison.ratio * scale,
        comparison.low * scale,
        comparison.high * scale,
        comparison.a_rate,
        comparison.b_rate,
        comparison.cpu_ratio * scale,
        comparison.a_peak_mib,
        comparison.b_peak_mib,
        target,
        len(comparison.ratios),
        comparison.coverage,
        comparison.load,
        note,
    )


def alternated(
    mine: Contestant, peers: Sequence[Contestant], rounds: int, seconds: float, start_together: bool = False
) -> list[Comparison] | str:
    """The comparisons, or what kept a peer from answering; a fault of ours is an error."""
    try:
        return alternate_all(mine, peers, rounds, seconds, start_together)
    except ContestantError as error:
        if error.name == mine.name:
            raise
        return str(error)


def missing_rows(
    key: tuple[str, str, str, str, str], settings: Sequence[str], unit: str, reason: str
) -> list[Row]:
    """A row for each setting that says why there is no number."""
    return [missing_row(*key, setting, unit, reason) for setting in settings]
