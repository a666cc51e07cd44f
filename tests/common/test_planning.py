"""What seeds can show, said before training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from study_fixture import make_study

from common import config
from common.planning import measured_spread, planned
from common.results import read_study
from common.statistics import plan_seeds

PAIRS = {"binary/cnn": config.Recipe(epochs=1)}


def asked(seeds: int, **changes: object) -> config.Study:
    specs = {name: config.spec_of("binary", "cnn", "quick") for name in PAIRS}
    study = config.Study(seeds=seeds, recipes=PAIRS, specs=specs)
    return dataclasses.replace(study, **changes)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _expected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The spread that these sentences are about, whatever was measured last."""
    known = {"aligned": {"classification": 0.03}, "native": {"classification": 0.07}}
    monkeypatch.setattr(config, "EXPECTED_SEED_SD", known)


@pytest.mark.parametrize(
    ("seeds", "changes", "said"),
    [
        (2, {}, "binary/cnn, aligned lane: 2 seeds can show neither a difference (it takes 6 seeds) nor equivalence"),
        (2, {}, "varying by 0.03 over seeds as on the phantom"),
        (10, {}, "10 seeds can show differences of 0.03 AUROC or more, and equivalence within ±0.05;"),
        (5, {}, "5 seeds can show equivalence within ±0.05, but no difference (it takes 6 seeds)"),
        (10, {"lanes": ("native",)}, "native lane: 10 seeds can show differences of 0.07 AUROC or more, but no equiva"),
        (6, {"frameworks": config.FRAMEWORKS}, "it takes 7 seeds for one of 3 comparisons"),
        (4, {"folds": 5}, "4 seeds on one split can show"),
    ],
)  # fmt: skip
def test_what_seeds_can_show(seeds: int, changes: dict[str, object], said: str) -> None:
    (line,) = planned(asked(seeds, **changes))
    assert said in line


def test_the_words_are_those_of_the_plan() -> None:
    """The seeds named suffice, one fewer does not."""
    sd = config.EXPECTED_SEED_SD["aligned"]["classification"]
    takes = plan_seeds(sd, 2, 0.05).seeds_for_margin
    assert takes is not None
    assert f"(it takes {takes} seeds);" in planned(asked(2))[0]
    assert "but no difference" in planned(asked(takes))[0]
    assert "neither" in planned(asked(takes - 1))[0]


def test_one_framework_plans_nothing() -> None:
    assert planned(asked(2, frameworks=("torch",))) == []


def test_finished_runs_tell_the_spread(tmp_path: Path) -> None:
    """From three seeds of both frameworks on; the spread of their differences, not of their scores."""
    few = read_study(make_study(tmp_path / "few", seeds=2))
    assert measured_spread(few) == {}
    record = read_study(make_study(tmp_path / "study", seeds=3))
    ((key, expected),) = measured_spread(record).items()
    assert key == ("aligned", "binary", "cnn")
    assert expected.seeds == 3
    assert 0.005 < expected.sd < 0.05
    assert f"{expected.sd:.2g} as over the 3 finished seeds" in planned(record.study, record)[0]
