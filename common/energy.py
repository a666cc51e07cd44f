"""Energy that a run drew while it trained, where the machine has a counter for it and lets this process read it.

On a GPU NVML's counter of the board (`nvmlDeviceGetTotalEnergyConsumption`, mJ; Volta and later), on a CPU the
processor packages' RAPL counters (Linux powercap, uJ; since 2020 most systems let only root read them). Both count
what the part drew, idle share and other processes included, so a run has a number only where it ran alone; memory,
disks and fans are in neither.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import measure
from common.fitting import Emit

POWERCAP = Path("/sys/class/powercap")
BESIDE_OTHERS = (
    "STROKE_FRAMEWORKS_BESIDE_OTHERS"  # set where others may compute on what a run's counter counts
)
NVML = "libnvidia-ml.so.1"  # comes with the driver
Read = Callable[[], float | None]  # joules so far


class EnergyMeter:
    """Joules since it was made. `read` it at least once before a counter wraps a second time (half an hour)."""

    def __init__(self, source: str, counters: list[tuple[Read, float]]) -> None:
        """`counters`: of each its reading and the range after which it begins anew, in joules (0: never)."""
        self._source = source
        self._counters = counters
        self._last = [read() for read, _ in counters]
        self._joules: float | None = 0.0 if counters else None

    def read(self) -> None:
        """Add what was drawn since the last reading; a counter that cannot be read ends the measurement."""
        for place, (read, wraps_at) in enumerate(self._counters):
            before, now = self._last[place], read()
            if before is None or now is None or (now < before and not wraps_at):
                self._joules = None
            elif self._joules is not None:
                self._joules += now - before + (wraps_at if now < before else 0.0)
            self._last[place] = now

    def watch(self, emit: Emit) -> Emit:
        """The receiver of a run's progress, at each message of which the counters are read too."""

        def read_and_emit(message: dict[str, Any]) -> object:
            self.read()
            return emit(message)

        return read_and_emit if self._counters else emit

    def record(self) -> dict[str, float | str] | None:
        """`energy` of run.json after a last reading; None where nothing was counted."""
        self.read()
        return None if not self._joules else {"joules": self._joules, "source": self._source}


def start_meter(device: str, alone: bool, devices: int = 1) -> EnergyMeter:
    """A meter of what a run on `device` ("cpu" or "cuda"; so many of them) draws; one that counts nothing unless it
    runs `alone`, or where one of its GPUs has no counter.
    """
    if not alone or BESIDE_OTHERS in os.environ:
        return EnergyMeter("", [])
    if device == "cuda":
        counters = [counter for gpu in measure.visible_gpus()[:devices] if (counter := _nvml_counter(gpu))]
        return EnergyMeter("nvml", [(one, 0.0) for one in counters] if len(counters) == devices else [])
    return EnergyMeter("rapl", _rapl_counters(POWERCAP))


# --- RAPL ---------------------------------------------------------------------------------------------------------


def _rapl_counters(folder: Path) -> list[tuple[Read, float]]:
    """One a processor package; none where a single one cannot be read. The zones inside a package (cores, memory) and
    that of the whole platform would count the same energy twice.
    """
    found: list[tuple[Read, float]] = []
    for zone in sorted(folder.glob("intel-rapl:*")):  # AMD's processors come under the same name
        name, wraps_at = _text_of(zone / "name"), _joules_of(zone / "max_energy_range_uj")
        if zone.name.count(":") != 1 or not name.startswith("package"):
            continue
        if wraps_at is None or _joules_of(zone / "energy_uj") is None:
            return []
        found.append((lambda path=zone / "energy_uj": _joules_of(path), wraps_at))  # type: ignore[misc]
    return found


def _joules_of(path: Path) -> float | None:
    text = _text_of(path)
    return int(text) / 1e6 if text.isdigit() else None


def _text_of(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


# --- NVML ---------------------------------------------------------------------------------------------------------


def _nvml_counter(gpu: str) -> Read | None:
    """Of a GPU, by its number or UUID; None where there is no driver or no counter."""
    try:
        nvml = ctypes.CDLL(NVML)
    except OSError:
        return None
    handle = ctypes.c_void_p()
    if nvml.nvmlInit_v2():
        return None
    found = (
        nvml.nvmlDeviceGetHandleByIndex_v2(int(gpu), ctypes.byref(handle))
        if gpu.isdigit()
        else nvml.nvmlDeviceGetHandleByUUID(gpu.encode(), ctypes.byref(handle))
    )
    if found:  # 0 is success
        return None

    def read() -> float | None:
        millijoules = ctypes.c_ulonglong()
        failed = nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules))
        return None if failed else millijoules.value / 1e3

    return read if read() is not None else None
