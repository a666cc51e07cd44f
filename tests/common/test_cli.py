"""One stack's command line, in one process with a NumPy framework: what it judges, and what it refuses to judge."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny import TinyFramework, make_study, tiny_world, write_pictures

from common import cli
from common.config import Run, Study
from common.results import read_run, run_directory
from common.run import execute
from common.study import hold, prepare_study
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


# --- what is given ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": "age"}, "does not describe a model of this project (KeyError('age')"),
        ({"spec": None}, "does not describe a model of this project"),
        ({"spec": {"features": [1], "depth": 3}}, "does not describe a model of this project"),
        ({"spec": {"name": "resnet", "features": [1]}}, "holds the model 'resnet'; this version knows cnn"),
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
