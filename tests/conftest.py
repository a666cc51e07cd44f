"""What every test shares: quiet, single-threaded libraries, repeatable examples, and the way to the real pictures."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before NumPy or a framework is imported: two test processes with a thread pool each would fight for the cores.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["MPLBACKEND"] = "Agg"

import cv2  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402
from order import place_of  # noqa: E402

cv2.setNumThreads(1)

# The same examples on every machine, and no failure because a machine is busy.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """Files are handed out in our order; pytest-xdist's own begins with those of most tests, and they are quick."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: place_of(item.path))  # stable: all else stays as it was


SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real pictures beside the checkout; the test is skipped where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real pictures (../shared/data beside the checkout) are not here")
    return SHARED_DATA


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, where there is one."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as engine:
        running = engine.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()
