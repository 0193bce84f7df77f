"""Dials one node for the sets of connections of threads, in a thread that lives while there is
something to dial."""

from __future__ import annotations

import socket
from collections import deque

import redis

from redlock.core.quorum import Fault, FaultKind
from redlock.transport.clock import now as clock
from redlock.transport.dial import Endpoint, cut, hang_up
from redlock.transport.hangups import Hangups
from redlock.transport.node import Node
from redlock.transport.sockets import Sockets
from redlock.transport.threads import Threads, Worker

__all__ = ["Dialer"]


class Dialer(Worker):
    """Connects to *node*, at *endpoint*, for whichever set asks; *timeout*: seconds for each
    dial."""

    def __init__(
        self, endpoint: Endpoint, node: Node, timeout: float, threads: Threads, hangups: Hangups
    ) -> None:
        super().__init__(threads)
        self._name = f"redlock-dial-{node.name}"
        self._endpoint = endpoint
        self._node = node
        self._timeout = timeout
        self._hangups = hangups
        self._wanted: deque[Sockets] = deque()
        self._dialled: redis.Connection | None = None
        self._closing = False

    def ask(self, sockets: Sockets) -> None:
        """Bring *sockets* a connection, or a fault, which they get at once if no thread can be
        had."""
        with self._lock:
            if self._closing:
                return
            self._wanted.append(sockets)
            try:
                problem = self._begin()
            except BaseException:  # Ctrl-C: the link asks again, and must not be answered twice.
                self._wanted.remove(sockets)
                raise
            if problem is not None:
                self._wanted.remove(sockets)
        if problem is not None:
            sockets.arrive(
                self._node.index,
                None,
                None,
                Fault(FaultKind.UNREACHABLE, f"could not be dialled ({problem})"),
            )

    def close(self) -> None:
        """Dial no more."""
        with self._lock:
            self._closing = True
            if self._dialled is not None:
                cut(self._dialled)

    def join(self, until: float) -> None:
        """Wait for a dial in progress, at most until *until*. One that waits for TCP or for a
        name server ends by itself."""
        self._join(max(0.0, until - clock()))

    def _dialling(self, connection: redis.Connection | None) -> None:
        with self._lock:
            self._dialled = connection

    def _due(self) -> bool:
        return not self._closing and bool(self._wanted)

    def _step(self) -> None:
        with self._lock:
            sockets = self._wanted.popleft()
        connection: redis.Connection | None = None
        sock: socket.socket | None = None
        fault = Fault(FaultKind.UNREACHABLE, "could not be dialled")
        try:
            connection, sock = self._dial()
        except Exception as error:
            # Whatever dialling raises is that node's fault, for the votes to tell.
            fault = self._endpoint.fault(error)
        finally:  # Whatever happened: a link that hears nothing would wait for this dial for ever.
            sockets.arrive(self._node.index, connection, sock, fault)
        self._threads.try_again()

    def _dial(self) -> tuple[redis.Connection, socket.socket]:
        connection, sock = self._endpoint.connect(self._timeout, self._dialling)
        try:
            self._dialling(None)
            sock.setblocking(False)
            self._hangups.begin()
        except BaseException:
            hang_up(connection)
            raise
        return connection, sock
