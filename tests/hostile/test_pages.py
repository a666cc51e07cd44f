"""Pages and tables made of hostile names, opened as a reader opens them: nothing runs, nothing is asked for, and names
are shown as they are. The pages' own policy, which would stop scripts, is switched off: escaping has to do alone.
"""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import records

from common import results
from common.data.overlay_preview import Pair, Reading, preview_page
from common.names import UNSHOWN, printable
from common.report import write_report
from common.report.audit_page import write_audit_page
from common.report.side_by_side import write_side_by_side

assert records  # which finds the fixtures of `tests/common`
from mask_study_fixture import make_mask_study, slice_pixels  # noqa: E402
from report_fixture import leave_rasters  # noqa: E402
from study_fixture import write_failed_run  # noqa: E402

NAMES = (
    "<script>window.hacked=1</script>",
    "</script></style></title><script>window.hacked=2</script>",
    '"><img src=x onerror=window.hacked=3>',
    "' onmouseover=window.hacked=4 autofocus onfocus=window.hacked=4 x='",
    "javascript:window.hacked=5",
    "<svg onload=window.hacked=6><a xlink:href=javascript:window.hacked=6>",
    "--><iframe src=http://names.invalid/></iframe>]]>",
    "{{ 7*7 }}{% raw %}&lt;script&gt;",
    "turned \u202egnp.exe\u2066",
    "two\nlines\r\n\ttab \x1b]0;title\x07 nul\x00",
    '=HYPERLINK("http://names.invalid","x")',
    "@SUM(1+1)|'cmd'!A1",
    "+1+cmd",
    "-2+3 (1)",
    "\t=1+1",
    r"$\frac{unbalanced$_^\input{x}%",
)
KEPT = {"status", "reason", "run", "spec", "recipe", "format"}
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def hostile(name: str) -> str:
    """A hostile name for each name of the fixture, and no two alike."""
    return f"{NAMES[sum(name.encode()) % len(NAMES)]} {name}"


def poisoned(value: Any) -> Any:
    """A document with every text in it, and every name of an object of names, made hostile."""
    if isinstance(value, dict):
        return {key: poisoned(one) for key, one in value.items()}
    if isinstance(value, list):
        return [poisoned(one) for one in value]
    return hostile(value) if isinstance(value, str) else value


def poison_run(path: Path) -> None:
    document = results.read_json(path)
    for key in document.keys() - KEPT:
        document[key] = poisoned(document[key])
    for key in ("environment", "variables"):
        document[key] |= {name: name for name in NAMES}
    results.write_json(path, document)


def rename_slices(path: Path) -> None:
    """Of a run's predictions."""
    with np.load(path) as found:
        arrays = dict(found)
    for name in ("sample_id", "patient"):
        # What cannot be shown is refused there already
        arrays[name] = np.array([printable(hostile(one)) for one in arrays[name].tolist()])
    np.savez(path, **arrays)


def findings() -> list[dict[str, Any]]:
    rows = [{"file": name, name: name, "why": name} for name in NAMES]
    one = {"sentence": " ".join(NAMES), "remedy": NAMES[0], "evidence": rows, "evidence_total": len(rows)}
    return [{"name": name, "verdict": verdict} | one for name, verdict in (
        ("masks", "warn"), ("painted-inputs", "refuse"), (NAMES[0], "note"), ("labels", "pass"),
    )]  # fmt: skip


AUDIT = {
    "found": 240,
    "used": 240,
    "patients": 40,
    "data": list(NAMES),
    "accepted": [NAMES[0]],
    "findings": findings(),
    "patients_from": dict.fromkeys(NAMES, 1),
    "skipped_tasks": [{"task": name, "reason": name} for name in NAMES],
    **{
        key: [{"id": name, "path": name, "reason": name, "method": name, "note": name} for name in NAMES]
        for key in ("unreadable", "unreadable_masks", "doubtful_masks")
    },
}


def make_hostile(directory: Path) -> Path:
    """A reported study in which every name and every free text of every file is hostile."""
    make_mask_study(directory, seeds=2, gates=[("binary", "cnn")], missing=[("cnn", "torch", 1, 0)])
    for table in ("samples", "split"):
        path = directory / "data" / f"{table}.csv"
        found = results.read_text_table(path, ["id"])
        names = [name for name in ("id", "path", "patient", "source") if name in found]
        worse = {name: [printable(hostile(one)) for one in found[name]] for name in names}
        results.write_text_table(path, found.assign(**worse))
    results.write_json(directory / "data" / "audit.json", AUDIT)
    study = results.read_json(directory / "study.json")
    study["study"]["data"] = list(NAMES)
    study |= {
        "git_commit": NAMES[0],
        "environment": dict(zip(NAMES, NAMES, strict=True)),
        "created": NAMES[0],
    }
    study |= {"pretrained": {NAMES[0]: dict.fromkeys(("path", "source", "sha256"), NAMES[0])}}
    results.write_json(directory / "study.json", study)
    for run in results.read_study(directory).study.runs():
        folder = results.run_directory(directory, run)
        if (folder / "run.json").exists():
            poison_run(folder / "run.json")
            rename_slices(folder / "predictions.npz")
        else:
            write_failed_run(directory, run, " ".join(NAMES))
    with pytest.MonkeyPatch.context() as patch:
        leave_rasters(patch)
        write_report(directory, lambda name: slice_pixels(name.rpartition(" ")[2]))
    return directory


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_hostile(tmp_path_factory.mktemp("hostile") / "study")


