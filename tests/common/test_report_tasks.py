"""The report of several tasks and models: three classes, an external set, what is common to all, the overview."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from report_fixture import leave_figures
from rich.console import Console
from study_fixture import AUDIT, make_study

from common import config, results
from common.config import Run
from common.metrics.classification import accuracy_score, auroc_score, confusion_matrix
from common.options import Parser, add_study_options, study_of
from common.report import terminal_summary, write_report
from common.report.checks import comparison_checks, study_checks
from common.report.context import command, limits, phase_words, starts
from common.report.evidence import Comparison
from common.report.gallery import choose
from common.report.reading import read_evidence
from common.report.scores import score_comparison
from common.report.study_views import setting_view
from common.report.tables import setting_table

BOTH = TORCH, KERAS = "torch", "keras-tensorflow"
CLASSES = config.TASKS["subtype"].classes
PAIRS = (("binary", "cnn"), ("subtype", "densenet121"))
SUBTYPE = "aligned/subtype/densenet121"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reported study of two tasks with an external set, its figures empty, shared by tests that only read it."""
    directory = make_study(tmp_path_factory.mktemp("tasks") / "demo", seeds=2, pairs=PAIRS, external=10)
    results.write_json(directory / "data" / "audit.json", AUDIT | INVENTORY)
    with pytest.MonkeyPatch.context() as patch:
        leave_figures(patch)
        write_report(directory, lambda sample_id: np.full((40, 48), 90, dtype=np.uint8))
    return directory


INVENTORY: dict[str, Any] = {
    "patients_from": {"name": 100, "similarity": 350},
    "skipped_tasks": [{"task": "segmentation", "reason": "no sample of the data has a lesion mask"}],
    "masks": {"file": 12, "overlay": 30, "none": 200, "unknown": 8},
    "unreadable_masks": [{"id": "Bleeding/7", "path": "Bleeding/7.png", "reason": "the mask is 10x10"}],
    "doubtful_masks": [{"id": "Ischemia/3", "method": "colour", "confidence": 0.31, "note": "two outlines"}],
}


@pytest.fixture(scope="module")
def summary(study: Path) -> dict[str, dict[str, float]]:
    return json.loads((study / "summary.json").read_text(encoding="utf-8"))


def predictions(directory: Path, framework: str, seed: int, part: str, fold: int = 0) -> results.Predictions:
    run = Run("subtype", "densenet121", framework, "aligned", seed, fold)
    return results.read_predictions(results.run_directory(directory, run) / "predictions.npz").of(part)


def subtype(directory: Path) -> Comparison:
    found = (one for one in read_evidence(directory).comparisons if one.task == "subtype")
    return next(one for one in found if isinstance(one, Comparison))


def edit_run(directory: Path, framework: str, seed: int, **changes: object) -> None:
    run = Run("subtype", "densenet121", framework, "aligned", seed, 0)
    path = results.run_directory(directory, run) / "run.json"
    results.write_json(path, results.read_json(path) | changes)


# --- three classes ------------------------------------------------------------------------------------------------


def test_classes_are_scored_against_the_rest(study: Path, summary: dict[str, Any]) -> None:
    values = []
    for seed in range(2):
        one = predictions(study, KERAS, seed, "test")
        called, sick = one.y_score.argmax(axis=1) == 1, one.y_true == 1
        values.append((called & sick).sum() / sick.sum())
    entry = summary[f"{SUBTYPE}/{KERAS}/bleeding/recall_score"]
    assert entry["mean"] == pytest.approx(np.mean(values))
    assert entry["sd"] == pytest.approx(np.std(values, ddof=1))
    assert entry["support"] == int(sick.sum())


