"""Numbers and lists as words, the same on the page, in Markdown and on the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

MINUS = "−"
DIGITS = 3  # decimals of a score that has no interval
MOST_DIGITS = 6


def decimals(intervals: Iterable[tuple[float, float]], usual: int = DIGITS) -> int:
    """How many decimals numbers beside each other deserve: two significant digits of the half width of the widest of
    their intervals (low, high). `usual` where none of them is defined or wider than zero.
    """
    halves = [(high - low) / 2 for low, high in intervals]
    widest = max((half for half in halves if math.isfinite(half)), default=0.0)
    if widest <= 10**-MOST_DIGITS:
        return usual
    leading = math.floor(math.log10(float(f"{widest:.1e}")))  # rounded first: 0.0996 is 0.10
    return min(MOST_DIGITS, max(0, 1 - leading))


def spread(value: float, digits: int = DIGITS) -> str:
    """A standard deviation beside its mean: as many decimals; "<0.01" where that would be 0.00 and is not, empty where
    undefined.
    """
    if not math.isfinite(value):
        return ""
    text = plain(value, digits)
    return f"<{plain(10**-digits, digits)}" if value > 0 and float(text) == 0 else text


def signed(value: float, digits: int = 3) -> str:
    """+0.012, −0.034, 0.000 without a sign where nothing of it is left; a dash where undefined."""
    text = plain(value, digits)
    return f"+{text}" if value > 0 and float(text) else text


def plain(value: float, digits: int = 3) -> str:
    """0.012, −0.034, 0.000; a dash where undefined."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return (text if float(text) else f"{0:.{digits}f}").replace("-", MINUS)


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
