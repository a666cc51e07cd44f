"""Three lights over the verdicts: is the comparison fair, is it free of leaks, are there data enough. Never colour
alone: each has a word, a symbol, one sentence that says why, and a link to where it is told in full.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from common import config
from common.report.checks import SIDED, Check, one_side
from common.report.companions import Companions
from common.report.context import FEW_PATIENTS, unknown_patients
from common.report.tables import entries
from common.report.terms import FRAMEWORK_TITLE, MODEL_TITLE
from common.report.wording import decimals, listed, lower_first, plain, plural
from common.verdicts import Verdict

State = Literal["green", "amber", "red"]
# Findings of the audit by which an answer may reach the model without the lesion; the others are no leaks.
LEAK_FINDINGS = frozenset({"near-copies", "exact-copies", "copies-on-two-sides", "patient-on-two-sides", "patient-key",
                           "contradicting-labels", "painted-inputs", "label-shortcut"})  # fmt: skip
DECIDED = ("equivalent", "different", "negligible")
SYMBOL: dict[State, str] = {"green": "✓", "amber": "!", "red": "✗"}


@dataclass(frozen=True)
class Light:
    """One question and its answer."""

    name: str
    state: State
    word: str
    sentence: str
    link: str  # anchor of the page, with its #

    @property
    def symbol(self) -> str:
        return SYMBOL[self.state]


def lights(
    verdicts: Sequence[Verdict],
    checks: Sequence[tuple[str, Check]],
    audit: Mapping[str, Any],
    companions: Companions,
) -> tuple[Light, ...]:
    """Fair, leak-free, enough data."""
    return (
        fair_light([check for _, check in checks], companions, verdicts),
        leak_light([check for _, check in checks], audit),
        data_light(verdicts),
    )


# --- fair ---------------------------------------------------------------------------------------------------------


def fair_light(checks: Sequence[Check], companions: Companions, verdicts: Sequence[Verdict]) -> Light:
    """Whether both frameworks did the same thing: the checks of the runs' records, and the lock-step proof."""
    failed = names_of(checks, "fail")
    if failed:
        said = f"{plural(len(failed), 'check')} failed: {'; '.join(failed)}. These are different experiments."
        return Light("Fair", "red", "Not fair", said, "#checks")
    proof = companions.proof
    if proof is not None and not all(passed for passed, _ in proof.verdicts):
        said = "The lock-step proof failed: step by step the frameworks are not one algorithm."
        return Light("Fair", "red", "Not fair", said, "#proof")
    if not checks:
        return Light("Fair", "amber", "Not known", "There is no complete run to check.", "#checks")
    if unsure := names_of(checks, "unknown"):
        said = f"{plural(len(unsure), 'check')} cannot be told from the files: {'; '.join(unsure)}."
        return Light("Fair", "amber", "In doubt", said, "#checks")
    if proof is None:
        said = "Every check of the runs passed, but no lock-step proof lies beside this study (compare.py parity)."
        return Light("Fair", "amber", "Checked, not proved", said, "#checks")
    rows = [row for row in proof.parity.to_dict("records") if row["precision"] == "float64"]
    proved = {(row["model"], row[side]) for row in rows for side in ("framework", "reference")}
    wanted = {(one.model, name): None for one in verdicts for name in (one.framework, one.reference)}
    open_ones = [f"{MODEL_TITLE[model]} in {FRAMEWORK_TITLE[name]}" for model, name in wanted
                 if (model, name) not in proved]  # fmt: skip
    if open_ones:
        said = f"Every check passed; the lock-step proof in float64 beside this study leaves out {listed(open_ones)}."
        return Light("Fair", "amber", "Proved in part", said, "#proof")
    said = f"All {len(checks)} checks of the runs passed, and the lock-step proof shows one algorithm."
    if any(one.lane == "native" for one in verdicts):
        said += " In the native lane each framework has its own defaults on top, which is what that lane compares."
    return Light("Fair", "green", "Fair", said, "#proof")


def names_of(checks: Sequence[Check], verdict: str) -> list[str]:
    return list(dict.fromkeys(check.name for check in checks if check.verdict == verdict))


# --- free of leaks ------------------------------------------------------------------------------------------------


