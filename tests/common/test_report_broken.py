"""A study that is broken in every way says so at the top of its report, one sentence each, before any number."""

from __future__ import annotations

import dataclasses
import io
import re
from pathlib import Path
from typing import Any

import pytest
from report_fixture import write_words
from rich.console import Console
from study_fixture import make_study, seal_records

from common import results
from common.config import Run
from common.report import terminal_summary
from common.report.alerts import Alert, alerts
from common.report.audit_views import audit_section
from common.report.checks import study_checks
from common.report.judged import judge, title_of
from common.report.reading import read_evidence

TORCH, KERAS = "torch", "keras-tensorflow"
REFUSAL = {
    "name": "painted-inputs", "verdict": "refuse", "sentence": "7 of 360 inputs have a lesion <painted> on.",
    "remedy": "Take the pictures without paint.", "evidence": [], "evidence_total": 0,
}  # fmt: skip


def another_rate(directory: Path, seed: int) -> None:
    path = results.run_directory(directory, Run("binary", "cnn", KERAS, "aligned", seed, 0)) / "run.json"
    document = results.read_json(path)
    results.write_json(path, document | {"recipe": document["recipe"] | {"learning_rate": 0.0375}})


def move_to_both_sides(directory: Path) -> str:
    """One slice of a training patient into the test part; returns the patient."""
    record = results.read_study(directory)
    samples, split = record.samples(), record.split()
    first = split.index[split["split"] == "train"][0]
    split.loc[first, "split"] = "test"
    results.write_csv(directory / "data" / "split.csv", split)
    return str(samples.set_index("id").loc[split.loc[first, "id"], "patient"])


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Keras with another learning rate, a patient on two sides, a failed and a missing run, an overridden refusal."""
    directory = make_study(
        tmp_path_factory.mktemp("broken") / "demo", seeds=3, failed={(KERAS, 1, 0)}, missing={(TORCH, 2, 0)}
    )
    for seed in (0, 2):
        another_rate(directory, seed)
    patient = move_to_both_sides(directory)
    path = directory / "data" / "audit.json"
    results.write_json(
        path, results.read_json(path) | {"findings": [REFUSAL], "accepted": ["painted-inputs"]}
    )
    write_words(directory)
    return directory, patient


def said(patient: str) -> tuple[str, ...]:
    return (
        "Not a controlled comparison: Normal or stroke: Plain CNN",
        "Same recipe",
        "recipe.learning_rate (torch 0.001, keras-tensorflow 0.0375)",
        f"The same patient stands on two sides of a split: 1 patient, e.g. {patient}",
        "7 of 360 inputs have a lesion &lt;painted&gt; on.",
        "Accepted by name",
        "1 of 6 runs failed: binary, cnn, keras-tensorflow, seed 1, fold 0 (the device has 512 MiB left",
        "1 of 6 runs not run yet.",
    )


def test_the_page_says_it_before_any_number(broken: tuple[Path, str]) -> None:
    directory, patient = broken
    text = (directory / "report.html").read_text(encoding="utf-8")
    top = text[text.index("<body") : text.index('class="bar"')]
    for words in said(patient):
        assert words in top, words
    assert text.index('id="alerts"') < text.index("data-key=")
    links = re.findall(r'<li class="(?:wrong|missing)">.*?<a href="#([^"]+)"', top)
    assert len(links) == 5
    assert set(links) <= set(re.findall(r' id="([^"]+)"', text))
    assert "nothing that had to be equal is known to differ" not in text
    assert "<painted>" not in text


def test_markdown_says_it_before_any_number(broken: tuple[Path, str]) -> None:
    directory, patient = broken
    text = (directory / "report.md").read_text(encoding="utf-8")
    top = text[: text.index("## ")].replace("\\", "")
    for words in said(patient):
        assert words in top, words


def alerts_of(directory: Path) -> tuple[Alert, ...]:
    evidence = read_evidence(directory)
    judged = [judge(one, evidence.record.study) for one in evidence.comparisons]
    titles = {one.comparison.key: title_of(one, evidence) for one in judged}
    checks = [("", check) for check in study_checks(evidence)]
    checks += [(titles[one.comparison.key], check) for one in judged for check in one.checks]
    return alerts(evidence, checks, titles, audit_section(evidence.audit), ["ladder.json cannot be used."])


def test_what_is_whole_raises_no_alert(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", seeds=1)
    assert [one.sentence for one in alerts_of(directory)] == ["ladder.json cannot be used."]


@pytest.mark.parametrize(
    ("audit", "sentence"),
    [
        ({"findings": [REFUSAL]}, "7 of 360 inputs"),
        ({"patients_from": {"similarity": 360}}, "Patients unknown, grouped by similarity: 360 images"),
    ],
)
def test_faults_of_the_data_are_wrong_whoever_accepts_them(
    tmp_path: Path, audit: dict[str, Any], sentence: str
) -> None:
    directory = make_study(tmp_path / "study", seeds=1)
    results.write_json(directory / "data" / "audit.json", audit)
    (one, _) = alerts_of(directory)
    assert one.kind == "wrong"
    assert sentence in one.sentence


def test_settings_that_a_lane_leaves_alone_are_no_fault(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", seeds=1, lane="native")
    assert len(alerts_of(directory)) == 1
    run = Run("binary", "cnn", KERAS, "native", 0, 0)
    path = results.run_directory(directory, run) / "run.json"
    document = results.read_json(path)
    results.write_json(path, document | {"recipe": document["recipe"] | {"epochs": 99}})
    first = alerts_of(directory)[0].sentence
    assert "recipe.epochs (torch 6, keras-tensorflow 99)" in first
    assert "adam_epsilon" not in first


def test_a_study_without_a_complete_run_says_so(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", seeds=1, missing={(TORCH, 0, 0), (KERAS, 0, 0)})
    assert any("No run of this study is complete" in one.sentence for one in alerts_of(directory))


def test_a_run_that_collapsed_is_named_and_stays(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", seeds=2)
    for record in results.read_study(directory).complete:
        if record.run.framework == KERAS and record.run.seed == 1:
            stopped = {"stopped": {"epoch": 5, "rule": "all the same"}}
            results.write_json(record.directory / "run.json", {**record.document, **stopped})
    (one, _) = alerts_of(directory)
    assert one.kind == "wrong"
    start = "1 of 4 runs gave every image the same answer and stopped early: binary, cnn, keras-tensorflow"
    assert one.sentence.startswith(f"{start}, aligned lane, seed 1, fold 0.")
    assert len(results.read_study(directory).complete) == 4


def test_predictions_that_were_changed_are_named_and_not_scored(tmp_path: Path) -> None:
    """The truth for scores would be a perfect model."""
    directory = make_study(tmp_path / "demo", seeds=2)
    seal_records(directory)
    run = Run("binary", "cnn", TORCH, "aligned", 1, 0)
    path = results.run_directory(directory, run) / "predictions.npz"
    found = results.read_predictions(path)
    results.write_predictions(path, dataclasses.replace(found, y_score=found.y_true * 0.8 + 0.1))
    history = results.run_directory(directory, Run("binary", "cnn", KERAS, "aligned", 0, 0)) / "history.csv"
    history.write_text(history.read_text().replace("1,", "1.5,", 1))
    (directory / "data" / "split.csv").write_text("id,fold,split,task\n")
    write_words(directory)
    fault = "predictions.npz is not the file that was written there"
    text = (directory / "report.html").read_text(encoding="utf-8")
    top = text[text.index("<body") : text.index('class="bar"')]
    assert f"torch, seed 1, fold 0 is not scored: runs/{run.path}/{fault}" in top
    assert str(tmp_path) not in text
    keras = Run("binary", "cnn", KERAS, "aligned", 0, 0)
    assert f"{KERAS}, seed 0, fold 0 has no curves here: runs/{keras.path}/history.csv is not the file" in top
    scored = results.read_json(directory / "summary.json")["aligned/binary/cnn/torch/auroc_score"]
    assert scored["seeds"] == 1
    assert scored["maximum"] < 1
    stream = io.StringIO()
    Console(file=stream, width=400).print(terminal_summary(directory))
    assert f"not scored: binary, cnn, torch, seed 1, fold 0: {path.parent}/{fault}" in stream.getvalue()
    assert f"no curves: binary, cnn, {KERAS}, seed 0, fold 0: {history} is not the file" in stream.getvalue()
