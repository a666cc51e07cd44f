"""Public weights: read by name into a model's shapes, refused with a reason, and fetched once from a hub made here."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from common.config import BACKBONES, PRETRAINED, QUICK_SPECS, ConvNextSpec, DenseNetSpec
from common.errors import StudyError
from common.pretrained import (
    Pretrained,
    file_name,
    file_sha256,
    load_pretrained,
    read_kept,
    resolve_weights,
)

ROOT = Path(__file__).resolve().parents[2]
Shapes = dict[str, tuple[int, ...]]


# --- the public format, from the papers' tables and timm's names ----------------------------------------------------


def batch_norm(name: str, features: int) -> Shapes:
    return {f"{name}.{kind}": (features,) for kind in ("weight", "bias", "running_mean", "running_var")}


def densenet_shapes(spec: DenseNetSpec) -> Shapes:
    channels = spec.stem_features
    shapes: Shapes = {"features.conv0.weight": (channels, spec.channels, 7, 7)}
    shapes |= batch_norm("features.norm0", channels)
    narrow = spec.bottleneck * spec.growth
    for block, depth in enumerate(spec.blocks, start=1):
        for layer in range(1, depth + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            shapes |= batch_norm(f"{name}.norm1", channels) | batch_norm(f"{name}.norm2", narrow)
            shapes[f"{name}.conv1.weight"] = (narrow, channels, 1, 1)
            shapes[f"{name}.conv2.weight"] = (spec.growth, narrow, 3, 3)
            channels += spec.growth
        if block < len(spec.blocks):
            shapes |= batch_norm(f"features.transition{block}.norm", channels)
            shapes[f"features.transition{block}.conv.weight"] = (channels // 2, channels, 1, 1)
            channels //= 2
    return shapes | batch_norm("features.norm5", channels) | dense("classifier", channels, spec.outputs)


def convnext_shapes(spec: ConvNextSpec) -> Shapes:
    first, last = spec.features[0], spec.features[-1]
    shapes: Shapes = {"stem.0.weight": (first, spec.channels, 4, 4), "stem.0.bias": (first,)}
    shapes |= {"stem.1.weight": (first,), "stem.1.bias": (first,)}
    for stage, (before, width) in enumerate(pairwise((first, *spec.features))):
        if stage:
            down = f"stages.{stage}.downsample"
            shapes |= {f"{down}.0.weight": (before,), f"{down}.0.bias": (before,)}
            shapes |= {f"{down}.1.weight": (width, before, 2, 2), f"{down}.1.bias": (width,)}
        for block in range(spec.depths[stage]):
            name, hidden = f"stages.{stage}.blocks.{block}", spec.expansion * width
            kernel = (width, 1, spec.kernel_size, spec.kernel_size)
            shapes |= {f"{name}.gamma": (width,), f"{name}.conv_dw.weight": kernel}
            shapes |= {
                f"{name}.{vector}": (width,) for vector in ("conv_dw.bias", "norm.weight", "norm.bias")
            }
            shapes |= dense(f"{name}.mlp.fc1", width, hidden) | dense(f"{name}.mlp.fc2", hidden, width)
    shapes |= {"head.norm.weight": (last,), "head.norm.bias": (last,)}
    return shapes | dense("head.fc", last, spec.outputs)


def dense(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def public_tensors(shapes: Mapping[str, tuple[int, ...]], seed: int | None = None) -> dict[str, np.ndarray]:
    """Tensors as a public file holds them, BatchNorm's counters included; zeros without a seed."""
    rng = np.random.default_rng(seed)
    make = np.zeros if seed is None else rng.standard_normal
    tensors = {name: make(shape).astype(np.float32) for name, shape in shapes.items()}
    counted = [name for name in shapes if name.endswith(".running_mean")]
    return tensors | {
        name.replace("running_mean", "num_batches_tracked"): np.array(7, dtype=np.int64) for name in counted
    }


