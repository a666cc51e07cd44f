"""Answers to the reporting checklists: evaluation and results, from the scores and the verdicts."""

from __future__ import annotations

from collections.abc import Callable

from common import config
from common.report.checklist_facts import AGAIN, NO_RUN, Answer, Facts, filled, inapplicable, lacking, part
from common.report.terms import metric_title
from common.report.wording import listed, percent, plural

# --- evaluation ---------------------------------------------------------------------------------------------------


def metrics(facts: Facts) -> Answer:
    primary = {metric_title(task, config.TASKS[task].primary_metric) for task in facts.study.tasks}
    also = ["discrimination", "decisions", "calibration"] if facts.classifies else []
    also += ["overlap", "borders", "volumes of masks"] if facts.segments else []
    rest = f"; beside it {', '.join(also)}" if also else ""
    return filled(
        f"Primary: {listed(sorted(primary))}{rest}; all computed once, from saved predictions", "#verdicts"
    )


def statistics(facts: Facts) -> Answer:
    if not facts.comparisons:
        return lacking(f"Uncertainty. {NO_RUN}", AGAIN)
    seeds = plural(facts.study.seeds, "seed")
    words = f"{percent(config.CONFIDENCE)} intervals by drawing test patients; spread over {seeds}"
    if not facts.intervals:
        return part(
            f"Spread over {seeds}",
            f"Intervals: {plural(facts.test_patients, 'test patient')} are too few",
            who="a study with more patients",
        )
    if not facts.verdicts:
        return part(words, "A test between frameworks", "#variance", "a study of two frameworks")
    tests = "sign flips over seeds" if facts.study.folds == 1 else "corrected tests over folds"
    return filled(
        f"{words}; differences by {tests} and by drawing patients, equivalence by two one-sided tests, "
        "Holm over the primary comparisons of a lane",
        "#verdicts",
    )


def robustness(facts: Facts) -> Answer:
    done = [f"{plural(facts.study.seeds, 'seed')}"] if facts.study.seeds > 1 else []
    done += [f"{facts.study.folds} splits"] if facts.study.folds > 1 else []
    done += [f"runs of a framework against itself ({facts.study.repeats})"] if facts.study.repeats else []
    done += ["both lanes"] if len(facts.study.lanes) > 1 else []
    names = {"ladder.json": "one default at a time (ladder)", "leak.json": "a leaky split (leak meter)"}
    done += [words for name, words in names.items() if facts.beside(name)]
    lack = "Noise, scanners and doses other than the data's own"
    return part(f"Repeated over: {listed(done)}", lack, "#variance") if done else lacking(lack)


def explanations(facts: Facts) -> Answer:
    if facts.segments and not facts.classifies:
        return inapplicable("The output is the lesion's outline itself")
    return lacking("Explanations of single predictions (no saliency map is computed)")


def internal(facts: Facts) -> Answer:
    if not facts.comparisons:
        return lacking(f"Scores. {NO_RUN}", AGAIN)
    tested = f"On {plural(facts.test_patients, 'patient')} of the same source"
    if facts.patient_check.verdict != "pass":
        return part(tested, "That none of them was trained on: see the data's checks", "#data")
    return filled(f"{tested} who were not trained on", "#verdicts")


def external(facts: Facts) -> Answer:
    if facts.external:
        patients = plural(facts.external, "patient")
        return filled(f"One other set, {patients}, judged by models that never saw it", "#data")
    return lacking("A test set from elsewhere", "a study with a folder External_Test")


def clusters(facts: Facts) -> Answer:
    sources = facts.evidence.audit.get("sources")
    if isinstance(sources, list) and len(sources) > 1:
        return lacking(f"Scores by data set ({len(sources)} were joined); hospitals are not known")
    words = "One data set; slices of a patient are a cluster, and the intervals draw whole patients"
    return (
        filled(words, "#limits")
        if facts.drawn
        else part(words, "Hospitals and scanners, which files do not tell")
    )


def fairness(facts: Facts) -> Answer:
    if facts.drawn:
        return inapplicable("Drawn heads have neither sex nor age")
    return lacking("Scores by sex, age and origin, which the files do not hold")


def output(facts: Facts) -> Answer:
    rules = {str(rule).replace("_", " ") for rule in facts.recorded("threshold", "rule")} - {"largest"}
    words = "Probabilities" + (
        f"; thresholds chosen on validation ({listed(sorted(rules))})" if rules else ""
    )
    return filled(
        f"{words}; with several classes the largest probability decides" if facts.classifies else words
    )


def shift(facts: Facts) -> Answer:
    if facts.external:
        return part(
            "Test: the same source. External: another one",
            "How the two differ in patients and scanners",
            "#data",
        )
    return filled("None by design: training and test patients are of the same source", "#data")


# --- results ------------------------------------------------------------------------------------------------------


def characteristics(facts: Facts) -> Answer:
    words = "Slices, patients and labels of each part"
    return (
        filled(words, "#data")
        if facts.drawn
        else part(words, "Age, sex, severity, time since onset", "#data")
    )


def flow(facts: Facts) -> Answer:
    if isinstance(facts.evidence.audit.get("found"), int):
        return filled("Flow diagram with counts and reasons", "#data")
    return part(
        "Numbers used", "Numbers found and left out", "#data", "the study's command, which takes stock anew"
    )


def scores(facts: Facts) -> Answer:
    if not facts.comparisons:
        return lacking(f"Scores. {NO_RUN}", AGAIN)
    if not facts.intervals:
        return part(
            "Every metric with its spread over seeds", "Intervals", "#verdicts", "a study with more patients"
        )
    return filled(
        "Every metric with spread over seeds and interval over patients; also summary.json", "#verdicts"
    )


def accuracy(facts: Facts) -> Answer:
    if not facts.classifies:
        return inapplicable("Masks are judged, no diagnosis") if facts.comparisons else scores(facts)
    if not facts.intervals:
        return scores(facts)
    first = next(one for one in facts.comparisons if config.TASKS[one.task].kind == "classification")
    return filled(
        "Sensitivity, specificity and precision at the validation threshold, with intervals", f"#{first.task}"
    )


def subgroup_scores(facts: Facts) -> Answer:
    overall = scores(facts)
    if overall.state != "filled" or facts.drawn:
        return overall
    return part(overall.words, "Subgroups of people, whom the files do not tell apart", overall.link)


def failures(facts: Facts) -> Answer:
    if not facts.comparisons:
        return lacking(f"Failures. {NO_RUN}", AGAIN)
    link = f"#{facts.comparisons[0].task}"
    words = (
        "Confusion matrices and example slices"
        if facts.classifies
        else "Example masks, from the worst to the best"
    )
    return part(words, "A radiologist's view of them", link)


RESULT_ANSWERS: dict[str, Callable[[Facts], Answer]] = {
    "metrics": metrics,
    "statistics": statistics,
    "robustness": robustness,
    "explanations": explanations,
    "internal": internal,
    "external": external,
    "clusters": clusters,
    "fairness": fairness,
    "output": output,
    "shift": shift,
    "comparison": characteristics,
    "characteristics": characteristics,
    "numbers": lambda facts: filled("Slices, patients and labels of training, validation and test", "#data"),
    "flow": flow,
    "scores": scores,
    "subgroup_scores": subgroup_scores,
    "accuracy": accuracy,
    "failures": failures,
}
