"""A simulated process: the shipped flows and links, driven in virtual time by clocks of its own.

It plays the part of a driver (`redlock.core.effects` has the contract): a link per node, runs stepped by their events,
ticks at their time. A paused client hears nothing until it goes on, while its clock runs; a suspended one finds that its
clock ran through (CLOCK_BOOTTIME), or, in the mutant, that it did not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from chaos.history import Seen
from chaos.sim.world import Connection, World
from redlock.core import events
from redlock.core.admission import Admission
from redlock.core.effects import Flow, Request, Tick
from redlock.core.quorum import Fault, FaultKind
from redlock.core.rounds import Cluster
from redlock.policy import Policy
from redlock.transport.link import REDIAL_MAX, Link, Mailbox, Node
from redlock.transport.run import Run

__all__ = ["SimClient", "SimSource"]


_INSTANTS: dict[type[events.Event], tuple[str, ...]] = {
    events.LeaseGranted: ("sent_at", "valid_until"),
    events.LeaseRenewed: ("valid_until",),
    events.LeaseInJeopardy: ("valid_until",),
}
_ROUNDING = 1e-7
"""A tick comes this much later, so that the client's clock has certainly reached its instant."""


class SimSource:
    """Randomness out of the seed, and a wall clock that may be wrong by *skew* seconds."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.skew = 0.0

    def owner(self) -> str:
        return f"{self._world.random.getrandbits(128):032x}"

    def below(self, limit: int) -> int:
        return int(self._world.random.random() * limit)

    def wall_us(self) -> int:
        return 1_800_000_000_000_000 + round((self._world.now + self.skew) * 1e6)


class SimClient:
    """One process with one coordinator. *rate*, *offset*: its lease clock."""

    def __init__(self, name: str, world: World, policy: Policy, nodes: Sequence[int]) -> None:
        self.name = name
        self.world = world
        self.policy = policy
        self.rate = 1.0
        self.offset = world.random.random() * 1000.0
        self.source = SimSource(world)
        self.paused_until = 0.0
        self._nodes = list(nodes)
        names = tuple(f"n{index}" for index in nodes)
        self.admission = Admission(
            names, ttl=policy.ttl, max_ttl=policy.max_ttl, durable=policy.durable, patience=policy.node_timeout_for(policy.ttl)
        )
        self.cluster = Cluster(names, policy, self.source, self.admission, note=self._note, emit=self._note)
        self._mailbox: Mailbox = deque()
        self.nodes = [Node(place, node, self.admission, self._note) for place, node in enumerate(names)]
        for node in self.nodes:
            node.on_owed = self._retry_later
        self._retrying = False
        silence = max(1.0, 4 * self.cluster.patience)
        self.links = [Link(node, self._mailbox, partial(self._dial, node.index), silence=silence) for node in self.nodes]
        self._connections: list[Connection | None] = [None] * len(names)
        self._timers: dict[int, float] = {}
        self._settling = False
        self._poked = -1

    # Clocks

    def clock(self) -> float:
        """Its lease clock."""
        return self.offset + self.world.now * self.rate

    def true_time(self, instant: float) -> float:
        """When its lease clock will show *instant*, if nothing is done to it."""
        return (instant - self.offset) / self.rate

    def pause(self, seconds: float) -> None:
        """SIGSTOP for a while: it does nothing, and its clock runs."""
        self.paused_until = max(self.paused_until, self.world.now + seconds)

    def when_awake(self, what: Callable[[], None]) -> None:
        """Do *what* now, or when the pause is over."""
        if self.paused_until > self.world.now:
            self.world.at(self.paused_until, partial(self.when_awake, what))
        else:
            what()

    # Flows

    def start(self, make: Callable[[float], Flow[Any]], ended: Callable[[Run[Any]], None]) -> Run[Any]:
        """Run a flow; *ended* gets its run."""
        run: Run[Any] = Run(
            make(self.clock()), self, self.clock, lambda: self.world.at(self.world.now, partial(self._tell, run, ended))
        )
        run.begin()
        self._went_on(run)
        self._settle()
        return run

    def cancel(self, run: Run[Any]) -> None:
        """The caller went away."""
        run.cancel()
        self._settle()

    def _tell(self, run: Run[Any], ended: Callable[[Run[Any]], None]) -> None:
        self.when_awake(partial(ended, run))

    def send(self, requests: Sequence[Request], run: Run[Any] | None) -> None:
        """Write what a flow asked for."""
        now = self.clock()
        for request in requests:
            request.run = run
            link = self.links[request.node]
            if not request.command.final and link.overdue(now):
                self._lose(request.node, Fault(FaultKind.SILENT, "did not answer"))
            self._write(request.node, link.submit(request, now))
            if link.broken is not None:
                self._lose(request.node, link.broken)

    def _settle(self) -> None:
        if self._settling:
            return
        self._settling = True
        mailbox = self._mailbox
        while True:
            while mailbox:
                event = mailbox.popleft()
                run = event.request.run
                if run is not None and run.hears(self):
                    run.step(event)
                    self._went_on(run)
            if self._poked == self.admission.changes:
                break
            self._poke()
        self._settling = False

    def _went_on(self, run: Run[Any]) -> None:
        until = run.wait.until
        if not run.done and self._timers.get(id(run)) != until and until != float("inf"):
            self._timers[id(run)] = until
            when = max(self.true_time(until), self.world.now) + _ROUNDING
            self.world.at(when, partial(self.when_awake, partial(self._tick, run, until)))
        elif run.done:
            self._timers.pop(id(run), None)

    def _tick(self, run: Run[Any], until: float) -> None:
        if run.done or run.wait.until != until or self._timers.get(id(run)) != until:
            return
        del self._timers[id(run)]
        if self.clock() >= until:
            run.step(Tick(self.clock()))
        self._went_on(run)
        self._poke()
        self._settle()

    def _poke(self) -> None:
        self._poked = self.admission.changes
        for index, link in enumerate(self.links):
            if link.waiting:
                self._write(index, link.poke(self.clock()))

    # Connections

    def _dial(self, place: int) -> None:
        state: dict[str, Connection] = {}

        def received(data: bytes) -> None:
            self.when_awake(partial(self._received, place, state["connection"], data))

        def closed(why: str) -> None:
            self.when_awake(partial(self._closed, place, state["connection"], why))

        def done(connection: Connection | None) -> None:
            if connection is not None:
                state["connection"] = connection
            self.when_awake(partial(self._dialled, place, connection))

        self.world.connect(self.name, self._nodes[place], received, closed, done)

    def _dialled(self, place: int, connection: Connection | None) -> None:
        link = self.links[place]
        if connection is None:
            link.dial_failed(Fault(FaultKind.UNREACHABLE, "refused the connection"), self.clock())
        else:
            self._connections[place] = connection
            self._write(place, link.connected(self.clock(), owed=list(link.node.owed)))
        self._settle()

    def _retry_later(self) -> None:
        if not self._retrying:
            self._retrying = True
            self.world.at(self.world.now + REDIAL_MAX, partial(self.when_awake, self._retry))

    def _retry(self) -> None:
        self._retrying = False
        for link in self.links:
            link.retry(self.clock())
        if any(node.owed for node in self.nodes):
            self._retry_later()
        self._settle()

    def _received(self, place: int, connection: Connection, data: bytes) -> None:
        if self._connections[place] is not connection:
            return
        link = self.links[place]
        self._write(place, link.received(data, self.clock()))
        if link.broken is not None:
            self._lose(place, link.broken)
        self._settle()

    def _closed(self, place: int, connection: Connection, why: str) -> None:
        if self._connections[place] is connection:
            self._connections[place] = None
            self.links[place].lost(Fault(FaultKind.LOST, why), self.clock())
            self._settle()

    def _lose(self, place: int, fault: Fault) -> None:
        connection, self._connections[place] = self._connections[place], None
        if connection is not None:
            connection.close()
        self.links[place].lost(fault, self.clock())

    def _write(self, place: int, data: bytes) -> None:
        connection = self._connections[place]
        if data and connection is not None:
            connection.send(data)

    def _note(self, event: events.Event) -> None:
        world = self.world
        world.history.append(Seen(world.now, self.name, self._on_the_true_clock(event)))

    def _on_the_true_clock(self, event: events.Event) -> events.Event:
        moved = {name: self.true_time(getattr(event, name)) for name in _INSTANTS.get(type(event), ())}
        return replace(event, at=self.world.now, **moved)
