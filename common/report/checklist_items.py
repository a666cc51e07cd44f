"""The items of two reporting guidelines, in words of our own, each with the topic that answers it.

CLAIM: the Checklist for Artificial Intelligence in Medical Imaging, 2024 update, 44 items (Tejani et al., Radiology:
Artificial Intelligence 2024;6(4):e240300). TRIPOD+AI: 27 items, 52 with their parts (Collins et al., BMJ
2024;385:e078378). Numbers and groups are those of the published lists; their wording is there to be read.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """One line of a guideline."""

    number: str  # as published
    text: str  # what it asks for, in our words
    topic: str  # what answers it, a key of `checklist.ANSWERS`


@dataclass(frozen=True)
class Guideline:
    """A published list: groups of items."""

    name: str
    source: str
    groups: tuple[tuple[str, tuple[Item, ...]], ...]

    @property
    def items(self) -> tuple[Item, ...]:
        return tuple(item for _, items in self.groups for item in items)


def _items(*rows: tuple[str, str, str]) -> tuple[Item, ...]:
    return tuple(Item(*row) for row in rows)


CLAIM = Guideline(
    "CLAIM 2024",
    "Tejani et al., Radiology: Artificial Intelligence 2024;6(4):e240300",
    (
        (
            "Title and abstract",
            _items(
                ("1", "Named as a study of AI, and of which kind", "title"),
                ("2", "Summary of design, methods, results, conclusions", "abstract"),
            ),
        ),
        (
            "Introduction",
            _items(
                ("3", "Background; what the AI is meant for", "background"),
                ("4", "Aims and hypotheses", "aims"),
            ),
        ),
        (
            "Methods: design",
            _items(
                ("5", "Prospective or retrospective", "retrospective"),
                ("6", "Goal of the study", "goal"),
            ),
        ),
        (
            "Methods: data",
            _items(
                ("7", "Where the data come from", "sources"),
                ("8", "Who and what was included or excluded", "eligibility"),
                ("9", "Preprocessing of the images", "preprocessing"),
                ("10", "How parts of the data were selected", "subsets"),
                ("11", "How identities were removed", "identities"),
                ("12", "What was done about missing data", "missing"),
                ("13", "How the images were acquired", "acquisition"),
            ),
        ),
        (
            "Methods: reference standard",
            _items(
                ("14", "How the truth was established", "truth"),
                ("15", "Why by this standard", "truth_reason"),
                ("16", "Who annotated, with what training", "annotators"),
                ("17", "How the test set was annotated", "test_truth"),
                ("18", "Agreement between and within annotators", "raters"),
            ),
        ),
        (
            "Methods: partitions",
            _items(
                ("19", "How the data were divided", "partitions"),
                ("20", "At which level the parts are disjoint", "disjoint"),
            ),
        ),
        ("Methods: test data", _items(("21", "Planned size of the sample", "sample_size"))),
        (
            "Methods: model",
            _items(
                ("22", "The model in full", "model"),
                ("23", "Software and versions", "software"),
                ("24", "Starting weights", "start"),
            ),
        ),
        (
            "Methods: training",
            _items(
                ("25", "How it was trained", "training"),
                ("26", "How the final model was chosen", "selection"),
                ("27", "Ensembles", "ensembles"),
            ),
        ),
        (
            "Methods: evaluation",
            _items(
                ("28", "Metrics", "metrics"),
                ("29", "Significance and uncertainty", "statistics"),
                ("30", "Robustness, sensitivity", "robustness"),
                ("31", "Explanations of single predictions", "explanations"),
                ("32", "Evaluation on data of the same source", "internal"),
                ("33", "Testing on data from elsewhere", "external"),
                ("34", "Registration, if a clinical trial", "trial"),
            ),
        ),
        (
            "Results: data",
            _items(
                ("35", "Numbers included and excluded", "flow"),
                ("36", "Patients of each part: age, sex, disease", "characteristics"),
            ),
        ),
        (
            "Results: performance",
            _items(
                ("37", "Scores with their uncertainty", "scores"),
                ("38", "Diagnostic accuracy and its precision", "accuracy"),
                ("39", "What went wrong, and why", "failures"),
            ),
        ),
        (
            "Discussion",
            _items(
                ("40", "Limits of the study", "limits"),
                ("41", "What it means for practice", "practice"),
            ),
        ),
        (
            "Other information",
            _items(
                ("42", "Protocol, or further technical detail", "protocol"),
                ("43", "Whether software, model and data can be had", "availability"),
                ("44", "Funding, and the funders' part", "funding"),
            ),
        ),
    ),
)

TRIPOD_AI = Guideline(
    "TRIPOD+AI 2024",
    "Collins et al., BMJ 2024;385:e078378",
    (
        (
            "Title and abstract",
            _items(
                ("1", "Named as development or evaluation of a prediction model; for whom, of what", "title"),
                ("2", "Abstract by its own list", "abstract"),
            ),
        ),
        (
            "Introduction",
            _items(
                ("3a", "Medical context, and existing models", "background"),
                ("3b", "Whom it is for, where in care, used by whom", "intended_use"),
                ("3c", "Known inequalities in health between groups", "inequalities"),
                ("4", "Objectives: development, evaluation or both", "aims"),
            ),
        ),
        (
            "Methods: data and participants",
            _items(
                ("5a", "Sources of the data, why these, whom they represent", "sources"),
                ("5b", "Dates of collection", "dates"),
                ("6a", "Setting: kind of care, centres", "setting"),
                ("6b", "Who could take part", "eligibility"),
                ("6c", "Treatments", "treatments"),
                ("7", "Preparation and quality checks of the data", "preparation"),
            ),
        ),
        (
            "Methods: outcome and predictors",
            _items(
                ("8a", "The outcome, how and when assessed, and why this one", "truth"),
                ("8b", "Who assessed the outcome", "annotators"),
                ("8c", "Blinding of that assessment", "blinding"),
                ("9a", "Choice of predictors before modelling", "predictor_choice"),
                ("9b", "Predictors defined: what, how, when measured", "predictors"),
                ("9c", "Who assessed predictors that need judgement", "predictor_readers"),
            ),
        ),
        (
            "Methods: analysis",
            _items(
                ("10", "How the sample size came about, and whether it suffices", "sample_size"),
                ("11", "Missing data", "missing"),
                ("12a", "How the data were used and divided", "partitions"),
                ("12b", "How predictors entered the model", "preprocessing"),
                ("12c", "Type of model, its building, tuning, internal validation", "building"),
                ("12d", "Differences between clusters such as hospitals", "clusters"),
                ("12e", "Measures and plots of performance", "metrics"),
                ("12f", "Updating of the model after evaluation", "updating"),
                ("12g", "How predictions were computed", "predicting"),
                ("13", "Class imbalance", "imbalance"),
                ("14", "Fairness between groups of people", "fairness"),
                ("15", "Output of the model, and thresholds", "output"),
                ("16", "How development and evaluation data differ", "shift"),
                ("17", "Ethical approval and consent", "ethics"),
            ),
        ),
        (
            "Open science",
            _items(
                ("18a", "Funding, and the funders' part", "funding"),
                ("18b", "Conflicts of interest", "interests"),
                ("18c", "Where the protocol is", "protocol"),
                ("18d", "Registration of the study", "registration"),
                ("18e", "Whether the data can be had", "data_sharing"),
                ("18f", "Whether the code can be had", "code_sharing"),
            ),
        ),
        (
            "Patient and public involvement",
            _items(("19", "Part that patients and public had", "involvement")),
        ),
        (
            "Results",
            _items(
                ("20a", "Flow of participants, with and without the outcome", "flow"),
                ("20b", "Characteristics of the participants", "characteristics"),
                ("20c", "Evaluation data beside development data", "comparison"),
                ("21", "Participants and outcomes in each analysis", "numbers"),
                ("22", "The model in full, so that others can use it", "specification"),
                ("23a", "Performance with intervals, also of subgroups", "subgroup_scores"),
                ("23b", "Differences in performance between clusters", "clusters"),
                ("24", "Results of updating", "updating"),
            ),
        ),
        (
            "Discussion",
            _items(
                ("25", "Interpretation, fairness included", "interpretation"),
                ("26", "Limits", "limits"),
                ("27a", "Poor or missing input in use", "poor_input"),
                ("27b", "What users have to do and to know", "users"),
                ("27c", "Next steps", "next_steps"),
            ),
        ),
    ),
)

GUIDELINES = (CLAIM, TRIPOD_AI)
