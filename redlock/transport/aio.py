"""The asyncio driver: one connection per node for all tasks of a loop, and no task per node or per
round.

Flows are stepped by the callbacks that bring their events, so a grant is decided when the q-th
reply is read, and the waiting task only picks up the result. Here is whose turn it is, and how it
begins and ends; the connections and the one timer are in `streams`, and what happens on them in
`linkset`.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from threading import get_ident
from typing import Any, TypeVar

from redlock.core.effects import Flow, Request, Wait
from redlock.core.rounds import Cluster
from redlock.errors import ConfigurationError, QuorumUnavailable, RedlockError
from redlock.transport.clock import now as clock
from redlock.transport.dial import Endpoint
from redlock.transport.ear import Ear, Hearing
from redlock.transport.link import Link
from redlock.transport.node import Node
from redlock.transport.renewals import Renewals
from redlock.transport.run import Run, saturated
from redlock.transport.streams import Streams

__all__ = ["AsyncDriver"]

T = TypeVar("T")
FLOWS_MAX = 256
"""Flows under way at once; the others wait for their turn. Some hundreds fill a connection, and
each adds to everybody's wait."""
URGENT_MAX = 1024
"""Flows under way beyond which holders queue up as well; their requests still fit twice into
what a node may owe."""
_LOOK = 0.002
"""Seconds between two looks of a close at what is under way: a fraction of a round trip."""


class _AsyncRun(Run[T]):
    """A run of a task. *turn*: whether it is one of the rounds under way; *final*: of a release."""

    __slots__ = ("_driver", "final", "turn")

    def __init__(
        self,
        flow: Flow[T],
        driver: AsyncDriver,
        on_done: Callable[[], None],
        *,
        final: bool = False,
    ) -> None:
        super().__init__(flow, driver.linkset, clock, on_done)
        self._driver = driver
        self.final = final
        self.turn = True

    def paused(self) -> None:
        self._driver.leave(self)
        wait, bell = self.wait, self.wait.bell
        if bell is not None:
            bell.wake = partial(self._driver.rung, self, wait)
            self._driver.listen()
            if bell.rung:
                bell.wake()

    def may_go_on(self) -> bool:
        self._driver.queue_again(self)
        return False


