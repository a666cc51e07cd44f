"""The run directory: written atomically, read back without trust, never silently overwritten.

```
STUDY/study.json                                    Study, versions, data digest, who had an interpreter of its own
STUDY/data/samples.csv  split.csv  audit.json       the table; `id,fold,split,task`; what was left out and why
STUDY/.lock                                         held by the command that works here, else free; never removed
STUDY/runs/TASK/MODEL/FRAMEWORK/LANE/seed0-fold0/     an A/A run: seed0-fold0-repeat1/
    snapshot.safetensors  snapshot.json             of a run under way, to be gone on from (`common.snapshots`)
    history.csv  predictions.npz  model.safetensors  run.log
    run.json                                        last, by rename: a run without it never happened
```

`run.json` (format 3):

```
format        3
status        "complete" | "failed"            reason   null | one sentence
run           {task, model, framework, lane, seed, fold, repeat}
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
```

A failed run has at least format, status, reason, run, started, finished, notice.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common import config
from common.config import Run
from common.errors import StudyError

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


# --- writing ------------------------------------------------------------------------------------------------------


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write through a temporary sibling and a rename: `path` is absent, old or whole, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)  # mkstemp gives 0600, which would hide results from a group
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda stream: stream.write(text.encode()))


def write_json(path: Path, document: Any) -> None:
    """JSON with the keys in the order given; NaN is refused: it is not JSON, and hides a fault."""
    write_text(path, json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def defused(value: object) -> object:
    """Text that a spreadsheet would run as a formula, with an apostrophe before it. Numbers stay numbers."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


# --- predictions --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Predictions:
    """What a classifier said of each validation and test sample; arrays of equal length N."""

    sample_id: NDArray[np.str_]
    patient: NDArray[np.str_]
    split: NDArray[np.str_]  # "val" | "test" | "external"
    y_true: NDArray[np.int64]  # class index
    y_score: NDArray[np.float64]  # probability of class 1, (N,), or of each class, (N, C)

    def of(self, split: str) -> Predictions:
        """The rows of one split."""
        keep = self.split == split
        return Predictions(
            self.sample_id[keep], self.patient[keep], self.split[keep], self.y_true[keep], self.y_score[keep]
        )


@dataclass(frozen=True)
class MaskPredictions:
    """What a segmenter said of each validation and test slice, on the model's grid; arrays of equal length N.

    Counts are of pixels at the run's own threshold, chosen on validation. `y_true` and `y_pred` are masks packed by
    `numpy.packbits`, row by row: see `unpack`.
    """

    sample_id: NDArray[np.str_]
    patient: NDArray[np.str_]
    split: NDArray[np.str_]  # "val" | "test" | "external"
    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]
    tn: NDArray[np.int64]
    hd95_px: NDArray[np.float64]  # NaN where truth or prediction is empty
    surface_dice: NDArray[np.float64]  # NaN where both are empty
    lesion_tp: NDArray[np.int64]  # lesions found, reported in vain, missed
    lesion_fp: NDArray[np.int64]
    lesion_fn: NDArray[np.int64]
    y_score: NDArray[np.float64]  # the largest lesion probability of the slice
    pixel_mm: NDArray[np.float64]  # side of a pixel of the grid; NaN where unknown
    y_true: NDArray[np.uint8]  # (N, ceil(size * size / 8))
    y_pred: NDArray[np.uint8]
    size: NDArray[np.int64]  # (N,), px a side of the grid, the same for all

    def of(self, split: str) -> MaskPredictions:
        """The rows of one split."""
        keep = self.split == split
        return MaskPredictions(
            **{name: getattr(self, name)[keep] for name in MaskPredictions.__dataclass_fields__}
        )


def pack_masks(masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """bool (N, S, S) -> uint8 (N, ceil(S * S / 8))."""
    return np.packbits(masks.reshape(len(masks), -1), axis=1)


def unpack_masks(packed: NDArray[np.uint8], size: int) -> NDArray[np.bool_]:
    """Inverse of `pack_masks`, bool (N, size, size)."""
    flat = np.unpackbits(packed, axis=1, count=size * size)
    return flat.reshape(len(packed), size, size).astype(bool)


AnyPredictions: TypeAlias = Predictions | MaskPredictions


def write_predictions(path: Path, predictions: AnyPredictions) -> None:
    arrays = {name: getattr(predictions, name) for name in type(predictions).__dataclass_fields__}
    write_atomically(path, lambda stream: np.savez_compressed(stream, **arrays))


def read_predictions(path: Path) -> Predictions:
    """Those of a classifier; raises StudyError for anything but its arrays, all of one length."""
    return Predictions(**_read_arrays(path, Predictions))


def read_mask_predictions(path: Path) -> MaskPredictions:
    """Those of a segmenter; raises StudyError for anything but its arrays, all of one length."""
    return MaskPredictions(**_read_arrays(path, MaskPredictions))


def _read_arrays(path: Path, kind: type[AnyPredictions]) -> dict[str, NDArray[Any]]:
    try:
        # Opened here, because np.load leaves the file open where the archive is damaged.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in kind.__dataclass_fields__}
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise StudyError(
            f"{path} is no predictions file ({error}); delete its run folder to run it again"
        ) from error
    lengths = {array.shape[:1] for array in arrays.values()}
    if len(lengths) != 1:
        raise StudyError(f"{path} holds arrays of different lengths {sorted(lengths)}; delete its run folder")
    return arrays


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
        return pd.read_csv(self.directory / "history.csv")

    def predictions(self) -> Predictions:
        """Of a classifier."""
        return read_predictions(self.directory / "predictions.npz")

    def mask_predictions(self) -> MaskPredictions:
        """Of a segmenter."""
        return read_mask_predictions(self.directory / "predictions.npz")


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
        return pd.read_csv(self.directory / "data" / "samples.csv", dtype=str, keep_default_na=False)

    def split(self) -> pd.DataFrame:
        """Columns id, fold (int), split, task."""
        return pd.read_csv(
            self.directory / "data" / "split.csv",
            dtype={"id": str, "fold": int, "split": str},
            keep_default_na=False,
        )

    def audit(self) -> dict[str, Any]:
        return read_json(self.directory / "data" / "audit.json")


def run_directory(study_directory: Path, run: Run) -> Path:
    return study_directory / "runs" / run.path


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; StudyError if the file is missing or is anything else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise StudyError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(document, dict):
        raise StudyError(f"{path} holds {type(document).__name__}, not an object")
    return document


def discard_damaged(directory: Path) -> None:
    """Remove a run.json that is no JSON object, as a failing disk leaves it; anything else is kept."""
    path = directory / "run.json"
    try:
        damaged = not isinstance(json.loads(path.read_bytes()), dict)
    except FileNotFoundError:
        return
    except ValueError:
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
        if document.get("format") == FORMAT and document.get("run") == key and known:
            return RunRecord(run, directory, document)
        fault = f"is not the record of this run in format {FORMAT}"
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
    found = (read_run(directory, run) for run in study.runs())
    return StudyRecord(directory, document, study, tuple(record for record in found if record is not None))
