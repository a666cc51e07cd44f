"""The run directory: whole or absent, and read back without trust."""

import dataclasses
import json
import os
import stat
import threading
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pytest
from study_fixture import make_study

from common import config
from common.attempts import claim
from common.config import Run
from common.errors import StudyError
from common.random_numbers import generator
from common.results import (
    FORMAT,
    MaskPredictions,
    Predictions,
    defused,
    discard_damaged,
    pack_masks,
    read_json,
    read_mask_predictions,
    read_predictions,
    read_run,
    read_study,
    run_directory,
    unpack_masks,
    write_atomically,
    write_csv,
    write_json,
    write_predictions,
    write_text,
)

RUN = Run("binary", "cnn", "torch", "aligned", seed=1, fold=0)
PREDICTIONS = Predictions(
    sample_id=np.array(["a", "b", "Stroke/58 (1)"]),
    patient=np.array(["p", "p", "q"]),
    split=np.array(["val", "test", "test"]),
    y_true=np.array([0, 1, 1]),
    y_score=np.array([0.1, 0.9, 1 / 3]),
)
MASKS = np.zeros((3, 5, 5), dtype=bool)  # 25 pixels: the last byte of a row is not full
MASKS[1, 0, :3] = MASKS[2, 4, 4] = True


def mask_predictions() -> MaskPredictions:
    numbers = {name: np.arange(3) + k for k, name in enumerate(("tp", "fp", "fn"))}
    numbers["tn"] = 25 - sum(numbers.values())
    lesions = {name: np.array([0, 1, 2]) for name in ("lesion_tp", "lesion_fp", "lesion_fn")}
    reals = {name: np.array([np.nan, 0.1, 1 / 3]) for name in ("hd95_px", "surface_dice", "y_score")}
    who = {name: getattr(PREDICTIONS, name) for name in ("sample_id", "patient", "split")}
    packed = {"y_true": pack_masks(MASKS), "y_pred": pack_masks(~MASKS)}
    size, pixel_mm = np.full(3, 5), np.array([np.nan, 0.5, 0.4])
    return MaskPredictions(**who, **numbers, **lesions, **reals, **packed, size=size, pixel_mm=pixel_mm)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- writing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: BaseException
) -> None:
    def write(stream: BinaryIO) -> None:
        stream.write(b"half of it")
        raise error

    path = tmp_path / "run.json"
    with pytest.raises(type(error)):
        write_atomically(path, write)
    assert names(tmp_path) == []
    write_text(path, "old")
    with pytest.raises(type(error)):
        write_atomically(path, write)
    assert names(tmp_path) == ["run.json"]
    assert path.read_text() == "old"


def test_the_name_appears_only_when_the_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run.json"

    def write(stream: BinaryIO) -> None:
        stream.write(b"new")
        assert not path.exists()

    write_atomically(path, write)
    assert path.read_bytes() == b"new"


def test_files_are_readable_for_all_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_text(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_json_refuses_what_is_no_json(tmp_path: Path) -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="Out of range float"):
            write_json(tmp_path / "a.json", {"loss": value})
    assert names(tmp_path) == []
    document = {"b": 0.1, "a": ["ü", None, True], "nested": {"z": 1, "y": 2}}
    write_json(tmp_path / "a.json", document)
    assert read_json(tmp_path / "a.json") == document
    assert list(read_json(tmp_path / "a.json")) == list(document)  # the order given is kept


def test_csv_keeps_every_digit(tmp_path: Path) -> None:
    table = pd.DataFrame({"loss": [0.1 + 0.2, 1e-300, 123456789.123456789], "id": ["a,b", 'c"d', ""]})
    write_csv(tmp_path / "t.csv", table)
    read = pd.read_csv(tmp_path / "t.csv", keep_default_na=False, dtype=str)
    assert [float(text) for text in read["loss"]] == table["loss"].tolist()
    assert read["id"].tolist() == table["id"].tolist()
    assert b"\r" not in (tmp_path / "t.csv").read_bytes()


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@A1", "\t=1", "\r=1"])
def test_no_spreadsheet_runs_what_we_write(text: str) -> None:
    assert defused(text) == f"'{text}"


