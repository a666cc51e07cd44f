"""Two pure functions that no framework may decide: the learning rate of a step, and the epoch that is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

from common.config import Recipe

CHOICE_RULE = "lowest validation loss, the earliest of equals"


def learning_rate(step: int, total_steps: int, recipe: Recipe) -> float:
    """Linear warm-up to the peak, then half a cosine down (Loshchilov & Hutter 2017); `step` counts from 0.

    The first step already has a rate above 0 (1/warm-up of the peak), the last has the final rate.
    """
    warmup = max(1, round(recipe.warmup_fraction * total_steps))
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    progress = (step - warmup + 1) / max(1, total_steps - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    final = recipe.final_learning_rate_fraction
    return recipe.learning_rate * (final + (1 - final) * cosine)


def choose_epoch(val_losses: Sequence[float]) -> int:
    """Index of the epoch to keep, by CHOICE_RULE."""
    return min(range(len(val_losses)), key=lambda epoch: (val_losses[epoch], epoch))
