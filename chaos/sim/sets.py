"""The sets of connections of one simulated client: one link per node in each, over shared `Node`s and one shared admission.

A client of tasks has one set, which all its runs share and which is always read, as the asyncio driver has. A client of threads
has several, as the blocking driver has: a run checks one out for as long as it waits for answers, nobody reads a set that is
idle, and a release goes by the set that carried its acquire wherever that one is free.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from chaos.sim.links import MODES, SimLink
from redlock.core.effects import Request
from redlock.transport.link import Mailbox
from redlock.transport.run import Run

if TYPE_CHECKING:
    from chaos.sim.client import SimClient

__all__ = ["SimSet", "SimSets"]


class SimSet:
    """One connection to each node: a `Port` of the shipped runs. *shared*: many runs use it at once, and it is always read."""

    __slots__ = (
        "_arrivals",
        "_settling",
        "_unread",
        "client",
        "following",
        "links",
        "mailbox",
        "number",
        "poked",
        "reads",
        "shared",
    )

    def __init__(self, client: SimClient, number: int, *, shared: bool) -> None:
        self.client = client
        self.number = number
        self.shared = shared
        self.reads = shared
        """Whether somebody reads what comes. What does not is read by the next one who takes the set."""
        self.mailbox: Mailbox = deque()
        self.following: deque[list[Request]] = deque()
        """Releases of other threads, to be written before the set is idle again."""
        self.poked = -1
        self._arrivals: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._unread: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._settling = False
        make, silence = MODES[client.mode], max(1.0, 4 * client.cluster.patience)
        self.links: list[SimLink] = [
            make(node, self.mailbox, partial(client.dial, self, node.index), silence=silence) for node in client.shared_nodes
        ]

    def send(self, requests: Sequence[Request], run: Run[Any] | None) -> None:
        """Write what a flow asked for; what cannot be written fails into the mailbox."""
        client, links = self.client, self.links
        now = client.clock()
        if self._arrivals:
            self._apart(self._welcome)
        for request in requests:
            request.run = run
            link = links[request.node]
            if self._unread and not request.command.final and link.overdue(now):  # Read before believing it silent.
                self._apart(self._read_all)
            link.submit(request, now)

    def settle(self) -> None:
        """Hand out what is in the mailbox until it is empty, and let the links write what may be written now."""
        if self._settling:
            return
        self._settling = True
        mailbox, admission, went_on = self.mailbox, self.client.cluster.admission, self.client.went_on
        while True:
            while mailbox:
                event = mailbox.popleft()
                run = event.request.run
                if run is not None and run.hears(self):
                    run.step(event)
                    if run.fuse >= 0 or run.timer_at != run.wait.until:
                        went_on(run)
            if self.poked == admission.changes:
                break
            self.poke()
        self._settling = False

    def poke(self) -> None:
        """Another node may have been admitted, or have failed, or time may have passed."""
        self.poked = self.client.cluster.admission.changes
        for link in self.links:
            link.poke(self.client.clock())

    def late(self) -> tuple[int, ...]:
        """The nodes that owe an answer here."""
        return tuple([place for place, link in enumerate(self.links) if link.in_flight])

    # Reading

    def welcome(self, what: Callable[..., None], *arguments: Any) -> None:
        """A dial ended: do *what* with it as soon as somebody uses the set."""
        if self.reads:
            what(*arguments)
        else:
            self._arrivals.append((what, arguments))

    def hear(self, what: Callable[..., None], *arguments: Any) -> None:
        """Something came by one of the connections: do *what* with it, once somebody reads."""
        if self.reads:
            what(*arguments)
        else:
            self._unread.append((what, arguments))

    def read(self) -> None:
        """Hear what came while nobody read, as long as somebody does."""
        if self.reads and (self._unread or self._arrivals):
            self._read_all()
            self.settle()

    def tend(self) -> None:
        """A connection of the idle set ended: somebody looks after it, and reads all that is there."""
        self._read_all()
        self.settle()

    def _apart(self, what: Callable[[], None]) -> None:
        """Do it in the midst of a flow's step, which must not be stepped for what comes of it."""
        settling, self._settling = self._settling, True
        what()
        self._settling = settling

    def _welcome(self) -> None:
        while self._arrivals:
            what, arguments = self._arrivals.popleft()
            what(*arguments)

    def _read_all(self) -> None:
        self._welcome()
        unread, self._unread = self._unread, deque()
        while unread:
            what, arguments = unread.popleft()
            what(*arguments)

    def close(self) -> None:
        """Close every connection."""
        self._unread.clear()
        self._welcome()
        for link in self.links:
            link.close()


class SimSets:
    """All sets of a client, and who waits for one. *most*: how many its threads may have at once; 0: it has tasks instead."""

    def __init__(self, client: SimClient, most: int) -> None:
        self._client = client
        self._most = most
        self.all: list[SimSet] = []
        self._idle: deque[SimSet] = deque()
        self._threads = 0
        self._waiters: deque[Callable[[], None]] = deque()
        self.home = self._make(shared=True)
        """The set of all tasks, or that of the thread which renews leases and brings what is owed."""

    @property
    def threads(self) -> bool:
        """Whether runs check sets out."""
        return self._most > 0

    def _make(self, *, shared: bool) -> SimSet:
        port = SimSet(self._client, len(self.all), shared=shared)
        self.all.append(port)
        return port

    def check_out(self, prefer: SimSet | None, late: list[int] | None = None) -> SimSet | None:
        """A set for one run alone: *prefer* if it is free, so that a release cannot overtake its acquire. None: all are in use.

        *late* takes the nodes that owe an answer on *prefer*, if that is in other hands.
        """
        if not self._most:
            return self.home
        if prefer is not None and not prefer.shared:
            if prefer in self._idle:
                self._idle.remove(prefer)
                return self._taken(prefer)
            if late is not None:
                late += prefer.late()
        if self._idle:
            return self._taken(self._idle.pop())
        if self._threads == self._most:
            return None
        self._threads += 1
        return self._taken(self._make(shared=False))

    def _taken(self, port: SimSet) -> SimSet:
        port.reads = True
        world = self._client.world
        world.at(world.now, self._client.when_awake, port.read)
        return port

    def check_in(self, port: SimSet) -> None:
        """A run does not wait for answers any more."""
        if port.shared:
            return
        while port.following:
            port.send(port.following.popleft(), None)
        port.reads = False
        self._idle.append(port)
        if self._waiters:
            world = self._client.world
            world.at(world.now, self._client.when_awake, self._waiters.popleft())

    def queue_up(self, again: Callable[[], None]) -> None:
        """Call *again* when a set comes back."""
        self._waiters.append(again)

    def leave(self, again: Callable[[], None]) -> bool:
        """Wait no more; False: it was called already, or will be at this instant."""
        if again in self._waiters:
            self._waiters.remove(again)
            return True
        return False

    def follow(self, port: SimSet, late: Sequence[int], requests: Sequence[Request]) -> None:
        """Write releases on *port* as well, which was in other hands, to the nodes that were *late* there.

        A release that overtakes its acquire finds an older lock on a node now and then, and must leave it alone; then only
        one behind the acquire is final.
        """
        behind = [Request(each.node, each.command, each.not_after) for each in requests if each.node in late]
        if behind:
            port.following.append(behind)
            if port in self._idle:
                self._idle.remove(port)
                self.check_in(port)
