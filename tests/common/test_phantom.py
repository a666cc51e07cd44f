"""The drawn data set: deterministic, labelled by its masks, in the public layouts, and not solved by a glance."""

import dataclasses
import hashlib
import itertools
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from common.config import Phantom
from common.data import anatomy, heads, lesions, phantom, shapes
from common.data.phantom import Drawing, draw, paint_overlay, phantom_samples, write_phantom
from common.data.samples import NO_LESION
from common.errors import StudyError

SMALL = Phantom(patients=40, image_size=96)
GEOMETRY = ("1", "1bfe9ee1f2834901")  # version; digest of the labels of 24 patients


@pytest.fixture(scope="module")
def samples() -> pd.DataFrame:
    return phantom_samples(SMALL)


@pytest.fixture(scope="module")
def drawings(samples: pd.DataFrame) -> list[Drawing]:
    return [draw(path) for path in samples["path"]]


# --- the table ----------------------------------------------------------------------------------------------------


def test_the_table_has_the_asked_patients_and_slices(samples: pd.DataFrame) -> None:
    assert samples["patient"].unique().tolist() == [f"p{n:03d}" for n in range(40)]
    counts = samples.groupby("patient").size()
    assert counts.between(SMALL.slices_min, SMALL.slices_max).all()
    assert counts.nunique() > 3
    assert samples["id"].iloc[0] == "p000/s00"
    assert samples["path"].iloc[0] == "phantom:20/96/8-20/0/0"
    assert (samples["source"] == "phantom").all()
    assert samples["sha256"].is_unique


def test_half_of_the_patients_have_a_stroke_of_either_kind(samples: pd.DataFrame) -> None:
    kinds = samples.groupby("patient")["label"].agg(lambda labels: "+".join(sorted(set(labels))))
    assert kinds.value_counts().to_dict() == {"normal": 20, "bleeding+normal": 10, "ischemia+normal": 10}


def test_a_larger_phantom_extends_a_smaller_one(samples: pd.DataFrame) -> None:
    few = phantom_samples(dataclasses.replace(SMALL, patients=7))
    pd.testing.assert_frame_equal(few, samples.iloc[: len(few)])


def test_labels_do_not_depend_on_the_picture_size(samples: pd.DataFrame) -> None:
    larger = phantom_samples(dataclasses.replace(SMALL, image_size=256))
    assert larger["label"].tolist() == samples["label"].tolist()
    assert not set(larger["sha256"]) & set(samples["sha256"])


def test_the_seed_changes_patients(samples: pd.DataFrame) -> None:
    other = phantom_samples(dataclasses.replace(SMALL, seed=21))
    assert other["label"].tolist() != samples["label"].tolist()


# --- drawings -----------------------------------------------------------------------------------------------------


def test_a_path_gives_the_same_pixels_in_any_order(samples: pd.DataFrame, drawings: list[Drawing]) -> None:
    for row in reversed(range(0, len(samples), 23)):
        again = draw(samples["path"][row])
        np.testing.assert_array_equal(again.image, drawings[row].image)
        np.testing.assert_array_equal(again.mask, drawings[row].mask)


def test_drawings_agree_with_the_table(samples: pd.DataFrame, drawings: list[Drawing]) -> None:
    for row, drawing in zip(samples.itertuples(), drawings, strict=True):
        assert drawing.image.shape == drawing.mask.shape == (96, 96)
        assert (drawing.image.dtype, drawing.mask.dtype) == (np.uint8, np.bool_)
        assert drawing.label == row.label
        assert drawing.mask.any() == (row.label != "normal") == (row.mask != NO_LESION)


def test_a_visible_lesion_covers_an_area_worth_finding(drawings: list[Drawing]) -> None:
    areas = [drawing.mask.mean() for drawing in drawings if drawing.mask.any()]
    # MIN_AREA of 4 square units is 0.2 % of a canvas; zoom and bone in front of a lesion may take half of it.
    assert min(areas) > 0.5 * lesions.MIN_AREA / 4
    assert max(areas) < 0.15


def test_the_lesion_changes_the_pixels_of_its_mask_and_leaves_the_far_ones(samples: pd.DataFrame) -> None:
    differences: dict[str, list[float]] = {"bleeding": [], "ischemia": []}
    positive = samples[samples["label"] != "normal"]
    for path, label in zip(positive["path"][::3], positive["label"][::3], strict=True):
        with_lesion, without = draw(path), phantom._draw(path, with_lesion=False)
        change = with_lesion.image.astype(float) - without.image
        assert not without.mask.any()
        assert np.mean(change[with_lesion.mask] != 0) > 0.7  # white against white at the skull
        reach = cv2.dilate(with_lesion.mask.astype(np.uint8), np.ones((41, 41), np.uint8)) > 0
        assert not change[~reach].any()  # beyond oedema and soft borders
        differences[label].append(change[with_lesion.mask].mean())
    assert min(differences["bleeding"]) > 20
    assert max(differences["ischemia"]) < -5


