"""The ladder: which trainings it takes, that none is done twice, what its numbers mean, and how it survives."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console
from tiny import RECIPE, SPEC, TinyFramework, make_study, tiny_world, write_pictures

from common import cli, config, engines
from common.config import TASKS, Run, Study, defaults_of, in_lane, with_defaults
from common.errors import StudyError
from common.framework import Batch, Settings
from common.gaps import GAP_COLUMNS, RUN_COLUMNS, describe_ends, gaps_of, show_gaps, tabulate_gaps
from common.ladder import climb_ladder, ladder_study, ladders_of
from common.ladder_runs import Numbers, append_training, read_finished, runs_table
from common.ladder_workers import climb_list
from common.random_numbers import generator
from common.results import read_json, read_study, write_json
from common.run import RunData, load_data
from common.rungs import Training, base_of, climb, rungs_of, train_and_judge, trainings_of
from common.schedule import learning_rate
from common.study import prepare_study

__all__ = ["tiny_world"]  # a fixture

BOTH = ("torch", "keras-tensorflow")
STEPS = 7  # more than the small study's epoch has


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here computes with a framework: their names are enough."""
    for name in BOTH:
        monkeypatch.setitem(engines.PACKAGES, name, ("numpy",))


@pytest.fixture(scope="module")
def quick() -> Study:
    """The ladders of all four models, of three seeds."""
    return ladder_study(tuple(config.MODELS), BOTH, seeds=3)


# --- rungs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", config.MODELS)
def test_the_walk_goes_from_native_to_lockstep(quick: Study, model: str) -> None:
    ((task, _),) = [pair for pair in quick.pairs if pair[1] == model]
    spec, recipe = base_of(quick, task, model)
    defaults = defaults_of(spec, recipe)
    walk = [rung for rung in rungs_of(defaults) if rung.arm == "walk"]
    assert [rung.rung for rung in walk] == list(range(len(defaults) + 1))
    for framework in BOTH:
        ends = [with_defaults(spec, recipe, framework, rung.names) for rung in (walk[0], walk[-1])]
        assert ends == [in_lane(spec, recipe, framework, lane) for lane in ("native", "lockstep")]
    assert in_lane(spec, recipe, "torch", "lockstep") == in_lane(spec, recipe, "keras-jax", "lockstep")
    for before, after in itertools.pairwise(walk):
        assert set(before.names) - set(after.names) == {after.default}
    assert {rung.names for rung in rungs_of(defaults) if rung.arm == "alone"} == {
        (one.name,) for one in defaults
    }


@pytest.mark.parametrize("framework", BOTH)
def test_every_rung_has_one_training_and_no_training_is_done_twice(quick: Study, framework: str) -> None:
    trainings = trainings_of(quick, framework)
    for task, model in quick.pairs:
        spec, recipe = base_of(quick, task, model)
        rungs = {(rung.arm, rung.rung): rung for rung in rungs_of(defaults_of(spec, recipe))}
        for seed in range(quick.seeds):
            own = [one for one in trainings if (one.task, one.model, one.seed) == (task, model, seed)]
            assert sorted(place for one in own for place in one.rungs) == sorted(rungs)
            settings = [with_defaults(spec, recipe, framework, one.names) for one in own]
            for one, trained in zip(own, settings, strict=True):
                for place in one.rungs:
                    assert with_defaults(spec, recipe, framework, rungs[place].names) == trained
            assert all(settings.count(one) == 1 for one in settings)


def test_what_a_framework_has_of_itself_is_not_trained_again(quick: Study) -> None:
    """PyTorch's own epsilon of batch norm is the aligned one: alone it is lockstep, and aligning it changes nothing."""
    unet = dataclasses.replace(
        quick, recipes={"segmentation/unet": quick.recipes["segmentation/unet"]}, seeds=1
    )
    names = [one.name for one in defaults_of(*base_of(unet, "segmentation", "unet"))]
    (lockstep,) = [
        one for one in trainings_of(unet, "torch") if one.names == () or ("walk", len(names)) in one.rungs
    ]
    assert ("alone", names.index("norm_epsilon") + 1) in lockstep.rungs
    (lockstep,) = [one for one in trainings_of(unet, "keras-jax") if ("walk", len(names)) in one.rungs]
    assert lockstep.rungs == (("walk", len(names)),)
    assert len(trainings_of(unet, "torch")) < len(trainings_of(unet, "keras-jax")) < 2 * len(names) + 1


