"""Numbers and lists as words, the same on the page, in Markdown and on the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

MINUS = "−"


def signed(value: float, digits: int = 3) -> str:
    """+0.012, −0.034, 0.000 where exactly zero; a dash where undefined."""
    return (
        plain(value, digits)
        if value == 0
        else f"{value:+.{digits}f}".replace("-", MINUS)
        if math.isfinite(value)
        else "–"
    )


def plain(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}".replace("-", MINUS) if math.isfinite(value) else "–"


def tiny(value: float) -> str:
    """3.1e−13: a difference whose size is what matters; a dash where undefined."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞"
    return "0" if value == 0 else f"{value:.1e}".replace("-", MINUS)


def listed(words: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def percent(share: float) -> str:
    """95 %, with a space that does not break."""
    return f"{100 * share:.0f}\u00a0%"


def lower_first(text: str) -> str:
    """For a sentence's start that moves into its middle."""
    return text[:1].lower() + text[1:]
