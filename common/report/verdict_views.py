"""The verdicts as the page shows them, and how much of a score is noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from common import config
from common.config import BACKBONES, TASKS
from common.report.checks import Check
from common.report.companions import Companions
from common.report.context import departures
from common.report.lights import lights
from common.report.other_tests import OTHER_NOTE, other_tests, other_view
from common.report.reading import AnyComparison, Evidence
from common.report.terms import FRAMEWORK_TITLE, MODEL_TITLE, TASK_TITLE, metric_title
from common.report.verdict_figures import churn_figure, forest_figure, variance_figure
from common.report.verdict_tables import churn_unit, furthest, parts_of
from common.report.verdict_words import (
    Part,
    Sentence,
    digits_of,
    numbers,
    probability,
    reasons,
    sentence,
)
from common.report.wording import percent, plain, plural, signed
from common.verdicts import Verdict, least_seeds

SYMBOL = {
    "equivalent": "=",
    "different": "≠",
    "negligible": "≈",
    "undecided": "?",
    "too few seeds": "…",
    "no score": "–",
}
EXACT = (
    "Over seeds the p-value is exact up to 20 of them, from every flip of the differences' signs: n seeds cannot bring "
    f"it below 2/2ⁿ, so that a difference takes {least_seeds()} of them, and more in a larger family."
)
MEANING = {
    "equivalent": "closer than the margin, shown at the 5 % level over seeds and over patients",
    "different": "a difference shows in other seeds and in other patients",
    "negligible": "a difference shows, and so does that it is smaller than the margin",
    "undecided": "neither was shown",
    "too few seeds": "so few seeds could not have shown a difference, however large",
    "no score": "no seed was scored in both frameworks",
}
COMPONENT = {
    "framework": "Framework",
    "seed": "Seed",
    "split": "Split",
    "patients": "Test patients",
    "remainder": "Remainder",
}


def verdict_section(
    verdicts: Sequence[Verdict],
    evidence: Evidence,
    checks: Sequence[tuple[str, Check]],
    audit: Mapping[str, Any],
    companions: Companions,
    figures: Path,
) -> dict[str, Any]:
    """For verdicts.html.j2 and verdicts.md.j2; writes the forest plot. `checks`: (of which comparison, check)."""
    sizes = family_sizes(verdicts)
    broken = sorted({check.name for _, check in checks if check.verdict == "fail"})
    cards = [card(one, sizes[one.lane], evidence.record.study) for one in verdicts]
    in_order = sorted(zip(verdicts, cards, strict=True), key=lambda pair: list(TASKS).index(pair[0].task))
    return {
        "warning": f"Not a controlled comparison: {plural(len(broken), 'check')} failed ({'; '.join(broken)}). "
        "Read what follows as a comparison of different experiments." if broken else "",
        "lights": lights(verdicts, checks, audit, companions),
        "tasks": [
            {"task": task, "title": TASK_TITLE[task], "cards": [shown for _, shown in those]}
            for task, those in groupby(in_order, key=lambda pair: pair[0].task)
        ],
        "rows": [row(one) for one in verdicts],
        "words": [
            {"word": word, "symbol": SYMBOL[word], "meaning": MEANING[word]}
            for word in SYMBOL
            if any(one.word == word for one in verdicts)
        ],
        "forest": forest_figure(verdicts, figures),
        "confidence": percent(config.CONFIDENCE),
        "rule": rule(verdicts),
    }  # fmt: skip


def family_sizes(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Lane -> comparisons that Holm's correction counts."""
    sizes = {one.lane: 0 for one in verdicts}
    for one in verdicts:
        sizes[one.lane] += math.isfinite(one.p_value)
    return sizes


def any_score(verdicts: Sequence[Verdict]) -> bool:
    return any(one.word != "no score" for one in verdicts)


