"""Hears of connections that a node closed while no thread was reading them: one thread per
coordinator, asleep in epoll.

The blocking driver reads its sockets only while a flow waits on them, and a flow returns at the
q-th answer. If a node breaks off before it answered a release, and nobody uses the lock again,
nobody would learn that the release is still owed. epoll is told of hang-ups alone, so ordinary
answers never wake this thread, and an acquire pays nothing for it. Twice a second it reads what
came for releases on idle sets, because an answer may say that the node refuses one. Where there is
no epoll, a broken connection is noticed at the next use.

The same thread begins other threads that could not be begun before. It is the one that is always
there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import weakref
from typing import Any, Protocol

from redlock.transport.threads import AGAIN, Threads, Worker

__all__ = ["Hangups", "Tender", "Watched"]

_LOOK_AGAIN = 0.05
"""Seconds until a connection that ended on a set in use is looked at again."""
_JOIN = 0.25
"""Seconds for the thread's end; it sleeps in epoll, and is woken for that."""
_READ_AGAIN = 0.5
"""A release returns at the q-th answer. One of the others may say that a node refuses it, and
nobody else might read that."""

_log = logging.getLogger("redlock")


class Watched(Protocol):
    """A set of connections."""

    @property
    def closed(self) -> bool:
        """Whether its connections are."""

    def descriptor(self, node: int) -> int:
        """The file descriptor of its connection to *node*; -1 if there is none."""


class Tender(Protocol):
    """Who has the sets that nobody uses."""

    def tend(self, connections: Any) -> bool:
        """Read what came on *connections*; False: it is in use."""

    def hear_releases(self) -> None:
        """Read what came for releases on idle sets."""


class Hangups(Worker):
    """Looks after the idle sets of *driver* whose connections end."""

    _name = "redlock-hangups"

    def __init__(self, driver: Tender, threads: Threads) -> None:
        # Reentrant: the collector may find the driver dead, and so call `_stop`, in the midst of a
        # `with` on it.
        super().__init__(threads)
        # Dropped without being closed: the thread ends too.
        self._driver = weakref.ref(driver, lambda _: self._stop())
        self._watched: dict[int, tuple[weakref.ref[Watched], int]] = {}
        self._ended_fds: set[int] = set()
        self._epoll: select.epoll | None = None
        self._bell = -1
        self._closing = False
        threads.on_missing = self._ring

    def watch(self, connections: Watched, index: int, sock: socket.socket) -> None:
        """Tell *connections*, should it be idle then, when its connection to node *index* ends."""
        with self._lock:
            if not self._closing and hasattr(select, "epoll"):
                # A closed descriptor leaves the epoll by itself; its number is overwritten here
                # when it comes again.
                self._watched[sock.fileno()] = (weakref.ref(connections), index)
                if self._epoll is not None:
                    _register(self._epoll, sock.fileno())

    def begin(self) -> None:
        """Start the thread, if it does not run; by a thread that no Ctrl-C can strike."""
        with self._lock:
            if self._due():
                self._begin()

    def close(self) -> None:
        """End the thread. Idempotent."""
        self._stop()
        self._join(_JOIN)

    def abandon(self) -> None:
        """After a fork, in the child, which has no such thread: let go of the descriptors."""
        self._closing = True  # Without the lock, which a thread of the parent may have held.
        if self._epoll is not None and self._bell >= 0:
            self._epoll.close()
            os.close(self._bell)
            self._epoll, self._bell = None, -1

    def _stop(self) -> None:
        with self._lock:
            self._closing = True
            self._ring()

    def _ring(self) -> None:
        with self._lock:
            if self._bell >= 0:
                with contextlib.suppress(BlockingIOError):  # It rings already.
                    os.eventfd_write(self._bell, 1)

    def _due(self) -> bool:
        return not self._closing and hasattr(select, "epoll")

    def _prepare(self) -> None:
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._bell, select.EPOLLIN)
        # Of connections that came while there was no thread to be had, nor a descriptor.
        for fd in list(self._watched):
            if self._behind(fd) is not None:
                _register(self._epoll, fd)

    def _tidy(self) -> None:
        epoll, bell = self._epoll, self._bell
        self._epoll, self._bell = None, -1
        if epoll is not None:
            epoll.close()
        if bell >= 0:
            os.close(bell)

    def _step(self) -> None:
        epoll, bell = self._epoll, self._bell
        if epoll is None:  # Closed by a fork's child, or by the end.
            return
        # An edge comes once. A set that is in use may have looked at its sockets for the last time.
        pause = _LOOK_AGAIN if self._ended_fds else AGAIN if self._threads.missing else _READ_AGAIN
        for fd, _ in epoll.poll(pause):
            if fd != bell:
                self._ended_fds.add(fd)
            elif not self._closing:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(bell)
        self._threads.try_again()
        self._ended_fds = {fd for fd in self._ended_fds if not self._tell(fd)}
        driver = self._driver()
        if driver is not None:
            driver.hear_releases()

    def _behind(self, fd: int) -> Watched | None:
        """The set that still uses *fd*."""
        entry = self._watched.get(fd)
        connections = entry[0]() if entry is not None else None
        return (
            connections
            if entry is not None
            and connections is not None
            and connections.descriptor(entry[1]) == fd
            and not connections.closed
            else None
        )

    def _tell(self, fd: int) -> bool:
        """Whether the set behind *fd* knows by now, or is gone."""
        driver, connections = self._driver(), self._behind(fd)
        if driver is None or connections is None:
            return True
        try:
            return driver.tend(connections)
        except Exception:
            _log.exception("looking after a closed connection failed")
            return True


def _register(epoll: select.epoll, fd: int) -> None:
    with contextlib.suppress(OSError):
        epoll.register(fd, select.EPOLLRDHUP | select.EPOLLET)
