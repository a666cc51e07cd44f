"""Snapshots of a training under way: what a run that was killed goes on from, as if it had never been disturbed.

```
RUN/snapshot.safetensors    weights/NAME, trainer/NAME (`Framework.read_trainer_state`), kept/NAME where the best epoch
                            is an earlier one, step_seconds
RUN/snapshot.json           last; format, identity, epoch, history and clocks so far, digests of the batches so far;
                            sha256 of itself without this line and of the tensors
```

A snapshot is gone on from only by the run that it is of: with its spec, recipe, data, versions, code, device and
precision (`identity`). Anything else, damaged files included, is removed with a line that says why, and the run begins
anew. Everything else that training depends on (order, augmentation, rates) comes from the seed and the epoch alone.
Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from common import config
from common.codebase import PACKAGES, ROOT
from common.config import NOTICE
from common.framework import Array, Weights
from common.results import write_atomically
from common.schedule import choose_epoch

FORMAT = 1
TENSORS, DOCUMENT = "snapshot.safetensors", "snapshot.json"
DTYPES = {"float32": "F32", "float64": "F64", "int32": "I32", "int64": "I64", "uint8": "U8", "uint32": "U32"}


@dataclass(frozen=True)
class Progress:
    """A training after some epochs: all that the rest depends on, and what its record will tell of the part done."""

    epoch: int  # the last one finished, from 1
    rows: tuple[Mapping[str, float], ...]  # of the history, one an epoch
    weights: Weights
    trainer: Weights  # `Framework.read_trainer_state`
    kept: Weights  # of the best epoch so far
    train_seconds: float
    evaluate_seconds: float
    wait_seconds: float  # NaN where steps are not timed
    step_seconds: Array  # (steps,), none where steps are not timed
    cold_steps: tuple[int, ...]  # places in step_seconds
    batches: Mapping[str, int | str]  # `Witness.record`
    resumed: tuple[int, ...] = ()  # the epochs after which the run was picked up again


@dataclass(frozen=True)
class SnapshotKeeper:
    """Where a run keeps its snapshot, whose it is, and how often it is written."""

    directory: Path  # of the run
    identity: Mapping[str, Any]  # plain JSON; what another value of makes another training
    every: int | None  # epochs; 0: never; None: whenever config.SNAPSHOT_SECONDS have passed
    turn: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext  # `Fence.turn`

    def due(self, epoch: int, seconds: float) -> bool:
        """Whether to write one after an epoch, `seconds` after the last one or the start."""
        return (
            seconds >= config.SNAPSHOT_SECONDS
            if self.every is None
            else bool(self.every) and not epoch % self.every
        )

    def write(self, progress: Progress) -> None:
        """Replace the snapshot. A disk that does not take it costs the snapshot, not the run."""
        try:
            with self.turn():
                write_snapshot(self.directory, self.identity, progress)
        except OSError as error:
            _say(f"no snapshot after epoch {progress.epoch}: {error.strerror or error}")

    def read(self) -> Progress | None:
        """The progress to go on from; None where there is none. Says what it finds, and removes what is of no use."""
        try:
            progress = read_snapshot(self.directory, self.identity)
        except FileNotFoundError:
            if (self.directory / TENSORS).exists():
                with self.turn():
                    self.remove()
            return None
        except (OSError, ValueError) as error:
            self.refuse(str(error))
            return None
        _say(f"the run goes on after epoch {progress.epoch}, of which it has a snapshot")
        return progress

    def refuse(self, reason: str) -> None:
        """Remove a snapshot that is of no use."""
        _say(f"the snapshot is removed and the run begins anew: {reason}")
        with self.turn():
            self.remove()

    def remove(self) -> None:
        """Remove the run's snapshot. Within a turn."""
        remove_snapshot(self.directory)


def remove_snapshot(directory: Path) -> None:
    """First the document, without which the tensors are none."""
    for name in (DOCUMENT, TENSORS):
        (directory / name).unlink(missing_ok=True)


