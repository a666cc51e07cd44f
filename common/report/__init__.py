"""The report: everything from files, nothing retrained, no framework imported."""

from common.report.page import write_report
from common.report.terminal import terminal_summary

__all__ = ["terminal_summary", "write_report"]
