"""Leader election for asyncio: `Election` and `Term`, as `redlock.asyncio` exports them.

The work is a task, cancelled when it must stop; the body of `async with` is cancelled likewise, and
LeadershipLost comes out of the block.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
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

# Long: the steps as a task does them, and the handles; the order is the core's.
__all__ = ["Coordinator", "Election", "Term"]

_LOOK_AGAIN = 1.0
"""At most this long between looks: timers sleep through a suspend."""

_log = logging.getLogger("redlock")


class Handle(Protocol):
    """As much of a `Lease` as a term uses."""

    _holding: Holding

    @property
    def lost(self) -> asyncio.Event:
        """Set when it is lost."""

    async def verify(self) -> None:
        """One majority round."""

    async def release(self) -> bool:
        """Give it back."""


class Coordinator(Protocol):
    """As much of a `Redlock` as an election uses."""

    async def _campaign(self, ask: Acquisition) -> Handle:
        """A lease, as *ask* says."""

    def _watch_term(self, watch: Watch) -> None:
        """Renew a lease, and tell when its term has ended."""

    def _let_expire(self, lease: Any, why: str) -> None:
        """The lease is over for everybody here, and is not given back: it expires by itself."""

    def _watch_lost(self, lease: Any) -> None:
        """Tell when a lease is lost."""

    async def _look(self, start: Callable[[float], Flow[Tally]]) -> Tally:
        """Ask the nodes."""

    def _term_over(self) -> None:
        """A term has ended: a close may wait for that."""

    @property
    def _is_closing(self) -> bool:
        """Whether `close` was called."""


class Term(TermBase):
    """A term of leadership. An async context manager: leaving it ends the term, then releases; made
    by `Election.campaign` and `Election.run`, never by hand."""

    __slots__ = (
        "_body",
        "_cancels",
        "_cut",
        "_election",
        "_finish",
        "_lease",
        "_loop",
        "_stop",
        "_work",
    )

    def __init__(
        self, election: Election, candidacy: Candidacy, mandate: Mandate, lease: Handle
    ) -> None:
        super().__init__(candidacy, mandate)
        self._election = election
        self._lease = lease
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._work: asyncio.Task[Any] | None = None
        self._body: asyncio.Task[Any] | None = None
        self._cancels = 0
        self._cut = False
        self._finish: _Finish | None = None

    @property
    def stop(self) -> asyncio.Event:
        """Set when the work must stop: at the stop deadline, or as soon as the term has ended
        otherwise. By a local timer, not by I/O. The work is cancelled at the same moment."""
        return self._stop

    @property
    def lost(self) -> asyncio.Event:
        """Set when the lease behind the term is over and was not given back; never set by a
        release. From then on somebody else may lead."""
        return self._lease.lost

    async def verify(self) -> None:
        """Return if no newer leader had been elected when this call began: one majority round, and
        no clock.

        For a read that must not be stale. Raises LeadershipLost; QuorumUnavailable when it is
        unknown. Assumes what `Lease.verify` does.
        """
        self.ensure_leader()
        try:
            await self._lease.verify()
        except RedlockError as error:
            raise self._election._unconfirmed(self, error) from error
        self.ensure_leader()

    async def __aenter__(self) -> Self:
        if self._body is not None or self._finish is None:
            raise LockInUse(
                f"the term of {self.candidate!r} is used by a body already: campaign for another"
            )
        if not self.is_leader():
            await self._leave(None)
            raise self._lost()
        self._body = asyncio.current_task()
        self._cancels = self._body.cancelling() if self._body is not None else 0
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        body, self._body = self._body, None
        # As asyncio.timeout does: our own cancel becomes LeadershipLost, somebody else's goes on.
        ours = (
            self._cut
            and body is not None
            and body.uncancel() <= self._cancels
            and kind is asyncio.CancelledError
        )
        await self._leave(None if ours else error)
        if ours:
            raise self._lost() from error
        lost = self._lost_unasked()
        if error is None and lost is not None:
            raise lost

    async def end(self) -> None:
        """The work has ended: give the lock back. For who does not use the term in an `async
        with`."""
        await self._leave(None)

    async def _leave(self, error: BaseException | None) -> None:
        finish, self._finish = self._finish, None
        if finish is not None:
            await finish(self, error)

    def _told_stop(self) -> None:
        """The look that found it may be another thread's."""
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            self._stop_now()
        else:
            with contextlib.suppress(RuntimeError):  # The loop is closed, and nothing runs on it.
                self._loop.call_soon_threadsafe(self._stop_now)

    def _stop_now(self) -> None:
        self._stop.set()
        self._election._wake.set()
        if self._work is not None:
            self._work.cancel()
        body = self._body
        if body is None or self._cut:
            return
        if body is asyncio.current_task():
            # The body found out itself. A task that cancels itself is struck at its next await, and
            # that may be the release, after the body.
            self._loop.call_soon(self._stop_now)
            return
        self._cut = True
        body.cancel()


