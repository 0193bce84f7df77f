"""Nodes in this very process, with a clock that a test moves: for tests of programs that take
locks. Needs the extra `testing`.

    from redlock.testing import Nodes

    with Nodes() as nodes, Redlock(nodes.urls, ttl=10.0) as locks:
        lease = locks.lock("invoices:42").acquire()
        nodes.advance(60.0)
        assert not lease.is_held()

Nothing is imitated but the server: coordinators, blocking and asyncio, are the ones that ship, and
the nodes execute the scripts that ship. They listen on Unix sockets and start in milliseconds. They
have one database, no persistence, no passwords, and as much of Redis as redlock asks for. For
anything else there are real ones, `redlock.embedded`.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import selectors
import shutil
import socket
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import hiredis

from redlock.fakes import Database
from redlock.initialise import initialise
from redlock.transport import clock

__all__ = ["Node", "Nodes", "advance"]

_FOLDER_MAX = 80
"""Bytes of the folder for temporary files that leave room for ours: macOS allows 103 in all."""


class _Time:
    """The module `time` as `redlock.transport.clock` sees it, moved on."""

    ahead = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def clock_gettime(self, which: int) -> float:
        """The lease clock and the wall clock run ahead; one that stands still in suspend does not,
        so that an advance looks like a suspend."""
        moved = which in (clock._CLOCK, time.CLOCK_REALTIME)
        return time.clock_gettime(which) + (self.ahead if moved else 0.0)

    def clock_gettime_ns(self, which: int) -> int:
        """The same in nanoseconds."""
        return int(self.clock_gettime(which) * 1e9)


_time = _Time()


def advance(seconds: float) -> None:
    """Let *seconds* pass at once, for every coordinator of this process and for all `Nodes`.

    As after a suspend of the machine: what a lease says of itself and what nodes hold is as of
    then at once, and timers, such as of `lost` and of a renewal, follow within a second. There is
    no way back, as time has none. What was sent before arrives before. Real servers do not hear of
    it, nor does a forked child, whose clock is its own.
    """
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"seconds={seconds!r} must be a number from 0 up")
    for server in list(_servers):
        server.settle()
    setattr(clock, "time", _time)  # noqa: B010  # To mypy it is a module.
    _time.ahead += seconds


class Node:
    """One node. `url`; `stop` and `start`: it refuses connections; `forget`: it restarts, empty."""

    def __init__(self, path: Path, server: _Server, database: Database) -> None:
        self.path = path
        self._server = server
        self.database = database

    @property
    def url(self) -> str:
        """Where to reach it."""
        return f"unix://{self.path}"

    def start(self) -> None:
        """Listen again, with what it held."""
        self._server.listen(self)

    def stop(self) -> None:
        """Close every connection, and refuse new ones; as a process that ended and keeps its data,
        or a network that is cut."""
        self._server.silence(self)

    def forget(self) -> None:
        """As a restart without persistence: it is another memory, and does not vote until its
        quarantine is over; `advance` shortens that."""
        self._server.silence(self)
        self.database.restart()
        self._server.listen(self)


class _Server:
    """Serves all nodes in one thread."""

    def __init__(self) -> None:
        self._guard = threading.RLock()
        self._selector = selectors.DefaultSelector()
        self._of: dict[Node, list[socket.socket]] = {}
        self._bell_reader, self._bell = socket.socketpair()
        self._bell_reader.setblocking(False)
        self._selector.register(self._bell_reader, selectors.EVENT_READ)
        self._closed = False
        self._thread = threading.Thread(
            target=self._serve, name="redlock-testing-nodes", daemon=True
        )
        _servers.add(self)

    def listen(self, node: Node) -> None:
        """Serve *node*."""
        with self._guard:
            if self._closed or node in self._of:
                return
            if not self._thread.is_alive():
                self._thread.start()
            listener = socket.socket(socket.AF_UNIX)
            with contextlib.suppress(FileNotFoundError):
                node.path.unlink()
            listener.bind(str(node.path))
            listener.listen(128)
            listener.setblocking(False)
            self._of[node] = [listener]
            self._selector.register(listener, selectors.EVENT_READ, (node, None))
        self._bell.send(b"\0")

    def silence(self, node: Node) -> None:
        """Serve *node* no more."""
        with self._guard:
            for each in self._of.get(node, [])[:]:
                self._hang_up(node, each)
            self._of.pop(node, None)
            node.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Serve nobody."""
        with self._guard:
            for node in list(self._of):
                self.silence(node)
            self._closed = True
        self._bell.send(b"\0")
        if self._thread.is_alive():
            self._thread.join()
        self._selector.close()
        self._bell.close()
        self._bell_reader.close()

    def settle(self) -> None:
        """Execute what was sent."""
        with self._guard:
            while not self._closed and (ready := self._selector.select(0)):
                self._answer(ready)

    def _serve(self) -> None:
        while not self._closed:
            ready = self._selector.select()
            with self._guard:
                self._answer(ready)

    def _answer(self, ready: Sequence[tuple[selectors.SelectorKey, int]]) -> None:
        for key, _ in ready:
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    self._bell_reader.recv(64)
                continue
            sock: Any = key.fileobj
            # What was silenced meanwhile is closed, or not registered any more.
            if sock.fileno() >= 0 and self._selector.get_map().get(sock) is key:
                node, reader = key.data
                self._turn(node, reader, sock)

    def _turn(self, node: Node, reader: hiredis.Reader | None, sock: Any) -> None:
        if reader is None:
            with contextlib.suppress(OSError):
                connection, _ = sock.accept()
                connection.settimeout(1.0)  # Who reads no answers does not stop the others.
                self._of[node].append(connection)
                data = (node, hiredis.Reader())
                self._selector.register(connection, selectors.EVENT_READ, data)
            return
        try:
            received = sock.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:  # It was read by `settle`.
            return
        except OSError:
            received = b""
        if not received:
            self._hang_up(node, sock)
            return
        reader.feed(received)
        try:
            while sock.fileno() >= 0 and (words := reader.gets()) is not False:
                if not (words and isinstance(words, list) and isinstance(words[0], bytes)):
                    raise hiredis.ProtocolError("no command")
                for other, answer in node.database.answer(words, sock):
                    self._send(node, other, answer)
        except hiredis.ProtocolError:
            self._hang_up(node, sock)

    def _send(self, node: Node, sock: socket.socket, answer: bytes) -> None:
        if sock.fileno() < 0:
            return
        try:
            sock.sendall(answer)
        except OSError:  # That of a subscriber is no fault of who published.
            self._hang_up(node, sock)

    def _hang_up(self, node: Node, sock: socket.socket) -> None:
        self._selector.unregister(sock)
        self._of[node].remove(sock)
        node.database.left(sock)
        with contextlib.suppress(OSError):
            # A child of this process may have it too, and would keep it open.
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()


