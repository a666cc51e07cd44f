"""What must be equal for a comparison to be fair, checked in the records of the runs; nothing is taken on trust."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from common.config import IDENTITY_VARIABLES, TASKS
from common.report import lanes
from common.report.evidence import UNREADABLE
from common.report.reading import AnyComparison, Evidence, members
from common.report.wording import plural
from common.results import RunRecord

Verdict = Literal["pass", "fail", "unknown"]
SIDED = {"patient": "patient", "sha256": "picture"}  # column of the sample table -> what it is


@dataclass(frozen=True)
class Check:
    """One promise and whether the files keep it."""

    name: str
    verdict: Verdict
    detail: str


def study_checks(evidence: Evidence) -> list[Check]:
    """The split: no patient and no picture on two sides, whichever task they are used for."""
    try:
        rows = members(evidence)
    except UNREADABLE as error:
        said = str(error).replace(
            f"{evidence.record.directory}{os.sep}", ""
        )  # a report to share does not tell
        reason = f"the data files cannot be read ({said})"
        return [Check(one_side(noun), "unknown", reason) for noun in SIDED.values()]
    return [check_sides(rows, column, noun) for column, noun in SIDED.items()]


def check_sides(rows: pd.DataFrame, column: str, noun: str) -> Check:
    """Whether each value of a column stands in one part of each split only, all tasks together: a second stage must not
    be tested on patients that the first was trained on. Empty values are not known.
    """
    known = rows[rows[column] != ""]
    sides = known.groupby(["fold", column])["split"].nunique()
    shared = sides[sides > 1]
    if len(shared):
        names = shared.index.get_level_values(column)
        given = ", by the split that the data set gives" if given_so(known, column, set(names)) else ""
        return Check(
            one_side(noun), "fail", f"{plural(names.nunique(), noun)}{given}, e.g. {short(str(names[0]))}"
        )
    parts = [plural(known[column].nunique(), noun), plural(known["fold"].nunique(), "split")]
    tasks = len(known["task"].unique())
    parts += [plural(tasks, "task")] if tasks > 1 else []
    return Check(one_side(noun), "pass", ", ".join(parts))


def given_so(rows: pd.DataFrame, column: str, values: set[object]) -> bool:
    """Whether the data set's own split already puts one of the values on two sides."""
    if "given_split" not in rows:
        return False
    given = rows[rows[column].isin(values) & (rows["given_split"] != "")]
    return bool(given.groupby(column)["given_split"].nunique().gt(1).any())


def one_side(noun: str) -> str:
    return f"No {noun} on two sides of a split"


def comparison_checks(comparison: AnyComparison) -> list[Check]:
    """Equality across the frameworks, run by run: same seed and fold, different framework."""
    between = [across_frameworks(comparison, name, read) for name, read in promises(comparison.lane).items()]
    within = [across_runs(comparison, name, read) for name, read in CONSTANTS.items()]
    own = [own_defaults(comparison)] if lanes.own_of(comparison.lane) else []
    return [*between, *within, *own]


def promises(lane: str) -> dict[str, Callable[[RunRecord], object]]:
    """What must be equal across the frameworks of a lane. What a lane leaves to them differs by design: whole promises
    are not made there, and of spec and recipe only the rest is promised.
    """
    left = {one.name for one in lanes.own_of(lane)}
    kept = {name: read for name, read in PROMISES.items() if BY_DESIGN.get(name) not in left}
    for name, part in (("Same model specification", "spec"), ("Same recipe", "recipe")):
        if left:
            kept[f"{name}, but for the defaults left alone"] = rest_of(part)
            del kept[name]
    return kept


def rest_of(part: str) -> Callable[[RunRecord], object]:
    return lambda record: lanes.without_own(record, part)


def own_defaults(comparison: AnyComparison) -> Check:
    """Whether what differs by design is what was declared: in each run the framework's own default, nothing else."""
    name = "Each framework with its own defaults, as declared"
    for record in comparison.records:
        try:
            other = lanes.declared(record)
        except (*UNREADABLE, TypeError):
            return Check(name, "unknown", f"{record.run.path} does not say")
        if other:
            found = ", ".join(f"{field} {value}" for field, value in other.items())
            return Check(name, "fail", f"{record.run.framework}, seed {record.run.seed}: {found}")
    return Check(name, "pass", plural(len(comparison.records), "run"))


def across_runs(comparison: AnyComparison, name: str, read: Callable[[RunRecord], object]) -> Check:
    """Equality over all runs of a framework: a study that was extended later must not mix two programs."""
    found: dict[str, set[str]] = {}
    for record in comparison.records:
        try:
            found.setdefault(record.run.framework, set()).add(json.dumps(read(record), sort_keys=True))
        except (*UNREADABLE, TypeError):
            return Check(name, "unknown", f"{record.run.path} does not say")
    mixed = {framework: values for framework, values in found.items() if len(values) > 1}
    if mixed:
        framework, values = next(iter(mixed.items()))
        return Check(name, "fail", f"{framework}: {', '.join(short(value) for value in sorted(values))}")
    return Check(name, "pass", plural(len(comparison.records), "run"))


