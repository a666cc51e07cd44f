"""Text from outside - file names, headers, records that someone edited - made safe to show and to use as a path."""

from __future__ import annotations

import os
import re
from pathlib import Path

# What steers a terminal (control characters), turns writing round, hides, or is half of a character: bytes that were no
# text come as such. Unicode's categories Cc, Zl, Zp and Cs, and of Cf what fonts do not draw.
UNSHOWN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
SOFT = "\n\t\u00ad\u200b"  # line breaks, tabs, and places where our own pages may break a word


def printable(text: str, keep: str = "") -> str:
    r"""The text with `\x1b` and the like in place of characters that steer a terminal or cannot be seen, but those in
    `keep`.
    """
    return UNSHOWN.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(one: str) -> str:
    return one.encode("unicode_escape").decode()


def lies_below(folder: Path, name: str) -> bool:
    """Whether a relative name leads to something within a folder, whatever stands there: no `..`, no absolute path, no
    link that leads out.
    """
    if not name or "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        return False
    try:
        root = os.path.realpath(folder)
        return os.path.commonpath([root, os.path.realpath(Path(folder, name))]) == root
    except (OSError, ValueError):
        return False
