"""What a divergence of two traces says, as a sentence to act on: where they part, what agrees before, where to look."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Of one step, in the order of causes. "forward": the logits in evaluation mode before training, "logits" after it.
STAGES = ("batch", "outputs", "forward", "loss", "gradients", "weights", "statistics", "logits")
EXACT = 0.0  # tolerance of a batch
SINGULAR = ("differs", " of its size")

BATCH_REMEDIES = {
    "rows": "other samples: look at the order and the sampling",
    "images": "the same samples, other pixels: look at resizing, augmentation and normalisation",
    "targets": "the same pixels, other truth: look at label smoothing and masks",
    "weights": "the same samples, other loss weights: look at the class weights",
}


@dataclass(frozen=True)
class Finding:
    """The difference of one thing at one step (from 1)."""

    step: int
    stage: str
    name: str  # batch field, layer or tensor; "" where there is but one
    difference: float


@dataclass(frozen=True)
class Divergence:
    """Where two trainings first part, for a person to act on."""

    step: int  # from 1; of logits in evaluation mode: 1 before training, the last after it
    stage: str  # "batch" | "outputs" | "loss" | "gradients" | "weights" | "statistics" | "logits"
    layer: str
    tensor: str  # of the layer, e.g. "running_var"; of a batch its field
    difference: float
    tolerance: float
    words: str


def describe(findings: Sequence[Finding], place: int, tolerances: Mapping[str, float]) -> Divergence:
    """The divergence that is `findings[place]`, the first beyond its tolerance."""
    one = findings[place]
    tolerance = (
        EXACT if one.stage == "batch" else tolerances["logits" if one.stage == "forward" else one.stage]
    )
    words = {
        "batch": _of_batch,
        "outputs": _of_outputs,
        "forward": _of_forward,
        "loss": _of_loss,
        "gradients": _of_gradients,
        "weights": _of_tensors,
        "statistics": _of_tensors,
        "logits": _of_logits,
    }[one.stage](findings, place, tolerance)
    layer, tensor = ("", one.name) if one.stage == "batch" else (one.name, "")
    if one.stage in ("gradients", "weights", "statistics"):
        layer, _, tensor = one.name.rpartition(".")
    stage = "logits" if one.stage == "forward" else one.stage
    return Divergence(one.step, stage, layer, tensor, one.difference, tolerance, words)


def _of_batch(findings: Sequence[Finding], place: int, tolerance: float) -> str:
    del tolerance
    one = findings[place]
    return f"step {one.step}: the batch differs in its {one.name}: {BATCH_REMEDIES[one.name]}"


def _of_outputs(findings: Sequence[Finding], place: int, tolerance: float) -> str:
    del tolerance
    one = findings[place]
    said = f"step {one.step}: the outputs of {one.name} {_apart(one)}"
    before = _agreed(findings, place)
    if not before:
        return f"{said}, those of the first layer: look at its starting weights and at what it does"
    return f"{said} while those of {before[-1].name} agree: look between the two"


def _of_forward(findings: Sequence[Finding], place: int, tolerance: float) -> str:
    del tolerance
    return (
        f"before training: every layer's output in training mode agrees, but the logits in evaluation mode "
        f"{_apart(findings[place], of='')}: look at what layers do in evaluation mode"
    )


def _of_loss(findings: Sequence[Finding], place: int, tolerance: float) -> str:
    del tolerance
    one = findings[place]
    if any(other.stage == "outputs" and other.step == one.step for other in findings[:place]):
        agree = "the batch and the outputs of every layer agree"
        look = "the loss (weights, smoothing, divisor, what it takes)"
    elif any(other.stage == "weights" and other.step == one.step - 1 for other in findings[:place]):
        agree = f"the batch agrees, and so did the weights after step {one.step - 1}"
        look = "what changes from step to step without being a weight: dropout masks, and how the loss is reported"
    else:
        agree = "the batches and all that was compared before agree"
        look = "the optimizer (moments, rate, decay, epsilon), whose weights must have parted in between"
    return f"step {one.step}: {agree}, but the loss {_apart(one, *SINGULAR)}: look at {look}"


def _of_gradients(findings: Sequence[Finding], place: int, tolerance: float) -> str:
    one, before = findings[place], _agreed(findings, place)
    layer = one.name.rpartition(".")[0]
    nearer = [other.name.rpartition(".")[0] for other in before if other.name.rpartition(".")[0] != layer]
    said = f"step {one.step}: the loss agrees, but the gradient of {one.name} {_apart(one, *SINGULAR)}"
    if nearer:
        return f"{said} while that of {nearer[-1]}, nearer the loss, agrees: look between the two"
    return f"{said}{_how_many(findings, place, tolerance)}: look at the derivative of the loss and of {layer}"


def _of_tensors(findings: Sequence[Finding], place: int, tolerance: float) -> str:
    one = findings[place]
    layer, _, tensor = one.name.rpartition(".")
    count = _how_many(findings, place, tolerance)
    if one.stage == "statistics":
        return (
            f"step {one.step}: the weights agree, but {tensor} of {layer} after the step {_apart(one, *SINGULAR)}"
            f"{count}: look at how batch norm's statistics are kept"
        )
    if any(other.stage == "outputs" and other.step == one.step for other in findings[:place]):
        agree = "outputs, loss and gradients agree"
    else:
        agree = "all losses and gradients agree"
    return (
        f"step {one.step}: {agree}, but the weights of {one.name} after the step {_apart(one)}{count}: "
        "look at the optimizer (rate, decay, epsilon, clipping)"
    )


def _of_logits(findings: Sequence[Finding], place: int, tolerance: float) -> str:
    del tolerance
    one = findings[place]
    return (
        f"after step {one.step}: losses, gradients, weights and statistics agree, but the logits in evaluation mode "
        f"{_apart(one, of='')}: look at what layers do in evaluation mode"
    )


def _apart(one: Finding, verb: str = "differ", of: str = " of their size") -> str:
    if not math.isfinite(one.difference):
        return "cannot be compared (missing on one side, of another shape, or not finite)"
    return f"{verb} by {one.difference:.0e}{of}"


def _agreed(findings: Sequence[Finding], place: int) -> list[Finding]:
    """What was compared before at the same step and stage; all of it agreed."""
    one = findings[place]
    return [other for other in findings[:place] if (other.step, other.stage) == (one.step, one.stage)]


def _how_many(findings: Sequence[Finding], place: int, tolerance: float) -> str:
    """Of which kinds of tensors how many differ: what they have in common is half the answer."""
    one = findings[place]
    group = [other for other in findings if (other.step, other.stage) == (one.step, one.stage)]
    kinds = Counter(_kind(other.name) for other in group)
    beyond = Counter(_kind(other.name) for other in group if not other.difference <= tolerance)
    return " (" + ", ".join(f"{beyond[kind]} of {count} {kind}" for kind, count in kinds.items()) + ")"


def _kind(name: str) -> str:
    return name.rpartition(".")[2]
