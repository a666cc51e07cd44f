"""Parcels on a node: folders of files that are brought there, held by who uses them, and removed when nobody does.

They lie in `own_folder()`, each in a folder of its digest. Who uses one holds a shared lock (flock(2)) on that folder,
which the kernel opens when the process ends, however it does. Programs that remove old temporary files may know nothing
of that, so that what is there is compared with what was sent, file by file. Only the standard library is needed here:
on a cluster this module travels to nodes that need not have our code.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # a system without it has no locks; Ray's nodes are Linux or macOS
    fcntl = None  # type: ignore[assignment]

REMOVE_SECONDS = 5.0  # that the end of a parcel's last user is waited for
LOOK_SECONDS = 0.1
Fetch = Callable[[Any], bytes]  # an object reference -> what it stands for


@dataclass(frozen=True)
class PackedFile:
    """A file of a parcel, in the cluster's object store."""

    path: str  # in the folder
    size: int  # bytes
    sha256: str
    pieces: tuple[Any, ...]  # references, in order


@dataclass(frozen=True)
class Parcel:
    """A folder to bring to nodes."""

    digest: str  # of its name and of its files' paths, sizes and bytes
    name: str  # of the folder
    files: tuple[PackedFile, ...]


def own_folder() -> Path:
    """A folder of this user on the node's own disk. Raises OSError where somebody else has put one there."""
    base = Path(tempfile.gettempdir()) / f"stroke-frameworks-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    status = base.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o777 != 0o700 or base.is_symlink():
        raise OSError(f"{base} is not this user's alone; remove it or set TMPDIR on the node")
    return base


@contextlib.contextmanager
def held(parcel: Parcel, base: Path, fetch: Fetch, owner: str = "") -> Iterator[Path]:
    """The parcel's folder on this node, whole, and not removed before the end.

    `owner`: for whom it is there, of which `sweep` can tell whether it lives. Raises OSError where bytes are missing.
    """
    with _shared(base / parcel.digest) as folder:
        if owner:
            _owner(folder).write_text(owner)
        os.utime(folder)  # it is in use now
        yield _bring(parcel, base, fetch)


def _bring(parcel: Parcel, base: Path, fetch: Fetch) -> Path:
    """Bring what is missing of a parcel, or has another size. Each file is renamed into its place, so that nobody who
    is at work there sees half of one.
    """
    folder = base / parcel.digest / parcel.name
    if all(_is_there(folder, file) for file in parcel.files):
        return folder
    with locked(base / "unpack.lock"):  # each is to come once, however many begin at a time
        for file in parcel.files:
            if not _is_there(folder, file):
                _write(parcel, file, folder / file.path, fetch)
    return folder


def _write(parcel: Parcel, file: PackedFile, path: Path, fetch: Fetch) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    found = hashlib.sha256()
    with partial.open("wb") as stream:
        for piece in file.pieces:
            content = fetch(piece)
            found.update(content)
            stream.write(content)
    if found.hexdigest() != file.sha256:
        partial.unlink()
        raise OSError(f"{file.path} of {parcel.name} came with another digest than it was sent")
    partial.replace(path)


def _is_there(folder: Path, file: PackedFile) -> bool:
    try:
        return (folder / file.path).stat().st_size == file.size
    except OSError:
        return False


def remove(base: Path, digest: str) -> None:
    """Remove what a parcel brought to this node, unless somebody uses it still."""
    until = time.monotonic() + REMOVE_SECONDS
    while not _remove(base / digest, lambda folder: True) and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)


def sweep(base: Path, living: Callable[[], Collection[str]], keep_seconds: float) -> None:
    """Remove the parcels that nobody uses: those with an owner where it is none of `living`, so that a study's files do
    not outlive it; the others so many seconds after they were last taken in use.
    """
    alive: Collection[str] | None = None

    def is_over(folder: Path) -> bool:
        nonlocal alive
        if not _owner(folder).exists():
            return time.time() - folder.stat().st_mtime > keep_seconds
        alive = living() if alive is None else alive
        return _owner(folder).read_text() not in alive

    for folder in base.iterdir():
        if folder.is_dir():
            _remove(folder, is_over)


def _remove(folder: Path, is_over: Callable[[Path], bool]) -> bool:
    """Remove a parcel's folder if nobody holds it and it is over; returns whether nobody holds it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # another one removed it
        return True
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_over(folder):
            shutil.rmtree(folder, ignore_errors=True)  # a rest is found by who needs the parcel next
            if not folder.exists():
                _owner(folder).unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


@contextlib.contextmanager
def _shared(folder: Path) -> Iterator[Path]:
    """Hold a folder, made where it is not there, against its removal."""
    descriptor = _take(folder)
    while descriptor is None:  # it was removed before we had the lock
        descriptor = _take(folder)
    try:
        yield folder
    finally:
        os.close(descriptor)


def _take(folder: Path) -> int | None:
    """A descriptor that holds the folder; None where another folder, or none, has come into its place."""
    with contextlib.suppress(FileExistsError):  # raised with exist_ok, too, where it is gone in between
        folder.mkdir()
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
    os.close(descriptor)
    return None


def _owner(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.owner")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for a lock and hold it."""
    with path.open("ab") as stream:
        if fcntl is not None:
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
