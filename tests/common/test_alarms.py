"""Answers that do not depend on the image: how they are told from small ones, and when they end a training."""

from __future__ import annotations

import numpy as np
import pytest

from common.alarms import Spread, constant_alarms, lost
from common.config import CONSTANT_EPOCHS


def spread_of(*batches: np.ndarray) -> bool:
    spread = Spread()
    for batch in batches:
        spread.add(batch)
    return spread.constant()


def test_one_image_that_differs_is_enough_whatever_the_batch() -> None:
    same = np.full((8, 2), [0.25, -3.0])
    assert spread_of(same, same)
    assert not spread_of(same, same + np.array([0.0, 0.01]))
    assert not spread_of(np.concatenate([same, same + 0.01]))


def test_all_outputs_must_stand_still() -> None:
    one_moves = np.stack([np.linspace(0, 1, 8), np.zeros(8)], axis=1)
    assert not spread_of(one_moves)


@pytest.mark.parametrize(("size", "rounding"), [(1.0, 1e-7), (1e-3, 1e-7), (1e4, 1e-3)])
def test_rounding_is_no_difference_and_ten_times_the_limit_is(size: float, rounding: float) -> None:
    assert spread_of(np.array([[size], [size + rounding]]))
    assert not spread_of(np.array([[size], [size + 1e-5 * max(1.0, size)]]))


def test_every_pixel_counts() -> None:
    pixels = np.zeros((2, 4, 4, 1))
    assert spread_of(pixels)
    pixels[1, 3, 3] = 1
    assert not spread_of(pixels)
    assert not Spread().constant()  # nothing was shown


def test_an_alarm_a_spell() -> None:
    assert constant_alarms([False, False]) == []
    found = constant_alarms([True, True, False, True])
    assert [alarm["epoch"] for alarm in found] == [1, 4]
    assert found[0]["words"] == "from epoch 1 on the validation logits are the same for every image"


def test_training_is_lost_after_so_many_epochs_in_a_row() -> None:
    row = [True] * CONSTANT_EPOCHS
    assert lost(row)
    assert lost([False, *row])
    assert not lost(row[1:])
    assert not lost([*row, False])
    assert not lost([])
