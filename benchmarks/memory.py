"""Peak memory, start and end of training beside the plain loop's: one short round, where the steps are not measured."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmarks import steps
from benchmarks.plan import Job, Options, expected_seconds
from benchmarks.table import Row

SECONDS = 1.0  # a block: memory stops growing after the first steps


def facts_jobs(options: Options, tables: tuple[str, ...]) -> list[Job]:
    """The jobs of a short training, of which only the rows of some tables are kept."""

    def rows(framework: str, model: str) -> list[Row]:
        found = steps.training_rows(options, framework, model, rounds=1, seconds=SECONDS)
        missing = [row for row in found if row.note.startswith("not measured")]
        return missing or [row for row in found if row.table in tables]

    return [
        Job(
            f"{', '.join(tables)} {model} {framework}",
            expected_seconds(
                replace(options, rounds=1, seconds=SECONDS), framework, model, 3, together=False
            ),
            partial(rows, framework, model),
        )
        for framework in options.frameworks
        for model in options.models
    ]
