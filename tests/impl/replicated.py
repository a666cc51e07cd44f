"""Train small models on so many devices: `replicated.py OUT.npz DEVICES MODEL...`

The file has "MODEL/losses", (steps,), and "MODEL/TENSOR", the weights at the end. The framework is that
of the environment, as `children.run_suite` sets it.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys

import numpy as np
from harness import PACKAGE, impl, make_batches, started

from common.config import CnnSpec, ConvNextSpec, DenseNetSpec, ModelSpec, Recipe, UnetSpec
from common.distributed import leads
from common.framework import Settings

replicas = importlib.import_module(f"{PACKAGE}.replicas")

STEPS = 12
BATCH_SIZE = 12  # of 2, 3 or 4 devices
# The framework's own draws in the CNN, masks from common in ConvNeXt
SPECS: dict[str, ModelSpec] = {
    "cnn": CnnSpec(image_size=16, features=(4, 6), hidden=10, dropout=0.5),
    "densenet121": DenseNetSpec(
        image_size=32, stem_features=4, blocks=(1, 1), growth=4, bottleneck=2, outputs=3
    ),
    "convnext_tiny": ConvNextSpec(
        image_size=32,
        depths=(1, 1),
        features=(4, 6),
        layer_scale=1.0,
        stochastic_depth=0.5,
        outputs=3,
        shared_masks=BATCH_SIZE,
    ),
    "unet": UnetSpec(image_size=8, features=(3, 5)),
}
LOSSES = {"cnn": "binary_cross_entropy", "unet": "dice_cross_entropy"}


def assert_shared(devices: int) -> None:
    """Each device has rows of its own: a distribution that does nothing would equal one device too."""
    rows = replicas.share(np.arange(12.0))
    if PACKAGE == "torch_impl":
        seen = [rows]
    elif impl.name() == "keras-jax":
        seen = [shard.data for shard in rows.addressable_shards]
        assert len({shard.device for shard in rows.addressable_shards}) == devices
    else:
        seen = list(rows.values)
    assert [len(one) for one in seen] == [12 // devices] * (1 if PACKAGE == "torch_impl" else devices)


def train(name: str, devices: int) -> dict[str, np.ndarray]:
    """The last layer alone for a third of the steps where the model is a backbone, then all; gradients are clipped."""
    spec = SPECS[name]
    impl.configure(Settings("cpu", "float64", threads=1, seed=5, devices=devices))
    model, _ = started(spec)
    recipe = Recipe(
        epochs=1,
        batch_size=BATCH_SIZE,
        loss=LOSSES.get(name, "cross_entropy"),
        gradient_clip_norm=0.0 if name == "unet" else 0.3,
        adam_epsilon=1e-2,  # so that the size of a gradient matters, where it is not clipped
        backbone_rate_fraction=0.5,
    )
    batches = [
        dataclasses.replace(batch, key=("replicated", step))
        for step, batch in enumerate(make_batches(STEPS, spec, size=recipe.batch_size))
    ]
    pairs = [(batch, 0.01) for batch in batches]
    head = STEPS // 3 if spec.name in ("densenet121", "convnext_tiny") else 0
    losses = []
    for trainable, part in (("head", pairs[:head]), ("all", pairs[head:-2]), ("all", pairs[-2:])):
        if part:
            losses.append(impl.train_epoch(impl.create_trainer(model, recipe, trainable), part))
            list(impl.predict_logits(model, batches[:1]))  # judging comes between
    return {"losses": np.concatenate(losses), **impl.read_weights(model)}


def main(out: str, devices: int, names: list[str]) -> None:
    if devices > 1:
        impl.configure(Settings("cpu", "float64", threads=1, devices=devices))
        assert_shared(devices)
    found = {f"{name}/{key}": array for name in names for key, array in train(name, devices).items()}
    if leads():
        assert (impl.describe_replicas() or {"devices": 1})["devices"] == devices
        np.savez(out, **found)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
