"""A simulated process: the shipped flows, driven in virtual time by clocks of its own.

It plays the part of a driver (`redlock.core.effects` has the contract): a link per node, runs stepped by their events, ticks
at their time, renewals by the shipped schedule. A paused process hears nothing until it goes on, while its clock runs; in a
suspended one the clock that the shipped code reads runs through, and the timers sleep.
"""

from __future__ import annotations

import random
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import fields
from functools import partial
from typing import Any

from chaos.history import Seen
from chaos.sim.links import PlainLink, SimLink, WireLink
from chaos.sim.world import Connection, World
from redlock.base import CoordinatorBase
from redlock.core import events
from redlock.core.admission import Admission
from redlock.core.effects import Flow, Request, Source, Tick
from redlock.core.events import LeaseGranted, LeaseInJeopardy, LeaseLapsed
from redlock.core.extend import extend
from redlock.core.lease import Holding
from redlock.core.renewal import Renewal, Watch
from redlock.core.rounds import Cluster
from redlock.policy import Policy
from redlock.transport import clock as clock_module
from redlock.transport.link import REDIAL_MAX, Mailbox, Node
from redlock.transport.run import Run

__all__ = ["MODES", "SimClient", "SimSource"]

MODES: dict[str, type[PlainLink] | type[WireLink]] = {"plain": PlainLink, "wire": WireLink}
_ROUNDING = 1e-7
"""A tick comes this much later, so that the client's clock has certainly reached its instant."""
_LOOK_AGAIN = 1.0
"""Both drivers look again after a second: timers sleep through a suspend, and the lease clock does not."""
_TOLD_WITHIN = 0.01
_TOGETHER_MAX = 1
"""Renewals at once, few enough that some have to wait for their turn."""
_EPOCH_US = 1_800_000_000_000_000


class SimSource:
    """Randomness out of the seed, and a wall clock that may be wrong by *skew* seconds."""

    def __init__(self, world: World, seed: object) -> None:
        self._world = world
        self._random = random.Random(str(seed))
        self.skew = 0.0

    def owner(self) -> str:
        return f"{self._random.getrandbits(128):032x}"

    def below(self, limit: int) -> int:
        return int(self._random.random() * limit)

    def wall_us(self) -> int:
        return _EPOCH_US + round((self._world.now + self.skew) * 1e6)


class SimRun(Run[Any]):
    """A run, with the instant its timer is set to. *fuse*: after so many more events it is cancelled; -1: it is not.

    *missed*: the cancel came with the event that ended it, before the caller was told.
    """

    __slots__ = ("fuse", "missed", "timer_at")
    timer_at: float
    fuse: int
    missed: bool

    def drop(self) -> None:
        """The process ends under it: no last words."""
        self._flow.close()


