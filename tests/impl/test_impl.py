"""The suites for the two frameworks that are compared by default, each in a process of its own."""

from __future__ import annotations

import pytest
from children import KERAS_SUITES, SUITES, require, run_suite


def test_torch() -> None:
    require("torch")
    if fault := run_suite("torch", *SUITES):
        pytest.fail(fault, pytrace=False)


def test_keras_on_tensorflow() -> None:
    """What is left out are gradients and weights of whole models: `tests/parity` holds all of them to PyTorch's."""
    require("keras-tensorflow")
    left_out = "reported_loss or each_tensor or (then_all_learn and convnext_tiny)"
    if fault := run_suite("keras-tensorflow", *KERAS_SUITES, left_out=left_out):
        pytest.fail(fault, pytrace=False)
