"""What a history is judged by, and what is found: assumptions, beliefs, violations."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ROUNDING", "Assumptions", "Belief", "Violation"]

ROUNDING = 1e-6
"""Seconds: what instants may be off by after a trip through another clock's rate."""


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What a run kept to, and so what it may be judged by.

    *timing*: clock rates within drift, no node's clock is stepped. *lease_clock*: clients' lease
    clocks run through pauses and suspends. *memory*: nodes forget at most what admission sees and
    quarantine covers. *order*: wall clocks agree so well that tokens are ordered by themselves,
    whatever nodes forget. *kept*: nodes forgot nothing at all, so what rests on their memory alone
    holds without any clock.
    """

    timing: bool = True
    memory: bool = True
    order: bool = True
    kept: bool = False
    lease_clock: bool = True

    @property
    def exclusion(self) -> bool:
        """Whether mutual exclusion was promised."""
        return self.timing and self.lease_clock and self.memory

    @property
    def ordering(self) -> bool:
        """Whether later attempts were promised larger tokens."""
        return self.exclusion or self.kept or self.order

    @property
    def checking(self) -> bool:
        """Whether a successful extension or verification was promised to prove that nobody newer
        had been."""
        return self.exclusion or self.kept


@dataclass(frozen=True, slots=True)
class Violation:
    """A property that did not hold. *property*: its name (U, M, ME, D and X: docs/protocol.md
    9); *text* says who and when."""

    property: str
    at: float
    text: str


@dataclass(slots=True)
class Belief:
    """One lease, as its holder was told of it. *planned*: the end of its validity; *until*: when
    the belief really ended.

    *how*: "released", "lost", "expired", "open" at the end of the history, or what a `Stopped`
    said. *believed_at*: the last time its holder was told that it holds.
    """

    client: str
    resource: str
    owner: str
    token: int
    asked_at: float
    since: float
    planned: float
    until: float = float("inf")
    how: str = "open"
    believed_at: float = float("-inf")

    def end(self, at: float, how: str) -> None:
        """The first end counts."""
        if at < self.until:
            self.until, self.how = at, how

    def covers(self, at: float, *, clock: bool) -> bool:
        """Whether its holder may rely on it at *at*. Without *clock*, when it ends is for the
        holder's own clock to say."""
        return at <= (min(self.until, self.planned) if clock else self.until) + ROUNDING
