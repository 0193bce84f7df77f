"""The threads behind blocking leases: one that works for them while no caller does, and those that
run the callers' callbacks.

All live while there is something to do. The first renews leases, tells when one is lost, and brings
nodes the releases that they are owed, all of it on one set of connections: so a node that does not
answer delays nobody's deadline; nor does an exception, whoever raised it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence

from redlock.core.renewal import Watch
from redlock.core.rounds import Cluster
from redlock.errors import RedlockError
from redlock.transport.clock import now as clock
from redlock.transport.node import Node
from redlock.transport.renewals import Renewals
from redlock.transport.sockets import ConnectionSet
from redlock.transport.threads import AGAIN, Threads, Worker

__all__ = ["Background", "Callbacks"]

CALLBACKS_MAX = 8
"""Threads for the callbacks of lost leases: many may be lost at one moment, and each callback
may wait for something."""
_JOIN = 1.0
"""Seconds for the end of a thread that may be in a user's callback, which must not hang its
program's end."""
_LOOK_AGAIN = 1.0
"""At most this long between looks: timers sleep through a suspend, and `lost` must follow within
a second of waking."""
_IDLE = 2.0
"""Seconds without anything to do after which the thread ends; a busy program does not begin one
for each lease."""

_log = logging.getLogger("redlock")


class Background(Worker):
    """Renews leases of *cluster*, tells of lost ones, and brings *nodes* what they are owed, on
    a set that *connect* makes."""

    _name = "redlock-background"

    def __init__(
        self,
        cluster: Cluster,
        nodes: Sequence[Node],
        connect: Callable[[], ConnectionSet],
        threads: Threads,
    ) -> None:
        super().__init__(threads)
        self._nodes = nodes
        self._connect = connect
        self._incoming: deque[Watch] = deque()
        # A user's SystemExit ends no thread of ours, in which other leases are renewed.
        self._renewals = Renewals(clock, cluster, passes=())
        self._owing = False
        """Whether the thread knows that a node is owed something."""
        self._hurried = False
        self._set: ConnectionSet | None = None
        self._wakes_at = 0.0
        self._idle_since = 0.0
        self._closing = False
        for node in nodes:
            node.on_owed = self.owed

    def watch(self, watch: Watch) -> None:
        """Keep an eye on a lease until it ends. Raises RedlockError if no thread can be had for
        that."""
        # Also around the append: the loop ends only if it sees nothing incoming with this held.
        with self._lock:
            self._incoming.append(watch)
            problem: str | None = "it was interrupted"
            try:
                problem = self._begin() if not self._closing else None
            finally:
                if problem is not None:
                    self._incoming.remove(watch)
        if problem is not None:
            raise RedlockError(
                f"the lease on {watch.holding.resource!r} cannot be watched: {problem}:"
                " allow more threads and descriptors"
            )
        if min(watch.renew_at, watch.holding.valid_until) < self._wakes_at:
            self._wake()

    def owed(self) -> None:
        """A node is owed a release: bring it, though nobody may call again."""
        if self._owing:
            return
        with self._lock:
            self._owing = True
            if not self._closing:
                self._begin()
        self._wake()

    def hurry(self) -> None:
        """Bring what is owed now, and not a moment later."""
        self._hurried = True
        self.owed()
        self._wake()

    def refuse(self) -> None:
        """Renew nothing any more, and tell of nothing; what is owed is still brought."""
        self._renewals.closed = True
        self._wake()

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            self._renewals.closed = self._closing = True
        self._wake()
        self._join(_JOIN)

    def _wake(self) -> None:
        connections = self._set
        if connections is not None:
            connections.sockets.ring()

    def _due(self) -> bool:
        if self._closing:
            return False
        renewals, owed = self._renewals, self._owed()
        if owed or self._incoming or not (renewals.closed or renewals.idle):
            self._idle_since = clock()
        return clock() - self._idle_since <= _IDLE

    def _owed(self) -> bool:
        """Whether a node is owed something still. What is owed from here on is told by `owed`."""
        self._owing = False
        now = clock()
        for node in self._nodes:
            node.forgive(now)
            if node.owed:
                self._owing = True
        return self._owing

    def _prepare(self) -> None:
        self._set = self._connect()
        self._renewals.move(self._set.linkset)

    def _tidy(self) -> None:
        connections, self._set = self._set, None
        if connections is not None:
            # Leases whose renewal is cut off here are renewed on the next set, if there is one.
            for run in list(connections.linkset.runs):
                connections.linkset.cancel(run)
            connections.close()

    def _step(self) -> None:
        connections = self._set
        if connections is None:
            return
        linkset = connections.linkset
        try:
            self._threads.try_again()
            # A caller that is interrupted as it hands a lease in takes it back with this held.
            with self._lock:
                while self._incoming:
                    self._renewals.add(self._incoming[0])
                    self._incoming.popleft()
            if self._renewals.closed:
                for run in list(linkset.runs):
                    linkset.cancel(run)
            if self._hurried:
                self._hurried = False
                linkset.bring_owed()
            elif self._owing:
                linkset.owed()
            until = clock() + (AGAIN if self._threads.missing else _LOOK_AGAIN)
            self._wakes_at = min(until, linkset.next_at)
            if not self._incoming:
                connections.pump(until)
        except BaseException:
            linkset.interrupted()
            raise


class Callbacks:
    """Runs callables away from the threads that must not wait for them, a few at once: one that
    hangs keeps no other waiting."""

    def __init__(self, threads: Threads) -> None:
        self._todo: deque[Callable[[], object]] = deque()
        self._hands = [_Hand(threads, self._todo) for _ in range(CALLBACKS_MAX)]

    def run(self, callback: Callable[[], object]) -> None:
        """Run *callback* soon; its exception is logged."""
        self._todo.append(callback)
        for hand in self._hands:
            if hand.begin():
                break

    def close(self) -> None:
        """Wait a moment for what runs; a callback that hangs must not hang its program's end."""
        until = clock() + _JOIN  # For all of them together.
        for hand in self._hands:
            hand.join(until)


class _Hand(Worker):
    """One of the threads that run callbacks, while there are any."""

    _name = "redlock-callbacks"

    def __init__(self, threads: Threads, todo: deque[Callable[[], object]]) -> None:
        super().__init__(threads)
        self._todo = todo

    def begin(self) -> bool:
        """Have the thread look for callbacks. False if it has been at work already, and so may
        be long about one."""
        with self._lock:
            at_work = self._thread is not None and self._thread.is_alive()
            self._begin()
            return not at_work

    def join(self, until: float) -> None:
        """Wait until its thread has ended, at most until *until*."""
        self._join(max(0.0, until - clock()))

    def _due(self) -> bool:
        return bool(self._todo)

    def _step(self) -> None:
        try:
            callback = self._todo.popleft()
        except IndexError:  # Another one was faster.
            return
        try:
            callback()
        except BaseException:  # Also a SystemExit: others still wait to be told.
            _log.exception("a callback failed")
