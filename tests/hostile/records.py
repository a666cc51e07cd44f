"""Hostile and odd files, written anew each time and never committed: weights, predictions and records of a study."""

from __future__ import annotations

import io
import json
import random
import struct
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "common"))  # its fixtures

RUN = "runs/binary/cnn/torch/aligned/seed0-fold0"
TENSOR = "features.0.weight"


# --- safetensors --------------------------------------------------------------------------------------------------


def safetensors(header: Any, data: bytes = b"", claimed: int | None = None) -> bytes:
    """A file with this header, whose length may be claimed to be another."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if claimed is None else claimed) + text + data


def tensor(shape: list[int], begin: int, end: int, kind: str = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


def checkpoint(content: bytes = bytes(8), **changes: Any) -> bytes:
    """A file whose header describes a small CNN, one tensor of `content` in it; `changes` are of the header."""
    from common import config

    spec = config.to_json(config.spec_of("binary", "cnn", "quick"))
    header = {
        "spec": spec,
        "task": "binary",
        "threshold": 0.5,
        "run": {"framework": "torch", "seed": 0, "fold": 0},
    }
    metadata = {"checkpoint": json.dumps(header | changes)}
    only = tensor([len(content) // 4], 0, len(content))
    return safetensors({"__metadata__": metadata, "conv1.weight": only}, content)


def weights_files() -> dict[str, bytes]:
    """Kind -> file."""
    nan = np.full(500_000, np.nan, np.float32).tobytes()
    sound = {"conv1.weight": tensor([4], 0, 16)}
    return {
        "empty": b"",
        "garbage": bytes(range(256)) * 4,
        "header of 10 TB": safetensors(b"{}", claimed=10 * 2**40),
        "header as long as claimed, no JSON": safetensors(b"x" * 64),
        "header nested 100,000 deep": safetensors(b'{"a":' * 100_000),
        "tensor of 10 TB": safetensors({"conv1.weight": tensor([10 * 2**38], 0, 10 * 2**40)}, bytes(16)),
        "product of the shape overflows": safetensors(
            {"conv1.weight": tensor([2**33, 2**33], 0, 16)}, bytes(16)
        ),
        "overlapping tensors": safetensors(sound | {"b": tensor([4], 8, 24)}, bytes(24)),
        "hole between tensors": safetensors(sound | {"b": tensor([4], 32, 48)}, bytes(48)),
        "end before start": safetensors({"conv1.weight": tensor([4], 16, 0)}, bytes(16)),
        "shape of other bytes": safetensors({"conv1.weight": tensor([5], 0, 16)}, bytes(16)),
        "truncated": safetensors(sound, bytes(7)),
        "of unknown type": safetensors({"conv1.weight": tensor([4], 0, 16, "F31")}, bytes(16)),
        "NaN": checkpoint(nan),
        "no checkpoint header": safetensors(sound, bytes(16)),
        "checkpoint header nested deep": safetensors(
            sound | {"__metadata__": {"checkpoint": "[" * 90_000}}, bytes(16)
        ),
        "spec of a picture of 10^6 px": checkpoint(spec=_spec(image_size=10**6)),
        "spec of 10^9 features": checkpoint(spec=_spec(features=[10**9])),
        "spec of 10^10 weights": checkpoint(spec=_spec(features=[60_000, 60_000])),
        "spec of strings": checkpoint(spec=_spec(features="many", kernel_size="3")),
        "seed that is a word": checkpoint(run={"seed": "first", "fold": [0]}),
        "run that is a word": checkpoint(run="torch"),
        "threshold NaN": checkpoint(threshold="NaN"),
        "data that are no names": checkpoint(data=7),
    }


def _spec(**changes: Any) -> dict[str, Any]:
    from common import config

    return {**config.to_json(config.spec_of("binary", "cnn", "quick")), **changes}


# --- predictions --------------------------------------------------------------------------------------------------


def npz(arrays: Mapping[str, bytes], level: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", level) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


def npy(shape: tuple[int, ...], descr: str, data: bytes) -> bytes:
    """An array's file; what its header says need not be so."""
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def of_array(values: Any, dtype: Any = None) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(values, dtype=dtype), allow_pickle=True)
    return stream.getvalue()


def sound_arrays(path: Path) -> dict[str, bytes]:
    """The members of a sound predictions.npz."""
    with zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}


# --- a study ------------------------------------------------------------------------------------------------------


def write_study(directory: Path, names: tuple[str, str] | None = None) -> Path:
    """A small finished study; its runs have weights, its folder a summary."""
    from study_fixture import make_study

    from common import results

    make_study(directory, seeds=1)
    for run in (directory / "runs").rglob("run.json"):
        (run.parent / "model.safetensors").write_bytes(checkpoint())
    scores = {
        "auroc_score": {
            "mean": 0.9,
            "sd": None,
            "minimum": 0.9,
            "maximum": 0.9,
            "ci_low": 0.8,
            "ci_high": 1.0,
        },
        "total_seconds": {"mean": 60.0, "sd": 1.0, "minimum": 59.0, "maximum": 61.0, "runs": 1},
    }
    summary = {
        f"aligned/binary/cnn/{framework}/{name}": entry | {"seeds": 1, "folds": 1, "patients": 8}
        for framework in ("torch", "keras-tensorflow")
        for name, entry in scores.items()
    }
    gap = {
        "difference": 0.01,
        "ci_low": -0.01,
        "ci_high": 0.03,
        "seeds": 1,
        "margin": 0.05,
        "verdict": "undecided",
    }
    summary["aligned/binary/cnn/keras-tensorflow-vs-torch/auroc_score"] = gap
    results.write_json(directory / "summary.json", summary)
    return directory


NASTY: tuple[Any, ...] = (
    None, True, "", "x", "../../../escape", "/etc/passwd", "<script>alert(1)</script>", "=1+1", "\x1b]0;title\x07",
    "\ud800", "\u202egnp", "NaN", 0, -1, 3, 10**6, 10**30, 10**4000, -(10**18), 0.5, 1e308, float("inf"), float("nan"),
    [], {}, [[]], [None], {"a": None}, [10**9], "x" * 5000,
)  # fmt: skip


def disturbed(document: Any, chance: random.Random) -> Any:
    """The document with one value of it, anywhere, replaced, removed, doubled or renamed."""
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        keys = (
            list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        )
        for key in keys:
            places.append((value, key))
            walk(value[key])

    walk(document)
    if not places:
        return chance.choice(NASTY)
    holder, key = chance.choice(places)
    choice = chance.randrange(8)
    if choice == 0:
        del holder[key]
    elif choice == 1 and isinstance(holder, dict):
        holder[chance.choice(("x", "", "../x", "<b>", "10", key.upper()))] = holder.pop(key)
    elif choice == 2:
        other, at = chance.choice(places)
        if isinstance(other, list) == (not isinstance(at, str)) and (
            at in other if isinstance(other, dict) else at < len(other)
        ):
            holder[key] = json.loads(json.dumps(other[at]))
    elif choice == 3 and isinstance(holder[key], int | float):
        holder[key] = holder[key] * chance.choice((-1, 10**6, 0, 1.5))
    else:
        holder[key] = chance.choice(NASTY)
    return document
