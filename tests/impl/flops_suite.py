"""The arithmetic of the models, counted by PyTorch while it is done, beside `common.flops`, which counts the spec.

`test_models.py` runs this file for the two frameworks that compute by PyTorch; see `models_suite.py`.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest
import torch
from model_cases import SPECS, images_of
from torch.utils.flop_counter import FlopCounterMode

from common.config import MODELS, ModelSpec
from common.flops import TRAINING_PASSES, forward_work
from common.framework import Framework, Settings

PACKAGE = os.environ["STUDY_IMPLEMENTATION"]
TORCH = PACKAGE == "torch_impl"
impl: Framework = importlib.import_module(PACKAGE)  # type: ignore[assignment]
IMAGES = 2


def built(spec: ModelSpec) -> tuple[Any, torch.Tensor]:
    """A model in evaluation mode, and images for it."""
    impl.configure(Settings("cpu", "float32", threads=1))
    model = impl.build(spec)
    return (model.eval() if TORCH else model), torch.from_numpy(images_of(spec, IMAGES))


# Published sizes in PyTorch alone: Keras builds them slowly, and its small ones show that it computes the same
CASES = {f"small {name}": spec for name, spec in SPECS.items()} | (MODELS if TORCH else {})


@pytest.mark.parametrize("name", CASES)
def test_pytorch_counts_the_same_operations(name: str) -> None:
    model, images = built(CASES[name])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    assert counter.get_total_flops() == IMAGES * forward_work(CASES[name]).flops


@pytest.mark.parametrize(
    "name", ["cnn", "densenet121", "unet"]
)  # of a grouped kernel PyTorch counts too much
def test_a_training_step_is_three_forward_passes_of_torch(name: str) -> None:
    """But for the gradient of the images, which nobody needs."""
    model, images = built(MODELS[name])
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    share = counter.get_total_flops() / (TRAINING_PASSES * IMAGES * forward_work(MODELS[name]).flops)
    assert 0.9 < share <= 1


@pytest.mark.parametrize("name", SPECS)
def test_activations_are_the_outputs_of_what_has_a_kernel_in_torch(name: str) -> None:
    model, images = built(SPECS[name])
    values: list[int] = []
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d | torch.nn.Linear):
            layer.register_forward_hook(lambda layer, given, output: values.append(output.numel()))
    model(images)
    assert sum(values) == IMAGES * forward_work(SPECS[name]).activations
