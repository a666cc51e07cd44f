"""Intervals and tests over patients, tried on test sets of which the truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from common.metrics.by_patient import classification_by_patient, means_by_patient
from common.random_numbers import generator
from common.statistics import (
    Draws,
    Estimate,
    bootstrap_metrics,
    delong,
    interval_of,
    mcnemar,
    wilcoxon_test,
)

Floats = NDArray[np.float64]
COVERAGE, FALSE_FINDINGS = "95 % intervals that hold the truth", "findings at 5 % where there is nothing"
REPLICATES = 1000
PATIENTS = (20, 50, 100)
LARGE = 60_000  # patients that stand for the population: its scores are known to about 0.001
# Each model's separation of the classes, in sd: a moderate task, and one near the ceiling
TASKS = {"moderate": (1.4, 1.0), "near the ceiling": (2.8, 2.2)}
METRICS = (
    "auroc_score",
    "average_precision_score",
    "f1_score",
    "brier_score",
    "expected_calibration_error",
    "dice",
)

# The procedure, the case it is tried on, the size ("20 patients"), what is counted, whether it happened in this trial
Row = tuple[str, str, str, str, bool]
Setting = tuple[str, str]  # case, size


@dataclass(frozen=True)
class TestSet:
    """Slices of patients, judged by three models: a, a weaker b, and a twin of a that errs elsewhere."""

    patient: NDArray[np.int64]  # (N,)
    y_true: NDArray[np.int64]  # (N,)
    y_score: Floats  # (3, N), probabilities
    dice: Floats  # (3, N), many of them 0; the same law for all

    def draws(self, names: NDArray[np.int64], replicates: int) -> dict[str, Draws]:
        return bootstrap_metrics(self.judge(names), names, replicates)

    def judge(self, names: NDArray[np.int64]):  # type: ignore[no-untyped-def]
        scores = classification_by_patient(
            self.y_true, self.y_score, (self.y_score >= 0.5).astype(int), names
        )
        means = means_by_patient({"dice": self.dice}, names)
        return lambda counts: scores(counts) | means(counts)


def test_set(rng: np.random.Generator, patients: int, shifts: tuple[float, float]) -> TestSet:
    """3 to 8 slices a patient. Each label, score and Dice has a part of the patient's own; four in ten labels are 1."""
    patient = np.repeat(np.arange(patients), rng.integers(3, 9, patients))
    truth = (rng.random(len(patient)) < ndtr(rng.normal(-0.3, 1, patients))[patient]).astype(np.int64)
    shared = rng.normal(0, 0.6, patients)[patient]  # hard patients are hard for all models
    scores = [
        shift * (truth - 0.5)
        + shared
        + rng.normal(0, 0.5, patients)[patient]
        + rng.normal(0, 0.6, len(patient))
        for shift in (*shifts, shifts[0])
    ]
    missed = rng.random((3, len(patient))) < ndtr(rng.normal(-0.8, 1, patients))[patient]
    overlap = rng.beta(4, 2, (3, len(patient))) * ndtr(rng.normal(1, 0.7, patients))[patient]
    return TestSet(patient, truth, 1 / (1 + np.exp(-1.5 * np.array(scores))), np.where(missed, 0.0, overlap))


