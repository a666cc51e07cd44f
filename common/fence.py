"""Which try of a run may write into the run's folder: the one that was begun last, and no other.

A try that was taken for lost may be alive all the same: its node is cut off, or what had started it was killed first.
Before each write that counts it asks whether it is still its turn, and if not it ends (a fencing token: Kleppmann,
Designing Data-Intensive Applications, chapter 8). `RUN/.attempt` holds the token of the try that is under way. Whoever
begins a try holds a lock on that file, as a try does while it writes, so that neither happens within the other; on a
disk without locks there remains the moment between asking and writing.

`begin`, `end` and `is_current` stand on the standard library alone: they travel to nodes by value.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from common.errors import StudyError

try:
    import fcntl
except ImportError:  # a system without it has no locks
    fcntl = None  # type: ignore[assignment]

NAME = ".attempt"
LOCK_SECONDS = 120.0  # an NFS server takes a lost client's locks back after 90 s
SIGHT_SECONDS = 60.0  # until a network disk shows a node what the driver has written to it
LOOK_SECONDS = 0.05
TOKEN_BYTES = 100
SUPERSEDED = (
    "this try of the run was taken for lost and another one begun: it ends here and writes nothing more"
)


def begin(directory: Path, token: str) -> None:
    """Let the try of this token write in a run's folder, which exists, and no earlier one any more.

    Raises TimeoutError where a process keeps writing.
    """
    with _locked(directory / NAME, os.O_CREAT) as stream:
        stream.truncate()
        stream.write(token.encode())


def end(directory: Path) -> None:
    """Let no try write there any more. Raises TimeoutError as `begin`."""
    with contextlib.suppress(FileNotFoundError), _locked(directory / NAME) as stream:
        stream.truncate()  # for whoever has it open
        (directory / NAME).unlink()


def is_current(directory: Path, token: str) -> bool:
    """Whether it is the turn of the try with this token, as far as this machine sees."""
    try:
        look_anew(directory)
        with _locked(directory / NAME) as stream:
            return stream.read(TOKEN_BYTES) == token.encode()
    except FileNotFoundError:
        return False


def look_anew(directory: Path) -> None:
    """List a folder: when one is opened, a network disk asks its server whether it has changed. Else it may tell for
    half a minute and more that a file is not there, because it was not when last looked for (nfs(5)).
    """
    with contextlib.suppress(FileNotFoundError):
        list(directory.iterdir())


@dataclass(frozen=True)
class Fence:
    """A try's own view of it; without a token nobody else can begin one, and it is always its turn."""

    directory: Path  # of the run
    token: str

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Write within this. Raises StudyError, and says so in the log, where another try has begun."""
        if not self.token:
            yield
            return
        with contextlib.ExitStack() as held:
            try:
                look_anew(self.directory)
                stream = held.enter_context(_locked(self.directory / NAME))
                current = stream.read(TOKEN_BYTES) == self.token.encode()
            except FileNotFoundError:
                current = False
            except TimeoutError as error:
                raise StudyError(
                    f"{error.filename} is held by another process, which keeps writing; end it"
                ) from error
            if not current:
                print(SUPERSEDED, file=sys.stderr, flush=True)
                raise StudyError(SUPERSEDED)
            yield

    def await_turn(self) -> None:
        """Wait until this machine sees that the try has begun, but no longer than a network disk may take."""
        until = time.monotonic() + SIGHT_SECONDS
        with contextlib.suppress(TimeoutError):  # the first turn will tell
            while self.token and not is_current(self.directory, self.token) and time.monotonic() < until:
                time.sleep(LOOK_SECONDS)

    def watch(self, emit: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
        """The receiver of a run's progress; after each epoch the try asks whether it is still its turn."""

        def ask_and_emit(event: dict[str, Any]) -> object:
            if "epoch" in event:
                with self.turn():
                    pass
            return emit(event)

        return ask_and_emit


@contextlib.contextmanager
def _locked(path: Path, flags: int = 0) -> Iterator[BinaryIO]:
    """A file, open at its beginning, with its lock where the disk has locks."""
    flags |= os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)  # a link could lead out of the study's folder
    with open(os.open(path, flags, 0o644), "r+b", buffering=0) as stream:  # noqa: PTH123 - of a handle
        until = time.monotonic() + LOCK_SECONDS
        while fcntl is not None:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN):
                    break
            if time.monotonic() > until:
                raise TimeoutError(errno.ETIMEDOUT, "another process keeps writing there", str(path))
            time.sleep(LOOK_SECONDS)
        yield stream
