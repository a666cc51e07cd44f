"""The options of a study on the command line: the same for `compare.py` and for each framework alone."""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from common import config
from common.config import (
    BACKBONES,
    DEVICES,
    ENGINES,
    FRAMEWORKS,
    MODELS,
    PRECISIONS,
    PROFILES,
    STUDY_LANES,
    TASKS,
    Engine,
    Study,
)
from common.distributed import check_devices, check_share
from common.errors import StudyError
from common.names import printable


class Parser(argparse.ArgumentParser):
    """argparse with the house's one-sentence errors (exit code 2, as argparse has it)."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: {printable(message)}; see `{self.prog} --help`\n")


def run_guarded(program: str, command: Callable[[], int]) -> int:
    """The command's exit code; for a fault the user can mend, one sentence on stderr and 2; 130 when interrupted."""
    try:
        return command()
    except StudyError as error:
        reason, code = str(error), 2
    except OSError as error:  # a full or lost disk; finished runs are whole, for they are written by rename
        place = printable(str(error.filename or "a file"))
        reason, code = f"{place} cannot be written or read: {error.strerror or error}", 2
    except KeyboardInterrupt:
        reason, code = (
            "stopped; finished runs are kept, a study goes on from there with the same command",
            130,
        )
    print(f"{program}: {reason}", file=sys.stderr)
    return code


