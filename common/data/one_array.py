"""Caches of versions before shards: one array for all pixels, one for all masks. Read as they are, never written."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.data.shards import mask_bytes


def is_whole_array(directory: Path, document: dict[str, Any], size: int) -> bool:
    """Whether a cache of a version before shards is of this size, and pixels and masks have their digests."""
    if document["size"] != size:
        return False
    try:
        if _pixels_digest(directory / "images.npy", document, size**2) != document["sha256"]:
            return False
        masks = document["masks"]
        known = [sample_id for sample_id in document["ids"] if sample_id]
        return masks is None or (
            _masks_digest(directory / "masks.npy", masks, known, mask_bytes(size)) == masks["sha256"]
        )
    except (OSError, OverflowError, KeyError, TypeError, ValueError):
        return False


def _pixels_digest(path: Path, document: dict[str, Any], row_bytes: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        stream.seek(document["offset"])
        for sample_id in document["ids"]:
            row = stream.read(row_bytes)
            if sample_id:
                digest.update(row)
    return digest.hexdigest()


def _masks_digest(path: Path, masks: dict[str, Any], known: Sequence[str], row_bytes: int) -> str:
    """Of the masks of the readable samples, as `common.data.shards.write_shard` makes it."""
    digest, unknown = hashlib.sha256(), set(masks["unknown"])
    rows = {sample_id: row for row, sample_id in enumerate(masks["ids"]) if sample_id}
    with path.open("rb") as stream:
        for sample_id in known:
            if sample_id in rows:
                stream.seek(masks["offset"] + rows[sample_id] * row_bytes)
                digest.update(stream.read(row_bytes))
            kind = b"lesion" if sample_id in rows else b"unknown" if sample_id in unknown else b"none"
            digest.update(kind)
    return digest.hexdigest()
