"""A study on a Ray cluster of two nodes, with a worker killed and a node lost on the way, beside local processes.

`python -m benchmarks.cluster` trains 24 runs (plain CNN and U-Net of the quick profile, PyTorch and Keras on
TensorFlow, 6 seeds; 24 drawn patients, 2 epochs) by both engines, compares what they left to the last bit, and writes
`cluster.csv` and `cluster.md`. What the engine itself takes is measured on runs that do nothing, in alternated blocks.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from common import config, engines, measure
from common.codebase import ROOT
from common.config import NOTICE, Engine, Run, Study
from common.errors import StudyError
from common.measure import utc_now
from common.ray_cluster import QUIET
from common.results import FORMAT, read_json, read_run, read_study, run_directory, write_csv, write_text
from common.study import prepare_study

RESULTS = ROOT / "benchmarks" / "results"
PAIRS = (("binary", "cnn"), ("segmentation", "unet"))
FRAMEWORKS = ("torch", "keras-tensorflow")
SEEDS, PATIENTS, EPOCHS = 6, 24, 2
SHIPPED_EVERY = 5  # runs, of which one is done without a shared folder
IDLE_RUNS, ROUNDS = 24, 3
NODES = 2  # of one CPU each
STORE_BYTES = 100 * 2**20
SECONDS = 3600.0  # until a part is given up
EQUAL = ("weights", "data", "batches", "choice", "threshold", "threads", "variables")  # of two records

# A run's worker that does nothing but leave its record
IDLE_WORKER = f"""
import json, sys
from pathlib import Path

task, model, framework, lane, last = sys.argv[3].split("/")
run = dict(task=task, model=model, framework=framework, lane=lane, seed=int(last[4:].split("-")[0]), fold=0, repeat=0)
record = {{"format": {FORMAT}, "status": "complete", "reason": None, "run": run}}
Path(sys.argv[2], "runs", sys.argv[3], "run.json").write_text(json.dumps(record))
"""


@dataclass(frozen=True)
class Driven:
    """What an engine's process told at its end."""

    seconds: float
    peak_mib: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="4 runs each (default: %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help="of runs that do nothing (default: %(default)s)"
    )
    parser.add_argument("--drive", type=Path, metavar="STUDY", help=argparse.SUPPRESS)
    parser.add_argument("--engine", type=json.loads, default={}, help=argparse.SUPPRESS)
    parser.add_argument("--every", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--idle", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.drive:
        return drive(given.drive, Engine(**given.engine), given.every, given.idle)
    with tempfile.TemporaryDirectory(prefix="cluster-") as scratch:
        rows = measured(Path(scratch), given.seeds, given.rounds)
    write_csv(given.out / "cluster.csv", pd.DataFrame(rows, columns=["what", "value", "unit"]))
    text = markdown(rows, given.rounds)
    write_text(given.out / "cluster.md", text)
    print(text)
    return 0


def measured(scratch: Path, seeds: int, rounds: int) -> list[tuple[str, str, str]]:
    """Every row of the table: what, value, unit."""
    (scratch / "idle_worker.py").write_text(IDLE_WORKER)
    os.environ |= {**QUIET, "RAY_worker_niceness": "0", "TMPDIR": str(scratch)}
    path = filter(None, [str(scratch), str(ROOT), os.environ.get("PYTHONPATH")])
    os.environ["PYTHONPATH"] = os.pathsep.join(path)
    study = grid(seeds)
    local, shared, shipped = (scratch / name for name in ("local", "shared", "shipped"))
    for directory in (local, shared, shipped):
        prepare_study(study, directory)
    runs = study.runs()
    with cluster() as nodes:
        address = nodes.address
        overheads = idle_overheads(scratch, address, rounds)
        print(f"overhead a run: {overheads}", flush=True)
        here = start(local, Engine())
        print(f"local: {here}", flush=True)
        done: dict[str, int] = {}
        there = start(shared, Engine("ray", address), disturb(nodes, shared, done))
        print(f"ray: {there}; {done}", flush=True)
        few = runs[::SHIPPED_EVERY]
        start(shipped, Engine("ray", address, shared=False), every=SHIPPED_EVERY)
    again = [tries for run in runs if len(tries := attempts(shared, run)) > 1]
    count, idle = str(len(runs)), f"s, {NODES} at a time"
    return [
        ("runs", count, ""),
        ("complete: local processes", str(complete(local, runs)), f"of {count}"),
        ("complete: two nodes, a worker killed, a node lost", str(complete(shared, runs)), f"of {count}"),
        (
            "equal to the last bit: predictions, histories, weights",
            str(equal(local, shared, runs)),
            f"of {count}",
        ),
        ("the same without a shared folder", str(equal(local, shipped, few)), f"of {len(few)}"),
        (
            "runs that were tried again",
            str(len(again)),
            f"in {max(map(len, again), default=1)} tries at most",
        ),
        (
            "after how many complete runs the worker was killed",
            str(done.get("killed", "never")),
            "",
        ),
        ("after how many complete runs the node was lost", str(done.get("lost", "never")), ""),
        *(
            (f"a run that does nothing, {name}", f"{seconds:.2f}", idle)
            for name, seconds in overheads.items()
        ),
        ("the engine's process at its largest, local processes", f"{here.peak_mib:.0f}", "MiB"),
        ("the engine's process at its largest, Ray", f"{there.peak_mib:.0f}", "MiB"),
        ("all runs, local processes", f"{here.seconds:.0f}", "s"),
        ("all runs, Ray with the disturbances", f"{there.seconds:.0f}", "s"),
    ]


def grid(seeds: int) -> Study:
    """The study of either engine."""
    return Study(
        patients=PATIENTS,
        tasks=tuple(task for task, _ in PAIRS),
        frameworks=FRAMEWORKS,
        seeds=seeds,
        device="cpu",
        threads=1,
        workers=NODES,
        recipes={f"{task}/{model}": config.recipe_of(task, model, "quick", EPOCHS) for task, model in PAIRS},
        specs={f"{task}/{model}": config.spec_of(task, model, "quick") for task, model in PAIRS},
    )


# --- an engine's own process --------------------------------------------------------------------------------------


def drive(directory: Path, engine: Engine, every: int, idle: bool) -> int:
    """Carry out every so-manieth run of a folder's study and tell what it took, as JSON; of an `idle` one no work."""
    study = read_study(directory).study
    if idle:
        engines.module_of = lambda framework: "idle_worker"
    runs = study.runs()[::every]
    with engines.opened(engine):  # joining the cluster is no run's
        began = time.perf_counter()
        engines.execute(directory, study, runs, lambda run, event: None, engine)
        seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "peak_mib": measure.peak_rss_mib()}))
    return 0


