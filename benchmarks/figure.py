"""`speed.svg` and `speed.png`: the ratios with their intervals on one logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.table import Row
from common.config import NOTICE
from common.report.plotting import INK, MARKERS, colour, new_panels, style

PANELS = {
    "stream": "Data stream",
    "training": "Training, from picture files to steps",
    "step": "Training step, one batch in memory",
    "unet": "U-Nets, per floating-point operation",
}
MODELS = {
    "cnn": "CNN",
    "densenet121": "DenseNet-121",
    "convnext_tiny": "ConvNeXt-Tiny",
    "unet": "U-Net",
}
LINE_INCHES = 0.24
NAMES_SHARE = (
    0.6  # width of the names beside the axes, as a share of the axes': what is below is centred under both
)
TICKS = (0.1, 0.2, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 50, 100)


def write_figure(rows: Sequence[Row], out: Path) -> None:
    """Draw what was measured; nothing where nothing was."""
    shown = {table: [row for row in rows if row.table == table and row.ratio > 0] for table in PANELS}
    shown = {table: chosen for table, chosen in shown.items() if chosen}
    if not shown:
        return
    heights = [len(chosen) + 2.2 for chosen in shown.values()]
    with style():
        figure, panels = new_panels(9.0, LINE_INCHES * sum(heights) + 0.7, rows=heights)
        ends = [
            bound
            for chosen in shown.values()
            for row in chosen
            for bound in (row.ratio, row.low, row.high, row.target or math.nan)
            if bound > 0
        ]
        limits = (min(0.8, *ends) / 1.15, max(1.5, *ends) * 1.15)
        for axes, (table, chosen) in zip(panels, shown.items(), strict=True):
            _draw(axes, PANELS[table], chosen, limits)
        panels[-1].set_xlabel(
            "ours / peer (above 1: ours is ahead). Filled: peer as shipped; open: with our settings;\n"
            f"grey bar: target; line: interval of the median. {NOTICE} Phantom data.",
            x=0.5 - 0.5 * NAMES_SHARE,
            fontsize=8.5,
        )
        figure.savefig(out / "speed.svg", metadata={"Date": None, "Creator": None})
        figure.savefig(out / "speed.png", dpi=150)


def _draw(axes: Axes, title: str, rows: Sequence[Row], limits: tuple[float, float]) -> None:
    for place, row in enumerate(rows):
        hue = colour(row.framework)
        if not math.isnan(row.low) and row.rounds > 1:
            axes.plot([row.low, row.high], [place, place], color=hue, linewidth=1.6, zorder=2)
        if row.target:
            axes.plot([row.target] * 2, [place - 0.38, place + 0.38], color="#999999", linewidth=3, zorder=1)
        axes.plot(
            row.ratio,
            place,
            MARKERS.get(row.framework, "o"),
            markersize=6,
            color=hue,
            markerfacecolor=hue if row.setting == "shipped" else "white",
            zorder=3,
        )
    axes.axvline(1, color=INK, linewidth=0.9)
    axes.set_xscale("log")
    axes.set_xlim(*limits)
    ticks = [tick for tick in TICKS if limits[0] <= tick <= limits[1]]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_title(title)


def _label(row: Row) -> str:
    return " · ".join(filter(None, (MODELS.get(row.model, row.model), row.framework, row.peer)))
