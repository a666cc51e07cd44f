"""One command a folder, whatever becomes of it: killed, on a disk without locks, on another machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from common import holding
from common.codebase import ROOT
from common.errors import StudyError
from common.holding import hold

HOLDER = """
import sys
from pathlib import Path
from common.holding import hold

with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(holding.fcntl, "flock", fail)


def test_two_commands_do_not_work_in_one_folder(tmp_path: Path) -> None:
    """Not while one runs; at once when it is killed, for the kernel lets go of its lock."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == b"held\n"
            who = rf"\(process {holder.pid} on {platform.node()}, since .*\)"
            wanted = f"another command is working in {tmp_path} {who}; wait for it or choose another --out$"
            with pytest.raises(StudyError, match=wanted), hold(tmp_path):
                pass
        finally:
            holder.kill()
    with hold(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["process"] == os.getpid()
    assert (tmp_path / ".lock").read_text() == ""


def test_a_fault_within_lets_go(tmp_path: Path) -> None:
    with pytest.raises(KeyError), hold(tmp_path):
        raise KeyError
    with hold(tmp_path):
        pass


@pytest.mark.parametrize(
    ("record", "refused"),
    [
        ("", False),
        ("[1]", False),
        ("\x00not json", False),
        ({"host": platform.node(), "process": 2**22 + 1}, False),  # beyond the largest that Linux gives
        ({"host": platform.node(), "process": -1}, False),
        ({"host": platform.node(), "process": "1"}, False),
        ({"host": platform.node(), "process": os.getpid()}, True),
        ({"host": "another", "process": 1}, True),
    ],
)
def test_without_locks_the_record_decides(
    without_locks: None, tmp_path: Path, record: object, refused: bool
) -> None:
    (tmp_path / ".lock").write_text(record if isinstance(record, str) else json.dumps(record))
    if refused:
        with pytest.raises(StudyError, match=f"if it is gone, delete {tmp_path / '.lock'}"), hold(tmp_path):
            pass
    else:
        with hold(tmp_path):
            pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    wanted = "file/new cannot be written: Not a directory; choose another --out"
    with pytest.raises(StudyError, match=wanted), hold(tmp_path / "file" / "new"):
        pass
