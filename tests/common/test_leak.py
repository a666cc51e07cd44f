"""The leak meter: what a training leaves, what the effects mean, that it finds a planted leak, and how it survives."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from leak_fixture import SCORES, documents
from rich.console import Console
from sklearn.metrics import roc_auc_score
from tiny import RECIPE, SPEC, TinyFramework, make_study, tiny_world, write_pictures

import compare
from common import cli, config, engines
from common.config import TASKS, Augmentation, Study
from common.data.leaky_splits import ARMS
from common.errors import StudyError
from common.leak import leak_study, measure_leak
from common.leak_runs import (
    LeakTraining,
    carry_out_training,
    read_training,
    training_directory,
    trainings_of,
)
from common.leak_table import COLUMNS, describe_leak, training_table
from common.random_numbers import generator
from common.results import read_json, read_mask_predictions, read_predictions, read_study, unpack_masks
from common.study import prepare_study

__all__ = ["tiny_world"]  # a fixture

NAMES = tuple(ARMS)


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here computes with a framework: its name is enough."""
    monkeypatch.setitem(engines.PACKAGES, "torch", ("numpy",))


def silent(event: dict[str, Any]) -> None:
    del event


# --- one training -------------------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path: Path, tiny_world: None) -> Study:
    """One seed of the tiny CNN and U-Net on a few pictures with masks."""
    pictures = write_pictures(tmp_path / "pictures", patients=14, slices=4, masks=True)
    return make_study(pictures, frameworks=("torch",), tasks=("binary", "segmentation"), seeds=1)


def trained(study: Study, directory: Path) -> dict[LeakTraining, dict[str, Any]]:
    """Every training of a study, carried out here."""
    record = prepare_study(study, directory)
    found = {}
    for one in trainings_of(study, record.samples()):
        carry_out_training(TinyFramework("torch"), directory, str(one.path), 1, silent)
        document = read_training(directory, one)
        assert document is not None
        found[one] = document
    return found


def test_a_training_differs_from_its_sister_in_nothing_but_who_stands_where(
    study: Study, tmp_path: Path
) -> None:
    found = trained(study, tmp_path / "prepared")
    assert [(one.task, one.arm) for one in found] == [
        *(("binary", name) for name in NAMES),
        *(("segmentation", name) for name in NAMES[:2]),  # a mask cannot be another patient's
    ]
    for task in ("binary", "segmentation"):
        own = {one.arm: document for one, document in found.items() if one.task == task}
        assert len({document["weights"]["initial_sha256"] for document in own.values()}) == 1
        assert len({document["data"]["counts"]["train"]["samples"] for document in own.values()}) == 1
        for name, document in own.items():
            assert (document["test_patients_in_training"] > 0) is ARMS[name].leaky
            assert document["headline"] is False
            assert document["notice"] == config.NOTICE
    assert not (tmp_path / "prepared" / "runs").exists()


def test_scores_are_those_of_the_saved_predictions(study: Study, tmp_path: Path) -> None:
    """Recomputed without the project: AUROC by scikit-learn, Dice from the masks' pixels."""
    for one, document in trained(study, tmp_path / "prepared").items():
        path = training_directory(tmp_path / "prepared", one) / "predictions.npz"
        if one.task == "binary":
            test = read_predictions(path).of("test")
            expected = roc_auc_score(test.y_true, test.y_score)
            samples = read_study(tmp_path / "prepared").samples().set_index("id")
            truth = samples.loc[test.sample_id, "label"].ne("normal").astype(int).tolist()
            assert (test.y_true.tolist() == truth) or ARMS[one.arm].shuffled
        else:
            masks = read_mask_predictions(path).of("test")
            truth, pred = (unpack_masks(packed, 16) for packed in (masks.y_true, masks.y_pred))
            dice = [
                2 * (t & p).sum() / (t.sum() + p.sum()) for t, p in zip(truth, pred, strict=True) if t.any()
            ]
            expected = float(np.mean(dice))
        assert document["score"] == pytest.approx(expected, abs=1e-12)
        assert document["metric"] == TASKS[one.task].primary_metric


