"""What the reporting checklists ask of a study, read once from its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import config
from common.report import context
from common.report.checks import Check, one_side, study_checks
from common.report.reading import AnyComparison, Evidence
from common.report.tables import entries
from common.report.terms import MODEL_TITLE, TASK_TITLE
from common.report.wording import listed, plural

if TYPE_CHECKING:
    from common.verdicts import Verdict

AUTHORS = "to be written by the authors"
AGAIN = "another run of the study"
NO_RUN = "No run is complete"


@dataclass(frozen=True)
class Answer:
    """What a study's files say to an item."""

    state: str  # "filled" | "part" | "missing" | "inapplicable"
    words: str = ""  # what they say; of "inapplicable" the reason
    missing: str = ""  # what they do not say, and who can
    link: str = ""  # the section of the page that says it in full


def filled(words: str, link: str = "") -> Answer:
    return Answer("filled", words, link=link)


def part(words: str, missing: str, link: str = "", who: str = AUTHORS) -> Answer:
    return Answer("part", words, f"{missing}: {who}", link)


def lacking(missing: str, who: str = AUTHORS) -> Answer:
    return Answer("missing", missing=f"{missing}: {who}")


def inapplicable(reason: str) -> Answer:
    return Answer("inapplicable", reason)


@dataclass(frozen=True)
class Facts:
    """A study as the answers need it."""

    evidence: Evidence
    verdicts: Sequence[Verdict]

    @property
    def study(self) -> config.Study:
        return self.evidence.record.study

    @property
    def drawn(self) -> bool:
        """Whether the data are the phantom, which has no patients."""
        return not self.study.data

    @property
    def sources(self) -> str:
        return listed([Path(folder).name for folder in self.study.data]) or "the drawn phantom"

    @cached_property
    def comparisons(self) -> list[AnyComparison]:
        """Those that have scores."""
        return [one for one in self.evidence.comparisons if one.levels]

    @property
    def classifies(self) -> bool:
        return any(config.TASKS[one.task].kind == "classification" for one in self.comparisons)

    @property
    def segments(self) -> bool:
        return any(config.TASKS[one.task].kind == "segmentation" for one in self.comparisons)

    @property
    def models(self) -> str:
        names = [MODEL_TITLE.get(model, model) for model in self.study.models]
        return listed(list(dict.fromkeys(names)))

    @property
    def frameworks(self) -> str:
        return listed(self.evidence.frameworks or list(self.study.frameworks))

    @property
    def tasks(self) -> str:
        return listed([TASK_TITLE[task].lower() for task in self.study.tasks])

    @cached_property
    def test_patients(self) -> int:
        """Of the comparison with the fewest; 0 where nothing can be scored."""
        own = [
            {
                patient
                for level in one.levels
                if not level.name.startswith("external")
                for patient in level.patient
            }
            for one in self.comparisons
        ]
        return min(map(len, own), default=0)

    @property
    def intervals(self) -> bool:
        """Whether the primary scores carry intervals over patients."""
        fewest = min((one.levels[0].patients for one in self.comparisons), default=0)
        return fewest >= config.MIN_INTERVAL_PATIENTS

    @cached_property
    def external(self) -> int:
        """Patients of the external test set; 0 without one."""
        sizes = [
            level.patients for one in self.comparisons for level in one.levels if level.name == "external"
        ]
        return max(sizes, default=0)

    @property
    def patients_guessed(self) -> bool:
        return bool(context.unknown_patients(self.evidence.audit))

    @cached_property
    def patient_check(self) -> Check:
        """No patient on two sides of a split, recomputed from the tables."""
        return next(one for one in study_checks(self.evidence) if one.name == one_side("patient"))

    def recorded(self, *path: str) -> list[Any]:
        """The different values of a field of the complete runs' records, None left out."""
        found = []
        for record in self.evidence.record.complete:
            value: Any = record.document
            for name in path:
                value = value.get(name) if isinstance(value, dict) else None
            if value is not None and value not in found:
                found.append(value)
        return found

    def beside(self, name: str) -> bool:
        """Whether another command left its file beside the study."""
        return (self.evidence.record.directory / name).is_file()

    def counts(self) -> str:
        """931 images found, 931 used; what of it the inventory knows."""
        audit = self.evidence.audit
        parts = [f"{audit[name]:,} {name}" for name in ("found", "used") if isinstance(audit.get(name), int)]
        return f"Images: {', '.join(parts)}" if parts else "The images used are listed in data/samples.csv"

    def unreadable(self) -> str:
        count = len(entries(self.evidence.audit, "unreadable"))
        if not count:
            return "Every image could be read"
        return f"{plural(count, 'image')} could not be read and {'was' if count == 1 else 'were'} left out"
