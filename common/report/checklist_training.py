"""Answers to the reporting checklists: partitions, model and training, from the runs' own records."""

from __future__ import annotations

import math
from collections.abc import Callable

from common import config
from common.report import context
from common.report.checklist_facts import AGAIN, NO_RUN, Answer, Facts, filled, inapplicable, lacking, part
from common.report.wording import listed, percent, plural

PIXELS = "The predictors are the pixels of one slice; nothing is chosen, measured or judged by hand"


# --- partitions ---------------------------------------------------------------------------------------------------


def partitions(facts: Facts) -> Answer:
    study = facts.study
    given = "the data set's own split where it has one, else "
    drawn = f"whole patients, stratified by label, drawn with split seed {study.split_seed}"
    how = (
        f"{study.folds} folds, each patient tested once"
        if study.folds > 1
        else f"hold-out: {percent(config.TEST_FRACTION)} test, {percent(config.VAL_FRACTION)} validation"
    )
    return filled(f"{drawn if facts.drawn else given + drawn}; {how}".capitalize(), "#data")


def disjoint(facts: Facts) -> Answer:
    check = facts.patient_check
    if check.verdict == "unknown":
        return lacking(
            f"Whether a patient is on two sides ({check.detail})", "a study whose data files can be read"
        )
    if check.verdict == "fail":
        return lacking(
            f"Parts that share no patient; on two sides: {check.detail}", "a study with another split"
        )
    if facts.patients_guessed:
        return part(
            "Disjoint by groups of similar images, checked",
            "Who the patients are: a head may still be on both sides",
            "#data",
            "a table patients.csv beside the images",
        )
    return filled(f"By patient, checked in the tables: {check.detail}", "#data")


def sample_size(facts: Facts) -> Answer:
    plans = [
        one.plan for one in facts.verdicts if one.folds == 1 and math.isfinite(one.plan.detectable_difference)
    ]
    tested = f"{plural(facts.test_patients, 'patient')} in the test part, as many as the data give"
    if not facts.test_patients:
        return lacking("Sizes of the samples; nothing could be scored", AGAIN)
    if not plans:
        return part(tested, "What this number of patients and seeds can show", "#data")
    least = max(plan.detectable_difference for plan in plans)
    words = f"{tested}; {plural(facts.study.seeds, 'seed')} can show differences from {least:.3f}"
    return (
        filled(words, "#verdicts")
        if facts.drawn
        else part(words, "Whether so many patients suffice", "#verdicts")
    )


# --- model and training -------------------------------------------------------------------------------------------


def preprocessing(facts: Facts) -> Answer:
    specs = facts.study.specs.values()
    sizes = listed(sorted({f"{spec.image_size} px" for spec in specs}))
    return filled(
        f"Decoded once for all frameworks, resized to {sizes}, each channel centred and scaled by fixed numbers "
        "(pixel_mean, pixel_std in study.json); random flips, turns, shifts and contrast in training only, "
        "from shared random numbers",
        "#reproduce",
    )


def model(facts: Facts) -> Answer:
    counts = [f"{count:,}" for count in sorted(facts.recorded("weights", "parameters"))]
    size = f", {listed(counts)} parameters" if counts else ""
    return filled(f"{facts.models}{size}; every number of them is in study.json under specs", "#reproduce")


def software(facts: Facts) -> Answer:
    found: dict[str, str] = {}
    for environment in facts.recorded("environment"):
        found |= {
            name: environment[name] for name in ("torch", "keras", "tensorflow", "jax") if name in environment
        }
    if not facts.evidence.record.complete:
        return lacking(f"Versions. {NO_RUN}", AGAIN)
    if not found:
        return part("Recorded in each run.json", "Versions of the frameworks", "#differs")
    versions = listed([f"{name} {version}" for name, version in found.items()])
    return filled(f"{versions}; all versions are in each run.json", "#differs")


def start(facts: Facts) -> Answer:
    if not facts.evidence.record.complete:
        return lacking(f"Starting weights. {NO_RUN}", AGAIN)
    files = [
        origin for record in facts.evidence.record.complete if (origin := context.origin(record.document))
    ]
    if files:
        return filled(f"Backbones from {listed(sorted(set(files)))}; the rest random, keyed by the seed")
    if facts.study.lanes == ("native",):
        return filled("Random, by each framework's own rule, keyed by the seed", "#differs")
    words = "Random, drawn once in NumPy and keyed by the seed: the same bytes for every framework"
    return filled(words + (" (native lane: each its own)" if "native" in facts.study.lanes else ""))


def training(facts: Facts) -> Answer:
    recipes = facts.study.recipes.values()
    epochs = listed([str(one) for one in sorted({recipe.epochs for recipe in recipes})])
    batches = listed([str(one) for one in sorted({recipe.batch_size for recipe in recipes})])
    rates = listed([f"{one:g}" for one in sorted({recipe.learning_rate for recipe in recipes})])
    return filled(
        f"AdamW with warm-up and cosine; epochs {epochs}, batch size {batches}, peak learning rate {rates}; "
        f"{plural(facts.study.seeds, 'seed')} a model and framework. Every number is in study.json under recipes",
        "#reproduce",
    )


def building(facts: Facts) -> Answer:
    return filled(
        f"{facts.models}. No number was tuned on these data: the recipes were fixed beforehand. Validation patients "
        "choose the epoch and the threshold, test patients judge",
        "#reproduce",
    )


def selection(facts: Facts) -> Answer:
    rules = facts.recorded("choice", "rule")
    if not rules:
        return lacking("Rule of the kept epoch", AGAIN)
    return filled(
        f"The epoch with the {listed([str(rule).replace('_', ' ') for rule in rules])}, in each run by itself"
    )


def imbalance(facts: Facts) -> Answer:
    ways = {
        "classes weighted by their frequency": any(
            r.class_weights == "balanced" for r in facts.study.recipes.values()
        ),
        "slices with a lesion shown more often": any(
            r.sampling == "foreground" for r in facts.study.recipes.values()
        ),
        "as many samples of each class an epoch": any(
            r.sampling == "balanced" for r in facts.study.recipes.values()
        ),
    }
    used = [words for words, on in ways.items() if on]
    if not used:
        return filled("No method against imbalance was used")
    return filled(
        f"In training {listed(used)}; the probabilities are not calibrated afterwards", "#reproduce"
    )


TRAINING_ANSWERS: dict[str, Callable[[Facts], Answer]] = {
    "partitions": partitions,
    "disjoint": disjoint,
    "sample_size": sample_size,
    "preprocessing": preprocessing,
    "model": model,
    "software": software,
    "start": start,
    "training": training,
    "building": building,
    "selection": selection,
    "ensembles": lambda facts: inapplicable(
        "None: each run is judged by itself, and scores are averaged, not models"
    ),
    "imbalance": imbalance,
    "updating": lambda facts: inapplicable("No model was changed after its evaluation"),
    "predictor_choice": lambda facts: inapplicable(PIXELS),
    "predictors": preprocessing,
    "predictor_readers": lambda facts: inapplicable(PIXELS),
    "predicting": lambda facts: filled(
        "By each run's own trained weights; predictions.npz beside them has every prediction", "#reproduce"
    ),
    "specification": model,
    "poor_input": lambda facts: filled(
        "A picture that is damaged, painted on or of an unknown kind is refused with a sentence, never guessed"
    ),
    "users": lambda facts: part(
        "A slice in, a probability or a mask out; nothing to set", "What users must know; research only"
    ),
}
