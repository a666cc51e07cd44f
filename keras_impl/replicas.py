"""One run on several devices: one process with the model on each of them, and every batch divided among them.

Twin of `torch_impl.replicas`. N devices compute what one does with the same batch. On JAX, by
`keras.distribution.DataParallel`, a step is a function of the whole batch and XLA puts in the sums over the devices. On
TensorFlow, where `keras.distribution` does nothing, `tf.distribute.MirroredStrategy` runs the step once a device, and
what is of the whole batch is asked for (`summed`, `own_rows`).
"""

from typing import Any

import keras
import numpy as np
from keras import distribution, ops

from common.distributed import BATCH_NORM_RULE
from common.errors import StudyError

_count = 1  # set by `join`, once a process


def join(count: int) -> None:
    """Spread a run over `count` devices; with one, nothing happens.

    Raises StudyError where Keras's backend cannot, or shows too few devices. To be called before anything is computed.
    """
    global _count  # noqa: PLW0603 - one process takes part in one run
    if count in (1, _count):
        return
    backend = keras.backend.backend()
    if backend == "torch":
        raise StudyError("Keras on torch cannot share a run; take torch, keras-tensorflow or keras-jax")
    found = _tensorflow_devices(count) if backend == "tensorflow" else distribution.list_devices()
    if len(found) < count:
        raise StudyError(f"{count} devices were asked for, and Keras on {backend} sees {len(found)}")
    if backend == "tensorflow":
        tf = _tensorflow()
        tf.distribute.experimental_set_strategy(tf.distribute.MirroredStrategy(found[:count]))
    else:
        distribution.set_distribution(
            distribution.DataParallel(devices=found[:count], auto_shard_dataset=False)
        )
    _count = count


def describe_replicas() -> dict[str, Any] | None:
    """How the devices of a run share its batches: `replicas` of run.json; None for one device."""
    if _count == 1:
        return None
    ways = {"tensorflow": "tf.distribute.MirroredStrategy", "jax": "keras.distribution.DataParallel"}
    return {
        "devices": _count,
        "processes": 1,
        "batch_norm": BATCH_NORM_RULE,
        "backend": ways[keras.backend.backend()],
    }


def share(batch: Any) -> Any:
    """The rows of an array of the whole batch, (N, ...), divided among the devices, (N / count, ...) each."""
    if _count == 1:
        return batch
    if keras.backend.backend() == "tensorflow":
        tf = _tensorflow()
        parts = np.split(batch, _count)
        return tf.distribute.get_strategy().experimental_distribute_values_from_function(
            lambda context: tf.convert_to_tensor(parts[context.replica_id_in_sync_group])
        )
    layout = distribution.distribution().get_data_layout(batch.shape)
    return distribution.distribute_tensor(ops.convert_to_tensor(batch), layout)


def own_rows(x: keras.KerasTensor) -> keras.KerasTensor:
    """Within a step, of a tensor that every replica has whole, (N, ...): the rows of the replica's own samples."""
    if _count == 1 or keras.backend.backend() != "tensorflow":
        return x
    rows, context = x.shape[0] // _count, _tensorflow().distribute.get_replica_context()
    return x[context.replica_id_in_sync_group * rows :][:rows]


def parts() -> int:
    """How many parts a batch comes in, of which a step sees one; on JAX it sees the whole."""
    return _count if keras.backend.backend() == "tensorflow" else 1


def summed(x: keras.KerasTensor) -> keras.KerasTensor:
    """Within a step, `x` added up over the replicas; the gradient, too, is that of all replicas' losses."""
    if parts() == 1:
        return x
    tf = _tensorflow()
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, x)


def spread(model: keras.Model) -> keras.Model:
    """The model itself: its variables are on every device already."""
    return model


class Dropout(keras.layers.Dropout):
    """Keras's own; replicas draw for the whole batch, all the same, and each takes its own rows of that."""

    def call(self, x: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        if not training or parts() == 1:
            return super().call(x, training=training)
        ones = ops.ones((parts() * x.shape[0], *x.shape[1:]), dtype=x.dtype)
        return x * own_rows(super().call(ones, training=True))


def _tensorflow_devices(count: int) -> list[str]:
    """Names of its GPUs, or of the parts that its CPU is divided into."""
    config = _tensorflow().config
    if not config.list_physical_devices("GPU"):
        (cpu,) = config.list_physical_devices("CPU")
        config.set_logical_device_configuration(cpu, [config.LogicalDeviceConfiguration()] * count)
    kind = "GPU" if config.list_physical_devices("GPU") else "CPU"
    return [device.name for device in config.list_logical_devices(kind)]


def _tensorflow() -> Any:
    import tensorflow  # only the backend that Keras has loaded already

    return tensorflow