def test_a_worker_carries_out_one_training_by_its_path(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_end_with_parent", lambda: None)
    prepare_study(study, tmp_path)
    path = "binary/cnn/torch/slice/seed0"
    assert cli.main(TinyFramework("torch"), "tiny", ["leak", str(tmp_path), path]) == 0
    assert read_training(tmp_path, LeakTraining("binary", "cnn", "torch", 0, "slice")) is not None
    for name, wrong in (("torch", "binary/cnn/torch/slice/seed1"), ("keras-jax", path)):
        assert cli.main(TinyFramework(name), "tiny", ["leak", str(tmp_path), wrong]) == 2
    assert "is no training of" in capsys.readouterr().out


# --- a planted leak -----------------------------------------------------------------------------------------------


def write_faces(folder: Path, patients: int = 48, slices: int = 3) -> Path:
    """Every patient has a pattern of its own in all its slices and a label that has nothing to do with it."""
    for patient in range(patients):
        label = "Stroke" if patient % 2 else "Normal"
        face = np.kron(generator("face", patient).integers(40, 200, (8, 8)), np.ones((4, 4)))
        for number in range(slices):
            noise = generator("noise", patient, number).normal(0, 8, (32, 32))
            path = folder / label / f"{patient} ({number}).png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.clip(face + noise, 0, 255).astype(np.uint8))
    return folder


def test_a_planted_leak_is_found_and_nothing_where_there_is_none(tmp_path: Path, tiny_world: None) -> None:
    """Where a slice tells nothing but whose it is, a split by slice scores high, as high with labels of no meaning; by
    patient both are chance.
    """
    still = Augmentation(0, 0, 0, 0, 0, 0)
    recipe = dataclasses.replace(RECIPE, epochs=12, batch_size=16, learning_rate=2.0, augmentation=still)
    study = make_study(write_faces(tmp_path / "faces"), frameworks=("torch",), seeds=3)
    spec = dataclasses.replace(SPEC, image_size=32)
    study = dataclasses.replace(study, recipes={"binary/cnn": recipe}, specs={"binary/cnn": spec})
    found = trained(study, tmp_path / "prepared")
    document = describe_leak(study, read_study(tmp_path / "prepared").samples(), found, {})
    (one,) = document["measures"]
    means = {arm["arm"]: arm["mean"] for arm in one["arms"]}
    assert min(means["slice"], means["shuffled"]) > 0.8
    assert abs(means["patient"] - 0.5) < 0.25
    assert abs(means["shuffled-patient"] - 0.5) < 0.25
    effects = {effect["effect"]: effect for effect in one["effects"]}
    assert effects["memory"]["ci_low"] > 0.15
    assert effects["inflation"]["difference"] > 0.25
    assert effects["control"]["ci_low"] < 0 < effects["control"]["ci_high"]


# --- effects ------------------------------------------------------------------------------------------------------

T2 = 4.302652729749464  # 97.5 % quantile of Student's t with 2 degrees of freedom, from a table


@pytest.fixture
def described(study: Study, tmp_path: Path) -> Any:
    """`describe_leak` of made-up scores of the tiny study: its only measure."""
    samples = prepare_study(study, tmp_path / "prepared").samples()
    binary = dataclasses.replace(study, tasks=("binary",), seeds=3)

    def measure(scores: dict[str, list[float]], **changes: Any) -> dict[str, Any]:
        (one,) = describe_leak(binary, samples, documents(scores, **changes), {})["measures"]
        return one

    return measure


def test_effects_by_hand(described: Any) -> None:
    one = described(SCORES)
    assert one["test_share"] == pytest.approx(0.3)
    assert (one["labels"], one["equal_training"], one["chance"]) == ("patient", True, 0.5)
    effects = {effect["effect"]: effect for effect in one["effects"]}
    # slice - patient: 0.2, 0.1, 0.3; their variance 0.01; Nadeau & Bengio: (1/3 + 30/70) 0.01
    half = T2 * math.sqrt((1 / 3 + 30 / 70) * 0.01)
    assert effects["inflation"]["difference"] == pytest.approx(0.2)
    assert effects["inflation"]["ci_low"] == pytest.approx(0.2 - half)
    assert effects["inflation"]["ci_high"] == pytest.approx(0.2 + half)
    assert effects["memory"]["difference"] == pytest.approx(0.25)  # shuffled less 0.5
    assert effects["control"]["difference"] == pytest.approx(0, abs=1e-12)
    assert {effect["seeds"] for effect in effects.values()} == {3}


def test_effects_take_the_seeds_that_have_both_sides(described: Any) -> None:
    one = described(SCORES | {"slice": [0.78, math.nan, 0.82], "shuffled": [0.7]})
    effects = {effect["effect"]: effect for effect in one["effects"]}
    assert effects["inflation"]["seeds"] == 2
    assert effects["inflation"]["difference"] == pytest.approx(0.25)  # of seeds 0 and 2
    assert effects["inflation"]["ci_low"] is None  # two seeds have no interval
    assert effects["memory"]["seeds"] == 1
    bare = described({"patient": [0.6]})
    assert bare["effects"] == []
    assert [arm["arm"] for arm in bare["arms"]] == ["patient"]


def test_unequal_training_parts_are_told(described: Any) -> None:
    assert described(SCORES)["equal_training"] is True
    samples = documents(SCORES)
    samples[LeakTraining("binary", "cnn", "torch", 1, "slice")]["data"]["counts"]["train"]["samples"] = 69
    table = training_table(samples)
    assert list(table.columns) == list(COLUMNS)
    assert table.groupby("seed")["train_slices"].nunique().tolist() == [1, 2, 1]
    assert table.set_index("arm")["leaky"].groupby(level=0).first().to_dict() == {
        name: arm.leaky for name, arm in ARMS.items()
    }


def test_models_stand_on_the_task_they_are_used_for() -> None:
    assert leak_study().pairs == [("binary", "cnn")]
    assert leak_study(["cnn", "unet"]).pairs == [("binary", "cnn"), ("segmentation", "unet")]
    assert leak_study(["cnn"], ["binary", "subtype"], epochs=3).pairs == [
        ("binary", "cnn"),
        ("subtype", "cnn"),
    ]
    assert leak_study(["cnn"], ["subtype"], epochs=3).recipes["subtype/cnn"].epochs == 3
    with pytest.raises(StudyError, match="model 'unet' is for the task segmentation; give it with --tasks"):
        leak_study(["unet"], ["binary"])


# --- the driver ---------------------------------------------------------------------------------------------------

# A worker that imports nothing of the project: it copies what it is told in plan.json into its training's folder.
FAKE_WORKER = """
import json, os, signal, sys
from pathlib import Path

word, study, path = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
assert word == "leak"
plan = json.loads((study / "plan.json").read_text())
with open(study / "worked.txt", "a") as log:
    log.write(path + "\\n")
if plan["faults"].get(path) == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if plan["faults"].get(path) == "diverged":
    print(json.dumps({"failed": "the training loss is nan at step 3"}), flush=True)
    sys.exit(2)
own = study / "trainings" / path
own.mkdir(parents=True, exist_ok=True)
(own / "training.json").write_text(json.dumps(plan["documents"][path]))
"""


class Scene:
    """A folder for leak meters that fake workers fill."""

    def __init__(self, study: Study, directory: Path) -> None:
        self.study, self.directory, self.said = study, directory, ""

    def measure(self, faults: dict[str, str] | None = None, **changes: Any) -> dict[LeakTraining, str]:
        plan = {
            str(one.path): document | {"format": 1, "training": config.to_json(one)}
            for one, document in documents(SCORES).items()
        }
        (self.directory / "leak").mkdir(parents=True, exist_ok=True)
        (self.directory / "leak" / "plan.json").write_text(
            json.dumps({"documents": plan, "faults": faults or {}})
        )
        (self.directory / "leak" / "worked.txt").write_text("")
        out = Console(file=io.StringIO(), width=160)
        try:
            return measure_leak(dataclasses.replace(self.study, **changes), self.directory, out)
        finally:
            self.said = out.file.getvalue()  # type: ignore[attr-defined]

    def worked(self) -> list[str]:
        return (self.directory / "leak" / "worked.txt").read_text().splitlines()

    def files(self) -> list[bytes]:
        return [(self.directory / name).read_bytes() for name in ("leak.json", "leak.csv")]


@pytest.fixture
def scene(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "fake_worker.py").write_text(FAKE_WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    monkeypatch.setattr(engines, "module_of", lambda framework: "fake_worker")
    return Scene(dataclasses.replace(study, tasks=("binary",), seeds=2, workers=2), tmp_path / "out")


def test_a_leak_meter_writes_what_was_promised_and_trains_nothing_twice(scene: Scene) -> None:
    assert scene.measure() == {}
    assert sorted(scene.worked()) == sorted(
        f"binary/cnn/torch/{arm}/seed{s}" for arm in NAMES for s in (0, 1)
    )
    document = read_json(scene.directory / "leak.json")
    assert (document["headline"], document["complete"], document["asked"]) == (False, 8, 8)
    assert "No score here is a result" in document["warning"]
    assert (document["data"], document["environment"]) == ("pictures", {"torch": {"framework": "torch 1"}})
    table = pd.read_csv(scene.directory / "leak.csv")
    assert table["arm"].tolist() == [*NAMES] * 2
    assert table["score"].tolist() == [SCORES[arm][seed] for seed in (0, 1) for arm in NAMES]
    assert not (scene.directory / "runs").exists()
    assert "Split by slice (leaky)" in scene.said
    assert config.NOTICE in scene.said
    before = scene.files()
    assert scene.measure() == {}
    assert scene.worked() == []
    assert "8 of 8 trainings are finished already and kept" in scene.said
    assert scene.files() == before
    scene.measure(seeds=3)
    assert sorted(scene.worked()) == sorted(f"binary/cnn/torch/{arm}/seed2" for arm in NAMES)
    (one,) = read_json(scene.directory / "leak.json")["measures"]
    assert one["effects"][0]["seeds"] == 3
    assert one["effects"][0]["ci_low"] is not None


def test_what_dies_or_is_damaged_is_told_and_done_again(scene: Scene) -> None:
    lost = {"binary/cnn/torch/slice/seed0": "killed", "binary/cnn/torch/patient/seed1": "diverged"}
    failed = scene.measure(faults=lost)
    assert {str(one.path): reason.split(";")[0] for one, reason in failed.items()} == {
        "binary/cnn/torch/slice/seed0": "the process was killed by SIGKILL, which is how a system short of memory "
        "ends it",
        "binary/cnn/torch/patient/seed1": "the training loss is nan at step 3",
    }
    document = read_json(scene.directory / "leak.json")
    assert document["complete"] == 6
    assert {row["training"] for row in document["failed"]} == set(lost)
    damaged = scene.directory / "leak" / "trainings" / "binary/cnn/torch/shuffled/seed1/training.json"
    damaged.write_bytes(damaged.read_bytes()[:40])
    assert scene.measure() == {}
    assert sorted(scene.worked()) == sorted([*lost, "binary/cnn/torch/shuffled/seed1"])
    document = read_json(scene.directory / "leak.json")
    assert (document["complete"], document["failed"]) == (8, [])


def test_what_cannot_be_measured_is_refused(scene: Scene, tmp_path: Path) -> None:
    scene.measure()
    other = {"binary/cnn": dataclasses.replace(RECIPE, epochs=3)}
    with pytest.raises(StudyError, match=r"recipes.*--out"):
        scene.measure(recipes=other)
    nameless = tmp_path / "nameless"
    for start, label in enumerate(("Bleeding", "Ischemia", "Normal")):
        for number in range(8):
            path = nameless / label / "PNG" / f"{number + 100 * start}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(
                str(path), generator("nameless", label, number).integers(0, 255, (32, 32)).astype(np.uint8)
            )
    unknown = Scene(scene.study, tmp_path / "unknown")
    with pytest.raises(StudyError, match=r"the patients of 24 images .* are not known .*patients.csv"):
        unknown.measure(data=(str(nameless),))
    assert unknown.worked() == []


def test_beside_a_study_its_data_are_measured_unless_others_are_named(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Study] = []
    reported: list[Path] = []

    def measured(one: Study, directory: Path, console: Console) -> dict[LeakTraining, str]:
        del directory, console
        asked.append(one)
        return {}

    monkeypatch.setattr(compare, "measure_leak", measured)
    monkeypatch.setattr(compare, "report_study", lambda directory, console: reported.append(directory))
    beside = tmp_path / "beside"
    prepare_study(dataclasses.replace(study, accepted=("classes-in-parts",)), beside)
    assert (
        compare.main(["leak", "--out", str(beside), "--seeds", "2", "--epochs", "4", "--workers", "1"]) == 0
    )
    assert (asked[-1].data, asked[-1].accepted) == (study.data, ("classes-in-parts",))
    assert (asked[-1].seeds, asked[-1].workers, asked[-1].recipes["binary/cnn"].epochs) == (2, 1, 4)
    assert compare.main(["leak", "--out", str(beside), "--patients", "30"]) == 0
    assert (asked[-1].data, asked[-1].patients, asked[-1].seeds) == ((), 30, config.LEAK_SEEDS)
    assert reported == [beside, beside]
    assert compare.main(["leak", "--out", str(tmp_path / "alone")]) == 0
    assert (asked[-1].data, asked[-1].frameworks, asked[-1].pairs) == ((), ("torch",), [("binary", "cnn")])
    assert reported == [beside, beside]
