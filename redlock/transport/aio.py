"""The asyncio driver: one connection per node for all tasks of a loop, and no task per node or per round.

Flows are stepped by the callbacks that bring their events, so a grant is decided when the q-th reply is read, and the
waiting task only picks up the result. One timer serves all of them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import select
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import count
from threading import get_ident
from typing import Any, TypeVar

from redlock.core.effects import NEVER, Flow, Request, Tick
from redlock.core.quorum import Fault, FaultKind
from redlock.core.rounds import Cluster
from redlock.errors import ConfigurationError, QuorumUnavailable, RedlockError
from redlock.transport.clock import now as clock
from redlock.transport.dial import Endpoint
from redlock.transport.link import REDIAL_MAX, Link, Mailbox, Node
from redlock.transport.run import Run, saturated

__all__ = ["AsyncDriver"]

T = TypeVar("T")
ROUNDS_MAX = 256
URGENT_MAX = 1024
_BUFFER = 1 << 16
_LOOK = 0.002
_TIMERS_MIN = 256

_log = logging.getLogger("redlock")


class _AsyncRun(Run[T]):
    """A run, with its timer and whether it is one of the rounds under way. *final*: of a release."""

    __slots__ = ("final", "timer_at", "turn")

    def __init__(self, flow: Flow[T], driver: AsyncDriver, on_done: Callable[[], None], *, final: bool = False) -> None:
        super().__init__(flow, driver, clock, on_done)
        self.final = final
        self.timer_at = NEVER
        self.turn = True


class _Protocol(asyncio.BufferedProtocol):
    """One connection's bytes. A `BufferedProtocol`, because the default transport allocates 256 KiB for every reply."""

    def __init__(self, driver: AsyncDriver, index: int) -> None:
        self._driver = driver
        self._index = index
        self.keep: Any = None

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._driver.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._driver.received(self._index, self, bytes(self._driver.buffer[:nbytes]))

    def eof_received(self) -> None:
        return None

    def connection_lost(self, error: Exception | None) -> None:
        self.keep = None
        detail = f"lost the connection ({error})" if error else "closed the connection"
        self._driver.disconnected(self._index, self, Fault(FaultKind.LOST, detail))


