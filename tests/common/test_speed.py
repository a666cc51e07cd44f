"""Ratios of costs, the time to a stated quality, where a run's seconds go, and what the report says of them; also of
records that lack what older versions did not measure.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_fixture import write_words
from scipy import stats
from study_fixture import make_study

from common import config, results
from common.flops import forward_work
from common.report.cost_ratios import cost_ratios, paired_ratio
from common.report.costs import cost, time_parts
from common.report.quality import time_to_quality
from common.report.reading import AnyComparison, read_evidence
from common.report.speed import read_speed
from common.report.speed_words import interruption_words, load_words, setting_rows, terms
from common.results import RunRecord, write_json

KEY = "aligned/binary/cnn"
PAIR = "keras-tensorflow-vs-torch"
NEW_TIMINGS = ("data_seconds", "trainer_seconds", "compile_seconds", "latency_seconds", "latency")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = make_study(tmp_path_factory.mktemp("speed") / "demo", seeds=3)
    write_words(directory)
    return directory


def only(directory: Path) -> AnyComparison:
    (comparison,) = read_evidence(directory).comparisons
    return comparison


# --- ratios -------------------------------------------------------------------------------------------------------


def test_a_ratio_is_paired_by_seed_with_a_t_interval_of_its_logarithm() -> None:
    torch, keras = [2.0, 3.0, 5.0, 4.0], [3.0, 4.0, 11.0, 5.0]
    values = {("torch", seed, 0): value for seed, value in enumerate(torch)}
    values |= {("keras-jax", seed, 0): value for seed, value in enumerate(keras)}
    values["torch", 9, 0] = 100.0  # has no partner
    values["keras-jax", 8, 0] = math.inf  # nor has this
    values["torch", 8, 0] = 1.0
    found = paired_ratio("keras-jax", "torch", "total_seconds", values)
    assert found is not None
    logs = np.log(np.array(keras) / torch)
    low, high = stats.t.interval(0.95, 3, logs.mean(), stats.sem(logs))
    assert (found.ratio, found.low, found.high) == pytest.approx(tuple(np.exp([logs.mean(), low, high])))
    assert found.seeds == 4


def test_a_seed_counts_once_however_many_folds_it_has() -> None:
    values = {("torch", seed, fold): 1.0 for seed in (0, 1) for fold in (0, 1)}
    values |= {("keras-jax", 0, 0): 2.0, ("keras-jax", 0, 1): 8.0, ("keras-jax", 1, 0): 1.0}
    found = paired_ratio("keras-jax", "torch", "total_seconds", values)
    assert found is not None
    assert (found.ratio, found.seeds) == (pytest.approx(2.0), 2)  # of 4 and 1
    assert math.isnan(found.low)  # of two seeds there is no interval


def test_there_is_no_ratio_to_nothing() -> None:
    values = {("torch", 0, 0): 0.0, ("keras-jax", 0, 0): 2.0}
    assert paired_ratio("keras-jax", "torch", "compile_seconds", values) is None
    assert paired_ratio("keras-torch", "torch", "compile_seconds", values) is None


# --- time to a stated quality -------------------------------------------------------------------------------------


def with_scores(directory: Path, scores: dict[tuple[str, int], list[float]]) -> AnyComparison:
    """The study's only comparison, the validation scores of its runs replaced; an epoch takes 10 s, in Keras 4 s."""
    comparison = only(directory)
    for record in comparison.records:
        history = record.history()
        history["val_score"] = scores[record.run.framework, record.run.seed]
        history["seconds"] = 10.0 if record.run.framework == "torch" else 4.0
        results.write_csv(record.directory / "history.csv", history)
    return only(directory)


def test_the_time_is_when_half_of_the_runs_were_as_good_as_the_lesser_median(tmp_path: Path) -> None:
    slow, never = [0.5, 0.6, 0.7, 0.7, 0.8, 0.7], [0.5] * 6
    quick = [0.9, 0.6, 0.6, 0.6, 0.6, math.nan]
    scores = {("torch", seed): one for seed, one in enumerate((slow, quick, slow))}
    scores |= {("keras-tensorflow", seed): one for seed, one in enumerate((slow, never, quick))}
    comparison = with_scores(make_study(tmp_path / "demo", seeds=3), scores)
    found = time_to_quality(comparison)
    assert found is not None
    assert found.level == 0.8  # the medians of the best are 0.8 and 0.8
    assert [found.of("torch"), found.of("keras-tensorflow")] == [[50, 10, 50], [20, math.inf, 4]]
    assert (found.median("torch"), found.median("keras-tensorflow")) == (50, 20)
    assert (found.reached("torch"), found.reached("keras-tensorflow")) == (3, 2)
    ratio = read_speed([comparison]).ratios_of(comparison)["keras-tensorflow", "seconds_to_quality"]
    assert ratio.ratio == pytest.approx(math.sqrt(20 / 50 * 4 / 50))
    assert ratio.seeds == 2


# --- where the time goes ------------------------------------------------------------------------------------------


def changed(record: RunRecord, **fields: Any) -> RunRecord:
    return RunRecord(record.run, record.directory, {**record.document, **fields})


