"""A study of several tasks: which the data can serve, what they share, where backbones start, and growth by a task."""

import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from safetensors.numpy import save_file
from tiny import (
    MASK_SPEC,
    RECIPE,
    SPEC,
    SUBTYPE_RECIPE,
    TinyFramework,
    make_mask,
    make_row,
    make_study,
    tiny_world,
    write_pictures,
    write_strokes,
)

from common import engines
from common import study as study_module
from common.config import TASKS, ConvNextSpec, DenseNetSpec, Run, Study
from common.data.cache import open_cache
from common.data.samples import sample_table
from common.errors import StudyError
from common.pretrained import Pretrained, file_sha256, resolve_weights
from common.report.context import command
from common.results import StudyRecord, read_run, read_study
from common.run import execute
from common.slices import slice_reader
from common.starts import keep_weights
from common.study import carry_out, choose_tasks, prepare_study, run_study

__all__ = ["tiny_world"]  # a fixture
pytestmark = pytest.mark.usefixtures("tiny_world")

ALL = tuple(TASKS)
DENSENET = DenseNetSpec(image_size=16, stem_features=4, blocks=(1,), growth=4)
CONVNEXT = ConvNextSpec(image_size=16, depths=(1,), features=(4,))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes, no masks."""
    return write_pictures(tmp_path / "pictures")


@pytest.fixture
def strokes(tmp_path: Path) -> Path:
    """Three classes with masks."""
    return write_strokes(tmp_path / "strokes")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "study"


@pytest.fixture
def asked_for(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Runs are executed in this process; returns those that were asked for, in order."""
    asked: list[Run] = []

    def run_here(directory: Path, study: Study, runs: Sequence[Run], on_event: Callable[..., object]) -> None:
        for run in runs:
            asked.append(run)
            execute(TinyFramework(run.framework), directory, run, 1, lambda event: None)
            on_event(run, {"complete": True})

    monkeypatch.setattr(engines, "run_locally", run_here)
    return asked


def follow(study: Study, directory: Path) -> list[str]:
    """Carry out a study in which no run fails; returns the lines that were printed."""
    text = io.StringIO()
    assert carry_out(study, directory, Console(file=text, width=300)) == []
    return text.getvalue().splitlines()


def caches_of(record: StudyRecord) -> dict[int, Any]:
    return {
        int(size): open_cache(record.directory / folder) for size, folder in record.document["caches"].items()
    }


# --- which tasks --------------------------------------------------------------------------------------------------


def table(*labels: str, patients: int = 3, mask: str = "") -> pd.DataFrame:
    """`patients` of each label, an image each."""
    return sample_table(
        [
            make_row(f"{label}{k}", label, f"{label}{k}", mask="none" if label == "normal" else mask)
            for label in labels
            for k in range(patients)
        ]
    )


@pytest.mark.parametrize(
    ("samples", "kept"),
    [
        (table("normal", "bleeding", "ischemia", mask="a.png"), ALL),
        (table("normal", "bleeding", "ischemia"), ("binary", "subtype")),
        (table("normal", "stroke", mask="a.png"), ("binary", "segmentation")),
        (table("normal", "stroke"), ("binary",)),
        (table("normal", "bleeding", mask="a.png"), ("binary", "segmentation")),
    ],
    ids=["all", "no masks", "no kinds", "neither", "one kind"],
)
def test_what_the_data_cannot_serve_is_left_out_with_its_reason(
    samples: pd.DataFrame, kept: tuple[str, ...]
) -> None:
    study, skipped = choose_tasks(make_study(Path("x"), tasks=ALL, skippable=True), samples)
    assert study.tasks == kept
    assert [row["task"] for row in skipped] == [task for task in ALL if task not in kept]
    reasons = {"subtype": "no sample is labelled", "segmentation": "no lesion mask is known"}
    for row in skipped:
        assert row["reason"].startswith(reasons[row["task"]])


def test_what_was_asked_for_by_name_is_refused_instead() -> None:
    study = make_study(Path("x"), tasks=("binary", "subtype"))
    with pytest.raises(
        StudyError, match=r"cannot serve the task 'subtype': no sample is .*leave it out of --"
    ):
        choose_tasks(study, table("normal", "stroke"))
    reason = "2 patients have images of 'normal'; training, validation and test need one each"
    with pytest.raises(StudyError, match=f"cannot serve the task 'binary': {reason}; give more data"):
        choose_tasks(dataclasses.replace(study, skippable=True), table("normal", "stroke", patients=2))


