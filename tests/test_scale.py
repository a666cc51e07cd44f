"""The curve over the number of slices: each step measures what it did, and the page says what a slice more costs."""

import argparse
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import scale
from benchmarks.scale_page import write_figure, write_page
from common import config


@pytest.mark.parametrize("step", ["table", "build"])
def test_a_step_tells_what_it_handled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    monkeypatch.setitem(config.PROFILES, "quick", config.PROFILES["quick"])  # put back what `study_of` sets
    options = argparse.Namespace(slices=[1], pixels=32, folder=tmp_path)
    row = scale.STEPS[step](options)
    assert row["slices"] == row["images"] > 6 * 8  # the fewest patients
    assert 0 < row["start_mib"] <= row["peak_mib"]
    assert row["disk_mib"] * 2**20 >= row["slices"] * 32**2 * (step == "build")


def test_the_page_tells_what_a_slice_more_costs(tmp_path: Path) -> None:
    rows = [
        {"slices": count, "step": step, "images": count, "wall_seconds": 1.0, "cpu_seconds": 2.0,
         "images_per_cpu_second": count / 2, "start_mib": 50.0, "peak_mib": 50 + count * kib / 1024,
         "helper_peak_mib": 0.0, "processes": 1, "disk_mib": 0.0}
        for count in (1000, 10_000, 100_000)
        for step, kib in (("build", 0.5), ("epoch", 0.25))
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=list(scale.COLUMNS))
    write_page(table, 128, tmp_path)
    write_figure(table, 128, tmp_path)
    text = (tmp_path / "scale.md").read_text()
    assert config.NOTICE in text
    assert "- cache built: 0.50 KiB (from 10,000 to 100,000 slices)" in text
    assert "- training epoch from the cache: 0.25 KiB (from 10,000 to 100,000 slices)" in text
    assert "all pixels in memory" in (tmp_path / "scale.svg").read_text()
