"""What a flow and its driver say to each other, and nothing else.

A *flow* is a generator that carries one operation of the algorithm (acquire, extend, release). It
never does I/O and never reads a clock: it yields a `Wait`, and the driver answers with one event.
The blocking driver, the asyncio driver and a simulator run the same flows.

The contract of a driver:

- It writes the requests of a `Wait` in order, each on the one ordered connection it has to that
  node.
- It then sends the flow exactly one event: the first reply or failure of any of its requests, or
  `Tick` at `until`, never before: a tick made for an earlier wait is not for this one. After a
  `Wait` with `pause` only `Tick`: what comes meanwhile is dropped. Where a `Wait` says that single
  grants decide nothing, the driver may keep them until there are enough, or until something else
  happens, and send them as one `Grants`.
- An event's `at` is the lease clock, read *after* the event happened, and never falls.
- A request whose `not_after` passed before it was written is never written; it fails with `written`
  false.
- It throws `Cancelled` at most once. The flow answers with its last requests, each `Wait` of them
  until NEVER: they are written and not waited for.
- A pause with a *bell* may end early, with a `Tick`: when the bell rings, or has rung by then.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from redlock.core.commands import Command
from redlock.core.quorum import Fault

__all__ = [
    "NEVER",
    "Bell",
    "Cancelled",
    "Event",
    "Failure",
    "Flow",
    "Grants",
    "Reply",
    "Request",
    "Source",
    "Tick",
    "Wait",
]

T = TypeVar("T")
NEVER = float("-inf")
"""An instant before all others: `not_after=NEVER` withdraws a request that has not been written
yet."""


@dataclass(slots=True, eq=False)
class Request:
    """One command for one node; compared by identity, so a late reply never matches a later round.

    *not_after*: instant on the lease clock after which it must not be written any more, nor written
    again. *written*: set by the driver when the bytes were handed to the connection, and from then
    on the node may execute it. *why*: why it was not written so far, if more is known than that
    there is no connection; completes "<node> ...". *life*: `Admission.life` of the node when a vote
    was written. *run*: the driver's own note of who waits for the answer. *whole*: and whether the
    script's text went out after all.
    """

    node: int
    command: Command
    not_after: float
    written: bool = False
    why: str = ""
    life: int = field(default=0, repr=False)
    run: Any = field(default=None, repr=False)
    whole: bool = field(default=False, repr=False)

    def withdraw(self) -> None:
        """Never write it, or never again: also one that was written may be answered that the
        server lost the script."""
        self.not_after = NEVER


class Bell(Protocol):
    """What may end a pause early. *rung*: it has, and the flow has not seen to it yet. *wake*: what
    the driver wants to be called when it rings, by whoever rings it, perhaps in another thread."""

    rung: bool
    wake: Callable[[], object] | None


@dataclass(slots=True, eq=False)
class Wait:
    """Write *send*, wake me at the first event or at *until* (lease clock).

    *pause*: nothing is awaited but the time, so the driver may lend the connections to others
    meanwhile; and *bell*, if there is one. *grants*: how many grants are worth waking me for, as
    long as nothing else happens.
    """

    until: float
    send: tuple[Request, ...] = ()
    pause: bool = False
    grants: int = 1
    bell: Bell | None = None


@dataclass(slots=True, eq=False)
class Reply:
    """The node executed *request*; *value* is what its command's `read` made of the answer."""

    request: Request
    value: Any
    at: float


@dataclass(slots=True, eq=False)
class Grants:
    """Several replies at once, all of them GRANTED; *at*: when the last one was read."""

    requests: list[Request]
    at: float


@dataclass(slots=True, eq=False)
class Failure:
    """No usable answer to *request* will come. If it was written, the node may have executed it
    all the same."""

    request: Request
    fault: Fault
    at: float


@dataclass(slots=True, eq=False)
class Tick:
    """The time of the last `Wait` is over."""

    at: float


Event = Reply | Grants | Failure | Tick
Flow = Generator[Wait, Event, T]


class Cancelled(BaseException):
    """Thrown into a flow whose caller went away. A BaseException, so that no `except Exception`
    swallows it."""


class Source(Protocol):
    """What the core may not make itself: randomness, and a proposal of what time it is.

    The wall clock only proposes tokens; a wrong one costs a round trip and never safety.
    """

    def owner(self) -> str:
        """Return 128 fresh random bits as text without a colon."""

    def below(self, limit: int) -> int:
        """Return a random integer in [0, limit)."""

    def wall_us(self) -> int:
        """Return microseconds since the epoch."""
