"""The command line that `python -m torch_impl` and `python -m keras_impl` share: one framework's stack alone."""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import faulthandler
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import cv2
from rich.console import Console

from common import atlas, config, distributed, fence, measure
from common.attempts import claim
from common.config import MODELS, NOTICE, Run, Study
from common.console import open_console
from common.engines import (
    WORKER_MARK,
    check_framework,
    framework_of,
    run_locally,
    threads_for,
    threads_of,
    worker_environment,
)
from common.errors import StudyError
from common.evaluation import all_of, evaluate_part, held_out_part
from common.framework import Framework, Settings
from common.holding import hold
from common.inference import load_model
from common.ladder_workers import climb_list
from common.leak_runs import carry_out_training
from common.memory_shortage import shortage_named
from common.options import (
    Parser,
    add_study_options,
    directory_of,
    engine_of,
    non_negative_integer,
    positive_integer,
    run_guarded,
    study_of,
)
from common.pipeline import (
    describe_answer,
    list_pictures,
    load_pipeline,
    run_pipeline,
    write_answers,
)
from common.progress import GridProgress
from common.results import read_json, read_run, read_study, run_directory, write_json, write_text_table
from common.run import execute
from common.study import carry_out, report_study
from common.trace import carry_out_plan, plan_from_json

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def start(package: str) -> None:
    """What comes before a package loads its framework; ends the process (exit code 2) where that is not installed.

    `evaluate`, `predict`, `info` and `defaults` begin again, once, in the environment of a worker: allocator, OpenMP
    and the frameworks read theirs when they are loaded; so does `run` under torchrun. The commands that train start
    workers of their own.
    """
    name = framework_of(package)
    arguments = _parser(name, package).parse_args()

    def check() -> int:
        check_framework(name)
        return 0

    if code := run_guarded(package, check):
        sys.exit(code)
    if package == "keras_impl":
        os.environ["KERAS_BACKEND"] = name.removeprefix("keras-")
    if arguments.command in (_evaluate, _predict, _info, _defaults) and WORKER_MARK not in os.environ:
        environment = worker_environment(name, arguments.device, arguments.precision, arguments.threads)
        _begin_again(environment)
    if arguments.command is _run and distributed.under_torchrun() and WORKER_MARK not in os.environ:
        sys.exit(run_guarded(package, lambda: _begin_again(_environment_under_torchrun(name, arguments))))


def _begin_again(environment: dict[str, str]) -> NoReturn:
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _environment_under_torchrun(framework: str, arguments: argparse.Namespace) -> dict[str, str]:
    study = read_study(arguments.study).study
    threads = _threads(arguments, study, _run_named(arguments.run, study, arguments.study))
    return worker_environment(
        framework,
        study.device,
        study.precision,
        threads,
        devices=study.devices,
        deterministic=study.deterministic,
    )


