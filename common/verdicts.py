"""The verdict of one framework beside the reference: one word, and everything that it rests on.

The rule, declared with its numbers in `common.config` before anything was trained:

- One primary metric a task. The primary comparisons of a lane are one family; p-values are Holm's within it.
- "different" if the difference shows in other seeds and in other patients: the larger of the two p-values, an
  intersection-union test (Berger 1982), is below `ALPHA` after Holm.
- "equivalent" if two one-sided tests over the seeds (Schuirmann 1987) keep the difference within the task's margin at
  `ALPHA`, and the interval of 1 - 2 `ALPHA` over patients lies within it as well.
- "negligible" if both: surely there, and surely smaller than the margin.
- "too few seeds" if neither, and so few seeds could not have shown a difference, however large; else "undecided".

The uncertainty over patients, over seeds and over splits is never merged into one interval. With several folds the
tests over seeds become tests over (seed, fold), with the variance of Nadeau & Bengio (2003); see `over_runs`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from common import config
from common.results import StudyRecord
from common.statistics import (
    Churn,
    Component,
    EffectSize,
    Equivalence,
    Estimate,
    SeedPlan,
    corrected_resampled_ttest,
    effect_size,
    equivalence,
    holm,
    plan_seeds,
    sign_flip_test,
    variance_components,
)

if TYPE_CHECKING:
    from common.report.pairings import Pairing
    from common.report.reading import AnyComparison

WORDS = ("equivalent", "different", "negligible", "undecided", "too few seeds", "no score")


@dataclass(frozen=True, eq=False)
class Verdict:
    """Of one framework against the reference on one (lane, task, model), in the task's primary metric at its main level
    (slices; of masks those with a lesion). S seeds that both have; a difference is framework - reference.
    """

    lane: str
    task: str
    model: str
    framework: str
    reference: str
    metric: str
    seeds: tuple[int, ...]
    folds: int
    patients: int  # tested
    differences: NDArray[np.float64]  # (S,), a seed's folds pooled
    scores: Mapping[str, NDArray[np.float64]]  # framework -> (S,)
    margin: float
    over_patients: Estimate  # of the mean difference; patients drawn, seeds held fixed
    over_seeds: (
        Estimate  # t interval, exact p by flipping signs; with several folds corrected, over (seed, fold)
    )
    equivalence: Equivalence  # over seeds
    equivalent_over_patients: bool
    p_value: float  # the larger of the two; NaN where one is undefined
    p_holm: float  # within the family
    word: str  # one of WORDS
    effect: EffectSize
    plan: SeedPlan
    components: tuple[Component, ...]
    churn: Churn | None  # of patients with two classes, else of slices; None for masks
    noise: NDArray[np.float64]  # (r,), A/A: repeat - run of the framework `repeated`, at equal seed
    identical: bool = False  # every prediction of every seed is the same in both
    repeated: str = ""  # the framework that was run twice: the reference, where it was
    guessing: bool = False  # neither score's interval over patients lies above what guessing has

    @property
    def key(self) -> str:
        """Of summary.json."""
        return f"{self.lane}/{self.task}/{self.model}/{self.framework}-vs-{self.reference}/{self.metric}"

    @property
    def slug(self) -> str:
        """For file names and anchors."""
        return f"{self.lane}-{self.task}-{self.model}-{self.framework}-vs-{self.reference}"

    @property
    def difference(self) -> float:
        """The mean over seeds; NaN without a score."""
        return float(np.mean(self.differences)) if len(self.differences) else math.nan


def verdicts(record: StudyRecord, comparisons: Sequence[AnyComparison]) -> tuple[Verdict, ...]:
    """A verdict for each framework beside the reference in each comparison, in their order."""
    from common.report.pairings import pairings  # here: the report imports this module

    found = [
        judged(comparison, pairing)
        for comparison in comparisons
        for pairing in pairings(comparison, record.complete, record.study.frameworks)
    ]
    return within_families(found)


def judged(comparison: AnyComparison, pairing: Pairing) -> Verdict:
    """The verdict but for its word, which needs the family."""
    margin = config.TASKS[comparison.task].margin
    ours, theirs = pairing.scores[pairing.framework], pairing.scores[pairing.reference]
    differences = ours - theirs
    by_fold = pairing.by_fold[pairing.framework] - pairing.by_fold[pairing.reference]  # (S, K)
    folds = len(comparison.folds)
    over_seeds, equivalent = (
        over_runs(by_fold, pairing.test_share, margin)
        if folds > 1
        else (sign_flip_test(differences), equivalence(differences, margin))
    )
    over_patients = pairing.over_patients.difference
    narrow = pairing.over_patients.narrow
    scores = np.stack([pairing.by_fold[pairing.framework], pairing.by_fold[pairing.reference]])  # (2, S, K)
    return Verdict(
        lane=comparison.lane,
        task=comparison.task,
        model=comparison.model,
        framework=pairing.framework,
        reference=pairing.reference,
        metric=comparison.primary_metric,
        seeds=pairing.seeds,
        folds=folds,
        patients=pairing.patients,
        differences=differences,
        scores=pairing.scores,
        margin=margin,
        over_patients=over_patients,
        over_seeds=over_seeds,
        equivalence=equivalent,
        equivalent_over_patients=bool(-margin < narrow.ci_low and narrow.ci_high < margin),
        p_value=both(over_seeds, over_patients),
        p_holm=math.nan,
        word="",
        effect=effect_size(differences),
        plan=plan_seeds(sd_of(differences), len(differences), margin),
        components=components(scores, pairing.over_patients.variance if folds == 1 else math.nan),
        churn=pairing.churn,
        noise=pairing.noise,
        identical=pairing.identical,
        repeated=pairing.repeated,
        guessing=pairing.over_patients.guessing,
    )


def over_runs(by_fold: NDArray[np.float64], test_share: float, margin: float) -> tuple[Estimate, Equivalence]:
    """The test and the equivalence of differences (S, K) over seeds and folds, each the more cautious of two.

    Over all S K of them, which counts the seeds of a fold as runs of their own, and over the K folds with the mean of
    their seeds, which does not. Where folds differ far more than seeds, the first alone found a difference that is not
    there in 20 % of 5 x 5 simulated tables (5 % asked for), the second in 5 %; where seeds differ as much, in 1 to 4 %.
    """
    ways = [one for one in (by_fold.ravel(), by_fold.mean(axis=0)) if len(one) >= config.MIN_INTERVAL_SEEDS]
    ways = ways or [by_fold.ravel()]
    tests = [corrected_resampled_ttest(one, test_share) for one in ways]
    limits = [equivalence(one, margin, test_share) for one in ways]
    test = max(tests, key=lambda one: one.ci_high - one.ci_low)
    limit = max(limits, key=lambda one: one.ci_high - one.ci_low)
    agreed = all(one.equivalent for one in limits)
    return (
        replace(test, p_value=max(one.p_value for one in tests)),
        replace(limit, p_value=max(one.p_value for one in limits), equivalent=agreed),
    )


def both(over_seeds: Estimate, over_patients: Estimate) -> float:
    """The p-value of "it differs for other seeds and for other patients": the larger one (Berger 1982).

    1 where the two point in opposite directions, as a mean over folds and a pooled score may; NaN where one is NaN.
    """
    if over_seeds.estimate * over_patients.estimate < 0:
        return 1.0
    return float(np.maximum(over_seeds.p_value, over_patients.p_value))  # unlike max(), it keeps a NaN


def sd_of(differences: NDArray[np.float64]) -> float:
    return float(np.std(differences, ddof=1)) if len(differences) > 1 else math.nan


def components(scores: NDArray[np.float64], patient_variance: float) -> tuple[Component, ...]:
    """Where the scores' variance comes from, (frameworks, S, K); empty where there is no second seed."""
    if scores.shape[1] < 2 or not np.isfinite(scores).all():
        return ()
    found = variance_components(scores, patient_variance if math.isfinite(patient_variance) else None)
    if scores.shape[2] == 1:
        return found
    # Its interval counts the folds as independent; what a framework does over other splits is the verdict's interval
    return tuple(
        replace(one, ci_low=math.nan, ci_high=math.nan) if one.name == "framework" else one for one in found
    )


