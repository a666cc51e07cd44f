"""The atlas: what counts as a difference, what contradicts the config, and what is written and read back."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tiny import TinyFramework

import compare
from common import atlas, cli, engines
from common.atlas import ITEMS
from common.config import DEFAULTS, NOTICE
from common.errors import StudyError
from common.framework import Probe
from common.rules import absent, measured


def own_value(framework: str, item: str) -> Any:
    """What the config says of a framework, in the item's words."""
    for name, items in atlas.CHECKS.items():
        if item in items:
            ((_, said),) = DEFAULTS[name].fields(framework).items()
            return atlas.WORDS.get(said, said)
    return 0.5


def part_of(framework: str, **values: Any) -> dict[str, Any]:
    """A part in which a framework does what the config says, but for the given items."""
    return {
        "format": atlas.FORMAT,
        "notice": NOTICE,
        "framework": framework,
        "versions": {"framework": f"{framework} 1.0"},
        "items": {
            item: {"value": values.get(item, own_value(framework, item)), "how": "numeric", "detail": "here"}
            for item in ITEMS
        },
    }


def test_items_are_told_in_words() -> None:
    assert len(ITEMS) > 40
    for name, item in ITEMS.items():
        assert item.title, name
        assert item.section, name
        assert item.about, name
    assert len({(item.section, item.title) for item in ITEMS.values()}) == len(ITEMS)


def test_checks_are_of_things_that_exist() -> None:
    assert set(atlas.CHECKS) <= set(DEFAULTS)
    assert {item for items in atlas.CHECKS.values() for item in items} <= set(ITEMS)
    for name in atlas.CHECKS:
        for framework in ("torch", "keras-jax"):
            assert len(DEFAULTS[name].fields(framework)) == 1


# --- against the config -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framework", ["torch", "keras-torch"])
def test_a_framework_that_does_as_the_config_says_contradicts_nothing(framework: str) -> None:
    assert atlas.contradictions(part_of(framework)) == []


@pytest.mark.parametrize("item", [item for items in atlas.CHECKS.values() for item in items])
def test_every_checked_item_can_contradict(item: str) -> None:
    (said,) = atlas.contradictions(part_of("torch", **{item: "another rule"}))
    assert item in said
    assert "'another rule' in torch 1.0" in said
    (name,) = (name for name, items in atlas.CHECKS.items() if item in items)
    assert f"config.DEFAULTS[{name!r}]" in said


def test_what_a_framework_has_not_contradicts_nothing() -> None:
    assert atlas.contradictions(part_of("torch", stochastic_depth=None)) == []


def test_a_change_names_item_values_and_versions() -> None:
    before, after = part_of("torch"), part_of("torch", adam_epsilon=1e-6)
    after["versions"] = {"framework": "torch 2.0"}
    assert atlas.changes(before, before) == []
    assert atlas.changes(before, after) == [
        "adam_epsilon: recorded 1e-08 (torch 1.0), found 1e-06 (torch 2.0)"
    ]
    del after["items"]["layout"]
    assert len(atlas.changes(before, after)) == len(atlas.changes(after, before)) == 2


# --- side by side -------------------------------------------------------------------------------------------------


def merged(**values: tuple[Any, Any]) -> dict[str, Any]:
    first, second = ({item: pair[side] for item, pair in values.items()} for side in (0, 1))
    return atlas.merge([part_of("torch", **first), part_of("keras-jax", **second)])


def test_differing_items_are_those_that_both_have_and_have_differently() -> None:
    values = {
        "layout": ("a", "b"),
        "bias": (None, 0.1),
        "gelu_layer": (0, 0.0),
        "shuffle": (1, True),
        "odd_size": (2, 2),
    }
    different = atlas.differing(merged(**values))
    checked = {item for items in atlas.CHECKS.values() for item in items}
    assert [item for item in different if item not in checked] == ["layout", "shuffle"]
    assert {"adam_form", "batch_norm_epsilon", "strided_convolution"} <= set(different)
    assert "decay_scope" not in different


def test_written_and_read_back(tmp_path: Path) -> None:
    assert atlas.read(tmp_path) is None
    document = merged()
    assert atlas.write(tmp_path, document) == tmp_path / "defaults.json"
    assert atlas.read(tmp_path) == document
    assert list(document) == ["format", "notice", "frameworks", "items"]
    assert set(document["items"][0]) == {"item", "title", "about", "section", "aligned"}
    assert [row["item"] for row in document["items"]] == list(ITEMS)


