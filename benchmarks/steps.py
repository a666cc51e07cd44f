"""Training steps of each model beside what a user would pick instead.

Two comparisons a model and framework. "training": pictures are read, changed and learnt from, ours as in a run, the
peer as its tutorials have it, once in the environment of a user's shell (shipped) and once in that of our workers
(same); the processes' peak memory and the times of their start come from there too. "step": one batch in memory, over
and over, on both sides, which leaves the model, the loss and the optimizer. Segmentation is also compared with other
people's U-Nets, by floating-point operations a second, for theirs are more or less work an image than ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

from benchmarks.harness import SETTINGS, Comparison
from benchmarks.material import write_material
from benchmarks.plan import (
    BATCH_SIZES,
    Job,
    Options,
    alternated,
    expected_seconds,
    has_peer,
    missing_rows,
    ours,
    plain,
    row_of,
)
from benchmarks.table import Row
from common.config import UnetSpec
from common.flops import TRAINING_PASSES

OURS = "ours"
WIDE = (32, 64, 128, 256, 512)  # MONAI's and most people's widths
NARROW = UnetSpec().features

PEER_NAMES = {
    ("torch", "cnn"): "plain PyTorch loop, DataLoader",
    ("torch", "densenet121"): "timm, plain PyTorch loop, DataLoader",
    ("torch", "convnext_tiny"): "timm, plain PyTorch loop, DataLoader",
    ("torch", "unet"): "plain PyTorch loop, DataLoader",
    ("keras", "cnn"): "plain Keras, fit on a directory",
    ("keras", "densenet121"): "keras.applications, fit on a directory",
    ("keras", "convnext_tiny"): "keras.applications, fit on a directory",
    ("keras", "unet"): "plain Keras, fit on tf.data",
}
NEEDS = {"densenet121": ("timm", "torchvision"), "convnext_tiny": ("timm", "torchvision")}

# Ratio of images a second that is wanted at least: (stack, model, setting) -> ratio
TARGETS = (
    {("torch", model, "shipped"): 1.3 for model in ("cnn", "densenet121", "unet")}
    | {("torch", "convnext_tiny", "shipped"): 1.15}
    | {("torch", model, "same"): 1.05 for model in BATCH_SIZES}
    | {("keras", model, setting): 1.0 for model in ("cnn", "unet") for setting in SETTINGS}
    | {("keras", "densenet121", setting): 1.1 for setting in SETTINGS}
    | {("keras", "convnext_tiny", setting): 5.0 for setting in SETTINGS}
)
STEP_TARGET = 1.0
GFLOP_TARGET = 1.0
MEMORY_TARGET = 1 / 1.1  # peak of ours at most 1.1 times the peer's
WAIT_TARGET = 0.98  # of the time of a training not spent waiting for data

# Facts of a start and an end: (fact of the contestants, what it is called)
FACTS = (
    ("import_seconds", "start and import"),
    ("build_seconds", "build"),
    ("first_step_seconds", "first step"),
    ("last_step_seconds", "smaller last batch"),
    ("evaluate_seconds", "evaluation of 4 batches"),
    ("checkpoint_seconds", "checkpoint"),
)


def jobs(options: Options) -> list[Job]:
    """Training and step of each model in each framework, then the other U-Nets."""
    found = [
        one
        for framework in options.frameworks
        for model in options.models
        for one in (
            Job(
                f"training {model} {framework}",
                expected_seconds(options, framework, model, 3, together=False),
                partial(training_rows, options, framework, model),
            ),
            Job(
                f"step {model} {framework}",
                expected_seconds(
                    options, framework, model, 1 + len(_step_settings(framework)), together=True
                ),
                partial(step_rows, options, framework, model),
            ),
        )
    ]
    if "torch" in options.frameworks and "unet" in options.models:
        for peer, features in (("monai", NARROW), ("monai", WIDE), ("smp", WIDE)):
            found.append(
                Job(
                    f"U-Net of {peer}, widths from {features[0]}",
                    expected_seconds(options, "torch", "unet", 3, together=True),
                    partial(unet_rows, options, peer, features),
                )
            )
    return found


def training_rows(
    options: Options, framework: str, model: str, rounds: int | None = None, seconds: float | None = None
) -> list[Row]:
    """Rows of the tables training, wait, memory and overhead: from files to steps, facts of start and end with it."""
    material = str(write_material(options.scratch / "material", (options.image_size,), quick=options.quick))
    arguments = ("--material", material, "--image-size", str(options.image_size), "--facts")
    mine = ours(
        framework, "--model", model, "--data", "stream", "--dressed", *arguments, device=options.device
    )
    rest = ("--data", "files", *_peer_arguments(model), *arguments)
    name = PEER_NAMES[_stack(framework), model]
    key = ("training", OURS, name, model, framework)
    missing = partial(missing_rows, key, SETTINGS, "images/s")
    if reason := _why_missing(framework, model):
        return missing(reason)
    peers = [plain(framework, setting, *rest, device=options.device) for setting in SETTINGS]
    found = alternated(mine, peers, rounds or options.rounds, seconds or options.seconds)
    if isinstance(found, str):
        return missing(found)
    rows = [
        row_of(comparison, *key, setting, TARGETS[_stack(framework), model, setting])
        for comparison, setting in zip(found, SETTINGS, strict=True)
    ]
    return [
        *rows,
        _wait_row(found[0], model, framework),
        *(
            _memory_row(comparison, name, model, framework, setting)
            for comparison, setting in zip(found, SETTINGS, strict=True)
        ),
        *_fact_rows(found[0], name, model, framework),
    ]


def step_rows(options: Options, framework: str, model: str) -> list[Row]:
    """Rows of the table step: one batch in memory."""
    arguments = ("--data", "synthetic", "--image-size", str(options.image_size))
    mine = ours(framework, "--model", model, *arguments, device=options.device)
    settings = _step_settings(framework)
    name = PEER_NAMES[_stack(framework), model].split(", DataLoader")[0].split(" on ")[0]
    key = ("step", OURS, name, model, framework)
    missing = partial(missing_rows, key, settings, "images/s")
    if reason := _why_missing(framework, model):
        return missing(reason)
    peers = [
        plain(framework, setting, *_peer_arguments(model), *arguments, device=options.device)
        for setting in settings
    ]
    found = alternated(mine, peers, options.rounds, options.seconds, start_together=True)
    if isinstance(found, str):
        return missing(found)
    return [
        row_of(comparison, *key, setting, STEP_TARGET)
        for comparison, setting in zip(found, settings, strict=True)
    ]


def unet_rows(options: Options, peer: str, features: tuple[int, ...]) -> list[Row]:
    """Rows of the table unet: our U-Net beside another, both in training-mode GFLOP/s and the note in images/s."""
    titles = {
        "monai": f"MONAI BasicUNet, widths from {features[0]}",
        "smp": "segmentation_models_pytorch Unet, ResNet-34",
    }
    key = ("unet", f"ours, widths from {features[0]}", titles[peer], "unet", "torch")
    package = {"monai": "monai", "smp": "segmentation_models_pytorch"}[peer]
    missing = partial(missing_rows, key, SETTINGS, "GFLOP/s")
    if not has_peer(package):
        return missing(_not_installed(package))
    widths = ("--features", *map(str, features))
    arguments = ("--data", "synthetic", "--image-size", str(options.image_size), *widths)
    mine = ours("torch", "--model", "unet", *arguments, device=options.device)
    peers = [
        plain("torch", setting, "--peer", peer, "--batch-size", "8", *arguments, device=options.device)
        for setting in SETTINGS
    ]
    found = alternated(mine, peers, options.rounds, options.seconds, start_together=True)
    if isinstance(found, str):
        return missing(found)
    return [_flop_row(one, key, setting) for one, setting in zip(found, SETTINGS, strict=True)]


def _flop_row(comparison: Comparison, key: tuple[str, str, str, str, str], setting: str) -> Row:
    a_flops, b_flops = comparison.a_ready["flops"], comparison.b_ready["flops"]
    note = (
        f"{comparison.a_rate:.3g} against {comparison.b_rate:.3g} images/s; forward pass of an image "
        f"{a_flops / 1e9:.2f} against {b_flops / 1e9:.2f} GFLOP"
    )
    row = row_of(comparison, *key, setting, GFLOP_TARGET, note=note, scale=a_flops / b_flops, unit="GFLOP/s")
    per_second = [
        rate * flops * TRAINING_PASSES / 1e9
        for rate, flops in ((comparison.a_rate, a_flops), (comparison.b_rate, b_flops))
    ]
    return Row(**{**vars(row), "ours_rate": per_second[0], "peer_rate": per_second[1]})


def _wait_row(comparison: Comparison, model: str, framework: str) -> Row:
    share = comparison.a_wait_share
    return Row(
        "wait",
        OURS,
        "no waiting",
        model,
        framework,
        "shipped",
        "part of the time not waiting for data",
        ratio=1 - share,
        ours_rate=1 - share,
        peer_rate=1.0,
        target=WAIT_TARGET,
        rounds=len(comparison.ratios),
        load=comparison.load,
        note=f"waits {100 * share:.2g} % of the time",
    )


def _memory_row(comparison: Comparison, name: str, model: str, framework: str, setting: str) -> Row:
    mine, its = (
        peak + children
        for peak, children in zip(
            (comparison.a_peak_mib, comparison.b_peak_mib), comparison.children_mib, strict=True
        )
    )
    return Row(
        "memory",
        OURS,
        name,
        model,
        framework,
        setting,
        "MiB",
        its / mine,
        ours_rate=mine,
        peer_rate=its,
        ours_peak_mib=mine,
        peer_peak_mib=its,
        target=MEMORY_TARGET,
        rounds=len(comparison.ratios),
        load=comparison.load,
        note=f"the peer's loader processes are {comparison.children_mib[1]:.0f} MiB of it"
        if comparison.children_mib[1]
        else "",
    )


def _fact_rows(comparison: Comparison, name: str, model: str, framework: str) -> Iterable[Row]:
    """One start each, so without an interval."""
    for fact, title in FACTS:
        mine, its = comparison.a_ready.get(fact), comparison.b_ready.get(fact)
        yield Row(
            "overhead",
            f"{OURS}: {title}",
            name,
            model,
            framework,
            "shipped",
            "s",
            its / mine if mine and its else math.nan,
            ours_rate=math.nan if mine is None else mine,
            peer_rate=math.nan if its is None else its,
            load=comparison.load,
            note="timed once",
        )


def _stack(framework: str) -> str:
    return framework.split("-")[0]


def _step_settings(framework: str) -> tuple[str, ...]:
    """Keras on TensorFlow hardly feels the environment of a step (allocator and threads are its own): one is enough."""
    return SETTINGS if framework == "torch" else ("same",)


def _peer_arguments(model: str) -> tuple[str, ...]:
    return "--peer", model, "--batch-size", str(BATCH_SIZES[model])


def _why_missing(framework: str, model: str) -> str:
    if framework != "torch":
        return ""
    missing = [package for package in NEEDS.get(model, ()) if not has_peer(package)]
    return _not_installed(", ".join(missing)) if missing else ""


def _not_installed(package: str) -> str:
    return f"{package} is not installed; `make bench` installs what can be had"
