"""What the trainings of the leak meter come to: `leak.csv`, a row a training, and the effects in `leak.json`.

- inflation = `slice` - `patient`: what a split by slice would have claimed beyond what holds on patients not seen.
- memory = `shuffled` - chance: what recognising the patient earns by itself.
- control = `shuffled-patient` - chance: nothing is left to learn, so it has to be 0 within its interval.

Every seed draws its split anew, and the training parts of two splits share most of their patients, so that their
scores are no independent draws. The intervals therefore are those of the corrected resampled t test (Nadeau & Bengio
2003), over splits and seeds together; there is none for fewer than `config.MIN_INTERVAL_SEEDS` seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from common import config, statistics
from common.config import NOTICE, TASKS, Study, Task
from common.data.leaky_splits import ARMS, why_not_shuffled
from common.leak_runs import FORMAT, HEADLINE, LANE, LeakTraining, read_training, trainings_of
from common.metrics import classification, segmentation

WARNING = (
    "Splits by slice and shuffled labels are planted faults, there to measure a leak. No score here is a result of a "
    "model or a framework."
)
COLUMNS = (
    "task", "model", "framework", "arm", "leaky", "labels_shuffled", "seed", "metric", "score", "ci_low", "ci_high",
    "train_slices", "test_slices", "test_patients", "test_patients_in_training", "epoch", "seconds", "split_sha256",
)  # fmt: skip


@dataclass(frozen=True)
class Effect:
    """A difference of two arms, or of an arm from chance."""

    name: str
    title: str
    arm: str
    minus: str  # another arm, or "chance"


EFFECTS = (
    Effect("inflation", "Inflation by the split", "slice", "patient"),
    Effect("memory", "Memory of patients", "shuffled", "chance"),
    Effect("control", "Control: nothing to learn", "shuffled-patient", "chance"),
)

Trained = Mapping[LeakTraining, Mapping[str, Any]]  # training -> its training.json


def read_trained(directory: Path, trainings: Sequence[LeakTraining]) -> dict[LeakTraining, dict[str, Any]]:
    """The trainings that are finished below a prepared study's folder, in their order."""
    found = {one: read_training(directory, one) for one in trainings}
    return {one: document for one, document in found.items() if document is not None}


def training_table(trained: Trained) -> pd.DataFrame:
    """`leak.csv`."""
    rows = []
    for one, document in trained.items():
        arm, counts = ARMS[one.arm], document["data"]["counts"]
        rows.append({
            "task": one.task, "model": one.model, "framework": one.framework, "arm": one.arm, "leaky": arm.leaky,
            "labels_shuffled": arm.shuffled, "seed": one.seed,
            **{name: document[name] for name in ("metric", "score", "ci_low", "ci_high")},
            "train_slices": counts["train"]["samples"], "test_slices": counts["test"]["samples"],
            "test_patients": counts["test"]["patients"],
            **{name: document[name] for name in ("test_patients_in_training", "epoch", "seconds")},
            "split_sha256": document["data"]["split_sha256"],
        })  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def describe_leak(
    study: Study, samples: pd.DataFrame, trained: Trained, failed: Mapping[LeakTraining, str]
) -> dict[str, Any]:
    """`leak.json`: arms and effects of every (task, model, framework), from what is trained so far."""
    asked = trainings_of(study, samples)
    groups = dict.fromkeys((one.task, one.model, one.framework) for one in asked)
    return {
        "format": FORMAT,
        "notice": NOTICE,
        "headline": HEADLINE,
        "warning": WARNING,
        "data": ", ".join(Path(folder).name for folder in study.data) or "the drawn phantom (not patients)",
        "profile": study.profile,
        "seeds": study.seeds,
        "environment": _environments(trained),
        "complete": len(trained),
        "asked": len(asked),
        "failed": [{"training": str(one.path), "reason": reason} for one, reason in failed.items()],
        "measures": [
            _measure(study, samples, *group, trained)
            for group in groups
            if any((one.task, one.model, one.framework) == group for one in trained)
        ],
    }


def show_measure(measure: Mapping[str, Any]) -> Table:
    """One (task, model, framework) on the console."""
    unit = describe_unit(measure["task"])
    title = (
        f"{measure['model']} on {measure['task']}, {measure['framework']}: {measure['metric_title']} {unit}"
    )
    table = Table("", "mean", "lowest", "highest", title=title, title_justify="left")
    for arm in measure["arms"]:
        leaky = " (leaky)" if arm["leaky"] else ""
        table.add_row(
            f"{arm['title']}{leaky}", *(_cell(arm[name]) for name in ("mean", "minimum", "maximum"))
        )
    table.add_section()
    for effect in measure["effects"]:
        low, high = effect["ci_low"], effect["ci_high"]
        interval = "no interval" if low is None else f"{low:+.3f} to {high:+.3f}"
        table.add_row(
            effect["title"],
            f"{effect['difference']:+.3f}",
            interval,
            f"{effect['seeds']} seed{'s' * (effect['seeds'] > 1)}",
        )
    return table