def simulate(trials: int) -> Iterator[Row]:
    for task, shifts in TASKS.items():
        population = test_set(generator("population", task), LARGE, shifts)
        known = population.judge(population.patient)(np.ones((LARGE, 1)))
        truth = {metric: values[:, 0] for metric, values in known.items()}
        for patients in PATIENTS:
            for trial in range(trials):
                rng = generator("simulated patients", task, patients, trial)
                yield from judge(test_set(rng, patients, shifts), truth, (task, f"{patients} patients"))
        for patients in PATIENTS[:2]:
            for trial in range(trials // 4):
                rng = generator("two stages", task, patients, trial)
                yield from judge_two_stages(
                    test_set(rng, patients, shifts), truth, (task, f"{patients} patients"), rng
                )
    for patients in PATIENTS[:2]:
        for trial in range(trials):
            yield from judge_decisions(generator("decisions", patients, trial), patients)


def judge(found: TestSet, truth: dict[str, Floats], setting: Setting) -> Iterator[Row]:
    by_patient = found.draws(found.patient, REPLICATES)
    for metric in METRICS:
        draws = by_patient[metric]
        value, gap, nothing = (
            draws.of([0]).mean(),
            *(draws.of([0]).mean() - draws.of([i]).mean() for i in (1, 2)),
        )
        a, b = truth[metric][:2]
        for method in ("percentile", "bca"):
            name = f"cluster bootstrap, {method}"
            yield from held(f"{name}: {metric}", setting, interval_of(value, method=method), a)
            if metric in ("auroc_score", "average_precision_score"):
                yield from held(
                    f"{name}: difference of {metric}", setting, interval_of(gap, method=method), a - b
                )
                test = interval_of(nothing, method=method, test=True)
                yield from false_finding(f"{name}: difference of {metric}", setting, test)
    plain = by_patient["auroc_score"].of([0]).mean()
    narrow = np.nanquantile(plain.drawn, [0.025, 0.975])
    yield from held(
        "percentile, levels not widened: auroc_score", setting, ends(*narrow), truth["auroc_score"][0]
    )
    by_slice = found.draws(np.arange(len(found.patient)), REPLICATES // 2)
    for metric in ("auroc_score", "dice"):
        value = interval_of(by_slice[metric].of([0]).mean())
        yield from held(f"slice bootstrap (wrong): {metric}", setting, value, truth[metric][0])
    a, b = truth["auroc_score"][:2]
    for name, names in (
        ("DeLong on slices (wrong)", None),
        ("DeLong, clustered (Obuchowski)", found.patient),
    ):
        result = delong(found.y_true, found.y_score[0], found.y_score[1], names)
        yield from held(f"{name}: difference of auroc_score", setting, result, a - b)
        nothing = delong(found.y_true, found.y_score[0], found.y_score[2], names)
        yield from false_finding(f"{name}: difference of auroc_score", setting, nothing)


def judge_two_stages(
    found: TestSet, truth: dict[str, Floats], setting: Setting, rng: np.random.Generator
) -> Iterator[Row]:
    """Patients drawn, then as many slices of each with replacement."""
    size = np.bincount(found.patient)
    times = rng.multinomial(len(size), np.full(len(size), 1 / len(size)), REPLICATES // 2)  # (R, P)
    slices = [rng.multinomial(times[:, p] * m, np.full(m, 1 / m)) for p, m in enumerate(size)]
    values = found.judge(np.arange(len(found.patient)))(np.concatenate(slices, axis=1).T.astype(float))
    for metric in ("auroc_score", "dice"):
        low, high = np.nanquantile(values[metric][0], [0.025, 0.975])
        yield from held(
            f"two stages, patients then slices: {metric}", setting, ends(low, high), truth[metric][0]
        )


def judge_decisions(rng: np.random.Generator, patients: int) -> Iterator[Row]:
    """One decision and one score a patient."""
    for discordant in (0.1, 0.3):
        for gap in (0.0, 0.08):
            setting = (f"{discordant:.0%} decided differently, {gap:g} apart", f"{patients} patients")
            kind = rng.choice(3, patients, p=[(discordant + gap) / 2, (discordant - gap) / 2, 1 - discordant])
            result = mcnemar(kind != 1, kind != 0)
            yield from held("McNemar: interval of Bonett & Price", setting, result, gap)
            if not gap:
                yield from false_finding("McNemar, exact", setting, result)
    # differences that are heavy-tailed, with ties at 0, about 0
    values = np.where(rng.random(patients) < 0.2, 0.0, rng.standard_t(3, patients))
    setting = ("heavy tails, a fifth ties", f"{patients} patients")
    result = wilcoxon_test(values)
    yield from held("Wilcoxon: pseudo-median", setting, result, 0.0)
    yield from false_finding("Wilcoxon, signed ranks", setting, result)


# --- what happened ----------------------------------------------------------------------------------------------------


def ends(low: float, high: float) -> Estimate:
    return Estimate(np.nan, float(low), float(high), np.nan)


def held(procedure: str, setting: Setting, found: Estimate, truth: float) -> Iterator[Row]:
    if not np.isnan(found.ci_low):
        yield procedure, *setting, COVERAGE, bool(found.ci_low <= truth <= found.ci_high)


def false_finding(procedure: str, setting: Setting, found: Estimate) -> Iterator[Row]:
    if not np.isnan(found.p_value):
        yield procedure, *setting, FALSE_FINDINGS, bool(found.p_value < 0.05)
