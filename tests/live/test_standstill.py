"""How long a lock stood still, read out of histories that were never played."""

from __future__ import annotations

import pytest

from chaos.history import Broken, Called, Record, Seen, Stopped
from chaos.standstill import at_share, standstills
from redlock.core.events import LeaseGranted, LeaseReleasing


def turn(client: str, asked: float, granted: float, released: float | None = None) -> list[Record]:
    """One who asked, was granted the lock, and gave it back."""
    records: list[Record] = [
        Seen(granted, client, LeaseGranted(granted, "r", "o", 1, granted, granted + 1.0)),
        Called(granted, client, "r", "acquire", granted - asked, "granted", 1),
    ]
    if released is not None:
        records.append(Seen(released, client, LeaseReleasing(released, "r", "o", 1)))
    return records


def test_a_lock_stands_still_from_its_release_to_the_next_grant() -> None:
    """While somebody waits for it; before the first holder there was nothing to wait for."""
    (found,) = standstills([*turn("c1", 0.0, 0.1, 1.0), *turn("c2", 0.5, 1.2)], "r")
    assert (found.client, found.killed) == ("c2", False)
    assert (found.at, found.took) == pytest.approx((1.2, 0.2))


def test_a_lock_that_nobody_wants_does_not_stand_still() -> None:
    """It counts from when the first of those asked who wait, whoever gets it in the end."""
    (found,) = standstills([*turn("c1", 0.0, 0.1, 1.0), *turn("c2", 5.0, 5.1)], "r")
    assert found.took == pytest.approx(0.1)
    history = [*turn("c1", 0.0, 0.1, 1.0), *turn("c2", 5.0, 5.1, 5.2), *turn("c3", 3.0, 5.3)]
    assert [one.took for one in standstills(history, "r")] == pytest.approx([2.1, 0.1])


def test_a_dead_holder_is_counted_from_its_kill() -> None:
    """And not from when the campaign saw that it was gone; other locks are nothing to it."""
    history = [
        *turn("c1", 0.0, 0.1),
        *turn("c2", 0.5, 2.0),
        Broken(1.0, "", "killed-client-1", "killed client of c1", (), ("c1",)),
        Stopped(1.1, "c1", "r", 1, "killed"),
        Stopped(1.9, "c1", "another", 1, "killed"),
    ]
    (found,) = standstills(history, "r")
    assert found.killed and found.took == pytest.approx(1.0)


def test_a_span_bounds_what_is_counted() -> None:
    """By the instant of the grant."""
    history = [*turn("c1", 0.0, 0.1, 1.0), *turn("c2", 0.5, 1.2, 2.0), *turn("c3", 0.6, 2.3)]
    assert [one.client for one in standstills(history, "r", since=1.5)] == ["c3"]
    assert [one.client for one in standstills(history, "r", until=1.5)] == ["c2"]


@pytest.mark.parametrize(("share", "value"), [(0.5, 5), (0.51, 6), (0.99, 10), (1.0, 10), (0.0, 1)])
def test_a_share_of_values(share: float, value: int) -> None:
    """The smallest value that so many do not exceed."""
    assert at_share(range(1, 11), share) == value
    assert at_share([], share) == 0.0
