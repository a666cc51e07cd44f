"""Another Python for one framework: who runs under it, what it is asked, and what is said where it does not serve."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from interpreter_fixture import write_interpreter

import compare
from common import engines, interpreters
from common.errors import StudyError


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """`choose` writes into the process's environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name in interpreters.VARIABLES.values():
            patch.setenv(name, "")  # so that the old value comes back
        yield


def test_only_the_framework_that_was_given_one_has_an_interpreter_of_its_own(tmp_path: Path) -> None:
    assert interpreters.chosen() == []
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    interpreters.choose(None, str(link))
    assert interpreters.chosen() == ["keras_impl"]
    for backend in ("tensorflow", "jax", "torch"):  # Keras on PyTorch is Keras's environment too
        # The link itself: an environment's python knows its environment by where it lies
        assert engines.worker_command(f"keras-{backend}", "info")[:3] == [str(link), "-m", "keras_impl"]
    assert engines.worker_command("torch", "info") == [sys.executable, "-m", "torch_impl", "info"]


def test_a_path_is_meant_from_where_the_command_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_interpreter(tmp_path / "python", "exit 0")
    monkeypatch.chdir(tmp_path)
    interpreters.choose("./python", None)
    assert interpreters.interpreter_of("torch_impl") == str(tmp_path / "python")


def test_the_other_interpreter_is_asked_what_it_lacks(tmp_path: Path) -> None:
    script = tmp_path / "blind.py"
    script.write_text(
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if name in ('keras', 'pandas') else find(name)\n"
        "_, option, question, *sys.argv[1:] = sys.argv\n"
        "assert option == '-c'\n"
        "exec(question)\n"
    )
    own = write_interpreter(tmp_path / "python", f'exec "{sys.executable}" {script} "$@"')
    interpreters.choose(None, own)
    # pandas is no framework's, but every worker needs it
    assert interpreters.missing("keras_impl", ("keras", "json")) == ["keras", "pandas"]
    assert interpreters.missing("torch_impl", ("json", "no_such_package")) == ["no_such_package"]
    with pytest.raises(
        StudyError, match=rf"needs the package .*pandas.*`{own} -m pip install -r keras_impl/"
    ):
        engines.check_framework("keras-tensorflow")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("echo broken libraries >&2; exit 1", "gives no answer .broken libraries.; name another"),
        ("exit 0", "gives no answer .it is no Python."),
        ("echo '[[3, 9], []]'", r"--python-keras .* is Python 3\.9, but 3\.11 or newer is needed"),
    ],
)
def test_an_interpreter_that_does_not_serve_is_named(tmp_path: Path, command: str, words: str) -> None:
    interpreters.choose(None, write_interpreter(tmp_path / "python", command))
    with pytest.raises(StudyError, match=words):
        engines.missing_packages("keras-jax")


def test_a_path_that_is_no_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "nothing"):
        with pytest.raises(StudyError, match=f"^--python-torch {path} is no program"):
            interpreters.choose(str(path), None)
    assert os.environ[interpreters.VARIABLES["torch_impl"]] == ""


@pytest.mark.parametrize("command", ["study", "parity", "ladder", "leak", "defaults", "doctor"])
def test_every_command_that_starts_workers_takes_the_option(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is looked at before anything else is done."""
    path = tmp_path / "nothing"
    assert compare.main([command, "--python-keras", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"compare.py: --python-keras {path} is no program")
