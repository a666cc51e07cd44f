"""`--deterministic`: what does not depend on the number of workers, and what a folder's runs must have in common."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tiny import make_study, tiny_world, write_pictures

from common import config, measure
from common.config import DETERMINISTIC_ENVIRONMENT, DETERMINISTIC_THREADS, DETERMINISTIC_XLA, Study
from common.engines import threads_of, worker_environment
from common.errors import StudyError
from common.options import Parser, add_study_options, study_of
from common.report.context import command
from common.results import read_study
from common.study import prepare_study

__all__ = ["tiny_world"]  # a fixture


def test_threads_do_not_depend_on_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "usable_cores", lambda: 10)
    found = {threads_of(Study(deterministic=True, workers=workers)) for workers in (1, 3, 20)}
    assert found == {DETERMINISTIC_THREADS}
    assert threads_of(Study(deterministic=True, workers=3, threads=4)) == 4


def test_workers_are_told_before_they_load_a_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_mine=1")
    monkeypatch.delenv("PJRT_NPROC", raising=False)
    for framework in config.FRAMEWORKS:
        plain = worker_environment(framework, "cpu", "float32", threads=3)
        told = worker_environment(framework, "cpu", "float32", threads=3, deterministic=True)
        changed = {name: told[name] for name in told if told[name] != plain.get(name)}
        assert changed == {
            **DETERMINISTIC_ENVIRONMENT,
            "XLA_FLAGS": f"--xla_mine=1 {DETERMINISTIC_XLA}",
            "PJRT_NPROC": "3",
        }
        assert changed.keys() <= config.RECORDED_VARIABLES  # so that a record tells


def asked(*words: str) -> Study:
    parser = Parser()
    add_study_options(parser, ("torch",))
    arguments = parser.parse_args(words)
    return study_of(arguments, arguments.frameworks)


def test_the_options_are_those_of_the_study() -> None:
    assert (asked().deterministic, asked().checkpoint_every) == (False, None)
    study = asked("--deterministic", "--checkpoint-every", "0")
    assert (study.deterministic, study.checkpoint_every) == (True, 0)
    assert config.study_from_json(config.to_json(study)) == study
    assert "--deterministic" in command(study, "demo")
    assert "--deterministic" not in command(asked(), "demo")


def test_an_earlier_study_was_not_deterministic() -> None:
    document = config.to_json(asked())
    for name in ("deterministic", "checkpoint_every"):
        del document[name]
    assert config.study_from_json(document) == asked()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"deterministic": False}, "deterministic True, and False"),
        ({"threads": 2}, "threads 0, and 2"),
        ({"workers": 2, "checkpoint_every": 3}, ""),
    ],
)
def test_runs_whose_bits_could_differ_do_not_share_a_folder(
    tiny_world: None, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    study = make_study(write_pictures(tmp_path / "pictures"), deterministic=True)
    prepare_study(study, tmp_path / "study")
    again = dataclasses.replace(study, **changes)
    if not named:
        prepare_study(again, tmp_path / "study")
        assert read_study(tmp_path / "study").study.checkpoint_every == 3
        return
    with pytest.raises(StudyError, match=f"holds a study with {named} was asked for"):
        prepare_study(again, tmp_path / "study")
