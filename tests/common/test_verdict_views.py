"""Verdicts as a reader meets them: sentences, lights, tables, templates."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import numpy as np
import pytest
from markupsafe import Markup
from mask_study_fixture import make_mask_study
from study_fixture import make_study

from common.report.certificate_views import ProofSection
from common.report.checks import Check
from common.report.companions import Companions
from common.report.lights import data_light, fair_light, leak_light
from common.report.other_tests import other_table, other_tests
from common.report.page import TEMPLATES, markdown_cell
from common.report.plotting import COLOURS
from common.report.reading import read_evidence
from common.report.terminal import verdict_lines
from common.report.verdict_tables import verdict_numbers, verdict_table
from common.report.verdict_views import variance_section, verdict_section
from common.report.verdict_words import Sentence, finding, plain_text, reasons, sentence, short
from common.statistics import Estimate
from common.verdicts import WORDS, Verdict, verdicts

NOTHING = Companions(None, None, None, ())


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("verdicts") / "study", seeds=3)


@pytest.fixture(scope="module")
def one(directory: Path) -> Verdict:
    """A real verdict, to be changed by the tests."""
    evidence = read_evidence(directory)
    (found,) = verdicts(evidence.record, evidence.comparisons)
    return found


def made(one: Verdict, word: str, difference: float = 0.0123, **changes: Any) -> Verdict:
    around = Estimate(difference, difference - 0.02, difference + 0.02, 0.2)
    return dataclasses.replace(
        one, word=word, differences=np.full(3, difference),
        over_patients=around, over_seeds=dataclasses.replace(around, p_value=0.25), **changes,
    )  # fmt: skip


# --- words --------------------------------------------------------------------------------------------------------


def test_a_sentence_has_lane_numbers_intervals_and_margin(one: Verdict) -> None:
    said = plain_text(sentence(made(one, "equivalent"))).replace("\u00a0", " ")
    assert said == (
        "In the aligned lane, AUROC of the plain CNN is equivalent in Keras on TensorFlow and PyTorch: difference "
        "+0.012, 95 % interval −0.008 to +0.032 over 3 seeds, −0.008 to +0.032 over 10 test patients; margin ±0.05, "
        "declared beforehand."
    )


def test_two_that_learned_nothing_are_told_apart_from_two_that_are_equally_good(one: Verdict) -> None:
    def told(word: str, guessing: bool) -> str:
        return " ".join(map(plain_text, reasons(made(one, word, guessing=guessing), 1)))

    assert "models that learned nothing are equivalent too" in told("equivalent", True)
    assert "there is little to compare yet" in told("undecided", True)
    assert "guessing" not in told("equivalent", False)


def test_the_higher_framework_is_named(one: Verdict) -> None:
    up, down = (finding(made(one, "different", difference)) for difference in (0.2, -0.2))
    assert "is higher in Keras on TensorFlow than in PyTorch" in up
    assert "is higher in PyTorch than in Keras on TensorFlow" in down


def test_every_word_has_its_sentence(one: Verdict) -> None:
    """No word claims what another one does."""
    said = {word: finding(made(one, word)) for word in WORDS}
    assert len(set(said.values())) == len(WORDS)
    assert [word for word, text in said.items() if "is equivalent" in text] == ["equivalent"]
    assert [word for word, text in said.items() if "is higher" in text] == ["different", "negligible"]
    assert "3 seeds cannot tell" in said["too few seeds"]
    assert all(short(word, 0.05, 3) for word in WORDS)


def test_an_interval_that_is_missing_is_said_to_be(one: Verdict) -> None:
    unknown = Estimate(0.01, math.nan, math.nan, math.nan)
    said = plain_text(sentence(dataclasses.replace(made(one, "undecided"), over_seeds=unknown)))
    assert "no interval over 3 seeds, 95\u00a0% interval −0.008 to" in said
    both = dataclasses.replace(made(one, "undecided"), over_seeds=unknown, over_patients=unknown)
    assert "no interval over 3 seeds, no interval over 10 test patients" in plain_text(sentence(both))
    (untested, *_) = reasons(dataclasses.replace(both, seeds=tuple(range(6))), 1)
    assert plain_text(untested) == (
        "A difference cannot be tested over the seeds and patients: too few of them, or the metric is undefined in too "
        "many draws."
    )


@pytest.mark.parametrize(
    ("word", "changes", "said"),
    [
        ("too few seeds", {}, "cannot show a difference, however large: the exact test takes 8 for one of 4 compar"),
        ("undecided", {"seeds": tuple(range(9))}, "neither in other seeds (p 0.250) nor in other patients (p 0.200)"),
        ("undecided", {}, "Equivalence within ±0.05 is not shown over the seeds nor over the patients"),
        ("different", {"p_holm": 0.02}, "the larger p is 0.020 after Holm's correction for 4 comparisons"),
        ("equivalent", {"identical": True}, "Every prediction of all 3 seeds is identical in both."),
        ("equivalent", {"noise": np.array([0.001, -0.017]), "repeated": "torch"},
         "PyTorch beside its own repeat (A/A) moved by up to 0.017 in 2 seeds."),
    ],
)  # fmt: skip
def test_reasons_say_why(one: Verdict, word: str, changes: dict[str, Any], said: str) -> None:
    no = dataclasses.replace(one.equivalence, equivalent=False)
    found = made(one, word, equivalence=no, equivalent_over_patients=False, **changes)
    assert said in " ".join(plain_text(reason) for reason in reasons(found, 4))


# --- lights -------------------------------------------------------------------------------------------------------

FINE = [Check("Same recipe", "pass", ""), Check("No patient on two sides of a split", "pass", "")]
SIDES = Check("No patient on two sides of a split", "fail", "2 patients, e.g. a/1")


def proof(passed: bool, model: str = "cnn", precision: str = "float64") -> Companions:
    row = {"model": model, "framework": "keras-tensorflow", "reference": "torch", "precision": precision}
    rows: Any = SimpleNamespace(to_dict=lambda how: [row])
    section = ProofSection(((passed, ""),), (), (), None, (), "", rows, rows)
    return Companions(section, None, None, ())


@pytest.mark.parametrize(
    ("checks", "companions", "state"),
    [
        (FINE, proof(True), "green"),
        (FINE, NOTHING, "amber"),
        (FINE, proof(True, "unet"), "amber"),  # another model was proved
        (FINE, proof(True, precision="float32"), "amber"),  # which shows no more than that both begin alike
        (FINE, proof(False), "red"),
        ([*FINE, Check("Same device", "unknown", "")], proof(True), "amber"),
        ([*FINE, Check("Same device", "fail", "")], proof(True), "red"),
        ([], proof(True), "amber"),
    ],
)
def test_the_fair_light(one: Verdict, checks: list[Check], companions: Companions, state: str) -> None:
    assert fair_light(checks, companions, [one]).state == state


def found(name: str, verdict: str) -> dict[str, str]:
    return {"name": name, "verdict": verdict, "sentence": ""}


@pytest.mark.parametrize(
    ("checks", "audit", "state", "said"),
    [
        (FINE, {"findings": [found("masks", "warn"), found("labels", "pass")]}, "green", "2 questions"),
        (FINE, {"findings": [found("label-shortcut", "warn")]}, "amber", "label-shortcut"),
        (FINE, {"findings": [found("painted-inputs", "refuse")], "accepted": ["painted-inputs"]}, "red",
         "overruled by name"),
        (FINE, {}, "amber", "no full audit"),
        (FINE, {"patients_from": {"similarity": 9}, "findings": [found("labels", "pass")]}, "amber",
         "Patients unknown"),
        ([SIDES], {"findings": [found("labels", "pass")]}, "red", "2 patients"),
    ],
)  # fmt: skip
def test_the_leak_light(checks: list[Check], audit: dict[str, Any], state: str, said: str) -> None:
    light = leak_light(checks, audit)
    assert light.state == state
    assert said in light.sentence


def test_the_data_light(one: Verdict) -> None:
    """Green is for what was decided or could have been; red where nothing could."""
    plan = dataclasses.replace(one.plan, smallest_margin=0.2, seeds_for_margin=14)
    few = made(one, "undecided", plan=plan)
    settled = made(one, "equivalent", plan=plan, patients=60)
    assert data_light([few]).state == "red"
    assert "it takes about 14, not 3" in data_light([few]).sentence
    assert "2; a difference takes 6 or more" in data_light([dataclasses.replace(few, seeds=(0, 1))]).sentence
    assert data_light([few, settled]).state == "amber"
    assert "1 of 2 comparisons" in data_light([few, settled]).sentence
    assert data_light([settled]).state == "green"
    assert data_light([dataclasses.replace(settled, patients=20)]).state == "amber"
    enough = dataclasses.replace(one.plan, smallest_margin=0.04)
    assert data_light([made(one, "undecided", plan=enough, patients=60)]).state == "green"
    wide = made(one, "undecided", plan=enough, patients=60)
    wide = dataclasses.replace(wide, over_patients=Estimate(0.0, -0.2, 0.2, 0.9))
    assert "interval reaches ±0.20, the margin is ±0.05" in data_light([wide]).sentence
    assert data_light([made(one, "no score")]).state == "red"
    assert data_light([]).state == "red"


# --- numbers and pages --------------------------------------------------------------------------------------------


def test_fields_of_the_summary(one: Verdict) -> None:
    ((key, fields),) = verdict_numbers([one]).items()
    assert key == "aligned/binary/cnn/keras-tensorflow-vs-torch/auroc_score"
    assert fields["difference"] == pytest.approx(float(np.mean(one.differences)))
    assert (fields["ci_low"], fields["seeds_ci_low"]) == (one.over_patients.ci_low, one.over_seeds.ci_low)
    assert fields["p_value"] == max(fields["p_seeds"], fields["p_patients"])
    assert (fields["verdict"], fields["margin"], fields["seeds"]) == (one.word, 0.05, 3)
    assert fields["equivalent"] == (one.word in ("equivalent", "negligible"))
    assert fields["noise_max"] is None
    shares = [value for name, value in fields.items() if name.startswith("share_")]
    assert sum(shares) == pytest.approx(1)
    row = verdict_table([one]).iloc[0]
    assert (row["verdict"], row["p_holm"]) == (one.word, fields["p_holm"])


def texts(part: Any) -> list[tuple[str, str]]:
    """Every (text, key) of the sentences in a section."""
    if isinstance(part, dict):
        return [pair for value in part.values() for pair in texts(value)]
    if isinstance(part, list | tuple):
        return [pair for value in part for pair in texts(value)]
    return [(part.text, part.key)] if hasattr(part, "key") and hasattr(part, "text") else []


def test_every_number_shown_is_its_field(directory: Path, one: Verdict, tmp_path: Path) -> None:
    """Whatever the rounding, a number of the page is that of summary.json."""
    evidence = read_evidence(directory)
    section = verdict_section([one], evidence, [("", check) for check in FINE], {}, NOTHING, tmp_path)
    variance = variance_section([one], tmp_path, evidence.comparisons)
    numbers = verdict_numbers([one])
    keyed = [pair for pair in texts([section, variance]) if pair[1]]
    assert len(keyed) > 30
    for text, key in keyed:
        name, field = key.split("#")
        value = numbers[name][field]
        shown = float(re.sub(r"[+%\u00a0<]", "", text).replace("−", "-"))
        share = text.endswith("%")
        digits = len(text.partition(".")[2])
        assert value is not None, key
        assert shown == pytest.approx(100 * value if share else value, abs=0.51 * 10**-digits), key


def test_the_templates_render(directory: Path, one: Verdict, tmp_path: Path) -> None:
    evidence = read_evidence(directory)
    noisy = dataclasses.replace(one, noise=np.array([0.01]), repeated="torch")
    bad = [("x", Check("Same <device>", "fail", ""))]
    content = {
        "verdicts": verdict_section([noisy], evidence, bad, {}, NOTHING, tmp_path),
        "variance": variance_section([noisy], tmp_path, evidence.comparisons),
        "colours": COLOURS, "svg": Markup, "downloads": {},
    }  # fmt: skip
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    page = "".join(
        environment.get_template(f"{name}.html.j2").render(content) for name in ("verdicts", "variance")
    )
    assert "Same &lt;device&gt;" in page
    assert 'class="light red"' in page
    assert f'data-key="{one.key}#seeds_ci_low"' in page
    plain = environment.overlay(autoescape=False)
    plain.filters["cell"] = markdown_cell
    text = "".join(plain.get_template(f"{name}.md.j2").render(content) for name in ("verdicts", "variance"))
    assert plain_text(sentence(one)).replace("\u00a0", " ") in text.replace("\\", "")


def test_the_terminal_has_the_verdict(one: Verdict) -> None:
    key = one.key.removesuffix("/auroc_score")
    entry = verdict_numbers([made(one, "equivalent")])[one.key]
    numbers = {"about": {}, one.key: entry, f"{key}/patient/auroc_score": entry, f"{key}/f1_score": entry}
    lines = [str(line) for line in verdict_lines(numbers, "aligned/binary/cnn", "auroc_score")]
    assert lines == ["  keras-tensorflow against torch: equivalent within ±0.05"]


def test_a_study_without_a_pair_has_no_variance(one: Verdict, tmp_path: Path) -> None:
    assert variance_section([], tmp_path) is None
    assert variance_section([dataclasses.replace(one, word="no score")], tmp_path) is None


# --- other tests --------------------------------------------------------------------------------------------------


def test_other_tests_of_two_classes_and_of_masks(directory: Path, tmp_path: Path) -> None:
    found = {one.test: one for one in other_tests(read_evidence(directory).comparisons)}
    assert (len(found["DeLong, clustered"].estimates), len(found["McNemar, exact"].estimates)) == (1, 3)
    area = other_table([found["DeLong, clustered"]]).iloc[0]
    evidence = read_evidence(directory)
    (pair,) = verdicts(evidence.record, evidence.comparisons)
    assert area["estimate"] == pytest.approx(float(np.mean(pair.differences)), abs=1e-9)
    masks = other_tests(read_evidence(make_mask_study(tmp_path / "masks", gates=())).comparisons)
    assert [(one.test, "HD95" in one.of) for one in masks] == [
        ("Wilcoxon", False), ("Bootstrap", False), ("Wilcoxon", True), ("Bootstrap", True),
    ]  # fmt: skip
    assert all(math.isfinite(one.estimates[0].estimate) for one in masks)


def test_a_sentence_is_text_and_numbers(one: Verdict) -> None:
    said: Sentence = sentence(one)
    assert {part.key.split("#")[0] for part in said if part.key} == {one.key}
