"""The console that every command prints to: no name or value from a file can steer the terminal."""

from __future__ import annotations

from rich.console import Console, ConsoleRenderable, RenderHook
from rich.text import Text

from common.names import printable


class _Guard(RenderHook):
    """Rich lets escape sequences within text pass; here they are shown as what they are."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        for one in renderables:
            if isinstance(one, Text) and not one.plain.isprintable():
                one.plain = printable(one.plain, keep="\n\t")
        return renderables


def open_console() -> Console:
    """For one command; its text is wrapped by the terminal, not by us."""
    console = Console(highlight=False, soft_wrap=True)
    console.push_render_hook(_Guard())
    return console