_Finish = Callable[[Term, BaseException | None], Coroutine[Any, Any, None]]


class _Campaign:
    """What `Election.campaign` gives: `await` it for a term, or use it in an `async with`."""

    def __init__(self, begin: Callable[[], Coroutine[Any, Any, Term]]) -> None:
        self._begin = begin
        self._term: Term | None = None

    def __await__(self) -> Generator[Any, None, Term]:
        return self._begin().__await__()

    async def __aenter__(self) -> Term:
        self._term = await self
        return await self._term.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._term is not None:
            await self._term.__aexit__(kind, error, trace)


class Election(ElectionBase[Term]):
    """One candidate in the election *name*; made by `Redlock.election`. At most one term at a time.

    As `redlock.Election`, for the tasks of one event loop. A loop that is blocked past the stop
    deadline finds the term ended at the first look at the clock.
    """

    def __init__(
        self,
        coordinator: CoordinatorBase[Any],
        host: Coordinator,
        name: str,
        options: ElectionOptions,
    ) -> None:
        self._host = host
        # Work may look at its term in another thread.
        super().__init__(coordinator, name, options, threading.RLock())

    def _set_up(self) -> None:
        super()._set_up()
        self._runner: asyncio.Task[Any] | None = None
        self._worker: asyncio.Task[Any] | None = None
        self._wake = asyncio.Event()
        self._asked: set[asyncio.Task[Any]] = set()

    def campaign(self, timeout: float | None = None) -> _Campaign:
        """Wait until elected, at most *timeout* seconds, and lead:
        `async with election.campaign() as term`, or `term = await election.campaign()` and then
        `async with term`. Leaving the block ends the term, calls `on_stopped` and gives the lock
        back.

        None waits for ever, 0 tries once; a `lock_delay` comes behind that. Raises LockContended
        when somebody else leads, QuorumUnavailable when no majority answers, CandidateUnfit,
        LockInUse when this object campaigns already, RedlockError when the coordinator is closed or
        the candidate resigned.
        """
        return _Campaign(partial(self._campaign, timeout))

    async def _campaign(self, timeout: float | None) -> Term:
        run = _Run(self, self._begin(timeout, again=None), None)
        term = await run.to_the_work()
        if term is None:
            raise RedlockError(f"{self.candidate!r} resigned before it was elected: campaign again")
        return term

    async def run(self, work: Callable[[Term], Awaitable[object]]) -> None:
        """Await `work(term)`, as a task of its own, each time this candidate is elected, for ever
        or until `resign`.

        It campaigns again after every loss and every return. Work that raises is reported and
        counts as a resignation from that term; the candidate comes back after a pause that grows,
        as it does where nodes refuse what they let in before: ConfigurationError comes out only
        where they never did. At the stop deadline, or as soon as the term has ended otherwise, the
        work is cancelled; it is waited for, however long that takes. A cancel of this resigns, in
        order. What the work began elsewhere, as by `asyncio.to_thread`, is not cancelled with it,
        and not waited for: let the work wait for that, shielded, before it ends.
        """
        if not callable(work):
            raise TypeError(f"work={work!r} must be a coroutine function of the term")
        pause = self._base._policy.retry_delay
        await _Run(self, self._begin(None, again=pause), work).to_the_work()

    async def resign(self) -> bool:
        """End the term and campaign no more: the work is cancelled, waited for, and only then the
        lock is given back. Where nothing is under way, the next campaign or run ends at once: a
        signal may come early.

        True: nothing of it runs any more. Waits until the kill deadline; where the work itself
        calls this, it only tells, and the rest follows when the work has ended.
        """
        run = self._current
        self._candidacy.resign(now())
        self._wake.set()
        return await self._await_end(run)

    async def leader(self) -> Leader | None:
        """Who leads, as a majority says; None: nobody does, or no majority agrees. Informational.

        Raises QuorumUnavailable when no majority answers.
        """
        return self._leader(await self._host._look(self._looking))

    async def observe(self) -> AsyncIterator[Leader | None]:
        """Who leads now, and then every change, None for nobody; until the coordinator is closed.

        While no majority answers it stays silent. Informational: by the time a change is told it is
        up to a fifth of a second old.
        """
        known: tuple[Leader | None] | None = None
        while not self._host._is_closing:
            with contextlib.suppress(QuorumUnavailable):
                try:
                    leader = await self.leader()
                except RedlockError:
                    if self._host._is_closing:
                        return
                    raise
                if known is None or differs(known[0], leader):
                    known = (leader,)
                    yield leader
            await asyncio.sleep(LOOK_EVERY)

    # For the coordinator

    def _close(self, closers: set[asyncio.Task[Any] | None]) -> None:
        """The coordinator is closed, by *closers*."""
        self._candidacy.close(now())
        self._wake.set()

    def _needed_until(self, closers: set[asyncio.Task[Any] | None]) -> float:
        """The instant until which work may still need the lock; minus infinity where none runs, or
        where it is what closes."""
        mandate = self._candidacy.mandate
        if mandate is None or not closers.isdisjoint({self._runner, self._worker}):
            return float("-inf")
        return mandate.kill_at

    def _begin_asking(self, mandate: Mandate) -> None:
        asking = asyncio.ensure_future(self._ask_fitness(mandate))
        self._asked.add(asking)
        asking.add_done_callback(self._asked.discard)

    async def _ask_fitness(self, mandate: Mandate) -> None:
        self._candidacy.fitness(mandate, await self._is_fit(), now())

    async def _is_fit(self) -> bool:
        eligible = self._options.eligible
        if eligible is None:
            return True
        try:
            fit = eligible()
            return bool(await fit if inspect.isawaitable(fit) else fit)
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if me is not None and me.cancelling():
                raise
            _log.exception(
                "eligible was cancelled for %r, which is taken for unfit", self.candidate
            )
            return False
        except Exception:
            _log.exception("eligible failed for %r, which is taken for unfit", self.candidate)
            return False

    def _watch_to_the_end(self, term: Term) -> None:
        self._host._watch_lost(term._lease)

    # The end

    async def _await_end(self, run: object | None) -> bool:
        me = asyncio.current_task()
        until = now() + self._timings.ttl
        while self._goes_on(run):
            if me in (self._runner, self._worker):
                return False
            mandate = self._candidacy.mandate
            if now() >= (until if mandate is None else mandate.kill_at):
                return False
            await asyncio.sleep(0.005)
        return True


