"""What rule a framework follows, read off the numbers that it gives: the judgement that both atlases share.

Pure functions of plain numbers. `torch_impl` and `keras_impl` compute, and these name what was computed; so a rule has
one name, and no framework can be read more kindly than another.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from scipy.special import erf, logsumexp, ndtr

from common.framework import Array, Probe
from common.random_numbers import generator
from common.weights import TRUNCATED_STD

Value: TypeAlias = str | float | int | bool | None

DRAWS_P_VALUE = 1e-6  # a rule that is followed is refused in so many of all draws, by either test
FLOAT32_ERROR = 1e-11  # relative: between the roundings of float64, 1e-16, and of float32, 1e-8
UNKNOWN = "another rule"


# --- probes -------------------------------------------------------------------------------------------------------


def measured(value: Value, detail: str) -> Probe:
    """A probe that computed something; floats are kept to three digits, so that they are alike on every machine."""
    return Probe(rounded(value) if isinstance(value, float) else value, "numeric", detail)


def signed(function: Callable[..., Any], parameter: str) -> Probe:
    """A probe that reads a default from a signature; a tuple becomes text, and None stands for "not given"."""
    default = inspect.signature(function).parameters[parameter].default
    value = ", ".join(map(str, default)) if isinstance(default, tuple) else default
    return Probe(
        "not given" if value is None else value, "signature", f"{function.__qualname__}({parameter}=)"
    )


def signed_together(function: Callable[..., Any], *parameters: str) -> Probe:
    """As `signed`, of several parameters that are one elsewhere."""
    probes = [signed(function, parameter) for parameter in parameters]
    return Probe(
        ", ".join(str(one.value) for one in probes), "signature", ", ".join(one.detail for one in probes)
    )


def absent(detail: str) -> Probe:
    """A probe of what the framework does not have; `detail` says why."""
    return Probe(None, "signature", detail)


def rounded(value: float) -> float:
    """Three significant digits."""
    return float(f"{value:.3g}")


# --- starting values ----------------------------------------------------------------------------------------------


def drawing_rule(values: Array, sizes: Mapping[str, int]) -> str:
    """The rule by which starting values were drawn, spelt with the words of `sizes`; UNKNOWN if it is none we know.

    `values` are some thousand draws. `sizes`, e.g. {"in": 300, "out": 200}, are what the rule may scale with: bounds
    of a uniform and deviations of a normal distribution, plain or cut at 2 sigma, by one of them or two together.
    """
    if np.ptp(values) == 0:
        return {0.0: "0", 1.0: "1"}.get(float(values.flat[0]), UNKNOWN)
    names = list(sizes)
    words = {name if name.isalpha() else f"({name})": size for name, size in sizes.items()}
    words |= {f"({a} + {b})": sizes[a] + sizes[b] for i, a in enumerate(names) for b in names[i + 1 :]}
    found = [
        f"{kind}{scale}/√{word}{end}"
        for word, size in words.items()
        for scale, factor in (("1", 1.0), ("√2", 2.0), ("√3", 3.0), ("√6", 6.0))
        for kind, end, distribution in _distributions(np.sqrt(factor / size))
        if _is_drawn_from(values, distribution)
    ]
    return found[0] if len(found) == 1 else UNKNOWN


def _distributions(scale: float) -> list[tuple[str, str, Any]]:
    from scipy import stats  # half a second to import, which a run need not pay

    return [
        ("U(±", ")", stats.uniform(-scale, 2 * scale)),
        ("normal, σ = ", "", stats.norm(0, scale)),
        ("normal cut at 2σ, σ = ", "", stats.truncnorm(-2, 2, scale=scale)),
        # as variance scaling does it: the deviation after the cut is `scale`
        ("normal cut at 2σ, σ after the cut = ", "", stats.truncnorm(-2, 2, scale=scale / TRUNCATED_STD)),
    ]


def _is_drawn_from(values: Array, distribution: Any) -> bool:
    from scipy import stats

    largest = np.abs(values).max()
    if largest > distribution.support()[1] * (1 + 1e-6):  # rounding of a float32 draw
        return False
    # So many draws come nearer to a bound than the next rule's bound is
    if (distribution.cdf(largest) - distribution.cdf(-largest)) ** values.size < DRAWS_P_VALUE:
        return False
    return bool(stats.kstest(values.ravel(), distribution.cdf).pvalue > DRAWS_P_VALUE)


def truncation_rule(narrow: Array, unit: Array, deviation: float) -> str:
    """Where a truncated normal is cut, from some thousand draws with a small `deviation` and with deviation 1."""
    if np.abs(narrow).max() <= 2 * deviation * (1 + 1e-6):
        return "at 2 standard deviations"
    return "at ±2, whatever the deviation" if np.abs(unit).max() <= 2 else UNKNOWN


# --- normalisation ------------------------------------------------------------------------------------------------


def epsilon_rule(inputs: Array, outputs: Array) -> float:
    """The epsilon of y = x / sqrt(mean(x^2) + epsilon), inputs of mean 0 and outputs of equal shape."""
    return float(np.sum(inputs**2) / np.sum(outputs**2) - np.mean(inputs**2))


def decay_rule(old: float, target: float, new: float) -> float:
    """The weight of the old value in new = weight * old + (1 - weight) * target."""
    return (new - target) / (old - target)


def variance_rule(values: Array, target: float) -> str:
    """Which variance of the values is the target of the running one."""
    for name, freedom in (("biased", 0), ("unbiased", 1)):
        if np.isclose(target, np.var(values, ddof=freedom), rtol=1e-3):
            return name
    return UNKNOWN


# --- shapes -------------------------------------------------------------------------------------------------------


def padded_side(first: float, last: float, full: float) -> str:
    """Which borders lie outside the image, from what the first and last window saw and what a whole one sees."""
    sides = [name for name, seen in (("top and left", first), ("bottom and right", last)) if seen < full]
    return " and ".join(sides) or "nowhere"


def cut_side(kept: Array, kernel: Array) -> str:
    """Which part of a single pixel's picture, the kernel, is cut off to leave `kept`, (h, w) both."""
    height, width = kept.shape
    if np.allclose(kept, kernel[:height, :width]):
        return "bottom and right"
    return "top and left" if np.allclose(kept, kernel[-height:, -width:]) else UNKNOWN