class AsyncDriver:
    """Runs flows for the tasks of one coordinator, on the event loop that used it first."""

    def __init__(self, cluster: Cluster, found: Sequence[Endpoint]) -> None:
        self.cluster = cluster
        self.buffer = memoryview(bytearray(_BUFFER))
        self.silence = max(1.0, 4 * cluster.patience)
        self._endpoints = found
        self._lookups = [endpoint.lookup() for endpoint in found]
        self._dial_timeout = min(1.0, max(0.5, 4 * cluster.patience))
        self.closing = self.closed = False
        size = len(cluster.names)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self.mailbox: Mailbox = deque()
        nodes = [Node(index, name, cluster.admission, cluster.note) for index, name in enumerate(cluster.names)]
        self.links = [Link(node, self.mailbox, partial(self._dial, node.index), silence=self.silence) for node in nodes]
        for node in nodes:
            node.on_owed, node.owed_for = self._retry_later, cluster.owed_for
        self._protocols: list[_Protocol | None] = [None] * size
        self._transports: list[asyncio.Transport | None] = [None] * size
        self._unsent: list[list[bytes]] = [[] for _ in range(size)]
        self._flushing = False
        self._settling = False
        self._poked = -1
        self._dials: set[asyncio.Task[None]] = set()
        self._ending: asyncio.Task[None] | None = None  # A loop knows its tasks weakly.
        self._retry_handle: asyncio.TimerHandle | None = None
        self._timers: list[tuple[float, int, _AsyncRun[Any]]] = []
        self._timers_max = _TIMERS_MIN
        self._order = count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._suspicions = 0
        self._rounds = 0
        self._runs: set[_AsyncRun[Any]] = set()
        self._admitting = False
        self._queue: deque[Callable[[], None]] = deque()

    # For tasks

    async def run(
        self, start: Callable[[float], Flow[T]], *, give_up_at: float = math.inf, urgent: bool = False, final: bool = False
    ) -> T:
        """Run a flow to its end and give its result.

        A cancel lets the flow write its last requests first. *urgent*: for a lease that is held; a holder, and least of
        all one who makes room, does not queue behind those who want locks. *final*: a release, which goes on where `refuse`
        ends everything else. Raises QuorumUnavailable if too many others are under way until *give_up_at*.
        """
        loop = self._bind(final=final)
        if self._rounds < (URGENT_MAX if urgent else ROUNDS_MAX) and (urgent or not self._queue):
            self._rounds += 1
        else:
            await self._queue_up(loop, give_up_at, final=final)
        done = loop.create_future()
        run = _AsyncRun(start(clock()), self, partial(_wake, done), final=final)
        self._runs.add(run)
        try:
            run.begin()
            self._went_on(run)
            self._settle()
            if not run.done:
                await done
        except BaseException:
            run.cancel()
            self._settle()
            raise
        finally:
            self._runs.discard(run)
            self._leave(run)
            run.move(None)
        return run.result()

    def start(self, start: Callable[[float], Flow[T]], finished: Callable[[BaseException | None], None]) -> None:
        """Run a flow that no task waits for; *finished* gets its error, if any.

        It takes the next turn: a renewal must not queue behind those who want locks (F42).
        """
        self._bind()

        def begin() -> None:
            if self.closing:
                self._rounds -= 1
                return
            run: _AsyncRun[T] = _AsyncRun(start(clock()), self, lambda: ended(run))
            self._runs.add(run)
            run.begin()
            self._went_on(run)
            self._settle()

        def ended(run: _AsyncRun[T]) -> None:
            self._runs.discard(run)
            self._leave(run)
            finished(run.error)

        self._queue.appendleft(begin)
        self._admit()

    def write(self, requests: Sequence[Request]) -> None:
        """Write requests whose answers nobody waits for."""
        if self._loop is not None:
            self.send(requests, None)
            self._settle()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop this driver belongs to, from its first use on; also while nothing runs on it, in the thread that it ran in."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if self._loop is not None and self._thread == get_ident():
                return self._loop
        return self._bind()

    def check_loop(self) -> None:
        """Refuse another event loop than the one that used this first: connections belong to it alone."""
        if not self.closed:
            self._bind(final=True)

    def refuse(self) -> None:
        """Take nothing but releases from now on, and end whatever else is under way: it raises, and gives back what it took."""
        self.closing = True
        for run in [run for run in self._runs if not run.final]:
            run.cancel()  # Or it has ended, and whoever waits for it has not run yet.
            run.error = _closed()
        self._settle()
        self._admit()

    async def close(self) -> None:
        """Close all connections and end what still dials; reachable nodes first get the releases they are owed."""
        deadline = clock() + self.cluster.patience
        self.closing = True
        try:
            while self._loop is not None and (self._runs or any(map(_owing, self.links))) and clock() < deadline:
                for index in range(len(self.links)):
                    self._bring(index)
                await asyncio.sleep(_LOOK)
        finally:
            self._shut()
            await self._gone()

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
        for handle in (self._timer, self._retry_handle):
            if handle is not None:
                handle.cancel()
        for run in list(self._runs):
            run.cancel()
            run.error = _closed()
        self._admit()
        self._flush()
        for task in self._dials:
            task.cancel()
        for transport in self._transports:
            if transport is not None:
                transport.close()

    async def _gone(self) -> None:
        """Wait until dials and connections have ended."""
        await asyncio.gather(*self._dials, return_exceptions=True)
        for _ in range(100):  # A transport tells its protocol a turn or two later; TLS needs a few more.
            if not any(self._transports):
                break
            await asyncio.sleep(0)
        for transport in self._transports:
            if transport is not None:
                transport.abort()
        await asyncio.sleep(0)

    def abandon(self) -> None:
        """After a fork, in the child: let go of the parent's connections without a word on them.

        Their loop knows them by number, so the numbers stay taken, by nothing.
        """
        for transport in self._transports:
            fd = _descriptor(transport)
            if fd >= 0:
                os.close(fd)  # First, as there may be no descriptor left: then its number is the one that `open` gives.
                nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                if nothing != fd:
                    os.dup2(nothing, fd, inheritable=False)
                    os.close(nothing)

    # From runs

    def send(self, requests: Sequence[Request], run: Run[Any] | None) -> None:
        """Write what a flow asked for. With several rounds under way, one write per node and turn of the loop."""
        now = clock()
        for request in requests:
            request.run = run
            index = request.node
            link = self.links[index]
            if not request.command.final and link.overdue(now):  # A release still goes behind its acquire.
                self._make_sure(index, now)
            data = link.submit(request, now)
            if data:
                self._write(index, data)
            if link.broken is not None:
                self._lose(index, link.broken)

    # From connections

    def received(self, index: int, protocol: _Protocol, data: bytes) -> None:
        """Bytes of one node."""
        if self._protocols[index] is not protocol:
            return
        link = self.links[index]
        out = link.received(data, clock())
        if out:
            self._write(index, out)
        if link.broken is not None:
            self._lose(index, link.broken)
        self._settle()

    def disconnected(self, index: int, protocol: _Protocol, fault: Fault) -> None:
        """A connection ended."""
        if self._protocols[index] is protocol:
            self._forget(index)
            if not self.closed:  # Otherwise it was us, and nobody waits for anything.
                self.links[index].lost(fault, clock())
                self._retry_later()
                self._settle()

    # Turns

    def _bind(self, *, final: bool = False) -> asyncio.AbstractEventLoop:
        if self.closed or (self.closing and not final):
            raise _closed()
        # The same as `get_running_loop() is self._loop`, which asks the kernel for the process id each time.
        loop = self._loop
        if loop is None or self._thread != get_ident() or not loop.is_running():
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                raise ConfigurationError("no event loop runs here: this Redlock, its locks and leases are for one loop") from None
            if self._loop not in (None, loop):
                raise ConfigurationError("this Redlock belongs to another event loop; make one for each loop")
            self._loop, self._thread = loop, get_ident()
        return loop

    async def _queue_up(self, loop: asyncio.AbstractEventLoop, give_up_at: float, *, final: bool) -> None:
        turn = loop.create_future()
        self._queue.append(partial(_wake, turn))
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
                detail = f"was not asked: {ROUNDS_MAX} rounds are under way"
                raise QuorumUnavailable(saturated(self.cluster.names, detail)) from None
            raise
        if self.closed or (self.closing and not final):
            self._pass_on()
            raise _closed()

    def _pass_on(self) -> None:
        """A turn came for one who no longer wants it."""
        self._rounds -= 1
        self._admit()

    def _leave(self, run: _AsyncRun[Any]) -> None:
        """A round ended: its turn goes to the next in the queue."""
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
            while self._queue and (self._rounds < ROUNDS_MAX or self.closed):
                self._rounds += 1
                self._queue.popleft()()
        finally:
            self._admitting = False

    def _settle(self) -> None:
        """Hand out what is in the mailbox until it is empty."""
        if self._settling:
            return
        self._settling = True
        try:
            mailbox = self.mailbox
            while True:
                while mailbox:
                    event = mailbox.popleft()
                    run = event.request.run
                    if run is not None and run.hears(self):
                        run.step(event)
                        self._went_on(run)
                if self._poked == self.cluster.admission.changes:
                    break
                self._poke()
        finally:
            self._settling = False

    def _went_on(self, run: _AsyncRun[Any]) -> None:
        """A run is at a new wait: note when to wake it, and give up its turn if it only waits for the time."""
        if run.done:
            return
        wait = run.wait
        if wait.pause:
            self._leave(run)
        if wait.until != run.timer_at and wait.until != math.inf:
            run.timer_at = wait.until
            heappush(self._timers, (wait.until, next(self._order), run))
            self._arm(wait.until)
            if len(self._timers) > self._timers_max:  # Most of them have ended long before their time.
                self._timers[:] = [entry for entry in self._timers if not entry[2].done and entry[2].timer_at == entry[0]]
                heapify(self._timers)
                self._timers_max = max(_TIMERS_MIN, 2 * len(self._timers))

    def _arm(self, until: float) -> None:
        if until >= self._timer_at or self._loop is None or self.closed:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = until
        # At most a second: the loop's timers stop while the machine sleeps, and the lease clock does not.
        self._timer = self._loop.call_later(min(max(0.0, until - clock()), 1.0), self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, math.inf
        try:
            self._end_waits()
        finally:  # Whatever was raised: others wait for their time.
            if self._timers:
                self._arm(self._timers[0][0])

    def _end_waits(self) -> None:
        """Go on with the runs whose time is over."""
        now = clock()
        timers = self._timers
        while timers and (timers[0][2].done or timers[0][2].timer_at != timers[0][0]):
            heappop(timers)
        if timers and timers[0][0] <= now and self._suspicions < 3 and self._unread():
            # Silence is only what remains when everything that came was read.
            self._suspicions += 1
            if self._loop is not None:
                self._timer_at = now
                self._timer = self._loop.call_later(0, self._on_timer)
            return
        self._suspicions = 0
        while timers and timers[0][0] <= now:
            until, _, run = heappop(timers)
            if run.done or run.timer_at != until:
                continue
            run.timer_at = NEVER
            if run.wait.pause:
                self._queue.append(partial(self._resume, run))
                self._admit()
            else:
                run.step(Tick(clock()))
                self._went_on(run)
        self._poke()
        self._settle()

    def _resume(self, run: _AsyncRun[Any]) -> None:
        """A pause is over, and it is this run's turn."""
        run.turn = True
        if run.done or run.port is None:
            self._leave(run)
        else:
            run.step(Tick(clock()))
            self._went_on(run)
            self._settle()

    def _unread(self) -> bool:
        poll = select.poll()
        for link, transport in zip(self.links, self._transports, strict=True):
            fd = _descriptor(transport) if link.in_flight else -1
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))

    # Connections

    def _dial(self, index: int) -> None:
        if self.closed or self._loop is None:
            return
        task = self._loop.create_task(self._dial_one(index), name=f"redlock-dial-{self.cluster.names[index]}")
        self._dials.add(task)
        task.add_done_callback(partial(self._dial_ended, index))

    async def _dial_one(self, index: int) -> None:
        endpoint, link = self._endpoints[index], self.links[index]
        protocol = _Protocol(self, index)
        try:
            keep, transport = await endpoint.open(self._dial_timeout, protocol, self._lookups[index])
        except Exception as error:  # Whatever dialling raises is that node's fault, for the votes to tell.
            link.dial_failed(endpoint.fault(error), clock())
        else:
            protocol.keep = keep
            self._protocols[index], self._transports[index] = protocol, transport
            self._write(index, link.connected(clock(), owed=list(link.node.owed)))
        self._settle()

    def _dial_ended(self, index: int, task: asyncio.Task[None]) -> None:
        """A dial that did not end by itself, as when somebody cancels every task of the loop, must end for its link too."""
        self._dials.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error("a dial failed", exc_info=error)
        if (error is not None or task.cancelled()) and self.links[index].dialling and not self.closed:
            why = "the dial was cancelled" if error is None else type(error).__name__
            self.links[index].dial_failed(Fault(FaultKind.UNREACHABLE, f"could not be dialled ({why})"), clock())
            self._settle()

    def _retry_later(self) -> None:
        """Somebody is owed a release: do not wait for the next caller, until the lock has expired by itself."""
        if self._retry_handle is not None or self._loop is None or self.closed:
            return
        if any(link.node.owed for link in self.links):
            self._retry_handle = self._loop.call_later(REDIAL_MAX, self._retry)

    def _retry(self) -> None:
        self._retry_handle = None
        try:
            for index, link in enumerate(self.links):
                link.node.forgive(clock())
                if link.node.owed and link.overdue(clock()):
                    self._make_sure(index, clock())
                self._bring(index)
        finally:  # Whatever was raised: somebody is still owed a release.
            self._retry_later()

    def _bring(self, index: int) -> None:
        """Bring a node what it is owed, on the connection that it has or on a new one."""
        link = self.links[index]
        data = link.bring(clock())
        if data:
            self._write(index, data)
        link.retry(clock())

    def _write(self, index: int, data: bytes) -> None:
        transport = self._transports[index]
        if transport is None:
            return
        if self._rounds <= 1 and not self._unsent[index]:
            _put(transport, data)
            return
        self._unsent[index].append(data)
        if not self._flushing and self._loop is not None:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        for index, unsent in enumerate(self._unsent):
            if unsent:
                transport = self._transports[index]
                if transport is not None:
                    _put(transport, b"".join(unsent))
                unsent.clear()

    def _poke(self) -> None:
        self._poked = self.cluster.admission.changes
        for index, link in enumerate(self.links):
            data = link.poke(clock())
            if data:
                self._write(index, data)

    def _make_sure(self, index: int, now: float) -> None:
        """The node owes an answer for too long, or the loop was blocked: what came and is unread decides."""
        fd = _descriptor(self._transports[index])
        if fd < 0:
            return  # We are told of its end in a moment, if there was one.
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if poll.poll(0):
            self.links[index].heard(now)
        else:
            self._lose(index, Fault(FaultKind.SILENT, f"did not answer for {self.silence:.3g} s"))

    def _lose(self, index: int, fault: Fault) -> None:
        transport = self._transports[index]
        self._forget(index)
        if transport is not None:
            transport.abort()
        self.links[index].lost(fault, clock())
        self._retry_later()

    def _forget(self, index: int) -> None:
        self._protocols[index] = self._transports[index] = None
        self._unsent[index].clear()


def _closed() -> RedlockError:
    return RedlockError("this Redlock is closed")


def _descriptor(transport: asyncio.Transport | None) -> int:
    """The file descriptor of a connection; -1 if it has none, as one whose end we have not been told of yet."""
    if transport is None or transport.is_closing():
        return -1
    sock = transport.get_extra_info("socket")  # Under TLS there is none at times though it is not closing.
    return sock.fileno() if sock is not None else -1


def _put(transport: asyncio.Transport, data: bytes) -> None:
    """Write, unless the connection has ended: uvloop raises then, before it tells us of the end. Its link hears of it soon."""
    if not transport.is_closing():
        transport.write(data)


def _owing(link: Link) -> bool:
    """Whether a release is on its way, or could be."""
    return link.releasing or link.node.owed_soon


def _wake(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
