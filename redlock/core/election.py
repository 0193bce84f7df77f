"""One candidate: what ends its term, what is said of it, and the order of things in a term.

Pure, as the flows are. `lead` is a script of steps, in which whatever a candidate does stands in
its order: it asks whether it is fit, campaigns, begins, works, has ended, tells, and only then
releases. A driver does the steps, for threads, for tasks or in a simulator; it decides nothing.
What comes at any moment (a deadline, a renewal, a resignation, a look at the clock) comes to the
`Candidacy`, which finds out what ended a term, and says it once.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Protocol

from redlock.core.acquire import Acquisition
from redlock.core.effects import NEVER
from redlock.core.events import (
    TermEnded,
    TermInJeopardy,
    TermRecord,
    TermSafe,
    TermStarted,
    TermStopped,
    TermStopping,
)
from redlock.core.lease import Holding
from redlock.core.predecessor import Predecessor
from redlock.core.states import ROWS, TABLE, Move, Row, Say, State
from redlock.core.steps import (
    Begin,
    Campaign,
    Eligible,
    Finish,
    Pause,
    Release,
    Script,
    Step,
    Work,
)
from redlock.core.term import Mandate, Reason
from redlock.core.timings import MARGIN_MIN, ElectionTimings
from redlock.errors import CandidateUnfit, ConfigurationError, LeadershipLost, shown

__all__ = [
    "TABLE",
    "Begin",
    "Campaign",
    "Candidacy",
    "Eligible",
    "Finish",
    "Move",
    "Pause",
    "Release",
    "Say",
    "Script",
    "State",
    "Step",
    "Work",
    "lead",
]

BACK_OFF_MAX = 32
"""A candidate whose work raises comes back after a pause that doubles, to so many times the first
one: an error that stays must not make the fleet change its leader ten times a second."""


UNSAID_MAX = 1024
"""Records kept for an observer that does not come back: the oldest are lost, and what is done goes
on."""


class Voice(Protocol):
    """Who does what a candidacy says."""

    def record(self, record: TermRecord) -> None:
        """Put it into the ledger; may take its time, and may not raise."""

    def stop(self, mandate: Mandate) -> None:
        """Tell the work to stop: at once, and without waiting for anything."""

    def report(self, error: Exception) -> None:
        """A campaign failed, and is tried again."""

    def ask_fitness(self, mandate: Mandate) -> None:
        """Have `eligible` asked, without waiting; `Candidacy.fitness` hears the answer."""


class Candidacy:
    """One candidate in one election. At most one term at a time.

    *guard*: keeps threads apart; nothing is called with it held but `Voice.stop`. *checks*: whether
    there is somebody to ask whether the candidate is fit. *lock_delay*, *stall_timeout*: see
    `Redlock.election`.
    """

    def __init__(
        self,
        election: str,
        candidate: str,
        timings: ElectionTimings,
        voice: Voice,
        *,
        guard: contextlib.AbstractContextManager[Any] | None = None,
        slept: Callable[[], float] = float,
        checks: bool = False,
        lock_delay: float = 0.0,
        stall_timeout: float | None = None,
    ) -> None:
        self.election = election
        self.candidate = candidate
        self.timings = timings
        self.state = State.FOLLOWER
        self.mandate: Mandate | None = None
        """The term that is under way, from the grant to its end."""
        self.resigning = False
        self.ask: Acquisition | None = None
        """What it asks for while it campaigns."""
        self.predecessor = Predecessor(lock_delay)
        self._closed = False
        self._stall_timeout = stall_timeout
        self._voice = voice
        self._guard = guard if guard is not None else contextlib.nullcontext()
        self._slept = slept
        self._checks = checks
        self._asking = False
        self._asked_at = NEVER
        self._unsaid: deque[TermRecord] = deque(maxlen=UNSAID_MAX)
        self._saying = False

    def move(self, move: Move) -> Row | None:
        """Change the state as the table says; None: nothing follows from *move* here."""
        row = ROWS.get((self.state, move))
        if row is not None:
            self.state = row.next
        return row

    # A term

    def granted(self, holding: Holding, now: float) -> Mandate:
        """The lock is ours; the term has not begun."""
        mandate = Mandate(
            holding, self.timings, now, stall_timeout=self._stall_timeout, slept=self._slept
        )
        self._asking = False
        self.mandate = mandate
        return mandate

    def begin(self, mandate: Mandate, now: float) -> bool:
        """The candidate leads from now on; False: the term has ended already."""
        with self._guard:
            mandate.progress_at = now
            if mandate.why(now) is not None or mandate.reason is not None:
                return False
            row = self.move(Move.ELECTED)
            if row is not None:
                self._say(row, mandate, now)
        self.speak()
        return row is not None

    def look(self, mandate: Mandate, now: float) -> bool:
        """Find out what *now* means for a term, and say it. Whether its candidate leads."""
        if mandate.reason is None:
            with self._guard:
                why = mandate.why(now) if mandate.reason is None else None
                if why is not None:
                    self._end(mandate, *why, now)
                elif mandate.reason is None and self.mandate is mandate:
                    overdue = now >= mandate.jeopardy_at
                    row = self.move(Move.OVERDUE if overdue else Move.RENEWED)
                    if row is not None:
                        self._say(row, mandate, now)
            self.speak()
        return mandate.leads(now)

    def end(self, mandate: Mandate, reason: Reason, now: float) -> None:
        """End a term, unless something has. A deadline that passed before is the reason then."""
        self.look(mandate, now)
        with self._guard:
            if mandate.reason is None:
                self._end(mandate, reason, now, now)
        self.speak()

    def renewing(self, mandate: Mandate, now: float) -> bool:
        """A renewal is due: whether it may be tried. Has the candidate's fitness asked anew."""
        asks = self.look(mandate, now) and self._checks
        if asks and not self._asking:
            self._asking, self._asked_at = True, now
            self._voice.ask_fitness(mandate)
        # One that failed is tried again at once, which leaves nobody the time to answer.
        elif asks and now >= self._asked_at + self.timings.renewal - MARGIN_MIN:
            self.end(mandate, Reason.UNFIT, now)
        return mandate.leads(now)

    def fitness(self, mandate: Mandate, fit: bool, now: float) -> None:
        """The answer to `Voice.ask_fitness`."""
        if self.mandate is mandate:
            self._asking = False
            if not fit:
                self.end(mandate, Reason.UNFIT, now)

    def ended(self, mandate: Mandate, now: float, *, released: bool, error: str) -> None:
        """Everything of a term is over."""
        with self._guard:
            row = self.move(Move.DRAINED)
            if row is not None:
                self._say(row, mandate, now, released, error)
            self.mandate = None
            self.predecessor.led(mandate.holding.token)
            if self._closed:
                self.move(Move.CLOSE)
        self.speak()

    def stopped(self, mandate: Mandate, now: float) -> None:
        """The work of a term has ended."""
        margin = mandate.holding.valid_until - now
        self._unsaid.append(TermStopped(now, *self._of(mandate), str(mandate.reason), margin))
        self.speak()

    def resign(self, now: float, reason: Reason = Reason.RESIGNED) -> None:
        """End what is under way, and campaign no more; where nothing is, the next campaign ends at
        once."""
        self.resigning = True
        ask, mandate = self.ask, self.mandate
        if ask is not None:
            ask.give_up_at = NEVER
            if ask.wake is not None:
                ask.wake()
        if mandate is not None:
            self.end(mandate, reason, now)

    def close(self, now: float) -> None:
        """The coordinator is closed: as `resign`, and there is no campaign after it."""
        self._closed = True
        self.resign(now, Reason.CLOSED)
        self.move(Move.CLOSE)

    def report(self, error: Exception) -> None:
        """A campaign failed, and is tried again."""
        self._voice.report(error)

    def rest(self) -> None:
        """Nothing is under way any more: a resignation has been heard."""
        self.resigning = self._closed

    def speak(self) -> None:
        """Hand on what is to be said, in its order; the guard is not held. Whoever comes meanwhile
        leaves it to who is at it."""
        while self._unsaid:
            with self._guard:
                if self._saying:
                    return
                self._saying = True
            try:
                while self._unsaid:
                    self._voice.record(self._unsaid.popleft())
            finally:
                self._saying = False

    def _end(self, mandate: Mandate, reason: Reason, due_at: float, now: float) -> None:
        mandate.end(reason, due_at, now)
        row = self.move(Move.END)
        if row is not None:
            self._say(row, mandate, now)
        self._voice.stop(mandate)

    def _of(self, mandate: Mandate) -> tuple[str, str, int]:
        return self.election, self.candidate, mandate.holding.token

    def _say(
        self, row: Row, mandate: Mandate, now: float, released: bool = False, error: str = ""
    ) -> None:
        """Note what a row of the table says, to be handed on by `speak`."""
        who, until = self._of(mandate), mandate.holding.valid_until
        margin, reason = until - now, str(mandate.reason)
        record: TermRecord
        match row.says:
            case Say.STARTED:
                record = TermStarted(now, *who, until, mandate.stop_at)
            case Say.JEOPARDY:
                record = TermInJeopardy(now, *who, until, mandate.stop_at)
            case Say.SAFE:
                record = TermSafe(now, *who, until, mandate.stop_at)
            case Say.STOP:
                lag = max(0.0, now - mandate.stop_due_at)
                record = TermStopping(now, *who, reason, lag, margin)
            case _:  # Say.ENDED: no row that is said says less.
                record = TermEnded(now, *who, reason, released, margin, error)
        self._unsaid.append(record)