def test_models_stand_on_the_task_they_are_used_for() -> None:
    study = ladder_study(["unet", "densenet121", "cnn"], BOTH)
    assert study.pairs == [("binary", "cnn"), ("subtype", "densenet121"), ("segmentation", "unet")]
    assert all(recipe.head_epochs == 0 for recipe in study.recipes.values())
    for frameworks in (("torch",), ("torch", "torch"), ("torch", "keras-jax", "keras-torch")):
        with pytest.raises(StudyError, match="a ladder compares two frameworks"):
            ladder_study(["cnn"], frameworks)


# --- training -----------------------------------------------------------------------------------------------------


class Sensitive(TinyFramework):
    """Its trained weights depend on every field of spec and recipe, on the seed and on the batches."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.given: list[tuple[Batch, float]] = []

    def build(self, spec: config.ModelSpec) -> dict[str, Any]:
        draw = generator("own", self.name(), self.settings[-1].seed)
        self._spec = spec
        return {name: draw.normal(size=array.shape) for name, array in super().build(spec).items()}

    def train_epoch(self, trainer: Any, batches: Iterable[tuple[Batch, float]]) -> NDArray[np.float64]:
        self.given = list(batches)
        losses = super().train_epoch(trainer, self.given)
        push = generator("push", repr(self._spec), repr(self._recipe), self.settings[-1].seed).normal()
        trainer["dense.weight"] = trainer["dense.weight"] * (1 + 0.01 * push)
        return losses


@pytest.fixture
def study(tmp_path: Path, tiny_world: None) -> Study:
    """The smallest ladder's study: the CNN of the tiny world on a few pictures, two seeds."""
    recipe = dataclasses.replace(RECIPE, label_smoothing=0.1)
    pictures = write_pictures(tmp_path / "pictures", masks=True)
    return make_study(
        pictures,
        frameworks=BOTH,
        tasks=("binary",),
        lanes=("native",),
        recipes={"binary/cnn": recipe},
        specs={"binary/cnn": SPEC},
    )


@pytest.fixture
def prepared(study: Study, tmp_path: Path) -> Path:
    prepare_study(study, tmp_path / "prepared")
    return tmp_path / "prepared"


@pytest.fixture
def data(study: Study, prepared: Path) -> RunData:
    run = Run("binary", "cnn", "torch", "lockstep", seed=0, fold=0)
    return load_data(read_study(prepared), run, TASKS["binary"], *base_of(study, "binary", "cnn"))


@pytest.mark.parametrize("name", BOTH)
def test_a_shared_training_is_exactly_that_of_each_of_its_rungs(
    study: Study, prepared: Path, data: RunData, name: str
) -> None:
    """Every rung trained by itself, in an order of its own, gives the bits that the shared training gave."""
    base, trainings = base_of(study, "binary", "cnn"), trainings_of(study, name)
    events: list[dict[str, Any]] = []
    climb(Sensitive(name), prepared, trainings, STEPS, 1, events.append)
    assert [event["training"] for event in events[1:]] == list(range(len(trainings)))
    shared = {
        (training.seed, *place): (event["loss"], event["score"])
        for training, event in zip(trainings, events[1:], strict=True)
        for place in training.rungs
    }
    alone: dict[tuple[int, str, int], tuple[float, float]] = {}
    for rung in reversed(rungs_of(defaults_of(*base))):
        for seed in range(study.seeds):
            framework = Sensitive(name)
            framework.configure(Settings(seed=seed))
            numbers = train_and_judge(framework, data, *base, rung.names, seed, STEPS)
            alone[seed, rung.arm, rung.rung] = numbers
    assert alone == shared
    assert len(set(shared.values())) == len(trainings)  # the framework did notice every difference


