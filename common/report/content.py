"""What the templates show: of each comparison its part, and of the study everything else, in the page's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from common import config
from common.report import context, lanes, prose, study_views, tables, verdict_figures, views
from common.report.calibration_figures import calibration_figures
from common.report.cascade import CascadeSection
from common.report.checks import Check
from common.report.class_scores import METRICS
from common.report.decision_figures import decision_figures
from common.report.evidence import Comparison
from common.report.figures import comparison_figures
from common.report.gallery import ReadSlice, build_gallery
from common.report.judged import Judged
from common.report.reading import Evidence
from common.report.run_figures import training_figures
from common.report.segmentation import segmentation_section
from common.report.terms import FRAMEWORK_TITLE, TASK_TITLE, metric_title
from common.report.wording import listed, percent
from common.verdicts import Verdict

LEFT_OUT_SHOWN = 20  # rows on the page; the CSV has them all
CONTENTS = (  # id -> words of the contents, in the order of the page; the tasks stand after "differs"
    ("verdicts", "Verdict"),
    ("differs", "What differs"),
    ("variance", "Where it varies"),
    ("cascade", "Two stages"),
    ("leak", "Leak meter"),
    ("systems", "Time and memory"),
    ("ladder", "Why they differ"),
    ("proof", "The proof"),
    ("defaults", "Defaults"),
    ("data", "Data"),
    ("runs", "Runs"),
    ("checklist", "Checklist"),
    ("limits", "Limits"),
    ("reproduce", "Reproduce"),
)
ALWAYS = ("differs", "data", "runs", "limits", "reproduce")
TASKS_AFTER = "differs"


def section(
    one: Judged,
    titles: Mapping[str, str],
    of_study: Sequence[Check],
    costs: pd.DataFrame,
    verdicts: Sequence[Verdict],
    read_slice: ReadSlice | None,
    figures: Path,
) -> dict[str, Any]:
    """What the page shows of one comparison; writes its figures."""
    comparison, scores = one.comparison, one.scores
    mine = [verdict for verdict in verdicts if verdict.key.startswith(f"{comparison.key}/")]
    verdict = prose.verdict(comparison, scores, [*of_study, *one.checks], costs, mine)
    shown = {
        "comparison": comparison,
        "frameworks": comparison.frameworks,
        "title": titles[comparison.key],
        "model": titles[comparison.key].split(": ", 1)[1],
        "verdict": verdict,
        "uneven": prose.UNEVEN,
        "overview": views.overview(comparison, scores, verdict),
        "starts": context.starts(comparison, one.spec),
        "strips": [
            picture for each in mine if (picture := verdict_figures.strip_figure(each, figures)) is not None
        ],
        "training": training_figures(comparison, figures),
        "costs": views.cost_view(comparison, costs),
    }
    if not isinstance(comparison, Comparison):
        return shown | {"masks": segmentation_section(comparison, scores, read_slice, figures)}
    return shown | {
        "levels": [
            views.score_view(comparison, level, scores)
            | {"classes": views.class_view(comparison, level.name, one.classes)}
            for level in comparison.levels
        ],
        "pictures": comparison_figures(comparison, scores, figures)
        | {
            "calibration": calibration_figures(comparison, figures),
            "decision": decision_figures(comparison, figures),
        },
        "gallery": build_gallery(comparison, read_slice, figures),
    }


def study_content(
    evidence: Evidence,
    sections: Sequence[dict[str, Any]],
    judged: Sequence[Judged],
    checks: Sequence[tuple[str, Check]],
    cascade: CascadeSection,
) -> dict[str, Any]:
    """Everything that is the whole study's."""
    study, name = evidence.record.study, evidence.record.directory.resolve().name
    left_out = tables.left_out_table(evidence).to_dict("records")
    doubtful = tables.doubtful_table(evidence).to_dict("records")
    sources = [Path(folder).name for folder in study.data]
    with_runs = [one for one in sections if one["comparison"].records]
    order = list(config.TASKS)
    return {
        "title": title(evidence),
        "name": name,
        "notice": config.NOTICE,
        "source": listed(sources) if sources else "the drawn phantom (no real patients)",
        "study": study,
        "lanes": [
            lanes.about(lane, study) for lane in dict.fromkeys(one.lane for one in evidence.comparisons)
        ],
        "left_alone": lanes.left_alone("native" if "native" in study.lanes else "aligned", study),
        "confidence": percent(config.CONFIDENCE),
        "class_metrics": list(METRICS.values()),
        "class_metric_names": list(METRICS),
        "sections": with_runs,
        "tasks": [
            {"task": task, "title": TASK_TITLE[task], "sections": list(those)}
            for task, those in groupby(
                sorted(with_runs, key=lambda one: order.index(one["comparison"].task)),
                key=lambda one: one["comparison"].task,
            )
        ],
        "filters": filters(with_runs),
        "cascade": cascade if cascade.views or "segmentation" in study.tasks else None,
        "skipped": context.skipped_tasks(evidence.audit),
        "parts": study_views.data_view(tables.data_table(evidence)),
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
        "asked": len(study.runs()),
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
    }


def title(evidence: Evidence) -> str:
    frameworks = evidence.frameworks or list(evidence.record.study.frameworks)
    names = [FRAMEWORK_TITLE.get(name, name) for name in frameworks]
    compared = ", compared on" if len(names) > 1 else ", on"
    return f"{listed(names)}{compared} brain\u2011CT stroke images"


def filters(sections: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a reader can choose to see, of what there is more than one of: name, title, and value -> words."""
    comparisons = [one["comparison"] for one in sections]
    found = {
        "task": {one.task: TASK_TITLE[one.task] for one in comparisons},
        "model": {one["comparison"].model: one["model"].split(",")[0] for one in sections},
        "lane": {one.lane: one.lane for one in comparisons},
        "metric": {
            row["metric"]: metric_title(one["comparison"].task, row["metric"]).removesuffix(" (macro)")
            for one in sections
            for level in (one["masks"].levels if "masks" in one else one["levels"])
            for row in level["rows"]
        },
    }
    return [
        {"name": name, "title": name.capitalize(), "values": values}
        for name, values in found.items()
        if len(values) > 1
    ]


def contents(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(id, words) of each part that the page has, in its order."""
    companions = content["companions"]
    there = {
        **{name: content.get(name) for name, _ in CONTENTS},
        **{"ladder": companions.ladder, "proof": companions.proof, "defaults": companions.atlas},
    }
    found = []
    for name, words in CONTENTS:
        if name in ALWAYS or there[name]:
            found.append((name, words))
        if name == TASKS_AFTER:
            found += [(task["task"], task["title"]) for task in content["tasks"]]
    return found
