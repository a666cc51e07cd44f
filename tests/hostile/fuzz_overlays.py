"""Fuzz the reader of painted overlays, pixels and files; see `fuzzing`."""

from __future__ import annotations

import atheris
import fuzzing

with atheris.instrument_imports(include=["common"]):
    from common.data import overlays

import corpus
import cv2
import numpy as np

FOLDER = fuzzing.scratch()
cv2.setNumThreads(1)


def array(provider: atheris.FuzzedDataProvider, channels: int) -> np.ndarray:
    """uint8 (H, W) or (H, W, channels): a drawn slice, or nothing but bytes, changed in a few places."""
    height, width = provider.ConsumeIntInRange(1, 72), provider.ConsumeIntInRange(1, 72)
    shape = (height, width, channels) if channels else (height, width)
    pixels = np.full(shape, provider.ConsumeIntInRange(0, 255), np.uint8)
    if provider.ConsumeBool():
        slice_ = cv2.resize(corpus.SLICE, (width, height))
        pixels[:] = slice_[..., np.newaxis] if channels else slice_
    for _ in range(provider.ConsumeIntInRange(0, 6)):
        top, left = provider.ConsumeIntInRange(0, height - 1), provider.ConsumeIntInRange(0, width - 1)
        bottom, right = top + provider.ConsumeIntInRange(1, 40), left + provider.ConsumeIntInRange(1, 40)
        colour = [provider.ConsumeIntInRange(0, 255) for _ in range(channels or 1)]
        pixels[top:bottom, left:right] = colour if channels else colour[0]
        if provider.ConsumeBool():  # an outline
            inner = pixels[top + 2 : bottom - 2, left + 2 : right - 2]
            inner[:] = provider.ConsumeIntInRange(0, 255)
    raw = np.frombuffer(provider.ConsumeBytes(provider.ConsumeIntInRange(0, 2000)), np.uint8)
    flat = pixels.reshape(-1)
    flat[: min(len(raw), len(flat))] = raw[: len(flat)]
    return pixels


def target(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    if provider.ConsumeIntInRange(0, 4) == 0:  # files
        path = FOLDER / "overlay.png"
        path.write_bytes(provider.ConsumeBytes(provider.remaining_bytes()))
        found = overlays.read_overlay(path)
        shape = found.mask.shape
    else:
        overlay = array(provider, provider.PickValueInList([0, 3, 4]))
        image = array(provider, provider.PickValueInList([0, 3, 4])) if provider.ConsumeBool() else None
        found = overlays.interpret_overlay(overlay, image)
        shape = (overlay if image is None else image).shape[:2]
    assert found.mask.dtype == np.bool_
    assert found.mask.shape == shape[:2]
    assert 0 <= found.confidence <= 1


def seeds() -> list[bytes]:
    rng = np.random.default_rng(0)
    files = [
        data + b"\0"
        for name, data in corpus.small_pictures().items()
        if "dcm" not in name and len(data) < 9000
    ]
    return files + [rng.bytes(size) for size in (40, 200, 1000, 4000)]


if __name__ == "__main__":
    fuzzing.fuzz(target, seeds(), 10_000)
