"""What a run takes of a node, so that a cluster puts no more on one than it carries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from common import config
from common.config import Run, Study
from common.engines import asked_threads
from common.flops import forward_work
from common.results import RunRecord

FLOAT32_BYTES = 4
MIB = 2**20


@dataclass(frozen=True)
class Node:
    """A machine of a cluster: what of it can be given away in all."""

    cpus: float
    gpus: float
    memory_mib: float


@dataclass(frozen=True)
class Demand:
    """What a run asks for."""

    cpus: int
    gpus: float
    memory_mib: int

    def fits(self, node: Node) -> bool:
        """Whether it can be met where nothing else runs."""
        return self.cpus <= node.cpus and self.gpus <= node.gpus and self.memory_mib <= node.memory_mib


class Memory:
    """What runs are expected to take: as the largest finished one of their kind, else as their model should."""

    def __init__(self, study: Study, records: Iterable[RunRecord] = ()) -> None:
        self._study = study
        self._peaks: dict[tuple[str, ...], float] = {}
        for record in records:
            self.learn(record)

    def learn(self, record: RunRecord | None) -> None:
        """Take note of what a finished run took."""
        peak = (record.document.get("memory") or {}).get("peak_rss_mib") if record else None
        if record and record.complete and isinstance(peak, int | float):
            processes = (record.document.get("replicas") or {}).get("processes", 1)
            for kind in _kinds(record.run):
                self._peaks[kind] = max(peak * processes, self._peaks.get(kind, 0.0))

    def expected_mib(self, run: Run) -> int:
        """With a margin, of all processes of a run together: a record tells that of the first, which
        is the largest, for it writes the files. They share a batch; what a framework takes by itself each of them has.
        """
        for kind in _kinds(run):
            if kind in self._peaks:
                return round(config.RUN_MEMORY_MARGIN * self._peaks[kind])
        name = f"{run.task}/{run.model}"
        values = forward_work(self._study.specs[name]).activations * self._study.recipes[name].batch_size
        base = config.RUN_BASE_MIB * processes_of(run, self._study.devices)
        return round(base + config.RUN_ACTIVATION_COPIES * FLOAT32_BYTES * values / MIB)


def processes_of(run: Run, devices: int) -> int:
    """How many a run on so many devices has: in PyTorch one a device, in Keras one for all."""
    return devices if run.framework == "torch" else 1


def _kinds(run: Run) -> list[tuple[str, ...]]:
    """Of runs that take the same memory, whatever their seed and fold, the narrowest first."""
    return [(run.task, run.model, run.framework, run.lane), (run.task, run.model, run.framework)]


def node_of(resources: Mapping[str, float]) -> Node:
    """A node from what Ray says of it (memory in bytes)."""
    return Node(resources.get("CPU", 0.0), resources.get("GPU", 0.0), resources.get("memory", 0.0) / MIB)


def threads_on(nodes: Iterable[Node], study: Study, gpus: float) -> int:
    """Compute threads of each device of a run on a cluster, one number for all nodes, for sums depend on it: as asked
    for, else the cores of the smallest node that can take a run, divided among the runs that are to be there at a time
    (`study.workers`, or one a share of its GPUs) and their devices. `gpus`: that a run takes.
    """
    if threads := asked_threads(study):
        return threads
    shares = [
        node.cpus // (max(study.workers, node.gpus // gpus if gpus else 1) * study.devices)
        for node in nodes
        if node.cpus >= 1 and node.gpus >= gpus
    ]
    return max(1, int(min(shares, default=1)))


def demand_of(nodes: Sequence[Node], usual: int, cpus: int, gpus: float, memory_mib: int) -> Demand:
    """What a run with `cpus` threads in all asks for, in a study whose runs have `usual`.

    No more memory than the largest node has, which it then has for itself; and where a repeat has a thread more than
    nodes have cores, as many as they have.
    """
    suited = [node for node in nodes if node.cpus >= usual and node.gpus >= gpus]
    if not suited:  # none so far: one may come
        return Demand(cpus, gpus, memory_mib)
    asked = min(cpus, int(max(node.cpus for node in suited)))
    memory = max(node.memory_mib for node in suited if node.cpus >= asked)
    return Demand(asked, gpus, min(memory_mib, int(memory)))


def describe_nodes(nodes: Sequence[Node]) -> str:
    """`2 nodes with 8 CPUs, 0 GPUs and 30 GiB`."""
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    memory = sum(node.memory_mib for node in nodes) / 1024
    return (
        f"{len(nodes)} node{'s' * (len(nodes) != 1)} with {cpus:g} CPUs, {gpus:g} GPUs and {memory:.0f} GiB"
    )
