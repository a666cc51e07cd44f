"""The one report that several files of tests look at: built once a process."""

from __future__ import annotations

from pathlib import Path

import pytest

GATES = (("binary", "cnn"), ("subtype", "densenet121"))


@pytest.fixture(scope="session")
def whole_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reported study of all three tasks, two stages, an external set, and everything beside it; without the PNG
    files. For tests that only read it.
    """
    # here, so that tests of other things need not import all of this
    from mask_study_fixture import make_mask_study, slice_pixels
    from proof_fixture import write_all
    from report_fixture import leave_rasters
    from test_report_leak import SCORES, write_leak

    from common.report import write_report

    directory = make_mask_study(tmp_path_factory.mktemp("whole") / "demo", seeds=3, gates=GATES, external=4)
    write_all(directory)
    write_leak(directory, SCORES)
    with pytest.MonkeyPatch.context() as patch:
        leave_rasters(patch)
        write_report(directory, slice_pixels)
    return directory


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures show nothing, where a test looks at words only."""
    from report_fixture import leave_figures

    leave_figures(monkeypatch)


@pytest.fixture
def no_rasters(monkeypatch: pytest.MonkeyPatch) -> None:
    """No PNG files, where a test looks at the page only."""
    from report_fixture import leave_rasters

    leave_rasters(monkeypatch)
