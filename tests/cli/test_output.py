"""What of the output a terminal, a disk or an encoding does not take."""

from __future__ import annotations

import pytest

from redlock.cli.screen import Listing, new_console
from redlock.supervise import say


def test_nothing_that_is_said_or_listed_moves_the_cursor(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Names and values are whoever's wrote them: they start no line, and no terminal obeys them."""
    say("'a\x1b]0;owned\x07\nredlock: b\x9b2J\u202e'")
    listing = Listing("lock")
    listing.caption = "\x1b[2J"
    listing.add("a\x1b[2J\nb")
    listing.print(new_console())
    told = capsys.readouterr()
    assert told.err == "redlock: 'a\\x1b]0;owned\\x07\\nredlock: b\\x9b2J\\u202e'\n"
    assert told.out.replace("\n", "").isprintable()
    assert "a\\x1b[2J\\nb" in told.out
