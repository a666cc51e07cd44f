"""Two traces side by side: where, in the order of causes, the second departs from the first. Arrays in, numbers out.

Differences, of a from the reference and b from the candidate (0 / 0 is 0; where a is 0, b's own size stands for it):
outputs |a - b| / |a| by the largest value, weights and statistics by the L2 norm, the loss by its value, a gradient's
norm by itself, or by 1e-12 of all gradients together where it is smaller still; logits |a - b|, the largest. What is
missing on one side, of another shape or not finite differs by infinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.framework import Array
from common.parity_words import Divergence, Finding, describe
from common.trace import BATCH_FIELDS, Trace

STATISTICS = ("running_mean", "running_var")
GRADIENT_FLOOR = 1e-12  # of the norm of all gradients together


@dataclass(frozen=True)
class Floor:
    """How far the reference drifts from itself when it rounds otherwise."""

    loss_max_rel: float
    logits_max_abs: float


# --- differences --------------------------------------------------------------------------------------------------


def relative_max(a: Array, b: Array) -> float:
    """Largest |a - b| over the largest |a|."""
    if not _comparable(a, b):
        return math.inf
    return _ratio(_largest(a - b), _largest(a), _largest(b))


def relative_norm(a: Array, b: Array) -> float:
    """L2 norm of a - b over that of a."""
    if not _comparable(a, b):
        return math.inf
    return _ratio(_norm(a - b), _norm(a), _norm(b))


def absolute_max(a: Array, b: Array) -> float:
    """Largest |a - b|."""
    return _largest(a - b) if _comparable(a, b) else math.inf


def gradient_difference(a: float, b: float, together: float) -> float:
    """|a - b| of two norms over a; `together` is the reference's norm over all tensors."""
    if not (math.isfinite(a) and math.isfinite(b)):
        return math.inf
    return _ratio(abs(a - b), max(a, GRADIENT_FLOOR * together), b)


def total_norm(norms: Mapping[str, float]) -> float:
    """L2 norm over all tensors together."""
    return math.sqrt(math.fsum(norm * norm for norm in norms.values()))


