"""A suite of tests for one framework, in a child process: no two frameworks may share one."""

from __future__ import annotations

import re
import subprocess
import sys
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
# XLA compiles every operation, model and step anew; its optimizer is most of that time, and none of our code
QUICK_COMPILATION = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def require(framework: str) -> None:
    """Skip the test where the framework is not installed."""
    if missing := missing_packages(framework):
        pytest.skip(f"{framework} needs {' and '.join(missing)}")


def run_suite(framework: str, *files: str, left_out: str = "", **environment: str) -> str:
    """Run test files of this folder for a framework, in float64 with one thread.

    `left_out` is pytest's -k of what is not run; `environment` stands beside that of a worker. Returns what went wrong:
    nothing where tests passed, none failed and none was skipped.
    """
    settings = worker_environment(framework, "cpu", "float64", threads=1) | QUICK_COMPILATION
    settings |= {"STUDY_IMPLEMENTATION": module_of(framework), "STUDY_FRAMEWORK": framework}
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "--tb=short",
        *(["-k", f"not ({left_out})"] if left_out else []),
    ]
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *(str(HERE / name) for name in files)],
        cwd=HERE.parents[1],
        env=settings | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    whole = re.search(r"^\d+ passed(, \d+ deselected)? in ", answer.stdout, re.MULTILINE)  # none skipped
    return "" if answer.returncode == 0 and whole else f"the suite fails for {framework}:\n{answer.stdout}"
