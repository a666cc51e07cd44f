"""The suites for Keras's other backends, each in a process of its own: what says something of the backend."""

from __future__ import annotations

import pytest
from children import KERAS_SUITES, require, run_suite

LEFT_OUT = {
    # What is logic of Keras or ours, and the same code as on TensorFlow: XLA compiles every model and step anew
    "keras-jax": "second_epoch or each_tensor or reported_loss or convnext_tiny or alone_drops or segmenter "
    "or lanes_suite or native_optimizer or stock_layers or (bfloat16 and (unet or densenet121)) "
    "or (to_the_bit and (unet or densenet121)) or next_phase or each_part",
    # A difference quotient of losses, which come in float32 there (see LOSS_RTOL)
    "keras-torch": "reported_loss",
}


@pytest.mark.parametrize("framework", LEFT_OUT)
def test_backend(framework: str) -> None:
    require(framework)
    if fault := run_suite(framework, *KERAS_SUITES, left_out=LEFT_OUT[framework]):
        pytest.fail(fault, pytrace=False)
