"""The reporting checklists: complete, computed from the study's files, and honest on what only people know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import pytest
from mask_study_fixture import make_mask_study
from study_fixture import make_study

from common import config, results
from common.report.checklist import ANSWERS, LINKS, STATES, checklist_section
from common.report.checklist_facts import AUTHORS
from common.report.checklist_items import CLAIM, GUIDELINES, TRIPOD_AI
from common.report.page import TEMPLATES
from common.report.reading import read_evidence
from common.verdicts import verdicts

BY_PEOPLE = {"abstract", "background", "funding", "interests", "registration", "involvement", "next_steps"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("checklist") / "study", seeds=2)


def answers(directory: Path, with_verdicts: bool = True) -> dict[str, dict[str, Any]]:
    """Topic -> its row on the page."""
    evidence = read_evidence(directory)
    found = verdicts(evidence.record, evidence.comparisons) if with_verdicts else ()
    section = checklist_section(evidence, found)
    topics = {(one.name, item.number): item.topic for one in GUIDELINES for item in one.items}
    return {
        topics[one["name"], row["number"]]: row
        for one in section["lists"]
        for state in one["states"]
        for row in state["rows"]
    }


def changed(study: Path, where: Path, **fields: object) -> Path:
    """The study with other fields in its study.json."""
    for path in sorted(study.rglob("*")):
        if path.is_file() and path.parts[len(study.parts)] in ("study.json", "data", "runs"):
            target = where / path.relative_to(study)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    document = results.read_json(where / "study.json")
    results.write_json(where / "study.json", document | {"study": document["study"] | fields})
    return where


def test_the_lists_have_every_published_number_once() -> None:
    assert [item.number for item in CLAIM.items] == [str(number) for number in range(1, 45)]
    numbers = [item.number for item in TRIPOD_AI.items]
    assert len(numbers) == len(set(numbers)) == 52
    parts = {
        3: "abc",
        5: "ab",
        6: "abc",
        8: "abc",
        9: "abc",
        12: "abcdefg",
        18: "abcdef",
        20: "abc",
        23: "ab",
        27: "abc",
    }
    expected = [f"{number}{part}" for number in range(1, 28) for part in parts.get(number, ("",))]
    assert numbers == expected


def test_every_item_has_an_answer_and_every_answer_an_item() -> None:
    assert {item.topic for one in GUIDELINES for item in one.items} == set(ANSWERS)


def test_what_only_people_know_is_never_filled_in(study: Path, tmp_path: Path) -> None:
    real = answers(changed(study, tmp_path / "real", data=["some/where/ct"]))
    for topic in (*BY_PEOPLE, "ethics", "dates", "annotators", "raters", "acquisition", "identities"):
        assert real[topic]["state"] == "missing", topic
        assert real[topic]["missing"].endswith(AUTHORS), topic
        assert not real[topic]["words"], topic
    drawn = answers(study)
    assert {drawn[topic]["state"] for topic in ("ethics", "dates", "annotators")} == {"inapplicable"}
    assert {drawn[topic]["state"] for topic in BY_PEOPLE} == {"missing"}


def test_only_folder_names_are_told(study: Path, tmp_path: Path) -> None:
    words = " ".join(
        row["words"] for row in answers(changed(study, tmp_path / "real", data=["/home/me/ct"])).values()
    )
    assert "/home/me" not in words
    assert "ct;" in answers(tmp_path / "real")["sources"]["words"]


def test_an_external_set_is_seen(study: Path, tmp_path: Path) -> None:
    assert answers(study)["external"]["state"] == "missing"
    found = answers(make_study(tmp_path / "other", seeds=1, external=6))["external"]
    assert found["state"] == "filled"
    assert "6 patients" in found["words"]


def test_the_level_of_the_split_is_checked_not_believed(study: Path, tmp_path: Path) -> None:
    assert answers(study)["disjoint"]["state"] == "filled"

    mixed = changed(study, tmp_path / "mixed")
    split = results.read_study(mixed).split()
    split.loc[0, "split"] = "val" if split.loc[0, "split"] != "val" else "train"
    results.write_csv(mixed / "data" / "split.csv", split)
    assert answers(mixed)["disjoint"]["state"] == "missing"
    assert "1 patient" in answers(mixed)["disjoint"]["missing"]

    guessed = changed(study, tmp_path / "guessed")
    audit = results.read_json(guessed / "data" / "audit.json")
    results.write_json(guessed / "data" / "audit.json", audit | {"patients_from": {"similarity": 360}})
    assert answers(guessed)["disjoint"]["state"] == "part"

    (mixed / "data" / "split.csv").unlink()
    assert answers(mixed)["disjoint"]["state"] == "missing"


def test_without_a_run_nothing_is_claimed_of_results(tmp_path: Path) -> None:
    runs = [(name, seed, 0) for name in ("torch", "keras-tensorflow") for seed in range(2)]
    empty = answers(make_study(tmp_path / "empty", seeds=2, missing=runs))
    for topic in (
        "scores",
        "accuracy",
        "internal",
        "statistics",
        "failures",
        "software",
        "start",
        "selection",
    ):
        assert empty[topic]["state"] == "missing", topic
    assert not any(row["link"] in ("#verdicts", "#binary") for row in empty.values())


def test_uncertainty_follows_from_what_was_computed(study: Path) -> None:
    with_them, without = answers(study), answers(study, with_verdicts=False)
    assert (with_them["statistics"]["state"], without["statistics"]["state"]) == ("filled", "part")
    assert "2 seeds" in with_them["statistics"]["words"]
    assert with_them["interpretation"]["state"] == "part"


def test_too_few_patients_for_an_interval_are_said(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "MIN_INTERVAL_PATIENTS", 11)  # ten are tested
    found = answers(study, with_verdicts=False)
    assert {found[topic]["state"] for topic in ("statistics", "scores", "accuracy")} == {"part"}
    assert "10 test patients are too few" in found["statistics"]["missing"]


def test_the_audit_counts(study: Path, tmp_path: Path) -> None:
    assert answers(study)["preparation"]["state"] == "part"
    audited = changed(study, tmp_path / "audited")
    findings = [{"name": name, "verdict": verdict} for name, verdict in (("a", "pass"), ("b", "warn"))]
    results.write_json(audited / "data" / "audit.json", {"findings": findings, "found": 361})
    found = answers(audited)
    assert found["preparation"]["words"] == "2 checks of the data, 1 without a finding"
    assert found["flow"]["state"] == "filled"


def test_masks_alone_are_no_diagnosis(tmp_path: Path) -> None:
    found = answers(make_mask_study(tmp_path / "masks", seeds=1, gates=()))
    assert found["accuracy"]["state"] == found["explanations"]["state"] == "inapplicable"
    assert found["scores"]["state"] == "filled"


def test_the_table_has_every_item_with_its_state(study: Path) -> None:
    answers(study)
    table = pd.read_csv(study / "tables" / "checklist.csv", keep_default_na=False)
    assert len(table) == 44 + 52
    assert set(table["state"]) == set(STATES.values())
    assert ((table["study_says"] != "") | (table["open"] != "")).all()
    assert (study / "tables" / "checklist.tex").exists()


def test_counts_and_lists_agree_and_nothing_is_trusted(study: Path, tmp_path: Path) -> None:
    hostile = changed(study, tmp_path / "hostile", data=['<img src=x onerror="alert(1)">'])
    evidence = read_evidence(hostile)
    section = checklist_section(evidence, verdicts(evidence.record, evidence.comparisons))
    for one in section["lists"]:
        assert sum(one["counts"].values()) == one["count"]
        assert {state["state"]: len(state["rows"]) for state in one["states"]} == {
            name: count for name, count in one["counts"].items() if count
        }
        links = {row["link"] for state in one["states"] for row in state["rows"]} - {""}
        assert links <= set(LINKS)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("checklist.html.j2").render(checklist=section)
    assert "<img" not in page
    assert page.count("<li>") == 96