TINY = DenseNetSpec(stem_features=4, blocks=(1, 2), growth=2, bottleneck=2, outputs=3)
TINY_SHAPES = densenet_shapes(TINY)
TINY_1000 = densenet_shapes(
    DenseNetSpec(stem_features=4, blocks=(1, 2), growth=2, bottleneck=2, outputs=1000)
)
TINY_CONVNEXT = convnext_shapes(ConvNextSpec(depths=(1, 1), features=(2, 4), outputs=1000))


@pytest.fixture
def tiny_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_file(public_tensors(TINY_1000, seed=1), path, metadata={"format": "pt"})
    return path


def bf16_file(path: Path, names: Mapping[str, tuple[int, ...]], value: float) -> None:
    """A file of bfloat16 tensors, written by the format's description: NumPy knows no such type."""
    bits = struct.pack("<f", value)[2:]  # the upper half
    header, blob = {}, b""
    for name, shape in names.items():
        data = bits * int(np.prod(shape))
        header[name] = {
            "dtype": "BF16",
            "shape": list(shape),
            "data_offsets": [len(blob), len(blob) + len(data)],
        }
        blob += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + blob)


# --- reading ------------------------------------------------------------------------------------------------------


def test_a_backbone_is_read_by_name_and_the_head_is_left_out(tiny_file: Path) -> None:
    stored = public_tensors(TINY_1000, seed=1)
    weights = load_pretrained(tiny_file, TINY_SHAPES, "classifier")
    assert weights.keys() == {name for name in TINY_SHAPES if not name.startswith("classifier.")}
    for name, array in weights.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, stored[name])


@pytest.mark.parametrize(
    ("model", "spec", "shapes_of", "parameters"),
    [  # torchvision's and timm's count of the parameters with 1000 classes
        ("densenet121", DenseNetSpec(outputs=1000), densenet_shapes, 7_978_856),
        ("convnext_tiny", ConvNextSpec(outputs=1000), convnext_shapes, 28_589_128),
    ],
)
def test_a_full_size_file_fits_the_full_size_model_alone(
    tmp_path: Path, model: str, spec: Any, shapes_of: Any, parameters: int
) -> None:
    """The public names and shapes with three classes of our own; the quick profile's small relative is refused."""
    public = shapes_of(spec)
    learnt = [shape for name, shape in public.items() if ".running_" not in name]
    assert sum(int(np.prod(shape)) for shape in learnt) == parameters
    path = tmp_path / file_name(model)
    save_file(public_tensors(public), path)
    own = shapes_of(type(spec)(outputs=3))
    weights = load_pretrained(path, own, spec.head)
    assert weights.keys() == {name for name in own if not name.startswith(f"{spec.head}.")}
    if model == "convnext_tiny":
        assert "head.norm.weight" in weights  # of the backbone, though its name starts as the head's
    with pytest.raises(StudyError, match=r"does not fit the model: .* use --profile standard or full"):
        load_pretrained(path, shapes_of(QUICK_SPECS[model]), spec.head)


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_other_floats_become_float32(tmp_path: Path, kind: type) -> None:
    path = tmp_path / "half.safetensors"
    tensor = np.array([1.5, -0.25, 3.0], dtype=kind)
    save_file({"a.weight": tensor}, path)
    weights = load_pretrained(path, {"a.weight": (3,)}, "head")
    assert weights["a.weight"].dtype == np.float32
    np.testing.assert_array_equal(weights["a.weight"], [1.5, -0.25, 3.0])


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    bf16_file(tmp_path / "b.safetensors", {"a.weight": (2, 3), "b.bias": (4,)}, -2.75)
    weights = load_pretrained(tmp_path / "b.safetensors", {"a.weight": (2, 3), "b.bias": (4,)}, "head")
    np.testing.assert_array_equal(weights["a.weight"], np.full((2, 3), -2.75, dtype=np.float32))
    assert all(array.dtype == np.float32 for array in weights.values())


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"features.norm0.bias": None}, r"it lacks the tensor 'features\.norm0\.bias';"),
        ({"features.norm0.bias": None, "features.norm5.bias": None}, r"norm0\.bias' \(and 1 more\)"),
        ({"features.extra.weight": np.zeros(3, np.float32)}, r"no tensor 'features\.extra\.weight'"),
        ({"classifiers.weight": np.zeros(3, np.float32)}, r"no tensor 'classifiers\.weight'"),
        (
            {"features.conv0.weight": np.zeros((4, 3, 7, 5), np.float32)},
            r"'features\.conv0\.weight' has shape \(4, 3, 7, 5\) in the file and \(4, 3, 7, 7\) in the model",
        ),
        ({"features.norm0.bias": np.zeros(4, np.int32)}, r"'features\.norm0\.bias' of .* is I32, no float"),
        ({"features.norm0.bias": np.array([0, 1, np.nan, 2], np.float32)}, "holds NaN or infinity"),
        ({"features.norm0.bias": np.array([0, 1, np.inf, 2], np.float16)}, "holds NaN or infinity"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    tmp_path: Path, change: dict[str, np.ndarray | None], fault: str
) -> None:
    tensors = public_tensors(TINY_1000) | change
    path = tmp_path / "other.safetensors"
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)
    with pytest.raises(StudyError, match=fault):
        load_pretrained(path, TINY_SHAPES, "classifier")


