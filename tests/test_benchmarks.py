"""The benchmark's harness, table and page, with programs of a line each; no time is judged."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from benchmarks import __main__ as command
from benchmarks import disturbances, harness, material, page, steps, trouble
from benchmarks.figure import write_figure
from benchmarks.harness import Contestant, ContestantError, alternate_all, median_interval, peer_environment
from benchmarks.ours import settings_of, synthetic_batch
from benchmarks.plan import TASKS, Options, row_of
from benchmarks.table import Row, merge, missing_row, read_rows, write_rows
from common.config import MODELS, WORKER_ENVIRONMENT, recipe_of
from common.errors import StudyError

# Prints what no answer is, then serves: a unit is so many images, and each block leaves its name in a file
PROGRAM = """
from benchmarks.contestant import serve
print("Found 7 files", end=""); print('{{"not": "for us"}}')
def block(units):
    with open({log!r}, "a") as log: log.write({name!r})
    sum(range(20_000 * units))
    return {images} * units
serve({{"name": {name!r}}}, block, lambda: 0.0)
"""


def contestant(name: str, log: Path, images: int = 1) -> Contestant:
    code = PROGRAM.format(name=name, log=str(log), images=images)
    return Contestant(name, (sys.executable, "-c", code), harness.our_environment("torch", "cpu"))


def test_blocks_alternate_and_each_round_gives_a_ratio(tmp_path: Path) -> None:
    log = tmp_path / "log"
    programs = [contestant("a", log, images=1000), contestant("b", log), contestant("c", log, images=1000)]
    beside_b, beside_c = alternate_all(programs[0], programs[1:], rounds=2, seconds=0.02)
    assert log.read_text().endswith("abccba" * 2)
    assert (beside_b.a, beside_b.b, beside_c.b) == ("a", "b", "c")
    assert (beside_b.a_ready["name"], beside_b.b_ready["name"]) == ("a", "b")
    assert len(beside_b.ratios) == len(beside_b.cpu_ratios) == 2
    assert all(block.images % 1000 == 0 for block in beside_b.a_blocks)
    assert beside_b.ratio > 10 * beside_c.ratio  # b does the same work for a thousandth of the images
    assert 5 < beside_b.a_peak_mib < 2000


def test_a_contestant_that_fails_is_named_with_its_last_words(tmp_path: Path) -> None:
    bad = Contestant("bad", (sys.executable, "-c", "raise OSError('no disk')"), {})
    with pytest.raises(ContestantError, match="bad ended by itself: OSError: no disk") as caught:
        alternate_all(contestant("a", tmp_path / "log"), [bad], start_together=True)
    assert caught.value.name == "bad"
    with pytest.raises(StudyError, match="rounds"):
        alternate_all(bad, [bad], rounds=0)


@pytest.mark.parametrize(
    ("count", "low", "high", "coverage"),
    [(1, 0, 0, 0.0), (5, 0, 4, 1 - 2 / 2**5), (6, 0, 5, 1 - 2 / 2**6), (10, 1, 8, 1 - 2 * 11 / 2**10)],
)
def test_interval_of_the_median_is_exact(count: int, low: int, high: int, coverage: float) -> None:
    found = median_interval([float(value) for value in reversed(range(count))])
    assert found == pytest.approx((low, high, coverage))


def test_shipped_is_the_environment_of_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    shipped = peer_environment("keras-jax", "shipped", "cpu")
    assert shipped["KERAS_BACKEND"] == "jax"
    assert not {"OMP_NUM_THREADS", "MALLOC_TOP_PAD_", "OMP_WAIT_POLICY"} & shipped.keys()
    assert WORKER_ENVIRONMENT.items() <= peer_environment("torch", "same", "cpu").items()


ROW = Row(
    "step",
    "ours",
    "peer | x",
    "unet",
    "torch",
    "same",
    "images/s",
    1.25,
    1.2,
    1.3,
    50,
    40,
    target=1.3,
    rounds=5,
)


def test_table_round_trip_and_what_was_not_measured_again_is_kept(tmp_path: Path) -> None:
    other = dataclasses.replace(ROW, model="cnn", target=None)
    write_rows(tmp_path / "speed.csv", [ROW, other])
    read = read_rows(tmp_path / "speed.csv")
    assert [row.target for row in read] == [1.3, None]
    assert (read[0].ratio, read[0].rounds, read[0].peer, math.isnan(read[0].cpu_ratio)) == (
        1.25,
        5,
        "peer | x",
        True,
    )
    again, another = dataclasses.replace(ROW, ratio=2.0), dataclasses.replace(ROW, peer="another")
    assert merge(read, [again, another]) == [read[1], again, another]  # the CNN comes before the U-Net
    assert read_rows(tmp_path / "none.csv") == []


def test_page_says_what_was_missed_and_what_is_missing() -> None:
    met = dataclasses.replace(ROW, model="cnn", ratio=1.4)
    absent = missing_row(
        "step", "ours", "timm", "densenet121", "torch", "same", "images/s", "timm is not installed"
    )
    text = page.render([ROW, met, absent], {"cpu": "A processor", "packages": {"torch": "2"}})
    assert "**1 of 2 targets are met.**" in text
    assert "- step, unet, torch, peer | x (same): 1.25, wanted 1.30" in text
    assert "| 1.30 **missed** |" in text
    assert "timm (same): timm is not installed" in text
    assert "Research only" in text
    assert "A processor" in text
    widths = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("| ")}
    assert len(widths) == 1


def test_figure_is_drawn_of_what_there_is(tmp_path: Path) -> None:
    absent = missing_row("unet", "ours", "smp", "unet", "torch", "same", "GFLOP/s", "smp is not installed")
    write_figure([absent], tmp_path)
    assert not list(tmp_path.iterdir())
    write_figure([ROW, absent], tmp_path)
    assert "Training step" in (tmp_path / "speed.svg").read_text()
    assert (tmp_path / "speed.png").stat().st_size > 1000


def test_a_missing_peer_is_a_row_and_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "has_peer", lambda package: False)
    options = Options(tmp_path)
    monkeypatch.setattr(steps, "write_material", lambda *arguments, **named: tmp_path)
    rows = [
        *steps.training_rows(options, "torch", "densenet121"),
        *steps.step_rows(options, "torch", "convnext_tiny"),
        *steps.unet_rows(options, "monai", steps.NARROW),
    ]
    assert [row.setting for row in rows] == ["shipped", "same"] * 3
    assert all(math.isnan(row.ratio) and "is not installed" in row.note for row in rows)
    assert {row.met for row in rows} == {None}


def test_work_of_another_size_is_compared_by_operations(tmp_path: Path) -> None:
    programs = [contestant("a", tmp_path / "log", images=100), contestant("b", tmp_path / "log", images=100)]
    found = alternate_all(programs[0], programs[1:], rounds=1, seconds=0.01)[0]
    with_work = dataclasses.replace(found, a_ready={"flops": 4e9}, b_ready={"flops": 1e9})
    row = steps._flop_row(with_work, ("unet", "ours", "peer", "unet", "torch"), "same")
    plain = row_of(found, "unet", "ours", "peer", "unet", "torch", "same")
    assert row.ratio == pytest.approx(4 * plain.ratio)
    assert row.ours_rate == pytest.approx(3 * 4 * plain.ours_rate)  # a training step: three forward passes
    assert row.peer_rate == pytest.approx(3 * 1 * plain.peer_rate)


def test_the_plan_names_every_measurement_and_starts_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["steps", "--plan", "--models", "unet", "--frameworks", "torch"]) == 0
    printed = capsys.readouterr().out
    for title in ("training unet torch", "step unet torch", "U-Net of monai", "U-Net of smp"):
        assert title in printed
    assert "cnn" not in printed
    assert "Research only" in printed


def test_material_is_the_same_slices_for_readers_of_folders_and_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(material, "QUICK_PATIENTS", 1)
    monkeypatch.setattr(material, "FILE_PX", 64)
    folder = material.write_material(tmp_path / "material", (32,), quick=True)
    pictures = list((folder / "subtype").rglob("*.png"))
    masks = list((folder / "segmentation" / "masks").glob("*.png"))
    part = material.training_part(folder, "segmentation", 32, recipe_of("segmentation", "unet", "standard"))
    assert len(part) == len(pictures) == len(masks) == len(list((folder / "binary").rglob("*.png")))
    assert part.cache.unreadable == part.cache.unreadable_masks == ()


@pytest.mark.parametrize("model", MODELS)
def test_the_synthetic_batch_has_the_shapes_of_the_model(model: str) -> None:
    spec, recipe = settings_of(model, "torch", 64)
    batch = synthetic_batch(spec, recipe)
    assert batch.images.shape == (recipe.batch_size, 64, 64, spec.channels)
    outputs = (64, 64, 1) if TASKS[model] == "segmentation" else (spec.outputs,)
    assert batch.targets.shape == (recipe.batch_size, *outputs)


def test_a_slow_start_does_not_decide_how_long_a_block_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def block(session: harness.Session, units: int) -> harness.Block:
        del session
        asked.append(units)  # the first starts a loader, and what lay ready comes at once
        seconds = 5.0 if len(asked) == 1 else max(0.001, (units - 4) * 0.01)
        return harness.Block(seconds, seconds, units, peak_rss_mib=1.0, load=0.0)

    monkeypatch.setattr(harness.Session, "block", block)
    session = object.__new__(harness.Session)
    units = session.calibrate(1.0)
    assert 0.9 < (units - 4) * 0.01 < 1.2
    assert max(asked) < 2 * units  # it creeps up on it


def test_a_disturbance_that_came_too_late_does_not_count(tmp_path: Path) -> None:
    came = disturbances.Outcome("memory", 9.0, 1, 2, 2, 0, True, "report")
    late = dataclasses.replace(came, first_exit=0, commands=1, disturbed=False)
    disturbances.write_tables(tmp_path, [late, came, dataclasses.replace(late, kind="second")])
    rows = (tmp_path / "disturbances.md").read_text().splitlines()
    assert f"| {trouble.KINDS['memory'].about} | 1 | 1 | 2 | 0 | yes |" in rows
    assert (
        f"| {trouble.KINDS['second'].about} | 0 | not done: it came too late, or no run reported it | | | |"
        in rows
    )
    assert rows[-1].endswith(f"{trouble.KINDS['memory'].about}: 1; {trouble.KINDS['second'].about}: 1.")


@pytest.mark.parametrize(
    ("ended", "second", "counts"),
    [
        (False, (2, "compare.py: another command is working in study"), True),
        (True, (0, "report: study/report.html"), False),  # nobody held the folder any more
    ],
)
def test_a_second_command_counts_where_it_is_refused(
    tmp_path: Path, ended: bool, second: tuple[int, str], counts: bool
) -> None:
    (tmp_path / ".lock").touch()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        first = psutil.Process(process.pid)
        if ended:
            process.kill()
            process.wait()
        scene = trouble.Scene(tmp_path, tmp_path, first, lambda: second)
        assert trouble.KINDS["second"].act(scene) is counts
        if not ended:
            both = dataclasses.replace(scene, same_command=lambda: (0, "report"))
            with pytest.raises(AssertionError, match="second command"):
                trouble.KINDS["second"].act(both)


def test_a_worker_without_memory_counts_where_its_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "run.log"
    runs = [
        SimpleNamespace(complete=True, directory=tmp_path, document={}),
        SimpleNamespace(complete=False, directory=tmp_path, document={"reason": "diverged"}),
    ]
    monkeypatch.setattr(trouble, "read_study", lambda out: SimpleNamespace(runs=runs))
    log.write_text("step 1\n")
    assert not trouble.reports_shortage(tmp_path)
    code = "import time; held = []\nwhile len(held) < 5000: time.sleep(0.001); held.append(bytearray(2**20))"
    with (
        log.open("w") as words,
        subprocess.Popen([sys.executable, "-c", code, "torch_impl", "run"], stderr=words),
    ):
        scene = trouble.Scene(tmp_path, tmp_path, psutil.Process(), lambda: (0, ""))
        assert trouble.KINDS["memory"].act(scene)
    assert trouble.KINDS["memory"].came(scene)
    runs.pop()
    assert not trouble.reports_shortage(tmp_path)