class _Run:
    """A script on its way through a task: does its steps, and decides nothing."""

    def __init__(
        self, election: Election, script: Script, work: Callable[[Term], Awaitable[object]] | None
    ) -> None:
        self._election = election
        self._candidacy = election._candidacy
        self._script = script
        self._work = work
        self._term: Term | None = None
        self._interrupt: BaseException | None = None
        self._begun = False
        """Whether `on_started` was called, and `on_stopped` was not."""
        self._tasks: list[asyncio.Task[Any]] = []
        """Those of the caller's code in this term; nothing is released while one of them runs."""

    async def to_the_work(self) -> Term | None:
        """Do the steps up to the work, where that is a block of the caller's; otherwise to the
        end."""
        return await self._go(self._first)

    def _first(self) -> Step:
        # Not before the steps are under way, which give it back: an interrupt may come at any
        # moment.
        self._election._claim(self)
        self._election._runner = asyncio.current_task()
        self._election._wake.clear()
        return next(self._script)

    async def finish(self, term: Term, error: BaseException | None) -> None:
        """The block of *term* has ended, perhaps by *error*, which goes on by itself."""
        self._term = term
        self._election._runner = asyncio.current_task()
        try:
            await self._go(lambda: self._script.send((now(), error)))
        except BaseException as raised:
            if raised is not error:
                raise

    async def _go(self, advance: Callable[[], Step]) -> Term | None:
        try:
            while True:
                step = advance()
                if isinstance(step, Work) and self._work is None:
                    assert self._term is not None
                    self._term._finish = self.finish
                    term, self._term = self._term, None
                    return term
                advance = await self._did(step)
        except StopIteration:
            await self._over()
            if self._interrupt is not None:
                raise self._interrupt from None
            return None
        except BaseException:
            await self._over()
            raise

    async def _did(self, step: Step) -> Callable[[], Step]:
        try:
            answer = await self._do(step)
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

    async def _do(self, step: Step) -> Any:
        election = self._election
        match step:
            case Eligible():
                return await election._is_fit()
            case Campaign(ask):
                return await self._elected(ask)
            case Pause(until):
                return await self._pause(until)
            case Begin():
                self._begun = True
                return await self._call(election._options.on_started)
            case Work():
                return await self._call(self._work)
            case Finish(_, reason):
                return await self._finished(reason)
            case Release():
                return await self._release()

    async def _elected(self, ask: Acquisition) -> Holding | None:
        election, candidacy = self._election, self._candidacy
        try:
            lease = await election._host._campaign(ask)
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
            await lease.release()
            raise

    async def _pause(self, until: float) -> None:
        election, mandate = self._election, self._candidacy.mandate
        while (left := until - now()) > 0 and not self._candidacy.resigning:
            if mandate is not None and not self._candidacy.look(mandate, now()):
                return
            if election._host._is_closing:
                return
            election._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(election._wake.wait(), min(left, _LOOK_AGAIN))

    async def _call(self, function: Callable[[Term], object] | None) -> BaseException | None:
        """Run the caller's code as a task that is cancelled when the term ends. Gives what it
        raised, but for that cancel."""
        term = self._term
        if function is None or term is None:
            return None
        task = self._begin_task(function, term)
        try:
            # A task that is cancelled before its first step never calls anything, and `on_stopped`
            # would have no partner.
            await self._cancelled_later(asyncio.sleep(0))
            term._work = task
            if term.reason is not None:
                task.cancel()
            await self._until_done(task, term)
        finally:
            self._election._worker = None
            term._work = None if task.done() else task  # Still to be cancelled, whatever struck.
        if task.cancelled():
            if self._interrupt is not None or term.reason is not None:
                return self._interrupt
            # Of something else that it awaited: work that raised, and not the end of the run.
            told = "was cancelled, and not by its election"
            _log.error("the work of %r in %r %s", term.candidate, self._candidacy.election, told)
            return RuntimeError(f"the work {told}")
        error = task.exception()
        if isinstance(error, Exception) and not term._caused(error):
            _log.error(
                "the work of %r in %r raised, and its term ends",
                self._candidacy.candidate,
                self._candidacy.election,
                exc_info=error,
            )
        return error or self._interrupt

    def _begin_task(self, function: Callable[..., object], *arguments: Any) -> asyncio.Task[Any]:
        task = self._election._worker = asyncio.ensure_future(_awaited(function, *arguments))
        self._tasks = [*(other for other in self._tasks if not other.done()), task]
        return task

    async def _cancelled_later(self, moment: Awaitable[None]) -> None:
        try:
            await moment
        except asyncio.CancelledError as error:
            self._interrupt = self._interrupt or error
            self._candidacy.resigning = True
            mandate = self._candidacy.mandate
            if mandate is not None:
                self._candidacy.end(mandate, Reason.RESIGNED, now())

    async def _until_done(self, task: asyncio.Task[Any], term: Term | None) -> None:
        """Wait for *task*, however long that takes. A cancel of ours ends the term, whose work is
        cancelled, and comes out behind it."""
        while not task.done():
            await self._cancelled_later(_moment(task))
            if term is not None:
                term.is_leader()  # Also where the timers of this loop were late.

    async def _finished(self, reason: Reason) -> None:
        self._begun = False
        on_stopped, term = self._election._options.on_stopped, self._term
        if on_stopped is None or term is None:
            return
        # Known as ours: it may resign, or close, and must not wait for itself.
        task = self._begin_task(on_stopped, term, reason)
        try:
            await self._until_done(task, None)
        finally:
            self._election._worker = None
        if not task.cancelled() and task.exception() is not None:
            _log.error(
                "on_stopped failed for %r", self._candidacy.candidate, exc_info=task.exception()
            )

    async def _release(self) -> bool:
        # Whatever struck here while the work went on, nothing is released under it.
        if self._term is None or not all(task.done() for task in self._tasks):
            return False
        task = asyncio.ensure_future(self._term._lease.release())
        await self._until_done(task, None)
        return not task.cancelled() and task.exception() is None and task.result()

    async def _over(self) -> None:
        """Nothing of this is under way any more."""
        election, candidacy = self._election, self._candidacy
        if election._current is not self:
            return
        term, mandate = self._term, candidacy.mandate
        try:
            if mandate is not None:
                # An exception struck between two steps.
                candidacy.end(mandate, Reason.RESIGNED, now())
                if self._begun:
                    await self._finished(mandate.reason or Reason.RESIGNED)
                mandate.drained(now())
                released = mandate.may_release and await self._release()
                candidacy.ended(mandate, now(), released=released, error="interrupted")
        finally:
            if term is not None and not term._lease._holding.freed:
                election._host._let_expire(term._lease, "its work did not stop in time")
            self._term = None
            election._runner = None
            election._current = None
            election._host._term_over()


async def _moment(task: asyncio.Task[Any]) -> None:
    await asyncio.wait({task}, timeout=_LOOK_AGAIN)


async def _awaited(function: Callable[..., object], *arguments: Any) -> Any:
    result = function(*arguments)
    return await result if inspect.isawaitable(result) else result
