"""One stack's command line, in one process with a NumPy framework: what it judges, and what it refuses to judge."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from tiny import TinyFramework, make_study, tiny_world, write_pictures, write_strokes

from common import cli
from common.config import NOTICE, TASKS, Run, Study
from common.holding import hold
from common.results import read_run, read_study, run_directory
from common.run import execute
from common.study import prepare_study
from common.weights import read_checkpoint, save_checkpoint

__all__ = ["tiny_world"]  # a fixture
pytestmark = pytest.mark.usefixtures("tiny_world")

RUN = Run("binary", "cnn", "tiny-a", "aligned", seed=0, fold=1)
MAY_HAVE_SEEN = "so it may have been trained on these patients"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures")


@pytest.fixture
def study(data: Path) -> Study:
    return make_study(data, frameworks=("tiny-a",), seeds=1, folds=3)


@pytest.fixture
def directory(study: Study, tmp_path: Path) -> Path:
    """A study of three folds, of which the second is trained."""
    prepare_study(study, tmp_path / "study")
    execute(TinyFramework(), tmp_path / "study", RUN, 1, lambda event: None)
    return tmp_path / "study"


@pytest.fixture
def checkpoint(directory: Path) -> Path:
    return run_directory(directory, RUN) / "model.safetensors"


def call(*words: object) -> int:
    return cli.main(TinyFramework(), "tiny", [str(word) for word in words])


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one sentence of a command that is refused."""
    assert call(*words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    return line


def change_header(checkpoint: Path, target: Path, **changes: Any) -> Path:
    """A copy of the checkpoint with entries of its header changed, or left out where None."""
    weights, header = read_checkpoint(checkpoint)
    kept = {name: value for name, value in {**header, **changes}.items() if value is not None}
    save_checkpoint(target, weights, kept)
    return target


# --- on a study ---------------------------------------------------------------------------------------------------


def test_the_test_part_of_its_own_fold_is_judged(
    directory: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("evaluate", checkpoint, "--study", directory, "--out", tmp_path / "scores.csv") == 0
    said = capsys.readouterr().out
    assert f"the test part of {directory}, fold 1. " in said
    assert "warning" not in said
    record = read_run(directory, RUN)
    assert record is not None
    test = record.predictions().of("test")
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert scores["id"].tolist() == test.sample_id.tolist()
    np.testing.assert_allclose(scores["y_score"], test.y_score, rtol=0, atol=1e-6)


def test_another_fold_is_refused_unless_it_is_wanted(
    directory: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("evaluate", checkpoint, "--study", directory, "--fold", 0)
    line = refusal(capsys, *asked)
    assert f"was trained on fold 1, and this is fold 0, {MAY_HAVE_SEEN}" in line
    assert "--anyway" in line
    assert call(*asked, "--anyway") == 0
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert warning.endswith(MAY_HAVE_SEEN)


@pytest.mark.parametrize("other", ["split", "data"])
def test_another_study_is_refused_unless_it_is_wanted(
    study: Study, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], other: str
) -> None:
    """The same fold number of another split holds other patients."""
    changed = dataclasses.replace(study, split_seed=1)
    if other == "data":
        changed = dataclasses.replace(study, data=(str(write_pictures(tmp_path / "more", patients=14)),))
    prepare_study(changed, tmp_path / "other")
    asked = ("evaluate", checkpoint, "--study", tmp_path / "other")
    line = refusal(capsys, *asked)
    assert f"was trained on other data or another split than {tmp_path / 'other'} has" in line
    assert call(*asked, "--anyway") == 0
    assert f"{MAY_HAVE_SEEN}\n" in capsys.readouterr().out


def test_an_old_checkpoint_without_digests_is_held_to_its_fold(
    directory: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = change_header(checkpoint, tmp_path / "old.safetensors", samples_sha256=None, split_sha256=None)
    assert call("evaluate", old, "--study", directory) == 0
    assert "warning" not in capsys.readouterr().out
    assert "fold 1, and this is fold 2" in refusal(capsys, "evaluate", old, "--study", directory, "--fold", 2)


def test_a_fold_that_does_not_exist_is_named(
    directory: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, "evaluate", checkpoint, "--study", directory, "--fold", 3)
    assert line.endswith("has no 16 px binary data of fold 3")


# --- on folders ---------------------------------------------------------------------------------------------------


def test_the_pictures_it_was_trained_on_are_told(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("evaluate", checkpoint, "--data", data) == 0
    said = capsys.readouterr().out
    assert "24 slices" in said
    assert "warning: these are the images of the study that trained this model, its training part" in said
    assert call("evaluate", checkpoint, "--data", write_pictures(tmp_path / "others", patients=6)) == 0
    said = capsys.readouterr().out
    assert "12 slices" in said
    assert "warning" not in said


def test_pictures_that_cannot_be_read_are_left_out_and_none_at_all_is_refused(
    data: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = sorted(data.rglob("*.png"))
    pictures[0].write_text("no picture")
    assert call("evaluate", checkpoint, "--data", data) == 0
    said = capsys.readouterr().out
    assert "23 slices" in said
    assert f"left out: Normal/{pictures[0].name} is no " in said
    for path in pictures:
        path.write_text("no picture")
    assert call("evaluate", checkpoint, "--data", data) == 2
    assert "none of the 24 pictures can be read; the first: Normal/0 (0).png is no" in capsys.readouterr().err


# --- other tasks --------------------------------------------------------------------------------------------------


@pytest.fixture
def strokes(tmp_path: Path) -> Path:
    return write_strokes(tmp_path / "strokes")


@pytest.fixture
def trained(strokes: Path, tmp_path: Path) -> Path:
    """A study with a finished run of each task."""
    study = make_study(strokes, frameworks=("tiny-a",), tasks=tuple(TASKS), seeds=1)
    faster = {
        key: dataclasses.replace(recipe, epochs=12, learning_rate=4.0)
        for key, recipe in study.recipes.items()
    }
    prepare_study(dataclasses.replace(study, recipes=faster), tmp_path / "trained")
    for run in study.runs():
        execute(TinyFramework(), tmp_path / "trained", run, 1, lambda event: None)
    return tmp_path / "trained"


def checkpoint_of(trained: Path, task: str) -> Path:
    (path,) = (trained / "runs" / task).rglob("model.safetensors")
    return path


def test_a_classifier_of_three_is_judged_by_class(
    trained: Path, strokes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("evaluate", checkpoint_of(trained, "subtype"))
    assert call(*asked, "--study", trained, "--out", tmp_path / "scores.csv") == 0
    said = capsys.readouterr().out
    assert all(name in said for name in (*TASKS["subtype"].classes, "macro", NOTICE))
    (record,) = (one for one in read_study(trained).complete if one.run.task == "subtype")
    test = record.predictions().of("test")
    rows = pd.read_csv(tmp_path / "scores.csv")
    assert rows["id"].tolist() == test.sample_id.tolist()
    scores = rows[[f"y_score_{name}" for name in TASKS["subtype"].classes]]
    np.testing.assert_allclose(scores, test.y_score, rtol=0, atol=1e-6)
    assert call(*asked, "--data", strokes) == 0
    assert "30 slices" in capsys.readouterr().out


def test_a_segmenter_is_judged_by_slice(
    trained: Path, strokes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("evaluate", checkpoint_of(trained, "segmentation"))
    assert call(*asked, "--study", trained, "--out", tmp_path / "scores.csv") == 0
    assert "Dice" in capsys.readouterr().out
    (record,) = (one for one in read_study(trained).complete if one.run.task == "segmentation")
    test = record.mask_predictions().of("test")
    rows = pd.read_csv(tmp_path / "scores.csv")
    for name in ("tp", "fp", "fn", "tn"):
        assert rows[name].tolist() == getattr(test, name).tolist()
    assert call(*asked, "--data", strokes) == 0
    said = capsys.readouterr().out
    assert "these are the images of the study" in said
    counted = [line for line in said.splitlines() if "Slices with" in line]
    assert [int(line.strip("│ ").split()[-1]) for line in counted] == [20, 10]


def test_data_without_masks_are_refused_by_a_segmenter(
    trained: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, "evaluate", checkpoint_of(trained, "segmentation"), "--data", data)
    assert line.endswith("pictures cannot serve the task 'segmentation': no lesion mask is known")


# --- predict ------------------------------------------------------------------------------------------------------


def read_rows(out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What predictions.jsonl says of itself, and its rows."""
    about, *rows = map(json.loads, (out / "predictions.jsonl").read_text().splitlines())
    return about, rows


def lesion_px(segmenter: Path, picture: str) -> int:
    """Pixels that the tiny segmenter calls lesion in a picture of its own size: each by its own grey level."""
    weights, header = read_checkpoint(segmenter)
    grey = cv2.imread(picture, cv2.IMREAD_GRAYSCALE)
    assert grey is not None
    logits = weights["dense.weight"].item() * (grey / 255 - 0.5) / 0.5 + weights["dense.bias"].item()
    found = int((1 / (1 + np.exp(-logits)) >= header["threshold"]).sum())
    assert 0 < found < grey.size
    return found


def test_both_stages_of_a_study_answer_for_a_folder(
    trained: Path, strokes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, pictures = tmp_path / "out", tmp_path / "pictures"
    for name, source in (("a", "Normal/PNG/10020"), ("b", "Bleeding/PNG/10000"), ("c", "Ischemia/PNG/10010")):
        pictures.mkdir(exist_ok=True)
        shutil.copy(strokes / f"{source}.png", pictures / f"{name}.png")
    assert call("predict", pictures, "--checkpoints", trained, "--out", out) == 0
    said = capsys.readouterr().out.splitlines()
    gate, segmenter = checkpoint_of(trained, "subtype"), checkpoint_of(trained, "segmentation")
    assert said[:3] == [
        f"subtype: cnn of {gate}, trained on strokes",
        f"segmentation: unet of {segmenter}, trained on strokes",
        NOTICE,
    ]
    assert said[-1] == f"written: {out}"
    about, rows = read_rows(out)
    assert about == {
        "notice": NOTICE,
        "framework": "tiny-a",
        "checkpoints": [str(gate), str(segmenter)],
    }
    assert [row["path"] for row in rows] == [str(pictures / f"{name}.png") for name in "abc"]
    assert [row["label"] for row in rows] == ["normal", "bleeding", "ischemia"]
    assert [row["segmented"] for row in rows] == [False, True, True]
    for row, line in zip(rows, said[3:], strict=False):
        assert line.startswith(f"{row['path']}  {row['label']} {row['probability'][row['label']]:.4f}")
        assert row["error"] == ""
    assert [row["lesion_px"] for row in rows] == [
        None,
        *(lesion_px(segmenter, row["path"]) for row in rows[1:]),
    ]
    assert sorted(path.name for path in (out / "overlays").iterdir()) == ["000001.png", "000002.png"]
    assert len(pd.read_csv(out / "predictions.csv")) == 3


@pytest.mark.parametrize(
    ("tasks", "label", "segmented"),
    [
        (["binary"], "stroke", False),
        (["segmentation"], "", True),
        (["binary", "segmentation"], "stroke", True),
    ],
)
def test_the_stages_are_those_that_are_given(
    trained: Path, strokes: Path, tmp_path: Path, tasks: list[str], label: str, segmented: bool
) -> None:
    options = [word for task in tasks for word in ("--checkpoint", checkpoint_of(trained, task))]
    picture = strokes / "Bleeding" / "PNG" / "10000.png"
    assert call("predict", picture, *options, "--out", tmp_path / "out") == 0
    _, (row,) = read_rows(tmp_path / "out")
    assert (row["label"], row["segmented"]) == (label, segmented)
    assert len(row["probability"]) == (2 if label else 0)


def test_a_picture_that_cannot_be_read_is_answered_with_1(
    trained: Path, strokes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are answered; only the exit code tells a script."""
    sound, broken = strokes / "Bleeding" / "PNG" / "10000.png", tmp_path / "broken.png"
    broken.write_text("no picture")
    asked = ("predict", broken, sound, tmp_path / "missing.png", "--checkpoints", trained)
    assert call(*asked, "--out", tmp_path / "out") == 1
    _, rows = read_rows(tmp_path / "out")
    assert [bool(row["error"]) for row in rows] == [True, False, True]
    assert rows[1]["label"] == "bleeding"
    assert call(*asked) == 1
    assert "is no" in capsys.readouterr().out


def test_predictions_are_refused_in_one_sentence(
    trained: Path, strokes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = strokes / "Bleeding" / "PNG" / "10000.png"
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = {
        "holds no model.safetensors": (picture, "--checkpoints", empty),
        "does not exist; give a model.safetensors": (picture, "--checkpoints", tmp_path / "no"),
        "holds no picture": (empty, "--checkpoints", trained),
    }
    for said, words in cases.items():
        assert said in refusal(capsys, "predict", *words)
    assert call("predict", picture, "--checkpoints", trained, "--out", strokes) == 2
    assert "is not an empty folder; name a new one, nothing is overwritten" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        call("predict", picture)
    assert "--checkpoint" in capsys.readouterr().err


# --- what is given ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": "age"}, "holds the model or task 'age'; this version knows cnn"),
        ({"task": None}, "does not describe a model of this project (KeyError('task')"),
        ({"spec": None}, "does not describe a model of this project (KeyError('spec')"),
        ({"spec": {"features": [1], "depth": 3}}, "does not describe a model of this project"),
        ({"spec": {"name": "cnn", "depth": 3}}, "does not describe a model of this project"),
        (
            {"spec": {"name": "resnet", "features": [1]}},
            "holds the model or task 'resnet'; this version knows",
        ),
        ({"threshold": None}, "has no threshold; give a model.safetensors of a finished run"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(
    checkpoint: Path, data: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], said: str
) -> None:
    other = change_header(checkpoint, checkpoint.with_name("other.safetensors"), **changes)
    assert said in refusal(capsys, "evaluate", other, "--data", data)


@pytest.mark.parametrize("option", [("--threads", "0"), ("--threads", "two"), ("--fold", "-1")])
def test_numbers_out_of_range_are_refused(
    capsys: pytest.CaptureFixture[str], option: tuple[str, str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        call("evaluate", "model.safetensors", "--data", "folder", *option)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"argument {option[0]}: must be a whole number of at least" in line


def test_one_run_waits_for_no_one(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """While another command works in the study's folder, `run` is refused as well."""
    other = dataclasses.replace(RUN, fold=0)
    with hold(directory):
        line = refusal(capsys, "run", directory, other.path)
    assert "another command is working in" in line
    assert not run_directory(directory, other).exists()
