"""What the dead leave behind, and whom a renewal wakes: a short measurement on real servers."""

from __future__ import annotations

from chaos.live.waits import keys_left, woken_by_renewals
from redlock.embedded import Nodes


def test_killed_waiters_leave_nothing_and_renewals_wake_nobody() -> None:
    """Clients killed while they wait: their places and the queues are gone a second later."""
    with Nodes(5) as nodes:
        left = keys_left(nodes, 20)
        assert left.holds, left.value
        woken = woken_by_renewals(nodes, 5)
        assert woken.holds, woken.value