class Opened:
    """A page in a browser, and what it tried."""

    def __init__(self, browser: Any, path: Path) -> None:
        self.asked: list[str] = []
        self._context = browser.new_context(bypass_csp=True, offline=True, accept_downloads=True)
        self.page = self._context.new_page()
        self._context.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.asked.remove(path.as_uri())

    def use(self) -> None:
        """Fold out, point at, focus and press everything."""
        self.page.evaluate(USE)
        self.page.wait_for_timeout(100)

    def close(self) -> None:
        self._context.close()


USE = """() => {
  window.saved = [];
  URL.createObjectURL = (blob) => { window.saved.push(blob); return "#"; };
  document.querySelectorAll("details").forEach((one) => (one.open = true));
  for (const one of document.querySelectorAll("*")) {
    one.dispatchEvent(new MouseEvent("mouseover"));
    if (one.matches("svg[tabindex]")) {
      one.dispatchEvent(new MouseEvent("pointermove"));
      one.focus();
      for (const key of ["ArrowRight", "ArrowRight", "Escape"])
        one.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    }
  }
  for (const one of document.querySelectorAll("button")) {
    if (one.isConnected && !one.closest("dialog")) one.click();
    document.querySelector("dialog[open]")?.close();
  }
}"""
# Scripts that are not the page's first, attributes that are scripts, and elements that no page of ours has
STRANGE = """() => [...document.querySelectorAll("*")].flatMap((one) => [
  ...["SCRIPT", "IFRAME", "OBJECT", "EMBED", "BASE", "FORM", "LINK"].includes(one.tagName.toUpperCase())
    && one !== document.scripts[0] ? [one.tagName] : [],
  ...[...one.attributes].filter(({ name, value }) => /^on/i.test(name) || (/^(xlink:)?href$|^src$|^action$/i.test(name)
    && !/^(#|data:|\\.{0,2}[/\\w-]*\\.(csv|tex|svg|png|json|md|html)$)/i.test(value.trim())))
    .map(({ name, value }) => `${name}=${value}`.slice(0, 80)),
])"""


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    pages: list[Opened] = []

    def open_page(path: Path) -> Opened:
        pages.append(Opened(browser, path))
        return pages[-1]

    yield open_page
    for one in pages:
        one.close()


def assert_harmless(found: Opened, shown: Mapping[str, int] | tuple[str, ...] = NAMES) -> None:
    found.use()
    assert found.page.evaluate("window.hacked") is None
    assert found.asked == []
    assert found.page.evaluate(STRANGE) == []
    text = " ".join(found.page.evaluate("document.documentElement.textContent").split())
    for name in shown:
        assert " ".join(printable(name, keep="\n\t").split()) in text, name
    assert not set(UNSHOWN.findall(text)) - {"\u00ad", "\u200b"}


def test_the_trap_snaps(opened: Any, tmp_path: Path) -> None:
    """Names that are not escaped are found out, each in its own way."""
    for number, name in enumerate(NAMES[:6]):
        path = tmp_path / f"{number}.html"
        path.write_text(f"<!doctype html><a href='{name}' title='{name}'>{name}</a>", encoding="utf-8")
        with pytest.raises(AssertionError):
            assert_harmless(opened(path), ())
    (tmp_path / "plain.html").write_text("<!doctype html><p>nothing")
    assert_harmless(opened(tmp_path / "plain.html"), ())


def test_the_report(study: Path, opened: Any) -> None:
    found = opened(study / "report.html")
    assert_harmless(found)
    assert found.page.locator(".slices li").count()  # pictures, beside which names stand
    texts = found.page.evaluate("() => Promise.all(window.saved.map((blob) => blob.text()))")
    tables = [text for text in texts if not text.startswith(("<svg", "% needs"))]
    assert len(tables) > 5
    for text in tables:
        assert_no_formula(text)


def test_the_audit(tmp_path: Path, opened: Any) -> None:
    write_audit_page(AUDIT, tmp_path / "audit.html")
    assert_harmless(opened(tmp_path / "audit.html"))


def test_the_preview_of_painted_lesions(tmp_path: Path, opened: Any) -> None:
    readings = [Reading(Pair(name, Path(name), None), None, 0, name) for name in NAMES]
    results.write_page(tmp_path / "preview.html", preview_page(NAMES[0], readings))
    assert_harmless(opened(tmp_path / "preview.html"))


def test_two_studies_side_by_side(study: Path, tmp_path: Path, opened: Any) -> None:
    other = tmp_path / NAMES[4].replace("/", "") / f"x{NAMES[0].replace('/', '')}"
    other.mkdir(parents=True)
    for name in ("study.json", "data", "runs"):
        (other / name).symlink_to(study / name)
    out = write_side_by_side(study, other, tmp_path / "out")
    assert_harmless(opened(out), (other.name,))
    assert_no_formula((out.parent / "differences.csv").read_text(encoding="utf-8"))


def test_no_table_starts_a_formula(study: Path) -> None:
    paths = [*study.glob("tables/*.csv"), *study.glob("figures/*.csv"), *study.glob("data/*.csv")]
    for path in paths:
        assert_no_formula(path.read_text(encoding="utf-8"))
    whole = "".join(path.read_text(encoding="utf-8") for path in paths)
    assert "'=HYPERLINK" in whole
    assert "'-2+3 (1)" in whole


def test_every_figure_is_sound_xml(study: Path) -> None:
    paths = list(study.glob("figures/*.svg"))
    assert len(paths) > 5
    for path in paths:
        ElementTree.parse(path)  # which refuses control characters too


def assert_no_formula(text: str) -> None:
    for row in csv.reader(io.StringIO(text)):
        for cell in row:
            assert not cell.startswith(results.FORMULA_STARTS) or NUMBER.fullmatch(cell), cell
