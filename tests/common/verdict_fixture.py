"""Verdicts on made-up scores, with every number computed as the study computes it."""

from __future__ import annotations

from typing import Any

import numpy as np

from common.random_numbers import generator
from common.statistics import (
    Estimate,
    churn,
    effect_size,
    equivalence,
    plan_seeds,
    sign_flip_test,
    variance_components,
)
from common.verdicts import Verdict

TORCH, KERAS = "torch", "keras-tensorflow"


def made_up(
    shift: float = 0.0,
    seeds: int = 10,
    noise: int = 3,
    patients_sd: float = 0.02,
    sd: float = 0.01,
    margin: float = 0.05,
    **changed: Any,
) -> Verdict:
    """Keras lies `shift` above PyTorch, give or take `sd` a seed; `noise` A/A runs. Other fields are replaced."""
    draws = generator(
        "verdict", seeds, str(shift), str(changed.get("task", "")), str(changed.get("model", ""))
    )
    theirs = 0.85 + sd * draws.normal(size=seeds)
    differences = shift + sd * draws.normal(size=seeds)
    over = float(differences.mean()) if seeds else np.nan
    wide, narrow = 1.96 * patients_sd, 1.645 * patients_sd
    decisions = draws.random((2, max(seeds, 1), 60)) < 0.5
    fields: dict[str, Any] = {
        "lane": "aligned", "task": "binary", "model": "cnn", "framework": KERAS, "reference": TORCH,
        "metric": "auroc_score", "seeds": tuple(range(seeds)), "folds": 1, "patients": 32,
        "differences": differences, "scores": {TORCH: theirs, KERAS: theirs + differences}, "margin": margin,
        "over_patients": Estimate(over, over - wide, over + wide, 0.4),
        "over_seeds": sign_flip_test(differences),
        "equivalence": equivalence(differences, margin),
        "equivalent_over_patients": bool(abs(over) + narrow < margin),
        "p_value": 0.4, "p_holm": 0.8, "word": "undecided" if seeds else "no score",
        "effect": effect_size(differences), "plan": plan_seeds(sd, seeds, margin),
        "components": variance_components(np.stack([theirs, theirs + differences])[..., None], patients_sd**2)
        if seeds > 1 else (),
        "churn": churn(decisions[0], decisions[1], decisions[0][:noise] ^ (draws.random((noise, 60)) < 0.05))
        if seeds else None,
        "noise": sd * draws.normal(size=noise),
    }  # fmt: skip
    return Verdict(**(fields | changed))
