"""What a lane leaves to the frameworks: in a sentence, as a table, and for the checks."""

from __future__ import annotations

from typing import Any

from common.config import DEFAULTS, LANES, Default, Study, defaults_of
from common.report.terms import MODEL_TITLE
from common.report.wording import listed, lower_first
from common.results import RunRecord

WORDS = {
    "lockstep": "Lockstep: the same starting weights, batches and dropout masks; step by step, the frameworks must "
    "agree to rounding.",
    "aligned": "Aligned lane: the same mathematics, starting weights, batch order, augmented pixels and schedule for "
    "every framework; its own are only the dropout and stochastic-depth draws and the kernels.",
}
EVERYWHERE = frozenset(LANES["aligned"])  # left to the frameworks in the aligned lane too


def own_of(lane: str) -> tuple[Default, ...]:
    """The defaults that a lane leaves to each framework beyond those of the aligned lane."""
    return tuple(DEFAULTS[name] for name in LANES.get(lane, ()) if name not in EVERYWHERE)


def own_fields(lane: str, model: str) -> frozenset[str]:
    """The fields of a model's spec and recipe that may differ by design between the frameworks of a lane."""
    return frozenset(name for one in own_of(lane) if model in one.models for name in (*one.torch, *one.keras))


def about(lane: str, study: Study) -> str:
    """What a lane is; of the native one, what differs in this study by design."""
    if lane != "native":
        return WORDS.get(lane, f"Lane {lane}.")
    titles = [lower_first(one["title"]) for one in left_alone(lane, study)]
    return (
        "Native lane: each framework with its own defaults. Images, patients, split, augmentation, learning rates, "
        f"epochs, metrics and their rules are shared; these differ by design: {listed(list(dict.fromkeys(titles)))}."
    )


def left_alone(lane: str, study: Study) -> list[dict[str, Any]]:
    """The defaults that a lane leaves alone and that matter in a study: title, about, models, PyTorch's own value,
    Keras's, and that of the aligned lane.
    """
    rows: dict[str, dict[str, Any]] = {}
    names = {one.name for one in own_of(lane)}
    for task, model in study.pairs:
        spec, recipe = study.specs[f"{task}/{model}"], study.recipes[f"{task}/{model}"]
        aligned = {**vars(spec), **vars(recipe)}
        for one in defaults_of(spec, recipe):
            if one.name not in names:
                continue
            row = rows.setdefault(
                one.name,
                {
                    "name": one.name,
                    "title": one.title,
                    "about": one.about.replace("`", ""),
                    "models": [],
                    "torch": values(one.torch),
                    "keras": values(one.keras),
                    "aligned": values({name: aligned[name] for name in (*one.torch, *one.keras)}),
                },
            )
            row["models"].append(MODEL_TITLE[model])
    order = list(DEFAULTS)
    return [
        {**row, "models": listed(list(dict.fromkeys(row["models"])))}
        for row in sorted(rows.values(), key=lambda row: order.index(row["name"]))
    ]


def values(fields: Any) -> str:
    """Values as words, without their fields' names, which the title of a default stands for."""
    words = {"True": "yes", "False": "no", "framework": "its own"}
    return ", ".join(words.get(str(value), str(value)).replace("_", " ") for value in fields.values())


def without_own(record: RunRecord, part: str) -> dict[str, Any]:
    """Spec or recipe of a run without what its lane leaves to the framework."""
    own = own_fields(record.run.lane, record.run.model)
    return {name: value for name, value in record.document[part].items() if name not in own}


def declared(record: RunRecord) -> dict[str, Any]:
    """The lane's defaults in which a run is not left with its framework's own value: name -> recorded value."""
    spec, recipe = record.document["spec"], record.document["recipe"]
    fields = {**spec, **recipe}
    return {
        name: fields.get(name)
        for one in own_of(record.run.lane)
        if spec["name"] in one.models
        and (not one.losses or recipe["loss"] in one.losses)
        and (not one.needs or any(fields.get(need, 0) > 0 for need in one.needs))
        for name, value in one.fields(record.run.framework).items()
        if fields.get(name) != value
    }
