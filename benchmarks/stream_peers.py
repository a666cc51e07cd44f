"""The loaders that a user would write instead, as contestants: pictures of 512 px in, float32 batches of 224 px out.

    python -m benchmarks.stream_peers --peer torch-cv2 --folder DIR --channels 3 [--still]

All change an image by a flip, a rotation, a shift, a zoom, brightness and contrast within the ranges of
`config.Augmentation`, in each library's own way: OpenCV and Pillow by one warp, Keras's layers each by its own, and
`tf-light`, as many tutorials stop there, only by the flip, brightness and contrast of `tf.image`. All shrink
bilinearly, each library's default, which is less work than the mean over areas that ours takes.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from benchmarks.contestant import serve
from benchmarks.stream_ours import BATCH_SIZE, spec_of
from common.config import Augmentation

SIZE = 224
WORKERS = 2
RANGES = Augmentation()


@dataclass(frozen=True)
class Task:
    """What is to be loaded, and how."""

    folder: Path  # {Normal,Stroke}/NAME
    channels: int
    still: bool  # no augmentation

    def files(self) -> tuple[list[str], list[float]]:
        """Paths and labels."""
        paths = sorted(path for name in ("Normal", "Stroke") for path in (self.folder / name).iterdir())
        return [str(path) for path in paths], [float(path.parent.name == "Stroke") for path in paths]

    def normalisation(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation of each channel."""
        spec = spec_of(self.channels)
        return np.array(spec.pixel_mean, np.float32), np.array(spec.pixel_std, np.float32)


@dataclass(frozen=True)
class Change:
    """One draw of the augmentation."""

    flip: bool
    degrees: float
    shift_px: tuple[float, float]
    zoom: float
    brightness: float  # added, of the full range
    contrast: float  # factor


def draw_change() -> Change:
    """A change within the ranges."""
    between, reach = random.uniform, RANGES.shift_fraction * SIZE
    return Change(
        random.random() < RANGES.flip_probability,
        between(-RANGES.rotation_degrees, RANGES.rotation_degrees),
        (between(-reach, reach), between(-reach, reach)),
        between(1 - RANGES.scale_fraction, 1 + RANGES.scale_fraction),
        between(-RANGES.brightness, RANGES.brightness),
        between(1 - RANGES.contrast, 1 + RANGES.contrast),
    )


def load_cv2(path: str, task: Task) -> NDArray[np.float32]:
    """(SIZE, SIZE, C), with OpenCV."""
    image = cv2.imread(path, cv2.IMREAD_GRAYSCALE if task.channels == 1 else cv2.IMREAD_COLOR)
    assert image is not None
    image = cv2.resize(image, (SIZE, SIZE))
    if not task.still:
        change = draw_change()
        if change.flip:
            image = cv2.flip(image, 1)
        matrix = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), change.degrees, change.zoom)
        matrix[:, 2] += change.shift_px
        image = cv2.warpAffine(image, matrix, (SIZE, SIZE))
        image = cv2.convertScaleAbs(image, alpha=change.contrast, beta=255 * change.brightness)
    mean, std = task.normalisation()
    values = image.reshape(SIZE, SIZE, task.channels).astype(np.float32)
    return np.asarray((values / 255 - mean) / std, np.float32)


def load_pil(path: str, task: Task) -> NDArray[np.float32]:
    """(SIZE, SIZE, C), with Pillow, as torchvision's transforms do it."""
    image = (
        Image.open(path)
        .convert("L" if task.channels == 1 else "RGB")
        .resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    )
    if not task.still:
        change = draw_change()
        if change.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        matrix = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), change.degrees, change.zoom)
        matrix[:, 2] += change.shift_px
        affine = tuple(cv2.invertAffineTransform(matrix).ravel().tolist())
        image = image.transform(
            (SIZE, SIZE), Image.Transform.AFFINE, affine, resample=Image.Resampling.BILINEAR
        )
        image = ImageEnhance.Brightness(image).enhance(1 + change.brightness)
        image = ImageEnhance.Contrast(image).enhance(change.contrast)
    mean, std = task.normalisation()
    values = np.asarray(image, np.float32).reshape(SIZE, SIZE, task.channels)
    return np.asarray((values / 255 - mean) / std, np.float32)


# --- PyTorch ------------------------------------------------------------------------------------------------------


