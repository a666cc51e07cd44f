"""The page as a reader has it: from disk, in a browser, with scripts and without, on a phone, on paper, in the dark."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from common.report.plotting import COLOURS

FOREST = "aligned-binary-cnn-slice-differences"
SCORES = "#aligned-binary-cnn-slice-table"


@pytest.fixture(scope="module")
def page(whole_study: Path, browser: Any) -> Iterator[Any]:
    """The page with its script, at a desk; what it asked for and complained of in `page.asked`, `page.complaints`."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 900},
        offline=True,
        accept_downloads=True,
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.asked, page.complaints = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto((whole_study / "report.html").as_uri())
    yield page
    context.close()


@pytest.fixture(scope="module")
def bare(whole_study: Path, browser: Any) -> Iterator[Any]:
    """The page on a phone with scripts off."""
    context = browser.new_context(
        viewport={"width": 390, "height": 844},
        java_script_enabled=False,
        offline=True,
        accept_downloads=True,
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto((whole_study / "report.html").as_uri())
    yield page
    context.close()


def column(page: Any, table: str, place: int) -> list[float]:
    """The number that each cell of a column begins with."""
    texts = page.locator(f"{table} tbody tr td:nth-child({place})").all_inner_texts()
    found = [re.search(r"[−-]?\d+\.\d+", text) for text in texts]
    return [float(one[0].replace("−", "-")) for one in found if one]


def saved(page: Any, click: Any) -> tuple[str, bytes]:
    """Name and bytes of the file that a click downloads."""
    with page.expect_download() as download:
        click.click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


# --- with the script ----------------------------------------------------------------------------------------------


def test_it_opens_from_disk_and_asks_for_nothing(page: Any, whole_study: Path) -> None:
    assert page.asked == [(whole_study / "report.html").as_uri()]
    assert page.complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") == 1280


def test_a_click_or_a_key_sorts_a_table(page: Any) -> None:
    head = page.locator(f"{SCORES} thead th").nth(1)
    before = column(page, SCORES, 2)
    assert before != sorted(before)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, SCORES, 2) == sorted(before)
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, SCORES, 2) == sorted(before, reverse=True)
    names = page.locator(f"{SCORES} thead th").nth(0)
    names.locator("button").click()
    titles = page.locator(f"{SCORES} tbody th").all_inner_texts()
    assert titles == sorted(titles, key=str.lower)
    assert head.get_attribute("aria-sort") is None


def test_rows_stay_in_their_group(page: Any) -> None:
    table = "#systems-table"

    def rows() -> list[list[str]]:
        bodies = page.locator(f"{table} tbody")
        return [bodies.nth(i).locator("tr").all_inner_texts() for i in range(bodies.count())]

    before = rows()
    assert len(before) == 3
    page.locator(f"{table} thead button").nth(1).click()
    page.locator(f"{table} thead button").nth(1).click()
    assert [sorted(group) for group in rows()] == [sorted(group) for group in before]
    assert [group[0] for group in rows()] == [group[0] for group in before]
    assert rows() != before


def test_filters_show_one_task_one_model_or_one_metric(page: Any) -> None:
    task, model, metric = (page.locator(f"[data-filter={name}]") for name in ("task", "model", "metric"))
    task.select_option("segmentation")
    assert page.locator("#segmentation").is_visible()
    assert not page.locator("#binary").is_visible()
    assert not page.locator(".bar a[href='#binary']").is_visible()
    assert page.locator("#data").is_visible()
    page.locator("#show-all").click()
    model.select_option("cnn")
    assert page.locator("#aligned-binary-cnn").is_visible()
    assert not page.locator("#subtype").is_visible()
    page.locator("#show-all").click()
    metric.select_option("recall_score")
    assert page.locator(f"{SCORES} tbody tr:visible").count() == 1
    assert page.locator("#said").inner_text().endswith("comparisons are shown.")
    page.locator("#show-all").click()
    assert not page.locator("[hidden] [data-metric], [data-metric][hidden]").count()
    assert not page.locator("#show-all").is_visible()


def test_a_point_tells_its_value_under_the_pointer_and_by_the_arrow_keys(
    page: Any, whole_study: Path
) -> None:
    drawn = pd.read_csv(whole_study / "figures" / f"{FOREST}.csv")
    value = drawn.loc[drawn["metric"] == "auroc_score", "difference"].iloc[0]
    figure = page.locator(f"figure[data-name='{FOREST}'] > svg")
    figure.scroll_into_view_if_needed()
    marks = page.evaluate(
        "name => [...document.querySelectorAll(`figure[data-name='${name}'] [data-series] use`)].map(mark => {"
        "const box = mark.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]})",
        FOREST,
    )
    told = []
    for x, y in marks:
        page.mouse.move(x, y)
        told.append(page.locator(".tip").inner_text())
    said = [one for one in told if "AUROC" in one]
    numbers = [float(re.search(r"Difference: (−?\d\.\d+)", one)[1].replace("−", "-")) for one in said]  # type: ignore[index]
    assert min(abs(number - value) for number in numbers) < 2e-3
    assert all("keras-tensorflow" in one for one in said)
    page.mouse.move(5, 5)
    figure.focus()
    page.keyboard.press("ArrowRight")
    first = page.locator("#said").inner_text()
    page.keyboard.press("ArrowRight")
    assert "Difference:" in first
    assert first != page.locator("#said").inner_text()
    page.keyboard.press("Escape")
    assert not page.locator(".tip").is_visible()


