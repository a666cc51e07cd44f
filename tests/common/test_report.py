"""The report against its files: numbers agree with the metrics, nothing is lost, nothing from a file is trusted."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from study_fixture import make_study

from common import results
from common.config import NOTICE, Recipe, Run, to_json
from common.errors import StudyError
from common.metrics.classification import (
    auroc_score,
    average_precision_score,
    precision_recall_curve,
    roc_curve,
)
from common.options import Parser, add_study_options, study_of
from common.report import terminal_summary, write_report
from common.report.checks import comparison_checks, study_checks
from common.report.context import command
from common.report.curves import mean_precision_recall, mean_roc
from common.report.evidence import Comparison, largest_rectangle
from common.report.gallery import build_gallery, choose
from common.report.prose import verdict
from common.report.reading import read_evidence
from common.report.scores import Scores, score_comparison
from common.results import read_study

BOTH = TORCH, KERAS = "torch", "keras-tensorflow"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reported study of two frameworks and two seeds, shared by the tests that only read it."""
    directory = make_study(tmp_path_factory.mktemp("report") / "demo", seeds=2)
    write_report(directory, lambda sample_id: np.full((40, 48), 90, dtype=np.uint8))
    return directory


def summary(directory: Path) -> dict[str, dict[str, float]]:
    return json.loads((directory / "summary.json").read_text(encoding="utf-8"))


def compared(directory: Path) -> Comparison:
    """The first comparison of classifiers."""
    return next(one for one in read_evidence(directory).comparisons if isinstance(one, Comparison))


def scored(directory: Path) -> Scores:
    return score_comparison(compared(directory))


def predictions(directory: Path, framework: str, seed: int, fold: int = 0) -> results.Predictions:
    run = Run("binary", "cnn", framework, "aligned", seed, fold)
    return results.read_predictions(results.run_directory(directory, run) / "predictions.npz").of("test")


def edit_run(directory: Path, framework: str, seed: int, **changes: object) -> None:
    path = results.run_directory(directory, Run("binary", "cnn", framework, "aligned", seed, 0)) / "run.json"
    results.write_json(path, results.read_json(path) | changes)


def printed(directory: Path) -> str:
    """The terminal summary as text."""
    stream = io.StringIO()
    Console(file=stream, width=160).print(terminal_summary(directory))
    return stream.getvalue()


class Page(HTMLParser):
    """Tags that were opened and must be closed, ids, headings, and what a page could load."""

    VOID = ("meta", "img", "wbr", "br", "path", "use", "rect", "line")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.headings: list[int] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in ("src", "href"):
                self.links.append(str(value))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


# --- numbers ------------------------------------------------------------------------------------------------------


def test_summary_means_are_the_metrics_of_the_predictions(study: Path) -> None:
    found = summary(study)
    values: dict[str, list[float]] = {}
    for framework in (TORCH, KERAS):
        test = [predictions(study, framework, seed) for seed in range(2)]
        values[framework] = [float(auroc_score(one.y_true, one.y_score)) for one in test]
        entry = found[f"aligned/binary/cnn/{framework}/auroc_score"]
        assert entry["mean"] == pytest.approx(np.mean(values[framework]), abs=1e-12)
        assert entry["sd"] == pytest.approx(np.std(values[framework], ddof=1), abs=1e-12)
        assert (entry["minimum"], entry["maximum"]) == (min(values[framework]), max(values[framework]))
        assert (entry["seeds"], entry["folds"], entry["patients"]) == (2, 1, 10)
        assert entry["ci_low"] < entry["mean"] < entry["ci_high"]
    gap = found[f"aligned/binary/cnn/{KERAS}-vs-{TORCH}/auroc_score"]
    paired = np.subtract(values[KERAS], values[TORCH])
    assert gap["difference"] == pytest.approx(paired.mean(), abs=1e-12)
    assert gap["sd"] == pytest.approx(paired.std(ddof=1), abs=1e-12)
    assert gap["ci_low"] < gap["difference"] < gap["ci_high"]


