"""`defaults_suite.py` for each framework, in a process of its own; and what the recorded atlases say together."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from common import atlas
from common.config import FRAMEWORKS
from common.engines import missing_packages, module_of, worker_environment

HERE = Path(__file__).resolve().parent
TIMEOUT_SECONDS = 300


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_suite(framework: str) -> None:
    if missing := missing_packages(framework):
        pytest.skip(f"{framework} needs {' and '.join(missing)}")
    environment = worker_environment(framework, "cpu", atlas.PRECISION, threads=1)
    environment |= {"STUDY_IMPLEMENTATION": module_of(framework)}
    options = ["-q", "-p", "no:cacheprovider", "--tb=short", str(HERE / "defaults_suite.py")]
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=HERE.parents[1],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    if answer.returncode != 0:
        pytest.fail(f"the suite fails for {framework}:\n{answer.stdout}", pytrace=False)
    assert re.search(r"^\d+ passed in ", answer.stdout, re.MULTILINE), answer.stdout  # none skipped


def recorded(framework: str) -> dict[str, object]:
    return atlas.read_part(HERE / "defaults" / f"{framework}.json")


def test_what_is_recorded_agrees_with_config() -> None:
    """Also where a framework is not installed."""
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
