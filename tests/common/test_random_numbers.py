"""Keys, and nothing else, decide what is drawn: on every machine, in every process, in every release."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.random_numbers import generator, philox, uniform

ROOT = Path(__file__).resolve().parents[2]
part = st.integers(-(2**70), 2**70) | st.text(st.characters(categories=("L", "N", "P", "Zs")), max_size=8)
keys = st.lists(part, min_size=1, max_size=4).map(tuple)
FIRST_RELEASE = [10299420895554663239, 13048032363319033798]


def test_the_numbers_of_a_key_are_those_of_the_first_release() -> None:
    """A change here makes every committed result irreproducible."""
    drawn = philox("augment", 0, 1, "Stroke/58 (1)").random_raw(2).tolist()
    assert drawn == FIRST_RELEASE


@given(keys, keys)
def test_other_keys_give_other_streams(one: tuple[str | int, ...], other: tuple[str | int, ...]) -> None:
    same = [(type(part), part) for part in one] == [(type(part), part) for part in other]
    assert (philox(*one).random_raw(1)[0] == philox(*other).random_raw(1)[0]) == same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1,), ("1",)),
        (("a", "b"), ("ab",)),
        (("a", 1), (1, "a")),
        (("a",), ("a", "")),
        ((12, 3), (1, 23)),
        (("int:1",), (1,)),
    ],
)
def test_keys_that_read_alike_are_kept_apart(
    one: tuple[str | int, ...], other: tuple[str | int, ...]
) -> None:
    assert uniform(1, *one)[0] != uniform(1, *other)[0]


def test_numpy_words_and_numbers_are_keys_like_python_ones() -> None:
    plain = uniform(3, "order", 7)
    np.testing.assert_array_equal(uniform(3, np.str_("order"), np.int64(7)), plain)  # type: ignore[arg-type]
    np.testing.assert_array_equal(uniform(3, "order", np.uint8(7)), plain)  # type: ignore[arg-type]


def test_uniform_is_half_open_and_a_prefix_of_itself() -> None:
    drawn = uniform(10_000, "uniform")
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 5 * np.sqrt(1 / 12 / 10_000)
    np.testing.assert_array_equal(uniform(5, "uniform"), drawn[:5])
    assert (drawn * 2**53 == np.floor(drawn * 2**53)).all()  # 53 bits, no more


def test_a_generator_does_not_disturb_another() -> None:
    alone = generator("b").standard_normal(4)
    first, second = generator("a"), generator("b")
    first.standard_normal(1000)
    np.testing.assert_array_equal(second.standard_normal(4), alone)


def test_the_hash_seed_of_python_has_no_influence() -> None:
    code = "from common.random_numbers import uniform; print(uniform(2, 'x', 1).tolist())"
    for seed in ("0", "1"):
        answer = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed},
        )
        assert answer.stdout.strip() == str(uniform(2, "x", 1).tolist())
