"""How commands show things: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def new_console(file: IO[str] | None = None) -> Console:
    """A console on *file*, or stdout, that shows text as it is."""
    from rich.console import Console

    # Names and reasons are data: no markup, no emoji. A pipe or a log has no width that lines
    # should break at.
    console = Console(file=file, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 200
    return console


def new_table(*headers: str) -> Table:
    """A table without rows."""
    from rich import box
    from rich.table import Table

    table = Table(
        *headers, box=box.SIMPLE_HEAD, caption_justify="left", pad_edge=False, show_edge=False
    )
    table.columns[0].no_wrap = True
    return table


def print_json(value: object) -> None:
    """One JSON object on stdout, at once."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    sys.stdout.flush()