def across_frameworks(comparison: AnyComparison, name: str, read: Callable[[RunRecord], object]) -> Check:
    groups: dict[tuple[int, int], dict[str, str]] = {}
    for record in comparison.records:
        if name in WHOLE_TRAININGS and record.document.get("stopped"):
            continue  # by a rule that all share; an alert names it
        try:
            value = read(record)
        except (*UNREADABLE, TypeError):
            value = None
        if value is not None:
            key = (record.run.seed, record.run.fold)
            groups.setdefault(key, {})[record.run.framework] = json.dumps(value, sort_keys=True)
    shared = {key: values for key, values in groups.items() if len(values) > 1}
    if not shared:
        return Check(name, "unknown", "no seed and fold has this record from two frameworks")
    broken = [key for key, values in shared.items() if len(set(values.values())) > 1]
    if broken:
        seed, fold = broken[0]
        shown = "; ".join(f"{framework} {short(value)}" for framework, value in shared[seed, fold].items())
        return Check(
            name,
            "fail",
            f"{len(broken)} of {len(shared)} pairs differ, e.g. seed {seed}, fold {fold}: {shown}",
        )
    values = {short(value) for those in shared.values() for value in those.values()}
    pairs = f"{len(shared)} of {plural(len(shared), 'pair')} of runs"
    return Check(name, "pass", f"{pairs}: {values.pop()}" if len(values) == 1 else pairs)


def short(value: str) -> str:
    """JSON text as it stands where it is short, else the start of a digest: of itself, or its own where it is one."""
    text = value.strip('"')
    if len(text) <= 24:
        return text
    digest = text if len(text) == 64 else hashlib.sha256(text.encode()).hexdigest()
    return f"{digest[:12]}…"


def check_table(checks: Sequence[tuple[str, Check]]) -> pd.DataFrame:
    return pd.DataFrame(
        [{"of": of, "check": c.name, "verdict": c.verdict, "detail": c.detail} for of, c in checks]
    )


def field(*path: str) -> Callable[[RunRecord], Any]:
    def read(record: RunRecord) -> Any:
        value: Any = record.document
        for name in path:
            value = value[name]
        return value

    return read


def predicted_samples(record: RunRecord) -> str:
    """Digest of what was predicted: ids, sides and truths, whatever their order."""
    masks = TASKS[record.run.task].kind == "segmentation"
    predictions = record.mask_predictions() if masks else record.predictions()
    truths = [row.tobytes().hex() for row in predictions.y_true] if masks else predictions.y_true
    rows = pd.DataFrame({"id": predictions.sample_id, "split": predictions.split, "y_true": truths})
    return hashlib.sha256(rows.sort_values("id").to_csv(index=False).encode()).hexdigest()


def schedule(record: RunRecord) -> str:
    """Digest of the optimizer steps and learning rates of all epochs."""
    history = record.history()
    text = history[["epoch", "step", "learning_rate"]].to_csv(index=False, float_format="%.9g")
    return hashlib.sha256(text.encode()).hexdigest()


def backbone_start(record: RunRecord) -> str:
    """Digest of the file that the backbone started from; "random" where there is none."""
    pretrained = record.document["pretrained"]
    return "random" if pretrained is None else str(pretrained["sha256"])


def process_settings(record: RunRecord) -> str:
    """The environment variables that must not differ: all but those that say which framework, on which GPU."""
    variables = record.document["variables"]
    return json.dumps({name: variables[name] for name in sorted(variables) if name not in IDENTITY_VARIABLES})


def versions(record: RunRecord) -> dict[str, str]:
    """What computed: framework, libraries, machine."""
    environment = record.document["environment"]
    return {name: environment[name] for name in sorted(environment)}


PROMISES: dict[str, Callable[[RunRecord], object]] = {
    "Same images, labels and patients": field("data", "samples_sha256"),
    "Same split": field("data", "split_sha256"),
    "Same decoded pixels": field("data", "cache_sha256"),
    "Same first training batches, byte for byte": field("batches", "sha256"),
    "Same order of images in every epoch": field("batches", "order_sha256"),
    "Same pretrained file, or none": backbone_start,
    "Same starting weights, byte for byte": field("weights", "initial_sha256"),
    "Same number of parameters": field("weights", "parameters"),
    "Same model specification": field("spec"),
    "Same recipe": field("recipe"),
    "Same phases of training": field("phases"),
    "Same steps and learning rates in every epoch": schedule,
    "Same samples predicted, same truth": predicted_samples,
    "Same rule for the kept epoch": field("choice", "rule"),
    "Same rule for the threshold": field("threshold", "rule"),
    "Same device": field("device"),
    "Same number of threads": field("threads"),
    "Same precision": field("precision"),
    "Same process settings": process_settings,
}

# Promises that a training which a rule has stopped early cannot keep
WHOLE_TRAININGS = frozenset(
    {
        "Same first training batches, byte for byte",
        "Same order of images in every epoch",
        "Same steps and learning rates in every epoch",
    }
)

# The default that makes a promise void in a lane that leaves it to the frameworks.
BY_DESIGN = {
    "Same first training batches, byte for byte": "order",
    "Same order of images in every epoch": "order",
    "Same starting weights, byte for byte": "initial_weights",
}

# What must be one thing over all runs of a framework.
CONSTANTS: dict[str, Callable[[RunRecord], object]] = {
    "One split, model and recipe in all runs": lambda record: [
        record.document["data"]["split_sha256"],
        record.document["spec"],
        record.document["recipe"],
    ],
    "One machine and set of versions in all runs": versions,
    "One state of the code in all runs": field("git_commit"),
}
