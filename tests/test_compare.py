"""The command line of `compare.py` on a small real study: what it writes, that it goes on, and how it refuses."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from report_fixture import leave_figures

import compare
from common.config import FRAMEWORKS, MODELS, NOTICE, Phantom
from common.data.phantom import write_phantom
from common.engines import check_framework
from common.errors import StudyError
from common.metrics.segmentation import dice_score
from common.random_numbers import generator
from common.results import RunRecord, StudyRecord, read_study, unpack_masks

ROOT = Path(__file__).resolve().parents[1]
BOTH = ("torch", "keras-tensorflow")
LIGHT = ("--epochs", "1", "--repeats", "0", "--batch-size", "16", "--device", "cpu", "--threads", "1")
SMALL = ("--tasks", "binary", *LIGHT)  # where the test is not about tasks
TIMEOUT_SECONDS = 300
END_SECONDS = 20  # within which an orphaned worker must have gone


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "compare.py"), *map(str, arguments)]


def run(
    *arguments: object, prefix: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, *command(*arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )


def run_here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The same command in this process, which has loaded what a start would load again, with empty figures."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        leave_figures(patch)
        code = compare.main([*map(str, arguments)])
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def times(directory: Path) -> dict[str, int]:
    """Every file below, but for the lock, and when it was written, in nanoseconds."""
    return {
        str(path.relative_to(directory)): path.stat().st_mtime_ns
        for path in directory.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def partial_files(directory: Path) -> list[Path]:
    return list(directory.rglob("*.partial"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten drawn patients in the two-class layout, and two files that are no pictures."""
    folder = tmp_path_factory.mktemp("pictures") / "heads"
    write_phantom(folder, Phantom(patients=10, slices_max=9, image_size=64), "binary")
    whole = sorted(folder.rglob("*.jpg"))[0]
    (whole.parent / "900 (1).jpg").write_bytes(whole.read_bytes()[:3000])
    (whole.parent / "900 (2).jpg").write_bytes(b"")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _both_installed() -> None:
    for name in BOTH:
        try:
            check_framework(name)
        except StudyError as error:
            pytest.skip(str(error))


# --- a study ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def first(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyRecord, str]:
    """A finished study of one seed, and what it printed."""
    directory = tmp_path_factory.mktemp("results") / "small"
    answer = run("study", "--data", data, "--seeds", 1, *SMALL, "--out", directory)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stderr == ""
    return read_study(directory), answer.stdout


def test_a_study_writes_what_was_promised(first: tuple[StudyRecord, str]) -> None:
    record, _ = first
    for name in ("study.json", "data/samples.csv", "data/split.csv", "data/audit.json"):
        assert (record.directory / name).stat().st_size > 0
    for name in ("report.html", "report.md", "summary.json"):
        assert (record.directory / name).stat().st_size > 0
    assert list((record.directory / "tables").glob("*.csv"))
    assert list((record.directory / "figures").glob("*.svg"))
    assert [found.run.framework for found in record.complete] == list(BOTH)
    for found in record.complete:
        names = {path.name for path in found.directory.iterdir()}
        assert names == {
            *("run.json", "history.csv", "predictions.npz", "model.safetensors"),
            *("run.log", "engine.json"),
        }
        assert (
            found.directory
            == record.directory / "runs/binary/cnn" / found.run.framework / "aligned/seed0-fold0"
        )
    assert partial_files(record.directory) == []
    summary = json.loads((record.directory / "summary.json").read_text(encoding="utf-8"))
    assert {
        "aligned/binary/cnn/torch/auroc_score",
        "aligned/binary/cnn/keras-tensorflow/auroc_score",
    } <= summary.keys()


def test_both_frameworks_received_the_same(first: tuple[StudyRecord, str]) -> None:
    one, other = (found.document for found in first[0].complete)
    assert one["batches"] == other["batches"]
    assert one["data"] == other["data"]
    assert one["weights"]["initial_sha256"] == other["weights"]["initial_sha256"]
    assert one["weights"]["parameters"] == other["weights"]["parameters"]
    for name in ("spec", "recipe", "threads", "precision", "device"):
        assert one[name] == other[name]
    left, right = (found.predictions() for found in first[0].complete)
    np.testing.assert_array_equal(left.sample_id, right.sample_id)
    np.testing.assert_array_equal(left.y_true, right.y_true)


