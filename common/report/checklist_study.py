"""Answers to the reporting checklists: design, data, truth, discussion, open science. Methods and results: elsewhere.

Each is a function of a study's facts. What only people know is never guessed: it is named, with who has to say it.
"""

from __future__ import annotations

from collections.abc import Callable

from common import config
from common.report.checklist_facts import Answer, Facts, filled, inapplicable, lacking, part
from common.report.context import FEW_PATIENTS
from common.report.tables import entries
from common.report.terms import TASK_TITLE, metric_title
from common.report.wording import listed, plural

DRAWN = "The heads are drawn by the program; there are no people in the data"
NO_USE = f"{config.NOTICE} No use in care is proposed"


def of_people(missing: str) -> Callable[[Facts], Answer]:
    """What only the authors can say, and what nobody has to say of drawn heads."""
    return lambda facts: inapplicable(DRAWN) if facts.drawn else lacking(missing)


def by_authors(missing: str) -> Callable[[Facts], Answer]:
    return lambda facts: lacking(missing)


def fixed(answer: Answer) -> Callable[[Facts], Answer]:
    """An answer that follows from how the program works, whatever the study."""
    return lambda facts: answer


# --- title, aims, design ------------------------------------------------------------------------------------------


def title(facts: Facts) -> Answer:
    return part(f"Deep learning: {facts.models}, trained in {facts.frameworks}", "The paper's title")


def aims(facts: Facts) -> Answer:
    margins = {
        f"{metric_title(task, config.TASKS[task].primary_metric)} {config.TASKS[task].margin:g}"
        for task in facts.study.tasks
    }
    return filled(
        f"Do {facts.frameworks} give the same result when their mathematics is made the same? Declared before "
        f"training: one primary metric a task and its margin of equivalence ({listed(sorted(margins))})",
        "#verdicts",
    )


def retrospective(facts: Facts) -> Answer:
    if facts.drawn:
        return inapplicable(DRAWN)
    return part(
        "Retrospective: the study reads files that existed", "How and when they were collected, and for what"
    )


# --- data ---------------------------------------------------------------------------------------------------------


def sources(facts: Facts) -> Answer:
    if facts.drawn:
        return filled("Every image is drawn by the program from a seed (the phantom)", "#data")
    return part(
        f"Data sets by name: {facts.sources}; a sha256 of each file is in data/samples.csv",
        "Origin, licence, why these, and whom they represent",
        "#data",
    )


def eligibility(facts: Facts) -> Answer:
    words = f"{facts.counts()}; every image that can be read and has a label is used"
    if facts.drawn:
        return filled(words, "#data")
    return part(words, "How patients came into the data sets", "#data")


def subsets(facts: Facts) -> Answer:
    words = (
        "No selection by hand: a task uses each readable image whose label (for masks: whose mask) it knows"
    )
    skipped = facts.evidence.audit.get("skipped_tasks")
    names = (
        [str(row.get("task")) for row in skipped if isinstance(row, dict)]
        if isinstance(skipped, list)
        else []
    )
    if names:
        words += (
            f"; not done for want of data: {listed([TASK_TITLE.get(name, name).lower() for name in names])}"
        )
    return filled(words, "#data")


def missing(facts: Facts) -> Answer:
    words = facts.unreadable()
    masks = facts.evidence.audit.get("masks")
    unknown = masks.get("unknown", 0) if isinstance(masks, dict) else 0
    if unknown and "segmentation" in facts.study.tasks:
        words += f"; {plural(unknown, 'image')} without a known mask take no part in segmentation"
    return filled(f"{words}. Nothing is imputed", "#data")


def preparation(facts: Facts) -> Answer:
    findings = entries(facts.evidence.audit, "findings")
    if not findings:
        return part(
            facts.unreadable(), "An audit of the data", "#data", "the study's command, which takes stock anew"
        )
    passed = sum(row.get("verdict") == "pass" for row in findings)
    words = f"{plural(len(findings), 'check')} of the data, {passed} without a finding"
    return (
        filled(words, "#data")
        if facts.drawn
        else part(words, "Whether alike in all groups of people", "#data")
    )


# --- truth --------------------------------------------------------------------------------------------------------


def truth(facts: Facts) -> Answer:
    if facts.drawn:
        return filled("Known exactly: the program that draws a lesion writes its label and mask", "#data")
    return part(
        "Labels are taken from the data set's folders and tables, as published; masks from its files or painted "
        "pictures",
        "How they were established: by whom, from what, per slice or per patient",
        "#data",
    )


