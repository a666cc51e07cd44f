"""Put every kind of hostile input through the tool as a user would, and say what became of it.

    python tests/hostile/hostile_table.py [--out benchmarks/results] [--only WORDS]

Each kind runs in a process of its own, forked from one that has everything loaded, under a limit of time: what it took
beyond the start is measured by the kernel. Started by the superuser, who may read everything, that process gives this
right up. With --out: hostile.csv and hostile.md.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import corpus
import cv2
import kinds
import pandas as pd
import records
from kinds import LEFT_OUT, READ, REFUSED, Kind

from common import inference, pretrained, results, weights
from common.audit import judge, write_audit
from common.config import NOTICE
from common.data.audit import audit_data, find_all
from common.data.cache import build_cache, keep_readable
from common.data.layouts import open_dataset
from common.data.looks import take_looks
from common.errors import StudyError
from common.pipeline import Pipeline, list_pictures, run_pipeline, write_answers
from common.report import audit_views, costs, reading, tables
from common.starts import pretrained_of

LIMIT_MIB = 1024
LIMIT_SECONDS = 5.0  # of CPU time; as many of standing still are a hang
KILL_SECONDS = 60  # of CPU time, and of wall time twice that
SIZE = 64
NOT_TRIED = "not tried"  # this machine cannot make it


@dataclass(frozen=True)
class Row:
    """What became of one kind."""

    group: str
    kind: str
    files: int
    expected: str
    # "left out" | "refused" | "read" | "not tried", or what must not be: "mixed" | "crash" | "killed" | "hang"
    outcome: str
    cpu_seconds: float
    wall_seconds: float
    still_seconds: float  # of them, those in which it neither computed nor waited for a core
    mib: float  # largest resident set beyond the start
    reason: str

    @property
    def well(self) -> bool:
        return self.outcome == self.expected and self.cpu_seconds < LIMIT_SECONDS and self.mib < LIMIT_MIB


def is_hang(cpu: float, wall: float, still: float) -> bool:
    """Whether a process waited for something that may never come. A busy machine alone makes no hang: there a process
    waits for a core.
    """
    return wall > LIMIT_SECONDS and cpu < wall / 2 and still > LIMIT_SECONDS


# --- through the tool: each gives (outcome, reason) ------------------------------------------------------------------


def through_data(root: Path, out: Path, files: int, masks: bool) -> tuple[str, str]:
    """Table, cache, audit, then predictions without a model. Hostile files are those named 99, or the one mask."""
    samples = open_dataset(root)
    cache = build_cache(samples, SIZE, out / "cache", threads=1, masks=True)
    readable = keep_readable(samples, cache)
    looks = take_looks(samples, masks=True)
    judged = judge(samples, looks)
    audit = audit_data(judged, looks=looks)
    evidence = [{"finding": one.name, **row} for one in find_all(judged, looks) for row in one.evidence]
    write_audit(audit, evidence, out / "audit")
    results.write_text_table(out / "samples.csv", readable)
    pd.testing.assert_frame_equal(
        results.read_text_table(out / "samples.csv", ("id",)), readable, check_dtype=False
    )
    answers = list(
        write_answers(run_pipeline(None, Pipeline(None, None), list_pictures([root])), out / "p", {})
    )
    found = cache.unreadable_masks if masks else cache.unreadable
    lost = {row.id for row in found}
    same = lost == {row.id for row in (looks.unreadable_masks if masks else looks.unreadable)}
    told = masks or {answer.path.stem for answer in answers if answer.fault} == {
        Path(name).name for name in lost
    }
    if not lost:
        return READ, ""
    return (LEFT_OUT if len(lost) == files and same and told else "mixed"), found[0].reason


def through_weights(root: Path) -> tuple[str, str]:
    """Every reader of a weights file has to refuse it, or what it says of itself."""
    path, reasons = root / "model.safetensors", []
    for read in (
        lambda: inference.find_checkpoints([path], "torch") and weights.read_checkpoint(path),
        lambda: pretrained.load_pretrained(path, {"stem.0.weight": (96, 3, 4, 4)}, "head"),
        lambda: pretrained.resolve_weights(str(path), ["convnext_tiny"]),
    ):
        try:
            read()
            return READ, "a reader took it"
        except StudyError as error:
            reasons.append(str(error))
    return REFUSED, reasons[0]


def through_study(root: Path, out: Path, whole: bool) -> tuple[str, str]:
    """Records, predictions, tables; with `whole` also the pages."""
    record = results.read_study(root)
    for size in record.document.get("caches", ()):
        record.cache_directory(int(size))
    for entry in pretrained_of(record).values():
        pretrained.read_kept(root, entry)
    record.samples()
    record.split()
    evidence = reading.read_evidence(root)
    tables.run_table(evidence)
    tables.data_table(evidence)
    audit_views.audit_section(evidence.audit)
    for one in evidence.record.complete:
        one.history()
        costs.cost(one)
    if whole:
        from report_fixture import write_words

        write_words(root)
        check_page(root)
    notes = [note for one in evidence.comparisons for note in one.notes]
    faults = [str(one.document.get("reason")) for one in evidence.failed]
    del out
    return (LEFT_OUT, (notes + faults)[0]) if notes or faults else (READ, "")


def check_page(root: Path) -> None:
    """No page runs or shows as markup what stands in a file; no table gives a spreadsheet a formula."""
    for name in ("report.html", "report.md"):
        text = (root / name).read_text(encoding="utf-8")
        assert "<script>alert" not in text, name
        assert name.endswith(".md") or 'onload="alert' not in text, name  # in Markdown it is text
        assert "\x1b" not in text, name
    for path in (root / "tables").glob("*.csv"):
        cells = pd.read_csv(path, dtype=str, keep_default_na=False, header=None).to_numpy().ravel()
        numbers = pd.to_numeric(pd.Series(cells), errors="coerce").notna()
        bad = [
            cell
            for cell, number in zip(cells, numbers, strict=True)
            if not number and cell[:1] in "=+-@\t\r" and cell
        ]
        assert not bad, (path.name, bad[:3])


def drive(kind: Kind, root: Path, out: Path, files: int) -> tuple[str, str]:
    try:
        if kind.group in ("weights",):
            return through_weights(root)
        if kind.group in ("predictions", "record"):
            return through_study(root, out, "HTML" in kind.name or "setting" in kind.name)
        return through_data(root, out, files, kind.group in ("mask", "overlay"))
    except StudyError as error:
        return REFUSED, str(error)


# --- one kind, in processes of its own ------------------------------------------------------------------------------


def prepare(kind: Kind, root: Path) -> int:
    if kind.group in ("predictions", "record"):
        shutil.copytree(root.parent / "study", root)
    elif kind.group == "weights":
        root.mkdir()
    else:
        corpus.write_dataset(root)
    return kind.write(root)


def in_child(work, seconds: int) -> tuple[dict, resource.struct_rusage, int]:  # type: ignore[no-untyped-def]
    """(what `work` gave, as JSON; what it used; its exit status) of a forked process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.close(reader)
            signal.alarm(2 * seconds)
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
            os.write(writer, json.dumps(work()).encode())
            code = 0
        except BaseException as error:  # the parent tells
            os.write(
                writer,
                json.dumps({"outcome": "crash", "reason": f"{type(error).__name__}: {error}"[:300]}).encode(),
            )
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read()
    _, status, used = os.wait4(child, 0)
    return (json.loads(said) if said else {}), used, status


