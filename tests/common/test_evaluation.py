"""Judging a checkpoint again, with a NumPy framework: the same numbers as the run's, and no more data than needed."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table
from tiny import (
    SUBTYPE_SPEC,
    TinyFramework,
    make_mask,
    make_study,
    tiny_world,
    write_pictures,
    write_strokes,
)

from common.config import TASKS, Run
from common.errors import StudyError
from common.evaluation import all_of, evaluate_part, held_out_part
from common.inference import TrainedModel, load_model
from common.metrics import classification, segmentation
from common.results import RunRecord, read_run, read_study, run_directory, unpack_masks
from common.run import execute
from common.study import prepare_study

__all__ = ["tiny_world"]  # a fixture
pytestmark = pytest.mark.usefixtures("tiny_world")

MODEL = {"binary": "cnn", "subtype": "cnn", "segmentation": "unet"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_strokes(tmp_path / "strokes")


@pytest.fixture
def directory(data: Path, tmp_path: Path) -> Path:
    prepare_study(make_study(data, frameworks=("tiny-a",), tasks=tuple(TASKS)), tmp_path / "study")
    return tmp_path / "study"


def train(directory: Path, task: str) -> tuple[RunRecord, TrainedModel, Path]:
    """A finished run of the study, its model as loaded from the checkpoint, and the checkpoint."""
    run = Run(task, MODEL[task], "tiny-a", "aligned", 0, 0)
    execute(TinyFramework(), directory, run, 1, lambda event: None)
    record = read_run(directory, run)
    assert record is not None
    path = run_directory(directory, run) / "model.safetensors"
    return record, load_model(TinyFramework(), path), path


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def cells(table: Table) -> dict[str, list[str]]:
    """The first cell of each row -> the others."""
    columns = [list(column.cells) for column in table.columns]
    return {str(row[0]): [str(cell) for cell in row[1:]] for row in zip(*columns, strict=True)}


def strangers(trained: TrainedModel, folder: Path, tmp_path: Path) -> tuple[list[str], str]:
    """The ids of what is judged in a folder, and the warning."""
    part, words, warning = all_of([str(folder)], trained, tmp_path / "scratch", console())
    assert words == f"all of {folder}"
    assert part.task == trained.task
    return list(part.ids), warning


# --- the scores ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["binary", "subtype"])
def test_a_classifier_is_given_the_scores_of_its_run(directory: Path, task: str) -> None:
    record, trained, path = train(directory, task)
    part, words, warning = held_out_part(directory, None, trained, path, anyway=False)
    rows, table = evaluate_part(TinyFramework(), trained, part, "title")
    test = record.predictions().of("test")
    assert (words, warning) == (f"the test part of {directory}, fold 0", "")
    assert rows["id"].tolist() == test.sample_id.tolist()
    assert rows["patient"].tolist() == test.patient.tolist()
    assert rows["y_true"].tolist() == test.y_true.tolist()
    names = ["y_score"] if task == "binary" else [f"y_score_{name}" for name in TASKS[task].classes]
    assert list(rows.columns) == ["id", "patient", "y_true", *names]
    found = rows[names].to_numpy().reshape(test.y_score.shape)
    np.testing.assert_allclose(found, test.y_score, rtol=0, atol=1e-6)

    shown = cells(table)
    if task == "subtype":
        assert [str(column.header) for column in table.columns] == ["", *TASKS[task].classes, "macro"]
        expected = classification.classification_scores(test.y_true, found)
        each = classification.per_class_scores(test.y_true, found)
        for name, words in classification.TITLE.items():
            *per_class, macro = shown[words]
            assert macro == f"{expected[name]:.4f}"
            assert per_class == ([f"{cell:.4f}" for cell in each[name]] if name in each else [""] * 3)
        return
    patients = classification.patient_table(test.patient, test.y_true, found)
    threshold = record.document["threshold"]["value"]
    levels = [(test.y_true, found), (patients.y_true, patients.y_score)]
    both = [classification.classification_scores(*level, threshold) for level in levels]
    for name, words in classification.TITLE.items():
        assert shown[words] == [f"{scores[name]:.4f}" for scores in both]


def test_the_threshold_is_the_checkpoints(directory: Path) -> None:
    _, trained, path = train(directory, "binary")
    part, *_ = held_out_part(directory, None, trained, path, anyway=False)
    never = dataclasses.replace(trained, threshold=1.1)
    title = classification.TITLE["recall_score"]
    _, table = evaluate_part(TinyFramework(), never, part, "")
    assert cells(table)[title] == ["0.0000", "0.0000"]
    _, table = evaluate_part(TinyFramework(), dataclasses.replace(trained, threshold=0.0), part, "")
    assert cells(table)[title] == ["1.0000", "1.0000"]


def test_a_segmenter_is_given_the_counts_of_its_run(directory: Path) -> None:
    record, trained, path = train(directory, "segmentation")
    part, *_ = held_out_part(directory, None, trained, path, anyway=False)
    rows, table = evaluate_part(TinyFramework(), trained, part, "title")
    test = record.mask_predictions().of("test")
    assert rows["id"].tolist() == test.sample_id.tolist()
    for name in ("tp", "fp", "fn", "tn"):
        assert rows[name].tolist() == getattr(test, name).tolist()
    y_true, y_pred = unpack_masks(test.y_true, 16), unpack_masks(test.y_pred, 16)
    with_lesion = y_true.any(axis=(1, 2))
    dice = [segmentation.dice_score(*pair) for pair in zip(y_true, y_pred, strict=True)]
    dice = np.where(with_lesion, dice, np.nan)  # a clean slice has no overlap to judge
    np.testing.assert_allclose(rows["dice_score"], dice)
    lesions = int(with_lesion.sum())
    assert 0 < lesions < len(rows)
    shown = cells(table)
    assert shown["Slices with a lesion"] == [str(lesions)]
    assert shown["Slices without"] == [str(len(rows) - lesions)]
    assert shown[segmentation.TITLE["dice_score"]] == [f"{np.nanmean(dice):.4f}"]
    assert shown[segmentation.TITLE["clean_slice_score"]] == [
        f"{np.mean(~y_pred[~with_lesion].any(axis=(1, 2))):.4f}"
    ]
    assert shown.keys() >= set(segmentation.TITLE.values())


# --- on a study ---------------------------------------------------------------------------------------------------


def test_the_rows_of_another_task_are_not_judged(data: Path, tmp_path: Path) -> None:
    """A slice whose mask is unknown is in the split of the classifiers alone."""
    prepared = tmp_path / "prepared"
    study = make_study(data, frameworks=("tiny-a",), tasks=("binary", "segmentation"))
    split = prepare_study(study, prepared).split()
    test = split.loc[(split["split"] == "test") & (split["task"] == "binary"), "id"]
    name = next(name for name in test if name.startswith("Ischemia"))
    (data / "Ischemia" / "MASKS" / f"{name.split('/')[1]}.png").write_text("no mask")
    directory = tmp_path / "study"
    prepare_study(study, directory)
    judged = {}
    for task in ("binary", "segmentation"):
        _, trained, path = train(directory, task)
        part, *_ = held_out_part(directory, None, trained, path, anyway=False)
        judged[task] = set(part.ids)
    assert judged["binary"] == set(test)
    assert judged["binary"] - judged["segmentation"] == {name}


def test_a_study_without_the_task_is_named(directory: Path, data: Path, tmp_path: Path) -> None:
    _, trained, path = train(directory, "subtype")
    prepare_study(make_study(data), tmp_path / "two")
    with pytest.raises(StudyError, match="two has no 16 px subtype data of fold 0"):
        held_out_part(tmp_path / "two", None, trained, path, anyway=True)
    large = dataclasses.replace(trained, spec=dataclasses.replace(SUBTYPE_SPEC, image_size=32))
    with pytest.raises(StudyError, match="study has no 32 px subtype data of fold 0"):
        held_out_part(directory, None, large, path, anyway=True)


# --- on folders ---------------------------------------------------------------------------------------------------


def test_every_image_that_the_task_can_use_is_judged(directory: Path, data: Path, tmp_path: Path) -> None:
    (data / "Bleeding" / "MASKS" / "10001.png").unlink()
    ids = set(read_study(directory).samples()["id"])
    found = {}
    for task in TASKS:
        found[task], _ = strangers(train(directory, task)[1], data, tmp_path)
    assert set(found["binary"]) == set(found["subtype"]) == ids
    assert set(found["segmentation"]) == ids - {"Bleeding/10001"}


def test_the_masks_of_a_folder_are_judged(directory: Path, data: Path, tmp_path: Path) -> None:
    _, trained, _ = train(directory, "segmentation")
    part, *_ = all_of([str(data)], trained, tmp_path / "scratch", console())
    rows, _ = evaluate_part(TinyFramework(), trained, part, "")
    area = {label: int(make_mask(label).sum()) for label in ("bleeding", "ischemia", "normal")}
    expected = [area[name.split("/")[0].lower()] for name in rows["id"]]
    assert (rows["tp"] + rows["fn"]).tolist() == expected
    assert set(part.task.classes) == {"background", "lesion"}
    assert len(rows) == 30


@pytest.mark.parametrize("task", TASKS)
def test_the_pictures_of_the_study_are_known_again(
    directory: Path, data: Path, tmp_path: Path, task: str
) -> None:
    _, trained, _ = train(directory, task)
    _, warning = strangers(trained, data, tmp_path)
    assert warning.startswith("these are the images of the study that trained this model")
    others = write_strokes(tmp_path / "others", patients=18)
    assert strangers(trained, others, tmp_path)[1] == ""


@pytest.mark.parametrize("task", TASKS)
def test_they_are_known_again_where_a_mask_is_broken(data: Path, tmp_path: Path, task: str) -> None:
    (data / "Bleeding" / "MASKS" / "10001.png").write_text("no mask")
    (data / "Normal" / "PNG" / "10020.png").write_text("no picture")
    study = make_study(data, frameworks=("tiny-a",), tasks=tuple(TASKS))
    prepare_study(study, tmp_path / "study")
    _, trained, _ = train(tmp_path / "study", task)
    assert strangers(trained, data, tmp_path)[1] != ""


def test_few_patients_are_enough_to_be_judged_by(directory: Path, tmp_path: Path) -> None:
    """Nothing is trained on them."""
    few = write_strokes(tmp_path / "few", patients=3)
    for task in TASKS:
        ids, _ = strangers(train(directory, task)[1], few, tmp_path)
        assert len(ids) == 6


@pytest.mark.parametrize(
    ("task", "reason"),
    [("subtype", "no sample is labelled 'bleeding'"), ("segmentation", "no lesion mask is known")],
)
def test_data_that_cannot_serve_the_task_are_refused(
    directory: Path, tmp_path: Path, task: str, reason: str
) -> None:
    _, trained, _ = train(directory, task)
    two = write_pictures(tmp_path / "two")
    with pytest.raises(StudyError, match=rf"two cannot serve the task '{task}': {reason}"):
        strangers(trained, two, tmp_path)
    assert len(strangers(train(directory, "binary")[1], two, tmp_path)[0]) == 24


def test_what_is_left_out_is_told(directory: Path, data: Path, tmp_path: Path) -> None:
    (data / "Bleeding" / "MASKS" / "10001.png").write_text("no mask")
    (data / "Normal" / "PNG" / "10020.png").write_text("no picture")
    _, trained, _ = train(directory, "segmentation")
    said = console()
    part, *_ = all_of([str(data)], trained, tmp_path / "scratch", said)
    lines = said.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.split(" is ")[0] for line in lines] == [
        "left out: Normal/10020.png",
        "left out: the lesion mask Bleeding/10001.png",
    ]
    assert len(part) == 28
