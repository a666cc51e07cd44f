"""The sentences around the numbers: where a model started, what the numbers do not say, what repeats the study."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from common import config
from common.config import BACKBONES, MODELS, TASKS, ModelSpec, Study
from common.report.reading import AnyComparison, Evidence
from common.report.terms import MODEL_TITLE, TASK_TITLE, metric_title
from common.report.wording import listed, plural

FEW_PATIENTS = 30  # below, percentile intervals are markedly too narrow (see `cluster_bootstrap`)
SHAPE_FREE = {"name", "image_size", "channels", "outputs", "dropout", "pixel_mean", "pixel_std", "head"}


# --- a model ------------------------------------------------------------------------------------------------------


def model_title(model: str, spec: ModelSpec | None) -> str:
    """The name of a model; of a backbone with other numbers than the published one, that of a small relative."""
    reduced = spec is not None and model in BACKBONES and departures(model, spec)
    return f"{MODEL_TITLE.get(model, model)}{' (reduced)' if reduced else ''}"


def departures(model: str, spec: ModelSpec) -> dict[str, tuple[Any, Any]]:
    """The numbers of an architecture that are not the published ones: name -> (here, published)."""
    ours, published = config.to_json(spec), config.to_json(MODELS[model])
    return {
        name: (ours[name], published[name])
        for name in published
        if name not in SHAPE_FREE and ours[name] != published[name]
    }


def starts(comparison: AnyComparison, spec: ModelSpec | None) -> list[str]:
    """Where the model of a comparison started and how it was trained on, as its runs record it."""
    model, sentences = comparison.model, []
    if model not in BACKBONES:
        return []
    published = MODEL_TITLE[model]
    if spec is not None and (found := departures(model, spec)):
        numbers = ", ".join(
            f"{name.replace('_', ' ')} {brief(here)} instead of {brief(there)}"
            for name, (here, there) in found.items()
        )
        sentences.append(
            f"A small relative of {published}: {numbers}. It is not {published}, and its scores are not those of "
            f"{published}."
        )
    files = {origin(record.document) for record in comparison.records}
    if files == {""}:
        own = "initial_weights" in config.LANES.get(comparison.lane, ())
        whose = "drawn by each framework's own rule" if own else "the same for every framework at equal seed"
        sentences.append(f"It started from random weights, {whose}.")
    elif len(files) == 1:
        sentences.append(
            f"All but the last layer started from {files.pop()}, the same file for every framework."
        )
    elif files:
        sentences.append(
            f"Its runs did not start alike: {listed([name or 'random weights' for name in sorted(files)])}."
        )
    phases = {phase_words(record.document.get("phases")) for record in comparison.records} - {""}
    return [*sentences, *sorted(phases)]


def origin(document: Mapping[str, Any]) -> str:
    """The pretrained file of a run in words; empty where it had none."""
    pretrained = document.get("pretrained")
    if not isinstance(pretrained, dict):
        return ""
    return (
        f"{pretrained.get('source', 'a file')} (sha256 {str(pretrained.get('sha256', 'not recorded'))[:12]}…)"
    )


def phase_words(phases: object) -> str:
    """How a training went that had several phases or began with the last layer alone; empty for any other."""
    if not isinstance(phases, list) or not phases:
        return ""
    if len(phases) < 2 and phases[0].get("trainable") != "head":
        return ""
    parts = [
        f"{'the last layer alone' if one.get('trainable') == 'head' else 'all layers'} for "
        f"{plural(int(one.get('epochs', 0)), 'epoch')} (batch norm in {one.get('batch_norm', 'an unrecorded')} mode)"
        for one in phases
    ]
    return f"Trained in {'phases' if len(parts) > 1 else 'one phase'}: {', then '.join(parts)}."


def brief(value: object) -> str:
    return "-".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


# --- the study ----------------------------------------------------------------------------------------------------


def unknown_patients(audit: Mapping[str, Any]) -> str:
    """What a reader must know first where patients were not known; empty where they were."""
    counts = audit.get("patients_from")
    guessed = counts.get("similarity", 0) if isinstance(counts, dict) else 0
    if not guessed:
        return ""
    return (
        f"Patients unknown, grouped by similarity: {plural(guessed, 'image')} came without a patient, and images that "
        "look alike were taken for one patient's. Slices of one head may still stand on both sides of the split, so "
        "the scores may be too good and the intervals too narrow."
    )


def skipped_tasks(audit: Mapping[str, Any]) -> list[dict[str, str]]:
    """Tasks that the data could not serve: title and reason."""
    found = audit.get("skipped_tasks")
    return [
        {
            "title": TASK_TITLE.get(str(row.get("task")), str(row.get("task"))),
            "reason": str(row.get("reason", "")),
        }
        for row in (found if isinstance(found, list) else [])
        if isinstance(row, dict)
    ]


def limits(evidence: Evidence) -> list[str]:
    """What the numbers do not say."""
    comparisons = evidence.comparisons
    named = {metric_title(one.task, one.primary_metric).removesuffix(" (macro)"): None for one in comparisons}
    first = listed(list(named)) if comparisons else "the primary metric"
    elsewhere = "other hospitals are in none of the intervals"
    if evidence.record.study.folds == 1:
        elsewhere = f"other splits and {elsewhere}"
    lines = [
        f"Many metrics are shown, and only {first} {'were' if len(named) > 1 else 'was'} named beforehand and "
        f"{'are' if len(named) > 1 else 'is'} judged. Every other number is descriptive: its interval is over test "
        "patients only, and not corrected for being one of many.",
        "“Undecided” is not “equal”. “Equivalent” holds within the margin, for other seeds and for patients like "
        f"these; {elsewhere}.",
        "Times are those of this machine with these process settings, and of runs that may have shared it.",
    ]
    patients = [level.patients for one in comparisons for level in one.levels[:1]]
    if patients and min(patients) < FEW_PATIENTS:
        least = str(min(patients)) if len(set(patients)) == 1 else f"as few as {min(patients)}"
        lines.insert(1, (
            f"There are {least} test patients. Under about {FEW_PATIENTS}, a bootstrap interval called "
            "95\u00a0% covers nearer 90\u00a0%."
        ))  # fmt: skip
    if any(one.lane == "native" for one in comparisons):
        lines.append(
            "In the native lane a difference is that of all of a framework's defaults together; which of them makes it "
            "is the ladder's question."
        )
    unknown = unknown_patients(evidence.audit)
    if unknown:
        lines.insert(0, unknown)
    if any(len(one.folds) > 1 for one in comparisons):
        lines.append(
            "Folds are pooled: scores of different models are ranked together, which can lower the AUROC against the "
            "mean over folds."
        )
    if any(level.name == "external" for one in comparisons for level in one.levels):
        lines.append(
            "The external set is one other source: it tells what happened there, not what will happen elsewhere."
        )
    if evidence.record.study.data:
        lines.append(
            "Labels are taken as published. Where they were given per patient, a slice's label need not be what the "
            "slice shows."
        )
    else:
        lines.append("The slices are drawn, so the scores say nothing about medicine.")
    reduced = [
        MODEL_TITLE[model]
        for task, model in evidence.record.study.pairs
        if model in BACKBONES
        and (spec := evidence.record.study.specs.get(f"{task}/{model}"))
        and departures(model, spec)
    ]
    if reduced:
        lines.append(
            f"This profile trains small relatives of {listed(list(dict.fromkeys(reduced)))}: they show that the path "
            "works, not how good the published models are."
        )
    found, used = evidence.audit.get("patients"), evidence.audit.get("used")
    if isinstance(found, int) and found == used and found > 1:
        lines.append(
            "No patient is known to have two slices here, so each slice counts as a patient of its own: slices of one "
            "patient may stand on both sides of the split, and the intervals are too narrow."
        )
    return lines


# --- the command --------------------------------------------------------------------------------------------------


def command(study: Study, name: str) -> str:
    """What repeats the study, one group of options a line; what equals the profile's numbers is left out. Several
    commands, one after another, where no choice of `--models` gives each task its own.
    """
    return "\n".join(one_command(study, name, grid) for grid in grids(study))


def grids(study: Study) -> list[list[list[str]]]:
    """For each command that is needed, the options that choose its tasks and models."""
    pairs, tasks = set(study.pairs), [task for task in TASKS if task in study.tasks]
    asked = [] if study.skippable else ["--tasks", *tasks]
    if pairs == {(task, model) for task in tasks for model in TASKS[task].default_models}:
        return [[asked]]
    if pairs == {(task, model) for task in tasks for model in TASKS[task].models if model in study.models}:
        return [[asked, ["--models", *study.models]]]
    return [
        [["--tasks", task], ["--models", *(model for of, model in study.pairs if of == task)]]
        for task in tasks
    ]


def one_command(study: Study, name: str, grid: list[list[str]]) -> str:
    profile = config.PROFILES[study.profile]
    models = grid[1][1:] if len(grid) > 1 else study.models
    weights = ["--weights", study.weights] if any(model in BACKBONES for model in models) else []
    options = [
        ["--data", *study.data] if study.data else [],
        ["--patients", str(study.patients)] if study.patients else [],
        ["--profile", profile.name, "--lane", *study.lanes],
        *grid,
        weights,
        ["--frameworks", *study.frameworks],
        ["--seeds", str(study.seeds), "--repeats", str(study.repeats), "--folds", str(study.folds)],
        ["--accept", *study.accepted] if study.accepted else [],
        ["--split-seed", str(study.split_seed)] if study.split_seed else [],
        [*changed(study, "epochs"), *changed(study, "batch_size")],
        ["--device", study.device, "--precision", study.precision],
        ["--devices", str(study.devices)] if study.devices > 1 else [],
        ["--threads", str(study.threads)] if study.threads else [],
        ["--workers", str(study.workers)] if study.workers > 1 else [],
        ["--deterministic"] if study.deterministic else [],
        ["--out", f"results/{name}"],
    ]
    return " \\\n    ".join(["python compare.py study", *(shlex.join(words) for words in options if words)])


def changed(study: Study, name: str) -> list[str]:
    """The option that set a number of the recipes, where one did."""
    for key, recipe in study.recipes.items():
        task, model = key.split("/")
        usual = config.recipe_of(task, model, study.profile, weights=study.weights)
        if getattr(recipe, name) != getattr(usual, name):
            return [f"--{name.replace('_', '-')}", str(getattr(recipe, name))]
    return []
