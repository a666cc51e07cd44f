"""One run on several devices: what is refused, who is who, and that no rank outlives another's fault."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common import distributed
from common.config import CnnSpec, Recipe, Study
from common.distributed import MEETING, RANK, Place, check_devices, check_gpus, check_torchrun, leads, place
from common.errors import StudyError
from common.options import add_study_options, study_of

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 120


def study(**changes: object) -> Study:
    asked = {"frameworks": ("torch",), "devices": 2, "device": "cpu", "recipes": {"binary/cnn": Recipe(1)}}
    return Study(specs={"binary/cnn": CnnSpec()}, **(asked | changes))  # type: ignore[arg-type]


# --- what is refused ----------------------------------------------------------------------------------------------


def test_devices_that_divide_the_batch_are_taken_and_no_others() -> None:
    def taken(devices: int) -> bool:
        with contextlib.suppress(StudyError):
            check_devices(study(devices=devices))
            return True
        return False

    assert [devices for devices in range(1, 17) if taken(devices)] == [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"devices": 3}, r"batch_size 8 of binary/cnn must be divisible by --devices 3.*--batch-size 6 or 9"),
        ({"devices": 16}, r"must be divisible by --devices 16.*--batch-size 16$"),
        ({"lanes": ("aligned", "native")}, r"--devices 2 goes with the aligned lane alone"),
        (
            {"frameworks": ("torch", "keras-torch")},
            r"keras-torch has no --devices 2: .*; take --frameworks torch",
        ),
    ],
)
def test_a_run_that_cannot_be_shared_is_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(StudyError, match=sentence):
        check_devices(study(**changes))
    check_devices(study(**(changes | {"devices": 1})))


def test_a_run_for_more_gpus_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "visible_gpus", lambda: ["0", "1"])
    for devices in (1, 2):
        check_gpus(study(device="cuda", devices=devices))
    with pytest.raises(StudyError, match=r"--devices 4 was asked for, and this machine shows 2 GPU\(s\)"):
        check_gpus(study(device="cuda", devices=4))
    check_gpus(study(device="cpu", devices=4))


def test_the_command_line_refuses_before_anything_is_read() -> None:
    parser = argparse.ArgumentParser()
    add_study_options(parser, ("torch",))
    asked = parser.parse_args(["--devices", "2", "--tasks", "binary"])
    assert study_of(asked, asked.frameworks).devices == 2
    with pytest.raises(StudyError, match="batch_size 7 of binary/cnn must be divisible by --devices 2"):
        study_of(parser.parse_args(["--devices", "2", "--batch-size", "7", "--tasks", "binary"]), ["torch"])


# --- who is who ---------------------------------------------------------------------------------------------------


def test_a_process_knows_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")  # of a job that has nothing to do with us
    assert place() == Place()
    assert leads()
    monkeypatch.setenv(RANK, "1/4")
    monkeypatch.setenv(MEETING, "somewhere")
    assert place() == Place(1, 4, 1, "somewhere")
    assert not leads()


def test_torchrun_must_have_started_as_many_as_the_study_has_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "TORCHELASTIC_RUN_ID": "x",
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
    }.items():
        monkeypatch.setenv(name, value)
    assert place() == Place(1, 2, local_rank=0)
    check_torchrun(study(), "torch")
    with pytest.raises(
        StudyError, match=r"started 2 processes, .* --devices 4; give torchrun --nproc-per-node 4"
    ):
        check_torchrun(study(devices=4), "torch")
    with pytest.raises(StudyError, match="torchrun is PyTorch's, and this is keras-jax"):
        check_torchrun(study(), "keras-jax")


# --- the ranks of a run -------------------------------------------------------------------------------------------

# Rank 1 does what it is told to; the first waits for it as it would in an exchange of gradients.
PROGRAM = """
import json, os, signal, sys, threading, time
sys.path.insert(0, sys.argv[1])
from common.distributed import leads, place, start_ranks

if leads():
    here = start_ranks(2)
    print(json.dumps({"place": [here.rank, here.processes]}), flush=True)
    until = time.monotonic() + 60
    while time.monotonic() < until and not os.path.exists(sys.argv[3]):
        time.sleep(0.01)
    if sys.argv[2] == "broken":
        raise RuntimeError("connection closed by peer")
else:
    assert place().processes == 2 and os.path.isdir(os.path.dirname(place().meeting))
    if sys.argv[2] == "failed":
        print(json.dumps({"steps": 1, "of": 2}))
        print(json.dumps({"failed": "the training loss is nan"}), flush=True)
        sys.exit(2)
    if sys.argv[2] in ("broken", "patient"):
        open(sys.argv[3], "w").close()
    if sys.argv[2] == "patient":
        os.read(0, 1)
        os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def run_ranks(tmp_path: Path, fault: str) -> subprocess.CompletedProcess[str]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(program), str(ROOT), fault, str(tmp_path / "ready")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )


@pytest.mark.parametrize("fault", ["killed", "broken"])
def test_a_rank_that_dies_ends_the_run_and_is_named(tmp_path: Path, fault: str) -> None:
    """Also where the first rank notices by a broken connection; by its signal, so that the engine may try again."""
    answer = run_ranks(tmp_path, fault)
    assert answer.returncode == -signal.SIGKILL
    assert answer.stdout.splitlines() == ['{"place": [0, 2]}']
    assert answer.stderr.splitlines() == ["rank 1 of the 2 that share this run was ended by SIGKILL"]


def test_a_rank_that_says_why_it_failed_is_heard(tmp_path: Path) -> None:
    answer = run_ranks(tmp_path, "failed")
    assert answer.returncode == 2
    assert json.loads(answer.stdout.splitlines()[-1]) == {"failed": "the training loss is nan"}
    assert answer.stderr == ""


def test_no_rank_outlives_the_first(tmp_path: Path) -> None:
    """Which ends well, although the other has not yet. The call returns when both have let go of stderr."""
    answer = run_ranks(tmp_path, "patient")
    assert (answer.returncode, answer.stderr) == (0, "")
