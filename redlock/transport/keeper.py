"""The threads behind blocking leases: one renewal loop per coordinator, and one that runs the callers' callbacks.

Both live while there is something to do. The renewal loop multiplexes all extensions on one set of connections, so a
node that does not answer delays nobody's deadline.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from redlock.core.effects import Flow, Tick
from redlock.core.renewal import Renewal, Watch
from redlock.transport.blocking import Driver
from redlock.transport.clock import now as clock
from redlock.transport.run import Run

__all__ = ["Crowd", "Errands", "Keeper"]

TOGETHER_MAX = 256
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
        """Begin a flow; *finished* gets its error, if any, from within a later `pump`."""
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

    def wake(self) -> None:
        """From another thread: look up."""
        self._port.wake()

    def close(self) -> None:
        """Close the connections."""
        self._port.close()


class Keeper:
    """Renews leases and tells when one is lost. *jeopardy* hears of failed renewals; *extension* makes their flows."""

    def __init__(
        self,
        driver: Driver,
        extension: Callable[[Watch, float], Flow[None]],
        jeopardy: Callable[[Watch, BaseException], None],
    ) -> None:
        self._driver = driver
        self._extension = extension
        self._jeopardy = jeopardy
        self._lock = threading.Lock()
        self._incoming: deque[Watch] = deque()
        self._renewal = Renewal()
        self._crowd: Crowd | None = None
        self._thread: threading.Thread | None = None
        self._wakes_at = 0.0
        self._closing = False

    def watch(self, watch: Watch) -> None:
        """Keep an eye on a lease until it ends."""
        with self._lock:  # Also around the append: the loop ends only if it sees nothing incoming with this held.
            self._incoming.append(watch)
            if self._thread is None and not self._closing:
                self._begin()
        crowd = self._crowd
        if crowd is not None and min(watch.renew_at, watch.holding.valid_until) < self._wakes_at:
            crowd.wake()

    def _begin(self) -> None:
        self._crowd = Crowd(self._driver)
        self._thread = threading.Thread(target=self._work, args=(self._crowd,), name="redlock-renewal", daemon=True)
        try:
            self._thread.start()
        except BaseException:  # Ctrl-C, or no thread to be had: the next watch begins anew.
            self._thread = self._crowd = None
            raise

    def close(self) -> None:
        """End the loop; nothing is renewed any more."""
        with self._lock:
            self._closing = True
            thread, crowd = self._thread, self._crowd
        if crowd is not None:
            crowd.wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _work(self, crowd: Crowd) -> None:
        try:
            with self._lock:
                if self._thread is not threading.current_thread():
                    return
            idle_since = clock()
            while not self._closing:
                now = clock()
                self._take_in()
                self._begin_due(crowd, now)
                if self._renewal or crowd:
                    idle_since = now
                elif now - idle_since > _IDLE:
                    with self._lock:
                        if not self._incoming:
                            self._thread = self._crowd = None
                            return
                until = min(self._renewal.next_at, now + _LOOK_AGAIN)
                self._wakes_at = until
                if not self._incoming:
                    crowd.pump(until)
        finally:
            crowd.close()

    def _take_in(self) -> None:
        while self._incoming:
            self._renewal.add(self._incoming.popleft())

    def _begin_due(self, crowd: Crowd, now: float) -> None:
        extend, lost = self._renewal.due(now, TOGETHER_MAX - len(crowd))
        for watch in lost:
            self._lapse(watch)
        for watch in extend:
            crowd.start(partial(self._extension, watch), partial(self._extended, watch))

    def _extended(self, watch: Watch, error: BaseException | None) -> None:
        if self._renewal.extended(watch, error, clock()):
            self._lapse(watch)
        elif error is not None:
            self._jeopardy(watch, error)

    def _lapse(self, watch: Watch) -> None:
        try:
            watch.lapsed(watch.holding)
        except Exception:
            _log.exception("reporting the loss of %r failed", watch.holding.resource)


class Errands:
    """Runs callables one after the other, away from the threads that must not wait for them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._todo: deque[Callable[[], object]] = deque()
        self._thread: threading.Thread | None = None

    def run(self, errand: Callable[[], object]) -> None:
        """Run *errand* soon; its exception is logged."""
        with self._lock:
            self._todo.append(errand)
            if self._thread is None:
                self._begin()

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._work, name="redlock-callbacks", daemon=True)
        try:
            self._thread.start()
        except BaseException:  # No thread to be had: the next errand begins anew.
            self._thread = None
            raise

    def close(self) -> None:
        """Wait a moment for what runs; a callback that hangs must not hang its program's end."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0)

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._thread is not threading.current_thread():
                    return
                if not self._todo:
                    self._thread = None
                    return
                errand = self._todo.popleft()
            try:
                errand()
            except Exception:
                _log.exception("a callback failed")
