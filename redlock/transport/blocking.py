"""The blocking driver: the caller's thread does the I/O, on one poller over all nodes' sockets.

Threads check out a whole *set* of connections, one per node, for as long as their flow waits for answers; a lease in
hand pins none. Dialling happens in threads of its own, one per node, which end when there is nothing to dial.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import ssl
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import redis

from redlock.core.admission import Admission, Standing
from redlock.core.commands import Mark
from redlock.core.effects import Flow, Request, Tick
from redlock.core.identity import Identity
from redlock.core.quorum import Fault, FaultKind
from redlock.core.rounds import Cluster
from redlock.errors import QuorumUnavailable, RedlockError
from redlock.transport.clock import now as clock
from redlock.transport.dial import Endpoint, cut, hang_up
from redlock.transport.hangups import Hangups
from redlock.transport.link import BRING_MAX, REDIAL_MAX, REDIAL_MIN, Link, Mailbox, Node
from redlock.transport.run import Run, saturated
from redlock.transport.threads import AGAIN, Threads, Worker
from redlock.transport.wire import encode_whole

__all__ = ["Driver", "GuardedAdmission"]

T = TypeVar("T")
SETS_MAX = 32
_READ = 16384
_WRITABLE = select.POLLOUT
_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR | select.POLLNVAL
_POLL_MAX = 60_000
_Tls = ssl.SSLSocket
_JOIN = 0.25
_LOOK = 0.002
_NAP = 0.05


class GuardedAdmission(Admission):
    """An `Admission` that several threads may tell and ask."""

    def __init__(self, names: Sequence[str], **settings: Any) -> None:
        super().__init__(names, **settings)
        self._lock = threading.RLock()

    def seen(self, node: int, identity: Identity, at: float, *, asked_at: float | None = None, as_of: int | None = None) -> None:
        with self._lock:
            super().seen(node, identity, at, asked_at=asked_at, as_of=as_of)

    def marked(self, node: int, mark: Mark, stands: str, at: float, *, asked_at: float | None = None) -> None:
        with self._lock:
            super().marked(node, mark, stands, at, asked_at=asked_at)

    def failed(self, node: int, fault: Fault) -> None:
        with self._lock:
            super().failed(node, fault)

    def standing(self, node: int, at: float) -> Standing:
        with self._lock:
            return super().standing(node, at)

    def outdated(self, node: int) -> bool:
        with self._lock:
            return super().outdated(node)

    def problem(self, since: float = float("-inf")) -> str | None:
        with self._lock:
            return super().problem(since)

    def out_of_reach(self, at: float, since: float = float("-inf")) -> str | None:
        with self._lock:
            return super().out_of_reach(at, since)

    def max_ttl(self) -> float | None:
        with self._lock:
            return super().max_ttl()


class ConnectionSet:
    """A set of connections, one per node, used by one thread at a time."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.mailbox: Mailbox = deque()
        self.links = [
            Link(node, self.mailbox, partial(_ask, driver.dialers[node.index], weakref.ref(self)), silence=driver.silence)
            for node in driver.nodes
        ]
        size = len(self.links)
        self._connections: list[redis.Connection | None] = [None] * size
        self._socks: list[socket.socket | None] = [None] * size
        self._unsent: list[bytes] = [b""] * size
        self._by_fd: dict[int, int] = {}
        self._arrivals: deque[tuple[int, redis.Connection | None, socket.socket | None, Fault | None]] = deque()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._wake_reader, select.POLLIN)
        self._admission = driver.cluster.admission
        self._poked = -1
        self._busy = -1
        self.following: deque[list[Request]] = deque()
        """Releases from other threads, to be written before the set is idle again."""
        self.closed = False

    # From other threads

    def arrive(self, index: int, connection: redis.Connection | None, sock: socket.socket | None, fault: Fault | None) -> None:
        """A dial ended."""
        self._arrivals.append((index, connection, sock, fault))
        self.wake()
        if self.closed:
            self._discard_arrivals()

    def late(self) -> tuple[int, ...]:
        """The nodes that owe an answer here."""
        return tuple([link.node.index for link in self.links if link.in_flight])

    def descriptor(self, index: int) -> int:
        """The file descriptor of the connection to node *index*; -1 if there is none."""
        sock = self._socks[index]
        return sock.fileno() if sock is not None else -1

    def wake(self) -> None:
        """Make the thread that waits on this set look up."""
        with contextlib.suppress(OSError):
            self._wake_writer.send(b"\0")

    # From the thread that holds the set

    def send(self, requests: Sequence[Request], run: Run[Any] | None) -> None:
        """Write what a flow asked for; what cannot be written fails into the mailbox."""
        now = clock()
        if self._arrivals:
            self._welcome()
        links = self.links
        for request in requests:
            request.run = run
            # An interrupt between the link's note and the socket's write would let answers drift from their questions.
            self._busy = index = request.node
            link = links[index]
            if link.owing and not request.command.final and link.overdue(now):  # A release still goes behind its acquire.
                self._make_sure(index, now)
            data = link.submit(request, now)
            if data:
                self._write(index, data)
            if link.broken is not None:
                self._lose(index, link.broken)
        self._busy = -1

    def settle(self) -> None:
        """Hand out what is in the mailbox until it is empty."""
        mailbox = self.mailbox
        while mailbox:
            event = mailbox.popleft()
            run = event.request.run
            if run is not None and run.hears(self):
                run.step(event)

    def pump(self, until: float) -> None:
        """Wait for the first events, at most until *until*, and hand them out.

        Everything that is there is read, also after the deciding vote: a node that always answers last would otherwise
        never be heard.
        """
        if self.mailbox:
            self.settle()
            return
        left = until - clock()
        ready = self._poll.poll(0 if left <= 0 else min(math.ceil(left * 1000), _POLL_MAX))
        by_fd, mailbox = self._by_fd, self.mailbox
        for fd, mask in ready:
            self._busy = index = by_fd.get(fd, -1)
            if index < 0:
                self._welcome()
            else:
                if mask & _WRITABLE:
                    self._write(index, b"")
                if mask & _READABLE:
                    self._read(index)
            if mailbox:
                self._busy = -1
                self.settle()
        self._busy = -1
        # A node that was admitted, or failed, may be what the others wait for; and so may time.
        if not ready or self._admission.changes != self._poked:
            self._poke()
            self.settle()

    def drain(self, until: float) -> None:
        """Hear of the releases that were written, at most until *until*."""
        while clock() < until and any(link.releasing for link in self.links):
            self.pump(until)

    def interrupted(self) -> None:
        """An exception tore through the I/O: the connection it was on cannot be trusted any more."""
        index, self._busy = self._busy, -1
        if index >= 0:
            self._lose(index, Fault(FaultKind.LOST, "was interrupted while it was written to"))

    def close(self) -> None:
        """Close every connection. Again, if it was interrupted."""
        self.closed = True
        for index in range(len(self.links)):
            self._hang_up(index)
        self._discard_arrivals()
        self._wake_reader.close()
        self._wake_writer.close()

    def __del__(self) -> None:
        # A set that Ctrl-C tore out of the hands of its thread. The interpreter may be half gone.
        with contextlib.suppress(Exception):
            self.close()

    def abandon(self) -> None:
        """After a fork, in the child: let go of the parent's connections without a word on them."""
        self.closed = True
        for sock in [*self._socks, self._wake_reader, self._wake_writer]:
            if sock is not None:
                with contextlib.suppress(OSError):
                    socket.close(sock.detach())

    # Sockets

    def _write(self, index: int, data: bytes) -> None:
        sock = self._socks[index]
        if sock is None:
            return
        unsent = self._unsent[index]
        if unsent:
            data = unsent + data
        try:
            sent = sock.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            sent = 0
        except OSError as error:
            # Replies that came before the end may still be there to read.
            self._read(index, Fault(FaultKind.LOST, f"lost the connection ({error.strerror or error})"))
            return
        if sent != len(data) or unsent:
            self._unsent[index] = data[sent:]
            self._poll.register(sock, select.POLLIN | (select.POLLOUT if sent != len(data) else 0))

    def _read(self, index: int, fault: Fault | None = None) -> None:
        link = self.links[index]
        while True:
            sock = self._socks[index]
            if sock is None:
                return
            try:
                data = sock.recv(_READ)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                data = None
            except OSError as error:
                data = b""
                fault = fault or Fault(FaultKind.LOST, f"lost the connection ({error.strerror or error})")
            if not data:
                if data is not None or fault is not None:
                    self._lose(index, fault or Fault(FaultKind.LOST, "closed the connection"))
                return
            # Read after the data: an instant before it could count a pause as validity.
            out = link.received(data, clock())
            if out:
                self._write(index, out)
            if link.broken is not None:
                self._lose(index, link.broken)
                return
            # TLS may hold decrypted bytes that no poller reports.
            if fault is None and len(data) < _READ and not isinstance(sock, _Tls):
                return

    def _make_sure(self, index: int, now: float) -> None:
        """The node owes an answer for too long, or we were away: read before believing it."""
        sock = self._socks[index]
        link = self.links[index]
        if sock is None:
            return
        self._read(index)
        if link.overdue(now) and self._socks[index] is not None:
            self._lose(index, Fault(FaultKind.SILENT, f"did not answer for {self._driver.silence:.3g} s"))

    def _lose(self, index: int, fault: Fault) -> None:
        self._hang_up(index)
        self.links[index].lost(fault, clock())

    def _hang_up(self, index: int) -> None:
        sock, self._socks[index] = self._socks[index], None
        connection, self._connections[index] = self._connections[index], None
        self._unsent[index] = b""
        if sock is not None:
            fd = sock.fileno()
            if self._by_fd.pop(fd, None) is not None:
                with contextlib.suppress(KeyError, OSError):
                    self._poll.unregister(fd)
        if connection is not None:
            hang_up(connection)

    def _welcome(self) -> None:
        """Take over the connections that dialling brought."""
        with contextlib.suppress(BlockingIOError):
            while len(self._wake_reader.recv(64)) == 64:
                pass
        while self._arrivals:
            # An interrupt from here on would leave the link waiting for a dial that nobody remembers.
            self._busy = self._arrivals[0][0]
            index, connection, sock, fault = self._arrivals.popleft()
            link = self.links[index]
            if not link.dialling:  # Answers of another connection would be taken for those of the one that it has.
                if connection is not None:
                    hang_up(connection)
                continue
            if connection is None or sock is None:
                link.dial_failed(fault or Fault(FaultKind.UNREACHABLE, "could not be reached"), clock())
                continue
            self._hang_up(index)
            self._connections[index] = connection
            self._socks[index] = sock
            self._by_fd[sock.fileno()] = index
            self._poll.register(sock, select.POLLIN)
            self._driver.hangups.watch(self, index, sock)
            self._write(index, link.connected(clock()))
        self._busy = -1
        self._poke()

    def _poke(self) -> None:
        self._poked = self._admission.changes
        for index, link in enumerate(self.links):
            data = link.poke(clock())
            if data:
                self._write(index, data)

    def _discard_arrivals(self) -> None:
        while self._arrivals:
            connection = self._arrivals.popleft()[1]
            if connection is not None:
                hang_up(connection)


