"""Verdicts in plain words, as text and numbers: each number of a sentence knows its key in summary.json."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from common import config
from common.report.terms import FRAMEWORK_TITLE, metric_title
from common.report.wording import decimals, listed, percent, plain, plural, signed
from common.statistics import Estimate
from common.verdicts import Verdict, could_differ, least_seeds

MODEL_NAME = {  # in a sentence
    "cnn": "the plain CNN",
    "densenet121": "DenseNet-121",
    "convnext_tiny": "ConvNeXt-Tiny",
    "unet": "the U-Net",
}
OF_WHOM = {"segmentation": " with a lesion"}  # the test patients of the main level, where they are not all


@dataclass(frozen=True)
class Part:
    """A piece of a sentence; `key` is KEY#field of summary.json where it is a number of it."""

    text: str
    key: str = ""


Sentence = tuple[Part, ...]


def plain_text(sentence: Sequence[Part]) -> str:
    return "".join(part.text for part in sentence)


def numbers(text: str, verdict: Verdict, **fields: str) -> Sentence:
    """`text` with each {name} replaced by the number of that field, in the words given for it."""
    parts: list[Part] = []
    for piece in text.split("{"):
        name, closed, rest = piece.partition("}")
        if not closed:
            parts.append(Part(piece))
            continue
        parts += [Part(fields[name], f"{verdict.key}#{name}"), Part(rest)]
    return tuple(part for part in parts if part.text)


def digits_of(verdict: Verdict) -> int:
    """Decimals of the verdict's numbers, those that its intervals deserve."""
    over = (verdict.over_patients, verdict.over_seeds)
    return decimals((one.ci_low, one.ci_high) for one in over)


def defined(one: Estimate) -> bool:
    return math.isfinite(one.ci_low) and math.isfinite(one.ci_high)


def probability(p_value: float) -> str:
    """0.031, "<0.001", a dash where undefined."""
    return "<0.001" if p_value < 0.001 else plain(p_value)


# --- the verdict itself -------------------------------------------------------------------------------------------


def sentence(verdict: Verdict, reduced: bool = False) -> Sentence:
    """The verdict with lane, numbers, intervals and margin; `reduced`: the model is a small relative of its name."""
    return (Part(f"{finding(verdict, reduced)}"), *evidence_of(verdict))


def finding(verdict: Verdict, reduced: bool = False) -> str:
    """The verdict alone."""
    ours, theirs = FRAMEWORK_TITLE[verdict.framework], FRAMEWORK_TITLE[verdict.reference]
    metric = metric_title(verdict.task, verdict.metric)
    model = MODEL_NAME[verdict.model] + (" (reduced)" if reduced else "")
    lane = f"In the {verdict.lane} lane, "
    higher, lower = (ours, theirs) if verdict.difference > 0 else (theirs, ours)
    return (
        lane
        + {
            "equivalent": f"{metric} of {model} is equivalent in {ours} and {theirs}",
            "different": f"{metric} of {model} is higher in {higher} than in {lower}",
            "negligible": f"{metric} of {model} is higher in {higher} than in {lower}, but by less than matters",
            "undecided": f"it is undecided whether {metric} of {model} differs between {ours} and {theirs}",
            "too few seeds": f"{plural(len(verdict.seeds), 'seed')} cannot tell whether {metric} of {model} differs "
            f"between {ours} and {theirs}",
            "no score": f"nothing can be said of {model}: {ours} and {theirs} have no scored run of the same seed",
        }[verdict.word]
    )


def evidence_of(verdict: Verdict) -> Sentence:
    """The numbers behind the finding: the difference, an interval for each uncertainty, the margin."""
    if verdict.word == "no score":
        return (Part("."),)
    digits = digits_of(verdict)
    shown = {
        "difference": signed(verdict.difference, digits),
        "margin": f"{verdict.margin:g}",
        "seeds": f"{len(verdict.seeds):,}",
        "patients": f"{verdict.patients:,}",
    }
    folds = f" × {verdict.folds} folds" if verdict.folds > 1 else ""
    runs = f"{{seeds}} {'seed' if len(verdict.seeds) == 1 else 'seeds'}{folds}"
    people = f"{{patients}} test {'patient' if verdict.patients == 1 else 'patients'}"
    people += OF_WHOM.get(verdict.task, "")
    pieces: list[str] = []
    for one, over, low, high in (
        (verdict.over_seeds, runs, "seeds_ci_low", "seeds_ci_high"),
        (verdict.over_patients, people, "ci_low", "ci_high"),
    ):
        if defined(one):
            level = (
                "" if any("_low" in piece for piece in pieces) else f"{percent(config.CONFIDENCE)} interval "
            )
            pieces.append(f"{level}{{{low}}} to {{{high}}} over {over}")
            shown |= {low: signed(one.ci_low, digits), high: signed(one.ci_high, digits)}
        else:
            pieces.append(f"no interval over {over}")
    return numbers(
        f": difference {{difference}}, {', '.join(pieces)}; margin ±{{margin}}, declared beforehand.",
        verdict, **shown,
    )  # fmt: skip


# --- why this word ------------------------------------------------------------------------------------------------