def test_unreadable_pictures_are_left_out_and_listed(first: tuple[StudyRecord, str]) -> None:
    record, printed = first
    audit = record.audit()
    assert sorted(Path(row["path"]).name for row in audit["unreadable"]) == ["900 (1).jpg", "900 (2).jpg"]
    assert audit["used"] == audit["found"] - 2 == len(record.samples())
    for name in ("900 (1).jpg", "900 (2).jpg"):
        (line,) = [line for line in printed.splitlines() if name in line]
        assert line.startswith("left out: ")
    assert NOTICE in printed


def test_a_study_goes_on_where_it_stopped(first: tuple[StudyRecord, str], data: Path, tmp_path: Path) -> None:
    """The same again trains nothing; one seed more trains that seed; a smaller grid forgets nothing."""
    directory = tmp_path / "small"
    shutil.copytree(first[0].directory, directory)  # keeps the times
    before = times(directory / "runs")
    asked = ("study", "--data", data, *SMALL, "--frameworks", "torch", "--out", directory)
    again = run_here(*asked, "--seeds", 1)
    assert again.returncode == 0, again.stderr
    assert "1 of 1 runs are finished already and kept" in again.stdout
    assert times(directory / "runs") == before
    assert read_study(directory).study.frameworks == BOTH

    grown = run_here(*asked, "--seeds", 2)
    assert grown.returncode == 0, grown.stderr
    after = times(directory / "runs")
    assert {name: after[name] for name in before} == before
    added = {str(Path(name).parent) for name in after.keys() - before.keys()}
    assert added == {"binary/cnn/torch/aligned/seed1-fold0"}
    one, other = (
        found.document for found in read_study(directory).complete if found.run.framework == "torch"
    )
    assert one["weights"]["initial_sha256"] != other["weights"]["initial_sha256"]
    assert one["batches"]["sha256"] != other["batches"]["sha256"]
    assert one["data"]["split_sha256"] == other["data"]["split_sha256"]


