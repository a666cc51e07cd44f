"""Fuzz the reader of a study's folder: its JSON, CSV, predictions and weights files; see `fuzzing`.

The first byte of an input chooses the file that is replaced, the rest is its content. JSON is changed as JSON in half
of the cases: values of other types, huge numbers, names that point elsewhere.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import zipfile
from pathlib import Path

import atheris
import fuzzing

with atheris.instrument_imports(include=["common"]):
    from common import inference, pretrained, results, weights
    from common.report import audit_views, costs, evidence
    from common.report.context import skipped_tasks, unknown_patients
    from common.report.terminal import terminal_summary

import records

from common.errors import StudyError

FOLDER = fuzzing.scratch() / "study"
RUN = "runs/binary/cnn/torch/aligned/seed0-fold0"
FILES = (
    f"{RUN}/run.json",
    "study.json",
    f"{RUN}/predictions.npz",
    f"{RUN}/model.safetensors",
    f"{RUN}/history.csv",
    "data/samples.csv",
    "data/split.csv",
    "data/audit.json",
    "summary.json",
)
ORIGINAL: dict[str, bytes] = {}


def target(data: bytes) -> None:
    if not data:
        return
    name = FILES[data[0] % len(FILES)]
    path = FOLDER / name
    path.write_bytes(data[1:])
    try:
        if name.endswith(".safetensors"):
            read_weights(path)
        elif name == "summary.json":
            terminal_summary(FOLDER)
        else:
            read_study(name)
    finally:
        path.write_bytes(ORIGINAL[name])


def read_weights(path: Path) -> None:
    for read in (weights.read_checkpoint, inference.describe_checkpoint):
        with contextlib.suppress(StudyError):
            read(path)
    pretrained.load_pretrained(path, {"a.weight": (2, 2)}, "head")


def read_study(name: str) -> None:
    """What rests on a file, of what a report does first."""
    if name.endswith(".npz"):
        results.read_predictions(FOLDER / name)
        return
    record = results.read_study(FOLDER)
    for one in record.complete[:1]:
        one.history()
        costs.cost(one)
        costs.training_gflop(one)
        evidence.threshold_of(one)
        evidence.flatten(one.document)
    if name.startswith("data"):
        audit_views.audit_section(record.audit())
        unknown_patients(record.audit())
        skipped_tasks(record.audit())
        record.samples().merge(record.split(), on="id")


def prepare() -> None:
    records.write_study(FOLDER)
    for name in FILES:
        ORIGINAL[name] = (FOLDER / name).read_bytes()


def mutate(data: bytes, most: int, seed: int) -> bytes:
    if seed % 2 and data:
        name = FILES[data[0] % len(FILES)]
        chance = random.Random(seed)
        if name.endswith(".json"):
            try:
                document = json.loads(data[1:])
            except (ValueError, RecursionError):
                document = json.loads(ORIGINAL[name])
            changed = json.dumps(records.disturbed(document, chance)).encode()
            return (data[:1] + changed)[:most]
        if name.endswith(".npz"):
            return (data[:1] + mend_npz(atheris.Mutate(data[1:], most - 1), ORIGINAL[name], chance))[:most]
    return atheris.Mutate(data, most)


def mend_npz(data: bytes, original: bytes, chance: random.Random) -> bytes:
    """One array of the archive changed, its checksum right."""
    try:
        with zipfile.ZipFile(io.BytesIO(original)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:
        return data
    name = chance.choice(sorted(members))
    members[name] = atheris.Mutate(members[name], len(members[name]) + 64)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return stream.getvalue()


def seeds() -> list[bytes]:
    found = [bytes([number]) + ORIGINAL[name] for number, name in enumerate(FILES)]
    weights_at = FILES.index(f"{RUN}/model.safetensors")
    return found + [
        bytes([weights_at]) + data for data in records.weights_files().values() if len(data) < 20_000
    ]


if __name__ == "__main__":
    prepare()
    fuzzing.fuzz(target, seeds(), 30_000, mutate)
