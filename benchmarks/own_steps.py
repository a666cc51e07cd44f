"""Our step as a run does it beside the same step done another way: compiled, or `--deterministic`.

Both sides are ours, on one batch in memory. Why a CPU runs PyTorch eagerly and TensorFlow without XLA, and what equal
bits cost. What a compilation costs stands in the note: it is paid in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from benchmarks.harness import Comparison, Contestant
from benchmarks.plan import Job, Options, alternated, expected_seconds, missing_rows, ours, row_of
from benchmarks.table import Row
from common.config import DETERMINISTIC_THREADS
from common.measure import usable_cores

# What a run leaves out. Keras on JAX is compiled in a run; on the torch backend Keras compiles nothing
COMPILERS = {"torch": "torch.compile (inductor)", "keras-tensorflow": "XLA (jit_compile)"}
# Until the first step is done, on two quiet cores
COMPILE_SECONDS = {
    "torch": {"cnn": 45.0, "unet": 45.0, "convnext_tiny": 100.0, "densenet121": 400.0},
    "keras-tensorflow": {"cnn": 9.0, "unet": 12.0, "convnext_tiny": 30.0, "densenet121": 60.0},
}


def compiled_jobs(options: Options) -> list[Job]:
    """A comparison for each model in each framework where compiling is a choice."""
    return [
        Job(
            f"compiled {model} {framework}",
            COMPILE_SECONDS[framework][model]
            + expected_seconds(options, framework, model, 2, together=False),
            partial(compiled_rows, options, framework, model),
        )
        for framework in options.frameworks
        if framework in COMPILERS
        for model in options.models
    ]


def compiled_rows(options: Options, framework: str, model: str) -> list[Row]:
    """One row: the step of a run over the compiled one."""
    other = _ours(options, framework, model, "--compiled", name="ours, compiled")
    key = ("compiled", "as in a run", COMPILERS[framework], model, framework)
    return _rows(options, framework, model, {"same": other}, key, _first_steps)


def deterministic_jobs(options: Options) -> list[Job]:
    """A comparison for each model in each framework."""
    return [
        Job(
            f"deterministic {model} {framework}",
            expected_seconds(options, framework, model, 3, together=False),
            partial(deterministic_rows, options, framework, model),
        )
        for framework in options.frameworks
        for model in options.models
    ]


def deterministic_rows(options: Options, framework: str, model: str) -> list[Row]:
    """Two rows: a run alone on the machine over one that repeats its bits, with its threads and with the promised."""
    settings = {"same": usable_cores(), f"{DETERMINISTIC_THREADS} thread": DETERMINISTIC_THREADS}
    others = {
        setting: _ours(options, framework, model, name=setting, threads=threads, deterministic=True)
        for setting, threads in settings.items()
    }
    key = ("deterministic", "as in a run", "--deterministic", model, framework)
    return _rows(options, framework, model, others, key, lambda found: "")


def _rows(
    options: Options,
    framework: str,
    model: str,
    others: Mapping[str, Contestant],
    key: tuple[str, str, str, str, str],
    note: Callable[[Comparison], str],
) -> list[Row]:
    """A row for each other way (setting -> contestant)."""
    answer = alternated(
        _ours(options, framework, model), list(others.values()), options.rounds, options.seconds
    )
    if isinstance(answer, str):
        return missing_rows(key, tuple(others), "images/s", answer)
    return [
        row_of(found, *key, setting, note=note(found)) for found, setting in zip(answer, others, strict=True)
    ]


def _ours(options: Options, framework: str, model: str, *more: str, **settings: Any) -> Contestant:
    size = str(options.image_size)
    arguments = ("--model", model, "--data", "synthetic", "--image-size", size, *more)
    return ours(framework, *arguments, device=options.device, **settings)


def _first_steps(found: Comparison) -> str:
    first = [ready["first_step_seconds"] for ready in (found.a_ready, found.b_ready)]
    return f"first step {first[0]:.2g} s against {first[1]:.2g} s"
