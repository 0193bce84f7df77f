"""The threads behind blocking leases: one renewal loop per coordinator, and one that runs the callers' callbacks.

Both live while there is something to do. The renewal loop multiplexes all extensions on one set of connections, so a
node that does not answer delays nobody's deadline; nor does an exception, whoever raised it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from redlock.core.effects import Flow, Tick
from redlock.core.renewal import Renewal, Watch
from redlock.errors import RedlockError
from redlock.transport.blocking import Driver
from redlock.transport.clock import now as clock
from redlock.transport.run import Run
from redlock.transport.threads import AGAIN, Threads, Worker

__all__ = ["Crowd", "Errands", "Keeper"]

TOGETHER_MAX = 256
CALLBACKS_MAX = 8
"""Threads for the callbacks of lost leases: many may be lost at one moment, and each callback may wait for something."""
_JOIN = 1.0
_LOOK_AGAIN = 1.0
"""At most this long between looks: timers sleep through a suspend, and `lost` must follow within a second of waking."""
_IDLE = 2.0

_log = logging.getLogger("redlock")


class Crowd:
    """Many flows at once on one set of connections, in the calling thread."""

    def __init__(self, driver: Driver) -> None:
        self._port = driver.connection_set()
        self._runs: list[tuple[Run[Any], Callable[[BaseException | None], None]]] = []

    def __len__(self) -> int:
        return len(self._runs)

    def start(self, start: Callable[[float], Flow[Any]], finished: Callable[[BaseException | None], None]) -> None:
        """Begin a flow; *finished*, which must not raise, gets its error, if any, from within a later `pump`."""
        run = Run(start(clock()), self._port, clock)
        self._runs.append((run, finished))
        run.begin()

    def pump(self, until: float) -> None:
        """Go on until something happened, at most until *until*."""
        if self._runs:
            until = min(until, min(run.wait.until for run, _ in self._runs))
        self._port.pump(until)
        now = clock()
        for run, _ in self._runs:
            if not run.done and run.wait.until <= now:
                run.step(Tick(now))
        ended = [entry for entry in self._runs if entry[0].done]
        if ended:
            self._runs = [entry for entry in self._runs if not entry[0].done]
            for run, finished in ended:
                finished(run.error)

    def interrupted(self) -> None:
        """An exception tore through `start` or `pump`: give up the connection it was on. The flows go on."""
        self._port.interrupted()

    def wake(self) -> None:
        """From another thread: look up."""
        self._port.wake()

    def close(self) -> None:
        """Close the connections."""
        self._port.close()


class Keeper(Worker):
    """Renews leases and tells when one is lost. *jeopardy* hears of failed renewals; *extension* makes their flows."""

    _name = "redlock-renewal"

    def __init__(
        self,
        driver: Driver,
        extension: Callable[[Watch, float], Flow[None]],
        jeopardy: Callable[[Watch, BaseException], None],
    ) -> None:
        super().__init__(driver.threads)
        self._driver = driver
        self._extension = extension
        self._jeopardy = jeopardy
        self._incoming: deque[Watch] = deque()
        self._renewal = Renewal()
        # What is due and was not begun, or told, yet: an exception in between must not lose a lease out of sight.
        self._starting: deque[Watch] = deque()
        self._lapsing: deque[Watch] = deque()
        self._crowd: Crowd | None = None
        self._wakes_at = 0.0
        self._idle_since = 0.0
        self._closing = False

    def watch(self, watch: Watch) -> None:
        """Keep an eye on a lease until it ends. Raises RedlockError if no thread can be had for that."""
        with self._lock:  # Also around the append: the loop ends only if it sees nothing incoming with this held.
            self._incoming.append(watch)
            problem: str | None = "it was interrupted"
            try:
                problem = self._begin() if not self._closing else None
            finally:
                if problem is not None:
                    self._incoming.remove(watch)
        if problem is not None:
            raise RedlockError(f"the lease on {watch.holding.resource!r} cannot be watched: {problem}")
        crowd = self._crowd
        if crowd is not None and min(watch.renew_at, watch.holding.valid_until) < self._wakes_at:
            crowd.wake()

    def close(self) -> None:
        """End the loop; nothing is renewed any more."""
        with self._lock:
            self._closing = True
            crowd = self._crowd
        if crowd is not None:
            crowd.wake()
        self._join(1.0)  # A callback that hangs must not hang its program's end.

    def _due(self) -> bool:
        if self._closing:
            return False
        if self._incoming or self._renewal or self._starting or self._lapsing or self._crowd:
            self._idle_since = clock()
        return clock() - self._idle_since <= _IDLE

    def _prepare(self) -> None:
        self._crowd = Crowd(self._driver)

    def _tidy(self) -> None:
        crowd, self._crowd = self._crowd, None
        if crowd is not None:
            crowd.close()

    def _step(self) -> None:
        crowd = self._crowd
        if crowd is None:
            return
        try:
            now = clock()
            self._threads.try_again()
            self._take_in()
            self._begin_due(crowd, now)
            until = min(self._renewal.next_at, now + (AGAIN if self._threads.missing else _LOOK_AGAIN))
            self._wakes_at = until
            if not self._incoming:
                crowd.pump(until)
        except BaseException:
            crowd.interrupted()
            raise

    def _take_in(self) -> None:
        while self._incoming:
            self._renewal.add(self._incoming[0])
            self._incoming.popleft()

    def _begin_due(self, crowd: Crowd, now: float) -> None:
        extend, lost = self._renewal.due(now, TOGETHER_MAX - len(crowd) - len(self._starting))
        self._lapsing += lost
        self._starting += extend
        while self._lapsing:
            self._lapse(self._lapsing[0])
            self._lapsing.popleft()
        while self._starting:
            watch = self._starting.popleft()
            crowd.start(partial(self._extension, watch), partial(self._extended, watch))

    def _extended(self, watch: Watch, error: BaseException | None) -> None:
        try:
            if self._renewal.extended(watch, error, clock()):
                self._lapse(watch)
            elif error is not None:
                self._jeopardy(watch, error)
        except BaseException:  # A user's `on_event`; the renewals that ended with this one are still to be heard.
            _log.exception("reporting the renewal of %r failed", watch.holding.resource)

    def _lapse(self, watch: Watch) -> None:
        try:
            watch.lapsed(watch.holding)
        except BaseException:  # A user's `on_event`; other leases are lost at this moment, and to be told of.
            _log.exception("reporting the loss of %r failed", watch.holding.resource)


class Errands:
    """Runs callables away from the threads that must not wait for them, a few at once: one that hangs keeps no other waiting."""

    def __init__(self, threads: Threads) -> None:
        self._todo: deque[Callable[[], object]] = deque()
        self._hands = [_Hand(threads, self._todo) for _ in range(CALLBACKS_MAX)]

    def run(self, errand: Callable[[], object]) -> None:
        """Run *errand* soon; its exception is logged."""
        self._todo.append(errand)
        for hand in self._hands:
            if hand.begin():
                break

    def close(self) -> None:
        """Wait a moment for what runs; a callback that hangs must not hang its program's end."""
        until = clock() + _JOIN  # For all of them together.
        for hand in self._hands:
            hand.join(until)


class _Hand(Worker):
    """One of the threads that run errands, while there are any."""

    _name = "redlock-callbacks"

    def __init__(self, threads: Threads, todo: deque[Callable[[], object]]) -> None:
        super().__init__(threads)
        self._todo = todo

    def begin(self) -> bool:
        """Have the thread look for errands. False if it has been at work already, and so may be long about one."""
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
            errand = self._todo.popleft()
        except IndexError:  # Another one was faster.
            return
        try:
            errand()
        except BaseException:  # Also a SystemExit: others still wait to be told.
            _log.exception("a callback failed")
