"""A set of blocking connections, one to each node: the thread that holds it does its I/O, on one
poller over all sockets."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import redis

from redlock.core.effects import Request
from redlock.core.quorum import Fault, FaultKind
from redlock.transport.clock import now as clock
from redlock.transport.dial import hang_up
from redlock.transport.hangups import Hangups
from redlock.transport.link import Link
from redlock.transport.linkset import LinkSet
from redlock.transport.node import Node
from redlock.transport.run import Run

__all__ = ["ConnectionSet", "Sockets"]

_READ = 16384
"""Bytes: the answers of a round are some hundreds, those of a crowd some thousands."""
_WRITABLE = select.POLLOUT
_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR | select.POLLNVAL
_POLL_MAX = 60.0
"""Seconds in one poll; nobody minds a look a minute."""
_AGAIN = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_Tls = ssl.SSLSocket


class Sockets:
    """The sockets of one set, and what dialling brings: what a `LinkSet` needs of blocking I/O.

    *dial*: for each node, what begins to dial it and calls `arrive` in the end. Knows nothing of
    the links above it, lest a set that Ctrl-C tore out of the hands of its thread live on in a
    circle.
    """

    def __init__(self, dial: Sequence[Callable[[Sockets], None]]) -> None:
        self.socks: list[socket.socket | None] = [None] * len(dial)
        self.by_fd: dict[int, int] = {}
        """Nodes by the descriptors of their sockets."""
        self.arrivals: deque[
            tuple[int, redis.Connection | None, socket.socket | None, Fault | None]
        ] = deque()
        """Dials that ended, which nobody has taken over yet."""
        self.closed = False
        self.torn = False
        """Whether a write failed and nobody has read the end of that connection yet."""
        self._dial = dial
        self._connections: list[redis.Connection | None] = [None] * len(dial)
        self._unsent: list[bytes] = [b""] * len(dial)
        self._bell_reader, self._bell = socket.socketpair()
        self._bell_reader.setblocking(False)
        self._bell.setblocking(False)
        self.poller = select.poll()
        self.poller.register(self._bell_reader, select.POLLIN)

    # From other threads

    def arrive(
        self,
        node: int,
        connection: redis.Connection | None,
        sock: socket.socket | None,
        fault: Fault | None,
    ) -> None:
        """A dial ended."""
        self.arrivals.append((node, connection, sock, fault))
        self.ring()
        if self.closed:
            self._discard_arrivals()

    def ring(self) -> None:
        """Make the thread that waits on this set look up."""
        with contextlib.suppress(OSError):
            self._bell.send(b"\0")

    # What the links need

    def write(self, node: int, data: bytes) -> None:
        """What cannot be sent now is sent when there is room."""
        sock = self.socks[node]
        if sock is None:
            return
        unsent = self._unsent[node]
        if unsent:
            data = unsent + data
        try:
            sent = sock.send(data)
        except _AGAIN:
            sent = 0
        except OSError:
            # Its end is read behind the answers that came before it; where that would not be told,
            # it is made so.
            self.torn = True
            with contextlib.suppress(OSError):
                if isinstance(sock, _Tls):  # Its own would read on as if there were no TLS.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
                else:
                    sock.shutdown(socket.SHUT_RDWR)
            return
        if sent != len(data) or unsent:
            self._unsent[node] = data[sent:]
            self.poller.register(sock, select.POLLIN | (select.POLLOUT if sent != len(data) else 0))

    def hang_up(self, node: int) -> None:
        """Close the connection to *node*."""
        sock, self.socks[node] = self.socks[node], None
        connection, self._connections[node] = self._connections[node], None
        self._unsent[node] = b""
        if sock is not None:
            fd = sock.fileno()
            if self.by_fd.pop(fd, None) is not None:
                with contextlib.suppress(KeyError, OSError):
                    self.poller.unregister(fd)
        if connection is not None:
            hang_up(connection)

    def dial(self, node: int) -> None:
        """Have *node* dialled, in another thread."""
        self._dial[node](self)

    def readable(self, node: int) -> bool:
        """Whether something of *node* waits in its socket."""
        sock = self.socks[node]
        if sock is None or (isinstance(sock, _Tls) and sock.pending()):
            return sock is not None
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))

    def wake_at(self, instant: float) -> None:
        """The thread that holds the set looks at `LinkSet.next_at` before it waits."""

    # From the thread that holds the set

    def adopt(self, node: int, connection: redis.Connection, sock: socket.socket) -> None:
        """Write to this connection from now on."""
        self.hang_up(node)
        self._connections[node] = connection
        self.socks[node] = sock
        self.by_fd[sock.fileno()] = node
        self.poller.register(sock, select.POLLIN)

    def heed_bell(self) -> None:
        """It rang: let it ring again."""
        with contextlib.suppress(BlockingIOError):
            while len(self._bell_reader.recv(64)) == 64:
                pass

    def close(self) -> None:
        """Close every connection. Again, if it was interrupted."""
        self.closed = True
        for node in range(len(self.socks)):
            self.hang_up(node)
        self._discard_arrivals()
        self._bell_reader.close()
        self._bell.close()

    def abandon(self) -> None:
        """After a fork, in the child: let go of the parent's connections without a word on them."""
        self.closed = True
        for sock in [*self.socks, self._bell_reader, self._bell]:
            if sock is not None:
                with contextlib.suppress(OSError):
                    socket.close(sock.detach())

    def _discard_arrivals(self) -> None:
        while self.arrivals:
            connection = self.arrivals.popleft()[1]
            if connection is not None:
                hang_up(connection)


