"""What is spent beside the steps: start, first step, last batch, evaluation, checkpoint; the bookkeeping of a run's
loop; and the whole of `compare.py study` beside the training in it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial

from benchmarks.harness import alternate_all
from benchmarks.material import write_material
from benchmarks.plan import Job, Options, expected_seconds, ours, row_of
from benchmarks.table import Row
from common.codebase import ROOT
from common.errors import StudyError
from common.results import read_study

LOOP_MODELS = ("cnn", "unet")  # with the shortest steps, where bookkeeping shows most
LOOP_TARGET = 0.97  # rate of a run's loop over that of its bare steps
STUDY_TARGET = 0.90  # part of a quick study's time that is training, start and compilation
STUDY_SECONDS = 170.0  # expected
STUDY_TIMEOUT_SECONDS = 1800


def jobs(options: Options) -> list[Job]:
    """The loops and the study; starts and ends are measured with the training steps, or by `memory.facts_jobs`."""
    loops = [
        Job(
            f"harness {model} {framework}",
            expected_seconds(options, framework, model, 2, together=True),
            partial(loop_rows, options, framework, model),
        )
        for framework in options.frameworks
        for model in options.models
        if model in LOOP_MODELS
    ]
    study = Job("compare.py study", STUDY_SECONDS, partial(study_rows, options))
    return [*loops, study]


def loop_rows(options: Options, framework: str, model: str) -> list[Row]:
    """`train_epoch` with a run's clock, digests and messages beside the same on the same batches without them."""
    material = write_material(options.scratch / "material", (options.image_size,), quick=options.quick)
    size = ("--image-size", str(options.image_size))
    arguments = ("--model", model, "--data", "ready", "--material", str(material), *size)
    dressed = ours(framework, *arguments, "--dressed", device=options.device)
    bare = ours(framework, *arguments, device=options.device, name="bare steps")
    found = alternate_all(dressed, [bare], options.rounds, options.seconds, start_together=True)[0]
    return [
        row_of(
            found,
            "harness",
            "a run's loop: clock, digests, messages",
            "bare steps on the same batches",
            model,
            framework,
            "same",
            LOOP_TARGET,
        )
    ]


def study_rows(options: Options) -> list[Row]:
    """The quick study of the phantom: what part of its wall time its runs' training, import and compilation are."""
    out = options.scratch / "study"
    command = [sys.executable, "compare.py", "study", "--profile", "quick", "--out", str(out)]
    command += ["--frameworks", *options.frameworks, "--device", options.device]
    if options.quick:
        command += [
            "--patients",
            "24",
            "--seeds",
            "1",
            "--repeats",
            "0",
            "--tasks",
            "binary",
            "--epochs",
            "1",
        ]
    began = time.perf_counter()
    answer = subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=STUDY_TIMEOUT_SECONDS,
        check=False,
    )
    total = time.perf_counter() - began
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        raise StudyError(f"the quick study ended with {answer.returncode}: {last[:300]}")
    timings = [run.document["timings"] for run in read_study(out).complete]

    def spent(*names: str) -> float:
        return sum(timing.get(name) or 0.0 for timing in timings for name in names)

    parts = {
        "training with compilation": spent("train_seconds"),
        "import": spent("import_seconds"),
        "optimizer (PyTorch imports torch._dynamo there)": spent("trainer_seconds"),
        "build": spent("build_seconds"),
        "evaluation": spent("evaluate_seconds"),
        "latency": spent("latency_seconds"),
        "data and checkpoints": spent("data_seconds", "checkpoint_seconds"),
    }
    counted = parts["training with compilation"] + parts["import"]
    parts["rest (phantom, audit, cache, process starts, report)"] = total - sum(parts.values())
    return [
        Row(
            "study",
            "compare.py study --profile quick",
            "its training, import and compilation",
            "all",
            ", ".join(options.frameworks),
            "shipped",
            "s",
            counted / total,
            ours_rate=total,
            peer_rate=counted,
            target=STUDY_TARGET,
            rounds=1,
            note=f"{len(timings)} runs; "
            + "; ".join(f"{name} {value:.1f} s" for name, value in parts.items()),
        )
    ]
