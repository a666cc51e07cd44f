"""One look for every figure: colours, marks, and SVG that follows the page's light or dark theme.

A figure is saved three times: SVG and PNG on white for papers and slides, and an inline SVG whose ink is the page's
text colour. Bytes are equal for equal input: no date, fixed hash salt, text kept as text.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from html import escape
from operator import sub
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from common.report import readout
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

PNG_DPI = 150
PNG_LEVEL = 4  # of 9: half the time of the usual 6, a twentieth larger
LONG_PATH = 60  # words of a path, three a point, from which it is shortened for the page
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


def new_panels(
    width: float, height: float, rows: Sequence[float] = (1,), columns: Sequence[float] = (1,)
) -> tuple[Figure, list[Axes]]:
    """A figure of several axes, row by row, their sizes in these proportions; the rest as `new_figure`."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(rows), len(columns), height_ratios=rows, width_ratios=columns)
    return figure, [figure.add_subplot(grid[i, j]) for i in range(len(rows)) for j in range(len(columns))]


@dataclass
class Cell:
    """The place of one picture on a sheet, with the methods of axes that a sheet needs. Axes of its own would take
    longer than everything in them.
    """

    axes: Axes  # of the whole sheet, in inches, y downwards
    left: float
    top: float
    side: float  # of the square that the picture fits into
    scale: float = 1.0  # inches a unit of what is drawn on the picture

    def show(self, pixels: NDArray[np.uint8], units: float = 1.0) -> None:
        """A grey picture (H, W), its longer side as long as the cell's; `units` are its side for `plot`."""
        height, width = (self.side * length / max(pixels.shape) for length in pixels.shape)
        self.scale = self.side / units
        box = (self.left, self.left + width, self.top + height, self.top)
        self.axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=box, aspect="auto")

    def plot(self, x: NDArray[np.float64], y: NDArray[np.float64], **how: Any) -> None:
        self.axes.plot(self.left + self.scale * x, self.top + self.scale * y, **how)

    def write(self, above: str, below: str, size: float) -> None:
        self.axes.text(self.left, self.top - 0.04, above, fontsize=8, fontweight="bold", va="bottom")
        middle, bottom = self.left + self.side / 2, self.top + self.side
        self.axes.text(middle, bottom + 0.05, below, fontsize=size, ha="center", va="top")


