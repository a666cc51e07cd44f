"""The leak meter as the page shows it: under a title that says what it is, and in no table of results."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from common import config
from common.report import tables
from common.report.context import model_title
from common.report.leak import COMMAND, Leak, Measure, about, findings, measure_of, read_leak
from common.report.leak_figures import leak_figure
from common.report.tables import finite
from common.report.terms import MODEL_TITLE, TASK_TITLE
from common.report.wording import decimals, percent, plain, plural, signed, spread

TITLE = "What a split by slice would have claimed"


def leak_section(study_directory: Path, figures: Path) -> dict[str, Any] | None:
    """What the templates show of the leak meter beside a study; writes its figures and tables/leak-*.csv.

    None where there is none; where its files cannot be used, a section that says so and nothing else. Its numbers for
    summary.json are under "numbers".
    """
    leak, fault = read_leak(study_directory)
    if leak is None:
        return {"title": TITLE, "fault": fault, "groups": [], "numbers": {}} if fault else None
    tables.write_table(study_directory / "tables", "leak-arms", arm_table(leak.measures), latex=True)
    tables.write_table(study_directory / "tables", "leak-effects", effect_table(leak.measures), latex=True)
    tables.write_table(study_directory / "tables", "leak-trainings", leak.trainings)
    return {
        "title": TITLE,
        "fault": "",
        "warning": leak.warning,
        "about": about(leak),
        "groups": [group_view(one, leak, figures) for one in leak.measures],
        "missing": missing_words(leak),
        "failed": [{"training": name, "reason": reason} for name, reason in leak.failed],
        "versions": leak.versions,
        "confidence": percent(config.CONFIDENCE),
        "command": COMMAND,
        "numbers": numbers_of(leak.measures),
    }


def leak_numbers(document: Mapping[str, Any]) -> dict[str, Any]:
    """For summary.json, of leak.json: `leak/TASK/MODEL/FRAMEWORK/ARM/METRIC` and, of an effect, its name in the place
    of the arm; `headline` is false in each. Raises one of `attachments.ODD` for another document.
    """
    return numbers_of(measure_of(row) for row in document["measures"])


def numbers_of(measures: Iterable[Measure]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in measures:
        for arm in one.arms:
            found[f"{one.key}/{arm.arm.name}/{one.metric}"] = {
                **{name: finite(getattr(arm, name)) for name in ("mean", "sd", "minimum", "maximum")},
                "seeds": len(arm.seeds),
                "leaky": arm.arm.leaky,
                "labels_shuffled": arm.arm.shuffled,
                "headline": False,
            }
        for effect in one.effects:
            found[f"{one.key}/{effect.effect.name}/{one.metric}"] = {
                **{
                    name: finite(getattr(effect, name))
                    for name in ("difference", "ci_low", "ci_high", "p_value")
                },
                "seeds": effect.seeds,
                "headline": False,
            }
    return found


# --- a (task, model, framework) -----------------------------------------------------------------------------------


def group_view(one: Measure, leak: Leak, figures: Path) -> dict[str, Any]:
    try:
        model = model_title(one.model, config.spec_of(one.task, one.model, leak.profile))
    except KeyError:
        model = MODEL_TITLE[one.model]
    digits = one.digits
    return {
        "slug": f"leak-{one.task}-{one.model}-{one.framework}",
        "task": one.task,
        "model": one.model,
        "title": f"{TASK_TITLE[one.task]}: {model}, {one.framework}",
        "metric": one.title,
        "sentences": findings(one),
        "note": one.left_out[:1].upper() + one.left_out[1:],
        "epochs": one.epochs,
        "arms": [
            {
                "name": arm.arm.name,
                "title": arm.arm.title,
                "leaky": arm.arm.leaky,
                "key": f"{one.key}/{arm.arm.name}/{one.metric}",
                "mean": plain(arm.mean, digits),
                "sd": spread(arm.sd, digits),
                "minimum": plain(arm.minimum, digits),
                "maximum": plain(arm.maximum, digits),
                "seeds": len(arm.seeds),
            }
            for arm in one.arms
        ],
        "effects": [
            {
                "title": found.effect.title,
                "of": OF[found.effect.name],
                "key": f"{one.key}/{found.effect.name}/{one.metric}",
                "difference": signed(found.difference, digits),
                "low": signed(found.ci_low, digits) if math.isfinite(found.ci_low) else "",
                "high": signed(found.ci_high, digits),
                "visible": found.visible,
                "seeds": found.seeds,
            }
            for found in one.effects
        ],
        "trainings": training_rows(one, leak.trainings),
        "picture": leak_figure(one, figures),
    }


OF = {
    "inflation": "split by slice − split by patient",
    "memory": "labels shuffled, split by slice − chance",
    "control": "labels shuffled, split by patient − chance",
}


def training_rows(one: Measure, trainings: pd.DataFrame) -> list[dict[str, Any]]:
    """Every training of leak.csv, with its interval over test patients."""
    same = (trainings[["task", "model", "framework"]] == [one.task, one.model, one.framework]).all(axis=1)
    titles = {arm.arm.name: arm.arm for arm in one.arms}
    own = trainings[same & trainings["arm"].isin(list(titles))]
    rows = own.to_dict("records")
    digits = decimals((row["ci_low"], row["ci_high"]) for row in rows)
    counts = ("train_slices", "test_slices", "test_patients", "test_patients_in_training")
    return [
        {
            "title": titles[row["arm"]].title,
            "leaky": titles[row["arm"]].leaky,
            "seed": whole(row["seed"]),
            "score": plain(row["score"], digits),
            "low": plain(row["ci_low"], digits) if math.isfinite(row["ci_low"]) else "",
            "high": plain(row["ci_high"], digits),
            **{name: whole(row[name]) for name in counts},
        }
        for row in rows
    ]


def whole(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else "–"


def missing_words(leak: Leak) -> str:
    missing = leak.asked - leak.complete
    return f"{plural(missing, 'training')} of {leak.asked} are missing." if missing > 0 else ""


# --- tables -------------------------------------------------------------------------------------------------------


def arm_table(measures: Iterable[Measure]) -> pd.DataFrame:
    return pd.DataFrame([
        {"task": one.task, "model": one.model, "framework": one.framework, "metric": one.metric, "arm": arm.arm.name,
         "leaky": arm.arm.leaky, "labels_shuffled": arm.arm.shuffled, "mean": arm.mean, "sd": arm.sd,
         "minimum": arm.minimum, "maximum": arm.maximum, "seeds": len(arm.seeds)}
        for one in measures for arm in one.arms
    ])  # fmt: skip


def effect_table(measures: Iterable[Measure]) -> pd.DataFrame:
    return pd.DataFrame([
        {"task": one.task, "model": one.model, "framework": one.framework, "metric": one.metric,
         "effect": found.effect.name, "of": found.effect.arm, "minus": found.effect.minus,
         "difference": found.difference, "ci_low": found.ci_low, "ci_high": found.ci_high, "p_value": found.p_value,
         "seeds": found.seeds}
        for one in measures for found in one.effects
    ])  # fmt: skip
