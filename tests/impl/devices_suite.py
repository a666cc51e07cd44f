"""What a device is told and tells, and bfloat16, in one framework; run like `suite.py`."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import numpy as np
import pytest
from harness import PACKAGE, RECIPE, SPEC, configure, impl, make_batches, predict, started, tensors

from common.config import ConvNextSpec, DenseNetSpec, ModelSpec, UnetSpec
from common.errors import StudyError
from common.framework import Settings
from common.memory_shortage import is_shortage
from common.metrics.distances import border_distances

# Keras's own where it reads a variable; every other warning is an error
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)

devices: Any = importlib.import_module(f"{PACKAGE}.devices")

DENSENET = DenseNetSpec(image_size=32, stem_features=4, blocks=(1, 1), growth=4, bottleneck=2, outputs=3)
CONVNEXT = ConvNextSpec(image_size=32, depths=(1, 1), features=(4, 6), stochastic_depth=0.0, outputs=3)
UNET = UnetSpec(image_size=8, features=(3, 5))
EIGHT_BITS = 2**-8  # relative: one rounding to bfloat16


def recipe_for(spec: ModelSpec) -> Any:
    loss = "cross_entropy" if spec.outputs > 1 else "binary_cross_entropy"
    return dataclasses.replace(RECIPE, loss="dice_cross_entropy" if isinstance(spec, UnetSpec) else loss)


def in_bfloat16(array: np.ndarray) -> np.ndarray:
    """Rounded to 8 significant bits, halves away from zero."""
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    return ((bits + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)


# --- the device ---------------------------------------------------------------------------------------------------


def test_float32_means_float32_and_the_record_says_so() -> None:
    configure("float32")
    told = impl.environment()
    assert (told["tf32"], told["matmul_precision"]) == ("off", "highest")
    assert (told["cudnn_benchmark"], told["deterministic_kernels"]) == ("not used", "not asked for")
    assert "no_cuda" not in told  # no GPU is there that could have been used


def test_distances_are_measured_where_a_device_flushes_denormals_to_zero() -> None:
    """A tree over points most of which lie in one row at 0: its cut beside 0 is a denormal."""
    configure("float32")
    border = np.zeros((60, 20), bool)
    border[0], border[50, 0] = True, True
    lone = np.zeros_like(border)
    lone[50, 0] = True
    found = border_distances(lone, border)
    assert found is not None
    assert found.true_to_pred.tolist() == [0.0]
    expected = [np.hypot(50, column) for column in range(20)] + [0.0]
    np.testing.assert_allclose(found.pred_to_true, expected, rtol=1e-15)


def test_a_cpu_has_no_memory_of_its_own_and_can_be_waited_for() -> None:
    configure("float32")
    impl.synchronise()
    assert impl.peak_device_mib() is None


def test_memory_that_runs_out_is_told_from_a_bug() -> None:
    configure("float32")
    module = importlib.import_module("torch" if PACKAGE == "torch_impl" else "keras.ops")
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of whatever class the framework has for it
        module.zeros((10**8, 10**7))
    assert is_shortage(caught.value)


def test_a_gpu_that_is_not_seen_has_a_reason_and_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    configure("float32")
    if devices.why_no_cuda() == "":
        pytest.skip("the framework sees a GPU")
    assert "no NVIDIA GPU is visible" in devices.why_no_cuda()
    monkeypatch.setattr(devices, "visible_gpus", lambda: ["0"])
    assert "install" in (why := devices.why_no_cuda())
    assert impl.environment()["no_cuda"] == why
    with pytest.raises(StudyError, match=r"'cuda' was asked for, but .*install.*; use --device cpu$"):
        impl.configure(Settings("cuda", "float32", threads=1))


# --- bfloat16 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [SPEC, DENSENET, CONVNEXT, UNET], ids=lambda spec: spec.name)
def test_bfloat16_changes_the_products_and_keeps_all_else_in_float32(spec: ModelSpec) -> None:
    """Logits, losses and what two steps make of the weights, beside float32 from the same start."""
    batches = make_batches(2, spec)
    logits, losses, after = {}, {}, {}
    for precision in ("float32", "bfloat16"):
        configure(precision)
        model, start = started(spec)
        logits[precision] = predict(model, batches[:1])
        trainer = impl.create_trainer(model, recipe_for(spec))
        losses[precision] = impl.train_epoch(trainer, [(batch, 1e-3) for batch in batches])
        after[precision] = impl.read_weights(model)

    exact, rough = logits["float32"], logits["bfloat16"]
    size = np.abs(exact).max()
    assert 0 < np.abs(rough - exact).max() < 16 * EIGHT_BITS * size  # some layers' roundings, and no more
    # The last layer is in float32: of logits of 8 bits, many would be equal
    assert not np.array_equal(rough, in_bfloat16(rough))
    assert np.array_equal(rough, rough.astype(np.float32))

    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.05)
    assert not np.array_equal(losses["bfloat16"], losses["float32"])
    for name, array in after["bfloat16"].items():
        assert array.dtype == np.float32, name
        assert not np.array_equal(array, start[name]), name
        # Adam's steps are of the size of the rate, whatever the gradient: small enough for bfloat16 to lose them
        assert not np.array_equal(array, in_bfloat16(array)), name
        if "running" in name:
            np.testing.assert_allclose(array, after["float32"][name], rtol=0.05, atol=0.02, err_msg=name)


def test_bfloat16_is_left_again() -> None:
    """Settings hold for a process; what was said before must not."""
    configure("bfloat16")
    configure("float64")
    model, _ = started(SPEC)
    (batch,) = make_batches(1, SPEC)
    found = predict(model, [batch])
    assert not np.array_equal(found, found.astype(np.float32))
    assert tensors.to_tensor(batch.images).dtype in (np.float64, getattr(tensors, "torch", np).float64)
