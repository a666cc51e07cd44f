"""Folders of small files for the tests of layouts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from common.data.layouts import open_dataset
from common.errors import StudyError


def fill(root: Path, folders: Mapping[str, Sequence[str]]) -> Path:
    """Files with content of their own; they are no pictures."""
    for folder, names in folders.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            (root / folder / name).write_bytes(f"{folder}/{name}".encode())
    return root


def refusal(*folders: Path) -> str:
    """What is said to folders that are refused."""
    with pytest.raises(StudyError) as caught:
        open_dataset(*folders)
    return str(caught.value)
