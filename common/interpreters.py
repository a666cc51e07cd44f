"""Which Python runs a framework's processes: ours, or one of its own (`--python-torch`, `--python-keras`).

PyTorch and TensorFlow built for CUDA can ask for versions of NVIDIA's packages that do not go together in one
environment. The choice is kept in the process's environment, so that it reaches every command in the same way, and not
in the study: a path of one machine means nothing on another, and says who made the record. `study.json` tells that a
framework had an interpreter of its own, `run.json` the version of Python and of every library in it.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import StudyError

VARIABLES = {"torch_impl": "STROKE_PYTHON_TORCH", "keras_impl": "STROKE_PYTHON_KERAS"}
OPTIONS = {"torch_impl": "--python-torch", "keras_impl": "--python-keras"}
# What every worker imports beside its framework
COMMON_PACKAGES = (
    *("numpy", "pandas", "scipy", "sklearn", "cv2", "PIL", "pydicom"),
    *("safetensors", "rich", "psutil"),
)
OLDEST = (3, 11)  # as pyproject.toml has it
ANSWER_SECONDS = 60  # a cold network disk

_QUESTION = """
import importlib.util, json, sys
print(json.dumps([list(sys.version_info[:2]), [p for p in sys.argv[1:] if importlib.util.find_spec(p) is None]]))
"""


def choose(torch: str | None, keras: str | None) -> None:
    """Let the workers of a framework run under the interpreter at a path, or of that name; None leaves it as it is.

    Raises StudyError where there is no such program.
    """
    for module, path in (("torch_impl", torch), ("keras_impl", keras)):
        if path is None:
            continue
        found = shutil.which(str(Path(path).expanduser()) if path.startswith("~") else path)
        if found is None:
            raise StudyError(
                f"{OPTIONS[module]} {path} is no program that can be run; give an environment's bin/python"
            )
        # Not resolved: an environment's python is a link, and knows its environment by where the link lies
        os.environ[VARIABLES[module]] = str(Path(found).absolute())


def own_interpreter(module: str) -> str | None:
    """The interpreter that was chosen for `torch_impl` or `keras_impl`; None: ours."""
    return os.environ.get(VARIABLES.get(module, "")) or None


def interpreter_of(module: str) -> str:
    """The Python that runs a module's processes."""
    return own_interpreter(module) or sys.executable


def chosen() -> list[str]:
    """The modules that have an interpreter of their own, for the record of a study."""
    return [module for module in VARIABLES if own_interpreter(module)]


def missing(module: str, packages: Sequence[str]) -> list[str]:
    """Which packages the module's interpreter does not find; imports none of them.

    Raises StudyError where that interpreter does not answer or is too old.
    """
    own = own_interpreter(module)
    if own is None:
        return [package for package in packages if importlib.util.find_spec(package) is None]
    version, lacking = _ask(own, (*packages, *COMMON_PACKAGES))
    if version < OLDEST:
        raise StudyError(
            f"{OPTIONS[module]} {own} is Python {version[0]}.{version[1]}, but {OLDEST[0]}.{OLDEST[1]} or newer is "
            "needed; name another"
        )
    return list(lacking)


@functools.cache
def _ask(path: str, packages: tuple[str, ...]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Version of an interpreter, and which packages it does not find."""
    try:
        answer = subprocess.run(
            [path, "-c", _QUESTION, *packages],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
            check=True,
        )
        version, lacking = json.loads(answer.stdout.strip().splitlines()[-1])
        return tuple(version), tuple(lacking)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        said = (getattr(error, "stderr", None) or "").strip().splitlines()
        raise StudyError(
            f"the interpreter {path} gives no answer ({said[-1] if said else 'it is no Python'}); name another"
        ) from error
