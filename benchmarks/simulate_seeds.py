"""Tests over seeds and splits, the planner and the parts of the variance, tried where the truth is known."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from simulate_patients import COVERAGE, FALSE_FINDINGS, Row, false_finding, held

from common.random_numbers import generator
from common.statistics import (
    corrected_resampled_ttest,
    effect_size,
    equivalence,
    mean_interval,
    plan_seeds,
    sign_flip_test,
    variance_components,
)

Floats = NDArray[np.float64]
POWER = "findings where there is something (80 % planned)"
SPLITS = 15  # random 70 / 30 splits, as in the literature on resampled tests
BOOTSTRAP = 400  # replicates of the parametric bootstrap that is compared


def simulate(trials: int) -> Iterator[Row]:
    for trial in range(trials):
        for seeds in (3, 5, 6, 10):
            rng = generator("simulated seeds", seeds, trial)
            yield from judge_seeds(rng, seeds)
        yield from judge_splits(generator("simulated splits", trial))
        yield from judge_crossed(generator("crossed", trial))
        yield from judge_parts(generator("parts", trial))


def judge_seeds(rng: np.random.Generator, seeds: int) -> Iterator[Row]:
    seen, seen_skewed = ("normal", f"{seeds} seeds"), ("skewed (log-normal)", f"{seeds} seeds")
    normal, skewed = rng.normal(0, 1, seeds), rng.lognormal(0, 0.7, seeds) - np.exp(0.245)
    yield from held("t interval over seeds", seen, mean_interval(normal), 0.0)
    yield from held("t interval over seeds", seen_skewed, mean_interval(skewed), 0.0)
    yield from false_finding("sign flip, exact", seen, sign_flip_test(normal))
    yield from false_finding("sign flip, exact", seen_skewed, sign_flip_test(skewed))
    yield from false_finding("paired t", seen, corrected_resampled_ttest(normal, 0.0))
    edge = equivalence(normal + 2.0, 2.0)
    yield "TOST, truth on the margin", *seen, FALSE_FINDINGS, edge.equivalent
    edge = equivalence(skewed + 2.0, 2.0)
    yield "TOST, truth on the margin", *seen_skewed, FALSE_FINDINGS, edge.equivalent
    size = effect_size(normal + 0.8)
    yield "effect size dz", *seen, COVERAGE, size.ci_low <= 0.8 <= size.ci_high
    plan = plan_seeds(1.0, seeds, 1.0)
    shifted = corrected_resampled_ttest(normal + plan.detectable_difference, 0.0)
    yield "planner: difference, t test", *seen, POWER, shifted.p_value < 0.05
    yield "planner: equivalence", *seen, POWER, equivalence(normal, plan.smallest_margin).equivalent


def judge_splits(rng: np.random.Generator) -> Iterator[Row]:
    """Two linear classifiers of equal worth, each on its own half of the features, on random splits of one data set."""
    samples, features = 150, 8
    truth = np.repeat([0, 1], samples // 2)
    pictures = rng.normal(0, 1, (samples, features)) + 0.35 * truth[:, None]
    differences = np.empty(SPLITS)
    for split in range(SPLITS):
        order = rng.permutation(samples)
        train, test = order[: samples * 7 // 10], order[samples * 7 // 10 :]
        right = [
            np.mean(classify(pictures[train][:, half], truth[train], pictures[test][:, half]) == truth[test])
            for half in (slice(0, features // 2), slice(features // 2, features))
        ]
        differences[split] = right[0] - right[1]
    setting = ("random 70/30 splits", f"{SPLITS} splits")
    naive, corrected = (corrected_resampled_ttest(differences, share) for share in (0.0, 0.3))
    for name, result in (("plain t over splits (wrong)", naive), ("Nadeau-Bengio", corrected)):
        yield from false_finding(name, setting, result)
        yield from held(name, setting, result, 0.0)


def classify(train: Floats, truth: NDArray[np.int64], test: Floats) -> NDArray[np.bool_]:
    """Linear discriminant with one variance for all features."""
    means = [train[truth == k].mean(axis=0) for k in (0, 1)]
    return (test - (means[0] + means[1]) / 2) @ (means[1] - means[0]) > 0


def judge_crossed(rng: np.random.Generator) -> Iterator[Row]:
    """10 seeds on each of 5 folds, the folds' own differences against the noise of a seed."""
    for fold_sd, words in (
        (0.0, "no fold effect"),
        (0.5, "fold effect half of the noise"),
        (20.0, "folds alone"),
    ):
        differences = rng.normal(0, fold_sd, 5) + rng.normal(0, 1, (10, 5))
        setting = (words, "10 seeds x 5 splits")
        yield from false_finding(
            "plain t over (seed, fold)", setting, corrected_resampled_ttest(differences.ravel(), 0)
        )
        crossed = corrected_resampled_ttest(differences.ravel(), 0.2)
        yield from false_finding("Nadeau-Bengio over (seed, fold)", setting, crossed)
        over_folds = corrected_resampled_ttest(differences.mean(axis=0), 0.2)
        yield from false_finding("Nadeau-Bengio over folds, seeds averaged", setting, over_folds)


