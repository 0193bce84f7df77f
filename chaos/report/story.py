"""Who held what, when, and what was broken meanwhile: a history told as intervals and moments,
without a word on how to draw.

Beliefs are those of the checker, so that what the report shows in red is what the checker judges.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from heapq import heappop, heappush
from operator import attrgetter

from chaos.checker import ROUNDING, Belief, beliefs
from chaos.history import (
    Accepted,
    Broken,
    Called,
    Healed,
    NodeSeen,
    Note,
    Record,
    Refused,
    Seen,
    Stopped,
)
from chaos.reigns import Reign, reigns
from redlock.core.events import LeaseGranted, LeaseInJeopardy, LeaseLapsed, LeaseRenewed, TryStarted

__all__ = ["Access", "Fault", "Hold", "Mark", "Overlap", "Spell", "Story", "Tick", "Wait", "tell"]

FREE = ""
"""The owner of a lock that nobody holds."""

STRANGER = "?"
"""The owner of a lock that no client of the history asked for."""

UNFENCED = "unfenced-lost-update"
"""The kind of note that the campaign's store makes for an update that only the tokens saved."""

SHOWN = 8
"""Letters of an owner that an observer writes down at least."""


@dataclass(slots=True)
class Hold:
    """A lease as its holder was told of it. *until*: when the belief ended, and *how*; *planned*:
    the end of its validity.

    *acted_until*: when its holder last acted on it, which is later than *until* for a zombie alone.
    """

    client: str
    resource: str
    token: int
    asked_at: float
    since: float
    until: float
    planned: float
    acted_until: float
    how: str


@dataclass(frozen=True, slots=True)
class Wait:
    """A client asked for a lock, and what came of it."""

    client: str
    resource: str
    since: float
    until: float
    outcome: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A renewal. *good*: a majority extended; *until*: the end of validity from then on."""

    client: str
    resource: str
    at: float
    good: bool
    until: float


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened to a client. *kind*: "lost", "killed", or the kind of a fault."""

    client: str
    resource: str
    at: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Spell:
    """How a node stood for a while. *client*: whose lock it held, "" for nobody's."""

    node: int
    since: float
    until: float
    state: str
    client: str
    token: int


@dataclass(slots=True)
class Fault:
    """Something was broken. *kind* is the fault's id without its number; *healed*: its end was
    seen."""

    name: str
    kind: str
    what: str
    nodes: tuple[int, ...]
    clients: tuple[str, ...]
    since: float
    until: float
    healed: bool = False


