"""Which files of tests begin first."""

from __future__ import annotations

from pathlib import Path

# Half a minute or more each, the longest first. One of them that began last would keep a process busy when the others
# have nothing left to do.
HEAVY = (
    "test_compare.py",
    "impl/test_replicas.py",
    "impl/test_backends.py",
    "impl/test_models.py",
    "impl/test_impl.py",
    "impl/test_resume.py",
    "parity/test_proof.py",
    "common/test_ray.py",
    "hostile/test_hostile.py",
    "impl/test_alone.py",
)
TESTS = Path(__file__).resolve().parent
_PLACES = {TESTS / name: place for place, name in enumerate(HEAVY)}


def place_of(path: Path) -> int:
    """Where a file stands: the heavy ones by their list, then all others alike."""
    return _PLACES.get(path, len(HEAVY))