class SimClient:
    """One process with one coordinator. *rate*, *offset*: its lease clock."""

    def __init__(
        self,
        name: str,
        world: World,
        policy: Policy,
        nodes: Sequence[int],
        *,
        mode: str,
        seed: object,
        skew: float = 0.0,
    ) -> None:
        self.name = name
        self.world = world
        self.policy = policy
        self.rate = 1.0
        self.offset = 500.0
        self.source = SimSource(world, f"{seed}/{name}")
        self.source.skew = skew
        self.paused_until = 0.0
        self.paused_for = 0.0
        """Seconds it has been paused in all."""
        self.slept_for = 0.0
        """Seconds its machine has been suspended in all: what CLOCK_MONOTONIC, and every timer, lacks."""
        self.dead = False
        self.watched: list[Holding] = []
        self.dropped: set[Holding] = set()
        self.wrongs: list[tuple[float, str, str]] = []
        self._nap: tuple[int, float] | None = None
        self._mode = mode
        self._seed = seed
        self.nodes = list(nodes)
        self._names = tuple(f"n{index}" for index in nodes)
        # Which clock the shipped code chose is its own affair; what each of them does is the world's.
        self._stands_still = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC) != clock_module._CLOCK
        self.cluster = self._make_cluster(self.source)
        self._settling = False
        self._poked = -1
        self._renewal = Renewal()
        self._renewing = 0
        self._looks_at = float("inf")
        self._retrying = False
        self.mailbox: Mailbox = deque()
        self._runs: list[SimRun] = []
        self._leases: dict[int, Any] = {}
        silence = max(1.0, 4 * self.cluster.patience)
        self.links: list[SimLink] = []
        for place, node_name in enumerate(self._names):
            node = Node(place, node_name, self.cluster.admission, self._note)
            node.on_owed = self._retry_later
            self.links.append(MODES[mode](node, self.mailbox, partial(self._dial, place), silence=silence))

    def _make_cluster(self, source: Source) -> Cluster:
        policy = self.policy
        admission = Admission(
            self._names,
            ttl=policy.ttl,
            max_ttl=policy.max_ttl,
            durable=policy.durable,
            patience=policy.node_timeout_for(policy.ttl),
            nonce=source.owner,
        )
        return Cluster(self._names, policy, source, admission, note=self._note, emit=self._note)

    @property
    def acquainted(self) -> bool:
        """Whether it has met a node of a cluster."""
        return self.cluster.admission.acquainted

    # Clocks

    def clock(self) -> float:
        """Its lease clock."""
        at = self.offset + self.world.now * self.rate
        return at - self.slept_for if self._stands_still else at

    def true_time(self, instant: float) -> float:
        """When its lease clock will show *instant*, if nothing is done to it."""
        if self._stands_still:
            instant += self.slept_for
        return (instant - self.offset) / self.rate

    def pause(self, seconds: float) -> None:
        """SIGSTOP for a while: it does nothing, and its clock runs."""
        until = max(self.paused_until, self.world.now + seconds)
        self.paused_for += until - max(self.paused_until, self.world.now)
        self.paused_until = until

    def nap(self, events: int, seconds: float) -> None:
        """SIGSTOP when so many more answers have been heard, and the next one is there."""
        self._nap = (events, seconds)

    def suspend(self, seconds: float) -> None:
        """Its machine sleeps: as a pause, and timers do not count it."""
        before = self.paused_for
        self.pause(seconds)
        self.world.at(self.paused_until, self._slept, self.paused_for - before)

    def stall(self, seconds: float) -> None:
        """As a suspend, and even the clock that runs through one stands still."""
        before = self.paused_for
        self.pause(seconds)
        self.world.at(self.paused_until, self._stalled, self.paused_for - before)

    def _stalled(self, seconds: float) -> None:
        self.offset -= seconds * self.rate

    def _slept(self, seconds: float) -> None:
        self.slept_for += seconds * self.rate

    def when_awake(self, what: Callable[..., None], *arguments: Any) -> None:
        """Do *what* now, or when the pause is over."""
        if self.paused_until > self.world.now:
            self.world.at(self.paused_until, self.when_awake, what, *arguments)
        elif not self.dead:
            what(*arguments)

    def kill(self) -> None:
        """SIGKILL: what it wrote may still arrive."""
        self.dead = True
        for run in self._runs:
            run.drop()
        for link in self.links:
            link.close()

    def fork(self, name: str, holdings: Sequence[Holding]) -> tuple[SimClient, list[Holding]]:
        """A child, and what the leases of its parent are in it: the shipped code decides that."""
        child = SimClient(name, self.world, self.policy, self.nodes, mode=self._mode, seed=self._seed, skew=self.source.skew)
        child.rate, child.offset, child.slept_for = self.rate, self.offset, self.slept_for
        copies = [copy(holding) for holding in holdings]
        handles = [_Handle() for _ in copies]
        stand_in = _Coordinator(child, {id(held): (held, weakref.ref(it)) for held, it in zip(copies, handles, strict=True)})
        CoordinatorBase._after_fork(stand_in)  # type: ignore[arg-type]
        return child, copies

    # Flows

    def start(self, make: Callable[[float], Flow[Any]], ended: Callable[[SimRun], None], *, fuse: int = -1) -> SimRun:
        """Run a flow; *ended* gets its run."""
        run = SimRun(make(self.clock()), self, self.clock, lambda: self.world.at(self.world.now, self._tell, run, ended))
        run.timer_at = float("inf")
        run.fuse = fuse
        run.missed = False
        self._runs.append(run)
        run.begin()
        self._went_on(run)
        self._settle()
        return run

    def cancel(self, run: Run[Any]) -> None:
        """The caller went away."""
        run.cancel()
        self._settle()

    def write(self, requests: Sequence[Request]) -> None:
        """Write requests whose answers nobody waits for."""
        self.send(requests, None)
        self._settle()

    def _tell(self, run: SimRun, ended: Callable[[SimRun], None]) -> None:
        self._runs.remove(run)
        self.when_awake(ended, run)

    def send(self, requests: Sequence[Request], run: Run[Any] | None) -> None:
        """Write what a flow asked for."""
        now = self.clock()
        links = self.links
        for request in requests:
            request.run = run
            links[request.node].submit(request, now)

    def _settle(self) -> None:
        if self._settling:
            return
        self._settling = True
        mailbox, admission = self.mailbox, self.cluster.admission
        while True:
            while mailbox:
                event = mailbox.popleft()
                run = event.request.run
                if run is not None and run.hears(self):
                    run.step(event)
                    if run.fuse >= 0 or run.timer_at != run.wait.until:
                        self._went_on(run)
            if self._poked == admission.changes:
                break
            self._poke()
        self._settling = False

    def _went_on(self, run: SimRun) -> None:
        if run.fuse >= 0:
            run.fuse -= 1
            if run.fuse < 0:
                run.missed = run.done
                run.cancel()
        if run.done:
            return
        until = run.wait.until
        if run.timer_at != until and until != float("inf"):
            run.timer_at = until
            self._arm(until, self._tick, run, until)

    def _arm(self, until: float, what: Callable[..., None], *arguments: Any) -> None:
        """Call *what* when the lease clock shows *until*; a suspend meanwhile makes it late, by a second at most."""
        when = self.true_time(until) + _ROUNDING
        self.world.at(when, self._fire, self.slept_for, what, *arguments)

    def _fire(self, slept_for: float, what: Callable[..., None], *arguments: Any) -> None:
        if self.paused_until > self.world.now:
            self.world.at(self.paused_until, self._fire, slept_for, what, *arguments)
        elif self.slept_for != slept_for:
            late = min(self.slept_for - slept_for, _LOOK_AGAIN)
            self.world.at(self.world.now + late, self._fire, self.slept_for, what, *arguments)
        elif not self.dead:
            what(*arguments)

    def _tick(self, run: SimRun, until: float) -> None:
        if run.done or run.timer_at != until or run.wait.until != until:
            return
        run.timer_at = float("inf")
        now = self.clock()
        if now >= until:
            run.step(Tick(now))
        self._went_on(run)
        self._poke()
        self._settle()

    def _poke(self) -> None:
        self._poked = self.cluster.admission.changes
        for link in self.links:
            link.poke(self.clock())

    # Renewals

    def watch(self, holding: Holding, *, renew: bool) -> None:
        """Say when the lease is lost, and *renew* it until then."""
        watch = Watch(holding, self._lapsed, ttl=holding.ttl if renew else None, now=self.clock())
        self.watched.append(holding)
        self._renewal.add(watch)
        self._look(self._renewal.next_at)

    def _look(self, at: float) -> None:
        if at < self._looks_at:
            self._looks_at = at
            self._arm(at, self._renew_due, at)

    def _renew_due(self, at: float) -> None:
        if at != self._looks_at:
            return
        self._looks_at = float("inf")
        due, lost = self._renewal.due(self.clock(), max(0, _TOGETHER_MAX - self._renewing))
        for watch in lost:
            watch.lapsed(watch.holding)
        for watch in due:
            self._renewing += 1
            self.start(partial(self._renew, watch), partial(self._renewed, watch))
        if self._renewal:
            self._look(self._renewal.next_at)

    def _renew(self, watch: Watch, at: float) -> Flow[None]:
        return extend(self.cluster, watch.holding, watch.ttl or watch.holding.ttl, at)

    def _renewed(self, watch: Watch, run: SimRun) -> None:
        self._renewing -= 1
        holding, error = watch.holding, run.error
        if self._renewal.extended(watch, error, self.clock()):
            watch.lapsed(holding)
        elif error is not None and holding.held(self.clock()):
            until = holding.valid_until
            self._note(LeaseInJeopardy(self.clock(), holding.resource, holding.owner, holding.token, until, str(error)))
        self._look(self.clock() if self._renewal.ready else self._renewal.next_at)

    def _lapsed(self, holding: Holding) -> None:
        if not holding.told:
            holding.told = True
            late = self.world.now - max(self.true_time(holding.valid_until), self.paused_until)
            if holding in self.watched and late > _LOOK_AGAIN + _TOLD_WITHIN:
                text = f"{self.name} was told {late:.3f} s after its end that token {holding.token} is lost"
                self.wrongs.append((self.world.now, "R3: a holder knows in time", text))
            self._note(LeaseLapsed(self.clock(), holding.resource, holding.owner, holding.token, holding.reason))

    def untold(self) -> list[Holding]:
        """Watched leases that ended without anybody being told."""
        now = self.clock()
        ended = [holding for holding in self.watched if holding.valid_until < now - _LOOK_AGAIN and not holding.told]
        return [holding for holding in ended if not holding.freed and holding not in self.dropped]

    # Connections

    def _dial(self, place: int) -> None:
        index = self.nodes[place]
        link = self.links[place]
        self.world.connect(
            self.name,
            index,
            link.serve(self.world.nodes[index]),
            partial(self._when_heard, link),
            partial(self.when_awake, self._closed, link),
            partial(self.when_awake, self._dialled, link),
        )

    def _dialled(self, link: SimLink, connection: Connection | None) -> None:
        link.dialled(connection, self.clock())
        self._settle()

    def _when_heard(self, link: SimLink, connection: Connection, payload: Any) -> None:
        if self._nap is not None:
            self._doze(*self._nap)
        if self.paused_until > self.world.now:
            self.world.at(self.paused_until, self._when_heard, link, connection, payload)
        elif not self.dead:
            link.received(connection, payload, self.clock())
            if self.mailbox or self._poked != self.cluster.admission.changes:
                self._settle()

    def _doze(self, events: int, seconds: float) -> None:
        self._nap = (events - 1, seconds) if events else None
        if not events:
            self.pause(seconds)

    def _closed(self, link: SimLink, connection: Connection, why: str) -> None:
        link.closed(connection, why, self.clock())
        self._settle()

    def _retry_later(self) -> None:
        if not self._retrying:
            self._retrying = True
            self.world.at(self.world.now + REDIAL_MAX, self.when_awake, self._retry)

    def _retry(self) -> None:
        self._retrying = False
        now = self.clock()
        for link in self.links:
            link.node.forgive(now)
            link.retry(now)
        if any(link.node.owed for link in self.links):
            self._retry_later()
        self._settle()

    # What the library tells

    def _note(self, event: events.Event) -> None:
        """Into the history, with its instants on the true clock."""
        kind, now = type(event), self.world.now
        names, instants = _FIELDS[kind]
        values = [getattr(event, name) for name in names]
        for place in instants:
            if values[place] is not None:
                values[place] = self.true_time(values[place])
        self.world.history.append(Seen(now, self.name, kind(now, *values)))
        if kind is LeaseGranted:
            self.world.granted(self.name, values[1], values[2], len(self.nodes))
        elif kind is events.TryFailed:
            self.world.failed(self.name, values[0], values[1])


def _fields(kind: type[events.Event]) -> tuple[list[str], list[int]]:
    """The names of all fields but the first, and which of them are instants."""
    names = [field.name for field in fields(kind)][1:]
    return names, [place for place, name in enumerate(names) if name in ("sent_at", "valid_until", "until")]


_FIELDS = {kind: _fields(kind) for kind in events.Event.__subclasses__()}


class _Handle:
    """What a fork does to a lease's handle: nothing of it is looked at here."""

    def _orphaned(self) -> None:
        return


class _Coordinator:
    """As much of a coordinator as `CoordinatorBase._after_fork` reads and writes."""

    def __init__(self, child: SimClient, leases: dict[int, Any]) -> None:
        self._child = child
        self._leases = leases
        self._entropy = self

    def reset(self) -> None:
        """The child's randomness is its own from the start."""

    def _make_cluster(self, source: object) -> Cluster:
        return self._child.cluster
