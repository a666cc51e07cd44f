"""Classify, then segment: which slices go on, what is written, and what becomes of files that cannot be read."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
from numpy.typing import NDArray

from common import config
from common.config import CnnSpec, ModelSpec, UnetSpec
from common.errors import StudyError
from common.framework import Batch, Weights
from common.inference import BATCH_SIZE, find_checkpoints
from common.pipeline import (
    Answer,
    Pipeline,
    calls_stroke,
    describe_answer,
    list_pictures,
    load_pipeline,
    run_pipeline,
    write_answers,
)
from common.weights import save_checkpoint

GATE = CnnSpec(image_size=32, channels=1, pixel_mean=(0.0,), pixel_std=(1.0,))
SUBTYPES = CnnSpec(image_size=32, channels=1, pixel_mean=(0.0,), pixel_std=(1.0,), outputs=3)
SEGMENTER = UnetSpec(image_size=32, features=(2, 4), pixel_mean=(0.0,), pixel_std=(1.0,))


class Reader:
    """A framework whose models read the answer off the picture: the brightest pixel is the probability of a stroke
    (beyond 0.9 of an ischemia), and every pixel is its own probability of lesion.
    """

    def __init__(self) -> None:
        self.segmented = 0

    def name(self) -> str:
        return "torch"

    def build(self, spec: ModelSpec) -> ModelSpec:
        return spec

    def write_weights(self, model: ModelSpec, weights: Weights) -> None:
        assert weights["dense.weight"].shape == (2, 3)

    def predict_logits(self, model: ModelSpec, batches: Iterable[Batch]) -> Iterator[NDArray[np.float64]]:
        for batch in batches:
            assert len(batch.images) == BATCH_SIZE  # one shape for every call
            pixels = batch.images[..., :1].astype(np.float64)
            if isinstance(model, UnetSpec):
                self.segmented += int((pixels.max(axis=(1, 2, 3)) > 0).sum())
                yield 20 * (pixels - 0.5)
                continue
            brightest = pixels.max(axis=(1, 2, 3))
            if model.outputs == 1:
                yield 20 * (brightest[:, None] - 0.5)
            else:
                scores = [0.5 - brightest, (brightest < 0.9) * 0.1, (brightest >= 0.9) * 0.1]
                yield 20 * np.stack(scores, axis=1)


def write_checkpoint(path: Path, task: str, spec: ModelSpec, threshold: float | None, **run: object) -> Path:
    key = {"framework": "torch", "seed": 0, "fold": 0, **run}
    header = {
        "task": task,
        "spec": config.to_json(spec),
        "threshold": threshold,
        "run": key,
        "data": ["here"],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, {"dense.weight": np.zeros((2, 3), np.float32)}, header)
    return path


def write_slice(path: Path, brightest: int, shape: tuple[int, int] = (64, 64)) -> Path:
    """Grey 40, with a square of `brightest`, an eighth of each side, a quarter from the top left corner."""
    image = np.full(shape, 40, dtype=np.uint8)
    top, left = shape[0] // 4, shape[1] // 4
    image[top : top + shape[0] // 8, left : left + shape[1] // 8] = brightest
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
    return path


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoints"
    write_checkpoint(folder / "subtype" / "model.safetensors", "subtype", SUBTYPES, None)
    write_checkpoint(folder / "segmentation" / "model.safetensors", "segmentation", SEGMENTER, 0.6)
    return folder


def answers_of(checkpoints: Sequence[Path], pictures: Sequence[Path]) -> tuple[list[Answer], Reader]:
    framework = Reader()
    pipeline, _ = load_pipeline(framework, checkpoints)  # type: ignore[arg-type]
    return list(run_pipeline(framework, pipeline, pictures)), framework  # type: ignore[arg-type]


# --- the two stages -----------------------------------------------------------------------------------------------


def test_only_what_is_called_a_stroke_is_segmented(checkpoints: Path, tmp_path: Path) -> None:
    pictures = [write_slice(tmp_path / f"{value}.png", value) for value in (100, 200, 250)]
    answers, framework = answers_of([checkpoints], pictures)
    assert [one.path for one in answers] == pictures
    assert [one.label for one in answers] == ["normal", "bleeding", "ischemia"]
    assert answers[0].mask is None
    assert framework.segmented == 2
    for one in answers[1:]:
        assert one.mask is not None
        assert one.mask.shape == (64, 64)
        assert one.lesion_px == 8 * 8  # found on a grid of 32, told in pixels of the picture
        assert one.mask[16:24, 16:24].all()
    for one in answers:
        assert sum(one.probabilities.values()) == pytest.approx(1)  # type: ignore[union-attr]


def test_a_binary_gate_decides_at_its_own_threshold(tmp_path: Path) -> None:
    gate = write_checkpoint(tmp_path / "a" / "model.safetensors", "binary", GATE, 0.999)
    segmenter = write_checkpoint(tmp_path / "b" / "model.safetensors", "segmentation", SEGMENTER, 0.5)
    pictures = [write_slice(tmp_path / f"{value}.png", value) for value in (150, 250)]
    answers, _ = answers_of([gate, segmenter], pictures)
    assert [one.label for one in answers] == ["normal", "stroke"]  # 0.85 and 0.9999
    assert [one.mask is None for one in answers] == [True, False]
    stroke = 1 / (1 + np.exp(-20 * (150 / 255 - 0.5)))
    assert answers[0].probabilities == pytest.approx({"normal": 1 - stroke, "stroke": stroke})


def test_either_stage_may_stand_alone(checkpoints: Path, tmp_path: Path) -> None:
    pictures = [write_slice(tmp_path / f"{value}.png", value) for value in (100, 250)]
    classified, _ = answers_of([checkpoints / "subtype"], pictures)
    assert [one.label for one in classified] == ["normal", "ischemia"]
    assert all(one.mask is None for one in classified)
    segmented, framework = answers_of([checkpoints / "segmentation"], pictures)
    assert framework.segmented == 2
    assert [one.lesion_px for one in segmented] == [0, 64]
    assert all(one.probabilities is None and one.label == "" for one in segmented)


def test_a_picture_of_another_shape_gets_its_own_pixels_back(checkpoints: Path, tmp_path: Path) -> None:
    wide = write_slice(tmp_path / "wide.png", 250, shape=(64, 128))
    (answer,), _ = answers_of([checkpoints], [wide])
    assert answer.mask is not None
    rows, columns = np.nonzero(answer.mask)
    assert (rows.min(), rows.max() + 1) == (16, 24)
    assert (columns.min(), columns.max() + 1) == (32, 48)


def test_more_pictures_than_a_batch_with_bad_ones_between(checkpoints: Path, tmp_path: Path) -> None:
    """A bad file is a row with its reason, in its place; the others are answered as if it were not there."""
    pictures = []
    for number in range(BATCH_SIZE + 3):
        path = tmp_path / f"{number:02d}.png"
        if number in (0, 5, BATCH_SIZE):
            path.write_bytes(b"no picture")
        else:
            write_slice(path, 250 if number % 2 else 100)
        pictures.append(path)
    answers, _ = answers_of([checkpoints], pictures)
    assert [one.path for one in answers] == pictures
    for number, one in enumerate(answers):
        if number in (0, 5, BATCH_SIZE):
            assert "is no" in one.fault
            assert one.probabilities is None
        else:
            assert (one.label, one.fault) == ("ischemia" if number % 2 else "normal", "")


def test_the_area_is_in_mm2_where_the_file_says_how_large_a_pixel_is(
    checkpoints: Path, tmp_path: Path
) -> None:
    path = tmp_path / "slice.dcm"
    pixels = np.full((64, 64), 24, dtype=np.int16)  # HU; grey 76 of the brain window
    pixels[16:24, 16:24] = 79  # grey 252
    pixels[0, 0] = -1000
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    dataset.Modality, dataset.PhotometricInterpretation = "CT", "MONOCHROME2"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 64, 64, 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.PixelSpacing = 1, 0, [0.5, 0.5]
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)
    (answer,), _ = answers_of([checkpoints / "segmentation"], [path])
    assert answer.fault == ""
    assert answer.pixel_mm == 0.5
    assert answer.lesion_px == 8 * 8
    assert answer.lesion_mm2 == pytest.approx(64 * 0.5**2)


def test_the_gate_rule() -> None:
    assert calls_stroke(np.array([0.2, 0.5, 0.7]), 0.5).tolist() == [False, True, True]
    scores = np.array([[0.5, 0.25, 0.25], [0.4, 0.5, 0.1], [0.34, 0.33, 0.33]])
    assert calls_stroke(scores, None).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="needs a threshold"):
        calls_stroke(np.array([0.2]), None)


# --- checkpoints and pictures -------------------------------------------------------------------------------------


def test_of_several_checkpoints_the_own_framework_and_the_first_seed_are_taken(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for framework in ("keras-jax", "torch"):
        for seed in (1, 0):
            folder = runs / framework / str(seed)
            key = {"framework": framework, "seed": seed}
            write_checkpoint(folder / "model.safetensors", "binary", GATE, 0.5, **key)
    assert find_checkpoints([tmp_path], "torch")["binary"].path == runs / "torch" / "0" / "model.safetensors"
    other = find_checkpoints([tmp_path], "keras-tensorflow")["binary"].path  # none of its own: any will do
    assert other == runs / "torch" / "0" / "model.safetensors"


def test_the_subtype_classifier_gates_where_there_are_both(checkpoints: Path) -> None:
    write_checkpoint(checkpoints / "binary" / "model.safetensors", "binary", GATE, 0.5)
    pipeline, paths = load_pipeline(Reader(), [checkpoints])  # type: ignore[arg-type]
    assert isinstance(pipeline, Pipeline)
    assert [path.parent.name for path in paths] == ["subtype", "segmentation"]


def test_checkpoints_that_cannot_serve(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="does not exist; give a model"):
        find_checkpoints([tmp_path / "no"], "torch")
    with pytest.raises(StudyError, match=r"holds no model\.safetensors"):
        find_checkpoints([tmp_path], "torch")
    unknown = write_checkpoint(tmp_path / "model.safetensors", "staging", GATE, 0.5)
    with pytest.raises(StudyError, match=r"model or task 'staging'; this version knows cnn"):
        find_checkpoints([unknown], "torch")


def test_folders_are_searched_for_pictures(tmp_path: Path) -> None:
    answers = ("masks/b.png", "a/MASKS/z.png", "a/Overlay/Bleeding/z.png")
    for name in ("b.png", "a/z.jpg", ".hidden.png", "a/.thumbs/x.png", *answers):
        write_slice(tmp_path / name, 100)
    (tmp_path / "notes.txt").write_text("no picture")
    for name in ("IM0001", "IM.0002", "DICOMDIR"):
        (tmp_path / name).write_bytes(bytes(128) + b"DICM")
    named = [path.relative_to(tmp_path).as_posix() for path in list_pictures([tmp_path])]
    assert named == ["IM.0002", "IM0001", "a/z.jpg", "b.png"]  # the index of an export is no slice
    assert list_pictures([tmp_path / "a" / "MASKS"]) == [
        tmp_path / "a" / "MASKS" / "z.png"
    ]  # asked for by name
    missing = tmp_path / "missing.png"
    assert list_pictures([missing, tmp_path / "b.png"]) == [missing, tmp_path / "b.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(StudyError, match="empty holds no picture"):
        list_pictures([tmp_path / "empty"])


# --- what is written ----------------------------------------------------------------------------------------------


def test_answers_are_written_as_they_come(checkpoints: Path, tmp_path: Path) -> None:
    bad = tmp_path / "=bad.png"
    bad.write_bytes(b"")
    pictures = [write_slice(tmp_path / "250.png", 250), bad, write_slice(tmp_path / "100.png", 100)]
    answers, _ = answers_of([checkpoints], pictures)
    out = tmp_path / "out"
    written = write_answers(iter(answers), out, {"framework": "torch"})
    next(written)
    next(written)
    lines = (out / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == 3  # what is answered stays, whatever comes after
    list(written)
    about, *rows = (json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines())
    assert about == {"notice": config.NOTICE, "framework": "torch"}
    assert [row["label"] for row in rows] == ["ischemia", "", "normal"]
    assert rows[0]["lesion_px"] == 64
    assert rows[0]["overlay"] == "overlays/000000.png"
    assert "is empty" in rows[1]["error"]
    assert (rows[2]["segmented"], rows[2]["lesion_px"]) == (False, None)

    table = pd.read_csv(out / "predictions.csv", keep_default_na=False)
    assert list(table["label"]) == ["ischemia", "", "normal"]
    assert {f"probability_{name}" for name in ("normal", "bleeding", "ischemia")} <= set(table.columns)
    picture = cv2.imread(str(out / "overlays" / "000000.png"))
    drawn = (picture.max(axis=2) != picture.min(axis=2)).nonzero()
    assert (drawn[0].min(), drawn[0].max()) == (16, 23)  # the contour stands on the lesion's border
    assert (picture[18:22, 18:22] == 250).all()  # and what it encloses is as it was


def test_a_spreadsheet_runs_nothing(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answers, _ = answers_of([checkpoints], [write_slice(Path("=1+1.png"), 100)])
    list(write_answers(iter(answers), Path("out"), {}))
    assert pd.read_csv("out/predictions.csv")["path"].tolist() == ["'=1+1.png"]


def test_a_name_that_is_no_utf8_is_shown_and_written(checkpoints: Path, tmp_path: Path) -> None:
    sound = write_slice(tmp_path / "100.png", 100)
    odd = tmp_path / os.fsdecode(b"Sch\xe4del.png")
    try:
        odd.write_bytes(sound.read_bytes())
    except OSError:
        pytest.skip("this disk takes UTF-8 names only")
    bad = tmp_path / os.fsdecode(b"\xff.png")
    answers, _ = answers_of([checkpoints], [odd, bad])
    list(write_answers(iter(answers), tmp_path / "out", {}))
    lines = (tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    expected = [
        str(tmp_path / "Sch\N{REPLACEMENT CHARACTER}del.png"),
        str(tmp_path / "\N{REPLACEMENT CHARACTER}.png"),
    ]
    assert [json.loads(line)["path"] for line in lines[1:]] == expected
    assert pd.read_csv(tmp_path / "out" / "predictions.csv")["path"].tolist() == expected
    for answer, name in zip(answers, expected, strict=True):
        assert describe_answer(answer).encode("utf-8").decode().startswith(f"{name}  ")
    assert answers[0].label == "normal"  # it was found under its own name
    assert "does not exist" in answers[1].fault


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(StudyError, match="is not an empty folder"):
        next(write_answers(iter([Answer(Path("a"))]), tmp_path, {}))


def test_the_line_for_a_reader() -> None:
    mask = np.zeros((8, 8), bool)
    mask[2:4, 2:5] = True
    path, sure = Path("a.png"), {"normal": 0.1, "stroke": 0.9}
    assert describe_answer(Answer(path, "is empty; copy it again")) == "a.png  is empty; copy it again"
    found = Answer(path, "", sure, "stroke", None, mask, 0.5)
    assert describe_answer(found) == "a.png  stroke 0.9000  lesion 6 px (2 mm2)"
    assert describe_answer(Answer(path, "", sure, "stroke", None, np.zeros((8, 8), bool))).endswith(
        "no lesion found"
    )
