"""Whatever is fed to the tool ends as a named error or a row in the audit: no crash, no hang, nothing in silence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import kinds
import pytest
from hostile_table import is_hang

HERE = Path(__file__).parent
NAMES = [f"{kind.group}: {kind.name}" for kind in kinds.all_kinds()]


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    """What became of each kind, from one process that forks another for each."""
    answer = subprocess.run(
        [sys.executable, "-W", "error", str(HERE / "hostile_table.py"), "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    found = [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("{")]
    return {f"{row['group']}: {row['kind']}": row for row in found}


@pytest.mark.parametrize("name", NAMES)
def test_what_becomes_of_it(rows: dict[str, dict[str, Any]], name: str) -> None:
    row = rows[name]
    if row["outcome"] == "not tried":
        pytest.skip(row["reason"])
    assert row["outcome"] == row["expected"], row["reason"]
    assert row["says"] in row["reason"]
    assert row["cpu_seconds"] < 5
    assert row["mib"] < 1024
    assert row["still_seconds"] <= row["wall_seconds"]


def test_a_hang_stands_still_and_a_busy_machine_makes_none() -> None:
    assert is_hang(cpu=0.3, wall=6.0, still=5.6)
    assert not is_hang(cpu=0.3, wall=60.0, still=0.4)  # it waited for a core
    assert not is_hang(cpu=4.0, wall=6.0, still=5.5)  # its threads computed, while the main one waited
    assert is_hang(cpu=0.0, wall=120.0, still=120.0)
