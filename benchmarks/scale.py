"""What more slices cost: time and memory of each step from the sample table to the batches of a run.

    python -m benchmarks.scale [--slices 1000 10000 100000] [--pixels 128] [--out DIR]

Every step is a process of its own, so that its peak is its own. The phantom is drawn, cached, audited and split by the
commands that a study uses, then streamed as a run reads it; no model is trained. Writes scale.csv, scale.md and
scale.svg. Research only, not a medical device.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from benchmarks.scale_page import write_figure, write_page
from common import config, measure
from common.codebase import ROOT
from common.config import TASKS, Run, Study
from common.data.batches import training_batches
from common.data.cache import build_cache
from common.data.caches import build_caches
from common.options import positive_integer, run_guarded
from common.results import read_study, write_csv
from common.run import load_data
from common.study import open_samples, prepare_study

RESULTS = Path(__file__).resolve().parent / "results"
SLICES_A_PATIENT = 14  # mean of the phantom's 8 to 20
SAMPLE_SECONDS = 0.1  # between two looks at the memory of the decoding processes
COLUMNS = (
    "slices", "step", "images", "wall_seconds", "cpu_seconds", "images_per_cpu_second", "start_mib", "peak_mib",
    "helper_peak_mib", "processes", "disk_mib",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--slices", type=positive_integer, nargs="+", default=[1_000, 10_000, 100_000], metavar="N")
    add("--pixels", type=positive_integer, default=128, metavar="N", help="a side (default: %(default)s)")
    add("--out", type=Path, default=RESULTS, metavar="DIR")
    add("--scratch", type=Path, metavar="DIR", help="for the caches (default: a temporary folder)")
    add("--step", choices=STEPS, help=argparse.SUPPRESS)  # one step in this process
    add("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.step:
        print(json.dumps(STEPS[options.step](options)))
        return 0
    return run_guarded("python -m benchmarks.scale", lambda: _measure(options))


def _measure(options: argparse.Namespace) -> int:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        for slices in sorted(options.slices):
            folder = Path(scratch) / str(slices)
            for step in STEPS:
                if step == "epoch, decoded" and slices != min(options.slices):
                    continue  # its rate does not depend on the number
                row = _in_a_process(step, slices, folder, options)
                rows.append(row)
                rate, peak = row["images_per_cpu_second"], row["peak_mib"]
                print(
                    f"{row['slices']:>7,} {step:16} {rate:9.0f} slices a CPU second, peak {peak:6.0f} MiB",
                    flush=True,
                )
                # after every step: a measurement that is stopped has not been in vain
                table = pd.DataFrame(rows, columns=list(COLUMNS))
                write_csv(options.out / "scale.csv", table)
            shutil.rmtree(folder, ignore_errors=True)
    write_figure(table, options.pixels, options.out)
    write_page(table, options.pixels, options.out)
    return 0


def _in_a_process(step: str, slices: int, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    command = [
        sys.executable, "-m", "benchmarks.scale", "--step", step, "--slices", str(slices), "--folder", str(folder),
        "--pixels", str(options.pixels),
    ]  # fmt: skip
    answer = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    row: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return {"step": step, **row}


# --- steps --------------------------------------------------------------------------------------------------------


def study_of(options: argparse.Namespace) -> Study:
    """A study of about so many slices, drawn in the size in which they are kept; a classifier and a segmenter."""
    pixels = options.pixels
    quick = config.PROFILES["quick"]
    phantom = dataclasses.replace(quick.phantom, image_size=pixels)
    config.PROFILES["quick"] = dataclasses.replace(quick, phantom=phantom)  # this process measures, and ends
    pairs = (("binary", "cnn"), ("segmentation", "unet"))
    specs = {
        f"{task}/{model}": dataclasses.replace(config.spec_of(task, model, "quick"), image_size=pixels)
        for task, model in pairs
    }
    return Study(
        patients=max(6, round(options.slices[0] / SLICES_A_PATIENT)),
        tasks=tuple(task for task, _ in pairs),
        frameworks=("torch",),
        seeds=1,
        device="cpu",
        recipes={f"{task}/{model}": config.recipe_of(task, model, "quick") for task, model in pairs},
        specs=specs,
    )


def table_step(options: argparse.Namespace) -> dict[str, Any]:
    """The sample table."""
    study = study_of(options)
    with measured() as found:
        samples = open_samples(study)
    return found(len(samples), len(samples))


def build_step(options: argparse.Namespace) -> dict[str, Any]:
    """The cache of pixels and masks, from the sample table."""
    study = study_of(options)
    samples = open_samples(study)
    with measured() as found:
        build_caches(study, samples, options.folder / "data" / "cache", lambda done, total: None)
    files = [path for path in (options.folder / "data" / "cache").rglob("*") if path.is_file()]
    disk = sum(path.stat().st_size for path in files)
    return found(len(samples), len(samples)) | {"processes": measure.usable_cores(), "disk_mib": disk / 2**20}


def prepare_step(options: argparse.Namespace) -> dict[str, Any]:
    """All that a study does before its first run, the cache being there: table, check of the cache, split, audit."""
    study = study_of(options)
    with measured() as found:
        count = len(prepare_study(study, options.folder).samples())
    return found(count, count)


def open_step(options: argparse.Namespace) -> dict[str, Any]:
    """What a run reads before its first batch."""
    study = study_of(options)
    with measured() as found:
        data = load_run(study, options.folder)
    return found(sum(len(part) for part in (data.train, *data.judged.values())), len(data.train))


def epoch_step(options: argparse.Namespace) -> dict[str, Any]:
    """A training epoch from the cache, augmented."""
    study = study_of(options)
    data = load_run(study, options.folder)
    total = sum(len(part) for part in (data.train, *data.judged.values()))
    return _stream(study, data.train, total)


def decoded_epoch_step(options: argparse.Namespace) -> dict[str, Any]:
    """The same where `--cache-limit` left no room for any pixels: every slice is drawn again."""
    study = study_of(options)
    data = load_run(study, options.folder)
    samples = open_samples(study)
    parent = options.folder / "uncached"
    cache = build_cache(samples, options.pixels, parent, masks=True, room=0)
    return _stream(study, dataclasses.replace(data.train, cache=cache), len(samples))


def _stream(study: Study, part: Any, total: int) -> dict[str, Any]:
    key = "binary/cnn"
    images = 0
    with measured() as found:
        for batch in training_batches(part, study.recipes[key], study.specs[key], 0, 1):
            images += int((batch.rows >= 0).sum())
    return found(total, images)


def load_run(study: Study, folder: Path) -> Any:
    """What `common.run.execute` loads."""
    run = Run("binary", "cnn", "torch", "aligned", 0, 0)
    key = "binary/cnn"
    return load_data(read_study(folder), run, TASKS["binary"], study.specs[key], study.recipes[key])


STEPS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "table": table_step,
    "build": build_step,
    "prepare": prepare_step,
    "open": open_step,
    "epoch": epoch_step,
    "epoch, decoded": decoded_epoch_step,
}


# --- measuring ----------------------------------------------------------------------------------------------------


@contextmanager
def measured() -> Iterator[Callable[[int, int], dict[str, Any]]]:
    """Measures its block; gives a function that makes the row, to be called after it, of (slices, images handled)."""
    process = psutil.Process()
    start_mib = process.memory_info().rss / 2**20
    helpers = [0.0]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            for child in process.children():
                try:
                    helpers[0] = max(helpers[0], child.memory_info().rss / 2**20)
                except psutil.Error:  # it has ended meanwhile
                    continue

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    wall, cpu = time.perf_counter(), _cpu_seconds()
    taken: list[float] = []

    def row(slices: int, images: int) -> dict[str, Any]:
        seconds, cpu_seconds = taken
        return {
            "slices": slices,
            "images": images,
            "wall_seconds": round(seconds, 2),
            "cpu_seconds": round(cpu_seconds, 2),
            "images_per_cpu_second": round(images / cpu_seconds, 1) if cpu_seconds else 0.0,
            "start_mib": round(start_mib, 1),
            "peak_mib": round(measure.peak_rss_mib(), 1),
            "helper_peak_mib": round(helpers[0], 1),
            "processes": 1,
            "disk_mib": 0.0,
        }

    try:
        yield row
    finally:
        taken += [time.perf_counter() - wall, _cpu_seconds() - cpu]
        ended.set()
        watcher.join()


def _cpu_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    sys.exit(main())
