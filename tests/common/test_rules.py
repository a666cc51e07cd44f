"""Each rule is read off numbers that were made by it, and off no others."""

from collections.abc import Callable

import numpy as np
import pytest

from common import rules
from common.random_numbers import generator
from common.rules import UNKNOWN

SIZES = {"in": 30, "k²·out": 1000}


def test_a_measured_number_is_kept_to_three_digits() -> None:
    assert rules.measured(0.00099951, "x").value == 0.001
    assert rules.measured(123456.0, "x").value == 123000.0
    assert rules.measured(True, "x").value is True
    assert rules.measured("same", "x").how == "numeric"


def test_a_signature_is_read() -> None:
    def layer(
        size: int, epsilon: float = 1e-3, betas: tuple[float, float] = (0.9, 0.99), rate: None = None
    ) -> None: ...

    assert rules.signed(layer, "epsilon").value == 1e-3
    assert rules.signed(layer, "betas").value == "0.9, 0.99"
    assert rules.signed(layer, "rate").value == "not given"
    assert rules.signed(layer, "epsilon").detail.endswith("layer(epsilon=)")
    assert rules.signed_together(layer, "epsilon", "betas").value == "0.001, 0.9, 0.99"
    with pytest.raises(KeyError):
        rules.signed(layer, "momentum")


# --- starting values ----------------------------------------------------------------------------------------------


def uniform(bound: float, n: int = 20_000) -> np.ndarray:
    return generator("rules", "uniform").uniform(-bound, bound, n)


def cut_normal(deviation: float) -> np.ndarray:
    drawn = generator("rules", "normal").standard_normal(30_000)
    return deviation * drawn[np.abs(drawn) < 2]


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        (uniform(1 / np.sqrt(30)), "U(±1/√in)"),
        (uniform(np.sqrt(6 / 1030)), "U(±√6/√(in + k²·out))"),
        (uniform(np.sqrt(6 / 1000)), "U(±√6/√(k²·out))"),
        (uniform(1 / np.sqrt(30), 500), "U(±1/√in)"),  # as few as a bias has
        (generator("rules").normal(0, np.sqrt(2 / 30), 20_000), "normal, σ = √2/√in"),
        (cut_normal(np.sqrt(1 / 30)), "normal cut at 2σ, σ = 1/√in"),
        (cut_normal(np.sqrt(2 / 30) / 0.8796256610342398), "normal cut at 2σ, σ after the cut = √2/√in"),
        (np.zeros(10), "0"),
        (np.ones(10), "1"),
        (np.full(10, 0.5), UNKNOWN),
        (uniform(1.02 / np.sqrt(30)), UNKNOWN),
        (uniform(0.98 / np.sqrt(30)), UNKNOWN),
        (np.abs(uniform(1 / np.sqrt(30))), UNKNOWN),
        (generator("rules").laplace(0, np.sqrt(1 / 30), 20_000), UNKNOWN),
    ],
)
def test_a_drawing_rule_is_named(values: np.ndarray, rule: str) -> None:
    assert rules.drawing_rule(values, SIZES) == rule


def test_truncation_is_told_from_an_absolute_cut() -> None:
    small, unit = cut_normal(0.02), cut_normal(1.0)
    whole = 0.02 * generator("rules").standard_normal(30_000)
    assert rules.truncation_rule(small, unit, 0.02) == "at 2 standard deviations"
    assert rules.truncation_rule(whole, unit, 0.02) == "at ±2, whatever the deviation"
    assert rules.truncation_rule(whole, 50 * whole, 0.02) == UNKNOWN


# --- normalisation and shapes -------------------------------------------------------------------------------------


def test_numbers_of_a_norm_are_read() -> None:
    x = np.array([-0.03, -0.01, 0.01, 0.03])
    for epsilon in (1e-3, 1e-5, 1e-6):
        assert rules.epsilon_rule(x, x / np.sqrt(x.var() + epsilon)) == pytest.approx(epsilon)
    assert rules.decay_rule(0.0, 4.0, 0.9 * 0 + 0.1 * 4) == pytest.approx(0.9)
    assert rules.decay_rule(1.0, 4.0, 0.99 * 1 + 0.01 * 4) == pytest.approx(0.99)
    assert rules.variance_rule(x, x.var()) == "biased"
    assert rules.variance_rule(x, x.var(ddof=1)) == "unbiased"
    assert rules.variance_rule(x, x.var(ddof=2)) == UNKNOWN


