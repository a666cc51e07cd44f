"""Progress of a grid with an ETA: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from common.config import Run

PLAIN_SECONDS = 15.0  # off a terminal, at most one step line in this time
EARLY_SHARE = 0.02  # of all work; until so much is done, nobody knows how long the rest takes


def format_seconds(seconds: float) -> str:
    """`1 h 05 min`, `3 min 20 s` or `12 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


class GridProgress:
    """Follows the runs of a grid; may be told from several threads."""

    def __init__(
        self,
        console: Console,
        runs: Sequence[Run],
        finished_before: int = 0,
        label: Callable[[Run], str] | None = None,
    ) -> None:
        self._console = console
        self._label = label or _label
        self._runs = len(runs)
        self._before = finished_before
        self._fractions = dict.fromkeys(runs, 0.0)  # share of a run's training done
        self._ended = 0
        self._began = self._spoke = time.monotonic()
        self._lock = threading.Lock()
        self._bars: dict[Run, TaskID] = {}
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._live = Progress(*columns, console=console, transient=True) if console.is_terminal else None
        if self._live:
            self._grid = self._live.add_task("all runs", total=1.0, note="")
            self._live.start()

    def __enter__(self) -> GridProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def tell(self, run: Run, event: dict[str, Any]) -> None:
        """One event of a run: waits (for what), started, {steps, of}, an epoch, an alarm, again (why), and its end."""
        with self._lock:
            if "steps" in event:
                self._fractions[run] = event["steps"] / event["of"]
            if "started" in event and self._live:
                self._bars[run] = self._live.add_task(self._label(run), total=1.0, note="starting")
            if "again" in event:
                self._begin_again(run, str(event["again"]))
            if "waits" in event:
                self._console.print(str(event["waits"]), markup=False, highlight=False, style="yellow")
            if "alarm" in event:
                words = f"{self._label(run)} alarm: {event['alarm']}"
                self._console.print(words, markup=False, highlight=False, style="yellow")
            if "complete" in event or "failed" in event:
                self._end(run, event)
            self._show(run, event)

    def eta_seconds(self) -> float | None:
        """Time left if the rest goes as fast as what is done; None before anything is."""
        done = sum(self._fractions.values())
        elapsed = time.monotonic() - self._began
        return elapsed / done * (self._runs - done) if done > EARLY_SHARE else None

    def _begin_again(self, run: Run, reason: str) -> None:
        self._fractions[run] = 0.0
        if self._live and run in self._bars:
            self._live.remove_task(self._bars.pop(run))
        why = escape(reason)
        self._console.print(
            f"{self._count()} {self._label(run)} [yellow]is tried again[/]: {why}", highlight=False
        )

    def _end(self, run: Run, event: dict[str, Any]) -> None:
        self._fractions[run] = 1.0
        self._ended += 1
        if self._live and run in self._bars:
            self._live.remove_task(self._bars.pop(run))
        mark = "[green]done[/]" if "complete" in event else f"[red]failed[/]: {escape(str(event['failed']))}"
        self._console.print(f"{self._count()} {self._label(run)} {mark}{self._eta()}", highlight=False)

    def _show(self, run: Run, event: dict[str, Any]) -> None:
        note = ""
        if "epoch" in event:
            note = (
                f"epoch {event['epoch']}/{event['epochs']}, "
                f"loss {event['train_loss']:.3f}, validation {event['val_loss']:.3f}"
            )
        if self._live:
            if run in self._bars:
                self._live.update(self._bars[run], completed=self._fractions[run])
                if note:
                    self._live.update(self._bars[run], note=note)
            done = sum(self._fractions.values()) / max(1, self._runs)
            self._live.update(self._grid, completed=done, note=f"{self._count()}{self._eta()}")
        elif note and time.monotonic() - self._spoke > PLAIN_SECONDS:
            self._spoke = time.monotonic()
            self._console.print(f"{self._count()} {self._label(run)} {note}{self._eta()}", highlight=False)

    def _count(self) -> str:
        return f"[{self._before + self._ended}/{self._before + self._runs}]".replace("[", r"\[")

    def _eta(self) -> str:
        eta = self.eta_seconds()
        return "" if eta is None or self._ended == self._runs else f", about {format_seconds(eta)} left"


class ListProgress:
    """Follows many short tasks, told when each ends; may be told from several threads."""

    def __init__(self, console: Console, total: int, finished_before: int = 0) -> None:
        self._console = console
        self._total, self._done, self._before = total, 0, finished_before
        self._began = self._spoke = time.monotonic()
        self._lock = threading.Lock()
        columns = (BarColumn(bar_width=24), TimeElapsedColumn(), TextColumn("{task.description}"))
        self._live = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._bar = self._live.add_task("starting", total=total)

    def __enter__(self) -> ListProgress:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def tell(self, what: str, failed: str = "") -> None:
        """A task has ended, `what`; `failed`: without success, and why."""
        with self._lock:
            self._done += 1
            eta = (time.monotonic() - self._began) / self._done * (self._total - self._done)
            known = EARLY_SHARE * self._total < self._done < self._total
            left = f", about {format_seconds(eta)} left" if known else ""
            line = f"[{self._before + self._done}/{self._before + self._total}] {what}"
            self._live.update(self._bar, advance=1, description=escape(f"{line}{left}"))
            if failed:
                self._console.print(f"{line} failed: {failed}{left}", markup=False, highlight=False)
            elif not self._console.is_terminal and time.monotonic() - self._spoke > PLAIN_SECONDS:
                self._spoke = time.monotonic()
                self._console.print(f"{line}{left}", markup=False, highlight=False)


class CountProgress:
    """Counted work, e.g. decoding, pass by pass: a bar with the time left, now and then a line off a terminal."""

    def __init__(self, console: Console, what: str) -> None:
        columns = (
            TextColumn(what),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._console, self._what = console, what
        self._live = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._live.add_task(what, total=None)
        self._began = self._spoke = time.monotonic()
        self._total = self._first = self._last = (
            0  # of this pass, which may go on where an earlier one was stopped
        )

    def __enter__(self) -> CountProgress:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def tell(self, done: int, total: int) -> None:
        if done <= self._last or total != self._total:  # another pass
            self._live.reset(self._task, total=total)
            self._total, self._first, self._began = total, done, time.monotonic()
        self._last = done
        self._live.update(self._task, completed=done, total=total)
        if not self._console.is_terminal and time.monotonic() - self._spoke > PLAIN_SECONDS:
            self._spoke = time.monotonic()
            each = (self._spoke - self._began) / max(1, done - self._first)
            self.say(
                f"{self._what}: {done:,} of {total:,}, about {format_seconds(each * (total - done))} left"
            )

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(text, markup=False, highlight=False)


def _label(run: Run) -> str:
    return f"{run.task} {run.model} {run.framework} seed {run.seed} fold {run.fold}"