def main(framework: Framework, package: str, argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 where a run or a picture failed, 2 for a StudyError."""
    arguments = _parser(framework.name(), package).parse_args(argv)
    console = open_console()
    return run_guarded(package, lambda: arguments.command(framework, arguments, console))


def _parser(framework: str, package: str) -> argparse.ArgumentParser:
    parser = Parser(prog=f"python -m {package}", description=f"The {framework} stack alone. {NOTICE}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train every run of a grid that is not finished yet")
    add_study_options(train, None)
    train.set_defaults(command=_train)

    evaluate = commands.add_parser("evaluate", help="judge a checkpoint of either framework on a data set")
    evaluate.add_argument("checkpoint", type=Path, help="a model.safetensors")
    source = evaluate.add_mutually_exclusive_group(required=True)
    source.add_argument("--study", type=Path, metavar="DIR", help="a study's folder: the test part of --fold")
    source.add_argument(
        "--data",
        nargs="+",
        action="extend",
        metavar="DIR",
        help="data folders in a known layout: every image",
    )
    evaluate.add_argument("--fold", type=non_negative_integer, help="default: the fold it was trained on")
    evaluate.add_argument(
        "--anyway", action="store_true", help="also where the model may have been trained on those patients"
    )
    evaluate.add_argument(
        "--out", type=Path, metavar="FILE.csv", help="write a row a slice: truth and scores"
    )
    evaluate.set_defaults(command=_evaluate)

    predict = commands.add_parser("predict", help="classify pictures, and segment those that show a stroke")
    predict.add_argument(
        "images", nargs="+", type=Path, metavar="PATH", help="pictures, DICOM files or folders of them"
    )
    predict.add_argument(
        "--checkpoints",
        "--checkpoint",
        action="append",
        type=Path,
        required=True,
        metavar="PATH",
        help="a model.safetensors of either framework, or a folder of some (a study's too): a classifier, a "
        "segmenter or both; may be repeated",
    )
    predict.add_argument(
        "--out", type=Path, metavar="DIR", help="write predictions.jsonl, predictions.csv and overlays/"
    )
    predict.set_defaults(command=_predict)

    info = commands.add_parser("info", help="versions, device and models")
    info.add_argument("--brief", action="store_true", help="without the models")
    info.set_defaults(command=_info)

    defaults = commands.add_parser("defaults", help="what this framework does when nothing is said")
    defaults.add_argument("--out", type=Path, metavar="FILE.json", help="write what was found, and how")
    defaults.set_defaults(command=_defaults, device="cpu", precision=atlas.PRECISION, threads=1)

    run = commands.add_parser("run", help="carry out one run of a prepared study (what train does for each)")
    run.add_argument("study", type=Path, help="the study's folder")
    run.add_argument("run", help="TASK/MODEL/FRAMEWORK/LANE/seedS-foldF")
    run.add_argument("--cores", help=argparse.SUPPRESS)
    run.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)  # started by the engine
    run.add_argument("--attempt", default="", help=argparse.SUPPRESS)  # and its token (`common.fence`)
    run.set_defaults(command=_run)

    ladder = commands.add_parser("climb")  # a worker of `compare.py ladder`
    ladder.add_argument("study", type=Path)
    ladder.add_argument("list", type=Path)
    ladder.add_argument("--cores")
    ladder.set_defaults(command=_climb)

    leak = commands.add_parser("leak")  # a worker of `compare.py leak`
    leak.add_argument("study", type=Path)
    leak.add_argument("training", help="TASK/MODEL/FRAMEWORK/ARM/seedS")
    leak.add_argument("--cores")
    leak.set_defaults(command=_leak)

    trace = commands.add_parser("trace")  # a worker of `compare.py parity`
    trace.add_argument("plan", type=Path)
    trace.set_defaults(command=_trace)

    for command in (evaluate, predict, info):
        command.add_argument("--device", choices=config.DEVICES, default="auto", help="default: %(default)s")
        command.set_defaults(precision="float32")
    for command in (evaluate, predict, info, ladder, leak):
        command.add_argument(
            "--threads", type=positive_integer, default=measure.usable_cores(), help="default: all cores"
        )
    run.add_argument("--threads", type=positive_integer, help="default: the study's, else all cores")
    return parser


def _train(framework: Framework, arguments: argparse.Namespace, console: Console) -> int:
    study, directory = study_of(arguments, [framework.name()]), directory_of(arguments)
    failed = carry_out(study, directory, console, engine_of(arguments))
    report_study(directory, console)
    return 1 if failed else 0


def _evaluate(framework: Framework, arguments: argparse.Namespace, console: Console) -> int:
    framework.configure(Settings(arguments.device, "float32", arguments.threads))
    trained = load_model(framework, arguments.checkpoint)
    title = f"{arguments.checkpoint} in {framework.name()}"
    with tempfile.TemporaryDirectory() as scratch:
        part, data, warning = (
            all_of(arguments.data, trained, Path(scratch), console)
            if arguments.data
            else held_out_part(
                arguments.study, arguments.fold, trained, arguments.checkpoint, arguments.anyway
            )
        )
        rows, table = evaluate_part(framework, trained, part, title)
    if arguments.out:
        write_text_table(arguments.out, rows)
    console.print(table)
    console.print(f"data: {data}. {NOTICE}", markup=False)
    if warning:
        console.print(f"warning: {warning}", markup=False, style="yellow")
    return 0


def _predict(framework: Framework, arguments: argparse.Namespace, console: Console) -> int:
    framework.configure(Settings(arguments.device, "float32", arguments.threads))
    pictures = list_pictures(arguments.images)
    pipeline, checkpoints = load_pipeline(framework, arguments.checkpoints)
    stages = [one for one in (pipeline.gate, pipeline.segmenter) if one is not None]
    for trained, path in zip(stages, checkpoints, strict=True):
        learnt_on = ", ".join(trained.header.get("data", ["unknown data"]))
        words = f"{trained.task.name}: {trained.spec.name} of {path}, trained on {learnt_on}"
        console.print(words, markup=False)
    console.print(NOTICE, markup=False)
    answers = run_pipeline(framework, pipeline, pictures)
    if arguments.out:
        about = {"framework": framework.name(), "checkpoints": [str(path) for path in checkpoints]}
        answers = write_answers(answers, arguments.out, about)
    faults = 0
    for answer in answers:
        faults += bool(answer.fault)
        console.print(describe_answer(answer), markup=False)
    if arguments.out:
        console.print(f"written: {arguments.out}", markup=False)
    return 1 if faults else 0


def _info(framework: Framework, arguments: argparse.Namespace, console: Console) -> int:
    device = framework.configure(Settings(arguments.device, "float32", arguments.threads))
    facts = {"device": device, **framework.environment(), **measure.common_environment()}
    if not arguments.brief:
        facts["models"] = ", ".join(
            f"{name} ({sum(a.size for a in framework.read_weights(framework.build(spec)).values()):,} values)"
            for name, spec in MODELS.items()
        )
    facts["notice"] = NOTICE
    for name, value in facts.items():
        console.print(f"{name:24} {value}", markup=False)
    return 0


def _defaults(framework: Framework, arguments: argparse.Namespace, console: Console) -> int:
    framework.configure(Settings(arguments.device, arguments.precision, arguments.threads))
    part = atlas.probe(framework)
    if arguments.out:
        write_json(arguments.out, part)
    console.print(atlas.part_table(part))
    faults = atlas.contradictions(part)
    for fault in faults:
        console.print(f"warning: {fault}", markup=False, style="yellow")
    return 1 if faults else 0


def _run(framework: Framework, arguments: argparse.Namespace, console: Console) -> int:
    record = read_study(arguments.study)
    run = _run_named(arguments.run, record.study, arguments.study)
    if run.framework != framework.name():
        raise StudyError(f"run {arguments.run!r} is for {run.framework}, and this is {framework.name()}")
    threads = arguments.threads or threads_of(dataclasses.replace(record.study, workers=1))
    leads, token = distributed.leads(), arguments.attempt
    batch_size = record.study.recipes[f"{run.task}/{run.model}"].batch_size

    def work() -> None:
        with shortage_named(batch_size, record.study.device, record.study.devices):
            execute(framework, arguments.study, run, threads, _emit if leads else lambda event: None, token)

    if distributed.under_torchrun():
        distributed.check_torchrun(record.study, framework.name())
        threads = _threads(arguments, record.study, run)
        if not leads:
            return _work(None, work)
        with hold(record.directory):
            token = claim(directory := run_directory(record.directory, run), 1)
            code = _work(None, work)
            fence.end(directory)
            return code
    if not arguments.supervised:
        return _run_supervised(record.directory, record.study, run, threads, console)
    return _work(arguments.cores, work)


def _run_named(name: str, study: Study, directory: Path) -> Run:
    named = {str(run.path): run for run in study.runs()}
    if name not in named:
        raise StudyError(f"{name!r} is no run of {directory}; its first is {next(iter(named))}")
    return named[name]


def _threads(arguments: argparse.Namespace, study: Study, run: Run) -> int:
    """Of a run that torchrun started: as an engine would give it that carries out one at a time."""
    return arguments.threads or threads_for(run, threads_of(dataclasses.replace(study, workers=1)))


def _climb(framework: Framework, arguments: argparse.Namespace, console: Console) -> int:
    del console
    study, path, threads = arguments.study, arguments.list, arguments.threads
    return _work(arguments.cores, lambda: climb_list(framework, study, path, threads, _emit))


def _leak(framework: Framework, arguments: argparse.Namespace, console: Console) -> int:
    del console
    study, training, threads = arguments.study, arguments.training, arguments.threads
    return _work(arguments.cores, lambda: carry_out_training(framework, study, training, threads, _emit))


def _trace(framework: Framework, arguments: argparse.Namespace, console: Console) -> int:
    del console
    plan = plan_from_json(read_json(arguments.plan))
    return _work(None, lambda: carry_out_plan(framework, plan, _emit))


def _work(cores: str | None, work: Callable[[], None]) -> int:
    """A worker's life: on the cores that it was given, ended with its parent, its fault told in one event."""
    faulthandler.enable(2)  # a crash in compiled code leaves its place in the run's log
    if not distributed.under_torchrun():  # which ends its processes itself
        threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)  # the stream has threads of its own; more would fight the framework for cores
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    try:
        work()
    except StudyError as error:
        _emit({"failed": str(error)})
        return 2
    return 0


def _run_supervised(directory: Path, study: Study, run: Run, threads: int, console: Console) -> int:
    """A run started by a person goes through the engine too, for the environment that every worker has."""
    with hold(directory), GridProgress(console, [run]) as progress:
        run_locally(directory, dataclasses.replace(study, workers=1, threads=threads), [run], progress.tell)
    record = read_run(directory, run)
    return 0 if record is not None and record.complete else 1


def _emit(event: dict[str, object]) -> None:
    print(json.dumps(event), flush=True)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however it went."""
    # The kernel ends it even where it has been stopped, or computes and gives this thread no turn
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.read(0, 1)  # nothing is ever written to it: this returns at its end
    os._exit(3)
