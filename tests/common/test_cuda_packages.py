"""What a framework's build for CUDA asks for and does not find, from the records that pip leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from common.cuda_packages import unmet

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Leaves the record of a package, as pip does; what it requires line by line."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def add(name: str, version: str, *requires: str) -> None:
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {one}" for one in requires)]
        (folder / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")

    return add


def test_only_what_the_extra_asks_for_and_does_not_find_is_named(install: Install) -> None:
    install(
        "frame",
        "2.1",
        "nvidia-a-cu12<13.0,>=12.5.3.2; extra == 'and-cuda'",
        'nvidia-b-cu12>=9.3.0.75,<10.0 ; extra == "and-cuda"',
        "nvidia-c-cu12==1.2; extra == 'and-cuda'",
        "plugin[with-cuda]<=0.10.2,>=0.10.2; extra == 'and-cuda'",
        "never-installed>=1; extra == 'other'",
        "never-installed-either",
    )
    assert unmet("frame", "and-cuda") == [
        "nvidia-a-cu12<13.0,>=12.5.3.2 (is not installed)",
        "nvidia-b-cu12<10.0,>=9.3.0.75 (is not installed)",
        "nvidia-c-cu12==1.2 (is not installed)",
        "plugin<=0.10.2,>=0.10.2 (is not installed)",
    ]
    install("nvidia-a-cu12", "13.0")  # beyond a bound that does not hold itself
    install("nvidia-b-cu12", "9.10.2.21")  # 9.10 comes after 9.3
    install("nvidia-c-cu12", "1.2.0")
    install("plugin", "0.10.2")
    assert unmet("frame", "and-cuda") == ["nvidia-a-cu12<13.0,>=12.5.3.2 (has 13.0)"]
    assert unmet("frame", "no-such-extra") == []
