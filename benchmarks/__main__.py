"""How fast both stacks are beside what a user would pick instead, in one run.

    python -m benchmarks [stream] [steps] [overhead] [memory] [compiled] [deterministic]
        [--models ...] [--frameworks ...] [--rounds 5]

Programs take turns on the machine (A B B A); each comparison gives a ratio with an interval. The results go to
`benchmarks/results/`: speed.csv, speed.md, speed.svg, speed.png, machine.json. What is not measured again is kept
there. `make bench` installs the peers first.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import memory, overhead, own_steps, steps
from benchmarks.figure import write_figure
from benchmarks.machine import describe_machine
from benchmarks.page import render
from benchmarks.plan import Job, Options
from benchmarks.table import Row, merge, read_rows, write_rows
from common import config, engines
from common.codebase import ROOT
from common.errors import StudyError
from common.options import run_guarded
from common.results import write_json, write_text

PARTS = ("stream", "steps", "overhead", "memory", "compiled", "deterministic")
# Of a training that is started once, where the steps do not start it anyway
FACT_TABLES = {"overhead": ("overhead", "wait"), "memory": ("memory",)}
RESULTS = Path(__file__).resolve().parent / "results"
QUICK_RESULTS = ROOT / "results" / "bench-quick"
QUICK_SECONDS = 0.3


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit code."""
    options = _parse(arguments)
    return run_guarded("python -m benchmarks", lambda: _measure(options))


def jobs_of(parts: Sequence[str], options: Options) -> list[Job]:
    """The jobs of the parts, in the order of PARTS; what the steps measure as well is not measured twice."""
    tables = tuple(table for part in FACT_TABLES if part in parts for table in FACT_TABLES[part])
    facts = memory.facts_jobs(options, tables) if tables and "steps" not in parts else []
    found = {
        "stream": lambda: _stream_jobs(options),
        "steps": lambda: steps.jobs(options),
        "overhead": lambda: overhead.jobs(options),
        "compiled": lambda: own_steps.compiled_jobs(options),
        "deterministic": lambda: own_steps.deterministic_jobs(options),
    }
    return facts + [job for part in found if part in parts for job in found[part]()]


def _stream_jobs(options: Options) -> list[Job]:
    if importlib.util.find_spec("benchmarks.stream") is None:
        return []
    found: list[Job] = importlib.import_module("benchmarks.stream").jobs(options)
    return found


def _measure(parsed: argparse.Namespace) -> int:
    for framework in parsed.frameworks:
        engines.check_framework(framework)
    scratch = Path(tempfile.mkdtemp(prefix="bench-"))
    options = Options(
        scratch,
        tuple(parsed.models),
        tuple(parsed.frameworks),
        1 if parsed.quick else parsed.rounds,
        QUICK_SECONDS if parsed.quick else parsed.seconds,
        parsed.image_size,
        parsed.device,
        parsed.quick,
    )
    try:
        jobs = jobs_of(parsed.parts, options)
        total = sum(job.expected_seconds for job in jobs)
        print(f"{len(jobs)} measurements, about {_minutes(total)} on two quiet cores. {config.NOTICE}")
        for job in jobs:
            print(f"  {job.expected_seconds:5.0f} s  {job.title}")
        if not parsed.plan and (failed := _work_through(jobs, parsed.out)):
            print(f"{len(failed)} of {len(jobs)} failed: {', '.join(failed)}", file=sys.stderr)
            return 1
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


def _work_through(jobs: list[Job], out: Path) -> list[str]:
    """Returns the titles of the jobs that failed; what they measured earlier stays in the table."""
    machine = describe_machine()
    failed: list[str] = []
    began, expected, spent = time.monotonic(), sum(job.expected_seconds for job in jobs), 0.0
    for number, job in enumerate(jobs, start=1):
        passed = time.monotonic() - began
        left = (expected - spent) * (passed / spent if spent else 1.0)
        print(f"[{number}/{len(jobs)}] {job.title}; {_minutes(left)} left", flush=True)
        spent += job.expected_seconds
        try:
            rows = job.run()
        except StudyError as error:  # the others may well go
            failed.append(job.title)
            print(f"    failed: {error}", flush=True)
            continue
        for row in rows:
            print(
                f"    {row.table}: {row.ours} / {row.peer} ({row.setting}): {row.ratio:.2f} {row.note}".rstrip()
            )
        _write(merge(read_rows(out / "speed.csv"), rows), machine, out)
    print(f"Written to {out}: speed.md, speed.csv, speed.svg, speed.png, machine.json. {config.NOTICE}")
    return failed


def _write(rows: list[Row], machine: dict[str, object], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_rows(out / "speed.csv", rows)
    write_json(out / "machine.json", machine)
    write_text(out / "speed.md", render(rows, machine))
    write_figure(rows, out)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{max(seconds, 0):.0f} s"


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    defaults = {one.name: one.default for one in dataclasses.fields(Options)}
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--models", nargs="+", choices=tuple(config.MODELS), default=defaults["models"])
    parser.add_argument(
        "--frameworks", nargs="+", choices=config.FRAMEWORKS, default=defaults["frameworks"], metavar="NAME"
    )
    parser.add_argument("--rounds", type=int, default=defaults["rounds"], help="default: %(default)s")
    parser.add_argument(
        "--seconds", type=float, default=defaults["seconds"], help="a block; default: %(default)s"
    )
    parser.add_argument(
        "--image-size", type=int, default=defaults["image_size"], help="px; default: %(default)s"
    )
    parser.add_argument("--device", choices=config.DEVICES, default=defaults["device"])
    parser.add_argument(
        "--out", type=Path, help="default: benchmarks/results; with --quick results/bench-quick"
    )
    parser.add_argument("--plan", action="store_true", help="only say what would be measured")
    parser.add_argument(
        "--quick", action="store_true", help="one short round on few pictures: only whether it works"
    )
    parsed = parser.parse_args(arguments)
    if unknown := set(parsed.parts) - set(PARTS):
        parser.error(
            f"{', '.join(sorted(unknown))} is no part; give some of {', '.join(PARTS)}, or none for all"
        )
    parsed.parts = parsed.parts or PARTS
    if parsed.rounds < 1 or parsed.seconds <= 0:
        parser.error("--rounds must be at least 1 and --seconds above 0")
    if parsed.out is None:
        parsed.out = QUICK_RESULTS if parsed.quick else RESULTS
    return parsed


if __name__ == "__main__":
    sys.exit(main())