def test_a_training_is_given_its_steps_and_a_schedule_over_just_these(study: Study, data: RunData) -> None:
    base = base_of(study, "binary", "cnn")
    rows: dict[tuple[str, bool], list[list[int]]] = {}
    for name in BOTH:
        for own in (False, True):
            framework = Sensitive(name)
            framework.configure(Settings())
            train_and_judge(framework, data, *base, ("order",) if own else (), 0, STEPS)
            assert [rate for _, rate in framework.given] == [
                learning_rate(k, STEPS, base[1]) for k in range(STEPS)
            ]
            rows[name, own] = [batch.rows.tolist() for batch, _ in framework.given]
            assert {batch.key[1] for batch, _ in framework.given} == {1, 2}  # on into the second epoch
    assert rows["torch", False] == rows["keras-tensorflow", False]
    assert rows["torch", True] != rows["keras-tensorflow", True]


class Still(TinyFramework):
    """Learns nothing."""

    def train_epoch(self, trainer: Any, batches: Iterable[tuple[Batch, float]]) -> NDArray[np.float64]:
        return np.zeros(len(list(batches)))


@pytest.mark.parametrize("name", BOTH)
def test_every_rung_is_judged_by_the_loss_that_all_share(study: Study, data: RunData, name: str) -> None:
    """What learns nothing has one loss on all rungs, whatever divisor, clipping or loop of its own it was left with."""
    spec, recipe = base_of(study, "binary", "cnn")
    framework = Still(name)
    framework.configure(Settings())
    names = [one.name for one in defaults_of(spec, recipe) if one.name != "initial_weights"]
    losses = {
        train_and_judge(framework, data, spec, recipe, left, 0, 2)[0]
        for left in ((), *[(one,) for one in names], tuple(names))
    }
    assert len(losses) == 1
    trained = Sensitive(name)
    trained.configure(Settings())
    assert train_and_judge(trained, data, spec, recipe, (), 0, 2)[0] not in losses


@pytest.mark.parametrize("what", ["loss", "weights"])
def test_a_training_that_diverges_is_told_and_the_next_goes_on(
    study: Study, prepared: Path, what: str
) -> None:
    class Diverging(TinyFramework):
        def train_epoch(self, trainer: Any, batches: Iterable[tuple[Batch, float]]) -> NDArray[np.float64]:
            losses = super().train_epoch(trainer, batches)
            if self.settings[-1].seed == 0:
                losses[2] = losses[2] if what == "weights" else np.inf
                trainer["dense.bias"] = trainer["dense.bias"] + (np.inf if what == "weights" else 0)
            return losses

    trainings = [Training("binary", "cnn", "torch", seed, (), (("walk", 0),)) for seed in (0, 1)]
    events: list[dict[str, Any]] = []
    climb(Diverging("torch"), prepared, trainings, STEPS, 1, events.append)
    expected = (
        "the training loss is inf at step 3" if what == "loss" else "the validation logits after 7 steps are"
    )
    assert events[1]["diverged"].startswith(expected)
    assert events[2]["loss"] > 0
    json.dumps(events, allow_nan=False)


def test_a_list_for_another_framework_is_refused(prepared: Path, tmp_path: Path) -> None:
    training = Training("binary", "cnn", "keras-jax", 0, (), (("walk", 0),))
    write_json(tmp_path / "list.json", {"steps": 2, "trainings": [config.to_json(training)]})
    with pytest.raises(StudyError, match="is for keras-jax, and this is torch"):
        climb_list(TinyFramework("torch"), prepared, tmp_path / "list.json", 1, lambda event: None)


