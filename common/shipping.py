"""What goes to the nodes of a cluster and comes back from there: the code, a study's files, a run's folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from common import config
from common.attempts import LOG
from common.codebase import PACKAGES
from common.errors import StudyError
from common.parcels import PackedFile, Parcel
from common.results import read_json, write_atomically

SNAPSHOTS = "snapshot.*"  # of a run under way, in its folder
RECORD = "run.json"
SOURCES = "sources.json"  # of a cache: where the pictures lie whose pixels it does not keep

Put = Callable[[bytes], Any]  # bytes -> an object reference


def pack(folder: Path, paths: Sequence[Path], put: Put, name: str) -> Parcel:
    """The files at `paths` below `folder`, in pieces."""
    digest = hashlib.sha256(f"{name}\0".encode())
    files = []
    for path in sorted(paths):
        relative, size, pieces, found = path.relative_to(folder).as_posix(), 0, [], hashlib.sha256()
        with path.open("rb") as stream:
            while piece := stream.read(config.SHIP_PIECE_BYTES):
                found.update(piece)
                size += len(piece)
                pieces.append(put(piece))
        digest.update(f"{relative}\0{size}\0{found.hexdigest()}\0".encode())
        files.append(PackedFile(relative, size, found.hexdigest(), tuple(pieces)))
    return Parcel(digest.hexdigest(), name, tuple(files))


def code_files(root: Path) -> list[Path]:
    """What a worker runs."""
    return [
        path
        for folder in PACKAGES
        for path in (root / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]


def study_files(directory: Path) -> list[Path]:
    """What a run of a prepared study reads: its document, tables, caches of pixels, and weights to start from.

    Raises StudyError where a cache has a limit, so that runs read pictures from where they lie.
    """
    document = read_json(directory / "study.json")
    kept = (document.get("pretrained") or {}).values()
    paths = [directory / "study.json", *(directory / entry["path"] for entry in kept)]
    paths += [path for path in (directory / "data").iterdir() if path.is_file()]
    for cache in document["caches"].values():
        sources = directory / cache / SOURCES
        if sources.exists() and any(
            not str(path).startswith("phantom:")
            for path in read_json(sources, config.MAX_TABLE_BYTES).values()
        ):
            raise StudyError(
                f"{directory} keeps the pixels of some pictures only, and not every node of the cluster sees it; give "
                "the study a folder that all nodes share, or no --cache-limit"
            )
        paths += [path for path in (directory / cache).rglob("*") if path.is_file()]
    return list(dict.fromkeys(paths))


def files_to_go_on(directory: Path) -> dict[str, bytes]:
    """What a run's folder holds of earlier tries that the next one goes on from: its snapshot and its log."""
    names = [*directory.glob(SNAPSHOTS), directory / LOG]
    return {path.name: path.read_bytes() for path in names if path.is_file()}


def bring_home(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write a run's folder as it came from a node, each file atomically and the record last.

    Without a record only the log and the snapshot are kept. Raises StudyError for a name that leads elsewhere.
    """
    for name in files:
        if Path(name).name != name or name in ("", ".", ".."):
            raise StudyError(f"a node sent a file named {name!r}, which is no name in {directory}")
    complete = RECORD in files
    others = sorted(files, reverse=True)  # of a snapshot the JSON comes last
    for name in (one for one in others if one != RECORD):
        if complete or name == LOG or Path(name).match(SNAPSHOTS):
            write_atomically(directory / name, _writer(files[name]))
    if complete:
        write_atomically(directory / RECORD, _writer(files[RECORD]))
        for snapshot in directory.glob(SNAPSHOTS):  # of an earlier try
            if snapshot.name not in files:
                snapshot.unlink()


def _writer(content: bytes) -> Callable[[BinaryIO], object]:
    return lambda stream: stream.write(content)