@pytest.mark.parametrize(
    ("first", "last", "side"),
    [
        (4, 9, "top and left"),
        (9, 4, "bottom and right"),
        (6, 6, "top and left and bottom and right"),
        (9, 9, "nowhere"),
    ],
)
def test_padding_is_where_less_is_seen(first: float, last: float, side: str) -> None:
    assert rules.padded_side(first, last, 9) == side


def test_what_is_left_of_a_kernel_tells_what_was_cut() -> None:
    kernel = np.arange(9.0).reshape(3, 3)
    assert rules.cut_side(kernel[:2, :2], kernel) == "bottom and right"
    assert rules.cut_side(kernel[1:, 1:], kernel) == "top and left"
    assert rules.cut_side(kernel[:2, 1:], kernel) == UNKNOWN


def test_shapes_are_read() -> None:
    assert [rules.halving_rule(5, size) for size in (2, 3, 4)] == ["down", "up", UNKNOWN]
    assert [rules.axis_rule(total, 5, 7) for total in (5.0, 7.0, 6.0)] == [
        "channels_first",
        "channels_last",
        UNKNOWN,
    ]
    assert rules.doubling_rule(np.array([0, 0.25, 0.75, 1])) == "centres of pixels"
    assert rules.doubling_rule(np.array([0, 1 / 3, 2 / 3, 1])) == "corners of the image"
    assert rules.doubling_rule(np.array([0, 0, 1, 1])) == UNKNOWN


def test_the_order_of_flattened_maps_is_read() -> None:
    places = 100 * np.arange(3)[:, None, None] + 10 * np.arange(4)[:, None] + np.arange(5)  # (C, H, W)
    assert rules.flattening_rule(places.ravel()) == "channels_first"
    assert rules.flattening_rule(places.transpose(1, 2, 0).ravel()) == "channels_last"
    assert rules.flattening_rule(places.transpose(2, 1, 0).ravel()) == UNKNOWN


def test_forms_of_gelu_are_told_apart() -> None:
    x = rules.SPREAD
    assert rules.gelu_rule(rules.NUMBERS[0, 0] + x) == UNKNOWN
    assert rules.gelu_rule(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))) == "tanh"
    erf = rules.erf(x / np.sqrt(2))
    assert rules.gelu_rule(0.5 * x * (1 + erf)) == "exact"


# --- losses -------------------------------------------------------------------------------------------------------


def test_what_a_loss_takes_is_read() -> None:
    scores = np.array([0.1, 0.7, 0.2])
    assert rules.binary_input_rule(0.9, np.log1p(np.exp(-0.9))) == "logits"
    assert rules.binary_input_rule(0.9, -np.log(0.9)) == "probabilities"
    assert rules.class_input_rule(scores, 1, np.log(np.exp(scores).sum()) - 0.7) == "logits"
    assert rules.class_input_rule(scores, 1, -np.log(0.7)) == "probabilities"
    assert rules.class_input_rule(scores, 0, -np.log(0.7)) == UNKNOWN
    assert [rules.sigmoid_rule(-1000, loss) for loss in (1000.0, 100.0, 16.1)] == ["logits"] + [
        "probabilities"
    ] * 2


def test_the_divisor_of_a_weighted_loss_is_read() -> None:
    losses, weights = np.array([0.2, 1.0, 3.0]), np.array([1.0, 2.0, 4.0])
    assert rules.divisor_rule(losses, weights, (losses * weights).mean()) == "samples"
    assert rules.divisor_rule(losses, weights, np.average(losses, weights=weights)) == "weights"
    assert rules.divisor_rule(losses, weights, losses.mean()) == UNKNOWN


# --- optimizers ---------------------------------------------------------------------------------------------------

Adam = Callable[
    [float, float, float], float
]  # (first moment, second moment, step) -> what the rate is multiplied by
BETA1, BETA2 = 0.9, 0.999


def corrected(m: float, v: float, t: float, epsilon: float = 1e-8) -> float:
    return m / (1 - BETA1**t) / (np.sqrt(v / (1 - BETA2**t)) + epsilon)


