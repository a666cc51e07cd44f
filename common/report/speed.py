"""What the report knows of speed beside the costs of each framework: ratios between them, the time to a stated quality,
and how large the models are. Read once; the section, the tables and summary.json are functions of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from common.report.cost_ratios import CostRatio, cost_ratios, ratio_numbers, ratio_table
from common.report.costs import number, part_of, work_of
from common.report.quality import (
    QualityTime,
    quality_numbers,
    quality_ratios,
    quality_rows,
    time_to_quality,
)
from common.report.reading import AnyComparison
from common.report.tables import finite, keys

SIZE = "size"  # in the place of a framework in a key of summary.json


@dataclass(frozen=True)
class ModelSize:
    """How large a comparison's model is; None where the records do not tell."""

    parameters: float | None  # batch norm's statistics included
    flops: int | None  # of the forward pass of one image
    activations: int | None  # values put out by its layers with a kernel, of one image
    checkpoint_bytes: float | None


@dataclass(frozen=True)
class Speed:
    """In the order of the comparisons."""

    ratios: tuple[tuple[AnyComparison, list[CostRatio]], ...]
    quality: tuple[tuple[AnyComparison, QualityTime], ...]
    sizes: tuple[tuple[AnyComparison, ModelSize], ...]

    def ratios_of(self, comparison: AnyComparison) -> dict[tuple[str, str], CostRatio]:
        """(framework, quantity) -> its ratio to the first framework."""
        own = [ratios for one, ratios in self.ratios if one is comparison]
        return {(one.framework, one.quantity): one for ratios in own for one in ratios}

    def quality_of(self, comparison: AnyComparison) -> QualityTime | None:
        return next((found for one, found in self.quality if one is comparison), None)


def read_speed(comparisons: Sequence[AnyComparison]) -> Speed:
    """Of every comparison with a complete run."""
    present = [one for one in comparisons if one.records]
    quality = [(one, found) for one in present if (found := time_to_quality(one)) is not None]
    until = {one.key: quality_ratios(one, found) for one, found in quality}
    return Speed(
        tuple((one, [*cost_ratios(one), *until.get(one.key, [])]) for one in present),
        tuple(quality),
        tuple((one, model_size(one)) for one in present),
    )


def model_size(comparison: AnyComparison) -> ModelSize:
    """From the first run: all have one model, and one format of checkpoints."""
    record = comparison.records[0]
    work = work_of(record)
    return ModelSize(
        finite(number(part_of(record.document, "weights").get("parameters"))),
        work.flops if work else None,
        work.activations if work else None,
        finite(number(part_of(record.document, "model").get("checkpoint_bytes"))),
    )


def speed_tables(speed: Speed) -> dict[str, pd.DataFrame]:
    """Name -> table, below `tables/`."""
    return {
        "cost_ratios": ratio_table(speed.ratios),
        "time_to_quality": pd.DataFrame(quality_rows(speed.quality)),
        "model_sizes": pd.DataFrame([{**keys(one), **vars(size)} for one, size in speed.sizes]),
    }


def speed_numbers(speed: Speed) -> dict[str, dict[str, Any]]:
    """Of summary.json; sizes also in the units that the page shows."""
    sizes = {f"{one.key}/{SIZE}": size_numbers(size) for one, size in speed.sizes}
    return ratio_numbers(speed.ratios) | quality_numbers(speed.quality) | sizes


def size_numbers(size: ModelSize) -> dict[str, float | None]:
    scaled = {"forward_gflop": (size.flops, 1e9), "checkpoint_mib": (size.checkpoint_bytes, 2**20)}
    return vars(size) | {
        name: None if value is None else value / unit for name, (value, unit) in scaled.items()
    }
