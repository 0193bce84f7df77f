"""Judges a history: what must hold always, and what only under the assumptions the run was made with.

Works on records of one true clock, so mutual exclusion is a question about intervals: a holder's belief runs from its
grant to the first of its release, its loss and the end of its validity. The same code judges simulated and live runs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chaos.history import Accepted, Believed, Granted, Record, Refused, Stopped

__all__ = ["Assumptions", "Violation", "check"]


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What the run kept to. *timing*: clock rates within drift, no jumps. *memory*: nodes forget only as quarantine covers.

    *order*: wall clocks of clients and nodes agree well enough for tokens to be ordered over a loss of memory.
    """

    timing: bool = True
    memory: bool = True
    order: bool = True

    @property
    def exclusion(self) -> bool:
        """Whether mutual exclusion was promised."""
        return self.timing and self.memory


@dataclass(frozen=True, slots=True)
class Violation:
    """A property that did not hold. *property* is its name in DESIGN and facts; *text* says who and when."""

    property: str
    at: float
    text: str


@dataclass(slots=True)
class _Belief:
    client: str
    token: int
    asked_at: float
    since: float
    until: float
    last_believed: float = float("-inf")


def check(history: Sequence[Record], assumptions: Assumptions, end: float) -> list[Violation]:
    """Every violation in *history*, in order of time. *end*: beliefs that are still open end there."""
    beliefs = _beliefs(history, end)
    found: list[Violation] = []
    for resource, held in beliefs.items():
        found += _unique(resource, held)
        if assumptions.memory or assumptions.order:
            found += _ordered(resource, held)
        if assumptions.exclusion:
            found += _exclusive(resource, held)
    found += _beyond(history, beliefs)
    found += _guarded(history)
    return sorted(found, key=lambda violation: violation.at)


def _beliefs(history: Iterable[Record], end: float) -> dict[str, list[_Belief]]:
    beliefs: dict[str, list[_Belief]] = defaultdict(list)
    open_: dict[tuple[str, str, int], _Belief] = {}
    for record in history:
        match record:
            case Granted():
                belief = _Belief(record.client, record.token, record.asked_at, record.at, end)
                beliefs[record.resource].append(belief)
                open_[record.client, record.resource, record.token] = belief
            case Stopped():
                ended = open_.pop((record.client, record.resource, record.token), None)
                if ended is not None:
                    ended.until = record.at
    return beliefs


def _unique(resource: str, held: list[_Belief]) -> list[Violation]:
    seen: dict[int, _Belief] = {}
    found = []
    for belief in held:
        other = seen.setdefault(belief.token, belief)
        if other is not belief:
            text = f"{belief.client} and {other.client} both got token {belief.token} for {resource}"
            found.append(Violation("U: tokens are unique", belief.since, text))
    return found


def _ordered(resource: str, held: list[_Belief]) -> list[Violation]:
    """M: what was asked for after a grant was decided gets a larger token."""
    found = []
    largest: _Belief | None = None
    decided = sorted(held, key=lambda belief: belief.since)
    asked = sorted(held, key=lambda belief: belief.asked_at)
    place = 0
    for belief in asked:
        while place < len(decided) and decided[place].since < belief.asked_at:
            if largest is None or decided[place].token > largest.token:
                largest = decided[place]
            place += 1
        if largest is not None and belief.token < largest.token:
            text = (
                f"{belief.client} asked after {largest.client} had token {largest.token} for {resource}, and got {belief.token}"
            )
            found.append(Violation("M: later grants have larger tokens", belief.since, text))
    return found


def _exclusive(resource: str, held: list[_Belief]) -> list[Violation]:
    """ME: no two beliefs overlap."""
    found = []
    last: _Belief | None = None
    for belief in sorted(held, key=lambda belief: belief.since):
        if last is not None and belief.since < last.until:
            overlap = min(last.until, belief.until) - belief.since
            both = f"{last.client} (token {last.token}) and {belief.client} (token {belief.token})"
            text = f"{both} held {resource} together for {overlap:.6f} s"
            found.append(Violation("ME: one holder at a time", belief.since, text))
        if last is None or belief.until > last.until:
            last = belief
    return found


def _beyond(history: Iterable[Record], beliefs: dict[str, list[_Belief]]) -> list[Violation]:
    """No lease says that it is held once it ended, or with no validity left."""
    ended = {(belief.client, resource, belief.token): belief for resource, held in beliefs.items() for belief in held}
    found = []
    for record in history:
        if isinstance(record, Believed):
            belief = ended.get((record.client, record.resource, record.token))
            if record.left <= 0 or belief is None or record.at > belief.until:
                text = f"{record.client} believed in token {record.token} of {record.resource} after its end"
                found.append(Violation("I4: no belief past the end", record.at, text))
    return found


def _guarded(history: Iterable[Record]) -> list[Violation]:
    """I3: the guarded store takes no smaller token after a larger one, and loses no update."""
    found = []
    largest: dict[str, int] = defaultdict(int)
    value: dict[str, int] = defaultdict(int)
    for record in history:
        match record:
            case Accepted():
                if record.token < largest[record.resource]:
                    text = f"{record.client} wrote {record.resource} with token {record.token} after {largest[record.resource]}"
                    found.append(Violation("I3: no stale write", record.at, text))
                if record.before != value[record.resource]:
                    text = (
                        f"{record.client} overwrote {value[record.resource]} of {record.resource} as if it were {record.before}"
                    )
                    found.append(Violation("I3: no lost update", record.at, text))
                largest[record.resource] = max(largest[record.resource], record.token)
                value[record.resource] = record.after
            case Refused():
                largest[record.resource] = max(largest[record.resource], record.largest)
    return found