def start(
    directory: Path,
    engine: Engine,
    meanwhile: Iterator[None] | None = None,
    every: int = 1,
    idle: bool = False,
) -> Driven:
    """`drive` in a process of its own, taking steps of `meanwhile` until it ends."""
    command = [sys.executable, "-m", "benchmarks.cluster", "--drive", str(directory)]
    command += ["--engine", json.dumps(dataclasses.asdict(engine)), *(["--idle"] if idle else [])]
    command += ["--every", str(every)]
    with tempfile.TemporaryFile("w+") as said:  # Ray has words of its own there
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, cwd=ROOT)
        until = time.monotonic() + SECONDS
        while process.poll() is None and time.monotonic() < until:
            if meanwhile is not None:
                next(meanwhile, None)
            time.sleep(0.2)
        process.kill()
        said.seek(0)
        lines = said.read().splitlines()
    if process.wait():
        raise StudyError(f"the engine's process failed: {lines[-20:]}")
    return Driven(**json.loads(next(line for line in lines if line.startswith('{"seconds"'))))


def idle_overheads(scratch: Path, address: str, rounds: int) -> dict[str, float]:
    """Seconds a run that does nothing, by local processes and on Ray: medians of alternated blocks."""
    names = {"local": "local processes", "ray": "Ray"}
    study = dataclasses.replace(grid(IDLE_RUNS), frameworks=("torch",), tasks=("binary",))
    study = dataclasses.replace(
        study,
        recipes={"binary/cnn": study.recipes["binary/cnn"]},
        specs={"binary/cnn": study.specs["binary/cnn"]},
    )
    seconds: dict[str, list[float]] = {"local": [], "ray": []}
    for number in range(rounds):
        order = ("local", "ray") if number % 2 == 0 else ("ray", "local")
        for name in order:
            directory = scratch / f"idle-{name}-{number}"
            prepare_study(study, directory)
            engine = Engine("ray", address) if name == "ray" else Engine()
            seconds[name].append(start(directory, engine, idle=True).seconds / IDLE_RUNS)
    return {names[engine]: statistics.median(found) for engine, found in seconds.items() if found}


