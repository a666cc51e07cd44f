"""Energy counters: which zones count, what a wrap is, and when there is no number."""

from __future__ import annotations

from pathlib import Path

import pytest

from common import energy

RANGE = 1_000_000_000  # uJ, after which a counter begins anew: 1000 J


def zone(folder: Path, name: str, kind: str, microjoules: int) -> Path:
    path = folder / name
    path.mkdir(parents=True)
    (path / "name").write_text(f"{kind}\n")
    (path / "max_energy_range_uj").write_text(f"{RANGE}\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    return path / "energy_uj"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The counters of two packages; beside them zones that count the same energy again."""
    first = zone(tmp_path, "intel-rapl:0", "package-0", 100_000_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 990_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 50_000_000)
    zone(tmp_path, "intel-rapl:2", "psys", 700_000_000)
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    return first, second


def test_packages_are_added_and_a_counter_may_begin_anew(machine: tuple[Path, Path]) -> None:
    first, second = machine
    meter = energy.start_meter("cpu", alone=True)
    told: list[dict[str, int]] = []
    first.write_text("400000000")
    meter.watch(told.append)({"epoch": 1})  # 300 J
    first.write_text("150000000")  # 750 J more: it wrapped
    second.write_text("20000000")  # 30 J
    assert meter.record() == {"joules": pytest.approx(1080.0), "source": "rapl"}
    assert told == [{"epoch": 1}]


def test_there_is_no_number_where_a_run_is_not_alone_or_a_counter_fails(machine: tuple[Path, Path]) -> None:
    assert energy.start_meter("cpu", alone=False).record() is None
    meter = energy.start_meter("cpu", alone=True)
    machine[0].write_text("500000000")
    machine[1].unlink()
    assert meter.record() is None
    assert energy.start_meter("cpu", alone=True).record() is None  # one package of two is no machine


def test_without_counters_a_meter_leaves_the_messages_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "none")
    monkeypatch.setattr(energy, "NVML", "libno-such-driver.so.1")
    for device in ("cpu", "cuda"):
        meter = energy.start_meter(device, alone=True)
        assert meter.watch(print) is print
        assert meter.record() is None