def add_study_options(parser: argparse.ArgumentParser, frameworks: Sequence[str] | None) -> None:
    """Add the options of a study; `frameworks` is the default choice, or None where it cannot be chosen."""
    add = parser.add_argument
    add(
        "--data",
        nargs="+",
        action="extend",
        default=[],
        metavar="DIR",
        help="data folders in a known layout; none: the drawn phantom",
    )
    add(
        "--patients", type=positive_integer, metavar="N", help="of the drawn phantom (default: the profile's)"
    )
    add("--profile", choices=PROFILES, default="quick", help="how much work (default: %(default)s)")
    add("--tasks", nargs="+", choices=TASKS, help="default: all that the data can serve")
    usual = ", ".join(f"{name} {' '.join(task.default_models)}" for name, task in TASKS.items())
    add("--models", nargs="+", choices=MODELS, help=f"default: {usual}")
    add(
        "--weights",
        default=None,
        metavar="imagenet|random|PATH",
        help=f"where {' and '.join(BACKBONES)} start: public ImageNet weights (fetched once), random numbers, or a "
        "safetensors file or folder in the public format (default: random in the quick profile, else imagenet)",
    )
    if frameworks is not None:
        text = f"default: {' '.join(frameworks)}; of {', '.join(FRAMEWORKS)}"
        add(
            "--frameworks",
            nargs="+",
            choices=FRAMEWORKS,
            default=tuple(frameworks),
            metavar="NAME",
            help=text,
        )
    add(
        "--lane",
        nargs="+",
        choices=STUDY_LANES,
        default=("aligned",),
        help="one algorithm in every framework, or each with its own defaults, or both (default: aligned)",
    )
    add("--seeds", type=positive_integer, metavar="N", help="training seeds 0..N-1 (default: the profile's)")
    add(
        "--repeats",
        type=non_negative_integer,
        metavar="N",
        help="seeds of which the first framework's runs are done twice, to see how far it lies from itself "
        "(default: the profile's)",
    )
    add(
        "--folds",
        type=positive_integer,
        metavar="K",
        help="patient folds; 1 is the hold-out split (default: the profile's)",
    )
    add(
        "--split-seed",
        type=non_negative_integer,
        default=0,
        metavar="S",
        help="another split of the patients (default: %(default)s)",
    )
    add_accept_option(parser)
    add("--epochs", type=positive_integer, metavar="N", help="instead of the profile's")
    add("--batch-size", type=positive_integer, metavar="N", help="instead of the recipe's")
    add("--device", choices=DEVICES, default="auto", help="default: %(default)s")
    add(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="bfloat16: products and convolutions in it, all that is kept in float32 (default: %(default)s)",
    )
    add(
        "--devices",
        type=positive_integer,
        default=1,
        metavar="N",
        help="of each run, which share its batches: processes in PyTorch, devices of one process in Keras (default: "
        "%(default)s)",
    )
    add(
        "--workers",
        type=positive_integer,
        default=1,
        metavar="N",
        help="runs at a time; more than 1 disturbs timings. With --engine ray: on the smallest node",
    )
    add(
        "--threads",
        type=positive_integer,
        metavar="N",
        help="a run, of several devices each (default: the cores divided by workers and devices)",
    )
    add_engine_options(parser)
    add(
        "--deterministic",
        action="store_true",
        help=f"equal bits whatever --workers and interruptions: {config.DETERMINISTIC_THREADS} thread a run unless "
        "--threads says otherwise, and frameworks that refuse what they cannot repeat",
    )
    add(
        "--checkpoint-every",
        type=non_negative_integer,
        metavar="N",
        help="epochs after which a run keeps a snapshot, from which it goes on when it was interrupted; 0: never "
        f"(default: whenever {config.SNAPSHOT_SECONDS:.0f} s have passed since the last)",
    )
    add(
        "--cache-limit",
        type=byte_count,
        default=0,
        metavar="SIZE",
        help="of the decoded slices on disk, e.g. 20GB; those beyond are decoded in every epoch, which is slower "
        "(default: none)",
    )
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the study (default: results/DATA-PROFILE, with -native in that lane alone)",
    )


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add `--engine` and what belongs to it: where runs execute."""
    add = parser.add_argument
    add(
        "--engine",
        choices=ENGINES,
        default="local",
        help="local: processes of this machine; ray: a Ray cluster, each run a task (default: %(default)s)",
    )
    add(
        "--address",
        metavar="ADDRESS",
        help="of a Ray cluster to join: HOST:PORT or auto from one of its nodes, ray://HOST:10001 from elsewhere "
        "(default: one is started on this machine)",
    )
    add(
        "--gpus-per-run",
        type=positive_number,
        metavar="N",
        help="that Ray sets aside for each device of a run on cuda; 0.5: two runs share a GPU (default: 1)",
    )
    add(
        "--node-timeout",
        type=positive_number,
        metavar="SECONDS",
        help="to wait for a node of the Ray cluster that can take a run, e.g. while it grows "
        f"(default: {Engine.node_seconds:g})",
    )


def engine_of(arguments: argparse.Namespace) -> Engine:
    """Where the options say that runs execute. Raises StudyError for options of Ray without it, and for a share of GPUs
    that Ray does not give.
    """
    given = {
        "--address": arguments.address,
        "--gpus-per-run": arguments.gpus_per_run,
        "--node-timeout": arguments.node_timeout,
    }
    for name, value in given.items():
        if value is not None and arguments.engine != "ray":
            raise StudyError(f"{name} {value} is for --engine ray; add that or leave it out")
    gpus = arguments.gpus_per_run or 1.0
    check_share(gpus, arguments.devices)
    patience = arguments.node_timeout or Engine.node_seconds
    return Engine(arguments.engine, arguments.address, gpus, node_seconds=patience)


def add_interpreter_options(parser: argparse.ArgumentParser) -> None:
    """Add `--python-torch` and `--python-keras`: which Python runs the processes of a framework."""
    for name, title in (("torch", "PyTorch"), ("keras", "Keras")):
        parser.add_argument(
            f"--python-{name}",
            metavar="PATH",
            help=f"the Python that has {title}, where that is installed apart (default: this one)",
        )


def add_accept_option(parser: argparse.ArgumentParser) -> None:
    """Add `--accept`: which findings of the audit do not stop the command."""
    names = config.AUDIT_REFUSALS
    parser.add_argument(
        "--accept",
        nargs="+",
        action="extend",
        choices=names,
        default=[],
        metavar="NAME",
        help="go on in spite of a finding of the audit that makes a comparison invalid, which the report then says at "
        f"its top; of {', '.join(names)}",
    )


def study_of(arguments: argparse.Namespace, frameworks: Sequence[str]) -> Study:
    """The study that the options ask for, every default resolved."""
    profile = PROFILES[arguments.profile]
    pairs = _pairs(arguments.tasks, arguments.models)
    weights = arguments.weights or profile.weights
    if not any(model in BACKBONES for _, model in pairs):
        weights = "random"
    if weights != "random":
        _require_public_models(weights, pairs, arguments.profile)
    changes = {"epochs": arguments.epochs, "batch_size": arguments.batch_size, "weights": weights}
    check_source(arguments.data, arguments.patients)
    study = Study(
        data=tuple(arguments.data),
        profile=arguments.profile,
        patients=arguments.patients or 0,
        tasks=tuple(dict.fromkeys(task for task, _ in pairs)),
        skippable=arguments.tasks is None,
        frameworks=_unique(frameworks),
        lanes=tuple(lane for lane in STUDY_LANES if lane in arguments.lane),
        seeds=(seeds := arguments.seeds or profile.seeds),
        repeats=min(seeds, profile.repeats if arguments.repeats is None else arguments.repeats),
        folds=arguments.folds or profile.folds,
        accepted=_unique(arguments.accept),
        split_seed=arguments.split_seed,
        device=arguments.device,
        precision=arguments.precision,
        threads=arguments.threads or 0,
        workers=arguments.workers,
        deterministic=arguments.deterministic,
        checkpoint_every=arguments.checkpoint_every,
        cache_limit=arguments.cache_limit,
        devices=arguments.devices,
        weights=weights,
        recipes={
            f"{task}/{model}": config.recipe_of(task, model, arguments.profile, **changes)
            for task, model in pairs
        },
        specs={f"{task}/{model}": config.spec_of(task, model, arguments.profile) for task, model in pairs},
    )
    check_devices(study)
    return study


def check_source(data: Sequence[str], patients: int | None) -> None:
    """Raise StudyError for folders that do not exist, or folders and a number of the phantom's patients."""
    if data and patients:
        raise StudyError(
            "--patients counts the drawn phantom's patients and goes without --data; leave one out"
        )
    for folder in data:
        if not Path(folder).exists():
            raise StudyError(
                f"--data {folder} does not exist; give a folder with pictures, or none for the phantom"
            )


