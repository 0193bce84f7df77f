"""Leader election for threads: `Election` and `Term`. `redlock.asyncio` exports the same names for
asyncio.

The work runs in the thread that called; deadlines come from the thread that renews, and from
whoever looks at the clock.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

from redlock.base import CoordinatorBase
from redlock.core.acquire import Acquisition
from redlock.core.candidate import Leader
from redlock.core.effects import Flow
from redlock.core.election import (
    Begin,
    Campaign,
    Candidacy,
    Eligible,
    Finish,
    Pause,
    Release,
    Script,
    Step,
    Work,
)
from redlock.core.lease import Holding
from redlock.core.quorum import Tally
from redlock.core.renewal import Watch
from redlock.core.term import Mandate, Reason
from redlock.electing import LOOK_EVERY, ElectionBase, TermBase, differs
from redlock.errors import AcquireError, LockInUse, QuorumUnavailable, RedlockError
from redlock.hardstop import HardStop
from redlock.options import ElectionOptions
from redlock.transport.clock import now

# Long: the steps as a thread does them, and the handles; the order is the core's.
__all__ = ["Coordinator", "Election", "StopEvent", "Term"]

_SLICE = 0.02
"""Seconds at most until a pause sees that it was ended; a sleep, as a signal's handler may end
it, and an event's lock may be held by the very thread that the handler interrupts."""
_EVENT_SLICE = 0.25
"""The same for who waits for `stop` in the thread whose handler sets it; all others are woken."""

_log = logging.getLogger("redlock")


class StopEvent(threading.Event):
    """A `threading.Event` that the handler of a signal may set, whatever its thread is at."""

    def __init__(self) -> None:
        super().__init__()
        self._is_set = False
        self._waiting = threading.Condition(threading.RLock())

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and wake who waits."""
        self._is_set = True
        with self._waiting:
            self._waiting.notify_all()

    def _at_fork_reinit(self) -> None:
        """As `threading` does with its own: a thread that the child does not have may be in it."""
        self._waiting = threading.Condition(threading.RLock())

    def clear(self) -> None:
        """Nothing: what has ended does not begin again."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most *timeout* seconds; whether it is."""
        until = float("inf") if timeout is None else time.monotonic() + timeout
        with self._waiting:
            while not self._is_set and (left := until - time.monotonic()) > 0:
                self._waiting.wait(min(left, _EVENT_SLICE))
        return self._is_set


class Handle(Protocol):
    """As much of a `Lease` as a term uses."""

    _holding: Holding

    @property
    def lost(self) -> threading.Event:
        """Set when it is lost."""

    def verify(self) -> None:
        """One majority round."""

    def release(self) -> bool:
        """Give it back."""


class Coordinator(Protocol):
    """As much of a `Redlock` as an election uses."""

    def _campaign(self, ask: Acquisition) -> Handle:
        """A lease, as *ask* says."""

    def _watch_term(self, watch: Watch) -> None:
        """Renew a lease, and tell when its term has ended."""

    def _let_expire(self, lease: Any, why: str) -> None:
        """The lease is over for everybody here, and is not given back: it expires by itself."""

    def _watch_lost(self, lease: Any) -> None:
        """Tell when a lease is lost."""

    def _look(self, start: Callable[[float], Flow[Tally]]) -> Tally:
        """Ask the nodes."""

    def _aside(self, call: Callable[[], object]) -> None:
        """Call in a thread of its own."""

    @property
    def _is_closing(self) -> bool:
        """Whether `close` was called."""