def new_sheet(count: int, columns: int, cell: float) -> tuple[Figure, list[Cell]]:
    """A figure of `count` cells for pictures, `cell` inches wide."""
    width, step = columns * cell, 1.32 * cell
    height = -(-count // columns) * step
    with mpl.rc_context({"figure.constrained_layout.use": False}):  # every place is known beforehand
        figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    axes.set_autoscale_on(False)
    return figure, [
        Cell(axes, (i % columns + 0.03) * cell, i // columns * step + 0.2 * cell, 0.94 * cell)
        for i in range(count)
    ]


def colour(framework: str) -> str:
    return COLOURS.get(framework, OTHER)


def finish(
    figure: Figure, directory: Path, name: str, title: str, caption: str, alt: str, table: pd.DataFrame
) -> Picture:
    """Write NAME.svg, NAME.png and NAME.csv below `directory`; return the picture for the page."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")  # the places are found, once
    scales, names = readout.mark(figure, COLOURS)
    text = io.StringIO()
    # `savefig` would draw everything twice, once to find the places
    FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None})
    raw = text.getvalue()
    vector, raster = directory / f"{name}.svg", directory / f"{name}.png"
    if not (raster.exists() and vector.exists() and vector.read_text(encoding="utf-8") == raw):
        write_text(vector, raw)
        write_raster(figure, raster)
    write_csv(directory / f"{name}.csv", table.map(defused))
    svg = readout.scaled(themed(readout.named(raw, names), name, alt), scales)
    return Picture(name, title, caption, alt, svg, table)


def write_raster(figure: Figure, path: Path) -> None:
    """The figure as PNG, drawn a second time, which is a third of a figure's time: left out where nothing changed."""
    figure.set_dpi(PNG_DPI)
    canvas = FigureCanvasAgg(figure)
    options = {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": PNG_LEVEL}}
    write_atomically(path, lambda stream: canvas.print_png(stream, **options))


def themed(raw: str, name: str, alt: str) -> str:
    """Matplotlib's SVG as a page element: theme colours, unique ids, no prologue, no style that leaks; each point of a
    scatter in some 40 bytes.
    """
    svg = raw[raw.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' d="([^"]*)"', lambda found: f' d="{short_path(found[1])}"', svg)
    svg = with_own_ids(svg, name)
    svg = re.sub(r"font-family: [^;\"]+;? ?", "", svg)  # the root has it
    svg = re.sub(r"font: ([^;\"]*?px) [^;\"]+", rf"font: \1 {PAGE_FONT}", svg)
    svg = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", svg)
    svg = re.sub(
        r"-?\d+\.\d{4,}", lambda number: f"{float(number[0]):.2f}", svg
    )  # no label has four decimals
    svg = svg.replace(INK, "currentColor").replace(PAPER, "var(--card)")
    for framework, value in COLOURS.items():
        svg = svg.replace(value, f"var(--{framework})")
    svg = with_shared_styles(re.sub(r"\s*\n\s*", " ", svg))
    head = re.match(r"<svg[^>]*>", svg)
    view_box = re.search(r'viewBox="([^"]+)"', svg)
    if head is None or view_box is None:
        raise ValueError(f"{name}: Matplotlib wrote no SVG element")
    start = (
        f'<svg viewBox="{view_box.group(1)}" role="img" aria-label="{escape(alt)}" '
        f'style="font-family: {escape(PAGE_FONT)}" xmlns="http://www.w3.org/2000/svg">'
    )
    return start + svg[head.end() :]


def with_own_ids(svg: str, name: str) -> str:
    """Only the ids that something refers to, short and unlike those of any other figure of the page."""
    mark = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    referenced = re.findall(r'(?:href="|url\()#([^")]+)', svg)
    own = {old: f"f{mark}-{number}" for number, old in enumerate(dict.fromkeys(referenced))}
    svg = re.sub(r' id="([^"]+)"', lambda found: f' id="{own[found[1]]}"' if found[1] in own else "", svg)
    svg = re.sub(r'xlink:href="#([^"]+)"', lambda found: f'href="#{own[found[1]]}"', svg)
    return re.sub(r"url\(#([^)]+)\)", lambda found: f"url(#{own[found[1]]})", svg)


def short_path(path: str) -> str:
    """A path of many straight lines in relative steps of a tenth of a point: a staircase in a third of the bytes."""
    words = path.split()
    end = "z" if words[-1:] == ["z"] else ""
    words = words[:-1] if end else words
    if len(words) < LONG_PATH or len(words) % 3 or set(words[3::3]) != {"L"}:
        return path
    x, y = (
        np.rint(10 * np.array(words[start::3], dtype=np.float64)).astype(int).tolist() for start in (1, 2)
    )
    steps = []
    for right, down in zip(map(sub, x[1:], x), map(sub, y[1:], y), strict=True):
        if right and down:
            steps.append(f"l{step(right)} {step(down)}")
        elif right or down:
            steps.append(f"h{step(right)}" if right else f"v{step(down)}")
    return f"M{step(x[0])} {step(y[0])}{''.join(steps)}{end}"


def step(tenths: int) -> str:
    """2 for 2.0, -.3 for -0.3."""
    whole, rest = divmod(abs(tenths), 10)
    return f"{'-' if tenths < 0 else ''}{whole or ''}{f'.{rest}' if rest else '' if whole else '0'}"


def with_shared_styles(svg: str) -> str:
    """Equal neighbouring points in one group that holds their clip path and style, which they inherit."""
    point = r"<use [^>]*/>"
    svg = re.sub(
        rf'<g( clip-path="[^"]+")> ({point}) </g>(?: <g\1> {point} </g>)+',
        lambda found: f"<g{found[1]}> {' '.join(re.findall(point, found[0]))} </g>",
        svg,
    )

    def share(found: re.Match[str]) -> str:
        styles = set(re.findall(r' style="[^"]*"', found[2]))
        if len(styles) != 1 or found[2].count("<use ") != found[2].count(" style="):
            return found[0]
        (style,) = styles
        return f"<g{found[1]}{style}>{found[2].replace(style, '')}</g>"

    return re.sub(rf'<g( clip-path="[^"]+")>((?: {point})+ )</g>', share, svg)


def style() -> AbstractContextManager[None]:
    """Matplotlib's settings while a figure is made; restored afterwards."""
    return mpl.rc_context(STYLE)