def obey_permissions() -> None:
    """Give up the superuser's rights to pass over the permissions of files: DAC_OVERRIDE (1) and DAC_READ_SEARCH (2) of
    capabilities(7). Another user would not do: Python may lie where that one cannot read it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3; this process
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: the low halves, then the high ones
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    for place in range(3):
        sets[place] &= ~(1 << 1 | 1 << 2)
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


def still_since(began: float) -> float:
    """Seconds since `time.monotonic()` was `began` in which this process, then new, neither computed nor waited for a
    core: its main thread, as Linux counts it; NaN where nothing counts.
    """
    wall = time.monotonic() - began
    try:
        computed, queued, _ = map(int, Path("/proc/self/schedstat").read_text().split())
    except (OSError, ValueError):
        return float("nan")
    return max(0.0, wall - (computed + queued) / 1e9)


def forbid_network() -> None:
    """Nothing that is read may be asked for elsewhere."""

    def refuse(*arguments: object) -> None:
        raise AssertionError(f"went to the network: {arguments[1:]}")

    for name in ("connect", "connect_ex", "sendto"):
        setattr(socket.socket, name, refuse)
    socket.getaddrinfo = refuse  # type: ignore[assignment]


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def remove(folder: Path) -> None:
    """Also what its owner may not read."""
    for inner in [path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink()]:
        inner.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def try_kind(kind: Kind, scratch: Path) -> Row:
    """What becomes of one kind."""
    root, out = scratch / "input", scratch / "out"
    for folder in (root, out):
        remove(folder)
    made, _, _ = in_child(lambda: {"files": prepare(kind, root)}, KILL_SECONDS)
    if "files" not in made:
        raise RuntimeError(f"{kind.name} could not be written: {made}")
    out.mkdir()
    before = resident_mib()

    began = time.monotonic()

    def work() -> dict[str, object]:
        own = time.monotonic()
        forbid_network()
        if kind.forbidden and os.geteuid() == 0:
            obey_permissions()
        if kind.forbidden and all(os.access(path, os.R_OK) for path in root.rglob("*")):
            return {"outcome": NOT_TRIED, "reason": "here everyone may read everything"}
        outcome, reason = drive(kind, root, out, made["files"])
        return {"outcome": outcome, "reason": reason, "still": still_since(own)}

    answer, used, _ = in_child(work, KILL_SECONDS)
    wall, cpu = time.monotonic() - began, used.ru_utime + used.ru_stime
    still = float(answer.get("still", wall - cpu))
    stray = [path.name for path in scratch.iterdir() if path.name not in ("input", "out", "study")]
    if stray:
        answer = {"outcome": "crash", "reason": f"wrote {stray} outside of its folder"}
    if is_hang(cpu, wall, still):
        answer["outcome"] = "hang"
    return Row(
        kind.group, kind.name, made["files"], kind.expected, answer.get("outcome", "killed"),
        round(cpu, 2), round(wall, 2), round(still, 2), round(max(0.0, used.ru_maxrss / 1024 - before), 1),
        " ".join(answer.get("reason", "").split())[:300].replace(str(scratch), "..."),
    )  # fmt: skip


def try_all(wanted: Sequence[Kind]) -> Iterator[tuple[Kind, Row]]:
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        in_child(lambda: str(records.write_study(scratch / "study")), KILL_SECONDS)
        warm(scratch)
        for kind in wanted:
            yield kind, try_kind(kind, scratch)


def warm(scratch: Path) -> None:
    """Load and compile what is loaded on first use, so that it is not counted as some kind's."""
    from common.data import dicom  # noqa: F401

    through_data(corpus.write_dataset(scratch / "input"), scratch / "out", 0, False)
    for folder in ("input", "out"):
        shutil.rmtree(scratch / folder)


