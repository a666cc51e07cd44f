"""The code of this project that a run executes: where it lies and what belongs to it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("common", "torch_impl", "keras_impl")  # folders below it
