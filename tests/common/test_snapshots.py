"""A run that is killed goes on from its snapshot as if it had never been disturbed, or begins anew and says why."""

import dataclasses
import errno
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load
from tiny import RECIPE, Model, TinyFramework, make_study, tiny_world, write_pictures

from common import config, engines, snapshots
from common.config import Run
from common.data.batches import Witness
from common.framework import Array, Batch, Settings, Weights
from common.measure import StepClock
from common.random_numbers import generator
from common.results import read_json, read_run, run_directory, write_json
from common.run import execute
from common.snapshots import DOCUMENT, TENSORS, SnapshotKeeper, safetensors_bytes
from common.study import prepare_study

__all__ = ["tiny_world"]  # a fixture
pytestmark = pytest.mark.usefixtures("tiny_world")

A = Run("binary", "cnn", "tiny-a", "aligned", seed=0, fold=0)
EPOCHS, HEAD_EPOCHS = 5, 2
LONGER = dataclasses.replace(RECIPE, epochs=EPOCHS, head_epochs=HEAD_EPOCHS, learning_rate=0.1)
SECONDS = ["seconds", "images_per_second", "wait_seconds"]


class Heavy(TinyFramework):
    """A ball that rolls: with momentum, and noise that it draws itself."""

    def __init__(self, name: str = "tiny-a") -> None:
        super().__init__(name)
        self.drawn = 0  # numbers so far, of this process

    def configure(self, settings: Settings) -> str:
        self.drawn = 1000 * settings.seed
        return super().configure(settings)

    def create_trainer(self, model: Model, recipe: Any, trainable: str = "all") -> Any:
        super().create_trainer(model, recipe, trainable)
        return {"model": model, "momentum": {name: np.zeros(array.shape) for name, array in model.items()}}

    def train_epoch(self, trainer: Any, batches: Iterable[tuple[Batch, float]]) -> NDArray[np.float64]:
        model, losses = trainer["model"], []
        for pair in batches:
            before = dict(model)
            losses.append(super().train_epoch(model, [pair]))
            self.drawn += 1
            for name, momentum in trainer["momentum"].items():
                noise = 0.01 * generator("heavy", name, self.drawn).standard_normal(momentum.shape)
                trainer["momentum"][name] = 0.8 * momentum + model[name] - before[name] + noise
                # Rounded as `read_weights` hands it out
                model[name] = (before[name] + trainer["momentum"][name]).astype(np.float32).astype(np.float64)
        return np.concatenate(losses)

    def read_trainer_state(self, trainer: Any) -> dict[str, Array]:
        state = {f"first.{name}": array.copy() for name, array in trainer["momentum"].items()}
        return {"draws.own": np.array(self.drawn, dtype=np.int64), **state}

    def write_trainer_state(self, trainer: Any, state: Weights) -> None:
        self.drawn = int(state["draws.own"])
        for name in trainer["momentum"]:
            trainer["momentum"][name] = state[f"first.{name}"].copy()


class Spoiling(Heavy):
    """Forgets everything after its first epoch."""

    def train_epoch(self, trainer: Any, batches: Iterable[tuple[Batch, float]]) -> NDArray[np.float64]:
        losses, model = super().train_epoch(trainer, batches), trainer["model"]
        if self.drawn > len(losses):
            model["dense.weight"] = -8 * model["dense.weight"]  # exact in float32
        return losses


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared study that keeps a snapshot of every epoch."""
    folder = tmp_path_factory.mktemp("data")
    pictures = write_pictures(folder / "pictures", patients=16, more_normal=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(engines.PACKAGES, "tiny-a", ("numpy",))
        recipes = {"binary/cnn": LONGER}
        prepare_study(
            make_study(pictures, ("tiny-a",), recipes=recipes, checkpoint_every=1), folder / "study"
        )
    return folder / "study"


@pytest.fixture
def prepared(original: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copies of it, with other settings."""

    def prepare(name: str = "study", **changes: Any) -> Path:
        shutil.copytree(original, tmp_path / name)
        change_study(tmp_path / name, **changes)
        return tmp_path / name

    return prepare


