"""Memory that is freed is used again, and settings that a worker was started with are left alone."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from common.allocator import keep_freed_memory

ROOT = Path(__file__).resolve().parents[2]
FAULTS_PROGRAM = """
import resource
import numpy as np
from common.allocator import keep_freed_memory

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        arrays = [np.ones(25_000_000, dtype=np.uint8) for _ in range(3)]
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

page_faults()  # glibc adapts to the first arrays
returned = page_faults()
assert keep_freed_memory()
page_faults()
print(returned, page_faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_freed_memory_is_not_fetched_from_the_kernel_again() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    answer = subprocess.run(
        [sys.executable, "-c", FAULTS_PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=environment,
    )
    returned, kept = map(int, answer.stdout.split())
    assert kept < returned / 5


def test_what_the_environment_says_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: object) -> object:
        raise AssertionError("the allocator was changed")

    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "-1")
    monkeypatch.setattr("ctypes.CDLL", refuse)
    assert keep_freed_memory()


def test_another_c_library_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert not keep_freed_memory()