class Term(TermBase):
    """A term of leadership. A context manager: leaving it ends the term, then releases; made by
    `Election.campaign` and `Election.run`, never by hand."""

    __slots__ = ("_election", "_entered", "_finish", "_lease", "_stop")

    def __init__(
        self, election: Election, candidacy: Candidacy, mandate: Mandate, lease: Handle
    ) -> None:
        super().__init__(candidacy, mandate)
        self._election = election
        self._lease = lease
        self._stop = StopEvent()
        self._entered = False
        self._finish: Callable[[Term, BaseException | None], None] | None = None

    @property
    def stop(self) -> threading.Event:
        """Set when the work must stop: at the stop deadline, or as soon as the term has ended
        otherwise. By a local timer, not by I/O."""
        return self._stop

    @property
    def lost(self) -> threading.Event:
        """Set when the lease behind the term is over and was not given back; never set by a
        release. From then on somebody else may lead."""
        return self._lease.lost

    def verify(self) -> None:
        """Return if no newer leader had been elected when this call began: one majority round, and
        no clock.

        For a read that must not be stale. Raises LeadershipLost; QuorumUnavailable when it is
        unknown. Assumes what `Lease.verify` does.
        """
        self.ensure_leader()
        try:
            self._lease.verify()
        except RedlockError as error:
            raise self._election._unconfirmed(self, error) from error
        self.ensure_leader()

    def __enter__(self) -> Self:
        if self._entered or self._finish is None:
            raise LockInUse(
                f"the term of {self.candidate!r} is used by a body already: campaign for another"
            )
        self._entered = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave(error)
        lost = self._lost_unasked()
        if error is None and lost is not None:
            raise lost

    def end(self) -> None:
        """The work has ended: give the lock back. For who does not use the term in a `with`."""
        self._leave(None)

    def _leave(self, error: BaseException | None) -> None:
        finish, self._finish = self._finish, None
        if finish is not None:
            finish(self, error)

    def _orphaned(self) -> None:
        self._stop._at_fork_reinit()
        self._stop.set()

    def _told_stop(self) -> None:
        self._stop.set()


