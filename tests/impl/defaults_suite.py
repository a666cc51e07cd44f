"""What one installed framework does when nothing is said: as recorded, as config has it, and named when it changes."""

from __future__ import annotations

import dataclasses
import importlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harness import PACKAGE, configure, impl

from common import atlas

# Keras's own where it reads a variable; every other warning is an error
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)

RECORDED = Path(__file__).resolve().parent / "defaults" / f"{impl.name()}.json"
layer_defaults, training_defaults = (
    importlib.import_module(f"{PACKAGE}.{name}") for name in ("layer_defaults", "training_defaults")
)
# How each package spells it: (what it takes its layers from, the layer, its parameter)
BATCH_NORM_EPSILON, BATCH_NORM_DECAY, LAYER_NORM_EPSILON = {
    "torch_impl": (
        ("nn", "BatchNorm2d", "eps"),
        ("nn", "BatchNorm2d", "momentum"),
        ("nn", "LayerNorm", "eps"),
    ),
    "keras_impl": (
        ("layers", "BatchNormalization", "epsilon"),
        ("layers", "BatchNormalization", "momentum"),
        ("layers", "LayerNormalization", "epsilon"),
    ),
}[PACKAGE]


@pytest.fixture(scope="module")
def part() -> dict[str, Any]:
    configure("float64")
    return atlas.probe(impl)


def test_the_installed_version_does_what_was_recorded(part: dict[str, Any]) -> None:
    changed = atlas.changes(atlas.read_part(RECORDED), part)
    remedy = f"see to config.DEFAULTS, then: python -m {PACKAGE} defaults --out tests/impl/defaults/{RECORDED.name}"
    assert not changed, "\n".join([*changed, remedy])


def test_config_has_what_the_installed_version_does(part: dict[str, Any]) -> None:
    assert atlas.contradictions(part) == []


def test_every_probe_says_how_it_knows(part: dict[str, Any]) -> None:
    for item, one in part["items"].items():
        assert one["how"] in {"numeric", "signature"}, item
        assert one["detail"], item
        assert one["value"] != "another rule", item


@pytest.mark.parametrize(
    ("place", "value", "item", "default"),
    [
        (BATCH_NORM_EPSILON, 3e-4, "batch_norm_epsilon", "norm_epsilon"),
        (BATCH_NORM_DECAY, 0.3, "batch_norm_decay", "norm_decay"),
        (LAYER_NORM_EPSILON, 3e-4, "layer_norm_epsilon", None),
    ],
)
def test_a_changed_default_is_named(
    part: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    place: tuple[str, str, str],
    value: float,
    item: str,
    default: str | None,
) -> None:
    """The library is given another default, and nothing else; the probe has to see it."""
    source, layer, parameter = place
    module = getattr(layer_defaults, source)
    monkeypatch.setattr(module, layer, partial(getattr(module, layer), **{parameter: value}))
    probes = layer_defaults._normalisation()
    found = part | {
        "items": part["items"] | {name: dataclasses.asdict(one) for name, one in probes.items()},
        "versions": part["versions"] | {"framework": "next version"},
    }
    (line,) = atlas.changes(part, found)
    assert line.startswith(f"{item}: recorded ")
    assert line.endswith("(next version)")
    contradictions = atlas.contradictions(found)
    assert [default is not None and f"[{default!r}]" in said for said in contradictions] == [True] * bool(
        default
    )


def test_a_changed_decay_is_named(part: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    library = training_defaults.torch.optim if PACKAGE == "torch_impl" else training_defaults.keras.optimizers
    monkeypatch.setattr(library, "AdamW", partial(library.AdamW, weight_decay=0.03))
    items = {name: dataclasses.asdict(one) for name, one in training_defaults._decay().items()}
    (line,) = atlas.changes(part, part | {"items": part["items"] | items})
    assert "adamw_weight_decay" in line
    assert "0.03" in line