def halving_rule(size: int, halved: int) -> str:
    """How half an odd size is rounded."""
    return {size // 2: "down", -(-size // 2): "up"}.get(halved, UNKNOWN)


def flattening_rule(flat: Array) -> str:
    """The order of values that say where they come from: 100 * channel + 10 * row + column, in a row."""
    if np.all(np.diff(flat) > 0):
        return "channels_first"
    order = np.argsort(flat % 100 * 100 + flat // 100)  # by pixel, then by channel
    return "channels_last" if np.array_equal(order, np.arange(len(flat))) else UNKNOWN


def axis_rule(total: float, first: int, last: int) -> str:
    """Which axis of a picture of ones a 1x1 kernel of ones summed over, from its length."""
    return {first: "channels_first", last: "channels_last"}.get(round(total), UNKNOWN)


def doubling_rule(doubled: Array) -> str:
    """How (0, 1) is interpolated at twice the size."""
    if np.allclose(doubled, [0, 0.25, 0.75, 1]):
        return "centres of pixels"
    return "corners of the image" if np.allclose(doubled, [0, 1 / 3, 2 / 3, 1]) else UNKNOWN


# --- activations ------------------------------------------------------------------------------------------------

SPREAD = np.linspace(-4, 4, 801)


def gelu_rule(outputs: Array) -> str:
    """Which GELU gave these outputs of SPREAD (Hendrycks & Gimpel 2016): they differ by up to 5e-4."""
    cubic = np.sqrt(2 / np.pi) * (SPREAD + 0.044715 * SPREAD**3)
    forms = {"exact": SPREAD * ndtr(SPREAD), "tanh": SPREAD * 0.5 * (1 + np.tanh(cubic))}
    fitting = [name for name, values in forms.items() if np.abs(outputs - values).max() < 1e-6]
    return fitting[0] if fitting else UNKNOWN


# --- losses -------------------------------------------------------------------------------------------------------


def binary_input_rule(score: float, loss: float) -> str:
    """What a binary cross-entropy takes its score for, from the loss where the truth is 1."""
    return _named(loss, {"logits": float(np.log1p(np.exp(-score))), "probabilities": float(-np.log(score))})


def class_input_rule(scores: Array, true: int, loss: float) -> str:
    """What a cross-entropy takes its scores for, (K,) of sum 1."""
    logits = float(logsumexp(scores) - scores[true])
    return _named(loss, {"logits": logits, "probabilities": float(-np.log(scores[true]))})


def sigmoid_rule(logit: float, loss: float) -> str:
    """What a loss on the probability of a large negative logit sees, where the truth is 1."""
    return "logits" if np.isclose(loss, -logit, rtol=1e-3) else "probabilities"


def divisor_rule(losses: Array, weights: Array, loss: float) -> str:
    """What the sum of weighted losses, (N,), is divided by."""
    total = float(np.sum(losses * weights))
    return _named(loss, {"samples": total / len(losses), "weights": total / float(np.sum(weights))})


def _named(found: float, candidates: Mapping[str, float]) -> str:
    fitting = [name for name, value in candidates.items() if np.isclose(found, value, rtol=1e-5)]
    return fitting[0] if len(fitting) == 1 else UNKNOWN


# --- optimizers ---------------------------------------------------------------------------------------------------


def adam_rule(moves: Sequence[float], gradient: float, rate: float, beta2: float) -> tuple[str, float]:
    """(form, epsilon) of Adam, from its first two moves under the same tiny gradient.

    Both forms move by rate * g / (|g| + e). "corrected": epsilon is added after the bias correction, e = epsilon in
    every step (Kingma & Ba 2015, algorithm 1); "uncorrected": before it, e = epsilon / sqrt(1 - beta2^t) in step t (the
    last lines of their section 2).
    """
    first, second = (rate * gradient / abs(move) - gradient for move in moves)
    if np.isclose(second, first, rtol=2e-3):
        return "corrected", first
    if np.isclose(second, first * np.sqrt((1 - beta2) / (1 - beta2**2)), rtol=2e-3):
        return "uncorrected", first * float(np.sqrt(1 - beta2))
    return UNKNOWN, float("nan")


def adam_decay_rule(weight: float, rate: float, decay: float) -> str:
    """How Adam's weight decay acts, from a weight of 1 after one step without gradient."""
    return _named(weight, {"decoupled": 1 - rate * decay, "in the gradient": 1 - rate})


def sgd_decay_rule(weight: float, rate: float, decay: float, momentum: float) -> str:
    """How SGD's weight decay acts, from a weight of 1 after two steps with momentum and without gradient."""
    once = 1 - rate * decay
    return _named(weight, {"decoupled": once**2, "in the gradient": once**2 - rate * momentum * decay})


def scope_rule(weights: Mapping[str, float]) -> str:
    """What decays, from weights of 1 after a step without gradient: "kernel", "bias", "scale"."""
    fallen = {name for name, value in weights.items() if value < 1}
    return {frozenset(weights): "all", frozenset({"kernel"}): "kernels"}.get(frozenset(fallen), UNKNOWN)


def clipping_rule(gradients: Sequence[float], clipped: Sequence[float], limit: float) -> str:
    """What is scaled to the norm `limit`: each gradient, or all together."""
    before, after = np.array(gradients), np.array(clipped)
    if np.allclose(after, before * limit / np.linalg.norm(before), rtol=1e-4):
        return "global"
    return "tensor" if np.allclose(after, np.sign(before) * limit, rtol=1e-4) else UNKNOWN


# --- training -----------------------------------------------------------------------------------------------------


def epochs_until_lower(rates: Sequence[float]) -> int | None:
    """How many epochs without progress a schedule waits, from the rate after each epoch; the first one is progress."""
    return next((epoch for epoch, rate in enumerate(rates) if rate < rates[0]), None)


def threshold_rule(rates: Sequence[float]) -> str:
    """What progress by 5e-5 of the loss, 0.05 in all, counts for a schedule that wants 1e-4: the rate after it."""
    return "relative" if rates[-1] < rates[0] else "absolute"


def last_batch_rule(sizes: Sequence[int], samples: int) -> str:
    """What becomes of the samples that fill no batch."""
    return _named(sum(sizes), {"kept": samples, "dropped": samples - samples % sizes[0]})


def reported_loss_rule(losses: Sequence[float], reported: Sequence[float]) -> str:
    """What is reported after each batch, from the losses of the batches, all of one size."""
    means = np.cumsum(losses) / np.arange(1, len(losses) + 1)
    if np.allclose(reported, losses, rtol=1e-4):
        return "of the batch"
    return "mean of the epoch so far" if np.allclose(reported, means, rtol=1e-4) else UNKNOWN


def threshold_between(scores: Sequence[float], accuracies: Sequence[float]) -> float | str:
    """Where a score begins to count for class 1: half-way between the neighbours; scores rise, the truth is 1."""
    right = [accuracy > 0 for accuracy in accuracies]
    if right != sorted(right) or len(set(right)) == 1:
        return UNKNOWN
    first = right.index(True)
    return (scores[first - 1] + scores[first]) / 2


# --- precision ----------------------------------------------------------------------------------------------------

CONSTANT = 0.9  # no sum of few powers of two: float32 has it 3e-8 off
_source = generator("rules")
NUMBERS = _source.standard_normal((24, 24))
TRUTH = (_source.random((24, 24)) > 0.5).astype(np.float64)


def exact_numbers() -> dict[str, Array]:
    """Item -> what float64 gives for NUMBERS, rows as samples; norms with an epsilon of 1e-5."""
    x = NUMBERS
    return {
        "float64_constant": np.array(CONSTANT),
        "float64_mean": x.mean(1),
        "float64_variance": x.var(1),
        "float64_erf": erf(x),
        "float64_gelu": x * ndtr(x),
        "float64_softplus": np.logaddexp(0, x),
        "float64_matmul": x @ x,
        "float64_layer_norm": (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5),
        "float64_batch_norm": (x - x.mean()) / np.sqrt(x.var() + 1e-5),
        "float64_loss": np.mean(np.logaddexp(0, x) - TRUTH * x),
    }


def precision_of(found: Array, exact: Array, what: str) -> Probe:
    """Whether float64 numbers were computed in float64 all the way, from the largest error relative to the largest."""
    error = float(np.max(np.abs(found.ravel() - exact.ravel())) / np.max(np.abs(exact)))
    kind = "float64" if error < FLOAT32_ERROR else "float32"
    return measured(kind, f"{what}: largest relative error {error:.0e}")
