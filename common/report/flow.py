"""How many images became what: found, left out, used, and the parts of each task; the counts of STARD's flow diagram.

The diagram (Bossuyt et al., STARD 2015, item 19; CLAIM 2024, item 35; TRIPOD+AI, item 20a) is drawn twice, for a
desk and for a phone; the page shows the one that fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from common.config import SPLITS, TASKS, Task
from common.data.samples import class_indices
from common.report.evidence import UNREADABLE
from common.report.flow_drawing import PAGE, PAPER, Node, draw_narrow, draw_wide
from common.report.reading import Evidence, members
from common.report.tables import entries
from common.report.terms import TASK_TITLE
from common.report.wording import listed, plural
from common.results import write_text

PART_TITLE = {
    "train": "Training",
    "val": "Validation",
    "test": "Test",
    "external": "External test",
}
PATIENTS_FROM = {  # of config.PATIENT_SOURCES
    "table": "a table of patients",
    "name": "file names",
    "dicom": "DICOM headers",
    "similarity": "similarity alone",
    "phantom": "the drawing of the phantom",
}
MASK_CLASSES = ("without lesion", "with lesion")
REASONS_SHOWN = 3
CAPTION = (
    "From every image found to the parts of each task: slices, and in brackets the patients that they are of. "
    "A patient can have slices of several classes."
)
BARS = "A bar marks what the scores are computed on."


def flow_section(evidence: Evidence) -> dict[str, Any] | None:
    """The diagram for the page (`wide`, `narrow`: inline SVG), its words (`alt`, `steps`) and its captions; None where
    the study's tables cannot be read. Writes `figures/flow.svg` beside the study, on white.
    """
    try:
        samples, rows = evidence.record.samples(), members(evidence)
        root = tree(evidence, samples, rows)
    except UNREADABLE:
        return None
    alt = describe(root)
    figure = draw_wide(root, alt, PAPER)
    write_text(evidence.record.directory / "figures" / "flow.svg", figure)
    return {
        "title": "From images found to images judged",
        "caption": CAPTION,
        "bars": BARS,
        "alt": alt,
        "wide": draw_wide(root, alt, PAGE),
        "narrow": draw_narrow(root, alt, PAGE),
        "steps": steps(root),
    }


def tree(evidence: Evidence, samples: pd.DataFrame, rows: pd.DataFrame) -> Node:
    """Found -> used -> tasks -> parts. `rows` is the sample table joined with the split, see `reading.members`."""
    audit = evidence.audit
    found = audit.get("found")
    tasks = tuple(
        task_node(TASKS[task], samples, rows[rows["task"] == task])
        for task in TASKS
        if (rows["task"] == task).any()
    )
    used = Node(
        f"{plural(len(samples), 'image')} used",
        (*of_patients(samples), counts_of(samples["label"])),
        asides=tuple(kept_nodes(audit)),
        branches=(*tasks, *skipped_nodes(audit)),
    )
    if not isinstance(found, int):
        return used  # an inventory of an earlier version does not say
    names = audit.get("sources")
    sources = [str(name) for name in names] if isinstance(names, list) else []
    lines = (f"Data: {listed(sources)}",) if sources else ()
    return Node(
        f"{plural(found, 'image')} found",
        lines,
        asides=(left_out_node(audit, found - len(samples)),),
        branches=(used,),
    )


# --- what is told of each step ------------------------------------------------------------------------------------


def of_patients(samples: pd.DataFrame) -> tuple[str, ...]:
    """How many patients, and how that is known."""
    known = [words for name, words in PATIENTS_FROM.items() if (samples["patient_from"] == name).any()]
    guessed = bool((samples["patient_from"] == "similarity").any())
    noun = "group" if guessed else "patient"
    lines = [f"{plural(samples['patient'].nunique(), noun)}, known from {listed(known)}"]
    if guessed:
        lines.append("No patient is known for sure: images that look alike were taken for one patient's")
    return tuple(lines)


def counts_of(labels: pd.Series) -> str:
    """bleeding 132, normal 659."""
    counted = labels.value_counts().sort_index()
    return ", ".join(f"{name} {count:,}" for name, count in counted.items())


def left_out_node(audit: Mapping[str, Any], missing: int) -> Node:
    """The images that were found and not used, with the first reasons."""
    unreadable = entries(audit, "unreadable")
    lines = [
        f"{row.get('id') or row.get('path', 'one image')}: {row.get('reason', 'no reason was recorded')}"
        for row in unreadable[:REASONS_SHOWN]
    ]
    if len(unreadable) > REASONS_SHOWN:
        lines.append(f"and {len(unreadable) - REASONS_SHOWN:,} more, listed in tables/left_out.csv")
    if missing > len(unreadable):
        lines.append(f"{missing - len(unreadable):,} for which no reason was recorded")
    if missing <= 0:
        return Node("No image left out", ("every one could be read and has a label",), kind="aside")
    return Node(f"{plural(missing, 'image')} left out", tuple(lines), kind="aside")


def kept_nodes(audit: Mapping[str, Any]) -> list[Node]:
    """What a reader might expect to be left out, and is not."""
    lines = []
    twins = audit.get("identical_files")
    if isinstance(twins, int) and twins:
        lines.append(f"{plural(twins, 'file')} with an identical twin")
    masks = len(entries(audit, "unreadable_masks"))
    if masks:
        lines.append(f"{plural(masks, 'image')} whose mask could not be read")
    doubtful = len(entries(audit, "doubtful_masks"))
    if doubtful:
        lines.append(f"{plural(doubtful, 'image')} whose painted mask is in doubt")
    return [Node("Kept although", tuple(lines), kind="aside")] if lines else []


def skipped_nodes(audit: Mapping[str, Any]) -> list[Node]:
    """Tasks that the data could not serve."""
    return [
        Node(
            f"Not done: {TASK_TITLE.get(str(row.get('task')), str(row.get('task')))}",
            (str(row.get("reason", "")),),
            kind="aside",
        )
        for row in entries(audit, "skipped_tasks")
    ]


# --- a task -------------------------------------------------------------------------------------------------------


def task_node(task: Task, samples: pd.DataFrame, rows: pd.DataFrame) -> Node:
    """A task with the parts of its first fold; `rows` are those of all its folds."""
    folds = sorted(set(rows["fold"]))
    first = rows[rows["fold"] == folds[0]]
    lines = [
        f"{plural(len(first), 'slice')} of {plural(first['patient'].nunique(), 'patient')}",
        *not_used(task, samples, set(first["id"])),
    ]
    if len(folds) > 1:
        sizes = [int((rows.loc[rows["fold"] == fold, "split"] == "test").sum()) for fold in folds]
        lines.append(
            f"{len(folds)} folds test {min(sizes):,} to {max(sizes):,} slices each; fold {folds[0]} is shown"
        )
    return Node(TASK_TITLE[task.name], tuple(lines), kind="task", branches=tuple(part_nodes(task, first)))


def not_used(task: Task, samples: pd.DataFrame, used: set[str]) -> list[str]:
    """Which of the study's images a task does not use, and why."""
    others = samples[~samples["id"].isin(used)]
    label = ~others["label"].isin(task.labels)
    mask = ~label & (others["mask"] == "") if task.kind == "segmentation" else label & False
    external = ~label & ~mask & (others["split"] == "external")
    reasons = {
        f"labelled {listed(sorted(set(others.loc[label, 'label'])))}": int(label.sum()),
        "without a known mask": int(mask.sum()),
        "external, of one class alone": int(external.sum()),
        "for another reason": int((~label & ~mask & ~external).sum()),
    }
    return [f"Not used here: {count:,} {reason}" for reason, count in reasons.items() if count]


