"""Coverage-guided fuzzing of the readers, run by hand, not by pytest:

    pip install atheris==3.0.0
    python tests/hostile/fuzz_images.py FOLDER [--seconds 600]

likewise `fuzz_overlays.py`, `fuzz_layouts.py`, `fuzz_results.py`. A finding is whatever comes out but a StudyError,
more than 5 CPU seconds, or 1 GiB for one input. It does not end the search: FOLDER gets the first input of each
kind, and FOLDER/summary.json says how often each came and how many inputs were tried. `--record benchmarks/results`
keeps one row a reader in fuzzing.csv and fuzzing.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

CPU_SECONDS = 5.0
MEMORY_MIB = 1024
WRITE_EVERY_SECONDS = 5.0

Mutator = Callable[[bytes, int, int], bytes]


def resident_mib(name: str) -> float:
    """ "VmRSS", the resident set of this process, or "VmHWM", its largest since `forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"this kernel does not tell {name}")


def forget_peak() -> None:
    """proc(5), clear_refs: what instrumented code never gives back must not count as an input's."""
    Path("/proc/self/clear_refs").write_text("5")


def fuzz(
    target: Callable[[bytes], None],
    seeds: Sequence[bytes],
    most_bytes: int,
    mutator: Mutator | None = None,
) -> None:
    """Try inputs until the time is over; never returns. StudyError is what `target` may raise."""
    import atheris

    from common.errors import StudyError

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="keep the outcome there")
    options = parser.parse_args()
    corpus = options.folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number:03d}").write_bytes(seed)

    found: Counter[str] = Counter()
    start = time.monotonic()
    state = {"tried": 0, "written": start, "mib": 0.0}

    def note(what: str, data: bytes) -> None:
        found[what] += 1
        if found[what] == 1:
            (options.folder / f"finding-{len(found):03d}").write_bytes(data)
            print(f"finding {len(found)}: {what}", flush=True)
            state["written"] = 0.0

    def tell() -> None:  # now and then, for the fuzzer ends the process without another word
        summary = {
            "target": Path(sys.argv[0]).stem,
            "tried": state["tried"],
            "seconds": round(time.monotonic() - start, 1),
            "most_mib": round(state["mib"]),
            "findings": dict(found),
        }
        (options.folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        if options.record:
            record(options.record, summary)
        state["written"] = time.monotonic()

    def one(data: bytes) -> None:
        state["tried"] += 1
        forget_peak()
        began, before = time.process_time(), resident_mib("VmRSS")
        try:
            target(data)
        except StudyError:
            pass
        except Exception as error:
            note(place_of(error), data)
        spent = time.process_time() - began
        if spent > CPU_SECONDS:
            note(f"took {spent:.0f} s", data)
        took = resident_mib("VmHWM") - before
        if took > MEMORY_MIB:
            note(f"took {took / 1024:.0f} GiB", data)
        state["mib"] = max(state["mib"], took)
        if time.monotonic() - state["written"] > WRITE_EVERY_SECONDS:
            tell()

    arguments = [
        sys.argv[0],
        str(corpus),
        f"-max_total_time={options.seconds}",
        f"-max_len={most_bytes}",
        "-rss_limit_mb=0",
        "-timeout=120",
        "-print_final_stats=1",
        f"-artifact_prefix={options.folder}/",
    ]
    atheris.Setup(arguments, one, **({"custom_mutator": mutator} if mutator else {}))
    atheris.Fuzz()


def record(folder: Path, summary: Mapping[str, Any]) -> None:
    """Keep what became of a reader in fuzzing.csv and fuzzing.md, in place of its row there."""
    import pandas as pd

    from common.config import NOTICE
    from common.measure import common_environment, utc_now
    from common.results import write_csv, write_text

    row = {
        "reader": summary["target"].removeprefix("fuzz_"),
        "seconds": summary["seconds"],
        "inputs": summary["tried"],
        "findings": len(summary["findings"]),
        "most_mib": summary["most_mib"],
        "date": utc_now()[:10],
    }
    path = folder / "fuzzing.csv"
    kept = pd.read_csv(path) if path.exists() else pd.DataFrame()
    if len(kept):
        kept = kept[kept["reader"] != row["reader"]]
    table = pd.concat([kept, pd.DataFrame([row])]).sort_values("reader")
    write_csv(path, table)
    head = ("reader", "seconds", "inputs tried", "findings", "most MiB for an input", "date")
    cells = [[str(cell) for cell in line] for line in table.itertuples(index=False)]
    lines = [
        "# Readers, fuzzed",
        "",
        f"Inputs changed by atheris (coverage-guided) and given to the readers of `tests/hostile/fuzz_*.py`. {NOTICE} "
        "Data: drawn slices. A finding is whatever comes out but a sentence for the user, more than "
        f"{CPU_SECONDS:g} CPU seconds, or {MEMORY_MIB} MiB for one input. Earlier findings were mended and are "
        f"cases of the tests now. {common_environment()['cpu']}, beside other work.",
        "",
        *(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *cells)),
    ]
    write_text(folder / "fuzzing.md", "\n".join(lines) + "\n")


def place_of(error: BaseException) -> str:
    """The exception's kind and where it came from in the project: what tells findings apart."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(str(ROOT))
        and "/tests/" not in frame.filename
        and ".venv" not in frame.filename
    ]
    where = (
        f"{Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno}"
        if frames
        else "the target itself"
    )
    return f"{type(error).__name__} at {where}"


def scratch() -> Path:
    """A folder in memory where there is one."""
    parent = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())
    folder = parent / f"fuzz-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    return folder