class Election(ElectionBase[Term]):
    """One candidate in the election *name*; made by `Redlock.election`. At most one term at a time.

    A candidate that leads is the only one that does, from the grant until its stop deadline, on the
    assumptions of a lease. Work that stalls past that is a zombie until it looks at its term; only
    a resource that checks the fencing token is safe from it.
    """

    def __init__(
        self,
        coordinator: CoordinatorBase[Any],
        host: Coordinator,
        name: str,
        options: ElectionOptions,
    ) -> None:
        self._host = host
        # Reentrant: the handler of a signal may resign in the midst of a look.
        super().__init__(coordinator, name, options, threading.RLock())

    def _set_up(self) -> None:
        super()._set_up()
        self._runner: threading.Thread | None = None

    def campaign(self, timeout: float | None = None) -> Term:
        """Wait until elected, at most *timeout* seconds, and lead. Leave the term as a `with`
        block: that ends it, calls `on_stopped` and gives the lock back.

        None waits for ever, 0 tries once; a `lock_delay` comes behind that. Raises LockContended
        when somebody else leads, QuorumUnavailable when no majority answers, CandidateUnfit,
        LockInUse when this object campaigns already, RedlockError when the coordinator is closed or
        the candidate resigned.
        """
        run = _Run(self, self._begin(timeout, again=None), None)
        term = run.to_the_work()
        if term is None:
            raise RedlockError(f"{self.candidate!r} resigned before it was elected: campaign again")
        return term

    def run(self, work: Callable[[Term], object]) -> None:
        """Call `work(term)` each time this candidate is elected, in this thread, for ever or until
        `resign`.

        It campaigns again after every loss and every return. Work must return when `term.stop` is
        set. Work that raises is reported and counts as a resignation from that term; the candidate
        comes back after a pause that grows, as it does where nodes refuse what they let in before:
        ConfigurationError comes out only where they never did. What the work raises that is no
        `Exception` (a Ctrl-C) ends the term in order, and comes out here.
        """
        if not callable(work):
            raise TypeError(f"work={work!r} must be a function of the term")
        pause = self._base._policy.retry_delay
        _Run(self, self._begin(None, again=pause), work).to_the_work()

    def resign(self) -> bool:
        """End the term and campaign no more: the work is told to stop, waited for, and only then
        the lock is given back. Where nothing is under way, the next campaign or run ends at once: a
        signal may come early.

        True: nothing of it runs any more. Waits for work in another thread until its kill deadline,
        and at most a ttl for an `eligible` that does not answer. Where this is called by the work
        itself, by a signal's handler above it or by an observer, it only tells, and the rest
        follows when the work has returned.
        """
        run = self._current
        self._candidacy.resign(now())
        return self._await_end(run)

    def leader(self) -> Leader | None:
        """Who leads, as a majority says; None: nobody does, or no majority agrees. Informational.

        Raises QuorumUnavailable when no majority answers.
        """
        return self._leader(self._host._look(self._looking))

    def observe(self) -> Iterator[Leader | None]:
        """Who leads now, and then every change, None for nobody; until the coordinator is closed.

        While no majority answers it stays silent. Informational: by the time a change is told it is
        up to a fifth of a second old.
        """
        known: tuple[Leader | None] | None = None
        while not self._host._is_closing:
            with contextlib.suppress(QuorumUnavailable):
                try:
                    leader = self.leader()
                except RedlockError:
                    if self._host._is_closing:
                        return
                    raise
                if known is None or differs(known[0], leader):
                    known = (leader,)
                    yield leader
            time.sleep(LOOK_EVERY)

    # For the coordinator

    def _close(self) -> float:
        """The coordinator is closed. Gives the instant until which the work may still need the
        lock; minus infinity where none runs, or where it is this very thread's."""
        self._candidacy.close(now())
        mandate = self._candidacy.mandate
        if mandate is None or self._runner is threading.current_thread():
            return float("-inf")
        return mandate.kill_at

    def _begin_asking(self, mandate: Mandate) -> None:
        self._host._aside(partial(self._ask_fitness, mandate))

    def _ask_fitness(self, mandate: Mandate) -> None:
        self._candidacy.fitness(mandate, self._is_fit(), now())

    def _is_fit(self) -> bool:
        eligible = self._options.eligible
        if eligible is None:
            return True
        try:
            return bool(eligible())
        except Exception:
            _log.exception("eligible failed for %r, which is taken for unfit", self.candidate)
            return False

    def _watch_to_the_end(self, term: Term) -> None:
        self._host._watch_lost(term._lease)

    # The end

    def _await_end(self, run: object | None) -> bool:
        me = threading.current_thread()
        until = now() + self._timings.ttl
        while self._goes_on(run):
            # Also a thread of ours, which calls an observer: other terms are renewed by it.
            if self._runner is me or me.name.startswith("redlock-"):
                return False
            mandate = self._candidacy.mandate
            if now() >= (until if mandate is None else mandate.kill_at):
                return False
            time.sleep(_SLICE / 4)
        return True


