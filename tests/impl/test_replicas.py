"""One run on several devices equals the same run on one: small models step by step, and a study."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from children import HERE, TIMEOUT_SECONDS, quick_compilation, require

from common.config import Phantom
from common.data.phantom import write_phantom
from common.distributed import BATCH_NORM_RULE
from common.engines import module_of, worker_environment
from common.results import RunRecord, read_study

ROOT = HERE.parents[1]
STEPS = 12  # of `replicated.py`
# Relative, in float64: sums are taken in another order, and Adam's division enlarges what that leaves. Measured: 1e-13
LOSS_RTOL = 1e-8
MODELS = {
    "torch": ("cnn", "unet", "densenet121", "convnext_tiny"),
    # Where compiling is most of the time: a dropout of the framework's own, and batch norm with a pooled loss
    "keras-tensorflow": ("cnn", "unet"),
    "keras-jax": ("cnn", "unet"),
}


@pytest.mark.parametrize("framework", MODELS)
def test_two_devices_train_as_one(framework: str, tmp_path: Path) -> None:
    """Losses and weights: batch norm, loss and clipping of the whole batch, dropout draws the same."""
    require(framework)

    def train(devices: int) -> dict[str, np.ndarray]:
        settings = worker_environment(framework, "cpu", "float64", threads=1, devices=devices)
        settings |= {"STUDY_IMPLEMENTATION": module_of(framework), "STUDY_FRAMEWORK": framework}
        settings |= quick_compilation(tmp_path / f"compiled-{devices}")
        out = tmp_path / f"{devices}.npz"
        words = [HERE / "replicated.py", out, devices, *MODELS[framework]]
        run(*words, environment=settings)
        with np.load(out) as found:
            return dict(found)

    with ThreadPoolExecutor(2) as pool:
        alone, together = pool.map(train, (1, 2))
    assert {name.split("/")[0] for name in alone} == set(MODELS[framework])
    assert alone.keys() == together.keys()
    for name, values in alone.items():
        if name.endswith("/losses"):
            assert len(set(values)) == len(values) == STEPS
            np.testing.assert_allclose(together[name], values, rtol=LOSS_RTOL, err_msg=name)
        else:
            np.testing.assert_allclose(together[name], values, rtol=0, atol=1e-7, err_msg=name)


def run(*words: object, environment: dict[str, str] | None = None) -> None:
    """Run Python with these words; it must end well."""
    answer = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


# --- a study from the command line --------------------------------------------------------------------------------


def only_run(study: Path) -> RunRecord:
    (record,) = read_study(study).complete
    return record


def assert_same_training(found: RunRecord, expected: RunRecord) -> None:
    columns = ["learning_rate", "train_loss", "val_loss", "val_score"]
    histories = [pd.read_csv(one.directory / "history.csv")[columns] for one in (found, expected)]
    np.testing.assert_allclose(*histories, rtol=LOSS_RTOL)
    assert found.document["batches"] == expected.document["batches"]  # the first process saw whole batches
    scores = [one.predictions().of("test").y_score for one in (found, expected)]
    np.testing.assert_allclose(*scores, rtol=1e-6)


def test_a_study_on_two_devices_and_under_torchrun(tmp_path: Path) -> None:
    """The same run by one process, by two that the worker starts, and by two that torchrun starts."""
    require("torch")
    data = tmp_path / "data"
    write_phantom(data, Phantom(patients=12, slices_min=4, slices_max=5, image_size=64), "strokes")
    options = ["--data", data, "--tasks", "subtype", "--models", "cnn", "--epochs", "1", "--seeds", "1"]
    options += ["--repeats", "0", "--device", "cpu", "--threads", "1", "--precision", "float64"]
    studies = {}
    for devices in (1, 2):
        studies[devices] = tmp_path / f"devices-{devices}"
        out = ["--devices", str(devices), "--out", studies[devices]]
        run("-m", "torch_impl", "train", *options, *out)
    one, two = only_run(studies[1]), only_run(studies[2])
    assert one.document["replicas"] is None
    expected = {"devices": 2, "processes": 2, "batch_norm": BATCH_NORM_RULE, "backend": "gloo"}
    assert two.document["replicas"] == expected
    assert two.document["threads"] == 1
    assert_same_training(two, one)

    copy = tmp_path / "torchrun"
    shutil.copytree(studies[2], copy)
    shutil.rmtree(copy / two.directory.relative_to(studies[2]))
    words = ["run", copy, str(two.run.path), "--threads", "1"]
    run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "torch_impl", *words)
    again = only_run(copy)
    assert again.document["replicas"] == expected
    assert_same_training(again, two)