def test_natively_each_framework_is_left_its_own_and_the_rest_stays(
    first: tuple[StudyRecord, str], data: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "native"
    answer = run_here("study", "--data", data, "--seeds", 1, "--lane", "native", *SMALL, "--out", directory)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    aligned, record = first[0], read_study(directory)
    torch, keras = (found.document for found in record.complete)
    assert [one["run"]["lane"] for one in (torch, keras)] == ["native", "native"]
    assert (torch["spec"]["flatten_order"], keras["recipe"]["loop"]) == ("channels_first", "fit")
    assert torch["weights"]["initial_sha256"] != keras["weights"]["initial_sha256"]
    assert torch["batches"]["order_sha256"] != keras["batches"]["order_sha256"]
    assert torch["data"] == keras["data"] == aligned.complete[0].document["data"]
    assert torch["weights"]["parameters"] == keras["weights"]["parameters"]
    assert record.study.specs == aligned.study.specs  # what was asked for knows no lane
    # PyTorch's flattening is no obstacle: the checkpoint says how its model is built
    of_torch = record.complete[0]
    evaluated = subprocess.run(
        [sys.executable, "-m", "keras_impl", "evaluate", of_torch.directory / "model.safetensors",
         "--study", directory, "--device", "cpu", "--threads", "1", "--out", tmp_path / "scores.csv"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS,
    )  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr
    scores = pd.read_csv(tmp_path / "scores.csv")
    test = of_torch.predictions().of("test")
    assert scores["id"].tolist() == test.sample_id.tolist()
    np.testing.assert_allclose(scores["y_score"], test.y_score, rtol=0, atol=1e-5)


# --- three tasks --------------------------------------------------------------------------------------------------

PAIRS = [("binary", "cnn"), ("subtype", "densenet121"), ("segmentation", "unet")]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyRecord, str]:
    """A study of three tasks on drawn patients with painted overlays, made by two commands; what the second printed."""
    folder = tmp_path_factory.mktemp("tasks")
    phantom = Phantom(patients=12, slices_min=4, slices_max=5, image_size=64)
    write_phantom(folder / "heads", phantom, "strokes")
    asked = ("--data", folder / "heads", "--seeds", 1, "--workers", 2, *LIGHT, "--out", folder / "study")
    answer = run_here("study", *asked, "--tasks", "subtype", "--models", "densenet121")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    answer = run_here("study", *asked, "--models", "cnn", "unet", "--tasks", "binary", "segmentation")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stderr == ""
    return read_study(folder / "study"), answer.stdout


def test_every_task_is_trained_on_one_split(tasks: tuple[StudyRecord, str]) -> None:
    record, _ = tasks
    assert record.study.pairs == PAIRS
    found = {(one.run.task, one.run.model, one.run.framework) for one in record.complete}
    assert found == {(*pair, framework) for pair in PAIRS for framework in BOTH}
    split, audit = record.split(), record.audit()
    assert split.groupby("id")["split"].nunique().max() == 1
    assert set(split["task"]) == {task for task, _ in PAIRS}
    assert audit["patients_from"] == {"table": audit["used"]}
    strokes = audit["labels"]["bleeding"] + audit["labels"]["ischemia"]
    assert audit["masks"] == {"none": audit["labels"]["normal"], "overlay": strokes}


@pytest.mark.parametrize(("task", "model"), PAIRS)
def test_both_frameworks_received_the_same_of_every_task(
    tasks: tuple[StudyRecord, str], task: str, model: str
) -> None:
    one, other = (found for found in tasks[0].complete if found.run.task == task)
    for name in ("batches", "data", "spec", "recipe", "phases", "pretrained"):
        assert one.document[name] == other.document[name], name
    for name in ("initial_sha256", "parameters"):
        assert one.document["weights"][name] == other.document["weights"][name]
    assert one.document["weights"]["final_sha256"] != other.document["weights"]["final_sha256"]
    if task == "segmentation":
        left, right = one.mask_predictions(), other.mask_predictions()
        np.testing.assert_array_equal(left.y_true, right.y_true)
        assert unpack_masks(left.y_true, 96).any()
    np.testing.assert_array_equal(history_of(one), history_of(other))


def history_of(record: RunRecord) -> np.ndarray:
    """Steps and rates, which the schedule decides."""
    return record.history()[["epoch", "step", "learning_rate"]].to_numpy()


def test_the_report_has_every_task_and_the_two_stages(tasks: tuple[StudyRecord, str]) -> None:
    record, printed = tasks
    summary = json.loads((record.directory / "summary.json").read_text(encoding="utf-8"))
    primary = {"binary": "auroc_score", "subtype": "auroc_score", "segmentation": "dice_score"}
    for task, model in PAIRS:
        assert {f"aligned/{task}/{model}/{name}/{primary[task]}" for name in BOTH} <= summary.keys()
    for found in record.complete:
        if found.run.task == "segmentation":
            test = found.mask_predictions().of("test")
            masks = zip(unpack_masks(test.y_true, 96), unpack_masks(test.y_pred, 96), strict=True)
            dice = [dice_score(*pair) for pair in masks if pair[0].any()]
            shown = summary[f"aligned/segmentation/unet/{found.run.framework}/dice_score"]
            assert shown["mean"] == pytest.approx(np.mean(dice))
    cascade = pd.read_csv(record.directory / "tables" / "cascade.csv")
    assert set(cascade["gate_task"]) == {"subtype"}
    assert {"torch", "keras-tensorflow"} <= set(cascade["framework"])
    assert "aligned/cascade/densenet121-unet/torch/gated_dice_score" in summary
    for name in ("report.html", "report.md"):
        text = (record.directory / name).read_text(encoding="utf-8")
        assert all(words in text for words in ("DenseNet-121", "U-Net", "Dice", NOTICE)), name
    assert "Two stages: DenseNet-121 (reduced), then U-Net, aligned" in printed
    assert partial_files(record.directory) == []


# --- the proof ----------------------------------------------------------------------------------------------------


def test_a_proof_stands_beside_a_study(first: tuple[StudyRecord, str], data: Path, tmp_path: Path) -> None:
    directory = tmp_path / "small"
    shutil.copytree(first[0].directory, directory)
    answer = run_here(
        "parity", "--models", "cnn", "--frameworks", "keras-tensorflow", "--profile", "quick", "--steps", 3,
        "--workers", 1, "--data", data, "--out", directory,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stderr == ""
    (row,) = json.loads((directory / "parity.json").read_text(encoding="utf-8"))["rows"]
    assert row["passed"]
    assert (row["model"], row["framework"], row["steps"]) == ("cnn", "keras-tensorflow", 3)
    assert 0 < row["loss_max_rel"] < 1e-12
    assert 0 < row["weights_max_rel"] < 1e-9
    assert len(pd.read_csv(directory / "parity_steps.csv")) == 3
    for text in ("agrees", f"data: {data}", NOTICE, "report: "):
        assert text in answer.stdout
    assert "lockstep/cnn/keras-tensorflow/float64/loss_max_rel" in json.loads(
        (directory / "summary.json").read_text(encoding="utf-8")
    )
    assert not (directory / "parity" / "study").exists()


# --- the ladder ---------------------------------------------------------------------------------------------------


def test_a_ladder_stands_beside_a_study_and_ends_in_lockstep(
    first: tuple[StudyRecord, str], data: Path, tmp_path: Path
) -> None:
    """With two frameworks that need no compilation, for time's sake."""
    try:
        check_framework("keras-torch")
    except StudyError as error:
        pytest.skip(str(error))
    directory = tmp_path / "small"
    shutil.copytree(first[0].directory, directory)
    before = times(directory)
    asked = (
        "ladder",
        "--models",
        "cnn",
        "--frameworks",
        "torch",
        "keras-torch",
        "--data",
        data,
        "--out",
        directory,
    )
    answer = run_here(*asked, "--seeds", 1, "--steps", 2)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stderr == ""
    table = pd.read_csv(directory / "ladder.csv").query("measure == 'loss'").set_index(["arm", "rung"])
    document = json.loads((directory / "ladder.json").read_text(encoding="utf-8"))
    names = [one["name"] for one in document["ladders"][0]["defaults"]]
    assert table.loc["walk", "default"].fillna("").tolist() == ["", *names]
    assert table.loc["alone", "default"].tolist() == names
    assert abs(table.loc[("walk", 0), "gap"]) > 1e-3  # native: two programs
    assert abs(table.loc[("walk", len(names)), "gap"]) < 1e-5  # lockstep: one, in float32
    assert abs(table.loc[("alone", names.index("initial_weights") + 1), "gap"]) > 1e-3
    assert table.loc["walk", "share"].sum() == pytest.approx(
        table.loc[("walk", 0), "gap"] - table.loc[("walk", len(names)), "gap"]
    )
    assert "keras-torch minus torch" in answer.stdout
    assert NOTICE in answer.stdout
    after = times(directory)
    assert after["report.html"] > before["report.html"]
    runs = [name for name in before if name.startswith("runs/")]
    assert [after[name] for name in runs] == [before[name] for name in runs]

    refused = run_here(*asked, "--seeds", 1, "--steps", 3)
    assert refused.returncode == 2
    assert_one_sentence(
        refused.stderr, str(directory), "steps 2, and 3 was asked for", "choose another --out"
    )


# --- kill ---------------------------------------------------------------------------------------------------------


def workers_of(directory: Path) -> list[int]:
    """Ids of the worker processes of a study that live."""
    found = []
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = status.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it ended meanwhile
            continue
        if str(directory) in words and "--supervised" in words:
            found.append(int(status.parent.name))
    return found


def wait_for(condition: object, seconds: float, what: str) -> None:
    limit = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < limit, f"{what} did not come in {seconds} s"
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="worker processes are found in /proc")
def test_a_killed_study_goes_on_and_ends_as_if_undisturbed(
    first: tuple[StudyRecord, str], data: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "killed"
    asked = ("study", "--data", data, "--seeds", 1, *SMALL, "--out", directory)
    runs = [directory / "runs" / found.run.path for found in first[0].complete]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command(*asked),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    # The driver alone: its worker must notice and end
    driver = start()
    try:
        wait_for((runs[1] / "run.log").exists, TIMEOUT_SECONDS, "the second run")
        wait_for(lambda: workers_of(directory), END_SECONDS, "its worker")
        (worker,) = workers_of(directory)
    finally:
        driver.kill()
        driver.wait()
    wait_for(lambda: worker not in workers_of(directory), END_SECONDS, "the orphan's end")
    assert (runs[0] / "run.json").exists()
    assert not (runs[1] / "run.json").exists()
    finished = times(runs[0])

    # The whole process group, in the middle of the run that was missing; what a killed write leaves is planted
    driver = start()
    try:
        wait_for(lambda: workers_of(directory), TIMEOUT_SECONDS, "the worker")
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    wait_for(lambda: not workers_of(directory), END_SECONDS, "the workers' end")
    (runs[1] / ".model.safetensors.xyz.partial").write_bytes(b"half")
    (runs[1] / "history.csv").write_text("half", encoding="utf-8")
    assert len(read_study(directory).runs) == 1

    answer = run_here(*asked)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "1 of 2 runs are finished already and kept" in answer.stdout
    assert times(runs[0]) == finished
    assert partial_files(directory / "runs") == []
    for found, undisturbed in zip(read_study(directory).complete, first[0].complete, strict=True):
        assert_equal_runs(found, undisturbed)


def assert_equal_runs(one: RunRecord, other: RunRecord) -> None:
    for name in ("weights", "batches", "data", "choice", "threshold"):
        assert one.document[name] == other.document[name], name
    np.testing.assert_array_equal(one.predictions().y_score, other.predictions().y_score)


# --- refusals -----------------------------------------------------------------------------------------------------


def assert_one_sentence(stderr: str, *fragments: str) -> None:
    (line,) = stderr.splitlines()
    assert line.startswith("compare.py: ")
    assert len(line) < 500
    for fragment in fragments:
        assert fragment in line


def write_slices(folder: Path, names: list[str]) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), generator("compare", name).integers(0, 255, (64, 64)).astype(np.uint8))
    return folder


