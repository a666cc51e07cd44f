"""Two traces made by hand: what differs where, which difference comes first, and how it is said."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from common import config
from common.parity import (
    Floor,
    absolute_max,
    by_step,
    compare_traces,
    drift,
    first_divergence,
    gradient_difference,
    in_order,
    largest,
    relative_max,
    relative_norm,
    total_norm,
)
from common.random_numbers import generator
from common.trace import BATCH_FIELDS, Trace

TOLERANCES = config.PARITY_TOLERANCES["float64"]
LAYERS = ("stem.conv", "stem.norm", "block.fc", "head")
TENSORS = (
    "stem.conv.weight",
    "stem.norm.weight",
    "stem.norm.bias",
    "block.fc.weight",
    "block.fc.bias",
    "block.gamma",
    "head.weight",
    "head.bias",
)
STATISTICS = ("stem.norm.running_mean", "stem.norm.running_var")


def draw(*key: str | int) -> np.ndarray:
    return generator("parity", *key).standard_normal(5) + 3


def make_trace() -> Trace:
    """Four steps, a second phase from the third; snapshots after steps 1, 3 and 4."""
    return Trace(
        batches=tuple({field: f"{field}{step}" for field in BATCH_FIELDS} for step in range(1, 5)),
        forward=draw("forward"),
        losses=np.array([2.0, 1.5, 1.25, 1.0]),
        gradients={step: dict.fromkeys(TENSORS, 2.0 + step) for step in range(1, 5)},
        logits=draw("logits"),
        outputs={step: {name: draw(name, step) for name in LAYERS} for step in (1, 3)},
        weights={step: {name: draw(name, step) for name in (*TENSORS, *STATISTICS)} for step in (1, 3, 4)},
    )


def changed(kind: str, step: int, name: str, change: Callable[[Any], Any]) -> Trace:
    """The trace with one thing of it changed."""
    trace = make_trace()
    if kind in ("forward", "logits"):
        return dataclasses.replace(trace, **{kind: change(getattr(trace, kind))})
    if kind == "loss":
        losses = trace.losses.copy()
        losses[step - 1] = change(losses[step - 1])
        return dataclasses.replace(trace, losses=losses)
    if kind == "batch":
        batches = list(trace.batches)
        batches[step - 1] = {**batches[step - 1], name: "other"}
        return dataclasses.replace(trace, batches=tuple(batches))
    field = getattr(trace, kind)
    return dataclasses.replace(
        trace, **{kind: {**field, step: {**field[step], name: change(field[step][name])}}}
    )


def divergence(trace: Trace, **settings: Any) -> Any:
    return first_divergence(compare_traces(make_trace(), trace), TOLERANCES, **settings)


# --- differences ----------------------------------------------------------------------------------------------------


def test_differences_by_hand() -> None:
    a, b = np.array([3.0, -4.0]), np.array([3.0, -4.5])
    assert relative_max(a, b) == 0.5 / 4
    assert relative_norm(a, b) == 0.5 / 5
    assert absolute_max(a, b) == 0.5
    assert gradient_difference(2.0, 2.5, together=10.0) == 0.25
    assert total_norm({"a": 3.0, "b": 4.0}) == 5.0


def test_nothing_against_nothing_is_no_difference() -> None:
    zeros, ones = np.zeros(2), np.ones(2)
    for measure in (relative_max, relative_norm):
        assert measure(zeros, zeros) == 0
        assert measure(zeros, ones) == 1
        assert measure(ones, zeros) == 1
    assert gradient_difference(0.0, 0.0, together=0.0) == 0
    assert gradient_difference(0.0, 2.0, together=0.0) == 1


def test_a_gradient_that_is_rounding_is_measured_by_all_together() -> None:
    assert gradient_difference(1e-17, 3e-17, together=1.0) == pytest.approx(2e-5)
    assert gradient_difference(1e-17, 1e-3, together=1.0) > 1e8


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_differs_even_from_itself(value: float) -> None:
    broken = np.array([1.0, value])
    for measure in (relative_max, relative_norm, absolute_max):
        assert measure(broken, broken) == math.inf
        assert measure(np.ones(2), broken) == math.inf
        assert measure(np.ones(2), np.ones(3)) == math.inf
    assert gradient_difference(1.0, value, together=1.0) == math.inf
    assert gradient_difference(value, value, together=1.0) == math.inf


def test_layers_by_execution() -> None:
    assert in_order(sorted(TENSORS), LAYERS) == [
        "stem.conv.weight",
        "stem.norm.bias",
        "stem.norm.weight",
        "block.fc.bias",
        "block.fc.weight",
        "block.gamma",  # the block's own, behind its layers
        "head.bias",
        "head.weight",
    ]
    assert in_order(["unknown.weight", "head.weight"], LAYERS) == ["head.weight", "unknown.weight"]


# --- what is found --------------------------------------------------------------------------------------------------


def test_equal_traces_do_not_diverge() -> None:
    findings = compare_traces(make_trace(), make_trace())
    assert first_divergence(findings, TOLERANCES) is None
    assert all(one.difference == 0 for one in findings)
    assert by_step(findings, "loss").keys() == {1, 2, 3, 4}
    assert by_step(findings, "weights").keys() == {1, 3, 4}
    assert {one.name for one in findings if one.stage == "statistics"} == set(STATISTICS)
    assert {one.name for one in findings if one.stage == "weights"} == set(TENSORS)


def off(size: float) -> Callable[[Any], Any]:
    return lambda value: value * (1 + size)


# what is changed -> where it is said to be, and how
FOUND = {
    ("batch", 2, "targets"): (2, "batch", "", "targets", "look at label smoothing"),
    ("batch", 1, "rows"): (1, "batch", "", "rows", "look at the order"),
    ("outputs", 1, "stem.conv"): (1, "outputs", "stem.conv", "", "those of the first layer: look at its starting"),
    ("outputs", 3, "block.fc"): (3, "outputs", "block.fc", "", "while those of stem.norm agree: look between"),
    ("forward", 1, ""): (1, "logits", "", "", "before training: every layer's output in training mode agrees"),
    ("loss", 1, ""): (1, "loss", "", "", "the outputs of every layer agree, but the loss differs by 1e-03"),
    ("loss", 2, ""): (2, "loss", "", "", "so did the weights after step 1, but"),
    ("loss", 3, ""): (3, "loss", "", "", "the outputs of every layer agree"),
    ("gradients", 2, "head.bias"): (2, "gradients", "head", "bias", "derivative of the loss and of head"),
    ("gradients", 2, "stem.norm.bias"): (2, "gradients", "stem.norm", "bias", "that of block.fc, nearer the loss"),
    ("weights", 1, "block.fc.bias"): (1, "weights", "block.fc", "bias", "(0 of 4 weight, 1 of 3 bias, 0 of 1 gamma)"),
    ("weights", 4, "head.weight"): (4, "weights", "head", "weight", "all losses and gradients agree, but"),
    ("weights", 1, "stem.norm.running_var"): (1, "statistics", "stem.norm", "running_var", "statistics are kept"),
    ("logits", 4, ""): (4, "logits", "", "", "after step 4: losses, gradients, weights and statistics agree"),
}  # fmt: skip


@pytest.mark.parametrize("where", FOUND, ids=lambda where: "-".join(map(str, where)))
def test_a_change_is_located(where: tuple[str, int, str]) -> None:
    found = divergence(changed(*where, off(1e-3)))
    step, stage, layer, tensor, words = FOUND[where]
    assert (found.step, found.stage, found.layer, found.tensor) == (step, stage, layer, tensor)
    assert words in found.words
    size = np.abs(getattr(make_trace(), where[0])).max() if stage == "logits" else 1  # logits absolute
    assert found.difference == pytest.approx(1 if stage == "batch" else 1e-3 * size)
    assert found.tolerance == (0 if stage == "batch" else TOLERANCES[stage])


@pytest.mark.parametrize("where", [key for key in FOUND if key[0] != "batch"])
def test_a_change_within_rounding_is_none(where: tuple[str, int, str]) -> None:
    assert divergence(changed(*where, off(1e-12))) is None
    assert divergence(changed(*where, off(0))) is None


@pytest.mark.parametrize("kind", ["outputs", "weights"])
def test_what_is_missing_or_of_another_shape_is_found(kind: str) -> None:
    name = "stem.norm" if kind == "outputs" else "stem.norm.bias"
    trace = make_trace()
    field = getattr(trace, kind)
    fewer = {key: value for key, value in field[1].items() if key != name}
    for one in (
        dataclasses.replace(trace, **{kind: {**field, 1: fewer}}),
        dataclasses.replace(trace, **{kind: {**field, 1: {**field[1], name: np.ones(4)}}}),
        dataclasses.replace(trace, **{kind: {**field, 1: {**field[1], f"{name}.new": np.ones(4)}}}),
    ):
        found = divergence(one)
        assert (found.step, found.stage, found.difference) == (1, kind, math.inf)
        assert "missing on one side" in found.words


def test_of_several_the_first_cause_is_told() -> None:
    trace = changed("gradients", 2, "head.bias", off(1))
    trace = dataclasses.replace(trace, losses=trace.losses * [1, 1, 2, 2], logits=trace.logits * 2)
    assert divergence(trace).stage == "gradients"
    trace = dataclasses.replace(trace, losses=trace.losses * [1, 2, 1, 1])
    assert (divergence(trace).step, divergence(trace).stage) == (2, "loss")
    outputs = {**trace.outputs, 1: {name: array * 2 for name, array in trace.outputs[1].items()}}
    found = divergence(dataclasses.replace(trace, outputs=outputs, forward=trace.forward * 2))
    assert (found.step, found.stage, found.layer) == (1, "outputs", "stem.conv")


def test_gradients_are_told_from_the_loss_backwards() -> None:
    trace = make_trace()
    halved = {name: norm / 2 if name < "i" else norm for name, norm in trace.gradients[1].items()}
    found = divergence(dataclasses.replace(trace, gradients={**trace.gradients, 1: halved}))
    assert (found.layer, found.tensor) == ("head", "bias")
    blocks = {name: norm / 2 if name < "h" else norm for name, norm in trace.gradients[1].items()}
    found = divergence(dataclasses.replace(trace, gradients={**trace.gradients, 1: blocks}))
    assert (found.layer, found.tensor) == ("block", "gamma")
    assert "while that of head, nearer the loss, agrees" in found.words


def test_gradients_that_one_side_did_not_keep_are_passed_over() -> None:
    trace = make_trace()
    kept = {step: norms for step, norms in trace.gradients.items() if step in (1, 4)}
    findings = compare_traces(trace, dataclasses.replace(trace, gradients=kept))
    assert first_divergence(findings, TOLERANCES) is None
    assert by_step(findings, "gradients").keys() == {1, 4}


def test_traces_of_other_lengths_cannot_be_compared() -> None:
    trace = make_trace()
    with pytest.raises(ValueError, match="4 and 3 steps"):
        compare_traces(trace, dataclasses.replace(trace, losses=trace.losses[:3]))


# --- float32 --------------------------------------------------------------------------------------------------------


def test_in_float32_the_first_step_is_judged() -> None:
    tolerances = config.PARITY_TOLERANCES["float32"]
    for where in (("loss", 2, ""), ("logits", 4, ""), ("weights", 1, "head.weight"), ("outputs", 3, "head")):
        findings = compare_traces(make_trace(), changed(*where, off(0.1)))
        assert first_divergence(findings, tolerances, first_step_only=True) is None
    for where in (("loss", 1, ""), ("forward", 1, ""), ("outputs", 1, "head"), ("batch", 3, "images")):
        findings = compare_traces(make_trace(), changed(*where, off(0.1)))
        assert first_divergence(findings, tolerances, first_step_only=True) is not None


def test_a_trajectory_may_leave_as_far_as_the_reference_itself() -> None:
    floor, limits = Floor(1e-3, 1e-2), Floor(1e-2, 1e-1)
    near = compare_traces(make_trace(), changed("loss", 3, "", off(9e-3)))
    assert drift(near, floor, limits) is None
    far = drift(compare_traces(make_trace(), changed("loss", 3, "", off(2e-2))), floor, limits)
    assert far is not None
    assert (far.step, far.stage) == (3, "loss")
    assert far.difference == pytest.approx(2e-2)
    assert "differs from itself by 1e-03" in far.words
    after = drift(
        compare_traces(make_trace(), changed("logits", 4, "", lambda logits: logits + 0.2)), floor, limits
    )
    assert after is not None
    assert (after.step, after.stage) == (4, "logits")
    broken = drift(compare_traces(make_trace(), changed("loss", 2, "", lambda loss: np.nan)), floor, limits)
    assert broken is not None
    assert broken.step == 2


def test_the_largest_of_a_stage() -> None:
    trace = changed("loss", 3, "", off(2e-3))
    findings = compare_traces(make_trace(), trace)
    assert largest(findings, "loss") == pytest.approx(2e-3)
    assert largest(findings, "weights") == 0
    assert by_step(findings, "loss")[3] == pytest.approx(2e-3)
    assert by_step(findings, "loss")[2] == 0