_servers: weakref.WeakSet[_Server] = weakref.WeakSet()
# In a forked child nobody serves: it would answer in place of its parent, from a copy of the data.
os.register_at_fork(after_in_child=_servers.clear)


class Nodes(Sequence[Node]):
    """*count* nodes as a context manager, marked as a cluster; the same words as
    `redlock.embedded.Nodes`."""

    def __init__(
        self,
        count: int = 3,
        *,
        max_ttl: float | None = None,
        durable: bool = False,
        cluster: str | None = None,
    ) -> None:
        self._max_ttl = max_ttl
        self._durable = durable
        self._cluster = cluster
        # First, as it fails where there is no Lua.
        databases = [Database(clock.now, clock.Entropy().wall_us) for _ in range(count)]
        # The path of a Unix socket ends after a hundred bytes.
        where = None if len(os.fsencode(tempfile.gettempdir())) <= _FOLDER_MAX else "/tmp"
        self.folder = Path(tempfile.mkdtemp(prefix="redlock-", dir=where))
        self._server = _Server()
        self._nodes = [
            Node(self.folder / str(number), self._server, database)
            for number, database in enumerate(databases, 1)
        ]
        self._owner_pid = os.getpid()
        atexit.register(self.close)

    @property
    def urls(self) -> list[str]:
        """The nodes' URLs, in order."""
        return [node.url for node in self._nodes]

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass at once; see `redlock.testing.advance`."""
        advance(seconds)

    def __getitem__(self, index: Any) -> Any:
        return self._nodes[index]

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes)

    def __enter__(self) -> Self:
        try:
            for node in self._nodes:
                node.start()
            initialise(
                self.urls, max_ttl=self._max_ttl, durable=self._durable, cluster=self._cluster
            )
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End them. Idempotent; does nothing in a forked child, which may use them."""
        if os.getpid() == self._owner_pid and self.folder.exists():
            self._server.close()
            shutil.rmtree(self.folder, ignore_errors=True)
            atexit.unregister(self.close)
