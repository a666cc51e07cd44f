"""`write_report`: everything a study's files say, as one page, Markdown, tables, figures and `summary.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from common import config
from common.report import prose, tables, views
from common.report.checks import Check, check_table, comparison_checks, study_checks
from common.report.evidence import Comparison, Evidence, read_evidence
from common.report.figures import comparison_figures
from common.report.gallery import ReadSlice, build_gallery
from common.report.plotting import COLOURS
from common.report.run_figures import time_figure, training_figures
from common.report.scores import Scores, score_comparison
from common.report.summary import summary
from common.report.wording import listed, percent
from common.results import write_json, write_text

TEMPLATES = Path(__file__).parent / "templates"
LANES = {
    "lockstep": "Same starting weights, same batches, no dropout: step by step, the frameworks must agree to rounding.",
    "aligned": "Aligned lane: the same mathematics, starting weights, batch order, augmented pixels and schedule for "
    "every framework; its own are only the dropout draws and the kernels.",
    "native": "Native lane: each framework as shipped, with its own initialisers and defaults.",
}
LEFT_OUT_SHOWN = 20  # rows on the page; the CSV has them all


def write_report(study_directory: Path, read_slice: ReadSlice | None = None) -> Path:
    """Write `report.html`, `report.md`, `summary.json`, `tables/` and `figures/` into a study; return report.html.

    `read_slice(sample_id)` gives a slice's pixels, uint8 (H, W), or None where it cannot; without it the page has no
    example slices. Nothing is trained and no framework imported; equal files give equal bytes.

    Raises StudyError if the folder holds no study. Runs that failed or cannot be read are told in the report.
    """
    evidence = read_evidence(study_directory)
    scored = [(one, score_comparison(one)) for one in evidence.comparisons]
    checks = study_checks(evidence)
    checked = {one.key: comparison_checks(one) if one.records else [] for one in evidence.comparisons}

    scores, differences = tables.score_table(scored), tables.difference_table(scored)
    costs = tables.cost_table(list(evidence.comparisons))
    every_check = [("study", c) for c in checks] + [(key, c) for key, ours in checked.items() for c in ours]
    write_tables(study_directory / "tables", evidence, scores, differences, costs, every_check)
    write_json(study_directory / "summary.json", summary(scores, differences, costs))

    figures = study_directory / "figures"
    sections = [
        section(one, ours, checks + checked[one.key], costs, read_slice, figures) for one, ours in scored
    ]
    context = page(evidence, sections, every_check)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    write_text(study_directory / "report.html", environment.get_template("report.html.j2").render(context))
    plain = environment.overlay(autoescape=False)
    plain.filters["cell"] = markdown_cell
    write_text(study_directory / "report.md", plain.get_template("report.md.j2").render(context))
    return study_directory / "report.html"


def write_tables(
    directory: Path,
    evidence: Evidence,
    scores: Any,
    differences: Any,
    costs: Any,
    checks: Sequence[tuple[str, Check]],
) -> None:
    tables.write_table(directory, "scores", scores, latex=True)
    tables.write_table(directory, "differences", differences, latex=True)
    tables.write_table(directory, "costs", costs, latex=True)
    tables.write_table(directory, "runs", tables.run_table(evidence))
    tables.write_table(directory, "data", tables.data_table(evidence), latex=True)
    tables.write_table(directory, "left_out", tables.left_out_table(evidence))
    tables.write_table(directory, "checks", check_table(checks))
    for one in evidence.comparisons:
        tables.write_table(directory, f"{one.slug}-settings", tables.setting_table(one))


def section(
    comparison: Comparison,
    scores: Scores,
    checks: Sequence[Check],
    costs: Any,
    read_slice: ReadSlice | None,
    figures: Path,
) -> dict[str, Any]:
    """What the page shows of one comparison."""
    settings = tables.setting_table(comparison)
    return {
        "comparison": comparison,
        "frameworks": comparison.frameworks,
        "title": f"{' or '.join(comparison.classes).capitalize()}: {comparison.model}, {comparison.lane} lane",
        "verdict": prose.verdict(comparison, scores, checks, costs),
        "levels": [views.score_view(level, scores, len(comparison.classes)) for level in comparison.levels],
        "pictures": comparison_figures(comparison, scores, figures),
        "training": training_figures(comparison, figures),
        "time": time_figure(comparison, figures),
        "costs": views.cost_view(comparison, costs),
        "gallery": build_gallery(comparison, read_slice, figures),
        "checks": checks,
        "settings": settings.to_dict("records"),
        "differing": tables.differing(settings).to_dict("records"),
    }


def page(
    evidence: Evidence, sections: Sequence[dict[str, Any]], checks: Sequence[tuple[str, Check]]
) -> dict[str, Any]:
    """Everything the templates need, study-wide parts included."""
    study, name = evidence.record.study, evidence.record.directory.resolve().name
    left_out = tables.left_out_table(evidence).to_dict("records")
    sources = [Path(folder).name for folder in study.data]
    return {
        "title": title(evidence),
        "name": name,
        "notice": config.NOTICE,
        "source": listed(sources) if sources else "the drawn phantom (no real patients)",
        "study": study,
        "lanes": LANES,
        "confidence": percent(config.CONFIDENCE),
        "colours": COLOURS,
        "sections": sections,
        "data": views.data_view(tables.data_table(evidence)),
        "inventory": views.audit_view(evidence.audit),
        "left_out": left_out[:LEFT_OUT_SHOWN],
        "left_out_count": len(left_out),
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
        "limits": prose.limits(evidence),
        "command": prose.command(study, name),
        "report_command": f"python compare.py report results/{name}",
        "css": Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),  # ours, not the user's
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