def card(one: Verdict, family: int, study: config.Study) -> dict[str, Any]:
    """One verdict: its word, its sentence, and why."""
    spec = study.specs.get(f"{one.task}/{one.model}")
    reduced = one.model in BACKBONES and spec is not None and bool(departures(one.model, spec))
    return {
        "slug": one.slug,
        "model": one.model,
        "lane": one.lane,
        "word": one.word,
        "kind": one.word.replace(" ", "-"),
        "symbol": SYMBOL[one.word],
        "sentence": sentence(one, reduced),
        "reasons": reasons(one, family),
    }


def row(one: Verdict) -> dict[str, Any]:
    """A row of the table of verdicts; each cell is a `Sentence`."""
    digits = digits_of(one)

    def interval(low: str, high: str, values: tuple[float, float]) -> Sentence:
        if not all(map(math.isfinite, values)):
            return (Part("–"),)
        shown = {name: signed(value, digits) for name, value in zip((low, high), values, strict=True)}
        return numbers(f"{{{low}}} to {{{high}}}", one, **shown)

    scored = one.word != "no score"
    seeds = "{seeds} " + ("seed" if len(one.seeds) == 1 else "seeds")
    seeds += f" × {one.folds} folds" if one.folds > 1 else ""
    return {
        "slug": one.slug,
        "task": one.task,
        "lane": one.lane,
        "model": one.model,
        "title": f"{MODEL_TITLE[one.model]}, {TASK_TITLE[one.task].lower()}",
        "metric": metric_title(one.task, one.metric),
        "metric_name": one.metric,
        "framework": one.framework,
        "reference": one.reference,
        "word": one.word,
        "kind": one.word.replace(" ", "-"),
        "symbol": SYMBOL[one.word],
        "difference": numbers("{difference}", one, difference=signed(one.difference, digits)),
        "over_seeds": interval(
            "seeds_ci_low", "seeds_ci_high", (one.over_seeds.ci_low, one.over_seeds.ci_high)
        ),
        "over_patients": interval("ci_low", "ci_high", (one.over_patients.ci_low, one.over_patients.ci_high)),
        "p_holm": numbers("{p_holm}", one, p_holm=probability(one.p_holm)),
        "superiority": numbers("{superiority}", one, superiority=percent(one.effect.superiority))
        if math.isfinite(one.effect.superiority) else (),
        "seeds": numbers(seeds, one, seeds=str(len(one.seeds))) if scored else (),
        "patients": numbers("{patients}", one, patients=str(one.patients)) if scored else (),
    }  # fmt: skip


def rule(verdicts: Sequence[Verdict]) -> list[str]:
    """How a word is come by; declared before training, the same in every study."""
    margins = sorted({one.margin for one in verdicts})
    within = " or ".join(f"±{margin:g}" for margin in margins)
    lanes = [
        f"{lane}: {sum(one.lane == lane for one in verdicts)}, of which {size} could be tested"
        for lane, size in family_sizes(verdicts).items()
    ]
    tost = percent(1 - 2 * config.ALPHA)
    one_split = all(one.folds == 1 for one in verdicts)
    lines = [
        f"Declared in the program before training: one primary metric a task, a margin of {within}, one family of "
        f"comparisons a lane ({'; '.join(lanes)}).",
        f"Equivalent: the {tost} interval over seeds (two one-sided tests, Schuirmann 1987) and the {tost} interval "
        "over test patients (bootstrap) both lie within the margin.",
        f"Different: the larger of two p-values, one over {'seeds' if one_split else 'runs'} and one over test "
        f"patients (bootstrap), is below {config.ALPHA:g} after Holm's correction. A difference must hold "
        "for other seeds and for other patients.",
        *([EXACT] if one_split else []),
        f"Every interval shown is a {percent(config.CONFIDENCE)} one, of other {'seeds' if one_split else 'runs'} with "
        "these patients, or of other patients with these runs. They are never merged.",
    ]
    if any(one.folds > 1 for one in verdicts):
        lines.append(
            "Runs: with several folds the tests over seeds are over (seed, fold), with the variance of Nadeau and "
            "Bengio (2003), because folds share training patients: over all runs, and over the folds with the mean "
            "of their seeds; the more cautious of the two counts. Their mean is that of the folds, the difference "
            "that of the pooled folds."
        )
    return lines


