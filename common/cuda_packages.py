"""Which packages a framework's build for CUDA asks for and does not find: for `doctor`, and for errors.

A driver is the system's; all else of CUDA comes as packages, which TensorFlow and JAX ask for as an "extra".
"""

from __future__ import annotations

from importlib import metadata

from packaging.requirements import Requirement

NO_GPU = "no NVIDIA GPU is visible to this process (no driver, or CUDA_VISIBLE_DEVICES hides it)"


def unmet(distribution: str, extra: str) -> list[str]:
    """What `distribution[extra]` asks for and is not installed, each as `name<2,>=1 (has 0.9 | is not installed)`.

    What it asks for without the extra is not looked at.
    """
    found = []
    for requirement in map(Requirement, metadata.requires(distribution) or ()):
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}) or not marker.evaluate({"extra": extra}):
            continue
        wanted = f"{requirement.name}{requirement.specifier}"
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            found.append(f"{wanted} (is not installed)")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            found.append(f"{wanted} (has {version})")
    return found
