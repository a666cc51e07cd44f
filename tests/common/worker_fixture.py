"""Workers for the tests of engines: one that misbehaves as it is told, and the real one around the tiny framework."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil

from common.config import Run
from common.results import FORMAT

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent

# A worker that imports nothing of the project: fast, and free to misbehave. Its fault is its run's in faults.json.
FAKE_WORKER = (
    f"FORMAT = {FORMAT}"
    + """
import faulthandler, json, os, signal, sys, time
from pathlib import Path

study, path = Path(sys.argv[2]), sys.argv[3]
task, model, framework, lane, last = path.split("/")
seed, fold = (int(part[4:]) for part in last.split("-"))
fault = json.loads((study / "faults.json").read_text()).get(str(seed), "")
cores = sorted(os.sched_getaffinity(0))
seen = {"argv": sys.argv[1:], "environment": dict(os.environ), "pid": os.getpid()}
print(json.dumps({"pid": os.getpid()}), flush=True)
(study / f"seen{seed}.json").write_text(json.dumps(seen))

def complete():
    run = dict(task=task, model=model, framework=framework, lane=lane, seed=seed, fold=fold, repeat=0)
    record = {"format": FORMAT, "status": "complete", "reason": None, "run": run}
    (study / "runs" / path / "run.json").write_text(json.dumps(record))

if fault == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
elif fault == "killed once" and not (study / f"killed{seed}").exists():
    (study / f"killed{seed}").touch()
    print("a first try", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
elif fault == "killed at the end":
    complete()
    os.kill(os.getpid(), signal.SIGKILL)
elif fault == "aborted":
    print("terminate called recursively", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGABRT)
elif fault == "crashes":
    faulthandler.enable()
    os.kill(os.getpid(), signal.SIGSEGV)
elif fault == "exits":
    print("ImportError: no module named nothing", file=sys.stderr, flush=True)
    sys.exit(7)
elif fault == "silent":
    sys.exit(0)
elif fault == "says why":
    print(json.dumps({"failed": "the device has no memory left"}), flush=True)
    sys.exit(2)
elif fault == "fails after its record":
    complete()
    sys.exit(1)
elif fault == "sleeps":
    time.sleep(60)
elif fault == "fails after a second":
    time.sleep(1)
    sys.exit(2)
elif fault == "babbles":
    sys.stdout.buffer.write(b"\\xff\\xfe no text\\n[1, 2]\\n3\\nnull\\n{broken\\n\\n" + b"x" * 200_000 + b"\\n")
    sys.stderr.write("y" * 200_000 + "\\n")
    for line in ({"steps": 3}, {"steps": 3, "of": 0}, {"steps": "3", "of": 4}, {"epoch": 2}, {"complete": 1}):
        print(json.dumps(line))  # a library's own JSON
    print(json.dumps({"steps": 2, "of": 2}), end="", flush=True)  # and no newline at the end
    complete()
else:
    print(json.dumps({"steps": 1, "of": 2}), flush=True)
    complete()
"""
)

# The real worker around the tiny framework. A run that has an empty file in TINY_HANGS hangs in its first try, and
# leaves its process id there.
TINY_WORKER = """
import os, sys, time
from pathlib import Path
from common import cli, config
from tiny import SPEC, TinyFramework

asked = Path(os.environ["TINY_HANGS"]) / sys.argv[3].replace("/", "-")

class Worker(TinyFramework):
    def train_epoch(self, trainer, batches):
        if asked.exists() and not asked.read_text():
            asked.write_text(str(os.getpid()))
            time.sleep(600)
        return super().train_epoch(trainer, batches)

config.MODELS["cnn"] = SPEC
sys.exit(cli.main(Worker(sys.argv[3].split("/")[2]), "tiny_worker"))
"""

# What starts them: `python -c TINY_DRIVER STUDY [ENGINE ADDRESS]`, on a cluster without a shared folder
TINY_DRIVER = """
import sys
from pathlib import Path
from common import engines
from common.results import read_study

engines.module_of = lambda framework: "tiny_worker"
record, engine = read_study(Path(sys.argv[1])), engines.Engine(*sys.argv[2:], shared=len(sys.argv) == 2)
engines.execute(record.directory, record.study, record.study.runs(), lambda run, event: None, engine)
"""


def hang_file(folder: Path, run: Run) -> Path:
    """An empty file that makes the tiny worker of a run hang, with `folder` in TINY_HANGS."""
    path = folder / str(run.path).replace("/", "-")
    path.write_text("")  # whatever an earlier test left there
    return path


def gone(pid: int) -> bool:
    """Ended, whether or not its parent has asked for it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()
