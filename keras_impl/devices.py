"""The device: what it is told before the first tensor exists, and what it tells. Twin of `torch_impl.devices`.

Keras has no words for most of this, so here its backend is spoken to directly, whichever it is.
"""

import os
from typing import Any

import keras
from keras import ops

from common.cuda_packages import NO_GPU, unmet
from common.errors import StudyError
from common.framework import Array, Weights
from common.measure import visible_gpus

_device, _deterministic = "cpu", False  # set by `choose`, once a process


def choose(wanted: str, deterministic: bool = False) -> str:
    """Settle the device and its settings for this process; returns it, "cpu" or "cuda".

    TF32 is off, so that float32 means float32. On CUDA the fastest kernel of each shape is found by timing, which
    TensorFlow and XLA do unless told otherwise: shapes never change in a run. Which kernel wins may differ from run to
    run, so runs on a GPU repeat to rounding, not to the bit, unless they are `deterministic`: then kernels are chosen
    without a clock, and an operation that cannot be repeated raises. Raises StudyError if "cuda" cannot be had.

    Which GPUs a process may see was settled by its environment, because Keras computes wherever its backend does.
    """
    global _device, _deterministic
    found = str(ops.zeros(()).device).lower()  # each backend has a spelling of its own
    backend = keras.backend.backend()
    if wanted == "cuda" and "cpu" in found:
        raise StudyError(
            f"device 'cuda' was asked for, but Keras on {backend} computes on {found}: {why_no_cuda()}; "
            "use --device cpu"
        )
    _device, _deterministic = "cpu" if "cpu" in found else "cuda", deterministic
    if backend == "tensorflow":
        _tensorflow().config.experimental.enable_tensor_float_32_execution(False)
        if deterministic:  # for good: TensorFlow has no way back
            _tensorflow().config.experimental.enable_op_determinism()
    elif backend == "jax":
        _jax().config.update("jax_default_matmul_precision", "highest")
    else:
        torch = _torch()
        torch.set_flush_denormal(True)  # as TensorFlow and XLA do
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = not deterministic
        torch.backends.cudnn.deterministic = deterministic
        torch.use_deterministic_algorithms(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = False  # as in PyTorch's stack
    return _device


def current() -> str:
    """The device that was chosen."""
    return _device


def settings() -> dict[str, str]:
    """What decides how the device computes, as the framework itself tells it, for the record of a run.

    Where a GPU is there and not used, "no_cuda" says why.
    """
    backend, on_gpu = keras.backend.backend(), _device == "cuda"
    # TensorFlow and XLA time kernels unless told otherwise
    asked = os.environ.get("TF_DETERMINISTIC_OPS", "0").lower() in ("1", "true")
    deterministic = _deterministic or (asked and backend == "tensorflow")
    benchmark = os.environ.get("TF_CUDNN_USE_AUTOTUNE", "1") != "0" and not deterministic
    if backend == "tensorflow":
        tf = _tensorflow()
        tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
        build = tf.sysconfig.get_build_info()
        precision = "default" if tf32 else "highest"
        cuda = f"{build.get('cuda_version')}, cuDNN {build.get('cudnn_version')}"
    elif backend == "jax":
        jax = _jax()
        precision = str(jax.config.jax_default_matmul_precision)
        tf32 = precision != "highest"
        cuda = jax.devices()[0].client.platform_version.splitlines()[-1]
    else:
        torch = _torch()
        flags = torch.backends
        precision = torch.get_float32_matmul_precision()
        tf32 = "tf32" in (flags.cuda.matmul.fp32_precision, flags.cudnn.conv.fp32_precision)
        deterministic, benchmark = torch.are_deterministic_algorithms_enabled(), flags.cudnn.benchmark
        cuda = f"{torch.version.cuda}, cuDNN {flags.cudnn.version()}"
    unused = {"no_cuda": why_no_cuda()} if not on_gpu and visible_gpus() else {}
    return {
        "matmul_precision": precision,
        "tf32": "on" if tf32 else "off",
        "cudnn_benchmark": ("on" if benchmark else "off") if on_gpu else "not used",
        "denormals": "flushed to zero",
        "deterministic_kernels": "on" if deterministic else "not asked for",
        "cuda": cuda if on_gpu else "not used",
        **unused,
    }


def why_no_cuda() -> str:
    """Why Keras's backend sees no CUDA device, and what to install, without a final full stop; empty where it does."""
    if "cpu" not in str(ops.zeros(()).device).lower():
        return ""
    if not visible_gpus():
        return NO_GPU
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _why_tensorflow(_tensorflow())
    if backend == "jax":
        return _why_jax(_jax())
    torch = _torch()
    if torch.version.cuda is None:
        return f"this PyTorch ({torch.__version__}) is built without CUDA; install PyPI's, not that of the CPU index"
    return f"PyTorch, built for CUDA {torch.version.cuda}, finds no device that it can use; see `nvidia-smi`"


def read_generators() -> dict[str, Array]:
    """State of each generator that draws for the framework, uint8: "cpu", and "cuda" where that is the device.

    None but on the torch backend, where dropout of a layer without a seed of its own draws from PyTorch's.
    """
    if keras.backend.backend() != "torch":
        return {}
    torch = _torch()
    states = {"cpu": torch.get_rng_state()}
    if _device == "cuda":
        states["cuda"] = torch.cuda.get_rng_state()
    return {name: state.numpy().copy() for name, state in states.items()}


def write_generators(states: Weights) -> None:
    """Inverse of `read_generators`."""
    if keras.backend.backend() != "torch":
        return
    torch = _torch()
    torch.set_rng_state(torch.from_numpy(states["cpu"].copy()))
    if _device == "cuda":
        torch.cuda.set_rng_state(torch.from_numpy(states["cuda"].copy()))


def synchronise() -> None:
    """Return when the device has finished all work given to it."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        _tensorflow().test.experimental.sync_devices()
    elif backend == "jax":
        # On a CPU, too, it computes behind our back, and in no fixed order: wait for every array
        for array in _jax().live_arrays():
            if not array.is_deleted():
                array.block_until_ready()
    elif _device == "cuda":
        _torch().cuda.synchronize()


def peak_device_mib() -> float | None:
    """Largest memory that tensors held on the device so far, as its allocator counts it; None on a CPU.

    CUDA's own context and the allocator's reserve (hundreds of MiB) are not in it, in any framework.
    """
    if _device != "cuda":
        return None
    backend = keras.backend.backend()
    if backend == "tensorflow":
        peak = _tensorflow().config.experimental.get_memory_info("GPU:0")["peak"]
    elif backend == "jax":
        statistics = _jax().local_devices()[0].memory_stats()
        if not statistics:  # of an allocator that keeps none
            return None
        peak = statistics["peak_bytes_in_use"]
    else:
        peak = _torch().cuda.max_memory_allocated()
    return float(peak) / 2**20


def _why_tensorflow(tf: Any) -> str:
    build = tf.sysconfig.get_build_info()
    if not build["is_cuda_build"]:
        return (
            f"this TensorFlow ({tf.__version__}) is built without CUDA; install PyPI's `tensorflow[and-cuda]`"
        )
    name = f"tensorflow[and-cuda]=={tf.__version__}"
    if lacking := unmet("tensorflow", "and-cuda"):
        more = f" and {len(lacking) - 2} more" if len(lacking) > 2 else ""
        return (
            f"it lacks {', '.join(lacking[:2])}{more}; run `pip install '{name}'`, where PyTorch's CUDA stands in the "
            "way in an environment of its own (--python-keras)"
        )
    return f"built for CUDA {build['cuda_version']}, it finds no device that it can use; see `nvidia-smi`"


def _why_jax(jax: Any) -> str:
    lacking = [unmet("jax", extra) for extra in ("cuda12", "cuda13")]
    if all(lacking):
        name = f"jax[cuda12]=={jax.__version__}"
        return f"its CUDA plugin is not installed; run `pip install '{name}'` (cuda13 beside PyTorch for CUDA 13)"
    try:
        jax.devices("cuda")
    except RuntimeError as error:
        return f"its CUDA plugin is installed and says: {str(error).splitlines()[0].rstrip('. ')}"
    return "JAX_PLATFORMS keeps it on another platform"


def _tensorflow() -> Any:
    import tensorflow  # here and below: only the backend that Keras has loaded already

    return tensorflow


def _jax() -> Any:
    import jax

    return jax


def _torch() -> Any:
    import torch

    return torch