def lead(
    candidacy: Candidacy, campaign: Callable[[], Acquisition], now: float, *, again: float | None
) -> Script:
    """Campaign, and lead for a term. *campaign* makes what is asked for; *again*: seconds after
    which the next campaign begins, for ever until `resign`; None: one term.

    A resignation from before counts: whoever asked for it would not know that it came too early.
    Raises what a campaign raises, but for what the nodes refuse now and did not before; and, behind
    the release, what the work raised if that is no `Exception`: a Ctrl-C, or a cancel.
    """
    pause = again or 0.0
    try:
        while not candidacy.resigning:
            candidacy.move(Move.CAMPAIGN)
            try:
                mandate, now = yield from _elected(candidacy, campaign(), now)
            except ConfigurationError as refused:
                # Of a user whom the nodes never let in. Those that once did may do so again: a
                # password is changed on one after the other, and the whole fleet would stand down.
                if again is None or not candidacy.predecessor.looked:
                    raise
                candidacy.report(refused)
                now, _ = yield Pause(NEVER)
                pause = min(2 * pause, BACK_OFF_MAX * again)
                now, _ = yield Pause(now + pause)
                continue
            finally:
                candidacy.ask = None
                candidacy.move(Move.GIVE_UP)
            if mandate is None:
                return
            error, now = yield from _term(candidacy, mandate)
            if error is not None and not isinstance(error, Exception):
                raise error
            if again is None or candidacy.resigning:
                return
            pause = min(2 * pause, BACK_OFF_MAX * again) if error is not None else again
            now, _ = yield Pause(now + pause)
    finally:
        candidacy.rest()


