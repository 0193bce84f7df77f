"""Renewals on one set of connections: the extensions that are due there are begun, and lost leases
are told of.

Pure, as the set is. When which lease is due is the schedule of `redlock.core.renewal`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial

from redlock.core.events import LeaseInJeopardy
from redlock.core.extend import extend
from redlock.core.renewal import Renewal, Watch
from redlock.core.rounds import Cluster
from redlock.transport.linkset import LinkSet
from redlock.transport.run import Run

__all__ = ["TOGETHER_MAX", "Renewals"]

TOGETHER_MAX = 256
"""Extensions at once, so that a thousand leases do not put more in flight than a node may owe.
The others wait, their deadlines do not."""

_log = logging.getLogger("redlock")


class Renewals:
    """All watched leases of one coordinator, renewed on the set of links that this was last moved
    to.

    What a user's callback raises is logged: other leases are lost, or renewed, at the same moment.
    *together*: extensions at once. *passes*: exceptions that go through all the same, as they end
    an event loop; the thread of the blocking driver lets none end it.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        cluster: Cluster,
        *,
        together: int | None = None,
        passes: tuple[type[BaseException], ...] = (KeyboardInterrupt, SystemExit),
    ) -> None:
        self._links: LinkSet | None = None
        self._clock = clock
        self._cluster = cluster
        self._together = TOGETHER_MAX if together is None else together
        self._passes = passes
        self._schedule = Renewal()
        self._under_way = 0
        # Leases that are due, and whose renewal was not begun, or whose loss was not told, yet: an
        # exception in between must not lose one out of sight.
        self._starting: deque[Watch] = deque()
        self._lapsing: deque[Watch] = deque()
        self.closed = False
        """Whether nothing is renewed any more, nor told of."""

    def move(self, links: LinkSet) -> None:
        """Renew on *links* from now on."""
        self._links = links
        links.renewals = self
        links.sooner(self.next_at)

    @property
    def idle(self) -> bool:
        """Whether no lease is watched, and nobody is still to be told of one."""
        return not self._under_way and self.next_at == float("inf")

    @property
    def next_at(self) -> float:
        """When `tick` must be called next; infinity if there is nothing to watch."""
        if self.closed:
            return float("inf")
        if (
            self._starting
            or self._lapsing
            or (self._schedule.ready and self._under_way < self._together)
        ):
            return float("-inf")
        return self._schedule.next_at

    def add(self, watch: Watch) -> None:
        """Keep an eye on a lease until it ends."""
        self._schedule.add(watch)
        self._sooner(watch.due_at)

    def tick(self, now: float) -> None:
        """Tell of the leases that are lost, and begin the renewals that are due."""
        extend, lost = self._schedule.due(
            now, self._together - self._under_way - len(self._starting)
        )
        self._lapsing += lost
        self._starting += extend
        while self._lapsing:
            self._lapse(self._lapsing.popleft())
        while self._starting and self._links is not None:
            self._begin(self._starting[0], self._links)

    def _sooner(self, instant: float) -> None:
        if self._links is not None:
            self._links.sooner(instant)

    def _begin(self, watch: Watch, links: LinkSet) -> None:
        flow = extend(self._cluster, watch.holding, watch.ttl or watch.holding.ttl, self._clock())
        run = Run(flow, links, self._clock)
        run.on_done = partial(self._extended, watch, run)
        self._under_way += 1
        self._starting.popleft()
        links.begin(run)

    def _extended(self, watch: Watch, run: Run[None]) -> None:
        self._under_way -= 1
        run.on_done = None
        if self.closed:
            return
        error = run.error
        try:
            if self._schedule.extended(watch, error, self._clock()):
                self._lapse(watch)
            elif error is not None and watch.holding.held(self._clock()):
                # Not of a lease that was released meanwhile.
                self._jeopardy(watch, error)
        except self._passes:
            raise
        except BaseException:
            # A user's `on_event`; it may ask for the result of a task that was cancelled.
            _log.exception("reporting the renewal of %r failed", watch.holding.resource)
        finally:
            self._sooner(self.next_at)

    def _jeopardy(self, watch: Watch, error: BaseException) -> None:
        holding = watch.holding
        self._cluster.note(
            LeaseInJeopardy(
                self._clock(),
                holding.resource,
                holding.owner,
                holding.token,
                holding.valid_until,
                str(error),
            )
        )

    def _lapse(self, watch: Watch) -> None:
        try:
            watch.lapsed(watch.holding)
        except self._passes:
            raise
        except BaseException:
            _log.exception("reporting the loss of %r failed", watch.holding.resource)
