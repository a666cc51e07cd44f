"""Whether a study's own records are what this program writes, for they may have been edited, merged or swapped.

Only what is there is judged: records of earlier versions lack some of it, and readers cope with that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from common import config
from common.documents import LARGEST

LIMITS = {"seeds": 10_000, "folds": 1_000, "repeats": 10_000, "threads": 10_000, "workers": 10_000}
NAME = re.compile("[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")  # of a task, a framework, a lane: it becomes a folder
NESTED = 12  # levels of a run.json; it has 5

Kind = str | Mapping[str, "Kind"]
# What run.json may hold, by name: "text", "number", "whole" or "any" value, with "?" where null will do; an object of
# the named kinds, "*" for all other names; a list of one kind, {"[]": kind}.
RECORD: Mapping[str, Kind] = {
    "status": "text",
    "reason": "text?",
    "attempt": "text?",
    "environment": {"*": "any"},
    "variables": {"*": "any"},
    "device": "text",
    "threads": "whole",
    "precision": "text",
    "git_commit": "text?",
    "command": "text",
    "data": {
        "samples_sha256": "text",
        "split_sha256": "text",
        "cache_sha256": "text",
        "masks_sha256": "text",
        "counts": {"*": {"*": "whole"}},
    },
    "batches": {"hashed": "whole", "sha256": "text", "order_sha256": "text"},
    "weights": {"initial_sha256": "text", "final_sha256": "text", "parameters": "whole"},
    "pretrained": {"source": "text", "sha256": "text"},
    "phases": {"[]": {"trainable": "text", "epochs": "number", "batch_norm": "text"}},
    "choice": {"epoch": "number?", "val_loss": "number?", "rule": "text"},
    "threshold": {"value": "number?", "rule": "text"},
    "model": {"flops": "number?", "checkpoint_bytes": "number?"},
    "timings": {"latency": {"*": "number?"}, "*": "number?"},
    "memory": {"*": "number?"},
    "energy": {"joules": "number?", "source": "text?"},
    "started": "text?",
    "finished": "text?",
    "notice": "text",
    "files": {"*": "text"},
    "seal_sha256": "text",
}
# ... and study.json, beside the study itself.
STUDY: Mapping[str, Kind] = {
    "samples_sha256": "text",
    "caches": {"*": "text"},
    "pretrained": {"*": {"path": "text", "source": "text", "sha256": "text"}},
    "environment": {"*": "any"},
    "own_interpreters": {"[]": "text"},
    "git_commit": "text?",
    "created": "text",
    "files": {"*": "text"},
}
NULLABLE = frozenset({"pretrained", "energy", "choice", "threshold", "model", "timings", "memory", "phases"})


def record_fault(document: Mapping[str, Any]) -> str:
    """What is wrong with a run.json, in words; empty where nothing is."""
    if fault := _first_fault(document, RECORD):
        return fault
    if depth(document) > NESTED:
        return f"is nested more than {NESTED} levels deep"
    for name, read in (("spec", config.model_spec_from_json), ("recipe", config.recipe_from_json)):
        try:
            if name in document:
                read(document[name])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return f"holds a {name} that this version does not know ({error})"
    phases = document.get("phases") or ()
    if any(one.get("epochs", 0) <= 0 for one in phases):
        return "holds a phase without epochs"
    return ""


def document_fault(document: Mapping[str, Any]) -> str:
    """What is wrong with a study.json, but for the study in it, in words; empty where nothing is."""
    return _first_fault(document, STUDY)


def _first_fault(document: Mapping[str, Any], kinds: Mapping[str, Kind]) -> str:
    for name, kind in kinds.items():
        value = document.get(name)
        absent = name not in document or (value is None and name in NULLABLE)
        if not absent and (fault := _fault(value, kind, name)):
            return fault
    return ""


def _fault(value: Any, kind: Kind, name: str) -> str:
    if isinstance(kind, Mapping):
        if "[]" in kind:
            if not isinstance(value, list):
                return f"holds no list as {name}"
            return next(filter(None, (_fault(one, kind["[]"], name) for one in value)), "")
        if not isinstance(value, dict):
            return f"holds no object as {name}"
        for key, one in value.items():
            wanted = kind.get(key, kind.get("*"))
            if wanted is not None and (fault := _fault(one, wanted, f"{name}.{key}")):
                return fault
        return ""
    if value is None and kind.endswith("?"):
        return ""
    kind = kind.removesuffix("?")
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
    sound = {
        "text": isinstance(value, str),
        "number": number,
        "whole": number and isinstance(value, int),
        "any": not isinstance(value, float) or number,
    }[kind]
    return "" if sound else f"holds no {kind} as {name}"


def depth(value: Any, most: int = NESTED + 1) -> int:
    """How deep lists and objects stand within each other, counted up to `most`."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    if inner is None or most == 0:
        return 0
    return 1 + max((depth(one, most - 1) for one in inner), default=0)


def study_fault(study: config.Study) -> str:
    """What no study can be, in words; empty where nothing is: names that may become folders, and sizes of the grid."""
    for field in ("tasks", "frameworks", "lanes"):
        odd = next((name for name in getattr(study, field) if not NAME.fullmatch(name)), None)
        if odd is not None:
            return f"{field} has {odd!r}, which is no name of one"
    for field, most in LIMITS.items():
        if not 0 <= getattr(study, field) <= most:
            return f"{field} is {getattr(study, field)}, which is not from 0 to {most}"
    pairs = {f"{task}/{model}" for task, model in study.pairs}
    if lacking := sorted(pairs - study.specs.keys()):
        return f"there is no spec of {lacking[0]}"
    for key, spec in study.specs.items():
        if fault := spec_fault(spec):
            return f"the spec of {key} {fault}"
        if key in pairs and key.split("/")[1] != spec.name:
            return f"the spec of {key} is of {spec.name}"
    runs = len(pairs) * len(study.frameworks) * len(study.lanes) * study.seeds * study.folds
    if runs > config.MAX_RUNS:
        return f"its grid has {runs} runs, more than the {config.MAX_RUNS} allowed"
    return ""


def spec_fault(spec: config.ModelSpec) -> str:
    """What no model can have, in words; empty where nothing is: sizes that would fill any memory."""
    for name, value in vars(spec).items():
        numbers = value if isinstance(value, tuple) else (value,)
        whole = [one for one in numbers if isinstance(one, int) and not isinstance(one, bool)]
        if len(numbers) > 64 or not all(0 <= one <= config.MAX_SPEC_NUMBER for one in whole):
            return f"has {name} {str(value)[:60]}, which no model here has"
        if name in ("blocks", "depths") and not 0 < sum(whole) <= 1000:
            return f"has {sum(whole)} {name}, which no model here has"
    if not 1 <= spec.image_size <= config.MAX_IMAGE_PX:
        return f"has image_size {spec.image_size}, which is not from 1 to {config.MAX_IMAGE_PX}"
    return ""