def test_the_parts_of_a_run_add_up_to_its_total(study: Path) -> None:
    for record in only(study).records:
        parts, timings = time_parts(record), record.document["timings"]
        assert sum(parts.values()) == pytest.approx(timings["total_seconds"])
        assert parts["steps"] + parts["compile"] + parts["wait"] == pytest.approx(timings["train_seconds"])
        assert min(parts.values()) >= 0
        assert parts["compile"] == timings["compile_seconds"]
        older = {name: value for name, value in timings.items() if name not in NEW_TIMINGS}
        assert time_parts(changed(record, timings=older))["compile"] == pytest.approx(parts["compile"])
        natively = {**timings, "compile_seconds": None, "wait_seconds": None}
        assert time_parts(changed(record, timings=natively))["steps"] == timings["train_seconds"]
        assert time_parts(changed(record, timings={})) == {}


def test_interrupted_runs_are_in_no_time_and_counted(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "demo", seeds=3)
    resumed = next(
        one for one in only(directory).records if one.run.framework == "torch" and one.run.seed == 1
    )
    write_json(resumed.directory / "run.json", {**resumed.document, "resumed": [2]})
    comparison = only(directory)
    (found,) = (one for one in comparison.records if one.document.get("resumed"))
    assert all(map(math.isnan, cost(found).values()))
    assert time_parts(found) == {}
    assert {one.seeds for one in cost_ratios(comparison)} == {2}
    quality = time_to_quality(comparison)
    assert quality is not None
    assert (len(quality.of("torch")), len(quality.of("keras-tensorflow"))) == (2, 3)
    (sentence,) = interruption_words(comparison.records)
    assert sentence.startswith("1 run was interrupted and picked up again")
    write_words(directory)
    assert sentence in (directory / "report.md").read_text(encoding="utf-8")
    assert interruption_words(comparison.records[:0]) == []


def test_training_is_three_forward_passes_and_one_while_the_last_layer_learns(study: Path) -> None:
    record = only(study).records[0]
    rate = record.document["timings"]["steady_images_per_second"]
    forward = forward_work(config.model_spec_from_json(record.document["spec"])).flops
    assert cost(record)["training_gflop_per_second"] == pytest.approx(3 * forward * rate / 1e9)
    phases = [{"trainable": "head", "epochs": 1}, {"trainable": "all", "epochs": 3}]
    mixed = cost(changed(record, phases=phases))
    assert mixed["training_gflop_per_second"] == pytest.approx(2.5 * forward * rate / 1e9)
    unknown = cost(changed(record, spec={"name": "another model"}))
    assert math.isnan(unknown["training_gflop_per_second"])


# --- the report ---------------------------------------------------------------------------------------------------


def test_the_report_begins_with_who_was_faster(study: Path) -> None:
    text = (study / "report.md").read_text(encoding="utf-8")
    numbers = json.loads((study / "summary.json").read_text(encoding="utf-8"))
    told = numbers[f"{KEY}/{PAIR}/steady_images_per_second"]
    ratios = {one.quantity: one for one in cost_ratios(only(study))}
    assert told["ratio"] == pytest.approx(ratios["steady_images_per_second"].ratio)
    sentence = (
        f"Keras on TensorFlow trained {told['ratio']:.3f} times as many images a second as PyTorch with the "
    )
    assert f"{sentence}plain CNN (95\u00a0% interval over seeds {told['low']:.3f} to " in text
    assert (
        "Equal for all: 2 threads, float32, the settings of the memory allocator and of waiting threads."
        in text
    )
    assert "The runs were done one at a time" in text
    assert numbers[f"{KEY}/size"]["forward_gflop"] == pytest.approx(0.011337984)
    for name in ("cost_ratios", "time_to_quality", "model_sizes"):
        assert (study / "tables" / f"{name}.csv").exists()
        assert (study / "tables" / f"{name}.tex").exists()


def test_records_of_earlier_versions_are_reported_without_what_they_lack(study: Path, tmp_path: Path) -> None:
    old = make_study(tmp_path / "old", seeds=2)
    for record in only(old).records:
        document = {name: value for name, value in record.document.items() if name not in ("energy", "model")}
        timings = document["timings"]
        document["timings"] = {name: timings[name] for name in timings if name not in NEW_TIMINGS}
        write_json(record.directory / "run.json", document)
    write_words(old)
    for directory, there in ((study, True), (old, False)):
        page = (directory / "report.html").read_text(encoding="utf-8")
        assert "Where the time of a run goes" in page
        assert "Arithmetic of steady training" in page
        for words in (
            "Energy of training",
            "Latency of one image",
            "Open the data",
            '<th scope="col">Checkpoint',
        ):
            assert (words in page) == there, words


def test_settings_are_those_of_the_runs_and_what_differs_is_named(study: Path, tmp_path: Path) -> None:
    comparison = only(make_study(tmp_path / "demo", seeds=2))
    for record in comparison.records:
        keras = record.run.framework != "torch"
        environment = {"compilation": "graph" if keras else "eager", "gpu": "none"}
        variables = {"OMP_WAIT_POLICY": "PASSIVE", "LD_PRELOAD": "x.so", "PYTHONHASHSEED": "0"}
        write_json(record.directory / "run.json",
                   {**record.document, "environment": environment, "variables": variables})  # fmt: skip
    rows = setting_rows([only(tmp_path / "demo")], ["torch", "keras-tensorflow"])
    found = {row["setting"]: row for row in rows}
    names = ["threads", "device", "precision", "compilation", "OMP_WAIT_POLICY", "LD_PRELOAD"]
    assert list(found) == names
    assert [name for name in names if not found[name]["same"]] == ["compilation"]
    equal, differing, load = terms(rows, workers=3)
    assert equal == "Equal for all: 2 threads, float32 and the setting of waiting threads."
    assert differing == "Different: how a step is carried out (torch: eager; keras-tensorflow: graph)."
    assert load == load_words(3)
    assert "Up to 3 runs" in load
