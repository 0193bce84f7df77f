"""What blocking and asyncio elections have in common: what was asked for, terms as values, and what
a candidacy says.

Nothing here waits. Who campaigns when, and in which order things happen in a term, is
`redlock.core.election`; the two APIs do its steps.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from functools import partial
from typing import Any, Generic, TypeVar

from redlock.base import CoordinatorBase
from redlock.core.acquire import Acquisition
from redlock.core.candidate import Candidate, Leader, leader_of
from redlock.core.effects import Flow
from redlock.core.election import Candidacy, Move, Script, State, lead
from redlock.core.events import TermRecord
from redlock.core.lease import Holding
from redlock.core.look import who_leads
from redlock.core.names import keys_of
from redlock.core.quorum import Tally
from redlock.core.term import Mandate, Reason, TermWatch
from redlock.core.timings import ElectionTimings
from redlock.errors import (
    AcquireError,
    LeadershipLost,
    LeaseLost,
    LeaseReleased,
    LockInUse,
    QuorumUnavailable,
)
from redlock.options import ElectionOptions, acquire_timeout
from redlock.transport.clock import now, suspended_for

# Long: what both elections have in common, and nothing else has.
__all__ = [
    "LOOK_EVERY",
    "ElectionBase",
    "TermBase",
    "differs",
]

LOOK_EVERY = 0.2
"""Seconds between two looks of an observer: a change is news for as long, and costs each node
five small reads a second."""

T = TypeVar("T", bound="TermBase")
_log = logging.getLogger("redlock")


class TermBase:
    """A term of leadership as a value: who leads, until when. Reads the clock, never the
    network."""

    __slots__ = ("__weakref__", "_candidacy", "_mandate")

    def __init__(self, candidacy: Candidacy, mandate: Mandate) -> None:
        self._candidacy = candidacy
        self._mandate = mandate

    @property
    def fencing_token(self) -> int:
        """Larger than that of every term before; see `Lease.fencing_token`. Give it to whatever
        the work writes to."""
        return self._mandate.holding.token

    @property
    def candidate(self) -> str:
        """Who leads."""
        return self._candidacy.candidate

    @property
    def valid_until(self) -> float:
        """Instant on the lease clock (CLOCK_BOOTTIME) before which nobody else can lead, as far
        as renewed; see `Lease.valid_until` for what it assumes."""
        return self._mandate.holding.valid_until

    @property
    def stop_at(self) -> float:
        """From here on nobody leads by this term, unless it is renewed before; lease clock."""
        return self._mandate.stop_at

    @property
    def kill_at(self) -> float:
        """By then the work must have ended; lease clock."""
        return self._mandate.kill_at

    @property
    def reason(self) -> Reason | None:
        """Why the term ended; None while it has not."""
        return self._mandate.reason

    def is_leader(self) -> bool:
        """Whether to act as the leader at this moment. Reads the clock every time, and is False
        from the stop deadline on, which is before anybody else can lead."""
        at = now()
        # Whoever looks finds the end of a term, also where the thread that renews does not live.
        return self._mandate.leads(at) or self._candidacy.look(self._mandate, at)

    def remaining(self) -> float:
        """Seconds until the stop deadline, or until the work is taken for stalled; 0.0 once the
        term has ended."""
        return self._mandate.remaining(now())

    def ensure_leader(self) -> None:
        """Return if this candidate leads at this moment; raise LeadershipLost with the reason."""
        if not self.is_leader():
            raise self._lost()

    def tick(self) -> None:
        """Say that the work goes on: with `stall_timeout`, a term whose work does not say so is
        ended. Costs nothing, so call it in every round."""
        self._mandate.progress_at = now()

    def _caused(self, error: BaseException) -> bool:
        """Whether *error* says no more than that this term has ended."""
        return self.reason is not None and isinstance(error, LeadershipLost)

    def _lost(self) -> LeadershipLost:
        mandate, reason = self._mandate, self._mandate.reason
        why = mandate.holding.reason
        return LeadershipLost(
            f"the term of {self.candidate!r} in {mandate.holding.resource!r} with fencing token"
            f" {mandate.holding.token} has ended: {reason}{f' ({why})' if why else ''}: stop"
            " its work"
            " and campaign again",
            reason,
        )

    def _lost_unasked(self) -> LeadershipLost | None:
        """The error for leaving a block whose term ended otherwise than by its own candidate."""
        own = (Reason.RESIGNED, Reason.WORK_ENDED)
        return None if self._mandate.reason in own else self._lost()

    def _orphaned(self) -> None:
        """In a forked child: the term is the parent's."""
        self._told_stop()

    def _told_stop(self) -> None:
        """The term has ended: tell the work. Must not wait."""
        raise NotImplementedError

    def __repr__(self) -> str:
        left = self.remaining()
        state = f"{left:.3g} s to the stop deadline" if left else str(self.reason or "ended")
        return (
            f"<{type(self).__name__} of {self.candidate!r} in {self._mandate.holding.resource!r},"
            f" token {self.fencing_token}, {state}>"
        )


