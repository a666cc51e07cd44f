"""A try that was taken for lost writes nothing once another one has begun."""

import dataclasses
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_snapshots import Heavy
from tiny import make_study, tiny_world, write_pictures

from common import attempts, fence
from common import run as run_module
from common.attempts import Attempt, claim, settle
from common.config import Run
from common.errors import StudyError
from common.fence import Fence
from common.framework import Batch
from common.results import read_json, read_run, run_directory
from common.run import execute
from common.study import prepare_study

__all__ = ["tiny_world"]  # a fixture

RUN = Run("binary", "cnn", "tiny-a", "aligned", seed=0, fold=0)
SECONDS = 60.0  # for anything to happen on a busy machine


class Gate:
    """Where the old try waits."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.reached.set()
        assert self.opened.wait(SECONDS)


class Waiting(Heavy):
    """Waits at the end of its first epoch."""

    gate: Gate

    def train_epoch(self, trainer: Any, batches: Iterable[tuple[Batch, float]]) -> NDArray[np.float64]:
        losses = super().train_epoch(trainer, batches)
        if self.drawn == len(losses):
            self.gate.wait()
        return losses


@pytest.fixture
def directory(tmp_path: Path, tiny_world: None) -> Path:
    pictures = write_pictures(tmp_path / "pictures")
    prepare_study(make_study(pictures, ("tiny-a",), checkpoint_every=1), tmp_path / "study")
    return tmp_path / "study"


@pytest.mark.parametrize("place", ["before a snapshot", "before the record"])
def test_a_try_that_was_given_up_ends_and_leaves_the_record_of_its_successor(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    framework, gate, measure_latency = Waiting(), Gate(), run_module.measure_latency
    framework.gate = gate
    if place == "before the record":
        framework = Heavy()

        def wait_and_measure(asked: Heavy, *others: Any) -> Any:
            if asked is framework:
                gate.wait()
            return measure_latency(asked, *others)

        monkeypatch.setattr(run_module, "measure_latency", wait_and_measure)
    folder, said = run_directory(directory, RUN), []
    first = claim(folder, 1)

    def work() -> None:
        try:
            execute(framework, directory, RUN, 1, lambda event: None, first)
        except StudyError as error:
            said.append(str(error))

    old = threading.Thread(target=work)
    old.start()
    assert gate.reached.wait(SECONDS)
    second = claim(folder, 2)
    execute(Heavy(), directory, RUN, 1, lambda event: None, second)
    assert read_json(folder / "run.json")["attempt"] == second
    left = files_of(folder)
    gate.opened.set()
    old.join(SECONDS)
    assert said == [fence.SUPERSEDED]
    assert fence.SUPERSEDED in capsys.readouterr().err
    assert files_of(folder) == left


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of each file."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_a_try_that_comes_too_late_clears_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence, "SIGHT_SECONDS", 0.0)
    folder = run_directory(directory, RUN)
    first = claim(folder, 1)
    claim(folder, 2)
    (folder / "history.csv").write_text("of the second")
    left = files_of(folder)
    with pytest.raises(StudyError, match="another one begun"):
        execute(Heavy(), directory, RUN, 1, lambda event: None, first)
    assert files_of(folder) == left


def test_after_a_run_s_end_no_try_of_it_writes(directory: Path) -> None:
    folder, told = run_directory(directory, RUN), []
    token = claim(folder, 1)
    attempt = Attempt(None, "2026-01-01", None, "2026-01-02", "its node was lost", token)
    settle(directory, RUN, "ray", [attempt], lambda run, event: told.append(event))
    assert told == [{"failed": "its node was lost"}]
    left = files_of(folder)
    with pytest.raises(StudyError, match="another one begun"), Fence(folder, token).turn():
        raise AssertionError
    assert files_of(folder) == left


def test_the_try_that_wrote_the_record_is_the_complete_one(directory: Path) -> None:
    folder, told = run_directory(directory, RUN), []
    tokens = [claim(folder, 1)]
    execute(Heavy(), directory, RUN, 1, lambda event: None, tokens[0])
    with pytest.raises(StudyError, match="holds a finished run"):  # it was alive, though taken for lost
        claim(folder, 2)
    tries = [
        Attempt(None, "2026-01-01", None, "2026-01-02", reason, token)
        for reason, token in (("its node was lost", tokens[0]), ("its node was lost", "2-other"))
    ]
    settle(directory, RUN, "ray", tries, lambda run, event: told.append(event))
    assert told == [{"complete": True}]
    outcomes = [one["outcome"] for one in read_json(folder / attempts.FILE)["attempts"]]
    assert outcomes == ["complete", "its node was lost"]
    (record,) = [read_run(directory, RUN)]
    assert record is not None
    assert record.complete
    tries[1] = dataclasses.replace(tries[1], outcome="complete")
    settle(directory, RUN, "ray", tries, lambda run, event: None)
    outcomes = [one["outcome"] for one in read_json(folder / attempts.FILE)["attempts"]]
    assert outcomes == ["complete", "the run's record is that of try 1"]


def test_nothing_begins_while_a_try_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither another try nor an end: what was asked before writing still holds when it is written."""
    pytest.importorskip("fcntl")
    monkeypatch.setattr(fence, "LOCK_SECONDS", 0.0)
    token = claim(tmp_path, 1)
    late: list[Callable[[], object]] = [lambda: fence.begin(tmp_path, "other"), lambda: fence.end(tmp_path)]
    with Fence(tmp_path, token).turn():
        for action in late:
            with pytest.raises(TimeoutError, match="keeps writing"):
                action()
        with pytest.raises(StudyError, match=r"another process keeps writing into .*; end it and give"):
            claim(tmp_path, 2)
    assert fence.is_current(tmp_path, token)
    late[0]()
    assert not fence.is_current(tmp_path, token)


def test_a_token_is_not_written_through_a_link(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "run"
    outside.write_text("kept")
    folder.mkdir()
    (folder / fence.NAME).symlink_to(outside)
    with pytest.raises(OSError, match="symbolic links"):
        fence.begin(folder, "1-a")
    assert outside.read_text() == "kept"