def change_study(directory: Path, **changes: Any) -> None:
    document = read_json(directory / "study.json")
    document["study"].update(changes)
    write_json(directory / "study.json", document)


def run_once(
    directory: Path, killed_after: int = 0, threads: int = 1, kind: type[TinyFramework] = Heavy
) -> bool:
    """Carry out run A in a process of its own, as it were; returns whether it came to its end."""

    def emit(event: dict[str, Any]) -> None:
        if event.get("epoch") == killed_after:
            raise Killed

    try:
        execute(kind(), directory, A, threads, emit)
    except Killed:
        return False
    return True


def outcome(directory: Path) -> dict[str, Any]:
    """All that a run says but when and how long."""
    record = read_run(directory, A)
    assert record is not None
    assert record.complete
    folder = record.directory
    assert not (folder / TENSORS).exists()
    assert not (folder / DOCUMENT).exists()
    document = {
        name: value
        for name, value in record.document.items()
        if name
        not in (
            "timings",
            "memory",
            "energy",
            "started",
            "finished",
            "resumed",
            "command",
            "git_commit",
            "files",
            "seal_sha256",
        )
    }
    files = {name: (folder / name).read_bytes() for name in ("predictions.npz", "model.safetensors")}
    history = pd.read_csv(folder / "history.csv").drop(columns=SECONDS)
    return {"document": document, "files": files, "history": history.to_csv()}


def resumed_of(directory: Path) -> list[int]:
    return list(read_json(run_directory(directory, A) / "run.json")["resumed"])


# --- going on -----------------------------------------------------------------------------------------------------


