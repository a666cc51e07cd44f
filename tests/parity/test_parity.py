"""PyTorch and Keras on TensorFlow step for step, each in a process of its own: one algorithm, to rounding.

Exactness is a statement about float64. In float32 two correct programs drift apart within a few Adam steps, as either
does from itself with another number of threads, so there only the forward pass is compared.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common.engines import check_framework, worker_environment
from common.errors import StudyError

HERE = Path(__file__).resolve().parent
TIMEOUT_SECONDS = 300

# (rtol, atol) in float64 after 20 steps. Rounding is 1e-16, and Adam's division by the root of small second moments
# enlarges it by some four orders of magnitude; every fault below is far beyond.
TOLERANCES = {"forward": (0, 1e-13), "losses": (1e-10, 0), "logits": (0, 1e-9)}
WEIGHTS_TOLERANCE = (0, 1e-9)
FLOAT32_FORWARD = 1e-5

# fault -> what must show it
FAULTS = {
    "epsilon_before_correction": {"losses", "logits", "hidden.weight"},
    "decayed_biases": {"losses", "logits", "hidden.bias"},
    "channels_first_flatten": {"forward", "losses", "logits", "hidden.weight"},
    "unweighted_classes": {"losses", "logits", "head.bias"},
    "rate_of_the_step_before": {"losses", "logits", "convolutions.0.weight"},
    "running_mean_loss": {"losses"},
}


def differences(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, float]:
    """Largest absolute difference of each array that is beyond its tolerance."""
    assert one.keys() == other.keys()
    found = {}
    for name, array in one.items():
        rtol, atol = TOLERANCES.get(name, WEIGHTS_TOLERANCE)
        assert array.shape == other[name].shape
        assert array.dtype == other[name].dtype == np.float64
        if not np.allclose(array, other[name], rtol=rtol, atol=atol):
            found[name] = float(np.abs(array - other[name]).max())
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """framework -> part (a precision or a fault) -> array name -> array."""
    folder = tmp_path_factory.mktemp("trajectories")
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for framework, faults in (("torch", list(FAULTS)), ("keras-tensorflow", [])):
        try:
            check_framework(framework)
        except StudyError as error:
            pytest.skip(str(error))
        out = folder / f"{framework}.npz"
        answer = subprocess.run(
            [sys.executable, str(HERE / "trajectory.py"), framework, str(out), *faults],
            cwd=HERE.parents[1],
            env=worker_environment(framework, "cpu", "float64", threads=1),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
        )
        assert answer.returncode == 0, answer.stdout
        parts = found.setdefault(framework, {})
        with np.load(out) as archive:
            for key in archive:
                part, name = key.split("/")
                parts.setdefault(part, {})[name] = archive[key]
    return found


def test_trajectories_are_equal_in_float64(written: dict) -> None:
    torch, keras = (written[name]["float64"] for name in ("torch", "keras-tensorflow"))
    assert differences(torch, keras) == {}
    assert (
        len(torch) == 3 + 8
    )  # forward, losses, logits; weight and bias of two convolutions and two dense layers


def test_training_went_somewhere(written: dict) -> None:
    """Equal trajectories of a model that does not move would say nothing."""
    torch = written["torch"]["float64"]
    assert len(torch["losses"]) == 20
    assert torch["losses"][-5:].mean() < 0.8 * torch["losses"][:5].mean()
    assert np.abs(torch["logits"] - torch["forward"]).max() > 0.1
    assert all(
        np.abs(torch[name]).max() > 1e-4 for name in torch if name.endswith(".bias")
    )  # they began at 0


def test_forward_is_equal_in_float32(written: dict) -> None:
    torch, keras = (written[name]["float32"]["forward"] for name in ("torch", "keras-tensorflow"))
    np.testing.assert_allclose(torch, keras, rtol=0, atol=FLOAT32_FORWARD)
    exact = written["torch"]["float64"]["forward"]
    assert np.abs(torch - exact).max() > 1e-9  # it was float32 indeed


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(written: dict, fault: str) -> None:
    found = differences(written["torch"][fault], written["keras-tensorflow"]["float64"])
    assert FAULTS[fault] <= found.keys(), found