@pytest.mark.parametrize("value", ["a=1", "", "Stroke/58 (1)", -1, -0.5, None])
def test_what_is_no_formula_stays(value: object) -> None:
    assert defused(value) is value


# --- predictions --------------------------------------------------------------------------------------------------


def test_predictions_come_back_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    write_predictions(path, PREDICTIONS)
    read = read_predictions(path)
    for field in dataclasses.fields(Predictions):
        np.testing.assert_array_equal(getattr(read, field.name), getattr(PREDICTIONS, field.name))
    test = read.of("test")
    np.testing.assert_array_equal(test.sample_id, ["b", "Stroke/58 (1)"])
    np.testing.assert_array_equal(test.y_score, [0.9, 1 / 3])
    assert len(read.of("train").y_true) == 0


def test_masks_come_back_bit_for_bit(tmp_path: Path) -> None:
    path, written = tmp_path / "predictions.npz", mask_predictions()
    write_predictions(path, written)
    read = read_mask_predictions(path)
    for field in dataclasses.fields(MaskPredictions):
        np.testing.assert_array_equal(getattr(read, field.name), getattr(written, field.name))
    assert read.y_true.shape == (3, 4)
    np.testing.assert_array_equal(unpack_masks(read.y_true, 5), MASKS)
    test = read.of("test")
    assert test.sample_id.tolist() == ["b", "Stroke/58 (1)"]
    np.testing.assert_array_equal(unpack_masks(test.y_pred, 5), ~MASKS[1:])
    np.testing.assert_array_equal(test.lesion_fn, [1, 2])


def test_predictions_of_the_other_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    write_predictions(path, PREDICTIONS)
    with pytest.raises(StudyError, match="is no predictions file"):
        read_mask_predictions(path)
    write_predictions(path, dataclasses.replace(mask_predictions(), tp=np.arange(2)))
    with pytest.raises(StudyError, match="different lengths"):
        read_mask_predictions(path)


