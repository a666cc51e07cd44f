"""PyTorch and Keras on TensorFlow step for step, each in a process of its own: one algorithm, to rounding.

Exactness is a statement about float64. In float32 two correct programs drift apart within a few Adam steps, as either
does from itself with another number of threads, so there only what comes before the first update is compared.

And a proof that cannot fail proves nothing: the two tables below say which fault is found where.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest
from cases import CASES, MODELS, STEPS, TASKS, study
from faults import FAULTS

from common import config
from common.config import DEFAULTS, defaults_of
from common.data import images
from common.engines import check_framework, worker_environment
from common.errors import StudyError
from common.mutations import where_planted
from common.parity import by_step, compare_traces, first_divergence, largest, total_norm
from common.parity_words import Divergence, Finding
from common.results import StudyRecord
from common.study import prepare_study
from common.trace import Trace, read_trace

HERE = Path(__file__).resolve().parent
FRAMEWORKS = ("torch", "keras-tensorflow")
TOLERANCES = config.PARITY_TOLERANCES["float64"]
TIMEOUT_SECONDS = 600
SHORT = 1  # step, in float32
IN_FLOAT32 = ("cnn", "unet")  # in it `tests/impl` compares what all the models answer
HEAD_STEPS = 2
NOWHERE = (0, "", "", "")


@dataclass(frozen=True)
class Planted:
    """A fault, the model that it is planted in, and where it is to be found first."""

    name: str
    model: str
    step: int
    stage: str
    layer: str
    tensor: str = ""

    @property
    def place(self) -> tuple[int, str, str, str]:
        return self.step, self.stage, self.layer, self.tensor


# One default left to one side (`config.DEFAULTS`), as `compare.py parity --mutations` does for every model
LEFT_ALONE = (
    Planted("order", "cnn", 1, "batch", "", "rows"),
    Planted("initial_weights", "cnn", 1, "outputs", "convolutions.0"),
    Planted("flatten", "cnn", 1, "outputs", "hidden"),
    Planted("conv_bias", "unet", 1, "outputs", "encoder.0.conv1"),
    Planted("padding", "densenet121", 1, "outputs", "features.conv0"),
    Planted("norm_epsilon", "unet", 1, "outputs", "encoder.0.norm1"),
    Planted("norm_decay", "unet", 1, "statistics", "encoder.0.norm1", "running_mean"),
    Planted("norm_variance", "unet", 1, "statistics", "encoder.0.norm1", "running_var"),
    Planted("stochastic_depth", "convnext_tiny", HEAD_STEPS + 1, "outputs", "stages.1.blocks.0"),
    Planted("class_weights", "convnext_tiny", 1, "loss", ""),
    Planted("sample_weights", "cnn", 1, "loss", ""),
    Planted("weight_decay", "cnn", 1, "weights", "convolutions.0", "weight"),
    Planted("decay_scope", "cnn", 1, "weights", "convolutions.0", "bias"),
    Planted("adam_epsilon", "cnn", 1, "weights", "convolutions.0", "weight"),
    Planted("adam_form", "cnn", 1, "weights", "convolutions.0", "weight"),
    Planted("clipping", "cnn", 1, "weights", "convolutions.0", "weight"),
    Planted("dropout", "cnn", 1, "outputs", "head"),
)
# Defaults that say how something is computed, or that need extreme values: the proof shows that they change nothing
HARMLESS = {"loop": "cnn", "stock_layers": "cnn", "loss_input": "cnn"}

# Faults of an implementation (`faults.py`), in PyTorch's side
BROKEN = (
    Planted("other_resizing", "cnn", 1, "batch", "", "images"),
    Planted("other_normalisation", "cnn", 1, "batch", "", "images"),
    Planted("labels_not_smoothed", "densenet121", 1, "batch", "", "targets"),
    Planted("classes_not_weighed", "cnn", 1, "batch", "", "weights"),
    Planted("gelu_by_tanh", "convnext_tiny", 1, "outputs", "stages.0.blocks.0.mlp.fc2"),
    Planted("one_sided_max_pool", "densenet121", 1, "outputs", "features.denseblock1.denselayer1.norm1"),
    Planted("layer_norm_epsilon", "convnext_tiny", 1, "outputs", "stem.1"),
    Planted("exchanged_channels", "unet", 1, "outputs", "decoder.0.conv1"),
    Planted("masks_of_other_steps", "cnn", 1, "outputs", "head"),
    Planted("statistics_that_move_while_frozen", "densenet121", 1, "outputs", "features.norm0"),
    Planted("evaluation_by_batch_statistics", "unet", 1, "logits", ""),
    Planted("dice_of_each_slice", "unet", 1, "loss", ""),
    Planted("loss_without_weights", "cnn", 1, "loss", ""),
    Planted("running_mean_loss", "cnn", 2, "loss", ""),
    Planted("halved_gradient", "cnn", 1, "gradients", "convolutions.1", "bias"),
    Planted("decay_after_the_step", "unet", 1, "weights", "encoder.0.conv1", "weight"),
    Planted("optimizer_that_goes_on", "densenet121", HEAD_STEPS + 1, "weights", "classifier", "weight"),
    Planted("backbone_as_fast_as_the_head", "convnext_tiny", HEAD_STEPS + 1, "weights", "stem.0", "weight"),
    Planted("gradients_not_clipped", "cnn", 1, "weights", "convolutions.0", "weight"),
    Planted("rate_of_the_step_before", "cnn", 1, "weights", "convolutions.0", "weight"),
    Planted("moments_that_forget", "cnn", 3, "loss", ""),
)


# --- both sides -----------------------------------------------------------------------------------------------------


class World:
    """Every trace that the two processes left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = prepare_study(study(), folder / "study")
        with mock.patch.object(images.cv2, "INTER_AREA", cv2.INTER_NEAREST):
            self.other_pixels = prepare_study(study(), folder / "other")
        plans: dict[str, list[dict[str, Any]]] = {}
        for framework in FRAMEWORKS:
            clean = [self._entry(model, framework) for model in MODELS]
            short = [self._entry(model, framework, precision="float32") for model in IN_FLOAT32]
            plans[framework] = clean + short
        for name, model in {**{one.name: one.model for one in LEFT_ALONE}, **HARMLESS}.items():
            framework = self.left_to(name, model)
            plans[framework].append(self._entry(model, framework, names=(name,)))
        plans["torch"] += [self._entry(one.model, "torch", fault=one.name) for one in BROKEN]
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._run, plans, plans.values()))

    def left_to(self, name: str, model: str) -> str:
        """The framework that a default is left to."""
        return where_planted(self.record, f"{TASKS[model]}/{model}", FRAMEWORKS[1])[name]

    def trace(self, model: str, framework: str, what: str = "float64") -> Trace:
        return read_trace(self._directory(model, framework, what))

    def findings(self, one: Planted) -> tuple[Finding, ...]:
        """The differences of PyTorch with an implementation's fault and Keras without."""
        faulty = self.trace(one.model, "torch", one.name)
        return compare_traces(faulty, self.trace(one.model, "keras-tensorflow"))

    def findings_of_default(self, name: str, model: str) -> tuple[Finding, ...]:
        """The differences where one side was left with its default."""
        where = self.left_to(name, model)
        sides = [self.trace(model, side, name if side == where else "float64") for side in FRAMEWORKS]
        return compare_traces(*sides)

    def _directory(self, model: str, framework: str, what: str) -> Path:
        return self.folder / model / framework / what

    def _entry(
        self,
        model: str,
        framework: str,
        precision: str = "float64",
        fault: str = "",
        names: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        data: StudyRecord = self.other_pixels if fault == "other_resizing" else self.record
        job = {
            "study": str(data.directory),
            "task": TASKS[model],
            "model": model,
            "steps": STEPS if precision == "float64" else SHORT,
            "directory": str(self._directory(model, framework, fault or "+".join(names) or precision)),
            "names": names,
        }
        return {"precision": precision, "fault": fault if fault in FAULTS else "", "job": job}

    def _run(self, framework: str, plan: list[dict[str, Any]]) -> None:
        path = self.folder / f"{framework}.json"
        path.write_text(json.dumps(plan), encoding="utf-8")
        answer = subprocess.run(
            [sys.executable, str(HERE / "traced.py"), framework, str(path)],
            cwd=HERE.parents[1],
            env=worker_environment(framework, "cpu", "float64", threads=1),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
        )
        assert answer.returncode == 0, answer.stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    for framework in FRAMEWORKS:
        try:
            check_framework(framework)
        except StudyError as error:
            pytest.skip(str(error))
    return World(tmp_path_factory.mktemp("parity"))


def located(divergence: Divergence | None) -> tuple[int, str, str, str]:
    if divergence is None:
        return NOWHERE
    return divergence.step, divergence.stage, divergence.layer, divergence.tensor


# --- one algorithm --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_trainings_are_equal_in_float64(world: World, model: str) -> None:
    findings = compare_traces(*(world.trace(model, framework) for framework in FRAMEWORKS))
    assert first_divergence(findings, TOLERANCES) is None
    assert largest(findings, "loss") < 1e-11  # with room to spare
    assert len(by_step(findings, "loss")) == STEPS


@pytest.mark.parametrize("model", MODELS)
def test_everything_was_compared(world: World, model: str) -> None:
    torch = world.trace(model, "torch")
    findings = compare_traces(torch, world.trace(model, "keras-tensorflow"))
    starts = {1, HEAD_STEPS + 1} if CASES[f"{TASKS[model]}/{model}"][1].head_epochs else {1}
    assert by_step(findings, "outputs").keys() == starts
    assert by_step(findings, "weights").keys() == starts | {STEPS}
    assert by_step(findings, "gradients").keys() == set(range(1, STEPS + 1))
    layers = {name.rpartition(".")[0] for name in torch.weights[1]}
    assert {one.name for one in findings if one.stage == "outputs"} == layers
    statistics = {name for name in torch.weights[1] if ".running_" in name}
    assert {one.name for one in findings if one.stage == "statistics"} == statistics
    compared = {one.name for one in findings if one.stage == "weights"}
    assert compared | statistics == torch.weights[1].keys()
    assert {one.name for one in findings if one.stage == "gradients"} == compared


@pytest.mark.parametrize("model", MODELS)
def test_training_went_somewhere(world: World, model: str) -> None:
    """Equal trainings of a model that does not move, or whose gradients are never clipped, would say little."""
    torch = world.trace(model, "torch")
    assert np.abs(torch.logits - torch.forward).max() > 0.05
    first, last = torch.weights[1], torch.weights[STEPS]
    moved = {name for name in first if np.abs(last[name] - first[name]).max() > 1e-5}
    assert moved == first.keys()
    norms = [total_norm(gradients) for gradients in torch.gradients.values()]
    assert max(norms) > CASES[f"{TASKS[model]}/{model}"][1].gradient_clip_norm


@pytest.mark.parametrize("model", IN_FLOAT32)
def test_the_first_step_is_equal_in_float32(world: World, model: str) -> None:
    findings = compare_traces(*(world.trace(model, framework, "float32") for framework in FRAMEWORKS))
    tolerances = config.PARITY_TOLERANCES["float32"]
    assert first_divergence(findings, tolerances, first_step_only=True) is None
    assert largest(findings, "outputs") > 1e-9  # it was float32 indeed


# --- what would be found --------------------------------------------------------------------------------------------


def test_every_default_is_left_alone_once(world: World) -> None:
    matter = {default.name for spec, recipe in CASES.values() for default in defaults_of(spec, recipe)}
    assert matter == DEFAULTS.keys()
    assert {one.name for one in LEFT_ALONE} | HARMLESS.keys() == matter
    assert {one.name for one in BROKEN} == FAULTS.keys() | {"other_resizing"}


@pytest.mark.parametrize("one", LEFT_ALONE, ids=lambda one: one.name)
def test_a_default_left_alone_is_found(world: World, one: Planted) -> None:
    divergence = first_divergence(world.findings_of_default(one.name, one.model), TOLERANCES)
    assert located(divergence) == one.place, divergence


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_default_changes_nothing(world: World, name: str) -> None:
    findings = world.findings_of_default(name, HARMLESS[name])
    assert located(first_divergence(findings, TOLERANCES)) == NOWHERE
    assert name in config.PARITY_HARMLESS


@pytest.mark.parametrize("one", BROKEN, ids=lambda one: one.name)
def test_a_fault_is_found(world: World, one: Planted) -> None:
    divergence = first_divergence(world.findings(one), TOLERANCES)
    assert located(divergence) == one.place, divergence


def test_the_words_of_a_fault_say_where_to_look(world: World) -> None:
    broken = {one.name: one for one in BROKEN}

    def said(name: str) -> str:
        divergence = first_divergence(world.findings(broken[name]), TOLERANCES)
        return divergence.words if divergence else ""

    assert "while those of stem.0 agree" in said("layer_norm_epsilon")
    assert "look at order" not in said("other_resizing")
    assert "look at resizing" in said("other_resizing")
    assert "while that of hidden, nearer the loss, agrees" in said("halved_gradient")
    assert "look at the optimizer" in said("rate_of_the_step_before")