def test_averages_over_classes_agree_with_the_main_table(study: Path, summary: dict[str, Any]) -> None:
    for metric in ("auroc_score", "average_precision_score", "recall_score", "f1_score"):
        macro = summary[f"{SUBTYPE}/{TORCH}/macro/{metric}"]
        assert macro["mean"] == pytest.approx(summary[f"{SUBTYPE}/{TORCH}/{metric}"]["mean"])
        assert macro["mean"] == pytest.approx(
            np.mean([summary[f"{SUBTYPE}/{TORCH}/{name}/{metric}"]["mean"] for name in CLASSES])
        )
    accuracy = [
        accuracy_score(one.y_true, one.y_score)
        for one in (predictions(study, TORCH, seed, "test") for seed in range(2))
    ]
    assert summary[f"{SUBTYPE}/{TORCH}/weighted/recall_score"]["mean"] == pytest.approx(np.mean(accuracy))


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_curve_has_the_area_of_its_table(study: Path, summary: dict[str, Any], name: str) -> None:
    stem = f"aligned-subtype-densenet121-slice-precision_recall-{name}"
    drawn = pd.read_csv(study / "figures" / f"{stem}.csv")
    for framework in BOTH:
        mean = drawn[(drawn["framework"] == framework) & (drawn["curve"] == "mean")]
        area = (np.diff(mean["recall"]) * mean["precision"].to_numpy()[1:]).sum()
        told = summary[f"{SUBTYPE}/{framework}/{name}/average_precision_score"]["mean"]
        assert area == pytest.approx(told, abs=1e-9)


def test_the_difference_of_confusion_matrices(study: Path) -> None:
    mean = {
        framework: np.mean(
            [
                confusion_matrix(one.y_true, one.y_score)
                for one in (predictions(study, framework, seed, "test") for seed in range(2))
            ],
            axis=0,
        )
        for framework in BOTH
    }
    stem = f"aligned-subtype-densenet121-slice-confusion-{KERAS}-vs-{TORCH}"
    drawn = pd.read_csv(study / "figures" / f"{stem}.csv")
    counts = drawn["count"].to_numpy().reshape(3, 3)
    np.testing.assert_allclose(counts, mean[KERAS] - mean[TORCH], atol=1e-12)
    shares = drawn["row_share"].to_numpy().reshape(3, 3)
    np.testing.assert_allclose(shares, counts / mean[TORCH].sum(axis=1, keepdims=True), atol=1e-12)
    assert np.abs(counts).max() > 0  # else the signs were not tested


def test_patients_of_three_classes_are_not_scored_and_it_is_said(study: Path) -> None:
    comparison = subtype(study)
    assert [level.name for level in comparison.levels] == ["slice", "external"]
    assert any(note.startswith("Nothing is scored per patient") for note in comparison.notes)
    assert "Nothing is scored per patient" in (study / "report.html").read_text(encoding="utf-8")


def test_examples_of_three_classes_are_what_their_heading_says(study: Path) -> None:
    level = subtype(study).levels[0]
    means = [arm.y_score.mean(axis=0) for arm in level.arms]
    rows = choose(level, CLASSES)
    assert list(rows) == ["wrong", "disagreed", *(f"correct_{name}" for name in CLASSES)]
    of_truth = np.mean(means, axis=0)[np.arange(len(level.y_true)), level.y_true]
    assert (np.diff(of_truth[rows["wrong"]]) >= 0).all()
    unanimous = np.array([(arm.y_pred == level.y_true).all(axis=0) for arm in level.arms])
    mistaken = np.array([(arm.y_pred != level.y_true).all(axis=0) for arm in level.arms])
    assert not unanimous[:, rows["wrong"]].any()
    gaps = np.abs(means[0] - means[1]).sum(axis=1) / 2
    assert gaps[rows["disagreed"][0]] == gaps.max()
    for index, name in enumerate(CLASSES):
        assert len(rows[f"correct_{name}"])
        assert (level.y_true[rows[f"correct_{name}"]] == index).all()
        assert not mistaken[:, rows[f"correct_{name}"]].any()
    shown = pd.read_csv(study / "figures" / "aligned-subtype-densenet121-examples.csv")
    assert (
        shown.loc[shown["kind"] == "wrong", "predicted"] != shown.loc[shown["kind"] == "wrong", "true"]
    ).all()


@pytest.mark.parametrize("damage", ["two classes", "truth"])
def test_predictions_of_other_classes_are_told_and_left_out(tmp_path: Path, damage: str) -> None:
    directory = make_study(tmp_path / "study", seeds=1, pairs=PAIRS[1:])
    run = Run("subtype", "densenet121", KERAS, "aligned", 0, 0)
    path = results.run_directory(directory, run) / "predictions.npz"
    found = results.read_predictions(path)
    changed = {"y_score": found.y_score[:, 1]} if damage == "two classes" else {"y_true": found.y_true + 1}
    results.write_predictions(path, dataclasses.replace(found, **changed))
    comparison = subtype(directory)
    assert any(note.startswith(f"{KERAS}, seed 0") and "is not scored" in note for note in comparison.notes)
    assert [arm.framework for arm in comparison.levels[0].arms] == [TORCH]


