"""The asyncio API: the names of `redlock`, where every method that waits is a coroutine.

    from redlock.asyncio import Redlock

    async with Redlock(nodes) as locks:
        async with locks.lock("invoices:42", timeout=5.0) as lease:
            await store.write(row, fencing_token=lease.fencing_token)

When a lease is lost inside `async with`, the body is cancelled, and LeaseLost comes out of the
block.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import inspect
import logging
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from redlock.asyncio_election import Election, Term
from redlock.base import (
    CoordinatorBase,
    LeaseBase,
    NodeReport,
    ResourceStatus,
    Waiter,
    not_acquired,
    weakly,
)
from redlock.core.acquire import Acquisition, acquire
from redlock.core.admission import Admission
from redlock.core.candidate import Leader
from redlock.core.effects import Flow
from redlock.core.election import State
from redlock.core.events import Event
from redlock.core.lease import Holding
from redlock.core.look import inspect_nodes, peek
from redlock.core.names import keys_of
from redlock.core.policy import Policy
from redlock.core.quorum import Tally
from redlock.core.release import abandon
from redlock.core.renewal import Watch
from redlock.core.term import Reason
from redlock.core.timings import ElectionTimings
from redlock.decorating import Naming, without_first
from redlock.errors import (
    AcquireError,
    CandidateUnfit,
    ConfigurationError,
    LeadershipLost,
    LeaseError,
    LeaseLost,
    LeaseReleased,
    LockContended,
    LockInUse,
    NodeError,
    NodeRefused,
    NodeUnreachable,
    QueueFull,
    QuorumUnavailable,
    RedlockError,
    shown,
)
from redlock.options import OMITTED, ElectionOptions, LockOptions, Omitted, acquire_timeout
from redlock.transport.aio import FLOWS_MAX, AsyncDriver
from redlock.transport.clock import now
from redlock.transport.dial import NodeSpec

# Long: the whole of one API; what it has in common with the other is in `base` and below.
__all__ = [
    "AcquireError",
    "CandidateUnfit",
    "ConfigurationError",
    "Election",
    "ElectionTimings",
    "Leader",
    "LeadershipLost",
    "Lease",
    "LeaseError",
    "LeaseLost",
    "LeaseReleased",
    "Lock",
    "LockContended",
    "LockInUse",
    "NodeError",
    "NodeRefused",
    "NodeReport",
    "NodeUnreachable",
    "QueueFull",
    "QuorumUnavailable",
    "Reason",
    "Redlock",
    "RedlockError",
    "ResourceStatus",
    "State",
    "Term",
    "Waiter",
]

P = ParamSpec("P")
R = TypeVar("R")
_log = logging.getLogger("redlock")
_CALLBACKS = 1.0
"""Seconds for callbacks that still run: one that hangs must not hang its program's end."""
_LOOK_AGAIN = 1.0
"""At most this long between looks: timers sleep through a suspend, and `lost` must follow within
a second of waking."""


class _Body(enum.Enum):
    """What became of the body of an `async with`."""

    IDLE = enum.auto()
    RUNNING = enum.auto()
    CANCELLED = enum.auto()


