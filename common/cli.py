"""The command line that `python -m torch_impl` and `python -m keras_impl` share: one framework's stack alone."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import cv2
import pandas as pd
from rich.console import Console
from rich.table import Table

from common import config, measure
from common.config import MODELS, NOTICE, Run, Study
from common.data.batches import Part, select_part
from common.data.cache import build_cache, keep_readable, open_cache
from common.data.images import ImageError
from common.data.layouts import open_dataset
from common.data.samples import samples_digest
from common.data.splits import split_digest
from common.engines import WORKER_MARK, check_framework, framework_of, run_locally, worker_environment
from common.errors import StudyError
from common.framework import Framework, Settings
from common.inference import Classifier, load_classifier, score_part, score_pictures
from common.metrics.classification import TITLE, classification_scores, patient_table
from common.options import (
    Parser,
    add_study_options,
    directory_of,
    non_negative_integer,
    positive_integer,
    run_guarded,
    study_of,
)
from common.progress import GridProgress
from common.results import read_run, read_study, write_csv
from common.run import execute
from common.study import carry_out, hold, report_study


def start(package: str) -> None:
    """What comes before a package loads its framework; ends the process (exit code 2) where that is not installed.

    `evaluate`, `predict` and `info` begin again, once, in the environment of a worker: allocator, OpenMP and the
    frameworks read theirs when they are loaded. The commands that train start workers of their own.
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
    if arguments.command in (_evaluate, _predict, _info) and WORKER_MARK not in os.environ:
        environment = worker_environment(name, arguments.device, "float32", arguments.threads)
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def main(framework: Framework, package: str, argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 where a run or a picture failed, 2 for a StudyError."""
    arguments = _parser(framework.name(), package).parse_args(argv)
    console = Console(highlight=False, soft_wrap=True)
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
        "--data", nargs="+", metavar="DIR", help="data folders in a known layout: every image"
    )
    evaluate.add_argument("--fold", type=non_negative_integer, help="default: the fold it was trained on")
    evaluate.add_argument(
        "--anyway", action="store_true", help="also where the model may have been trained on those patients"
    )
    evaluate.add_argument("--out", type=Path, metavar="FILE.csv", help="write id, patient, y_true, y_score")
    evaluate.set_defaults(command=_evaluate)

    predict = commands.add_parser("predict", help="the probability of each picture under a checkpoint")
    predict.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    predict.add_argument(
        "--checkpoint", type=Path, required=True, help="a model.safetensors of either framework"
    )
    predict.add_argument(
        "--out", type=Path, metavar="FILE.csv", help="write path, y_score, y_pred, label, error"
    )
    predict.set_defaults(command=_predict)

    info = commands.add_parser("info", help="versions, device and models")
    info.set_defaults(command=_info)

    run = commands.add_parser("run", help="carry out one run of a prepared study (what train does for each)")
    run.add_argument("study", type=Path, help="the study's folder")
    run.add_argument("run", help="TASK/MODEL/FRAMEWORK/LANE/seedS-foldF")
    run.add_argument("--cores", help=argparse.SUPPRESS)
    run.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)  # started by the engine
    run.set_defaults(command=_run)

    for command in (evaluate, predict, info):
        command.add_argument("--device", choices=config.DEVICES, default="auto", help="default: %(default)s")
    for command in (evaluate, predict, info, run):
        command.add_argument(
            "--threads", type=positive_integer, default=measure.usable_cores(), help="default: all cores"
        )
    return parser


def _train(framework: Framework, arguments: argparse.Namespace, console: Console) -> int:
    study, directory = study_of(arguments, [framework.name()]), directory_of(arguments)
    failed = carry_out(study, directory, console)
    report_study(directory, console)
    return 1 if failed else 0


def _evaluate(framework: Framework, arguments: argparse.Namespace, console: Console) -> int:
    framework.configure(Settings(arguments.device, "float32", arguments.threads))
    classifier = load_classifier(framework, arguments.checkpoint)
    with tempfile.TemporaryDirectory() as scratch:
        part, data, warning = (
            _all_of(arguments.data, classifier, Path(scratch), console)
            if arguments.data
            else _test_part(arguments, classifier)
        )
        y_score = score_part(framework, classifier, part)
    columns = {"id": part.ids, "patient": part.patients, "y_true": part.labels, "y_score": y_score}
    if arguments.out:
        write_csv(arguments.out, pd.DataFrame(columns))
    patients = patient_table(part.patients, part.labels, y_score)
    levels = {f"{len(part)} slices": (part.labels, y_score)}
    levels[f"{len(patients.y_true)} patients"] = (patients.y_true, patients.y_score)
    scores = [classification_scores(*level, classifier.threshold) for level in levels.values()]
    table = Table("", *levels, title=f"{arguments.checkpoint} in {framework.name()}", title_justify="left")
    for name, title in TITLE.items():
        table.add_row(title, *(f"{values[name]:.4f}" for values in scores))
    console.print(table)
    console.print(f"data: {data}. {NOTICE}", markup=False)
    if warning:
        console.print(f"warning: {warning}", markup=False, style="yellow")
    return 0


def _all_of(
    folders: Sequence[str], classifier: Classifier, scratch: Path, console: Console
) -> tuple[Part, str, str]:
    """Every readable sample of the folders, the words for them, and a warning or nothing."""
    samples = open_dataset(*folders)
    cache = build_cache(samples, classifier.spec.image_size, scratch)
    for row in cache.unreadable:
        console.print(f"left out: {row.reason}", markup=False)
    samples = keep_readable(samples, cache)
    warning = ""
    if samples_digest(samples) == classifier.header.get("samples_sha256"):
        warning = "these are the images of the study that trained this model, its training part included"
    split = pd.Series("all", index=samples["id"].tolist())
    part = select_part(cache, samples, split, "all", classifier.task)
    return part, f"all of {', '.join(folders)}", warning


def _test_part(arguments: argparse.Namespace, classifier: Classifier) -> tuple[Part, str, str]:
    """The test part of a study's fold, the words for it, and a warning or nothing.

    Raises StudyError, unless told to go on anyway, where the model may have been trained on those patients.
    """
    task, size, header = classifier.task, classifier.spec.image_size, classifier.header
    trained_fold = header.get("run", {}).get("fold", 0)
    fold = trained_fold if arguments.fold is None else arguments.fold
    record = read_study(arguments.study)
    folder = record.document["caches"].get(str(size))
    table = record.split()
    table = table[table["task"] == task.name]
    split = table[table["fold"] == fold].set_index("id")["split"]
    if folder is None or split.empty:
        raise StudyError(f"{arguments.study} has no {size} px {task.name} data of fold {fold}")
    found = {"samples_sha256": record.document["samples_sha256"], "split_sha256": split_digest(table)}
    warning = ""
    if any(header.get(name, digest) != digest for name, digest in found.items()):
        warning = (
            f"{arguments.checkpoint} was trained on other data or another split than {arguments.study} has"
        )
    elif fold != trained_fold:
        warning = f"{arguments.checkpoint} was trained on fold {trained_fold}, and this is fold {fold}"
    if warning:
        warning += ", so it may have been trained on these patients"
        if not arguments.anyway:
            raise StudyError(f"{warning}; give its own study and fold, or --anyway")
    samples = record.samples()
    part = select_part(open_cache(record.directory / folder), samples, split, "test", task)
    return part, f"the test part of {arguments.study}, fold {fold}", warning


def _predict(framework: Framework, arguments: argparse.Namespace, console: Console) -> int:
    framework.configure(Settings(arguments.device, "float32", arguments.threads))
    classifier = load_classifier(framework, arguments.checkpoint)
    results = score_pictures(framework, classifier, arguments.images)
    rows: list[dict[str, object]] = []
    for path, result in zip(arguments.images, results, strict=True):
        if isinstance(result, ImageError):
            rows.append(
                {"path": str(path), "y_score": None, "y_pred": None, "label": "", "error": str(result)}
            )
            continue
        y_pred = int(result >= classifier.threshold)
        label = classifier.task.classes[y_pred]
        rows.append({"path": str(path), "y_score": result, "y_pred": y_pred, "label": label, "error": ""})
    table = pd.DataFrame(rows)
    if arguments.out:
        write_csv(arguments.out, table)
    trained_on = ", ".join(classifier.header.get("data", ["unknown data"]))
    positive = classifier.task.classes[1]
    console.print(f"probability of {positive}; trained on {trained_on}. {NOTICE}", markup=False)
    for row in rows:
        text = row["error"] or f"{row['y_score']:.4f}  {row['label']}"
        console.print(f"{row['path']}  {text}", markup=False)
    return 1 if any(row["error"] for row in rows) else 0


def _info(framework: Framework, arguments: argparse.Namespace, console: Console) -> int:
    device = framework.configure(Settings(arguments.device, "float32", arguments.threads))
    facts = {"device": device, **framework.environment(), **measure.common_environment()}
    facts["models"] = ", ".join(
        f"{name} ({sum(a.size for a in framework.read_weights(framework.build(spec)).values()):,} parameters)"
        for name, spec in MODELS.items()
    )
    facts["notice"] = NOTICE
    for name, value in facts.items():
        console.print(f"{name:24} {value}", markup=False)
    return 0


def _run(framework: Framework, arguments: argparse.Namespace, console: Console) -> int:
    record = read_study(arguments.study)
    named = {str(run.path): run for run in record.study.runs()}
    run = named.get(arguments.run)
    if run is None:
        raise StudyError(
            f"{arguments.run!r} is no run of {arguments.study}; its first is {next(iter(named))}"
        )
    if run.framework != framework.name():
        raise StudyError(f"run {arguments.run!r} is for {run.framework}, and this is {framework.name()}")
    if not arguments.supervised:
        return _run_supervised(record.directory, record.study, run, arguments.threads, console)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)  # the stream has threads of its own; more would fight the framework for cores
    if arguments.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in arguments.cores.split(",")})
    try:
        execute(framework, arguments.study, run, arguments.threads, _emit)
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
    """End this process when the one that holds our standard input is gone, however it went."""
    os.read(0, 1)  # nothing is ever written to it: this returns at its end
    os._exit(3)