# --- the external set ---------------------------------------------------------------------------------------------


def test_external_scores_stand_beside_the_internal_ones(study: Path, summary: dict[str, Any]) -> None:
    values = [
        auroc_score(one.y_true, one.y_score)
        for one in (predictions(study, TORCH, seed, "external") for seed in range(2))
    ]
    entry = summary[f"{SUBTYPE}/{TORCH}/external/auroc_score"]
    assert entry["mean"] == pytest.approx(np.mean(values))
    assert (entry["patients"], entry["seeds"]) == (10, 2)
    assert entry["mean"] != pytest.approx(summary[f"{SUBTYPE}/{TORCH}/auroc_score"]["mean"], abs=1e-6)
    assert f"aligned/binary/cnn/{KERAS}-vs-{TORCH}/external/auroc_score" in summary


def test_every_fold_judges_the_external_set_and_a_seed_is_their_mean(tmp_path: Path) -> None:
    directory = make_study(
        tmp_path / "study", frameworks=(TORCH,), seeds=2, folds=2, pairs=PAIRS[1:], external=10
    )
    comparison = subtype(directory)
    inside, outside = comparison.levels
    assert (inside.patients, inside.arms[0].models) == (20, 1)
    assert (outside.patients, outside.arms[0].models) == (10, 2)
    assert outside.arms[0].labels[:2] == ["seed 0, fold 0", "seed 0, fold 1"]
    expected = [
        np.mean(
            [
                auroc_score(one.y_true, one.y_score)
                for one in (predictions(directory, TORCH, seed, "external", fold) for fold in range(2))
            ]
        )
        for seed in range(2)
    ]
    found = score_comparison(comparison).of("external", "auroc_score")[0]
    assert found.per_seed == pytest.approx(tuple(expected))
    assert expected[0] != pytest.approx(expected[1])
    assert outside.arms[0].of([1]).labels == ["seed 1, fold 0", "seed 1, fold 1"]
    np.testing.assert_array_equal(outside.arms[0].of([1]).y_score, outside.arms[0].y_score[2:])


# --- what is common to all ----------------------------------------------------------------------------------------


def test_a_patient_on_two_sides_across_tasks_fails(study: Path, tmp_path: Path) -> None:
    assert [check.verdict for check in study_checks(read_evidence(study))] == ["pass", "pass"]
    directory = make_study(tmp_path / "study", seeds=1, pairs=PAIRS)
    split = results.read_study(directory).split()
    patient = results.read_study(directory).samples()["patient"].iloc[0]
    ids = set(results.read_study(directory).samples().query("patient == @patient")["id"])
    moved = split["id"].isin(ids) & (split["task"] == "subtype")
    assert set(split.loc[moved, "split"]) == {"test"}
    split.loc[moved, "split"] = "train"  # one task alone has no patient on two sides
    results.write_csv(directory / "data" / "split.csv", split)
    check = study_checks(read_evidence(directory))[0]
    assert (check.verdict, check.detail) == ("fail", f"1 patient, e.g. {patient}")


def test_a_given_split_with_patients_on_two_sides_is_named(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", seeds=1)
    record = results.read_study(directory)
    samples, split = record.samples(), record.split().set_index("id")["split"]
    samples["split"] = samples["id"].map(split)
    first = samples.index[samples["split"] == "train"][0]
    samples.loc[first, "split"] = "test"
    results.write_csv(directory / "data" / "samples.csv", samples)
    table = record.split()
    table["split"] = table["id"].map(samples.set_index("id")["split"])
    results.write_csv(directory / "data" / "split.csv", table)
    check = study_checks(read_evidence(directory))[0]
    assert check.verdict == "fail"
    assert "by the split that the data set gives" in check.detail


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"pretrained": {"source": "a file", "sha256": "0" * 64}}, "Same pretrained file, or none"),
        (
            {"phases": [{"trainable": "head", "epochs": 1, "batch_norm": "evaluation"}]},
            "Same phases of training",
        ),
        ({"threshold": {"value": 0.5, "rule": "youden"}}, "Same rule for the threshold"),
    ],
)
def test_unequal_starts_fail_their_check(tmp_path: Path, changes: dict[str, Any], name: str) -> None:
    directory = make_study(tmp_path / "study", seeds=1, pairs=PAIRS[1:])
    assert {check.verdict for check in comparison_checks(subtype(directory))} == {"pass"}
    edit_run(directory, KERAS, 0, **changes)
    failed = [check.name for check in comparison_checks(subtype(directory)) if check.verdict == "fail"]
    assert failed == [name]


