"""The defaults atlas: what each installed framework does when nothing is said, found by looking and by trying.

One framework's part is what `python -m torch_impl defaults --out FILE.json` writes; `merge` puts parts side by side:

```
defaults.json   {"format": 1, "notice", "frameworks": {framework: {"versions": {...}, "items": {item: probe}}},
                 "items": [{"item", "title", "about", "aligned", "section"}]}
a part          {"format": 1, "notice", "framework", "versions": {...}, "items": {item: probe}}
a probe         {"value", "how", "detail"}, as `common.framework.Probe`
```
"""

from __future__ import annotations

import dataclasses
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from rich.table import Table
from rich.text import Text

from common.atlas_items import ITEMS as ITEMS
from common.atlas_items import Item as Item
from common.config import DEFAULTS, NOTICE
from common.engines import worker_command, worker_environment
from common.errors import StudyError
from common.framework import Framework
from common.results import read_json, write_json

FORMAT = 1
FILE = "defaults.json"
TIMEOUT_SECONDS = 300  # seconds where nothing else runs; JAX compiles every probe
PRECISION = "float64"  # so that a probe shows rules and no rounding

# Name of `config.DEFAULTS` -> the items that show whether its values are those of the installed framework
CHECKS: dict[str, tuple[str, ...]] = {
    "flatten": ("flatten_order",),
    "conv_bias": ("convolution_bias",),
    "padding": ("strided_convolution", "strided_max_pool"),
    "norm_epsilon": ("batch_norm_epsilon",),
    "norm_decay": ("batch_norm_decay",),
    "norm_variance": ("batch_norm_variance",),
    "stochastic_depth": ("stochastic_depth",),
    "loss_input": ("binary_cross_entropy_input", "cross_entropy_input"),
    "class_weights": ("cross_entropy_divisor",),
    "sample_weights": ("binary_cross_entropy_divisor",),
    "weight_decay": ("adamw_weight_decay",),
    "decay_scope": ("decay_scope",),
    "adam_epsilon": ("adam_epsilon",),
    "adam_form": ("adam_form",),
    "clipping": ("clipping",),
}
# How an item puts what a field of a spec says in another word
WORDS: dict[object, str] = {"symmetric": "top and left", "same": "bottom and right"}

Document: TypeAlias = Mapping[str, Any]


# --- one framework ------------------------------------------------------------------------------------------------


def probe(framework: Framework) -> dict[str, Any]:
    """The part of a framework that is configured for `PRECISION` on a CPU in this process."""
    probes = framework.probe_defaults()
    if probes.keys() != ITEMS.keys():
        raise ValueError(
            f"{framework.name()} does not answer for exactly {sorted(probes.keys() ^ ITEMS.keys())}"
        )
    return {
        "format": FORMAT,
        "notice": NOTICE,
        "framework": framework.name(),
        "versions": framework.environment(),
        "items": {item: dataclasses.asdict(probes[item]) for item in ITEMS},
    }