class Lease(LeaseBase):
    """A granted lock. An async context manager: leaving it releases; made by `Lock.acquire`,
    never by hand."""

    __slots__ = ("_body", "_cancels", "_lost", "_on_lost", "_taker", "_task", "_watch")
    _coordinator: Redlock

    def __init__(
        self, coordinator: Redlock, holding: Holding, on_lost: Callable[[Lease], object] | None
    ) -> None:
        super().__init__(coordinator, holding)
        self._on_lost = on_lost
        self._lost: asyncio.Event | None = None
        self._watch: Watch | None = None
        self._body = _Body.IDLE
        self._task: asyncio.Task[Any] | None = None
        self._cancels = 0
        # The task that holds the lease: if it closes the coordinator itself, it needs not be told.
        # Weak: a task may end with its lease as its result.
        self._taker = weakref.ref(task) if (task := asyncio.current_task()) is not None else None

    @property
    def lost(self) -> asyncio.Event:
        """Set when the lease is lost, by a local timer at its deadline at the latest; never set
        by `release`."""
        if self._lost is None:
            lost = asyncio.Event()
            if isinstance(self._holding.error(now()), LeaseLost):
                lost.set()
            elif self._watch is None:
                self._coordinator._watch(self, auto_extend=False)
            self._lost = lost  # Not before: an event that nobody watches for would never be set.
        return self._lost

    async def extend(self, ttl: float | None = None) -> None:
        """Move the deadline to *ttl* seconds from now (None: as before); it never moves back.

        Raises LeaseLost when the lease is gone for good, QuorumUnavailable when that is unknown: it
        is still valid until `valid_until` then. A majority must confirm before the old validity
        ends. A cancel leaves the lease as it is.
        """
        await self._coordinator._confirm(self, self._coordinator._extension(self._holding, ttl))

    async def verify(self) -> None:
        """Return if no newer grant existed when this call began: one majority round, and no clock.

        Holds while nodes keep their data and every user of the resource takes our locks. Raises as
        `extend`.
        """
        await self._coordinator._confirm(self, self._coordinator._verification(self._holding))

    async def release(self) -> bool:
        """Give the lock back. True: a majority confirmed; False: expired, unreachable or released
        before. Never raises for that.

        The releases are written before this first waits, so a cancel loses only the confirmation. A
        node that does not answer stays owed its release, which is sent again when it comes back.
        """
        return await self._coordinator._release_lease(self)

    async def __aenter__(self) -> Self:
        ended = self._ended()
        if ended is not None:  # No body runs under a lease that has ended.
            await self.release()
            raise ended
        # The inner body's end would release the lease under the outer one.
        if self._body is not _Body.IDLE:
            raise LockInUse(
                f"a body runs under the lease on {shown(self.resource)} already: acquire another"
            )
        self._task = asyncio.current_task()
        self._cancels = self._task.cancelling() if self._task is not None else 0
        self._body = _Body.RUNNING
        if self._watch is None:
            self._coordinator._watch(self, auto_extend=False)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        body, self._body = self._body, _Body.IDLE
        task, self._task = self._task, None
        # As asyncio.timeout does: our own cancel becomes LeaseLost, somebody else's goes on as it
        # is.
        ours = (
            body is _Body.CANCELLED
            and task is not None
            and task.uncancel() <= self._cancels
            and kind is asyncio.CancelledError
        )
        ended = self._ended()
        await self.release()
        if isinstance(ended, LeaseLost) and (ours or error is None):
            raise ended from error

    def _orphaned(self) -> None:
        if self._lost is not None:
            with contextlib.suppress(RuntimeError):  # Somebody waits on a loop that is closed.
                self._lost.set()

    def _ended(self) -> LeaseError | None:
        ended = self._holding.error(now())
        if isinstance(ended, LeaseLost):
            self._coordinator._tell_lapsed(self._holding)
        return ended

    def _cancel_body(self) -> None:
        if self._body is not _Body.RUNNING or self._task is None:
            return
        if self._task is asyncio.current_task():
            # The body itself found out, by `extend` or `verify`, and LeaseLost is on its way to it.
            # A task that cancels itself is struck at its next await, and that may be the release,
            # after the body.
            asyncio.get_running_loop().call_soon(self._cancel_body)
            return
        self._body = _Body.CANCELLED
        self._task.cancel()