def test_patient_scores_are_means_of_slices(study: Path) -> None:
    test = predictions(study, TORCH, 0), predictions(study, TORCH, 1)
    expected = []
    for one in test:
        table = pd.DataFrame({"patient": one.patient, "truth": one.y_true, "score": one.y_score})
        by = table.groupby("patient").agg({"truth": "max", "score": "mean"})
        expected.append(float(auroc_score(by["truth"].to_numpy(), by["score"].to_numpy())))
    assert summary(study)["aligned/binary/cnn/torch/patient/auroc_score"]["mean"] == pytest.approx(
        np.mean(expected)
    )


def test_decisions_use_the_threshold_of_each_run(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", frameworks=(TORCH,), seeds=2)
    edit_run(directory, TORCH, 0, threshold={"value": 0.0, "rule": "youden"})
    edit_run(directory, TORCH, 1, threshold={"value": 1.0, "rule": "youden"})
    scores = scored(directory)
    assert scores.of("slice", "recall_score")[0].per_seed == (1.0, 0.0)
    assert scores.of("slice", "specificity_score")[0].per_seed == (0.0, 1.0)


def test_folds_are_pooled_out_of_fold(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", frameworks=(TORCH,), seeds=1, folds=4)
    parts = [predictions(directory, TORCH, 0, fold) for fold in range(4)]
    truth = np.concatenate([one.y_true for one in parts])
    score = np.concatenate([one.y_score for one in parts])
    comparison = compared(directory)
    assert comparison.folds == (0, 1, 2, 3)
    assert [level.patients for level in comparison.levels] == [40, 40]
    assert score_comparison(comparison).of("slice", "auroc_score")[0].mean == pytest.approx(
        float(auroc_score(truth, score))
    )


def test_difference_uses_shared_seeds_only(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", seeds=2, missing={(KERAS, 1, 0)})
    one, two = (predictions(directory, framework, 0) for framework in (KERAS, TORCH))
    (gap,) = scored(directory).differences_of("slice", "auroc_score")
    expected = float(auroc_score(one.y_true, one.y_score) - auroc_score(two.y_true, two.y_score))
    assert gap.per_seed == pytest.approx((expected,))
    assert np.isnan(gap.sd)


@pytest.mark.parametrize(
    ("fold_sets", "expected"),
    [
        ([{0, 1, 2}, {0, 1, 2}, {0}], (0, 1, 2)),
        ([{0, 1}, {0}, {0}, {0}], (0,)),  # 4 runs of fold 0 outweigh 2 runs of one whole seed
        ([{0, 1}, {0}], (0, 1)),  # a tie: the larger test set
        ([], ()),
    ],
)
def test_largest_rectangle(fold_sets: list[set[int]], expected: tuple[int, ...]) -> None:
    assert largest_rectangle(fold_sets) == expected


def test_areas_under_mean_curves_are_means_of_areas() -> None:
    draws = np.random.Generator(np.random.Philox(7))
    y_true = (draws.random(60) < 0.4).astype(np.int64)
    scores = [
        np.round(y_true * 0.4 + draws.random(60), 1) for _ in range(4)
    ]  # rounded: ties make slanted segments
    fpr, tpr = mean_roc([roc_curve(y_true, score)[:2] for score in scores])
    assert np.trapezoid(tpr, fpr) == pytest.approx(np.mean([auroc_score(y_true, score) for score in scores]))
    curves = []
    for score in scores:
        precision, recall, _ = precision_recall_curve(y_true, score)
        curves.append((recall[::-1], precision[::-1]))
    recall, precision = mean_precision_recall(curves)
    area = float((np.diff(recall) * precision[1:]).sum())
    assert area == pytest.approx(np.mean([average_precision_score(y_true, score) for score in scores]))


# --- files --------------------------------------------------------------------------------------------------------


def test_every_figure_has_vector_raster_and_numbers(study: Path) -> None:
    stems = {path.stem for path in (study / "figures").iterdir()}
    assert {"slice-roc", "patient-precision_recall", "slice-differences", "val_loss", "time", "examples"} <= {
        stem.removeprefix("aligned-binary-cnn-") for stem in stems
    }
    for stem in stems - {"flow"}:  # a diagram of the tables, drawn by hand
        assert not pd.read_csv(study / "figures" / f"{stem}.csv").empty
        assert (study / "figures" / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (study / "figures" / f"{stem}.svg").read_text(encoding="utf-8")
    for name in ("scores", "differences", "costs", "runs", "data", "left_out", "checks"):
        assert not pd.read_csv(study / "tables" / f"{name}.csv").empty
    assert r"\toprule" in (study / "tables" / "scores.tex").read_text(encoding="utf-8")


def test_equal_files_give_equal_bytes(study: Path, tmp_path: Path) -> None:
    again = make_study(tmp_path / "demo", seeds=2)
    write_report(again, lambda sample_id: np.full((40, 48), 90, dtype=np.uint8))
    written = [
        path.relative_to(again) for path in again.rglob("*") if path.is_file() and path.suffix != ".npz"
    ]
    assert len(written) > 40
    for path in written:
        assert (again / path).read_bytes() == (study / path).read_bytes(), path


def test_page_is_whole_and_loads_nothing(study: Path) -> None:
    text = (study / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open
    assert len(page.ids) == len(set(page.ids))
    assert page.headings[0] == 1
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert "default-src 'none'" in text
    assert not page.tags & {"link", "iframe", "object", "form"}
    (script,) = re.findall(r"<script[^>]*>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in text
    assert not re.search(r"<[^>]+\son\w+=", text.replace(script, ""))  # no handler in an attribute
    anchors = [link[1:] for link in page.links if link.startswith("#")]
    assert len(anchors) > 10
    assert set(anchors) <= set(page.ids)
    here = ("#", "data:image/png;base64,", "data:text/csv;", "data:application/x-tex;", "figures/")
    assert all(link.startswith(here) for link in page.links)
    assert all(reference in page.ids for reference in re.findall(r"url\(#([^)]+)\)", text))


def test_page_says_what_matters(study: Path) -> None:
    text = (study / "report.html").read_text(encoding="utf-8")
    markdown = (study / "report.md").read_text(encoding="utf-8")
    for document in (text, markdown):
        for words in (NOTICE, "drawn phantom", "proof", "the file ends after 312 bytes", "compare.py study"):
            assert words in document
    assert re.search(r"all \d+ passed", text)
    assert "environment." in text
    assert text.count("<img ") >= 8
    assert 'data-key="aligned/binary/cnn/torch/auroc_score#sd"' in text


@pytest.mark.parametrize(
    "asked",
    [
        "--patients 20 --seeds 3 --device cpu",
        "--profile standard --epochs 4 --batch-size 8 --threads 2 --workers 2 --frameworks torch keras-jax",
    ],
)
def test_command_repeats_the_study(asked: str) -> None:
    parser = Parser()
    add_study_options(parser, BOTH)
    arguments = parser.parse_args(shlex.split(asked))
    study = study_of(arguments, arguments.frameworks)
    again = parser.parse_args(shlex.split(command(study, "demo").replace("\\\n", " "))[3:])
    assert study_of(again, again.frameworks) == study
    assert again.out == Path("results/demo")


# --- studies that are not whole -----------------------------------------------------------------------------------

EVERY = {(framework, seed, 0) for framework in BOTH for seed in range(2)}


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"frameworks": (KERAS,), "seeds": 1}, ["no difference can be told", "keras-tensorflow"]),
        ({"seeds": 2, "failed": EVERY}, ["No run of this study is complete", "512 MiB left"]),
        ({"seeds": 2, "missing": EVERY}, ["No run of this study is complete", "4 not run yet"]),
        (
            {
                "frameworks": (*BOTH, "keras-jax"),
                "seeds": 2,
                "failed": {(KERAS, 1, 0)},
                "missing": {("keras-jax", 0, 0)},
            },
            [
                "keras-jax − torch",
                "512 MiB left",
                "1 not run yet",
                "Differences use only the seeds that both have",
            ],
        ),
    ],
)
def test_incomplete_studies_are_reported(tmp_path: Path, options: dict[str, Any], said: list[str]) -> None:
    directory = make_study(tmp_path / "study", **options)
    text = write_report(directory).read_text(encoding="utf-8")
    assert Page(text).open == []
    for words in said:
        assert words in text
    assert (directory / "report.md").exists()
    assert NOTICE in printed(directory)


@pytest.mark.usefixtures("no_figures")
def test_missing_optional_values_and_files(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", seeds=1)
    edit_run(
        directory,
        TORCH,
        0,
        timings={},
        memory={},
        choice=None,
        threshold=None,
        environment={},
        git_commit=None,
    )
    (directory / "data" / "audit.json").unlink()
    (directory / "data" / "samples.csv").unlink()
    (results.run_directory(directory, Run("binary", "cnn", KERAS, "aligned", 0, 0)) / "history.csv").unlink()
    text = write_report(directory).read_text(encoding="utf-8")
    assert "no readable sample table" in text
    assert Page(text).open == []


@pytest.mark.parametrize("damage", ["no archive", "nan", "other patients"])
def test_unusable_predictions_are_told_and_left_out(tmp_path: Path, damage: str) -> None:
    directory = make_study(tmp_path / "study", seeds=1)
    path = results.run_directory(directory, Run("binary", "cnn", KERAS, "aligned", 0, 0)) / "predictions.npz"
    if damage == "no archive":
        path.write_bytes(b"interrupted")
    else:
        found = {
            name: getattr(results.read_predictions(path), name)
            for name in results.Predictions.__dataclass_fields__
        }
        if damage == "nan":
            found["y_score"][0] = np.nan
        else:
            found["sample_id"] = np.char.add(found["sample_id"], "x")
        results.write_predictions(path, results.Predictions(**found))
    comparison = compared(directory)
    assert any(note.startswith(f"{KERAS}, seed 0") and "is not scored" in note for note in comparison.notes)
    assert [arm.framework for arm in comparison.levels[0].arms] == [TORCH]


def test_no_study_is_a_study_error(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"study\.json"):
        write_report(tmp_path)


# --- checks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"batches": {"hashed": 4, "sha256": "0" * 64}}, "Same first training batches, byte for byte"),
        (
            {"weights": {"initial_sha256": "1" * 64, "parameters": 4_287_937}},
            "Same starting weights, byte for byte",
        ),
        ({"recipe": to_json(Recipe(epochs=99))}, "Same recipe"),
        ({"threads": 7}, "Same number of threads"),
    ],
)
def test_unequal_runs_fail_their_check(tmp_path: Path, changes: dict[str, Any], name: str) -> None:
    directory = make_study(tmp_path / "study", seeds=2)
    edit_run(directory, KERAS, 1, **changes)
    failed = [c.name for c in comparison_checks(compared(directory)) if c.verdict == "fail"]
    assert [check for check in failed if check.startswith("Same")] == [name]
    assert len(failed) == 1 + (name == "Same recipe")  # which also differs from the framework's other runs


def test_a_failed_check_is_the_first_thing_said(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", seeds=1)
    edit_run(directory, KERAS, 0, device="cuda")
    comparison = compared(directory)
    found = verdict(comparison, score_comparison(comparison), comparison_checks(comparison), pd.DataFrame())
    assert found.sentences[0].startswith("This is not a controlled comparison: 1 check failed (Same device)")


def test_a_patient_on_two_sides_fails(study: Path, tmp_path: Path) -> None:
    assert [check.verdict for check in study_checks(read_evidence(study))] == ["pass", "pass"]
    directory = make_study(tmp_path / "study", seeds=1)
    split = read_study(directory).split()
    first = split.index[split["split"] == "train"][0]
    split.loc[first, "split"] = "test"
    results.write_csv(directory / "data" / "split.csv", split)
    patients, pictures = study_checks(read_evidence(directory))
    assert (patients.verdict, pictures.verdict) == ("fail", "pass")
    assert "1 patient" in patients.detail


def test_a_picture_on_two_sides_fails(study: Path, tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", seeds=1)
    samples, split = read_study(directory).samples(), read_study(directory).split().set_index("id")["split"]
    of = [samples.index[samples["id"].map(split) == part][0] for part in ("train", "test")]
    samples.loc[of, "sha256"] = "a" * 64
    results.write_csv(directory / "data" / "samples.csv", samples)
    patients, pictures = study_checks(read_evidence(directory))
    assert (patients.verdict, pictures.verdict) == ("pass", "fail")
    assert "1 picture" in pictures.detail


def test_a_study_of_two_programs_fails(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", seeds=2)
    record = read_study(directory).runs[0]
    results.write_json(record.directory / "run.json", {**record.document, "git_commit": "another"})
    verdicts = {c.name: c.verdict for c in comparison_checks(compared(directory))}
    assert verdicts["One state of the code in all runs"] == "fail"
    assert verdicts["One machine and set of versions in all runs"] == "pass"


def test_one_framework_leaves_checks_open(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", frameworks=(TORCH,), seeds=1)
    checks = comparison_checks(compared(directory))
    assert {check.verdict for check in checks if check.name.startswith("Same")} == {"unknown"}


# --- trust --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_figures")
def test_names_from_files_are_escaped(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", seeds=1, failed={(TORCH, 0, 0), (KERAS, 0, 0)})
    evil = "=1+1<script>alert(1)</script>|`x`"
    results.write_json(
        directory / "data" / "audit.json",
        {"unreadable": [{"id": evil, "path": evil, "reason": "@<b>SUM</b>"}]},
    )
    edit_run(directory, KERAS, 0, reason=f"{evil}")
    text = write_report(directory).read_text(encoding="utf-8")
    assert text.count("<script") == 1
    assert "&lt;script&gt;" in text
    assert "<script>" not in (directory / "report.md").read_text(encoding="utf-8")
    assert pd.read_csv(directory / "tables" / "left_out.csv")["id"][0] == f"'{evil}"
    assert pd.read_csv(directory / "tables" / "left_out.csv")["reason"][0].startswith("'@")


# --- gallery ------------------------------------------------------------------------------------------------------


def test_examples_are_what_their_heading_says(study: Path) -> None:
    level = compared(study).levels[0]
    called = np.array([arm.y_pred.mean(axis=0) > 0.5 for arm in level.arms])
    rows = choose(level, ("normal", "stroke"))
    assert set(rows) == {"missed", "false_alarm", "disagreed", "found", "cleared"}
    for kind, truth, call in (
        ("missed", 1, False),
        ("false_alarm", 0, True),
        ("found", 1, True),
        ("cleared", 0, False),
    ):
        assert len(rows[kind])
        assert (level.y_true[rows[kind]] == truth).all()
        assert (called[:, rows[kind]] == call).all()
    gaps = np.abs(level.arms[0].y_score.mean(axis=0) - level.arms[1].y_score.mean(axis=0))
    assert gaps[rows["disagreed"][0]] == gaps.max()
    shown = pd.read_csv(study / "figures" / "aligned-binary-cnn-examples.csv")
    assert shown.groupby("kind")["patient"].nunique().equals(shown.groupby("kind")["id"].nunique())


def test_slices_that_cannot_be_read_are_passed_over(study: Path, tmp_path: Path) -> None:
    comparison = compared(study)
    gallery = build_gallery(comparison, lambda sample_id: None, tmp_path)
    assert (gallery.groups, gallery.sheet) == ((), None)
    assert "none of those chosen could be read" in gallery.note


def test_terminal_summary_shows_the_primary_numbers(study: Path) -> None:
    text, found = printed(study), summary(study)
    for framework in BOTH:
        assert f"{found[f'aligned/binary/cnn/{framework}/auroc_score']['mean']:.3f}" in text
    assert "10 test patients" in text


def test_terminal_summary_needs_a_report(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", seeds=1)
    with pytest.raises(StudyError, match=r"summary\.json"):
        terminal_summary(directory)
