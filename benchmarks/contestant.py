"""The inner side of a benchmark: a process of its own that does blocks of work when told to.

It says on standard output `{"ready": {...}}` once it is set up, reads `block N` from standard input, does N units of
work (steps, batches), answers with one line of JSON, and ends with its input. `benchmarks.harness` is the other side.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from common import config, measure


def serve(
    ready: Mapping[str, Any], block: Callable[[int], int], waited: Callable[[], float] = lambda: 0.0
) -> None:
    """Tell the facts `ready`, then do blocks until the input ends. `block(n)` does n units and returns how many
    images that were; it must have waited for the device before it returns. `waited()`: seconds so far in which a block
    had nothing to do but wait for data, where the program can tell.
    """
    _say({"ready": {"process_seconds": measure.seconds_since_start(), **ready}})
    for line in sys.stdin:
        units = int(line.removeprefix("block "))
        cpu, idle, began = tree_cpu_seconds(), waited(), time.perf_counter()
        images = block(units)
        seconds = time.perf_counter() - began
        _say(
            {
                "seconds": seconds,
                "cpu_seconds": tree_cpu_seconds() - cpu,
                "images": images,
                "wait_seconds": waited() - idle,
                "peak_rss_mib": measure.peak_rss_mib(),
                "children_mib": children_mib(),
            }
        )


def peer_options(description: str | None, peers: Sequence[str]) -> argparse.Namespace:
    """The command line of a program as a user would write it, one of `peers`; the same in each framework."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--peer", choices=peers, required=True)
    parser.add_argument("--data", choices=("synthetic", "files"), default="synthetic")
    parser.add_argument("--material", type=Path)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument(
        "--features", type=int, nargs="+", default=config.UnetSpec().features, help="widths of a U-Net"
    )
    parser.add_argument("--device", choices=config.DEVICES, default="auto")
    parser.add_argument(
        "--facts", action="store_true", help="time evaluation and checkpoint before the blocks"
    )
    return parser.parse_args()


def tree_cpu_seconds() -> float:
    """CPU time of this process and of all it has started, a loader's worker processes too; to 10 ms for those."""
    children = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            children += sum(process.cpu_times()[:4])  # user, system, and those of its own ended children
        except psutil.Error:  # ended since it was listed; then it counts below
            continue
    ended = psutil.Process().cpu_times()
    return measure.cpu_seconds() + children + ended.children_user + ended.children_system


def children_mib() -> float:
    """Memory that the processes started by this one have for themselves alone: a loader's workers share the rest."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            total += process.memory_full_info().uss
        except psutil.Error:
            continue
    return total / 2**20


def _say(document: Mapping[str, Any]) -> None:
    # On a line of its own, whatever a framework has printed before it
    sys.stdout.write("\n" + json.dumps(document) + "\n")
    sys.stdout.flush()
