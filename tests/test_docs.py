"""The guide to elections says what the code says: states, times, reasons, and programs that can be
read."""

from __future__ import annotations

import ast
import re

import pytest

from docs.render import DOCUMENT, PARTS, rendered
from redlock.core.election import TABLE, State
from redlock.core.term import Reason

TEXT = DOCUMENT.read_text("utf-8")


def test_what_is_rendered_is_current() -> None:
    """The table of states, its picture and the budget; `python -m docs.render` writes them."""
    assert set(re.findall(r"<!-- (\w+): by docs/render.py -->", TEXT)) == set(PARTS)
    assert rendered(TEXT) == TEXT, "python -m docs.render"


def test_an_old_table_is_found() -> None:
    """A row that is missing, and a figure that was changed by hand."""
    row = next(line for line in TEXT.splitlines() if line.startswith("| jeopardy | is renewed"))
    for old in (TEXT.replace(f"{row}\n", ""), TEXT.replace("| ttl | 15 |", "| ttl | 16 |")):
        assert old != TEXT and rendered(old) == TEXT


def test_the_picture_shows_every_move() -> None:
    """As many arrows as rows, with one in and one out."""
    drawn = re.findall(r"^    (\S+) --> ([a-z_]+|\[\*\])", TEXT, re.MULTILINE)
    known = [(row.state, row.next) for row in TABLE]
    assert drawn == [("[*]", State.FOLLOWER), *known, (State.CLOSED, "[*]")]


def test_every_reason_has_an_advice() -> None:
    """One row each in the table of reasons, and none for what is no reason."""
    table = TEXT.partition("| reason | what happened |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", table, re.MULTILINE)) == sorted(Reason)


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
def test_programs_can_be_read(block: str) -> None:
    """All of them are Python."""
    assert ast.parse(block).body
