"""What a study's segmentation runs hold, arranged for comparison: all frameworks on one (lane, model).

As in `evidence`, a seed's test predictions are pooled over its folds, and only a full rectangle of seeds and folds is
compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from common import config
from common.report.evidence import chosen, ordered
from common.report.mask_levels import MaskLevel, levels_of
from common.report.mask_slices import EXTERNAL, TEST, Slices, gather, read_masks, rectangle
from common.results import RunRecord

TASK = "segmentation"


@dataclass(frozen=True)
class MaskComparison:
    """All frameworks on one (lane, model) of the segmentation; reads like `evidence.Comparison`."""

    lane: str
    task: str
    model: str
    classes: tuple[str, ...]
    primary_metric: str
    folds: tuple[int, ...]
    levels: tuple[MaskLevel, ...]  # "lesion" first; empty where no run can be scored
    records: tuple[RunRecord, ...]  # complete runs
    notes: tuple[str, ...]  # what was left out of the scores, and why
    test: Slices | None  # None where no run can be scored

    @property
    def key(self) -> str:
        return f"{self.lane}/{self.task}/{self.model}"

    @property
    def slug(self) -> str:
        return self.key.replace("/", "-")

    @property
    def frameworks(self) -> list[str]:
        return ordered({record.run.framework for record in self.records})


def compare_masks(lane: str, model: str, complete: Iterable[RunRecord], repeat: int = 0) -> MaskComparison:
    """The comparison of one (lane, model) from its complete runs, or from the A/A runs where `repeat` asks for them;
    what cannot be scored is told in `notes`.
    """
    records = chosen(complete, lane, TASK, model, repeat)
    predictions, notes = read_masks(records)
    folds, seeds = rectangle(predictions, notes)
    test = gather(TEST, predictions, seeds, folds, notes)
    external = gather(EXTERNAL, predictions, seeds, folds, notes)
    levels: list[MaskLevel] = []
    if test is not None and test.lesion.any():
        levels += levels_of(test, TEST)
        levels += levels_of(external, EXTERNAL) if external else []
    elif test is not None:
        notes.append("Nothing is scored: no test slice has a lesion.")
    settings = config.TASKS[TASK]
    return MaskComparison(
        lane, TASK, model, settings.classes, settings.primary_metric, folds, tuple(levels), records,
        tuple(notes), test if levels else None,
    )  # fmt: skip