@pytest.mark.parametrize("spoilt", [{"format": 2}, {"format": 1, "items": []}, {}])
def test_another_document_is_refused(tmp_path: Path, spoilt: dict[str, Any]) -> None:
    (tmp_path / "defaults.json").write_text(json.dumps(spoilt))
    with pytest.raises(
        StudyError, match=r"defaults\.json is no defaults atlas in format 1; write it again by"
    ):
        atlas.read(tmp_path)


def rendered(document: dict[str, Any]) -> tuple[str, list[str]]:
    """A table's text, and the titles of the items that stand out."""
    console = Console(width=120, record=True, force_terminal=True, file=io.StringIO())
    console.print(atlas.table(document))
    styled = console.export_text(styles=True)
    return styled, [item.title for item in ITEMS.values() if f"1;33m{item.title} " in styled]


def test_only_what_differs_stands_out() -> None:
    document = merged(layout=("first", "last"), odd_size=("down", "down"))
    _, standing_out = rendered(document)
    assert set(standing_out) == {ITEMS[item].title for item in atlas.differing(document)}


def test_backends_are_named_where_they_differ() -> None:
    parts = [part_of("torch"), part_of("keras-jax", layout="here"), part_of("keras-torch", layout="there")]
    text, _ = rendered(atlas.merge(parts))
    assert "here (jax), there (torch)" in text
    assert "keras-jax" not in text


# --- the commands -------------------------------------------------------------------------------------------------


class Probed(TinyFramework):
    """A framework of which every item is known."""

    def __init__(self, **values: Any) -> None:
        super().__init__("torch")
        self.probes = {
            item: measured(own_value("torch", item), f"tried {item}")
            for item in ITEMS
            if item != "auc_thresholds"
        }
        self.probes |= {"auc_thresholds": absent("has none")}
        self.probes |= {item: measured(value, "tried") for item, value in values.items()}

    def probe_defaults(self) -> dict[str, Probe]:
        return self.probes


def test_one_framework_prints_and_writes_its_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    framework = Probed()
    assert cli.main(framework, "tiny", ["defaults", "--out", str(tmp_path / "part.json")]) == 0
    assert "tried layout" in capsys.readouterr().out
    assert [(one.device, one.precision) for one in framework.settings] == [("cpu", "float64")]
    part = atlas.read_part(tmp_path / "part.json")
    assert part["framework"] == "torch"
    assert part["items"]["auc_thresholds"] == {"value": None, "how": "signature", "detail": "has none"}
    assert list(part["items"]) == list(ITEMS)


def test_a_contradiction_is_an_answer_of_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(Probed(adam_epsilon=1e-6), "tiny", ["defaults"]) == 1
    assert "warning: config.DEFAULTS['adam_epsilon'] has adam_epsilon = 1e-08" in capsys.readouterr().out


def test_a_forgotten_item_is_a_fault() -> None:
    framework = Probed()
    del framework.probes["layout"]
    with pytest.raises(ValueError, match="layout"):
        atlas.probe(framework)


def test_compare_asks_each_framework_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def ask(framework: str) -> dict[str, Any]:
        asked.append(framework)
        return copy.deepcopy(part_of(framework, shuffle=framework))

    monkeypatch.setattr(atlas, "ask", ask)
    monkeypatch.setattr(compare, "check_framework", lambda name: None)
    words = ["defaults", "--frameworks", "torch", "keras-jax", "torch", "--out", str(tmp_path / "new")]
    assert compare.main(words) == 0
    assert asked == ["torch", "keras-jax"]
    document = atlas.read(tmp_path / "new")
    assert document is not None
    assert list(document["frameworks"]) == asked
    said = capsys.readouterr().out
    assert f"{len(atlas.differing(document))} of {len(ITEMS)} differ" in said
    assert NOTICE in said


def test_a_framework_that_does_not_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "module_of", lambda framework: "no_such_package")
    with pytest.raises(
        StudyError, match=r"the defaults of torch cannot be probed: .*No module named no_such_package"
    ):
        atlas.ask("torch")
