"""The blocking API: `Redlock`, `Lock` and `Lease`. `redlock.asyncio` exports the same names for
asyncio."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from redlock.base import (
    CoordinatorBase,
    LeaseBase,
    NodeReport,
    ResourceStatus,
    not_acquired,
    weakly,
)
from redlock.core.acquire import Acquisition, acquire
from redlock.core.effects import NEVER, Flow, Wait
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
from redlock.decorating import Naming, name_of, without_first
from redlock.election import Election, Term
from redlock.errors import (
    AcquireError,
    ConfigurationError,
    LeaseError,
    LeaseLost,
    LockContended,
    LockInUse,
    QuorumUnavailable,
    RedlockError,
    shown,
)
from redlock.options import OMITTED, ElectionOptions, LockOptions, Omitted, acquire_timeout
from redlock.transport.background import Callbacks
from redlock.transport.blocking import Driver
from redlock.transport.clock import now
from redlock.transport.dial import NodeSpec
from redlock.transport.guarded import GuardedAdmission
from redlock.transport.sockets import ConnectionSet

# Long: the whole of one API; what it has in common with the other is in `base` and below.
__all__ = ["Lease", "Lock", "Redlock"]

P = ParamSpec("P")
R = TypeVar("R")
_LOOK = 0.002
"""Seconds between two looks of a close at what is under way: a fraction of a round trip."""
_TOGETHER_MAX = 256
"""Releases between two waits of a close, so that fewer are in flight than a node may owe."""


class Lease(LeaseBase):
    """A granted lock. A context manager: leaving it releases; made by `Lock.acquire`, never by
    hand."""

    __slots__ = ("_connections", "_entered", "_holder", "_lost", "_on_lost", "_watch")
    _coordinator: Redlock

    def __init__(
        self,
        coordinator: Redlock,
        holding: Holding,
        connections: ConnectionSet,
        on_lost: Callable[[Lease], object] | None,
    ) -> None:
        super().__init__(coordinator, holding)
        self._connections: ConnectionSet | None = connections
        self._on_lost = on_lost
        self._lost: threading.Event | None = None
        self._watch: Watch | None = None
        self._entered = False
        # The thread that holds the lease: if it closes the coordinator, it needs not be told.
        self._holder = threading.current_thread()

    @property
    def lost(self) -> threading.Event:
        """Set when the lease is lost, by a local timer at its deadline at the latest; never set
        by `release`."""
        return self._lost or self._coordinator._lost_of(self)

    def extend(self, ttl: float | None = None) -> None:
        """Move the deadline to *ttl* seconds from now (None: as before); it never moves back.

        Raises LeaseLost when the lease is gone for good, QuorumUnavailable when that is unknown: it
        is still valid until `valid_until` then. A majority must confirm before the old validity
        ends.
        """
        self._coordinator._confirm(self, self._coordinator._extension(self._holding, ttl))

    def verify(self) -> None:
        """Return if no newer grant existed when this call began: one majority round, and no clock.

        Holds while nodes keep their data and every user of the resource takes our locks. Raises as
        `extend`.
        """
        self._coordinator._confirm(self, self._coordinator._verification(self._holding))

    def release(self) -> bool:
        """Give the lock back. True: a majority confirmed; False: expired, unreachable or released
        before. Never raises for that.

        A node that does not answer stays owed its release, which is sent again when it comes back.
        """
        return self._coordinator._release_lease(self)

    def __enter__(self) -> Self:
        ended = self._ended()
        if ended is not None:  # No body runs under a lease that has ended.
            self.release()
            raise ended
        if self._entered:  # The inner body's end would release the lease under the outer one.
            raise LockInUse(
                f"a body runs under the lease on {shown(self.resource)} already: acquire another"
            )
        self._holder = threading.current_thread()
        self._entered = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._entered = False
            ended = self._ended()
            self.release()
        except BaseException:  # Ctrl-C on the way to the release; a second one does nothing.
            self.release()
            raise
        if error is None and isinstance(ended, LeaseLost):
            raise ended

    def _orphaned(self) -> None:
        if self._lost is not None:
            # As `threading` does with its own: a thread that the child does not have may hold the
            # event's lock for ever.
            with contextlib.suppress(AttributeError):
                self._lost._at_fork_reinit()  # type: ignore[attr-defined]
            self._lost.set()

    def _ended(self) -> LeaseError | None:
        ended = self._holding.error(now())
        if isinstance(ended, LeaseLost):
            self._coordinator._tell_lapsed(self._holding)
        return ended


class Lock:
    """A lock on one resource: context manager, decorator, or `acquire` and `release` by hand.

    Cheap to make; serves one holder at a time and is not re-entrant (`LockInUse`).
    """

    def __init__(self, coordinator: Redlock, options: LockOptions[Lease]) -> None:
        self._coordinator = coordinator
        self._options = options
        # Reentrant: the handler of a signal may use it in the midst of a `with`.
        self._guard = threading.RLock()
        self._acquiring = False
        self._lease: Lease | None = None
        self._entered = False
        self._forks = coordinator.forks

    def acquire(
        self, blocking: bool = True, timeout: float | Omitted | None = OMITTED
    ) -> Lease | None:
        """A lease, or None: a majority answered, and somebody else holds the lock.

        *timeout* in seconds; omitted: the lock's; None: for ever; 0, or `blocking=False`: one try.
        Raises QuorumUnavailable when no majority answered, LockInUse, ConfigurationError.
        """
        wait, once = acquire_timeout(blocking, timeout, self._options.timeout)
        try:
            return self._acquire(wait, once=once)
        except LockContended:
            return None

    def release(self) -> bool:
        """Release the lease of the last `acquire`; as `Lease.release`. Raises LeaseReleased if
        there is none."""
        lease = self._lease
        if lease is None:
            raise not_acquired(self._options.resource)
        released = lease.release()
        # Only now: an interrupt before leaves it with us, to be released again.
        if self._lease is lease:
            self._lease = None
        return released

    def _acquire(self, timeout: float | None, *, once: bool, entered: bool = False) -> Lease:
        lease: Lease | None = None
        ours = False
        if self._forks != self._coordinator.forks:
            self._start_anew()
        try:
            with self._guard:
                if self._acquiring:
                    raise LockInUse(
                        f"the lock on {shown(self._options.resource)} is being acquired"
                        " already; make"
                        " one Lock for each user"
                    )
                before = self._lease
                if before is not None and (self._entered or before.is_held()):
                    raise LockInUse(
                        f"the lock on {shown(self._options.resource)} is held already, and is not"
                        " re-entrant; make one Lock for each user"
                    )
                self._acquiring = ours = True
            lease = self._coordinator._acquire(self._options, timeout, once=once)
            ended = lease._ended() if entered else None
            if ended is not None:  # No body runs under a lease that has ended.
                raise ended
            lease._entered = entered
            self._lease, self._entered, self._acquiring = lease, entered, False
            return lease
        except BaseException:
            if ours:
                self._acquiring = False
            if lease is not None:  # It has ended, or Ctrl-C on the way to the caller.
                self._lease, self._entered = None, False
                lease.release()
            raise

    def _start_anew(self) -> None:
        """In a forked child, which has no other thread of its parent: what they were about here
        never ends by itself."""
        with self._coordinator._fork_guard:
            if self._forks == self._coordinator.forks:
                return
            self._guard, self._acquiring = threading.RLock(), False
            if self._lease is not None and not self._lease._holder.is_alive():
                self._lease, self._entered = None, False
            self._forks = self._coordinator.forks

    def __enter__(self) -> Lease:
        return self._acquire(self._options.timeout, once=self._options.timeout == 0, entered=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        lease = self._lease
        try:
            if lease is not None:
                lease.__exit__(kind, error, trace)
        except BaseException:  # Ctrl-C before the lease had the word.
            if lease is not None:
                lease.release()
            raise
        finally:
            self._lease, self._entered = None, False

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate *function*: every call takes a fresh lock of this kind, and never runs
        unlocked.

        The resource may name parameters in braces, as "invoice:{id}", and is made of the arguments
        of each call. Raises ConfigurationError for a name that is none of them.
        """
        _check_decorated(function)
        naming = self._naming(function)

        @functools.wraps(function)
        def locked(*args: P.args, **kwargs: P.kwargs) -> R:
            with Lock(self._coordinator, naming.of(args, kwargs)):
                return _plain(function, function(*args, **kwargs))

        return locked

    def with_lease(self, function: Callable[Concatenate[Lease, P], R]) -> Callable[P, R]:
        """Decorate *function* as a call of the lock itself does, and give it the lease as its first
        argument."""
        _check_decorated(function)
        naming = self._naming(function, skipped=1)

        @functools.wraps(function)
        def locked(*args: P.args, **kwargs: P.kwargs) -> R:
            with Lock(self._coordinator, naming.of(args, kwargs)) as lease:
                return _plain(function, function(lease, *args, **kwargs))

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
    """Refuse what would only begin under the lock."""
    if inspect.iscoroutinefunction(function):
        raise TypeError(
            f"{name_of(function)} is an async def; decorate it with a lock of redlock.asyncio"
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{name_of(function)} is a generator: its body would run after the lock was released"
        )