# --- the word -----------------------------------------------------------------------------------------------------


def within_families(found: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """The verdicts with Holm's p-values and their words, lane by lane."""
    adjusted: dict[int, float] = {}
    sizes: dict[str, int] = {}
    for lane in {one.lane for one in found}:
        family = [i for i, one in enumerate(found) if one.lane == lane]
        p_values = np.array([found[i].p_value for i in family])
        sizes[lane] = int(np.isfinite(p_values).sum())
        adjusted |= dict(zip(family, (float(p) for p in holm(p_values)), strict=True))
    return tuple(
        replace(one, p_holm=adjusted[i], word=word_of(replace(one, p_holm=adjusted[i]), sizes[one.lane]))
        for i, one in enumerate(found)
    )


def word_of(verdict: Verdict, family: int) -> str:
    """The word of a verdict whose p-values are final, in a family of so many comparisons."""
    if not math.isfinite(verdict.difference):
        return "no score"
    enough = could_differ(len(verdict.seeds), verdict.folds, family)
    different = verdict.p_holm < config.ALPHA and (enough or verdict.folds == 1)
    several = len(verdict.seeds) >= config.MIN_INTERVAL_SEEDS  # folds of one seed say nothing of other seeds
    if several and verdict.equivalence.equivalent and verdict.equivalent_over_patients:
        return "negligible" if different else "equivalent"
    if different:
        return "different"
    return "undecided" if enough else "too few seeds"


def could_differ(seeds: int, folds: int, family: int) -> bool:
    """Whether so many paired seeds could show a difference at all, were it the same number in the whole family."""
    if folds > 1:  # a t test has no least p-value; but the seeds must be several to speak of others
        return seeds > 1 and seeds * folds >= config.MIN_VERDICT_SEEDS
    return seeds >= least_seeds(family)


def least_seeds(family: int = 1, alpha: float = config.ALPHA) -> int:
    """Seeds from which the exact sign-flip test can reach `alpha` as one of a family of so many, by Holm.

    Its least p-value is 2 / 2^n. With equal seeds none of the family can have a smaller one, so that the smallest,
    which Holm multiplies by the family's size, must be at most alpha / family.
    """
    return math.ceil(1 - math.log2(alpha / max(1, family)))