# --- the cluster --------------------------------------------------------------------------------------------------


@contextmanager
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each on this machine."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    # A busy machine must not be taken for a lost node
    head |= {"_system_config": {"health_check_period_ms": 3000, "health_check_failure_threshold": 10}}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    add_node(nodes)
    try:
        yield nodes
    finally:
        nodes.shutdown()


def add_node(nodes: Any) -> Any:
    return nodes.add_node(num_cpus=1, object_store_memory=STORE_BYTES)


def disturb(nodes: Any, directory: Path, done: dict[str, int]) -> Iterator[None]:
    """Kill a worker once a sixth of a study's runs are complete, and a node with a run on it at a third; add a node in
    its place at two thirds. A step at a time; `done`: what was done -> complete runs by then.
    """
    runs = read_study(directory).study.runs()
    second = next(iter(nodes.worker_nodes))
    while complete(directory, runs) < len(runs) // 6 or not (found := _at_work(nodes.head_node, directory)):
        yield
    found[0].kill()
    done["killed"] = complete(directory, runs)
    while complete(directory, runs) < len(runs) // 3 or not _at_work(second, directory):
        yield
    nodes.remove_node(second, allow_graceful=False)
    done["lost"] = complete(directory, runs)
    while complete(directory, runs) < 2 * len(runs) // 3:
        yield
    add_node(nodes)


def _at_work(added: Any, directory: Path) -> list[psutil.Process]:
    """The workers below a node's raylet whose runs have not come to their end."""
    (raylet,) = added.all_processes["raylet"]
    below = psutil.Process(raylet.process.pid).children(recursive=True)
    folders = {str(run.path): run_directory(directory, run) for run in read_study(directory).study.runs()}
    return [
        child
        for child in below
        if "--supervised" in (words := _words_of(child))
        for folder in (folders[word] for word in words if word in folders)
        if not (folder / "run.json").exists()
    ]


def _words_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


# --- what was left ------------------------------------------------------------------------------------------------


def complete(directory: Path, runs: list[Run]) -> int:
    """How many of the runs are complete."""
    return sum((record := read_run(directory, run)) is not None and record.complete for run in runs)


def attempts(directory: Path, run: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_json(run_directory(directory, run) / "engine.json")["attempts"]
    return found


def equal(a: Path, b: Path, runs: list[Run]) -> int:
    """Of how many runs the two folders hold the same to the last bit: predictions, history but its times, weights, and
    what the records say of data, batches, choice and settings.
    """
    return sum(_same(a, b, run) for run in runs)


def _same(a: Path, b: Path, run: Run) -> bool:
    one, other = read_run(a, run), read_run(b, run)
    if one is None or other is None or not (one.complete and other.complete):
        return False
    timed = ["seconds", "images_per_second", "wait_seconds"]
    histories = [record.history().drop(columns=timed) for record in (one, other)]
    with (
        np.load(one.directory / "predictions.npz") as mine,
        np.load(other.directory / "predictions.npz") as yours,
    ):
        said = mine.files == yours.files and all(
            np.array_equal(mine[name], yours[name], equal_nan=mine[name].dtype.kind == "f")
            for name in mine.files
        )
    return (
        said
        and histories[0].equals(histories[1])
        and all(one.document[name] == other.document[name] for name in EQUAL)
    )


def markdown(rows: list[tuple[str, str, str]], rounds: int) -> str:
    """The table, and on what it was measured."""
    machine = measure.common_environment()
    where = f"{machine['cpu']}, {machine['cores']} cores"
    lines = [
        "# A study on a cluster beside local processes",
        "",
        f"Written by `python -m benchmarks.cluster`, {utc_now()[:10]}. Data: the drawn phantom, no patients. {NOTICE}",
        "",
        f"Plain CNN and U-Net of the quick profile, {' and '.join(FRAMEWORKS)}, {PATIENTS} patients, {EPOCHS} epochs,",
        f"1 thread a run; a cluster of {NODES} nodes of 1 CPU on one machine ({where};",
        f"load average at the end {os.getloadavg()[0]:.1f}). Runs that do nothing: {IDLE_RUNS} a block, median of",
        f"{rounds} alternated block{'s' * (rounds > 1)}.",
        "",
        "| | | |",
        "|---|---:|---|",
        *(f"| {what} | {value} | {unit} |" for what, value, unit in rows),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
