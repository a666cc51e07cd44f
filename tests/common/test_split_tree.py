"""The split as folders: the same pictures in the same parts, read back as they were written."""

import os
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from tiny import make_slice, write_pictures, write_strokes

from common.config import SPLITS, Phantom
from common.data.layouts import open_dataset
from common.data.phantom import phantom_samples, write_phantom
from common.data.samples import NO_LESION
from common.data.split_tree import main, write_tree
from common.data.splits import split_table
from common.errors import StudyError


def split_of(samples: pd.DataFrame, seed: int = 0) -> pd.Series:
    return split_table(samples, 1, seed).set_index("id")["split"]


def add_external(folder: Path) -> None:
    """Four pictures that are only tested on, two with a stroke, one of these with a mask."""
    external = folder / "External_Test"
    (external / "PNG").mkdir(parents=True)
    (external / "MASKS").mkdir()
    for number in range(4):
        label = "stroke" if number < 2 else "normal"
        cv2.imwrite(str(external / "PNG" / f"2000{number}.png"), make_slice(label, "external", number))
    cv2.imwrite(str(external / "MASKS" / "20000.png"), np.full((16, 16), 255, dtype=np.uint8))
    (external / "labels.csv").write_text("image_id,Stroke\n20000,1\n20001,1\n20002,0\n20003,0\n")
    with (folder / "patients.csv").open("a") as stream:
        stream.write("20000,x\n20001,x\n20002,y\n20003,y\n")


def facts(samples: pd.DataFrame, split: pd.Series) -> set[tuple[str, ...]]:
    """What must survive the way through folders, one tuple a sample; contents stand for names."""

    def kind(mask: str) -> str:
        return mask if mask in ("", NO_LESION) else mask.split(":")[0] if ":" in mask else "file"

    kinds = samples["mask"].map(kind)
    columns = (samples["sha256"], samples["label"], samples["patient"], kinds, samples["mask_sha256"])
    return set(zip(samples["id"].map(split), *columns, strict=True))


# --- there and back -----------------------------------------------------------------------------------------------


def test_three_classes_with_external_samples_there_and_back(tmp_path: Path) -> None:
    data = write_strokes(tmp_path / "data")
    add_external(data)
    samples = open_dataset(data)
    split = split_of(samples)
    write_tree(samples, split, tmp_path / "tree")
    back = open_dataset(tmp_path / "tree")
    assert facts(back, back.set_index("id")["split"]) == facts(samples, split)
    assert split_of(back).to_dict() == back.set_index("id")["split"].to_dict()
    for part in SPLITS:
        assert {path.name for path in (tmp_path / "tree" / part).iterdir()} == {"PNG", "MASKS"}
    picture = samples.iloc[0]
    name = Path(picture["path"]).name
    assert (tmp_path / "tree" / split[picture["id"]] / "PNG" / "Bleeding" / name).is_file()


@pytest.mark.parametrize("masks", [False, True])
def test_two_classes_there_and_back(tmp_path: Path, masks: bool) -> None:
    samples = open_dataset(write_pictures(tmp_path / "data", masks=masks))
    split = split_of(samples, seed=3)
    write_tree(samples, split, tmp_path / "tree")
    back = open_dataset(tmp_path / "tree")
    assert facts(back, back["split"].set_axis(back["id"])) == facts(samples, split)


def test_overlays_there_and_back(tmp_path: Path) -> None:
    write_phantom(
        tmp_path / "data", Phantom(patients=16, image_size=32, slices_min=2, slices_max=3), "strokes"
    )
    samples = open_dataset(tmp_path / "data")
    split = split_of(samples)
    write_tree(samples, split, tmp_path / "tree")
    back = open_dataset(tmp_path / "tree")
    assert facts(back, back["split"].set_axis(back["id"])) == facts(samples, split)
    assert back["mask"].str.startswith("overlay:").any()


