"""The rate of each step and the epoch that is kept: first, peak, last, and every tie."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import Recipe
from common.schedule import Phase, choose_epoch, learning_rate, phases

recipes = st.builds(
    Recipe,
    epochs=st.just(1),
    learning_rate=st.floats(1e-6, 1),
    warmup_fraction=st.floats(0, 0.5),
    final_learning_rate_fraction=st.floats(0, 1),
)


def rates(total: int, recipe: Recipe) -> list[float]:
    return [learning_rate(step, total, recipe) for step in range(total)]


def test_twenty_steps_by_hand() -> None:
    """2 steps up, then 18 down along 0.01 + 0.99 (1 + cos(pi k / 18)) / 2, k = 1 .. 18."""
    values = rates(20, Recipe(epochs=1, learning_rate=1e-3))
    assert values[:2] == pytest.approx([5e-4, 1e-3], rel=1e-12)
    down = [1e-3 * (0.01 + 0.99 * (1 + math.cos(math.pi * k / 18)) / 2) for k in range(1, 19)]
    assert values[2:] == pytest.approx(down, rel=1e-12)
    assert values[10] == pytest.approx(1e-3 * 0.505, rel=1e-12)  # half way down: (1 + 0.01) / 2
    assert values[-1] == pytest.approx(1e-5, rel=1e-12)


@given(recipe=recipes, total=st.integers(2, 300))
def test_up_to_the_peak_once_then_down_to_the_end(recipe: Recipe, total: int) -> None:
    values = rates(total, recipe)
    warmup = max(1, round(recipe.warmup_fraction * total))
    peak, final = recipe.learning_rate, recipe.learning_rate * recipe.final_learning_rate_fraction
    assert values[0] > 0
    assert values[warmup - 1] == pytest.approx(peak, rel=1e-12)
    assert max(values) <= peak * (1 + 1e-12)
    assert values[-1] == pytest.approx(final, rel=1e-9, abs=1e-12 * peak)
    up, down = values[:warmup], values[warmup - 1 :]
    assert up == sorted(up)
    assert all(after <= before + 1e-12 * peak for before, after in itertools.pairwise(down))
    steps = [after - before for before, after in itertools.pairwise(up)]
    assert steps == pytest.approx([peak / warmup] * len(steps), rel=1e-6)


def test_no_warm_up_and_a_single_step_start_at_the_peak() -> None:
    assert learning_rate(0, 10, Recipe(epochs=1, warmup_fraction=0)) == 1e-3
    assert learning_rate(0, 1, Recipe(epochs=1)) == 1e-3


@pytest.mark.parametrize(
    ("val_losses", "kept"),
    [
        ([0.5], 0),
        ([0.5, 0.4, 0.6], 1),
        ([0.5, 0.4, 0.4, 0.6], 1),  # the earliest of equals
        ([0.4, 0.4, 0.4], 0),
        ([3, 2, 1], 2),
        ([0.4, 0.4 - 1e-15], 1),
    ],
)
def test_the_epoch_that_is_kept(val_losses: list[float], kept: int) -> None:
    assert choose_epoch(val_losses) == kept


@given(st.lists(st.floats(0, 10), min_size=1, max_size=20))
def test_an_epoch_is_kept_when_it_comes_or_never(val_losses: list[float]) -> None:
    """Training keeps weights only when an epoch is the best so far; the final choice must be one of those."""
    kept_at = [n for n in range(len(val_losses)) if choose_epoch(val_losses[: n + 1]) == n]
    assert choose_epoch(val_losses) == kept_at[-1]


def test_phases() -> None:
    assert phases(Recipe(epochs=5)) == [Phase("all", 1, 5)]
    assert phases(Recipe(epochs=5, head_epochs=2)) == [Phase("head", 1, 2), Phase("all", 3, 3)]
    assert phases(Recipe(epochs=2, head_epochs=2)) == [Phase("head", 1, 2)]
    assert phases(Recipe(epochs=1, head_epochs=4)) == [Phase("head", 1, 1)]
