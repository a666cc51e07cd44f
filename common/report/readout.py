"""The scale of a figure's axes and the names of its lines, for the page's script to read values off the picture.

The picture itself holds every point drawn, in its own coordinates; with the scale of the axes they are numbers again,
to about a thousandth of the width of the axes. So nothing has to be carried twice.
"""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

POINTS_PER_INCH = 72  # the unit of Matplotlib's SVG
SCALES = ("linear", "log")
NUMBER = re.compile(r"[−+-]?[\d.,]*")
SERIES = re.compile(r' id="series-(\d+)-(\d+)"')


def mark(figure: Figure, colours: dict[str, str]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Give every line and cloud of points an id of its own; return the axes' scales and id -> name.

    To be called when the layout is final. `colours` is framework -> colour, which names a line without a label.
    """
    scales: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for axes in figure.axes:
        artists = [
            one for one in (*axes.lines, *axes.collections) if isinstance(one, Line2D | PathCollection)
        ]
        if not artists or axes.get_xscale() not in SCALES or axes.get_yscale() not in SCALES:
            continue
        found = {f"series-{len(scales)}-{i}": name_of(one, colours) for i, one in enumerate(artists)}
        for key, artist in zip(found, artists, strict=True):
            if found[key] is not None:
                artist.set_gid(key)
                names[key] = str(found[key])
        scales.append(scale_of(axes, figure))
    return scales, names


def name_of(artist: Line2D | PathCollection, colours: dict[str, str]) -> str | None:
    """Framework or label of what was drawn; None for a reference line, which has no value to read."""
    label = str(artist.get_label())
    shown = "" if label.startswith("_") else label
    if isinstance(artist, Line2D):
        framework = next((name for name, value in colours.items() if to_hex(artist.get_color()) == value), "")
        bare = artist.get_marker() in ("None", "", " ", None)
        if bare and not framework and (not shown or len(np.asarray(artist.get_xdata())) < 3):
            return None
        return framework or shown
    return shown


def scale_of(axes: Axes, figure: Figure) -> dict[str, Any]:
    """Where the axes lie in the SVG, and which values their ends have."""
    width, height = figure.get_size_inches() * POINTS_PER_INCH
    box = axes.get_position()
    return {
        "x": axis_of(axes, "x", box.x0 * width, box.x1 * width),
        "y": axis_of(axes, "y", (1 - box.y0) * height, (1 - box.y1) * height),
    }


def axis_of(axes: Axes, which: str, first: float, last: float) -> dict[str, Any]:
    """One axis: its label, its two ends in the SVG and in values, and the names of its ticks where it has names."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    found: dict[str, Any] = {
        "label": axis.get_label_text(),
        "at": [round(first, 2), round(last, 2)],
        "ends": [float(f"{low:.9g}"), float(f"{high:.9g}")],
    }
    if axis.get_scale() == "log":
        found["log"] = True
    if isinstance(axis.get_major_locator(), FixedLocator):
        places = [float(at) for at in axis.get_majorticklocs()]
        texts = [" ".join(text.split()) for text in axis.get_major_formatter().format_ticks(places)]
        if any(not NUMBER.fullmatch(text) for text in texts):
            found["names"] = [[at, text] for at, text in zip(places, texts, strict=True)]
    return found


def named(svg: str, names: dict[str, str]) -> str:
    """The SVG with the names of its lines in place of the ids that `mark` gave them."""
    return SERIES.sub(
        lambda found: (
            f' data-scale="{found[1]}" data-series="{escape(names[f"series-{found[1]}-{found[2]}"])}"'
        ),
        svg,
    )


def scaled(svg: str, scales: list[dict[str, Any]]) -> str:
    """The SVG element with the scales of its axes as JSON in `data-scales`."""
    if not scales:
        return svg
    return svg.replace("<svg ", f'<svg data-scales="{escape(json.dumps(scales, ensure_ascii=False))}" ', 1)
