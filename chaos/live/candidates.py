"""The role `elect`: a candidate over `locks.election(...).run(work)`, of either API.

Its work writes to the guarded store under the term's token for as long as the term says that it
leads, reports every such answer, and ticks. A campaign orders it to misbehave, or it draws that
from its seed. Orders are heard in a thread of their own, which an event loop that is blocked does
not keep from hearing.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chaos.history import Answered, Called, Hook, Led, Stood
from chaos.live.program import Locks
from chaos.live.store import StoreClient
from chaos.live.worker import Session, client, drive, emit, leap, note, outcome_of, true_now
from redlock.errors import ConfigurationError, RedlockError

__all__ = ["MOODS", "elect"]

ROUND = 0.02
"""Seconds from one round of the work to the next."""
_LOOKS = 0.01

MOODS = ("return", "raise", "resign", "hang", "block", "ignore", "unfit")
"""What work does that does not go on in order. "hang": it waits for the stop, and does not tick;
"block": it blocks its thread, and the event loop if there is one; "ignore": it works on without a
look at its term, whatever it is told; "unfit": the candidate is, for a while."""


class WorkFailed(Exception):
    """What work raises when it is to."""


@dataclass(frozen=True, slots=True)
class Mood:
    """What work does from *at* on, for *lasts* seconds or until it is told to go on."""

    kind: str
    at: float
    lasts: float = 60.0


class Candidate:
    """One candidate, and what it was ordered to do.

    Settings: *stands*: whether it stands before it is told to; *moods*: the share of terms in which
    its work misbehaves; *reopens*: after a close it goes on with a new coordinator; *election*:
    arguments of the election.
    """

    def __init__(self, session: Session, locks: Locks) -> None:
        self._session = session
        self._settings = session.task.settings
        self._resource = session.task.resource
        self._locks: Any = locks
        self._election: Any = None
        self._closed = False
        self._loop = None if locks.blocking else asyncio.get_running_loop()
        self._store = StoreClient(session.task.store, client())
        self._guard = threading.Lock()
        self._stands: bool = self._settings.get("stands", True)
        self._is_out = True
        self._mood: Mood | None = None
        self._go_on = threading.Event()
        self._unfit_until = 0.0
        self._token = 0
        self._heal: Callable[[], object] = lambda: None
        self._resigned = False

    # Its life

    async def live(self) -> None:
        """Stand for election, whenever it is wanted, until the task ends."""
        hearing = threading.Thread(target=self._hear, name="hearing", daemon=True)
        hearing.start()
        with contextlib.closing(self._store):
            while not self._session.ending.is_set():
                if self._begins():
                    await self._stand()
                    with self._guard:
                        self._is_out = True
                await self._locks.sleep(_LOOKS)
            with self._guard:
                self._stands, self._is_out = False, True
        # Not joined: in the thread of a loop that would keep the hearing from what it waits for.
        while hearing.is_alive():
            await self._locks.sleep(_LOOKS)
        await self._locks.close()

    def _begins(self) -> bool:
        with self._guard:
            if self._stands and (not self._closed or self._settings.get("reopens")):
                self._is_out = False
                return True
        return False

    async def _stand(self) -> None:
        if self._closed:
            self._locks, self._closed = self._session.coordinator(), False
            self._election = None
        if self._election is None:
            self._election = self._locks.real.election(
                self._resource,
                candidate=client(),
                eligible=self._is_eligible,
                on_started=self._on_started,
                on_stopped=self._on_stopped,
                **self._settings.get("election", {}),
            )
        delay = self._settings.get("election", {}).get("lock_delay", 0.0)
        emit(Stood(true_now(), client(), self._resource, client(), delay))
        try:
            if self._loop is None:
                self._election.run(lambda term: drive(self._work(term)))
            else:
                await self._election.run(self._work)
        except RedlockError as error:
            # Where it was closed, or a majority refuses it for what is set up there; anything else
            # is told as a crash.
            if not (self._closed or isinstance(error, ConfigurationError)):
                raise
            note("stands no more", outcome_of(error))
            return
        # One that came between two runs ends the next.
        resigned, self._resigned = self._resigned, False
        if not (resigned or self._closed):
            note("crashed", "its run came back, and nobody had resigned")

    # What it does as the leader

    def _on_started(self, term: Any) -> None:
        self._token = term.fencing_token
        self._hook(term, "on_started", over=False)
        self._go_on.clear()
        self._mood = self._drawn()
        self._hook(term, "on_started", over=True)

    def _on_stopped(self, term: Any, reason: str) -> None:
        self._hook(term, "on_stopped", over=False)
        self._token = 0
        self._hook(term, "on_stopped", over=True)

    async def _work(self, term: Any) -> None:
        self._hook(term, "work", over=False)
        waiting = self._await_stop(term) if self._settings.get("watches") else None
        try:
            await self._rounds(term)
        finally:
            if waiting is not None and not term.stop.is_set():
                waiting()
            self._hook(term, "work", over=True)

    def _await_stop(self, term: Any) -> Callable[[], object]:
        """Report when somebody who waits for the stop hears of it. Gives what ends the wait."""
        told = str(term.fencing_token)
        if self._loop is not None:

            async def wait() -> None:
                await term.stop.wait()
                note("told to stop", told)

            return asyncio.ensure_future(wait()).cancel
        over = threading.Event()

        def watch() -> None:
            while not over.is_set():
                if term.stop.wait(0.5):
                    note("told to stop", told)
                    return

        threading.Thread(target=watch, name="waits for the stop", daemon=True).start()
        return over.set

    async def _rounds(self, term: Any) -> None:
        while self._leads(term):
            basis = self._store.read(self._resource, term.fencing_token)
            mood = self._mood
            if mood is not None and true_now() >= mood.at:
                self._mood = None
                if await getattr(self, f"_{mood.kind}")(term, mood, basis):
                    return
                continue  # What was read is old, and what rests on it may be written.
            if "refused" not in basis and self._leads(term):
                self._store.write(self._resource, term.fencing_token, basis)
            term.tick()
            await self._pause(term, ROUND)

    def _leads(self, term: Any) -> bool:
        """Ask the term, and report a yes."""
        at = true_now()  # Before the question: what it answers was true at or after this.
        if not term.is_leader():
            return False
        # A term that ends between the two questions has none left, and led at the first.
        left = term.remaining() or 1e-9
        emit(Led(at, client(), self._resource, term.fencing_token, left))
        return True

    async def _pause(self, term: Any, seconds: float) -> None:
        if self._loop is None:
            term.stop.wait(seconds)
        else:
            await asyncio.sleep(seconds)

    def _hook(self, term: Any, call: str, *, over: bool) -> None:
        emit(Hook(true_now(), client(), self._resource, term.fencing_token, call, over))

    def _is_eligible(self) -> bool:
        fit = true_now() >= self._unfit_until
        if self._token and not fit:
            emit(Answered(true_now(), client(), self._resource, self._token, fit))
        return fit

    # How it misbehaves. True: the work ends.

    def _drawn(self) -> Mood | None:
        draw = self._session.random
        if draw.random() >= self._settings.get("moods", 0.0):
            return None
        ttl = self._session.task.options["ttl"]
        kind, at = draw.choice(MOODS), true_now() + draw.uniform(0.0, ttl)
        return Mood(kind, at, draw.choice((0.3, 0.8, 1.5)) * ttl)

    async def _return(self, term: Any, mood: Mood, basis: dict[str, Any]) -> bool:
        return True

    async def _raise(self, term: Any, mood: Mood, basis: dict[str, Any]) -> bool:
        raise WorkFailed("as it was ordered")

    async def _resign(self, term: Any, mood: Mood, basis: dict[str, Any]) -> bool:
        """From inside the work, which then goes on until it is told to stop."""
        self._resigned = True
        await _awaited(self._election.resign())
        return False

    async def _unfit(self, term: Any, mood: Mood, basis: dict[str, Any]) -> bool:
        self._unfit_until = true_now() + mood.lasts
        return False

    async def _hang(self, term: Any, mood: Mood, basis: dict[str, Any]) -> bool:
        note("hang")
        until = true_now() + mood.lasts
        while true_now() < until and not self._go_on.is_set() and not term.stop.is_set():
            await self._pause(term, ROUND)
        return bool(term.stop.is_set())

    async def _block(self, term: Any, mood: Mood, basis: dict[str, Any]) -> bool:
        note("block")
        self._go_on.wait(mood.lasts)
        self._write_blindly(term, basis)
        return False

    async def _ignore(self, term: Any, mood: Mood, basis: dict[str, Any]) -> bool:
        note("ignore")
        until = true_now() + mood.lasts
        while true_now() < until and not self._go_on.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self._locks.sleep(_LOOKS)
        self._write_blindly(term, basis)
        return False

    def _write_blindly(self, term: Any, basis: dict[str, Any]) -> None:
        """Write what rests on an old read without a look at the term: what a zombie does."""
        answer = self._store.write(self._resource, term.fencing_token, {"value": 0, **basis})
        note("wrote blindly", "refused" if "refused" in answer else "ok")

    # Orders

    def _hear(self) -> None:
        while (order := self._session.hear()) is not None:
            try:
                answer = getattr(self, f"do_{order['what']}")(order) or "ok"
            except Exception as error:
                answer = outcome_of(error)
            note("done", f"{order['number']} {answer}")
        self._heal()
        self._go_on.set()
        with contextlib.suppress(RuntimeError):  # Its loop is gone: it has crashed.
            self.do_withdraw({})

    def do_stand(self, order: dict[str, Any]) -> None:
        """Stand for election from now on."""
        with self._guard:
            self._stands = True

    def do_withdraw(self, order: dict[str, Any]) -> None:
        """Resign, and stand no more; done when nothing of it runs any more."""
        with self._guard:
            self._stands = False
        while not self._is_out:
            # Again, as one that comes before the run has begun is none.
            self._resigned = True
            self._call(self._election.resign if self._election is not None else lambda: None)
            self._session.ending.wait(_LOOKS)

    def do_resign(self, order: dict[str, Any]) -> str:
        """Resign, and stand again."""
        self._resigned = True
        return "over" if self._call(self._election.resign) else "told"

    def do_close(self, order: dict[str, Any]) -> None:
        """Close the coordinator, under whatever the work does."""
        began, self._closed = true_now(), True
        self._call(self._locks.real.close)
        if not self._settings.get("reopens"):
            at = true_now()
            emit(Called(at, client(), self._resource, "close", at - began, "ok"))

    def do_work(self, order: dict[str, Any]) -> None:
        """Have the work misbehave from now on."""
        self._go_on.clear()
        self._mood = Mood(order["mood"], 0.0, order.get("lasts", 60.0))

    def do_go_on(self, order: dict[str, Any]) -> None:
        """End what the work is at, and be fit."""
        self._unfit_until = 0.0
        self._go_on.set()

    def do_unfit(self, order: dict[str, Any]) -> None:
        """Be unfit until told to go on."""
        self._unfit_until = float("inf")

    def do_suspend(self, order: dict[str, Any]) -> None:
        """As if the machine had slept for a while, which no timer has seen."""
        leap(order["seconds"], (time.CLOCK_BOOTTIME,))

    def do_state(self, order: dict[str, Any]) -> str:
        """Where it stands."""
        return "out" if self._is_out else str(self._election.state)

    def do_break_renewal(self, order: dict[str, Any]) -> None:
        """What renews in this process lives no more, until `mend_renewal`."""
        driver = self._locks.real._driver
        if self._loop is None:
            self._heal = _hang_thread(driver.background)
        else:
            links, renewals = driver.linkset, driver.renewals
            links.renewals = None
            self._heal = lambda: self._loop.call_soon_threadsafe(renewals.move, links)  # type: ignore[union-attr]

    def do_mend_renewal(self, order: dict[str, Any]) -> None:
        """Put it right."""
        self._heal()

    def _call(self, function: Callable[[], Any]) -> Any:
        """A call of the public API, from this thread."""
        if self._loop is None:
            return function()
        return asyncio.run_coroutine_threadsafe(_called(function), self._loop).result()


def _hang_thread(worker: Any) -> Callable[[], object]:
    """Have a thread of the coordinator hang at its next step. Gives what lets it go on."""
    mended, step = threading.Event(), worker._step

    def hang() -> None:
        mended.wait()
        worker._step = step

    worker._step = hang
    worker._wake()
    return mended.set


async def _awaited(value: Any) -> Any:
    return await value if asyncio.iscoroutine(value) else value


async def _called(function: Callable[[], Any]) -> Any:
    return await _awaited(function())


async def elect(session: Session, locks: Locks) -> None:
    """Stand for election, lead, and stand again, until the task ends."""
    await Candidate(session, locks).live()
