"""All randomness of the study: counter-based, keyed by what it is for, never by when or where it is drawn.

A key is a sequence of words and numbers, e.g. `("augment", seed, epoch, sample_id)`. Equal keys give equal numbers on
every machine, in every process, in any order; different keys give independent streams (Salmon et al. 2011, Philox).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def philox(*key: str | int) -> np.random.Philox:
    """The Philox bit generator of a key; 128 key bits from BLAKE2b of the key's unambiguous text."""
    return np.random.Philox(key=_key_words(key))


def _key_words(key: Sequence[str | int]) -> NDArray[np.uint64]:
    """The bit generator's key, (2,)."""
    text = "\x1f".join(f"str:{part}" if isinstance(part, str) else f"int:{int(part)}" for part in key)
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)


def generator(*key: str | int) -> np.random.Generator:
    """NumPy's generator on the key's stream, for shuffles and normal draws."""
    return np.random.Generator(philox(*key))


def uniform(count: int, *key: str | int) -> NDArray[np.float64]:
    """`count` numbers in [0, 1) with 53 random bits each; cheaper than a `generator` for a handful."""
    return np.asarray((philox(*key).random_raw(count) >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def uniform_rows(count: int, keys: Sequence[Sequence[str | int]]) -> NDArray[np.float64]:
    """`uniform(count, *key)` of each key, (len(keys), count); one bit generator for all, as making one costs most."""
    source = np.random.Philox(key=0)
    state = source.state  # at the start of a stream: counter 0, nothing buffered
    raw = np.empty((len(keys), count), dtype=np.uint64)
    for row, key in zip(raw, keys, strict=True):
        state["state"]["key"] = _key_words(key)
        source.state = state
        row[:] = source.random_raw(count)
    return np.asarray((raw >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def keep_mask(shape: tuple[int, ...], rate: float, *key: str | int) -> NDArray[np.float32]:
    """A dropout mask: 0 with probability `rate`, else 1 / (1 - rate); (Srivastava et al. 2014, inverted)."""
    kept = uniform(math.prod(shape), "dropout", *key) >= rate
    return (kept / (1 - rate)).reshape(shape).astype(np.float32)