def uncorrected(m: float, v: float, t: float, epsilon: float = 1e-7) -> float:
    return np.sqrt(1 - BETA2**t) / (1 - BETA1**t) * m / (np.sqrt(v) + epsilon)


def inside(m: float, v: float, t: float) -> float:
    return np.sqrt(1 - BETA2**t) / (1 - BETA1**t) * m / np.sqrt(v + 1e-14)


def moves(form: Adam, gradient: float) -> list[float]:
    m, v, found = 0.0, 0.0, []
    for t in (1, 2):
        m, v = BETA1 * m + (1 - BETA1) * gradient, BETA2 * v + (1 - BETA2) * gradient**2
        found.append(-1e-3 * form(m, v, t))
    return found


def test_forms_of_adam_are_told_apart() -> None:
    assert rules.adam_rule(moves(corrected, 1e-7), 1e-7, 1e-3, BETA2) == ("corrected", pytest.approx(1e-8))
    assert rules.adam_rule(moves(uncorrected, 1e-7), 1e-7, 1e-3, BETA2) == (
        "uncorrected",
        pytest.approx(1e-7),
    )
    assert rules.adam_rule(moves(inside, 1e-7), 1e-7, 1e-3, BETA2)[0] == UNKNOWN


def test_forms_of_decay_are_told_apart() -> None:
    assert rules.adam_decay_rule(1 - 0.1 * 0.05, 0.1, 0.05) == "decoupled"
    assert rules.adam_decay_rule(1 - 0.1, 0.1, 0.05) == "in the gradient"
    once = 1 - 0.1 * 0.05
    velocity = 0.9 * 0.05 + 0.05 * once
    assert rules.sgd_decay_rule(once - 0.1 * velocity, 0.1, 0.05, 0.9) == "in the gradient"
    assert rules.sgd_decay_rule(once * once, 0.1, 0.05, 0.9) == "decoupled"
    assert rules.sgd_decay_rule(1.0, 0.1, 0.05, 0.9) == UNKNOWN
    assert rules.scope_rule({"kernel": 0.9, "bias": 0.9, "scale": 0.9}) == "all"
    assert rules.scope_rule({"kernel": 0.9, "bias": 1.0, "scale": 1.0}) == "kernels"
    assert rules.scope_rule({"kernel": 0.9, "bias": 0.9, "scale": 1.0}) == UNKNOWN


def test_whose_norm_is_clipped_is_read() -> None:
    assert rules.clipping_rule((3, 4), (0.6, 0.8), 1.0) == "global"
    assert rules.clipping_rule((3, 4), (1, 1), 1.0) == "tensor"
    assert rules.clipping_rule((3, 4), (3, 4), 1.0) == UNKNOWN


# --- training -----------------------------------------------------------------------------------------------------


def test_a_training_loop_is_read() -> None:
    assert rules.epochs_until_lower([1, 1, 0.1, 0.1]) == 2
    assert rules.epochs_until_lower([1, 1, 1]) is None
    assert (rules.threshold_rule([1, 0.1]), rules.threshold_rule([1, 1])) == ("relative", "absolute")
    assert (rules.last_batch_rule([4, 4, 2], 10), rules.last_batch_rule([4, 4], 10)) == ("kept", "dropped")
    assert rules.reported_loss_rule([1, 3], [1, 2]) == "mean of the epoch so far"
    assert rules.reported_loss_rule([1, 3], [1, 3]) == "of the batch"
    assert rules.reported_loss_rule([1, 3], [1, 1.3]) == UNKNOWN
    assert rules.threshold_between([-0.25, 0.25, 0.75], [0, 0, 1]) == 0.5
    assert rules.threshold_between([-0.25, 0.25, 0.75], [0, 1, 1]) == 0
    assert rules.threshold_between([-0.25, 0.25, 0.75], [1, 0, 1]) == UNKNOWN


@pytest.mark.parametrize("item", rules.exact_numbers())
def test_float32_inside_is_found(item: str) -> None:
    exact = rules.exact_numbers()[item]
    probe = rules.precision_of(exact.astype(np.float32).astype(np.float64), exact, "rounded")
    assert probe.value == "float32"
    assert rules.precision_of(exact * (1 + 1e-15), exact, "exact").value == "float64"
    assert probe.detail.startswith("rounded: largest relative error ")
