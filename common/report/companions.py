"""What other commands leave beside a study, and the report shows: the proof, the ladder and the atlas of defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from common.report import tables
from common.report.atlas import AtlasSection, atlas_section
from common.report.certificate import QUANTITIES
from common.report.certificate_views import ProofSection, proof_section
from common.report.ladder import INTERVAL
from common.report.ladder_views import LadderSection, ladder_section
from common.report.tables import finite
from common.results import StudyRecord


@dataclass(frozen=True)
class Companions:
    """Each as the page shows it; None where a study has none, or none that can be used."""

    proof: ProofSection | None
    ladder: LadderSection | None
    atlas: AtlasSection | None
    faults: tuple[str, ...]  # a sentence for each file that is there and cannot be used


def read_companions(record: StudyRecord) -> Companions:
    """Everything beside a study; writes its figures and tables."""
    directory = record.directory
    proof, proof_fault = proof_section(directory, record.study, len(record.complete))
    ladder, ladder_fault = ladder_section(directory)
    atlas, atlas_fault = atlas_section(directory)
    if proof is not None:
        tables.write_table(directory / "tables", "parity", proof.parity, latex=True)
        tables.write_table(directory / "tables", "mutations", proof.mutations)
    if ladder is not None:
        for name, table in ladder.tables.items():
            tables.write_table(directory / "tables", name, table, latex=True)
    if atlas is not None:
        tables.write_table(directory / "tables", "defaults", atlas.table)
    faults = [fault for fault in (proof_fault, ladder_fault, atlas_fault) if fault]
    return Companions(proof, ladder, atlas, tuple(faults))


def companion_numbers(companions: Companions) -> dict[str, Any]:
    """For `summary.json`: `lockstep/MODEL/FRAMEWORK/PRECISION/QUANTITY` and `ladder/TASK/MODEL/MEASURE/ARM/DEFAULT`, in
    which the native end of a walk is the default `native`.
    """
    document: dict[str, Any] = {}
    if companions.proof is not None:
        for row in companions.proof.parity.to_dict("records"):
            prefix = f"lockstep/{row['model']}/{row['framework']}/{row['precision']}"
            document[f"{prefix}/passed"] = {"value": bool(row["passed"]), "steps": int(row["steps"])}
            for quantity, (_, stage) in QUANTITIES.items():
                document[f"{prefix}/{quantity}"] = {
                    "value": finite(row[quantity]),
                    "tolerance": finite(row[f"{stage}_tolerance"]),
                    "floor": finite(row.get(f"floor_{quantity}", math.nan)),
                }
    if companions.ladder is not None:
        for row in companions.ladder.rungs.to_dict("records"):
            where = f"{row['measure']}/{row['arm']}/{row['default'] or 'native'}"
            document[f"ladder/{row['task']}/{row['model']}/{where}"] = {
                "rung": int(row["rung"]),
                **{name: finite(row[name]) for name in INTERVAL},
            }
    return document
