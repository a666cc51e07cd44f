"""What goes wrong in training without an error: answers that no longer depend on the image, and when that ends a run.

A network whose units have all died gives every image the same answer, and no gradient brings it back. Such a run is a
result, so it stays in the study: it is told at once, recorded, and stopped by a rule, not thrown away.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from common import config
from common.framework import Array

STOP_RULE = (
    f"training stops after {config.CONSTANT_EPOCHS} epochs in a row whose validation logits are the same for every "
    "image"
)


class Spread:
    """The range of each output's logits over all that it is shown."""

    def __init__(self) -> None:
        self._low: Array | None = None
        self._high: Array | None = None

    def add(self, logits: Array) -> None:
        """Logits (N, K), or of pixels (N, H, W, K)."""
        rows = logits.reshape(-1, logits.shape[-1])
        low, high = rows.min(axis=0), rows.max(axis=0)
        self._low = low if self._low is None else np.minimum(self._low, low)
        self._high = high if self._high is None else np.maximum(self._high, high)

    def constant(self) -> bool:
        """Whether no output differs by more than CONSTANT_SPREAD of its size from image to image, or pixel to pixel."""
        if self._low is None or self._high is None:
            return False
        size = np.maximum(1.0, np.maximum(np.abs(self._low), np.abs(self._high)))
        return bool((self._high - self._low <= config.CONSTANT_SPREAD * size).all())


def constant_alarms(constant: list[bool]) -> list[dict[str, Any]]:
    """`alarms` of run.json, [{"epoch", "kind", "words"}]: where answers turned constant; an entry a spell.

    `constant` has an entry an epoch, the first being epoch 1.
    """
    return [
        {
            "epoch": epoch,
            "kind": "constant answers",
            "words": f"from epoch {epoch} on the validation logits are the same for every image",
        }
        for epoch, (before, now) in enumerate(zip([False, *constant], constant, strict=False), start=1)
        if now and not before
    ]


def lost(constant: list[bool]) -> bool:
    """Whether STOP_RULE ends the training now."""
    last = constant[-config.CONSTANT_EPOCHS :]
    return len(last) == config.CONSTANT_EPOCHS and all(last)
