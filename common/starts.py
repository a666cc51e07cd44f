"""The files that a study's backbones start from, kept in its folder so that it goes on without their source."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from common.config import Study
from common.errors import StudyError
from common.pretrained import Pretrained, read_kept
from common.results import StudyRecord, write_atomically

FindWeights = Callable[[Sequence[str]], Mapping[str, Pretrained]]  # models -> the files that they start from


def pretrained_of(record: StudyRecord | None) -> dict[str, dict[str, str]]:
    """Model -> {path, source, sha256} of the files that backbones of a study start from."""
    return dict(record.document.get("pretrained") or {}) if record else {}


def find_starts(
    study: Study, record: StudyRecord | None, directory: Path, find_weights: FindWeights
) -> dict[str, Pretrained]:
    """Model -> the file that it starts from, of the study's models whose file the folder does not hold.

    What the folder holds is not looked for, so that a study goes on without a network and without the file it was
    given. Raises StudyError where a model of the study started from another file, for whichever task.
    """
    kept = pretrained_of(record)
    held = {model: kept[model]["sha256"] for model in study.models if _holds(directory, kept.get(model))}
    found = find_weights([model for model in study.models if model not in held])
    given = held | {model: one.sha256 for model, one in found.items()}
    for model in (model for model in study.models if record and model in record.study.models):
        if (before := kept.get(model, {}).get("sha256")) != (now := given.get(model)):
            raise StudyError(
                f"{model} in {directory} started from {_start(before)}, not from {_start(now)}; "
                "give the same --weights or choose another --out"
            )
    return dict(found)


def keep_weights(
    pretrained: Mapping[str, Pretrained], kept: Mapping[str, dict[str, str]], directory: Path
) -> dict[str, dict[str, str]]:
    """Put the files that backbones start from into the study, so that its runs need nothing from elsewhere; returns
    `kept`, the entries of what is there already, with what came in. A file with the bytes of its entry is not touched.
    """
    entries = dict(kept)
    for model, one in pretrained.items():
        path = Path("data", "weights", f"{model}.safetensors")
        if not _holds(directory, kept.get(model)):
            _copy(one.path, directory / path)
            entries.setdefault(model, {"path": path.as_posix(), "source": one.source, "sha256": one.sha256})
    return entries


def _holds(directory: Path, entry: Mapping[str, str] | None) -> bool:
    """Whether a study's folder holds the very file that an entry of study.json tells of."""
    try:
        return entry is not None and read_kept(directory, entry).sha256 == entry["sha256"]
    except StudyError:
        return False


def _start(sha256: str | None) -> str:
    return f"the file with sha256 {sha256[:12]}" if sha256 else "random numbers"


def _copy(source: Path, target: Path) -> None:
    """Copy a file atomically."""

    def write(stream: BinaryIO) -> None:
        with source.open("rb") as original:
            shutil.copyfileobj(original, stream)

    write_atomically(target, write)
