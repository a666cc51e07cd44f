"""What a person is told while a grid runs, on a terminal and off it."""

import dataclasses
import io
import threading

import pytest
from rich.console import Console

from common import progress
from common.config import Recipe, Study
from common.progress import CountProgress, GridProgress, format_seconds

GRID = Study(recipes={"binary/cnn": Recipe(epochs=1)})
RUNS = dataclasses.replace(GRID, frameworks=("torch", "keras-tensorflow"), seeds=2).runs()
EPOCH = {"epoch": 3, "epochs": 8, "train_loss": 0.61234, "val_loss": 0.7, "val_score": 0.8}


class FakeTime:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(progress, "time", fake)
    return fake


def console(terminal: bool = False) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=terminal, width=200, color_system=None), text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (12.4, "12 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (3900, "1 h 05 min"),
        (90061, "25 h 01 min"),
    ],
)
def test_seconds_in_words(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_the_rest_takes_as_long_as_what_is_done(clock: FakeTime) -> None:
    """Half of one of four runs in 30 s: 7 halves are left, 210 s."""
    out, _ = console()
    grid = GridProgress(out, RUNS)
    assert grid.eta_seconds() is None
    clock.now += 30
    grid.tell(RUNS[0], {"steps": 50, "of": 100})
    assert grid.eta_seconds() == pytest.approx(210)
    grid.tell(RUNS[0], {"complete": True})
    grid.tell(RUNS[1], {"failed": "no memory"})  # it needs no more time either
    assert grid.eta_seconds() == pytest.approx(30)


def test_off_a_terminal_each_end_is_a_line(clock: FakeTime) -> None:
    out, text = console()
    with GridProgress(out, RUNS, finished_before=2) as grid:
        for number, run in enumerate(RUNS):
            grid.tell(run, {"started": "now"})
            clock.now += 10
            end = {"complete": True} if number != 1 else {"failed": "the process was ended by SIGABRT"}
            grid.tell(run, end)
    assert text.getvalue().splitlines() == [
        "[3/6] binary cnn torch seed 0 fold 0 done, about 30 s left",
        "[4/6] binary cnn keras-tensorflow seed 0 fold 0 failed: the process was ended by SIGABRT, about 20 s left",
        "[5/6] binary cnn keras-tensorflow seed 1 fold 0 done, about 10 s left",
        "[6/6] binary cnn torch seed 1 fold 0 done",
    ]


def test_off_a_terminal_epochs_speak_now_and_then(clock: FakeTime) -> None:
    out, text = console()
    grid = GridProgress(out, RUNS)
    for _ in range(40):
        clock.now += 1
        grid.tell(RUNS[0], EPOCH)
    lines = text.getvalue().splitlines()
    assert len(lines) == 2  # of 40 s, one every 15 s and a bit
    assert "[0/4] binary cnn torch seed 0 fold 0 epoch 3/8, loss 0.612, validation 0.700" in lines[0]


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(
    "reason", ["see [/var/log/x] and [bold]", "missing ['conv1.weight'] [/]", "100 % [red"]
)
def test_a_reason_is_shown_as_it_is(terminal: bool, reason: str) -> None:
    """A worker's last words may hold what the console takes for markup."""
    out, text = console(terminal)
    with GridProgress(out, RUNS) as grid:
        grid.tell(RUNS[0], {"started": "now"})
        grid.tell(RUNS[0], {"failed": reason})
    assert f"failed: {reason}" in text.getvalue()


def test_a_terminal_shows_bars_and_keeps_the_ends() -> None:
    out, text = console(terminal=True)
    with GridProgress(out, RUNS[:1]) as grid:
        grid.tell(RUNS[0], {"started": "now"})
        grid.tell(RUNS[0], {"steps": 1, "of": 4})
        grid.tell(RUNS[0], EPOCH)
        grid.tell(RUNS[0], {"unknown": "an event of a later version"})
        grid.tell(RUNS[0], {"complete": True})
    assert "[1/1] binary cnn torch seed 0 fold 0 done" in text.getvalue()
    assert "all runs" in text.getvalue()


def test_several_threads_may_tell() -> None:
    out, text = console()
    runs = dataclasses.replace(GRID, frameworks=("torch",), seeds=40).runs()
    grid = GridProgress(out, runs)

    def follow(some: list) -> None:
        for run in some:
            grid.tell(run, {"started": "now"})
            for step in range(20):
                grid.tell(run, {"steps": step, "of": 20})
            grid.tell(run, {"complete": True})

    threads = [threading.Thread(target=follow, args=(runs[part::4],)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = text.getvalue().splitlines()
    assert [line.split("]")[0] for line in lines] == [f"[{number}/40" for number in range(1, 41)]


def test_counted_work_is_silent_off_a_terminal() -> None:
    out, text = console()
    with CountProgress(out, "reading images") as reading:
        reading.tell(3, 10)
    assert text.getvalue().strip() == ""
    out, text = console(terminal=True)
    with CountProgress(out, "reading images") as reading:
        reading.tell(10, 10)
    assert "10/10" in text.getvalue()
