"""The page of `compare.py audit`: one file, without a script, that opens offline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from common import config
from common.report.audit_views import audit_section
from common.report.study_views import audit_view
from common.report.wording import listed
from common.results import write_page

TEMPLATES = Path(__file__).parent / "templates"


def write_audit_page(audit: Mapping[str, Any], path: Path) -> None:
    """Write the page of an `audit.json` that has findings; everything that comes from files is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    text = environment.get_template("audit_page.html.j2").render(
        audit=audit_section(audit, heading="h2"),
        name=listed([str(one) for one in audit.get("data", ())]),
        notice=config.NOTICE,
        inventory=audit_view(dict(audit)),
        css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),  # ours
    )
    write_page(path, text)
