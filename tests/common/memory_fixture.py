"""Peaks of memory, which only a fresh process can tell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def growth_mib(program: str, folder: Path) -> float:
    """What `program`, given a folder to write to, needed more for much than for little: it prints its peak memory in
    MiB after each.
    """
    answer = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    little, much = map(float, answer.stdout.split())
    return much - little
