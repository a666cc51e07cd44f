"""One run on several devices: a process a device, each with the whole model and its share of every batch.

Twin of `keras_impl.replicas`. N devices compute what one does with the same batch: losses and batch norm are of the
whole batch (`summed`), gradients are averaged by DistributedDataParallel, dropout masks are shares of one draw.
"""

import atexit
import os
import sys
from datetime import timedelta
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from common import config
from common.distributed import BATCH_NORM_RULE, Place, place, start_ranks, take_share_of_cores
from common.errors import StudyError
from torch_impl import devices

_here = Place()  # set by `join`, once a process


def join(count: int) -> None:
    """Take part in a run on `count` devices; with one, nothing happens.

    The first process starts the others, unless torchrun did, and returns when all have met. Backend: gloo between CPUs,
    NCCL between GPUs. To be called after `devices.choose`. Raises StudyError where there are too few GPUs.
    """
    global _here  # noqa: PLW0603 - one process takes part in one run
    if count == 1 or _here.processes == count:
        return
    _here = place()
    if _here.processes == 1:
        _here = start_ranks(count)
    take_share_of_cores(_here)
    on_gpu = devices.current().type == "cuda"
    if on_gpu:
        if _here.local_rank >= (gpus := torch.cuda.device_count()):
            raise StudyError(f"{count} devices were asked for, and PyTorch sees {gpus} GPU(s); ask for fewer")
        torch.cuda.set_device(_here.local_rank)
    if _here.meeting and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all on one machine: nothing goes by its network
    distributed.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=f"file://{_here.meeting}" if _here.meeting else "env://",
        rank=_here.rank,
        world_size=_here.processes,
        timeout=timedelta(seconds=config.RANK_TIMEOUT_SECONDS),
    )
    atexit.register(distributed.destroy_process_group)


def describe_replicas() -> dict[str, Any] | None:
    """How the devices of a run share its batches: `replicas` of run.json; None for one device."""
    if parts() == 1:
        return None
    return {
        "devices": parts(),
        "processes": parts(),
        "batch_norm": BATCH_NORM_RULE,
        "backend": distributed.get_backend(),
    }


def share(batch: Any) -> Any:
    """This process's rows of an array of the whole batch, (N, ...) -> (N / count, ...)."""
    rows = len(batch) // parts()
    return batch if parts() == 1 else batch[_here.rank * rows : (_here.rank + 1) * rows]


def own_rows(x: torch.Tensor) -> torch.Tensor:
    """Within a step, of a tensor that every replica has whole, (N, ...): the rows of the replica's own samples."""
    return share(x)


def parts() -> int:
    """How many parts a batch comes in, of which a step sees one."""
    return _here.processes


def summed(x: torch.Tensor) -> torch.Tensor:
    """Within a step, `x` added up over the replicas; the gradient, too, is that of all replicas' losses."""
    return x if parts() == 1 else _Sum.apply(x)


def spread(model: nn.Module) -> nn.Module:
    """The model to be called in training steps: after `backward`, gradients are means over the replicas.

    As every replica has the loss of the whole batch, that mean is its gradient.
    """
    if parts() == 1:
        return model
    ids = [torch.cuda.current_device()] if devices.current().type == "cuda" else None
    # Batch norm's statistics are equal everywhere already
    return DistributedDataParallel(model, device_ids=ids, forward_sync_buffers=False)


class Dropout(nn.Dropout):
    """PyTorch's own; replicas draw for the whole batch, all the same, and each takes its own rows of that."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or parts() == 1:
            return super().forward(x)
        return x * own_rows(super().forward(x.new_ones((parts() * len(x), *x.shape[1:]))))


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return _add_up(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _add_up(gradient)


def _add_up(x: torch.Tensor) -> torch.Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total)
    return total
