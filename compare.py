"""Compare PyTorch and Keras on brain-CT stroke images: every difference shown is the framework's.

    python compare.py [study] [--data DIR ...] [--profile quick|standard|full] [--seeds N] [--out results/NAME]
    python compare.py parity            proof, step by step, that all frameworks compute one algorithm
    python compare.py ladder            which default explains how much of the gap between two frameworks
    python compare.py leak              how much more a split by slice would have claimed than one by patient
    python compare.py audit             what would make a comparison on the data invalid
    python compare.py defaults          what each framework does when nothing is said, and where they differ
    python compare.py report DIR        write the report of a study again, from its files
    python compare.py report A B        set two studies side by side
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

from common import atlas, config, interpreters, measure
from common.audit import audit_folders
from common.config import DEVICES, FRAMEWORKS, MODELS, NOTICE, PRECISIONS, PROFILES
from common.console import open_console
from common.engines import check_framework, install_command, missing_packages, probe_framework
from common.errors import StudyError
from common.ladder import climb_ladder, ladder_study
from common.leak import measure_leak
from common.leak_options import add_leak_options, leak_study_of
from common.mutations import plant
from common.options import (
    Parser,
    add_accept_option,
    add_interpreter_options,
    add_study_options,
    check_source,
    directory_of,
    engine_of,
    positive_integer,
    run_guarded,
    study_of,
)
from common.parity_study import Asked, prove
from common.parity_table import REFERENCE
from common.study import carry_out, report_study

DEFAULT_FRAMEWORKS = ("torch", "keras-tensorflow")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 where a run failed or data are refused, 2 for a fault to mend."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        words.insert(0, "study")  # the main job needs no word
    arguments = _parser().parse_args(words)
    console = open_console()

    def carry_out() -> int:
        if "python_torch" in arguments:
            interpreters.choose(arguments.python_torch, arguments.python_keras)
        return int(arguments.command(arguments, console))

    return run_guarded("compare.py", carry_out)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="compare.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    study = commands.add_parser("study", help="train what is missing of a grid of runs and write the report")
    add_study_options(study, DEFAULT_FRAMEWORKS)
    study.set_defaults(command=_study)
    parity = commands.add_parser("parity", help="prove step by step that the trainings are one algorithm")
    _add_parity_options(parity)
    parity.set_defaults(command=_parity)
    ladder = commands.add_parser(
        "ladder", help="from each framework's own defaults to one algorithm, one default at a time"
    )
    _add_ladder_options(ladder)
    ladder.set_defaults(command=_ladder)
    audit = commands.add_parser(
        "audit",
        help="look for what would make a comparison on the data invalid; exit code 1 if anything does",
    )
    _add_audit_options(audit)
    audit.set_defaults(command=_audit)
    leak = commands.add_parser(
        "leak", help="how much more a split by slice would have claimed than a split by patient"
    )
    add_leak_options(leak)
    leak.set_defaults(command=_leak)
    defaults = commands.add_parser("defaults", help="what each framework does when nothing is said")
    _add_defaults_options(defaults)
    defaults.set_defaults(command=_defaults)
    report = commands.add_parser(
        "report", help="write a study's report again, or set two studies side by side"
    )
    _add_report_options(report)
    report.set_defaults(command=_report)
    doctor = commands.add_parser("doctor", help="check this machine")
    doctor.set_defaults(command=_doctor)
    for command in (study, parity, ladder, leak, defaults, doctor):
        add_interpreter_options(command)
    return parser


def _add_audit_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", nargs="+", action="extend", default=[], metavar="DIR", help="default: the drawn phantom")
    add("--patients", type=positive_integer, metavar="N", help="of the drawn phantom")
    add_accept_option(parser)
    add("--out", type=Path, metavar="DIR", default=Path("results", "audit"), help="default: %(default)s")


def _audit(arguments: argparse.Namespace, console: Console) -> int:
    check_source(arguments.data, arguments.patients)
    accepted = dict.fromkeys(arguments.accept)
    valid = audit_folders(arguments.data, arguments.patients or 0, accepted, arguments.out, console)
    return 0 if valid else 1


def _add_parity_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--models", nargs="+", choices=MODELS, help="default: all, each on the task it is used for")
    add(
        "--frameworks",
        nargs="+",
        choices=FRAMEWORKS,
        metavar="NAME",
        help=f"beside {REFERENCE}, the reference (default: all that are installed); of {', '.join(FRAMEWORKS)}",
    )
    add(
        "--precision",
        choices=PRECISIONS,
        default="float64",
        help="float32 is judged by how far the reference drifts from itself; bfloat16 proves nothing and is refused "
        "(default: %(default)s)",
    )
    add(
        "--steps",
        type=positive_integer,
        metavar="N",
        default=config.PARITY_STEPS,
        help="optimizer steps (default: %(default)s)",
    )
    add("--profile", choices=PROFILES, default="standard", help="whose models (default: %(default)s)")
    add("--data", nargs="+", action="extend", default=[], metavar="DIR", help="default: the drawn phantom")
    add(
        "--mutations",
        action="store_true",
        help="also leave each default alone on one side, in small models: the proof has to find it",
    )
    add("--device", choices=DEVICES, default="cpu", help="default: %(default)s")
    add(
        "--workers",
        type=positive_integer,
        metavar="N",
        default=measure.usable_cores(),
        help="trainings at a time, one core each (default: all cores)",
    )
    add("--out", type=Path, metavar="DIR", default=Path("results", "parity"), help="default: %(default)s")


def _parity(arguments: argparse.Namespace, console: Console) -> int:
    check_source(arguments.data, None)
    installed = [name for name in FRAMEWORKS if not missing_packages(name)]
    others = [name for name in arguments.frameworks or installed if name != REFERENCE]
    if not others:
        raise StudyError(f"{REFERENCE} alone is compared with nothing; give another of --frameworks")
    asked = Asked(
        models=tuple(dict.fromkeys(arguments.models or MODELS)),
        frameworks=tuple(dict.fromkeys(others)),
        data=tuple(arguments.data),
        profile=arguments.profile,
        precision=arguments.precision,
        steps=arguments.steps,
        device=arguments.device,
        workers=arguments.workers,
        every_model=arguments.models is None,
    )
    agrees = prove(asked, arguments.out, console)
    if arguments.mutations:
        agrees = plant(asked, arguments.out, console) and agrees
    if (arguments.out / "study.json").exists():
        report_study(arguments.out, console)
    return 0 if agrees else 1


def _add_ladder_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--models",
        nargs="+",
        choices=MODELS,
        default=config.LADDER_MODELS,
        help=f"each on the task it is used for (default: {' '.join(config.LADDER_MODELS)})",
    )
    add(
        "--frameworks",
        nargs=2,
        choices=FRAMEWORKS,
        default=DEFAULT_FRAMEWORKS,
        metavar=("REFERENCE", "OTHER"),
        help=f"default: {' '.join(DEFAULT_FRAMEWORKS)}; of {', '.join(FRAMEWORKS)}",
    )
    add("--data", nargs="+", action="extend", default=[], metavar="DIR", help="default: the drawn phantom")
    add("--patients", type=positive_integer, metavar="N", help="of the drawn phantom")
    add("--profile", choices=PROFILES, default="quick", help="size of the models (default: %(default)s)")
    seeds, steps = config.LADDER_SEEDS, config.LADDER_STEPS
    add(
        "--seeds",
        type=positive_integer,
        metavar="N",
        default=seeds,
        help="of each rung (default: %(default)s)",
    )
    add(
        "--steps", type=positive_integer, metavar="N", default=steps, help="a training (default: %(default)s)"
    )
    add("--device", choices=DEVICES, default="cpu", help="default: %(default)s")
    add("--out", type=Path, metavar="DIR", default=Path("results", "ladder"), help="default: %(default)s")


def _ladder(arguments: argparse.Namespace, console: Console) -> int:
    check_source(arguments.data, arguments.patients)
    study = ladder_study(
        arguments.models,
        arguments.frameworks,
        arguments.data,
        arguments.profile,
        arguments.patients or 0,
        arguments.seeds,
        arguments.device,
    )
    failed = climb_ladder(study, arguments.steps, arguments.out, console)
    if (arguments.out / "study.json").exists():
        report_study(arguments.out, console)
    return 1 if failed else 0


def _leak(arguments: argparse.Namespace, console: Console) -> int:
    failed = measure_leak(leak_study_of(arguments), arguments.out, console)
    if (arguments.out / "study.json").exists():
        report_study(arguments.out, console)
    return 1 if failed else 0


def _add_defaults_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--frameworks",
        nargs="+",
        choices=FRAMEWORKS,
        metavar="NAME",
        help=f"default: all that are installed; of {', '.join(FRAMEWORKS)}",
    )
    add("--out", type=Path, metavar="DIR", help=f"write {atlas.FILE} there")


def _defaults(arguments: argparse.Namespace, console: Console) -> int:
    installed = [name for name in FRAMEWORKS if not missing_packages(name)]
    names = list(dict.fromkeys(arguments.frameworks or installed))
    for name in names:
        check_framework(name)
    parts = [atlas.ask(name) for name in names]
    found = atlas.merge(parts)
    console.print(atlas.table(found))
    console.print(f"\n{len(atlas.differing(found))} of {len(found['items'])} differ. {NOTICE}", markup=False)
    if arguments.out:
        console.print(f"written: {atlas.write(arguments.out, found)}", markup=False)
    faults = [fault for part in parts for fault in atlas.contradictions(part)]
    for fault in faults:
        console.print(f"warning: {fault}", markup=False, style="yellow")
    return 1 if faults else 0


def _study(arguments: argparse.Namespace, console: Console) -> int:
    study, directory = study_of(arguments, arguments.frameworks), directory_of(arguments)
    failed = carry_out(study, directory, console, engine_of(arguments))
    report_study(directory, console)
    return 1 if failed else 0


def _add_report_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("directories", type=Path, nargs="+", metavar="DIR", help="one study, or two")
    add("--out", type=Path, metavar="DIR", help="of two studies (default: results/A-beside-B)")
    add(
        "--no-pictures",
        action="store_true",
        help="of one study: without slices, for data that may not be shown",
    )


def _report(arguments: argparse.Namespace, console: Console) -> int:
    directories = arguments.directories
    if len(directories) > 2:
        raise StudyError(f"report takes one study or two, not {len(directories)}; give two at a time")
    if len(directories) == 2:
        a, b = directories
        _report_two(a, b, arguments.out, console)
        return 0
    if arguments.out:
        raise StudyError(
            f"--out {arguments.out} is for two studies; the report of one is written into its own folder"
        )
    report_study(directories[0], console, pictures=not arguments.no_pictures)
    return 0


def _report_two(a: Path, b: Path, out: Path | None, console: Console) -> None:
    from common.report.side_by_side import default_out, write_side_by_side  # here: it loads Matplotlib

    path = write_side_by_side(a, b, out or default_out(a, b))
    console.print(f"report: {path}. {NOTICE}", markup=False)


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
    try:
        if lacking := missing_packages(framework):
            words = f"not installed ({', '.join(lacking)}): {install_command(framework)}"
            console.print(f"{framework:24} {words}", markup=False)
            return False
        facts = probe_framework(framework)
    except StudyError as error:
        console.print(f"{framework:24} not usable: {error}", markup=False)
        return False
    console.print(
        f"{framework:24} {facts['framework']}, {facts['backend']}, device {facts['device']}", markup=False
    )
    if measure.visible_gpus() and "no_cuda" in facts:
        console.print(f"{'':24} sees no GPU: {facts['no_cuda']}", markup=False)
    return True


if __name__ == "__main__":
    sys.exit(main())
