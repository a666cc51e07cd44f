"""What fuzzing and the corpus found once, each as the smallest case that shows it."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import corpus
import kinds
import numpy as np
import pandas as pd
import pytest
import records

from common import config, npz
from common.data import headers
from common.data.audit import earlier_audit
from common.data.containers import odd_container
from common.data.dicom import read_dicom_header
from common.data.headers import pixel_mm
from common.data.images import ImageError, picture_shape, read_image, read_painted
from common.data.outlines import find_lesions
from common.errors import StudyError
from common.gaps import GAP_COLUMNS, KEY_COLUMNS, read_gaps
from common.parity_table import STEP_COLUMNS, write_steps
from common.pipeline import list_pictures
from common.report import terminal_summary
from common.report.attachments import attached, table_of
from common.results import read_json, read_predictions, read_study, write_csv, write_json
from common.weights import read_checkpoint


@pytest.mark.parametrize("size", [17, 40])
def test_paint_over_a_whole_picture_has_no_rim(size: int) -> None:
    everywhere = np.ones((size, size), bool)
    found = find_lesions(everywhere, everywhere, np.full((size, size), 100, np.float32), ~everywhere)
    assert found.mask.all()


def test_an_arrays_header_is_no_python_to_be_trusted(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(records.npz({"a": kinds.broken_header(records.of_array([1, 2]))}))
    with pytest.raises(ValueError, match="no sound header"):
        npz.read_arrays(path, {"a": "i"}, 10**6)


def test_arrays_come_as_they_were(tmp_path: Path) -> None:
    written = {
        "a": np.arange(6.0).reshape(2, 3),
        "b": np.asfortranarray(np.eye(3)),
        "c": np.array(["x", "yz"]),
    }
    np.savez_compressed(tmp_path / "x.npz", **written)
    read = npz.read_arrays(tmp_path / "x.npz", {"a": "f", "b": "f", "c": "U"}, 10**6)
    for name, array in written.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].flags.writeable
    with pytest.raises(ValueError, match="holds float64"):
        npz.read_arrays(tmp_path / "x.npz", {"a": "i"}, 10**6)


def test_json_nested_deep_or_of_half_characters_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text in (
        '{"a":' * 100_000,
        '{"a": "\\ud800"}',
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": ' + "9" * 5000 + "}",
    ):
        path.write_text(text)
        with pytest.raises(StudyError, match="cannot be read as JSON"):
            read_json(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StudyError, match="it is no file"):
        read_json(path)


@pytest.mark.parametrize("value", [10**400, "0.9", [1], {}])
def test_a_summary_that_was_edited_is_named(tmp_path: Path, value: Any) -> None:
    directory = records.write_study(tmp_path / "study")
    terminal_summary(directory)
    numbers = read_json(directory / "summary.json")
    numbers["aligned/binary/cnn/torch/auroc_score"]["mean"] = value
    (directory / "summary.json").write_text(json.dumps(numbers))
    with pytest.raises(StudyError, match="is not as it was written"):
        terminal_summary(directory)


@pytest.mark.parametrize("kind", ["pipe", "empty", "words"])
def test_tables_beside_a_study_are_read_without_trust(tmp_path: Path, kind: str) -> None:
    """A pipe would be waited for, for ever; what pandas says of a table comes out as what its reader expects."""
    ladder, steps = tmp_path / "ladder.csv", tmp_path / "parity_steps.csv"
    for path, columns in ((ladder, GAP_COLUMNS), (steps, STEP_COLUMNS)):
        if kind == "pipe":
            os.mkfifo(path)
        else:
            words = ",".join(columns) + "\n" + ",".join("x" for _ in columns) + "\n"
            path.write_text(words if kind == "words" else "")
    fresh = pd.DataFrame({name: [1.0] for name in STEP_COLUMNS})
    for read in (lambda: read_gaps(ladder), lambda: write_steps(tmp_path, [fresh])):
        with pytest.raises(StudyError, match=r"cannot be read as a table|holds what is no number"):
            read()
    table, fault = attached(ladder, lambda path: table_of(path, KEY_COLUMNS, ["gap"]), "make")
    if kind == "words":  # numbers that are none are gaps there
        assert table is not None
        assert table["gap"].isna().all()
    else:
        assert fault.startswith("ladder.csv cannot be used (ladder.csv cannot be read as a table (")


def test_tables_beside_a_study_come_back_as_they_were(tmp_path: Path) -> None:
    numbers = {name: [1 / 3, np.nan] for name in GAP_COLUMNS[len(KEY_COLUMNS) :]}
    words = {name: ["a", ""] for name in KEY_COLUMNS if name != "rung"}
    gaps = pd.DataFrame({**words, "rung": [0, 1], **numbers})[list(GAP_COLUMNS)]
    write_csv(tmp_path / "ladder.csv", gaps)
    pd.testing.assert_frame_equal(read_gaps(tmp_path / "ladder.csv"), gaps)


def test_weights_that_diverged_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(records.checkpoint(np.array([1, np.inf], np.float32).tobytes()))
    with pytest.raises(StudyError, match="NaN or infinity"):
        read_checkpoint(path)
    path.write_bytes(records.checkpoint(np.array([1, 2], np.float32).tobytes()))
    assert read_checkpoint(path)[0]["conv1.weight"].tolist() == [1, 2]


def test_a_sound_file_has_no_odd_container() -> None:
    for name, data in corpus.small_pictures().items():
        odd = odd_container(data)
        assert bool(odd) == (name in ("packed.bmp", "tile.tif")), (name, odd)


def test_a_large_overlay_is_told_where_a_slice_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(corpus.large_png(64, config.MAX_PAINTED_PX + 1))
    assert read_image(path).shape == (64, config.MAX_PAINTED_PX + 1)
    with pytest.raises(ImageError, match="at most 2048 px"):
        read_painted(path)


def test_a_pipe_is_asked_for_no_size(tmp_path: Path) -> None:
    (tmp_path / "slice.dcm").write_bytes(corpus.dicom(corpus.ct()))
    header = read_dicom_header(tmp_path / "slice.dcm")
    os.mkfifo(tmp_path / "pipe.png")
    assert picture_shape(tmp_path / "pipe.png") is None
    assert pixel_mm(tmp_path / "pipe.png", header) == "0.5"


def test_a_dicom_file_is_not_read_as_a_picture_for_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slice.DCM"
    path.write_bytes(corpus.dicom(corpus.ct()))
    monkeypatch.setattr(headers, "picture_shape", lambda path: pytest.fail(f"{path} was read again"))
    assert pixel_mm(path, read_dicom_header(path)) == "0.5"


@pytest.mark.parametrize("sides", [[1e308, 1e308], [1e-9, 1e-9], [-1, -1]])
def test_a_pixel_as_large_as_no_head_is_not_believed(tmp_path: Path, sides: list[float]) -> None:
    path = tmp_path / "slice.dcm"
    path.write_bytes(corpus.dicom(corpus.ct(PixelSpacing=sides)))
    assert read_dicom_header(path).pixel_mm is None


def test_a_broken_link_among_pictures_is_answered(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_pictures([tmp_path])] == ["gone.png"]


def test_findings_that_were_edited_are_found_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    finding = {
        "name": "x",
        "verdict": "pass",
        "sentence": "",
        "remedy": "",
        "evidence": [],
        "evidence_total": 0,
    }
    write_json(path, {"findings": [finding]})
    assert earlier_audit(path) is not None
    write_json(path, {"findings": [finding | {"verdict": "fine"}]})
    assert earlier_audit(path) is None


def test_a_study_names_nothing_outside_of_its_folder(tmp_path: Path) -> None:
    directory = records.write_study(tmp_path / "study")
    (tmp_path / "elsewhere").mkdir()
    (directory / "link").symlink_to(tmp_path / "elsewhere")
    document = read_json(directory / "study.json")
    for name in ("../elsewhere", str(tmp_path / "elsewhere"), "link"):
        write_json(directory / "study.json", document | {"caches": {"64": name}})
        with pytest.raises(StudyError, match="within the study's folder"):
            read_study(directory).cache_directory(64)
    write_json(directory / "study.json", document | {"caches": {"64": "data/cache/x"}})
    assert read_study(directory).cache_directory(64) == directory / "data/cache/x"


def test_a_lane_of_300_letters_is_no_folder(tmp_path: Path) -> None:
    directory = records.write_study(tmp_path / "study")
    document = read_json(directory / "study.json")
    document["study"]["lanes"] = ["x" * 300]
    write_json(directory / "study.json", document)
    with pytest.raises(StudyError, match="which is no name of one"):
        read_study(directory)


def test_a_phase_that_does_not_say_how_long_is_damage(tmp_path: Path) -> None:
    directory = records.write_study(tmp_path / "study")
    path = directory / records.RUN / "run.json"
    write_json(path, read_json(path) | {"phases": [{"trainable": "head"}]})
    (failed,) = [one for one in read_study(directory).runs if not one.complete]
    assert "a phase without epochs" in failed.document["reason"]


def test_numbers_that_are_no_characters_are_no_text(tmp_path: Path) -> None:
    path = records.write_study(tmp_path / "study") / records.RUN / "predictions.npz"
    arrays = records.sound_arrays(path)
    split = np.load(io.BytesIO(arrays["split"]))
    split.view(np.uint32)[:] = 0x110000
    path.write_bytes(records.npz(arrays | {"split": records.of_array(split)}))
    with pytest.raises(StudyError, match="holds what are no characters in split"):
        read_predictions(path)
