"""What no framework may decide, as pure functions: phases, the learning rate of a step, the epoch that is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from common.config import Recipe

CHOICE_RULE = "lowest validation loss, the earliest of equals"


@dataclass(frozen=True)
class Phase:
    """A stretch of epochs with an optimizer and a schedule of its own."""

    trainable: str  # "head" | "all"
    start: int  # its first epoch, from 1
    epochs: int


def phases(recipe: Recipe) -> list[Phase]:
    """First the last layer alone, if the recipe says so, then everything; a phase without epochs is left out."""
    head = min(recipe.head_epochs, recipe.epochs)
    stretches = [Phase("head", 1, head), Phase("all", 1 + head, recipe.epochs - head)]
    return [phase for phase in stretches if phase.epochs]


def learning_rate(step: int, total_steps: int, recipe: Recipe) -> float:
    """Linear warm-up to the peak, then half a cosine down (Loshchilov & Hutter 2017).

    `step` counts from 0 within a phase of `total_steps`.
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
