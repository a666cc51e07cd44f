"""A framework beside the reference, as plain arrays: what a verdict is made of.

Everything is of a comparison's primary metric at its main level (slices; of masks those with a lesion), on the seeds
that both frameworks have.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common import config
from common.metrics.segmentation import weighted_mean
from common.report.evidence import Arm, Comparison, Level, chosen, compare, ordered
from common.report.mask_evidence import MaskComparison, compare_masks
from common.report.mask_levels import MaskArm, MaskLevel
from common.report.mask_scores import seed_means
from common.report.reading import AnyComparison, compare_any, comparison_keys
from common.report.scores import METRICS, runs_last, seed_values
from common.results import RunRecord, StudyRecord
from common.statistics import (
    Churn,
    Draws,
    Estimate,
    bootstrap_metrics,
    churn,
    interval_of,
)

AnyLevel: TypeAlias = Level | MaskLevel
AnyArm: TypeAlias = Arm | MaskArm
Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pairing:
    """One framework beside the reference. Arrays of S seeds and K folds; no seeds where nothing can be paired."""

    framework: str
    reference: str
    seeds: tuple[int, ...]
    scores: Mapping[str, Floats]  # framework -> (S,), a seed's folds pooled
    by_fold: Mapping[str, Floats]  # framework -> (S, K), each fold's test part by itself
    test_share: float  # of the slices that a fold trains on and tests, those that it tests; 0 with one fold
    patients: int
    over_patients: OverPatients
    identical: bool  # every prediction of every seed is the same in both
    repeated: str  # the framework with A/A runs: the reference, where it has some; empty without any
    noise: Floats  # (r,), its repeat minus the run, at equal seed
    churn: Churn | None  # of patients with two classes, else of slices; None for masks


def pairings(comparison: AnyComparison, complete: Sequence[RunRecord], asked: Sequence[str]) -> list[Pairing]:
    """Each framework that ran or was `asked` for beside the first that has a score; `complete` are the study's complete
    runs, repeats among them.
    """
    names = ordered({*comparison.frameworks, *asked})
    level = comparison.levels[0] if comparison.levels else None
    reference = level.arms[0].framework if level else names[0]
    found: dict[str, tuple[AnyArm, AnyArm]] = (
        {arm.framework: (arm, of) for arm, of in level.pairs} if level else {}
    )
    return [
        paired(comparison, level, *found[name], complete)
        if level and name in found
        else unpaired(name, reference)
        for name in names
        if name != reference
    ]


def seed_differences(record: StudyRecord) -> dict[tuple[str, str, str], list[Floats]]:
    """(lane, task, model) -> each framework's differences from the reference, (S,), in the complete runs of a study."""
    found = {}
    for key in comparison_keys(record):
        one = compare_any(*key, record)
        pairs = one.levels[0].pairs if one.levels else []
        found[key] = [
            values(one.levels[0], arm, one.primary_metric)
            - values(one.levels[0], reference, one.primary_metric)
            for arm, reference in pairs
        ]
    return found


def unpaired(framework: str, reference: str) -> Pairing:
    """Nothing to compare: one of the two has no scored run, or no seed is shared."""
    none = {framework: np.empty(0), reference: np.empty(0)}
    folds = {name: np.empty((0, 1)) for name in none}
    nothing = Estimate(np.nan, np.nan, np.nan, np.nan)
    unknown = OverPatients(nothing, nothing, np.nan)
    return Pairing(framework, reference, (), none, folds, 0.0, 0, unknown, False, "", np.empty(0), None)


def paired(
    comparison: AnyComparison, level: AnyLevel, arm: AnyArm, reference: AnyArm, complete: Sequence[RunRecord]
) -> Pairing:
    """Two arms of the main level, cut to their shared seeds."""
    metric, both = comparison.primary_metric, (arm, reference)
    scores = {one.framework: values(level, one, metric) for one in both}
    names = (arm.framework, reference.framework)
    repeats = repeated(comparison, names, complete)
    return Pairing(
        *names,
        arm.seeds,
        scores,
        fold_scores(comparison, names, arm.seeds) if len(comparison.folds) > 1
        else {name: of[:, None] for name, of in scores.items()},
        test_share(comparison) if len(comparison.folds) > 1 else 0.0,
        level.patients,
        over_patients(level, arm, reference, metric),
        identical(comparison, arm, reference),
        repeats[0].records[0].run.framework if repeats else "",
        noise(repeats, metric),
        flips(comparison, names, repeats),
    )  # fmt: skip


