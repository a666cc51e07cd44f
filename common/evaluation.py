"""Judging a checkpoint again: on a study's test part, or on every image of other data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from common.data.batches import Part, select_part
from common.data.cache import build_cache, keep_readable, open_cache
from common.data.layouts import open_dataset
from common.data.samples import samples_digest, takes_part
from common.data.splits import split_digest, why_not
from common.errors import StudyError
from common.framework import Framework
from common.inference import BATCH_SIZE, TrainedModel, run_of
from common.metrics import classification, segmentation
from common.metrics.counts import THRESHOLD
from common.prediction import predict_masks, predict_scores
from common.results import read_study

ALL = "all"  # the name of a part that is everything


def all_of(
    folders: Sequence[str], trained: TrainedModel, scratch: Path, console: Console
) -> tuple[Part, str, str]:
    """Every readable sample of the folders that the task can use, the words for them, and a warning or nothing."""
    task = trained.task
    samples = open_dataset(*folders)
    # All are tested on, so none is needed for training and validation
    if reason := why_not(samples.assign(split="test"), task):
        raise StudyError(f"{', '.join(folders)} cannot serve the task {task.name!r}: {reason}")
    cache = build_cache(samples, trained.spec.image_size, scratch, masks=task.kind == "segmentation")
    for row in (*cache.unreadable, *cache.unreadable_masks):
        console.print(f"left out: {row.reason}", markup=False)
    readable = keep_readable(samples, cache)
    warning = ""
    digest = samples_digest(samples[samples["id"].isin(readable["id"])])  # as a study takes it
    if digest == trained.header.get("samples_sha256"):
        warning = "these are the images of the study that trained this model, its training part included"
    used = readable[takes_part(readable, task)]
    part = select_part(cache, used, pd.Series(ALL, index=used["id"].tolist()), ALL, task)
    return part, f"all of {', '.join(folders)}", warning


def held_out_part(
    study: Path, fold: int | None, trained: TrainedModel, checkpoint: Path, anyway: bool
) -> tuple[Part, str, str]:
    """The test part of a study's fold (None: the one it was trained on), the words for it, and a warning or nothing.

    Raises StudyError, unless told to go on anyway, where the model may have been trained on those patients.
    """
    task, size, header = trained.task, trained.spec.image_size, trained.header
    trained_fold = run_of(header).get("fold", 0)
    fold = trained_fold if fold is None else fold
    record = read_study(study)
    prepared = str(size) in (record.document.get("caches") or {})
    table = record.split()
    table = table[table["task"] == task.name]
    split = table[table["fold"] == fold].set_index("id")["split"]
    if not prepared or split.empty:
        raise StudyError(f"{study} has no {size} px {task.name} data of fold {fold}")
    found = {"samples_sha256": record.document.get("samples_sha256"), "split_sha256": split_digest(table)}
    warning = ""
    if any(header.get(name, digest) != digest for name, digest in found.items()):
        warning = f"{checkpoint} was trained on other data or another split than {study} has"
    elif fold != trained_fold:
        warning = f"{checkpoint} was trained on fold {trained_fold}, and this is fold {fold}"
    if warning:
        warning += ", so it may have been trained on these patients"
        if not anyway:
            raise StudyError(f"{warning}; give its own study and fold, or --anyway")
    samples = record.samples()
    part = select_part(open_cache(record.cache_directory(size)), samples, split, "test", task)
    return part, f"the test part of {study}, fold {fold}", warning


def evaluate_part(
    framework: Framework, trained: TrainedModel, part: Part, title: str
) -> tuple[pd.DataFrame, Table]:
    """A row a sample for a file, and the scores as a table for the console."""
    if trained.task.kind == "segmentation":
        return _evaluate_masks(framework, trained, part, title)
    y_score = predict_scores(framework, trained.model, part, BATCH_SIZE, trained.spec)
    columns = {"id": part.ids, "patient": part.patients, "y_true": part.labels}
    if y_score.ndim > 1:
        columns |= {f"y_score_{name}": y_score[:, k] for k, name in enumerate(trained.task.classes)}
        return pd.DataFrame(columns), _class_table(part, y_score, trained, title)
    patients = classification.patient_table(part.patients, part.labels, y_score)
    levels = {f"{len(part)} slices": (part.labels, y_score)}
    levels[f"{len(patients.y_true)} patients"] = (patients.y_true, patients.y_score)
    threshold = THRESHOLD if trained.threshold is None else trained.threshold
    scores = [classification.classification_scores(*level, threshold) for level in levels.values()]
    table = Table("", *levels, title=title, title_justify="left")
    for name, words in classification.TITLE.items():
        table.add_row(words, *(f"{values[name]:.4f}" for values in scores))
    return pd.DataFrame(columns | {"y_score": y_score}), table


def _class_table(part: Part, y_score: np.ndarray, trained: TrainedModel, title: str) -> Table:
    """One column a class (against the rest) and their mean."""
    classes = trained.task.classes
    per_class = classification.per_class_scores(part.labels, y_score)
    overall = classification.classification_scores(part.labels, y_score)
    table = Table("", *classes, "macro", title=f"{title}, {len(part)} slices", title_justify="left")
    for name, words in classification.TITLE.items():
        cells = per_class.get(name)
        each = ("" for _ in classes) if cells is None else (f"{cell:.4f}" for cell in cells)
        table.add_row(words, *each, f"{overall[name]:.4f}")
    return table


def _evaluate_masks(
    framework: Framework, trained: TrainedModel, part: Part, title: str
) -> tuple[pd.DataFrame, Table]:
    assert trained.threshold is not None  # a segmenter has one: see `load_model`
    found = predict_masks(framework, trained.model, {ALL: part}, BATCH_SIZE, trained.spec, trained.threshold)
    scores = segmentation.case_scores(found, trained.spec.image_size)
    rows = pd.DataFrame({"id": found.sample_id, "patient": found.patient, "tp": found.tp, "fp": found.fp,
                         "fn": found.fn, "tn": found.tn, **scores})  # fmt: skip
    lesions = int((found.tp + found.fn > 0).sum())
    table = Table("", "", title=title, title_justify="left")
    table.add_row("Slices with a lesion", str(lesions))
    table.add_row("Slices without", str(len(part) - lesions))
    for name, words in segmentation.TITLE.items():
        mean = segmentation.weighted_mean(scores[name], scores[name])
        table.add_row(words, "" if np.isnan(mean) else f"{mean:.4f}")
    return rows, table
