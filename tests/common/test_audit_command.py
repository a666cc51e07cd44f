"""The audit as people meet it: `compare.py audit`, at the start of a study, and as a section of a page."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tiny import make_study, tiny_world, write_pictures

import compare
from common import config
from common.data import audit as audit_module
from common.data.audit import describe_audit
from common.data.findings import VERDICTS
from common.errors import StudyError
from common.report.audit_page import write_audit_page
from common.report.audit_views import TITLE, audit_section
from common.results import read_study
from common.study import prepare_study

__all__ = ["tiny_world"]  # a fixture


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures", slices=3)


@pytest.fixture
def contradicting(data: Path) -> Path:
    """One slice is there under both labels."""
    shutil.copy(data / "Normal" / "0 (0).png", data / "Stroke" / "0 (9).png")
    return data


@pytest.fixture
def small_phantom(monkeypatch: pytest.MonkeyPatch) -> None:
    small = config.Phantom(patients=12, image_size=128, slices_min=3, slices_max=4)
    profile = dataclasses.replace(config.PROFILES["quick"], phantom=small)
    monkeypatch.setitem(config.PROFILES, "quick", profile)


# --- the command --------------------------------------------------------------------------------------------------


def test_sound_data_end_with_0_and_four_files(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "audit"
    assert compare.main(["audit", "--data", str(data), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert config.NOTICE in said
    assert "Nothing was found that makes a comparison on these data invalid." in said
    assert {path.name for path in out.iterdir()} == {"audit.json", "audit.html", "audit.csv", "evidence.csv"}
    audit = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    assert audit["data"] == ["pictures"]
    assert audit["verdict"] in ("pass", "note", "warn")
    assert (audit["found"], audit["used"], audit["patients"]) == (36, 36, 12)
    order = [VERDICTS.index(one["verdict"]) for one in audit["findings"]]
    assert order == sorted(order)
    names = {one["name"] for one in audit["findings"]}
    assert names == TITLE.keys() - {"no-split"}
    assert names >= set(config.AUDIT_REFUSALS)
    with (out / "audit.csv").open(encoding="utf-8", newline="") as stream:
        assert {row["name"] for row in csv.DictReader(stream)} == names
    assert str(tmp_path) not in "".join(path.read_text(encoding="utf-8") for path in out.iterdir())


def test_refused_data_end_with_1_and_with_0_when_accepted_by_name(
    contradicting: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["audit", "--data", str(contradicting), "--out", str(tmp_path / "audit")]
    assert compare.main(asked) == 1
    said = capsys.readouterr().out
    assert "refuse  contradicting-labels: " in said
    assert "file Normal/0 (0).png, copy Stroke/0 (9).png" in said
    assert said.splitlines()[-2].endswith("unless told --accept contradicting-labels.")
    assert compare.main([*asked, "--accept", "contradicting-labels"]) == 0
    audit = json.loads((tmp_path / "audit" / "audit.json").read_text(encoding="utf-8"))
    assert (audit["accepted"], audit["verdict"]) == (["contradicting-labels"], "warn")
    assert compare.main([*asked, "--accept", "patient-on-two-sides"]) == 1


def test_faults_end_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "audit")]
    assert compare.main(["audit", "--data", str(tmp_path / "nowhere"), *out]) == 2
    assert "does not exist" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert compare.main(["audit", "--data", str(tmp_path / "empty"), *out]) == 2
    with pytest.raises(SystemExit, match="2"):
        compare.main(["audit", "--accept", "everything", *out])
    assert "patient-on-two-sides" in capsys.readouterr().err  # the names are told
    assert not (tmp_path / "audit").exists()


@pytest.mark.usefixtures("small_phantom")
def test_without_folders_it_is_the_phantom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["audit", "--patients", "11", "--out", str(tmp_path / "audit")]) == 0
    assert "drawn phantom" in capsys.readouterr().out
    audit = json.loads((tmp_path / "audit" / "audit.json").read_text(encoding="utf-8"))
    assert audit["data"] == ["the drawn phantom"]
    assert audit["patients"] == 11
    verdict = {one["name"]: one["verdict"] for one in audit["findings"]}
    assert {verdict[name] for name in ("patient-key", "exact-copies", "contradicting-labels")} == {"pass"}


# --- a study ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_world")
def test_a_study_of_refused_data_stops_before_it_is_one(contradicting: Path, tmp_path: Path) -> None:
    directory = tmp_path / "study"
    with pytest.raises(StudyError) as caught:
        prepare_study(make_study(contradicting), directory)
    message = str(caught.value)
    for part in ("contradicting-labels", "Normal/0 (0).png", "Stroke/0 (9).png", "find out which label is right",
                 "--accept contradicting-labels", "audit.json"):  # fmt: skip
        assert part in message
    assert not (directory / "study.json").exists()
    assert (directory / "data" / "audit.json").exists()

    accepted = ("contradicting-labels",)
    record = prepare_study(make_study(contradicting, accepted=accepted), directory)
    assert record.audit()["accepted"] == list(accepted)
    lines = [line for line in describe_audit(record.audit()) if "contradicting-labels" in line]
    assert lines[0].startswith(
        "audit: accepted by name, though it makes comparisons invalid: contradicting-labels: "
    )
    section = audit_section(record.audit())
    assert section is not None
    assert [one["anchor"] for one in section["alerts"]] == ["audit-contradicting-labels"]
    assert "Accepted by name" in section["alerts"][0]["text"]
    again = prepare_study(make_study(contradicting), directory)  # what was accepted stays so
    assert again.study.accepted == accepted


@pytest.mark.usefixtures("tiny_world")
def test_pictures_are_looked_at_once_until_something_changes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    take = audit_module.take_looks

    def counted(samples: Any, *rest: Any, **more: Any) -> Any:
        seen.append(len(samples))
        return take(samples, *rest, **more)

    monkeypatch.setattr(audit_module, "take_looks", counted)
    directory = tmp_path / "study"
    first = prepare_study(make_study(data), directory).audit()
    assert prepare_study(make_study(data, seeds=5), directory).audit() == first
    assert seen == [36]
    monkeypatch.setattr(config, "AUDIT_OUTLIER_DEVIATIONS", 0.1)
    prepare_study(make_study(data), directory)
    assert seen == [36, 36]
    assert read_study(directory).audit()["findings"] != first["findings"]


@pytest.mark.usefixtures("tiny_world", "small_phantom")
def test_the_phantom_is_not_drawn_again_for_the_audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise AssertionError(f"{path} was drawn again")

    monkeypatch.setattr("common.data.looks.read_slice", refuse)
    study = dataclasses.replace(make_study(tmp_path), data=())
    audit = prepare_study(study, tmp_path / "study").audit()
    verdict = {one["name"]: one["verdict"] for one in audit["findings"]}
    assert verdict["near-copies"] == verdict["exact-copies"] == verdict["patient-on-two-sides"] == "pass"


# --- the section --------------------------------------------------------------------------------------------------

HOSTILE = '<script>alert(1)</script>"|`'
AUDIT: dict[str, Any] = {
    "found": 3, "used": 3, "patients": 2, "accepted": ["painted-inputs"], "data": [HOSTILE],
    "findings": [
        {"name": "labels", "verdict": "pass", "sentence": "3 slices.", "remedy": "", "evidence": [],
         "evidence_total": 0},
        {"name": "masks", "verdict": "warn", "sentence": HOSTILE, "remedy": "Mend.", "evidence": [{"file": HOSTILE}],
         "evidence_total": 60},
        {"name": "painted-inputs", "verdict": "refuse", "sentence": "1 painted.", "remedy": "Take it out.",
         "evidence": [{"file": "a.png"}], "evidence_total": 1},
        {"name": "patient-on-two-sides", "verdict": "refuse", "sentence": "1 patient.", "remedy": "Mend.",
         "evidence": [], "evidence_total": 0},
    ],
}  # fmt: skip


class Tags(HTMLParser):
    """Every tag of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_what_is_wrong_comes_first() -> None:
    section = audit_section(AUDIT)
    assert section is not None
    shown = [one["verdict"] for key in ("wrong", "open", "passed") for one in section[key]]
    assert shown == ["refuse", "accepted", "warn", "pass"]
    assert section["invalid"]
    assert section["refused"]
    assert [one["anchor"] for one in section["alerts"]] == [
        "audit-patient-on-two-sides",
        "audit-painted-inputs",
    ]
    assert section["open"][0]["total"] == 60
    assert audit_section({}) is None
    assert audit_section({"findings": "nonsense", "accepted": 3}) is None


def test_the_page_escapes_what_comes_from_files(tmp_path: Path) -> None:
    write_audit_page(AUDIT, tmp_path / "audit.html")
    page = Tags((tmp_path / "audit.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) >= 3
    assert (
        page.text.index("1 patient.") < page.text.index("1 painted.") < page.text.index("Evidence: 60 rows")
    )
    assert page.tags.count("h1") == page.tags.count("h2") == 1
    assert config.NOTICE in page.text