def test_a_lesion_runs_through_neighbouring_slices(samples: pd.DataFrame) -> None:
    for _, slices in samples[samples["label"] != "normal"].groupby("patient"):
        numbers = slices["id"].str[-2:].astype(int).to_numpy()
        assert (np.diff(numbers) == 1).all()


def test_neighbouring_slices_are_alike_and_patients_differ(
    samples: pd.DataFrame, drawings: list[Drawing]
) -> None:
    soft = [cv2.GaussianBlur(drawing.image, (0, 0), 2).ravel().astype(float) for drawing in drawings]
    middles = samples.reset_index().groupby("patient")["index"].median().astype(int).tolist()
    near = [np.corrcoef(soft[row], soft[row + 1])[0, 1] for row in middles]
    far = [np.corrcoef(soft[a], soft[b])[0, 1] for a, b in itertools.pairwise(middles)]
    assert np.median(near) > np.median(far) + 0.05


def test_slices_show_skull_brain_and_air(drawings: list[Drawing]) -> None:
    for drawing in drawings:
        shares = [np.mean(drawing.image == 0), np.mean(drawing.image == 255)]
        shares.append(np.mean((drawing.image > 60) & (drawing.image < 160)))
        assert shares[0] > 0.3
        assert shares[1] > 0.05
        assert shares[2] > 0.03