def torch_loader(task: Task, load: Callable[[str, Task], NDArray[np.float32]]) -> Iterator[int]:
    """`DataLoader` with workers that stay from epoch to epoch."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Slices(Dataset):
        def __init__(self) -> None:
            self.paths, self.labels = task.files()

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, float]:
            image = np.ascontiguousarray(load(self.paths[index], task).transpose(2, 0, 1))
            return torch.from_numpy(image), self.labels[index]

    loader = DataLoader(
        Slices(),
        batch_size=BATCH_SIZE,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=True,
        drop_last=True,
        worker_init_fn=lambda worker: cv2.setNumThreads(0),
    )
    while True:
        for images, _ in loader:
            yield len(images)


# --- TensorFlow and Keras -----------------------------------------------------------------------------------------


def tf_data(task: Task, cached: bool = False, light: bool = False) -> Iterator[int]:
    """`tf.data` with TensorFlow's decoders; `cached`: the shrunk pictures stay in memory after the first epoch."""
    import tensorflow as tf

    paths, labels = task.files()

    def load(path: Any, label: Any) -> Any:
        # Grey and colour as asked for, whatever the file holds; JPEG and PNG alike
        image = tf.io.decode_image(tf.io.read_file(path), channels=task.channels, expand_animations=False)
        return tf.image.resize(image, (SIZE, SIZE)), label

    dataset = tf.data.Dataset.from_tensor_slices((paths, labels))
    if cached:
        dataset = dataset.map(load, tf.data.AUTOTUNE).cache().shuffle(len(paths))
    else:
        dataset = dataset.shuffle(len(paths)).map(load, tf.data.AUTOTUNE)
    return _keras_batches(task, dataset.batch(BATCH_SIZE, drop_remainder=True), light)


def directory_dataset(task: Task) -> Iterator[int]:
    """`image_dataset_from_directory`, as in Keras's guides."""
    import keras

    dataset = keras.utils.image_dataset_from_directory(
        task.folder,
        label_mode="binary",
        color_mode="grayscale" if task.channels == 1 else "rgb",
        batch_size=BATCH_SIZE,
        image_size=(SIZE, SIZE),
        verbose=False,
    )
    return _keras_batches(task, dataset)


def _keras_batches(task: Task, dataset: Any, light: bool = False) -> Iterator[int]:
    """Batches of grey values 0..255 changed by Keras's layers (`light`: by tf.image), and normalised."""
    import keras
    import tensorflow as tf

    mean, std = task.normalisation()
    change = keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomRotation(RANGES.rotation_degrees / 360, fill_mode="constant"),
            keras.layers.RandomTranslation(
                RANGES.shift_fraction, RANGES.shift_fraction, fill_mode="constant"
            ),
            keras.layers.RandomZoom(RANGES.scale_fraction, fill_mode="constant"),
            keras.layers.RandomBrightness(RANGES.brightness),
            keras.layers.RandomContrast(RANGES.contrast),
        ]
    )

    def prepare(images: Any, labels: Any) -> Any:
        if light and not task.still:
            images = tf.image.random_flip_left_right(images)
            images = tf.image.random_brightness(images, 255 * RANGES.brightness)
            images = tf.image.random_contrast(images, 1 - RANGES.contrast, 1 + RANGES.contrast)
        elif not task.still:
            images = change(images, training=True)
        return (images / 255 - mean) / std, labels

    for images, _ in dataset.map(prepare, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE).repeat():
        yield int(images.shape[0])


def py_dataset(task: Task) -> Iterator[int]:
    """`keras.utils.PyDataset` with OpenCV and two threads, read as `fit` reads it."""
    import keras
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    paths, labels = task.files()

    class Slices(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__(workers=WORKERS, max_queue_size=10)

        def __len__(self) -> int:
            return len(paths) // BATCH_SIZE

        def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
            chosen = range(index * BATCH_SIZE, (index + 1) * BATCH_SIZE)
            images = np.stack([load_cv2(paths[place], task) for place in chosen])
            return images, np.array([labels[place] for place in chosen])

    cv2.setNumThreads(0)
    adapter = PyDatasetAdapter(Slices(), shuffle=True)
    while True:
        adapter.on_epoch_begin()
        for batch in adapter.get_numpy_iterator():
            yield len(batch[0])
        adapter.on_epoch_end()


PEERS: dict[str, Callable[[Task], Iterator[int]]] = {
    "torch-cv2": lambda task: torch_loader(task, load_cv2),
    "torch-pil": lambda task: torch_loader(task, load_pil),
    "tf-data": tf_data,
    "tf-cached": lambda task: tf_data(task, cached=True),
    "tf-light": lambda task: tf_data(task, cached=True, light=True),
    "directory": directory_dataset,
    "py-dataset": py_dataset,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", choices=tuple(PEERS), required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--channels", type=int, choices=(1, 3), default=3)
    parser.add_argument("--still", action="store_true", help="no augmentation")
    options = parser.parse_args()
    batches = PEERS[options.peer](Task(options.folder, options.channels, options.still))
    serve({}, lambda units: sum(next(batches) for _ in range(units)))


if __name__ == "__main__":
    main()
