"""A stand-in for another Python: a script that is run in its place."""

from __future__ import annotations

from pathlib import Path


def write_interpreter(path: Path, command: str) -> str:
    """A program that carries out one line of shell, `"$@"` being what it is given."""
    path.write_text(f"#!/bin/sh\n{command}\n")
    path.chmod(0o755)
    return str(path)
