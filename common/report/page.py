"""`write_report`: everything a study's files say, as one page, Markdown, tables, figures and `summary.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from common import config
from common.report import context, lanes, prose, study_views, tables, views
from common.report.cascade import CascadeSection, cascade_section
from common.report.checks import Check, check_table, comparison_checks, study_checks
from common.report.class_scores import METRICS, ClassScore, class_scores, class_table
from common.report.companions import Companions, companion_numbers, read_companions
from common.report.evidence import Comparison
from common.report.figures import comparison_figures
from common.report.gallery import ReadSlice, build_gallery
from common.report.mask_scores import score_masks
from common.report.plotting import COLOURS
from common.report.reading import AnyComparison, Evidence, read_evidence
from common.report.run_figures import time_figure, training_figures
from common.report.scores import Scores, score_comparison
from common.report.segmentation import segmentation_section
from common.report.summary import summary
from common.report.terms import TASK_TITLE
from common.report.wording import listed, percent
from common.results import write_json, write_text

TEMPLATES = Path(__file__).parent / "templates"
STYLES = ("report.css", "masks.css", "proof.css")
LEFT_OUT_SHOWN = 20  # rows on the page; the CSV has them all


@dataclass(frozen=True)
class Judged:
    """A comparison with everything that is computed from it."""

    comparison: AnyComparison
    scores: Scores
    classes: tuple[ClassScore, ...]  # empty for two classes and for masks
    checks: tuple[Check, ...]
    settings: pd.DataFrame
    spec: config.ModelSpec | None  # the model's numbers as the study has them, before a lane changes any


def write_report(study_directory: Path, read_slice: ReadSlice | None = None) -> Path:
    """Write `report.html`, `report.md`, `summary.json`, `tables/` and `figures/` into a study; return report.html.

    `read_slice(sample_id)` gives a slice's pixels, uint8 (H, W), or None where it cannot; without it the page has no
    example slices. Nothing is trained and no framework imported; equal files give equal bytes.

    Raises StudyError if the folder holds no study. Runs that failed or cannot be read are told in the report.
    """
    evidence = read_evidence(study_directory)
    judged = [judge(one, evidence.record.study) for one in evidence.comparisons]
    of_study = study_checks(evidence)
    titles = {one.comparison.key: title_of(one, evidence) for one in judged}
    checks = [
        *(("", check) for check in of_study),
        *((titles[one.comparison.key], check) for one in judged for check in one.checks),
    ]

    costs = tables.cost_table(evidence.comparisons)
    figures = study_directory / "figures"
    cascade = cascade_section(evidence.record, figures)
    companions = read_companions(evidence.record)
    write_tables(study_directory, evidence, judged, costs, checks, cascade.table, companions)
    sections = [section(one, titles, of_study, costs, read_slice, figures) for one in judged]
    content = page(evidence, sections, judged, checks, cascade) | {"companions": companions}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    write_text(study_directory / "report.html", environment.get_template("report.html.j2").render(content))
    plain = environment.overlay(autoescape=False)
    plain.filters["cell"] = markdown_cell
    write_text(study_directory / "report.md", plain.get_template("report.md.j2").render(content))
    return study_directory / "report.html"


def judge(comparison: AnyComparison, study: config.Study) -> Judged:
    if isinstance(comparison, Comparison):
        scores, classes = score_comparison(comparison), class_scores(comparison)
    else:
        scores, classes = score_masks(comparison), ()
    checks = tuple(comparison_checks(comparison)) if comparison.records else ()
    spec = study.specs.get(f"{comparison.task}/{comparison.model}")
    return Judged(comparison, scores, classes, checks, tables.setting_table(comparison), spec)


def title_of(one: Judged, evidence: Evidence) -> str:
    """Task and model; the lane where there are several, or it is not the study's usual one."""
    comparison = one.comparison
    several = len({other.lane for other in evidence.comparisons}) > 1
    lane = f", {comparison.lane} lane" if several or comparison.lane != "aligned" else ""
    return f"{TASK_TITLE[comparison.task]}: {context.model_title(comparison.model, one.spec)}{lane}"


def write_tables(
    study_directory: Path,
    evidence: Evidence,
    judged: Sequence[Judged],
    costs: pd.DataFrame,
    checks: Sequence[tuple[str, Check]],
    cascade: pd.DataFrame,
    companions: Companions,
) -> None:
    directory = study_directory / "tables"
    scored = [(one.comparison, one.scores) for one in judged]
    scores, differences = tables.score_table(scored), tables.difference_table(scored)
    classes = class_table([(one.comparison, one.classes) for one in judged])
    tables.write_table(directory, "scores", scores, latex=True)
    tables.write_table(directory, "differences", differences, latex=True)
    tables.write_table(directory, "classes", classes, latex=True)
    tables.write_table(directory, "cascade", cascade, latex=True)
    tables.write_table(directory, "costs", costs, latex=True)
    tables.write_table(directory, "runs", tables.run_table(evidence))
    tables.write_table(directory, "data", tables.data_table(evidence), latex=True)
    tables.write_table(directory, "left_out", tables.left_out_table(evidence))
    tables.write_table(directory, "doubtful_masks", tables.doubtful_table(evidence))
    tables.write_table(directory, "checks", check_table(checks))
    for one in judged:
        tables.write_table(directory, f"{one.comparison.slug}-settings", one.settings)
    numbers = summary(scores, differences, classes, costs, cascade) | companion_numbers(companions)
    write_json(study_directory / "summary.json", numbers)


