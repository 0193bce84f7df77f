"""How commands show things: tables for people, JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from typing import IO, TYPE_CHECKING

from redlock.core.quorum import SAID_MAX
from redlock.supervise import visible

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Listing", "new_console", "print_json", "visible", "who"]

_PIPE_WIDTH = 200
"""Columns of a pipe or a log, which have no width that lines should break at."""

_NARROW = 20
"""Columns that are there, whatever COLUMNS says: on none nothing would be shown."""
_UNBOUNDED = 10_000
"""Columns that no table has."""
_INDENT = 2


def new_console(file: IO[str] | None = None) -> Console:
    """A console on *file*, or stdout, that shows text as it is."""
    from rich.console import Console

    # Names and reasons are data: no markup, no emoji.
    console = Console(file=file, markup=False, emoji=False, highlight=False)
    if not console.is_terminal and not os.environ.get("COLUMNS", "").isdecimal():
        console.width = _PIPE_WIDTH
    console.width = max(console.width, _NARROW)
    return console


def who(held_by: str | None, holder: str | None) -> str:
    """A holder: what it says of itself, as far as it does, and what tells it from others."""
    if not held_by:
        return f"{holder}"
    said = held_by if len(held_by) <= SAID_MAX else f"{held_by[:SAID_MAX]}..."
    return f"{visible(said)} ({holder})"


class Listing:
    """Rows under *headers*: a table where it fits, and else a paragraph for each row, which can be
    read on a screen of any width. *caption* stands below."""

    def __init__(self, *headers: str, right: int | None = None) -> None:
        self.caption: str | None = None
        self._headers = headers
        self._rows: list[tuple[tuple[str, ...], str]] = []
        self._right = right

    def add(self, *cells: str, style: str = "") -> None:
        """One more row."""
        self._rows.append((tuple(map(visible, cells)), style))

    def print(self, console: Console) -> None:
        """Show it."""
        from rich import box
        from rich.table import Table

        table = Table(
            *self._headers,
            box=box.SIMPLE_HEAD,
            caption_justify="left",
            pad_edge=False,
            show_edge=False,
        )
        if self._right is not None:
            table.columns[self._right].justify = "right"
        for cells, style in self._rows:
            table.add_row(*cells, style=style)
        whole = console.options.update(max_width=_UNBOUNDED)
        if console.measure(table, options=whole).maximum <= console.width:
            table.caption = self.caption and visible(self.caption)
            console.print(table)
            return
        for cells, style in self._rows:
            self._print_row(console, cells, style)
        if self.caption:
            console.print(visible(self.caption), soft_wrap=False)

    def _print_row(self, console: Console, cells: tuple[str, ...], style: str) -> None:
        from rich.padding import Padding

        console.print(cells[0], style=style, overflow="fold")
        named = zip(self._headers[1:], cells[1:], strict=True)
        lines = [""]
        for told in [f"{header}: {cell}" for header, cell in named if cell]:
            if lines[-1] and len(lines[-1]) + len(told) > console.width - _INDENT - 3:
                lines.append("")
            lines[-1] += f", {told}" if lines[-1] else told
        for line in lines:
            console.print(Padding(line, (0, 0, 0, _INDENT)), style=style)


def print_json(value: object) -> None:
    """One JSON object on stdout, at once."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    sys.stdout.flush()
