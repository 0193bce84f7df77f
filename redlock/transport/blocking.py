"""The blocking driver: the caller's thread does the I/O, on one poller over all nodes' sockets.

Threads check out a whole *set* of connections, one per node, for as long as their flow waits for
answers; a lease in hand pins none. Here is who gets which set when; what happens on one is in
`sockets` and `linkset`.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from redlock.core.effects import Bell, Flow, Request
from redlock.core.rounds import Cluster
from redlock.errors import QuorumUnavailable, RedlockError
from redlock.transport.background import Background
from redlock.transport.clock import now as clock
from redlock.transport.dial import Endpoint
from redlock.transport.dialer import Dialer
from redlock.transport.ear import Ear, Hearing
from redlock.transport.hangups import Hangups
from redlock.transport.link import Link
from redlock.transport.node import Node
from redlock.transport.run import Run, saturated
from redlock.transport.sockets import ConnectionSet, Sockets
from redlock.transport.threads import AGAIN, Threads

# Long: who has which set is decided under no single lock, so all who decide are here.
__all__ = ["Driver"]

T = TypeVar("T")
SETS_MAX = 32
"""Sets of connections, of one to each node: the threads of a large program, and 160 descriptors
on five nodes."""
_JOIN = 0.25
"""Seconds for a thread that dials; one in a name server's hands ends by itself."""
_LOOK = 0.002
"""Seconds between two looks of a close at what is under way: a fraction of a round trip."""
_LOOK_AGAIN = 1.0
"""At most this long between looks: locks, too, sleep through a suspend, and the lease clock does
not."""


class _Waiter:
    """A thread that waits: for a set of *connections* that is handed over, or for the end of a
    pause, perhaps by a *bell*. *reads*: it is the one that listens for all, on these sockets."""

    __slots__ = ("bell", "connections", "gate", "reads")

    def __init__(self, bell: Bell | None = None) -> None:
        self.gate = threading.Lock()
        self.gate.acquire()
        self.connections: ConnectionSet | None = None
        self.bell = bell
        self.reads: Sockets | None = None

    def open(self) -> None:
        """Wake whoever waits."""
        with contextlib.suppress(RuntimeError):  # Somebody else did.
            self.gate.release()
        reads = self.reads
        if reads is not None:
            reads.ring()


