"""Public weights that a backbone may start from: found, fetched once, checked against a known digest, and read.

Every framework starts from the same file. This is the only module that goes to the network, and only for the weights
of `config.PRETRAINED` where they are not in the Hugging Face cache yet (`HF_HOME` says where that is).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from common.config import BACKBONES, HUB_TIMEOUT_SECONDS, PRETRAINED, PretrainedSource
from common.errors import StudyError
from common.files import file_digest
from common.framework import Array
from common.names import lies_below
from common.weights import check_weights_file

ENTRY = ("path", "source", "sha256")  # what study.json says of a kept file
HUB = "https://huggingface.co"
PREFIXES = {  # of every tensor's name in a backbone's public file
    "densenet121": ("features.", "classifier."),
    "convnext_tiny": ("stem.", "stages.", "head."),
}


@dataclass(frozen=True)
class Pretrained:
    """A weights file at hand."""

    path: Path
    source: str  # where it came from, for a reader
    sha256: str


# --- finding ------------------------------------------------------------------------------------------------------


def resolve_weights(
    choice: str, models: Sequence[str], announce: Callable[[str], object] = print
) -> dict[str, Pretrained]:
    """The file that each backbone among the models starts from; models without public weights are left out.

    `choice` is "random" (no file), "imagenet" (those of `config.PRETRAINED`, from the cache or else the hub; `announce`
    is told what is fetched), the path of a safetensors file for the one backbone among the models, or of a folder with
    the files named as in `file_name`. Raises StudyError where a file is missing, cannot be fetched, is not the public
    one though it should be, is no safetensors file, or names its tensors as no file of the model does.
    """
    backbones = [model for model in BACKBONES if model in models]
    if choice == "random" or not backbones:
        return {}
    if choice == "imagenet":
        return {model: _public(model, path) for model, path in _obtain(backbones, announce).items()}
    return {model: _given(model, path) for model, path in _local_files(choice, backbones).items()}


def file_name(model: str) -> str:
    """How a backbone's public weights are named in a folder, e.g. `densenet121.tv_in1k.safetensors`."""
    return f"{PRETRAINED[model].repository.split('/')[-1]}.safetensors"


def _public(model: str, path: Path) -> Pretrained:
    known, digest = PRETRAINED[model], file_sha256(path)
    if digest != known.sha256:
        raise StudyError(
            f"{path} has sha256 {digest}, but the public weights of {model} have {known.sha256}; "
            f"delete the folder {path.parents[2]}, so that they are fetched anew"
        )
    return Pretrained(path, _describe(known), digest)


def _given(model: str, path: Path) -> Pretrained:
    _check_names(path, model)
    known, digest = PRETRAINED[model], file_sha256(path)
    return Pretrained(path, _describe(known) if digest == known.sha256 else f"the file {path.name}", digest)


def _local_files(choice: str, backbones: Sequence[str]) -> dict[str, Path]:
    path = Path(choice)
    if path.is_file():
        if len(backbones) > 1:
            raise StudyError(
                f"--weights {choice} is one file for {' and '.join(backbones)}; give a folder that holds "
                f"{' and '.join(map(file_name, backbones))}, or one of them by --models"
            )
        return dict.fromkeys(backbones, path)
    if not path.is_dir():
        raise StudyError(
            f"--weights {choice} does not exist; give random, imagenet, a safetensors file or its folder"
        )
    files = {model: path / file_name(model) for model in backbones}
    for model, file in files.items():
        if not file.is_file():
            raise StudyError(
                f"--weights {choice} holds no {file.name}, which {model} starts from; "
                f"download {_url(PRETRAINED[model])} to there under that name"
            )
    return files


def _describe(source: PretrainedSource) -> str:
    return f"{source.repository} at {source.revision[:12]} ({source.about})"


def _url(source: PretrainedSource) -> str:
    return f"{HUB}/{source.repository}/resolve/{source.revision}/{source.filename}"


def file_sha256(path: Path) -> str:
    """The sha256 of a weights file's bytes."""
    try:
        check_weights_file(path)
        return file_digest(path)
    except OSError as error:
        raise StudyError(
            f"{path} cannot be read ({error.strerror or error}); mend its permissions or give another --weights"
        ) from error


# --- kept in a study ----------------------------------------------------------------------------------------------


def read_kept(study_directory: Path, entry: Mapping[str, str]) -> Pretrained:
    """The file that a study keeps for a backbone, by its entry {path, source, sha256} in study.json, hashed anew.

    Raises StudyError where it is gone or holds other bytes than study.json says.
    """
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ENTRY):
        raise StudyError(
            f"{study_directory / 'study.json'} holds an odd entry of weights; repeat the study's command"
        )
    path = study_directory / entry["path"]
    if not lies_below(study_directory, entry["path"]):
        raise StudyError(
            f"{path}, which study.json names, does not lie in the study; repeat the study's command"
        )
    if not path.is_file():
        raise StudyError(f"{path} is gone; repeat the study's command, which puts it back")
    digest = file_sha256(path)
    if digest != entry["sha256"]:
        raise StudyError(
            f"{path} has sha256 {digest}, but study.json has {entry['sha256']}; repeat the study's command, which puts "
            "the right file back"
        )
    return Pretrained(path, entry["source"], digest)


# --- fetching -----------------------------------------------------------------------------------------------------