class _Run:
    """A script on its way through the thread that called: does its steps, and decides nothing."""

    def __init__(
        self, election: Election, script: Script, work: Callable[[Term], object] | None
    ) -> None:
        self._election = election
        self._candidacy = election._candidacy
        self._script = script
        self._work = work
        self._term: Term | None = None
        self._interrupt: BaseException | None = None
        self._begun = False
        """Whether `on_started` was called, and `on_stopped` was not."""

    def to_the_work(self) -> Term | None:
        """Do the steps up to the work, where that is a block of the caller's; otherwise to the
        end."""
        return self._go(self._first)

    def _first(self) -> Step:
        # Not before the steps are under way, which give it back: an interrupt may come at any
        # moment.
        self._election._claim(self)
        self._election._runner = threading.current_thread()
        return next(self._script)

    def finish(self, term: Term, error: BaseException | None) -> None:
        """The block of *term* has ended, perhaps by *error*, which goes on by itself."""
        self._term = term
        self._election._runner = threading.current_thread()
        try:
            self._go(lambda: self._script.send((now(), error)))
        except BaseException as raised:
            if raised is not error:
                raise

    def _go(self, advance: Callable[[], Step]) -> Term | None:
        try:
            while True:
                step = advance()
                if isinstance(step, Work) and self._work is None:
                    assert self._term is not None
                    self._term._finish = self.finish
                    term, self._term = self._term, None
                    return term
                advance = self._did(step)
        except StopIteration:
            self._end()
            if self._interrupt is not None:
                raise self._interrupt from None
            return None
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        try:
            self._over()
        except BaseException:  # A Ctrl-C in the midst of it; a second one may leave a term behind.
            self._over()
            raise

    def _did(self, step: Step) -> Callable[[], Step]:
        try:
            answer = self._do(step)
        except BaseException as error:
            if isinstance(step, Finish | Release):
                # The rest of the term goes on, and no other; what struck comes out behind it.
                self._interrupt = self._interrupt or error
                self._candidacy.resigning = True
                answer = False
            elif isinstance(step, Begin | Work):
                answer = error
            else:
                return partial(self._script.throw, error)
        return lambda: self._script.send((now(), answer))

    def _do(self, step: Step) -> Any:
        election = self._election
        match step:
            case Eligible():
                return election._is_fit()
            case Campaign(ask):
                return self._elected(ask)
            case Pause(until):
                return self._pause(until)
            case Begin():
                self._begun = True
                return self._call(election._options.on_started)
            case Work():
                return self._call(self._work)
            case Finish(_, reason):
                return self._finished(reason)
            case Release():
                return self._release()

    def _elected(self, ask: Acquisition) -> Holding | None:
        election, candidacy = self._election, self._candidacy
        try:
            lease = election._host._campaign(ask)
        except AcquireError:
            if candidacy.resigning:
                return None
            raise
        try:
            holding = lease._holding
            mandate = candidacy.granted(holding, now())
            self._term = term = Term(election, candidacy, mandate, lease)
            handle = election._hand(mandate, term)
            election._host._watch_term(election._watch_for(mandate))
            if election._options.hard_stop:
                HardStop(mandate, handle)
            return holding
        except BaseException:
            begun, candidacy.mandate = candidacy.mandate, None
            if begun is not None:
                begun.drained(now())  # A hard stop may wait for it already.
            lease.release()
            raise

    def _pause(self, until: float) -> None:
        mandate = self._candidacy.mandate
        while (left := until - now()) > 0 and not self._candidacy.resigning:
            if mandate is not None and not self._candidacy.look(mandate, now()):
                return
            if self._election._host._is_closing:
                return
            time.sleep(min(left, _SLICE))

    def _call(self, function: Callable[[Term], object] | None) -> BaseException | None:
        if function is None or self._term is None:
            return None
        try:
            function(self._term)
        except BaseException as error:
            if isinstance(error, Exception) and not self._term._caused(error):
                _log.exception(
                    "the work of %r in %r raised, and its term ends",
                    self._candidacy.candidate,
                    self._candidacy.election,
                )
            return error
        return None

    def _finished(self, reason: Any) -> None:
        self._begun = False
        on_stopped = self._election._options.on_stopped
        if on_stopped is None or self._term is None:
            return
        try:
            on_stopped(self._term, reason)
        except Exception:
            _log.exception("on_stopped failed for %r", self._candidacy.candidate)

    def _release(self) -> bool:
        if self._term is None:
            return False
        lease = self._term._lease
        try:
            return lease.release()
        except BaseException:  # Ctrl-C on the way to the release; a second one does nothing.
            lease.release()
            raise

    def _over(self) -> None:
        """Nothing of this is under way any more."""
        election, candidacy = self._election, self._candidacy
        if election._current is not self:
            return
        term, mandate = self._term, candidacy.mandate
        if mandate is not None:
            # An interrupt struck between two steps, in this thread, which did the work.
            candidacy.end(mandate, Reason.RESIGNED, now())
            if self._begun:
                self._finished(mandate.reason or Reason.RESIGNED)
            mandate.drained(now())
            released = mandate.may_release and self._release()
            candidacy.ended(mandate, now(), released=released, error="interrupted")
        if term is not None and not term._lease._holding.freed:
            election._host._let_expire(term._lease, "its work did not stop in time")
        self._term = None
        election._runner = None
        election._current = None
