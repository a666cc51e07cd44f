"""Compare PyTorch and Keras on brain-CT stroke images: every difference shown is the framework's.

    python compare.py [study] [--data DIR ...] [--profile quick|standard|full] [--seeds N] [--out results/NAME]
    python compare.py report DIR        write the report of a study again, from its files
    python compare.py doctor            what this machine has, and what is missing

Research only, not a medical device.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from common import measure
from common.config import FRAMEWORKS, NOTICE
from common.engines import INSTALL, missing_packages, probe_framework
from common.errors import StudyError
from common.options import Parser, add_study_options, directory_of, run_guarded, study_of
from common.study import carry_out, report_study

DEFAULT_FRAMEWORKS = ("torch", "keras-tensorflow")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 where a run failed, 2 for a fault the user can mend."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        words.insert(0, "study")  # the main job needs no word
    arguments = _parser().parse_args(words)
    console = Console(highlight=False, soft_wrap=True)
    return run_guarded("compare.py", lambda: arguments.command(arguments, console))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="compare.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    study = commands.add_parser("study", help="train what is missing of a grid of runs and write the report")
    add_study_options(study, DEFAULT_FRAMEWORKS)
    study.set_defaults(command=_study)
    report = commands.add_parser("report", help="write a study's report again")
    report.add_argument("directory", type=Path, metavar="DIR")
    report.set_defaults(command=_report)
    doctor = commands.add_parser("doctor", help="check this machine")
    doctor.set_defaults(command=_doctor)
    return parser


def _study(arguments: argparse.Namespace, console: Console) -> int:
    study, directory = study_of(arguments, arguments.frameworks), directory_of(arguments)
    failed = carry_out(study, directory, console)
    report_study(directory, console)
    return 1 if failed else 0


def _report(arguments: argparse.Namespace, console: Console) -> int:
    report_study(arguments.directory, console)
    return 0


def _doctor(arguments: argparse.Namespace, console: Console) -> int:
    del arguments
    rows = measure.common_environment()
    rows["free disk"] = f"{shutil.disk_usage('.').free / 2**30:.0f} GiB here"
    for name, value in rows.items():
        console.print(f"{name:24} {value}", markup=False)
    usable = [name for name in FRAMEWORKS if _examine(name, console)]
    ready = all(name in usable for name in DEFAULT_FRAMEWORKS)
    verdict = "ready: python compare.py" if ready else "not ready for the default comparison; see above"
    console.print(f"{verdict}. {NOTICE}", markup=False)
    return 0 if ready else 2


def _examine(framework: str, console: Console) -> bool:
    """Start the framework as a worker would and print what it says of itself."""
    if lacking := missing_packages(framework):
        console.print(
            f"{framework:24} not installed ({', '.join(lacking)}): {INSTALL[framework]}", markup=False
        )
        return False
    try:
        facts = probe_framework(framework)
    except StudyError as error:
        console.print(f"{framework:24} not usable: {error}", markup=False)
        return False
    console.print(
        f"{framework:24} {facts['framework']}, {facts['backend']}, device {facts['device']}", markup=False
    )
    return True


if __name__ == "__main__":
    sys.exit(main())
