"""The options of the leak meter on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from common import config, measure
from common.config import DEVICES, FRAMEWORKS, MODELS, PROFILES, TASKS, Study
from common.leak import leak_study
from common.options import add_accept_option, check_source, positive_integer
from common.results import read_study


def add_leak_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `compare.py leak`."""
    add = parser.add_argument
    add(
        "--tasks", nargs="+", choices=TASKS, help="default: of each model the first that trains it by default"
    )
    add(
        "--models",
        nargs="+",
        choices=MODELS,
        default=config.LEAK_MODELS,
        help=f"default: {' '.join(config.LEAK_MODELS)}",
    )
    add("--framework", choices=FRAMEWORKS, default="torch", metavar="NAME", help="default: %(default)s")
    add(
        "--data",
        nargs="+",
        action="extend",
        default=[],
        metavar="DIR",
        help="default: the data of the study in --out, else the drawn phantom",
    )
    add("--patients", type=positive_integer, metavar="N", help="of the drawn phantom")
    add_accept_option(parser)
    add("--profile", choices=PROFILES, help="size of the models (default: the study's in --out, else quick)")
    add(
        "--seeds",
        type=positive_integer,
        metavar="N",
        default=config.LEAK_SEEDS,
        help="each with a split of its own (default: %(default)s)",
    )
    add("--epochs", type=positive_integer, metavar="N", help="instead of the profile's")
    add("--device", choices=DEVICES, default="cpu", help="default: %(default)s")
    add(
        "--workers",
        type=positive_integer,
        metavar="N",
        default=measure.usable_cores(),
        help="trainings at a time, one core each (default: all cores)",
    )
    add("--out", type=Path, metavar="DIR", default=Path("results", "leak"), help="default: %(default)s")


def leak_study_of(arguments: argparse.Namespace) -> Study:
    """What the options ask for: where nothing else is said, the data and the profile of the study in `--out`.

    Raises StudyError as `check_source`, `read_study` and `leak_study` do.
    """
    check_source(arguments.data, arguments.patients)
    beside = read_study(arguments.out).study if (arguments.out / "study.json").exists() else None
    data, patients = tuple(arguments.data), arguments.patients or 0
    if beside and not data and not patients:
        data, patients = beside.data, beside.patients
    return leak_study(
        arguments.models,
        arguments.tasks,
        arguments.framework,
        data,
        arguments.profile or (beside.profile if beside else "quick"),
        patients,
        arguments.seeds,
        arguments.epochs,
        arguments.device,
        arguments.workers,
        [*arguments.accept, *(beside.accepted if beside else ())],
    )
