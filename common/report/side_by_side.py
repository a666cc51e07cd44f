"""`compare.py report A B`: two studies side by side, on a page of its own, from the files of both."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from common import config
from common.errors import StudyError
from common.report.page import STYLES, TEMPLATES, markdown_cell, without_tags
from common.report.plotting import COLOURS
from common.report.side_figures import beside_figure
from common.report.side_numbers import difference_rows, only_in_one, shared_numbers
from common.report.side_studies import Side, differing_settings, read_side
from common.report.side_views import comparison_views, primary_views, side_view, verdict_views
from common.report.wording import percent
from common.results import defused, write_csv, write_page

OWN_STYLE = "side_by_side.css"


def write_side_by_side(a: Path, b: Path, out: Path) -> Path:
    """Write `report.html`, `report.md`, `differences.csv` and `figures/` into a folder; return its report.html.

    Every number is computed anew from the predictions of both; nothing is written into either study. Raises StudyError
    where one of them is no study, both are the same, or the folder holds a study.
    """
    check_folders(a, b, out)
    name_a, name_b = names_of(a, b)
    first, second = read_side(a, name_a), read_side(b, name_b)
    numbers = shared_numbers(first, second)
    write_csv(out / "differences.csv", difference_rows(numbers).map(defused))
    content = page_content(first, second) | {
        "figure": beside_figure(numbers, (name_a, name_b), out / "figures"),
        "verdicts": verdict_views(numbers),
        "primary": primary_views(numbers),
        "comparisons": comparison_views(numbers, first, second),
        "shared": len(numbers),
        "command": f"python compare.py report {shown(a)} {shown(b)} --out {shown(out)}",
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    page = environment.get_template("side_by_side.html.j2").render(content)
    write_page(out / "report.html", page)
    plain = environment.overlay(autoescape=False)
    plain.filters["cell"] = markdown_cell
    write_page(out / "report.md", without_tags(plain.get_template("side_by_side.md.j2").render(content)))
    return out / "report.html"


def shown(folder: Path) -> str:
    """As it was typed; of a path from the root the name alone, for a page to share tells nobody's folders."""
    return shlex.quote(" ".join((folder.name if folder.is_absolute() else folder.as_posix()).split()))


def default_out(a: Path, b: Path) -> Path:
    """results/A-beside-B."""
    return Path("results", f"{a.resolve().name}-beside-{b.resolve().name}")


def check_folders(a: Path, b: Path, out: Path) -> None:
    if a.resolve() == b.resolve():
        raise StudyError(f"{a} was given twice; give two studies, or one for its own report")
    if (out / "study.json").exists():
        raise StudyError(f"--out {out} holds a study, whose report would be lost; choose another folder")


def names_of(a: Path, b: Path) -> tuple[str, str]:
    """What the page calls them: their folders' names, with those above where these are equal."""
    ours, theirs = a.resolve().parts, b.resolve().parts
    length = 1
    while ours[-length:] == theirs[-length:]:
        length += 1
    return "/".join(ours[-length:]), "/".join(theirs[-length:])


def page_content(a: Side, b: Side) -> dict[str, Any]:
    """What the page says of the two studies as such."""
    only = only_in_one(a, b)
    return {
        "title": f"{a.name} beside {b.name}",
        "sides": [side_view(a), side_view(b)],
        "across": a.study.lanes != b.study.lanes and not set(a.study.lanes) & set(b.study.lanes),
        "settings": differing_settings(a, b),
        "only": [
            {"name": side.name, "letter": letter.upper(), "keys": only[letter]}
            for letter, side in (("a", a), ("b", b))
        ],
        "notice": config.NOTICE,
        "confidence": percent(config.CONFIDENCE),
        "colours": COLOURS,
        "css": Markup(
            "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in (*STYLES, OWN_STYLE))
        ),
        "svg": Markup,
    }
