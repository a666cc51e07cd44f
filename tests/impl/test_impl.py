"""The suites for the two frameworks that are compared by default, each in a process of its own."""

from __future__ import annotations

import pytest
from children import KERAS_SUITES, SUITES, require, run_suite


def test_torch() -> None:
    require("torch")
    if fault := run_suite("torch", *SUITES):
        pytest.fail(fault, pytrace=False)


def test_keras_on_tensorflow() -> None:
    """What is left out are gradients and weights of whole models, and a DenseNet that goes on or is in bfloat16:
    `tests/parity` holds all models to PyTorch's, `test_resume.py` kills a DenseNet, and the U-Net has its layers.
    """
    require("keras-tensorflow")
    left_out = "reported_loss or each_tensor or (then_all_learn and convnext_tiny)"
    left_out += " or ((to_the_bit or bfloat16) and densenet121)"
    if fault := run_suite("keras-tensorflow", *KERAS_SUITES, left_out=left_out):
        pytest.fail(fault, pytrace=False)