def test_brightness_and_level_do_not_give_the_label_away(
    samples: pd.DataFrame, drawings: list[Drawing]
) -> None:
    y_true = (samples["label"] != "normal").to_numpy()
    brightness = np.array([drawing.image.mean() for drawing in drawings])
    level = (
        samples.groupby("patient").cumcount() / samples.groupby("patient")["id"].transform("size")
    ).to_numpy()
    for name, cue in {"brightness": brightness, "level": level, "distance": np.abs(level - 0.5)}.items():
        auroc = roc_auc_score(y_true, cue)
        assert max(auroc, 1 - auroc) < 0.75, name


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("Stroke/58 (1).jpg", "no phantom slice"),
        ("phantom:20/96/8-20/0", "no phantom slice"),
        ("phantom:20/96/8-20/0/0/0", "no phantom slice"),
        ("phantom:-1/96/8-20/0/0", "no phantom slice"),
        ("phantom:20/8/8-20/0/0", "image size"),
        ("phantom:20/9999/8-20/0/0", "image size"),
        ("phantom:20/96/20-8/0/0", "slices a patient"),
        ("phantom:20/96/0-8/0/0", "slices a patient"),
        ("phantom:20/96/8-20/0/20", "has the slices"),
    ],
)
def test_a_path_that_names_no_slice_is_refused(path: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        draw(path)


def test_a_phantom_out_of_range_is_refused() -> None:
    with pytest.raises(StudyError, match="patients"):
        phantom_samples(Phantom(patients=0))
    with pytest.raises(StudyError, match="image size"):
        phantom_samples(Phantom(patients=1, image_size=5))
    with pytest.raises(StudyError, match="slices a patient"):
        phantom_samples(Phantom(patients=1, slices_min=9, slices_max=8))


# --- anatomy ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", [*shapes.BRAIN, *shapes.MEMBRANES, *shapes.BONES_AND_FACE])
def test_a_structure_has_as_many_corners_at_each_level(structure: shapes.Structure) -> None:
    levels = sorted(structure.outlines)
    assert len({len(points) for points in structure.outlines.values()}) == 1
    middle = structure.at((levels[0] + levels[-1]) / 2)
    assert middle is not None
    assert structure.at(levels[0] - 0.01) is None
    assert structure.at(levels[-1] + 0.01) is None


def test_the_head_shrinks_towards_the_vertex_and_its_skull_is_outside() -> None:
    head = heads.create_head(3, 1, 8, 20)
    inner = [anatomy.outline(head, level) for level in (0.45, 0.7, 0.95)]
    for brain, skull in inner:
        assert (skull > brain + 0.02).all()
    assert inner[0][0].mean() > inner[1][0].mean() > inner[2][0].mean() > 0.1


def test_random_numbers_depend_on_the_names_alone() -> None:
    first = heads.generator(1, 2, "head").random(3)
    np.testing.assert_array_equal(first, heads.generator(1, 2, "head").random(3))
    assert not np.allclose(first, heads.generator(1, 3, "head").random(3))
    assert not np.allclose(first, heads.generator(1, 2, "lesion").random(3))


def test_geometry_is_the_published_one() -> None:
    """A change here changes every number computed on the phantom: raise PHANTOM_VERSION with it."""
    labels = phantom_samples(Phantom(patients=24, image_size=64))
    text = "\n".join(labels["id"] + " " + labels["label"])
    assert (heads.PHANTOM_VERSION, hashlib.sha256(text.encode()).hexdigest()[:16]) == GEOMETRY


# --- overlays and folders -----------------------------------------------------------------------------------------


def test_an_overlay_paints_the_mask_only() -> None:
    image, mask = np.full((40, 40), 100, np.uint8), np.zeros((40, 40), bool)
    mask[10:20, 12:30] = True
    for colour, channel in (((255, 0, 0), 0), ((0, 255, 0), 1)):
        painted = paint_overlay(image, mask, colour)
        assert painted.shape == (40, 40, 3)
        assert (painted[~mask] == 100).all()
        assert tuple(painted[10, 12]) == colour  # outline
        others = [other for other in range(3) if other != channel]
        assert painted[15, 20, channel] > 100
        assert (painted[15, 20, others] < 100).all()
        assert painted[15, 20].max() < 255  # translucent
    assert (image == 100).all()


def test_the_binary_layout_has_the_public_form(tmp_path: Path) -> None:
    few = Phantom(patients=4, image_size=64, slices_min=3, slices_max=5)
    write_phantom(tmp_path / "data", few, "binary")
    samples = phantom_samples(few)
    pictures = sorted((tmp_path / "data/Brain_Data_Organised").rglob("*.jpg"))
    assert len(pictures) == len(samples)
    stroke = samples.groupby("patient")["label"].agg(lambda labels: (labels != "normal").any())
    for number, (patient, positive) in enumerate(stroke.items(), start=1):
        folder, count = ("Stroke" if positive else "Normal"), (samples["patient"] == patient).sum()
        for k in range(1, count + 1):
            assert (tmp_path / f"data/Brain_Data_Organised/{folder}/{number} ({k}).jpg").is_file()
    image = cv2.imread(str(pictures[0]), cv2.IMREAD_UNCHANGED)
    assert image.shape == (650, 650)
    masks = list((tmp_path / "data/masks").rglob("*.png"))
    assert len(masks) == (samples["label"] != "normal").sum() > 0
    for path in masks:
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert mask.shape == (650, 650)
        assert set(np.unique(mask)) == {0, 255}
        assert (tmp_path / "data/Brain_Data_Organised" / path.parent.name / f"{path.stem}.jpg").is_file()


def test_the_strokes_layout_has_the_public_form(tmp_path: Path) -> None:
    few = Phantom(patients=4, image_size=64, slices_min=3, slices_max=5)
    write_phantom(tmp_path, few, "strokes")  # an empty folder that exists is welcome
    samples, root = phantom_samples(few), tmp_path / "Brain_Stroke_CT_Dataset"
    assert sorted(path.name for path in root.iterdir()) == ["Bleeding", "Ischemia", "Normal", "patients.csv"]
    for label, count in samples["label"].value_counts().items():
        pictures = sorted((root / label.capitalize() / "PNG").glob("*.png"))
        assert len(pictures) == count
        assert all(len(path.stem) == 5 and path.stem.isdigit() for path in pictures)
        image = cv2.imread(str(pictures[0]), cv2.IMREAD_UNCHANGED)
        assert image.shape == (512, 512, 4)
        assert (image[..., 3] == 255).all()
        assert (image[..., 0] == image[..., 2]).all()
        overlays = root / label.capitalize() / "OVERLAY"
        assert overlays.is_dir() == (label != "normal")
        if label != "normal":
            overlay = cv2.imread(str(overlays / pictures[0].name), cv2.IMREAD_UNCHANGED)
            painted = (overlay != image).any(axis=2)
            assert 0.0005 < painted.mean() < 0.2
            assert (overlay[painted][:, 2] > overlay[painted][:, 0]).all()  # red, in OpenCV's order
    table = pd.read_csv(root / "patients.csv", dtype=str)
    assert table.columns.tolist() == ["image_id", "patient"]
    assert sorted(table["image_id"]) == sorted(path.stem for path in root.glob("*/PNG/*.png"))
    assert table["patient"].value_counts().to_dict() == samples["patient"].value_counts().to_dict()


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(StudyError, match="not an empty folder"):
        write_phantom(tmp_path, Phantom(patients=1), "binary")
    assert phantom.main([str(tmp_path), "--layout", "strokes", "--patients", "1"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(StudyError, match="layout"):
        write_phantom(tmp_path / "new", Phantom(patients=1), "other")


def test_a_folder_that_cannot_be_made_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert phantom.main([str(tmp_path / "file" / "out"), "--layout", "binary", "--patients", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m common.data.phantom: ")
    assert "file/out" in line
    assert "cannot be written" in line


def test_the_command_writes_and_says_what_it_is_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        str(tmp_path / "out"),
        "--layout",
        "binary",
        "--patients",
        "1",
        "--image-size",
        "32",
        "--seed",
        "5",
    ]
    assert phantom.main(command) == 0
    assert "not a medical device" in capsys.readouterr().out
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == len(
        phantom_samples(Phantom(1, seed=5, image_size=32))
    )
