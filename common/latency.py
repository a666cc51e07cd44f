"""How long one answer takes: images that lie in memory in, logits out, the model in evaluation mode."""

from __future__ import annotations

import time
from statistics import median

from common import config
from common.config import ModelSpec
from common.data.batches import Part, evaluation_batches
from common.framework import Batch, Framework, Model


def measure_latency(
    framework: Framework, model: Model, part: Part, batch_size: int, spec: ModelSpec
) -> dict[str, float | int]:
    """Median seconds of one answer to 1 image and to `batch_size`, after warm-up: `latency` of run.json.

    Every answer is asked for by itself and waited for, as a user does who has one patient; nothing overlaps. The first
    answer to a new number of images may compile, and is not counted.
    """
    batch = next(iter(evaluation_batches(part, batch_size, spec)))
    found: dict[str, float | int] = {
        str(count): _answer_seconds(framework, model, first_images(batch, count)) for count in (1, batch_size)
    }
    return found | {"batch_size": batch_size}


def first_images(batch: Batch, count: int) -> Batch:
    """The batch cut to its first images."""
    return Batch(
        batch.images[:count], batch.targets[:count], batch.weights[:count], batch.rows[:count], batch.key
    )


def _answer_seconds(framework: Framework, model: Model, batch: Batch) -> float:
    """Median of at most LATENCY_ANSWERS answers; fewer, but three, where they take longer than LATENCY_SECONDS."""
    seconds: list[float] = []
    warm_up = config.LATENCY_WARM_UP
    while len(seconds) < warm_up + config.LATENCY_ANSWERS:
        began = time.perf_counter()
        for _ in framework.predict_logits(
            model, [batch]
        ):  # logits are arrays: when they come, they are there
            pass
        seconds.append(time.perf_counter() - began)
        if len(seconds) >= warm_up + 3 and sum(seconds[warm_up:]) > config.LATENCY_SECONDS:
            break
    return median(seconds[warm_up:])