def test_settings_are_shared_or_of_one_comparison(study: Path) -> None:
    tables = [(one.model, setting_table(one)) for one in read_evidence(study).comparisons]
    view = setting_view(tables)
    shared = {row["setting"] for row in view["common"]}
    own = {one["title"]: {row["setting"] for row in one["rows"]} for one in view["own"]}
    assert {"device", "variables.OMP_WAIT_POLICY", "recipe.epochs"} <= shared
    assert "spec.blocks" in own["densenet121"]
    assert "spec.features" in own["cnn"]
    for title, table in tables:
        assert shared.isdisjoint(own[title])
        assert shared | own[title] == set(table["setting"])


# --- where a model started ----------------------------------------------------------------------------------------


def test_a_reduced_backbone_is_called_so(study: Path) -> None:
    words = " ".join(starts(subtype(study), config.spec_of("subtype", "densenet121", "quick")))
    assert "blocks 2-2-2-2 instead of 6-12-24-16" in words
    assert "growth 8 instead of 32" in words
    assert "It is not DenseNet-121" in words
    assert "random weights" in words
    page = (study / "report.html").read_text(encoding="utf-8")
    assert "DenseNet-121 (reduced)" in page
    assert "its own are only the dropout and stochastic-depth draws and the kernels" in page
    assert any("small relatives of DenseNet-121" in line for line in limits(read_evidence(study)))


