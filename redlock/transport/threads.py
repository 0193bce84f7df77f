"""The threads of one coordinator: each lives while it has something to do, and none of them ends in
silence.

A `Worker` logs what its thread raises and lets the thread go on. Where no thread can be had, or no
descriptor that it needs, `Threads` remembers who wanted one. It is tried again by every call of a
user and by every thread of ours that still runs; the hang-ups' thread is one of them for as long as
a connection lives, so nothing waits for the luck of a next call.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

__all__ = ["AGAIN", "Threads", "Worker"]

AGAIN = 0.1
"""Seconds between attempts at a thread that cannot be had: the coordinator is to work within a
second of the cause's end."""
_PAUSE_MIN, _PAUSE_MAX = 0.02, 0.25
"""Seconds after a step that failed: an error that stays must not keep a processor busy."""

_log = logging.getLogger("redlock")


class Threads:
    """Who wanted a thread and could not have one."""

    def __init__(self) -> None:
        self.missing: dict[Callable[[], object], None] = {}
        """What begins each of them; at most one entry for each worker."""
        self.on_missing: Callable[[], object] | None = None
        """Called when one more is missing, to wake a thread that tries again."""

    def later(self, begin: Callable[[], object]) -> None:
        """Remember to call *begin*, which comes back here if there is still no thread."""
        self.missing[begin] = None
        if self.on_missing is not None:
            self.on_missing()

    def try_again(self) -> None:
        """Begin what could not be begun."""
        for begin in list(self.missing):
            self.missing.pop(begin, None)
            begin()


class Worker:
    """One thread that lives while there is something to do.

    `_lock` guards what there is to do. Subclasses say whether there is something (`_due`), do a
    little of it (`_step`), and have and give back what the thread needs (`_prepare`, `_tidy`).
    """

    _name = "redlock"

    # No Event and no Condition, which stay locked for ever when a Ctrl-C strikes on the way into
    # one. And no plain lock: the handler of a signal may call us, a close above all, in the midst
    # of a `with`.
    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None

    def _due(self) -> bool:
        """Whether there is something to do. The lock is held."""
        raise NotImplementedError

    def _step(self) -> None:
        """Do some of it, in the thread; what this raises is logged, and the thread goes on."""
        raise NotImplementedError

    def _prepare(self) -> None:
        """Have what the thread needs, before it begins. The lock is held; may raise OSError."""

    def _tidy(self) -> None:
        """Give that back: the thread ends, or could not begin. The lock is held."""

    def _begin(self) -> str | None:
        """Have a thread see to what is due; the lock is held. None: it does; otherwise why none can
        be had.

        It is begun later then. Raises only what strikes from outside, a Ctrl-C.
        """
        if self._thread is not None and self._thread.is_alive():
            return None
        try:
            self._prepare()
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        except BaseException as error:
            # It may run already, after a Ctrl-C: it finds that it is not the one, and ends.
            self._thread = None
            self._tidy()
            self._threads.later(self._begin_if_due)
            if not isinstance(error, RuntimeError | MemoryError | OSError):
                raise
            return (
                (error.strerror if isinstance(error, OSError) else None)
                or str(error)
                or type(error).__name__
            )
        return None

    def _begin_if_due(self) -> None:
        with self._lock:
            if self._due():
                self._begin()

    def _join(self, timeout: float | None) -> None:
        """Wait until the thread has ended, at most *timeout* seconds."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _work(self) -> None:
        me, pause = threading.current_thread(), _PAUSE_MIN
        try:
            while self._goes_on(me):
                try:
                    self._step()
                    pause = _PAUSE_MIN
                except BaseException:
                    # Also a SystemExit of a user's `on_event`: leases are watched here.
                    _log.exception("the thread %s failed, and goes on", me.name)
                    time.sleep(pause)
                    pause = min(2 * pause, _PAUSE_MAX)
        finally:
            self._ended(me)

    def _goes_on(self, me: threading.Thread) -> bool:
        with self._lock:
            if self._thread is not me:
                return False
            if self._due():
                return True
            self._thread = None
            self._tidy()
            return False

    def _ended(self, me: threading.Thread) -> None:
        """Whatever could end the thread, what it had to do is not forgotten."""
        with self._lock:
            if self._thread is me:
                _log.error("the thread %s ended before its time, and another one is begun", me.name)
                self._thread = None
                self._tidy()
                self._threads.later(self._begin_if_due)
