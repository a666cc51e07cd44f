"""The last thing a study prints: a short table of each task and model, no wider than 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from common import config
from common.errors import StudyError
from common.names import printable
from common.report.attachments import ODD
from common.report.context import model_title, skipped_tasks, unknown_patients
from common.report.evidence import ordered
from common.report.reading import comparison_keys
from common.report.summary import CASCADE
from common.report.terms import TASK_TITLE, metric_direction
from common.report.verdict_words import short
from common.report.wording import listed, percent, plain, signed
from common.results import StudyRecord, read_json, read_study

# (level, metric) -> title; the differences stand below the primary metric of a task.
SHOWN = {
    "classification": {
        ("", "auroc_score"): "AUROC",
        ("patient/", "auroc_score"): "AUROC, patients",
        ("external/", "auroc_score"): "AUROC, external",
        ("", "average_precision_score"): "Avg. precision",
        ("", "recall_score"): "Recall",
        ("", "specificity_score"): "Specificity",
        ("", "f1_score"): "F1",
    },
    "segmentation": {
        ("", "dice_score"): "Dice",
        ("patient/", "dice_score"): "Dice, patients",
        ("external/", "dice_score"): "Dice, external",
        ("", "surface_dice_score"): "Surface Dice",
        ("", "hd95_px"): "HD95, px",
        ("", "sensitivity_score"): "Sensitivity",
        ("clean/", "clean_slice_score"): "Clean left clean",
    },
    CASCADE: {
        ("", "dice_score"): "Dice, no gate",
        ("", "gated_dice_score"): "Dice behind gate",
        ("", "gate_sensitivity_score"): "Lesions let pass",
        ("clean/", "clean_slice_score"): "Clean, no gate",
        ("clean/", "gated_clean_slice_score"): "Clean behind gate",
    },
}
VERDICTS = "Verdicts: over seeds and over patients, one family a lane; margin declared beforehand."
Numbers: TypeAlias = dict[str, dict[str, Any]]  # summary.json
COSTS = {
    "steady_images_per_second": "Images/s, training",
    "total_seconds": "Whole run, s",
    "peak_rss_mib": "Peak memory, MiB",
}


def terminal_summary(study_directory: Path) -> RenderableType:
    """A table for each (lane, task, model), read from the study's `summary.json`; print it with rich.

    Raises StudyError if the report was not written yet, or its numbers were changed since.
    """
    try:
        return _summary(study_directory)
    except ODD as error:
        if isinstance(error, StudyError):
            raise
        path = study_directory / "summary.json"
        raise StudyError(f"{path} is not as it was written ({error!r}); write the report again") from error


def _summary(study_directory: Path) -> RenderableType:
    record = read_study(study_directory)
    numbers = read_json(study_directory / "summary.json")
    complete = {(one.run.lane, one.run.task, one.run.model) for one in record.complete}
    parts: list[RenderableType] = []
    for key in comparison_keys(record):
        if key in complete:
            parts += [*comparison_table(record, numbers, *key), Text()]
    parts += cascade_tables(record, numbers)
    if not parts:
        parts.append(Text("No run is complete, so there is nothing to compare."))
    else:
        parts.append(Text(f"{caption(numbers)} {VERDICTS}"))
    audit = record.audit() if (study_directory / "data" / "audit.json").exists() else {}
    if sentence := unknown_patients(audit):
        parts.append(Text(sentence, style="yellow"))
    parts += [Text(printable(f"not done: {one['title']}: {one['reason']}")) for one in skipped_tasks(audit)]
    for one in record.runs:
        run = one.run
        name = f"{run.task}, {run.model}, {run.framework}, seed {run.seed}, fold {run.fold}"
        if not one.complete:
            parts.append(Text(printable(f"failed: {name}: {one.document.get('reason')}"), style="red"))
        else:
            faults = {"not scored": one.change("predictions.npz"), "no curves": one.change("history.csv")}
            for what, fault in faults.items():
                if fault:
                    parts.append(Text(printable(f"{what}: {name}: {fault}"), style="red"))
    parts.append(Text(config.NOTICE, style="dim"))
    return Group(*parts)


def caption(numbers: Numbers) -> str:
    """Over how many seeds the numbers are."""
    lanes = tuple(
        f"{lane}/" for lane in config.STUDY_LANES
    )  # the ladder and the leak meter have seeds of their own
    seeds = {entry["seeds"] for key, entry in numbers.items() if key.startswith(lanes) and entry.get("seeds")}
    over = "One seed." if seeds == {1} else f"Mean ± SD over {' or '.join(map(str, sorted(seeds)))} seeds."
    return f"{over} Intervals: {percent(config.CONFIDENCE)}, over test patients, seeds held fixed."


def comparison_table(
    record: StudyRecord, numbers: Numbers, lane: str, task: str, model: str
) -> list[RenderableType]:
    settings, prefix = config.TASKS[task], f"{lane}/{task}/{model}"
    found = [r.run for r in record.complete if (r.run.lane, r.run.task, r.run.model) == (lane, task, model)]
    frameworks = ordered({run.framework for run in found})
    title = f"{TASK_TITLE[task]}: {model_title(model, record.study.specs.get(f'{task}/{model}'))}, {lane}"
    sizes = [numbers.get(f"{prefix}/{name}/{settings.primary_metric}", {}) for name in frameworks]
    if patients := [entry["patients"] for entry in sizes if entry]:
        title += f"; {max(patients)} test patients"
    if len(settings.classes) > 2:
        title += "; means over the classes"
    arrows = {"up": " ↑", "down": " ↓"}
    shown = {
        key: words + arrows[metric_direction(task, key[1])] for key, words in SHOWN[settings.kind].items()
    }
    return [
        Text(title, style="bold"),
        *verdict_lines(numbers, prefix, settings.primary_metric),
        score_rows(numbers, prefix, frameworks, shown, settings.primary_metric),
    ]


def verdict_lines(numbers: Numbers, prefix: str, metric: str) -> list[Text]:
    """The verdict of each framework beside the reference: "keras-jax against torch: equivalent within ±0.05"."""
    lines = []
    for key, entry in numbers.items():
        before, _, last = key.rpartition("/")
        before, _, pair = before.rpartition("/")
        if (before, last) == (prefix, metric) and entry.get("verdict"):
            words = short(entry["verdict"], entry["margin"], entry["seeds"])
            lines.append(Text(f"  {pair.replace('-vs-', ' against ')}: {words}"))
    return lines


def cascade_tables(record: StudyRecord, numbers: Numbers) -> list[RenderableType]:
    """A table of each gate before each segmenter."""
    parts: list[RenderableType] = []
    for lane, models in dict.fromkeys(
        (key.split("/")[0], key.split("/")[2]) for key in numbers if f"/{CASCADE}/" in key
    ):
        prefix = f"{lane}/{CASCADE}/{models}"
        named = {key.split("/")[3] for key in numbers if key.startswith(f"{prefix}/")}
        frameworks = ordered({name for name in named if "-vs-" not in name})
        specs = {key.split("/")[1]: spec for key, spec in record.study.specs.items()}  # by model
        gate, segmenter = (model_title(name, specs.get(name)) for name in models.split("-"))
        title = f"Two stages: {gate}, then {segmenter}, {lane}"
        table = score_rows(numbers, prefix, frameworks, SHOWN[CASCADE], "gated_dice_score")
        parts += [Text(title, style="bold"), table, Text()]
    return parts


def score_rows(
    numbers: Numbers,
    prefix: str,
    frameworks: list[str],
    shown: Mapping[tuple[str, str], str],
    primary_metric: str,
) -> Table:
    """A row a number, a column a framework; below the primary metric its differences, then what it cost."""
    named = {key.split("/")[3] for key in numbers if key.startswith(f"{prefix}/")}
    pairs = {name.split("-vs-")[0]: name for name in named if "-vs-" in name}
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 0, 0, 1))
    table.add_column("")
    for framework in frameworks:
        table.add_column(framework.replace("-", "-\n") if len(frameworks) > 2 else framework, justify="right")
    for (level, metric), words in shown.items():
        digits = 1 if metric.endswith("_px") else 3
        cells = [spread(numbers.get(f"{prefix}/{name}/{level}{metric}"), digits) for name in frameworks]
        if not any(cells):
            continue
        table.add_row(words, *cells)
        if metric == primary_metric and pairs:
            gaps = [numbers.get(f"{prefix}/{pairs.get(name, '')}/{level}{metric}") for name in frameworks]
            reference = listed(sorted({name.split("-vs-")[1] for name in pairs.values()}))
            table.add_row(f"  minus {reference}", *[difference(gap) for gap in gaps])
            table.add_row(f"  {percent(config.CONFIDENCE)} interval", *[interval(gap) for gap in gaps])
    table.add_section()
    for quantity, words in COSTS.items():
        cells = [cost(numbers.get(f"{prefix}/{name}/{quantity}")) for name in frameworks]
        if any(cells):
            table.add_row(words, *cells)
    return table


def spread(entry: dict[str, Any] | None, digits: int) -> str:
    """Mean ± sd, empty where undefined."""
    if not entry or entry["mean"] is None:
        return ""
    return plain(entry["mean"], digits) + (
        f" ± {plain(entry['sd'], digits)}" if entry["sd"] is not None else ""
    )


def cost(entry: dict[str, Any] | None) -> str:
    return spread(entry, 0 if entry and entry["mean"] is not None and entry["mean"] >= 100 else 1)


def difference(entry: dict[str, Any] | None) -> str:
    return "" if not entry or entry["difference"] is None else signed(entry["difference"])


def interval(entry: dict[str, Any] | None) -> str:
    if not entry or entry["ci_low"] is None or entry["ci_high"] is None:
        return ""
    return f"{signed(entry['ci_low'])}…{signed(entry['ci_high'])}"