def test_a_published_backbone_names_its_file_and_phases(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", seeds=1, pairs=PAIRS[1:])
    for framework in BOTH:
        edit_run(
            directory, framework, 0,
            pretrained={"source": "timm/densenet121.tv_in1k", "sha256": "ab" * 32},
            phases=[
                {"trainable": "head", "epochs": 1, "batch_norm": "evaluation"},
                {"trainable": "all", "epochs": 5, "batch_norm": "training"},
            ],
        )  # fmt: skip
    sentences = starts(subtype(directory), config.spec_of("subtype", "densenet121", "full"))
    assert sentences[0].startswith(
        "All but the last layer started from timm/densenet121.tv_in1k (sha256 abababababab"
    )
    assert "the last layer alone for 1 epoch" in sentences[1]
    assert "all layers for 5 epochs" in sentences[1]
    assert len(sentences) == 2  # nothing of a small relative
    edit_run(directory, KERAS, 0, pretrained=None)
    assert "did not start alike" in starts(subtype(directory), None)[0]


@pytest.mark.parametrize(
    ("trained", "said"),
    [
        ([], ""),
        (["all"], ""),
        (
            ["head"],
            "Trained in one phase: the last layer alone for 2 epochs (batch norm in evaluation mode).",
        ),
        (
            ["head", "all"],
            "Trained in phases: the last layer alone for 2 epochs (batch norm in evaluation mode), then all layers "
            "for 2 epochs (batch norm in evaluation mode).",
        ),
    ],
)
def test_a_training_that_began_with_the_head_is_told(trained: list[str], said: str) -> None:
    phases = [{"trainable": name, "epochs": 2, "batch_norm": "evaluation"} for name in trained]
    assert phase_words(phases) == said


# --- the page -----------------------------------------------------------------------------------------------------


def test_the_inventory_is_told(study: Path) -> None:
    for name in ("report.html", "report.md"):
        text = (study / name).read_text(encoding="utf-8")
        assert "Patients unknown, grouped by similarity: 350 images" in text
        assert "Not done: Lesion masks: no sample of the data has a lesion mask." in text
        assert "the mask is 10x10" in text
        assert "two outlines" in text
        assert "12 from a file, 30 recovered from a picture with the lesion painted on" in text
    assert text.index("Patients unknown") < text.index("## The verdict")
    left_out = pd.read_csv(study / "tables" / "left_out.csv")
    assert left_out["what"].tolist() == ["image", "mask"]


def test_each_model_has_a_verdict_that_leads_to_its_numbers(study: Path) -> None:
    page = (study / "report.html").read_text(encoding="utf-8")
    verdicts = page[page.index('id="verdicts"') : page.index('id="differs"')]
    for key in ("aligned/binary/cnn", SUBTYPE):
        slug = key.replace("/", "-")
        assert f'href="#{slug}"' in verdicts
        assert f'id="{slug}"' in page
        assert f'data-key="{key}/{KERAS}-vs-{TORCH}/auroc_score#difference"' in verdicts
        assert f'data-key="{key}/{TORCH}/auroc_score#mean"' in page[page.index(f'id="{slug}"') :]
    assert page.count("Same decoded pixels") == 1  # told once for all
    assert len(page) < 3_000_000


# --- the terminal -------------------------------------------------------------------------------------------------


def test_the_terminal_fits_80_columns_with_every_framework(tmp_path: Path) -> None:
    everyone = config.FRAMEWORKS
    runs = {(framework, 0, 0) for framework in everyone[1:]}
    directory = make_study(tmp_path / "study", frameworks=everyone, seeds=1, pairs=PAIRS, missing=runs)
    for run in results.read_study(directory).study.runs():  # complete, as far as the summary looks
        path = results.run_directory(directory, run) / "run.json"
        results.write_json(path, {"format": results.FORMAT, "status": "complete", "run": config.to_json(run)})
    size = {"seeds": 3, "folds": 1, "patients": 10}
    score = {"mean": 0.8125, "sd": 0.0123, **size}
    gap = {"difference": -0.0123, "ci_low": -0.1234, "ci_high": 0.1111, **size}
    numbers: dict[str, Any] = {"about": {}}
    for task, model in PAIRS:
        for framework in everyone:
            key = f"aligned/{task}/{model}/{framework}"
            for metric in ("auroc_score", "average_precision_score", "external/auroc_score"):
                numbers[f"{key}/{metric}"] = score
                if framework != TORCH:
                    numbers[f"{key}-vs-torch/{metric}"] = gap
            numbers[f"{key}/peak_rss_mib"] = {"mean": 12345.6, "sd": 123.4}
    results.write_json(directory / "summary.json", numbers)
    stream = io.StringIO()
    Console(file=stream, width=200).print(terminal_summary(directory))
    tables = [line for line in stream.getvalue().splitlines() if re.search(r"\d ±|…|minus", line)]
    assert len(tables) >= 2 * 7
    assert max(map(len, tables)) <= 80
    assert "−0.123…+0.111" in stream.getvalue()
    assert stream.getvalue().count("means over the classes") == 1


# --- the command --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        "",
        "--tasks binary subtype --seeds 1",
        "--tasks binary subtype --models cnn",
        "--models convnext_tiny --profile standard",
        "--tasks subtype segmentation --models unet densenet121 --weights random --profile standard",
        "--tasks binary --split-seed 3",
    ],
)
def test_command_repeats_its_tasks_and_models(asked: str) -> None:
    parser = Parser()
    add_study_options(parser, BOTH)
    arguments = parser.parse_args(shlex.split(asked))
    study = study_of(arguments, arguments.frameworks)
    again = parser.parse_args(shlex.split(command(study, "demo").replace("\\\n", " "))[3:])
    assert study_of(again, again.frameworks) == study


def test_a_grid_that_grew_takes_a_command_a_task() -> None:
    study = config.Study(
        tasks=("binary", "subtype"),
        recipes={
            f"{task}/{model}": config.recipe_of(task, model, "quick")
            for task, model in (("binary", "cnn"), ("subtype", "densenet121"))
        },
    )
    pairs = [
        re.search(r"--tasks (\w+) \\\n +--models (\w+) ", part)
        for part in command(study, "demo").split("python")
    ]
    assert [found.groups() for found in pairs if found] == study.pairs