class AsyncDriver:
    """Runs flows for the tasks of one coordinator, on the event loop that used it first."""

    def __init__(self, cluster: Cluster, found: Sequence[Endpoint]) -> None:
        self.cluster = cluster
        self.closing = self.closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        nodes = [
            Node(index, name, cluster.admission, cluster.note)
            for index, name in enumerate(cluster.names)
        ]
        silence, timeout = max(1.0, 4 * cluster.patience), min(1.0, max(0.5, 4 * cluster.patience))
        self.streams = Streams(nodes, found, silence=silence, timeout=timeout)
        self.linkset = self.streams.linkset
        self.renewals = Renewals(clock, cluster)
        self.renewals.move(self.linkset)
        for node in nodes:
            node.on_owed, node.owed_for = self.linkset.owed, cluster.owed_for
        self._hearing = Hearing(cluster.lines, len(nodes))
        make_ear = partial(Ear, self._hearing)
        self._ears = Streams(
            nodes,
            found,
            silence=silence,
            timeout=timeout,
            make_link=make_ear,
            on_received=self._answer_bells,
        )
        """Used from the first wait on."""
        self._ending: asyncio.Task[None] | None = None  # A loop knows its tasks weakly.
        self._runs: set[_AsyncRun[Any]] = set()
        """Until the tasks that wait for them have heard how they ended."""
        self._rounds = 0
        self._admitting = False
        self._queue: deque[Callable[[], None]] = deque()
        self._rung: deque[tuple[_AsyncRun[Any], Wait]] = deque()

    # For tasks

    async def run(
        self,
        start: Callable[[float], Flow[T]],
        *,
        give_up_at: float = math.inf,
        urgent: bool = False,
        final: bool = False,
    ) -> T:
        """Run a flow to its end and give its result.

        A cancel lets the flow write its last requests first. *urgent*: for a lease that is held; a
        holder, and least of all one who makes room, does not queue behind those who want locks.
        *final*: a release, which goes on where `refuse` ends everything else. Raises
        QuorumUnavailable if too many others are under way until *give_up_at*.
        """
        loop = self._bind(final=final)
        if self._rounds < (URGENT_MAX if urgent else FLOWS_MAX) and (urgent or not self._queue):
            self._rounds += 1
        else:
            await self._queue_up(loop, give_up_at, final=final)
        done = loop.create_future()
        run = _AsyncRun(start(clock()), self, partial(_wake, done), final=final)
        self._runs.add(run)
        try:
            self.linkset.begin(run)
            if not run.done:
                await done
        except BaseException:
            self.linkset.interrupted()  # No connection was worked on, but where Ctrl-C came.
            self.linkset.cancel(run)
            raise
        finally:
            self._runs.discard(run)
            self.leave(run)
            self.linkset.leave(run)
        return run.result()

    def listen(self) -> None:
        """Somebody waits: hear who is told that a lock is free."""
        if self._hearing.due(clock()) and not self.closing:
            self._ears.loop = self._loop
            self._ears.linkset.tick()

    def write(self, requests: Sequence[Request]) -> None:
        """Write requests whose answers nobody waits for."""
        if self._loop is not None:
            self.linkset.send(requests, None)
            self.linkset.settle()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop this driver belongs to, from its first use on; also while nothing runs on it,
        in the thread that it ran in."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if self._loop is not None and self._thread == get_ident():
                return self._loop
        return self._bind()

    def check_loop(self) -> None:
        """Refuse another event loop than the one that used this first: connections belong to it
        alone."""
        if not self.closed:
            self._bind(final=True)

    def refuse(self) -> None:
        """Take nothing but releases from now on, and end whatever else is under way: it raises,
        and gives back what it took."""
        self.closing = True
        self._end(lambda run: not (isinstance(run, _AsyncRun) and run.final))
        self._admit()

    async def close(self) -> None:
        """Close all connections and end what still dials; reachable nodes first get the releases
        they are owed."""
        deadline = clock() + self.cluster.patience
        self.closing = True
        try:
            links = self.linkset
            while (
                self._loop is not None
                and (self._runs or links.runs or any(map(_owing, links.links)))
                and clock() < deadline
            ):
                links.bring_owed()
                await asyncio.sleep(_LOOK)
        finally:
            self._shut()
            await self.streams.gone()
            await self._ears.gone()

    def let_go(self) -> None:
        """From any thread: nobody uses this any more, so close it, if its loop goes on."""
        if self._loop is not None and not self.closed:
            with suppress(RuntimeError):  # It is closed, and its connections went with it.
                self._loop.call_soon_threadsafe(self._begin_close)

    def _begin_close(self) -> None:
        if self._loop is not None and not self.closed:
            self._ending = self._loop.create_task(self.close(), name="redlock-close")

    def _shut(self) -> None:
        """Everything that needs no waiting, so that a cancel of `close` leaves nothing open."""
        self.closing = self.closed = True
        self._end(lambda run: True)
        self._admit()
        self.streams.close()
        self._ears.close()

    def _end(self, which: Callable[[Run[Any]], bool]) -> None:
        """End flows: they raise, and give back what they took."""
        self.renewals.closed = True
        for run in list(filter(which, [*self._runs, *self.linkset.runs])):
            self.linkset.cancel(run)  # Or it has ended, and whoever waits for it has not run yet.
            run.error = _closed()

    def abandon(self) -> None:
        """After a fork, in the child: let go of the parent's connections without a word on them."""
        self.streams.abandon()
        self._ears.abandon()

    # Turns

    def _bind(self, *, final: bool = False) -> asyncio.AbstractEventLoop:
        if self.closed or (self.closing and not final):
            raise _closed()
        # The same as `get_running_loop() is self._loop`, which asks the kernel for the process id
        # each time.
        loop = self._loop
        if loop is None or self._thread != get_ident() or not loop.is_running():
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                raise ConfigurationError(
                    "no event loop runs here: use this Redlock, its locks and leases in a coroutine"
                ) from None
            if self._loop not in (None, loop):
                raise ConfigurationError(
                    "this Redlock belongs to another event loop; make one for each loop"
                )
            self._loop = self.streams.loop = loop
            self._thread = get_ident()
        return loop

    async def _queue_up(
        self, loop: asyncio.AbstractEventLoop, give_up_at: float, *, final: bool
    ) -> None:
        turn = loop.create_future()
        self._queue.append(partial(self._come, turn))
        left = give_up_at - clock()
        try:
            async with asyncio.timeout(None if left == math.inf else max(0.0, left)):
                await asyncio.shield(turn)
        except BaseException as error:
            if turn.done():
                self._rounds -= 1
                self._admit()
            else:
                turn.add_done_callback(lambda _: self._pass_on())
            if isinstance(error, TimeoutError):
                if self.closing and not final:
                    raise _closed() from None
                detail = f"was not asked: {FLOWS_MAX} rounds are under way"
                raise QuorumUnavailable(saturated(self.cluster.names, detail)) from None
            raise
        if self.closed or (self.closing and not final):
            self._pass_on()
            raise _closed()

    def _pass_on(self) -> None:
        """A turn came for one who no longer wants it."""
        self._rounds -= 1
        self._admit()

    def leave(self, run: _AsyncRun[Any]) -> None:
        """A round ended, or pauses: its turn goes to the next in the queue."""
        if run.turn:
            run.turn = False
            self._rounds -= 1
            if self._queue:
                self._admit()

    def _admit(self) -> None:
        if self._admitting:
            return
        self._admitting = True
        try:
            while self._queue and (self._rounds < FLOWS_MAX or self.closed):
                self._queue.popleft()()
        finally:
            self._admitting = False

    def queue_again(self, run: _AsyncRun[Any]) -> None:
        """The pause of *run* is over: it goes on when it has its turn."""
        self._queue.append(partial(self._resume, run, run.wait))
        self._admit()

    def rung(self, run: _AsyncRun[Any], wait: Wait) -> None:
        """The bell of a pause rang. Whoever rings may be a flow in its own step, so the pause is
        over at the next turn of the loop, or when the ears have told what they read. Should a
        Ctrl-C come in between, it ends by its time."""
        if self._loop is not None and not self._loop.is_closed():
            self._rung.append((run, wait))
            self._loop.call_soon(self._answer_bells)

    def _answer_bells(self) -> None:
        try:
            while self._rung:
                run, wait = self._rung.popleft()
                if run.wait is wait:
                    self.queue_again(run)
        except BaseException:
            self.linkset.interrupted()
            raise

    def _resume(self, run: _AsyncRun[Any], wait: Wait) -> None:
        # Its bell and its time may both have ended the pause.
        if run.wait is wait and run.linkset is not None:
            if not run.turn:  # Else a Ctrl-C came at the line below.
                run.turn, self._rounds = True, self._rounds + 1
            self.linkset.resume(run)

    def _come(self, turn: asyncio.Future[None]) -> None:
        self._rounds += 1
        _wake(turn)


def _closed() -> RedlockError:
    return RedlockError("this Redlock is closed: make another")


def _owing(link: Link) -> bool:
    """Whether a release is on its way, or could be."""
    return link.releasing or link.node.owed_soon


def _wake(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
