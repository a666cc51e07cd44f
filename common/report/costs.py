"""What a run cost: every timing, memory and speed of its record, and the parts that its seconds went to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from common import config
from common.flops import TRAINING_PASSES, Work, forward_work
from common.results import RunRecord

TIMINGS = {  # quantity -> (title, unit)
    "import_seconds": ("Start and import", "s"),
    "data_seconds": ("Open the data", "s"),
    "build_seconds": ("Build the model", "s"),
    "trainer_seconds": ("Make loss and optimizer", "s"),
    "first_step_seconds": ("First training step (compiling included)", "s"),
    "compile_seconds": ("Compile and warm-up (first step beyond a steady one)", "s"),
    "step_p50_seconds": ("Steady step, median", "s"),
    "step_p95_seconds": ("Steady step, 95th percentile", "s"),
    "steady_images_per_second": ("Steady training", "images/s"),
    "training_gflop_per_second": ("Arithmetic of steady training", "GFLOP/s"),
    "wait_seconds": ("Waiting for data", "s"),
    "train_seconds": ("Training", "s"),
    "evaluate_seconds": ("Evaluation", "s"),
    "checkpoint_seconds": ("Checkpoints", "s"),
    "latency_1_seconds": ("Latency of one image", "s"),
    "latency_batch_seconds": ("Latency of a batch", "s"),
    "total_seconds": ("Whole run", "s"),
    "cpu_seconds": ("CPU time of the process", "s"),
    "peak_rss_mib": ("Peak memory", "MiB"),
    "peak_device_mib": ("Peak device memory", "MiB"),
    "energy_joules": ("Energy of training", "J"),
}
RATES = ("steady_images_per_second", "training_gflop_per_second")  # more is better; of all others less


def number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def part_of(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object of a record; empty where it is missing or null."""
    found = document.get(name)
    return found if isinstance(found, Mapping) else {}


def was_interrupted(record: RunRecord) -> bool:
    """Whether the run was picked up from a snapshot: its times are then those of several processes, in part unknown."""
    return bool(record.document.get("resumed"))


def cost(record: RunRecord) -> dict[str, float]:
    """Every quantity of TIMINGS of a run; NaN where not recorded, and all of them where the run was interrupted."""
    if was_interrupted(record):
        return dict.fromkeys(TIMINGS, math.nan)
    document = record.document
    timings = part_of(document, "timings")
    latency = part_of(timings, "latency")
    derived = {
        "compile_seconds": compile_seconds(record),
        "training_gflop_per_second": training_gflop(record) * number(timings.get("steady_images_per_second")),
        "latency_1_seconds": number(latency.get("1")),
        "latency_batch_seconds": number(latency.get(str(latency.get("batch_size")))),
        "energy_joules": number(part_of(document, "energy").get("joules")),
    }
    recorded = {**timings, **part_of(document, "memory")}
    return {name: derived[name] if name in derived else number(recorded.get(name)) for name in TIMINGS}


def compile_seconds(record: RunRecord) -> float:
    """What the cold steps took beyond steady ones; in older records reckoned from what they have."""
    timings = part_of(record.document, "timings")
    if "compile_seconds" in timings:
        return number(timings["compile_seconds"])
    cold = len(record.document.get("phases") or ()) or 1  # each phase has an optimizer of its own
    beyond = number(timings.get("first_step_seconds")) - cold * number(timings.get("step_p50_seconds"))
    return beyond if math.isnan(beyond) else max(0.0, beyond)


def work_of(record: RunRecord) -> Work | None:
    """The forward pass of one image, counted from the record's spec; None where it has none that is known."""
    try:
        return forward_work(config.model_spec_from_json(record.document["spec"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def training_gflop(record: RunRecord) -> float:
    """Arithmetic of training on one image, in 10^9 operations: three forward passes, one while only the last layer
    learns; the mean over the epochs. NaN where unknown.
    """
    work, phases = work_of(record), record.document.get("phases") or [{"trainable": "all", "epochs": 1}]
    if work is None:
        return math.nan
    passes = [(1 if one.get("trainable") == "head" else TRAINING_PASSES) * one["epochs"] for one in phases]
    return work.flops * sum(passes) / sum(one["epochs"] for one in phases) / 1e9


def time_parts(record: RunRecord) -> dict[str, float]:
    """Seconds of each part of a run, which add up to its total; empty where the record lacks that or the run was
    interrupted.

    Compiling and waiting are 0 where whole epochs were timed: they are within "steps" then.
    """
    timings = part_of(record.document, "timings")
    total = number(timings.get("total_seconds"))
    if math.isnan(total) or was_interrupted(record):
        return {}

    def seconds(name: str) -> float:
        found = number(timings.get(name))
        return 0.0 if math.isnan(found) else found

    beyond = compile_seconds(record)
    compiling, waiting = (0.0 if math.isnan(beyond) else beyond), seconds("wait_seconds")
    parts = {
        "import": seconds("import_seconds"),
        "data": seconds("data_seconds"),
        "build": seconds("build_seconds"),
        "trainer": seconds("trainer_seconds"),
        "compile": compiling,
        "wait": waiting,
        "steps": max(0.0, seconds("train_seconds") - compiling - waiting),
        "evaluate": seconds("evaluate_seconds"),
        "checkpoint": seconds("checkpoint_seconds"),
        "latency": seconds("latency_seconds"),
    }
    return parts | {"other": max(0.0, total - sum(parts.values()))}