def test_a_run_killed_after_any_epochs_ends_as_if_it_never_was(
    prepared: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Within either phase and at the end of the first; twice in one run; weights of a best epoch before the kill."""
    expected = None
    for kills in ((), *((epoch,) for epoch in range(1, EPOCHS)), (1, 3), (2, 2 + 1, 4)):
        directory = prepared("-".join(map(str, ("study", *kills))))
        for epoch in kills:
            assert not run_once(directory, killed_after=epoch)
            assert read_run(directory, A) is None
        assert run_once(directory)
        assert resumed_of(directory) == list(kills)
        found = outcome(directory)
        expected = expected or found
        assert found == expected, kills
        said = capsys.readouterr().err
        assert [f"goes on after epoch {epoch}," in said for epoch in kills] == [True] * len(kills)


def test_the_chosen_epoch_may_lie_before_the_kill(prepared: Callable[..., Path]) -> None:
    whole, killed = prepared("whole"), prepared("killed")
    assert run_once(whole, kind=Spoiling)
    assert outcome(whole)["document"]["choice"]["epoch"] == 1
    run_once(killed, killed_after=3, kind=Spoiling)
    assert run_once(killed, kind=Spoiling)
    assert outcome(killed) == outcome(whole)


def test_what_lies_between_two_snapshots_is_done_again(prepared: Callable[..., Path]) -> None:
    whole, killed = prepared("whole", checkpoint_every=0), prepared("killed", checkpoint_every=2)
    run_once(killed, killed_after=3)
    assert run_once(killed)
    assert resumed_of(killed) == [2]
    assert not run_once(whole, killed_after=3)
    assert not (run_directory(whole, A) / DOCUMENT).exists()
    assert run_once(whole)  # from the start
    assert resumed_of(whole) == []
    assert outcome(killed) == outcome(whole)


def test_the_record_adds_up_what_all_processes_timed(prepared: Callable[..., Path]) -> None:
    directory = prepared()
    run_once(directory, killed_after=3)
    run_once(directory)
    record = read_run(directory, A)
    assert record is not None
    history, timings = record.history(), record.document["timings"]
    assert timings["train_seconds"] == pytest.approx(history["seconds"].sum())
    assert timings["wait_seconds"] == pytest.approx(history["wait_seconds"].sum())
    assert 0 < timings["trainer_seconds"] < timings["total_seconds"]
    steps = int(history["step"].iloc[-1])
    steady = timings["train_seconds"] - timings["first_step_seconds"] - timings["wait_seconds"]
    # Three cold steps: the first of each phase, and of the second process
    images = (steps - 3) * RECIPE.batch_size
    assert timings["steady_images_per_second"] == pytest.approx(images / steady)
    assert record.document["energy"] is None


def test_a_clock_goes_on_from_another() -> None:
    clock = StepClock(lambda: None)
    clock.go_on_from([3.0, 1.0, 1.0], (0,), 0.5)
    list(clock.watch(range(2)))
    assert (len(clock.step_seconds), clock.cold_steps) == (5, (0, 3))
    assert clock.wait_seconds >= 0.5


# --- beginning anew -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        (
            {"recipes": {"binary/cnn": config.to_json(dataclasses.replace(LONGER, weight_decay=0.5))}},
            "recipe",
        ),
        ({"precision": "float64"}, "precision"),
    ],
)
def test_a_snapshot_of_another_run_is_removed(
    prepared: Callable[..., Path], changes: dict[str, Any], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = prepared()
    run_once(directory, killed_after=2)
    change_study(directory, **changes)
    run_once(directory)
    assert resumed_of(directory) == []
    assert f"begins anew: it is of another {word}\n" in capsys.readouterr().err


def test_a_snapshot_of_other_code_is_removed(
    prepared: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The report's code says nothing of a training; any other file of the packages may."""
    for name in ("common/data/a.py", "torch_impl/b.py", "common/report/c.py"):
        (tmp_path / "code" / name).parent.mkdir(parents=True)
        (tmp_path / "code" / name).write_text("x = 1\n")
    monkeypatch.setattr(snapshots, "ROOT", tmp_path / "code")
    directory = prepared()
    run_once(directory, killed_after=1)
    (tmp_path / "code/common/report/c.py").write_text("x = 2\n")
    run_once(directory, killed_after=2)
    assert "goes on after epoch 1," in capsys.readouterr().err
    (tmp_path / "code/common/data/a.py").write_text("x = 2\n")
    run_once(directory)
    assert "begins anew: it is of another code\n" in capsys.readouterr().err
    assert resumed_of(directory) == []


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_number_of_threads_matters_where_bits_do(
    prepared: Callable[..., Path], deterministic: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = prepared(deterministic=deterministic)
    run_once(directory, killed_after=2, threads=1)
    run_once(directory, threads=2)
    assert resumed_of(directory) == ([] if deterministic else [2])
    assert ("of another threads" in capsys.readouterr().err) == deterministic


def cut(folder: Path) -> None:
    path = folder / TENSORS
    path.write_bytes(path.read_bytes()[:-3])


def turn_a_bit(folder: Path) -> None:
    data = bytearray((folder / TENSORS).read_bytes())
    data[-20] ^= 4
    (folder / TENSORS).write_bytes(bytes(data))


def edit(folder: Path) -> None:
    document = read_json(folder / DOCUMENT)
    document["history"][0]["val_loss"] = 0.0
    write_json(folder / DOCUMENT, document)


def lie(folder: Path) -> None:
    """Right digests about tensors that are none of the run's."""
    document = read_json(folder / DOCUMENT)
    identity = document["identity"]
    progress = snapshots.read_snapshot(folder, identity)
    other = dict(progress.batches) | {"order_sha256": "0" * 64}
    snapshots.write_snapshot(folder, identity, dataclasses.replace(progress, batches=other))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (cut, "damaged"),
    "one bit": (turn_a_bit, "damaged"),
    "edited": (edit, "damaged"),
    "no JSON": (lambda folder: (folder / DOCUMENT).write_bytes(b"\xff{"), "damaged"),
    "another JSON": (lambda folder: (folder / DOCUMENT).write_text("[1]"), "damaged"),
    "no tensors": (lambda folder: (folder / TENSORS).unlink(), "damaged"),
    "tensors alone": (lambda folder: (folder / DOCUMENT).unlink(), ""),
    "other batches": (lie, "the batches before it were others"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_snapshot_is_removed_and_costs_only_time(
    prepared: Callable[..., Path], damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, (spoil, word) = prepared(), DAMAGES[damage]
    run_once(directory, killed_after=2)
    spoil(run_directory(directory, A))
    assert run_once(directory)
    assert resumed_of(directory) == []
    said = capsys.readouterr().err
    assert word in said
    assert ("begins anew" in said) == bool(word)
    again = prepared("again")
    run_once(again)
    assert outcome(again) == outcome(directory)


def test_a_full_disk_costs_the_snapshot_and_not_the_run(
    prepared: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(snapshots, "write_atomically", fail)
    assert run_once(prepared())
    assert "no snapshot after epoch 1: No space left on device" in capsys.readouterr().err


# --- files --------------------------------------------------------------------------------------------------------


def test_a_kill_while_a_snapshot_is_written_leaves_the_one_before(
    prepared: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the two files is being written: neither has its name before both are on disk."""
    directory, other = prepared(), prepared("other")
    run_once(directory, killed_after=2)
    run_once(other)
    before = {path.name: path.read_bytes() for path in run_directory(directory, A).iterdir()}
    write = snapshots.write_atomically
    monkeypatch.setattr(
        snapshots,
        "write_atomically",
        lambda path, action: _die() if path.name == TENSORS else write(path, action),
    )
    with pytest.raises(Killed):
        execute(Heavy(), directory, A, 1, lambda event: None)
    monkeypatch.setattr(snapshots, "write_atomically", write)
    assert {path.name: path.read_bytes() for path in run_directory(directory, A).iterdir()} == before
    run_once(directory)
    assert resumed_of(directory) == [2]
    assert outcome(directory) == outcome(other)


def _die() -> None:
    raise Killed


@pytest.mark.parametrize(
    ("every", "due"),
    [(None, [False, False, True]), (0, [False] * 3), (1, [True] * 3), (2, [False, True, True])],
)
def test_when_a_snapshot_is_due(every: int | None, due: list[bool]) -> None:
    keeper, minute = SnapshotKeeper(Path(), {}, every), config.SNAPSHOT_SECONDS
    times = [(1, 0.0), (2, minute - 1), (4, minute)]  # epoch, seconds since the last
    assert [keeper.due(*time) for time in times] == due


def test_the_tensors_are_a_safetensors_file() -> None:
    tensors: dict[str, Array] = {
        "steps": np.array(7, dtype=np.int64),
        "a/b": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "draws": np.array([1, 2**32 - 1], dtype=np.uint32),
        "state": np.arange(5, dtype=np.uint8),
        "none": np.zeros(0),
        "exact": np.array([1 / 3]),
    }
    found = load(b"".join(map(bytes, safetensors_bytes(tensors))))
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(found[name], array)


def test_a_witness_that_recalls_says_what_it_would_have_seen() -> None:
    order = np.arange(6, dtype=np.int64).reshape(3, 2)
    empty = np.zeros((2, 1, 1, 1), dtype=np.float32)
    whole, recalled = Witness(), Witness()
    batches = [Batch(empty, empty, empty, rows) for rows in order]
    list(whole.watch(batches))
    list(recalled.watch(batches[:1]))
    recalled.recall(order[1:])
    assert recalled.record()["order_sha256"] == whole.record()["order_sha256"]
    recalled.forget()
    list(recalled.watch(batches))
    assert recalled.record() == whole.record()