class _Voice:
    """What a candidacy says goes to its election, whose own names are for callers."""

    def __init__(self, election: ElectionBase[Any]) -> None:
        self.record = election._record
        self.report = election._report
        self.stop = election._tell_stop
        self.ask_fitness = election._begin_asking


class ElectionBase(Generic[T]):
    """One candidate in one election: what both APIs share of it."""

    def __init__(
        self,
        coordinator: CoordinatorBase[Any],
        name: str,
        options: ElectionOptions,
        guard: contextlib.AbstractContextManager[Any],
    ) -> None:
        self._keys = keys_of(coordinator._policy.key_prefix, name)
        options = options.checked(coordinator._policy)
        assert options.timings is not None and options.candidate is not None
        self._base = coordinator
        self._name = name
        self._options = options
        self._timings = options.timings
        self._candidate = Candidate(options.candidate, options.info or {})
        self._guard = guard
        self._set_up()
        coordinator.elections.add(self)

    def _set_up(self) -> None:
        options = self._options
        self._candidacy = Candidacy(
            self._name,
            self._candidate.name,
            self._timings,
            _Voice(self),
            guard=self._guard,
            slept=suspended_for,
            checks=options.eligible is not None,
            lock_delay=options.lock_delay,
            stall_timeout=options.stall_timeout,
        )
        self._current: object | None = None
        """What does the steps of the campaign, or run, that is under way."""
        # Without a callback, which a weak dictionary has: a Ctrl-C that strikes in one is printed
        # and forgotten.
        self._handle: weakref.ref[T] | None = None
        """The term that is under way."""
        self._handed: Mandate | None = None
        """Whose term has a handle, or had one. Whoever drops a term has ended it."""

    @property
    def name(self) -> str:
        """What is led: the resource of the lock behind it."""
        return self._name

    @property
    def candidate(self) -> str:
        """The name that this candidate stands under."""
        return self._candidate.name

    @property
    def state(self) -> State:
        """Where the candidate stands. To decide whether to act, ask the term."""
        return self._candidacy.state

    @property
    def is_running(self) -> bool:
        """Whether a `run` or a campaign is under way, or a term of one: if not, this candidate
        does not even stand by."""
        return self._current is not None

    @property
    def timings(self) -> ElectionTimings:
        """The times inside a term; `budget()` has the margins."""
        return self._timings

    def __repr__(self) -> str:
        return f"<Election {self._name!r}, candidate {self.candidate!r}: {self.state}>"

    # Heard of the candidacy

    def _record(self, record: TermRecord) -> None:
        try:
            self._base._cluster.note(record)
        except KeyboardInterrupt:
            raise
        except BaseException:
            # A SystemExit of an observer; it must not keep a renewal from going on.
            _log.exception("on_event failed for %s", type(record).__name__)

    def _report(self, error: Exception) -> None:
        """For whoever is on call: nobody waits for an answer of a run."""
        _log.error(
            "the campaign of %r in %r failed, and is tried again: %s",
            self.candidate,
            self._name,
            error,
        )

    def _tell_stop(self, mandate: Mandate) -> None:
        term = self._term_of(mandate)
        if term is not None:
            term._told_stop()

    def _begin_asking(self, mandate: Mandate) -> None:
        """Have `eligible` asked, without waiting."""
        raise NotImplementedError

    # For both

    def _begin(self, timeout: float | None, *, again: float | None) -> Script:
        """The script of a campaign; nothing is under way yet."""
        wait, once = acquire_timeout(True, timeout, None)
        mandate = self._candidacy.mandate
        if mandate is not None and self._was_dropped(mandate):
            self._forsaken(mandate, now())
        self._base.check_open()
        campaign = partial(self._ask, wait, once=once)
        return lead(self._candidacy, campaign, now(), again=again)

    def _claim(self, run: object) -> None:
        """From here on *run* is under way, until it is not `_current` any more. Raises LockInUse if
        another one is."""
        with self._guard:
            if self._current is not None:
                raise LockInUse(
                    f"the election {self._name!r} is being run already by this object; make one"
                    " Election for each candidate"
                )
            self._current = run

    def _goes_on(self, run: object | None) -> bool:
        """Whether *run*, which was under way, has not ended yet. Whoever ran it may have begun the
        next one already, which nobody need have resigned."""
        current = self._current
        return current is not None and (current is run or self._candidacy.resigning)

    def _ask(self, timeout: float | None, *, once: bool) -> Acquisition:
        ttl, cluster = self._timings.ttl, self._base._cluster
        cluster.longest_ttl = max(cluster.longest_ttl, ttl)
        give_up_at = float("inf") if once or timeout is None else now() + timeout
        return Acquisition(
            self._name,
            *self._keys,
            ttl,
            give_up_at,
            once,
            note=self._candidate.note,
            looked=self._candidacy.predecessor.saw,
            # A grant alone does not tell whether who led before gave the lock back.
            witness=self._options.lock_delay > 0,
            stand_back=self._options.priority,
            label=self._candidate.name,
        )

    def _watch_for(self, mandate: Mandate) -> TermWatch:
        return TermWatch(
            mandate,
            self._lapsed,
            partial(self._look, mandate),
            partial(self._candidacy.renewing, mandate),
            now(),
        )

    def _look(self, mandate: Mandate, at: float) -> bool:
        if self._candidacy.mandate is mandate and self._was_dropped(mandate):
            self._forsaken(mandate, at)
        return self._candidacy.look(mandate, at)

    def _forsaken(self, mandate: Mandate, at: float) -> None:
        """Its term was dropped by whoever had it: the lease expires by itself."""
        if mandate.reason is None:
            mandate.end(Reason.RESIGNED, at, at)
            self._candidacy.move(Move.END)
        # Nobody works under it, as far as anybody can know: no hard stop waits for that.
        mandate.drained(float("inf"))
        self._candidacy.ended(mandate, at, released=False, error="it was dropped")
        self._candidacy.rest()
        self._current = None

    def _lapsed(self, holding: Holding) -> None:
        """The term is not renewed any more; from here on the lease alone is watched, to its end."""
        mandate = self._candidacy.mandate
        if mandate is not None and mandate.holding is holding:
            term = self._term_of(mandate)
            if term is not None:
                self._watch_to_the_end(term)

    def _watch_to_the_end(self, term: T) -> None:
        """Tell when the lease behind *term* is lost."""
        raise NotImplementedError

    def _hand(self, mandate: Mandate, term: T) -> weakref.ref[T]:
        """A term has its handle."""
        self._handle = weakref.ref(term)
        self._handed = mandate  # Not before: until then nobody can have dropped it.
        return self._handle

    def _was_dropped(self, mandate: Mandate) -> bool:
        return self._handed is mandate and self._term_of(mandate) is None

    def _term_of(self, mandate: Mandate) -> T | None:
        term = self._handle() if self._handle is not None else None
        return term if term is not None and term._mandate is mandate else None

    @property
    def _leased(self) -> Holding | None:
        """The lease of a term that has not ended; for the coordinator."""
        mandate = self._candidacy.mandate
        return mandate.holding if mandate is not None else None

    def _looking(self, at: float) -> Flow[Tally]:
        return who_leads(self._base._cluster, *self._keys, at)

    def _leader(self, tally: Tally) -> Leader | None:
        if tally.unavailable:
            raise QuorumUnavailable(tally, self._name)
        return leader_of(tally)

    def _unconfirmed(self, term: TermBase, error: BaseException) -> BaseException:
        """What `Term.verify` raises where the lease's raised *error*."""
        if isinstance(error, LeaseLost | LeaseReleased):
            self._candidacy.end(term._mandate, Reason.CONTENDED, now())
            return term._lost()
        if isinstance(error, AcquireError) and not term.is_leader():
            return term._lost()
        return error

    def _after_fork(self) -> None:
        """In the child: the term is the parent's."""
        mandate = self._candidacy.mandate
        if mandate is not None:
            if mandate.reason is None:
                mandate.end(Reason.CLOSED, now(), now())
            term = self._term_of(mandate)
            if term is not None:
                term._orphaned()
        # Another thread of the parent may have held it.
        self._guard = threading.RLock()
        self._set_up()


def differs(before: Leader | None, after: Leader | None) -> bool:
    """Whether another term is meant."""
    tokens = [leader.fencing_token if leader is not None else 0 for leader in (before, after)]
    return tokens[0] != tokens[1]
