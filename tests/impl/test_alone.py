"""Each stack alone, on the real command line: the other frameworks cannot even be found.

Both train on the same pictures; each then evaluates, and asks, what the other trained. Three processes a stack: each
loads its framework, which is most of what it costs.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from common.config import MODELS, NOTICE, TASKS, WORKER_ENVIRONMENT, CnnSpec, Phantom
from common.data.phantom import write_phantom
from common.engines import check_framework
from common.errors import StudyError
from common.results import RunRecord, read_study

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 600
FRAMEWORK = {"torch_impl": "torch", "keras_impl": "keras-tensorflow"}
OTHERS = {"torch_impl": ["tensorflow", "keras", "jax", "jaxlib"], "keras_impl": ["torch", "jax", "jaxlib"]}
PACKAGES = tuple(FRAMEWORK)

# Python runs this at start; it hides packages as if they had never been installed, in every process that follows.
HIDE = """
import os, sys

hidden = set(os.environ["HIDDEN_PACKAGES"].split(","))


class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in hidden else self.finder.find_spec(name, path, target)

    def find_distributions(self, *arguments, **options):
        find = getattr(self.finder, "find_distributions", lambda *arguments, **options: ())
        return (found for found in find(*arguments, **options) if found.metadata["Name"] not in hidden)


sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
"""


@dataclass(frozen=True)
class Stack:
    """One package with the other frameworks hidden."""

    package: str
    environment: dict[str, str]

    def run(self, *arguments: str | Path, code: int = 0) -> str:
        """What the command prints; it must end with the exit code and without a traceback."""
        answer = subprocess.run(
            [sys.executable, "-m", self.package, *map(str, arguments)],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
        )
        assert answer.returncode == code, answer.stdout + answer.stderr
        assert "Traceback" not in answer.stderr, answer.stderr
        return answer.stdout if code == 0 else answer.stderr


def stack(package: str, folder: Path) -> Stack:
    try:
        check_framework(FRAMEWORK[package])
    except StudyError as error:
        pytest.skip(str(error))
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(HIDE, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    hiding = {"PYTHONPATH": str(folder), "HIDDEN_PACKAGES": ",".join(OTHERS[package])}
    return Stack(package, kept | hiding | {"COLUMNS": "200"})


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stack]:
    folder = tmp_path_factory.mktemp("hiding")
    return {package: stack(package, folder) for package in PACKAGES}


Runs = dict[str, RunRecord]  # task -> run
ASKED = {
    "torch_impl": ("--tasks", "subtype", "segmentation", "--models", "cnn", "unet"),
    "keras_impl": ("--tasks", "subtype", "--models", "cnn"),
}


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve drawn patients of three classes, their lesions painted on."""
    folder = tmp_path_factory.mktemp("heads") / "data"
    write_phantom(folder, Phantom(patients=12, slices_min=4, slices_max=5, image_size=64), "strokes")
    return folder


@pytest.fixture(scope="module")
def trained(
    stacks: dict[str, Stack], heads: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Runs]:
    """Package -> the runs that its `train` made, one a task; the two side by side."""
    folder = tmp_path_factory.mktemp("alone")
    options = ["--epochs", "1", "--batch-size", "16", "--seeds", "1", "--repeats", "0"]
    options += ["--device", "cpu", "--threads", "1", "--data", str(heads)]

    def train(package: str) -> Runs:
        stacks[package].run("train", *ASKED[package], *options, "--out", folder / package)
        return {record.run.task: record for record in read_study(folder / package).complete}

    with ThreadPoolExecutor(len(PACKAGES)) as pool:
        return dict(zip(PACKAGES, pool.map(train, PACKAGES), strict=True))


def study_of(record: RunRecord) -> Path:
    return record.directory.parents[5]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_others_are_hidden(stacks: dict[str, Stack], package: str) -> None:
    """The premise of this file: the hidden packages are nowhere, the own framework is."""
    code = (
        "import importlib.util, json, sys;"
        "print(json.dumps([importlib.util.find_spec(name) is None for name in sys.argv[1:]]))"
    )
    own = FRAMEWORK[package].split("-")[-1]
    answer = subprocess.run(
        [sys.executable, "-c", code, *OTHERS[package], own],
        env=stacks[package].environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT_SECONDS,
    )
    assert json.loads(answer.stdout) == [True] * len(OTHERS[package]) + [False]