def markdown(rows: Sequence[Row]) -> str:
    """The table for a reader, one line a group of kinds with the same fate, then every kind."""
    tried = [row for row in rows if row.outcome != NOT_TRIED]
    missing = [f"{row.group}: {row.kind} ({row.reason})" for row in rows if row.outcome == NOT_TRIED]
    head = (
        "| input | kinds | files | left out, with a row | refused in a sentence | read, and rightly | else |"
    )
    text = [
        "# Hostile and odd input", "",
        f"What became of {len(tried)} kinds of input, each put through the tool as a user would. {NOTICE} "
        "Data: drawn slices.", "",
        head, "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for group in dict.fromkeys(row.group for row in tried):
        those = [row for row in tried if row.group == group]
        counts = [sum(row.outcome == outcome for row in those) for outcome in (LEFT_OUT, REFUSED, READ)]
        cells = [group, len(those), sum(row.files for row in those), *counts, len(those) - sum(counts)]
        text.append(f"| {' | '.join(map(str, cells))} |")
    most = {name: max(getattr(row, name) for row in rows) for name in ("cpu_seconds", "wall_seconds", "mib")}
    text += ["", f"Not tried: {'; '.join(missing) or 'none'}.", "",
             f"Slowest: {most['cpu_seconds']:.1f} CPU seconds, {most['wall_seconds']:.1f} by the clock. Largest: "
             f"{most['mib']:.0f} MiB beyond the start. Still: seconds by the clock in which it neither computed nor "
             f"waited for a core; more than {LIMIT_SECONDS:.0f} of them, while it computed for less than half of the "
             "time, are a hang.", "",
             "| input | kind | files | outcome | CPU s | clock s | still s | MiB | reason |",
             "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        cells = [row.group, row.kind, row.files, row.outcome, row.cpu_seconds, row.wall_seconds,
                 row.still_seconds, round(row.mib), row.reason]  # fmt: skip
        text.append(
            f"| {' | '.join(str(cell).replace('|', chr(92) + '|').replace('<', '&lt;') for cell in cells)} |"
        )
    return "\n".join(text) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", default="", help="kinds whose group or name holds these words")
    parser.add_argument("--json", action="store_true", help="a row a line, for the test")
    options = parser.parse_args()
    rows = []
    for kind, row in try_all(
        [one for one in kinds.all_kinds() if options.only in f"{one.group}: {one.name}"]
    ):
        rows.append(row)
        if options.json:
            print(json.dumps(asdict(row) | {"well": row.well, "says": kind.says}), flush=True)
        else:
            mark = "" if row.well and kind.says in row.reason else "  <-- "
            print(f"{mark}{row.group}: {row.kind}: {row.outcome} ({row.cpu_seconds} CPU s in {row.wall_seconds} s, "
                  f"{row.mib:.0f} MiB) {row.reason}", flush=True)  # fmt: skip
    if options.out:
        results.write_csv(options.out / "hostile.csv", pd.DataFrame(map(asdict, rows)).map(results.defused))
        results.write_text(options.out / "hostile.md", markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