def _term(
    candidacy: Candidacy, mandate: Mandate
) -> Generator[Step, tuple[float, Any], tuple[BaseException | None, float]]:
    """One term, from top to bottom. Gives what its work raised, if the term did not end before."""
    now, error = yield Begin(mandate)
    if error is None and candidacy.look(mandate, now):
        now, error = yield Work(mandate)
    if mandate.reason is not None and isinstance(error, LeadershipLost):
        error = None  # Its own `ensure_leader`: it stopped because it was told to.
    # The first reason stands: work that ends because it was told to has not ended the term.
    candidacy.end(mandate, Reason.RESIGNED if error else Reason.WORK_ENDED, now)
    candidacy.stopped(mandate, now)
    now, _ = yield Finish(mandate, mandate.reason or Reason.WORK_ENDED)
    # Drained before released: nothing of the term runs any more, or nothing is released.
    mandate.drained(now)
    released = False
    if mandate.may_release:
        now, released = yield Release(mandate)
    raised = repr(error) if isinstance(error, Exception) else ""
    candidacy.ended(mandate, now, released=released, error=raised)
    return error, now


def _elected(
    candidacy: Candidacy, ask: Acquisition, now: float
) -> Generator[Step, tuple[float, Any], tuple[Mandate | None, float]]:
    """Campaign until the candidate leads; None: it resigned."""
    candidacy.ask = ask
    while not candidacy.resigning:
        now, fit = yield Eligible()
        if candidacy.resigning:
            break
        if not fit:
            if now >= ask.give_up_at or ask.once:
                raise CandidateUnfit(
                    f"{shown(candidacy.candidate)} was not eligible in time for"
                    f" {shown(ask.resource)}:"
                    " see what its check asks for, or wait longer"
                )
            now, _ = yield Pause(min(now + candidacy.timings.renewal, ask.give_up_at))
            continue
        asked_at = now
        now, holding = yield Campaign(ask)
        mandate = candidacy.mandate
        if holding is None or mandate is None:
            break
        until = now + candidacy.predecessor.delay(now)
        # The lock is ours meanwhile, and is renewed. Whatever else wakes a driver changes nothing.
        while now < until and mandate.leads(now) and not candidacy.resigning:
            now, _ = yield Pause(until)
        # Perhaps it has waited for days.
        if now - asked_at > candidacy.timings.renewal and mandate.leads(now):
            now, fit = yield Eligible()
        if fit and not candidacy.resigning and candidacy.begin(mandate, now):
            return mandate, now
        candidacy.end(mandate, Reason.UNFIT, now)
        mandate.drained(now)
        if mandate.may_release:
            now, _ = yield Release(mandate)
        candidacy.mandate = None
        ask.granted = None
    return None, now
