"""The grid: prepared once, grown but never mixed, resumed where it stopped; in one process, with a NumPy framework."""

import dataclasses
import io
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console
from tiny import RECIPE, SPEC, TinyFramework, make_study, tiny_world, write_pictures

from common import config, engines
from common import study as study_module
from common.config import Augmentation, Phantom, Run, Study
from common.data import cache_build, decoding
from common.data.samples import samples_digest
from common.errors import StudyError
from common.holding import hold
from common.results import discard_damaged, read_json, read_run, read_study, run_directory, write_json
from common.run import execute, record_failure
from common.slices import slice_reader
from common.study import carry_out, missing_runs, prepare_study, report_study, run_study

__all__ = ["tiny_world"]  # a fixture
ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("tiny_world")


class Here:
    """Stands in for the local engine: executes runs in this process; those in `failing` fail."""

    def __init__(self) -> None:
        self.failing: set[Run] = set()
        self.stop_after: int | None = None
        self.executed: list[Run] = []
        self.devices: list[str] = []  # of every call

    def __call__(
        self,
        directory: Path,
        study: Study,
        runs: Sequence[Run],
        on_event: Callable[[Run, dict[str, Any]], object],
    ) -> None:
        self.devices.append(study.device)
        for run in runs:
            if len(self.executed) == self.stop_after:
                raise KeyboardInterrupt
            self.executed.append(run)
            on_event(run, {"started": "now"})
            discard_damaged(run_directory(directory, run))
            if run in self.failing:
                record_failure(
                    directory, run, "the process was ended by SIGABRT", "2026-01-01T00:00:00+00:00"
                )
                on_event(run, {"failed": "the process was ended by SIGABRT"})
            else:
                execute(TinyFramework(run.framework), directory, run, 1, lambda event: None)
                on_event(run, {"complete": True})


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    engine = Here()
    monkeypatch.setattr(engines, "run_locally", engine)
    return engine


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "study"


def follow(study: Study, directory: Path) -> tuple[list[Run], str]:
    """Carry out a study; returns the runs that failed and what was said."""
    text = io.StringIO()
    failed = carry_out(study, directory, Console(file=text, width=200))
    return [record.run for record in failed], text.getvalue()


