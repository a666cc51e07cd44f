"""Set-up by `make`, with a stand-in for Python that records what it is asked for and downloads nothing."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

# Answers the calls of the Makefile: version check, `-m venv DIR` (a copy of itself), `-m pip install`.
FAKE_PYTHON = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in
    *version_info*) exit "${UNSUPPORTED:-0}" ;;
    --version) echo "Python 3.99.0" ;;
    *ensurepip*) exit "${NO_ENSUREPIP:-0}" ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip install"*) [ -z "$KILL_PIP" ] || kill -9 $PPID; exit "${PIP_STATUS:-0}" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with a space in its name, the Makefile and the requirements, and `my python` beside it."""
    folder = tmp_path / "a checkout"
    for name in (
        "requirements.txt",
        "common/requirements-ray.txt",
        *(f"{part}/requirements.txt" for part in ("common", "torch_impl", "keras_impl")),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "tests").mkdir()
    shutil.copy(ROOT / "tests/requirements.txt", folder / "tests")
    (folder / "benchmarks").mkdir()
    shutil.copy(ROOT / "benchmarks/requirements.txt", folder / "benchmarks")
    shutil.copy(ROOT / "Makefile", folder)
    python = tmp_path / "my python"
    python.write_text(FAKE_PYTHON, encoding="utf-8")
    python.chmod(0o755)
    return folder


def make(checkout: Path, *arguments: str, **environment: str) -> tuple[int, str, list[str]]:
    """Exit status, output, and the stand-in's calls that changed something."""
    calls = checkout.parent / "calls"
    calls.write_text("", encoding="utf-8")
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PIP_"))
    }
    answer = subprocess.run(
        ["make", f"PYTHON={checkout.parent / 'my python'}", *arguments],
        cwd=checkout,
        env=kept | {"CALLS": str(calls)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    changes = [
        line
        for line in calls.read_text(encoding="utf-8").splitlines()
        if line.startswith(("-m venv", "-m pip i"))
    ]
    return answer.returncode, answer.stdout, changes


INSTALL = "-m pip install --quiet -r requirements.txt"


def test_default_goal_lists_every_target_and_installs_nothing(checkout: Path) -> None:
    status, output, changes = make(checkout)
    assert status == 0
    assert changes == []
    assert not (checkout / ".venv").exists()
    for target in ("compare", "parity", "test", "install", "lint", "format", "clean"):
        assert f"\n  {target} " in output


def test_install_twice_installs_once(checkout: Path) -> None:
    assert make(checkout, "install")[::2] == (0, ["-m venv .venv", INSTALL])
    assert make(checkout, "install") == (0, "", [])


def test_compare_hands_its_arguments_on(checkout: Path) -> None:
    status, _, _ = make(checkout, "compare", "ARGS=audit --data 'my pictures'")
    assert status == 0
    assert (checkout.parent / "calls").read_text(encoding="utf-8").splitlines()[
        -1
    ] == "compare.py audit --data my pictures"


@pytest.mark.parametrize(
    "file", ["requirements.txt", "common/requirements.txt", "keras_impl/requirements.txt"]
)
def test_a_changed_requirement_installs_again_whatever_its_date(checkout: Path, file: str) -> None:
    make(checkout, "install")
    with (checkout / file).open("a", encoding="utf-8") as stream:
        stream.write("more==1.0\n")
    os.utime(checkout / file, (0, 0))
    assert make(checkout, "install")[2] == [INSTALL]
    assert make(checkout, "install")[2] == []


def test_test_requirements_come_on_top(checkout: Path) -> None:
    assert make(checkout, "install-tests")[2] == [
        "-m venv .venv",
        INSTALL,
        f"{INSTALL} -r tests/requirements.txt",
    ]
    assert make(checkout, "install-tests")[2] == []
    assert make(checkout, "install")[2] == []
    (checkout / "common/requirements.txt").write_text("numpy==2.0\n", encoding="utf-8")
    assert make(checkout, "install-tests")[2] == [INSTALL, f"{INSTALL} -r tests/requirements.txt"]


def test_a_killed_install_is_made_anew(checkout: Path) -> None:
    assert make(checkout, "install", KILL_PIP="1")[0] != 0
    assert make(checkout, "install")[::2] == (0, ["-m venv .venv", INSTALL])


def test_a_failed_install_fails_and_is_tried_again_in_place(checkout: Path) -> None:
    status, output, _ = make(checkout, "install", PIP_STATUS="1")
    assert status != 0
    assert "pip could not install" in output
    assert make(checkout, "install")[::2] == (0, [INSTALL])


def test_a_broken_environment_is_made_anew(checkout: Path) -> None:
    make(checkout, "install")
    (checkout / ".venv/bin/python").unlink()
    (checkout / ".venv/bin/python").symlink_to("/nowhere/python3")
    status, output, changes = make(checkout, "install")
    assert (status, changes) == (0, ["-m venv .venv", INSTALL])
    assert "made anew" in output


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        ((), {"UNSUPPORTED": "1"}, "is Python 3.99.0, but 3.11, 3.12 or 3.13 is needed"),
        ((), {"NO_ENSUREPIP": "1"}, "apt install python3-venv"),
        (("PYTHON=/nowhere/python3",), {}, "'/nowhere/python3' is no command"),
    ],
)
def test_an_unfit_python_is_named_with_the_remedy(
    checkout: Path, arguments: tuple[str, ...], environment: dict[str, str], said: str
) -> None:
    status, output, changes = make(checkout, "install", *arguments, **environment)
    assert status != 0
    assert said in output
    assert "PYTHON=/path/to/python3" in output
    assert changes == []
    assert not (checkout / ".venv").exists()


def test_bench_installs_peers_apart_and_goes_on_without_those_that_cannot_be_had(checkout: Path) -> None:
    make(checkout, "install")
    status, output, changes = make(checkout, "bench", PIP_STATUS="1")
    assert status == 0
    assert "monai==1.6.1 cannot be installed here" in output
    assert all("--no-deps --target .venv/bench-peers" in change for change in changes)
    peers = len(changes)
    assert len(make(checkout, "bench")[2]) == peers  # tried again
    assert make(checkout, "bench")[2] == []  # all there
