"""`speed.md`: the comparisons as tables to read, targets beside what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.table import Row
from common.config import NOTICE

TITLES = {
    "stream": "The data stream, without a model",
    "growth": "Memory of the data stream with more samples",
    "training": "Training: from picture files to optimizer steps",
    "step": "Training step: one batch in memory",
    "unet": "U-Nets by floating-point operations a second",
    "memory": "Peak memory of training",
    "wait": "Waiting for data while training",
    "harness": "Bookkeeping of a run's loop",
    "study": "The whole of `compare.py study`",
    "overhead": "Start and end of a run",
    "compiled": "Eager or compiled",
    "deterministic": "What --deterministic costs",
}
ABOUTS = {
    "stream": (
        "Images a second from 512 px files to float32 batches of 224 px. Warm: ours reads its cache, the peer its "
        "files (or, with `cache()`, memory); still: without augmentation; cold: ours hashes, decodes and writes all "
        "files and streams a first epoch, the peer just reads its files. Peers shrink bilinearly, ours by the mean "
        "over areas."
    ),
    "growth": (
        "Peak MiB of the process after a few batches; sample table and cache index of ours, list of paths of the peer, "
        "whose two worker processes are not counted. Files are hard links."
    ),
    "training": (
        "Images a second. Ours reads the cache that a study makes once and does the whole augmentation; the peer reads "
        "512 px PNG files and changes them less (a flip and a rotation, Keras's U-Net nothing). DenseNet-121 and "
        "ConvNeXt-Tiny of the peers are those of timm and `keras.applications`."
    ),
    "step": "Images a second. The same batch of random numbers again and again: model, loss and optimizer alone.",
    "unet": (
        "Other U-Nets are more or less work an image, so the ratio is of floating-point operations a second, a "
        "training step counted as three forward passes."
    ),
    "memory": (
        "Largest resident set of the training process, in MiB, and what its loader processes have for themselves "
        "alone. The ratio is the peer's over ours. Some 100 MiB of ours are the libraries of the data and metrics "
        "layer (pandas, SciPy, OpenCV), which a plain loop does without."
    ),
    "wait": "Part of the time of a training, fed as in a run, that was not spent waiting for a batch.",
    "harness": "`train_epoch` with a run's clock, digests and messages, against the same batches without them.",
    "study": "Part of its wall time that is training, import and compilation; the note says where the rest is.",
    "overhead": (
        "Seconds, ours / the peer's (as shipped), timed once. Of the last step of an epoch: ours is as large as any, "
        "for an epoch is filled up with samples of its own; the peer's has one image less, which a compiler that wants "
        "static shapes meets with another compilation."
    ),
    "compiled": (
        "Images a second of a training step, one batch in memory; both sides are ours, as a run has it and compiled. "
        "A compilation is paid in every run: the note says with how many seconds, its first step's."
    ),
    "deterministic": (
        "Images a second of a training step, one batch in memory; both sides are ours, a run that has the machine for "
        "itself and one that repeats its bits: with as many threads (`same`), and with the one that the option gives "
        "a run unless `--threads` says otherwise, so that its bits do not depend on what runs beside it."
    ),
}


def render(rows: Sequence[Row], machine: Mapping[str, Any]) -> str:
    """The page as Markdown."""
    lines = [
        "# Speed: beside what a user would pick instead",
        "",
        f"Written by `python -m benchmarks`. {NOTICE} The pictures are drawn heads of the phantom, of no patient.",
        "",
        "Two programs take turns (A B B A) on one machine. A ratio above 1 means that ours is ahead; it is the median "
        "over the rounds, in brackets the interval that holds the true median (order statistics; five rounds: with "
        "94 %). The peer's environment is that of a user's shell (`shipped`) or has the allocator and thread settings "
        "of our workers (`same`). CPU ratio: the same for images a CPU-second, loader processes counted; it does not "
        "feel what else the machine is doing.",
        "",
        _machine_line(machine),
        "",
        *_summary(rows),
    ]
    tables = dict.fromkeys([*TITLES, *(row.table for row in rows)])
    for table in tables:
        chosen = [row for row in rows if row.table == table]
        if not chosen:
            continue
        lines += [f"## {TITLES.get(table, table.capitalize())}", ""]
        if table in ABOUTS:
            lines += [ABOUTS[table], ""]
        lines += [*(_facts(chosen) if table == "overhead" else _table(chosen)), ""]
    return "\n".join(lines).rstrip() + "\n"


def _machine_line(machine: Mapping[str, Any]) -> str:
    versions = ", ".join(
        f"{name} {version}" for name, version in machine.get("packages", {}).items() if version
    )
    return (
        f"{machine.get('cpu', 'unknown processor')}, {machine.get('cores', '?')} cores, GPU: "
        f"{machine.get('gpu', 'none')}; Python {machine.get('python', '?')}, {versions}; load before the last "
        f"measurements {machine.get('load', ['?'])[0]}; {machine.get('measured', '')}."
    )


def _summary(rows: Sequence[Row]) -> list[str]:
    judged = [row for row in rows if row.met is not None]
    missed = [row for row in judged if not row.met]
    absent = [row for row in rows if math.isnan(row.ratio) and row.note.startswith("not measured")]
    lines = [f"**{len(judged) - len(missed)} of {len(judged)} targets are met.**"]
    lists = {
        "Missed:": [(row, f"{row.ratio:.2f}, wanted {row.target:.2f}") for row in missed],
        "Not measured:": [(row, row.note.removeprefix("not measured: ")) for row in absent],
    }
    for title, entries in lists.items():
        if entries:
            lines += ["", title, ""]
        lines += [
            f"- {row.table}, {row.model}, {row.framework}, {row.peer} ({row.setting}): {words}"
            for row, words in entries
        ]
    return [*lines, ""]


def _table(rows: Sequence[Row]) -> list[str]:
    with_cpu = any(not math.isnan(row.cpu_ratio) for row in rows)
    head = ["model", "framework", "ours", "peer", "setting", "ours, rate", "peer, rate", "ratio", "target"]
    head += ["CPU ratio"] * with_cpu + ["note"] * any(row.note for row in rows)
    if len({row.ours for row in rows}) == 1:
        head.remove("ours")
    lines = [_line(head), _line(["---:" if name in _NUMBERS else "---" for name in head])]
    for row in rows:
        cells = {
            "model": row.model,
            "framework": row.framework,
            "ours": row.ours,
            "peer": row.peer,
            "setting": row.setting,
            "ours, rate": _number(row.ours_rate, row.unit),
            "peer, rate": _number(row.peer_rate, row.unit),
            "ratio": _ratio(row),
            "target": _target(row),
            "CPU ratio": _number(row.cpu_ratio),
            "note": row.note,
        }
        lines.append(_line([cells[name] for name in head]))
    return lines


_NUMBERS = frozenset({"ours, rate", "peer, rate", "ratio", "CPU ratio"})


def _facts(rows: Sequence[Row]) -> list[str]:
    """One line a model and framework, one column a fact: ours / peer's."""
    titles = list(dict.fromkeys(row.ours.partition(": ")[2] or row.ours for row in rows))
    lines = [_line(["model", "framework", *titles]), _line(["---", "---", *["---:"] * len(titles)])]
    for model, framework in dict.fromkeys((row.model, row.framework) for row in rows):
        found = {
            row.ours.partition(": ")[2] or row.ours: row
            for row in rows
            if (row.model, row.framework) == (model, framework)
        }
        cells = [
            f"{_number(found[title].ours_rate)} / {_number(found[title].peer_rate)}"
            if title in found
            else "–"
            for title in titles
        ]
        lines.append(_line([model, framework, *cells]))
    return lines


def _ratio(row: Row) -> str:
    if math.isnan(row.ratio):
        return "–"
    interval = "" if math.isnan(row.low) or row.rounds < 2 else f" ({row.low:.2f}–{row.high:.2f})"
    return f"**{row.ratio:.2f}**{interval}"


def _target(row: Row) -> str:
    if row.target is None:
        return ""
    return f"{row.target:.2f}" + {True: " met", False: " **missed**", None: ""}[row.met]


def _number(value: float, unit: str = "") -> str:
    if math.isnan(value):
        return "–"
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {unit}".strip() if unit in ("images/s", "GFLOP/s", "MiB", "s") else text


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