@pytest.mark.parametrize("size", [1, 3, 8, 17])
def test_packed_masks_are_unpacked(size: int) -> None:
    masks = generator("masks", size).random((4, size, size)) < 0.5
    packed = pack_masks(masks)
    assert packed.shape == (4, -(-(size**2) // 8))
    np.testing.assert_array_equal(unpack_masks(packed, size), masks)


def test_predictions_of_different_lengths_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    write_predictions(path, dataclasses.replace(PREDICTIONS, y_score=np.array([0.1, 0.9])))
    with pytest.raises(StudyError, match=r"predictions\.npz holds arrays of different lengths"):
        read_predictions(path)
    write_predictions(path, dataclasses.replace(PREDICTIONS, y_true=np.array(1)))
    with pytest.raises(StudyError, match="different lengths"):
        read_predictions(path)


class Trap:
    """Pickled into an array, it would create a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_predictions_of_a_large_study_may_be_read() -> None:
    """100,000 slices with masks of 256 px and ids of 60 letters."""
    one = mask_predictions()
    wide = {"sample_id": 4 * 60, "patient": 4 * 60, "y_true": 256 * 256 // 8, "y_pred": 256 * 256 // 8}
    row = sum(
        wide.get(name, getattr(one, name).dtype.itemsize) for name in MaskPredictions.__dataclass_fields__
    )
    assert 100_000 * row < config.MAX_PREDICTIONS_BYTES


def test_honest_names_are_printable(tmp_path: Path) -> None:
    """Spaces that do not break, and those of Japanese; but nothing that steers a terminal."""
    path = tmp_path / "predictions.npz"
    for name, sound in (("a\u00a0b", True), ("図\u3000一", True), ("a\u202eb", False)):
        write_predictions(path, dataclasses.replace(PREDICTIONS, sample_id=np.array([name] * 3)))
        if sound:
            assert read_predictions(path).sample_id[0] == name
        else:
            with pytest.raises(StudyError, match="unprintable characters in sample_id"):
                read_predictions(path)


def test_pickles_are_refused_unopened(tmp_path: Path) -> None:
    path, sprung = tmp_path / "predictions.npz", tmp_path / "sprung"
    trapped = np.array([Trap(sprung)] * 3, dtype=object)
    write_predictions(path, dataclasses.replace(PREDICTIONS, patient=trapped))
    with pytest.raises(StudyError, match="is no predictions file"):
        read_predictions(path)
    path.write_bytes(trapped.dumps())
    with pytest.raises(StudyError, match="is no predictions file"):
        read_predictions(path)
    assert not sprung.exists()


@pytest.mark.parametrize("damage", ["absent", "empty", "text", "cut", "flipped", "array", "incomplete"])
def test_damaged_predictions_are_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "predictions.npz"
    long = {name: np.repeat(getattr(PREDICTIONS, name), 500) for name in Predictions.__dataclass_fields__}
    write_predictions(path, Predictions(**long))
    blob = path.read_bytes()
    if damage == "absent":
        path.unlink()
    elif damage == "array":
        with path.open("wb") as stream:
            np.save(stream, np.arange(3))
    elif damage == "incomplete":
        np.savez(path, sample_id=PREDICTIONS.sample_id)
    else:
        middle = bytes(byte ^ 255 for byte in blob[60:90])
        contents = {"empty": b"", "text": b"no archive", "cut": blob[: len(blob) // 2]}
        path.write_bytes(contents.get(damage, blob[:60] + middle + blob[90:]))
    with pytest.raises(
        StudyError, match=r"predictions\.npz is no predictions file .*; delete its run folder"
    ):
        read_predictions(path)


# --- runs and studies ---------------------------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make_study(tmp_path / "study", seeds=2, failed=[("torch", 1, 0)])


def test_a_run_is_found_under_its_key(directory: Path) -> None:
    run = Run("binary", "cnn", "torch", "aligned", seed=0, fold=0)
    record = read_run(directory, run)
    assert record is not None
    assert record.complete
    assert record.directory == directory / "runs/binary/cnn/torch/aligned/seed0-fold0"
    assert len(record.predictions().y_true) > 0
    assert record.history()["epoch"].tolist() == [1, 2, 3, 4, 5, 6]


def test_a_run_without_run_json_never_happened(directory: Path) -> None:
    run = Run("binary", "cnn", "torch", "aligned", seed=0, fold=0)
    (run_directory(directory, run) / "run.json").unlink()
    assert (run_directory(directory, run) / "predictions.npz").exists()
    assert read_run(directory, run) is None
    assert run not in [record.run for record in read_study(directory).runs]


def test_a_failed_run_is_read_but_not_complete(directory: Path) -> None:
    record = read_study(directory)
    assert len(record.runs) == 4
    assert len(record.complete) == 3
    failed = read_run(directory, RUN)
    assert failed is not None
    assert not failed.complete
    assert "512 MiB" in failed.document["reason"]


@pytest.mark.parametrize("change", [{"seed": 0}, {"framework": "keras-tensorflow"}, {"fold": 1}])
def test_the_record_of_another_run_counts_as_failed(directory: Path, change: dict[str, object]) -> None:
    path = run_directory(directory, RUN) / "run.json"
    document = read_json(path)
    write_json(path, {**document, "run": {**document["run"], **change}})
    assert_unusable(directory, f"is not the record of this run in format {FORMAT}")


@pytest.mark.parametrize("change", [{"format": 1}, {"status": "started"}, {"status": None}])
def test_a_record_of_another_format_counts_as_failed(directory: Path, change: dict[str, object]) -> None:
    path = run_directory(directory, RUN) / "run.json"
    write_json(path, {**read_json(path), **change})
    assert_unusable(directory, f"is not the record of this run in format {FORMAT}")


@pytest.mark.parametrize("text", ["", '{"format": 1', "[1]", "\xff\xfe"])
def test_a_damaged_record_counts_as_failed_and_can_be_discarded(directory: Path, text: str) -> None:
    folder = run_directory(directory, RUN)
    (folder / "run.json").write_bytes(text.encode("latin-1"))
    assert_unusable(directory, "is damaged")
    discard_damaged(folder)
    discard_damaged(folder)
    assert read_run(directory, RUN) is None


@pytest.mark.parametrize("kind", ["pipe", "huge"])
def test_a_record_that_is_no_file_of_its_size_is_discarded_unread(directory: Path, kind: str) -> None:
    path = run_directory(directory, RUN) / "run.json"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_text("{}" + " " * config.MAX_RECORD_BYTES)
    reading = threading.Thread(target=discard_damaged, args=(path.parent,), daemon=True)
    reading.start()
    reading.join(10)
    assert not reading.is_alive()
    assert read_run(directory, RUN) is None


def test_a_folder_named_as_a_record_is_named(directory: Path) -> None:
    path = run_directory(directory, RUN) / "run.json"
    path.unlink()
    path.mkdir()
    with pytest.raises(StudyError, match=r"run\.json is a folder; delete it"):
        discard_damaged(path.parent)
    with pytest.raises(StudyError, match=r"run\.json is a folder; delete it"):
        claim(path.parent, 1)


def test_only_what_is_damaged_is_discarded(directory: Path) -> None:
    for run in read_study(directory).study.runs():
        discard_damaged(run_directory(directory, run))
    assert len(read_study(directory).runs) == 4


def assert_unusable(directory: Path, fault: str) -> None:
    """The run counts as failed, says why in the study's own terms, and hides none of the others."""
    record = read_study(directory)
    assert len(record.runs) == 4
    assert len(record.complete) == 3
    (found,) = [one for one in record.runs if one.run == RUN]
    assert found.document["status"] == "failed"
    assert found.document["reason"] == f"runs/{RUN.path}/run.json {fault}; delete its folder"


def test_ids_are_words_even_when_they_look_like_numbers_or_gaps(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", seeds=1)
    table = read_study(directory).samples()
    table["id"] = ["NA", "null", "007", "1e5", "", *table["id"][5:]]
    write_csv(directory / "data" / "samples.csv", table)
    assert read_study(directory).samples()["id"].tolist()[:5] == ["NA", "null", "007", "1e5", ""]
    split = read_study(directory).split()
    split["id"] = ["NA", "007", *split["id"][2:]]
    write_csv(directory / "data" / "split.csv", split)
    assert read_study(directory).split()["id"].tolist()[:2] == ["NA", "007"]
    assert read_study(directory).split()["fold"].dtype == np.int64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist; give the folder of a study"),
        ("", "cannot be read as JSON"),
        ('{"study": ', "cannot be read as JSON"),
        ("\xff\xfe", "cannot be read as JSON"),
        ("[1]", "holds list, not an object"),
        ("{}", "does not describe a study"),
        (
            '{"format": 1, "study": {}}',
            "was written in format 1 by an earlier version; this version reads 3: run the study again in anoth",
        ),
        ('{"format": 4, "study": {}}', "was written in format 4 by another version; this version reads 3"),
        ('{"format": "x", "study": {}}', "was written in format x by another version"),
        ('{"study": {"seeds": 2}}', "does not describe a study"),
        ('{"study": {"unknown": 2}}', "does not describe a study"),
        ('{"study": []}', "does not describe a study"),
        (
            '{"study": {"data": [], "tasks": [], "models": [], "frameworks": [], "recipes": []}}',
            "does not describe",
        ),
    ],
)
def test_a_folder_without_a_study_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "study.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(StudyError, match=rf"study\.json.*{message}"):
        read_study(tmp_path)


def test_a_study_comes_back_as_it_was_asked_for(directory: Path) -> None:
    record = read_study(directory)
    written = json.dumps(config.to_json(record.study))
    assert config.study_from_json(json.loads(written)) == record.study
    assert record.study.seeds == 2
    assert record.study.recipes["binary/cnn"] == config.Recipe(epochs=6)
