"""Which packages a framework's build for CUDA asks for and does not find: for `doctor`, and for errors.

A driver is the system's; all else of CUDA comes as packages, which TensorFlow and JAX ask for as an "extra".
"""

from __future__ import annotations

import re
from importlib import metadata

NO_GPU = "no NVIDIA GPU is visible to this process (no driver, or CUDA_VISIBLE_DEVICES hides it)"

_ORDERS = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
}


def unmet(distribution: str, extra: str) -> list[str]:
    """What `distribution[extra]` asks for and is not installed, each as `name>=1,<2 (has 0.9 | is not installed)`.

    Only plain requirements (`name`, version bounds, `extra == "..."`) are understood, which NVIDIA's packages are.
    """
    found = []
    for requirement in metadata.requires(distribution) or ():
        wanted, _, marker = requirement.partition(";")
        named = re.match(r"\s*([\w.-]+)(?:\[[^]]*\])?\s*\(?([^)]*)", wanted)
        if named is None or not re.search(rf"""extra\s*==\s*["']{re.escape(extra)}["']""", marker):
            continue
        name, bounds = named[1], named[2].strip()
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            found.append(f"{name}{bounds} (is not installed)")
            continue
        if not _within(version, bounds):
            found.append(f"{name}{bounds} (has {version})")
    return found


def _within(version: str, bounds: str) -> bool:
    """Whether a version satisfies `>=1.2,<2`; by its leading numbers, missing ones being 0."""
    for bound in filter(None, (part.strip() for part in bounds.split(","))):
        matched = re.match(r"(<=|>=|==|<|>)\s*([\d.]+)", bound)
        if matched is None:
            continue
        one, other = _numbers(version), _numbers(matched[2])
        length = max(len(one), len(other))
        padded = (numbers + (0,) * (length - len(numbers)) for numbers in (one, other))
        if not _ORDERS[matched[1]](*padded):
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    leading = re.match(r"[\d.]*", version)
    assert leading is not None  # it may be empty
    return tuple(int(part) for part in leading[0].split(".") if part)