def lying_files() -> dict[str, bytes]:
    whole = save({"a.weight": np.zeros(4, np.float32)})
    size = int.from_bytes(whole[:8], "little")
    header = whole[8 : 8 + size]

    def with_header(text: bytes) -> bytes:
        return struct.pack("<Q", len(text)) + text + whole[8 + size :]

    return {
        "empty": b"",
        "text": b"weights, honestly",
        "pickle": b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00}\x94.",
        "cut": whole[:-3],
        "longer header than file": struct.pack("<Q", 2**40) + whole[8:],
        "trailing bytes": whole + b"\0" * 5,
        "larger shape than data": with_header(header.replace(b'"shape":[4]', b'"shape":[9]')),
        "overflowing shape": with_header(
            header.replace(b'"shape":[4]', b'"shape":[4611686018427387904,4611686018427387904]')
        ),
        "offsets beyond the end": with_header(header.replace(b"[0,16]", b"[16,32]")),
        "no JSON": with_header(b"{" * 16),
        "unknown type": with_header(header.replace(b"F32", b"F99")),
    }


@pytest.mark.parametrize("lie", list(lying_files()))
def test_garbage_and_lying_headers_are_refused(tmp_path: Path, lie: str) -> None:
    path = tmp_path / "garbage.safetensors"
    path.write_bytes(lying_files()[lie])
    with pytest.raises(StudyError, match=r"garbage\.safetensors is no safetensors file"):
        load_pretrained(path, {"a.weight": (4,)}, "head")
    with pytest.raises(StudyError, match=r"garbage\.safetensors is no safetensors file"):
        resolve_weights(str(path), ["densenet121"])


@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_byte_ends_in_weights_or_a_refusal(tmp_path: Path, position: int, value: int) -> None:
    """Whatever one byte says, nothing but a StudyError comes out, and what loads has the model's shapes."""
    blob = bytearray(save(public_tensors({"a.weight": (2, 3), "b.bias": (2,)})))
    blob[position % len(blob)] = value
    path = tmp_path / "changed.safetensors"
    path.write_bytes(blob)
    try:
        weights = load_pretrained(path, {"a.weight": (2, 3), "b.bias": (2,)}, "head")
    except StudyError:
        return
    assert {name: array.shape for name, array in weights.items()} == {"a.weight": (2, 3), "b.bias": (2,)}


# --- files of the user --------------------------------------------------------------------------------------------


def test_random_needs_no_file() -> None:
    assert resolve_weights("random", BACKBONES) == {}


def test_models_without_public_weights_are_left_out(tiny_file: Path) -> None:
    assert resolve_weights("imagenet", ["cnn", "unet"]) == {}
    assert resolve_weights(str(tiny_file), ["cnn", "unet"]) == {}


def test_one_file_serves_one_backbone(tiny_file: Path) -> None:
    digest = hashlib.sha256(tiny_file.read_bytes()).hexdigest()
    found = resolve_weights(str(tiny_file), ["cnn", "densenet121"])
    assert found == {"densenet121": Pretrained(tiny_file, "the file tiny.safetensors", digest)}
    with pytest.raises(StudyError, match=r"one file for densenet121 and convnext_tiny; give a folder"):
        resolve_weights(str(tiny_file), BACKBONES)


