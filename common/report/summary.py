"""`summary.json`: each number of the report under a stable key, for scripts."""

from __future__ import annotations

from typing import Any

import pandas as pd

from common import config
from common.report.tables import finite
from common.report.terms import level_prefix
from common.report.wording import percent

CASCADE = "cascade"  # in the place of a task
ABOUT = {
    "notice": config.NOTICE,
    "interval": f"ci_low to ci_high is the {percent(config.CONFIDENCE)} percentile bootstrap of the mean over seeds: "
    f"test patients drawn with replacement {config.BOOTSTRAP_REPLICATES} times, seeds held fixed. It covers neither "
    "other seeds nor other splits.",
    "folds": "With several folds, a seed's out-of-fold test predictions are pooled before a metric is computed.",
    "spread": "mean, sd (n - 1), minimum and maximum are over seeds; of times and memory over runs.",
    "difference": "a-vs-b is a minus b on equal seeds and patients.",
    "levels": "A key without a level is per slice (masks: lesion slices); patient/, external/, clean/ and so on name "
    "another level, CLASS/, macro/ and weighted/ a class against the rest and their averages.",
    "lockstep": "Of the proof: largest differences from the reference over all steps, relative (_rel) or absolute "
    "(_abs), and the tolerance of each; in float32 that of the first step.",
    "ladder": "A gap is the other framework minus the reference at equal seed, mean over seeds; distance is the mean "
    "of its size; share, on a walk, what aligning the default removed, alone what it causes by itself; low to high are "
    f"{percent(config.CONFIDENCE)} t intervals over seeds.",
    "costs": "a-vs-b of a time, speed or memory is a ratio, the geometric mean over seeds; low to high is the "
    f"{percent(config.CONFIDENCE)} t interval of its logarithm. seconds_to_quality: median, when half of the runs had "
    "reached level in validation, the smaller of the frameworks' median best.",
    "data": "data/TASK/FOLD/PART: slices and patients of each part, and of each label.",
    "threshold": f"Decisions use each run's own validation threshold ({config.THRESHOLD_RULE}); per patient it is "
    f"chosen on validation patients, a patient's score being the {config.PATIENT_SCORE_RULE} of its slices.",
}


def summary(
    scores: pd.DataFrame,
    differences: pd.DataFrame,
    classes: pd.DataFrame,
    costs: pd.DataFrame,
    cascade: pd.DataFrame,
    data: pd.DataFrame,
) -> dict[str, Any]:
    """Keys `LANE/TASK/MODEL/FRAMEWORK/METRIC`, `LEVEL/METRIC` for a level other than a task's main one, `CLASS/METRIC`
    for a class against the rest; the two stages are the task `cascade` of the model `GATE-SEGMENTER`; the sizes of the
    parts are `data/TASK/fold0/PART`. Null is undefined.
    """
    document: dict[str, Any] = {"about": ABOUT}
    for table, who in ((scores, "framework"), (differences, "comparison")):
        numbers = [
            name
            for name in ("mean", "difference", "sd", "minimum", "maximum", "ci_low", "ci_high")
            if name in table
        ]
        for row in table.to_dict("records"):
            key = f"{row['lane']}/{row['task']}/{row['model']}/{row[who]}/{level_prefix(row['level'])}{row['metric']}"
            document[key] = {name: finite(row[name]) for name in numbers} | {
                name: int(row[name]) for name in ("seeds", "folds", "patients")
            }
    for row in classes.to_dict("records"):
        where = f"{level_prefix(row['level'])}{row['class']}/{row['metric']}"
        key = f"{row['lane']}/{row['task']}/{row['model']}/{row['framework']}/{where}"
        document[key] = {name: finite(row[name]) for name in ("mean", "sd")} | {
            name: int(row[name]) for name in ("seeds", "support")
        }
    for row in cascade.to_dict("records"):
        name = "difference" if "-vs-" in row["framework"] else "mean"
        where = f"{row['framework']}/{level_prefix(row['level'])}{row['metric']}"
        document[f"{row['lane']}/{CASCADE}/{row['gate_model']}-{row['model']}/{where}"] = {
            name: finite(row["mean"]),
            **{number: finite(row[number]) for number in ("sd", "ci_low", "ci_high")},
            **{size: int(row[size]) for size in ("seeds", "folds", "patients")},
        }
    for row in costs.to_dict("records"):
        key = f"{row['lane']}/{row['task']}/{row['model']}/{row['framework']}/{row['quantity']}"
        document[key] = {name: finite(row[name]) for name in ("mean", "sd", "minimum", "maximum")} | {
            "runs": int(row["runs"])
        }
    for row in data.to_dict("records"):
        sizes = {
            str(name): int(count) for name, count in row.items() if name not in ("task", "fold", "split")
        }
        document[f"data/{row['task']}/fold{row['fold']}/{row['split']}"] = sizes
    return document