class ConnectionSet:
    """A set of connections, one to each of *nodes*, used by one thread at a time: its `linkset`
    over its `sockets`.

    *hangups*: what tells of the end of a connection while the set is idle, where that matters.
    *make_link*: see `LinkSet`.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        dial: Sequence[Callable[[Sockets], None]],
        hangups: Hangups | None,
        *,
        silence: float,
        make_link: Callable[..., Any] = Link,
    ) -> None:
        self.sockets = Sockets(dial)
        self.linkset = LinkSet(nodes, self.sockets, clock, silence=silence, make_link=make_link)
        self.following: deque[list[Request]] = deque()
        """Releases from other threads, to be written before the set is idle again."""
        self._hangups = hangups

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.sockets.closed

    def descriptor(self, node: int) -> int:
        """The file descriptor of the connection to *node*; -1 if there is none."""
        sock = self.sockets.socks[node]
        return sock.fileno() if sock is not None else -1

    def begin(self, run: Run[Any]) -> None:
        """Run a flow up to its first wait."""
        if self.sockets.arrivals:  # What was dialled while nobody used the set.
            self.welcome()
        self.linkset.begin(run)

    def resume(self, run: Run[Any]) -> None:
        """The pause of *run* is over, and it goes on here."""
        if self.sockets.arrivals:
            self.welcome()
        run.move(self.linkset)
        self.linkset.resume(run)

    def send(self, requests: Sequence[Request]) -> None:
        """Write requests whose answers nobody waits for."""
        if self.sockets.arrivals:
            self.welcome()
        self.linkset.send(requests, None)

    # Long: nearly every answer goes through here, and a call costs more than what it does.
    def pump(self, until: float = math.inf) -> None:
        """Wait for the first events, at most until *until* or something is due, and hand them out.

        Everything that is there is read, also after the deciding vote: a node that always answers
        last would otherwise never be heard.
        """
        linkset, sockets = self.linkset, self.sockets
        if linkset.mailbox:
            linkset.settle()
            return
        left = min(linkset.next_at, until) - clock()
        ready = sockets.poller.poll(0 if left <= 0 else math.ceil(min(left, _POLL_MAX) * 1000))
        sockets.torn = False
        by_fd, socks = sockets.by_fd, sockets.socks
        for fd, mask in ready:
            linkset.busy = node = by_fd.get(fd, -1)
            if node < 0:
                sockets.heed_bell()
                self.welcome()
                continue
            if mask & _WRITABLE:
                sockets.write(node, b"")
            more = mask & _READABLE
            while more:
                sock = socks[node]
                if sock is None:
                    break
                # After an interrupt, bytes that were read and not handed over would be missing.
                linkset.busy = node
                try:
                    data = sock.recv(_READ)
                except _AGAIN:
                    break
                except OSError as error:
                    self._ended(node, f"lost the connection ({error.strerror or error})")
                    break
                if not data:
                    self._ended(node, "closed the connection")
                    break
                linkset.received(node, data)
                # TLS may hold decrypted bytes that no poller reports.
                more = len(data) == _READ or isinstance(sock, _Tls)
        linkset.busy = -1
        # Where there was time left, the next look at it comes after what was ready.
        if left <= 0 or not ready:
            linkset.tick()

    def welcome(self) -> None:
        """Take over the connections that dialling brought."""
        linkset, sockets = self.linkset, self.sockets
        while sockets.arrivals:
            # An interrupt from here on would leave the link waiting for a dial that nobody
            # remembers.
            linkset.busy = sockets.arrivals[0][0]
            node, connection, sock, fault = sockets.arrivals.popleft()
            # Answers of another connection would be taken for those of the one that it has.
            if not linkset.links[node].dialling:
                if connection is not None:
                    hang_up(connection)
            elif connection is None or sock is None:
                linkset.dial_failed(
                    node, fault or Fault(FaultKind.UNREACHABLE, "could not be reached")
                )
            else:
                sockets.adopt(node, connection, sock)
                if self._hangups is not None:
                    self._hangups.watch(self, node, sock)
                linkset.connected(node)
        linkset.busy = -1

    def drain(self, until: float) -> None:
        """Hear of the releases that were written, at most until *until*."""
        while clock() < until and self.linkset.releasing:
            self.pump(until)

    def close(self) -> None:
        """Close every connection. Again, if it was interrupted."""
        self.sockets.close()

    def __del__(self) -> None:
        # A set that Ctrl-C tore out of the hands of its thread. The interpreter may be half gone.
        with contextlib.suppress(Exception):
            self.close()

    def _ended(self, node: int, detail: str) -> None:
        self.sockets.hang_up(node)
        self.linkset.lost(node, Fault(FaultKind.LOST, detail))
