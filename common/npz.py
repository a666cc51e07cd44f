"""Arrays out of a NumPy archive that anybody may have written: bounded, of known types, never unpickled.

An archive says three times how large an array is, and each may lie: in the archive's list, in the array's header, and
by what its packed bytes unpack to. All three must agree, and fit below a limit, before memory is taken.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

MAX_HEADER_BYTES = 10_000  # as NumPy has it
MAX_MEMBERS = 1000
FAULTS = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    TypeError,
    MemoryError,
    OverflowError,
    RuntimeError,  # an encrypted member
    NotImplementedError,  # a packing that nobody knows
    zipfile.BadZipFile,
    zlib.error,
)


def read_arrays(path: Path, kinds: Mapping[str, str], most_bytes: int) -> dict[str, NDArray[Any]]:
    """The named arrays of an archive: name -> array. `kinds` are NumPy's letters of the types that each may have.

    Raises one of FAULTS where one is missing, of another type, or not what the archive says of it, and where all
    together have more than `most_bytes`.
    """
    if not path.is_file():  # opening a pipe would wait for ever
        raise OSError("it is no file")
    if path.stat().st_size > most_bytes:
        raise ValueError(f"it has {path.stat().st_size} bytes, more than the {most_bytes} allowed")
    with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
        if len(archive.infolist()) > MAX_MEMBERS:
            raise ValueError(f"it holds {len(archive.infolist())} arrays")
        members = {name: archive.getinfo(f"{name}.npy") for name in kinds}
        unpacked = sum(member.file_size for member in members.values())
        if unpacked > most_bytes:
            raise ValueError(f"it unpacks to {unpacked} bytes, more than the {most_bytes} allowed")
        return {name: _read_member(archive, member, kinds[name]) for name, member in members.items()}


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, kinds: str) -> NDArray[Any]:
    with archive.open(member) as stream:
        shape, fortran, dtype = _read_header(stream, member.filename)
        if dtype.kind not in kinds or dtype.hasobject:
            raise ValueError(f"{member.filename} holds {dtype}")
        data = stream.read()  # never more than the archive's list says
    if min(shape, default=0) < 0 or len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{member.filename} has {len(data)} bytes, and its header says {shape} of {dtype}")
    flat = np.frombuffer(data, dtype) if dtype.itemsize else np.zeros(math.prod(shape), dtype)
    return flat.reshape(shape, order="F" if fortran else "C").copy()


def _read_header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream, max_header_size=MAX_HEADER_BYTES)
        if version == (2, 0):
            return np.lib.format.read_array_header_2_0(stream, max_header_size=MAX_HEADER_BYTES)
    except (
        Exception
    ) as error:  # the header is a piece of Python to NumPy, whose parsers raise nearly anything
        raise ValueError(f"{name} has no sound header ({type(error).__name__})") from error
    raise ValueError(f"{name} is of another format")


def of_equal_length(arrays: Iterable[NDArray[Any]]) -> int | None:
    """Their common length along the first axis; None where they have none."""
    lengths = {array.shape[:1] for array in arrays}
    return int(next(iter(lengths))[0]) if len(lengths) == 1 and lengths != {()} else None