def test_a_study_goes_on_without_the_tasks_it_cannot_serve(
    data: Path, directory: Path, asked_for: list[Run]
) -> None:
    lines = follow(make_study(data, tasks=ALL, skippable=True, seeds=1), directory)
    assert [line for line in lines if "is left out" in line] == [
        "task subtype is left out: no sample is labelled 'bleeding'",
        "task segmentation is left out: no lesion mask is known",
    ]
    record = read_study(directory)
    assert record.study.tasks == ("binary",)
    assert [run.task for run in asked_for] == ["binary", "binary"]
    assert set(record.split()["task"]) == {"binary"}
    assert [row["task"] for row in record.audit()["skipped_tasks"]] == ["subtype", "segmentation"]
    assert not caches_of(record)[16].with_masks  # which nobody will ask for
    again = follow(make_study(data, tasks=ALL, skippable=True, seeds=1), directory)
    assert any("2 of 2 runs are finished already" in line for line in again)


def test_a_task_that_lost_all_its_masks_is_left_out(
    strokes: Path, directory: Path, asked_for: list[Run]
) -> None:
    """That they are none shows only when they are read."""
    for path in strokes.rglob("MASKS/*.png"):
        path.write_text("no mask")
    lines = follow(make_study(strokes, tasks=ALL, skippable=True, seeds=1), directory)
    assert "task segmentation is left out: no lesion mask is known" in lines
    assert sum(line.startswith("left out: the lesion mask ") for line in lines) == 20
    record = read_study(directory)
    assert record.study.tasks == ("binary", "subtype")
    assert len(record.audit()["unreadable_masks"]) == 20
    assert (record.audit()["used"], record.audit()["masks"]) == (30, {"none": 10, "unknown": 20})
    with pytest.raises(StudyError, match="cannot serve the task 'segmentation': no lesion mask is known"):
        prepare_study(make_study(strokes, tasks=ALL), directory.with_name("named"))


