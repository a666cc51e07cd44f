"""What a person is told while a grid runs, on a terminal and off it."""

import dataclasses
import io
import threading

import pytest
from rich.console import Console

from common import progress
from common.config import Recipe, Study
from common.progress import CountProgress, GridProgress, ListProgress, format_seconds

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


@pytest.mark.parametrize("terminal", [True, False])
def test_an_alarm_is_told_at_once(clock: FakeTime, terminal: bool) -> None:
    out, text = console(terminal)
    with GridProgress(out, RUNS) as grid:
        grid.tell(RUNS[0], {"started": "now"})
        grid.tell(RUNS[0], {"alarm": "all answers are [equal]"})
    assert "binary cnn torch seed 0 fold 0 alarm: all answers are [equal]" in text.getvalue()


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


def test_a_run_that_is_tried_again_starts_from_nothing(clock: FakeTime) -> None:
    out, text = console()
    grid = GridProgress(out, RUNS)
    grid.tell(RUNS[0], {"started": ""})
    grid.tell(RUNS[0], {"steps": 1, "of": 2})
    clock.now += 30
    assert grid.eta_seconds() == 210
    grid.tell(RUNS[0], {"again": "its node was lost [red]"})
    assert grid.eta_seconds() is None
    grid.tell(RUNS[0], {"complete": True})
    lines = text.getvalue().splitlines()
    assert lines[0] == "[0/4] binary cnn torch seed 0 fold 0 is tried again: its node was lost [red]"
    assert lines[1].startswith("[1/4] binary cnn torch seed 0 fold 0 done")


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


def test_short_tasks_are_told_now_and_then_and_failures_at_once(clock: FakeTime) -> None:
    """Ten tasks of 4 s each, two finished before; a line at most every 15 s, and one for what failed."""
    out, text = console()
    with ListProgress(out, 10, finished_before=2) as progress:
        for number in range(10):
            clock.now += 4
            progress.tell(f"task {number}", "no [memory] left" if number == 1 else "")
    assert text.getvalue().splitlines() == [
        "[4/12] task 1 failed: no [memory] left, about 32 s left",
        "[6/12] task 3, about 24 s left",
        "[10/12] task 7, about 8 s left",
    ]


def test_nobody_knows_how_long_many_tasks_take_when_few_are_done(clock: FakeTime) -> None:
    out, text = console()
    with ListProgress(out, 100) as progress:
        for number in range(3):
            clock.now += 20
            progress.tell(f"task {number}")
    assert text.getvalue().splitlines() == [
        "[1/100] task 0",
        "[2/100] task 1",
        "[3/100] task 2, about 32 min 20 s left",
    ]


def test_short_tasks_on_a_terminal_have_a_bar_and_lines_for_failures_only(clock: FakeTime) -> None:
    out, text = console(terminal=True)
    with ListProgress(out, 3) as progress:
        for number in range(3):
            clock.now += 60
            progress.tell(f"task {number}", "for a reason" if number == 1 else "")
    assert "[2/3] task 1 failed: for a reason, about 1 min 00 s left\n" in text.getvalue()
    assert "task 0 failed" not in text.getvalue()
    assert "[3/3] task 2" in text.getvalue()


def test_counted_work_tells_the_time_left(clock: FakeTime) -> None:
    """Off a terminal a line now and then; a second pass, and one that goes on in the middle, count for themselves."""
    out, text = console()
    with CountProgress(out, "reading images") as reading:
        reading.tell(1, 100)  # at once: nothing is said
        for done in (11, 21):
            clock.now += 20
            reading.tell(done, 100)
        reading.tell(501, 1000)
        clock.now += 20
        reading.tell(541, 1000)
        reading.say("[a] word")
    assert text.getvalue().splitlines() == [
        "reading images: 11 of 100, about 2 min 58 s left",
        "reading images: 21 of 100, about 2 min 38 s left",
        "reading images: 541 of 1,000, about 3 min 50 s left",
        "[a] word",
    ]
    out, text = console(terminal=True)
    with CountProgress(out, "reading images") as reading:
        reading.tell(10, 10)
    assert "10/10" in text.getvalue()
