"""The machine that the numbers come from: `machine.json`."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from typing import Any

from benchmarks.plan import PEERS
from common import measure
from common.codebase import ROOT
from common.config import NOTICE
from common.measure import utc_now

PACKAGES = (
    "torch",
    "keras",
    "tensorflow",
    "jax",
    "torchvision",
    "timm",
    "monai",
    "segmentation_models_pytorch",
)


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, versions of both sides, and the load of the moment."""
    return {
        "notice": NOTICE,
        "measured": utc_now(),
        **measure.common_environment(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "git_commit": measure.git_commit(ROOT),
        "packages": {name: version_of(name) for name in PACKAGES},
    }


def version_of(package: str) -> str | None:
    """Of an installed package or a peer beside the environment; None where there is neither. Imports nothing."""
    for places in ([str(PEERS)], sys.path):
        for distribution in metadata.distributions(name=package, path=places):
            return distribution.version
    return None