@pytest.mark.parametrize(("package", "command"), [("torch_impl", "train"), ("keras_impl", "info")])
def test_without_its_framework_a_stack_says_what_to_install(
    stacks: dict[str, Stack], package: str, command: str
) -> None:
    own = FRAMEWORK[package].split("-")[-1]
    hidden = {"HIDDEN_PACKAGES": ",".join([*OTHERS[package], own, "keras"])}
    alone = dataclasses.replace(stacks[package], environment=stacks[package].environment | hidden)
    (line,) = alone.run(command, code=2).splitlines()
    assert line.startswith(f"{package}: framework '{FRAMEWORK[package]}' needs the package ")
    assert own in line
    assert f"`pip install -r {package}/requirements.txt`" in line
    answer = alone.run(command, "--help")
    assert NOTICE in answer or "--device" in answer


def test_a_backend_that_is_not_compared_is_refused(stacks: dict[str, Stack]) -> None:
    """Keras itself would take it."""
    alone = stacks["keras_impl"]
    alone = dataclasses.replace(alone, environment=alone.environment | {"KERAS_BACKEND": "numpy"})
    (line,) = alone.run("train", code=2).splitlines()
    assert line.startswith("keras_impl: framework 'keras-numpy' is none of ")
    assert "KERAS_BACKEND" in line


