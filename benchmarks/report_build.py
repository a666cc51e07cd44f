"""How long the report of a study of 60 runs takes to write, and how large its page is.

    python benchmarks/report_build.py [--seeds 10] [--keep DIR]

The study is made up by the fixtures of the tests, without any training: three tasks, two frameworks, ten seeds, an
external set, two stages, and beside it the proof, the ladder and the atlas. Limits: 20 s on one core, 5 MB.

MEASUREMENT
Research only, not a medical device.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "common")]

from mask_study_fixture import make_mask_study, slice_pixels  # noqa: E402
from proof_fixture import write_all  # noqa: E402

from common.report import write_report  # noqa: E402
from common.results import read_study  # noqa: E402

GATES = (("binary", "cnn"), ("subtype", "densenet121"))
LIMIT_SECONDS, LIMIT_MB = 20, 5


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seeds", type=int, default=10, help="of each task and framework (default: %(default)s)"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write the study there and leave it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = (arguments.keep or Path(folder)) / "study"
        make_mask_study(directory, seeds=arguments.seeds, gates=GATES, external=8)
        write_all(directory)
        runs = len(read_study(directory).complete)
        seconds, wall = time.process_time(), time.perf_counter()
        page = write_report(directory, slice_pixels)
        seconds, wall = time.process_time() - seconds, time.perf_counter() - wall
        size = page.stat().st_size / 1e6
        figures = len(list((directory / "figures").glob("*.svg")))
        print(
            f"{runs} runs, {figures} figures: {seconds:.1f} s of one core ({wall:.1f} s), page of {size:.2f} MB"
        )
    return int(seconds > LIMIT_SECONDS or size > LIMIT_MB)


if __name__ == "__main__":
    sys.exit(main())
