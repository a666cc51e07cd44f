"""The flow diagram: its counts against the tables, its text inside its boxes, nothing from a file trusted."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from mask_study_fixture import make_mask_study
from study_fixture import make_study

from common import results
from common.report.flow import flow_section
from common.report.flow_drawing import PAGE, PAPER, Node, broken, draw_narrow, draw_wide, measure
from common.report.reading import read_evidence

HOSTILE = '<script>alert("x")</script> & a_very_long_name_without_any_space_' + "x" * 50


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks on the same patients, an external set; no run is needed."""
    return make_study(
        tmp_path_factory.mktemp("flow") / "study",
        seeds=1,
        pairs=(("binary", "cnn"), ("subtype", "densenet121")),
        external=6,
        missing=[(name, 0, 0) for name in ("torch", "keras-tensorflow")],
    )


def texts(directory: Path) -> list[str]:
    section = flow_section(read_evidence(directory))
    assert section is not None
    return [step["text"] for step in section["steps"]]


def edit_audit(directory: Path, **changes: object) -> None:
    path = directory / "data" / "audit.json"
    results.write_json(path, results.read_json(path) | changes)


def test_each_part_has_the_counts_of_the_tables(study: Path) -> None:
    record = results.read_study(study)
    joined = record.samples().drop(columns="split").merge(record.split(), on="id")
    found = texts(study)
    for task, names in (("binary", ("normal", "stroke")), ("subtype", ("normal", "bleeding", "ischemia"))):
        for part, title in (("train", "Training"), ("test", "Test"), ("external", "External test")):
            rows = joined[(joined["task"] == task) & (joined["split"] == part)]
            words = [f"{title}; {len(rows)} slices ({rows['patient'].nunique()})"]
            for name in names:
                of = rows[(rows["label"] == name) | ((name == "stroke") & (rows["label"] != "normal"))]
                words.append(f"{name} {len(of)} ({of['patient'].nunique()})")
            assert "; ".join(words) in found


def test_what_was_left_out_is_told_with_reasons(study: Path, tmp_path: Path) -> None:
    directory = copy_of(study, tmp_path)
    reasons = [{"id": f"slice {i}", "path": "", "reason": f"fault {i}"} for i in range(5)]
    edit_audit(directory, found=414 + 7, sources=["first", "second"], unreadable=reasons, identical_files=4)
    found = texts(directory)
    assert found[0] == "421 images found; Data: first and second"
    assert found[1] == (
        "7 images left out; slice 0: fault 0; slice 1: fault 1; slice 2: fault 2; and 2 more, listed in "
        "tables/left_out.csv; 2 for which no reason was recorded"
    )
    assert "Kept although; 4 files with an identical twin" in found


def test_a_task_says_which_images_it_does_not_use(tmp_path: Path) -> None:
    directory = make_mask_study(tmp_path / "study", seeds=1, missing=[("unet", "torch", 0, 0)])
    samples = results.read_study(directory).samples()
    gone = samples.index[:3]
    samples.loc[gone, "mask"] = ""
    samples.loc[samples.index[3], "label"] = "stroke"
    results.write_csv(directory / "data" / "samples.csv", samples)
    split = results.read_study(directory).split()
    unknown = split["id"].isin(samples.loc[gone, "id"]) & (split["task"] == "segmentation")
    other = (split["id"] == samples["id"][3]) & (split["task"] == "subtype")
    results.write_csv(directory / "data" / "split.csv", split[~unknown & ~other])
    found = texts(directory)
    [masks] = [text for text in found if text.startswith("Lesion masks;")]
    [subtype] = [text for text in found if text.startswith("Normal, bleeding or ischemia;")]
    assert "Not used here: 3 without a known mask" in masks
    assert "Not used here: 1 labelled stroke" in subtype


