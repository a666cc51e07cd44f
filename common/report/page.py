"""`write_report`: everything a study's files say, as one page, Markdown, tables, figures and `summary.json`."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from common.report import tables, verdict_tables
from common.report.alerts import alerts
from common.report.audit_views import audit_section
from common.report.cascade import cascade_section
from common.report.checklist import checklist_section
from common.report.checks import Check, check_table, study_checks
from common.report.class_scores import class_table
from common.report.companions import companion_numbers, read_companions
from common.report.content import contents, section, study_content
from common.report.downloads import downloads
from common.report.flow import flow_section
from common.report.gallery import ReadSlice
from common.report.judged import Judged, judge, title_of
from common.report.leak_views import leak_section
from common.report.other_tests import other_table, other_tests
from common.report.plotting import COLOURS
from common.report.reading import Evidence, read_evidence
from common.report.speed import Speed, read_speed, speed_numbers, speed_tables
from common.report.summary import summary
from common.report.systems import systems_section
from common.report.verdict_tables import verdict_numbers
from common.report.verdict_views import variance_section, verdict_section
from common.results import write_json, write_page
from common.verdicts import Verdict, verdicts

TEMPLATES = Path(__file__).parent / "templates"
STYLES = (
    "report.css",
    "masks.css",
    "proof.css",
    "flow.css",
    "verdicts.css",
    "leak.css",
    "checklist.css",
    "print.css",
)
SCRIPT = "report.js"
TAG_START = re.compile("<(?=[A-Za-z/!?])")


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

    costs, speed = tables.cost_table(evidence.comparisons), read_speed(evidence.comparisons)
    figures = study_directory / "figures"
    cascade = cascade_section(evidence.record, figures)
    companions = read_companions(evidence.record)
    found = verdicts(evidence.record, evidence.comparisons)
    leak = leak_section(study_directory, figures)
    audit = audit_section(evidence.audit)
    faults = [*companions.faults, *([leak["fault"]] if leak and leak["fault"] else [])]
    write_tables(study_directory, evidence, judged, costs, speed, checks, cascade.table, found)
    numbers = companion_numbers(companions) | (leak["numbers"] if leak else {}) | speed_numbers(speed)
    write_summary(study_directory, evidence, judged, costs, cascade.table, found, numbers)
    sections = [section(one, titles, of_study, costs, found, read_slice, figures) for one in judged]
    content = study_content(evidence, sections, judged, checks, cascade) | {
        "companions": companions,
        "alerts": alerts(evidence, checks, titles, audit, faults),
        "verdicts": verdict_section(found, evidence, checks, evidence.audit, companions, figures)
        if found
        else None,
        "variance": variance_section(found, figures, evidence.comparisons),
        "leak": leak,
        "systems": systems_section(evidence, speed, costs, titles, figures),
        "flow": flow_section(evidence),
        "audit": audit,
        "checklist": checklist_section(evidence, found),
    }
    content |= {"contents": contents(content), "downloads": downloads(study_directory / "tables")}
    write_pages(study_directory, content)
    return study_directory / "report.html"


def write_pages(study_directory: Path, content: dict[str, Any]) -> None:
    """`report.html` and `report.md` from one content."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    script = (TEMPLATES / SCRIPT).read_text(encoding="utf-8")
    ours = {
        "css": Markup("".join((TEMPLATES / name).read_text(encoding="utf-8") for name in STYLES)),
        "script": Markup(script),
        "script_digest": digest_of(script),
        "svg": Markup,
        "colours": COLOURS,
        "colours_json": json.dumps(COLOURS),
    }
    page = environment.get_template("report.html.j2").render(content | ours)
    write_page(study_directory / "report.html", page)
    plain = environment.overlay(autoescape=False)
    plain.filters["cell"] = markdown_cell
    text = plain.get_template("report.md.j2").render(content | ours)
    write_page(study_directory / "report.md", without_tags(text))


def digest_of(script: str) -> str:
    """As a content security policy names the one script that may run."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def write_tables(
    study_directory: Path,
    evidence: Evidence,
    judged: Sequence[Judged],
    costs: pd.DataFrame,
    speed: Speed,
    checks: Sequence[tuple[str, Check]],
    cascade: pd.DataFrame,
    found: Sequence[Verdict],
) -> None:
    """The tables of the study itself below `tables/`, each as CSV and LaTeX."""
    scored = [(one.comparison, one.scores) for one in judged]
    written = {
        "verdicts": verdict_tables.verdict_table(found),
        "scores": tables.score_table(scored),
        "differences": tables.difference_table(scored),
        "classes": class_table([(one.comparison, one.classes) for one in judged]),
        "variance": verdict_tables.variance_table(found),
        "churn": verdict_tables.churn_table(found),
        "noise": verdict_tables.noise_table(found),
        "other_tests": other_table(other_tests(evidence.comparisons)),
        "cascade": cascade,
        "costs": costs,
        **speed_tables(speed),
        "runs": tables.run_table(evidence),
        "data": tables.data_table(evidence),
        "left_out": tables.left_out_table(evidence),
        "doubtful_masks": tables.doubtful_table(evidence),
        "checks": check_table(checks),
        **{f"{one.comparison.slug}-settings": one.settings for one in judged},
    }
    for name, table in written.items():
        tables.write_table(study_directory / "tables", name, table, latex=True)


def write_summary(
    study_directory: Path,
    evidence: Evidence,
    judged: Sequence[Judged],
    costs: pd.DataFrame,
    cascade: pd.DataFrame,
    found: Sequence[Verdict],
    beside: Mapping[str, Any],
) -> None:
    """`summary.json`: every number of the page under its key; of a difference also the fields of its verdict."""
    scored = [(one.comparison, one.scores) for one in judged]
    numbers = summary(
        tables.score_table(scored),
        tables.difference_table(scored),
        class_table([(one.comparison, one.classes) for one in judged]),
        costs,
        cascade,
        tables.data_table(evidence),
    )
    for key, fields in verdict_numbers(found).items():
        numbers[key] = numbers.get(key, {}) | fields
    write_json(study_directory / "summary.json", numbers | dict(beside))


def without_tags(text: str) -> str:
    """Markdown in which nothing is HTML; ours has none, and viewers differ in what they let pass."""
    return TAG_START.sub("&lt;", text)


def markdown_cell(value: object) -> str:
    """Text that cannot end a table cell, start a tag or a link."""
    text = " ".join(str(value).split())
    for mark in ("\\", "|", "<", ">", "[", "]", "`", "*", "_"):
        text = text.replace(mark, f"\\{mark}" if mark not in "<>" else {"<": "&lt;", ">": "&gt;"}[mark])
    return text
