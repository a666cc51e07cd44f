"""Tables for papers: every one as CSV and LaTeX, and LaTeX that a plain document can read."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from common.report.tables import latex_of, write_table


def test_special_characters_are_escaped_in_cells_and_heads() -> None:
    text = latex_of(
        pd.DataFrame({"a_b": ["50 % of $x$ & _y_ #1 {z} ~ ^ \\"], "c": ["−0.1 ± 2 × 3 ↑ ≥ … – ●"]})
    )
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert r"a\_b" in body
    assert r"50 \% of \$x\$ \& \_y\_ \#1 \{z\}" in body
    assert r"$-$0.1 $\pm$ 2 $\times$ 3 $\uparrow$ $\geq$ \dots{} -- $\bullet$" in body
    assert body.isascii()
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert body.count(rule) == 1
    assert body.count(r"\begin{tabular}") == body.count(r"\end{tabular}") == 1


def test_small_numbers_are_not_rounded_away() -> None:
    text = latex_of(pd.DataFrame({"value": [3.2e-13, 0.123456, 0.0, float("nan"), 1234.5]}))
    assert [line.split()[0] for line in text.splitlines() if r"\\" in line][1:] == [
        "3.2e-13", "0.1235", "0.0000", "--", "1234.5000",
    ]  # fmt: skip


def test_a_table_is_written_twice_and_an_empty_one_not_at_all(tmp_path: Path) -> None:
    write_table(tmp_path, "some", pd.DataFrame({"a": [1]}))
    write_table(tmp_path, "none", pd.DataFrame({"a": []}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["some.csv", "some.tex"]
