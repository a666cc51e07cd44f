"""What other commands leave beside a study, in its report: the proof, the ladder, the atlas; and the native lane."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from proof_fixture import (
    DIVERGENCE,
    defaults_of,
    mutation,
    parity_row,
    shares_of,
    write_all,
    write_ladder,
    write_parity,
)
from report_fixture import leave_figures
from study_fixture import make_study
from test_report import Page, edit_run

from common import config, results
from common.config import DEFAULTS, MODELS, Run
from common.report import terminal_summary, write_report
from common.report.atlas import atlas_section
from common.report.certificate import Certificate, read_certificate
from common.report.certificate_words import beside_the_runs, caught_words, verdicts, what_was_done
from common.report.checks import PROMISES, Check, comparison_checks, promises
from common.report.companions import read_companions
from common.report.ladder import ARMS, Climb, Ladder, finding, read_ladder
from common.report.ladder_views import ladder_section
from common.report.lanes import left_alone
from common.report.reading import read_evidence
from common.report.wording import tiny
from common.results import read_study

BOTH = TORCH, KERAS = "torch", "keras-tensorflow"
PLANTED = [(name, model) for name, default in DEFAULTS.items() for model in default.models]
HARMLESS = sum(name in config.PARITY_HARMLESS for name, _ in PLANTED)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reported study with everything beside it, its figures empty; one training and two faults differ."""
    directory = make_study(tmp_path_factory.mktemp("proof") / "demo", seeds=1)
    write_all(directory)
    rows = [parity_row(model) for model in MODELS]
    rows += [parity_row(model, precision="float32") for model in ("cnn", "unet")]
    rows += [
        parity_row(model, framework="keras-jax", first_divergence=DIVERGENCE if model == "unet" else None,
                   passed=model != "unet")
        for model in MODELS
    ]  # fmt: skip
    write_parity(directory, rows)
    with pytest.MonkeyPatch.context() as patch:
        leave_figures(patch)
        write_report(directory)
    return directory


def certificate(directory: Path, *rows: dict[str, Any], mutations: Any = ()) -> Certificate:
    write_parity(directory, rows, mutations)
    found, fault = read_certificate(directory)
    assert found is not None, fault
    return found


def ladder(directory: Path, **options: Any) -> Ladder:
    write_ladder(directory, **options)
    found, fault = read_ladder(directory)
    assert found is not None, fault
    return found


def climb_of(found: Ladder, model: str, measure: str) -> tuple[Climb, list[str]]:
    one = next(one for one in found.models if one.model == model)
    climb = next(climb for climb in one.climbs if climb.measure == measure)
    return climb, finding(climb, one, found)


# --- the proof ----------------------------------------------------------------------------------------------------


def test_the_verdict_is_computed_from_the_rows(tmp_path: Path) -> None:
    found = certificate(tmp_path, *(parity_row(model) for model in MODELS))
    assert verdicts(found) == [
        (True, "In float64, PyTorch and Keras on TensorFlow are one algorithm: over 100 steps the losses of all four "
         "models agree to 12 digits (lane lockstep).")
    ]  # fmt: skip
    some = [parity_row("cnn", steps=20), parity_row("unet", loss_max_rel=2e-11)]
    (told,) = verdicts(certificate(tmp_path, *some))
    assert told[1].endswith(
        "over 20 to 100 steps the losses of the Plain CNN and the U-Net agree to 10 digits (lane lockstep)."
    )
    uneven = [parity_row("cnn"), parity_row("cnn", "keras-jax"), parity_row("unet")]
    (told,) = verdicts(certificate(tmp_path, *uneven))
    assert "PyTorch, Keras on TensorFlow and Keras on JAX are one algorithm" in told[1]
    assert "the losses of the 3 trainings below" in told[1]


@pytest.mark.parametrize(
    ("relative", "digits"), [(0.0, 15), (3.4e-13, 12), (1e-12, 12), (1.1e-12, 11), (1e-16, 15), (0.5, 0), (3.0, 0)]
)  # fmt: skip
def test_agreement_in_digits(tmp_path: Path, relative: float, digits: int) -> None:
    (row,) = certificate(tmp_path, parity_row("cnn", loss_max_rel=relative)).rows
    assert row.digits == digits