def test_a_figure_is_enlarged_and_put_back(page: Any) -> None:
    figure = page.locator(f"figure[data-name='{FOREST}']")
    small = figure.locator("> svg").bounding_box()["width"]
    figure.get_by_role("button", name="enlarge").click()
    large = page.locator("dialog[open] > svg").bounding_box()["width"]
    assert large > 1.2 * small
    page.keyboard.press("Escape")
    assert not page.locator("dialog[open]").count()
    assert figure.locator("> svg").bounding_box()["width"] == small
    page.locator(".slices li .enlarge").first.click()
    assert page.locator("dialog[open] img").is_visible()
    page.locator("dialog .close").click()
    assert page.locator(".slices li img").first.is_visible()


def test_what_is_shown_can_be_taken_along(page: Any, whole_study: Path) -> None:
    tools = page.locator(f"{SCORES} + .tools")
    name, content = saved(page, tools.get_by_role("button", name="as CSV"))
    rows = list(csv.reader(io.StringIO(content.decode())))
    assert name == "aligned-binary-cnn-slice-table.csv"
    assert len(rows) == 1 + page.locator(f"{SCORES} tbody tr").count()
    assert {len(row) for row in rows} == {4}
    shown = column(page, SCORES, 2)
    assert [float(re.search(r"\d+\.\d+", row[1])[0]) for row in rows[1:] if row[1] != "–"] == shown  # type: ignore[index]
    name, content = saved(page, tools.get_by_role("button", name="as LaTeX"))
    text = content.decode()
    assert text.count(r"\\") == len(rows)
    assert r"\toprule" in text
    assert "$\\pm$" in text
    name, content = saved(
        page, page.locator(f"figure[data-name='{FOREST}']").get_by_role("link", name="as SVG")
    )
    svg = ElementTree.fromstring(content.decode())
    assert name == f"{FOREST}.svg"
    defined = set(re.findall(r"(--[\w-]+):", svg.get("style", "")))
    assert set(re.findall(r"var\((--[\w-]+)\)", content.decode())) <= defined
    assert {f"--{framework}" for framework in COLOURS} <= defined


def test_no_other_script_runs(page: Any) -> None:
    page.evaluate(
        "() => { const one = document.createElement('script'); one.textContent = 'window.strange = 1';"
        "document.body.append(one); one.remove(); }"
    )
    assert page.evaluate("window.strange") is None
    assert any("Content Security Policy" in text for text in page.complaints)
    page.complaints.clear()


# --- without it ---------------------------------------------------------------------------------------------------


def test_without_scripts_everything_can_be_read(bare: Any, whole_study: Path) -> None:
    assert not bare.locator("#filters").is_visible()
    assert not bare.locator("button:visible").count()
    for name in ("verdicts", "differs", "binary", "subtype", "segmentation", "systems", "data", "limits"):
        assert bare.locator(f"#{name}").is_visible(), name
    bare.locator(".bar a[href='#systems']").click()
    assert bare.locator(".bar").bounding_box()["y"] == pytest.approx(0, abs=2)  # it stays in sight
    link = bare.locator("a[download='scores.csv']")
    assert saved(bare, link) == ("scores.csv", (whole_study / "tables" / "scores.csv").read_bytes())
    links = bare.locator(".tools a").evaluate_all("all => all.map(one => one.getAttribute('href'))")
    assert len(links) > 20
    assert all((whole_study / link).exists() for link in links)


# Inside a picture, which has a name of its own, are thousands of marks that no rule is about.
EMPTY = "all => all.forEach(one => one.replaceChildren())"
# Of rows, items and figures that are all alike, two have every colour that the others have.
THIN = """() => {
  const cut = (parent, child) => document.querySelectorAll(parent).forEach(
    one => [...one.querySelectorAll(`:scope > ${child}`)].slice(2).forEach(other => other.remove()));
  cut("table", "tbody"); cut("tbody", "tr"); cut("tbody tr", "td");
  cut("ul", "li"); cut(".figures", "figure"); cut("dl", "div");
}"""


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_everyone_can_read_it(whole_study: Path, browser: Any, width: int, scheme: str) -> None:
    """No sideways scrolling with every folded part open, and no violation of axe's rules: of the whole page once, and
    of its colours in either scheme.
    """
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto((whole_study / "report.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.locator("figure svg").evaluate_all(EMPTY)
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    found = []
    if scheme == "light":
        found.append(axe.Axe().run(page, options=options | {"rules": {"color-contrast": {"enabled": False}}}))
    page.evaluate(THIN)
    found.append(axe.Axe().run(page, options=options | {"runOnly": ["color-contrast"]}))
    page.close()
    for one in found:
        assert one.violations_count == 0, one.generate_report()


def test_on_paper_everything_is_open_and_nothing_cut(page: Any, bare: Any) -> None:
    page.emulate_media(media="print")
    assert page.locator(f"{SCORES} thead button").first.is_visible()  # it holds the heading
    assert not page.locator("button:not(.sort):visible, .filters:visible").count()
    page.emulate_media(media="screen")
    bare.emulate_media(media="print")
    assert not bare.locator(".bar").is_visible()
    assert not bare.locator(".tools:visible").count()
    folded = bare.locator("details:not([open]) .scroll").first
    assert folded.bounding_box()["height"] > 20
    assert bare.locator("figure").first.evaluate("one => getComputedStyle(one).breakInside") == "avoid"
    bare.emulate_media(media="screen")
