"""A simulated process: the shipped flows, driven in virtual time by clocks of its own.

It plays the part of a driver (`redlock.core.effects` has the contract): sets of links (`sets.py`),
runs stepped by their events, ticks at their time, renewals by the shipped schedule. A paused
process hears nothing until it goes on, while its clock runs; in a suspended one the clock that the
shipped code reads runs through, and the timers sleep.
"""

from __future__ import annotations

import random
import time
import weakref
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import fields
from functools import partial
from typing import Any, Protocol

import hiredis

from chaos.history import Called, Seen
from chaos.sim.links import MODES, serve_bytes
from chaos.sim.sets import Ended, SimSet, SimSets
from chaos.sim.world import EARS, Connection, World
from redlock.base import CoordinatorBase
from redlock.core import events
from redlock.core.admission import Admission
from redlock.core.commands import MARKER_KEY
from redlock.core.effects import NEVER, Event, Flow, Request, Source, Wait
from redlock.core.events import LeaseGranted, LeaseLapsed
from redlock.core.lease import Holding
from redlock.core.line import Lines
from redlock.core.policy import Policy
from redlock.core.release import abandon
from redlock.core.renewal import Watch
from redlock.core.rounds import Cluster
from redlock.errors import QuorumUnavailable, RedlockError
from redlock.transport import clock as clock_module
from redlock.transport.ear import Ear, Hearing
from redlock.transport.node import Node
from redlock.transport.renewals import Renewals
from redlock.transport.run import Run, saturated

__all__ = ["MODES", "SimClient", "SimSource"]

_ROUNDING = 1e-7
"""A tick comes this much later, so that the client's clock has certainly reached its instant."""
_LOOK_AGAIN = 1.0
"""Both drivers look again after a second: timers sleep through a suspend, and the lease clock
does not."""
_TOLD_WITHIN = 0.01
_TOGETHER_MAX = 1
"""Renewals at once, few enough that some have to wait for their turn."""
_CALM = 2.0
"""Seconds without any fault after which a close may be expected to leave nothing on any node."""
_LONGEST_TTL = 60.0
"""As if somebody had asked for such a lock: no release is struck off in a run because it is too
old to matter."""
_LOOK = 0.002
"""Between two looks of a close at what is still under way, as in both drivers."""
_EPOCH_US = 1_800_000_000_000_000


class Candidate(Protocol):
    """As much of a candidate as a close looks at."""

    @property
    def over(self) -> bool:
        """Whether nothing of it is waited for any more."""

    def close(self) -> None:
        """End what is under way, for good."""


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
    """A run of a simulated caller. *fuse*: after so many more events it is cancelled; -1: it is
    not.

    *missed*: the cancel came with the event that ended it, before the caller was told. *carried*:
    the set that it uses, or used last; *late*: the nodes that owed an answer on the set that it
    would rather have had. *vital*: a close does not cancel it.
    """

    __slots__ = ("carried", "client", "fuse", "give_up_at", "goes_on", "late", "missed", "vital")
    goes_on: Wait | None
    """The pause that is over, for one who waits for a set to go on with."""
    client: SimClient
    fuse: int
    missed: bool
    carried: SimSet
    late: list[int]
    give_up_at: float
    vital: bool

    def begin(self) -> None:
        super().begin()
        self._burn()

    def step(self, event: Event) -> None:
        super().step(event)
        self._burn()

    def paused(self) -> None:
        client, bell = self.client, self.wait.bell
        client.lend(self)
        if bell is not None:
            bell.wake = partial(client.rung, self, self.wait)
            client.listen()
            if bell.rung:
                bell.wake()

    def _burn(self) -> None:
        if self.fuse >= 0:
            self.fuse -= 1
            if self.fuse < 0:
                self.missed = self.done
                self.cancel()

    def drop(self) -> None:
        """The process ends under it: no last words."""
        self._flow.close()

    def fail(self, error: BaseException) -> None:
        """End it now: it writes its last requests, and its caller gets *error*."""
        if not self.done:
            self.cancel()
            self.error = error


def _lazily(make: Callable[[float], Flow[Any]], clock: Callable[[], float]) -> Flow[Any]:
    """The flow that *make* makes of the instant at which it begins."""
    return (yield from make(clock()))