# --- scores -------------------------------------------------------------------------------------------------------


def values(level: AnyLevel, arm: AnyArm, metric: str) -> Floats:
    """The metric of each seed, (S,)."""
    if isinstance(arm, MaskArm):
        return np.array(seed_means(arm, metric))
    assert isinstance(level, Level)
    return np.array(seed_values(level, arm, metric))


def fold_scores(
    comparison: AnyComparison, names: tuple[str, str], seeds: tuple[int, ...]
) -> Mapping[str, Floats]:
    """The metric of each seed and fold, framework -> (S, K); NaN where a fold by itself has none."""
    found = {name: np.full((len(seeds), len(comparison.folds)), np.nan) for name in names}
    for column, fold in enumerate(comparison.folds):
        one = again(comparison, [record for record in comparison.records if record.run.fold == fold])
        for arm in one.levels[0].arms if one.levels else ():
            if arm.framework in found and set(seeds) <= set(arm.seeds):
                found[arm.framework][:, column] = values(
                    one.levels[0], arm.of(seeds), comparison.primary_metric
                )
    return found


def again(comparison: AnyComparison, records: Sequence[RunRecord]) -> AnyComparison:
    """The comparison of some of its runs, or of their repeats."""
    repeat = records[0].run.repeat if records else 0
    if isinstance(comparison, MaskComparison):
        return compare_masks(comparison.lane, comparison.model, records, repeat)
    return compare(comparison.lane, comparison.task, comparison.model, records, repeat)


def test_share(comparison: AnyComparison) -> float:
    """Slices that a fold tests, of those that it trains on or tests: the mean over the runs; 1 / K where none says."""
    shares = []
    for record in comparison.records:
        try:
            counts = record.document["data"]["counts"]
            train, test = (int(counts[part]["samples"]) for part in ("train", "test"))
        except (KeyError, TypeError, ValueError):
            continue
        shares += [test / (train + test)] if train + test else []
    return float(np.mean(shares)) if shares else 1 / len(comparison.folds)


# --- patients -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OverPatients:
    """What other test patients would have made of the same trained models."""

    difference: Estimate  # of the mean over seeds; `config.CONFIDENCE`
    narrow: Estimate  # the same with 1 - 2 `config.ALPHA`, which is what equivalence looks at
    variance: float  # of all runs' mean score; NaN where unknown
    guessing: bool = False  # neither framework's mean score is above what guessing has


def over_patients(level: AnyLevel, arm: AnyArm, reference: AnyArm, metric: str) -> OverPatients:
    """One pass of draws for both intervals and the variance."""
    truth, ours, judge = rows(level, arm, metric)
    theirs = rows(level, reference, metric)[1]
    place = np.unique(level.patient, return_inverse=True)[1]

    def evaluate(counts: Floats) -> dict[str, Floats]:  # how often each patient is drawn, (P, draws)
        weights = counts.T[:, place]  # (draws, N)
        return {
            name: np.stack([judge(truth, of[:, run], sample_weight=weights) for run in range(of.shape[1])])
            for name, of in (("ours", ours), ("theirs", theirs))
        }

    found = bootstrap_metrics(evaluate, level.patient)
    mean = {name: of.mean() for name, of in found.items()}
    gap = mean["ours"] - mean["theirs"]
    narrow = interval_of(gap, 1 - 2 * config.ALPHA)
    chance = config.CHANCE.get(metric, -np.inf)
    guessing = all(interval_of(of).ci_low <= chance for of in mean.values())
    return OverPatients(interval_of(gap, test=True), narrow, variance_of(mean, level.patients), guessing)


def variance_of(means: Mapping[str, Draws], patients: int) -> float:
    """How far other patients would move all runs together: the bootstrap variance of their mean score, without its bias
    for few patients. What patients do to single runs is in the variance's remainder already.
    """
    drawn = np.mean([of.drawn for of in means.values()], axis=0)
    defined = drawn[np.isfinite(drawn)]
    if patients < config.MIN_INTERVAL_PATIENTS or not len(defined):
        return np.nan
    return float(np.var(defined)) * patients / (patients - 1)