def judge_parts(rng: np.random.Generator) -> Iterator[Row]:
    """Frameworks 1 apart , seeds of variance 4, splits of variance 2, remainder 1."""
    for splits in (1, 5):
        shape = (2, 10, splits)
        scores = np.array([-0.5, 0.5])[:, None, None] + rng.normal(0, 2, (1, 10, 1)) + rng.normal(0, 1, shape)
        if splits > 1:
            scores = scores + rng.normal(0, 2**0.5, (1, 1, splits))
        truth = {"framework": 0.5, "seed": 4.0, "split": 2.0, "remainder": 1.0}
        setting = ("2 frameworks x 10 seeds", f"{splits} split{'s' if splits > 1 else ''}")
        parts = variance_components(scores)
        for part in parts:
            if not np.isnan(part.ci_low):
                name = f"variance part: {part.name}"
                yield name, *setting, COVERAGE, part.ci_low <= truth[part.name] <= part.ci_high
        known = {part.name: part.variance for part in parts}
        for name, ends in parametric_bootstrap(rng, known, shape).items():
            inside = bool(ends[0] <= truth[name] <= ends[1])
            yield f"variance part, parametric bootstrap (not used): {name}", *setting, COVERAGE, inside


def parametric_bootstrap(
    rng: np.random.Generator, known: dict[str, float], shape: tuple[int, int, int]
) -> dict[str, Floats]:
    """95 % percentile intervals of the parts, from scores drawn with the estimated variances, all effects random."""
    draws = np.zeros((BOOTSTRAP, *shape))
    sizes = {
        "framework": (shape[0], 1, 1),
        "seed": (1, shape[1], 1),
        "split": (1, 1, shape[2]),
        "remainder": shape,
    }
    for name, size in sizes.items():
        if not np.isnan(known[name]):
            draws = draws + np.sqrt(known[name]) * rng.normal(0, 1, (BOOTSTRAP, *size))
    centred = draws - draws.mean((1, 2, 3), keepdims=True)
    total, found, squares, rest = (centred**2).sum((1, 2, 3)), {}, {}, centred[0].size - 1
    for axis, name in enumerate(("framework", "seed", "split")):
        if shape[axis] > 1:
            others = tuple(i + 1 for i in range(3) if i != axis)
            squares[name] = (
                (centred.mean(others) ** 2).sum(1) * centred[0].size / shape[axis] / (shape[axis] - 1)
            )
            total, rest = total - squares[name] * (shape[axis] - 1), rest - (shape[axis] - 1)
            found[name] = (squares[name], centred[0].size / shape[axis])
    values = {name: np.maximum(0, (mean - total / rest) / each) for name, (mean, each) in found.items()}
    values["remainder"] = total / rest
    return {name: np.quantile(value, [0.025, 0.975]) for name, value in values.items()}
