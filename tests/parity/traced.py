"""Trains what a plan asks for in one framework and traces it: one side of the proof, all cases in one process.

    python tests/parity/traced.py FRAMEWORK PLAN.json

The plan is a list of {"precision", "fault", "job"}; "fault" names one of `faults.FAULTS`, or is empty.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from faults import FAULTS

from common.engines import module_of
from common.framework import Framework, Settings
from common.trace import TraceJob, trace_job


def main(framework: str, plan: list[dict[str, Any]]) -> None:
    impl: Framework = importlib.import_module(module_of(framework))  # type: ignore[assignment]
    for entry in plan:
        job = TraceJob(**(entry["job"] | {"names": tuple(entry["job"]["names"])}))
        settings = Settings("cpu", entry["precision"], threads=1, seed=0)
        with FAULTS[entry["fault"]]() if entry["fault"] else contextlib.nullcontext():
            for _ in trace_job(impl, job, settings):
                pass


if __name__ == "__main__":
    main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