def count_parameters(spec: CnnSpec) -> int:
    widths = (spec.channels, *spec.features)
    flat = (spec.image_size // 2 ** len(spec.features)) ** 2 * widths[-1]
    convolutions = sum(out * (into * spec.kernel_size**2 + 1) for into, out in pairwise(widths))
    return convolutions + spec.hidden * (flat + 1) + spec.outputs * (spec.hidden + 1)


# Parameters of the models as published, with one logit in place of 1000, and DenseNet's running statistics
PUBLISHED = {"densenet121": 7_978_856 - 999 * 1025 + 83_648, "convnext_tiny": 28_589_128 - 999 * 769}


# Python runs this at its end, which shows the environment that the framework was loaded in.
TELL = """
import atexit, json, os
atexit.register(lambda: open(os.environ["TOLD"], "w").write(json.dumps(dict(os.environ))))
"""


@pytest.mark.parametrize("package", PACKAGES)
def test_info(stacks: dict[str, Stack], tmp_path: Path, package: str) -> None:
    """Also that a command that does not train has a worker's environment."""
    (tmp_path / "sitecustomize.py").write_text(HIDE + TELL, encoding="utf-8")
    changes = {"PYTHONPATH": str(tmp_path), "TOLD": str(tmp_path / "told"), "OMP_NUM_THREADS": "7"}
    alone = dataclasses.replace(stacks[package], environment=stacks[package].environment | changes)
    printed = alone.run("info", "--device", "cpu", "--threads", "1")
    told = json.loads((tmp_path / "told").read_text(encoding="utf-8"))
    assert told.items() >= WORKER_ENVIRONMENT.items()
    assert (told["OMP_NUM_THREADS"], told["CUDA_VISIBLE_DEVICES"]) == ("1", "")
    assert told.get("KERAS_BACKEND") == {"torch_impl": None, "keras_impl": "tensorflow"}[package]

    facts = dict(line.split(None, 1) for line in printed.splitlines())
    assert facts["framework"].startswith({"torch_impl": "PyTorch ", "keras_impl": "Keras "}[package])
    assert facts["device"] == "cpu"
    cnn = MODELS["cnn"]
    assert isinstance(cnn, CnnSpec)
    for name, count in {"cnn": count_parameters(cnn), **PUBLISHED}.items():
        assert f"{name} ({count:,} values)" in facts["models"]
    assert "unet (" in facts["models"]
    assert facts["notice"] == NOTICE


def test_both_trained_the_same(trained: dict[str, Runs]) -> None:
    one, other = (runs["subtype"].document for runs in trained.values())
    assert [one["run"]["framework"], other["run"]["framework"]] == list(FRAMEWORK.values())
    for part in ("data", "batches", "phases"):
        assert one[part] == other[part]
    assert one["weights"]["initial_sha256"] == other["weights"]["initial_sha256"]
    assert one["weights"]["final_sha256"] != other["weights"]["final_sha256"]  # dropout draws, order of sums


def assert_equal_scores(found: np.ndarray, expected: np.ndarray) -> None:
    """Probabilities, and their logits too: so short a training may leave all near 0, where equal says little."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(logit(found), logit(expected), rtol=0, atol=1e-4)
    assert np.ptp(logit(expected)) > 0.01  # a hundred times what they may differ by


def evaluated(stack: Stack, record: RunRecord, out: Path) -> tuple[pd.DataFrame, str]:
    """The rows that `evaluate` writes for a run's checkpoint on its own test part, and what it prints."""
    options = ["--study", study_of(record), "--out", out, "--device", "cpu", "--threads", "1"]
    printed = stack.run("evaluate", record.directory / "model.safetensors", *options)
    assert NOTICE in printed
    return pd.read_csv(out, dtype={"id": str, "patient": str}), printed


def test_a_classifier_of_keras_says_the_same_in_torch(
    stacks: dict[str, Stack], trained: dict[str, Runs], tmp_path: Path
) -> None:
    record = trained["keras_impl"]["subtype"]
    found, printed = evaluated(stacks["torch_impl"], record, tmp_path / "scores.csv")
    test = record.predictions().of("test")
    assert found["id"].tolist() == test.sample_id.tolist()
    assert found["patient"].tolist() == test.patient.tolist()
    np.testing.assert_array_equal(found["y_true"], test.y_true)
    scores = found[[name for name in found if name.startswith("y_score")]].to_numpy()
    assert_equal_scores(scores, test.y_score)
    assert f"{len(found)} slices" in printed


def test_a_segmenter_of_torch_says_the_same_in_keras(
    stacks: dict[str, Stack], trained: dict[str, Runs], tmp_path: Path
) -> None:
    record = trained["torch_impl"]["segmentation"]
    found, _ = evaluated(stacks["keras_impl"], record, tmp_path / "scores.csv")
    masks = record.mask_predictions().of("test")
    assert found["id"].tolist() == masks.sample_id.tolist()
    np.testing.assert_array_equal(found["tp"] + found["fn"], masks.tp + masks.fn)
    # A pixel at the threshold may fall on either side
    np.testing.assert_allclose(found["tp"] + found["fp"], masks.tp + masks.fp, rtol=0, atol=2)


@pytest.mark.parametrize("package", PACKAGES)
def test_predict_reads_the_files_themselves_and_names_a_bad_one(
    stacks: dict[str, Stack], trained: dict[str, Runs], tmp_path: Path, package: str
) -> None:
    """The other's three classes, then the lesions of what is called a stroke, by PyTorch's segmenter."""
    (other,) = (one for one in PACKAGES if one != package)
    gate, segmenter = trained[other]["subtype"], trained["torch_impl"]["segmentation"]
    test, study = gate.predictions().of("test"), study_of(gate)
    samples = read_study(study).samples().set_index("id")
    pictures = [str(study / path) for path in samples.loc[test.sample_id, "path"]]
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(pictures[0]).read_bytes()[:2000])
    out, checkpoints = tmp_path / "out", [one.directory / "model.safetensors" for one in (gate, segmenter)]
    options = ["--device", "cpu", "--threads", "1", "--out", out]
    for path in checkpoints:
        options += ["--checkpoint", path]
    stacks[package].run("predict", *pictures[:2], broken, *pictures[2:], *options, code=1)
    about, *rows = map(json.loads, (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines())
    assert about["framework"] == FRAMEWORK[package]
    assert about["checkpoints"] == [str(path) for path in checkpoints]
    assert [row["path"] for row in rows] == [*pictures[:2], str(broken), *pictures[2:]]
    bad = rows.pop(2)
    assert bad["error"]
    assert (bad["label"], bad["probability"], bad["segmented"]) == ("", {}, False)
    classes = TASKS["subtype"].classes
    assert_equal_scores(
        np.array([[row["probability"][name] for name in classes] for row in rows]), test.y_score
    )
    called = [classes[index] for index in test.y_score.argmax(axis=1)]
    assert [row["label"] for row in rows] == called
    assert [row["segmented"] for row in rows] == [label != "normal" for label in called]
    masks = segmenter.mask_predictions().of("test")
    assert masks.sample_id.tolist() == test.sample_id.tolist()
    for row, empty in zip(rows, masks.tp + masks.fp == 0, strict=True):
        assert row["lesion_px"] is None if not row["segmented"] else (row["lesion_px"] == 0) == empty