def test_a_worker_carries_out_its_list(
    prepared: Path,
    study: Study,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainings = trainings_of(study, "torch")[:3]
    write_json(tmp_path / "list.json", {"steps": 2, "trainings": [config.to_json(one) for one in trainings]})
    monkeypatch.setattr(cli, "_end_with_parent", lambda: None)
    assert cli.main(Sensitive("torch"), "tiny", ["climb", str(prepared), str(tmp_path / "list.json")]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[0] == {"environment": {"framework": "torch 1.0", "backend": "NumPy"}}
    assert [event["training"] for event in events[1:]] == [0, 1, 2]


# --- gaps ---------------------------------------------------------------------------------------------------------

TWO = tuple(one for one in config.DEFAULTS.values() if one.name in ("order", "adam_epsilon"))
PAIR = ("binary", "cnn")


def runs_of(numbers: dict[tuple[str, int, str], list[float]], measure: str = "loss") -> pd.DataFrame:
    """(arm, rung, framework) -> the measure of seeds 0, 1, ...; the other measure is a constant."""
    rows = []
    for (arm, rung, framework), values in numbers.items():
        for seed, value in enumerate(values):
            both = {"loss": 1.0, "score": 0.5} | {measure: value}
            rows.append((*PAIR, arm, rung, "", framework, seed, both["loss"], both["score"]))
    return pd.DataFrame(rows, columns=list(RUN_COLUMNS))


WORKED = {
    ("walk", 0, "torch"): [0.5, 0.6, 0.7],
    ("walk", 0, "keras-tensorflow"): [0.8, 0.5, 1.2],  # gaps 0.3, -0.1, 0.5
    ("walk", 1, "torch"): [0.5, 0.6, 0.7],
    ("walk", 1, "keras-tensorflow"): [0.6, 0.5, 1.0],  # 0.1, -0.1, 0.3
    ("walk", 2, "torch"): [0.4, 0.4, 0.4],
    ("walk", 2, "keras-tensorflow"): [0.4, 0.4, 0.4],  # 0
    ("alone", 1, "torch"): [0.4, 0.4, 0.4],
    ("alone", 1, "keras-tensorflow"): [0.5, 0.3, 0.4],  # 0.1, -0.1, 0
}
T2 = 4.302652729749464  # 97.5 % quantile of Student's t with 2 degrees of freedom, from a table


def test_gaps_and_shares_by_hand() -> None:
    table = tabulate_gaps(runs_of(WORKED), {PAIR: TWO}, BOTH, 3)
    assert list(table.columns) == list(GAP_COLUMNS)
    rows = table[table["measure"] == "loss"].set_index(["arm", "rung"])
    assert rows.index.tolist() == [("walk", 0), ("walk", 1), ("walk", 2), ("alone", 1)]
    assert rows["default"].tolist() == ["", TWO[0].name, TWO[1].name, TWO[0].name]
    native = rows.loc[("walk", 0)]
    half = T2 * math.sqrt(0.28 / 3 / 2 * 2 / 3)  # of 0.3, -0.1, 0.5: mean 7/30, squares about it 0.56/3
    assert native["gap"] == pytest.approx(0.7 / 3)
    assert native["gap_high"] - native["gap"] == pytest.approx(half)
    assert native["gap"] - native["gap_low"] == pytest.approx(half)
    assert native["distance"] == pytest.approx(0.9 / 3)
    assert math.isnan(native["share"])
    first = rows.loc[("walk", 1)]  # removed 0.2, 0, 0.2: mean 0.4/3, sd 0.2/sqrt(3)
    assert first["gap"] == pytest.approx(0.1)
    assert first["share"] == pytest.approx(0.4 / 3)
    assert first["share_low"] == pytest.approx(0.4 / 3 - T2 * 0.2 / 3)
    assert first["share_high"] == pytest.approx(0.4 / 3 + T2 * 0.2 / 3)
    assert rows.loc[("walk", 2), "share"] == pytest.approx(0.1)
    assert rows.loc[("walk", 2), ["gap", "gap_low", "gap_high", "distance"]].tolist() == [0, 0, 0, 0]
    alone = rows.loc[("alone", 1)]
    assert alone["share"] == pytest.approx(0, abs=1e-15)
    assert alone["share_high"] == pytest.approx(T2 * 0.1 / math.sqrt(3))
    assert alone["distance"] == pytest.approx(0.2 / 3)


finite = st.floats(-10, 10)


@given(st.lists(st.tuples(*[finite] * 6), min_size=3, max_size=6))
def test_the_shares_of_a_walk_add_up(seeds: list[tuple[float, ...]]) -> None:
    columns = list(zip(*seeds, strict=True))
    numbers = {
        ("walk", rung, name): list(columns[2 * rung + k]) for rung in range(3) for k, name in enumerate(BOTH)
    }
    table = tabulate_gaps(runs_of(numbers), {PAIR: TWO}, BOTH, len(seeds))
    walk = table[(table["measure"] == "loss") & (table["arm"] == "walk")].set_index("rung")
    assert walk["share"].sum() == pytest.approx(walk.loc[0, "gap"] - walk.loc[2, "gap"], abs=1e-13)


def test_a_rung_without_all_its_seeds_is_left_out_and_so_are_the_shares_that_need_it() -> None:
    for missing in ([0.6, 0.5], [0.6, 0.5, math.nan], [0.6, 0.5, math.inf]):
        runs = runs_of(WORKED | {("walk", 1, "keras-tensorflow"): missing})
        table = tabulate_gaps(runs, {PAIR: TWO}, BOTH, 3)
        rows = table[table["measure"] == "loss"].set_index(["arm", "rung"])
        assert ("walk", 1) not in rows.index
        assert math.isnan(rows.loc[("walk", 2), "share"])
        assert rows.loc[("walk", 2), "gap"] == 0
        assert rows.loc[("alone", 1), "share"] == pytest.approx(0, abs=1e-15)
    lost = {place: values for place, values in WORKED.items() if place[:2] != ("walk", 2)}
    table = tabulate_gaps(runs_of(lost), {PAIR: TWO}, BOTH, 3).set_index(["measure", "arm", "rung"])
    assert math.isnan(table.loc[("loss", "alone", 1), "share"])  # there is no lockstep to measure it from


def test_an_undefined_score_leaves_the_loss_alone() -> None:
    runs = runs_of(WORKED | {("walk", 0, "torch"): [math.nan] * 3}, "score")
    table = tabulate_gaps(runs, {PAIR: TWO}, BOTH, 3)
    assert ("score", "walk", 0) not in set(zip(table["measure"], table["arm"], table["rung"], strict=True))
    assert ("loss", "walk", 0) in set(zip(table["measure"], table["arm"], table["rung"], strict=True))


def test_two_seeds_have_no_interval() -> None:
    runs = runs_of({place: values[:2] for place, values in WORKED.items()})
    table = tabulate_gaps(runs, {PAIR: TWO}, BOTH, 2)
    assert table["gap"].notna().all()
    assert table[["gap_low", "gap_high", "share_low", "share_high"]].isna().all(axis=None)


def test_the_direction_is_the_other_less_the_reference() -> None:
    gaps = gaps_of(runs_of(WORKED), "loss", BOTH, 3)
    turned = gaps_of(runs_of(WORKED), "loss", BOTH[::-1], 3)
    np.testing.assert_allclose(gaps["walk", 0], [0.3, -0.1, 0.5])
    np.testing.assert_array_equal(turned["walk", 0], -gaps["walk", 0])


def test_the_table_of_the_console_has_a_line_a_default_and_fits() -> None:
    table = tabulate_gaps(runs_of(WORKED), {PAIR: TWO}, BOTH, 3)
    out = Console(file=io.StringIO(), width=80)
    longest = "Decay of batch norm's statistics"
    out.print(show_gaps(table, [longest, TWO[1].title], "a title"))
    text = out.file.getvalue()  # type: ignore[attr-defined]
    native, first, last = (line.rstrip() for line in text.splitlines() if " ±" in line)
    assert native.split("  ")[0] == "nothing: native"
    assert first.split() == f"{longest} +0.100 ±0.497 +0.133 ±0.287 +0.000 ±0.248".split()
    assert last.endswith("+0.000 ±0.000   +0.100 ±0.497               –")  # alone it was not trained
    bare = tabulate_gaps(runs_of({place: one[:2] for place, one in WORKED.items()}), {PAIR: TWO}, BOTH, 2)
    assert describe_ends(bare, "AUROC", 2) == "AUROC, gap in the native lane: +0.000; in lockstep: +0.000"


# --- the file of the trainings ------------------------------------------------------------------------------------


def test_finished_trainings_come_back_to_the_last_bit(quick: Study, tmp_path: Path) -> None:
    path, ladders = tmp_path / "ladder_runs.csv", ladders_of(quick)
    trainings = [one for name in BOTH for one in trainings_of(quick, name)]
    numbers = generator("numbers").normal(size=(len(trainings), 2))
    finished = {one: Numbers(*map(float, pair)) for one, pair in zip(trainings, numbers, strict=True)}
    finished[trainings[5]] = Numbers(0.1, math.nan)
    path.write_text(runs_table({}, ladders, BOTH).to_csv(index=False))
    for one, values in finished.items():
        append_training(path, one, values, ladders)
    found = read_finished(path, trainings)
    assert list(found) == trainings
    np.testing.assert_array_equal(list(found.values()), list(finished.values()))
    table = runs_table(found, ladders, BOTH)
    assert len(table) == sum(len(one.rungs) for one in trainings)
    path.write_text(table.to_csv(index=False))
    np.testing.assert_array_equal(list(read_finished(path, trainings).values()), list(finished.values()))


def test_what_a_kill_cut_off_counts_as_never_done(quick: Study, tmp_path: Path) -> None:
    path, ladders = tmp_path / "ladder_runs.csv", ladders_of(quick)
    trainings = trainings_of(quick, "torch")
    (shared,) = [one for one in trainings if one.seed == 0 and one.model == "unet" and len(one.rungs) > 8]
    path.write_text(runs_table({}, ladders, BOTH).to_csv(index=False))
    append_training(path, trainings[0], Numbers(0.25, 0.75), ladders)
    whole = path.read_bytes()
    append_training(path, shared, Numbers(0.123456789, 0.5), ladders)
    grown = path.read_bytes()
    assert set(read_finished(path, trainings)) == {trainings[0], shared}
    for length in (len(grown) - 1, len(grown) - 8, len(whole) + 70, len(whole) + 3, len(whole)):
        path.write_bytes(grown[:length])
        assert set(read_finished(path, trainings)) == {trainings[0]}, length


# --- the driver ---------------------------------------------------------------------------------------------------

# A worker that imports nothing of the project. Its loss tells framework, seed and what it was left with; its fault,
# in faults.json, is that of (framework, seed, index) of the first process of that list.
FAKE_WORKER = """
import json, os, signal, sys
from pathlib import Path

word, study, path = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
assert word == "climb"
document = json.loads(path.read_text())
faults = json.loads((study / "faults.json").read_text()) if (study / "faults.json").exists() else {}
with open(study / "trained.jsonl", "a") as log:
    first = document["trainings"][0]
    name = f"{first['framework']} {first['seed']}"
    if faults.get(name) == "never starts":
        sys.exit("no such library")
    version = faults.get("version", 1)
    print("{\\"library\\": \\"talks\\"}")
    print(json.dumps({"environment": {"framework": f"{first['framework']} {version}"}}), flush=True)
    for index, one in enumerate(document["trainings"]):
        place = f"{name} {one['rungs'][0][0]} {one['rungs'][0][1]}"
        fault = faults.get(place)
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        log.write(json.dumps(one) + "\\n")
        log.flush()
        if fault == "diverged":
            print(json.dumps({"training": index, "diverged": "the training loss is nan at step 3"}), flush=True)
            continue
        own = len(one["names"]) * (one["framework"] != "torch")
        loss = 1.0 + own * (0.1 + 0.01 * one["seed"])
        print(json.dumps({"training": index, "loss": loss, "score": None if one["seed"] else 0.5}), flush=True)
"""


class Scene:
    """A folder for ladders that fake workers climb."""

    def __init__(self, study: Study, directory: Path) -> None:
        self.study, self.directory = study, directory
        self.said = ""

    def climb(
        self, steps: int = 9, faults: dict[str, Any] | None = None, **changes: Any
    ) -> dict[Training, str]:
        (self.directory / "ladder").mkdir(parents=True, exist_ok=True)
        (self.directory / "ladder" / "faults.json").write_text(json.dumps(faults or {}))
        (self.directory / "ladder" / "trained.jsonl").write_text("")
        out = Console(file=io.StringIO(), width=160)
        try:
            return climb_ladder(dataclasses.replace(self.study, **changes), steps, self.directory, out)
        finally:
            self.said = out.file.getvalue()  # type: ignore[attr-defined]

    def trained(self) -> list[dict[str, Any]]:
        """What the workers of the last climb were at."""
        lines = (self.directory / "ladder" / "trained.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def table(self) -> pd.DataFrame:
        return pd.read_csv(
            self.directory / "ladder.csv", keep_default_na=False, na_values={"share": "", "gap": ""}
        )

    def runs(self) -> pd.DataFrame:
        return pd.read_csv(self.directory / "ladder_runs.csv")


@pytest.fixture
def scene(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "fake_worker.py").write_text(FAKE_WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    monkeypatch.setattr(engines, "module_of", lambda framework: "fake_worker")
    return Scene(study, tmp_path / "out")


def test_a_ladder_writes_what_was_promised(scene: Scene, study: Study) -> None:
    assert scene.climb() == {}
    document = read_json(scene.directory / "ladder.json")
    ((_, defaults),) = ladders_of(study).items()
    assert list(document) == [
        *("format", "notice", "data", "profile", "steps", "seeds", "frameworks", "environment", "ladders"),
    ]
    assert (document["data"], document["steps"], document["seeds"]) == ("pictures", 9, 2)
    assert document["environment"] == {name: {"framework": f"{name} 1"} for name in BOTH}
    (ladder,) = document["ladders"]
    assert [one["name"] for one in ladder["defaults"]] == [one.name for one in defaults]
    assert (ladder["metric"], ladder["metric_title"]) == ("auroc_score", "AUROC")
    runs = scene.runs()
    assert list(runs.columns) == list(RUN_COLUMNS)
    assert len(runs) == (2 * len(defaults) + 1) * 2 * 2
    assert not runs.duplicated(["arm", "rung", "framework", "seed"]).any()
    walk = runs[(runs["arm"] == "walk") & (runs["framework"] == "keras-tensorflow") & (runs["seed"] == 1)]
    assert walk["default"].fillna("").tolist() == ["", *(one.name for one in defaults)]
    # Keras, seed s, left with n defaults: 1 + n (0.1 + 0.01 s); PyTorch: 1. Where two rungs are one training for
    # Keras, the first rung's number stands for both.
    gaps = scene.table().query("measure == 'loss' and arm == 'walk'").set_index("rung")
    assert gaps.loc[0, "gap"] == pytest.approx(len(defaults) * 0.105)
    assert gaps["share"].sum() == pytest.approx(gaps.loc[0, "gap"] - gaps.loc[len(defaults), "gap"])
    assert scene.table().query("measure == 'score'").empty  # undefined for the second seed
    assert "AUROC, gap in the native lane: –; in lockstep: –" in scene.said
    assert config.NOTICE in scene.said


def test_each_training_is_done_once_and_never_again(scene: Scene, study: Study) -> None:
    scene.climb()
    trained = [tuple(map(str, (one["framework"], one["seed"], one["rungs"]))) for one in scene.trained()]
    assert len(set(trained)) == len(trained) == sum(len(trainings_of(study, name)) for name in BOTH)
    before = {
        name: (scene.directory / name).read_bytes()
        for name in ("ladder.csv", "ladder_runs.csv", "ladder.json")
    }
    assert scene.climb() == {}
    assert scene.trained() == []
    assert f"{len(trained)} of {len(trained)} trainings are finished already and kept" in scene.said
    for name, content in before.items():
        assert (scene.directory / name).read_bytes() == content


def test_a_killed_ladder_goes_on_and_ends_as_if_undisturbed(scene: Scene) -> None:
    scene.climb()
    undisturbed = scene.directory / "ladder_runs.csv"
    expected = undisturbed.read_bytes()
    lines = expected.splitlines(keepends=True)
    undisturbed.write_bytes(b"".join(lines[:20]) + lines[20][:30])
    (scene.directory / "ladder.json").unlink()
    assert scene.climb() == {}
    assert 0 < len(scene.trained()) < len(lines)
    assert undisturbed.read_bytes() == expected
    assert (scene.directory / "ladder.json").exists()


def test_a_process_that_dies_loses_only_what_it_was_at(scene: Scene, study: Study) -> None:
    failed = scene.climb(faults={"torch 0 walk 3": "killed", "keras-tensorflow 1 alone 3": "diverged"})
    assert sorted(one.label for one in failed) == [
        "binary cnn keras-tensorflow seed 1 alone 3",
        "binary cnn torch seed 0 walk 3",
    ]
    reasons = sorted(failed.values())
    assert reasons[0].startswith("the process was killed by SIGKILL")
    assert reasons[1] == "the training loss is nan at step 3"
    for one, reason in failed.items():
        assert f"{one.label} failed: {reason}" in " ".join(scene.said.split())
    ((_, defaults),) = ladders_of(study).items()
    lost = {place for one in failed for place in one.rungs}
    rows = scene.table().query("measure == 'loss'")
    places = set(zip(rows["arm"], rows["rung"], strict=True))
    assert places == {(rung.arm, rung.rung) for rung in rungs_of(defaults)} - lost
    assert math.isnan(rows.query("arm == 'walk' and rung == 4")["share"].item())
    assert scene.climb() == {}  # tried again
    assert {tuple(map(tuple, one["rungs"])) for one in scene.trained()} == {one.rungs for one in failed}


def test_a_framework_that_does_not_start_is_given_up(scene: Scene, study: Study) -> None:
    failed = scene.climb(faults={"torch 0": "never starts"})
    assert set(failed) == {one for one in trainings_of(study, "torch") if one.seed == 0}
    assert all("no such library" in reason for reason in failed.values())
    assert len(list((scene.directory / "ladder").glob("torch-seed0-*.log"))) == 2


def test_more_seeds_and_models_are_added(scene: Scene, study: Study) -> None:
    scene.climb(seeds=1)
    first = len(scene.trained())
    scene.climb(seeds=3)
    assert {one["seed"] for one in scene.trained()} == {1, 2}
    assert len(scene.trained()) == 2 * first
    assert scene.table()["gap_low"].ne("").any()
    unet = {"segmentation/unet": config.recipe_of("segmentation", "unet", "quick")}
    specs = {"segmentation/unet": config.spec_of("segmentation", "unet", "quick")}
    scene.climb(tasks=("segmentation",), recipes=unet, specs=specs, seeds=1)
    assert {(one["task"], one["seed"]) for one in scene.trained()} == {
        ("segmentation", seed) for seed in range(3)
    }
    assert set(scene.table()["model"]) == {"cnn", "unet"}
    assert read_json(scene.directory / "ladder.json")["seeds"] == 3


def test_another_ladder_in_the_same_folder_is_refused(scene: Scene, study: Study) -> None:
    scene.climb()
    written = [scene.directory / name for name in ("ladder.json", "ladder.csv")]
    before = [path.stat().st_mtime_ns for path in written]
    clipped = {"binary/cnn": dataclasses.replace(study.recipes["binary/cnn"], gradient_clip_norm=1.0)}
    with pytest.raises(StudyError, match=r"steps 9, and 10 was asked for.*--out"):
        scene.climb(steps=10)
    with pytest.raises(StudyError, match=r"frameworks .*keras-tensorflow.*--out"):
        scene.climb(frameworks=BOTH[::-1])
    other = {"binary/cnn": dataclasses.replace(study.recipes["binary/cnn"], batch_size=8)}
    with pytest.raises(StudyError, match=r"recipes.*--out"):
        scene.climb(recipes=other)
    with pytest.raises(StudyError, match=r"other defaults than this version's.*--out"):
        scene.climb(recipes=clipped)
    with pytest.raises(StudyError, match=r"another environment.*\(.* 2\).*--out"):
        scene.climb(seeds=3, faults={"version": 2})
    assert [path.stat().st_mtime_ns for path in written] == before
    (scene.directory / "ladder" / "plan.json").unlink()
    with pytest.raises(StudyError, match=r"ladder_runs.csv is there without .*plan.json; delete it or"):
        scene.climb()


def test_workers_have_the_environment_of_any_worker(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    real = engines.worker_environment

    def spy(*arguments: Any) -> dict[str, str]:
        asked.append(arguments)
        return real(*arguments)

    monkeypatch.setattr("common.ladder_workers.worker_environment", spy)
    scene.climb(seeds=1)
    assert sorted(arguments[:4] for arguments in asked) == [
        ("keras-tensorflow", "cpu", "float32", 1),
        ("torch", "cpu", "float32", 1),
    ]


def test_data_that_serve_no_model_are_refused(scene: Scene, tmp_path: Path) -> None:
    plain = write_pictures(tmp_path / "plain")
    unet = {"segmentation/unet": config.recipe_of("segmentation", "unet", "quick")}
    specs = {"segmentation/unet": config.spec_of("segmentation", "unet", "quick")}
    with pytest.raises(StudyError, match="segmentation"):
        scene.climb(data=(str(plain),), tasks=("segmentation",), recipes=unet, specs=specs, skippable=True)
    assert not (scene.directory / "ladder.json").exists()
