"""The device: what it is told before the first tensor exists, and what it tells. Twin of `keras_impl.devices`."""

import torch

from common.cuda_packages import NO_GPU
from common.errors import StudyError
from common.framework import Array, Weights
from common.measure import visible_gpus

# TF32 in matrix products and in convolutions as PyTorch comes, before `choose` turns it off; for `defaults`
STOCK_TF32 = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)

_device = torch.device("cpu")  # set by `choose`, once a process


def choose(wanted: str, deterministic: bool = False) -> str:
    """Settle the device and its settings for this process; returns it, "cpu" or "cuda".

    TF32 is off, so that float32 means float32. On CUDA cuDNN times its kernels and keeps the fastest for each shape:
    shapes never change in a run, and TensorFlow and XLA choose theirs in the same way. Which kernel wins may differ
    from run to run, so runs on a GPU repeat to rounding, not to the bit, unless they are `deterministic`: then kernels
    are chosen without a clock, and an operation that cannot be repeated raises. Raises StudyError if "cuda" cannot be
    had.
    """
    global _device  # noqa: PLW0603 - one process runs one framework on one device
    available = wanted != "cpu" and torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise StudyError(
            f"device 'cuda' was asked for, but PyTorch sees no CUDA device: {why_no_cuda()}; use --device cpu"
        )
    # As TensorFlow and XLA do; before the first parallel operation, whose threads inherit it
    torch.set_flush_denormal(True)
    # The older of two interfaces: it sets both, and `torch.compile` still reads by it, which fails after the newer one
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic)
    # Else every new tensor is filled with NaN first, to show who reads what nobody wrote
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    _device = torch.device("cuda" if available else "cpu")
    return _device.type


def current() -> torch.device:
    """The device that was chosen."""
    return _device


def settings() -> dict[str, str]:
    """What decides how the device computes, as the framework itself tells it, for the record of a run.

    Where a GPU is there and not used, "no_cuda" says why.
    """
    backends = torch.backends
    products, convolutions = backends.cuda.matmul, backends.cudnn.conv  # type: ignore[attr-defined]
    tf32 = "tf32" in (products.fp32_precision, convolutions.fp32_precision)
    on_gpu = _device.type == "cuda"
    unused = {"no_cuda": why_no_cuda()} if not on_gpu and visible_gpus() else {}
    return {
        "matmul_precision": torch.get_float32_matmul_precision(),
        "tf32": "on" if tf32 else "off",
        "cudnn_benchmark": ("on" if backends.cudnn.benchmark else "off") if on_gpu else "not used",
        "denormals": "flushed to zero",
        "deterministic_kernels": "on" if torch.are_deterministic_algorithms_enabled() else "not asked for",
        "cuda": f"{torch.version.cuda}, cuDNN {backends.cudnn.version()}" if on_gpu else "not used",
        **unused,
    }


def why_no_cuda() -> str:
    """Why PyTorch sees no CUDA device, and what to install, without a final full stop; empty where it sees one."""
    if torch.cuda.is_available():
        return ""
    if not visible_gpus():
        return NO_GPU
    if torch.version.cuda is None:
        version = torch.__version__.split("+")[0]
        return (
            f"this PyTorch ({torch.__version__}) is built without CUDA; run `pip install --force-reinstall "
            f"torch=={version}` with PyPI's index, not PyTorch's CPU index"
        )
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return f"built for CUDA {torch.version.cuda}, it says: {str(error).splitlines()[0].rstrip('. ')}"
    return f"built for CUDA {torch.version.cuda}, it finds no device that it can use; see `nvidia-smi`"


def read_generators() -> dict[str, Array]:
    """State of each generator that draws for the framework, uint8: "cpu", and "cuda" where that is the device."""
    states = {"cpu": torch.get_rng_state()}
    if _device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(_device)
    return {name: state.numpy().copy() for name, state in states.items()}


def write_generators(states: Weights) -> None:
    """Inverse of `read_generators`."""
    torch.set_rng_state(torch.from_numpy(states["cpu"].copy()))
    if _device.type == "cuda":
        torch.cuda.set_rng_state(torch.from_numpy(states["cuda"].copy()), _device)


def synchronise() -> None:
    """Return when the device has finished all work given to it."""
    if _device.type == "cuda":
        torch.cuda.synchronize(_device)


def peak_device_mib() -> float | None:
    """Largest memory that tensors held on the device so far, as its allocator counts it; None on a CPU.

    CUDA's own context and the allocator's reserve (hundreds of MiB) are not in it, in any framework.
    """
    return torch.cuda.max_memory_allocated(_device) / 2**20 if _device.type == "cuda" else None