def empty(folder: Path) -> None:
    folder.mkdir()


def one_class(folder: Path) -> None:
    write_slices(folder, [f"Stroke/{patient} (1).png" for patient in range(8)])


def two_images(folder: Path) -> None:
    write_slices(folder, ["Normal/1 (1).png", "Stroke/2 (1).png"])


def nothing_readable(folder: Path) -> None:
    for patient in range(6):
        path = folder / ("Stroke" if patient % 2 else "Normal") / f"{patient} (1).jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no picture")


def missing(folder: Path) -> None:
    del folder


def a_file(folder: Path) -> None:
    folder.write_text("no folder", encoding="utf-8")


@pytest.mark.parametrize(
    ("make", "fragments"),
    [
        (one_class, ["given lacks a class", "Normal/ is missing"]),
        (two_images, ["only one patient has images of 'normal'", "leave it out of --tasks"]),
        (nothing_readable, ["none of the 6 pictures can be read"]),
        (missing, ["given", "does not exist"]),
        (a_file, ["given"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_bad_data_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: object, fragments: list[str]
) -> None:
    make(tmp_path / "given")  # type: ignore[operator]
    code = compare.main(["--data", str(tmp_path / "given"), *SMALL, "--out", str(tmp_path / "out")])
    assert code == 2
    assert_one_sentence(capsys.readouterr().err, *fragments)
    assert not (tmp_path / "out" / "study.json").exists()


def nothing_known(folder: Path) -> None:
    write_slices(folder, [f"scans/{number}.png" for number in range(8)])


@pytest.mark.parametrize(
    ("make", "fault"), [(nothing_known, " fits no known layout."), (empty, " is empty; expected: ")]
)
def test_an_unknown_layout_is_shown_beside_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], None], fault: str
) -> None:
    make(tmp_path / "given")
    assert compare.main(["--data", str(tmp_path / "given"), *SMALL, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("compare.py: ")
    assert f"{tmp_path / 'given'}{fault}" in said.splitlines()[0]
    assert ("scans" in said) == (make is nothing_known)  # what was found
    assert "Normal/ and Stroke/" in said  # what was expected
    assert not (tmp_path / "out" / "study.json").exists()


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (["--frameworks", "theano"], ["theano", *FRAMEWORKS]),
        (["--seeds", "0"], ["--seeds", "'0'"]),
        (["--sedes", "2"], ["--sedes"]),
        (["ladder", "--frameworks", "torch"], ["--frameworks", "expected 2"]),
        (["ladder", "--models", "resnet"], ["--models", "resnet", *MODELS]),
        (["ladder", "--steps", "0"], ["--steps", "'0'"]),
    ],
)
def test_bad_options_are_refused(
    capsys: pytest.CaptureFixture[str], options: list[str], fragments: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        compare.main(options)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    for fragment in fragments:
        assert fragment in line


def test_a_proof_of_the_reference_alone_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["parity", "--frameworks", "torch"]) == 2
    assert "torch alone is compared with nothing; give another of --frameworks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (["--frameworks", "torch", "torch"], ["a ladder compares two frameworks, not torch, torch"]),
        (["--data", "nowhere"], ["--data nowhere does not exist"]),
        (["--data", ".", "--patients", "4"], ["--patients", "goes without --data"]),
    ],
)
def test_bad_options_of_a_ladder_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], fragments: list[str]
) -> None:
    assert compare.main(["ladder", *options, "--out", str(tmp_path / "out")]) == 2
    assert_one_sentence(capsys.readouterr().err, *fragments)
    assert not (tmp_path / "out").exists()


