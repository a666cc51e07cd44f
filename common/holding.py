"""One command at a time in a study's folder: a lock that the kernel lets go when its holder dies, however it dies.

`.lock` stays, and tells who holds it or held it last: `{"host", "process", "since"}`. On a disk without locks (some
network disks) that record decides: of a process that is gone it means nothing, and of another machine it is believed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import psutil

from common.errors import StudyError
from common.measure import utc_now

try:
    import fcntl
except ImportError:  # a system without it has no lock; there the record decides
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"
HELD = frozenset({errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN})


@contextlib.contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Keep other commands out of a folder, which is made if need be.

    Raises StudyError where another command holds it or where it cannot be written.
    """
    path = directory / NAME
    try:
        directory.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+b")
    except OSError as error:
        raise unwritable(directory, error) from error
    with stream:
        locked = _lock(stream)
        holder = _read(stream)
        if locked is False or (locked is None and _lives(holder)):
            raise StudyError(
                f"another command is working in {directory}{_who(holder)}; {_remedy(locked, path)}"
            )
        with contextlib.suppress(OSError):  # of a full disk what needs room will tell
            _write(stream, {"host": platform.node(), "process": os.getpid(), "since": utc_now()})
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # it may be gone by now
                _write(stream, {})


def check_there(directory: Path) -> None:
    """Raise StudyError where a study that was in a folder is there no more, as of a disk or a mount that went away."""
    if not _has_study(directory):
        raise StudyError(
            f"{directory} was there when the command began and has gone away since, with its disk or mount; when it is "
            "back, the same command goes on, and what is finished is kept"
        )


@contextlib.contextmanager
def told_where_gone(directory: Path) -> Iterator[None]:
    """Where a study is in a folder now and is not at the end, this is said (StudyError) in place of what came of it."""
    there = _has_study(directory)
    try:
        yield
    except (OSError, StudyError) as error:
        if there:
            try:
                check_there(directory)
            except StudyError as gone:
                raise gone from error
        raise
    if there:
        check_there(directory)


def _has_study(directory: Path) -> bool:
    """False also where the disk does not answer."""
    try:
        return (directory / "study.json").exists()
    except OSError:
        return False


def unwritable(directory: Path, error: OSError) -> StudyError:
    """The error of a folder that cannot be written."""
    return StudyError(f"{directory} cannot be written: {error.strerror or error}; choose another --out")


def _lock(stream: IO[bytes]) -> bool | None:
    """True: we have it; False: another process has it; None: this disk or system has no locks."""
    locked: bool | None = None
    if fcntl is not None:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except OSError as error:
            locked = False if error.errno in HELD else None
    return locked


def _read(stream: IO[bytes]) -> dict[str, Any]:
    stream.seek(0)
    try:
        found = json.loads(stream.read(4096) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _write(stream: IO[bytes], record: dict[str, Any]) -> None:
    stream.seek(0)
    stream.truncate()
    stream.write(json.dumps(record).encode() if record else b"")
    stream.flush()


def _lives(holder: dict[str, Any]) -> bool:
    """Whether the holder of a record may still be at work; on another machine nobody here can tell, so yes."""
    process = holder.get("process")
    if not isinstance(process, int):
        return False
    return holder.get("host") != platform.node() or (process > 0 and psutil.pid_exists(process))


def _who(holder: dict[str, Any]) -> str:
    if not isinstance(holder.get("process"), int):
        return ""
    return f" (process {holder['process']} on {holder.get('host')}, since {holder.get('since')})"


def _remedy(locked: bool | None, path: Path) -> str:
    gone = f"; if it is gone, delete {path}" if locked is None else ""
    return f"wait for it or choose another --out{gone}"