class Driver:
    """Runs flows for the threads of one coordinator."""

    # Long: all that the threads share, each with the reason why it is of its kind.
    def __init__(self, cluster: Cluster, found: Sequence[Endpoint]) -> None:
        self.cluster = cluster
        silence = max(1.0, 4 * cluster.patience)
        timeout = min(1.0, max(0.5, 4 * cluster.patience))
        self.nodes = [
            Node(index, name, cluster.admission, cluster.note)
            for index, name in enumerate(cluster.names)
        ]
        for node in self.nodes:
            node.owed_for = cluster.owed_for
        self.threads = Threads()
        self.hangups = Hangups(self, self.threads)
        self.dialers = [
            Dialer(endpoint, node, timeout, self.threads, self.hangups)
            for endpoint, node in zip(found, self.nodes, strict=True)
        ]
        # No Condition and no Event: Ctrl-C on the way into one leaves it locked for ever.
        # Reentrant: the handler of a signal may close this, or use it, in the midst of a `with`.
        self._lock = threading.RLock()
        self._idle: deque[ConnectionSet] = deque()
        self._all: weakref.WeakSet[ConnectionSet] = weakref.WeakSet()
        # Weak, so that a set lost to Ctrl-C frees its place.
        self._shared: weakref.WeakSet[ConnectionSet] = weakref.WeakSet()
        self._sleepers: set[_Waiter] = set()
        """Threads that pause between two tries."""
        self._urgent: deque[_Waiter] = deque()
        self._waiters: deque[_Waiter] = deque()
        """Who waits for a set, in the order of coming. A holder has a line of its own, which is
        served first."""
        self._closing = self._closed = False
        # Not a method: a driver that is dropped goes at once, as nothing of it knows it.
        dial = [dialer.ask for dialer in self.dialers]
        self.connect = partial(_connect, self._all, self.nodes, dial, self.hangups, silence)
        """Makes a set of connections; those that threads share are counted besides."""
        self._hearing = Hearing(cluster.lines, len(self.nodes))
        make_ear = partial(Ear, self._hearing)
        self._make_ears = partial(
            _connect, self._all, self.nodes, dial, None, silence, make_link=make_ear
        )
        self._ears: deque[ConnectionSet] = deque()
        """The one set that listens, while no thread reads it."""
        self._ears_known: weakref.ref[ConnectionSet] | None = None
        self.background = Background(cluster, self.nodes, self.connect, self.threads)

    @property
    def closing(self) -> bool:
        """Whether nothing but releases is taken any more."""
        return self._closing

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def run(
        self,
        start: Callable[[float], Flow[T]],
        *,
        prefer: ConnectionSet | None = None,
        give_up_at: float = math.inf,
        patient: bool = False,
        urgent: bool = False,
    ) -> tuple[T, ConnectionSet]:
        """Run a flow to its end in the calling thread; give its result, and the set that carried
        its last round.

        *start* makes the flow from the present instant. An exception that tears through (Ctrl-C)
        lets the flow write its last requests first. Raises QuorumUnavailable if no set becomes free
        by *give_up_at*, and at once if there is none and none can be made, unless *patient*.
        *prefer*: the set to use if it is idle. *urgent*: for a lease that is held; a holder, and
        least of all one who makes room, does not queue behind those who want locks.
        """
        connections = self._take(prefer, final=False) if prefer is not None else None
        return self._run(start, connections, give_up_at, patient=patient, urgent=urgent)

    def release(
        self,
        start: Callable[[float], Flow[T]],
        *,
        behind: ConnectionSet | None,
        again: Callable[[], Sequence[Request]],
        give_up_at: float,
    ) -> T:
        """Run a release behind the acquire that *behind* carried; it goes on where `refuse` ends
        everything else.

        Where that set is in other hands, the release goes by another one, and *again* makes what is
        written on that set as well.
        """
        connections, late = self._take_behind(behind)
        released, _ = self._run(start, connections, give_up_at, final=True)
        if behind is not None and late:
            self.follow(behind, late, again())
        return released

    # Long: whatever an interrupt finds at any line of it must be given back below.
    def _run(
        self,
        start: Callable[[float], Flow[T]],
        connections: ConnectionSet | None,
        give_up_at: float,
        *,
        patient: bool = False,
        urgent: bool = False,
        final: bool = False,
    ) -> tuple[T, ConnectionSet]:
        """Run a flow, on *connections* if they are given, which are in our hands then; as `run`
        and `release` say."""
        if connections is None:
            connections = self._check_out(give_up_at, patient=patient, urgent=urgent, final=final)
        ours = True
        run: Run[T] | None = None
        try:
            if self.threads.missing:
                self.threads.try_again()
            # Known before it writes: an interrupt cancels it.
            run = Run(start(clock()), connections.linkset, clock)
            connections.begin(run)
            while not run.done:
                # Asked before each wait: whoever closes wakes the set after it set this.
                if self._closing and not final:
                    raise _closed()
                if not run.wait.pause:
                    connections.pump()
                    continue
                # Only the time is awaited: lend the set to others meanwhile.
                connections.linkset.leave(run)
                ours = False
                self._check_in(connections)
                self._sleep(run.wait.until, final=final, bell=run.wait.bell)
                connections = self._take(connections, final=final) or self._check_out(
                    give_up_at, patient=patient, urgent=urgent, final=final
                )
                ours = True
                connections.resume(run)
            return run.result(), connections
        except BaseException:
            if ours:
                connections.linkset.interrupted()
            if run is not None and ours:
                connections.linkset.cancel(run)
            elif run is not None:
                run.cancel()
                # It slept, and its place in a queue is to go at once.
                if run.unsent:
                    self._send_last(run.unsent)
            if run is not None:
                # It knows the frames it came through, and with them a set that an interrupt tore
                # out of all hands: that one is to go at once, not when the collector comes by.
                run.error = None
            raise
        finally:
            if ours:
                if run is not None:
                    connections.linkset.leave(run)
                self._check_in(connections)

    def _send_last(self, requests: Sequence[Request]) -> None:
        """Write the last requests of a flow that ended while it had no set. A close waits for that,
        and makes no new set for it: others that end with us give theirs back in a moment."""
        if not self._closing:
            self.write(requests)
            return
        deadline = clock() + self.cluster.patience
        while not self._closed and clock() < deadline:
            try:
                connections = self._idle.pop()
            except IndexError:
                time.sleep(_LOOK)
                continue
            try:
                connections.send(requests)
            except BaseException:
                connections.linkset.interrupted()
                raise
            finally:
                self._check_in(connections)
            return

    def write(self, requests: Sequence[Request], *, prefer: ConnectionSet | None = None) -> None:
        """Write requests whose answers nobody waits for; releases that cannot be written within
        the node timeout stay owed."""
        connections, late = self._take_behind(prefer)
        try:
            connections = connections or self._check_out(
                clock() + self.cluster.patience, final=True
            )
        except QuorumUnavailable:
            for request in requests:
                if request.command.final:
                    self.nodes[request.node].owe(request.command, clock())
        else:
            try:
                connections.send(requests)
            except BaseException:
                connections.linkset.interrupted()
                raise
            finally:
                self._check_in(connections)
        if prefer is not None and late:
            self.follow(prefer, late, requests)

    def follow(
        self, connections: ConnectionSet, late: Sequence[int], requests: Sequence[Request]
    ) -> None:
        """Write releases on *connections* as well, which was in other hands, to the nodes that were
        *late* there.

        A release that overtakes its acquire finds an older lock on a node now and then, and must
        leave it alone; then only one behind the acquire is final.
        """
        behind = [
            Request(each.node, each.command, each.not_after)
            for each in requests
            if each.node in late
        ]
        if behind:
            connections.following.append(behind)
            with contextlib.suppress(ValueError):
                self._idle.remove(connections)  # It came back meanwhile.
                self._check_in(connections)

    def tend(self, connections: ConnectionSet) -> bool:
        """Read what came on *connections* while nobody used it; False: it is in use."""
        try:
            self._idle.remove(connections)
        except ValueError:
            return False
        try:
            connections.pump(clock())
        except BaseException:
            connections.linkset.interrupted()
            raise
        finally:
            self._check_in(connections)
        return True

    def hear_releases(self) -> None:
        """Read the answers to releases that came on idle sets after whoever asked had enough."""
        for connections in list(self._idle):
            if connections.linkset.late:
                self.tend(connections)

    def bring_owed(self) -> None:
        """Wait, at most the node timeout, until reachable nodes have had the releases they are
        owed."""
        deadline = clock() + self.cluster.patience
        for connections in list(self._idle):
            with contextlib.suppress(ValueError):
                self._idle.remove(connections)
                try:
                    connections.drain(deadline)
                except BaseException:
                    connections.linkset.interrupted()
                    raise
                finally:
                    self._check_in(connections)
        while any(node.owed_soon for node in self.nodes) and clock() < deadline:
            self.background.hurry()
            time.sleep(_LOOK)

    def refuse(self) -> None:
        """Take nothing but releases from now on, and end whatever else is under way: it raises,
        and gives back what it took."""
        self._closing = True
        with self._lock:
            shared = list(self._shared)
        for connections in shared:
            connections.sockets.ring()
        self._call_waiters()

    def quieten(self) -> None:
        """Wait, at most the node timeout, until no thread uses a set any more."""
        deadline = clock() + self.cluster.patience
        while len(self._idle) < len(self._shared) and clock() < deadline:
            time.sleep(_LOOK)

    def close(self) -> None:
        """Close all connections, and wait for what still dials. A set in use is closed when it
        comes back.

        May be called again, to go on where an interrupt ended it.
        """
        self._closing = True
        if not self._closed:
            self.bring_owed()
        self._closed = True
        self.background.close()
        for dialer in self.dialers:
            dialer.close()
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop().close()
        self._close_ears()
        self._call_waiters()
        until = clock() + _JOIN  # For all of them together.
        for dialer in self.dialers:
            dialer.join(until)
        self.hangups.close()

    def abandon(self) -> None:
        """After a fork, in the child: let go of the parent's connections without a word on them."""
        self.hangups.abandon()
        for connections in self._all:
            connections.sockets.abandon()

    # Sets of connections

    def _take(self, connections: ConnectionSet | None, *, final: bool) -> ConnectionSet | None:
        """*connections*, if that set is idle."""
        if self._closing and not final:
            raise _closed()
        if connections is None:
            return None
        try:
            self._idle.remove(connections)
        except ValueError:
            return None
        return connections

    def _take_behind(
        self, connections: ConnectionSet | None
    ) -> tuple[ConnectionSet | None, tuple[int, ...]]:
        """*connections* if that set is idle, so that a release cannot overtake the acquire that
        it carried; or the nodes that owe an answer there, as they do before that release is
        written: what they executed later came by that set behind it."""
        taken = self._take(connections, final=True)
        return taken, () if taken is not None or connections is None else connections.linkset.late

    # Long: whoever gives up at any line of it may have been handed a set at that moment.
    def _check_out(
        self,
        give_up_at: float = math.inf,
        *,
        patient: bool = False,
        urgent: bool = False,
        final: bool = False,
    ) -> ConnectionSet:
        if self._closing and not final:
            raise _closed()
        line = self._urgent if urgent or final else self._waiters
        # Or the one who comes just now would be faster than all who wait.
        if not self._urgent and not line:
            with contextlib.suppress(IndexError):
                return self._idle.pop()
        waiter: _Waiter | None = None
        try:
            while True:
                comes = True  # Whether waiting may bring one: those that are in use come back.
                try:
                    connections = self._make()
                    why = f"all {SETS_MAX} sets of connections are in use"
                except OSError as error:  # No descriptor to be had.
                    connections = None
                    why = f"no more connections can be made ({error.strerror or error})"
                    comes = bool(self._shared) or patient
                if connections is not None:
                    return connections
                left = give_up_at - clock()
                if left <= 0 or not comes:
                    raise QuorumUnavailable(saturated(self.cluster.names, f"was not asked: {why}"))
                if waiter is None:
                    waiter = _Waiter()
                    line.append(waiter)
                    # After the append: whoever brings a set back looks for waiters after it did.
                    self._hand_over()
                if not self._closed:
                    waiter.gate.acquire(timeout=min(left, 1.0 if self._shared else AGAIN))
                connections = waiter.connections
                if connections is not None:
                    waiter = None
                    return connections
                if self._closing and not final:
                    raise _closed()
        finally:
            if waiter is not None:
                self._step_out(line, waiter)

    def _make(self) -> ConnectionSet | None:
        """A new set for the threads; None: there are as many as there may be."""
        if self._closed:
            raise _closed()
        with self._lock:
            # Counted, as an interrupt may tear through what takes a dead one from such a set.
            if len(list(self._shared)) >= SETS_MAX:
                return None
            connections = self.connect()
            self._shared.add(connections)
            return connections

    def _hand_over(self) -> None:
        """Give the sets that are idle to those who wait, the first of them first."""
        while self._idle and (self._urgent or self._waiters):
            try:
                connections = self._idle.pop()
            except IndexError:
                return
            try:
                waiter = (self._urgent or self._waiters).popleft()
            except IndexError:  # They have gone meanwhile. Others may have come: look again.
                self._idle.append(connections)
            else:
                waiter.connections = connections
                waiter.open()

    def _step_out(self, line: deque[_Waiter], waiter: _Waiter) -> None:
        """Wait no more, and give back a set that came at this very moment."""
        try:
            line.remove(waiter)
        except ValueError:
            # Somebody has one for us, and is about to say so, if no Ctrl-C strikes it.
            if waiter.connections is None:
                waiter.gate.acquire(timeout=_JOIN)
        if waiter.connections is not None:
            self._check_in(waiter.connections)

    def _call_waiters(self) -> None:
        """Make those who wait look up: there may be nothing to wait for any more."""
        for waiter in [*self._urgent, *self._waiters, *list(self._sleepers)]:
            waiter.open()

    def _sleep(self, until: float, *, final: bool, bell: Bell | None = None) -> None:
        """Until *until*, or until *bell* rings; until this is closed, if it is not for a
        release."""
        waiter = _Waiter(bell)
        self._sleepers.add(waiter)
        try:
            if bell is not None:
                bell.wake = waiter.open
            left = until - clock()
            # Asked after the add: whoever closes calls after it set this.
            while left > 0 and (final or not self._closing) and not (bell and bell.rung):
                ears = self._take_ears() if bell is not None else None
                if ears is None:
                    waiter.gate.acquire(timeout=min(left, _LOOK_AGAIN))
                else:
                    self._listen(ears, waiter, until)
                left = until - clock()
        finally:
            self._sleepers.discard(waiter)
            if bell is not None:
                bell.wake = None
                if self._ears:
                    self._hand_ears_on()

    def _take_ears(self) -> ConnectionSet | None:
        """The set that listens, if this thread is to read it."""
        with contextlib.suppress(IndexError):
            return self._ears.pop()
        with self._lock:
            # One that a Ctrl-C tore out of all hands is gone.
            if self._closed or (self._ears_known is not None and self._ears_known() is not None):
                return None
            try:
                ears = self._make_ears()
            except OSError:  # No descriptor to be had: who waits looks.
                return None
            self._hearing.begin_anew()
            self._ears_known = weakref.ref(ears)
            return ears

    def _listen(self, ears: ConnectionSet, waiter: _Waiter, until: float) -> None:
        """Hear who is told that a lock is free, for all threads that wait, until *waiter* is."""
        bell = waiter.bell
        waiter.reads = ears.sockets
        try:
            if self._hearing.due(clock()):
                ears.linkset.tick()
            # Asked after that was set: whoever rings does so after it said why.
            while not (self._closing or (bell and bell.rung)) and clock() < until:
                ears.pump(until)
        except BaseException:
            ears.linkset.interrupted()
            raise
        finally:
            waiter.reads = None
            self._ears.append(ears)
            if self._closed:
                self._close_ears()

    def _hand_ears_on(self) -> None:
        """Nobody reads the ears: another one who waits is to, and if it is about to end as well, it
        does the same."""
        for other in list(self._sleepers):
            if other.bell is not None:
                other.open()
                return

    def _close_ears(self) -> None:
        while self._ears:
            with contextlib.suppress(IndexError):
                self._ears.pop().close()

    def _check_in(self, connections: ConnectionSet) -> None:
        while True:
            while connections.following:
                connections.send(connections.following.popleft())
            try:
                # Nobody may use this set for long, and what could not be sent is owed.
                if connections.sockets.torn:
                    connections.pump(clock())
            finally:
                self._idle.append(connections)
            if not connections.following:
                break
            try:
                self._idle.remove(connections)
            except ValueError:  # Somebody has it, and brings it back.
                break
        # Asked after the append: whoever closes looks at the list after it set this.
        if self._closed:
            with contextlib.suppress(ValueError):
                self._idle.remove(connections)
            connections.drain(clock() + self.cluster.patience)
            connections.close()
        elif self._urgent or self._waiters:
            self._hand_over()


def _connect(
    known: weakref.WeakSet[ConnectionSet],
    nodes: Sequence[Node],
    dial: Sequence[Callable[[Sockets], None]],
    hangups: Hangups | None,
    silence: float,
    *,
    make_link: Callable[..., Any] = Link,
) -> ConnectionSet:
    connections = ConnectionSet(nodes, dial, hangups, silence=silence, make_link=make_link)
    known.add(connections)
    return connections


def _closed() -> RedlockError:
    return RedlockError("this Redlock is closed: make another")
