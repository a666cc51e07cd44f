"""What the recorded atlases of defaults say together, also where a framework is not installed.

`defaults_suite.py` holds each to the installed version.
"""

from __future__ import annotations

from pathlib import Path

from common import atlas
from common.config import FRAMEWORKS

HERE = Path(__file__).resolve().parent


def recorded(framework: str) -> dict[str, object]:
    return atlas.read_part(HERE / "defaults" / f"{framework}.json")


def test_what_is_recorded_agrees_with_config() -> None:
    assert [fault for name in FRAMEWORKS for fault in atlas.contradictions(recorded(name))] == []


def test_the_recorded_frameworks_differ_where_the_ladder_says_so() -> None:
    different = atlas.differing(atlas.merge([recorded(name) for name in FRAMEWORKS]))
    alike = {"convolution_bias", "decay_scope", "binary_cross_entropy_divisor", "stochastic_depth"}
    laddered = {item for items in atlas.CHECKS.values() for item in items}
    assert laddered - set(different) == alike


def test_keras_is_one_framework_but_for_precision_and_speed() -> None:
    backends = [name for name in FRAMEWORKS if name.startswith("keras-")]
    different = set(atlas.differing(atlas.merge([recorded(name) for name in backends])))
    assert {one for one in different if not one.startswith("float64_")} == {
        "compilation",
        "loss_behind_sigmoid",
    }