@dataclass(frozen=True, slots=True)
class Access:
    """The guarded store was asked. *verdict*: "accepted", "refused", "stale" (accepted, and
    should not be), "lost update"."""

    client: str
    resource: str
    at: float
    token: int
    largest: int
    verdict: str
    before: int = 0
    after: int = 0


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two holders at once."""

    resource: str
    since: float
    until: float
    clients: tuple[str, ...]
    tokens: tuple[int, ...]


@dataclass(slots=True)
class Story:
    """All of it. *start*, *end*: seconds on the clock of the history."""

    start: float
    end: float
    clients: tuple[str, ...] = ()
    nodes: tuple[int, ...] = ()
    holds: list[Hold] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    ticks: list[Tick] = field(default_factory=list)
    jeopardy: list[Wait] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    spells: list[Spell] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    accesses: list[Access] = field(default_factory=list)
    shadows: list[Mark] = field(default_factory=list)
    """Where a store without tokens would have lost an update."""
    overlaps: list[Overlap] = field(default_factory=list)
    reigns: list[Reign] = field(default_factory=list)
    """Terms of elections."""


def tell(history: Sequence[Record]) -> Story:
    """The story of *history*, which is in the order of time and not empty."""
    return _Teller(history).story()


class _Teller:
    def __init__(self, history: Sequence[Record]) -> None:
        self._history = history
        self._end = history[-1].at

    def story(self) -> Story:
        history = self._history
        held = beliefs(history, self._end)
        accesses = _accesses(history)
        holds = _holds(held, accesses)
        faults = self._faults()
        return Story(
            start=history[0].at,
            end=self._end,
            clients=self._clients(faults),
            nodes=self._nodes(faults),
            holds=holds,
            waits=self._waits(),
            ticks=self._ticks(),
            jeopardy=self._jeopardy(held),
            marks=self._marks(),
            spells=self._spells(),
            faults=faults,
            accesses=accesses,
            shadows=[
                Mark(note.client, "", note.at, note.kind, note.text)
                for note in self._notes()
                if note.kind == UNFENCED
            ],
            overlaps=_overlaps(held),
            reigns=reigns(history),
        )

    def _clients(self, faults: Iterable[Fault]) -> tuple[str, ...]:
        names = {record.client for record in self._history} | {
            client for fault in faults for client in fault.clients
        }
        return tuple(sorted(names - {""}, key=_naturally))

    def _nodes(self, faults: Iterable[Fault]) -> tuple[int, ...]:
        seen = {record.node for record in self._history if isinstance(record, NodeSeen)}
        return tuple(sorted(seen | {node for fault in faults for node in fault.nodes}))

    @cached_property
    def _clients_of(self) -> dict[str, str]:
        """By the first letters of an owner, the client that drew it."""
        return {
            record.event.owner[:SHOWN]: record.client
            for record in self._history
            if isinstance(record, Seen) and isinstance(record.event, TryStarted | LeaseGranted)
        }

    def _faults(self) -> list[Fault]:
        found: dict[str, Fault] = {}
        for record in self._history:
            if isinstance(record, Broken):
                kind = record.fault.rstrip("0123456789").rstrip("-") or record.fault
                fault = Fault(
                    record.fault,
                    kind,
                    record.what,
                    record.nodes,
                    record.clients,
                    record.at,
                    self._end,
                )
                found[record.fault] = fault
            elif isinstance(record, Healed) and record.fault in found:
                found[record.fault].until, found[record.fault].healed = record.at, True
        return list(found.values())

    def _notes(self) -> list[Note]:
        return [record for record in self._history if isinstance(record, Note)]

    def _waits(self) -> list[Wait]:
        return [
            Wait(record.client, record.resource, record.at - record.took, record.at, record.outcome)
            for record in self._history
            if isinstance(record, Called) and record.call == "acquire"
        ]

    def _ticks(self) -> list[Tick]:
        found = []
        for record in self._history:
            match record:
                case Seen(event=LeaseRenewed() | LeaseInJeopardy() as event):
                    found.append(
                        Tick(
                            record.client,
                            event.resource,
                            record.at,
                            isinstance(event, LeaseRenewed),
                            event.valid_until,
                        )
                    )
                case Called(call="extend", outcome=outcome) if outcome not in ("ok", "cancelled"):
                    found.append(Tick(record.client, record.resource, record.at, False, record.at))
        return found

    def _jeopardy(self, held: dict[str, list[Belief]]) -> list[Wait]:
        """From a renewal that failed to the next that did not, or to the end."""
        since: dict[str, float] = {}
        found = []
        for record in self._history:
            match record:
                case Seen(event=LeaseInJeopardy() as event):
                    since.setdefault(event.owner, record.at)
                case Seen(event=LeaseRenewed() | LeaseLapsed() as event) if event.owner in since:
                    found.append(
                        Wait(record.client, event.resource, since.pop(event.owner), record.at, "")
                    )
        found += [
            Wait(belief.client, belief.resource, since[belief.owner], belief.until, "")
            for leases in held.values()
            for belief in leases
            if belief.owner in since
        ]
        return [spell for spell in found if spell.until > spell.since]

    def _marks(self) -> list[Mark]:
        found = []
        for record in self._history:
            match record:
                case Seen(event=LeaseLapsed(resource=resource, reason=reason)):
                    found.append(Mark(record.client, resource, record.at, "lost", reason))
                case Stopped(resource=resource, why=why):
                    found.append(
                        Mark(
                            record.client,
                            resource,
                            record.at,
                            "killed" if why == "killed" else "stopped",
                            why,
                        )
                    )
        return found

    def _spells(self) -> list[Spell]:
        found = []
        last: dict[int, NodeSeen] = {}
        for record in self._history:
            if isinstance(record, NodeSeen):
                if record.node in last:
                    found.append(self._spell(last[record.node], record.at))
                last[record.node] = record
        found += [self._spell(record, self._end) for record in last.values()]
        return sorted(found, key=attrgetter("since"))

    def _spell(self, seen: NodeSeen, until: float) -> Spell:
        return Spell(seen.node, seen.at, until, seen.state, self._whose(seen.owner), seen.token)

    def _whose(self, owner: str) -> str:
        if not owner:
            return FREE
        return owner if owner in self._names else self._clients_of.get(owner[:SHOWN], STRANGER)

    @cached_property
    def _names(self) -> set[str]:
        return {record.client for record in self._history}


def _naturally(name: str) -> tuple[str, int, str]:
    """c2 before c10."""
    stem = name.rstrip("0123456789")
    digits = name[len(stem) :]
    return stem, int(digits) if digits else -1, name


def _accesses(history: Iterable[Record]) -> list[Access]:
    """The checker's rules I3, kept record by record."""
    largest: dict[str, int] = defaultdict(int)
    value: dict[str, int] = defaultdict(int)
    found = []
    for record in history:
        if not record.client:
            continue  # The campaign itself, making sure that the store has answered everybody.
        if isinstance(record, Accepted):
            resource, token = record.resource, record.token
            seen = largest[resource]
            verdict = (
                "stale"
                if token < seen
                else "lost update"
                if record.before != value[resource]
                else "accepted"
            )
            largest[resource], value[resource] = max(seen, token), record.after
            found.append(
                Access(
                    record.client,
                    resource,
                    record.at,
                    token,
                    seen,
                    verdict,
                    record.before,
                    record.after,
                )
            )
        elif isinstance(record, Refused):
            largest[record.resource] = max(largest[record.resource], record.largest)
            found.append(
                Access(
                    record.client,
                    record.resource,
                    record.at,
                    record.token,
                    record.largest,
                    "refused",
                )
            )
    return found