def _refused(at: float) -> Flow[Any]:
    """What anybody gets from a client that is closed."""
    raise RedlockError("this Redlock is closed")
    yield


def _writing(requests: Sequence[Request]) -> Flow[None]:
    """Requests whose answers nobody waits for."""
    yield Wait(NEVER, tuple(requests))


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
        sets: int = 0,
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
        """Seconds its machine has been suspended in all: what CLOCK_MONOTONIC, and every timer,
        lacks."""
        self.dead = False
        self.closing = False
        """Whether `close` was called: new work is refused."""
        self.starved = ""
        """What it has none of, and so cannot dial: "threads" or "descriptors"."""
        self.leases: dict[str, Holding] = {}
        """By owner, those that somebody has in hand; and `sets_of`, by owner, the sets that
        carried their acquires."""
        self.sets_of: dict[str, SimSet] = {}
        self.watched: list[Holding] = []
        self.dropped: set[Holding] = set()
        self.wrongs: list[tuple[float, str, str]] = []
        self._nap: tuple[int, float] | None = None
        self._close_began_at = 0.0
        self._closed_at: float | None = None
        self.candidates: list[Candidate] = []
        """Who of its threads or tasks stands for election."""
        self.leaving = False
        """Whether `close` was called, and its candidates are to end first."""
        self.mode = mode
        self._sets_max = sets
        self._seed = seed
        self.nodes = list(nodes)
        self.led: dict[int, int] = {}
        """By place, the server to which a name leads by mistake."""
        self.misled: set[int] = set()
        """Servers that were ever under another name here: a release may have gone to the other
        one."""
        self._names = tuple(f"n{index}" for index in nodes)
        # Which clock the shipped code chose is its own affair; what each of them does is the
        # world's.
        self._stands_still = (
            getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC) != clock_module._CLOCK
        )
        self.cluster = self._make_cluster(self.source)
        self.cluster.longest_ttl = _LONGEST_TTL
        self._runs: list[SimRun] = []
        self.shared_nodes = [
            Node(place, node_name, self.cluster.admission, self._note)
            for place, node_name in enumerate(self._names)
        ]
        for node in self.shared_nodes:
            node.owed_for = self.cluster.owed_for
        self.sets = SimSets(self, sets)
        home = self.sets.home.linkset
        for node in self.shared_nodes:
            node.on_owed = home.owed
        self.hearing = Hearing(self.cluster.lines, len(self.nodes))
        make_ear = partial(Ear, self.hearing)
        self.ears = SimSet(self, EARS, shared=not self.sets.threads, make_link=make_ear)
        """Always read by a loop; of threads, by one of those that wait in line."""
        self._renewals = Renewals(self.clock, self.cluster, together=_TOGETHER_MAX)
        self._renewals.move(home)

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
        # Not from the source, whose draws are the same with a queue and without.
        name = random.Random(f"{self._seed}/{self.name}/line").getrandbits(64)
        return Cluster(
            self._names,
            policy,
            source,
            admission,
            note=self._note,
            emit=self._note,
            lines=Lines(f"{name:016x}"),
        )

    @property
    def gone(self) -> bool:
        """Whether it was killed or closed."""
        return self.dead or self.closing or self.leaving

    @property
    def acquainted(self) -> bool:
        """Whether it has met a node of a cluster."""
        return self.cluster.admission.acquainted

    def knows(self, node: int) -> bool:
        """Whether it trusts what is behind the name of *node* now."""
        if node not in self.nodes:
            return True
        place, server = self.nodes.index(node), self.world.nodes[node]
        trusted = self.cluster.admission._records[place].trusted
        marker = server.data.get(MARKER_KEY)
        return trusted is not None and marker is not None and trusted.text() == marker[0]

    def mislead(self, led: dict[int, int]) -> None:
        """From now on the names of the nodes *led* lead to those servers, and whatever is
        connected there is dialled again."""
        places = {
            self.nodes.index(node): server for node, server in led.items() if node in self.nodes
        }
        self.misled.update(places.values(), (self.nodes[place] for place in places))
        self.led = places
        self._redial()

    def find(self) -> None:
        """All names lead to their own servers again."""
        self.led = {}
        self._redial()

    def _redial(self) -> None:
        for node in self.misled:
            for connection in self.world.connections(self.name, node):
                connection.reset(late=False)

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

    def stay_awake(self) -> None:
        """All is healed: a nap that has not begun would keep it from what must happen then."""
        self._nap = None

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
        for connections in self.sets.all:
            connections.close()
        self.ears.close()

    def fork(self, name: str, holdings: Sequence[Holding]) -> tuple[SimClient, list[Holding]]:
        """A child, and what the leases of its parent are in it: the shipped code decides that."""
        skew, sets = self.source.skew, self._sets_max
        child = SimClient(
            name,
            self.world,
            self.policy,
            self.nodes,
            mode=self.mode,
            seed=self._seed,
            skew=skew,
            sets=sets,
        )
        child.rate, child.offset, child.slept_for = self.rate, self.offset, self.slept_for
        copies = [copy(holding) for holding in holdings]
        handles = [_Handle() for _ in copies]
        stand_in = _Coordinator(
            child,
            {id(held): (held, weakref.ref(it)) for held, it in zip(copies, handles, strict=True)},
        )
        CoordinatorBase._after_fork(stand_in)  # type: ignore[arg-type]
        return child, copies

    # Flows

    def start(
        self,
        make: Callable[[float], Flow[Any]],
        ended: Callable[[SimRun], None],
        *,
        fuse: int = -1,
        prefer: SimSet | None = None,
        give_up_at: float = float("inf"),
        vital: bool = False,
    ) -> SimRun:
        """Run a flow; *ended* gets its run.

        *prefer*: the set to use if it is free; *give_up_at*: until when to wait for one; *vital*:
        it is part of a close.
        """
        late: list[int] = []
        home, refused = self.sets.home, self.closing and (not vital or self._closed_at is not None)
        connections = home if refused else self.sets.check_out(prefer, late)
        if refused:
            make = _refused
        flow = _lazily(make, self.clock) if connections is None else make(self.clock())
        run = SimRun(
            flow,
            (connections or home).linkset,
            self.clock,
            lambda: self.world.at(self.world.now, self._tell, run, ended),
        )
        run.client, run.fuse, run.missed, run.vital = self, fuse, False, vital
        run.goes_on = None
        run.carried, run.late, run.give_up_at = connections or home, late, give_up_at
        self._runs.append(run)
        if connections is None:
            run.move(None)
            self._queue_up(run, partial(self._begin, run))
        else:
            connections.linkset.begin(run)
        return run

    def cancel(self, run: SimRun) -> None:
        """The caller went away."""
        run.carried.linkset.cancel(run)

    def write(self, requests: Sequence[Request], *, prefer: SimSet | None = None) -> None:
        """Write requests whose answers nobody waits for."""
        requests = tuple(requests)
        self.start(
            lambda at: _writing(requests),
            partial(self._written, requests, prefer),
            prefer=prefer,
            vital=True,
        )

    def _written(self, requests: Sequence[Request], prefer: SimSet | None, run: SimRun) -> None:
        if prefer is not None and run.late:
            self.sets.follow(prefer, run.late, requests)

    def remember(self, holding: Holding, run: SimRun | None) -> None:
        """A lease is in somebody's hands. Raises RedlockError, and gives it back, if this was
        closed meanwhile."""
        connections = run.carried if run is not None else None
        if self.closing:
            self.write(abandon(self.cluster, holding, self.clock()), prefer=connections)
            raise RedlockError("this Redlock was closed")
        self.leases[holding.owner] = holding
        if connections is not None and not connections.shared:
            self.sets_of[holding.owner] = connections

    def forget(self, holding: Holding) -> None:
        """It is over, or was dropped."""
        self.leases.pop(holding.owner, None)
        self.sets_of.pop(holding.owner, None)

    def set_of(self, holding: Holding) -> SimSet | None:
        """The set that carried the acquire of a lease, if it is not the only one."""
        return self.sets_of.get(holding.owner)

    def _tell(self, run: SimRun, ended: Callable[[SimRun], None]) -> None:
        self._runs.remove(run)
        self._mind_ears()
        if run.unsent:  # It slept: its place in a queue is to go at once.
            self.write(run.unsent)
        self.when_awake(self._told, run, ended)

    def _told(self, run: SimRun, ended: Callable[[SimRun], None]) -> None:
        if run.linkset is not None:
            run.carried.linkset.leave(run)
            self.sets.check_in(run.carried)
        ended(run)

    def lend(self, run: SimRun) -> None:
        """A run waits for the time alone: others have its set meanwhile, if threads have sets
        here."""
        if run.linkset is not None and self.sets.threads and not run.carried.shared:
            run.carried.linkset.leave(run)
            self.sets.check_in(run.carried)
            self.arm(run.wait.until, self._resume, run, run.wait)
            self._mind_ears()

    # Who waits in line

    def listen(self) -> None:
        """Somebody waits: hear who is told that a lock is free."""
        if self.hearing.due(self.clock()) and not self.closing:
            self.ears.linkset.tick()

    def _mind_ears(self) -> None:
        """A thread that waits in line reads the ears, for all that do."""
        if self.ears.shared:
            return
        sleeps = any(run.linkset is None and run.wait.bell is not None for run in self._runs)
        if sleeps and not self.ears.reads:
            self.ears.take()
        elif not sleeps:
            self.ears.rest()

    def rung(self, run: SimRun, wait: Wait) -> None:
        """The bell of a pause has rung, and it is over."""
        if run.linkset is not None:
            run.carried.linkset.rung(run, wait)
        elif run.wait is wait and not run.done:
            wait.until = min(wait.until, self.clock())
            self.world.at(self.world.now, self.when_awake, self._resume, run, wait)

    # Waiting for a set

    def _queue_up(self, run: SimRun, again: Callable[[], None]) -> None:
        self.sets.queue_up(again)
        self.arm(min(run.give_up_at, self.clock() + 1.0), self._look_up, again)

    def _begin(self, run: SimRun) -> None:
        """A set came back: begin the flow that waits for one."""
        if run.done or not self._take(run, None, partial(self._begin, run)):
            return
        run.carried.linkset.begin(run)

    def _resume(self, run: SimRun, wait: Wait) -> None:
        """The pause of a run is over: it goes on with the set that it had, or with another one."""
        if run.done or run.wait is not wait or run.goes_on is wait:
            return
        if self.clock() < wait.until:  # It stood still meanwhile.
            self.arm(wait.until, self._resume, run, wait)
        else:
            run.goes_on = wait
            self._go_on(run)

    def _go_on(self, run: SimRun) -> None:
        if not run.done and self._take(run, run.carried, partial(self._go_on, run)):
            self._mind_ears()
            run.carried.linkset.resume(run)

    def _take(self, run: SimRun, prefer: SimSet | None, again: Callable[[], None]) -> bool:
        """Give *run* a set; False: there is none, and it waits for one, or has waited long
        enough."""
        connections = self.sets.check_out(prefer)
        if connections is not None:
            run.carried = connections
            run.move(connections.linkset)
            return True
        if self.clock() >= run.give_up_at:
            detail = f"was not asked: all {self._sets_max} sets of connections are in use"
            run.fail(QuorumUnavailable(saturated(self._names, detail)))
            return False
        self._queue_up(run, again)
        return False

    def _look_up(self, again: Callable[[], None]) -> None:
        """Who waits for a set looks for one now and then."""
        if self.sets.leave(again):
            again()

    def arm(self, until: float, what: Callable[..., None], *arguments: Any) -> None:
        """Call *what* when the lease clock shows *until*; a suspend meanwhile makes it late, by
        a second at most."""
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

    # Renewals

    def watch_term(self, watch: Watch) -> None:
        """Keep an eye on a term; its candidate hears of its end by itself."""
        self._renewals.add(watch)

    def watch(self, holding: Holding, *, renew: bool) -> None:
        """Say when the lease is lost, and *renew* it until then."""
        self.watched.append(holding)
        self._renewals.add(
            Watch(holding, self._lapsed, ttl=holding.ttl if renew else None, now=self.clock())
        )

    def _lapsed(self, holding: Holding) -> None:
        if not holding.told:
            holding.told = True
            late = self.world.now - max(self.true_time(holding.valid_until), self.paused_until)
            if holding in self.watched and late > _LOOK_AGAIN + _TOLD_WITHIN:
                text = (
                    f"{self.name} was told {late:.3f} s after its end that token {holding.token} is"
                    " lost"
                )
                self.wrongs.append((self.world.now, "R3: a holder knows in time", text))
            self._note(
                LeaseLapsed(
                    self.clock(), holding.resource, holding.owner, holding.token, holding.reason
                )
            )

    def untold(self) -> list[Holding]:
        """Watched leases that ended without anybody being told."""
        now = self.clock()
        ended = [
            holding
            for holding in self.watched
            if holding.valid_until < now - _LOOK_AGAIN and not holding.told
        ]
        return [holding for holding in ended if not holding.freed and holding not in self.dropped]

    # Connections

    def dial(self, connections: SimSet, place: int) -> None:
        """A link wants a connection. Raises RuntimeError where there is no thread for that."""
        if self.starved == "threads":
            raise RuntimeError("can't start new thread")
        if self.starved:
            self.world.at(self.world.now, self.when_awake, self._dialled, connections, place, None)
            return
        index = self.led.get(place, self.nodes[place])
        server = self.world.nodes[index]
        serve = partial(serve_bytes, hiredis.Reader(), server)
        self.world.connect(
            self.name,
            index,
            serve if connections is self.ears else MODES[self.mode][1](server),
            partial(self._heard, connections, place),
            partial(self._hung_up, connections, place),
            partial(self.when_awake, self._dialled, connections, place),
            way=connections.number,
        )

    def _dialled(self, connections: SimSet, place: int, connection: Connection | None) -> None:
        if self._closed_at is None:
            connections.dialled(place, connection)
        elif connection is not None:
            connection.close()

    def _heard(self, connections: SimSet, place: int, connection: Connection, payload: Any) -> None:
        if self._nap is not None and connections.reads and connections is not self.ears:
            self._doze(*self._nap)
        if self.paused_until > self.world.now:
            connections.hold_up(place, connection, payload)
        elif not self.dead:
            connections.hear(place, connection, payload)

    def _doze(self, events: int, seconds: float) -> None:
        self._nap = (events - 1, seconds) if events else None
        if not events:
            self.pause(seconds)

    def _hung_up(self, connections: SimSet, place: int, connection: Connection, why: str) -> None:
        self.when_awake(connections.hear, place, connection, Ended(why))
        if (
            not connections.reads and connections is not self.ears
        ):  # Somebody hears of the ends of connections that nobody reads.
            self.when_awake(connections.tend)

    def _bring_owed(self) -> None:
        self.sets.home.linkset.bring_owed()

    def use_all_sets(self) -> None:
        """Somebody has use for every set again, and reads what came while it was idle: a release
        may have been refused."""
        for connections in self.sets.all:
            if not connections.reads and self._closed_at is None:
                connections.tend()

    # The end

    def close(self) -> None:
        """As `Redlock.close`: refuse new work, end what runs but for releases, tell holders,
        give back, hear of it, and close."""
        if self.gone:
            return
        if self.candidates:
            self.leaving = True
            self.when_awake(self._close_candidates)
        else:
            self._close()

    def _close_candidates(self) -> None:
        for candidate in self.candidates:
            candidate.close()
        self._await_candidates()

    def _await_candidates(self) -> None:
        """Work that has not ended in time is not waited for, and its lock not given back."""
        if all(candidate.over for candidate in self.candidates):
            self._close()
        else:
            self.world.at(self.world.now + _LOOK, self.when_awake, self._await_candidates)

    def _close(self) -> None:
        self.closing = True
        self._close_began_at = self.world.now
        self._renewals.closed = True
        home = self.sets.home.linkset
        for renewal in [run for run in home.runs if not isinstance(run, SimRun)]:
            home.cancel(renewal)
        for run in list(self._runs):
            if not run.vital:
                run.fail(RedlockError("this Redlock was closed"))
        self.world.at(self.world.now, self.when_awake, self._give_back)

    def _give_back(self) -> None:
        until = self.clock() + self.cluster.patience  # From now on: it may have slept.
        for holding in list(self.leases.values()):
            if not holding.freed:
                # Whoever has it in hand hears of it before anybody else can have the lock.
                if holding.held(self.clock()):
                    holding.lose("this Redlock was closed")
                    self._lapsed(holding)
                connections = self.sets_of.pop(holding.owner, None)
                self.write(abandon(self.cluster, holding, self.clock()), prefer=connections)
        self._drain(until)

    def _drain(self, until: float) -> None:
        """Hear of what was written and what is owed, at most until *until*."""
        for connections in self.sets.all:
            if not connections.reads:
                connections.tend()
        for node in self.shared_nodes:
            if node.owed_soon:
                self._bring_owed()
                break
        under_way = any(run.vital for run in self._runs) or any(
            link.releasing for connections in self.sets.all for link in connections.linkset.links
        )
        if (
            under_way or any(node.owed_soon for node in self.shared_nodes)
        ) and self.clock() < until:
            self.world.at(self.world.now + _LOOK, self.when_awake, self._drain, until)
            return
        self._shut()

    def _shut(self) -> None:
        world = self.world
        self._closed_at = world.now
        self._leave_nothing()
        for connections in self.sets.all:
            connections.close()
        self.ears.close()
        world.history.append(
            Called(world.now, self.name, "", "close", world.now - self._close_began_at, "ok")
        )

    def _leave_nothing(self) -> None:
        """After a close no lock of this client is on a node that owes it nothing; and a node
        that was well all along does not."""
        # Nobody had those in hand: they expire by themselves.
        dropped = {holding.owner for holding in self.dropped}
        for place, node in enumerate(self.shared_nodes):
            server = self.world.nodes[self.nodes[place]]
            in_flight = bool(node.owed) or any(
                connections.linkset.links[place].in_flight for connections in self.sets.all
            )
            left = (
                []
                if in_flight
                else [
                    owner for owner in server.holders() if self.world.owners.get(owner) == self.name
                ]
            )
            for owner in left:
                # A copy of another node's data brings its locks with it.
                took = (
                    owner in server.taken
                    and owner not in server.freed
                    and server.index not in self.misled
                )
                if took and owner not in server.orphans and owner not in dropped:
                    text = (
                        f"{self.name} was closed, and n{server.index} still has its lock of"
                        f" {owner[:8]}"
                    )
                    self.wrongs.append((self.world.now, "C: close leaves nothing behind", text))
            releasing = bool(node.owed) or any(
                connections.linkset.links[place].releasing for connections in self.sets.all
            )
            if releasing and self.world.calm_since < self._close_began_at - _CALM:
                text = (
                    f"{self.name} was closed before n{server.index}, which was well, had answered"
                    " its releases"
                )
                self.wrongs.append((self.world.now, "C: close leaves nothing behind", text))

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
        if kind is events.TryStarted:
            self.world.owners[values[1]] = self.name
            self.world.tokens.setdefault((values[0], values[2]), set()).add(self.name)
        elif kind is LeaseGranted:
            self.world.granted(self.name, values[0], values[1], values[2], len(self.nodes))
        elif kind is events.TryFailed:
            self.world.failed(self.name, values[0], values[1])
            if "answer within 0 s" in values[3]:
                text = f"a try of {self.name} was given no time to be answered: {values[3]}"
                self.wrongs.append((now, "A: a round is given its time", text))


def _fields(kind: type[events.Event]) -> tuple[list[str], list[int]]:
    """The names of all fields but the first, and which of them are instants."""
    names = [field.name for field in fields(kind)][1:]
    return names, [
        place
        for place, name in enumerate(names)
        if name in ("sent_at", "valid_until", "until", "stop_at")
    ]


_KINDS = [*events.Event.__subclasses__(), *events.TermRecord.__subclasses__()]
_FIELDS = {kind: _fields(kind) for kind in _KINDS}


class _Handle:
    """What a fork does to a lease's handle: nothing of it is looked at here."""

    def _orphaned(self) -> None:
        return


class _Coordinator:
    """As much of a coordinator as `CoordinatorBase._after_fork` reads and writes."""

    def __init__(self, child: SimClient, leases: dict[int, Any]) -> None:
        self._child = child
        self._leases = leases
        self.forks = 0
        self.elections: tuple[Any, ...] = ()
        self._entropy = self

    def reset(self) -> None:
        """The child's randomness is its own from the start."""

    def _make_cluster(self, source: object) -> Cluster:
        return self._child.cluster
