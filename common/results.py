"""The run directory: written atomically, read back without trust, never silently overwritten.

```
STUDY/study.json                                    Study, versions, data digest, who had an interpreter of its own
STUDY/data/samples.csv  split.csv  audit.json       the table; `id,fold,split,task`; what was left out and why
STUDY/.lock                                         held by the command that works here, else free; never removed
STUDY/runs/TASK/MODEL/FRAMEWORK/LANE/seed0-fold0/     an A/A run: seed0-fold0-repeat1/
    snapshot.safetensors  snapshot.json             of a run under way, to be gone on from (`common.snapshots`)
    history.csv  predictions.npz  model.safetensors  run.log  engine.json
    .attempt                                        token of the try that is under way (`common.fence`)
    run.json                                        last, by rename: a run without it never happened
```

`run.log` has the words of a run's processes, of every try and start: "--- failed TIME: reason" and "--- started again
TIME" stand between them; of earlier ones `config.RUN_LOG_BYTES` are kept.

`run.json` (format 3):

```
format        3
status        "complete" | "failed"            reason   null | one sentence
run           {task, model, framework, lane, seed, fold, repeat}
attempt       null | str                       token of the try that wrote this (`common.fence`); older records lack it
spec, recipe  the model spec and recipe as this framework had them in its lane (`config.in_lane`); study.json has those
              that the lanes start from
environment   {name: version or setting}       variables  {environment variable: value}
device        "cpu" | "cuda"                   threads    int        precision  "bfloat16" | "float32" | "float64"
replicas      null | {devices, processes, batch_norm, backend}   of a run that several devices share: `threads` are
              those of one of them, timings and memory those of the first one (older records lack it)
git_commit    str | null                       command    what repeats this run
data          {samples_sha256, split_sha256, cache_sha256, counts: {split: {samples, patients, class name: n, ...}}};
              of a segmentation run also masks_sha256, the decoded masks, as cache_sha256 the decoded pixels
batches       {hashed, sha256, order_sha256}   the first training batches, byte for byte; the rows of all of them
weights       {initial_sha256, final_sha256, parameters}
pretrained    null | {source, sha256}          the file that the backbone started from, hashed by the run
phases        [{trainable, epochs, batch_norm}, ...]
choice        {epoch, val_loss, rule}          threshold  {value, rule} | {value: null} where the largest score decides
model         {flops, checkpoint_bytes}        forward operations of one image (`common.flops`), bytes of the checkpoint
timings       import_seconds, data_seconds, build_seconds, trainer_seconds, first_step_seconds, compile_seconds,
              step_p50_seconds, step_p95_seconds, steady_images_per_second, wait_seconds, train_seconds,
              evaluate_seconds, checkpoint_seconds, latency_seconds, total_seconds, cpu_seconds; trainer_seconds made
              loss and optimizer, compile_seconds is what the cold steps took beyond steady ones, latency_seconds what
              measuring the latency took. Natively epochs are timed, not steps: first_step, compile, step_* and
              wait are null (empty in history.csv), steady_images_per_second is of the epochs but the first of a phase.
              latency {"1": seconds, "N": seconds, batch_size: N}, of one image and of a batch of N (`common.latency`)
memory        {peak_rss_mib, peak_device_mib}  largest resident set of the process (VmHWM) and most that the framework
              held of a GPU's memory (null on a CPU), both before the latency was measured
energy        null | {joules, source}          of training, judging each epoch included; "nvml" or "rapl"
resumed       [epoch, ...]                     after which the run was interrupted and another process went on from a
              snapshot; [] if never. Then train_, evaluate_, wait_, first_step_ and compile_seconds, the steps and the
              seconds of history.csv are of all processes, but for what was lost with one; all other timings, memory and
              threads are of the last; energy is null. Nothing else differs from a run that was never disturbed. The
              report leaves such runs out of what it says of time and memory.
              (records of earlier versions lack model, energy, data_, trainer_, compile_, latency_seconds, latency,
              resumed, alarms and stopped)
alarms        [{epoch, kind, words}, ...]      what went wrong without an error (`common.alarms`)
stopped       null | {epoch, rule}             of a run that ended before its last epoch, by a rule
started, finished                              UTC, ISO 8601
notice        research only
files         {name: sha256}                   of history.csv, predictions.npz and model.safetensors, checked when read
              (`common.seals`; older records lack it)
seal_sha256   of all else in the record, checked when it is read (older records lack it)
```

A failed run has at least format, status, reason, run, started, finished, notice.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from common import config, records, seals
from common.config import Run
from common.errors import StudyError
from common.files import (
    FORMULA_STARTS,
    defused,
    read_json,
    read_text_table,
    restored,
    write_atomically,
    write_csv,
    write_json,
    write_page,
    write_text,
    write_text_table,
)
from common.names import lies_below
from common.predictions import (
    AnyPredictions,
    MaskPredictions,
    Predictions,
    pack_masks,
    read_mask_predictions,
    read_predictions,
    unpack_masks,
    write_predictions,
)

__all__ = [  # one door to a study's files
    "FORMULA_STARTS", "AnyPredictions", "MaskPredictions", "Predictions", "defused", "pack_masks", "read_json",
    "read_mask_predictions", "read_predictions", "restored", "unpack_masks", "write_atomically", "write_csv",
    "write_json", "write_page", "write_predictions", "write_text", "write_text_table",
]  # fmt: skip
FORMAT = 3
HISTORY_COLUMNS = (
    "epoch",  # from 1
    "step",  # optimizer steps done
    "learning_rate",  # of the epoch's last step
    "train_loss",  # mean of the epoch's steps
    "val_loss",
    "val_score",  # the task's primary metric on validation
    "seconds",  # of the training part
    "images_per_second",
    "wait_seconds",  # spent waiting for data; empty where steps are not timed
)


# --- reading ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunRecord:
    """One run as found on disk."""

    run: Run
    directory: Path
    document: Mapping[str, Any]  # run.json

    @property
    def complete(self) -> bool:
        return self.document["status"] == "complete"

    def history(self) -> pd.DataFrame:
        """HISTORY_COLUMNS as numbers, gaps as NaN. Raises StudyError for anything else."""
        path = self._own("history.csv")
        table = read_text_table(path, HISTORY_COLUMNS)
        try:
            return table.replace("", "nan").astype(float).astype({"epoch": int, "step": int})
        except ValueError as error:
            raise StudyError(f"{path} holds what is no number ({error})") from error

    def predictions(self) -> Predictions:
        """Of a classifier."""
        return read_predictions(self._own("predictions.npz"))

    def mask_predictions(self) -> MaskPredictions:
        """Of a segmenter."""
        return read_mask_predictions(self._own("predictions.npz"))

    def change(self, name: str) -> str:
        """That a file was changed since the run wrote it, or cannot be read, in words; empty where neither is so."""
        try:
            self._own(name)
        except StudyError as error:
            return str(error)
        return ""

    def _own(self, name: str) -> Path:
        """A file that the run wrote. Raises StudyError where it is another by now."""
        seals.check_file(self.directory / name, self.document)
        return self.directory / name


@dataclass(frozen=True)
class StudyRecord:
    """A study as found on disk."""

    directory: Path
    document: Mapping[str, Any]  # study.json
    study: config.Study
    runs: tuple[RunRecord, ...]  # every run that has a run.json, complete or failed, in the order of the grid

    @property
    def complete(self) -> tuple[RunRecord, ...]:
        return tuple(record for record in self.runs if record.complete)

    def samples(self) -> pd.DataFrame:
        """The sample table. Raises StudyError where it is damaged or an id stands twice."""
        path = self._own("samples.csv")
        table = read_text_table(path, ("id", "label", "patient"))
        _refuse_repeated(path, table, ["id"])
        return table

    def split(self) -> pd.DataFrame:
        """Columns id, fold (int), split, task. Raises StudyError where it is damaged or a sample stands twice."""
        path = self._own("split.csv")
        table = read_text_table(path, ("id", "fold", "split", "task"))
        odd = ~table["fold"].str.fullmatch("[0-9]{1,4}")
        if odd.any():
            raise StudyError(f"{path} has the fold {table['fold'][odd].iloc[0]!r}; restore it from a copy")
        table["fold"] = table["fold"].astype(int)
        _refuse_repeated(path, table, ["id", "fold", "task"])
        return table

    def cache_directory(self, size: int) -> Path:
        """The cache of a size in px. Raises StudyError where study.json names none, or one outside of the study."""
        name = self.document.get("caches", {}).get(str(size), "")
        if not lies_below(self.directory, name):
            raise StudyError(
                f"{self.directory / 'study.json'} names no cache of {size} px within the study's folder; repeat the "
                "study's command"
            )
        return self.directory / name

    def _own(self, name: str) -> Path:
        """A table of the study's. Raises StudyError where it is another by now."""
        path = self.directory / "data" / name
        seals.check_file(path, self.document, "study.json")
        return path

    def audit(self) -> dict[str, Any]:
        return read_json(self.directory / "data" / "audit.json", config.MAX_TABLE_BYTES)


