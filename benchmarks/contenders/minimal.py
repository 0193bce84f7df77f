"""The second yardstick: the least Python that takes a majority of N nodes, so that Python's own
share can be told apart.

Raw non-blocking sockets, one epoll, hiredis, the floor's bytes, return at the majority's answer. No
validity, nothing given back, no node kept out, no connection made again: a yardstick, not a lock.
"""

from __future__ import annotations

import hashlib
import os
import select
import socket
import threading
from urllib.parse import urlsplit

import hiredis

from benchmarks.contenders.harness import Library

__all__ = ["Minimal", "MinimalUnderMutex"]

_RELEASE = (
    "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end"
)
_SHA = hashlib.sha1(_RELEASE.encode(), usedforsecurity=False).hexdigest()


class _Nodes:
    """One connection per node, for one user at a time."""

    def __init__(self, urls: list[str]) -> None:
        self._poll = select.epoll()
        self._socks: dict[int, socket.socket] = {}
        self._readers: dict[int, hiredis.Reader] = {}
        self._unanswered: dict[int, int] = {}
        self._needed = len(urls) // 2 + 1
        load = hiredis.pack_command(("SCRIPT", "LOAD", _RELEASE))  # type: ignore[arg-type]  # its stub asks for one word
        for url in urls:
            parts = urlsplit(url)
            sock = socket.create_connection((parts.hostname, parts.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(load)
            sock.recv(4096)
            sock.setblocking(False)
            fd = sock.fileno()
            self._socks[fd], self._readers[fd], self._unanswered[fd] = sock, hiredis.Reader(), 0
            self._poll.register(fd, select.EPOLLIN)

    def round(self, data: bytes, yes: object) -> bool:
        """One question to all nodes: True at the majority's *yes*, False as soon as there can be
        none."""
        unanswered = self._unanswered
        for fd, sock in self._socks.items():
            sock.send(data)
            unanswered[fd] += 1
        granted = answered = 0
        nodes, needed = len(unanswered), self._needed
        while True:
            for fd, _ in self._poll.poll():
                reader = self._readers[fd]
                reader.feed(self._socks[fd].recv(4096))
                while (reply := reader.gets()) is not False:
                    unanswered[fd] -= 1
                    if not unanswered[fd]:
                        answered += 1
                        granted += reply == yes
            if granted >= needed:
                return True
            if granted + nodes - answered < needed:
                return False

    def close(self) -> None:
        for sock in self._socks.values():
            sock.close()
        self._poll.close()


class Minimal(Library):
    """One set of connections."""

    packages = ("hiredis",)

    def open(self, urls: list[str], ttl: float) -> None:
        self._ttl_ms = b"%d" % round(ttl * 1000)
        self._nodes = _Nodes(urls)

    def take(self, resource: str) -> tuple[bytes, bytes] | None:
        key, owner = resource.encode(), os.urandom(16).hex().encode()
        data = (
            b"*6\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$32\r\n%b\r\n$2\r\nNX\r\n$2\r\nPX\r\n$%d\r\n%b\r\n"
            % (
                len(key),
                key,
                owner,
                len(self._ttl_ms),
                self._ttl_ms,
            )
        )
        return (key, owner) if self._nodes.round(data, b"OK") else None

    def free(self, held: tuple[bytes, bytes]) -> None:
        key, owner = held
        data = b"*5\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n$1\r\n1\r\n$%d\r\n%b\r\n$32\r\n%b\r\n" % (
            _SHA.encode(),
            len(key),
            key,
            owner,
        )
        self._nodes.round(data, 1)

    def close(self) -> None:
        self._nodes.close()


class MinimalUnderMutex(Minimal):
    """One set of connections for all threads, with a mutex around every round."""

    def open(self, urls: list[str], ttl: float) -> None:
        super().open(urls, ttl)
        self._mutex = threading.Lock()

    def take(self, resource: str) -> tuple[bytes, bytes] | None:
        with self._mutex:
            return super().take(resource)

    def free(self, held: tuple[bytes, bytes]) -> None:
        with self._mutex:
            super().free(held)