def test_equal_losses_are_not_counted_in_digits(tmp_path: Path) -> None:
    (told,) = verdicts(certificate(tmp_path, parity_row("cnn", loss_max_rel=0.0)))
    assert "the losses of the Plain CNN are equal to the last bit" in told[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"passed": False, "first_divergence": DIVERGENCE}, "look at the optimizer"),
        ({"passed": True, "first_divergence": DIVERGENCE}, "look at the optimizer"),
        ({"weights_max_rel": 1e-5}, "above the tolerance: weights"),  # though the file says that it passed
        ({"logits_max_abs": 1e-5, "forward_max_abs": 1e-5}, "logits before and logits after"),
        ({"loss_max_rel": None}, "nothing was compared"),
        ({"passed": False}, "came to no end"),
        ({"passed": False, "loss_max_rel": None, "reason": "killed by signal 9"}, "killed by signal 9"),
    ],
)
def test_what_failed_is_not_called_proved(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    rows = parity_row("cnn"), parity_row("unet", **changes)
    ((passed, sentence),) = verdicts(certificate(tmp_path, *rows))
    assert not passed
    assert sentence.startswith(
        "Not proved in float64 (lane lockstep): 1 of 2 trainings is not that of PyTorch."
    )
    assert "U-Net, Keras on TensorFlow: " in sentence
    assert said in sentence
    assert "Plain CNN" not in sentence


def test_clipping_that_never_was_is_told(tmp_path: Path) -> None:
    rows = parity_row("cnn", clipped_steps=0), parity_row("unet", clipped_steps=3)
    said = what_was_done(certificate(tmp_path, *rows))[0]
    assert said.endswith("No gradient of Plain CNN was long enough to be clipped.")


def test_float32_is_told_beside_its_floor(tmp_path: Path) -> None:
    (told,) = verdicts(certificate(tmp_path, parity_row("cnn", precision="float32")))
    assert told[0]
    assert "one algorithm" not in told[1]
    assert "part by up to 2.1e−02 of their size, where PyTorch parts from itself by up to 1.8e−02" in told[1]


def test_faults_that_were_not_found_are_named(tmp_path: Path) -> None:
    harmless = [mutation("cnn", "loop", False), mutation("unet", "loop", False)]
    found, missed = mutation("unet", "norm_epsilon", True), mutation("unet", "decay_scope", False)
    words = caught_words(certificate(tmp_path, parity_row("cnn"), mutations=[*harmless, found]).mutations)
    assert words == (
        "1 of 3 planted faults was found. Not to be found, for they change nothing beyond rounding: Training loop "
        "(Plain CNN and U-Net)."
    )
    blind = certificate(tmp_path, mutations=[found, missed])
    assert "Missed: What decays (U-Net). To these the proof is blind." in caught_words(blind.mutations)
    assert (
        caught_words(certificate(tmp_path, mutations=[found]).mutations) == "1 of 1 planted fault was found."
    )


def test_small_differences_in_words() -> None:
    assert [tiny(value) for value in (3.14e-13, 0.0, 0.2, math.inf, math.nan)] == [
        "3.1e−13", "0", "2.0e−01", "∞", "–"
    ]  # fmt: skip


def test_page_shows_the_proof(study: Path) -> None:
    text, markdown = ((study / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    for document in (text, markdown):
        assert "Not proved in float64" in document
        assert "norm1.bias after the step differ by 1e-02" in document.replace("\\_", "_")
        assert f"{len(PLANTED) - HARMLESS} of {len(PLANTED)} planted faults were found" in document
        plain = document.replace("\u00a0", " ")
        assert "images of 64 px, batches of 8, 100 steps, gradients clipped to norm 1" in plain
        assert "The runs of this study" not in document  # nothing is proved that they could rest on
    assert text.count('<td class="text fail">') == 1
    assert text.count('<td class="text pass">') == 9
    assert "step 1, weights" in text
    assert text.count("</span> changes nothing") == HARMLESS


@pytest.mark.usefixtures("no_figures")
def test_the_runs_of_a_study_are_set_beside_the_proof(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", frameworks=(TORCH,), seeds=1)
    write_parity(directory, [parity_row("cnn"), parity_row("cnn", precision="float32")], [])
    text = write_report(directory).read_text(encoding="utf-8")
    assert "are one algorithm: over 100 steps the losses of the Plain CNN agree to 12 digits" in text
    assert re.search(r"The runs of this study train the same code, .*, and yet differ: .*1\.8e−02", text)
    assert "Can the proof fail?" not in text
    other = certificate(tmp_path, parity_row("unet"))
    said = beside_the_runs(other, read_study(directory).study)
    assert said == "The proof does not cover all of this study: it lacks Plain CNN with PyTorch."
    alone = certificate(tmp_path, parity_row("cnn"))
    said = beside_the_runs(alone, read_study(directory).study)
    assert said.endswith("float32 rounding makes them part, and in the aligned lane each framework draws its own "
                         "dropout masks, where the model has any.")  # fmt: skip


def test_numbers_of_the_proof_are_on_disk(study: Path) -> None:
    numbers = json.loads((study / "summary.json").read_text(encoding="utf-8"))
    assert numbers["lockstep/cnn/keras-tensorflow/float64/loss_max_rel"] == {
        "value": 3.4e-13,
        "tolerance": 1e-10,
        "floor": None,
    }
    assert numbers["lockstep/unet/keras-jax/float64/passed"] == {"value": False, "steps": 100}
    assert numbers["lockstep/unet/keras-tensorflow/float32/weights_max_rel"]["tolerance"] is None
    parity = pd.read_csv(study / "tables" / "parity.csv")
    assert len(parity) == 10
    assert parity["passed"].sum() == 9
    assert len(pd.read_csv(study / "tables" / "mutations.csv")) == len(PLANTED)
    drawn = pd.read_csv(study / "figures" / "lockstep-float32-unet.csv")
    assert set(drawn["framework"]) == {KERAS, "torch, 2 threads", "torch, 3 threads"}
    assert set(drawn["model"]) == {"unet"}
    assert "10 test patients" in "\n".join(str(part) for part in terminal_summary(study).renderables)  # type: ignore[attr-defined]


# --- the ladder ---------------------------------------------------------------------------------------------------


def test_a_walk_is_told_by_its_ends_and_its_largest_shares(tmp_path: Path) -> None:
    climb, told = climb_of(ladder(tmp_path), "cnn", "loss")
    assert told[0] == (
        "Validation loss, keras-tensorflow − torch: +0.0340 (+0.0260 to +0.0420) in the native lane, mean distance at "
        "equal seed 0.0380; 0.0000 (−0.0080 to +0.0080) in the lockstep lane, mean distance at equal seed 0.0040."
    )
    assert told[1] == (
        f"On the walk, 3 of {len(defaults_of('binary', 'cnn'))} shares leave out zero: Order of the samples +0.0310, "
        "Order of the flattened maps −0.0180 and Starting weights +0.0120."
    )
    assert climb.native is not None
    assert climb.native.gap == pytest.approx(sum(rung.share for rung in climb.walk if rung.default))
    _, told = climb_of(ladder(tmp_path), "unet", "loss")
    assert re.search(r"6 of \d+ shares leave out zero; the largest: Epsilon of batch norm \+0\.120", told[1])


def test_shares_within_chance_are_not_called_a_cause(tmp_path: Path) -> None:
    _, told = climb_of(ladder(tmp_path, width=0.5), "cnn", "loss")
    assert told[1] == (
        "On the walk, no default's share leaves out zero: with 5 seeds none can be told from chance."
    )
    _, told = climb_of(ladder(tmp_path, width=math.nan, seeds=2), "cnn", "loss")
    assert told[1] == "On the walk, no share has an interval: 2 seeds are too few."


def test_rounding_errors_are_not_called_a_cause(tmp_path: Path) -> None:
    found = ladder(tmp_path)
    climb, _ = climb_of(found, "cnn", "loss")
    rung = dataclasses.replace(climb.walk[1], share=1e-9, share_low=9e-10, share_high=1.1e-9)
    assert not climb.visible(rung)
    assert climb.visible(dataclasses.replace(rung, share=1e-3))


@pytest.mark.usefixtures("no_figures")
def test_a_rung_that_failed_leaves_a_hole(tmp_path: Path) -> None:
    write_ladder(tmp_path)
    table, last = (
        pd.read_csv(tmp_path / "ladder.csv", keep_default_na=False),
        len(defaults_of("binary", "cnn")),
    )
    table = table[(table["model"] == "cnn") & (table["measure"] == "loss")]
    results.write_csv(
        tmp_path / "ladder.csv", table[(table["arm"] == "alone") | ~table["rung"].isin([4, last])]
    )
    found, _ = read_ladder(tmp_path)
    assert found is not None
    climb, told = climb_of(found, "cnn", "loss")
    assert climb.lockstep(last) is None
    assert "native lane" in told[0]
    assert "lockstep lane" not in told[0]
    section, _ = ladder_section(tmp_path)
    assert section is not None
    (shown,) = section.models[0]["climbs"]
    assert len(shown["rows"]) == last - 1
    assert [picture.name for picture in shown["pictures"]] == [
        f"ladder-binary-cnn-loss-{arm}" for arm in ARMS
    ]


def test_page_shows_the_ladder(study: Path) -> None:
    text = (study / "report.html").read_text(encoding="utf-8")
    assert '<a href="#ladder">' in text
    assert text.count("Rung by rung, in numbers") == 4
    for one in defaults_of("binary", "cnn"):
        assert one.title in text
    for name in ("loss-walk", "loss-alone", "score-walk", "score-alone"):
        assert f"ladder-binary-cnn-{name}" in {path.stem for path in (study / "figures").iterdir()}
    walk = pd.read_csv(study / "tables" / "ladder-segmentation-unet-loss.csv")
    assert shares_of(walk) == pytest.approx(walk["gap"][0] - walk["gap"].iloc[-1])
    assert walk.set_index("default")["alone_share"]["norm_epsilon"] == pytest.approx(0.06)
    numbers = json.loads((study / "summary.json").read_text(encoding="utf-8"))
    assert numbers["ladder/segmentation/unet/loss/walk/norm_epsilon"]["share"] == pytest.approx(0.12)
    assert numbers["ladder/segmentation/unet/loss/alone/norm_epsilon"]["share"] == pytest.approx(0.06)
    assert numbers["ladder/segmentation/unet/loss/walk/native"]["share"] is None
    assert numbers["ladder/segmentation/unet/score/walk/native"]["gap"] == pytest.approx(-0.1005)


# --- the atlas ----------------------------------------------------------------------------------------------------


def test_what_differs_is_marked(study: Path) -> None:
    section, _ = atlas_section(study)
    assert section is not None
    items = {item.name: item for _, those in section.sections for item in those}
    assert {name for name, item in items.items() if item.differs} == {
        "conv_kernel", "dense_bias", "norm_epsilon", "adam_form", "shuffle"
    }  # fmt: skip
    assert section.words == "5 of 7 defaults differ."
    assert [items["norm_epsilon"].answers[name].shown for name in BOTH] == ["1e-05", "0.001"]
    assert [items["shuffle"].answers[name].shown for name in BOTH] == ["no", "yes"]
    assert not items["dice"].differs  # only one of them has it
    text = (study / "report.html").read_text(encoding="utf-8")
    assert text.count('aria-label="differs"') == 5
    assert "keras 3.15.1, tensorflow 2.21.0" in text
    table = pd.read_csv(study / "tables" / "defaults.csv")
    assert len(table) == 14
    assert set(table["how"]) == {"signature", "numeric"}


# --- the page -----------------------------------------------------------------------------------------------------


def test_page_is_whole(study: Path) -> None:
    text = (study / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open
    assert len(page.ids) == len(set(page.ids))
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    anchors = {link[1:] for link in page.links if link.startswith("#")}
    assert {"proof", "ladder", "defaults"} <= anchors <= set(page.ids)


@pytest.mark.usefixtures("no_figures")
def test_nothing_is_said_where_nothing_is_beside(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", frameworks=(TORCH,), seeds=1)
    text = write_report(directory).read_text(encoding="utf-8")
    for words in ('id="proof"', 'id="ladder"', 'id="defaults"', "cannot be used", "compare.py parity"):
        assert words not in text
    assert not (directory / "tables" / "parity.csv").exists()


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("name", ["parity.json", "ladder.json", "defaults.json"])
@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"format": 2, "rows": [], "ladders": [], "frameworks": {}, "items": []}',
        '{"format": 1}',
        '{"format": 1, "rows": [], "ladders": [], "frameworks": [], "items": []}',
        '{"format": 1, "rows": 3, "ladders": 3, "frameworks": 3, "items": 3}',
        '{"format": 1, "rows": [1], "ladders": [1], "frameworks": ["torch", "keras-jax"], "items": [1]}',
        '{"format": 1, "rows": [{"task": "binary", "model": "../../x"}], "ladders": [{"task": "../x"}], '
        '"frameworks": {"torch": {"items": {"a": 1}}}, "items": [{"item": "a"}]}',
    ],
)
def test_a_damaged_file_is_told_in_one_sentence(tmp_path: Path, name: str, content: str) -> None:
    readers = {"parity.json": read_certificate, "ladder.json": read_ladder, "defaults.json": atlas_section}
    (tmp_path / name).write_text(content, encoding="utf-8")
    found, fault = readers[name](tmp_path)
    assert found is None
    assert re.fullmatch(
        rf"{re.escape(name)} cannot be used \(.+\); delete it and run `python compare\.py \w+` again\.", fault
    )


@pytest.mark.usefixtures("no_figures")
def test_the_page_tells_of_damaged_files_and_goes_on(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", frameworks=(TORCH,), seeds=1)
    write_all(directory)
    (directory / "parity.json").write_bytes(b"\xff\xfe")
    (directory / "ladder.csv").write_text("task,model\n", encoding="utf-8")
    text = write_report(directory).read_text(encoding="utf-8")
    assert text.count("cannot be used") == 2
    assert 'id="defaults"' in text
    assert "cannot be used" in (directory / "report.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("no_figures")
def test_steps_that_cannot_be_read_leave_the_proof(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", frameworks=(TORCH,), seeds=1)
    write_parity(directory)
    (directory / "parity_steps.csv").write_text("step\n1\n", encoding="utf-8")
    text = write_report(directory).read_text(encoding="utf-8")
    assert "are one algorithm" in text
    assert "parity_steps.csv cannot be used" in text
    assert not list((directory / "figures").glob("lockstep-*"))


@pytest.mark.usefixtures("no_figures")
def test_names_from_the_files_are_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    directory = make_study(tmp_path / "study", frameworks=(TORCH,), seeds=1)
    write_all(directory)
    fault = mutation("cnn", "loop", True, title=evil, about=evil, words=evil, layer=evil)
    row = parity_row("cnn", passed=False, first_divergence={**DIVERGENCE, "words": evil}, profile=evil)
    write_parity(directory, [row], [fault])
    for name in ("defaults.json", "ladder.json"):
        path = directory / name
        text = path.read_text(encoding="utf-8").replace("Starting weights", evil).replace("GELU", evil)
        path.write_text(text.replace("the drawn phantom", evil), encoding="utf-8")
    text = write_report(directory).read_text(encoding="utf-8")
    assert text.count("<script") == 1
    assert text.count("&lt;script&gt;") > 8
    assert "<script>" not in (directory / "report.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("no_figures")
def test_equal_files_give_equal_bytes(study: Path, tmp_path: Path) -> None:
    directory = make_study(tmp_path / "demo", seeds=1)
    for name in ("parity.json", "parity_steps.csv", "ladder.json", "ladder.csv", "defaults.json"):
        (directory / name).write_bytes((study / name).read_bytes())
    read_companions(read_study(directory))
    written = [path.relative_to(directory) for path in (directory / "figures").iterdir()]
    written += [path.relative_to(directory) for path in (directory / "tables").iterdir()]
    assert len(written) > 30
    for path in written:
        assert (directory / path).read_bytes() == (study / path).read_bytes(), path


# --- the native lane ----------------------------------------------------------------------------------------------


def checks_of(directory: Path) -> list[Check]:
    (comparison,) = read_evidence(directory).comparisons
    return comparison_checks(comparison)


@pytest.mark.usefixtures("no_figures")
def test_what_differs_by_design_fails_no_check(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", seeds=1, lane="native")
    names = {check.name: check.verdict for check in checks_of(directory)}
    assert set(names.values()) == {"pass"}
    assert "Same order of images in every epoch" not in names
    assert "Same starting weights, byte for byte" not in names
    for name in ("Same images, labels and patients", "Same split", "Same decoded pixels", "Same phases of training",
                 "Same steps and learning rates in every epoch", "Same samples predicted, same truth"):  # fmt: skip
        assert name in names
    text = write_report(directory).read_text(encoding="utf-8")
    assert re.search(r"all \d+ passed", text)
    assert "What differs by design" in text
    assert "Native lane: each framework with its own defaults." in text
    for words in (
        "channels first",
        "recipe.<wbr>adam_<wbr>epsilon",
        "spec.<wbr>flatten_<wbr>order",
        "Normal or stroke: Plain CNN, native",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("part", "field", "value", "broken"),
    [
        ("recipe", "epochs", 99, "Same recipe, but for the defaults left alone"),
        ("spec", "dropout", 0.7, "Same model specification, but for the defaults left alone"),
        ("recipe", "adam_epsilon", 1e-8, "Each framework with its own defaults, as declared"),
        ("spec", "initialiser", "common", "Each framework with its own defaults, as declared"),
    ],
)
def test_the_native_lane_lets_nothing_else_differ(
    tmp_path: Path, part: str, field: str, value: Any, broken: str
) -> None:
    directory = make_study(tmp_path / "study", seeds=1, lane="native")
    run = Run("binary", "cnn", KERAS, "native", 0, 0)
    path = results.run_directory(directory, run) / "run.json"
    document = results.read_json(path)
    results.write_json(path, {**document, part: {**document[part], field: value}})
    assert [check.name for check in checks_of(directory) if check.verdict == "fail"] == [broken]


def test_a_native_run_cannot_pass_for_an_aligned_one(tmp_path: Path) -> None:
    directory = make_study(tmp_path / "study", seeds=1)
    spec, recipe = config.in_lane(
        config.spec_of("binary", "cnn", "quick"), config.Recipe(epochs=6), KERAS, "native"
    )
    edit_run(directory, KERAS, 0, spec=config.to_json(spec), recipe=config.to_json(recipe))
    failed = {check.name for check in checks_of(directory) if check.verdict == "fail"}
    assert failed == {"Same model specification", "Same recipe"}


def test_only_the_lanes_own_promises_are_dropped() -> None:
    assert promises("aligned") == PROMISES
    assert set(PROMISES) - set(promises("native")) == {
        "Same first training batches, byte for byte", "Same order of images in every epoch",
        "Same starting weights, byte for byte", "Same model specification", "Same recipe",
    }  # fmt: skip


def test_what_is_left_alone_is_that_of_the_config(tmp_path: Path) -> None:
    study = read_evidence(make_study(tmp_path / "study", seeds=1, lane="native")).record.study
    rows = {row["name"]: row for row in left_alone("native", study)}
    names = {one.name for one in config.defaults_of(study.specs["binary/cnn"], study.recipes["binary/cnn"])}
    assert set(rows) == names - set(config.LANES["aligned"])
    assert [rows["adam_epsilon"][who] for who in ("torch", "keras", "aligned")] == ["1e-08", "1e-07", "1e-08"]
    assert left_alone("aligned", dataclasses.replace(study, lanes=("aligned",))) == []