def reasons(verdict: Verdict, family: int) -> list[Sentence]:
    """Why the word is what it is, and what it would take to say more. `family`: comparisons that Holm corrects for."""
    if verdict.word == "no score":
        return []
    said: list[Sentence] = []
    if verdict.guessing:
        said.append(no_better_than_guessing(verdict))
    if verdict.identical:
        said.append((Part(f"Every prediction of {'all ' if len(verdict.seeds) > 1 else ''}"
                          f"{plural(len(verdict.seeds), 'seed')} is identical in both."),))  # fmt: skip
    if verdict.word in ("different", "negligible"):
        said.append(shown_in_both(verdict, family))
    elif not verdict.identical and could_differ(len(verdict.seeds), verdict.folds, family):
        said.append(not_shown(verdict, family))
    if verdict.word == "too few seeds" and verdict.folds == 1:
        among = f" for one of {family} comparisons" if family > 1 else ""
        said.append((Part(
            f"So few seeds cannot show a difference, however large: the exact test takes {least_seeds(family)}{among}."
        ),))  # fmt: skip
    if verdict.word in ("undecided", "too few seeds"):
        said.append(not_equivalent(verdict))
    if len(verdict.noise):
        furthest = max(abs(float(value)) for value in verdict.noise)
        whose = FRAMEWORK_TITLE[verdict.repeated or verdict.reference]
        said.append(numbers(
            f"{whose} beside its own repeat (A/A) moved by up to {{noise_max}} in "
            f"{plural(len(verdict.noise), 'seed')}.",
            verdict, noise_max=plain(furthest, digits_of(verdict)),
        ))  # fmt: skip
    return said


def no_better_than_guessing(verdict: Verdict) -> Sentence:
    chance = f"{metric_title(verdict.task, verdict.metric)} {config.CHANCE[verdict.metric]:g}"
    alike = verdict.word in ("equivalent", "negligible")
    means = "models that learned nothing are equivalent too" if alike else "there is little to compare yet"
    return (Part(f"Neither is shown to be better than guessing ({chance}) on these patients: {means}."),)


def family_words(family: int) -> str:
    return f" after Holm's correction for {family} comparisons" if family > 1 else ""


def shown_in_both(verdict: Verdict, family: int) -> Sentence:
    return numbers(
        "The difference shows in other seeds (p {p_seeds}) and in other patients (p {p_patients}); the larger p is "
        f"{{p_holm}}{family_words(family) or ', of one comparison'}.",
        verdict, p_seeds=probability(verdict.over_seeds.p_value),
        p_patients=probability(verdict.over_patients.p_value), p_holm=probability(verdict.p_holm),
    )  # fmt: skip


def not_shown(verdict: Verdict, family: int) -> Sentence:
    """Where a difference does not show."""
    over = {"seeds": verdict.over_seeds, "patients": verdict.over_patients}
    p_values = {f"p_{name}": probability(one.p_value) for name, one in over.items()}
    missing = [name for name, one in over.items() if not math.isfinite(one.p_value)]
    if missing:
        why = "too few of them, or the metric is undefined in too many draws"
        return (Part(f"A difference cannot be tested over the {listed(missing)}: {why}."),)
    hidden = [name for name, one in over.items() if not one.p_value < config.ALPHA]
    if not hidden:
        return numbers(
            "A difference shows in other seeds (p {p_seeds}) and in other patients (p {p_patients}), but no longer"
            f"{family_words(family)} (p {{p_holm}}).",
            verdict, **p_values, p_holm=probability(verdict.p_holm),
        )  # fmt: skip
    words = " nor in other ".join(f"{name} (p {{p_{name}}})" for name in hidden)
    start = (
        "A difference shows neither in other " if len(hidden) > 1 else "A difference does not show in other "
    )
    return numbers(f"{start}{words}.", verdict, **{f"p_{name}": p_values[f"p_{name}"] for name in hidden})


def not_equivalent(verdict: Verdict) -> Sentence:
    """Why equivalence was not shown, and how many seeds it would take."""
    failed = [] if verdict.equivalence.equivalent else ["seeds"]
    failed += [] if verdict.equivalent_over_patients else ["patients"]
    margin = f"±{verdict.margin:g}"
    said = f"Equivalence within {margin} is not shown over the {' nor over the '.join(failed)}"
    wanted, have = verdict.plan.seeds_for_margin, len(verdict.seeds)
    planned = (
        verdict.folds == 1 and have >= config.MIN_INTERVAL_SEEDS and abs(verdict.difference) < verdict.margin
    )
    if "seeds" in failed and planned and wanted is not None and wanted > have:
        return numbers(
            f"{said}; with seeds that vary as these do, it takes about {{seeds_for_margin}} of them.",
            verdict, seeds_for_margin=f"{wanted:,}",
        )  # fmt: skip
    return (Part(f"{said}."),)


# --- in one line --------------------------------------------------------------------------------------------------

SHORT = {
    "equivalent": "equivalent within ±{margin}",
    "different": "different",
    "negligible": "different, by less than ±{margin}",
    "undecided": "undecided",
    "too few seeds": "{seeds} cannot tell",
    "no score": "no shared scored run",
}


def short(word: str, margin: float, seeds: int) -> str:
    """The verdict in a few words, for the terminal and tables."""
    return SHORT[word].format(margin=f"{margin:g}", seeds=plural(seeds, "seed"))
