"""A suite of tests for one framework, in a child process: no two frameworks may share one."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from common.engines import missing_packages, module_of, worker_environment

HERE = Path(__file__).resolve().parent
TIMEOUT_SECONDS = 600
# `defaults_suite.py` comes first: it asks what a library does in a process in which nothing was said yet
SUITES = (
    "defaults_suite.py",
    "suite.py",
    "training_suite.py",
    "resume_suite.py",
    "lanes_suite.py",
    "devices_suite.py",
)
KERAS_SUITES = (*SUITES, "own_forms_suite.py")


def require(framework: str) -> None:
    """Skip the test where the framework is not installed."""
    if missing := missing_packages(framework):
        pytest.skip(f"{framework} needs {' and '.join(missing)}")


def quick_compilation(folder: Path) -> dict[str, str]:
    """The environment of a child in which JAX spends less on compiling, which is most of its time.

    XLA compiles every operation, model and step anew. Its optimizer, which is none of our code, is left out, and what
    is the same program again comes from `folder`: of one process alone, since JAX does not write there atomically.
    """
    return {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def run_suite(framework: str, *files: str, left_out: str = "", **environment: str) -> str:
    """Run test files of this folder for a framework, in float64 with one thread.

    `left_out` is pytest's -k of what is not run; `environment` stands beside that of a worker. Returns what went wrong:
    nothing where tests passed, none failed and none was skipped.
    """
    settings = worker_environment(framework, "cpu", "float64", threads=1)
    settings |= {"STUDY_IMPLEMENTATION": module_of(framework), "STUDY_FRAMEWORK": framework}
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "--tb=short",
        *(["-k", f"not ({left_out})"] if left_out else []),
    ]
    command = [sys.executable, "-m", "pytest", *options, *(str(HERE / name) for name in files)]
    with tempfile.TemporaryDirectory() as folder:
        answer = subprocess.run(
            command,
            cwd=HERE.parents[1],
            env=settings | quick_compilation(Path(folder)) | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
        )
    whole = re.search(r"^\d+ passed(, \d+ deselected)? in ", answer.stdout, re.MULTILINE)  # none skipped
    return "" if answer.returncode == 0 and whole else f"the suite fails for {framework}:\n{answer.stdout}"
