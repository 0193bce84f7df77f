"""One term of leadership as the core sees it: a lease, the deadlines inside its validity, and the
one way it ends.

Whether a candidate leads is read from the clock every time, against deadlines that a renewal alone
can move. A term that has ended never begins again.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from redlock.core.lease import Holding, Status
from redlock.core.renewal import Watch
from redlock.core.timings import ElectionTimings

__all__ = ["Mandate", "Reason", "TermWatch"]

SUSPEND_MIN = 0.05
"""Seconds that a machine must have slept for it to be told: the two clocks are not read at one
instant."""


class Reason(StrEnum):
    """Why a term ended."""

    RESIGNED = "resigned"
    """By `resign`, or the work raised."""
    RENEWAL_FAILED = "renewal_failed"
    """Renewals were tried until the stop deadline, and no majority confirmed."""
    CONTENDED = "contended"
    """A majority of the nodes says that the lock is somebody else's, or somebody newer has been."""
    EXPIRED = "expired"
    """The stop deadline came and no renewal had been tried: the process stood still, its loop was
    blocked, or what renews was lost."""
    SUSPENDED = "suspended"
    """The machine slept."""
    STALLED = "stalled"
    """The work did not call `tick` for `stall_timeout`."""
    UNFIT = "unfit"
    """`eligible` said no, raised, or gave no answer until the next renewal."""
    WORK_ENDED = "work_ended"
    """The work returned."""
    CLOSED = "closed"
    """The coordinator was closed, or this process is a fork."""


class Mandate:
    """One term: *holding* under *timings*. The public `Term` is a handle on it.

    *slept*: gives the seconds that this machine was ever suspended. *reason*: why it ended, None
    while nothing is known to have ended it. *stop_due_at*: when it had to be told to stop,
    *stopping_at*: when it was, *drained_at*: when its work had ended and everything was told.
    *failing*: the last renewal failed. *progress_at*: when the work last said that it goes on;
    infinity before it began.
    """

    __slots__ = (
        "_kill_at",
        "_slept",
        "_slept_before",
        "drained_at",
        "failing",
        "holding",
        "progress_at",
        "reason",
        "stall_timeout",
        "stop_due_at",
        "stopping_at",
        "timings",
    )

    def __init__(
        self,
        holding: Holding,
        timings: ElectionTimings,
        now: float,
        *,
        stall_timeout: float | None = None,
        slept: Callable[[], float] = float,
    ) -> None:
        self.holding = holding
        self.timings = timings
        self.stall_timeout = float("inf") if stall_timeout is None else stall_timeout
        # Before it begins there is no work that could stall, however long it waits for that.
        self.progress_at = float("inf")
        self.reason: Reason | None = None
        self.failing = False
        self.stop_due_at = self.stopping_at = float("inf")
        self.drained_at: float | None = None
        self._kill_at: float | None = None
        self._slept = slept
        self._slept_before = slept()

    @property
    def jeopardy_at(self) -> float:
        """From here on the term is in jeopardy, unless it is renewed."""
        return self.holding.valid_until - self.timings.jeopardy_before

    @property
    def stop_at(self) -> float:
        """From here on nobody leads by it, unless it is renewed before."""
        return self.holding.valid_until - self.timings.stop_before

    @property
    def kill_at(self) -> float:
        """By then its work must have ended, or be stopped by force. It stands once the work was
        told to stop: a renewal that was on its way then gives it no more time."""
        if self._kill_at is not None:
            return self._kill_at
        return self.holding.valid_until - self.timings.kill_before

    @property
    def stall_at(self) -> float:
        """By then the work must say again that it goes on."""
        return self.progress_at + self.stall_timeout

    def leads(self, now: float) -> bool:
        """Whether its candidate may act as the leader at *now*. Reads the deadlines every time."""
        return (
            self.reason is None
            and now < self.stop_at
            and now < self.stall_at
            and self.holding.held(now)
            and not self._was_suspended()
        )

    def remaining(self, now: float) -> float:
        """Seconds until the next deadline at which it ends; 0.0 once it has."""
        return min(self.stop_at, self.stall_at) - now if self.leads(now) else 0.0

    def why(self, now: float) -> tuple[Reason, float] | None:
        """What has ended it by *now*, and when; None: nothing has.

        The deadline comes first: whoever finds it passed stood still, and what else was missed
        meanwhile is not the cause.
        """
        if self._was_suspended():
            return Reason.SUSPENDED, min(now, self.stop_at)
        if now >= self.stop_at:
            return Reason.RENEWAL_FAILED if self.failing else Reason.EXPIRED, self.stop_at
        if self.holding.status is not Status.HELD:
            return Reason.CONTENDED, now
        if now >= self.stall_at:
            return Reason.STALLED, self.stall_at
        return None

    def _was_suspended(self) -> bool:
        return self._slept() > self._slept_before + SUSPEND_MIN

    def end(self, reason: Reason, due_at: float, now: float) -> None:
        """Nobody leads by it any more, for ever."""
        self._kill_at = self.kill_at
        self.reason, self.stop_due_at, self.stopping_at = reason, due_at, now

    def drained(self, now: float) -> None:
        """Its work has ended, and whoever had to be told was."""
        self.drained_at = now

    @property
    def may_release(self) -> bool:
        """Whether its lock may be given back: the work has ended, and in time.

        The one place that decides it. Work that overran its deadline may have been stopped by force
        anywhere, with something of it still on its way: its lease expires by itself.
        """
        return self.drained_at is not None and self.drained_at < self.kill_at


class TermWatch(Watch):
    """A term under watch: renewed as long as it may be, and looked at whenever something is due.

    *look* finds out what ended it, tells, and says whether it leads still; *may_renew* is asked
    before each renewal.
    """

    __slots__ = ("_look", "_may_renew", "mandate")

    def __init__(
        self,
        mandate: Mandate,
        lapsed: Callable[[Holding], None],
        look: Callable[[float], bool],
        may_renew: Callable[[float], bool],
        now: float,
    ) -> None:
        super().__init__(mandate.holding, lapsed, ttl=mandate.timings.ttl, now=now)
        self.mandate = mandate
        self._look = look
        self._may_renew = may_renew
        self.renew_at = now + self.pause(mandate.holding.valid_until - now)

    @property
    def ends_at(self) -> float:
        # Also where it is in jeopardy already: once more is looked at the stop.
        mandate = self.mandate
        jeopardy_at = mandate.jeopardy_at
        stop_at = min(mandate.stop_at, mandate.stall_at)
        return jeopardy_at if self.looked_at < jeopardy_at < stop_at else stop_at

    def stands(self, now: float) -> bool:
        self.looked_at = now
        return self._look(now)

    def may_renew(self, now: float) -> bool:
        return self._may_renew(now)

    def pause(self, left: float) -> float:
        # Counted from when the last one was sent, as the validity is.
        timings = self.mandate.timings
        return max(timings.renewal - (timings.validity - left), 0.0)

    def renewed(self, error: BaseException | None) -> None:
        self.mandate.failing = error is not None