def _ask(dialer: Dialer, port: weakref.ref[ConnectionSet]) -> None:
    """For a link, which must not keep its set alive."""
    alive = port()
    if alive is not None:
        dialer.ask(alive)


class Dialer(Worker):
    """Connects to one node, for whichever set asks, in a thread that lives while there is something to do.

    It also brings the node the releases it is still owed when nobody else is about to talk to it.
    """

    def __init__(self, endpoint: Endpoint, node: Node, timeout: float, threads: Threads, hangups: Hangups) -> None:
        super().__init__(threads)
        self._name = f"redlock-dial-{node.name}"
        self._endpoint = endpoint
        self._node = node
        self._hangups = hangups
        node.on_owed = self.bring
        self._timeout = timeout
        self._wanted: deque[ConnectionSet] = deque()
        self._dialled: redis.Connection | None = None
        self._kept: tuple[redis.Connection, socket.socket] | None = None
        """Our own connection to a node that refuses releases: it is asked again and again, and not dialled as often."""
        self._pause = REDIAL_MIN
        self._closing = False
        self._gate = threading.Lock()  # Opened by `close`; no Event, see `Driver`.
        self._gate.acquire()

    def ask(self, port: ConnectionSet) -> None:
        """Bring *port* a connection, or a fault, which it gets at once if no thread can be had."""
        with self._lock:
            if self._closing:
                return
            self._wanted.append(port)
            try:
                problem = self._begin()
            except BaseException:  # Ctrl-C: the link asks again, and must not be answered twice.
                self._wanted.remove(port)
                raise
            if problem is not None:
                self._wanted.remove(port)
        if problem is not None:
            port.arrive(self._node.index, None, None, Fault(FaultKind.UNREACHABLE, f"could not be dialled ({problem})"))

    def bring(self) -> None:
        """Bring the node what it is owed, soon."""
        with self._lock:
            if not self._closing:
                self._begin()

    def close(self) -> None:
        """Dial no more."""
        with self._lock:
            self._closing = True
            with contextlib.suppress(RuntimeError):  # It is open.
                self._gate.release()
            if self._dialled is not None:
                cut(self._dialled)

    def join(self, until: float) -> None:
        """Wait for a dial in progress, at most until *until*. One that waits for TCP or for a name server ends by itself."""
        self._join(max(0.0, until - clock()))

    def _dialling(self, connection: redis.Connection | None) -> None:
        with self._lock:
            self._dialled = connection

    def _due(self) -> bool:
        self._node.forgive(clock())
        return not self._closing and bool(self._wanted or self._node.owed)

    def _prepare(self) -> None:
        self._pause = REDIAL_MIN

    def _tidy(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            hang_up(kept[0])

    def _step(self) -> None:
        with self._lock:
            port = self._wanted.popleft() if self._wanted else None
        if port is None and self._gate.acquire(timeout=self._pause):
            return
        connection: redis.Connection | None = None
        sock: socket.socket | None = None
        fault = Fault(FaultKind.UNREACHABLE, "could not be dialled")
        try:
            if port is None:
                self._bring()
            else:
                connection, sock = self._dial()
                self._pause = REDIAL_MIN
        except Exception as error:  # Whatever dialling raises is that node's fault, for the votes to tell.
            self._pause = min(self._pause * 2, REDIAL_MAX)
            fault = self._endpoint.fault(error)
        finally:  # Whatever happened: a link that hears nothing would wait for this dial for ever.
            if port is not None:
                port.arrive(self._node.index, connection, sock, fault)
        self._threads.try_again()

    def _dial(self) -> tuple[redis.Connection, socket.socket]:
        connection, sock = self._endpoint.connect(self._timeout, self._dialling)
        try:
            self._bring_owed(connection)
            self._dialling(None)
            sock.setblocking(False)
            self._hangups.begin()
        except BaseException:
            hang_up(connection)
            raise
        return connection, sock

    def _bring(self) -> None:
        """Bring what is owed when nobody else is about to talk to the node, on a connection that is kept while it refuses."""
        kept, self._kept = self._kept, None
        connection, sock = kept or self._endpoint.connect(self._timeout, self._dialling)
        taken = True
        try:
            taken = self._bring_owed(connection)
            self._dialling(None)
        except BaseException:
            hang_up(connection)
            raise
        if taken:
            self._pause = REDIAL_MIN
            hang_up(connection)
        else:
            self._pause = min(self._pause * 2, BRING_MAX)
            self._kept = connection, sock

    def _bring_owed(self, connection: redis.Connection) -> bool:
        """Whether the node took all that it is owed; what it refuses stays owed, and is brought again after a pause."""
        owed, taken = list(self._node.owed), True
        for command in owed:
            connection.send_packed_command([encode_whole(command)], check_health=False)  # type: ignore[no-untyped-call]
        for command in owed:
            try:
                connection.read_response()
            except redis.ResponseError as error:
                if not str(error).startswith("WRONGTYPE"):  # What stands there cannot be ours.
                    self._node.refused(command, clock())
                    taken = False
                    continue
            self._node.answered(command)
        return taken


class _Waiter:
    """One who waits for a set of connections, and the *port* that was handed over."""

    __slots__ = ("gate", "port")

    def __init__(self) -> None:
        self.gate = threading.Lock()
        self.gate.acquire()
        self.port: ConnectionSet | None = None

    def open(self) -> None:
        """Wake whoever waits."""
        with contextlib.suppress(RuntimeError):  # Somebody else did.
            self.gate.release()


class Driver:
    """Runs flows for the threads of one coordinator."""

    def __init__(self, cluster: Cluster, found: Sequence[Endpoint]) -> None:
        self.cluster = cluster
        self.silence = max(1.0, 4 * cluster.patience)
        timeout = min(1.0, max(0.5, 4 * cluster.patience))
        self.nodes = [Node(index, name, cluster.admission, cluster.note) for index, name in enumerate(cluster.names)]
        for node in self.nodes:
            node.owed_for = cluster.owed_for
        self.threads = Threads()
        self.hangups = Hangups(self, self.threads)
        self.dialers = [
            Dialer(endpoint, node, timeout, self.threads, self.hangups) for endpoint, node in zip(found, self.nodes, strict=True)
        ]
        # No Condition and no Event: Ctrl-C on the way into one leaves it locked for ever. Reentrant: the handler of a signal may
        # close this, or use it, in the midst of a `with`.
        self._lock = threading.RLock()
        self._idle: deque[ConnectionSet] = deque()
        self._all: weakref.WeakSet[ConnectionSet] = weakref.WeakSet()
        self._shared: weakref.WeakSet[ConnectionSet] = weakref.WeakSet()  # Weak, so that a set lost to Ctrl-C frees its place.
        self._urgent: deque[_Waiter] = deque()
        self._waiters: deque[_Waiter] = deque()
        """Who waits for a set, in the order of coming. A holder has a line of its own, which is served first."""
        self._closing = self._closed = False

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
        late: list[int] | None = None,
        urgent: bool = False,
        final: bool = False,
    ) -> tuple[T, ConnectionSet]:
        """Run a flow to its end in the calling thread; give its result, and the set that carried its last round.

        *start* makes the flow from the present instant. An exception that tears through (Ctrl-C) lets the flow write its
        last requests first. Raises QuorumUnavailable if no set becomes free by *give_up_at*, and at once if there is none and
        none can be made, unless *patient*. *late* takes the nodes that owe an answer on *prefer*, if that is in other hands.
        *urgent*: for a lease that is held; a holder, and least of all one who makes room, does not queue behind those who want
        locks. *final*: a release, which goes on where `refuse` ends everything else.
        """
        if self.threads.missing:
            self.threads.try_again()
        port = self._check_out(prefer, give_up_at, late, patient=patient, urgent=urgent, final=final)
        ours = True
        run: Run[T] | None = None
        try:
            run = Run(start(clock()), port, clock)
            run.begin()
            while not run.done:
                if self._closing and not final:  # Asked before each wait: whoever closes wakes the set after it set this.
                    raise _closed()
                wait = run.wait
                if not wait.pause:
                    port.pump(wait.until)
                else:  # Only the time is awaited: lend the set to others meanwhile.
                    ours = False
                    run.move(None)
                    self._check_in(port)
                    self._sleep(wait.until)
                    port = self._check_out(port, give_up_at, patient=patient, urgent=urgent, final=final)
                    ours = True
                    run.move(port)
                if run.wait is wait and not run.done and clock() >= wait.until:
                    run.step(Tick(clock()))
            return run.result(), port
        except BaseException:
            if ours:
                port.interrupted()
            if run is not None:
                run.cancel()
            raise
        finally:
            if run is not None:
                run.move(None)
            if ours:
                self._check_in(port)

    def write(self, requests: Sequence[Request], *, prefer: ConnectionSet | None = None) -> None:
        """Write requests whose answers nobody waits for; releases that cannot be written within the node timeout stay owed."""
        late: list[int] = []
        try:
            port = self._check_out(prefer, clock() + self.cluster.patience, late, final=True)
        except QuorumUnavailable:
            for request in requests:
                if request.command.final:
                    self.nodes[request.node].owe(request.command, clock())
        else:
            try:
                port.send(requests, None)
            except BaseException:
                port.interrupted()
                raise
            finally:
                self._check_in(port)
        if prefer is not None and late:
            self.follow(prefer, late, requests)

    def follow(self, port: ConnectionSet, late: Sequence[int], requests: Sequence[Request]) -> None:
        """Write releases on *port* as well, which was in other hands, to the nodes that were *late* there.

        A release that overtakes its acquire finds an older lock on a node now and then, and must leave it alone; then only
        one behind the acquire is final.
        """
        behind = [Request(each.node, each.command, each.not_after) for each in requests if each.node in late]
        if behind:
            port.following.append(behind)
            with contextlib.suppress(ValueError):
                self._idle.remove(port)  # It came back meanwhile.
                self._check_in(port)

    def connection_set(self) -> ConnectionSet:
        """A set of its own, for one who runs many flows at once; not among those that threads share."""
        port = ConnectionSet(self)
        self._all.add(port)
        return port

    def tend(self, port: ConnectionSet) -> bool:
        """Read what came on *port* while nobody used it; False: it is in use."""
        try:
            self._idle.remove(port)
        except ValueError:
            return False
        try:
            port.pump(clock())
        finally:
            self._check_in(port)
        return True

    def hear_releases(self) -> None:
        """Read the answers to releases that came on idle sets after whoever asked had enough."""
        for port in list(self._idle):
            if port.late():
                self.tend(port)

    def bring_owed(self) -> None:
        """Wait, at most the node timeout, until reachable nodes have had the releases they are owed."""
        deadline = clock() + self.cluster.patience
        for port in list(self._idle):
            with contextlib.suppress(ValueError):
                self._idle.remove(port)
                try:
                    port.drain(deadline)
                except BaseException:
                    port.interrupted()
                    raise
                finally:
                    self._check_in(port)
        for dialer, node in zip(self.dialers, self.nodes, strict=True):
            if node.owed_soon:
                dialer.bring()
        while any(node.owed_soon for node in self.nodes) and clock() < deadline:
            time.sleep(_LOOK)

    def refuse(self) -> None:
        """Take nothing but releases from now on, and end whatever else is under way: it raises, and gives back what it took."""
        self._closing = True
        with self._lock:
            ports = list(self._shared)
        for port in ports:
            port.wake()
        self._call_waiters()

    def quieten(self) -> None:
        """Wait, at most the node timeout, until no thread uses a set any more."""
        deadline = clock() + self.cluster.patience
        while len(self._idle) < len(self._shared) and clock() < deadline:
            time.sleep(_LOOK)

    def close(self) -> None:
        """Close all connections, and wait for what still dials. A set in use is closed when it comes back.

        May be called again, to go on where an interrupt ended it.
        """
        self._closing = True
        if not self._closed:
            self.bring_owed()
        self._closed = True
        for dialer in self.dialers:
            dialer.close()
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop().close()
        self._call_waiters()
        until = clock() + _JOIN  # For all of them together.
        for dialer in self.dialers:
            dialer.join(until)
        self.hangups.close()

    def abandon(self) -> None:
        """After a fork, in the child: let go of the parent's connections without a word on them."""
        self.hangups.abandon()
        for port in self._all:
            port.abandon()

    # Sets of connections

    def _check_out(
        self,
        prefer: ConnectionSet | None,
        give_up_at: float = math.inf,
        late: list[int] | None = None,
        *,
        patient: bool = False,
        urgent: bool = False,
        final: bool = False,
    ) -> ConnectionSet:
        if self._closing and not final:
            raise _closed()
        if prefer is not None:
            # The set that carried the acquire, so that its release cannot overtake it.
            try:
                self._idle.remove(prefer)
            except ValueError:
                if late is not None:
                    late += prefer.late()
            else:
                return prefer
        line = self._urgent if urgent or final else self._waiters
        if not self._urgent and not line:  # Or the one who comes just now would be faster than all who wait.
            with contextlib.suppress(IndexError):
                return self._idle.pop()
        waiter: _Waiter | None = None
        try:
            while True:
                comes = True  # Whether waiting may bring one: those that are in use come back.
                try:
                    port = self._make()
                    why = f"all {SETS_MAX} sets of connections are in use"
                except OSError as error:  # No descriptor to be had.
                    port = None
                    why = f"no more connections can be made ({error.strerror or error})"
                    comes = bool(self._shared) or patient
                if port is not None:
                    return port
                left = give_up_at - clock()
                if left <= 0 or not comes:
                    raise QuorumUnavailable(saturated(self.cluster.names, f"was not asked: {why}"))
                if waiter is None:
                    waiter = _Waiter()
                    line.append(waiter)
                    self._hand_over()  # After the append: whoever brings a set back looks for waiters after it did.
                if not self._closed:
                    waiter.gate.acquire(timeout=min(left, 1.0 if self._shared else AGAIN))
                port = waiter.port
                if port is not None:
                    waiter = None
                    return port
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
            if len(self._shared) >= SETS_MAX:
                return None
            port = ConnectionSet(self)
            self._all.add(port)
            self._shared.add(port)
            return port

    def _hand_over(self) -> None:
        """Give the sets that are idle to those who wait, the first of them first."""
        while self._idle and (self._urgent or self._waiters):
            try:
                port = self._idle.pop()
            except IndexError:
                return
            try:
                waiter = (self._urgent or self._waiters).popleft()
            except IndexError:  # They have gone meanwhile. Others may have come: look again.
                self._idle.append(port)
            else:
                waiter.port = port
                waiter.open()

    def _step_out(self, line: deque[_Waiter], waiter: _Waiter) -> None:
        """Wait no more, and give back a set that came at this very moment."""
        try:
            line.remove(waiter)
        except ValueError:  # Somebody has one for us, and is about to say so, if no Ctrl-C strikes it.
            if waiter.port is None:
                waiter.gate.acquire(timeout=_JOIN)
        if waiter.port is not None:
            self._check_in(waiter.port)

    def _call_waiters(self) -> None:
        """Make those who wait look up: there may be nothing to wait for any more."""
        for waiter in [*self._urgent, *self._waiters]:
            waiter.open()

    def _sleep(self, until: float) -> None:
        """Until *until*, or until this is closed."""
        left = until - clock()
        while left > 0 and not self._closing:
            time.sleep(min(left, _NAP))
            left = until - clock()

    def _check_in(self, port: ConnectionSet) -> None:
        while True:
            while port.following:
                port.send(port.following.popleft(), None)
            self._idle.append(port)
            if not port.following:
                break
            try:
                self._idle.remove(port)
            except ValueError:  # Somebody has it, and brings it back.
                break
        if self._closed:  # Asked after the append: whoever closes looks at the list after it set this.
            with contextlib.suppress(ValueError):
                self._idle.remove(port)
            port.drain(clock() + self.cluster.patience)
            port.close()
        elif self._urgent or self._waiters:
            self._hand_over()


def _closed() -> RedlockError:
    return RedlockError("this Redlock is closed")