def write_snapshot(directory: Path, identity: Mapping[str, Any], progress: Progress) -> None:
    """Write both files. They are on disk before either has its name, so that a kill at any moment leaves the old pair,
    the new one, or, between two renames, one that `read_snapshot` refuses.
    """
    named = {"weights": progress.weights, "trainer": progress.trainer}
    best = progress.epoch == best_epoch(progress.rows)  # its weights are in `weights` already
    named |= {} if best else {"kept": progress.kept}
    tensors = {f"{group}/{name}": array for group, arrays in named.items() for name, array in arrays.items()}
    tensors["step_seconds"] = progress.step_seconds
    document = {
        "format": FORMAT,
        "notice": NOTICE,
        "identity": dict(identity),
        "epoch": progress.epoch,
        "history": [{name: _finite(value) for name, value in row.items()} for row in progress.rows],
        "train_seconds": progress.train_seconds,
        "evaluate_seconds": progress.evaluate_seconds,
        "wait_seconds": _finite(progress.wait_seconds),
        "cold_steps": list(progress.cold_steps),
        "batches": dict(progress.batches),
        "resumed": list(progress.resumed),
    }
    text = (
        json.dumps(
            {**document, "sha256": _digest(document, safetensors_bytes(tensors))}, indent=2, allow_nan=False
        )
        + "\n"
    )

    def write(stream: BinaryIO) -> None:
        stream.write(text.encode())
        stream.flush()
        write_atomically(directory / TENSORS, lambda other: other.writelines(safetensors_bytes(tensors)))

    write_atomically(directory / DOCUMENT, write)


def read_snapshot(directory: Path, identity: Mapping[str, Any]) -> Progress:
    """The progress that the files hold.

    Raises FileNotFoundError where there is no snapshot, ValueError for a damaged one and for one of another identity.
    """
    text = (directory / DOCUMENT).read_bytes()
    try:
        document, blob = json.loads(text), (directory / TENSORS).read_bytes()
        told = document.pop("sha256")
        if document["format"] != FORMAT:
            raise ValueError(f"it is in format {document['format']}, this version reads {FORMAT}")
        if told != _digest(document, [blob]):
            raise ValueError("it is damaged: its digest is another")
    except (
        KeyError,
        TypeError,
        AttributeError,
        FileNotFoundError,
        UnicodeDecodeError,
        json.JSONDecodeError,
    ) as error:
        raise ValueError(f"it is damaged ({error!r})") from error
    if others := _differing(document["identity"], identity):
        raise ValueError(f"it is of another {', '.join(others)}")
    try:
        return _progress(document, load(blob))
    except (KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ValueError(f"it is damaged ({error!r})") from error


def _progress(document: Mapping[str, Any], tensors: Weights) -> Progress:
    groups: dict[str, dict[str, Array]] = {"weights": {}, "trainer": {}, "kept": {}}
    for name, array in tensors.items():
        group, _, own = name.partition("/")
        if own:
            groups[group][own] = array
    rows = tuple(
        {name: math.nan if value is None else value for name, value in row.items()}
        for row in document["history"]
    )
    waited = document["wait_seconds"]
    return Progress(
        document["epoch"],
        rows,
        groups["weights"],
        groups["trainer"],
        groups["kept"] or groups["weights"],
        document["train_seconds"],
        document["evaluate_seconds"],
        math.nan if waited is None else waited,
        tensors["step_seconds"],
        tuple(document["cold_steps"]),
        document["batches"],
        tuple(document["resumed"]),
    )


def code_digest() -> str:
    """sha256 over the Python files that a training could depend on: the three packages without the report.

    A commit would not do: it changes with every word of a README, and a copy without a repository has none.
    """
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "report" not in path.relative_to(ROOT).parts:
                digest.update(path.relative_to(ROOT).as_posix().encode() + b"\n" + path.read_bytes())
    return digest.hexdigest()


def best_epoch(rows: Sequence[Mapping[str, float]]) -> int:
    """The epoch whose weights are kept, from 1."""
    return choose_epoch([row["val_loss"] for row in rows]) + 1


def safetensors_bytes(tensors: Weights) -> Iterator[bytes | memoryview]:
    """A safetensors file piece by piece: the library's own writer copies every tensor once more, which would show in
    the run's peak of memory.
    """
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    ends = list(accumulate(array.nbytes for array in arrays.values()))
    header = {
        name: {
            "dtype": DTYPES[str(array.dtype)],
            "shape": array.shape,
            "data_offsets": (end - array.nbytes, end),
        }
        for (name, array), end in zip(arrays.items(), ends, strict=True)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for array in arrays.values():
        yield array.tobytes() if array.ndim == 0 or not array.size else array.data.cast("B")


def _digest(document: Mapping[str, Any], pieces: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _differing(found: Any, wanted: Mapping[str, Any]) -> list[str]:
    """Names of the parts of an identity that are not those of this run."""
    found = found if isinstance(found, Mapping) else {}
    wanted = json.loads(json.dumps(wanted))  # tuples are lists in a file
    return sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def _say(words: str) -> None:
    """A line of run.log."""
    print(words, file=sys.stderr, flush=True)