def _holds(held: dict[str, list[Belief]], accesses: Iterable[Access]) -> list[Hold]:
    holds = [
        Hold(
            belief.client,
            belief.resource,
            belief.token,
            belief.asked_at,
            belief.since,
            belief.until,
            max(belief.planned, belief.until),
            max(belief.until, belief.believed_at),
            belief.how,
        )
        for leases in held.values()
        for belief in leases
    ]
    holds.sort(key=attrgetter("since"))
    by_token: dict[tuple[str, str, int], list[Hold]] = defaultdict(list)
    for hold in holds:
        # To the store no token is 0.
        by_token[hold.client, hold.resource, max(0, hold.token)].append(hold)
    for access in accesses:
        for hold in reversed(by_token.get((access.client, access.resource, access.token), [])):
            if hold.since <= access.at:
                hold.acted_until = max(hold.acted_until, access.at)
                break
    return holds


def _overlaps(held: dict[str, list[Belief]]) -> list[Overlap]:
    """Every time during which two beliefs in one resource were open, as the checker measures it."""
    found = []
    for resource, leases in held.items():
        open_: list[tuple[float, int]] = []
        for index, belief in enumerate(leases):
            until = max(belief.until, belief.believed_at)
            while open_ and open_[0][0] <= belief.since + ROUNDING:
                heappop(open_)
            for other_until, other in open_:
                first = leases[other]
                found.append(
                    Overlap(
                        resource,
                        belief.since,
                        min(other_until, until),
                        (first.client, belief.client),
                        (first.token, belief.token),
                    )
                )
            heappush(open_, (until, index))
    return found
