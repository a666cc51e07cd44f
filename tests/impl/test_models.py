"""`models_suite.py` for each framework in a process of its own, and what the models answered, compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from children import require, run_suite
from model_cases import FULL_SIZE, SPECS

from common.config import FRAMEWORKS, UnetSpec
from common.engines import missing_packages
from common.errors import StudyError

PROCESSES = 2  # at a time, one thread each
# Keras's full-size models stand beside those of keras.applications, on the backend that builds them fastest
FULL_SIZE_BACKEND = "keras-torch"
ON_PYTORCH = ("torch", "keras-torch")  # whose arithmetic PyTorch can count
# XLA compiles each operation anew; what is left out is logic that every backend shares
LEFT_OUT = {
    "torch": "",
    "keras-jax": "full_size or frozen",
    "keras-torch": "full_size or of_torch or in_torch",
}
# Of the largest logit or statistic: some hundred roundings in float64, two orders of summation in float32
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}

Outputs = Callable[[str], Path]


def answer(framework: str, folder: Path) -> str:
    """Runs the framework's suite, which leaves its answers in the folder; what went wrong, or nothing."""
    files = ["models_suite.py"] + ["applications_suite.py"] * (framework == FULL_SIZE_BACKEND)
    files += ["flops_suite.py"] * (framework in ON_PYTORCH)
    left_out = LEFT_OUT.get(framework, "full_size")
    return run_suite(framework, *files, left_out=left_out, STUDY_OUTPUTS=str(folder))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outputs]:
    """Framework -> the folder of what it answered; its suite must have passed."""
    folders = {name: tmp_path_factory.mktemp(name) for name in FRAMEWORKS if not missing_packages(name)}
    with ThreadPoolExecutor(PROCESSES) as pool:
        faults = {name: pool.submit(answer, name, folder) for name, folder in folders.items()}

        def folder_of(framework: str) -> Path:
            require(framework)
            if fault := faults[framework].result():
                pytest.fail(fault, pytrace=False)
            return folders[framework]

        yield folder_of


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_suite(outputs: Outputs, framework: str) -> None:
    assert outputs(framework).is_dir()


def assert_close(found: np.ndarray, expected: np.ndarray, precision: str, name: str) -> None:
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[precision] * largest, err_msg=name)


@pytest.mark.parametrize("framework", FRAMEWORKS[1:])
@pytest.mark.parametrize("name", SPECS)
def test_small_models_answer_as_torch_does(outputs: Outputs, name: str, framework: str) -> None:
    """Logits in evaluation and in training mode, and BatchNorm's statistics after one pass in training mode."""
    with (
        np.load(outputs("torch") / f"{name}.npz") as expected,
        np.load(outputs(framework) / f"{name}.npz") as found,
    ):
        assert {"evaluated-float64", "trained-float64"} <= set(found) <= set(expected)
        assert ("float32" in str(set(found))) == (framework != "keras-jax")
        for key in found:
            assert_close(found[key], expected[key], key.rsplit("-", 1)[-1], key)
        if name in {"densenet121", "unet"}:
            assert np.abs(expected["trained-float64"] - expected["evaluated-float64"]).max() > 1e-3


@pytest.mark.parametrize("framework", FRAMEWORKS[1:])
@pytest.mark.parametrize("name", SPECS)
def test_checkpoints_are_the_same_file(outputs: Outputs, name: str, framework: str) -> None:
    """Each suite reads its own back, so any framework reads any other's."""
    for path in sorted(outputs(framework).glob(f"{name}-*.safetensors")):
        assert path.read_bytes() == (outputs("torch") / path.name).read_bytes(), path.name


@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_models_answer_alike(outputs: Outputs, name: str) -> None:
    file = f"full-{name}.npz"
    with np.load(outputs("torch") / file) as one, np.load(outputs(FULL_SIZE_BACKEND) / file) as other:
        assert_close(other["logits"], one["logits"], "float64", name)


def test_a_unet_refuses_a_size_that_cannot_be_halved() -> None:
    message = (
        r"image_size 100 of 'unet' must be divisible by 16, because its images are halved 4 times; take 112"
    )
    with pytest.raises(StudyError, match=message):
        UnetSpec(image_size=100)
    UnetSpec(image_size=112)