@pytest.fixture
def uneven(tmp_path: Path) -> Path:
    """A split tree whose validation part has no ischemia."""
    whole = write_strokes(tmp_path / "whole", patients=27)
    for path in sorted(whole.rglob("PNG/*.png")):
        patient, kind = (int(path.stem) - 10_000) // 10, path.parents[1].name
        part = ("train", "val", "test")[patient // 3 % 3]
        if (part, kind) == ("val", "Ischemia"):
            part = "train"
        target = tmp_path / "tree" / part / "PNG" / kind / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    return tmp_path / "tree"


def test_a_part_without_a_class_costs_the_task_and_not_the_study(
    uneven: Path, directory: Path, asked_for: list[Run]
) -> None:
    study = make_study(uneven, tasks=("binary", "subtype"), skippable=True, seeds=1)
    lines = follow(study, directory)
    reason = "the part 'val' of the given split has no image of 'ischemia', which the task 'subtype' needs in"
    assert any(line.startswith(f"task subtype is left out: {reason}") for line in lines)
    record = read_study(directory)
    assert record.study.tasks == ("binary",)
    assert {run.task for run in asked_for} == set(record.split()["task"]) == {"binary"}
    assert any("2 of 2 runs are finished already" in line for line in follow(study, directory))
    for named in (
        make_study(uneven, tasks=("binary", "subtype")),
        make_study(uneven, tasks=("subtype",), skippable=True),  # then nothing would be left
    ):
        with pytest.raises(StudyError, match=reason):
            prepare_study(named, directory.with_name("other"))


def test_a_model_of_a_task_that_is_left_out_leaves_no_file(
    uneven: Path, directory: Path, tmp_path: Path
) -> None:
    given = write_weights(tmp_path / "weights")
    study = transfer(uneven, ("binary", "subtype"), skippable=True, weights=str(given))
    record = prepare_study(study, directory, find_weights=from_folder(given))
    assert record.study.pairs == [("binary", "densenet121")]
    assert record.document["pretrained"].keys() == {"densenet121"}
    assert [path.name for path in (directory / "data" / "weights").iterdir()] == ["densenet121.safetensors"]


# --- what tasks share ---------------------------------------------------------------------------------------------


def test_every_task_has_its_rows_of_one_split(strokes: Path, directory: Path) -> None:
    (strokes / "Bleeding" / "MASKS" / "10001.png").write_text("no mask")
    record = prepare_study(make_study(strokes, tasks=ALL), directory)
    split = record.split()
    assert split.groupby("id")["split"].nunique().max() == 1
    patients = split["id"].map(record.samples().set_index("id")["patient"])
    assert split["split"].groupby(patients).nunique().max() == 1
    rows = {task: set(split.loc[split["task"] == task, "id"]) for task in ALL}
    assert rows["binary"] == rows["subtype"] == set(record.samples()["id"])
    assert rows["binary"] - rows["segmentation"] == {"Bleeding/10001"}


@pytest.mark.parametrize(
    ("tasks", "size", "masks"),
    [
        (("binary",), 16, {16: False}),
        (("binary", "segmentation"), 16, {16: True}),
        (("subtype", "segmentation"), 32, {16: False, 32: True}),
        (ALL, 32, {16: False, 32: True}),
    ],
)
def test_models_of_one_size_share_a_cache_which_has_masks_where_any_needs_them(
    strokes: Path, directory: Path, tasks: tuple[str, ...], size: int, masks: Mapping[int, bool]
) -> None:
    study = make_study(strokes, tasks=tasks)
    spec = dataclasses.replace(MASK_SPEC, image_size=size)
    record = prepare_study(
        dataclasses.replace(study, specs={**study.specs, "segmentation/unet": spec}), directory
    )
    caches = caches_of(record)
    assert {size: cache.with_masks for size, cache in caches.items()} == masks
    for size, cache in caches.items():
        assert cache.read(list(cache.rows)).shape == (30, size, size)
    if masks.get(16):
        np.testing.assert_array_equal(caches[16].read_masks(["Ischemia/10010"])[0], make_mask("ischemia"))


def test_the_report_shows_slices_of_the_largest_size(strokes: Path, directory: Path) -> None:
    study = make_study(strokes, tasks=ALL)
    sizes = {"binary/cnn": 4, "subtype/cnn": 16, "segmentation/unet": 8}  # as text, 4 and 8 are behind 16
    specs = {key: dataclasses.replace(study.specs[key], image_size=size) for key, size in sizes.items()}
    record = prepare_study(dataclasses.replace(study, specs=specs), directory)
    read = slice_reader(record)
    assert read is not None
    shown = read("Normal/10020")
    assert shown is not None
    np.testing.assert_array_equal(shown, caches_of(record)[16].read(["Normal/10020"])[0])
    assert read("Normal/unknown") is None


def test_painted_masks_are_found_from_a_folder_that_was_moved(strokes: Path, directory: Path) -> None:
    for kind in ("Bleeding", "Ischemia"):
        (strokes / kind / "MASKS").rename(strokes / kind / "OVERLAY")
    record = prepare_study(make_study(strokes), directory)
    samples = record.samples().set_index("id")
    masks = samples.loc[samples["label"] != "normal", "mask"]
    assert len(masks) == 20
    for name, mask in masks.items():
        path = mask.removeprefix("overlay:")
        assert mask == f"overlay:{path}"
        assert not Path(path).is_absolute()
        assert (directory / path).resolve() == strokes / name.split("/")[0] / "OVERLAY" / f"{name[-5:]}.png"
    assert set(samples.loc[samples["label"] == "normal", "mask"]) == {"none"}
    assert str(strokes) not in (directory / "data" / "samples.csv").read_text()


# --- growth -------------------------------------------------------------------------------------------------------


def files(directory: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(directory)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in sorted((directory / "runs").rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("fault", ["", "a broken mask"])
def test_a_study_grows_by_tasks(strokes: Path, directory: Path, asked_for: list[Run], fault: str) -> None:
    """A mask that cannot be read is unknown from then on, and no change of the data."""
    if fault:
        (strokes / "Bleeding" / "MASKS" / "10001.png").write_text("no mask")
    follow(make_study(strokes, seeds=1), directory)
    before, first, columns = files(directory), read_study(directory), ["id", "fold", "split"]
    binary = first.split()[columns]
    lines = follow(make_study(strokes, tasks=("segmentation", "subtype"), seeds=1), directory)
    assert [run.task for run in asked_for[2:]] == ["subtype"] * 2 + ["segmentation"] * 2
    assert not any("finished already" in line for line in lines)  # none of those that were asked for now
    grown = read_study(directory)
    assert set(grown.study.tasks) == set(ALL)
    assert [record.run.task for record in grown.complete] == [task for task in ALL for _ in range(2)]
    assert grown.document["samples_sha256"] == first.document["samples_sha256"]
    assert grown.document["created"] == first.document["created"]
    after = files(directory)
    assert {name: after[name] for name in before} == before
    split = grown.split()
    kept = split.loc[split["task"] == "binary", columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, binary)


def test_a_framework_that_joins_later_gets_the_same(
    strokes: Path, directory: Path, asked_for: list[Run]
) -> None:
    follow(make_study(strokes, frameworks=("tiny-a",), seeds=1), directory)
    follow(make_study(strokes, tasks=ALL, seeds=1), directory)
    one, other = (
        read_run(directory, Run("binary", "cnn", name, "aligned", 0, 0)) for name in ("tiny-a", "tiny-b")
    )
    assert one is not None
    assert other is not None
    for name in ("data", "batches", "weights"):  # the cache has masks by then, and the same pixels
        assert one.document[name] == other.document[name]


def test_a_model_of_another_task_may_join_and_a_changed_one_may_not(strokes: Path, directory: Path) -> None:
    study = make_study(strokes)
    prepare_study(study, directory)
    longer = {**study.recipes, "subtype/cnn": dataclasses.replace(SUBTYPE_RECIPE, epochs=7)}
    grown = prepare_study(
        dataclasses.replace(study, tasks=("binary", "subtype"), recipes=longer), directory
    ).study
    assert grown.pairs == [("binary", "cnn"), ("subtype", "cnn")]
    assert grown.recipes["subtype/cnn"].epochs == 7  # nothing of that task had been asked for
    with pytest.raises(StudyError, match="holds a study with recipes"):
        prepare_study(dataclasses.replace(study, tasks=("subtype",)), directory)


# --- where backbones start ----------------------------------------------------------------------------------------


def transfer(data: Path, tasks: tuple[str, ...] = ("subtype",), **changes: Any) -> Study:
    """DenseNet for every task, and ConvNeXt for three classes."""
    recipes = {"binary/densenet121": RECIPE, "subtype/densenet121": SUBTYPE_RECIPE}
    specs = {"binary/densenet121": DENSENET, "subtype/densenet121": dataclasses.replace(DENSENET, outputs=3)}
    recipes |= {"subtype/convnext_tiny": SUBTYPE_RECIPE}
    specs |= {"subtype/convnext_tiny": dataclasses.replace(CONVNEXT, outputs=3)}
    return make_study(data, tasks=tasks, recipes=recipes, specs=specs, **changes)


def write_weights(folder: Path, value: float = 1.0) -> Path:
    """A folder with a file for each backbone."""
    folder.mkdir(exist_ok=True)
    for name, tensor in (("densenet121.tv_in1k", "features.a"), ("convnext_tiny.fb_in1k", "stem.a")):
        save_file({tensor: np.full(3, value, np.float32)}, folder / f"{name}.safetensors")
    return folder


def from_folder(folder: Path) -> Callable[[Sequence[str]], Mapping[str, Pretrained]]:
    return lambda models: resolve_weights(str(folder), models)


def test_a_study_keeps_the_files_its_backbones_start_from(
    strokes: Path, directory: Path, tmp_path: Path
) -> None:
    given = write_weights(tmp_path / "weights")
    study = transfer(strokes, weights=str(given))
    record = prepare_study(study, directory, find_weights=from_folder(given))
    kept = record.document["pretrained"]
    assert kept.keys() == {"densenet121", "convnext_tiny"}
    before = {}
    for model, entry in kept.items():
        assert entry["path"] == f"data/weights/{model}.safetensors"
        original = next(given.glob(f"{model}*"))
        assert (directory / entry["path"]).read_bytes() == original.read_bytes()
        assert entry["source"] == f"the file {original.name}"
        before[model] = (directory / entry["path"]).stat().st_mtime_ns
    longer = dataclasses.replace(study, seeds=5)
    again = prepare_study(longer, directory, find_weights=from_folder(given))
    assert again.document["pretrained"] == kept
    assert {model: (directory / kept[model]["path"]).stat().st_mtime_ns for model in kept} == before


def test_another_start_is_refused_for_whichever_task(strokes: Path, directory: Path, tmp_path: Path) -> None:
    """A file is one model's for all tasks: a later task must not bring another one to runs that are yet to come."""
    given, others = write_weights(tmp_path / "weights"), write_weights(tmp_path / "others", value=2)
    prepare_study(transfer(strokes, weights=str(given)), directory, find_weights=from_folder(given))
    kept = {path.name: path.read_bytes() for path in (directory / "data" / "weights").iterdir()}
    before = (directory / "study.json").read_bytes()
    for tasks in (("subtype",), ("binary",)):
        for weights in (str(others), "random"):
            with pytest.raises(
                StudyError, match=r"holds a study with weights .*, and .* was asked for; give the same"
            ):
                prepare_study(
                    transfer(strokes, tasks, weights=weights), directory, find_weights=from_folder(others)
                )
    assert {path.name: path.read_bytes() for path in (directory / "data" / "weights").iterdir()} == kept
    assert (directory / "study.json").read_bytes() == before

    fresh = directory.with_name("fresh")
    prepare_study(transfer(strokes), fresh)
    with pytest.raises(StudyError, match=r"holds a study with weights random, and .* was asked for"):
        prepare_study(transfer(strokes, ("binary",), weights=str(given)), fresh)
    with pytest.raises(StudyError, match=r"densenet121 in .* from random numbers, not from the file with"):
        prepare_study(transfer(strokes, ("binary",)), fresh, find_weights=from_folder(given))
    assert read_study(fresh).document["pretrained"] == {}


@pytest.mark.parametrize("damage", ["gone", "other bytes"])
def test_a_kept_file_that_was_lost_comes_back_or_the_study_ends(
    strokes: Path, directory: Path, tmp_path: Path, damage: str
) -> None:
    given = write_weights(tmp_path / "weights")
    study = transfer(strokes, weights=str(given))
    before = prepare_study(study, directory, find_weights=from_folder(given)).document["pretrained"]
    kept = directory / before["densenet121"]["path"]
    whole = kept.read_bytes()
    others = write_weights(tmp_path / "others", value=2)  # what the folder of that name holds by now
    if damage == "gone":
        kept.unlink()
    else:
        kept.write_bytes((others / "densenet121.tv_in1k.safetensors").read_bytes())
    with pytest.raises(
        StudyError,
        match=r"densenet121 in .* started from the file with sha256 \w{12}, not from the file with",
    ):
        prepare_study(study, directory, find_weights=from_folder(others))
    after = prepare_study(study, directory, find_weights=from_folder(given)).document["pretrained"]
    assert after == before
    assert kept.read_bytes() == whole


def test_a_study_goes_on_without_the_files_it_was_given(
    strokes: Path, directory: Path, tmp_path: Path
) -> None:
    """What it keeps is not looked for; of a model that joins, the file is."""
    given = write_weights(tmp_path / "weights")
    study = transfer(strokes, ("binary",), weights=str(given))
    prepare_study(study, directory, find_weights=from_folder(given))
    for path in given.iterdir():
        path.unlink()
    given.rmdir()
    again = prepare_study(dataclasses.replace(study, seeds=5), directory, find_weights=from_folder(given))
    assert again.study.seeds == 5
    assert again.document["pretrained"].keys() == {"densenet121"}
    with pytest.raises(
        StudyError, match=r"--weights .* does not exist; give random, imagenet, a safetensors"
    ):
        prepare_study(transfer(strokes, weights=str(given)), directory, find_weights=from_folder(given))


def test_weights_that_are_not_there_end_a_study_before_pictures_are_read(
    strokes: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the pictures were read")

    monkeypatch.setattr(study_module, "open_dataset", refuse)
    for skippable in (False, True):
        study = transfer(strokes, weights="no/such", skippable=skippable)
        with pytest.raises(
            StudyError, match="--weights no/such does not exist; give random, imagenet, a saf"
        ):
            prepare_study(study, directory, find_weights=from_folder(Path("no/such")))
    asked: list[Sequence[str]] = []

    def fail(models: Sequence[str]) -> Mapping[str, Pretrained]:
        asked.append(models)
        raise StudyError("no network")

    with pytest.raises(StudyError, match="no network"):
        prepare_study(transfer(strokes, ("binary",), weights="imagenet"), directory, find_weights=fail)
    assert asked == [["densenet121"]]  # what is asked for, and nothing of other tasks


def test_a_study_with_backbones_that_grows_without_keeps_its_weights(
    strokes: Path, directory: Path, tmp_path: Path
) -> None:
    given = write_weights(tmp_path / "weights")
    prepare_study(transfer(strokes, weights=str(given)), directory, find_weights=from_folder(given))
    grown = prepare_study(make_study(strokes), directory, find_weights=from_folder(given))
    assert grown.study.models == ("cnn", "densenet121", "convnext_tiny")
    assert grown.study.weights == str(given)
    assert grown.document["pretrained"].keys() == {"densenet121", "convnext_tiny"}
    assert f"--weights {given}" in command(grown.study, "demo")

    other = directory.with_name("other")
    prepare_study(make_study(strokes), other)
    joined = prepare_study(
        transfer(strokes, weights=str(given)), other, find_weights=from_folder(given)
    )  # nothing had been said of backbones
    assert joined.study.weights == str(given)


def test_a_model_that_is_new_brings_its_file(strokes: Path, directory: Path, tmp_path: Path) -> None:
    given = write_weights(tmp_path / "weights")
    prepare_study(make_study(strokes), directory)
    study = transfer(strokes, ("binary",), weights=str(given))
    record = prepare_study(study, directory, find_weights=from_folder(given))
    assert record.document["pretrained"].keys() == {"densenet121"}
    assert record.study.models == ("cnn", "densenet121")


def test_what_an_interrupted_preparation_left_is_no_start(directory: Path, tmp_path: Path) -> None:
    given = from_folder(write_weights(tmp_path / "weights"))(["densenet121"])
    left = directory / "data" / "weights" / "densenet121.safetensors"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"of another command, which never came to an end")
    kept = keep_weights(given, {}, directory)
    assert left.read_bytes() == given["densenet121"].path.read_bytes()
    left.unlink()
    assert keep_weights(given, kept, directory) == kept
    assert left.read_bytes() == given["densenet121"].path.read_bytes()  # what was lost comes back
    left.write_bytes(b"something else")
    assert keep_weights(given, kept, directory) == kept
    assert left.read_bytes() == given["densenet121"].path.read_bytes()


def test_weights_are_looked_for_when_it_is_known_who_needs_them(
    data: Path, directory: Path, asked_for: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two classes need no network for the models of three."""
    looked: list[tuple[str, tuple[str, ...]]] = []

    def resolve(choice: str, models: Sequence[str], announce: object) -> dict[str, Pretrained]:
        looked.append((choice, tuple(models)))
        return {}

    monkeypatch.setattr(study_module, "resolve_weights", resolve)
    study = transfer(data, ALL, skippable=True, seeds=1, weights="imagenet")
    study = dataclasses.replace(study, recipes=study.recipes | {"binary/cnn": RECIPE})
    study = dataclasses.replace(study, specs=study.specs | {"binary/cnn": SPEC})
    del study.recipes["binary/densenet121"]
    follow(study, directory)
    assert looked == [("imagenet", ("cnn",))]


def test_a_run_starts_from_the_file_in_the_study(
    strokes: Path, directory: Path, tmp_path: Path, asked_for: list[Run]
) -> None:
    """The folder that was given may be gone by then; runs without a backbone start from the seed."""
    spec = dataclasses.replace(SPEC, head="dense")  # all that the tiny model has is its last layer
    study = make_study(strokes, seeds=1, frameworks=("tiny-a",), specs={"binary/cnn": spec})
    path = tmp_path / "cnn.safetensors"
    save_file({"dense.weight": np.ones((1000, 5), np.float32)}, path)
    given = Pretrained(path, "a file", file_sha256(path))
    prepare_study(study, directory, find_weights=lambda models: dict.fromkeys(models, given))
    path.unlink()
    run_study(study, directory, lambda run, event: None)
    (record,) = read_study(directory).complete
    assert record.document["pretrained"] == {"source": "a file", "sha256": given.sha256}