def run_directory(study_directory: Path, run: Run) -> Path:
    return study_directory / "runs" / run.path


def _refuse_repeated(path: Path, table: pd.DataFrame, columns: list[str]) -> None:
    repeated = table[table.duplicated(columns)]
    if len(repeated):
        raise StudyError(f"{path} has {repeated['id'].iloc[0]!r} twice; restore it from a copy")


def discard_damaged(directory: Path) -> None:
    """Remove a run.json that is no JSON object, as a failing disk leaves it; anything else is kept.

    Neither are a pipe, which reading would wait for, and what is far too large for a record. Raises StudyError for a
    folder of that name.
    """
    path = directory / "run.json"
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise StudyError(f"{path} is a folder; delete it")
        readable = stat.S_ISREG(status.st_mode) and status.st_size <= config.MAX_RECORD_BYTES
        damaged = not readable or not isinstance(json.loads(path.read_bytes()), dict)
    except FileNotFoundError:
        return
    except (ValueError, RecursionError):
        damaged = True
    if damaged:
        path.unlink()


def read_run(study_directory: Path, run: Run) -> RunRecord | None:
    """The run's record, or None if it never happened.

    A run.json that is damaged, or of another run or format, counts as a failed run: one lost record must hide neither
    the others nor itself.
    """
    directory = run_directory(study_directory, run)
    if not (directory / "run.json").exists():
        return None
    key = config.to_json(run)
    try:
        document = read_json(directory / "run.json")
        known = document.get("status") in ("complete", "failed")
        ours = document.get("format") == FORMAT and document.get("run") == key and known
        fault = (
            records.record_fault(document) if ours else f"is not the record of this run in format {FORMAT}"
        )
        if not fault and seals.is_broken(document):
            fault = "was changed after its run had written it"
        if not fault:
            return RunRecord(run, directory, document)
    except StudyError:
        fault = "is damaged"
    reason = f"runs/{run.path}/run.json {fault}; delete its folder"
    return RunRecord(run, directory, {"format": FORMAT, "status": "failed", "reason": reason, "run": key})


def read_study(directory: Path) -> StudyRecord:
    """Everything of a study but its arrays. Raises StudyError where there is none, or one in another format."""
    if not (directory / "study.json").exists():
        raise StudyError(
            f"{directory / 'study.json'} does not exist; give the folder of a study, as --out named it"
        )
    document = read_json(directory / "study.json")
    written = document.get("format", FORMAT)
    if written != FORMAT:
        whose = "an earlier" if isinstance(written, int) and written < FORMAT else "another"
        raise StudyError(
            f"{directory / 'study.json'} was written in format {written} by {whose} version; this version reads "
            f"{FORMAT}: run the study again in another --out"
        )
    try:
        study = config.study_from_json(document["study"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StudyError(f"{directory / 'study.json'} does not describe a study ({error!r})") from error
    if fault := records.study_fault(study) or records.document_fault(document):
        raise StudyError(f"{directory / 'study.json'} does not describe a study: {fault}")
    found = (read_run(directory, run) for run in study.runs())
    return StudyRecord(directory, document, study, tuple(record for record in found if record is not None))