def test_folds_are_not_added_up(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", frameworks=("torch",), seeds=1, folds=5, missing=every_fold(5))
    found = texts(directory)
    [task] = [text for text in found if text.startswith("Normal or stroke")]
    assert task.startswith("Normal or stroke; 360 slices of 40 patients; 5 folds test ")
    split = results.read_study(directory).split()
    first = split[(split["fold"] == 0) & (split["split"] == "test")]
    assert any(text.startswith(f"Test; {len(first)} slices") for text in found)


def test_patients_that_nobody_knows_are_called_groups(study: Path, tmp_path: Path) -> None:
    directory = copy_of(study, tmp_path)
    samples = results.read_study(directory).samples().assign(patient_from="similarity")
    results.write_csv(directory / "data" / "samples.csv", samples)
    assert "46 groups, known from similarity alone" in texts(directory)[0]


def test_without_readable_tables_there_is_no_diagram(study: Path, tmp_path: Path) -> None:
    directory = copy_of(study, tmp_path)
    (directory / "data" / "split.csv").unlink()
    assert flow_section(read_evidence(directory)) is None


def test_the_words_and_the_file_beside_the_page_say_the_same(study: Path) -> None:
    section = flow_section(read_evidence(study))
    assert section is not None
    file = (study / "figures" / "flow.svg").read_text(encoding="utf-8")
    for drawing in (section["wide"], section["narrow"], file):
        root = ElementTree.fromstring(drawing)
        assert root.get("role") == "img"
        assert root.get("aria-label") == section["alt"]
    assert "var(" not in file, "a file has no page whose colours it could take"
    assert all(step["text"] in section["alt"] for step in section["steps"])


@pytest.mark.parametrize("draw", [draw_wide, draw_narrow])
def test_no_word_leaves_its_box_and_no_tag_gets_in(draw: object) -> None:
    part = Node(HOSTILE, (HOSTILE, "9,999 slices (999)"), kind="part")
    task = Node(HOSTILE, (HOSTILE,), kind="task", branches=(part,) * 4)
    root = Node(
        HOSTILE,
        asides=(Node(HOSTILE, (HOSTILE,), kind="aside"),) * 2,
        branches=(Node("used", branches=(task, Node(HOSTILE, kind="aside"))),),
    )
    drawn = draw(root, HOSTILE, PAPER)  # type: ignore[operator]
    assert "<script" not in drawn
    svg = ElementTree.fromstring(drawn)
    space = "{http://www.w3.org/2000/svg}"
    boxes = [
        tuple(float(box.get(name, "0")) for name in ("x", "y", "width", "height"))
        for box in svg.iter(f"{space}rect")
        if box.get("rx")
    ]
    width, height = map(float, (svg.get("viewBox") or "").split()[2:])
    assert all(x + w <= width and y + h <= height for x, y, w, h in boxes)
    for text in svg.iter(f"{space}text"):
        x, y = float(text.get("x", "")), float(text.get("y", ""))
        size = float(re.findall(r"font-size: ([\d.]+)px", text.get("style", ""))[0])
        bold = "font-weight" in text.get("style", "")
        right = x + measure(text.text or "", size, bold)
        assert any(
            left <= x and right <= left + w + 0.01 and top <= y - size / 2 and y <= top + h
            for left, top, w, h in boxes
        ), text.text


def test_boxes_of_one_drawing_do_not_overlap() -> None:
    tasks = tuple(
        Node(
            f"Task {i}", ("line",) * i, kind="task", branches=(Node("Test", ("9 slices (3)",), kind="test"),)
        )
        for i in range(4)
    )
    root = Node(
        "found",
        asides=(Node("aside", ("line",) * 9, kind="aside"),),
        branches=(Node("used", branches=tasks),),
    )
    for draw in (draw_wide, draw_narrow):
        svg = ElementTree.fromstring(draw(root, "", PAGE))
        boxes = [
            [float(box.get(name, "0")) for name in ("x", "y", "width", "height")]
            for box in svg.iter("{http://www.w3.org/2000/svg}rect")
            if box.get("rx")
        ]
        assert len(boxes) >= 7
        for i, (x, y, w, h) in enumerate(boxes):
            for other_x, other_y, other_w, other_h in boxes[:i]:
                apart = (
                    x >= other_x + other_w or other_x >= x + w or y >= other_y + other_h or other_y >= y + h
                )
                assert apart


def test_a_line_is_broken_at_its_words_and_loses_none() -> None:
    text = "seven words that have to be broken " + "y" * 60
    lines = broken(text, 120, 13)
    assert all(measure(line, 13) <= 120 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def copy_of(study: Path, where: Path) -> Path:
    """The study's tables in another folder."""
    for name in ("study.json", "data/samples.csv", "data/split.csv", "data/audit.json"):
        target = where / "copy" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((study / name).read_bytes())
    return where / "copy"


def every_fold(folds: int) -> list[tuple[str, int, int]]:
    return [("torch", 0, fold) for fold in range(folds)]


def test_the_order_of_the_tables_changes_nothing(study: Path, tmp_path: Path) -> None:
    directory = copy_of(study, tmp_path)
    for name in ("samples", "split"):
        path = directory / "data" / f"{name}.csv"
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        results.write_csv(path, table.iloc[::-1])
    assert texts(directory) == texts(study)
