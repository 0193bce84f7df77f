"""One scenario on its way: its clients and servers, what is broken right now, and everything that
was said.

A script breaks, waits for what must follow, heals, and claims. Every wait is for an event of the
history; the only spans of time in a script are those for which a fault lasts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from chaos.history import Broken, Called, Healed, Note, Record, Seen, Stopped
from chaos.live.backend import Node, side_client
from chaos.live.cluster import Cluster
from chaos.live.crew import PATIENCE, Journal, Member, Timeout
from chaos.live.nemesis import Nemesis
from redlock.core.commands import FENCE_SUFFIX, MARKER_KEY
from redlock.core.events import LeaseGranted, LeaseLapsed, LeaseReleasing, LeaseRenewed
from redlock.transport.clock import now

__all__ = ["Claim", "Injection", "Phase", "Play"]


@dataclass(frozen=True, slots=True)
class Claim:
    """Something a scenario must show beyond the absence of violations."""

    text: str
    holds: bool
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Injection:
    """How long it took to break or heal something. *size*: "link", "node", "client" or "many"."""

    size: str
    fault: str
    took: float
    heals: bool


@dataclass(slots=True)
class Phase:
    """A span of the run: "before", "during" or "after" the faults."""

    name: str
    since: float
    until: float = float("inf")


@dataclass(slots=True)
class Play:
    """What a script sees. *tell*: progress, a line at a time. *ttl*: of the clients."""

    cluster: Cluster
    members: Mapping[str, Member]
    journal: Journal
    resource: str
    ttl: float
    seed: int
    tell: Callable[[str], None] = lambda line: None
    claims: list[Claim] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    injections: list[Injection] = field(default_factory=list)
    kept: dict[tuple[str, int], Any] = field(default_factory=dict)
    respawn: Callable[[str], None] = lambda name: None
    """Put a new process in the place of a killed client."""
    _active: dict[str, Nemesis] = field(default_factory=dict)
    _count: int = 0
    _ending: threading.Event = field(default_factory=threading.Event)

    # Time

    def enter(self, name: str) -> None:
        """A phase begins, and the last one ends."""
        self.leave()
        self.phases.append(Phase(name, now()))

    def leave(self) -> None:
        """The phase ends here; what follows until the next one, such as the healing itself, is
        of none."""
        if self.phases:
            self.phases[-1].until = min(self.phases[-1].until, now())

    def now(self) -> float:
        """The clock of the history."""
        return now()

    def last(self, seconds: float) -> None:
        """Let it go on for *seconds*: the length of a fault, or of a look at a healthy cluster."""
        self._ending.wait(seconds)

    # Faults

    def inflict(self, nemesis: Nemesis) -> str:
        """Break something until `heal`; the name of the fault."""
        self._count += 1
        fault = f"{nemesis.name}-{self._count}"
        began = now()
        self.journal.add(Broken(began, "", fault, nemesis.what, nemesis.nodes, nemesis.clients))
        self._active[fault] = nemesis
        self._progress()
        nemesis.start(self, fault)
        self.injections.append(Injection(nemesis.size, nemesis.name, now() - began, heals=False))
        if nemesis.momentary:
            del self._active[fault]
            self.journal.add(Healed(now(), "", fault))
        return fault

    def heal(self, fault: str) -> None:
        """Heal one fault."""
        nemesis = self._active.pop(fault, None)
        if nemesis is None:
            return
        began = now()
        nemesis.stop(self, fault)
        self.injections.append(Injection(nemesis.size, nemesis.name, now() - began, heals=True))
        self.journal.add(Healed(now(), "", fault))
        self._progress()

    def heal_all(self) -> None:
        """Heal what is still broken, the last first."""
        for fault in reversed(list(self._active)):
            self.heal(fault)

    @contextmanager
    def broken(self, *faults: Nemesis) -> Iterator[None]:
        """Broken inside the block."""
        names = [self.inflict(nemesis) for nemesis in faults]
        try:
            yield
        finally:
            for name in reversed(names):
                self.heal(name)

    def _progress(self) -> None:
        self.tell("; ".join(nemesis.what for nemesis in self._active.values()) or "all is well")

    # Clients

    def client(self, name: str) -> Member:
        """The client of that name."""
        return self.members[name]

    def end(self, *clients: str) -> None:
        """End the tasks of these clients, and wait for it."""
        since = self.here()
        for name in clients:
            self.members[name].tell_end()
        for name in clients:
            self.members[name].await_end(since)

    def stopped(self, record: Stopped) -> None:
        """Note that a belief ended with its process."""
        self.journal.add(record)

    def beliefs_of(self, client: str) -> Iterable[tuple[str, int]]:
        """Leases that *client* was granted, and that have not ended as far as it told."""
        held: dict[tuple[str, int], None] = {}
        for record in self.journal.records():
            if isinstance(record, Seen) and record.client == client:
                event = record.event
                if isinstance(event, LeaseGranted):
                    held[event.resource, event.fencing_token] = None
                elif isinstance(event, LeaseReleasing | LeaseLapsed):
                    held.pop((event.resource, event.fencing_token), None)
        return list(held)

    # Waiting

    def here(self) -> int:
        """A place in the journal: what is heard from now on comes after it."""
        return len(self.journal)

    def wait(
        self,
        wanted: Callable[[Record], object],
        what: str,
        *,
        since: int = 0,
        timeout: float = PATIENCE,
    ) -> Record:
        """The first wanted record from *since* on. Raises `Timeout`, which makes the scenario
        fail."""
        return self.journal.wait(wanted, since=since, timeout=timeout, what=what)

    def granted(
        self, *clients: str, since: int = 0, count: int = 1, resource: str | None = None
    ) -> LeaseGranted:
        """Wait for *count* grants to one of *clients* (none named: to anybody); the last of
        them."""

        def wanted(record: Record) -> bool:
            return (
                isinstance(record, Seen)
                and isinstance(record.event, LeaseGranted)
                and (not clients or record.client in clients)
                and record.event.resource == (resource or self.resource)
            )

        what = f"a grant to {' or '.join(clients) or 'anybody'}"
        for _ in range(count):
            place = self.journal.find(wanted, since=since, what=what)
            since = place + 1
        record = self.journal[place]
        assert isinstance(record, Seen) and isinstance(record.event, LeaseGranted)
        return record.event

    def lapsed(self, client: str, *, since: int = 0) -> LeaseLapsed:
        """Wait until *client* told that it lost its lease."""

        def wanted(record: Record) -> bool:
            return (
                isinstance(record, Seen)
                and record.client == client
                and isinstance(record.event, LeaseLapsed)
            )

        record = self.wait(wanted, f"{client} to lose its lease", since=since)
        assert isinstance(record, Seen) and isinstance(record.event, LeaseLapsed)
        return record.event

    def stepped_down(self, client: str, *, since: int = 0) -> LeaseLapsed | LeaseReleasing:
        """Wait until *client* is told that it lost its lease, or sees for itself and gives it
        back."""
        found: LeaseLapsed | LeaseReleasing = self.event(
            (LeaseLapsed, LeaseReleasing), client, since=since
        )
        return found

    def note(self, kind: str, client: str, *, since: int = 0) -> Note:
        """Wait for a note."""

        def wanted(record: Record) -> bool:
            return isinstance(record, Note) and record.kind == kind and record.client == client

        record = self.wait(wanted, f"{client} to say {kind}", since=since)
        assert isinstance(record, Note)
        return record

    def event(
        self,
        kind: type | tuple[type, ...],
        *clients: str,
        since: int = 0,
        where: Callable[[Any], object] = lambda event: True,
    ) -> Any:
        """Wait for an event of the library."""

        def wanted(record: Record) -> bool:
            return (
                isinstance(record, Seen)
                and isinstance(record.event, kind)
                and (not clients or record.client in clients)
                and bool(where(record.event))
            )

        record = self.wait(
            wanted, f"{_kinds(kind)} at {' or '.join(clients) or 'anybody'}", since=since
        )
        assert isinstance(record, Seen)
        return record.event

    def called(self, call: str, outcome: str, *clients: str, since: int = 0) -> Called:
        """Wait for a call to return with an outcome that starts so."""

        def wanted(record: Record) -> bool:
            return (
                isinstance(record, Called)
                and record.call == call
                and record.outcome.startswith(outcome)
                and (not clients or record.client in clients)
            )

        record = self.wait(
            wanted, f"{call} to be {outcome} at {' or '.join(clients) or 'anybody'}", since=since
        )
        assert isinstance(record, Called)
        return record

    # Servers

    def keys(self, resource: str | None = None) -> dict[int, str]:
        """Who holds the lock on which node, as the nodes say; an empty dict: nobody anywhere."""
        found: dict[int, str] = {}
        for node in self.cluster.backend.nodes:
            held = _read(node, f"redlock:{resource or self.resource}")
            if held is not None:
                found[node.number] = held
        return found

    def until(self, condition: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
        """Wait for what only a look at the servers can tell."""
        give_up_at = now() + timeout
        while not condition():
            if now() > give_up_at:
                raise Timeout(f"{what} did not happen within {timeout:g} s")
            self._ending.wait(0.01)

    def leftovers(self) -> dict[int, list[str]]:
        """Every lock key on every node."""
        found: dict[int, list[str]] = {}
        for node in self.cluster.backend.nodes:
            with side_client(node) as client:
                keys = [key.decode("utf-8", "replace") for key in client.scan_iter(count=1000)]
            locks = [
                key
                for key in keys
                if key != MARKER_KEY
                and not key.endswith(FENCE_SUFFIX)
                and key.startswith("redlock:")
            ]
            if locks:
                found[node.number] = locks
        return found

    # What it comes to

    def claim(self, text: str, holds: object, evidence: str = "") -> None:
        """The scenario shows *text*, or fails."""
        self.claims.append(Claim(text, bool(holds), evidence))

    def renewed(self, client: str, *, since: int = 0) -> LeaseRenewed:
        """Wait for a renewal."""
        found: LeaseRenewed = self.event(LeaseRenewed, client, since=since)
        return found


def _kinds(kind: type | tuple[type, ...]) -> str:
    return " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))


def _read(node: Node, key: str) -> str | None:
    with side_client(node) as client:
        value: Any = client.get(key)
        return None if value is None else value.decode("utf-8", "replace")


def fresh_names(count: int) -> Sequence[str]:
    """c1, c2, ..."""
    return tuple(f"c{number}" for number in range(1, count + 1))
