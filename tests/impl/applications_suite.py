"""Our Keras models against those of keras.applications, with the same weights, on the backend that builds fastest.

The weights go from our names to the layers of keras.applications by the table of this file, and into our model by
`write_weights`: a kernel that one of the two lays out wrongly shows in the logits. Run by `test_models.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import pytest
from model_cases import FULL_SIZE, faint_image_of, timm_names
from models_suite import OUTPUTS, answer, configure, impl, started
from numpy.typing import NDArray

from common.config import ModelSpec

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)

# Of the largest logit: on the torch backend Keras's own normalisation is in float32
TOLERANCE = 2e-6


def densenet(spec: ModelSpec) -> tuple[keras.Model, dict[str, str]]:
    """The model, and our name of each layer that has weights."""
    model = keras.applications.DenseNet121(
        weights=None,
        input_shape=(spec.image_size, spec.image_size, 3),
        classes=spec.outputs,
        classifier_activation=None,
    )
    names = {"conv1_conv": "features.conv0", "conv1_bn": "features.norm0", "bn": "features.norm5"}
    for block, depth in enumerate((6, 12, 24, 16), start=1):
        for layer in range(1, depth + 1):
            theirs, ours = f"conv{block + 1}_block{layer}", f"features.denseblock{block}.denselayer{layer}"
            pairs = {"0_bn": "norm1", "1_conv": "conv1", "1_bn": "norm2", "2_conv": "conv2"}
            names |= {f"{theirs}_{left}": f"{ours}.{right}" for left, right in pairs.items()}
    for block in (1, 2, 3):
        pairs = {"bn": "norm", "conv": "conv"}
        names |= {f"pool{block + 1}_{left}": f"features.transition{block}.{pairs[left]}" for left in pairs}
    return model, names | {"predictions": "classifier"}


def convnext(spec: ModelSpec) -> tuple[keras.Model, dict[str, str]]:
    """As above; layers inside a nested model are named by both, with a slash."""
    model = keras.applications.ConvNeXtTiny(
        weights=None,
        include_preprocessing=False,
        input_shape=(spec.image_size, spec.image_size, 3),
        classes=spec.outputs,
        classifier_activation=None,
    )
    names = {"stem/stem_conv": "stem.0", "stem/stem_layernorm": "stem.1"}
    for step in range(3):
        nested = f"downsampling_block_{step}"
        names[f"{nested}/downsampling_layernorm_{step}"] = f"stages.{step + 1}.downsample.0"
        names[f"{nested}/downsampling_conv_{step}"] = f"stages.{step + 1}.downsample.1"
    for stage, depth in enumerate((3, 3, 9, 3)):
        for block in range(depth):
            theirs, ours = f"stage_{stage}_block_{block}", f"stages.{stage}.blocks.{block}"
            names |= {f"{theirs}_depthwise_conv": f"{ours}.conv_dw", f"{theirs}_layernorm": f"{ours}.norm"}
            names |= {f"{theirs}_pointwise_conv_{i}": f"{ours}.mlp.fc{i}" for i in (1, 2)}
            names[f"{theirs}_layer_scale"] = ours  # whose only tensor is gamma
    names |= {"head_layernorm": "head.norm", "head_dense": "head.fc"}
    prefix = "convnext_tiny_"
    return model, {
        "/".join(prefix + part for part in theirs.split("/")): ours for theirs, ours in names.items()
    }


BUILDERS = {"densenet121": densenet, "convnext_tiny": convnext}


def give(model: keras.Model, names: Mapping[str, str], weights: Mapping[str, NDArray[Any]]) -> None:
    """Set every layer of a model of keras.applications; every tensor is used."""
    used = set()
    for theirs, ours in names.items():
        layer = model
        for part in theirs.split("/"):
            layer = layer.get_layer(part)
        kinds = ("weight", "bias", "running_mean", "running_var", "gamma")
        keys = [key for kind in kinds if (key := f"{ours}.{kind}") in weights]
        # (out, in, h, w) -> (h, w, in, out), also with in = 1 a group; (out, in) -> (in, out)
        turned = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}
        layer.set_weights([weights[key].transpose(turned[weights[key].ndim]) for key in keys])
        used.update(keys)
    assert used == weights.keys()


@pytest.mark.parametrize("name", FULL_SIZE)
def test_logits_are_those_of_keras_applications(name: str) -> None:
    configure("float64")
    spec = FULL_SIZE[name]
    ours, images = started(spec), faint_image_of(spec)
    weights = impl.read_weights(ours)
    assert weights.keys() == timm_names(name)
    theirs, names = BUILDERS[name](spec)
    give(theirs, names, weights)
    found, expected = (answer(model, images, False) for model in (ours, theirs))
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * largest)
    np.savez(OUTPUTS / f"full-{name}.npz", logits=found)
