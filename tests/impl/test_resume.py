"""Real workers: killed in the middle, on other numbers of workers, and the files are the same to the bit."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from common.config import DenseNetSpec, Phantom, Recipe, Run, Study, UnetSpec
from common.data.phantom import write_phantom
from common.engines import missing_packages, run_locally, worker_command, worker_environment
from common.results import read_run, run_directory
from common.study import prepare_study

EPOCHS = 3
FRAMEWORKS = ("torch", "keras-tensorflow")
SECONDS = ["seconds", "images_per_second", "wait_seconds"]
# Between them: dropout, batch norm, transposed convolutions, and two phases, the last layer alone first
SPECS = {
    "binary/densenet121": DenseNetSpec(
        image_size=32, stem_features=4, blocks=(1, 1), growth=4, bottleneck=2, dropout=0.4
    ),
    "segmentation/unet": UnetSpec(image_size=32, features=(3, 5)),
}
RECIPES = {
    "binary/densenet121": Recipe(EPOCHS, batch_size=16, head_epochs=1),
    "segmentation/unet": Recipe(
        EPOCHS, batch_size=16, loss="dice_cross_entropy", sampling="foreground", class_weights="none"
    ),
}
KILLED_AFTER = {"densenet121": 1, "unet": 2}  # epochs; the first ends a phase
# Keras's U-Net is held to this within one process (`resume_suite.py`): a start of TensorFlow costs ten of PyTorch
CHOSEN = (("torch", "densenet121"), ("torch", "unet"), ("keras-tensorflow", "densenet121"))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("resume") / "data"
    write_phantom(folder, Phantom(patients=12, slices_min=4, slices_max=5, image_size=64), "strokes")
    installed = tuple(name for name in FRAMEWORKS if not missing_packages(name))
    if not installed:
        pytest.skip(f"none of {', '.join(FRAMEWORKS)} is installed")
    return Study(
        data=(str(folder),),
        tasks=("binary", "segmentation"),
        frameworks=installed,
        seeds=1,
        device="cpu",
        deterministic=True,
        checkpoint_every=1,
        specs=SPECS,
        recipes=RECIPES,
    )


def kill_after(directory: Path, run: Run, epoch: int) -> None:
    """Start the worker of a run as the engine does and kill it when it has told the end of an epoch."""
    environment = worker_environment(run.framework, "cpu", "float32", threads=1, deterministic=True)
    process = subprocess.Popen(
        [
            *worker_command(run.framework, "run", str(directory), str(run.path)),
            "--threads",
            "1",
            "--supervised",
        ],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    told = (event_of(line) for line in process.stdout)
    assert any(event.get("epoch") == epoch for event in told), "the worker ended by itself"
    os.kill(process.pid, signal.SIGKILL)
    process.stdout.close()
    process.stdin.close()
    assert process.wait() == -signal.SIGKILL


def event_of(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def contents(directory: Path, run: Run) -> dict[str, bytes | str]:
    """What two runs have in common where they are the same to the bit."""
    record = read_run(directory, run)
    assert record is not None
    assert record.complete, record.document["reason"]
    history = pd.read_csv(record.directory / "history.csv", dtype=str).drop(columns=SECONDS)
    files = {
        name: (record.directory / name).read_bytes() for name in ("predictions.npz", "model.safetensors")
    }
    return {**files, "history.csv": history.to_csv(), "batches": json.dumps(record.document["batches"])}


def test_neither_workers_nor_a_kill_change_a_bit(study: Study, tmp_path: Path) -> None:
    runs = [run for run in study.runs() if (run.framework, run.model) in CHOSEN]
    whole, killed = tmp_path / "a" / "study", tmp_path / "b" / "study"
    for directory in (whole, killed):
        prepare_study(study, directory)
    run_locally(whole, dataclasses.replace(study, workers=2), runs, lambda run, event: None)
    for run in runs:
        kill_after(killed, run, KILLED_AFTER[run.model])
        assert not (run_directory(killed, run) / "run.json").exists()
    run_locally(killed, study, runs, lambda run, event: None)
    for run in runs:
        assert contents(killed, run) == contents(whole, run), run.path
        record = read_run(killed, run)
        assert record is not None
        assert record.document["resumed"] == [KILLED_AFTER[run.model]]
        assert record.document["environment"]["deterministic_kernels"] == "on"
        log = (record.directory / "run.log").read_text(errors="replace")
        assert f"goes on after epoch {KILLED_AFTER[run.model]}," in log
