"""One look for every figure: colours, marks, and SVG that follows the page's light or dark theme.

A figure is saved three times: SVG and PNG on white for papers and slides, and an inline SVG whose ink is the page's
text colour. Bytes are equal for equal input: no date, fixed hash salt, text kept as text.
"""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from html import escape
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from common.results import defused, write_atomically, write_csv, write_text

# Okabe & Ito (2008): told apart with every common colour vision. Marks and dashes say the same without colour.
COLOURS = {
    "torch": "#0072b2",
    "keras-tensorflow": "#d55e00",
    "keras-jax": "#009e73",
    "keras-torch": "#cc79a7",
}
MARKERS = {"torch": "o", "keras-tensorflow": "s", "keras-jax": "^", "keras-torch": "D"}
DASHES = {
    "torch": "-",
    "keras-tensorflow": (0, (5, 1.6)),
    "keras-jax": (0, (1.2, 1.2)),
    "keras-torch": (0, (6, 2, 1, 2)),
}
INK = "#000000"  # becomes the page's text colour
PAPER = "#ffffff"  # becomes the page's background
OTHER = "#777777"

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "stroke-frameworks",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # shipped with Matplotlib: equal layout on every machine
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.handlelength": 2.4,
    "figure.constrained_layout.use": True,
}

PAGE_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True)
class Picture:
    """A finished figure: what the page shows, and what is written beside it."""

    name: str  # file stem
    title: str
    caption: str  # what to see
    alt: str  # what a listener needs
    svg: str  # themed, to be set inline
    table: pd.DataFrame  # the numbers drawn


def new_figure(width: float = 4.3, height: float = 3.5) -> tuple[Figure, Axes]:
    """A figure of one axes, in inches. Use inside `mpl.rc_context(STYLE)`."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def new_sheet(count: int, columns: int, cell: float) -> tuple[Figure, list[Axes]]:
    """A figure of `count` bare cells for pictures, `cell` inches wide."""
    rows = -(-count // columns)
    figure = Figure(figsize=(columns * cell, rows * cell * 1.32))
    FigureCanvasAgg(figure)
    cells = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    for axes in cells:
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.set_xticks([])
        axes.set_yticks([])
    return figure, cells


def colour(framework: str) -> str:
    return COLOURS.get(framework, OTHER)


def finish(
    figure: Figure, directory: Path, name: str, title: str, caption: str, alt: str, table: pd.DataFrame
) -> Picture:
    """Write NAME.svg, NAME.png and NAME.csv below `directory`; return the picture for the page."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    raw = text.getvalue()
    write_text(directory / f"{name}.svg", raw)
    figure.set_layout_engine("none")  # the places are found; finding them again would double the time
    write_atomically(
        directory / f"{name}.png",
        lambda stream: figure.savefig(stream, format="png", dpi=150, metadata={"Software": None}),
    )
    write_csv(directory / f"{name}.csv", table.map(defused))
    return Picture(name, title, caption, alt, themed(raw, name, alt), table)


def themed(raw: str, name: str, alt: str) -> str:
    """Matplotlib's SVG as a page element: theme colours, unique ids, no prologue, no style that leaks."""
    svg = raw[raw.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    referenced = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in referenced else "", svg)
    svg = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    svg = re.sub(r"font-family: [^;\"]+", f"font-family: {PAGE_FONT}", svg)
    svg = re.sub(r"font: ([^;\"]*?px) [^;\"]+", rf"font: \1 {PAGE_FONT}", svg)
    svg = re.sub(
        r"-?\d+\.\d{4,}", lambda number: f"{float(number[0]):.2f}", svg
    )  # no label has four decimals
    svg = svg.replace(INK, "currentColor").replace(PAPER, "var(--card)")
    for framework, value in COLOURS.items():
        svg = svg.replace(value, f"var(--{framework})")
    svg = re.sub(r"\s*\n\s*", " ", svg)
    head = re.match(r"<svg[^>]*>", svg)
    view_box = re.search(r'viewBox="([^"]+)"', svg)
    if head is None or view_box is None:
        raise ValueError(f"{name}: Matplotlib wrote no SVG element")
    start = f'<svg viewBox="{view_box.group(1)}" role="img" aria-label="{escape(alt)}" xmlns="http://www.w3.org/2000/svg">'
    return start + svg[head.end() :]


def style() -> AbstractContextManager[None]:
    """Matplotlib's settings while a figure is made; restored afterwards."""
    return mpl.rc_context(STYLE)