def _obtain(backbones: Sequence[str], announce: Callable[[str], object]) -> dict[str, Path]:
    """The hub's file of each backbone, from the cache or fetched."""
    # Read when the library is imported. A public file needs neither statistics nor the user's token.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import try_to_load_from_cache

    paths: dict[str, Path] = {}
    missing: list[str] = []
    for model in backbones:
        source = PRETRAINED[model]
        cached = try_to_load_from_cache(source.repository, source.filename, revision=source.revision)
        if isinstance(cached, str):
            paths[model] = Path(cached)
        else:
            missing.append(model)
    for model in missing:
        try:
            paths[model] = _fetch(PRETRAINED[model], announce)
        except (
            Exception
        ) as error:  # the client lets through what its many layers raise; the remedy is the same
            absent = [one for one in missing if one not in paths]
            downloads = " and ".join(f"{_url(PRETRAINED[one])} as DIR/{file_name(one)}" for one in absent)
            reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".:")
            raise StudyError(
                f"the public weights of {' and '.join(absent)} cannot be fetched ({reason}); download {downloads} and "
                "give --weights DIR, or start from --weights random"
            ) from error
    return {model: paths[model] for model in backbones}


def _fetch(source: PretrainedSource, announce: Callable[[str], object]) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    url = hf_hub_url(source.repository, source.filename, revision=source.revision)
    # Asked once, without the retries that keep the download itself waiting for minutes where there is no hub.
    size = get_hf_file_metadata(url, timeout=HUB_TIMEOUT_SECONDS, token=False).size
    weight = f"{size / 2**20:.0f} MiB, " if size else ""
    announce(f"Fetching {url} ({weight}once): {source.about}.")
    fetched = hf_hub_download(
        source.repository,
        source.filename,
        revision=source.revision,
        etag_timeout=HUB_TIMEOUT_SECONDS,
        token=False,
    )
    return Path(fetched)


# --- reading ------------------------------------------------------------------------------------------------------

FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}  # safetensors' names; BF16 is read below


def load_pretrained(path: Path, shapes: Mapping[str, tuple[int, ...]], head: str) -> dict[str, Array]:
    """The backbone's tensors by name, float32: all of `shapes`, the model's, but those of its last layer `head`.

    The file's own last layer and BatchNorm's `num_batches_tracked` are passed over. Raises StudyError where anything
    else is missing, surplus, of another shape, no float or not finite, and where the file is no safetensors file.
    """
    stored = {
        name: tensor
        for name, tensor in _deserialize(path)
        if not name.startswith(f"{head}.") and not name.endswith(".num_batches_tracked")
    }
    expected = {name: tuple(shape) for name, shape in shapes.items() if not name.startswith(f"{head}.")}
    fault = _misfit({name: tuple(tensor["shape"]) for name, tensor in stored.items()}, expected)
    if fault:
        raise StudyError(
            f"{path.name} does not fit the model: {fault}; public weights need the full-size model, "
            "so use --profile standard or full, or --weights random"
        )
    return {name: _to_float32(path, name, stored[name]) for name in expected}


def _misfit(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> str:
    """What is wrong with the names and shapes, in words; empty where they are equal."""
    for names, words in (
        (sorted(expected.keys() - found.keys()), "it lacks the tensor"),
        (sorted(found.keys() - expected.keys()), "the model has no tensor"),
    ):
        if names:
            return f"{words} {names[0]!r}" + (f" (and {len(names) - 1} more)" if names[1:] else "")
    for name, shape in expected.items():
        if found[name] != shape:
            return f"tensor {name!r} has shape {found[name]} in the file and {shape} in the model"
    return ""


def _to_float32(path: Path, name: str, tensor: Mapping[str, Any]) -> Array:
    kind, data, shape = tensor["dtype"], tensor["data"], tensor["shape"]
    if kind == "BF16":  # the upper half of a float32
        bits = np.frombuffer(data, "<u2").astype(np.uint32) << np.uint32(16)
        values = bits.view(np.float32)
    elif kind in FLOATS:
        values = np.frombuffer(data, FLOATS[kind])
    else:
        raise StudyError(f"tensor {name!r} of {path.name} is {kind}, no float; give another --weights")
    if not np.isfinite(values).all():
        raise StudyError(f"tensor {name!r} of {path.name} holds NaN or infinity; fetch the file anew")
    return values.astype(np.float32).reshape(shape)


def _deserialize(path: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        check_weights_file(path)
        return safetensors.deserialize(path.read_bytes())
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise _no_safetensors(path, error) from error


def _check_names(path: Path, model: str) -> None:
    """Raise StudyError unless the header is that of a safetensors file with tensors named as a backbone's."""
    try:
        check_weights_file(path)
        with safetensors.safe_open(path, framework="numpy") as file:
            names = sorted(file.keys())
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise _no_safetensors(path, error) from error
    strange = [name for name in names if not name.startswith(PREFIXES[model])]
    if strange or not names:
        found = f"a tensor {strange[0]!r}" if strange else "no tensor"
        raise StudyError(
            f"{path} does not fit {model}: it holds {found}, and the names of its public weights begin with "
            f"{' or '.join(PREFIXES[model])}; give a file with the tensors named as in timm's model files"
        )


def _no_safetensors(path: Path, error: Exception) -> StudyError:
    return StudyError(
        f"{path} is no safetensors file ({error}); give one with the tensors named as in timm's model files"
    )
