"""Training as Keras's guides write it, as a contestant: `image_dataset_from_directory`, augmentation layers in `map`,
`compile` and `fit` with AdamW; nothing about threads or allocator.

    KERAS_BACKEND=tensorflow python -m benchmarks.plain_keras --peer densenet121 --data files --material DIR

One `fit` runs from the first block to the last: a callback holds it at the end of each block, so that no block pays for
the start of a `fit`. Augmentation is less than ours (a flip and a rotation), and none for
segmentation, as in Keras's example.
"""

from __future__ import annotations

import argparse
import os
import queue
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from benchmarks import keras_peers
from benchmarks.contestant import peer_options, serve
from common import measure

IMPORTED_SECONDS = measure.seconds_since_start()
CLASSES = {"cnn": ("binary", ["normal", "stroke"]), "other": ("subtype", ["normal", "bleeding", "ischemia"])}
PEERS = ("cnn", "densenet121", "convnext_tiny", "unet")
WARM_STEPS = 4
ENDLESS_STEPS = 10**9


class Blocks(keras.callbacks.Callback):
    """Lets `fit` go on for as many steps as it is given, and tells when they are done."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted: queue.Queue[int] = queue.Queue()
        self.done: queue.Queue[None] = queue.Queue()
        self._left = 0

    def run(self, steps: int) -> None:
        """From another thread: so many steps, until they are done."""
        self.wanted.put(steps)
        self.done.get()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._left == 0:
            self._left = self.wanted.get()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._left -= 1
        if self._left == 0:
            float((logs or {})["loss"])  # waits for the device
            self.done.put(None)


def main() -> None:
    options = peer_options(__doc__, PEERS)
    began = time.perf_counter()
    model = keras_peers.create(options.peer, 3, options.image_size, tuple(options.features))
    two = options.peer in ("cnn", "unet")
    model.compile(
        optimizer=keras.optimizers.AdamW(1e-3),
        loss="binary_crossentropy" if two else "sparse_categorical_crossentropy",
    )
    build_seconds = time.perf_counter() - began
    batches = _dataset(options)
    facts: dict[str, Any] = {
        "framework": f"Keras {keras.version()} on {keras.backend.backend()}",
        "device": "cuda" if tf.config.list_physical_devices("GPU") else "cpu",
        "parameters": int(sum(np.prod(weight.shape) for weight in model.trainable_weights)),
        "flops": None,
        "import_seconds": IMPORTED_SECONDS,
        "build_seconds": build_seconds,
    }
    if options.facts:
        facts |= _facts(model, batches, options.batch_size)
    blocks = Blocks()

    def work(steps: int) -> int:
        blocks.run(steps)
        return steps * options.batch_size

    def answer() -> None:
        began = time.perf_counter()
        blocks.run(1)
        facts.setdefault("first_step_seconds", time.perf_counter() - began)
        serve(facts, work)
        sys.stdout.flush()
        os._exit(0)  # `fit` would go on without end

    threading.Thread(target=answer, daemon=True).start()
    model.fit(batches.repeat(), steps_per_epoch=ENDLESS_STEPS, epochs=1, verbose=0, callbacks=[blocks])


def _facts(model: keras.Model, batches: tf.data.Dataset, batch_size: int) -> dict[str, float]:
    """First, steady and last partial step, evaluation and checkpoint, each by the verbs that a user has."""
    few = batches.take(WARM_STEPS)
    images, targets = next(iter(batches))
    partial = tf.data.Dataset.from_tensors((images[: batch_size - 1], targets[: batch_size - 1]))
    facts = {"first_step_seconds": _timed(lambda: model.fit(few.take(1), verbose=0))}
    model.fit(few, verbose=0)
    facts["step_seconds"] = _timed(lambda: model.fit(few, verbose=0)) / WARM_STEPS
    facts["last_step_seconds"] = _timed(lambda: model.fit(partial, verbose=0))
    few = tf.data.Dataset.from_tensor_slices([images] * WARM_STEPS)  # in memory, as ours
    model.predict(few, verbose=0)
    facts["evaluate_seconds"] = _timed(lambda: model.predict(few, verbose=0))
    with tempfile.TemporaryDirectory() as folder:
        facts["checkpoint_seconds"] = _timed(lambda: model.save_weights(Path(folder, "model.weights.h5")))
    return facts


def _timed(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _dataset(options: argparse.Namespace) -> tf.data.Dataset:
    size, count = options.image_size, options.batch_size
    if options.data == "synthetic":
        draw = np.random.default_rng(0)
        if options.peer == "unet":
            images = draw.standard_normal((count, size, size, 1), dtype=np.float32)
            targets: Any = (draw.random((count, size, size, 1)) < 0.1).astype(np.float32)
        else:
            images = draw.standard_normal((count, size, size, 3), dtype=np.float32)
            targets = draw.integers(0, 2, count)
        return tf.data.Dataset.from_tensors((images, targets)).repeat(1000)
    if options.peer == "unet":
        return _masks(options.material / "segmentation", size, count)
    folder, classes = CLASSES.get(options.peer, CLASSES["other"])
    pictures = keras.utils.image_dataset_from_directory(
        options.material / folder,
        class_names=classes,
        image_size=(size, size),
        batch_size=count,
        verbose=False,
    )
    augment = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(10 / 360)])
    scale = keras.applications.densenet.preprocess_input if options.peer == "densenet121" else _to_unit
    if options.peer == "convnext_tiny":  # normalises by itself
        scale = _unchanged
    return pictures.map(
        lambda images, labels: (scale(augment(images, training=True)), labels), tf.data.AUTOTUNE
    ).prefetch(tf.data.AUTOTUNE)


def _masks(folder: Path, size: int, count: int) -> tf.data.Dataset:
    """As in Keras's example of segmentation: files read and resized in `map`, then batches."""

    def read(image: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = tf.io.decode_png(tf.io.read_file(image), channels=1)
        pixels = tf.image.resize(pixels, (size, size)) / 255
        lesion = tf.io.decode_png(tf.io.read_file(mask), channels=1)
        lesion = tf.image.resize(lesion, (size, size), method="nearest")
        return pixels, tf.cast(lesion > 127, tf.float32)

    files = [sorted(str(path) for path in (folder / name).iterdir()) for name in ("images", "masks")]
    pairs = tf.data.Dataset.from_tensor_slices(tuple(files)).shuffle(1000)
    return pairs.map(read, tf.data.AUTOTUNE).batch(count).prefetch(tf.data.AUTOTUNE)


def _to_unit(images: tf.Tensor) -> tf.Tensor:
    return images / 255


def _unchanged(images: tf.Tensor) -> tf.Tensor:
    return images


if __name__ == "__main__":
    main()
