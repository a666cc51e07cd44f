"""What counts as memory that ran out, and what is said of it; the frameworks' own errors are in `tests/impl`."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from common import workers
from common.config import Recipe, Study
from common.distributed import check_devices
from common.errors import StudyError
from common.memory_shortage import advice, explained, is_shortage, remedy, shortage_named
from common.workers import Crew, Ending, explain_exit, kernel_kills


def test_numpys_own_error_is_one() -> None:
    with pytest.raises(MemoryError) as caught:
        np.ones(10**14)
    assert is_shortage(caught.value)
    assert is_shortage(MemoryError())


@pytest.mark.parametrize(
    "words",
    [
        "CUDA out of memory. Tried to allocate 20.00 MiB",  # PyTorch on a GPU
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000 bytes",
        "OOM when allocating tensor with shape[8,64,512,512]",  # TensorFlow
        "RESOURCE_EXHAUSTED: Out of memory allocating 4000000000000000 bytes.",  # JAX
        "std::bad_alloc",
    ],
)
def test_the_words_of_frameworks_are_known(words: str) -> None:
    assert is_shortage(RuntimeError(words))
    wrapped = ValueError("in layer conv1")
    wrapped.__cause__ = RuntimeError(words)
    assert is_shortage(wrapped)


@pytest.mark.parametrize("words", ["no room for a zoom of the memory", "memory layout differs", "boom"])
def test_other_faults_stay_what_they_are(words: str) -> None:
    assert not is_shortage(RuntimeError(words))
    with pytest.raises(RuntimeError, match=words), shortage_named(8, "cpu"):
        raise RuntimeError(words)


def test_a_shortage_is_one_sentence_and_its_traceback_stays(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = r"out of memory with batches of 16 \(.*\); try --batch-size 8 "
    with pytest.raises(StudyError, match=wanted), shortage_named(16, "cpu"):
        raise RuntimeError("std::bad_alloc")
    assert "std::bad_alloc" in capsys.readouterr().err
    with pytest.raises(StudyError, match="lower the learning rate"), shortage_named(16, "cpu"):
        raise StudyError("out of memory of what was meant; lower the learning rate")


def test_the_advice_names_a_smaller_batch_while_there_is_one() -> None:
    assert "--batch-size 3" in advice(7)
    assert "--batch-size" not in advice(1)
    assert "the GPU's memory" in advice(8, "cuda")
    assert "up to 300 MiB" in advice(8, "cpu", 299.7)


@pytest.mark.parametrize("devices", [1, 2, 3, 4])
def test_the_batch_to_try_is_one_that_the_devices_can_share(devices: int) -> None:
    """Of every batch that they could share: the next smaller half, or none, and then what else there is to do."""
    for batch_size in range(devices, 12 * devices + 1, devices):
        said = remedy(batch_size, devices)
        named = re.search(r"--batch-size (\d+)", said)
        assert (named is None) == (batch_size == devices)
        assert "fewer --workers, a smaller model" in said
        if named is None:
            assert said.startswith(f"{batch_size} is the smallest batch")
            continue
        assert 0 < int(named[1]) <= batch_size / 2
        check_devices(
            Study(frameworks=("torch",), devices=devices, recipes={"binary/cnn": Recipe(1, int(named[1]))})
        )
    with (
        pytest.raises(StudyError, match=r"--batch-size 2 in another --out"),
        shortage_named(6, "cpu", devices=2),
    ):
        raise MemoryError


def test_a_killed_worker_gets_the_same_advice() -> None:
    killed = Ending(-9, "the kernel killed the process, for memory had run out", short=True)
    assert explained(killed, 6, 2).reason == f"{killed.reason}; {remedy(6, 2)}"
    assert "--batch-size" not in explained(killed).reason  # of a command without the option
    crashed = Ending(-11, "the process was ended by SIGSEGV")
    assert explained(crashed, 6, 2) == crashed


def test_the_kernels_kills_are_read_from_whichever_file_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kernel_kills() >= 0  # of this machine
    one, other = tmp_path / "vmstat", tmp_path / "memory.events"
    one.write_text("oom_killer 9\noom_kill 1\n")
    other.write_text("oom 5\noom_kill 3\n")
    absent = tmp_path / "absent"
    places = [(path, "oom_kill") for path in (one, other, absent)]
    monkeypatch.setattr(workers, "_counters", lambda: places)
    assert kernel_kills() == 3
    monkeypatch.setattr(workers, "_counters", lambda: [(absent, "oom_kill")])
    assert kernel_kills() == 0


def test_a_kill_by_the_kernel_is_told_from_one_by_hand(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_text("")
    assert explain_exit(-9, log, out_of_memory=True).endswith("for memory had run out")
    assert "killed by SIGKILL" in explain_exit(-9, log)
    assert "SIGTERM" in explain_exit(-15, log, out_of_memory=True)


def test_the_last_words_are_those_of_the_try_itself(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_text("an earlier fault\n")
    since = log.stat().st_size
    assert explain_exit(7, log, since=since) == "the process ended with exit code 7"
    log.write_text("an earlier fault\n" + "x" * 100_000 + "\nits own fault\n")
    assert explain_exit(7, log, since=since).endswith("its last words in run.log: its own fault")


def test_the_words_of_a_worker_that_dies_at_once_are_its_own(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    for _ in range(20):
        ending = Crew().run(["sh", "-c", "echo boom >&2; exit 3"], os.environ, log, print, append=True)
        assert ending.reason.endswith("its last words in run.log: boom")
