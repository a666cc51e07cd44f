"""A study read once: every comparison, what failed, what is missing, and the inventory of the data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from common import config
from common.errors import StudyError
from common.report.evidence import Comparison, compare, ordered, task_of
from common.report.mask_evidence import MaskComparison, compare_masks
from common.results import RunRecord, StudyRecord, read_study

AnyComparison: TypeAlias = Comparison | MaskComparison


@dataclass(frozen=True)
class Evidence:
    """A study read once; every table, figure and sentence of the report is a function of it."""

    record: StudyRecord
    comparisons: tuple[AnyComparison, ...]  # in the order of the lanes, of config.TASKS and of config.MODELS
    failed: tuple[RunRecord, ...]
    missing: tuple[config.Run, ...]  # asked for, not on disk
    audit: dict[str, Any] = field(default_factory=dict)

    @property
    def frameworks(self) -> list[str]:
        return ordered({framework for one in self.comparisons for framework in one.frameworks})


def read_evidence(directory: Path) -> Evidence:
    """Read a study's files. Raises StudyError where there is no study; what else is missing, the report tells."""
    record = read_study(directory)
    found = {one.run for one in record.runs}
    try:
        audit = record.audit()
    except StudyError:
        audit = {}
    return Evidence(
        record,
        tuple(compare_any(*key, record) for key in comparison_keys(record)),
        tuple(one for one in record.runs if not one.complete),
        tuple(run for run in record.study.runs() if run not in found),
        audit,
    )


def comparison_keys(record: StudyRecord) -> list[tuple[str, str, str]]:
    """(lane, task, model) of every run on disk, in the order of the report."""
    tasks, models = list(config.TASKS), list(config.MODELS)
    keys = {(one.run.lane, one.run.task, one.run.model) for one in record.runs}
    return sorted(keys, key=lambda key: (key[0], tasks.index(key[1]), models.index(key[2])))


def compare_any(lane: str, task: str, model: str, record: StudyRecord) -> AnyComparison:
    if task_of(task).kind == "segmentation":
        return compare_masks(lane, model, record.complete)
    return compare(lane, task, model, record.complete)


def members(evidence: Evidence) -> pd.DataFrame:
    """The sample table joined with the split: one row a (task, fold, sample), the part in `split`, the part that the
    data set itself gives in `given_split`. Raises one of UNREADABLE.
    """
    samples = evidence.record.samples().rename(columns={"split": "given_split"})
    return samples.merge(evidence.record.split(), on="id")