def _require_public_models(weights: str, pairs: Sequence[tuple[str, str]], profile: str) -> None:
    """Raise StudyError where a backbone of the profile is not the model that the public weights are of."""
    for task, model in pairs:
        spec = config.spec_of(task, model, profile)
        public = dataclasses.replace(MODELS[model], image_size=spec.image_size, outputs=spec.outputs)
        if model in BACKBONES and public != spec:
            raise StudyError(
                f"--weights {weights} does not fit the {profile} profile's {model}, a small relative of the public "
                "model; use --profile standard or full, or leave --weights out"
            )


def _pairs(tasks: Sequence[str] | None, models: Sequence[str] | None) -> list[tuple[str, str]]:
    """Which models to train for which tasks. Raises StudyError where one that was named has no partner."""
    pairs = [
        (name, model)
        for name, task in TASKS.items()
        if tasks is None or name in tasks
        for model in (task.default_models if models is None else task.models)
        if models is None or model in models
    ]
    for name in tasks or ():
        if name not in {task for task, _ in pairs}:
            known = ", ".join(TASKS[name].models)
            raise StudyError(f"task {name!r} has no model {' or '.join(models or ())}; its models: {known}")
    for name in models or ():
        if name not in {model for _, model in pairs}:
            possible = ", ".join(task for task in TASKS if name in TASKS[task].models)
            raise StudyError(f"model {name!r} is for the task {possible}; add it to --tasks")
    return pairs


def directory_of(arguments: argparse.Namespace) -> Path:
    """The study's folder: `--out`, else named after the data, the profile, and the native lane where it is alone."""
    if arguments.out:
        return Path(arguments.out)
    name = "+".join(Path(folder).resolve().name for folder in arguments.data) or "phantom"
    lane = "" if "aligned" in arguments.lane else "-native"
    return Path("results") / f"{name}-{arguments.profile}{lane}"


def _unique(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def positive_integer(text: str) -> int:
    """An argparse type: 1, 2, 3 ..."""
    return _integer(text, least=1)


def non_negative_integer(text: str) -> int:
    """An argparse type: 0, 1, 2 ..."""
    return _integer(text, least=0)


def positive_number(text: str) -> float:
    """An argparse type: a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return value


def _integer(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, not {text!r}")
    return value


def byte_count(text: str) -> int:
    """An argparse type: `20GB`, `500MB`, `1.5TB` in powers of ten, `20GiB` in powers of two, or bytes."""
    found = re.fullmatch(r"(\d{1,18}(?:\.\d{1,9})?) ?(?:([kmgt])(i?)b)?", text.strip().casefold())
    count = 0
    if found:
        power = " kmgt".index(found[2] or " ")
        count = int(float(found[1]) * (1024 if found[3] else 1000) ** power)
    if count < 1:
        raise argparse.ArgumentTypeError(f"must be a size such as 20GB or 500MB, not {text!r}")
    return count
