"""The leak meter in the report: read without trust, told as what it is, and never among the results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import pytest
from leak_fixture import SCORES, documents
from markupsafe import Markup
from tiny import make_row

from common.data.leaky_splits import ARMS
from common.data.samples import sample_table
from common.leak import leak_study
from common.leak_table import describe_leak, training_table
from common.report import page
from common.report.leak_views import TITLE, leak_numbers, leak_section

KEY = "leak/binary/cnn/torch"


def write_leak(directory: Path, scores: dict[str, list[float]]) -> dict[str, Any]:
    """leak.json and leak.csv of made-up trainings below a folder; returns the document."""
    samples = sample_table(
        [make_row(f"p{n}/{k}", ("stroke", "normal")[n % 2], f"p{n}") for n in range(12) for k in range(2)]
    )
    trained = documents(scores)
    document = describe_leak(leak_study(seeds=3), samples, trained, {})
    directory.mkdir(exist_ok=True)
    (directory / "leak.json").write_text(json.dumps(document))
    training_table(trained).to_csv(directory / "leak.csv", index=False)
    return document


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("leak")
    write_leak(directory, SCORES)
    return directory


@pytest.fixture(scope="module")
def section(study: Path) -> dict[str, Any]:
    found = leak_section(study, study / "figures")
    assert found is not None
    return found


def render(name: str, leak: dict[str, Any]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(page.TEMPLATES),
        autoescape=name.endswith("html.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = str
    return environment.get_template(name).render(leak=leak, svg=Markup, colours={})


def test_every_number_is_marked_as_no_headline_and_keyed(study: Path, section: dict[str, Any]) -> None:
    numbers = leak_numbers(json.loads((study / "leak.json").read_text()))
    assert numbers == section["numbers"]
    assert list(numbers) == [
        f"{KEY}/{name}/auroc_score" for name in (*ARMS, "inflation", "memory", "control")
    ]
    assert all(entry["headline"] is False for entry in numbers.values())
    leaky = {name: numbers[f"{KEY}/{name}/auroc_score"]["leaky"] for name in ARMS}
    assert leaky == {"patient": False, "slice": True, "shuffled": True, "shuffled-patient": False}
    assert numbers[f"{KEY}/patient/auroc_score"]["mean"] == pytest.approx(0.6)
    assert numbers[f"{KEY}/inflation/auroc_score"]["difference"] == pytest.approx(0.2)


def test_the_page_shows_each_number_under_its_key(section: dict[str, Any]) -> None:
    html = render("leak.html.j2", section)
    shown = re.findall(r'data-key="([^"#]+)#([^"]+)">([^<]+)<', html)
    assert {key for key, _, _ in shown} == set(section["numbers"])
    for key, field, text in shown:
        number = float(text.replace("−", "-"))
        digits = len(text.partition(".")[2])
        assert number == pytest.approx(section["numbers"][key][field], abs=0.5 * 10**-digits + 1e-12)


def test_the_page_says_what_it_is(section: dict[str, Any]) -> None:
    html, markdown = render("leak.html.j2", section), render("leak.md.j2", section)
    for text in (html, markdown):
        assert TITLE in text
        assert section["warning"] in text
        assert text.count("leaky: no result") == 2
        assert text.count("made-up labels: no result") == 1
    assert len(re.findall(r'<tr class="leaky">', html)) == 2 + 2 * 3  # arms, and the trainings of three seeds
    (group,) = section["groups"]
    first = group["sentences"][0]
    assert first.startswith(
        "A split by slice would have claimed 0.80 (AUROC per test slice, plain CNN); on patients"
    )
    assert "0.60" in first
    assert "+0.20" in first


def test_words_follow_the_interval(tmp_path: Path) -> None:
    """What the interval does not leave out is not claimed, and two seeds have none."""
    same = SCORES | {"slice": [0.62, 0.68, 0.51], "shuffled": [0.5, 0.45, 0.56]}
    few = {name: values[:2] for name, values in SCORES.items()}
    alone = {name: values[:1] for name, values in SCORES.items()}
    off = SCORES | {"shuffled-patient": [0.9, 0.91, 0.9]}
    said = {}
    for name, scores in (("same", same), ("few", few), ("alone", alone), ("off", off)):
        write_leak(tmp_path / name, scores)
        section = leak_section(tmp_path / name, tmp_path / "figures")
        assert section is not None
        said[name] = " ".join(section["groups"][0]["sentences"])
    assert "with 3 seeds no inflation can be told from chance" in said["same"]
    assert "with 3 seeds no memory of patients can be told from chance" in said["same"]
    assert "recognising patients alone" not in said["same"]
    assert said["few"].count("(2 seeds: no interval)") == 3
    assert said["alone"].count("(1 seed: no interval)") == 3
    assert "which is more than chance explains" in said["off"]


def test_the_figure_has_its_numbers_beside_it_and_hatches_the_leaky_arms(
    study: Path, section: dict[str, Any]
) -> None:
    (group,) = section["groups"]
    picture = group["picture"]
    assert picture.svg.count("<pattern") >= 1
    table = pd.read_csv(study / "figures" / f"{picture.name}.csv")
    seeds = table[table["what"] == "seed"]
    assert {name: part["value"].tolist() for name, part in seeds.groupby("arm")} == SCORES
    assert (study / "figures" / f"{picture.name}.png").stat().st_size > 10_000
    assert sorted(path.stem for path in (study / "tables").glob("*.csv")) == [
        *("leak-arms", "leak-effects", "leak-trainings"),
    ]


def test_what_is_not_there_or_odd_is_left_out_or_told(tmp_path: Path) -> None:
    assert leak_section(tmp_path, tmp_path / "figures") is None
    document = write_leak(tmp_path, SCORES)
    odd = [
        {"measures": [document["measures"][0] | {"task": "../elsewhere"}]},
        {"measures": [document["measures"][0] | {"model": "unet"}]},
        {"measures": [document["measures"][0] | {"arms": [{"arm": "honest"}]}]},
        {"measures": None},
        {"format": 99},
    ]
    for changes in odd:
        (tmp_path / "leak.json").write_text(json.dumps(document | changes))
        section = leak_section(tmp_path, tmp_path / "figures")
        assert section is not None
        assert section["fault"].startswith("leak.json cannot be used (")
        assert (section["groups"], section["numbers"]) == ([], {})
        assert section["fault"] in render("leak.md.j2", section)
        assert TITLE in render("leak.html.j2", section)
    hostile = document | {"data": "<script>alert(1)</script>", "warning": "<b>bold</b>"}
    (tmp_path / "leak.json").write_text(json.dumps(hostile))
    section = leak_section(tmp_path, tmp_path / "figures")
    assert section is not None
    assert "<script>" not in render("leak.html.j2", section)
    assert "<b>" not in render("leak.html.j2", section)
