"""What a supervised command runs under, a lease or a term of leadership, as its supervisor sees it:
three deadlines, and words for what is said when they come.

Reads the clock and the values of a lease or a term, never the network.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from redlock.base import LeaseBase
from redlock.core.term import Reason
from redlock.electing import TermBase

__all__ = ["GUARD_SHARE", "KILL_SHARE", "STOP_SHARE", "Deadlines", "Leading", "Leased", "Tenure"]

STOP_SHARE = 0.3
"""Of a lease's ttl: SIGTERM when less than this share is left. Renewals begin with two thirds
left, so ten have failed by then."""
KILL_SHARE = 0.1
"""SIGKILL then: late enough to end in order, early enough for a busy machine to do it in time."""
GUARD_SHARE = 0.05
"""The guard kills then: only if its supervisor, which should have done so at KILL_SHARE, is dead
or stopped."""

AT_ONCE = float("-inf")


class Deadlines(NamedTuple):
    """Instants on the lease clock, as known now; a renewal moves them all."""

    stop_at: float
    """SIGTERM."""
    kill_at: float
    """SIGKILL, by whoever supervises; and from here on nothing begins."""
    guard_at: float
    """SIGKILL by the guard, should the supervisor be dead or stopped."""
    valid_until: float
    """From here on the lock may be somebody else's."""


class Tenure(Protocol):
    """The right under which a command runs."""

    @property
    def name(self) -> str:
        """For messages: which lease, which term."""

    @property
    def fencing_token(self) -> int:
        """Given to the command."""

    def deadlines(self) -> Deadlines:
        """As of this moment. Must not wait."""

    def why(self) -> str:
        """Why the command has to stop now."""


class Leased(Tenure):
    """A lease: the deadlines are shares of its ttl, and come at once when it is lost."""

    def __init__(self, lease: LeaseBase) -> None:
        self._lease = lease

    @property
    def name(self) -> str:
        return f"the lease on {self._lease.resource!r}"

    @property
    def fencing_token(self) -> int:
        return self._lease.fencing_token

    def deadlines(self) -> Deadlines:
        lease = self._lease
        until, ttl = lease.valid_until, lease.ttl
        if not lease.is_held():
            return Deadlines(AT_ONCE, AT_ONCE, until - ttl * GUARD_SHARE, until)
        shares = (STOP_SHARE, KILL_SHARE, GUARD_SHARE)
        stop_at, kill_at, guard_at = (until - ttl * share for share in shares)
        return Deadlines(stop_at, kill_at, guard_at, until)

    def why(self) -> str:
        return f"cannot renew {self.name}"


class Leading(Tenure):
    """A term of leadership: the deadlines are those of its timings, whose slack is for whoever is
    late with the signal; so the guard has the same one as its supervisor."""

    def __init__(self, term: TermBase, election: str) -> None:
        self._term = term
        self._election = election

    @property
    def name(self) -> str:
        return f"the term in {self._election!r}"

    @property
    def fencing_token(self) -> int:
        return self._term.fencing_token

    def deadlines(self) -> Deadlines:
        term = self._term
        # Values alone: `is_leader` tells observers of an end that it finds, and they may be slow.
        ended = not term.remaining()
        if term.reason is Reason.CONTENDED:  # Somebody else may be at work already.
            return Deadlines(AT_ONCE, AT_ONCE, AT_ONCE, term.valid_until)
        kill_at = term.kill_at
        return Deadlines(AT_ONCE if ended else term.stop_at, kill_at, kill_at, term.valid_until)

    def why(self) -> str:
        return f"{self.name} has ended ({self._term.reason or 'not renewed'})"