def part_nodes(task: Task, rows: pd.DataFrame) -> list[Node]:
    """Training, validation, test and, where there is one, the external test set."""
    classes = MASK_CLASSES if task.kind == "segmentation" else task.classes
    index = pd.Series(class_indices(rows, task), index=rows.index)
    nodes = []
    for name in (*SPLITS, "external"):
        part = rows[rows["split"] == name]
        if part.empty and name == "external":
            continue
        shown = [
            f"{title} {(of := part[index[part.index] == i])['id'].nunique():,} ({of['patient'].nunique():,})"
            for i, title in enumerate(classes)
        ]
        nodes.append(
            Node(
                PART_TITLE[name],
                (f"{plural(len(part), 'slice')} ({part['patient'].nunique():,})", *shown),
                kind="test" if name in ("test", "external") else "part",
            )
        )
    return nodes


# --- in words -----------------------------------------------------------------------------------------------------


def steps(node: Node, depth: int = 0) -> list[dict[str, Any]]:
    """The tree as a list for Markdown: depth and text of each box, in reading order."""
    rows = [{"depth": depth, "text": "; ".join((node.title, *node.lines))}]
    rows += [row for one in node.asides for row in steps(one, depth + 1)]
    return rows + [row for one in node.branches for row in steps(one, depth + (one.kind != "step"))]


def describe(node: Node) -> str:
    """The whole diagram as sentences, for those who listen to the page."""
    return "Flow of the data. " + " ".join(f"{row['text']}." for row in steps(node))