def test_a_folder_holds_a_file_for_each_backbone(tmp_path: Path) -> None:
    for number, model in enumerate(BACKBONES):
        name = {"densenet121": "features.a", "convnext_tiny": "stages.0.a"}[model]
        save_file({name: np.full(2, number, np.float32)}, tmp_path / file_name(model))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "convnext_tiny.fb_in1k.safetensors",
        "densenet121.tv_in1k.safetensors",
    ]
    found = resolve_weights(str(tmp_path), ["unet", *BACKBONES])
    assert {model: one.path.name for model, one in found.items()} == {m: file_name(m) for m in BACKBONES}
    assert len({one.sha256 for one in found.values()}) == 2
    (tmp_path / file_name("densenet121")).unlink()
    assert resolve_weights(str(tmp_path), ["convnext_tiny"]).keys() == {"convnext_tiny"}
    with pytest.raises(StudyError, match=r"holds no densenet121\.tv_in1k\.safetensors.*download https://"):
        resolve_weights(str(tmp_path), BACKBONES)


@pytest.mark.parametrize("model", BACKBONES)
def test_a_file_of_another_model_is_refused_by_the_names_in_it(tmp_path: Path, model: str) -> None:
    """Every public name passes; a stranger among them does not, and neither does a file without tensors."""
    shapes = {"densenet121": TINY_1000, "convnext_tiny": TINY_CONVNEXT}
    other = next(name for name in BACKBONES if name != model)
    path = tmp_path / "some.safetensors"
    save_file(public_tensors(shapes[model]), path)
    assert resolve_weights(str(path), [model]).keys() == {model}
    with pytest.raises(StudyError, match=rf"some\.safetensors does not fit {other}: it holds a tensor '"):
        resolve_weights(str(path), [other])
    save_file(public_tensors(shapes[model]) | {"backbone.weight": np.zeros(2, np.float32)}, path)
    with pytest.raises(
        StudyError, match=r"it holds a tensor 'backbone\.weight', and the names of its public"
    ):
        resolve_weights(str(path), [model])
    save_file({}, path)
    with pytest.raises(StudyError, match="it holds no tensor"):
        resolve_weights(str(path), [model])


def test_a_kept_file_is_read_anew(tmp_path: Path, tiny_file: Path) -> None:
    entry = {"path": "tiny.safetensors", "source": "a file", "sha256": file_sha256(tiny_file)}
    assert read_kept(tmp_path, entry) == Pretrained(tiny_file, "a file", entry["sha256"])
    content = bytearray(tiny_file.read_bytes())
    content[-1] ^= 1
    tiny_file.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    with pytest.raises(
        StudyError, match=f"has sha256 {digest}, but study.json has {entry['sha256']}; repeat the study's"
    ):
        read_kept(tmp_path, entry)
    tiny_file.unlink()
    with pytest.raises(StudyError, match=r"tiny\.safetensors is gone; repeat the study's command"):
        read_kept(tmp_path, entry)


def test_the_public_file_is_known_by_its_digest(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    public = PRETRAINED["densenet121"]
    digest = hashlib.sha256(tiny_file.read_bytes()).hexdigest()
    monkeypatch.setitem(PRETRAINED, "densenet121", type(public)(**{**vars(public), "sha256": digest}))
    found = resolve_weights(str(tiny_file), ["densenet121"])["densenet121"]
    assert found.source == f"timm/densenet121.tv_in1k at {public.revision[:12]} ({public.about})"


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"--weights imagnet does not exist; give random, imagenet"):
        resolve_weights("imagnet", ["densenet121"])
    assert resolve_weights("imagnet", []) == {}  # nobody needs it any more


# --- the hub ------------------------------------------------------------------------------------------------------


