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
TOLERANCES = {"forward": (0, 1e-13), "losses": (1e-10, 0), "logits": (0, 1e-10)}
WEIGHTS_TOLERANCE = (0, 1e-10)
FLOAT32_FORWARD = 1e-5

# case -> arrays: forward, losses, logits, and every tensor
CASES = {"cnn": 3 + 8, "densenet121": 3 + 56, "convnext_tiny": 3 + 39, "unet": 3 + 56}

# fault -> the case that it is trained on, and what must show it
FAULTS = {
    "epsilon_before_correction": ("cnn", {"losses", "logits", "hidden.weight"}),
    "decayed_biases": ("cnn", {"losses", "logits", "hidden.bias"}),
    "channels_first_flatten": ("cnn", {"forward", "losses", "logits", "hidden.weight"}),
    "unweighted_classes": ("cnn", {"losses", "logits", "head.bias"}),
    "rate_of_the_step_before": ("cnn", {"losses", "logits", "convolutions.0.weight"}),
    "running_mean_loss": ("cnn", {"losses"}),
    "backbone_as_fast_as_the_head": ("convnext_tiny", {"losses", "logits", "stem.0.weight"}),
    "statistics_that_move_while_frozen": (
        "densenet121",
        {"losses", "logits", "features.norm0.running_mean", "classifier.weight"},
    ),
    "biased_running_variance": ("densenet121", {"logits", "features.norm5.running_var"}),
    "optimizer_that_goes_on": ("densenet121", {"losses", "logits", "classifier.weight"}),
    "dice_of_each_slice": ("unet", {"losses", "logits", "head.weight"}),
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
    """framework -> part (see `trajectory.py`) -> array name -> array."""
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


@pytest.mark.parametrize("case", CASES)
def test_trajectories_are_equal_in_float64(written: dict, case: str) -> None:
    torch, keras = (written[name][case] for name in ("torch", "keras-tensorflow"))
    assert differences(torch, keras) == {}
    assert len(torch) == CASES[case]


@pytest.mark.parametrize("case", CASES)
def test_training_went_somewhere(written: dict, case: str) -> None:
    """Equal trajectories of a model that does not move would say nothing."""
    torch = written["torch"][case]
    assert len(torch["losses"]) == 20
    assert torch["losses"][-5:].mean() < 0.9 * torch["losses"][:5].mean()
    assert np.abs(torch["logits"] - torch["forward"]).max() > 0.1
    assert all(
        np.abs(torch[name]).max() > 1e-5 for name in torch if name.endswith(".bias")
    )  # they began at 0


@pytest.mark.parametrize("case", CASES)
def test_forward_is_equal_in_float32(written: dict, case: str) -> None:
    torch, keras = (written[name][f"{case}-float32"]["forward"] for name in ("torch", "keras-tensorflow"))
    np.testing.assert_allclose(torch, keras, rtol=0, atol=FLOAT32_FORWARD)
    exact = written["torch"][case]["forward"]
    assert np.abs(torch - exact).max() > 1e-9  # it was float32 indeed


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(written: dict, fault: str) -> None:
    case, shown = FAULTS[fault]
    found = differences(written["torch"][fault], written["keras-tensorflow"][case])
    assert shown <= found.keys(), found
