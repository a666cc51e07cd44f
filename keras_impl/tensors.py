"""Arrays in and out, precision, threads, seed, environment. Twin of `torch_impl.tensors`."""

from importlib import metadata

import keras
import numpy as np
from keras import ops

from common.framework import Array, Settings, Weights
from common.weights import check_weights
from keras_impl import devices, replicas

# Keras's variable -> PyTorch's tensor. What `layers` makes itself, and every bias, has PyTorch's name already.
TENSOR_NAMES = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "layer_scale": "gamma",
}
# (Keras's variable, number of axes) -> the axes that carry it over; what has one axis stays as it is. Convolutions,
# (h, w, in, out) -> (out, in, h, w), and transposed ones, (h, w, out, in) -> (in, out, h, w), are turned alike.
AXES_TO_TORCH = {
    ("kernel", 2): (1, 0),
    ("kernel", 4): (3, 2, 0, 1),
    ("depthwise_kernel", 4): (2, 3, 0, 1),  # (h, w, channels, 1) -> (channels, 1, h, w)
}


def name() -> str:
    """`keras-tensorflow`, `keras-jax` or `keras-torch`."""
    return f"keras-{keras.backend.backend()}"


def configure(settings: Settings) -> str:
    """Fix device, precision, threads and seed; returns the device that is used, "cpu" or "cuda".

    Threads and the visibility of GPUs were fixed by the process's environment and processor affinity, because Keras
    has no verb for them. Raises StudyError if a CUDA device is asked for and there is none.
    """
    replicas.join(settings.devices)
    device = devices.choose(settings.device, settings.deterministic)
    in_bfloat16 = settings.precision == "bfloat16"
    # With bfloat16, too, all that is kept is in float32, and the last layer, so the logits (`layers.logits`)
    keras.config.set_floatx("float32" if in_bfloat16 else settings.precision)
    # Layers read this, and Keras keeps its first value
    keras.config.set_dtype_policy("mixed_bfloat16" if in_bfloat16 else settings.precision)
    keras.utils.set_random_seed(settings.seed)
    return device


def environment() -> dict[str, str]:
    """Versions and settings that a reader needs to repeat a run."""
    backend = keras.backend.backend()
    return {
        "framework": f"Keras {keras.version()} on {backend} {metadata.version(backend)}",
        "keras": keras.version(),
        "backend": f"{backend} {metadata.version(backend)}, {'CPU' if devices.current() == 'cpu' else 'CUDA'}",
        "compilation": "XLA" if compiles_with_xla() else "graph" if backend == "tensorflow" else "eager",
        "memory_layout": keras.config.image_data_format(),
        **devices.settings(),
    }


def compiles_with_xla() -> bool:
    """Always with JAX; with TensorFlow on one GPU: on a CPU XLA makes a step slower; not with the torch backend."""
    backend = keras.backend.backend()
    return backend == "jax" or (
        backend == "tensorflow" and devices.current() != "cpu" and replicas.parts() == 1
    )


def to_device(model: keras.Model) -> keras.Model:
    """The model with its variables made (Keras makes them at the first call), on the device Keras chose."""
    spec = model.spec
    model(keras.Input(batch_shape=(1, spec.image_size, spec.image_size, spec.channels)))
    return model


def to_tensor(array: Array) -> Array:
    """The array in the configured precision (float32 for bfloat16); Keras moves it to the device itself."""
    return array.astype(keras.config.floatx(), copy=False)


def to_array(tensor: keras.KerasTensor) -> Array:
    """The values on the host, in float64."""
    return np.array(ops.convert_to_numpy(tensor), dtype=np.float64)


def read_weights(model: keras.Model) -> dict[str, Array]:
    """A copy of every parameter and statistic, under PyTorch names and layout."""
    return {key: to_torch_layout(variable) for key, variable in _named_variables(model).items()}


def write_weights(model: keras.Model, weights: Weights) -> None:
    """Set every parameter and statistic. Raises StudyError unless names and shapes are exactly the model's."""
    variables = _named_variables(model)
    check_weights(weights, {key: _torch_shape(variable) for key, variable in variables.items()})
    for key, variable in variables.items():
        variable.assign(from_torch_layout(weights[key], variable))


def to_torch_layout(variable: keras.Variable, like: keras.Variable | None = None) -> Array:
    """A copy of a variable's value with PyTorch's axes, which are those of `like` where it is given."""
    array = np.array(ops.convert_to_numpy(variable))
    return np.ascontiguousarray(array.transpose(_axes_to_torch(variable if like is None else like)))


def from_torch_layout(array: Array, like: keras.Variable) -> Array:
    """A copy of a value that has PyTorch's axes, with those of Keras's variable."""
    # Also where no axis moves: JAX may take the memory of what it is handed for its own
    return np.array(np.asarray(array).transpose(np.argsort(_axes_to_torch(like))), order="C")


def read_draws(model: keras.Model) -> dict[str, Array]:
    """Where the framework's own draws stand, `draws.NAME`: here of each layer that draws, a seed and a counter, and of
    the backend's generators, where Keras draws from those.
    """
    layers = {name: np.array(ops.convert_to_numpy(one.state)) for name, one in _generators(model).items()}
    return {f"draws.{name}": state for name, state in (layers | devices.read_generators()).items()}


def write_draws(model: keras.Model, draws: Weights) -> None:
    """Inverse of `read_draws`; what has another name is passed over."""
    for name, one in _generators(model).items():
        one.state.assign(np.array(draws[f"draws.{name}"]))
    devices.write_generators({name: draws[f"draws.{name}"] for name in devices.read_generators()})


def _generators(model: keras.Model) -> dict[str, keras.random.SeedGenerator]:
    layers = {layer.name: layer for layer in model._flatten_layers()}
    return {
        name: layer.seed_generator
        for name, layer in layers.items()
        if isinstance(getattr(layer, "seed_generator", None), keras.random.SeedGenerator)
    }


def _torch_shape(variable: keras.Variable) -> tuple[int, ...]:
    return tuple(variable.shape[axis] for axis in _axes_to_torch(variable))


def _axes_to_torch(variable: keras.Variable) -> tuple[int, ...]:
    axes = len(variable.shape)
    return (0,) if axes == 1 else AXES_TO_TORCH[variable.name, axes]


def tensor_name(variable: keras.Variable) -> str:
    """PyTorch's name of a variable."""
    layer, kind = variable.path.split("/")[-2:]
    # The dots as `layers._keras_name` found them
    return f"{layer.replace('-', '.')}.{TENSOR_NAMES.get(kind, kind)}"


def _named_variables(model: keras.Model) -> dict[str, keras.Variable]:
    return {tensor_name(one): one for one in model.weights if one.name != "mask"}