class Lock:
    """A lock on one resource: async context manager, decorator, or `acquire` and `release` by hand.

    Cheap to make; serves one holder at a time and is not re-entrant (`LockInUse`).
    """

    def __init__(self, coordinator: Redlock, options: LockOptions[Lease]) -> None:
        self._coordinator = coordinator
        self._options = options
        self._acquiring = False
        self._lease: Lease | None = None
        self._entered = False
        self._forks = coordinator.forks

    async def acquire(
        self, blocking: bool = True, timeout: float | Omitted | None = OMITTED
    ) -> Lease | None:
        """A lease, or None: a majority answered, and somebody else holds the lock.

        *timeout* in seconds; omitted: the lock's; None: for ever; 0, or `blocking=False`: one try.
        A cancel leaves no lock behind. Raises QuorumUnavailable when no majority answered,
        LockInUse, ConfigurationError.
        """
        wait, once = acquire_timeout(blocking, timeout, self._options.timeout)
        try:
            return await self._acquire(wait, once=once)
        except LockContended:
            return None

    async def release(self) -> bool:
        """Release the lease of the last `acquire`; as `Lease.release`. Raises LeaseReleased if
        there is none."""
        lease, self._lease = self._lease, None
        if lease is None:
            raise not_acquired(self._options.resource)
        return await lease.release()

    async def _acquire(self, timeout: float | None, *, once: bool) -> Lease:
        if self._forks != self._coordinator.forks:
            # A forked child has no other task of its parent: what they were about here never ends
            # by itself.
            self._forks, self._acquiring = self._coordinator.forks, False
            if self._lease is not None and self._lease._task is not asyncio.current_task():
                self._lease, self._entered = None, False
        if self._acquiring:
            raise LockInUse(
                f"the lock on {shown(self._options.resource)} is being acquired already; make"
                " one Lock"
                " for each user"
            )
        lease = self._lease
        if lease is not None and (self._entered or lease.is_held()):
            raise LockInUse(
                f"the lock on {shown(self._options.resource)} is held already, and is not"
                " re-entrant;"
                " make one Lock for each user"
            )
        self._acquiring = True
        try:
            self._lease = await self._coordinator._acquire(self._options, timeout, once=once)
            return self._lease
        finally:
            self._acquiring = False

    async def __aenter__(self) -> Lease:
        lease = await self._acquire(self._options.timeout, once=self._options.timeout == 0)
        self._entered = True
        try:
            return await lease.__aenter__()
        except BaseException:
            self._lease, self._entered = None, False
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        lease, self._lease, self._entered = self._lease, None, False
        if lease is not None:
            await lease.__aexit__(kind, error, trace)

    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]]
    ) -> Callable[P, Coroutine[Any, Any, R]]:
        """Decorate an `async def`: every call takes a fresh lock of this kind, and never runs
        unlocked.

        The resource may name parameters in braces, as "invoice:{id}", and is made of the arguments
        of each call. Raises ConfigurationError for a name that is none of them.
        """
        _check_decorated(function)
        naming = self._naming(function)

        @functools.wraps(function)
        async def locked(*args: P.args, **kwargs: P.kwargs) -> R:
            async with Lock(self._coordinator, naming.of(args, kwargs)):
                return await function(*args, **kwargs)

        return locked

    def with_lease(
        self, function: Callable[Concatenate[Lease, P], Coroutine[Any, Any, R]]
    ) -> Callable[P, Coroutine[Any, Any, R]]:
        """Decorate an `async def` as a call of the lock itself does, and give it the lease as its
        first argument."""
        _check_decorated(function)
        naming = self._naming(function, skipped=1)

        @functools.wraps(function)
        async def locked(*args: P.args, **kwargs: P.kwargs) -> R:
            async with Lock(self._coordinator, naming.of(args, kwargs)) as lease:
                return await function(lease, *args, **kwargs)

        locked.__signature__ = without_first(function)  # type: ignore[attr-defined]
        return locked

    def _naming(self, function: Callable[..., object], *, skipped: int = 0) -> Naming[Lease]:
        prefix = self._coordinator._policy.key_prefix
        return Naming(self._options, prefix, function, skipped=skipped)

    def __repr__(self) -> str:
        return (
            f"<Lock {self._options.resource!r},"
            f" {'not held' if self._lease is None else repr(self._lease)}>"
        )