def test_another_study_in_the_same_folder_is_refused(
    first: tuple[StudyRecord, str], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = first[0].directory
    before = times(directory)
    options = [*SMALL, "--epochs", "2", "--seeds", "1", "--out", str(directory)]
    assert compare.main(["--data", str(data), *options]) == 2
    assert_one_sentence(capsys.readouterr().err, str(directory), "recipes", "choose another --out")
    assert times(directory) == before


def test_a_missing_framework_is_named(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorflow" else find_spec(name)
    )
    assert compare.main(["--data", str(data), *SMALL, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert_one_sentence(
        said, "'keras-tensorflow' needs the package tensorflow", "pip install -r keras_impl/requirements.txt"
    )
    assert not (tmp_path / "out").exists()


def test_a_report_of_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["report", str(tmp_path)]) == 2
    assert_one_sentence(capsys.readouterr().err, "study.json")


# --- disks --------------------------------------------------------------------------------------------------------


def mounted(folder: Path, options: str) -> tuple[str, ...]:
    """Words before a command that give it a small file system of its own on `folder`; it goes when the command ends."""
    folder.mkdir()
    prefix = (
        "unshare",
        "--mount",
        "sh",
        "-c",
        f'mount -t tmpfs -o {options} tmpfs "$0" && exec "$@"',
        str(folder),
    )
    possible = shutil.which("unshare") and subprocess.run([*prefix, "true"], capture_output=True, check=False)
    if not possible or possible.returncode != 0:
        pytest.skip("this user cannot mount a file system")
    return prefix


def test_a_read_only_folder_is_named(tmp_path: Path, data: Path) -> None:
    prefix = mounted(tmp_path / "disk", "ro")
    answer = run("--data", data, *SMALL, "--out", tmp_path / "disk" / "out", prefix=prefix)
    assert answer.returncode == 2, answer.stdout + answer.stderr
    assert_one_sentence(answer.stderr, str(tmp_path / "disk" / "out"), "Read-only file system", "--out")


def test_a_disk_that_is_full_before_training_is_named(tmp_path: Path, data: Path) -> None:
    prefix = mounted(tmp_path / "disk", "size=256k")  # the pictures need more
    answer = run("--data", data, *SMALL, "--out", tmp_path / "disk" / "out", prefix=prefix)
    assert answer.returncode == 2, answer.stdout + answer.stderr
    assert_one_sentence(answer.stderr, str(tmp_path / "disk" / "out"), "are free in", "choose another --out")


def test_a_disk_that_fills_up_in_training_fails_the_run_with_its_reason(
    first: tuple[StudyRecord, str], tmp_path: Path, data: Path
) -> None:
    study = first[0].directory
    prepared = sum(path.stat().st_size for path in (study / "data").rglob("*") if path.is_file())
    checkpoint = (first[0].complete[0].directory / "model.safetensors").stat().st_size
    prefix = mounted(tmp_path / "disk", f"size={(prepared + checkpoint // 2) // 1024}k")
    options = ("--seeds", 1, "--frameworks", "torch", *SMALL, "--out", tmp_path / "disk" / "out")
    answer = run("--data", data, *options, prefix=prefix)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert answer.stderr == ""
    (line,) = [line for line in answer.stdout.splitlines() if "binary cnn torch seed 0 fold 0 failed" in line]
    assert "No space left on device" in line