def state(directory: Path, folder: str = "runs") -> dict[str, tuple[int, int]]:
    """Inode and time of every file."""
    return {
        str(path.relative_to(directory)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in sorted((directory / folder).rglob("*"))
        if path.is_file()
    }


# --- preparing ----------------------------------------------------------------------------------------------------


def test_preparing_twice_changes_nothing(
    data: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(data)
    first = prepare_study(study, directory)
    before = {path.name: path.read_bytes() for path in (directory / "data").iterdir() if path.is_file()}
    cached = state(directory, "data/cache")

    def refuse(path: str) -> np.ndarray:
        raise AssertionError(f"{path} was decoded again")

    monkeypatch.setattr(decoding, "read_slice", refuse)
    monkeypatch.setattr(study_module, "utc_now", lambda: "2030-01-01T00:00:00+00:00")
    second = prepare_study(study, directory)
    assert {
        path.name: path.read_bytes() for path in (directory / "data").iterdir() if path.is_file()
    } == before
    assert state(directory, "data/cache") == cached
    assert second.document == first.document  # `created` too
    assert second.study == study
    assert before.keys() == {"samples.csv", "split.csv", "audit.json"}


def test_what_is_prepared_is_what_the_runs_need(data: Path, directory: Path) -> None:
    record = prepare_study(make_study(data), directory)
    samples, split = record.samples(), record.split()
    assert record.document["samples_sha256"] == samples_digest(samples)
    assert len(samples) == 24
    assert split["id"].tolist() == samples["id"].tolist()
    assert set(split["split"]) == {"train", "val", "test"}
    assert set(split["task"]) == {"binary"}
    patient = samples.set_index("id")["patient"]
    assert split["split"].groupby(split["id"].map(patient)).nunique().max() == 1
    assert all((directory / path).is_file() and not Path(path).is_absolute() for path in samples["path"])
    audit = record.audit()
    assert (audit["found"], audit["used"], audit["patients"]) == (24, 24, 12)
    assert audit["labels"] == {"normal": 12, "stroke": 12}
    assert record.document["caches"].keys() == {"16"}
    assert not Path(record.document["caches"]["16"]).is_absolute()  # the folder may be moved


def test_without_data_it_is_the_phantom(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_phantom = Phantom(patients=12, image_size=32, slices_min=2, slices_max=2)
    profile = dataclasses.replace(config.PROFILES["quick"], phantom=tiny_phantom)
    monkeypatch.setitem(config.PROFILES, "quick", profile)
    record = prepare_study(dataclasses.replace(make_study(directory), data=()), directory)
    assert record.audit()["sources"] == ["phantom"]
    assert record.audit()["patients"] == 12
    more = dataclasses.replace(record.study, patients=13)
    with pytest.raises(StudyError, match=r"holds a study with patients 0, and 13 was asked for"):
        prepare_study(more, directory)
    assert prepare_study(more, directory.with_name("more")).audit()["patients"] == 13


def test_unreadable_pictures_are_left_out_and_listed(data: Path, directory: Path, here: Here) -> None:
    (data / "Normal" / "4 (1).png").write_bytes(b"")
    (data / "Stroke" / "7 (0).png").write_text("no picture")
    failed, said = follow(make_study(data, frameworks=("tiny-a",), seeds=1), directory)
    assert failed == []
    record = read_study(directory)
    audit = record.audit()
    assert (audit["found"], audit["used"]) == (24, 22)
    assert [row["id"] for row in audit["unreadable"]] == ["Normal/4 (1)", "Stroke/7 (0)"]
    left_out = {"Normal/4 (1)", "Stroke/7 (0)"}
    assert left_out.isdisjoint(record.samples()["id"])
    assert left_out.isdisjoint(record.split()["id"])
    assert left_out.isdisjoint(record.runs[0].predictions().sample_id.tolist())
    assert [row["path"] for row in audit["unreadable"]] == ["Normal/4 (1).png", "Stroke/7 (0).png"]
    assert str(data) not in (directory / "data" / "audit.json").read_text()
    assert str(data) not in next((directory / "data" / "cache").glob("*/cache.json")).read_text()
    lines = [line for line in said.splitlines() if line.startswith("left out: ")]
    assert ["4 (1).png is empty" in lines[0], "7 (0).png is no" in lines[1]] == [True, True]


def test_no_readable_picture_at_all_is_an_error(data: Path, directory: Path) -> None:
    for path in data.rglob("*.png"):
        path.write_text("no picture")
    with pytest.raises(
        StudyError, match=r"none of the 24 pictures can be read; the first: .*0 \(0\)\.png is no"
    ):
        prepare_study(make_study(data), directory)
    assert not (directory / "study.json").exists()


def test_a_framework_that_is_not_installed_is_named_before_anything_is_written(
    data: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engines.PACKAGES, "keras-jax", ("numpy", "no_such_package_here"))
    with pytest.raises(StudyError, match=r"'keras-jax' needs the package no_such_package_here.*pip install"):
        prepare_study(make_study(data, frameworks=("tiny-a", "keras-jax")), directory)
    assert not directory.exists()


# --- a folder that cannot be written ------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_made_is_named(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StudyError, match=f"{directory} cannot be written: .*; choose another --out"):
            prepare_study(make_study(data), directory)


@pytest.mark.parametrize("step", ["cache", "write_text_table", "write_json"])
def test_a_full_disk_is_named_and_can_be_mended(
    data: Path, directory: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as change:
        if step == "cache":
            change.setattr(cache_build, "write_json", fail)
        else:
            change.setattr(study_module, step, fail)
        with pytest.raises(StudyError, match="cannot be written: No space left on device; free space or"):
            prepare_study(make_study(data), directory)
    assert not (directory / "study.json").exists()
    assert list(directory.rglob("*.partial")) == []
    assert len(prepare_study(make_study(data), directory).samples()) == 24


# --- one folder, one study ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("profile", "full"),
        ("folds", 2),
        ("split_seed", 1),
        ("precision", "float64"),
        ("precision", "bfloat16"),
        ("device", "cuda"),
        ("devices", 2),
        ("specs", {"binary/cnn": dataclasses.replace(SPEC, hidden=7)}),
        ("recipes", {"binary/cnn": dataclasses.replace(RECIPE, epochs=3)}),
        ("recipes", {"binary/cnn": dataclasses.replace(RECIPE, augmentation=Augmentation(contrast=0.2))}),
        ("data", ("elsewhere",)),
    ],
)
def test_what_would_not_be_comparable_is_refused(
    data: Path, directory: Path, name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_study(make_study(data), directory)
    monkeypatch.setattr(study_module, "resolve_device", lambda device, *_: device)  # as with a GPU
    before = (directory / "study.json").read_bytes()
    changed = dataclasses.replace(make_study(data), **{name: value})
    with pytest.raises(StudyError, match=f"holds a study with {name} .* was asked for.*choose another --out"):
        prepare_study(changed, directory)
    assert (directory / "study.json").read_bytes() == before


def test_what_the_audit_refuses_leaves_the_study_as_it_was(
    data: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = prepare_study(make_study(data), directory)
    before = {name: (directory / "data" / name).read_bytes() for name in ("samples.csv", "split.csv")}

    def refuse(*_: object) -> None:
        raise StudyError("the audit says no")

    monkeypatch.setattr(study_module, "refuse", refuse)
    monkeypatch.setattr(study_module, "split_tasks", lambda grid, readable, table: (grid, table.iloc[1:], []))
    with pytest.raises(StudyError, match="the audit says no"):
        prepare_study(make_study(data), directory)
    assert {name: (directory / "data" / name).read_bytes() for name in before} == before
    assert read_study(directory).split().equals(record.split())


def test_lanes_seeds_and_repeats_may_grow(data: Path, directory: Path) -> None:
    first = dataclasses.replace(make_study(data), seeds=1)
    prepare_study(dataclasses.replace(first, lanes=("native",), accepted=("painted-inputs",)), directory)
    grown = prepare_study(dataclasses.replace(first, seeds=2, repeats=1), directory).study
    assert (grown.lanes, grown.seeds, grown.repeats) == (("aligned", "native"), 2, 1)
    assert grown.accepted == ("painted-inputs",)


@pytest.mark.parametrize("change", ["pixel", "removed", "added", "label"])
def test_data_that_changed_under_a_study_are_refused(data: Path, directory: Path, change: str) -> None:
    prepare_study(make_study(data), directory)
    before = (directory / "study.json").read_bytes()
    picture = data / "Normal" / "0 (0).png"
    if change == "pixel":
        pixels = cv2.imread(str(picture), cv2.IMREAD_GRAYSCALE)
        assert pixels is not None
        cv2.imwrite(str(picture), pixels ^ np.uint8(1))
    elif change == "removed":
        picture.unlink()
    elif change == "added":
        shutil.copy(picture, data / "Normal" / "0 (9).png")
    else:
        picture.rename(data / "Stroke" / "0 (0).png")
    with pytest.raises(StudyError, match=r"the data in .* differ from those of the study"):
        prepare_study(make_study(data), directory)
    assert (directory / "study.json").read_bytes() == before


def test_a_folder_with_something_else_as_study_json_is_refused(data: Path, directory: Path) -> None:
    write_json(directory / "study.json", {"study": {"surprise": 1}})
    with pytest.raises(StudyError, match=r"study\.json does not describe a study"):
        prepare_study(make_study(data), directory)


# --- one device ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", ["cpu", "cuda"])
def test_auto_is_resolved_once_for_every_run(
    data: Path, directory: Path, here: Here, monkeypatch: pytest.MonkeyPatch, seen: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(engines, "probe_framework", lambda framework: {"device": seen})
    follow(make_study(data, device="auto", seeds=1), directory)
    assert read_json(directory / "study.json")["study"]["device"] == seen
    assert here.devices == [seen]


def test_a_gpu_for_one_framework_only_is_refused(
    data: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(
        engines, "probe_framework", lambda name: {"device": "cuda" if name == "tiny-a" else "cpu"}
    )
    with pytest.raises(StudyError, match=r"tiny-a sees cuda, tiny-b only cpu; .* or give --device cpu"):
        prepare_study(make_study(data, device="auto"), directory)
    assert not directory.exists()


# --- running, growing, resuming -----------------------------------------------------------------------------------


def test_a_grid_is_run_once(data: Path, directory: Path, here: Here) -> None:
    study = make_study(data)
    failed, said = follow(study, directory)
    assert failed == []
    assert here.executed == study.runs()
    assert [record.run for record in read_study(directory).complete] == study.runs()
    assert "24 images of 12 patients: {'normal': 12, 'stroke': 12}" in said
    assert "finished already" not in said
    before = state(directory)
    assert len(before) == 4 * 4
    failed, said = follow(study, directory)
    assert failed == []
    assert len(here.executed) == 4
    assert "4 of 4 runs are finished already and kept" in said
    assert state(directory) == before


def test_what_a_kill_left_beside_a_finished_run_is_swept_by_who_holds_the_folder(
    data: Path, directory: Path, here: Here
) -> None:
    study = make_study(data, frameworks=("tiny-a", "tiny-b"), seeds=1)
    follow(study, directory)
    finished, unfinished = (run_directory(directory, run) for run in study.runs())
    before = state(finished, "")
    (unfinished / "run.json").unlink()
    for folder in (finished, unfinished):
        for name in ("snapshot.json", "snapshot.safetensors", ".engine.json.abc.partial"):
            (folder / name).write_bytes(b"{}")
    less = make_study(data, frameworks=("tiny-a",), seeds=1)
    with hold(directory), pytest.raises(StudyError, match="another command is working"):
        follow(less, directory)
    assert len(state(finished, "")) == len(before) + 3
    follow(less, directory)  # what is asked for is there already
    assert state(finished, "") == before
    assert (unfinished / "snapshot.safetensors").exists()  # which that run goes on from


def test_a_grid_grows_without_touching_what_is_there(data: Path, directory: Path, here: Here) -> None:
    follow(make_study(data, frameworks=("tiny-a",), seeds=1), directory)
    before = state(directory)
    larger = make_study(data, frameworks=("tiny-c", "tiny-a"), seeds=3)
    _, said = follow(larger, directory)
    assert "[2/6]" in said  # the finished one counts
    assert {(run.framework, run.seed) for run in here.executed[1:]} == {
        (name, seed) for name in ("tiny-a", "tiny-c") for seed in range(3)
    } - {("tiny-a", 0)}
    assert len(here.executed) == 6
    after = state(directory)
    assert {name: after[name] for name in before} == before

    follow(make_study(data, frameworks=("tiny-b",), seeds=1), directory)
    grown = read_study(directory).study
    assert grown.frameworks == ("tiny-a", "tiny-c", "tiny-b")
    assert grown.seeds == 3  # a smaller request does not shrink the study
    assert len(here.executed) == 7  # and asks for its own runs only
    assert len(missing_runs(grown, directory)) == 2


def test_failed_runs_are_told_and_tried_again(data: Path, directory: Path, here: Here) -> None:
    study = make_study(data)
    here.failing = {study.runs()[1]}
    failed, said = follow(study, directory)
    assert failed == [study.runs()[1]]
    assert "failed: the process was ended by SIGABRT" in said
    before = state(directory)
    here.failing = set()
    failed, said = follow(study, directory)
    assert failed == []
    assert "3 of 4 runs are finished already and kept" in said
    assert here.executed[4:] == [study.runs()[1]]
    again = read_run(directory, study.runs()[1])
    assert again is not None
    assert again.complete
    assert again.document["reason"] is None
    kept = {name: value for name, value in before.items() if str(study.runs()[1].path) not in name}
    after = state(directory)
    assert {name: after[name] for name in kept} == kept


def test_an_interrupted_study_goes_on_where_it_stopped(data: Path, directory: Path, here: Here) -> None:
    study = make_study(data)
    here.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        follow(study, directory)
    before = state(directory)
    third = run_directory(directory, study.runs()[2])
    third.mkdir(parents=True)  # what a killed run leaves
    (third / "model.safetensors").write_text("half")
    (third / ".run.json.x.partial").write_text("{")
    here.stop_after = None
    failed, _ = follow(study, directory)
    assert failed == []
    assert here.executed == study.runs()
    after = state(directory)
    assert {name: after[name] for name in before} == before
    assert list(directory.rglob("*.partial")) == []
    assert [record.run for record in read_study(directory).complete] == study.runs()


def test_a_damaged_record_is_run_again_and_hides_nothing(data: Path, directory: Path, here: Here) -> None:
    study = make_study(data, seeds=1)
    follow(study, directory)
    damaged = run_directory(directory, study.runs()[0]) / "run.json"
    damaged.write_bytes(damaged.read_bytes()[:100])
    record = read_study(directory)
    assert [found.complete for found in record.runs] == [False, True]
    assert record.runs[0].document["reason"].endswith("run.json is damaged; delete its folder")
    failed, said = follow(study, directory)
    assert failed == []
    assert "1 of 2 runs are finished already and kept" in said
    assert here.executed[2:] == [study.runs()[0]]
    assert len(read_study(directory).complete) == 2


@pytest.mark.parametrize("damage", ["absent", "short", "no json", "no cache", "unnamed"])
def test_a_damaged_cache_does_not_keep_the_report_from_being_written(
    data: Path, directory: Path, damage: str
) -> None:
    record = prepare_study(make_study(data), directory)
    assert slice_reader(record) is not None
    folder = directory / record.document["caches"]["16"]
    if damage == "absent":
        shutil.rmtree(folder)
    elif damage == "short":
        (folder / "images-00000.npy").write_bytes(b"")
    elif damage == "no json":
        (folder / "cache.json").write_text("{")
    elif damage == "no cache":
        (folder / "cache.json").write_text('{"ids": 3}')
    else:
        write_json(directory / "study.json", {**record.document, "caches": {}})
    assert slice_reader(read_study(directory)) is None


def test_run_study_returns_what_it_tried(data: Path, directory: Path, here: Here) -> None:
    study = make_study(data, seeds=1)
    prepare_study(study, directory)
    assert run_study(study, directory, lambda run, event: None) == study.runs()
    assert run_study(study, directory, lambda run, event: None) == []


def test_a_moved_study_goes_on(data: Path, directory: Path, here: Here) -> None:
    follow(make_study(data, seeds=1), directory)
    moved = directory.with_name("moved")
    directory.rename(moved)
    failed, _ = follow(make_study(data, seeds=2), moved)
    assert failed == []
    assert len(here.executed) == 4
    assert read_json(moved / "study.json")["study"]["seeds"] == 2


def test_a_study_that_goes_away_is_told_as_that(
    data: Path, directory: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fails for it, or nothing: the remedy is not to give the folder of a study."""
    lost = directory.with_name("lost")

    def lose(*_: object) -> None:
        directory.rename(lost)

    gone = r"study was there when the command began .*gone away.*the same command goes on"
    with monkeypatch.context() as change:
        change.setattr(study_module, "run_study", lose)
        with pytest.raises(StudyError, match=gone):
            follow(make_study(data, frameworks=("tiny-a",), seeds=1), directory)
    lost.rename(directory)
    failed, _ = follow(make_study(data, frameworks=("tiny-a",), seeds=1), directory)
    assert (failed, len(here.executed)) == ([], 1)
    with monkeypatch.context() as change:
        change.setattr(study_module, "slice_reader", lose)
        with pytest.raises(StudyError, match=gone):
            report_study(directory, Console(file=io.StringIO()))
    with pytest.raises(StudyError, match="give the folder of a study"):  # it was not there when this began
        report_study(directory, Console(file=io.StringIO()))