def _check_decorated(function: Callable[..., object]) -> None:
    if not inspect.iscoroutinefunction(function):
        raise TypeError(
            f"{getattr(function, '__qualname__', function)!r} is not an async def; decorate it"
            " with a lock of redlock"
        )


class Redlock(CoordinatorBase[Lease]):
    """Locks on N independent Redis or Valkey masters, for the tasks of one event loop.

    As `redlock.Redlock`. The constructor does no I/O and needs no running loop; the first use binds
    the coordinator to its loop, and another loop is refused. One connection per node serves all
    tasks, and one more listens for the end of a wait. *on_event* is called on the loop, and must
    return at once.
    """

    _let_go: weakref.finalize[..., Redlock] | None = None

    def __init__(
        self,
        nodes: Sequence[NodeSpec],
        *,
        ttl: float = 10.0,
        drift_factor: float = 0.01,
        node_timeout: float | None = None,
        retry_delay: float = 0.1,
        fence_ttl: float = 7 * 86400.0,
        max_ttl: float | None = None,
        durable: bool | None = None,
        key_prefix: str = "redlock:",
        repair_missing_ttl: bool = False,
        fair: bool = True,
        holder: str | None = None,
        on_event: Callable[[Event], object] | None = None,
    ) -> None:
        policy = Policy(
            ttl=ttl,
            drift_factor=drift_factor,
            node_timeout=node_timeout,
            retry_delay=retry_delay,
            fence_ttl=fence_ttl,
            max_ttl=max_ttl,
            durable=durable,
            key_prefix=key_prefix,
            repair_missing_ttl=repair_missing_ttl,
            fair=fair,
            holder=holder,
        )
        super().__init__(nodes, policy, on_event=on_event, admission=Admission)

    def _set_up(self) -> None:
        self._driver = AsyncDriver(self._cluster, self._endpoints)
        # A coordinator that is dropped without `close` gives its descriptors back, and not only
        # when its loop ends.
        if self._let_go is not None:
            self._let_go.detach()
        self._let_go = weakref.finalize(self, self._driver.let_go)
        self._let_go.atexit = False
        self._asking = 0
        """Acquires under way, until `close` can see what became of them."""
        self._closers: set[asyncio.Task[Any] | None] = set()
        self._closing: asyncio.Task[None] | None = None
        self._given_back = asyncio.Event()
        self._callbacks: set[asyncio.Future[Any]] = set()

    def lock(
        self,
        resource: str,
        *,
        ttl: float | None = None,
        timeout: float | None = None,
        auto_extend: bool = False,
        max_hold: float | None = None,
        min_hold: float | None = None,
        on_lost: Callable[[Lease], object] | None = None,
    ) -> Lock:
        """A lock on *resource*; nothing is sent yet.

        *ttl*: seconds a crashed holder blocks others. *timeout*: how long to wait for the lock,
        None for ever. *auto_extend*: renew in the background until released or *max_hold* seconds
        after the grant. *min_hold*: seconds after the grant for which nobody else gets the lock,
        though it is released sooner: for jobs on hosts whose clocks differ. *on_lost(lease)*, a
        function or a coroutine function, is called when the lease is lost.
        """
        options = LockOptions.of(
            self._policy,
            resource,
            ttl=ttl,
            timeout=timeout,
            auto_extend=auto_extend,
            max_hold=max_hold,
            min_hold=min_hold,
            on_lost=on_lost,
        )
        return Lock(self, options)

    # Long: what a candidate may ask for, each with its sentence.
    def election(
        self,
        name: str,
        *,
        candidate: str | None = None,
        info: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        timings: ElectionTimings | None = None,
        eligible: Callable[[], object] | None = None,
        priority: float = 0.0,
        lock_delay: float = 0.0,
        stall_timeout: float | None = None,
        hard_stop: str | None = None,
        on_started: Callable[[Term], object] | None = None,
        on_stopped: Callable[[Term, Reason], object] | None = None,
    ) -> Election:
        """One candidate in the election *name*; nothing is sent yet. Its lock is that of the
        resource *name*.

        *candidate*: a name; None: made of host and process. *info*: what others should know of it,
        at most 512 bytes as JSON, and no secret. *ttl*, or *timings* for all of them: see
        `ElectionTimings`. *eligible()*: asked before campaigning and at every renewal; False ends
        the term. *priority*: seconds that others have for a vacancy before this candidate tries, at
        most the ttl; a leader is never ousted. *lock_delay*: seconds between the grant and the work
        where the one before did not release, for resources that cannot check tokens.
        *stall_timeout*: seconds after which work that does not call `Term.tick` is taken for
        stalled. *hard_stop*: "exit" ends this process (status 6) when work has not ended by the
        kill deadline, also where the loop is blocked; None lets it run on, as a zombie, while the
        lease expires. *on_started(term)* and *on_stopped(term, reason)* are called before and after
        the work, exactly paired. All callbacks may be coroutine functions. Raises
        ConfigurationError for what cannot work.
        """
        options = ElectionOptions(
            candidate,
            info,
            ttl,
            timings,
            eligible,
            priority,
            lock_delay,
            stall_timeout,
            hard_stop,
            on_started,
            on_stopped,
        )
        return Election(self, self, name, options)

    async def status(self, resource: str) -> ResourceStatus:
        """Who holds *resource*, as a majority sees it, with every node's answer. Informational."""
        lock_key, fence_key = keys_of(self._policy.key_prefix, resource)
        return self._status(
            resource,
            await self._driver.run(lambda at: peek(self._cluster, lock_key, fence_key, at)),
        )

    async def ready(self) -> bool:
        """Whether a majority of the nodes votes now, asked of them: for health endpoints.

        Raises nothing but for a closed coordinator: nodes that can never be a majority are not
        ready either.
        """
        self.check_open()
        try:
            return self._is_majority(await self.nodes())
        except (QuorumUnavailable, ConfigurationError):
            return False

    async def nodes(self) -> list[NodeReport]:
        """Every node as admission sees it now: role, run id, uptime, policy, quarantine left,
        round trip, clock offset."""
        return self._reports(await self._driver.run(lambda at: inspect_nodes(self._cluster, at)))

    async def close(self) -> None:
        """End what is under way, release every lease this coordinator holds, and close its
        connections. Idempotent.

        From its first moment on everything but a release raises RedlockError, also where it waits
        already. A lease that another task took or entered is lost for that: `is_held` says so,
        `lost` is set and `on_lost` called, and a body that runs under it is cancelled and comes out
        with LeaseLost. Such a lease is given back only when its body has ended, and this waits for
        that, but no longer than the lease would have been valid; nodes that do not answer are
        waited for at most the node timeout, a few times, and a callback for a second. A cancel ends
        the waiting and not the closing, which goes on behind it; called again, this waits for the
        rest.
        """
        begun = self._closing is not None and not self._closing.done()
        if self._driver.closed and not begun:
            return
        self._driver.check_loop()
        task = asyncio.current_task()
        self._closers.add(task)
        try:
            if self._closing is None or not begun:
                # At once: a grant that is decided now may be on its way to its task.
                self._driver.refuse()
                self._closing = asyncio.create_task(self._close(), name="redlock-close")
            await asyncio.shield(self._closing)
        finally:
            self._closers.discard(task)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def check_open(self) -> None:
        if self._driver.closing:
            raise RedlockError("this Redlock is closed: make another")

    # For Election and Term

    async def _campaign(self, ask: Acquisition) -> Lease:
        return await self._take(ask)

    def _watch_term(self, watch: Watch) -> None:
        self._driver.renewals.add(watch)

    def _watch_lost(self, lease: Lease) -> None:
        if lease._watch is None:
            self._watch(lease, auto_extend=False)

    def _let_expire(self, lease: Lease, why: str) -> None:
        holding = lease._holding
        held = holding.held(now())
        holding.lose(why)
        if held:
            self._tell_lapsed(holding)
        self.forget(holding)

    async def _look(self, start: Callable[[float], Flow[Tally]]) -> Tally:
        return await self._driver.run(start)

    def _term_over(self) -> None:
        if self._driver.closing:
            self._given_back.set()

    @property
    def _is_closing(self) -> bool:
        return self._driver.closing

    # For Lock and Lease

    async def _acquire(
        self, options: LockOptions[Lease], timeout: float | None, *, once: bool
    ) -> Lease:
        ask = self._ask(options, timeout, once=once)
        return await self._take(ask, auto_extend=options.auto_extend, on_lost=options.on_lost)

    async def _take(
        self,
        ask: Acquisition,
        *,
        auto_extend: bool = False,
        on_lost: Callable[[Lease], object] | None = None,
    ) -> Lease:
        self._asking += 1
        try:
            holding = await self._driver.run(
                lambda at: acquire(self._cluster, ask, at), give_up_at=ask.give_up_at
            )
            # No await from here on: a cancel cannot come between the grant and its holder.
            lease = Lease(self, holding, on_lost)
            self.remember(holding, lease)
            if auto_extend or on_lost is not None:
                self._watch(lease, auto_extend=auto_extend)
            return lease
        except BaseException as error:
            # Closed, or a cancel that landed after the winning vote, before this task ran: nobody
            # would ever know of this lease.
            if isinstance(error, AcquireError):
                error.about(ask.resource)
            if ask.granted is not None and not ask.granted.freed:
                self.forget(ask.granted)
                self._driver.write(abandon(self._cluster, ask.granted, now()))
            raise
        finally:
            self._asking -= 1
            if self._driver.closing:
                self._given_back.set()

    async def _confirm(self, lease: Lease, start: Callable[[float], Flow[None]]) -> None:
        try:
            # When the lease ends there is nothing left to queue for.
            await self._driver.run(start, give_up_at=lease._holding.valid_until, urgent=True)
        except LeaseLost:
            self._tell_lapsed(lease._holding)
            raise
        except AcquireError as error:
            self._unconfirmed(error, lease.resource, lease._ended())

    async def _release_lease(self, lease: Lease) -> bool:
        return await self._release_holding(lease._holding)

    async def _release_holding(self, holding: Holding) -> bool:
        released = False
        self._driver.check_loop()
        try:
            give_up_at = holding.valid_until
            released = await self._driver.run(
                self._release(holding), give_up_at=give_up_at, urgent=True, final=True
            )
        except RedlockError:
            pass  # Closed: the connections are gone.
        finally:
            # Cancelled in the queue: without the confirmation, but not without the release.
            if not holding.freed:
                self._driver.write(abandon(self._cluster, holding, now()))
            self.forget(holding)
            if self._driver.closing:
                self._given_back.set()
        return released

    # The end

    async def _close(self) -> None:
        try:
            for election in self._candidates():
                election._close(self._closers)
            self._tell_holders()
            await self._await_acquires()
            await self._await_terms()
            await self._release_free()
            await self._await_bodies()
            await self._await_callbacks()
        finally:
            for holding, lease in self._held():
                if not (holding.freed or self._in_body(lease)):  # Cancelled before it had its turn.
                    self._driver.write(abandon(self._cluster, holding, now()))
                    self.forget(holding)
            await self._driver.close()
            for callback in self._callbacks - self._closers:
                callback.cancel()

    def _held(self) -> list[tuple[Holding, Lease | None]]:
        return [(holding, handle()) for holding, handle in list(self._leases.values())]

    def _in_body(self, lease: Lease | None) -> bool:
        """Whether a body runs under *lease* that is not the one which closes."""
        if lease is not None and any(
            election._leased is lease._holding for election in self._candidates()
        ):
            return True  # Work of a term has not ended: nothing is released under it.
        return (
            lease is not None and lease._body is not _Body.IDLE and lease._task not in self._closers
        )

    def _candidates(self) -> list[Election]:
        return list(self.elections)

    async def _await_terms(self) -> None:
        """Until the work of those who lead has ended and given the lock back, at most until its
        kill deadline."""
        await self._until(
            lambda: max(
                (
                    election._needed_until(self._closers) - now()
                    for election in self._candidates()
                    if election._leased is not None
                ),
                default=0.0,
            )
        )

    def _tell_holders(self) -> None:
        """Whoever holds a lease in another task hears that it is lost, before anybody else can
        have the lock."""
        for holding, lease in self._held():
            if lease is None or not holding.held(now()):
                continue
            if any(election._leased is holding for election in self._candidates()):
                continue  # Told as a term; and released by itself, if its work ends in time.
            holder = lease._task if lease._task is not None else lease._taker and lease._taker()
            if holder not in self._closers:
                holding.lose("this Redlock was closed")
                self._tell_lapsed(holding)

    async def _await_acquires(self) -> None:
        """Until what was under way has ended, and gave back what it was granted."""
        deadline = now() + self._cluster.patience
        await self._until(lambda: deadline - now() if self._asking else 0.0)

    async def _release_free(self) -> None:
        """Release what no body runs under."""
        free = [holding for holding, lease in self._held() if not self._in_body(lease)]
        for start in range(0, len(free), FLOWS_MAX):
            await asyncio.gather(
                *[self._release_holding(holding) for holding in free[start : start + FLOWS_MAX]]
            )

    async def _await_bodies(self) -> None:
        """Until the bodies that were cancelled have ended and given their leases back; each for
        as long as its lock lives."""
        await self._until(
            lambda: max(
                (
                    holding.valid_until - now()
                    for holding, lease in self._held()
                    if self._in_body(lease)
                ),
                default=0.0,
            )
        )

    async def _until(self, left: Callable[[], float]) -> None:
        """Until *left* says that no seconds are left; it is asked again whenever something was
        given back."""
        while (seconds := left()) > 0:
            self._given_back.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._given_back.wait(), min(seconds, _LOOK_AGAIN))

    async def _await_callbacks(self) -> None:
        """Until those who heard of a loss have dealt with it; one that hangs must not hang its
        program's end."""
        callbacks = self._callbacks - self._closers
        if callbacks:
            await asyncio.wait(callbacks, timeout=_CALLBACKS)

    # Renewal

    def _watch(self, lease: Lease, *, auto_extend: bool) -> None:
        holding = lease._holding
        if not self._driver.closing:
            _ = self._driver.loop  # First: another thread may ask for `lost`, and is refused.
        lease._watch = watch = Watch(
            holding, weakly(self._tell_lapsed), ttl=holding.ttl if auto_extend else None, now=now()
        )
        self._driver.renewals.add(watch)

    def _tell_lapsed(self, holding: Holding) -> None:
        holding.lose("its validity ended")
        self.lapsed(holding, self._tell_holder)

    def _tell_holder(self, lease: Lease) -> None:
        if lease._lost is not None:
            lease._lost.set()
        lease._cancel_body()
        if lease._on_lost is not None:
            self._call_back(lease._on_lost, lease)

    def _call_back(self, on_lost: Callable[[Lease], object], lease: Lease) -> None:
        try:
            result = on_lost(lease)
            if inspect.isawaitable(result):
                callback = asyncio.ensure_future(result)
                self._callbacks.add(callback)
                callback.add_done_callback(self._called_back)
        except (Exception, asyncio.CancelledError):
            _log.exception("on_lost failed for %r", lease.resource)

    def _called_back(self, callback: asyncio.Future[Any]) -> None:
        self._callbacks.discard(callback)
        if not callback.cancelled() and callback.exception() is not None:
            _log.error("on_lost failed", exc_info=callback.exception())

    def _after_fork(self) -> None:
        super()._after_fork()
        was_closed = self._driver.closed
        self._driver.abandon()
        self._set_up()
        self._driver.closing = self._driver.closed = was_closed
