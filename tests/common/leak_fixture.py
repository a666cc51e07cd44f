"""Made-up trainings of a leak meter: what their `training.json` would say."""

from __future__ import annotations

import math
from typing import Any

from common.data.leaky_splits import ARMS
from common.leak_runs import LeakTraining

SCORES = {
    "patient": [0.58, 0.70, 0.52],
    "slice": [0.78, 0.80, 0.82],
    "shuffled": [0.70, 0.75, 0.80],
    "shuffled-patient": [0.40, 0.60, 0.50],
}


def documents(scores: dict[str, list[float]], train: int = 70) -> dict[LeakTraining, dict[str, Any]]:
    return {
        LeakTraining("binary", "cnn", "torch", seed, arm): {
            "metric": "auroc_score",
            "score": None if math.isnan(score) else score,
            "ci_low": None,
            "ci_high": None,
            "data": {
                "counts": {"train": {"samples": train}, "test": {"samples": 30, "patients": 5}},
                "split_sha256": f"{arm}{seed}",
            },
            "test_patients_in_training": 5 * ARMS[arm].leaky,
            "epoch": 2,
            "seconds": 1.5,
            "weights": {"initial_sha256": str(seed)},
            "environment": {"framework": "torch 1"},
        }
        for arm, values in scores.items()
        for seed, score in enumerate(values)
    }
