"""Starting weights by their law and by their key; checkpoints that say what is wrong with them."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from common.config import CnnSpec, ConvNextSpec, DenseNetSpec, ModelSpec, UnetSpec
from common.errors import StudyError
from common.weights import (
    check_weights,
    initial_weights,
    read_checkpoint,
    save_checkpoint,
    weights_digest,
)

SHAPES = {
    "conv1.weight": (64, 16, 3, 3),
    "conv1.bias": (64,),
    "norm1.weight": (64,),
    "norm1.bias": (64,),
    "norm1.running_mean": (64,),
    "norm1.running_var": (64,),
    "fc1.weight": (300, 200),
    "fc1.bias": (300,),
}
HEADER = {"task": "binary", "threshold": 0.5, "classes": ["normal", "stroke"]}


# --- starting weights ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "name", "shape", "fan_in"),
    [
        (CnnSpec(), "conv1.weight", (64, 16, 3, 3), 16 * 9),
        (CnnSpec(), "fc1.weight", (300, 200), 200),
        (ConvNextSpec(), "stages.0.blocks.0.conv_dw.weight", (384, 1, 7, 7), 49),  # depthwise
        (UnetSpec(), "up.0.weight", (128, 64, 2, 2), 128),  # transposed: (in, out, 2, 2)
        (UnetSpec(), "encoder.0.conv2.weight", (64, 16, 3, 3), 16 * 9),
    ],
)
def test_kernels_are_he_normal_cut_at_two_sigma(
    spec: ModelSpec, name: str, shape: tuple[int, ...], fan_in: int
) -> None:
    """Variance 2 / fan_in within 5 standard errors; the cut lies at 2 / 0.8796 of the final deviation."""
    kernel = initial_weights({name: shape}, spec, seed=0)[name].astype(np.float64)
    sigma = np.sqrt(2 / fan_in)
    n = kernel.size
    np.testing.assert_allclose(kernel.mean(), 0, atol=5 * sigma / np.sqrt(n))
    # The variance of x^2 is (kurtosis - 1) sigma^4; a normal cut at 2 sigma has kurtosis 2.37 (uniform 1.8, normal 3).
    np.testing.assert_allclose(kernel.var(), sigma**2, rtol=5 * np.sqrt(1.37 / n))
    np.testing.assert_allclose((kernel**4).mean() / kernel.var() ** 2, 2.37, atol=0.1)
    cut = 2 * sigma / 0.87962566103423978
    assert np.abs(kernel).max() <= cut * (1 + 1e-6)
    assert np.abs(kernel).max() > 0.98 * cut


def test_fan_in_is_what_an_output_sums_over() -> None:
    """Noise of variance 1 in gives variance 2 out, by the definition of each layer: also where the layout differs."""
    rng = np.random.default_rng(0)
    shapes = {"up.0.weight": (256, 128, 2, 2), "encoder.0.conv1.weight": (512, 32, 3, 3)}
    weights = initial_weights(shapes, UnetSpec(), seed=0)
    maps = rng.standard_normal((256, 200))  # 200 pixels of 256 channels
    up = np.einsum(
        "io,ip->op", weights["up.0.weight"][:, :, 0, 1], maps
    )  # one of the 2 x 2 pixels each becomes
    patches = rng.standard_normal((32 * 9, 100))
    down = weights["encoder.0.conv1.weight"].reshape(512, -1) @ patches
    np.testing.assert_allclose([up.var(), down.var()], 2.0, rtol=0.05)


@pytest.mark.parametrize(
    "spec", [CnnSpec(), DenseNetSpec(), ConvNextSpec(), UnetSpec()], ids=lambda s: s.name
)
def test_the_last_layer_of_a_classifier_starts_at_zero(spec: ModelSpec) -> None:
    other = {"head.fc": "head", "classifier": "head"}.get(spec.head, "classifier")
    shapes = {f"{spec.head}.weight": (3, 64), f"{spec.head}.bias": (3,), f"{other}.weight": (3, 64)}
    weights = initial_weights(shapes, spec, seed=0)
    assert weights[f"{spec.head}.weight"].any() == isinstance(spec, UnetSpec)
    assert not weights[f"{spec.head}.bias"].any()
    assert weights[f"{other}.weight"].all()


def test_layer_scale_starts_where_the_spec_says() -> None:
    name = "stages.1.blocks.0.gamma"
    for value in (1e-6, 1.0):
        scale = initial_weights({name: (96,)}, ConvNextSpec(layer_scale=value), seed=0)[name]
        np.testing.assert_array_equal(scale, np.full(96, value, dtype=np.float32))


def test_vectors_start_at_one_and_zero() -> None:
    weights = initial_weights(SHAPES, CnnSpec(), seed=0)
    assert {name: array.shape for name, array in weights.items()} == SHAPES
    assert all(array.dtype == np.float32 for array in weights.values())
    for name, value in {
        "norm1.weight": 1,
        "norm1.running_var": 1,
        "conv1.bias": 0,
        "norm1.running_mean": 0,
    }.items():
        np.testing.assert_array_equal(weights[name], value)


def test_a_tensor_does_not_depend_on_the_others_nor_on_their_order() -> None:
    whole = initial_weights(SHAPES, CnnSpec(), seed=4)
    alone = initial_weights({"fc1.weight": SHAPES["fc1.weight"]}, CnnSpec(), seed=4)
    turned = initial_weights(dict(reversed(SHAPES.items())), CnnSpec(), seed=4)
    np.testing.assert_array_equal(alone["fc1.weight"], whole["fc1.weight"])
    assert weights_digest(turned) == weights_digest(whole)


def test_seed_and_name_decide_the_numbers() -> None:
    shapes = {"a.weight": (8, 8), "b.weight": (8, 8)}
    first, second = (initial_weights(shapes, CnnSpec(), seed) for seed in (0, 1))
    drawn = [first["a.weight"], first["b.weight"], second["a.weight"], second["b.weight"]]
    assert len({array.tobytes() for array in drawn}) == 4
    np.testing.assert_array_equal(initial_weights(shapes, CnnSpec(), 0)["a.weight"], first["a.weight"])


def test_a_tensor_without_a_rule_is_named() -> None:
    with pytest.raises(StudyError, match=r"'norm1.gamma' of shape \(8,\) has no starting rule"):
        initial_weights({"norm1.gamma": (8,)}, CnnSpec(), seed=0)


# --- digest and check ---------------------------------------------------------------------------------------------


def test_the_digest_sees_names_shapes_types_and_bytes() -> None:
    base = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(2, dtype=np.float32)}
    changed = base["a"].copy()
    changed[1, 2] = np.nextafter(changed[1, 2], np.float32(9))
    others: list[dict[str, np.ndarray]] = [
        {**base, "a": changed},
        {**base, "a": base["a"].reshape(3, 2)},
        {**base, "a": base["a"].astype(np.float64)},
        {"a": base["a"], "c": base["b"]},
        {"a": base["a"]},
    ]
    digests = {weights_digest(weights) for weights in (base, *others)}
    assert len(digests) == 1 + len(others)
    assert weights_digest({"b": base["b"], "a": np.asfortranarray(base["a"])}) == weights_digest(base)


def test_check_weights_names_what_is_wrong() -> None:
    good = {"a": np.zeros((2, 3)), "b": np.zeros(2)}
    shapes = {"a": (2, 3), "b": (2,)}
    check_weights(good, shapes)
    with pytest.raises(StudyError, match=r"missing \['b'\], surplus \[\]"):
        check_weights({"a": good["a"]}, shapes)
    with pytest.raises(StudyError, match=r"missing \[\], surplus \['c'\]"):
        check_weights({**good, "c": good["b"]}, shapes)
    with pytest.raises(StudyError, match=r"'a' has shape \(3, 2\); the model needs \(2, 3\)"):
        check_weights({**good, "a": good["a"].T}, shapes)


# --- checkpoints --------------------------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    weights = initial_weights(SHAPES, CnnSpec(), seed=0)
    weights["fc1.weight"] = np.asfortranarray(weights["fc1.weight"])  # a transposed kernel is not contiguous
    save_checkpoint(path, weights, HEADER)
    read, header = read_checkpoint(path)
    assert header == HEADER
    assert read.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_bad_checkpoints_are_named(tmp_path: Path) -> None:
    good, path = tmp_path / "good.safetensors", tmp_path / "model.safetensors"
    save_checkpoint(good, {"a": np.arange(100, dtype=np.float32)}, HEADER)
    with pytest.raises(StudyError, match=r"model\.safetensors does not exist"):
        read_checkpoint(path)
    whole = good.read_bytes()
    for damaged in (b"", b"no safetensors", whole[:-10], whole[:20], b"\xff" * 8 + whole[8:]):
        path.write_bytes(damaged)
        with pytest.raises(StudyError, match=r"model\.safetensors is no safetensors file"):
            read_checkpoint(path)
    with pytest.raises(StudyError, match="is no safetensors file"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"checkpoint": "not json"}])
def test_a_foreign_safetensors_file_is_named(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"a": np.zeros(3, dtype=np.float32)}, path, metadata=metadata)
    with pytest.raises(StudyError, match=r"foreign\.safetensors carries no 'checkpoint' header"):
        read_checkpoint(path)


def test_the_header_is_one_json_object(tmp_path: Path) -> None:
    """Any tool that reads safetensors finds it."""
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, {"a": np.zeros(3, dtype=np.float32)}, HEADER)
    blob = path.read_bytes()
    stated = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
    assert json.loads(stated["__metadata__"]["checkpoint"]) == HEADER