def rows(level: AnyLevel, arm: AnyArm, metric: str) -> tuple[NDArray[Any], NDArray[Any], Any]:
    """(truth (N,), what is judged (N, R, ...), the metric of one run), as a bootstrap over patients wants them."""
    if isinstance(arm, MaskArm):
        return np.zeros(len(level.unit)), arm.values[metric].T, weighted_mean
    assert isinstance(level, Level)
    return level.y_true, runs_last(arm, metric), METRICS[metric]


# --- decisions and repeats ----------------------------------------------------------------------------------------


def identical(comparison: AnyComparison, arm: AnyArm, reference: AnyArm) -> bool:
    """Whether both said exactly the same of every test slice, in every seed."""
    if isinstance(comparison, Comparison):
        assert isinstance(arm, Arm)
        assert isinstance(reference, Arm)
        return np.array_equal(arm.y_score, reference.y_score)
    pairs = comparison.test.pairs if comparison.test else []
    return any(one.framework == arm.framework and np.array_equal(one.masks, of.masks) for one, of in pairs)


Repeats: TypeAlias = tuple[AnyComparison, AnyComparison]  # the runs that were repeated, and their repeats


def repeated(
    comparison: AnyComparison, names: tuple[str, str], complete: Sequence[RunRecord]
) -> Repeats | None:
    """The A/A runs beside the runs that they repeat, of the reference where it was repeated; None without any."""
    found = chosen(complete, comparison.lane, comparison.task, comparison.model, 1)
    for name in reversed(names):
        mine = [record for record in found if record.run.framework == name]
        have = {(record.run.seed, record.run.fold) for record in mine}
        whole = {seed for seed, _ in have if all((seed, fold) in have for fold in comparison.folds)}
        mine = [record for record in mine if record.run.seed in whole]
        keys = {(record.run.seed, record.run.fold) for record in mine}
        first = [
            record
            for record in comparison.records
            if record.run.framework == name and (record.run.seed, record.run.fold) in keys
        ]
        if mine and first:
            return again(comparison, first), again(comparison, mine)
    return None


def noise(repeats: Repeats | None, metric: str) -> Floats:
    """Repeat minus run of each seed that has both, (r,)."""
    if repeats is None or not all(one.levels for one in repeats):
        return np.empty(0)
    (level, other), arms = (one.levels[0] for one in repeats), shared([one.levels[0] for one in repeats])
    if arms is None:
        return np.empty(0)
    return values(other, arms[1], metric) - values(level, arms[0], metric)


def shared(levels: Sequence[AnyLevel]) -> tuple[AnyArm, AnyArm] | None:
    """The first arms of two levels on the seeds that both have; None where those are none or the cases differ."""
    run, repeat = (level.arms[0] for level in levels)
    seeds = [seed for seed in run.seeds if seed in repeat.seeds]
    if not seeds or not np.array_equal(levels[0].unit, levels[1].unit):
        return None
    return run.of(seeds), repeat.of(seeds)


def flips(comparison: AnyComparison, names: tuple[str, str], repeats: Repeats | None) -> Churn | None:
    """Decisions that differ between the frameworks, between seeds and between repeats; None for masks."""
    if not isinstance(comparison, Comparison):
        return None
    grain = "patient" if len(comparison.classes) == 2 else "slice"
    level = next((one for one in comparison.levels if one.name == grain), None)
    pair = next((pair for pair in level.pairs if pair[0].framework == names[0]), None) if level else None
    if pair is None:
        return None
    arm, reference = pair
    found = churn(reference.y_pred, arm.y_pred)
    both = [one for of in repeats or () for one in of.levels if isinstance(one, Level) and one.name == grain]
    arms = shared(both) if len(both) == 2 else None
    if arms is None:
        return found
    run, repeat = arms
    assert isinstance(run, Arm)
    assert isinstance(repeat, Arm)
    of_itself = churn(run.y_pred, run.y_pred, repeats=repeat.y_pred)
    return dataclasses.replace(found, between_repeats=of_itself.between_repeats)