def _plain(function: Callable[..., object], result: R) -> R:
    """The result of a decorated function, if that has ended by now."""
    if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
        if inspect.iscoroutine(result):
            result.close()  # Or Python complains that nobody awaited it.
        kind = type(result).__name__
        raise TypeError(
            f"{function!r} gave a {kind}: its body would run after the lock was released"
        )
    return result


class Redlock(CoordinatorBase[Lease]):
    """Locks on N independent Redis or Valkey masters, for threads.

    A lock is held only after a majority granted it within the drift-adjusted validity; otherwise it
    is given back everywhere. *nodes*: URLs, `redis.Redis` clients, or dicts of their arguments;
    each a master of its own. All times in seconds. *max_ttl* and *durable* belong to the cluster:
    None adopts what its nodes say. *fair*: who waits is served in the order of coming, over all
    threads and processes; False: whoever asks at the right moment. *holder*: what others are told
    of who holds a lock of this, printable, at most 96 bytes; None: host and process. *on_event*
    hears every event where it happens, also in the thread that renews leases, and must return at
    once: whatever it waits for, they wait for. The constructor does no I/O.

    Raises ConfigurationError for what cannot work, from here for what the arguments show, from the
    first acquire for what the nodes show.
    """

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
        super().__init__(
            nodes,
            policy,
            on_event=on_event,
            admission=GuardedAdmission,
            guard=threading.RLock,
        )

    def _set_up(self) -> None:
        self._driver = Driver(self._cluster, self._endpoints)
        self._callbacks = Callbacks(self._driver.threads)
        self._asking: dict[int, threading.Thread] = {}
        """The acquires under way, by the identity of their `Acquisition`, until `close` can see
        what became of them."""
        self._fork_guard = threading.RLock()
        self._events_guard = threading.RLock()
        # Reentrant: a callback, or the handler of a signal, may close once more.
        self._close_lock = threading.RLock()
        self._closed = False

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
        though it is released sooner: for jobs on hosts whose clocks differ. *on_lost(lease)* is
        called when the lease is lost, in another thread; up to eight are at once, and more wait.
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
        `ElectionTimings`. *eligible()*: asked before campaigning and at every renewal, in another
        thread; False ends the term. *priority*: seconds that others have for a vacancy before this
        candidate tries, at most the ttl; a leader is never ousted. *lock_delay*: seconds between
        the grant and the work where the one before did not release, for resources that cannot check
        tokens. *stall_timeout*: seconds after which work that does not call `Term.tick` is taken
        for stalled. *hard_stop*: "exit" ends this process (status 6) when work has not ended by the
        kill deadline; None lets it run on, as a zombie, while the lease expires. *on_started(term)*
        and *on_stopped(term, reason)* are called in the thread of the work, before and after it,
        exactly paired. Raises ConfigurationError for what cannot work.
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

    def status(self, resource: str) -> ResourceStatus:
        """Who holds *resource*, as a majority sees it, with every node's answer. Informational."""
        lock_key, fence_key = keys_of(self._policy.key_prefix, resource)
        return self._status(
            resource, self._driver.run(lambda at: peek(self._cluster, lock_key, fence_key, at))[0]
        )

    def ready(self) -> bool:
        """Whether a majority of the nodes votes now, asked of them: for health endpoints.

        Raises nothing but for a closed coordinator: nodes that can never be a majority are not
        ready either.
        """
        self.check_open()
        try:
            return self._is_majority(self.nodes())
        except (QuorumUnavailable, ConfigurationError):
            return False

    def nodes(self) -> list[NodeReport]:
        """Every node as admission sees it now: role, run id, uptime, policy, quarantine left,
        round trip, clock offset."""
        return self._reports(self._driver.run(lambda at: inspect_nodes(self._cluster, at))[0])

    def close(self) -> None:
        """End what is under way, release every lease this coordinator holds, and close its
        connections. Idempotent.

        From its first moment on everything but a release raises RedlockError, also where it waits
        already. A lease that another thread took or entered is lost for that: `is_held` says so,
        `lost` is set and `on_lost` called, and only then is it given back. Python cannot stop a
        thread, so end the work first, and close then. Waits at most the node timeout, a few times,
        for nodes that do not answer, and a second for a callback that does not end. Interrupted, it
        can be called again.
        """
        with self._close_lock:
            if self._closed:
                return
            self._driver.refuse()
            self._driver.background.refuse()
            self._end_terms()
            self._await_acquires()
            self._release_all()
            self._driver.quieten()
            self._driver.close()
            self._callbacks.close()
            self._closed = True  # Not before: who was interrupted can close again.

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def check_open(self) -> None:
        if self._driver.closing:
            raise _closed()

    # For Election and Term

    def _campaign(self, ask: Acquisition) -> Lease:
        return self._take(ask)

    def _watch_term(self, watch: Watch) -> None:
        self._driver.background.watch(watch)

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

    def _look(self, start: Callable[[float], Flow[Tally]]) -> Tally:
        return self._driver.run(start)[0]

    def _aside(self, call: Callable[[], object]) -> None:
        self._callbacks.run(call)

    @property
    def _is_closing(self) -> bool:
        return self._driver.closing

    # For Lock and Lease

    def _acquire(self, options: LockOptions[Lease], timeout: float | None, *, once: bool) -> Lease:
        ask = self._ask(options, timeout, once=once)
        return self._take(ask, auto_extend=options.auto_extend, on_lost=options.on_lost)

    def _take(
        self,
        ask: Acquisition,
        *,
        auto_extend: bool = False,
        on_lost: Callable[[Lease], object] | None = None,
    ) -> Lease:
        connections: ConnectionSet | None = None
        self._asking[id(ask)] = threading.current_thread()
        try:
            holding, connections = self._driver.run(
                lambda at: self._taking(ask, at), give_up_at=ask.give_up_at, patient=not ask.once
            )
            lease = Lease(self, holding, connections, on_lost)
            self.remember(holding, lease)
            if auto_extend or on_lost is not None:
                self._watch(lease, auto_extend=auto_extend)
            # Asked when the lease is known: whoever closes looks for leases after it began to
            # refuse.
            if self._driver.closing:
                raise _closed()
            # Not in a `finally`: an interrupt there would come after all that could give back.
            self._asking.pop(id(ask), None)
            return lease
        except BaseException as error:
            # Closed, or an interrupt on the way to the caller: nobody would ever know of this
            # lease.
            if isinstance(error, AcquireError):
                error.about(ask.resource)
            try:
                if ask.granted is not None and not ask.granted.freed:
                    self.forget(ask.granted)
                    self._driver.write(
                        abandon(self._cluster, ask.granted, now()), prefer=connections
                    )
            finally:
                self._asking.pop(id(ask), None)
            raise

    def _taking(self, ask: Acquisition, at: float) -> Flow[Holding]:
        """Acquire; what is granted while a callback of ours closes this goes back on the
        connections that brought it."""
        holding = yield from acquire(self._cluster, ask, at)
        if self._driver.closed:  # No others can be had, and these are closed as soon as this ends.
            yield Wait(NEVER, abandon(self._cluster, holding, now()))
            raise _closed()
        return holding

    def _confirm(self, lease: Lease, start: Callable[[float], Flow[None]]) -> None:
        try:
            # When the lease ends there is nothing left to wait for a set of connections for.
            self._driver.run(
                start, prefer=lease._connections, urgent=True, give_up_at=lease._holding.valid_until
            )
        except LeaseLost:
            self._tell_lapsed(lease._holding)
            raise
        except AcquireError as error:
            self._unconfirmed(error, lease.resource, lease._ended())

    def _release_lease(self, lease: Lease) -> bool:
        released = self._release_holding(lease._holding, lease._connections)
        lease._connections = None
        return released

    def _release_holding(self, holding: Holding, connections: ConnectionSet | None) -> bool:
        released = False
        try:
            released = self._driver.release(
                self._release(holding),
                behind=connections,
                again=lambda: abandon(self._cluster, holding, now()),
                give_up_at=holding.valid_until,
            )
        except QuorumUnavailable:
            # Not even connections to ask on: the release is written when there are, or stays owed.
            self._driver.write(abandon(self._cluster, holding, now()), prefer=connections)
        except RedlockError:
            pass  # Closed: the connections are gone.
        except BaseException:  # Ctrl-C: the confirmation is lost, the release is not.
            with contextlib.suppress(RedlockError):
                self._driver.write(abandon(self._cluster, holding, now()), prefer=connections)
            self.forget(holding)
            raise
        self.forget(holding)
        return released

    def _watch(self, lease: Lease, *, auto_extend: bool) -> None:
        holding = lease._holding
        watch = Watch(
            holding, weakly(self._tell_lapsed), ttl=holding.ttl if auto_extend else None, now=now()
        )
        self._driver.background.watch(watch)
        lease._watch = watch

    def _lost_of(self, lease: Lease) -> threading.Event:
        """The event of a lease that has none yet: the same for all threads that ask for it."""
        with self._events_guard:
            if lease._lost is None:
                lost = threading.Event()
                if lease._watch is None and not isinstance(lease._holding.error(now()), LeaseLost):
                    self._watch(lease, auto_extend=False)
                # Not before: an event that nobody watches for would never be set.
                lease._lost = lost
                # Perhaps told before there was an event to set.
                if isinstance(lease._holding.error(now()), LeaseLost):
                    lost.set()
            return lease._lost

    def _tell_lapsed(self, holding: Holding) -> None:
        holding.lose("its validity ended")
        self.lapsed(holding, self._tell_holder)

    def _tell_holder(self, lease: Lease) -> None:
        if lease._lost is not None:
            lease._lost.set()
        if lease._on_lost is not None:
            self._callbacks.run(functools.partial(lease._on_lost, lease))

    def _await_acquires(self) -> None:
        """Until what was under way has ended, and what it was granted is known or given back; at
        most the node timeout."""
        me, deadline = threading.current_thread(), now() + self._cluster.patience
        while any(thread is not me for thread in list(self._asking.values())) and now() < deadline:
            time.sleep(_LOOK)

    def _end_terms(self) -> None:
        """Tell those who lead to stop, and wait for their work; what has not ended by its kill
        deadline keeps its lock, which expires."""
        elections: list[Election] = list(self.elections)
        until = {election: election._close() for election in elections}
        while any(election._leased is not None and now() < at for election, at in until.items()):
            time.sleep(_LOOK)
        for election in elections:
            holding = election._leased
            _, handle = self._leases.get(id(holding), (None, None))
            lease = handle() if handle is not None else None
            if lease is not None:
                self._let_expire(lease, "this Redlock was closed under its work")

    def _release_all(self) -> None:
        """Give all leases back. Whoever holds one in another thread hears of it before anybody
        else can have the lock."""
        me = threading.current_thread()
        held = [(holding, handle()) for holding, handle in list(self._leases.values())]
        for holding, lease in held:
            if lease is not None and lease._holder is not me and holding.held(now()):
                holding.lose("this Redlock was closed")
                self._tell_lapsed(holding)
        deadline = now() + self._cluster.patience
        for number, (holding, lease) in enumerate(held, 1):
            # Also where `freed` says that it was: whoever set that may have been interrupted before
            # it was written.
            connections = lease._connections if lease is not None else None
            releases = abandon(self._cluster, holding, now())
            if self._closed:  # An observer of ours closed once more, and so did this already.
                return
            self._driver.write(releases, prefer=connections)
            self.forget(holding)
            # Lest more is in flight than a node may owe.
            if number % _TOGETHER_MAX == 0 and now() < deadline:
                self._driver.bring_owed()

    def _at_exit(self) -> None:
        if not self._driver.closed:
            self._driver.bring_owed()

    def _after_fork(self) -> None:
        super()._after_fork()
        was_closed = self._driver.closed
        self._driver.abandon()
        self._set_up()
        if was_closed:
            self.close()


def _closed() -> RedlockError:
    return RedlockError("this Redlock is closed: make another")