def leak_light(checks: Sequence[Check], audit: Mapping[str, Any]) -> Light:
    """Whether a test picture could have been learnt by heart: the split as it is on disk, and the audit."""
    name, sides = "Leak-free", {one_side(noun) for noun in SIDED.values()}
    failed = [check for check in checks if check.name in sides and check.verdict == "fail"]
    if failed:
        said = f"Not kept: {'; '.join(f'{lower_first(check.name)} ({check.detail})' for check in failed)}."
        return Light(name, "red", "Leaks", said, "#data")
    findings = entries(audit, "findings")
    refused = [str(one.get("name")) for one in findings if one.get("verdict") == "refuse"]
    if refused:
        accepted = audit.get("accepted")
        overruled = isinstance(accepted, list) and set(refused) <= set(map(str, accepted))
        how = " It was overruled by name." if overruled else ""
        said = f"The audit refuses these data: {listed(refused)}.{how}"
        return Light(name, "red", "Overruled" if overruled else "Refused", said, "#data")
    if unknown := unknown_patients(audit):
        return Light(name, "amber", "Not known", unknown, "#data")
    open_ones = [check.name for check in checks if check.name in sides and check.verdict == "unknown"]
    if open_ones:
        said = f"Cannot be told from the files: {'; '.join(lower_first(one) for one in open_ones)}."
        return Light(name, "amber", "Not known", said, "#data")
    if not findings:
        said = "No patient and no picture stands on two sides, but the study's folder holds no full audit."
        return Light(name, "amber", "Split checked only", said, "#data")
    warned = [str(one.get("name")) for one in findings
              if one.get("verdict") == "warn" and one.get("name") in LEAK_FINDINGS]  # fmt: skip
    if warned:
        said = f"No patient and no picture stands on two sides; the audit warns of: {listed(warned)}."
        return Light(name, "amber", "With warnings", said, "#data")
    said = f"No patient and no picture stands on two sides; the audit ({len(findings)} questions) found no way round."
    return Light(name, "green", "Leak-free", said, "#data")


# --- data enough --------------------------------------------------------------------------------------------------


def data_light(verdicts: Sequence[Verdict]) -> Light:
    """Whether what could not be decided had a chance to be: enough seeds and enough patients for the margin."""
    name, link = "Enough data", "#limits"
    scored = [one for one in verdicts if one.word != "no score"]
    if not scored:
        return Light(name, "red", "Nothing to judge", "No two frameworks share a scored run.", link)
    waiting = [one for one in scored if one.word not in DECIDED]
    short = [one for one in waiting if not seeds_suffice(one)]
    few = [one for one in waiting if not patients_suffice(one)]
    unscored = len(verdicts) - len(scored)
    if not short and not few and not unscored:
        said = f"{of_all(scored, scored).capitalize()} had seeds and patients enough for the margin."
        least = min(one.patients for one in scored)
        if least < FEW_PATIENTS:
            said += f" With {plural(least, 'test patient')} the intervals are somewhat too narrow."
            return Light(name, "amber", "Few patients", said, link)
        return Light(name, "green", "Enough data", said, link)
    parts = []
    if short:
        worst = max(short, key=seeds_wanted)
        takes = seeds_wanted(worst)
        planned = worst.folds == 1 and math.isfinite(takes)  # of folds nothing is planned
        need = f" (it takes about {int(takes)}, not {len(worst.seeds)})" if planned else ""
        if len(worst.seeds) < config.MIN_INTERVAL_SEEDS:  # nothing can be planned on
            need = f" ({len(worst.seeds)}; a difference takes {config.MIN_VERDICT_SEEDS} or more)"
        of_what = "seeds" if all(one.folds == 1 for one in short) else "runs, over seeds and folds,"
        parts.append(f"too few {of_what} in {of_all(short, scored)}{need}")
    if few:
        worst = max(few, key=half_width)
        half = half_width(worst)
        wide = f" (their interval reaches ±{plain(half, decimals([(-half, half)]))}, the margin is ±{worst.margin:g})"
        parts.append(f"too few test patients in {of_all(few, scored)}{wide if math.isfinite(half) else ''}")
    if unscored:
        parts.append(f"no shared scored runs in {unscored} of {len(verdicts)} comparisons")
    lacking = {id(one) for one in (*short, *few)}
    all_lack = len(lacking) == len(scored)
    said = f"There are {', and '.join(parts)}: what does not show there may still be so."
    return Light(
        name, "red" if all_lack else "amber", "Too few data" if all_lack else "Enough in part", said, link
    )


def seeds_suffice(one: Verdict) -> bool:
    """Whether these seeds, varying as they do, could show equivalence within the margin."""
    if one.folds > 1:  # the plan is of seeds on one split
        return (one.equivalence.ci_high - one.equivalence.ci_low) / 2 < one.margin
    return one.identical or one.plan.smallest_margin <= one.margin


def patients_suffice(one: Verdict) -> bool:
    return half_width(one) < one.margin


def half_width(one: Verdict) -> float:
    """Of the interval over patients; infinite where there is none."""
    half = (one.over_patients.ci_high - one.over_patients.ci_low) / 2
    return half if math.isfinite(half) else math.inf


def seeds_wanted(one: Verdict) -> float:
    """Seeds that it takes; infinite where no number is enough or nothing is known yet."""
    wanted = one.plan.seeds_for_margin
    unknown = wanted is None or one.folds > 1 or len(one.seeds) < config.MIN_INTERVAL_SEEDS
    return math.inf if wanted is None or unknown else float(wanted)


def of_all(some: Sequence[Verdict], every: Sequence[Verdict]) -> str:
    """ "the comparison", "2 of 5 comparisons", "all 5 comparisons"."""
    if len(some) < len(every):
        return f"{len(some)} of {len(every)} comparisons"
    return {1: "the comparison", 2: "both comparisons"}.get(len(every), f"all {len(every)} comparisons")
