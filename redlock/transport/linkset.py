"""One set of connections, one link to each node: the flows under way on it, their timers, silence,
and what nodes are owed.

Pure: time and bytes go in, and everything that touches the world goes out through a `Shell`. The
blocking driver, the asyncio driver and the simulator drive this same code; what is theirs is a
poller or a loop, dialling, and who gets a set when.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, Protocol

from redlock.core.effects import Request, Tick, Wait
from redlock.core.quorum import Fault, FaultKind
from redlock.transport.link import Link, Mailbox
from redlock.transport.node import REDIAL_MAX, Node
from redlock.transport.run import Run

# Long: what the drivers and the simulator share is in one place.
__all__ = ["LinkSet", "Schedule", "Shell"]

NEVER_AGAIN = float("inf")
"""What `next_at` is when nothing waits for the time."""
TIMERS_MIN = 256
"""Timers below which the heap is not looked through for those of flows that have ended; above,
whenever it has doubled."""
SUSPICIONS_MAX = 3
"""How often in a row the end of a wait is put off because answers lie unread, lest a node that
never stops talking put it off for ever."""


class Shell(Protocol):
    """What a driver does for a set of links. None of these may call the set back before it
    returns."""

    def write(self, node: int, data: bytes) -> None:
        """Write to the connection of *node*. One that has ended takes nothing; the driver tells
        of its end by `LinkSet.lost`."""

    def hang_up(self, node: int) -> None:
        """Close the connection of *node*, and hear nothing of it any more."""

    def dial(self, node: int) -> None:
        """Begin to connect to *node*; `LinkSet.connected` or `LinkSet.dial_failed` says how it
        ended."""

    def readable(self, node: int) -> bool:
        """Whether something that came from *node* is still unread, the end of its connection
        included."""

    def wake_at(self, instant: float) -> None:
        """Call `LinkSet.tick` at *instant* of the lease clock, which is earlier than what was
        asked for before."""


class Schedule(Protocol):
    """What is due on a set of links by itself: renewals (`redlock.transport.renewals`)."""

    @property
    def next_at(self) -> float:
        """When `tick` must be called next."""

    def tick(self, now: float) -> None:
        """Begin what is due."""


class LinkSet:
    """The links of one set of connections, and the runs on them. Where its runs write.

    *silence*: seconds for which a connected node may owe an answer before its connection is given
    up. *make_link*: what makes a link; the simulator has a plainer one as well, and an `Ear` is one
    that listens. Everything that a driver tells must come from one thread at a time.
    """

    __slots__ = (
        "_admission",
        "_bring_at",
        "_clock",
        "_order",
        "_poked",
        "_settling",
        "_shell",
        "_suspicions",
        "_timers",
        "_timers_max",
        "_write",
        "busy",
        "links",
        "mailbox",
        "next_at",
        "renewals",
        "runs",
        "silence",
    )

    def __init__(
        self,
        nodes: Sequence[Node],
        shell: Shell,
        clock: Callable[[], float],
        *,
        silence: float,
        make_link: Callable[..., Any] = Link,
    ) -> None:
        self.mailbox: Mailbox = deque()
        self.links: list[Link] = [
            make_link(node, self.mailbox, partial(shell.dial, node.index), silence=silence)
            for node in nodes
        ]
        self.silence = silence
        self.runs: dict[Run[Any], None] = {}
        """The flows under way, in the order in which they began."""
        self.renewals: Schedule | None = None
        """The leases that are renewed on this set, if it is the one that does so."""
        self.next_at = NEVER_AGAIN
        """When `tick` must be called next, at the latest."""
        self._admission = nodes[0].admission
        self._shell = shell
        self._write = shell.write
        self._clock = clock
        self._timers: list[tuple[float, int, Run[Any]]] = []
        self._timers_max = TIMERS_MIN
        self._order = count()
        self._settling = False
        # What `Admission.changes` was when every link last wrote what it may write.
        self._poked = -1
        self.busy = -1
        """The node whose connection is worked on: what tears through (Ctrl-C) may leave it in
        disorder, see `interrupted`."""
        self._bring_at = NEVER_AGAIN
        self._suspicions = 0

    @property
    def late(self) -> tuple[int, ...]:
        """The nodes that owe an answer here."""
        return tuple([node for node, link in enumerate(self.links) if link.in_flight])

    @property
    def releasing(self) -> bool:
        """Whether a release was written, and is not answered."""
        return any(link.releasing for link in self.links)

    # Flows

    def begin(self, run: Run[Any]) -> None:
        """Run a flow to its first wait that takes time; events, `tick` and `cancel` take it from
        there."""
        # The timers that are left belong to flows that have ended.
        if self._timers and not self.runs:
            self._timers.clear()
            self.next_at = (
                self._bring_at
                if self.renewals is None
                else min(self._bring_at, self.renewals.next_at)
            )
        self.runs[run] = None
        try:
            run.begin()
        finally:
            self.went_on(run)
        if self.mailbox or self._poked != self._admission.changes:
            self.settle()

    def cancel(self, run: Run[Any]) -> None:
        """The caller of *run* went away: its flow writes its last requests, and ends."""
        run.cancel()
        self.runs.pop(run, None)
        self.settle()

    def resume(self, run: Run[Any]) -> None:
        """The pause of *run* is over, and it goes on with this set."""
        self.runs[run] = None
        run.step(Tick(self._clock()))
        self.went_on(run)
        self.settle()

    def rung(self, run: Run[Any], wait: Wait) -> None:
        """The bell of a pause has rung: it is over, if *run* still is at it."""
        if run.wait is wait and not run.done and run.linkset is self:
            wait.until = now = self._clock()
            if now < run.timer_at:
                run.timer_at = now
                heappush(self._timers, (now, next(self._order), run))
                self.sooner(now)

    def leave(self, run: Run[Any]) -> None:
        """*run* waits for nothing that comes by this set any more."""
        run.move(None)
        run.timer_at = NEVER_AGAIN
        self.runs.pop(run, None)

    def send(self, requests: Sequence[Request], run: Run[Any] | None) -> None:
        """Write what a flow asked for; what cannot be written fails into the mailbox."""
        now = self._clock()
        links, write = self.links, self._write
        for request in requests:
            request.run = run
            # An interrupt between the link's note and the socket's write would let answers drift
            # from their questions.
            self.busy = node = request.node
            link = links[node]
            # A release still goes behind its acquire.
            if link.in_flight and not request.command.final and link.overdue(now):
                self._make_sure(node, now)
            data = link.submit(request, now)
            if data:
                write(node, data)
            if link.broken is not None:
                self._lose(node, link.broken)
        self.busy = -1

    def settle(self) -> None:
        """Hand out what is in the mailbox until it is empty, and let the links write what may be
        written now."""
        if self._settling:
            return
        self._settling = True
        try:
            mailbox = self.mailbox
            while True:
                while mailbox:
                    event = mailbox.popleft()
                    run = event.request.run
                    if run is not None and run.hears(self):
                        try:
                            run.step(event)
                        finally:  # Whatever an observer raised, the flow is woken at its time.
                            if run.done:
                                self.runs.pop(run, None)
                            elif run.wait.pause or run.wait.until < run.timer_at:
                                self.went_on(run)
                if self._poked == self._admission.changes:
                    break
                self.poke()
        finally:
            self._settling = False

    def poke(self) -> None:
        """A node was admitted, or failed, which may be what requests to others wait for; and so
        may time."""
        self._poked = self._admission.changes
        for node, link in enumerate(self.links):
            self.busy = node
            data = link.poke(now := self._clock())
            if data:
                self._write(node, data)
            if link.broken is not None:
                self._lose(node, link.broken)
            elif not link.in_flight and link.overdue(now):  # One that listens.
                self._make_sure(node, now)
        self.busy = -1

    # What the driver tells

    def connected(self, node: int) -> None:
        """The dial to *node* brought a connection, and the shell writes to it from now on."""
        self.busy = node
        link = self.links[node]
        self._write(node, link.connected(self._clock(), owed=list(link.node.owed)))
        self.busy = -1
        self.settle()

    def dial_failed(self, node: int, fault: Fault) -> None:
        """The dial to *node* brought none."""
        self.links[node].dial_failed(fault, self._clock())
        self.settle()

    def received(self, node: int, data: bytes) -> None:
        """Bytes of *node*, just read: the clock is read after them, as an instant before could
        count a pause as validity."""
        link = self.links[node]
        out = link.received(data, self._clock())
        if out:
            self._write(node, out)
        if link.broken is not None:
            self._lose(node, link.broken)
        self.busy = -1
        if self.mailbox or self._poked != self._admission.changes:
            self.settle()

    def lost(self, node: int, fault: Fault) -> None:
        """The connection to *node* has ended, and everything that came by it was told."""
        self.links[node].lost(fault, self._clock())
        self.settle()

    def interrupted(self) -> None:
        """An exception tore through the I/O: the connection it was on cannot be trusted any
        more."""
        node, self.busy = self.busy, -1
        if node >= 0:
            self._lose(node, Fault(FaultKind.LOST, "was interrupted while it was written to"))

    # Time

    def tick(self) -> None:
        """It is `next_at`, or later: go on with what waited for the time."""
        try:
            now = self._clock()
            self._end_waits(now)
            if self.renewals is not None and self.renewals.next_at <= now:
                self.renewals.tick(now)
            if self._bring_at <= now:
                self.bring_owed()
            self.poke()
            self.settle()
        finally:  # Whatever was raised: others wait for their time.
            self.look_ahead()

    def sooner(self, instant: float) -> None:
        """Something is due at *instant*."""
        if instant < self.next_at:
            self.next_at = instant
            self._shell.wake_at(instant)

    def look_ahead(self) -> None:
        """Find out anew when `tick` must be called next."""
        timers = self._timers
        while timers and (timers[0][2].done or timers[0][2].timer_at != timers[0][0]):
            heappop(timers)
        due = min(timers[0][0] if timers else NEVER_AGAIN, self._bring_at)
        if self.renewals is not None:
            due = min(due, self.renewals.next_at)
        self.next_at = due
        if due != NEVER_AGAIN:
            self._shell.wake_at(due)

    def went_on(self, run: Run[Any]) -> None:
        """*run* has ended, or is at a wait that may be new: note when its time is over."""
        if run.done:
            self.runs.pop(run, None)
            return
        wait, timers = run.wait, self._timers
        if wait.pause:
            run.paused()
        until = wait.until
        if until < run.timer_at and run.linkset is self:
            run.timer_at = until
            heappush(timers, (until, next(self._order), run))
            if len(timers) > self._timers_max:  # Most flows end long before their time.
                timers[:] = [
                    entry for entry in timers if not entry[2].done and entry[2].timer_at == entry[0]
                ]
                heapify(timers)
                self._timers_max = max(TIMERS_MIN, 2 * len(timers))
            if until < self.next_at:
                self.next_at = until
                self._shell.wake_at(until)

    def _end_waits(self, now: float) -> None:
        timers = self._timers
        while timers and timers[0][0] <= now:
            until, _, run = timers[0]
            current = not run.done and run.timer_at == until and run.linkset is self
            over = current and run.wait.until <= now
            if over and self._suspicions < SUSPICIONS_MAX and self._unread():
                # Silence is only what remains when everything that came was read.
                self._suspicions += 1
                return
            heappop(timers)
            if not current:
                continue
            run.timer_at = NEVER_AGAIN
            if over and run.wait.pause and not run.may_go_on():
                continue
            try:
                if over:
                    run.step(Tick(self._clock()))
            finally:  # Also where it has gone on since, to a wait that ends later.
                self.went_on(run)
        self._suspicions = 0

    def _unread(self) -> bool:
        return any(
            link.in_flight and self._shell.readable(node) for node, link in enumerate(self.links)
        )

    # Releases that are owed

    def owed(self) -> None:
        """A node is owed a release: this set brings it, though nobody may call again, until the
        lock has expired by itself."""
        if self._bring_at == NEVER_AGAIN:
            self._bring_at = self._clock() + REDIAL_MAX
            self.sooner(self._bring_at)

    def bring_owed(self) -> None:
        """Bring every node what it is owed, on the connection that it has or on a new one; and
        again, until it has answered."""
        self._bring_at = NEVER_AGAIN
        try:
            for node, link in enumerate(self.links):
                now = self._clock()
                link.node.forgive(now)
                # A release that a black hole swallowed would stay owed for ever.
                if link.node.owed and link.overdue(now):
                    self._make_sure(node, now)
                self.busy = node
                data = link.bring(now)
                if data:
                    self._write(node, data)
                self.busy = -1
                link.retry(now)
        finally:  # Whatever was raised: somebody may still be owed a release.
            if any(link.node.owed for link in self.links):
                self.owed()

    # Connections

    def _make_sure(self, node: int, now: float) -> None:
        """The node owes an answer for too long, or we were away and read nothing: what came and
        is unread decides."""
        if self._shell.readable(node):
            self.links[node].heard(now)
        else:
            self._lose(node, Fault(FaultKind.SILENT, f"did not answer for {self.silence:.3g} s"))

    def _lose(self, node: int, fault: Fault) -> None:
        self._shell.hang_up(node)
        self.links[node].lost(fault, self._clock())
