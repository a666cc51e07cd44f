"""What an answer takes: the first ones, which may compile, do not count, and each is waited for by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import SPEC, TinyFramework

from common import config, latency
from common.framework import Batch

N = 6


class Clock:
    now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Slow(TinyFramework):
    """Compiles for 10 s at a new number of images; then one answer takes 20 ms and 10 ms an image, each third twice as
    long.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.asked: list[list[int]] = []  # rows of every answer

    def predict_logits(self, model: object, batches: Iterable[Batch]) -> Iterator[NDArray[np.float64]]:
        for batch in batches:
            rows = batch.rows.tolist()
            new = rows not in self.asked
            self.asked.append(rows)
            self.clock.now += (10 if new else 0) + (0.02 + 0.01 * len(rows)) * (
                1 + (len(self.asked) % 3 == 0)
            )
            yield np.zeros((len(rows), 1))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    clock = Clock()
    batch = Batch(
        np.zeros((N, 4, 4, 1), np.float32), np.zeros((N, 1), np.float32), np.ones(N, np.float32), np.arange(N)
    )
    monkeypatch.setattr(latency, "time", clock)
    monkeypatch.setattr(latency, "evaluation_batches", lambda part, size, spec: iter([batch]))
    return Slow(clock)


def test_latency_is_the_median_after_the_warm_up(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "LATENCY_SECONDS", 100.0)
    found = latency.measure_latency(slow, None, None, N, SPEC)  # type: ignore[arg-type]
    assert found == {"1": pytest.approx(0.03), str(N): pytest.approx(0.08), "batch_size": N}
    answers = config.LATENCY_WARM_UP + config.LATENCY_ANSWERS
    assert slow.asked == [[0]] * answers + [list(range(N))] * answers


def test_a_slow_model_is_asked_less_often_but_three_times(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "LATENCY_SECONDS", 0.01)
    latency.measure_latency(slow, None, None, N, SPEC)  # type: ignore[arg-type]
    assert len(slow.asked) == 2 * (config.LATENCY_WARM_UP + 3)