def section(
    one: Judged,
    titles: dict[str, str],
    of_study: Sequence[Check],
    costs: pd.DataFrame,
    read_slice: ReadSlice | None,
    figures: Path,
) -> dict[str, Any]:
    """What the page shows of one comparison."""
    comparison, scores = one.comparison, one.scores
    verdict = prose.verdict(comparison, scores, [*of_study, *one.checks], costs)
    shown = {
        "comparison": comparison,
        "frameworks": comparison.frameworks,
        "title": titles[comparison.key],
        "model": titles[comparison.key].split(": ", 1)[1],
        "verdict": verdict,
        "overview": views.overview(comparison, scores, verdict),
        "starts": context.starts(comparison, one.spec),
        "training": training_figures(comparison, figures),
        "time": time_figure(comparison, figures),
        "costs": views.cost_view(comparison, costs),
    }
    if not isinstance(comparison, Comparison):
        return shown | {"masks": segmentation_section(comparison, scores, read_slice, figures)}
    return shown | {
        "levels": [
            views.score_view(comparison, level, scores)
            | {"classes": views.class_view(level.name, one.classes)}
            for level in comparison.levels
        ],
        "pictures": comparison_figures(comparison, scores, figures),
        "gallery": build_gallery(comparison, read_slice, figures),
    }


def page(
    evidence: Evidence,
    sections: Sequence[dict[str, Any]],
    judged: Sequence[Judged],
    checks: Sequence[tuple[str, Check]],
    cascade: CascadeSection,
) -> dict[str, Any]:
    """Everything the templates need, study-wide parts included."""
    study, name = evidence.record.study, evidence.record.directory.resolve().name
    left_out = tables.left_out_table(evidence).to_dict("records")
    doubtful = tables.doubtful_table(evidence).to_dict("records")
    sources = [Path(folder).name for folder in study.data]
    with_runs = [one for one in sections if one["comparison"].records]
    return {
        "title": title(evidence),
        "name": name,
        "notice": config.NOTICE,
        "source": listed(sources) if sources else "the drawn phantom (no real patients)",
        "study": study,
        "lanes": [
            lanes.about(lane, study) for lane in dict.fromkeys(one.lane for one in evidence.comparisons)
        ],
        "left_alone": lanes.left_alone(study.lane, study),
        "confidence": percent(config.CONFIDENCE),
        "colours": COLOURS,
        "class_metrics": list(METRICS.values()),
        "sections": with_runs,
        "tasks": [
            {"task": task, "title": TASK_TITLE[task], "sections": list(those)}
            for task, those in groupby(
                sorted(with_runs, key=lambda one: list(config.TASKS).index(one["comparison"].task)),
                key=lambda one: one["comparison"].task,
            )
        ],
        "cascade": cascade if cascade.views or "segmentation" in study.tasks else None,
        "unknown_patients": context.unknown_patients(evidence.audit),
        "skipped": context.skipped_tasks(evidence.audit),
        "data": study_views.data_view(tables.data_table(evidence)),
        "inventory": study_views.audit_view(evidence.audit),
        "left_out": left_out[:LEFT_OUT_SHOWN],
        "left_out_count": len(left_out),
        "doubtful": doubtful[:LEFT_OUT_SHOWN],
        "doubtful_count": len(doubtful),
        "checks": study_views.check_view(checks),
        "settings": study_views.setting_view(
            [
                (shown["title"], one.settings)
                for shown, one in zip(sections, judged, strict=True)
                if len(one.settings)
            ]
        ),
        "passed": sum(check.verdict == "pass" for _, check in checks),
        "broken": sum(check.verdict == "fail" for _, check in checks),
        "unknown": sum(check.verdict == "unknown" for _, check in checks),
        "complete": len(evidence.record.complete),
        "asked": len(evidence.record.study.runs()),
        "failed": [
            {"run": one.run, "reason": one.document.get("reason") or "no reason was recorded"}
            for one in evidence.failed
        ],
        "missing": evidence.missing,
        "commands": [
            {"run": one.run, "command": one.document.get("command") or "not recorded"}
            for one in evidence.record.complete
        ],
        "limits": context.limits(evidence),
        "command": context.command(study, name),
        "report_command": f"python compare.py report results/{name}",
        "css": Markup("".join((TEMPLATES / name).read_text(encoding="utf-8") for name in STYLES)),  # ours
        "svg": Markup,
    }


def title(evidence: Evidence) -> str:
    frameworks = evidence.frameworks or list(evidence.record.study.frameworks)
    return f"{listed(frameworks)} on brain-CT stroke images"


def markdown_cell(value: object) -> str:
    """Text that cannot end a table cell, start a tag or a link."""
    text = " ".join(str(value).split())
    for mark in ("\\", "|", "<", ">", "[", "]", "`", "*", "_"):
        text = text.replace(mark, f"\\{mark}" if mark not in "<>" else {"<": "&lt;", ">": "&gt;"}[mark])
    return text
