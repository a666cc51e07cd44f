"""The suites for each framework, in a process of its own: no two frameworks may share one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from common.config import FRAMEWORKS
from common.engines import check_framework, module_of, worker_environment
from common.errors import StudyError

HERE = Path(__file__).resolve().parent
TIMEOUT_SECONDS = 300
SUITES = ("suite.py", "training_suite.py", "lanes_suite.py")
KERAS_SUITES = (*SUITES, "own_forms_suite.py")
LEFT_OUT = {
    # XLA compiles every model and step anew; what is left out says nothing that the other backends do not
    "keras-jax": "second_epoch or float32 or 0.3 or each_tensor or reported_loss or convnext_tiny or alone_drops "
    "or lanes_suite or native_optimizer or stock_layers",
    # A difference quotient of losses, which come in float32 there (see LOSS_RTOL)
    "keras-torch": "reported_loss",
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_suite(framework: str) -> None:
    try:
        check_framework(framework)
    except StudyError as error:
        pytest.skip(str(error))
    environment = worker_environment(framework, "cpu", "float64", threads=1)
    environment |= {"STUDY_IMPLEMENTATION": module_of(framework), "STUDY_FRAMEWORK": framework}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--tb=short",
        *(str(HERE / name) for name in (SUITES if framework == "torch" else KERAS_SUITES)),
    ]
    if framework in LEFT_OUT:
        command += ["-k", f"not ({LEFT_OUT[framework]})"]
    answer = subprocess.run(
        command,
        cwd=HERE.parents[1],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    if answer.returncode != 0:
        pytest.fail(f"the suite fails for {framework}:\n{answer.stdout}", pytrace=False)
    assert re.search(r"^\d+ passed(, \d+ deselected)? in ", answer.stdout, re.MULTILINE), (
        answer.stdout
    )  # none skipped
