"""Reports built faster, for tests that look at a part of them: without PNG files, or with empty figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from common.report import plotting, write_report


class EmptyCanvas:
    """Writes a picture of nothing."""

    def __init__(self, figure: Figure) -> None:
        del figure

    def print_svg(self, stream: Any, metadata: object) -> None:
        del metadata
        stream.write('<svg viewBox="0 0 4 3"></svg>')


def leave_rasters(patch: pytest.MonkeyPatch) -> None:
    """Leave out the PNG files, a third of the time."""
    patch.setattr(plotting, "write_atomically", lambda path, write: None)


def leave_figures(patch: pytest.MonkeyPatch) -> None:
    """Leave out what figures show, most of the time; that they are there, and their words and tables, stays."""
    leave_rasters(patch)
    patch.setattr(plotting, "FigureCanvasSVG", EmptyCanvas)
    patch.setitem(plotting.STYLE, "figure.constrained_layout.use", False)


def write_words(directory: Path) -> Path:
    """`write_report` without what figures show."""
    with pytest.MonkeyPatch.context() as patch:
        leave_figures(patch)
        return write_report(directory)