def known_truth(missing: str) -> Callable[[Facts], Answer]:
    """About those who judged the images, of whom drawn heads need none."""
    return lambda facts: (
        inapplicable("The truth is drawn; nobody judged the images") if facts.drawn else lacking(missing)
    )


def test_truth(facts: Facts) -> Answer:
    if facts.drawn:
        return filled("As all others: drawn", "#data")
    return part(
        "The test part has labels from the same source as the training part", "Whether it was read again"
    )


# --- discussion ---------------------------------------------------------------------------------------------------


def limits(facts: Facts) -> Answer:
    words = "What the numbers do not say is listed"
    if 0 < facts.test_patients < FEW_PATIENTS:
        words += f", first that only {plural(facts.test_patients, 'patient')} could be tested"
    return filled(words, "#limits")


def interpretation(facts: Facts) -> Answer:
    if not facts.verdicts:
        return lacking("What the results mean; no two frameworks could be compared")
    words = listed([f"{one.word} ({TASK_TITLE[one.task].lower()}, {one.lane})" for one in facts.verdicts[:4]])
    more = f", and {len(facts.verdicts) - 4} more" if len(facts.verdicts) > 4 else ""
    return part(
        f"A verdict for each comparison: {words}{more}", "What follows, fairness included", "#verdicts"
    )


# --- open science -------------------------------------------------------------------------------------------------


def protocol(facts: Facts) -> Answer:
    return filled(
        "study.json holds every setting, fixed before training; the commands that repeat the study are given",
        "#reproduce",
    )


def commit_words(facts: Facts) -> str:
    commits = facts.recorded("git_commit")
    return f"the state of the code by its git commit ({str(commits[0])[:12]})" if commits else ""


def availability(facts: Facts) -> Answer:
    named = ", ".join(
        filter(None, [commit_words(facts), "trained weights beside each run", "digests of all data"])
    )
    return part(f"Recorded: {named}", "Where software, weights and data are published", "#reproduce")


def data_sharing(facts: Facts) -> Answer:
    if facts.drawn:
        return filled("The phantom is drawn anew by the same command, byte for byte", "#reproduce")
    return part(
        "Digests of all files are in data/samples.csv", "Where and on what terms the data can be had", "#data"
    )


def code_sharing(facts: Facts) -> Answer:
    words = commit_words(facts)
    recorded = f"Recorded: {words}" if words else "The commands of every run are recorded"
    return part(recorded, "Where the code is published", "#reproduce")


STUDY_ANSWERS: dict[str, Callable[[Facts], Answer]] = {
    "title": title,
    "abstract": by_authors("An abstract; the verdict sentences are its results"),
    "background": by_authors("Scientific and medical background"),
    "aims": aims,
    "retrospective": retrospective,
    "goal": fixed(filled("To compare deep-learning frameworks, not to offer a model for care", "#verdicts")),
    "intended_use": fixed(inapplicable(NO_USE)),
    "inequalities": of_people("Known inequalities between groups of people"),
    "sources": sources,
    "dates": of_people("First and last date of collection"),
    "setting": of_people("Kind of care, number and place of centres"),
    "eligibility": eligibility,
    "treatments": of_people("Treatments before the scan"),
    "subsets": subsets,
    "identities": of_people("How the data sets were freed of identities"),
    "missing": missing,
    "preparation": preparation,
    "acquisition": of_people("Scanners, protocol, slice thickness, window of the images"),
    "truth": truth,
    "truth_reason": known_truth("Why this standard"),
    "annotators": known_truth("Who annotated, with what training"),
    "blinding": known_truth("Whether those who judged knew anything else of the patients"),
    "test_truth": test_truth,
    "raters": known_truth("Agreement between and within readers"),
    "limits": limits,
    "practice": fixed(part(NO_USE, "What the findings mean for practice", "#limits")),
    "interpretation": interpretation,
    "next_steps": by_authors("Next steps"),
    "protocol": protocol,
    "availability": availability,
    "data_sharing": data_sharing,
    "code_sharing": code_sharing,
    "funding": by_authors("Sources of funding, and the funders' part"),
    "interests": by_authors("Conflicts of interest"),
    "registration": by_authors("Number of the registration, or that there is none"),
    "trial": fixed(inapplicable("No clinical trial: no care depended on the study")),
    "ethics": of_people("Ethics committee, and consent or its waiver"),
    "involvement": by_authors("Part that patients and public had, or that they had none"),
}
