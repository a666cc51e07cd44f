"""What the section on time says before its tables: who trained how much faster, on what terms, on how quiet a machine;
and the settings that decide speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common import config
from common.config import Study
from common.report.context import model_title
from common.report.cost_ratios import CostRatio, ratio_cell
from common.report.costs import part_of, was_interrupted
from common.report.reading import AnyComparison
from common.report.speed import Speed
from common.report.terms import FRAMEWORK_TITLE, TASK_TITLE
from common.report.wording import listed, lower_first, percent, plural
from common.results import RunRecord

TOLD = "steady_images_per_second"
SETTINGS = {  # of run.json, as `flatten` would name them -> words
    "threads": "Threads of a run",
    "device": "Device",
    "precision": "Precision",
    "environment.cpu": "Processor",
    "environment.cores": "Cores that a run may use",
    "environment.gpu": "GPU",
    "environment.compilation": "How a step is carried out",
    "environment.memory_layout": "Images in memory",
    "environment.matmul_precision": "Precision of matrix products",
    "environment.tf32": "TensorFloat-32",
    "environment.cudnn_benchmark": "cuDNN tries its algorithms",
    "variables.OMP_WAIT_POLICY": "OpenMP's threads while they wait",
    "variables.OMP_NUM_THREADS": "OpenMP's threads",
    "variables.TF_NUM_INTRAOP_THREADS": "TensorFlow's threads within an operation",
    "variables.TF_NUM_INTEROP_THREADS": "TensorFlow's operations at a time",
    "variables.MALLOC_MMAP_MAX_": "Large tensors straight from the system (0: never)",
    "variables.MALLOC_TRIM_THRESHOLD_": "Memory given back to the system (−1: never)",
    "variables.MALLOC_TOP_PAD_": "Memory asked for beforehand, bytes",
    "variables.NVIDIA_TF32_OVERRIDE": "TensorFloat-32 in the driver (0: off)",
    "variables.XLA_FLAGS": "Options of XLA",
    "variables.PJRT_NPROC": "JAX's threads on a CPU",
    "variables.TF_DETERMINISTIC_OPS": "TensorFlow's operations repeat to the bit",
    "variables.CUBLAS_WORKSPACE_CONFIG": "Workspace of cuBLAS (:4096:8: products repeat to the bit)",
}
NO_SPEED = config.IDENTITY_VARIABLES | {  # variables that change no speed
    "CUDA_DEVICE_ORDER",
    "JAX_ENABLE_X64",
    "JAX_PLATFORMS",
    "KERAS_TORCH_DEVICE",
    "PYTHONHASHSEED",
    "TF_CPP_MIN_LOG_LEVEL",
    "TF_FORCE_GPU_ALLOW_GROWTH",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
}
ABSENT, NOTHING = "–", {"none", "not used"}


@dataclass(frozen=True)
class Piece:
    """A part of a sentence; a number of summary.json has its key (KEY#field)."""

    text: str
    key: str = ""


def lead(speed: Speed, study: Study) -> list[list[Piece]]:
    """A sentence a lane and pair of frameworks: how many times as many images a second, with each model."""
    groups: dict[tuple[str, str, str], list[tuple[AnyComparison, CostRatio]]] = {}
    for comparison, ratios in speed.ratios:
        for one in ratios:
            if one.quantity == TOLD:
                groups.setdefault((comparison.lane, one.framework, one.reference), []).append(
                    (comparison, one)
                )
    several = len({lane for lane, _, _ in groups}) > 1
    sentences = []
    for (lane, framework, reference), found in groups.items():
        who, beside = (FRAMEWORK_TITLE.get(name, name) for name in (framework, reference))
        pieces = [Piece(f"{f'In the {lane} lane ' if several else ''}{who} trained ")]
        for place, (comparison, one) in enumerate(found):
            cell = ratio_cell(one, f"{comparison.key}/{one.pair}/{one.quantity}")
            pieces += [Piece(cell["ratio"], f"{cell['key']}#ratio")]
            pieces.append(Piece(f" times as many images a second as {beside}" if place == 0 else " times"))
            pieces.append(Piece(f" with {model_words(comparison, [one for one, _ in found], study)}"))
            if cell["low"]:
                over = f"{percent(config.CONFIDENCE)} interval over seeds " if place == 0 else ""
                pieces += [
                    Piece(f" ({over}"),
                    Piece(cell["low"], f"{cell['key']}#low"),
                    Piece(" to "),
                    Piece(cell["high"], f"{cell['key']}#high"),
                    Piece(")"),
                ]
            pieces.append(Piece({len(found) - 1: ".", len(found) - 2: " and "}.get(place, ", ")))
        sentences.append(pieces)
    return sentences


def model_words(comparison: AnyComparison, beside: Sequence[AnyComparison], study: Study) -> str:
    """The model, and the task where several tasks train it."""
    title = model_title(comparison.model, study.specs.get(f"{comparison.task}/{comparison.model}"))
    title = f"the {lower_first(title)}" if comparison.model == "cnn" else title
    tasks = {one.task for one in beside if one.model == comparison.model}
    return f"{title} ({lower_first(TASK_TITLE[comparison.task])})" if len(tasks) > 1 else title


# --- on what terms ------------------------------------------------------------------------------------------------


def setting_rows(comparisons: Sequence[AnyComparison], frameworks: Sequence[str]) -> list[dict[str, Any]]:
    """What decides speed, as the runs recorded it: `setting`, `words`, `same`, and a value a framework; several values
    of one framework are joined. Settings that no run recorded are left out.
    """
    found: dict[str, dict[str, set[str]]] = {}
    for record in (record for one in comparisons for record in one.records):
        document = record.document
        variables = part_of(document, "variables")
        names = [*SETTINGS, *(f"variables.{name}" for name in variables if name not in NO_SPEED)]
        for name in dict.fromkeys(names):
            group, _, key = name.rpartition(".")
            value = (part_of(document, group) if group else document).get(key)
            if value is not None:
                found.setdefault(name, {}).setdefault(record.run.framework, set()).add(str(value))
    rows = []
    for name in [*(name for name in SETTINGS if name in found), *sorted(found.keys() - SETTINGS.keys())]:
        values = {one: ", ".join(sorted(found[name].get(one, {ABSENT}))) for one in frameworks}
        if set(values.values()) <= NOTHING:
            continue
        setting = name.rpartition(".")[2]
        rows.append(
            {"setting": setting, "words": SETTINGS.get(name, ""), "same": len(set(values.values())) == 1}
            | {"values": values}
        )
    return rows


def terms(rows: Sequence[dict[str, Any]], workers: int) -> list[str]:
    """What the frameworks had in common, in what they differ, and how quiet the machine was."""
    equal = [one for one in rows if one["same"]]
    by_name = {one["setting"]: next(iter(one["values"].values())) for one in equal}
    shared = []
    if "threads" in by_name:
        threads = by_name["threads"]
        shared.append(plural(int(threads), "thread") if threads.isdigit() else f"{threads} threads")
    shared += [by_name[name] for name in ("precision", "cpu") if name in by_name]
    if "memory_layout" in by_name:
        shared.append(f"images {by_name['memory_layout'].replace('_', ' ')} in memory")
    if any(name.startswith("MALLOC_") for name in by_name):
        shared.append("the settings of the memory allocator")
    if "OMP_WAIT_POLICY" in by_name:
        shared.append("of waiting threads" if shared[-1:] == ["the settings of the memory allocator"]
                      else "the setting of waiting threads")  # fmt: skip
    sentences = [f"Equal for all: {listed(shared)}."] if shared else []
    differing = [
        f"{lower_first(one['words'])} ("
        + "; ".join(f"{framework}: {value}" for framework, value in one["values"].items())
        + ")"
        for one in rows
        if not one["same"] and one["words"] and ABSENT not in one["values"].values()
    ]
    if differing:
        sentences.append(f"Different: {listed(differing)}.")
    sentences.append(load_words(workers))
    return sentences


def load_words(workers: int) -> str:
    if workers > 1:
        return (
            f"Up to {workers} runs were under way at a time and slowed each other: read the ratios, whose sides met "
            "much the same crowd, rather than the times."
        )
    return "The runs were done one at a time; what else the machine did then is not known."


def interruption_words(records: Sequence[RunRecord]) -> list[str]:
    """How many runs the section does not count; nothing where there is none."""
    count = sum(map(was_interrupted, records))
    if not count:
        return []
    verb = "was" if count == 1 else "were"
    return [
        f"{plural(count, 'run')} {verb} interrupted and picked up again, and left out of all times and memory."
    ]


def speed_context(speed: Speed, study: Study, frameworks: Sequence[str]) -> dict[str, Any]:
    """`lead`, `terms` and `settings` of the section."""
    rows = setting_rows([one for one, _ in speed.sizes], frameworks)
    records = [record for one, _ in speed.sizes for record in one.records]
    # Earlier records do not tell, and a study may have gone on with another number
    workers = [int(record.document.get("workers") or study.workers) for record in records]
    return {
        "lead": lead(speed, study),
        "terms": [*terms(rows, max(workers, default=study.workers)), *interruption_words(records)],
        "settings": rows,
        "frameworks": list(frameworks),
    }
