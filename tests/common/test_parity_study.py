"""The proof as it is carried out: processes that trace, rows that accumulate, faults that are told."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from tiny import MASK_SPEC, tiny_world, write_pictures
from traced_tiny import TracedTiny

from common import config, engines, mutations, parity_study, workers
from common.config import NOTICE, to_json
from common.errors import StudyError
from common.mutations import mutation_row, plant, where_planted
from common.parity_study import Asked, prepare, prove, training_of
from common.parity_table import MEASURES, STEP_COLUMNS, read_parity, write_parity
from common.parity_words import Finding
from common.results import read_json, write_json
from common.trace import carry_out_plan, plan_from_json
from common.workers import Ending

__all__ = ["tiny_world"]  # a fixture

HERE = Path(__file__).resolve().parent
STEPS = 6

# A worker with the tiny framework; its fault is that of its framework's name in FAULTS, or of "threads".
WORKER = """
import json, os, sys
from pathlib import Path
from traced_tiny import TracedTiny
from common.errors import StudyError
from common.results import read_json
from common.trace import carry_out_plan, plan_from_json

assert sys.argv[1] == "trace"
plan = plan_from_json(read_json(Path(sys.argv[2])))
name = "threads" if plan.threads > 1 else plan.framework
fault = json.loads(os.environ["FAULTS"]).get(name, "")
try:
    carry_out_plan(TracedTiny(plan.framework, fault), plan, lambda event: print(json.dumps(event), flush=True))
except StudyError as error:
    print(json.dumps({"failed": str(error)}), flush=True)
    sys.exit(2)
"""


def trace_here(
    crew: workers.Crew,
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    on_event: Callable[[dict[str, Any]], object],
) -> Ending:
    """What a worker of WORKER does, without its process, which takes a second to start."""
    del crew, environment, log
    plan = plan_from_json(read_json(Path(command[-1])))
    name = "threads" if plan.threads > 1 else plan.framework
    fault = json.loads(os.environ["FAULTS"]).get(name, "")
    try:
        carry_out_plan(TracedTiny(plan.framework, fault), plan, on_event)
    except StudyError as error:
        return Ending(2, str(error), told=True)
    return Ending(0, "")


class Scene:
    """A folder, what was printed, and the faults that the frameworks are given."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.out = folder / "out"
        self.data = (str(write_pictures(folder / "pictures", masks=True)),)
        self.printed = io.StringIO()
        self._monkeypatch = monkeypatch

    def asked(self, **changes: Any) -> Asked:
        settings = {"models": ("cnn",), "frameworks": ("tiny-a",), "profile": "quick", "data": self.data}
        return Asked(**{**settings, "steps": STEPS, "workers": 2, **changes})

    def console(self) -> Console:
        return Console(file=self.printed, width=100, soft_wrap=True)

    def prove(self, faults: dict[str, str] | None = None, **changes: Any) -> bool:
        self._monkeypatch.setenv("FAULTS", json.dumps(faults or {}))
        return prove(self.asked(**changes), self.out, self.console())

    def plant(self, faults: dict[str, str] | None = None, **changes: Any) -> bool:
        self._monkeypatch.setenv("FAULTS", json.dumps(faults or {}))
        return plant(self.asked(**changes), self.out, self.console())

    def document(self) -> dict[str, Any]:
        return json.loads((self.out / "parity.json").read_text())

    def row(self) -> dict[str, Any]:
        (row,) = self.document()["rows"]
        return row


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_world: None) -> Scene:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "tiny_tracer.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(modules), str(HERE)]))
    monkeypatch.setattr(engines, "module_of", lambda framework: "tiny_tracer")
    monkeypatch.setitem(engines.PACKAGES, "torch", ("numpy",))
    monkeypatch.setattr(config, "PARITY_IMAGE_SIZE", MASK_SPEC.image_size)
    return Scene(tmp_path, monkeypatch)


