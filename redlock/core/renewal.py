"""When to renew which lease, and when to say that one is lost: the schedule behind `auto_extend`
and `lost`.

Pure: a driver asks what is due, runs the extensions, and tells how they ended. The deadline of a
lease never waits for I/O: it is in the same schedule as everything else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count

from redlock.core.effects import NEVER
from redlock.core.lease import Holding, Status

__all__ = ["Renewal", "Watch"]

RENEW_SHARE = 3
"""Renew when a third of the validity is over: two more chances before the last third (etcd,
client-go, redlock-rb)."""
RETRY_SHARE = 30
RETRY_MIN, RETRY_MAX = 0.01, 0.5
"""Seconds: neither in a spin, nor so far apart that a short fault costs a long lease a third."""
COMPACT_MIN = 64
"""Entries below which the schedule is not looked through for leases that are over; above,
whenever it has doubled."""


class Watch:
    """One lease under watch. *lapsed* is called once, when it is lost. *ttl*: what a renewal
    asks for; None: only watch.

    A term of leadership is one more kind: with deadlines of its own, and a say in its renewal.
    """

    __slots__ = ("due_at", "holding", "lapsed", "looked_at", "renew_at", "renewing", "ttl")

    def __init__(
        self, holding: Holding, lapsed: Callable[[Holding], None], *, ttl: float | None, now: float
    ) -> None:
        self.holding = holding
        self.lapsed = lapsed
        self.ttl = ttl
        self.renewing = False
        self.renew_at = now + (holding.valid_until - now) / RENEW_SHARE
        self.due_at = 0.0
        self.looked_at = now

    @property
    def ends_at(self) -> float:
        """When to look whether it stands still, if nothing moves that before."""
        return self.holding.valid_until

    @property
    def renews(self) -> bool:
        """Whether it is to be renewed, and no renewal is under way."""
        return (
            self.ttl is not None
            and not self.renewing
            and self.holding.valid_until < self.holding.hold_until
        )

    def stands(self, now: float) -> bool:
        """Whether it may be relied on still; if not, it is lost for good."""
        if self.holding.held(now):
            return True
        self.holding.lose(
            "its validity ended before a renewal succeeded"
            if self.ttl is not None
            else "its validity ended"
        )
        return False

    def may_renew(self, now: float) -> bool:
        """Asked before each renewal; False: it is not renewed, ever."""
        return True

    def pause(self, left: float) -> float:
        """Seconds from a renewal to the next, with *left* of validity."""
        return left / RENEW_SHARE

    def renewed(self, error: BaseException | None) -> None:
        """A renewal ended."""


class Renewal:
    """All watched leases of one coordinator."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Watch]] = []
        self._order = count()
        self._compact_at = COMPACT_MIN
        self._ready: deque[Watch] = deque()

    @property
    def next_at(self) -> float:
        """When to look again; infinity if there is nothing to watch."""
        return self._heap[0][0] if self._heap else float("inf")

    @property
    def ready(self) -> bool:
        """Whether leases are due for a renewal that the limit had no room for."""
        return bool(self._ready)

    def add(self, watch: Watch) -> None:
        """Watch a lease until it ends."""
        ends_at = watch.ends_at
        watch.due_at = min(watch.renew_at, ends_at) if watch.renews else ends_at
        heappush(self._heap, (watch.due_at, next(self._order), watch))
        if len(self._heap) > self._compact_at:
            self._compact()

    def _compact(self) -> None:
        """Let go of what was released: it would stay until its deadline. Rarely, so that it
        costs each lease next to nothing."""
        self._heap[:] = [
            entry
            for entry in self._heap
            if entry[0] == entry[2].due_at and entry[2].holding.status is not Status.RELEASED
        ]
        heapify(self._heap)
        self._compact_at = max(COMPACT_MIN, 2 * len(self._heap))

    def due(self, now: float, limit: int) -> tuple[list[Watch], list[Watch]]:
        """What is due at *now*: at most *limit* leases to extend, and all that are lost.

        A lease beyond the limit waits for its renewal, and its deadline does not wait with it.
        """
        extend: list[Watch] = []
        lost: list[Watch] = []
        ready = self._ready
        while self._heap and self._heap[0][0] <= now:
            due_at, _, watch = heappop(self._heap)
            holding = watch.holding
            if due_at != watch.due_at or holding.status is Status.RELEASED:
                continue
            if not watch.stands(now):
                lost.append(watch)
                # Once: a retry that falls past the deadline has an entry of the same instant.
                watch.due_at = NEVER
                continue
            if watch.renews and now >= watch.renew_at:
                if not watch.may_renew(now):
                    lost.append(watch)
                    watch.due_at = NEVER
                    continue
                watch.renewing = True
                ready.append(watch)
            self.add(watch)
        while ready and len(extend) < limit:
            watch = ready.popleft()
            if watch.stands(now):
                extend.append(watch)
        return extend, lost

    def extended(self, watch: Watch, error: BaseException | None, now: float) -> bool:
        """An extension ended. True if the lease is lost by it."""
        watch.renewing = False
        watch.renewed(error)
        holding = watch.holding
        if holding.status is Status.RELEASED:
            return False
        if not holding.held(now):
            holding.lose(f"its renewal failed: {error}")
        if not watch.stands(now):
            # Or its deadline passed while it was renewed, and was told.
            lost, watch.due_at = watch.due_at != NEVER, NEVER
            return lost
        left = holding.valid_until - now
        pause = (
            min(max(holding.ttl / RETRY_SHARE, RETRY_MIN), RETRY_MAX)
            if error is not None
            else watch.pause(left)
        )
        watch.renew_at = now + pause
        self.add(watch)
        return False