def _comparable(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool(np.isfinite(a).all() and np.isfinite(b).all())


def _ratio(difference: float, size: float, other_size: float) -> float:
    return difference / (size or other_size) if difference else 0.0


def _largest(a: Array) -> float:
    return float(np.abs(a).max(initial=0.0))


def _norm(a: Array) -> float:
    return float(np.linalg.norm(np.asarray(a, dtype=np.float64).ravel()))


# --- findings -----------------------------------------------------------------------------------------------------


def compare_traces(reference: Trace, candidate: Trace) -> tuple[Finding, ...]:
    """Every difference, in the order of causes: by steps; within a step as in `parity_words.STAGES`; outputs from the
    first layer to the last, gradients from the last to the first.
    """
    steps = len(reference.losses)
    if len(candidate.losses) != steps:
        raise ValueError(f"traces of {steps} and {len(candidate.losses)} steps cannot be compared")
    return tuple(_findings(reference, candidate, steps))


def _findings(reference: Trace, candidate: Trace, steps: int) -> Iterator[Finding]:
    order: list[str] = []  # of execution, as far as known
    for step in range(1, steps + 1):
        ours, theirs = reference.batches[step - 1], candidate.batches[step - 1]
        for name in BATCH_FIELDS:
            yield Finding(step, "batch", name, float(ours.get(name) != theirs.get(name)))
        if step in reference.outputs:
            one, other = reference.outputs[step], candidate.outputs.get(step, {})
            order = list(one)
            for name in _union(one, other):
                yield Finding(step, "outputs", name, _difference(relative_max, one, other, name))
        if step == 1:
            yield Finding(step, "forward", "", absolute_max(reference.forward, candidate.forward))
        loss = relative_max(reference.losses[step - 1 : step], candidate.losses[step - 1 : step])
        yield Finding(step, "loss", "", loss)
        if step in reference.gradients and step in candidate.gradients:
            norms, others = reference.gradients[step], candidate.gradients[step]
            together = total_norm(norms)
            for name in reversed(in_order(_union(norms, others), order)):
                pair = (norms.get(name, math.nan), others.get(name, math.nan))
                yield Finding(step, "gradients", name, gradient_difference(*pair, together))
        if step in reference.weights:
            one, other = reference.weights[step], candidate.weights.get(step, {})
            ordered = in_order(_union(one, other), order)
            for stage in ("weights", "statistics"):
                for name in ordered:
                    if (name.rpartition(".")[2] in STATISTICS) == (stage == "statistics"):
                        yield Finding(step, stage, name, _difference(relative_norm, one, other, name))
    yield Finding(steps, "logits", "", absolute_max(reference.logits, candidate.logits))


def in_order(tensors: Sequence[str], layers: Sequence[str]) -> list[str]:
    """Tensors by the order in which their layers are executed; a block's own tensors come after its layers."""
    ranks = {layer: rank for rank, layer in enumerate(layers)}

    def rank(tensor: str) -> int:
        layer = tensor.rpartition(".")[0]
        if layer in ranks:
            return ranks[layer]
        return max((ranks[name] for name in layers if name.startswith(f"{layer}.")), default=len(layers))

    return sorted(tensors, key=rank)


def _union(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    return list(dict.fromkeys((*one, *other)))


def _difference(
    measure: Callable[[Array, Array], float], one: Mapping[str, Array], other: Mapping[str, Array], name: str
) -> float:
    if name not in one or name not in other:
        return math.inf
    return measure(one[name], other[name])


def largest(findings: Sequence[Finding], stage: str) -> float:
    """The largest difference of a stage; 0 where it was never compared."""
    return max((one.difference for one in findings if one.stage == stage), default=0.0)


def by_step(findings: Sequence[Finding], stage: str) -> dict[int, float]:
    """step -> the largest difference of a stage, for the steps at which it was compared."""
    found: dict[int, float] = {}
    for one in findings:
        if one.stage == stage:
            found[one.step] = max(found.get(one.step, 0.0), one.difference)
    return found


# --- judging ------------------------------------------------------------------------------------------------------


def first_divergence(
    findings: Sequence[Finding], tolerances: Mapping[str, float], first_step_only: bool = False
) -> Divergence | None:
    """The first finding beyond its tolerance; a stage without one is not judged, batches must be equal byte for byte.

    `first_step_only`: what comes after the first update is left to `drift`, batches excepted.
    """
    for place, one in enumerate(findings):
        if first_step_only and one.stage != "batch" and (one.step > 1 or one.stage == "logits"):
            continue
        tolerance = tolerance_of(one.stage, tolerances)
        if not one.difference <= tolerance:
            return describe(findings, place, tolerances)
    return None


def tolerance_of(stage: str, tolerances: Mapping[str, float]) -> float:
    """Of a stage; infinite where it is not judged."""
    if stage == "batch":
        return 0.0
    return tolerances.get("logits" if stage == "forward" else stage, math.inf)


def drift(findings: Sequence[Finding], floor: Floor, limits: Floor) -> Divergence | None:
    """Where a trajectory leaves the reference by more than `limits`, which are a multiple of the `floor`."""
    for step, difference in by_step(findings, "loss").items():
        if not difference <= limits.loss_max_rel:
            words = (
                f"step {step}: the losses differ by {difference:.0e} of their size; the reference, rounding otherwise, "
                f"differs from itself by {floor.loss_max_rel:.0e} at most"
            )
            return Divergence(step, "loss", "", "", difference, limits.loss_max_rel, words)
    last = findings[-1]
    if not last.difference <= limits.logits_max_abs:
        words = (
            f"after step {last.step}: the logits differ by {last.difference:.0e}; those of the reference, rounding "
            f"otherwise, by {floor.logits_max_abs:.0e}"
        )
        return Divergence(last.step, "logits", "", "", last.difference, limits.logits_max_abs, words)
    return None
