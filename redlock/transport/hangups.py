"""Hears of connections that a node closed while no thread was reading them: one thread per coordinator, asleep in epoll.

The blocking driver reads its sockets only while a flow waits on them, and a flow returns at the q-th answer. If a node
breaks off before it answered a release, and nobody uses the lock again, nobody would learn that the release is still owed.
epoll is told of hang-ups alone, so ordinary answers never wake this thread, and an acquire pays nothing for it. Where there
is no epoll, a broken connection is noticed at the next use.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redlock.transport.blocking import ConnectionSet, Driver

__all__ = ["Hangups"]

_AGAIN = 0.05
_JOIN = 0.25

_log = logging.getLogger("redlock")


class Hangups:
    """Looks after the idle sets of *driver* whose connections end."""

    def __init__(self, driver: Driver) -> None:
        self._driver = weakref.ref(driver, lambda _: self._stop())  # Dropped without being closed: the thread ends too.
        # Reentrant: the collector may find the driver dead, and so call `_stop`, in the midst of a `with` on it.
        self._lock = threading.RLock()
        self._watched: dict[int, tuple[weakref.ref[ConnectionSet], int]] = {}
        self._epoll: select.epoll | None = None
        self._bell = -1
        self._thread: threading.Thread | None = None
        self._closing = False

    def watch(self, port: ConnectionSet, index: int, sock: socket.socket) -> None:
        """Tell *port*, should it be idle then, when its connection to node *index* ends."""
        with self._lock:
            if self._epoll is not None and not self._closing:
                # A closed descriptor leaves the epoll by itself; its number is overwritten here when it comes again.
                self._watched[sock.fileno()] = (weakref.ref(port), index)
                with contextlib.suppress(OSError):
                    self._epoll.register(sock.fileno(), select.EPOLLRDHUP | select.EPOLLET)

    def begin(self) -> None:
        """Start the thread, if it does not run; by a thread that no Ctrl-C can strike."""
        with self._lock:
            if self._epoll is None and not self._closing and hasattr(select, "epoll"):
                self._begin()

    def _begin(self) -> None:
        epoll, bell = select.epoll(), os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        epoll.register(bell, select.EPOLLIN)
        thread = threading.Thread(target=self._work, args=(epoll, bell), name="redlock-hangups", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # No thread to be had: the next connection tries again.
            epoll.close()
            os.close(bell)
        else:
            self._epoll, self._bell, self._thread = epoll, bell, thread

    def close(self) -> None:
        """End the thread. Idempotent."""
        self._stop()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN)

    def _stop(self) -> None:
        with self._lock:
            self._closing = True
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def abandon(self) -> None:
        """After a fork, in the child, which has no such thread: let go of the descriptors."""
        self._closing = True  # Without the lock, which a thread of the parent may have held.
        if self._epoll is not None and self._bell >= 0:
            self._epoll.close()
            os.close(self._bell)
            self._bell = -1

    def _work(self, epoll: select.epoll, bell: int) -> None:
        ended: set[int] = set()
        try:
            while not self._closing:
                # Its edge comes once. A set that is in use may have looked at its sockets for the last time.
                ready = epoll.poll(_AGAIN if ended else None)
                ended.update(fd for fd, _ in ready if fd != bell)
                ended = {fd for fd in ended if not self._tell(fd)}
        finally:
            with self._lock:
                self._closing, self._bell = True, -1
                epoll.close()
                os.close(bell)

    def _tell(self, fd: int) -> bool:
        """Whether the set behind *fd* knows by now, or is gone."""
        entry, driver = self._watched.get(fd), self._driver()
        port = entry[0]() if entry is not None else None
        if driver is None or entry is None or port is None or port.closed or port.descriptor(entry[1]) != fd:
            return True
        try:
            return driver.tend(port)
        except Exception:
            _log.exception("looking after a closed connection failed")
            return True
