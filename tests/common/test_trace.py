"""What a traced training writes down, and that it comes back as it was."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import RECIPE, SPEC, make_study, tiny_world, write_pictures
from traced_tiny import TracedTiny

from common import config
from common.config import Recipe, to_json
from common.data.batches import training_batches
from common.errors import StudyError
from common.framework import Settings
from common.results import StudyRecord, read_json
from common.run import load_data
from common.schedule import learning_rate
from common.study import prepare_study
from common.trace import (
    BATCH_FIELDS,
    Stretch,
    TraceJob,
    TracePlan,
    carry_out_plan,
    chunks,
    digest_batch,
    finished,
    plan_from_json,
    read_trace,
    stirred,
    stretches,
    trace_job,
)

__all__ = ["tiny_world"]  # a fixture
pytestmark = pytest.mark.usefixtures("tiny_world")

TRANSFER = dataclasses.replace(RECIPE, head_epochs=1)
SETTINGS = Settings("cpu", "float64", 1, 0)
STEPS = 12  # more than an epoch has


@pytest.fixture
def record(tmp_path: Path) -> StudyRecord:
    return prepared(tmp_path, RECIPE)


def prepared(folder: Path, recipe: Recipe) -> StudyRecord:
    study = make_study(write_pictures(folder / "pictures"), recipes={"binary/cnn": recipe})
    return prepare_study(study, folder / "study")


def job_of(record: StudyRecord, directory: Path, **changes: Any) -> TraceJob:
    job = TraceJob(str(record.directory), "binary", "cnn", STEPS, str(directory))
    return dataclasses.replace(job, **changes)


def test_phases_by_steps() -> None:
    assert stretches(RECIPE, 20) == [Stretch("all", 1, 20)]
    assert stretches(TRANSFER, 20) == [Stretch("head", 1, 4), Stretch("all", 5, 16)]
    assert stretches(TRANSFER, 1) == [Stretch("all", 1, 1)]


def test_fit_gets_all_but_the_first_step_at_once() -> None:
    fit = dataclasses.replace(RECIPE, loop="fit")
    assert chunks(Stretch("all", 5, 4), RECIPE) == [1, 1, 1, 1]
    assert chunks(Stretch("all", 5, 4), fit) == [1, 3]
    assert chunks(Stretch("all", 1, 1), fit) == [1]


def test_a_trace_is_the_training(record: StudyRecord, tmp_path: Path) -> None:
    framework, job = TracedTiny(), job_of(record, tmp_path / "trace")
    assert list(trace_job(framework, job, SETTINGS)) == list(range(1, STEPS + 1))
    trace = read_trace(tmp_path / "trace")
    assert framework.settings == [SETTINGS]

    # The same training, written out
    spec, recipe = SPEC, RECIPE
    other = TracedTiny()
    model = other.build(spec)
    part = load_data(record, record.study.runs()[0], config.TASKS["binary"], spec, recipe).train
    batches = list(
        itertools.islice(
            itertools.chain.from_iterable(
                training_batches(part, recipe, spec, 0, epoch, "tiny-a") for epoch in (1, 2, 3)
            ),
            STEPS,
        )
    )
    rates = [learning_rate(step, STEPS, recipe) for step in range(STEPS)]
    assert [one["rows"] for one in trace.batches] == [digest_batch(batch)["rows"] for batch in batches]
    assert set(trace.weights) == {1, STEPS}
    other.write_weights(model, trace.weights[1])
    losses = other.train_epoch(
        other.create_trainer(model, recipe, traced=True), zip(batches[1:], rates[1:], strict=True)
    )
    np.testing.assert_allclose(trace.losses[1:], losses, rtol=1e-12)
    for name, array in trace.weights[STEPS].items():
        np.testing.assert_allclose(array, model[name], rtol=1e-12, atol=1e-15)
    assert trace.gradients.keys() == set(range(1, STEPS + 1))
    assert trace.gradients[STEPS] == pytest.approx(other.gradient_norms(model), rel=1e-9)
    assert list(trace.outputs) == [1]
    assert trace.outputs[1]["dense"].shape == (recipe.batch_size, 1)
    assert trace.forward.shape == trace.logits.shape
    assert np.abs(trace.forward - trace.logits).max() > 1e-3


def test_the_last_layer_does_not_begin_at_zero(record: StudyRecord, tmp_path: Path) -> None:
    list(trace_job(TracedTiny(), job_of(record, tmp_path / "trace"), SETTINGS))
    assert np.abs(read_trace(tmp_path / "trace").forward).min() > 1e-6


def test_phases_have_trainers_and_snapshots_of_their_own(tmp_path: Path) -> None:
    record, framework = prepared(tmp_path, TRANSFER), TracedTiny()
    list(trace_job(framework, job_of(record, tmp_path / "trace"), SETTINGS))
    trace = read_trace(tmp_path / "trace")
    assert framework.trainable == ["head", "all"]
    assert list(trace.outputs) == [1, 3]  # a fifth of twelve steps is two
    assert list(trace.weights) == [1, 3, STEPS]
    document = read_json(tmp_path / "trace" / "trace.json")
    assert [(one["trainable"], one["first"]) for one in document["phases"]] == [("head", 1), ("all", 3)]
    assert document["steps"] == STEPS
    assert document["environment"]["framework"] == "tiny-a 1.0"


def test_of_fit_only_some_gradients_are_known(
    record: StudyRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = dataclasses.replace(config.DEFAULTS["loop"], torch={"loop": "fit"}, keras={"loop": "fit"})
    monkeypatch.setitem(config.DEFAULTS, "loop", loop)
    framework = TracedTiny()
    list(trace_job(framework, job_of(record, tmp_path / "trace", names=("loop",)), SETTINGS))
    assert framework.calls == [1, STEPS - 1]
    trace = read_trace(tmp_path / "trace")
    assert list(trace.gradients) == [1, STEPS]
    assert len(trace.losses) == len(trace.batches) == STEPS


def test_each_field_of_a_batch_has_a_digest(record: StudyRecord) -> None:
    part = load_data(record, record.study.runs()[0], config.TASKS["binary"], SPEC, RECIPE).train
    batch = next(training_batches(part, RECIPE, SPEC, 0, 1))
    whole = digest_batch(batch)
    assert set(whole) == set(BATCH_FIELDS)
    expected = f"{batch.weights.dtype}{batch.weights.shape}".encode() + batch.weights.tobytes()
    assert whole["weights"] == hashlib.sha256(expected).hexdigest()
    for name in BATCH_FIELDS:
        array = getattr(batch, name).copy()
        array.flat[0] += 1
        changed = digest_batch(dataclasses.replace(batch, **{name: array}))
        assert {field for field in BATCH_FIELDS if changed[field] != whole[field]} == {name}


def test_stirring_leaves_kernels_and_tells_channels_apart() -> None:
    weights = {
        "conv.weight": np.ones((2, 3), np.float32),
        "norm.weight": np.ones(50, np.float32),
        "norm.running_var": np.ones(50, np.float32),
        "norm.running_mean": np.zeros(50, np.float32),
        "block.gamma": np.full(50, 1e-6, np.float32),
    }
    moved = stirred(weights, 0)
    np.testing.assert_array_equal(moved["conv.weight"], weights["conv.weight"])
    for name in ("norm.weight", "norm.running_var"):
        assert moved[name].min() > 0.7
        assert moved[name].max() < 1.3
    assert 0.05 < moved["norm.running_mean"].std() < 0.15
    assert moved["block.gamma"].max() < 1.3e-6
    for name, array in moved.items():
        assert array.dtype == np.float32
        assert array.ndim > 1 or len(np.unique(array)) > 45
        np.testing.assert_array_equal(array, stirred(weights, 0)[name])


# --- plans ----------------------------------------------------------------------------------------------------------


def test_a_plan_survives_json() -> None:
    job = TraceJob("study", "binary", "cnn", 3, "out", names=("order",))
    plan = TracePlan("torch", "cpu", "float64", 2, (job, dataclasses.replace(job, names=())))
    assert plan_from_json(to_json(plan)) == plan


def test_a_job_that_fails_leaves_the_others(
    record: StudyRecord, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Falters(TracedTiny):
        def build(self, spec: Any) -> Any:
            self.fault = "raises" if self.fault == "" else ""
            return super().build(spec)

    jobs = tuple(job_of(record, tmp_path / name) for name in ("first", "second"))
    events: list[dict[str, Any]] = []
    jobs = (dataclasses.replace(jobs[0], names=("order",)), jobs[1])
    with pytest.raises(StudyError, match=r"^order left alone: RuntimeError\('a layer has no gradient'\)$"):
        carry_out_plan(Falters(), TracePlan("tiny-a", "cpu", "float64", 1, jobs), events.append)
    assert not finished(tmp_path / "first")
    assert finished(tmp_path / "second")
    assert events[-1] == {"steps": 2 * STEPS, "of": 2 * STEPS}
    assert "a layer has no gradient" in capfd.readouterr().err


def test_no_trace_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"trace\.json does not exist"):
        read_trace(tmp_path)
