"""This project's training as a contestant: the verbs of a framework, fed as in a run.

    python -m benchmarks.ours --framework torch --model unet --data stream --material DIR

`--data synthetic`: one batch of random numbers, over and over; `ready`: batches of the stream, made before;
`stream`: the stream itself, epoch after epoch. `--dressed`: with the clock, digests and messages of a run.
`--compiled`: the model by `torch.compile`, or the step by XLA, where a run does not do so.
`--deterministic`: as a study with that option.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contestant import serve
from benchmarks.material import training_part
from benchmarks.plan import BATCH_SIZES, TASKS
from common import config, measure
from common.config import ModelSpec, Recipe
from common.data.batches import Witness, steps_per_epoch, training_batches
from common.engines import module_of
from common.errors import StudyError
from common.fitting import report_steps
from common.flops import forward_work
from common.framework import Batch, Settings
from common.random_numbers import generator
from common.schedule import learning_rate
from common.weights import initial_weights, save_checkpoint

READY_BATCHES = 8
WARM_STEPS = 4  # timed after the first for the steady step of the facts


def main() -> None:
    options = _parse()
    framework = importlib.import_module(module_of(options.framework))
    device = framework.configure(
        Settings(options.device, "float32", options.threads, seed=0, deterministic=options.deterministic)
    )
    import_seconds = measure.seconds_since_start()

    spec, recipe = settings_of(options.model, options.framework, options.image_size, options.features)
    began = time.perf_counter()
    model = framework.build(spec)
    shapes = {name: array.shape for name, array in framework.read_weights(model).items()}
    framework.write_weights(model, initial_weights(shapes, spec, 0))
    if options.compiled:
        compile_step(options.framework, model)
    trainer = framework.create_trainer(model, recipe)
    build_seconds = time.perf_counter() - began

    batches, clock = batches_of(options, spec, recipe), measure.StepClock(framework.synchronise)
    if options.dressed:
        batches = dressed(batches)

    def block(steps: int) -> int:
        rates = (learning_rate(1, 10, recipe) for _ in range(steps))
        pairs: Any = ((next(batches), rate) for rate in rates)
        if options.dressed:
            pairs = clock.watch(report_steps(pairs, 0, steps, lambda event: None))
        framework.train_epoch(trainer, pairs)
        framework.synchronise()
        return steps * recipe.batch_size

    def timed(steps: int) -> float:
        begin = time.perf_counter()
        block(steps)
        return time.perf_counter() - begin

    facts: dict[str, Any] = {
        "framework": framework.environment()["framework"],
        "device": device,
        "environment": framework.environment(),
        "flops": forward_work(spec).flops,
        "parameters": sum(int(np.prod(shape)) for name, shape in shapes.items() if "running" not in name),
        "import_seconds": import_seconds,
        "build_seconds": build_seconds,
        "first_step_seconds": timed(1),
    }
    if options.facts:
        facts["step_seconds"] = timed(WARM_STEPS) / WARM_STEPS
        # An epoch is filled up with samples of its own, so that its last step is one like any other
        facts["last_step_seconds"] = timed(1)
        few = [next(batches) for _ in range(WARM_STEPS)]
        for _ in range(2):  # the first traces
            begin = time.perf_counter()
            for _ in framework.predict_logits(model, few):
                pass
            facts["evaluate_seconds"] = time.perf_counter() - begin
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(Path(folder, "model.safetensors"), framework.read_weights(model), {})
        facts["checkpoint_seconds"] = time.perf_counter() - begin
    serve(facts, block, lambda: clock.wait_seconds)


def compile_step(framework: str, model: Any) -> None:
    """From here on the model's steps are compiled. Raises StudyError where there is nothing to choose."""
    if framework == "torch":
        model.compile()
    elif framework == "keras-tensorflow":
        importlib.import_module("keras_impl.training").compiles_with_xla = lambda: True  # type: ignore[attr-defined]
    else:
        raise StudyError(f"{framework} is compiled always or never; give torch or keras-tensorflow")


def settings_of(
    model: str, framework: str, image_size: int, features: tuple[int, ...] | None = None
) -> tuple[ModelSpec, Recipe]:
    """Spec and recipe of the aligned lane, from random weights, at the benchmark's sizes."""
    spec = config.spec_of(TASKS[model], model, "standard")
    changes: dict[str, Any] = {"image_size": image_size} | ({"features": features} if features else {})
    spec = dataclasses.replace(spec, **changes)
    recipe = config.recipe_of(TASKS[model], model, "standard", batch_size=BATCH_SIZES[model])
    return config.in_lane(spec, recipe, framework, "aligned")


def synthetic_batch(spec: ModelSpec, recipe: Recipe) -> Batch:
    """A batch of random numbers in the shapes of the model's."""
    draw, size, count = generator("benchmark", spec.name), spec.image_size, recipe.batch_size
    images = draw.standard_normal((count, size, size, spec.channels), dtype=np.float32)
    if spec.name == "unet":
        targets = (draw.random((count, size, size, 1)) < 0.1).astype(np.float32)
    elif spec.outputs == 1:
        targets = (draw.random((count, 1)) < 0.5).astype(np.float32)
    else:
        targets = np.eye(spec.outputs, dtype=np.float32)[draw.integers(0, spec.outputs, count)]
    return Batch(images, targets, np.ones(count, np.float32), np.arange(count), ("benchmark", 0, 0))


def batches_of(options: argparse.Namespace, spec: ModelSpec, recipe: Recipe) -> Iterator[Batch]:
    """Batches without end."""
    if options.data == "synthetic":
        return itertools.repeat(synthetic_batch(spec, recipe))
    part = training_part(options.material, TASKS[options.model], spec.image_size, recipe)

    def epochs() -> Iterator[Batch]:
        for epoch in itertools.count(1):
            yield from training_batches(part, recipe, spec, 0, epoch, options.framework)

    assert steps_per_epoch(part, recipe) > 0
    if options.data == "stream":
        return epochs()
    return itertools.cycle(list(itertools.islice(epochs(), READY_BATCHES)))


def dressed(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches as a run watches them: digests of the first of an epoch, and of the order of all."""
    return iter(Witness().watch(batches))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--framework", choices=config.FRAMEWORKS, required=True)
    parser.add_argument("--model", choices=tuple(config.MODELS), required=True)
    parser.add_argument("--data", choices=("synthetic", "ready", "stream"), default="synthetic")
    parser.add_argument("--material", type=Path)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--features", type=int, nargs="+", help="widths of a U-Net")
    parser.add_argument("--device", choices=config.DEVICES, default="auto")
    parser.add_argument("--dressed", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--threads", type=int, default=measure.usable_cores())
    parser.add_argument(
        "--facts", action="store_true", help="time evaluation and checkpoint before the blocks"
    )
    options = parser.parse_args()
    options.features = tuple(options.features) if options.features else None
    return options


if __name__ == "__main__":
    main()
