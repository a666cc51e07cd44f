"""Names and values from outside reach no terminal, spreadsheet, page or path as anything but text."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from common import config, records, results
from common.console import open_console
from common.data.images import ImageError
from common.documents import typed
from common.errors import StudyError
from common.names import lies_below, printable
from common.report.page import without_tags

STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@given(st.text(st.characters(), max_size=40))  # surrogates too
def test_nothing_printable_steers_a_terminal(text: str) -> None:
    shown = printable(text)
    assert not STEERS.search(shown)
    assert "\n" not in shown
    shown.encode()
    assert printable(shown) == shown
    plain = "".join(one for one in text if one.isascii() and one.isprintable())
    assert printable(plain) == plain


def test_errors_show_what_they_name_as_text() -> None:
    named = StudyError("\x1b]0;x\x07 in a name;\nsecond line")
    assert str(named) == "\\x1b]0;x\\x07 in a name;\nsecond line"
    fault = ImageError("a\u202egnp.\x1b", "is of \x9b2J", "x")
    assert str(fault) == "a\\u202egnp.\\x1b is of \\x9b2J; x"
    assert fault.path == "a\u202egnp.\x1b"  # the file itself


def test_the_console_shows_escapes_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    console = open_console()
    console.file = io.StringIO()
    console.print("name \x1b]0;title\x07 \u202e end", markup=False)
    console.print(Text("\x9b2J and a \ud800 half"))
    said = console.file.getvalue()
    assert not STEERS.search(said)
    assert "\\x1b]0;title" in said
    assert "\\ud800" in said
    bare = Console(file=io.StringIO())
    bare.print("\x1b]0;title\x07", markup=False)
    assert "\x1b" in bare.file.getvalue()  # what rich alone lets pass  # type: ignore[attr-defined]


@given(st.text("=+-@\t\r'a1 ", max_size=6))
def test_text_comes_back_from_a_table_that_no_spreadsheet_runs(text: str) -> None:
    written = results.defused(text)
    assert isinstance(written, str)
    assert not written.startswith(results.FORMULA_STARTS)
    assert results.restored(written) == text


def test_tables_of_names_come_back(tmp_path: Path) -> None:
    import pandas as pd

    table = pd.DataFrame(
        {"id": ["=1+1", "'=x", "-2 (1)", "plain, 'quoted' \"\nline"], "patient": ["@a", "+b", "c", ""]}
    )
    results.write_text_table(tmp_path / "t.csv", table)
    cells = pd.read_csv(tmp_path / "t.csv", dtype=str, keep_default_na=False)
    assert not any(cell.startswith(results.FORMULA_STARTS) for cell in cells.to_numpy().ravel())
    pd.testing.assert_frame_equal(results.read_text_table(tmp_path / "t.csv", ["id"]), table)


@pytest.mark.parametrize("name", ["", ".", "a/b", "a/./b", "link-in"])
def test_what_lies_below(tmp_path: Path, name: str) -> None:
    (tmp_path / "s" / "a").mkdir(parents=True)
    (tmp_path / "s" / "link-in").symlink_to("a")
    assert lies_below(tmp_path / "s", name) == bool(name)


@pytest.mark.parametrize(
    "name", ["..", "a/../../x", "/etc/passwd", "link-out", "link-out/x", "loop", "nul\0"]
)
def test_what_does_not(tmp_path: Path, name: str) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "link-out").symlink_to(tmp_path)
    (tmp_path / "s" / "loop").symlink_to("loop")
    assert not lies_below(tmp_path / "s", name) or name == "loop"


def test_markdown_holds_no_html() -> None:
    assert (
        without_tags("a <b> </script> <!-- p < 0.05, <0.1") == "a &lt;b> &lt;/script> &lt;!-- p < 0.05, <0.1"
    )


# --- records ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", "6"), ("epochs", 6.5), ("epochs", True), ("epochs", None), ("epochs", 10**30),
        ("learning_rate", "0.1"), ("learning_rate", float("nan")), ("learning_rate", float("inf")),
        ("loss", 3), ("loss", "hinge"), ("unknown", 1),
    ],
)  # fmt: skip
def test_a_field_of_another_type_is_refused(field: str, value: Any) -> None:
    fields = {**vars(config.Recipe(epochs=6)), field: value}
    with pytest.raises((TypeError, ValueError), match=field if field != "unknown" else "no field"):
        typed(config.Recipe, fields)


def test_whole_numbers_stand_for_others_and_lists_for_tuples() -> None:
    recipe = config.Recipe(epochs=6, learning_rate=1)
    assert typed(config.Recipe, vars(recipe)) == recipe
    spec = typed(config.CnnSpec, {"features": [4, 8], "pixel_mean": [0, 0.5, 1]})
    assert spec.features == (4, 8)


@pytest.mark.parametrize(
    "changes",
    [
        {"frameworks": ("../../etc",)}, {"lanes": ("<b>",)}, {"tasks": ("..",)}, {"seeds": -1}, {"folds": 10**6},
        {"seeds": 10_000, "folds": 1_000},
    ],
)  # fmt: skip
def test_a_study_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    pair = {"binary/cnn": config.spec_of("binary", "cnn", "quick")}
    sound: dict[str, Any] = {"specs": pair, "recipes": {"binary/cnn": config.Recipe(epochs=1)}}
    assert records.study_fault(config.Study(**sound)) == ""
    assert records.study_fault(config.Study(**sound | changes))


def test_a_record_of_an_earlier_version_that_lacks_much_is_no_fault() -> None:
    assert records.record_fault({"status": "complete", "energy": None, "timings": {"x": None}}) == ""
    assert "timings.train_seconds" in records.record_fault({"timings": {"train_seconds": "3"}})
    assert "phases" in records.record_fault({"phases": [3]})
