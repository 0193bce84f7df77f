"""What is asked in one grant's name: the same keys, owner, token and fence, whoever asks."""

from __future__ import annotations

from math import inf

import pytest

from redlock.core.commands import MARKER_KEY, Free, Take
from redlock.core.grant import Grant

KEYS = ("redlock:r", "redlock:r:fence")
GRANT = Grant("r", *KEYS, "A", 7, 600.0)
IN_LINE = Grant("r", *KEYS, "A", 7, 600.0, place="123 c.4 a label")


@pytest.mark.parametrize(
    ("command", "mode"),
    [
        (GRANT.take(10.0), "acquire"),
        (GRANT.extension(10.0), "extend"),
        (GRANT.verification(10.0), "verify"),
    ],
)
def test_a_grant_is_taken_kept_and_verified_by_the_same_names(command: Take, mode: str) -> None:
    """Only the mode differs: what was taken is what is confirmed later."""
    assert command.keys == (*KEYS, MARKER_KEY)
    assert command.args == ("A", 7, "", 10_000, 600_000, mode)


def test_a_confirmation_asks_for_a_millisecond_at_least() -> None:
    """What `max_hold` has left may be less than a node can give; it refuses an expiry of zero."""
    assert GRANT.extension(-3.0).args[3] == GRANT.verification(0.0).args[3] == 1


def test_a_grant_is_given_back_by_the_names_it_was_taken_by() -> None:
    """To each node one release that is never too late, in the order of the nodes."""
    free = GRANT.free()
    assert isinstance(free, Free) and not free.unattended
    assert (free.keys, free.args) == (KEYS, ("A", 7, "", 600_000))
    releases = GRANT.releases({4, 0, 2}, unattended=True)
    assert [request.node for request in releases] == [0, 2, 4]
    assert {request.not_after for request in releases} == {inf}
    assert len({id(request.command) for request in releases}) == 1
    command = releases[0].command
    assert isinstance(command, Free) and command.unattended
    assert (command.keys, command.args) == (free.keys, free.args)


def test_a_larger_token_changes_nothing_else() -> None:
    """The second round of a try is for the same owner; the first grant stays as it was."""
    second = GRANT.under(9)
    assert (GRANT.token, second.token) == (7, 9)
    assert second.take(1.0).keys == GRANT.take(1.0).keys
    assert second.take(1.0).args == ("A", 9, "", 1000, 600_000, "acquire")
    assert IN_LINE.under(9).place == IN_LINE.place


def test_a_grant_leaves_the_queue_by_the_name_it_entered_under() -> None:
    """A release tells the next one. What is given back of a try that failed keeps the place, and
    has whoever is first look; what knows no queue leaves it alone, and so does whoever only keeps
    a lock."""
    assert IN_LINE.take(10.0).args[2] == "123 c.4 a label"
    assert IN_LINE.extension(10.0).args[2] == IN_LINE.verification(10.0).args[2] == ""
    assert IN_LINE.free().args[2] == "c.4 a label"
    assert IN_LINE.free(failed=True).args[2] == "?"
    deaf = Grant("r", *KEYS, "A", 7, 600.0, place="123~c.4")
    assert deaf.free().args[2] == "c.4"
    alone = Grant("r", *KEYS, "A", 7, 600.0, place="-")
    assert alone.free(failed=True).args[2] == "?"
    assert alone.free().args[2] == alone.take(1.0).args[2] == "-"
    assert GRANT.free(failed=True).args[2] == ""
    assert {each.keys[-1] for each in (IN_LINE.free(), alone.take(1.0))} == {"redlock:r:lock-queue"}
