"""The files that `compare.py parity`, `ladder` and `defaults` leave beside a study, written by hand: no training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from common import config, results
from common.config import DEFAULTS, MODELS, NOTICE, PARITY_TOLERANCES
from common.random_numbers import generator

TASK = {"cnn": "binary", "densenet121": "subtype", "convnext_tiny": "subtype", "unet": "segmentation"}
PARAMETERS = {"cnn": 362_209, "densenet121": 6_956_931, "convnext_tiny": 27_822_435, "unet": 485_817}
STEPS = 100
VERSIONS = {"torch": {"torch": "2.13.0"}, "keras-tensorflow": {"keras": "3.15.1", "tensorflow": "2.21.0"}}
DIVERGENCE = {
    "step": 1, "stage": "weights", "layer": "norm1", "tensor": "bias", "difference": 1e-2, "tolerance": 1e-9,
    "words": "step 1: outputs, loss and gradients agree, but the weights of norm1.bias after the step differ by 1e-02 "
    "of their size: look at the optimizer (rate, decay, epsilon, clipping)",
}  # fmt: skip


def parity_row(
    model: str, framework: str = "keras-tensorflow", precision: str = "float64", **changes: Any
) -> dict:
    """A row that passed: float64 losses equal to 12 digits, float32 ones as far off as the reference from itself."""
    exact = precision == "float64"
    sizes = {"outputs_max_rel": 2e-13, "forward_max_abs": 4e-14, "loss_max_rel": 3.4e-13, "gradients_max_rel": 8e-11,
             "weights_max_rel": 5e-12, "statistics_max_rel": 0.0, "logits_max_abs": 6e-12}  # fmt: skip
    drifted = {"outputs_max_rel": 3e-6, "forward_max_abs": 2e-7, "loss_max_rel": 0.021, "gradients_max_rel": 0.4,
               "weights_max_rel": 0.03, "statistics_max_rel": 2e-3, "logits_max_abs": 0.2}  # fmt: skip
    floor = {"loss_max_rel": 0.018, "logits_max_abs": 0.15, "of": "torch with 2 and 3 threads against 1"}
    return {
        "task": TASK[model], "model": model, "framework": framework, "reference": "torch", "precision": precision,
        "steps": STEPS, "profile": "standard", "image_size": 64, "parameters": PARAMETERS[model], "batch_size": 8,
        "learning_rate": 1e-3, "gradient_clip_norm": 1.0, "head_steps": 20 if model in config.BACKBONES else 0,
        "seconds": 41.5, **(sizes if exact else drifted), "tolerances": PARITY_TOLERANCES[precision],
        "floor": None if exact else floor, "first_divergence": None, "passed": True, **changes,
    }  # fmt: skip


def mutation(model: str, name: str, caught: bool, **changes: Any) -> dict[str, Any]:
    found = DIVERGENCE if caught else dict.fromkeys(DIVERGENCE)
    default, harmless = DEFAULTS[name], name in config.PARITY_HARMLESS
    return {
        "model": model, "framework": "torch" if name == "flatten" else "keras-tensorflow", "name": name,
        "title": default.title, "about": default.about, "caught": caught, "harmless": harmless,
        **{key: found[key] for key in ("step", "stage", "layer", "tensor", "difference", "words")}, **changes,
    }  # fmt: skip


def write_parity(
    directory: Path,
    rows: Sequence[dict[str, Any]] | None = None,
    mutations: Sequence[dict[str, Any]] | None = None,
) -> None:
    """All four models in both precisions, every default as a planted fault; or the rows given."""
    if rows is None:
        rows = [parity_row(model, precision=one) for one in sorted(PARITY_TOLERANCES) for model in MODELS]
    if mutations is None:
        mutations = [
            mutation(model, name, caught=name not in config.PARITY_HARMLESS)
            for name, default in DEFAULTS.items()
            for model in default.models
        ]
    results.write_json(directory / "parity.json", {
        "format": 1, "notice": NOTICE, "data": "the drawn phantom (not patients)", "environment": VERSIONS,
        "rows": list(rows), "mutations": list(mutations),
    })  # fmt: skip
    lines = []
    for row in rows:
        size = row["loss_max_rel"] or 0.0
        arms = [(row["framework"], size)]
        arms += [(f"torch, {n} threads", 0.8 * size) for n in (2, 3)] if row["precision"] == "float32" else []
        for arm, top in arms:
            noise = generator("steps", row["model"], arm, row["precision"]).random(row["steps"])
            for step in range(row["steps"]):
                relative = 0.0 if step == 0 else top * noise[step] * (step / row["steps"]) ** 2
                lines.append([row["model"], arm, row["precision"], step + 1, 0.7, relative, 3 * relative])
    columns = ["model", "framework", "precision", "step", "loss", "loss_rel", "gradients_rel"]
    results.write_csv(directory / "parity_steps.csv", pd.DataFrame(lines, columns=columns))


def ladder_rows(
    task: str, model: str, measure: str, shares: dict[str, float], width: float
) -> list[dict[str, Any]]:
    """A walk whose steps are `shares` (of other defaults 0), ending at a gap of 0, and each default alone with half its
    share; every interval reaches `width` to both sides.
    """
    defaults = defaults_of(task, model)
    steps = [shares.get(one.name, 0.0) for one in defaults]
    gaps = [math.fsum(steps[k:]) for k in range(len(steps) + 1)]
    key = {"task": task, "model": model, "measure": measure}

    def row(arm: str, rung: int, default: str, gap: float, share: float | None) -> dict[str, Any]:
        around = (None, None) if share is None else (share - width, share + width)
        return {
            **key, "arm": arm, "rung": rung, "default": default, "gap": gap, "gap_low": gap - width,
            "gap_high": gap + width, "distance": abs(gap) + width / 2, "share": share, "share_low": around[0],
            "share_high": around[1],
        }  # fmt: skip

    rows = [row("walk", 0, "", gaps[0], None)]
    rows += [
        row("walk", k + 1, one.name, gaps[k + 1], share)
        for k, (one, share) in enumerate(zip(defaults, steps, strict=True))
    ]
    return rows + [
        row("alone", k + 1, one.name, share / 2, share / 2)
        for k, (one, share) in enumerate(zip(defaults, steps, strict=True))
    ]


def defaults_of(task: str, model: str) -> tuple[config.Default, ...]:
    return config.defaults_of(config.spec_of(task, model, "quick"), config.recipe_of(task, model, "quick"))


LADDERS: dict[tuple[str, str], tuple[str, str, dict[str, float]]] = {
    ("binary", "cnn"): ("auroc_score", "AUROC", {
        "loop": 0.004, "stock_layers": -0.002, "order": 0.031, "initial_weights": 0.012, "flatten": -0.018,
        "loss_input": 0.006, "sample_weights": 0.001,
    }),
    ("segmentation", "unet"): ("dice_score", "Dice", {
        "loop": 0.02, "order": -0.011, "initial_weights": 0.055, "conv_bias": 0.003, "norm_epsilon": 0.12,
        "norm_decay": -0.02, "norm_variance": 0.004, "loss_input": 0.03,
    }),
}  # fmt: skip


def write_ladder(directory: Path, width: float = 0.008, seeds: int = 5) -> None:
    results.write_json(directory / "ladder.json", {
        "format": 1, "notice": NOTICE, "data": "the drawn phantom (not patients)", "profile": "quick", "steps": 120,
        "seeds": seeds, "frameworks": ["torch", "keras-tensorflow"], "environment": VERSIONS,
        "ladders": [
            {
                "task": task, "model": model, "metric": metric, "metric_title": title,
                "defaults": [
                    {"name": one.name, "title": one.title, "about": one.about, "torch": dict(one.torch),
                     "keras": dict(one.keras)}
                    for one in defaults_of(task, model)
                ],
            }
            for (task, model), (metric, title, _) in LADDERS.items()
        ],
    })  # fmt: skip
    rows = []
    for (task, model), (_, _, shares) in LADDERS.items():
        rows += ladder_rows(task, model, "loss", shares, width)
        rows += ladder_rows(task, model, "score", {name: -share / 2 for name, share in shares.items()}, width)
    results.write_csv(directory / "ladder.csv", pd.DataFrame(rows))


# item -> (title, section, aligned, torch, keras)
ATLAS: dict[str, tuple[str, str, Any, Any, Any]] = {
    "conv_kernel": ("Kernel of a convolution", "Starting values", "one NumPy initialiser", "U(±1/√in)",
                    "U(±√6/√(in + out))"),
    "dense_bias": ("Bias of a dense layer", "Starting values", "0", "U(±1/√in)", "0"),
    "norm_epsilon": ("Epsilon of batch norm", "Normalisation", 1e-5, 1e-5, 1e-3),
    "gelu": ("GELU", "Activations", "exact", "exact", "exact"),
    "adam_form": ("Where Adam adds its epsilon", "Optimizers", "corrected", "corrected", "uncorrected"),
    "shuffle": ("Training data are shuffled", "Training loop", None, False, True),
    "dice": ("Smoothing of the Dice loss", "Losses", None, None, 1.0),
}  # fmt: skip


def write_atlas(directory: Path) -> None:
    def probes(place: int) -> dict[str, Any]:
        return {
            item: {
                "value": entry[3 + place],
                "how": "signature" if item == "norm_epsilon" else "numeric",
                "detail": "no such loss" if entry[3 + place] is None else f"what was done for {item}",
            }
            for item, entry in ATLAS.items()
        }

    results.write_json(directory / "defaults.json", {
        "format": 1, "notice": NOTICE,
        "frameworks": {
            name: {"versions": VERSIONS[name], "items": probes(place)} for place, name in enumerate(VERSIONS)
        },
        "items": [
            {"item": item, "title": title, "section": section, "aligned": aligned}
            for item, (title, section, aligned, *_) in ATLAS.items()
        ],
    })  # fmt: skip


def write_all(directory: Path) -> None:
    write_parity(directory)
    write_ladder(directory)
    write_atlas(directory)


def shares_of(rows: pd.DataFrame) -> float:
    """What a walk took away in all."""
    return float(np.nansum(rows["share"]))
