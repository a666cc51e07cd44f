"""A study disturbed on purpose, at moments drawn at random: killed, starved of disk or memory, cut off. Started again
with the same command it must end, with every run and with the tables of a study that nobody disturbed, bit for bit.

    python -m benchmarks.disturbances [KIND ...] [--times 5] [--out benchmarks/results]

Writes disturbances.csv and disturbances.md: kind, times tried, commands needed, runs lost, tables equal. What needs
the right to mount, or a C compiler, is left out where that is not to be had, and the table says so. A time counts only
where the trouble came: the command was still at work, a second command was refused, a run that got no memory reported
that; else it is tried again earlier. About a minute for each time on two quiet cores.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil

from benchmarks.trouble import KINDS, Scene, UnavailableError
from common.codebase import ROOT
from common.config import NOTICE
from common.random_numbers import generator
from common.results import read_study, write_csv, write_text

RESULTS = Path(__file__).resolve().parent / "results"
STUDY = ("--tasks", "binary", "--models", "cnn", "--frameworks", "torch", "keras-tensorflow", "--seeds", "1")
SIZE = ("--patients", "24", "--epochs", "4", "--repeats", "0", "--deterministic", "--checkpoint-every", "1")
TIMEOUT_SECONDS = 900
MOST_COMMANDS = 4  # the disturbed one, and some to end what it left
# Tables without times, which differ; those of costs, settings and runs hold some
TABLES = ("scores", "differences", "verdicts", "variance", "classes", "churn", "noise", "other_tests")
TIMES = ("seconds", "images_per_second", "wait_seconds")  # columns of history.csv


@dataclass(frozen=True)
class Outcome:
    """What came of one disturbance."""

    kind: str
    after_seconds: float  # of the command's start; NaN where the kind cannot be tried here
    first_exit: int  # of the disturbed command
    commands: int  # until one ended with 0, itself included
    runs: int
    lost: int  # not complete at the end
    equal: bool  # predictions, weights, histories and tables
    said: str  # last line of the disturbed command
    disturbed: bool = True  # the trouble came; False: this time does not count


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.disturbances",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; default: all")
    parser.add_argument("--times", type=int, default=5, help="each kind (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if unknown := set(options.kinds) - set(KINDS):
        parser.error(f"{', '.join(sorted(unknown))} is no kind; give some of {', '.join(KINDS)}")
    # What a shell starts in the background ignores Ctrl-C, and so does all that is started from there
    signal.signal(signal.SIGINT, signal.default_int_handler)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="disturbed-") as scratch:
        began = time.monotonic()
        code, said = start(Path(scratch, "undisturbed"), {}).finish()
        whole = time.monotonic() - began
        if code:
            raise SystemExit(f"the study fails undisturbed: {said}")
        wanted = contents(Path(scratch, "undisturbed"))
        print(f"undisturbed: {whole:.0f} s, {len(wanted)} files to compare. {NOTICE}", flush=True)
        for kind in options.kinds or KINDS:
            for number in range(options.times):
                folder = Path(scratch, f"{kind}-{number}")
                folder.mkdir()
                moment = whole * float(generator("disturbance", kind, number).uniform(0.05, 0.95))
                while True:
                    outcome = disturb(kind, folder / f"{moment:.1f}", moment, wanted)
                    outcomes.append(outcome)
                    print(outcome, flush=True)
                    write_tables(options.out, outcomes)
                    if outcome.disturbed or moment <= 1:
                        break
                    moment /= 2  # it came too late
    done = {
        kind: sum(one.disturbed for one in outcomes if one.kind == kind) for kind in options.kinds or KINDS
    }
    return int(
        any(outcome.lost or not outcome.equal for outcome in outcomes) or min(done.values()) < options.times
    )


def disturb(kind: str, folder: Path, moment: float, wanted: Mapping[str, str]) -> Outcome:
    """One study, disturbed `moment` seconds after its start, then started again until it ends well."""
    trouble, out = KINDS[kind], folder / "study"
    folder.mkdir()
    try:
        environment = trouble.before(folder, out, moment)
    except UnavailableError as reason:
        return Outcome(kind, float("nan"), 0, 0, 0, 0, True, f"not tried: {reason}")
    try:
        command = start(out, environment)
        scene = Scene(folder, out, psutil.Process(command.process.pid), lambda: start(out, {}).finish())
        try:
            command.process.wait(moment)
            disturbed = False
        except subprocess.TimeoutExpired:
            disturbed = trouble.act(scene) is not False
        first, said = command.finish()
        disturbed = disturbed and trouble.came(scene)
        trouble.mend(scene)
        code, commands = first, 1
        while code and commands < MOST_COMMANDS:
            code, _ = start(out, {}).finish()
            commands += 1
        record = read_study(out)
        runs = len(record.study.runs())
        equal = code == 0 and contents(out) == wanted
        return Outcome(
            kind, moment, first, commands, runs, runs - len(record.complete), equal, said, disturbed
        )
    finally:
        trouble.after(folder, out)


@dataclass(frozen=True)
class Command:
    """The command at work, and the file of its words."""

    process: subprocess.Popen[bytes]
    log: Path

    def finish(self) -> tuple[int, str]:
        """Its exit code, below 0 for a signal, and the last line that it said."""
        code = self.process.wait(TIMEOUT_SECONDS)
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return code, lines[-1].strip().replace(f"{self.log.parent}/", "") if lines else ""


def start(out: Path, environment: Mapping[str, str]) -> Command:
    """The command, its words in a file of their own beside the study."""
    log = out.parent / f"{time.monotonic_ns()}.log"
    with log.open("wb") as words:
        process = subprocess.Popen(
            [sys.executable, "compare.py", "study", *STUDY, *SIZE, "--out", str(out)],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a signal for it is not for us
        )
    return Command(process, log)


def contents(out: Path) -> dict[str, str]:
    """SHA-256 of what must be equal: predictions and weights of each run, its history without times, the tables."""
    found = {}
    for path in sorted(out.glob("runs/**/run.json")):
        for name in ("predictions.npz", "model.safetensors"):
            found[str((path.parent / name).relative_to(out))] = _sha256((path.parent / name).read_bytes())
        history = pd.read_csv(path.parent / "history.csv").drop(columns=list(TIMES))
        found[str((path.parent / "history.csv").relative_to(out))] = _sha256(history.to_csv().encode())
    for name in TABLES:
        table = out / "tables" / f"{name}.csv"
        if table.exists():
            found[f"tables/{name}.csv"] = _sha256(table.read_bytes())
    return found


def write_tables(out: Path, outcomes: Sequence[Outcome]) -> None:
    """One row each time as CSV, one row a kind to read."""
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "disturbances.csv", pd.DataFrame([vars(outcome) for outcome in outcomes]))
    lines = [
        "# Studies disturbed on purpose",
        "",
        f"Written by `python -m benchmarks.disturbances`. {NOTICE} The pictures are drawn heads of the phantom.",
        "",
        f"Study: `{' '.join((*STUDY, *SIZE))}`. Each was disturbed at one moment, drawn at random, and the same "
        "command was given again until it ended well. A time counts only where the trouble came: the command was still "
        "at work, a second command was refused, a run that got no memory reported that. Equal: predictions, weights, "
        "histories (but their seconds) and tables are those of a study that nobody disturbed, bit for bit.",
        "",
        "| kind of trouble | times | disturbed command ended with | commands needed | runs lost | equal |",
        "| --- | ---: | --- | --- | ---: | --- |",
    ]
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        those = [outcome for outcome in outcomes if outcome.kind == kind]
        tried = [outcome for outcome in those if outcome.commands and outcome.disturbed]
        about = KINDS[kind].about
        if not tried:
            why = "not done: it came too late, or no run reported it" if those[0].commands else those[0].said
            lines.append(f"| {about} | 0 | {why} | | | |")
            continue
        ends = ", ".join(str(code) for code in sorted({outcome.first_exit for outcome in tried}))
        commands = ", ".join(str(count) for count in sorted({outcome.commands for outcome in tried}))
        equal = sum(outcome.equal for outcome in those)  # also where the trouble came too late
        lost = sum(outcome.lost for outcome in those)
        same = "yes" if equal == len(those) else f"{equal} of {len(those)}"
        lines.append(f"| {about} | {len(tried)} | {ends} | {commands} | {lost} | {same} |")
    uncounted = [KINDS[outcome.kind].about for outcome in outcomes if not outcome.disturbed]
    again = "; ".join(f"{about}: {uncounted.count(about)}" for about in dict.fromkeys(uncounted))
    lines += ["", f"Not counted, for the trouble came too late or no run reported it: {again or 'none'}."]
    write_text(out / "disturbances.md", "\n".join(lines) + "\n")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
