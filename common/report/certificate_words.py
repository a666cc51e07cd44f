"""What the lock-step proof says, and what it does not, as sentences computed from its rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from common import config
from common.config import FRAMEWORKS, MODELS
from common.report.certificate import Certificate, Mutation, Row
from common.report.terms import FRAMEWORK_TITLE, MODEL_TITLE
from common.report.wording import listed, plural, tiny

NUMBER_WORDS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


def verdicts(certificate: Certificate) -> list[tuple[bool, str]]:
    """For each precision whether everything passed, and the finding in a sentence."""
    return [verdict(precision, certificate.of(precision)) for precision in certificate.precisions]


def verdict(precision: str, rows: Sequence[Row]) -> tuple[bool, str]:
    """The finding of one precision: one algorithm, or what is not."""
    failed = [row for row in rows if not row.passed]
    if failed:
        told = "; ".join(
            f"{row.title}, {FRAMEWORK_TITLE[row.framework]}: {row.failure.rstrip('.')}" for row in failed
        )
        return False, (
            f"Not proved in {precision} (lane lockstep): {len(failed)} of {plural(len(rows), 'training')} "
            f"{'is' if len(failed) == 1 else 'are'} not that of {reference_of(rows)}. {told}."
        )
    frameworks = list(
        dict.fromkeys(FRAMEWORK_TITLE[row.framework] for row in sorted(rows, key=framework_place))
    )
    together, over, whose = listed([reference_of(rows), *frameworks]), steps_words(rows), models_words(rows)
    if precision == "float64":
        digits = min(row.digits for row in rows)
        exact = all(row.differences["loss_max_rel"] == 0 for row in rows)
        agree = "are equal to the last bit" if exact else f"agree to {digits} digits"
        return True, (
            f"In {precision}, {together} are one algorithm: over {over} the losses of {whose} {agree} "
            "(lane lockstep)."
        )
    far = max(row.differences["loss_max_rel"] for row in rows)
    floor = max((row.floor.get("loss_max_rel", math.nan) for row in rows), key=sortable)
    beside = (
        f", where {reference_of(rows)} parts from itself by up to {tiny(floor)} with other numbers of threads or in "
        "float64"
        if math.isfinite(floor)
        else ""
    )
    return True, (
        f"In {precision}, {together} begin alike: the first step of {whose} agrees to rounding. Then rounding grows, "
        f"and over {over} the losses part by up to {tiny(far)} of their size{beside} (lane lockstep)."
    )


def sortable(value: float) -> float:
    return -1.0 if math.isnan(value) else value


def framework_place(row: Row) -> int:
    return FRAMEWORKS.index(row.framework)


def reference_of(rows: Sequence[Row]) -> str:
    return listed(list(dict.fromkeys(FRAMEWORK_TITLE[row.reference] for row in rows)))


def steps_words(rows: Sequence[Row]) -> str:
    counts = sorted({row.steps for row in rows})
    return plural(counts[0], "step") if len(counts) == 1 else f"{counts[0]} to {plural(counts[-1], 'step')}"


def models_words(rows: Sequence[Row]) -> str:
    """Of which models, where every framework has trained the same ones; else how many trainings."""
    by_framework: dict[str, list[str]] = {}
    for row in rows:
        by_framework.setdefault(row.framework, []).append(row.title)
    models = list(by_framework.values())
    if any(set(one) != set(models[0]) for one in models):
        return f"the {plural(len(rows), 'training')} below"
    if {row.model for row in rows} == set(MODELS):
        return f"all {NUMBER_WORDS.get(len(MODELS), len(MODELS))} models"
    return listed([f"the {title}" for title in dict.fromkeys(models[0])])


def what_was_done(certificate: Certificate) -> list[str]:
    """What was trained and compared, what was not, as far as the rows record it."""
    rows = certificate.rows
    if not rows:
        return []
    sizes = listed([f"{size}\u00a0px" for size in sorted({row.image_size for row in rows})])
    batches = listed([str(size) for size in sorted({row.batch_size for row in rows})])
    profiles = listed(sorted({row.profile for row in rows}))
    head = [row for row in rows if row.head_steps]
    alone = (
        f" In the first {listed([str(n) for n in sorted({row.head_steps for row in head})])} steps of "
        f"{listed(list(dict.fromkeys(row.title for row in head)))} the last layer learnt alone."
        if head
        else ""
    )
    clipped = sorted({row.gradient_clip_norm for row in rows if row.gradient_clip_norm > 0})
    clipping = f", gradients clipped to norm {listed([f'{norm:g}' for norm in clipped])}" if clipped else ""
    untried = [row.title for row in rows if row.clipped_steps == 0 and row.gradient_clip_norm > 0]
    if untried:
        alone += f" No gradient of {listed(list(dict.fromkeys(untried)))} was long enough to be clipped."
    return [
        f"Trained: the models of the {profiles} profile on {certificate.data or 'data that are not recorded'}, images "
        f"of {sizes}, batches of {batches}, {steps_words(rows)}{clipping}.{alone}",
        "Shared: starting weights, batches byte for byte, the schedule, and the masks of dropout and stochastic depth, "
        "which are drawn once and handed to both.",
        "Compared: the output of each layer and the weights and statistics where a phase of the training begins, each "
        "step's loss and the gradient norm of each tensor, the weights at the end, and the logits in evaluation mode "
        "before and after.",
        "Not said: that other sizes, recipes or devices agree as well, or that either side is right: both could share "
        "a fault.",
    ]


def caught_words(mutations: Sequence[Mutation]) -> str:
    """How many planted faults were found, which change nothing, and which the proof is blind to."""
    found = sum(one.caught for one in mutations)
    words = f"{found} of {plural(len(mutations), 'planted fault')} {'was' if found == 1 else 'were'} found."
    if harmless := [one for one in mutations if one.harmless and not one.caught]:
        words += f" Not to be found, for they change nothing beyond rounding: {named(harmless)}."
    if missed := missed_faults(mutations):
        words += f" Missed: {named(missed)}. To these the proof is blind."
    return words


def missed_faults(mutations: Sequence[Mutation]) -> list[Mutation]:
    """Planted faults that should have been found and were not."""
    return [one for one in mutations if not one.caught and not one.harmless]


def named(mutations: Sequence[Mutation]) -> str:
    """Each default once, with its models."""
    models: dict[str, list[str]] = {}
    for one in mutations:
        models.setdefault(one.title or one.name, []).append(MODEL_TITLE[one.model])
    return "; ".join(f"{title} ({listed(those)})" for title, those in models.items())


def beside_the_runs(certificate: Certificate, study: config.Study) -> str:
    """How the proof and the study's own float32 runs belong together; empty where nothing was proved."""
    proved = certificate.of("float64")
    if study.precision != "float32" or not proved or not all(row.passed for row in proved):
        return ""
    floors = [row.floor["loss_max_rel"] for row in certificate.rows if "loss_max_rel" in row.floor]
    grown = [floor for floor in floors if math.isfinite(floor)]
    if uncovered := not_covered(certificate, study):
        return f"The proof does not cover all of this study: it lacks {listed(uncovered)}."
    farthest = tiny(max(grown, default=math.nan))
    size = f", as a framework's do from its own on other threads (the loss by up to {farthest})"
    apart = f"float32 rounding makes them part{size if grown else ''}"
    native = "in the native lane each framework has its own defaults besides"
    if "aligned" not in study.lanes:
        return f"The runs of this study are another thing: {apart}, and {native}."
    return (
        "The runs of this study train the same code, in sizes and recipes of their own, and yet differ: "
        f"{apart}, and in the aligned lane each framework draws its own dropout masks, where the model has any"
        f"{f'; {native}' if 'native' in study.lanes else ''}."
    )


def not_covered(certificate: Certificate, study: config.Study) -> list[str]:
    """Models and frameworks of a study of which nothing was proved in float64."""
    proved = {
        (row.model, name) for row in certificate.of("float64") for name in (row.framework, row.reference)
    }
    return [
        f"{MODEL_TITLE[model]} with {FRAMEWORK_TITLE.get(framework, framework)}"
        for model in study.models
        for framework in study.frameworks
        if (model, framework) not in proved
    ]