class Hub(ThreadingHTTPServer):
    """A hub with one file at every address, as far as `huggingface_hub` asks; it keeps what it was asked."""

    daemon_threads = True
    content = save({"a": np.arange(3, dtype=np.float32)})

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.silent = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer(self.server.content)

    def answer(self, body: bytes = b"") -> None:
        self.server.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        if self.server.silent:
            time.sleep(30)
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.send_header("ETag", f'"{hashlib.sha256(self.server.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.path.split("/resolve/")[1].split("/")[0])
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


# The library reads its settings when it is imported, hence a process of its own. The digest of the hub's file is
# put in the place of the real one, unless it shall be wrong.
CHILD = """
import dataclasses, json, sys, time
from common import pretrained
from common.errors import StudyError
digest = sys.argv[1]
if digest:
    for model, source in pretrained.PRETRAINED.items():
        pretrained.PRETRAINED[model] = dataclasses.replace(source, sha256=digest)
pretrained.HUB_TIMEOUT_SECONDS = 0.5
told, found, error, began = [], {}, "", time.perf_counter()
try:
    found = pretrained.resolve_weights("imagenet", ["cnn", "densenet121", "convnext_tiny"], told.append)
except StudyError as fault:
    error = str(fault)
print(json.dumps({
    "told": told, "error": error, "seconds": time.perf_counter() - began,
    "found": {model: [str(one.path), one.source, one.sha256] for model, one in found.items()},
}))
"""


def resolve_in_child(address: str, home: Path, digest: str) -> dict[str, Any]:
    environment = {
        name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
    } | {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_TOKEN": "hf_mine", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, digest],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_public_weights_are_fetched_once_and_then_come_from_the_cache(hub: Hub, tmp_path: Path) -> None:
    digest = hashlib.sha256(hub.content).hexdigest()
    first = resolve_in_child(hub.address, tmp_path, digest)
    assert list(first["found"]) == list(BACKBONES)
    for model, (path, source, sha256) in first["found"].items():
        public = PRETRAINED[model]
        assert Path(path).read_bytes() == hub.content
        assert sha256 == digest
        assert source.startswith(f"{public.repository} at {public.revision[:12]}")
    addresses = [f"/{p.repository}/resolve/{p.revision}/{p.filename}" for p in PRETRAINED.values()]
    assert {path for _, path, _ in hub.asked} == set(addresses)
    assert [line.split()[1] for line in first["told"]] == [hub.address + path for path in addresses]
    assert all(line.startswith("Fetching ") and "MiB, once)" in line for line in first["told"])
    for _, _, headers in hub.asked:  # no token of the user, no word on what is installed
        assert "authorization" not in headers
        assert "torch" not in headers["user-agent"]

    hub.asked.clear()
    second = resolve_in_child(hub.address, tmp_path, digest)
    assert second["found"] == first["found"]
    assert (second["told"], hub.asked) == ([], [])


def test_a_fetched_file_of_another_digest_is_refused(hub: Hub, tmp_path: Path) -> None:
    got = resolve_in_child(hub.address, tmp_path, digest="")
    assert hashlib.sha256(hub.content).hexdigest() in got["error"]
    assert PRETRAINED["densenet121"].sha256 in got["error"]
    folder = Path(got["error"].split("delete the folder ")[1].split(",")[0])
    assert folder.is_relative_to(tmp_path)
    assert folder.name == "models--timm--densenet121.tv_in1k"


@pytest.mark.parametrize("silent", [True, False])
def test_a_hub_out_of_reach_is_given_up_soon_with_the_way_round(
    hub: Hub, tmp_path: Path, silent: bool
) -> None:
    hub.silent = silent
    if not silent:  # nobody listens there any more
        hub.shutdown()
        hub.server_close()
    got = resolve_in_child(hub.address, tmp_path, digest="0" * 64)
    assert got["seconds"] < 5
    assert got["told"] == []
    assert "\n" not in got["error"]
    for model in BACKBONES:
        public = PRETRAINED[model]
        url = f"https://huggingface.co/{public.repository}/resolve/{public.revision}/{public.filename}"
        assert f"{url} as DIR/{file_name(model)}" in got["error"]
    assert "give --weights DIR" in got["error"]