# --- how much is noise --------------------------------------------------------------------------------------------


def variance_section(
    verdicts: Sequence[Verdict], figures: Path, comparisons: Sequence[AnyComparison] = ()
) -> dict[str, Any] | None:
    """For variance.html.j2: where the scores' variance comes from, churn, A/A, other tests; None without a score."""
    if not any_score(verdicts):
        return None
    parts = [one for one in verdicts if parts_of(one)]
    churned = [one for one in verdicts if one.churn is not None]
    repeated = [one for one in verdicts if len(one.noise)]
    return {
        "components": [component_row(one) for one in parts],
        "names": [name for name in COMPONENT if any(name == c.name for one in parts for c in parts_of(one))],
        "titles": COMPONENT,
        "churn": [churn_row(one) for one in churned],
        "noise": [noise_row(one) for one in repeated],
        "pictures": [
            picture
            for picture in (variance_figure(verdicts, figures), churn_figure(verdicts, figures))
            if picture is not None
        ],
        "other": other_view(other_tests(comparisons)),
        "other_note": OTHER_NOTE,
        "confidence": percent(config.CONFIDENCE),
        "no_repeats": not repeated,
        "split_known": any(one.folds > 1 for one in verdicts),
    }


def where(one: Verdict) -> dict[str, str]:
    return {
        "title": f"{MODEL_TITLE[one.model]}, {TASK_TITLE[one.task].lower()}, {one.lane}",
        "pair": f"{FRAMEWORK_TITLE[one.framework]} and {FRAMEWORK_TITLE[one.reference]}",
    }


def component_row(one: Verdict) -> dict[str, Any]:
    """Name of a part -> its share, and its size as a standard deviation with an interval."""
    cells = {}
    for part in parts_of(one):
        share_of, sd = f"share_{part.name}", f"sd_{part.name}"
        sizes = {sd: part.variance, f"{sd}_low": part.ci_low, f"{sd}_high": part.ci_high}
        known = math.isfinite(part.ci_low) and math.isfinite(part.ci_high)
        interval = f" ({{{sd}_low}} to {{{sd}_high}})" if known else ""
        cells[part.name] = {
            "share": numbers(f"{{{share_of}}}", one, **{share_of: share(part.share)}),
            "sd": numbers(f"{{{sd}}}{interval}", one,
                          **{name: plain(math.sqrt(value)) for name, value in sizes.items() if value >= 0}),
        }  # fmt: skip
    return {**where(one), "cells": cells}


def share(value: float) -> str:
    return percent(value) if math.isfinite(value) else "–"


def churn_row(one: Verdict) -> dict[str, Any]:
    assert one.churn is not None
    shares = {
        name: getattr(one.churn, name) for name in ("between_frameworks", "between_seeds", "between_repeats")
    }
    return {
        **where(one),
        "units": f"{one.churn.units:,} {churn_unit(one)}",
        "cells": {
            name: numbers(f"{{churn_{name}}}", one, **{f"churn_{name}": share(value)})
            if math.isfinite(value) else (Part("–"),)
            for name, value in shares.items()
        },
    }  # fmt: skip


def noise_row(one: Verdict) -> dict[str, Any]:
    """The reference beside its repeats, and the frameworks beside each other."""
    digits = digits_of(one)
    gaps = [abs(float(value)) for value in one.differences]
    return {
        **where(one),
        "repeated": FRAMEWORK_TITLE[one.repeated or one.reference],
        "repeats": len(one.noise),
        "furthest": numbers("{noise_max}", one, noise_max=plain(furthest(one), digits)),
        "mean": plain(sum(abs(float(value)) for value in one.noise) / len(one.noise), digits),
        "between": plain(sum(gaps) / len(gaps), digits),
    }
