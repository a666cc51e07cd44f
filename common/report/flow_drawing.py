"""A tree of boxes as SVG: text kept as text, boxes sized to it, no dependence on the reader's fonts.

Widths are measured in DejaVu Sans, which is wider than the fonts that pages are set in, so nothing leaves its box.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from common.names import printable
from common.report.plotting import PAGE_FONT

# role -> colour: those of the page follow its light or dark theme, those of the file beside it stand on white
PAGE = {
    "ink": "currentColor",
    "soft": "var(--soft)",
    "line": "var(--line)",
    "box": "var(--tint)",
    "paper": "var(--card)",
    "test": "var(--link)",
}
PAPER = {
    "ink": "#16202b",
    "soft": "#51606f",
    "line": "#c3ccd5",
    "box": "#f0f3f6",
    "paper": "#ffffff",
    "test": "#0b5c94",
}

# All in px, which at the widths below are about those of the screen
WIDE, NARROW = 940.0, 340.0
TITLE_PX, LINE_PX, LEADING = 14.0, 13.0, 18.0
PAD, GAP, INDENT = 12.0, 22.0, 30.0  # inside a box, between boxes, of what hangs on the spine
TRUNK, TASK = 330.0, 270.0  # width of the boxes above, and of a task's own box beside its parts
SPINE = 14.0  # x of the line that the tasks hang on
CORNER = 8.0


@dataclass(frozen=True)
class Node:
    """One box: a bold title, lines below it, dashed asides, and what comes after it."""

    title: str
    lines: tuple[str, ...] = ()
    kind: str = "step"  # | "aside", told and left behind | "task" | "part" | "test", a part that is judged
    asides: tuple[Node, ...] = ()
    branches: tuple[Node, ...] = ()


@dataclass
class Sheet:
    """The elements drawn so far, in the colours of a theme."""

    colours: Mapping[str, str]
    elements: list[str]

    def box(self, x: float, y: float, width: float, height: float, kind: str = "step") -> None:
        dashes = ' stroke-dasharray="4 3"' if kind == "aside" else ""
        fill = self.colours["paper" if kind == "aside" else "box"]
        self.elements.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{CORNER:g}"{dashes} '
            f'style="fill: {fill}; stroke: {self.colours["line"]}"/>'
        )

    def bar(self, x: float, y: float, height: float) -> None:
        """The mark of a part that is judged."""
        self.elements.append(
            f'<rect x="{x:g}" y="{y:g}" width="3" height="{height:g}" style="fill: {self.colours["test"]}"/>'
        )

    def line(self, *points: tuple[float, float], arrow: bool = False, role: str = "soft") -> None:
        (x, y), path = points[-1], " L".join(f"{x:g} {y:g}" for x, y in points)
        style = f"fill: none; stroke: {self.colours[role]}"
        self.elements.append(f'<path d="M{path}" style="{style}"/>')
        if arrow:
            before = points[-2]
            head = f"M{x - 6:g} {y - 4:g} L{x:g} {y:g} L{x - 6:g} {y + 4:g}"
            if before[0] == x:  # it comes from above
                head = f"M{x - 4:g} {y - 6:g} L{x:g} {y:g} L{x + 4:g} {y - 6:g}"
            self.elements.append(f'<path d="{head}" style="{style}"/>')

    def words(self, x: float, y: float, node: Node, width: float) -> None:
        """Title and lines of a box whose corner is (x, y)."""
        titles, lines = wrapped(node, width)
        at = y + PAD + TITLE_PX - 2
        for text in titles:
            self.text(x + PAD, at, text, TITLE_PX, "ink", bold=True)
            at += LEADING
        for i, text in enumerate(lines):
            sizes = i == 0 and node.kind in ("part", "test")
            self.text(x + PAD, at, text, LINE_PX, "ink" if sizes else "soft")
            at += LEADING

    def text(self, x: float, y: float, text: str, size: float, role: str, bold: bool = False) -> None:
        weight = "; font-weight: 600" if bold else ""
        self.elements.append(
            f'<text x="{x:g}" y="{y:g}" style="font-size: {size:g}px; fill: {self.colours[role]}{weight}">'
            f"{escape(text)}</text>"
        )

    def svg(self, width: float, height: float, alt: str) -> str:
        ground = ""
        if self.colours is PAPER:
            ground = f'<rect width="{width:g}" height="{height:g}" style="fill: {PAPER["paper"]}"/>'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-1 -1 {width + 2:g} {height + 2:g}" role="img" '
            f'aria-label="{escape(printable(alt))}" style="font-family: {escape(PAGE_FONT)}">'
            f"{ground}{''.join(self.elements)}</svg>"
        )


def draw_wide(root: Node, alt: str, colours: Mapping[str, str]) -> str:
    """For a desk: a trunk with asides to its right, then a row a task with its parts side by side."""
    sheet = Sheet(colours, [])
    y, tasks = _trunk(sheet, root, 0.0, TRUNK, TRUNK + 2 * INDENT, WIDE)
    left, begin = SPINE + INDENT, y
    for task in tasks:
        y += GAP
        if not task.branches:  # a task that was not done
            height = height_of(task, WIDE - left)
            sheet.box(left, y, WIDE - left, height, task.kind)
            sheet.words(left, y, task, WIDE - left)
            sheet.line((SPINE, y + 20), (left - 2, y + 20), arrow=True)
            last, y = y + 20, y + height
            continue
        cells = left + TASK + INDENT
        each = (WIDE - cells) / len(task.branches)
        height = max(height_of(task, TASK), *(height_of(part, each) for part in task.branches))
        sheet.box(left, y, TASK, height)
        sheet.words(left, y, task, TASK)
        sheet.box(cells, y, WIDE - cells, height)
        for i, part in enumerate(task.branches):
            if i:
                sheet.line((cells + i * each, y), (cells + i * each, y + height), role="line")
            if part.kind == "test":
                sheet.bar(cells + i * each + 4, y + PAD, height - 2 * PAD)
            sheet.words(cells + i * each, y, part, each)
        sheet.line((left + TASK, y + 20), (cells - 2, y + 20), arrow=True)
        sheet.line((SPINE, y + 20), (left - 2, y + 20), arrow=True)
        last, y = y + 20, y + height
    if tasks:
        sheet.line((SPINE, begin), (SPINE, last))
    return sheet.svg(WIDE, y, alt)


def draw_narrow(root: Node, alt: str, colours: Mapping[str, str]) -> str:
    """For a phone: everything below one another, asides and tasks hanging on a line at the left."""
    sheet = Sheet(colours, [])
    y, tasks = _trunk(sheet, root, 0.0, NARROW, INDENT, NARROW)
    begin = y
    width = NARROW - INDENT
    for task in tasks:
        y += GAP
        own = height_of(task, width)
        heights = [height_of(part, width - INDENT / 2) - PAD for part in task.branches]
        sheet.box(INDENT, y, width, own + sum(heights), task.kind)
        sheet.words(INDENT, y, task, width)
        sheet.line((SPINE, y + 20), (INDENT - 2, y + 20), arrow=True)
        last, below = y + 20, y + own
        for part, height in zip(task.branches, heights, strict=True):
            if part.kind == "test":
                sheet.bar(INDENT + INDENT / 2 + 4, below, height - PAD)
            sheet.words(INDENT + INDENT / 2, below - PAD, part, width - INDENT / 2)
            below += height
        y = below if task.branches else y + own
    if tasks:
        sheet.line((SPINE, begin), (SPINE, last))
    return sheet.svg(NARROW, y, alt)


def _trunk(
    sheet: Sheet, node: Node, y: float, width: float, aside_x: float, right: float
) -> tuple[float, Sequence[Node]]:
    """Draw the boxes up to the one that branches into tasks; returns its lower edge and the tasks."""
    while True:
        height = height_of(node, width)
        sheet.box(0, y, width, height)
        sheet.words(0, y, node, width)
        beside = aside_x > width  # else below, on the line that goes on
        top, y = y, y + height
        low = y
        for aside in node.asides:
            at = top if beside else low + GAP
            tall = height_of(aside, right - aside_x)
            sheet.box(aside_x, at, right - aside_x, tall, "aside")
            sheet.words(aside_x, at, aside, right - aside_x)
            start = width if beside else SPINE
            sheet.line((start, at + 20), (aside_x - 2, at + 20), arrow=True)
            top, low = at + tall + GAP / 2, max(low, at + tall)
        if [one.kind for one in node.branches] != ["step"]:
            if low > y:
                sheet.line((SPINE, y), (SPINE, low))
            return low, node.branches
        sheet.line((SPINE, y), (SPINE, low + GAP), arrow=True)
        node, y = node.branches[0], low + GAP


# --- measuring ----------------------------------------------------------------------------------------------------


def height_of(node: Node, width: float) -> float:
    """Of the box around a node's words."""
    titles, lines = wrapped(node, width)
    return 2 * PAD + LEADING * (len(titles) + len(lines)) - 4


def wrapped(node: Node, width: float) -> tuple[list[str], list[str]]:
    """Title and lines broken to fit a box of a width."""
    inner = width - 2 * PAD
    titles = broken(node.title, inner, TITLE_PX, bold=True)
    return titles, [part for line in node.lines for part in broken(line, inner, LINE_PX)]


def broken(text: str, width: float, size: float, bold: bool = False) -> list[str]:
    """Text in lines of at most a width, fit for XML; a word that is longer is cut."""
    lines: list[str] = [""]
    for word in printable(text, keep="\n\t").split():
        while measure(word, size, bold) > width:
            fits = next(
                n for n in range(len(word), 0, -1) if n == 1 or measure(word[:n], size, bold) <= width
            )
            lines.append(word[:fits])
            word = word[fits:]
        joined = f"{lines[-1]} {word}".strip()
        if measure(joined, size, bold) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return [line for line in lines if line] or [""]


@cache
def measure(text: str, size: float, bold: bool = False) -> float:
    """Width of a text in px."""
    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    with warnings.catch_warnings():
        # Of writing that this font lacks, which pages set in another
        warnings.simplefilter("ignore", UserWarning)
        width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width)
