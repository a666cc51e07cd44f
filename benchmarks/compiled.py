"""Our step as a run does it beside the same step compiled: why a CPU runs PyTorch eagerly and TensorFlow without XLA.

Both sides are ours, on one batch in memory. What a compilation costs stands in the note: it is paid in every run.
"""

from __future__ import annotations

from functools import partial

from benchmarks.plan import Job, Options, alternated, expected_seconds, missing_rows, ours, row_of
from benchmarks.table import Row

# What a run leaves out. Keras on JAX is compiled in a run; on the torch backend Keras compiles nothing
COMPILERS = {"torch": "torch.compile (inductor)", "keras-tensorflow": "XLA (jit_compile)"}
# Until the first step is done, on two quiet cores
COMPILE_SECONDS = {
    "torch": {"cnn": 45.0, "unet": 45.0, "convnext_tiny": 100.0, "densenet121": 400.0},
    "keras-tensorflow": {"cnn": 9.0, "unet": 12.0, "convnext_tiny": 30.0, "densenet121": 60.0},
}


def jobs(options: Options) -> list[Job]:
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
    arguments = ("--model", model, "--data", "synthetic", "--image-size", str(options.image_size))
    mine = ours(framework, *arguments, device=options.device)
    other = ours(framework, *arguments, "--compiled", device=options.device, name="ours, compiled")
    key = ("compiled", "as in a run", COMPILERS[framework], model, framework)
    answer = alternated(mine, [other], options.rounds, options.seconds)
    if isinstance(answer, str):
        return missing_rows(key, ("same",), "images/s", answer)
    found = answer[0]
    first = [ready["first_step_seconds"] for ready in (found.a_ready, found.b_ready)]
    note = f"first step {first[0]:.2g} s against {first[1]:.2g} s"
    return [row_of(found, *key, "same", note=note)]
