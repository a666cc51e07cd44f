"""The figures of the verdicts: what is drawn where, and that little is no reason to fail."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from verdict_fixture import KERAS, TORCH, made_up

from common.report import plotting, variance_figures, verdict_figures
from common.report.plotting import INK, colour, new_figure, short_path, themed
from common.report.verdict_figures import (
    bar,
    churn_figure,
    forest_figure,
    forest_reach,
    strip_figure,
    variance_figure,
)
from common.verdicts import Verdict


@pytest.fixture(autouse=True)
def no_rasters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the PNG files, which take longest."""
    monkeypatch.setattr("common.report.plotting.write_atomically", lambda path, write: None)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures, as they are finished."""
    figures: list[Figure] = []

    def keep(figure: Figure, *arguments: Any) -> plotting.Picture:
        figures.append(figure)
        return plotting.finish(figure, *arguments)

    monkeypatch.setattr(verdict_figures, "finish", keep)
    monkeypatch.setattr(variance_figures, "finish", keep)
    return figures


def several() -> list[Verdict]:
    return [
        made_up(0.09, word="different"),
        made_up(-0.004, seeds=2, noise=0, task="subtype", model="densenet121", word="too few seeds"),
        made_up(seeds=0, noise=0, task="subtype", model="convnext_tiny"),
        made_up(
            task="segmentation", model="unet", metric="dice_score", churn=None, margin=0.03, word="equivalent"
        ),
    ]


def test_the_forest_draws_each_difference_beside_its_margin(drawn: list[Figure], tmp_path: Path) -> None:
    verdicts = several()
    picture = forest_figure(verdicts, tmp_path)
    assert picture is not None
    axes = drawn[0].axes[0]
    marks = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "s"]
    expected = [value for one in verdicts if len(one.seeds) for value in
                (one.over_patients.estimate, one.over_seeds.estimate)]  # fmt: skip
    assert marks == pytest.approx(expected)
    bands = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [patch.get_width() / 2 for patch in bands] == [0.05, 0.05, 0.03]
    ticks = np.concatenate([line.get_xdata() for line in axes.lines if line.get_marker() == "|"])
    assert ticks == pytest.approx(np.concatenate([one.noise for one in verdicts]))
    for one in verdicts:
        assert one.word in picture.svg
    table = picture.table.set_index("model")
    assert table.loc["cnn", "ci_low"] == verdicts[0].over_patients.ci_low
    assert table.loc["cnn", "seeds_ci_low"] == verdicts[0].over_seeds.ci_low
    assert table.loc["cnn", "equivalence_ci_high"] == verdicts[0].equivalence.ci_high
    assert list(table["verdict"]) == [one.word for one in verdicts]
    assert f"{verdicts[0].difference:+.3f}" in picture.alt


def test_every_mark_has_room_and_long_intervals_are_cut() -> None:
    far = made_up(0.4, patients_sd=0.5)
    assert forest_reach([far]) > 0.4 + 0.01
    assert forest_reach([made_up(0.0, patients_sd=0.5)]) < 0.5  # or the margin could not be seen
    assert forest_reach([made_up(0.0, sd=1e-6, patients_sd=1e-6, noise=0)]) > 0.05
    with plotting.style():
        _, axes = new_figure()
        bar(axes, 0, -0.9, 0.1, 0.2, INK, 1.0)
        (line,), (arrow,) = axes.lines, axes.texts
        assert line.get_xdata().tolist() == pytest.approx([-0.197, 0.1])
        assert arrow.xy == pytest.approx((-0.197, 0))
        bar(axes, 0, np.nan, np.nan, 0.2, INK, 1.0)
        assert len(axes.lines) == 1


def test_a_strip_pairs_the_seeds(drawn: list[Figure], tmp_path: Path) -> None:
    one = made_up(0.02, seeds=7)
    picture = strip_figure(one, tmp_path)
    assert picture is not None
    left, right = drawn[0].axes
    pairs = [line.get_ydata() for line in left.lines if list(line.get_xdata()) == [0, 1]]
    np.testing.assert_allclose(pairs, np.column_stack([one.scores[TORCH], one.scores[KERAS]]))
    means = [float(line.get_ydata()[0]) for line in left.lines if line.get_linewidth() == 3]
    assert means == pytest.approx([one.scores[TORCH].mean(), one.scores[KERAS].mean()])
    floor = [line.get_ydata() for line in right.lines if line.get_marker() == "x"]
    np.testing.assert_allclose(floor, [one.noise])
    table = picture.table
    np.testing.assert_allclose(table.loc[table["kind"] == "seed", "difference"], one.differences)
    np.testing.assert_allclose(table.loc[table["kind"] == "repeat", "difference"], one.noise)
    assert strip_figure(made_up(seeds=0, noise=0), tmp_path) is None


def test_variance_is_drawn_as_standard_deviations(drawn: list[Figure], tmp_path: Path) -> None:
    verdicts = several()
    assert variance_figure(verdicts, tmp_path) is not None
    panels = {axes.get_xlabel(): axes for axes in drawn[0].axes}
    assert list(panels) == ["Framework", "Seed", "Patients", "Remainder"]
    for name, axes in panels.items():
        widths = [patch.get_width() for patch in axes.patches]
        parts = [part for one in verdicts for part in one.components if part.name == name.lower()]
        assert widths == pytest.approx([np.sqrt(part.variance) for part in parts])
        assert axes.get_xlim() == panels["Framework"].get_xlim()  # or bars could not be compared
    assert panels["Framework"].patches[0].get_facecolor()[:3] == pytest.approx(
        tuple(int(colour(KERAS)[i : i + 2], 16) / 255 for i in (1, 3, 5))
    )


def test_churn_sets_frameworks_beside_seeds_and_repeats(drawn: list[Figure], tmp_path: Path) -> None:
    one = made_up(0.02)
    assert one.churn is not None
    picture = churn_figure([one], tmp_path)
    assert picture is not None
    found = {
        line.get_marker(): float(line.get_xdata()[0])
        for line in drawn[0].axes[0].lines
        if line.get_marker() in "sox"
    }
    assert found == pytest.approx(
        {"s": one.churn.between_frameworks, "o": one.churn.between_seeds, "x": one.churn.between_repeats}
    )
    assert "60 test patients" in picture.svg


@pytest.mark.parametrize("seeds", [0, 1, 2])
def test_few_seeds_are_no_fault(seeds: int, tmp_path: Path) -> None:
    verdicts = [made_up(seeds=seeds, noise=0)]
    forest = forest_figure(verdicts, tmp_path)
    assert (forest is None) == (seeds == 0)
    assert (variance_figure(verdicts, tmp_path) is None) == (seeds < 2)
    assert (churn_figure(verdicts, tmp_path) is None) == (seeds == 0)
    strip = strip_figure(verdicts[0], tmp_path)
    assert (strip is None) == (seeds == 0)
    for picture in (forest, strip):  # of an interval that is not there nothing is said
        assert picture is None or "too few" in picture.caption
    assert forest_figure([], tmp_path) is None


def test_many_rows_fit(drawn: list[Figure], tmp_path: Path) -> None:
    verdicts = [
        made_up(task=task, model=model, lane=lane, framework=framework, scores={}, word="too few seeds")
        for task, model in (("binary", "convnext_tiny"), ("subtype", "convnext_tiny"))
        for lane in ("aligned", "native")
        for framework in (KERAS, "keras-jax")
    ]
    picture = forest_figure(verdicts, tmp_path)
    assert picture is not None
    assert len(picture.svg) < 25_000
    assert variance_figure(verdicts, tmp_path) is not None
    for figure in drawn:  # no two texts of a line overlap, and none is cut off
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for axes in figure.axes for text in axes.texts if text.get_text()]
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)
        for i, one in enumerate(boxes):
            assert not any(one.overlaps(other) for other in boxes[i + 1 :])


# --- the page's copy of a figure ----------------------------------------------------------------------------------


def corners(path: str) -> np.ndarray:
    """The corners of a path of M, L, l, h and v."""
    x = y = 0.0
    found = []
    for step, first, second in re.findall(r"([MLlhv])\s*(-?[\d.]+)(?:\s+(-?[\d.]+))?", path):
        a, b = float(first), float(second or 0)
        x, y = {"M": (a, b), "L": (a, b), "l": (x + a, y + b), "h": (x + a, y), "v": (x, y + a)}[step]
        found.append((x, y))
    return np.array(found)


def test_a_long_path_keeps_its_corners_in_fewer_bytes() -> None:
    x = np.repeat(np.linspace(40, 300.7, 60), 2)[:-1]
    y = np.repeat(np.linspace(250, 20.3, 60), 2)[1:]
    path = f"M {x[0]:f} {y[0]:f} " + " ".join(f"\nL {a:f} {b:f}" for a, b in zip(x[1:], y[1:], strict=True))
    short = short_path(path)
    assert len(short) < len(path) / 4
    np.testing.assert_allclose(corners(short), np.column_stack([x, y]), atol=0.0501)
    assert short_path(path + " \nz").endswith("z")
    assert short_path("M 1.5 2 L 3 4") == "M 1.5 2 L 3 4"
    curved = path.replace("L", "Q", 1)
    assert short_path(curved) == curved


def test_points_share_their_style_and_ids_are_the_figures_own(tmp_path: Path) -> None:
    with plotting.style():
        figure, axes = new_figure()
        axes.plot(np.arange(9), np.arange(9), linestyle="", marker="o", color=colour(TORCH), label="run")
        axes.scatter(np.arange(7), np.arange(7)[::-1], color=colour(KERAS), marker="s")
        figure.savefig(tmp_path / "f.svg", metadata={"Date": None})
    raw = (tmp_path / "f.svg").read_text(encoding="utf-8")
    page, other = themed(raw, "one", "alt"), themed(raw, "two", "alt")
    assert page.count("<use") == raw.count("<use")
    for framework, points in ((TORCH, 9), (KERAS, 7)):
        (group,) = re.findall(rf'<g [^>]*style="[^"]*var\(--{framework}\)[^"]*">((?: <use [^>]*/>)+)', page)
        assert group.count("<use") == points
        assert "style" not in group
    ids, others = (set(re.findall(r' id="([^"]+)"', svg)) for svg in (page, other))
    assert ids
    assert not ids & others
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', page)) == ids