def describe_unit(task: str) -> str:
    """What a score is a mean over or made of."""
    return "per test slice with a lesion" if TASKS[task].kind == "segmentation" else "per test slice"


# --- one (task, model, framework) ---------------------------------------------------------------------------------


def _measure(
    study: Study, samples: pd.DataFrame, task: str, model: str, framework: str, trained: Trained
) -> dict[str, Any]:
    settings = TASKS[task]
    own = {
        one: doc
        for one, doc in trained.items()
        if (one.task, one.model, one.framework) == (task, model, framework)
    }
    scores = {
        name: {one.seed: _number(doc["score"]) for one, doc in own.items() if one.arm == name}
        for name in ARMS
    }
    chance = config.CHANCE.get(settings.primary_metric)
    counts = [doc["data"]["counts"] for doc in own.values()]
    share = float(np.mean([_test_share(one) for one in counts]))
    left_out = why_not_shuffled(samples, settings)
    return {
        "task": task,
        "model": model,
        "framework": framework,
        "lane": LANE,
        "metric": settings.primary_metric,
        "metric_title": _metric_title(settings),
        "epochs": study.recipes[f"{task}/{model}"].epochs,
        "chance": chance,
        "test_share": share,  # test slices by those of training and test: the correction's
        "equal_training": _equal_training(own),
        "labels": "" if left_out else _kind_of_labels(samples),
        "left_out": f"no arm with shuffled labels: {left_out}" if left_out else "",
        "arms": [_arm(name, scores[name]) for name in ARMS if scores[name]],
        "effects": [
            found for effect in EFFECTS if (found := _effect(effect, scores, chance, share)) is not None
        ],
    }  # fmt: skip


def _test_share(counts: Mapping[str, Mapping[str, int]]) -> float:
    train, test = (counts[part]["samples"] for part in ("train", "test"))
    return test / (train + test)


def _arm(name: str, scores: Mapping[int, float]) -> dict[str, Any]:
    over = statistics.spread(list(scores.values()))
    return {
        "arm": name,
        "title": ARMS[name].title,
        "leaky": ARMS[name].leaky,
        "labels_shuffled": ARMS[name].shuffled,
        "seeds": list(scores),
        "scores": [_finite(value) for value in scores.values()],
        **{key: _finite(getattr(over, key)) for key in ("mean", "sd", "minimum", "maximum")},
    }


def _effect(
    effect: Effect, scores: Mapping[str, Mapping[int, float]], chance: float | None, test_share: float
) -> dict[str, Any] | None:
    """The effect over the seeds that have both sides; None where there is no such seed, or no chance level."""
    above = scores[effect.arm]
    if effect.minus == "chance":
        below = dict.fromkeys(above, math.nan if chance is None else chance)
    else:
        below = dict(scores[effect.minus])
    differences = np.array([above[seed] - below[seed] for seed in sorted(above.keys() & below.keys())])
    differences = differences[np.isfinite(differences)]
    if not len(differences):
        return None
    found = statistics.corrected_resampled_ttest(differences, test_share)
    return {
        "effect": effect.name,
        "title": effect.title,
        "arm": effect.arm,
        "minus": effect.minus,
        "difference": _finite(found.estimate),
        **{key: _finite(getattr(found, key)) for key in ("ci_low", "ci_high", "p_value")},
        "seeds": len(differences),
    }


def _equal_training(own: Trained) -> bool:
    """Whether all arms of a seed have as many training slices, and start from the same weights."""
    found: dict[int, set[tuple[int, str]]] = {}
    for one, document in own.items():
        size = int(document["data"]["counts"]["train"]["samples"])
        found.setdefault(one.seed, set()).add((size, str(document["weights"]["initial_sha256"])))
    return all(len(kinds) == 1 for kinds in found.values())


def _kind_of_labels(samples: pd.DataFrame) -> str:
    """What is shuffled: "patient" where each patient has one label, "most severe" where that was made of several."""
    labels = samples[["patient", "label"]].drop_duplicates()
    return "patient" if labels["patient"].is_unique else "most severe"


def _environments(trained: Trained) -> dict[str, Any]:
    """framework -> what its processes recorded; several versions of one are joined."""
    found: dict[str, dict[str, list[str]]] = {}
    for one, document in trained.items():
        for name, value in document["environment"].items():
            values = found.setdefault(one.framework, {}).setdefault(name, [])
            if str(value) not in values:
                values.append(str(value))
    return {
        framework: {name: ", ".join(values) for name, values in facts.items()}
        for framework, facts in found.items()
    }


def _metric_title(task: Task) -> str:
    titles = segmentation.TITLE if task.kind == "segmentation" else classification.TITLE
    return titles[task.primary_metric]


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