@pytest.fixture
def scene(processes: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """The same without the processes."""
    monkeypatch.setattr(workers.Crew, "run", trace_here)
    return processes


# --- the proof ------------------------------------------------------------------------------------------------------


def test_a_precision_that_proves_nothing_is_refused_before_any_work(tmp_path: Path) -> None:
    asked = Asked(models=("cnn",), frameworks=("keras-jax",), precision="bfloat16")
    with pytest.raises(
        StudyError, match=r"^--precision bfloat16 proves nothing: .*; give float64 or float32$"
    ):
        prove(asked, tmp_path / "proof", Console(file=io.StringIO()))
    assert not (tmp_path / "proof").exists()


def test_two_that_agree(processes: Scene) -> None:
    scene = processes
    assert scene.prove()
    document = scene.document()
    assert document["format"] == 1
    assert document["notice"] == NOTICE
    assert document["data"] == scene.data[0]
    assert document["environment"]["torch"]["framework"] == "torch 1.0"
    assert document["environment"]["tiny-a"]["framework"] == "tiny-a 1.0"
    row = scene.row()
    assert {name for name in MEASURES if row[name] is None} == {"statistics_max_rel"}  # the model has none
    assert {row[name] for name in MEASURES} == {0.0, None}
    told = {
        "task": "binary", "model": "cnn", "framework": "tiny-a", "reference": "torch", "precision": "float64",
        "steps": STEPS, "profile": "quick", "image_size": 16, "parameters": 17, "batch_size": 8,
        "learning_rate": 1e-3, "gradient_clip_norm": config.PARITY_CLIP_NORM, "head_steps": 0,
        "first_divergence": None, "floor": None, "passed": True, "reason": None,
        "tolerances": config.PARITY_TOLERANCES["float64"],
    }  # fmt: skip
    assert row.items() >= told.items()
    assert row["seconds"] > 0
    steps = pd.read_csv(scene.out / "parity_steps.csv")
    assert list(steps) == list(STEP_COLUMNS)
    assert steps["step"].tolist() == list(range(1, STEPS + 1))
    assert (steps[["loss_rel", "gradients_rel"]] == 0).all(axis=None)
    assert steps["loss"].iloc[-1] < steps["loss"].iloc[0] * 2
    printed = scene.printed.getvalue()
    assert "agrees" in printed
    assert f"data: {scene.data[0]}. {NOTICE}" in printed
    left = {str(path.relative_to(scene.out)) for path in scene.out.rglob("*") if path.is_file()}
    logs = {"parity/cnn, torch.log", "parity/cnn, tiny-a.log", "parity/.lock"}
    assert left == {"parity.json", "parity_steps.csv", *logs}  # and no traces


def test_a_fault_is_located_and_told(scene: Scene) -> None:
    assert not scene.prove({"tiny-a": "rate"})
    row = scene.row()
    assert not row["passed"]
    found = row["first_divergence"]
    assert (found["step"], found["stage"], found["layer"]) == (1, "weights", "dense")
    assert 0 < found["difference"] < 1e-5
    assert row["loss_max_rel"] > 0
    assert found["words"] in scene.printed.getvalue()
    assert "DIFFERS" in scene.printed.getvalue()


def test_evaluation_mode_is_compared_before_training(scene: Scene) -> None:
    assert not scene.prove({"tiny-a": "evaluation"})
    row = scene.row()
    assert row["forward_max_abs"] == pytest.approx(1e-6)
    assert (row["first_divergence"]["step"], row["first_divergence"]["stage"]) == (1, "logits")
    assert row["loss_max_rel"] == 0


def test_a_worker_that_fails_is_a_row_and_the_rest_goes_on(processes: Scene) -> None:
    faults = {"tiny-a": "killed", "tiny-b": "raises"}
    assert not processes.prove(faults, frameworks=("tiny-a", "tiny-b", "tiny-c"))
    *lost, well = processes.document()["rows"]
    reasons = ("tiny-a: the process was killed by SIGKILL", "tiny-b: RuntimeError('a layer has no")
    for row, framework, reason in zip(lost, faults, reasons, strict=True):
        assert (row["framework"], row["passed"]) == (framework, False)
        assert row["reason"].startswith(reason)
        assert {row[name] for name in MEASURES} == {None}
        assert row["reason"] in processes.printed.getvalue()
    assert (well["framework"], well["passed"]) == ("tiny-c", True)


def test_without_the_reference_nothing_passes(scene: Scene) -> None:
    assert not scene.prove({"torch": "raises"})
    assert scene.row()["reason"].startswith("torch: RuntimeError")
    assert not (scene.out / "parity_steps.csv").exists()


def test_rows_accumulate_and_are_replaced(scene: Scene) -> None:
    assert scene.prove(models=("unet",))
    assert not scene.prove({"tiny-b": "rate"}, frameworks=("tiny-a", "tiny-b"))
    assert scene.prove(frameworks=("tiny-b",))
    rows = scene.document()["rows"]
    assert [(row["model"], row["framework"]) for row in rows] == [
        ("cnn", "tiny-a"), ("cnn", "tiny-b"), ("unet", "tiny-a")
    ]  # fmt: skip
    assert all(row["passed"] for row in rows)
    steps = pd.read_csv(scene.out / "parity_steps.csv")
    assert len(steps) == 3 * STEPS
    assert (steps["loss_rel"] == 0).all()


def test_float32_is_judged_by_the_references_own_drift(scene: Scene) -> None:
    assert not scene.prove({"tiny-a": "fast"}, precision="float32")
    row = scene.row()
    floor = {"loss_max_rel": 0.0, "logits_max_abs": 0.0}
    assert row["floor"] == {**floor, "of": "torch with 2 and 3 threads, and in float64, against itself"}
    assert (row["first_divergence"]["step"], row["first_divergence"]["stage"]) == (2, "loss")
    titles = set(pd.read_csv(scene.out / "parity_steps.csv")["framework"])
    assert titles == {"tiny-a", "torch, 2 threads", "torch, 3 threads", "torch, float64"}
    # A reference that leaves itself as far lets the other leave it
    assert scene.prove({"tiny-a": "fast", "threads": "fast"}, precision="float32")
    row = scene.row()
    assert row["floor"]["loss_max_rel"] == row["loss_max_rel"] > 1e-4
    assert "2 and 3 threads, and in float64, against itself" in scene.printed.getvalue()
    assert not scene.prove({"threads": "raises"}, precision="float32")
    assert scene.row()["reason"].startswith("torch, 2 threads: RuntimeError")


def test_another_programs_file_is_left_alone(scene: Scene) -> None:
    write_json(scene.out / "parity.json", {"format": 9})
    with pytest.raises(StudyError, match="format 9"):
        scene.prove()
    assert scene.document() == {"format": 9}


def test_a_task_that_the_data_cannot_serve_is_left_out(scene: Scene) -> None:
    """Two classes of pictures without masks: no segmentation."""
    data = (str(write_pictures(scene.out.parent / "plain")),)
    assert scene.prove(models=("cnn", "unet"), data=data)
    assert scene.row()["model"] == "cnn"
    with pytest.raises(StudyError, match="segmentation"):
        scene.prove(models=("cnn", "unet"), data=data, every_model=False)


# --- what is trained ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["quick", "standard"])
@pytest.mark.parametrize("model", config.MODELS)
def test_everything_that_has_to_be_proved_is_switched_on(model: str, profile: str) -> None:
    spec, recipe = training_of(model, profile)
    assert spec.image_size == config.PARITY_IMAGE_SIZE
    assert recipe.gradient_clip_norm > 0
    assert (recipe.head_epochs > 0) == (recipe.backbone_rate_fraction < 1) == (model in config.BACKBONES)
    assert getattr(spec, "dropout", 0) > 0 if model == "cnn" else True
    assert getattr(spec, "stochastic_depth", 0) > 0 if model == "convnext_tiny" else True
    published = to_json(config.MODELS[model])
    if profile == "standard":
        changed = {name for name, value in to_json(spec).items() if published[name] != value}
        assert changed <= {"image_size", "outputs"}


# --- mutations ------------------------------------------------------------------------------------------------------


def test_each_default_is_left_to_a_side_that_it_changes(scene: Scene) -> None:
    asked = scene.asked(models=("cnn", "unet"))
    record = prepare(asked, scene.out, scene.console())
    where = where_planted(record, "binary/cnn", "keras-tensorflow")
    assert {name for name, framework in where.items() if framework == "torch"} == {"flatten"}
    assert where["dropout"] == "keras-tensorflow"
    assert "norm_epsilon" not in where
    assert (
        where_planted(record, "segmentation/unet", "keras-tensorflow")["norm_epsilon"] == "keras-tensorflow"
    )


def test_defaults_that_a_framework_ignores_are_not_found(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny framework takes its order from the stream, and knows nothing of AdamW."""
    kept = {name: config.DEFAULTS[name] for name in ("loop", "order", "adam_epsilon")}
    for name in config.DEFAULTS.keys() - kept:
        monkeypatch.delitem(config.DEFAULTS, name)
    assert not scene.plant()
    found = {row["name"]: row for row in scene.document()["mutations"]}
    assert list(found) == ["loop", "order", "adam_epsilon"]
    assert (found["order"]["step"], found["order"]["stage"], found["order"]["tensor"]) == (1, "batch", "rows")
    assert found["order"]["caught"]
    assert found["order"]["title"] == config.DEFAULTS["order"].title
    assert not found["adam_epsilon"]["caught"]
    assert not found["adam_epsilon"]["harmless"]
    assert found["loop"]["harmless"]
    assert found["loop"]["words"] == "nothing changes: the losses differ by 0e+00 of their size"
    assert "(NOT FOUND)" in scene.printed.getvalue()
    monkeypatch.delitem(config.DEFAULTS, "adam_epsilon")
    assert scene.plant()
    assert not scene.plant({"tiny-a": "rate"})
    assert "cnn, nothing planted: step 1" in scene.printed.getvalue()
    assert [row["name"] for row in scene.document()["mutations"]] == ["loop", "order", "adam_epsilon"]


def test_a_crash_is_no_catch(scene: Scene) -> None:
    assert not scene.plant({"tiny-a": "raises"})
    assert scene.document()["mutations"] == []
    assert "cnn tiny-a: RuntimeError" in scene.printed.getvalue()


def test_a_difference_beyond_all_numbers_is_written() -> None:
    row = mutation_row("cnn", "order", "tiny-a", [Finding(1, "outputs", "dense", float("inf"))])
    assert row["caught"]
    assert row["difference"] is None
    json.dumps(row, allow_nan=False)


def test_writing_nothing_keeps_all(tmp_path: Path) -> None:
    write_parity(tmp_path, "drawn", {"torch": {}})
    before = read_parity(tmp_path)
    write_parity(tmp_path, "drawn", {})
    assert read_parity(tmp_path) == before
    assert before["rows"] == before["mutations"] == []


def test_the_study_and_the_traces_go_when_it_is_interrupted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    for module in (parity_study, mutations):
        monkeypatch.setattr(module, "trace_sides", interrupted)
    for command in (scene.prove, scene.plant):
        with pytest.raises(KeyboardInterrupt):
            command()
        assert {path.name for path in (scene.out / "parity").iterdir()} == {".lock"}
