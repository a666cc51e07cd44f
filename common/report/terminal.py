"""The last thing a study prints: the primary numbers, beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from common import config
from common.metrics.classification import DIRECTION, TITLE
from common.report.evidence import ordered
from common.report.wording import percent, plain, signed
from common.results import StudyRecord, read_json, read_study

SHOWN = (
    "auroc_score",
    "average_precision_score",
    "recall_score",
    "specificity_score",
    "f1_score",
    "brier_score",
)
COSTS = {
    "steady_images_per_second": "Training, images/s",
    "total_seconds": "Whole run, s",
    "peak_rss_mib": "Peak memory, MiB",
}


def terminal_summary(study_directory: Path) -> RenderableType:
    """A table for each (lane, task, model), read from the study's `summary.json`; print it with rich.

    Raises StudyError if the report was not written yet.
    """
    record = read_study(study_directory)
    numbers = read_json(study_directory / "summary.json")
    parts: list[RenderableType] = []
    for lane, task, model in sorted({(r.run.lane, r.run.task, r.run.model) for r in record.complete}):
        parts += comparison_tables(record, numbers, lane, task, model)
    if not parts:
        parts.append(Text("No run is complete, so there is nothing to compare."))
    failed = [one for one in record.runs if not one.complete]
    for one in failed:
        run = one.run
        parts.append(
            Text(
                f"failed: {run.framework}, seed {run.seed}, fold {run.fold}: {one.document.get('reason')}",
                style="red",
            )
        )
    parts.append(Text(config.NOTICE, style="dim"))
    return Group(*parts)


def comparison_tables(
    record: StudyRecord, numbers: dict[str, Any], lane: str, task: str, model: str
) -> list[RenderableType]:
    prefix = f"{lane}/{task}/{model}"
    found = {
        r.run.framework
        for r in record.complete
        if (r.run.lane, r.run.task, r.run.model) == (lane, task, model)
    }
    frameworks = ordered(found)
    named = {key.split("/")[3] for key in numbers if key.startswith(f"{prefix}/")}
    compared = {name.split("-vs-")[0]: name for name in named if "-vs-" in name}
    pairs = [compared[name] for name in ordered(set(compared))]
    table = Table(title=f"{task}, {model}, {lane}", title_justify="left", caption_justify="left")
    table.add_column("")
    for framework in frameworks:
        table.add_column(framework, justify="right")
    for pair in pairs:
        table.add_column(pair.replace("-vs-", " − "), justify="right")
    sizes = [numbers.get(f"{prefix}/{name}/{SHOWN[0]}") or {} for name in frameworks]
    seeds = sorted({size["seeds"] for size in sizes if size})
    for level, grain in (("per slice", ""), ("per patient", "patient/")):
        for metric in SHOWN if not grain else SHOWN[:1]:
            arrow = "↑" if DIRECTION[metric] == "up" else "↓"
            cells = [spread(numbers.get(f"{prefix}/{name}/{grain}{metric}")) for name in frameworks]
            gaps = [gap(numbers.get(f"{prefix}/{pair}/{grain}{metric}")) for pair in pairs]
            if any(cells):
                table.add_row(f"{TITLE[metric]} {arrow} {level}", *cells, *gaps)
    table.add_section()
    for quantity, title in COSTS.items():
        cells = [spread(numbers.get(f"{prefix}/{name}/{quantity}"), digits=1) for name in frameworks]
        if any(cells):
            table.add_row(title, *cells, *[""] * len(pairs))
    if seeds:
        patients = max(size["patients"] for size in sizes if size)
        over = "one seed" if seeds == [1] else f"mean ± SD over {' or '.join(map(str, seeds))} seeds"
        table.caption = (
            f"{over}; brackets: {percent(config.CONFIDENCE)} interval over {patients} test patients. "
            "A difference that is not visible is no proof of equality."
        )
    return [table]


def spread(entry: dict[str, Any] | None, digits: int = 3) -> str:
    if not entry or entry["mean"] is None:
        return ""
    return plain(entry["mean"], digits) + (
        f" ± {plain(entry['sd'], digits)}" if entry["sd"] is not None else ""
    )


def gap(entry: dict[str, Any] | None) -> str:
    if not entry or entry["difference"] is None:
        return ""
    low, high = entry["ci_low"], entry["ci_high"]
    interval = "" if low is None or high is None else f" [{signed(low)}, {signed(high)}]"
    return signed(entry["difference"]) + interval