def ask(framework: str) -> dict[str, Any]:
    """The part of a framework, found in a process of its own. Raises StudyError if it gives none."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / FILE
        command = worker_command(framework, "defaults", "--out", str(path))
        try:
            answer = subprocess.run(
                command,
                env=worker_environment(framework, "cpu", PRECISION, threads=1),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise StudyError(f"{framework} was not probed within {TIMEOUT_SECONDS} s; try again") from None
        if not path.exists():
            last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
            raise StudyError(
                f"the defaults of {framework} cannot be probed: {last[:300]}; try `python -m {command[2]} defaults`"
            )
        return read_part(path)


def contradictions(part: Document) -> list[str]:
    """Where `config.DEFAULTS`, from which the native lane and the ladder are made, is not what was found."""
    framework, found = part["framework"], []
    for name, items in CHECKS.items():
        ((field, said),) = DEFAULTS[name].fields(framework).items()
        for item in items:
            value = part["items"][item]["value"]
            if value is not None and not _equal(value, WORDS.get(said, said)):
                found.append(
                    f"config.DEFAULTS[{name!r}] has {field} = {said!r} for {framework}, but {item} is {value!r} in "
                    f"{part['versions']['framework']}; the native lane would not be its own"
                )
    return found


def changes(recorded: Document, found: Document) -> list[str]:
    """One line an item whose value is not the recorded one, with the versions of both; parts of one framework."""
    versions = [part["versions"]["framework"] for part in (recorded, found)]
    before, after = (
        {item: one["value"] for item, one in part["items"].items()} for part in (recorded, found)
    )
    return [
        f"{item}: recorded {before.get(item)!r} ({versions[0]}), found {after.get(item)!r} ({versions[1]})"
        for item in before | after
        if item not in before or item not in after or not _equal(before[item], after[item])
    ]


# --- several ------------------------------------------------------------------------------------------------------


def merge(parts: Sequence[Document]) -> dict[str, Any]:
    """The parts side by side, as defaults.json has them."""
    return {
        "format": FORMAT,
        "notice": NOTICE,
        "frameworks": {
            part["framework"]: {"versions": part["versions"], "items": part["items"]} for part in parts
        },
        "items": [{"item": name, **dataclasses.asdict(item)} for name, item in ITEMS.items()],
    }


def differing(atlas: Document) -> list[str]:
    """The items, in order, that at least two frameworks have and have differently."""
    return [row["item"] for row in atlas["items"] if _differs(_values(atlas, row["item"]).values())]


def write(directory: Path, atlas: Document) -> Path:
    """Write `directory`/defaults.json; returns its path."""
    path = directory / FILE
    write_json(path, atlas)
    return path


def read(directory: Path) -> dict[str, Any] | None:
    """What `write` wrote, or None where there is no such file. Raises StudyError for any other document."""
    path = directory / FILE
    return _checked(path, ("frameworks", "items")) if path.exists() else None


def read_part(path: Path) -> dict[str, Any]:
    """One framework's part. Raises StudyError for any other document."""
    return _checked(path, ("framework", "versions", "items"))


def _checked(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    document = read_json(path)
    if document.get("format") != FORMAT or any(key not in document for key in keys):
        raise StudyError(
            f"{path} is no defaults atlas in format {FORMAT}; write it again by `python compare.py defaults --out DIR`"
        )
    return document


def _values(atlas: Document, item: str) -> dict[str, Any]:
    """Framework -> value of an item, where it has one."""
    found = {name: one["items"].get(item, {}).get("value") for name, one in atlas["frameworks"].items()}
    return {name: value for name, value in found.items() if value is not None}


def _differs(values: Any) -> bool:
    first, *others = list(values) or [None]
    return any(not _equal(first, other) for other in others)


def _equal(one: object, other: object) -> bool:
    """As JSON has it: 1 is 1.0, but true is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


# --- to be read ---------------------------------------------------------------------------------------------------


def table(atlas: Document) -> Table:
    """All items, a column for PyTorch and one for Keras, whose backends are named where they differ.

    Items that differ between any two frameworks stand out.
    """
    families: dict[str, list[str]] = {}
    for name in atlas["frameworks"]:
        families.setdefault(name.split("-")[0], []).append(name)
    found, section, different = _table(*families, "aligned lane"), "", set(differing(atlas))
    for row in atlas["items"]:
        if row["section"] != section:
            section = row["section"]
            found.add_row(Text(f"\n{section}", style="bold"))
        values = _values(atlas, row["item"])
        cells = [
            _together({name: values[name] for name in names if name in values}) for names in families.values()
        ]
        style = "bold yellow" if row["item"] in different else "dim"
        found.add_row(*(Text(text) for text in (row["title"], *cells, row["aligned"] or "–")), style=style)
    return found


def part_table(part: Document) -> Table:
    """A framework's items: value, and how it is known."""
    found, section = _table(part["framework"], "found by"), ""
    for name, item in ITEMS.items():
        if item.section != section:
            section = item.section
            found.add_row(Text(f"\n{section}", style="bold"))
        one = part["items"][name]
        found.add_row(*(Text(text) for text in (item.title, _shown(one["value"]), one["detail"])))
    return found


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("", overflow="fold", min_width=max(len(item.section) for item in ITEMS.values()))
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _together(values: Mapping[str, Any]) -> str:
    """The one value of frameworks that agree, else each value with the backends that have it."""
    shown: dict[str, list[str]] = {}
    for name, value in values.items():
        shown.setdefault(_shown(value), []).append(name.split("-")[-1])
    if len(shown) < 2:
        return next(iter(shown), "–")
    return ", ".join(f"{value} ({', '.join(names)})" for value, names in shown.items())


def _shown(value: object) -> str:
    return (
        "–" if value is None else {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
    )
