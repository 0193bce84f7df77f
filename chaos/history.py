"""What a run leaves behind: frozen records on one true clock, made by simulator and live campaigns alike.

A record of the library (`redlock.core.events`) is wrapped with who it happened to; the rest tells what was done to the
world, what a holder believed, and what the guarded store saw.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Accepted", "Believed", "Fault", "Granted", "Note", "Record", "Refused", "Stopped"]


@dataclass(frozen=True, slots=True)
class Record:
    """Base of all. *at*: true time, seconds. *client*: who it happened to, "" for the world."""

    at: float
    client: str


@dataclass(frozen=True, slots=True)
class Granted(Record):
    """A client was told that it holds the lock. *asked_at*: true time when it began to ask."""

    resource: str
    owner: str
    token: int
    asked_at: float


@dataclass(frozen=True, slots=True)
class Believed(Record):
    """At *at* the holder asked its lease, and was told that it holds. *left*: seconds of validity by its own clock."""

    resource: str
    token: int
    left: float


@dataclass(frozen=True, slots=True)
class Stopped(Record):
    """The holder's belief ended: it released, lost, or its validity was over. *why*: "released", "lost", "expired"."""

    resource: str
    token: int
    why: str


@dataclass(frozen=True, slots=True)
class Accepted(Record):
    """The guarded store took a write: it had *before*, and has *after* now."""

    resource: str
    token: int
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Refused(Record):
    """The guarded store refused an access with too small a token."""

    resource: str
    token: int
    largest: int


@dataclass(frozen=True, slots=True)
class Fault(Record):
    """Something was done to the world."""

    what: str


@dataclass(frozen=True, slots=True)
class Note(Record):
    """Anything else worth a line in a trace; *kind* is what coverage counts."""

    kind: str
    text: str