def test_patients_that_were_guessed_stay_guessed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Groups of similar pictures that came back as a table would be taken for knowledge."""
    data = write_strokes(tmp_path / "data", patients=18)
    (data / "patients.csv").unlink()
    samples = open_dataset(data)
    assert set(samples["patient_from"]) == {"similarity"}
    assert main([str(data), "--materialise", str(tmp_path / "tree")]) == 0
    assert "no patients.csv" in capsys.readouterr().out
    assert not list((tmp_path / "tree").rglob("patients.csv"))
    back = open_dataset(tmp_path / "tree")
    assert set(back["patient_from"]) == {"similarity"}
    given = dict(zip(back["sha256"], back["split"], strict=True))
    assert given == dict(zip(samples["sha256"], samples["id"].map(split_of(samples)), strict=True))


def test_patients_known_in_one_data_set_only_come_back_as_guessed(tmp_path: Path) -> None:
    known = write_pictures(tmp_path / "known")
    unknown = write_strokes(tmp_path / "unknown", patients=18)
    (unknown / "patients.csv").unlink()
    samples = open_dataset(known, unknown)
    assert set(samples["patient_from"]) == {"name", "similarity"}
    samples["mask"] = samples["mask"].where(samples["label"] != "stroke", NO_LESION)
    write_tree(samples, split_of(samples), tmp_path / "tree")
    assert set(open_dataset(tmp_path / "tree")["patient_from"]) == {"similarity"}


def test_names_that_meet_in_one_tree_are_kept_apart(tmp_path: Path) -> None:
    """Both data sets have a `0 (0).png`, of other patients and content."""
    folders = []
    for source in ("a", "b"):
        folder = write_pictures(tmp_path / source, patients=8, slices=1)
        for file in folder.rglob("*.png"):
            cv2.imwrite(str(file), make_slice(file.parent.name.lower(), source, file.stem, size=32))
        folders.append(folder)
    samples = open_dataset(*folders)
    split = split_of(samples)
    write_tree(samples, split, tmp_path / "tree")
    names = [file.stem for file in (tmp_path / "tree").rglob("*.png")]
    assert len(names) == len(set(names)) == len(samples) == 16
    assert {"0 (0)", "b_Normal_0 (0)"} <= set(names)
    back = open_dataset(tmp_path / "tree")
    assert facts(back, back["split"].set_axis(back["id"])) == facts(samples, split)


# --- links and copies ---------------------------------------------------------------------------------------------


def refuse(*_: object, **__: object) -> None:
    raise OSError(18, "Invalid cross-device link")


@pytest.mark.parametrize("means", ["hard link", "symbolic link", "copy"])
def test_the_first_means_that_the_disk_allows(
    tmp_path: Path, means: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = open_dataset(write_pictures(tmp_path / "data"))
    if means != "hard link":
        monkeypatch.setattr(os, "link", refuse)
    if means == "copy":
        monkeypatch.setattr(Path, "symlink_to", refuse)
    assert write_tree(samples, split_of(samples), tmp_path / "tree") == {means: len(samples)}
    file = next((tmp_path / "tree" / "train").rglob("*.png"))
    source = next(Path(path) for path in samples["path"] if Path(path).name == file.name)
    assert file.is_symlink() == (means == "symbolic link")
    assert file.samefile(source) == (means != "copy")
    assert file.read_bytes() == source.read_bytes()


# --- what is refused ----------------------------------------------------------------------------------------------


def test_drawn_slices_have_no_files(tmp_path: Path) -> None:
    samples = phantom_samples(Phantom(patients=12, slices_min=2, slices_max=2))
    with pytest.raises(
        StudyError, match=r"drawn slice without a file; write the phantom .*common\.data\.phantom"
    ):
        write_tree(samples, split_of(samples), tmp_path / "tree")


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    samples = open_dataset(write_pictures(tmp_path / "data"))
    out = tmp_path / "tree"
    out.mkdir()
    write_tree(samples, split_of(samples), out)  # empty is as good as new
    with pytest.raises(StudyError, match="is not an empty folder"):
        write_tree(samples, split_of(samples), out)


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    samples = open_dataset(write_pictures(tmp_path / "data"))
    Path(samples["path"].iloc[-1]).unlink()
    with pytest.raises(StudyError, match=r"\.png is gone"):
        write_tree(samples, split_of(samples), tmp_path / "tree")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_known_and_unknown_masks_of_strokes_are_not_mixed(tmp_path: Path) -> None:
    folders = [write_pictures(tmp_path / name, masks=name == "with") for name in ("with", "without")]
    for file in (tmp_path / "without").rglob("*.png"):
        cv2.imwrite(str(file), make_slice(file.parent.name.lower(), "without", file.stem, size=32))
    samples = open_dataset(*folders)
    with pytest.raises(
        StudyError, match=r"masks of 12 stroke slices are not known, e.g. of 'without:Stroke/"
    ):
        write_tree(samples, split_of(samples), tmp_path / "tree")


# --- the command --------------------------------------------------------------------------------------------------


def test_the_command_writes_the_fold_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_pictures(tmp_path / "data")
    (data / "Normal" / "2 (1).png").write_text("no picture")
    out = tmp_path / "out" / "tree"
    options = ["--folds", "3", "--fold", "2", "--split-seed", "5", "--materialise", str(out)]
    assert main([str(data), *options]) == 0
    printed = capsys.readouterr().out
    assert "left out:" in printed
    assert "23 by hard link" in printed
    assert "no patients.csv" not in printed
    assert "not a medical device" in printed
    samples = open_dataset(data)
    samples = samples[samples["id"] != "Normal/2 (1)"]
    whole = split_table(samples, 3, 5)
    split = whole[whole["fold"] == 2].set_index("id")["split"]
    back = open_dataset(out)
    assert facts(back, back["split"].set_axis(back["id"])) == facts(samples, split)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--folds", "2", "--fold", "2"], "fold (=2) does not exist"),
        (["--fold", "1"], "fold (=1) does not exist"),
        (["--folds", "9"], "9 are needed"),
    ],
)
def test_the_command_names_what_cannot_be(
    tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_pictures(tmp_path / "data", patients=8)
    assert main([str(data), *options, "--materialise", str(tmp_path / "tree")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "tree").exists()


def test_the_command_does_not_write_into_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_pictures(tmp_path / "data")
    assert main([str(data), "--materialise", str(data / "tree")]) == 2
    assert "lies in the data folder" in capsys.readouterr().err
