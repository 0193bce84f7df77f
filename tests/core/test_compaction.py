"""What was given back takes no memory until its deadline."""

from __future__ import annotations

import random

from redlock.core.grant import Grant
from redlock.core.lease import Holding
from redlock.core.renewal import COMPACT_MIN, Renewal, Watch


def holding(ttl: float) -> Holding:
    return Holding(
        Grant("r", "redlock:r", "redlock:r:fence", "A", 1, 600.0),
        ttl,
        0.0,
        ttl,
        frozenset(range(3)),
    )


def test_released_leases_leave_the_schedule_long_before_their_deadline() -> None:
    """Thousands of short uses of an hour's lock: the schedule stays as small as what is held."""
    renewal = Renewal()
    largest = 0
    for number in range(5_000):
        lease = holding(3600.0)
        renewal.add(
            Watch(lease, lambda lost: None, ttl=3600.0 if number % 3 == 0 else None, now=0.0)
        )
        lease.end()
        largest = max(largest, len(renewal._heap))
    assert largest <= COMPACT_MIN + 1


def test_making_room_forgets_nobody_who_still_holds() -> None:
    """Among thousands that were given back, each of a hundred others is renewed or told of its
    loss when it is due."""
    chance = random.Random(1)
    renewal = Renewal()
    kept: list[Watch] = []
    for number in range(5_000):
        renews = chance.random() < 0.5
        ttl = 10.0 + chance.random() * 1000.0
        watch = Watch(holding(ttl), lambda lost: None, ttl=ttl if renews else None, now=0.0)
        renewal.add(watch)
        if number % 50 == 0:
            kept.append(watch)
        else:
            watch.holding.end()
    assert len(renewal._heap) <= 3 * len(kept)
    extend, _ = renewal.due(10_000.0 / 30, len(kept))
    assert set(extend) == {
        watch for watch in kept if watch.ttl is not None and watch.holding.held(10_000.0 / 30)
    } & {watch for watch in kept if watch.renew_at <= 10_000.0 / 30}
    _, lost = renewal.due(2000.0, 0)
    told = {watch for watch in kept if watch.holding.reason}
    assert told == set(kept)
    assert set(lost) <= set(kept)
