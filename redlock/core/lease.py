"""What a holder knows of its lease: the validity arithmetic and the one-way life HELD -> RELEASED |
LOST.

The one place where validity is computed and where a lease can change its state.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Protocol

from redlock.core.grant import Grant
from redlock.errors import LeaseError, LeaseLost, LeaseReleased, shown

__all__ = ["DRIFT_MIN", "Holding", "Status", "longest_ttl", "valid_until", "validity"]

DRIFT_MIN = 0.002
"""Seconds: a node rounds its TTL to milliseconds and expires when now > when (F60)."""


def validity(ttl: float, drift_factor: float) -> float:
    """How long a lock of *ttl* may be relied on, in seconds: the ttl less what the node's clock
    may run faster."""
    return ttl - (ttl * drift_factor + DRIFT_MIN)


def valid_until(sent_at: float, ttl: float, drift_factor: float) -> float:
    """Instant up to which a majority is certain to hold our key.

    Seconds, on the clock that read *sent_at*, which must be read before the first write of the
    round. Holds while node clocks run at most *drift_factor* faster than ours and nodes keep their
    keys. Source: redis.io distributed-locks, "Safety Arguments": T2 + MIN_VALIDITY, where T2
    cancels.
    """
    return sent_at + validity(ttl, drift_factor)


def longest_ttl(sent_at: float, until: float, drift_factor: float) -> float:
    """The ttl whose validity, sent at *sent_at*, ends at *until*: the inverse of `valid_until`."""
    return (until - sent_at + DRIFT_MIN) / (1.0 - drift_factor)


class Status(Enum):
    """HELD until the deadline; RELEASED and LOST are final."""

    HELD = auto()
    RELEASED = auto()
    LOST = auto()

    __hash__ = object.__hash__


class Revocable(Protocol):
    """A round that asks nodes to go on holding a lease."""

    def revoke(self) -> None:
        """Write nothing of it any more."""


class Holding:
    """One granted lease, as the core sees it: a grant, and how long it is valid. The public `Lease`
    is a handle on it.

    *touched*: nodes that were ever sent a TAKE for this owner, and so are owed its release. *told*:
    the loss was reported; *freed*: the release was written; once is enough, it stays owed to a
    silent node. *rounds*: extensions under way, which a release revokes. *hold_until*: instant past
    which no renewal may move `valid_until` (`max_hold`).
    *kept_until*: instant until which a release keeps it from others (`min_hold`).
    """

    __slots__ = (
        "freed",
        "grant",
        "granted_at",
        "hold_until",
        "kept_until",
        "reason",
        "rounds",
        "status",
        "told",
        "touched",
        "ttl",
        "valid_until",
    )

    def __init__(
        self, grant: Grant, ttl: float, granted_at: float, until: float, touched: frozenset[int]
    ) -> None:
        self.grant = grant
        self.ttl = ttl
        self.granted_at = granted_at
        self.valid_until = until
        self.hold_until = float("inf")
        self.kept_until = float("-inf")
        self.touched = touched
        self.freed = False
        self.told = False
        self.status = Status.HELD
        self.reason = ""
        self.rounds: tuple[Revocable, ...] = ()

    def kept_for(self, now: float) -> float:
        """Seconds for which a release is to keep it from others still."""
        return max(0.0, self.kept_until - now)

    @property
    def resource(self) -> str:
        """What is locked."""
        return self.grant.resource

    @property
    def owner(self) -> str:
        """Who holds it."""
        return self.grant.owner

    @property
    def token(self) -> int:
        """Its fencing token."""
        return self.grant.token

    def held(self, now: float) -> bool:
        """Whether the lease may be relied on at *now*: never at or after `valid_until`, never
        again once it ended."""
        return now < self.valid_until and self.status is Status.HELD

    def renewed(self, until: float, ttl: float) -> None:
        """A majority confirmed: move the deadline, never back, never past `hold_until`, never
        for a lease that has ended."""
        until = min(until, self.hold_until)
        if self.status is Status.HELD and until > self.valid_until:
            self.valid_until = until
            self.ttl = ttl

    def limit(self, max_hold: float) -> None:
        """No later than *max_hold* seconds after the grant, whatever is renewed."""
        self.hold_until = self.granted_at + max_hold
        self.valid_until = min(self.valid_until, self.hold_until)

    def lose(self, reason: str) -> bool:
        """End it as lost; False if it had ended before."""
        if self.status is not Status.HELD:
            return False
        self.reason = reason
        self.status = Status.LOST
        return True

    def end(self) -> bool:
        """End it as released, before the first release is written; False if it had ended before."""
        for round in self.rounds:
            round.revoke()
        if self.status is not Status.HELD:
            return False
        self.status = Status.RELEASED
        return True

    def error(self, now: float) -> LeaseError | None:
        """Why the lease cannot be used at *now*, or None if it can."""
        if self.held(now):
            return None
        if self.status is Status.RELEASED:
            return LeaseReleased(
                f"the lease on {shown(self.resource)} was released: acquire the lock again"
            )
        reason = self.reason or f"its validity ended {max(0.0, now - self.valid_until):.3g} s ago"
        return LeaseLost(
            f"the lease on {shown(self.resource)} with fencing token {self.token} is lost:"
            f" {reason}:"
            " stop what it guarded"
        )
