"""What the blocking and the asyncio API have in common: the cluster, leases as values, and who
holds what.

Nothing here waits. Both APIs run the same flows of `redlock.core`; they differ in the driver and in
`await`.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import socket
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Generic, NoReturn, Self, TypeVar

from redlock.core.acquire import Acquisition
from redlock.core.admission import Admission, State
from redlock.core.effects import Flow, Source
from redlock.core.events import Event, LeaseLapsed
from redlock.core.extend import extend, verify
from redlock.core.lease import Holding
from redlock.core.line import Lines
from redlock.core.look import Inspection
from redlock.core.policy import Policy, check_callback, warn_about_nodes
from redlock.core.quorum import Kind, Tally, begins, majority, said_by
from redlock.core.release import release
from redlock.core.rounds import Cluster
from redlock.errors import AcquireError, CastVote, LeaseError, LeaseLost, LeaseReleased, shown
from redlock.observe import Observer
from redlock.options import LockOptions, nodes_of_environment
from redlock.transport.clock import Entropy, now
from redlock.transport.dial import Endpoint, NodeSpec, endpoints

# Long: what both APIs have in common, and nothing else has.
__all__ = [
    "CoordinatorBase",
    "LeaseBase",
    "NodeReport",
    "ResourceStatus",
    "Waiter",
    "not_acquired",
    "weakly",
]

L = TypeVar("L", bound="LeaseBase")


_HOST_MAX = 64
"""Characters of a host's name: no more are allowed by most."""

_log = logging.getLogger("redlock")


@dataclass(frozen=True, slots=True)
class Waiter:
    """One place in the queue of a lock. *name*: of the process, and of the candidate if it is one.
    *since*: seconds since the epoch, by the nodes' clocks."""

    name: str
    since: float


@dataclass(frozen=True, slots=True)
class ResourceStatus:
    """What the nodes say of one resource.

    *held*: True, a majority holds the same lock; False, a majority is free; None, no majority
    agrees. *holder*: the owner's value as far as it is one of ours, its fencing token in
    *fencing_token*; *ttl_left*: seconds until the holder loses its majority if nobody extends.
    *held_by*: what the holder says of itself: its `holder` text, or the candidate's name.
    *waiting*: the first of each process that waits, in the order of their turns; up to sixteen.
    *votes*: every node's answer.
    """

    resource: str
    held: bool | None
    holder: str | None
    fencing_token: int | None
    ttl_left: float | None
    votes: tuple[CastVote, ...]
    waiting: tuple[Waiter, ...] = ()
    held_by: str | None = None


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One node as admission sees it. Times in seconds; None where the node did not tell.

    *memory*: the replication id, which with *run_id* names what the node remembers; *memory_since*:
    when that was marked, by the node's clock, seconds since the epoch. Two of them behind one name,
    at two looks, are two servers, or one that forgot. *never_replicas*: the promise that no node is
    ever made a replica. *evicted*: keys that the server has evicted. *wakes*: whether it
    can queue and tell those who wait. *quarantine_left*: until it
    votes again. *round_trip* includes the check itself. *clock_offset*: the node's wall clock less
    ours; it matters to nothing but tokens.
    """

    node: str
    votes: bool
    reason: str
    role: str | None = None
    run_id: str | None = None
    version: str | None = None
    uptime: float | None = None
    policy: str | None = None
    max_ttl: float | None = None
    durable: bool | None = None
    cluster: str | None = None
    memory: str | None = None
    memory_since: float | None = None
    never_replicas: bool | None = None
    evicted: int | None = None
    wakes: bool | None = None
    why_no_wakes: str | None = None
    quarantine_left: float | None = None
    round_trip: float | None = None
    clock_offset: float | None = None


class LeaseBase:
    """A lease as a value: who holds what, until when. Reads the clock, never the network."""

    __slots__ = ("__weakref__", "_coordinator", "_holding")

    def __init__(self, coordinator: CoordinatorBase[Any], holding: Holding) -> None:
        self._coordinator = coordinator
        self._holding = holding

    @property
    def resource(self) -> str:
        """What is locked."""
        return self._holding.resource

    @property
    def fencing_token(self) -> int:
        """Unique, and larger than that of every grant decided before this one was asked for.

        Microseconds since the epoch by origin, below 2**53. Give it to the guarded resource with
        every access, reads included; one that refuses smaller tokens is safe from holders that
        stalled past their lease.
        """
        return self._holding.token

    @property
    def owner(self) -> str:
        """The 128 random bits that name this grant on the nodes."""
        return self._holding.owner

    @property
    def ttl(self) -> float:
        """Seconds the lock was last asked for."""
        return self._holding.ttl

    @property
    def valid_until(self) -> float:
        """Deadline on the lease clock (CLOCK_BOOTTIME): a majority holds our key at least until
        then.

        Assumes that node clocks run at most `drift_factor` faster than ours and that nodes keep
        their keys.
        """
        return self._holding.valid_until

    def remaining(self) -> float:
        """Seconds of validity left now; 0.0 once the lease ended, never negative."""
        holding, at = self._holding, now()
        return holding.valid_until - at if holding.held(at) else 0.0

    def is_held(self) -> bool:
        """Whether the lease may be relied on at this moment. Reads the clock every time."""
        return self._holding.held(now())

    def ensure_held(self, min_remaining: float = 0.0) -> None:
        """Return if at least *min_remaining* seconds of validity are left; raise LeaseLost, or
        LeaseReleased."""
        holding, at = self._holding, now()
        error = holding.error(at)
        if error is not None:
            raise error
        if not at + min_remaining < holding.valid_until:
            left = holding.valid_until - at
            raise LeaseLost(
                f"the lease on {shown(self.resource)} has {left:.3g} s left, and {min_remaining:g}"
                " s were asked for: extend it first, or stop"
            )

    def _orphaned(self) -> None:
        """In a forked child: tell who waits that the lease is the parent's."""

    def __repr__(self) -> str:
        state = (
            f"{self.remaining():.3g} s left"
            if self.is_held()
            else self._holding.status.name.lower()
        )
        return f"<{type(self).__name__} {self.resource!r} token {self.fencing_token}, {state}>"


class CoordinatorBase(Generic[L]):
    """Policy, cluster and leases of a `Redlock`."""

    def __init__(
        self,
        nodes: Sequence[NodeSpec],
        policy: Policy,
        *,
        on_event: Callable[[Event], object] | None,
        admission: type[Admission],
        guard: Callable[[], contextlib.AbstractContextManager[Any]] | None = None,
    ) -> None:
        self._policy = policy
        check_callback("on_event", on_event)
        self._endpoints: list[Endpoint] = endpoints(nodes)
        warn_about_nodes(len(self._endpoints))
        self.forks = 0
        """How many forks lie between the process that made this and the present one."""
        self._observer = Observer(on_event)
        self._admission_class = admission
        self._guard = guard
        self._entropy = Entropy()
        self._cluster = self._make_cluster(self._entropy)
        self._leases: dict[int, tuple[Holding, weakref.ref[L]]] = {}
        self.elections: weakref.WeakSet[Any] = weakref.WeakSet()
        """Those made of this, which hear of a close and of a fork."""
        self._set_up()
        # Last: another thread may fork at any moment, and what is half made cannot be reset.
        _COORDINATORS.add(self)

    @classmethod
    def from_env(cls, **arguments: Any) -> Self:
        """A coordinator of the nodes in the variable REDLOCK_NODES: URLs, separated by commas or
        spaces.

        *arguments*: those of the constructor but for the nodes. Raises ConfigurationError where the
        variable names none.
        """
        return cls(nodes_of_environment(), **arguments)

    def _set_up(self) -> None:
        """Make what a forked child has to make anew."""
        raise NotImplementedError

    def _make_cluster(self, source: Source) -> Cluster:
        names = tuple(endpoint.name for endpoint in self._endpoints)
        policy = self._policy
        admission = self._admission_class(
            names,
            ttl=policy.ttl,
            max_ttl=policy.max_ttl,
            durable=policy.durable,
            patience=policy.node_timeout_for(policy.ttl),
            nonce=source.owner,
        )
        emit = self._observer if self._observer.wants_all else None
        longest = max(policy.ttl, policy.max_ttl or 0.0)
        lines = Lines(source.owner()[:16], self._guard() if self._guard is not None else None)
        return Cluster(
            names,
            policy,
            source,
            admission,
            note=self._observer,
            emit=emit,
            lines=lines,
            longest_ttl=longest,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.Redlock on {', '.join(self._cluster.names)}>"

    # Leases

    def remember(self, holding: Holding, lease: L) -> None:
        """The lease is in somebody's hands: `close` releases it, and a fork ends it in the
        child."""
        # Not by a `__del__`, which would run for every lease: a Ctrl-C that strikes in one is
        # printed and forgotten. The reference of a lease that was given back is gone before the
        # lease is.
        self._leases[id(holding)] = (holding, weakref.ref(lease, partial(self._dropped, holding)))

    def forget(self, holding: Holding) -> bool:
        """The lease is over, or was dropped. False if that was known."""
        return self._leases.pop(id(holding), None) is not None

    def _dropped(self, holding: Holding, _: weakref.ref[L]) -> None:
        """A lease went away that nobody released: it expires by itself, and whoever dropped it
        is told."""
        if holding.freed or not self.forget(holding) or not holding.held(now()):
            return
        left = holding.valid_until - now()
        # Or `auto_extend` would keep it for ever.
        holding.lose("it was dropped without being released")
        text = (
            f"the lease on {holding.resource!r} with token {holding.token} was dropped without"
            " being released"
        )
        warnings.warn(
            f"{text}; it expires by itself in {left:.3g} s", ResourceWarning, stacklevel=2
        )

    def lapsed(self, holding: Holding, tell: Callable[[L], None]) -> None:
        """Note that a lease was lost, once, and *tell* its handle if somebody still has it."""
        if holding.told:
            return
        holding.told = True
        _, handle = self._leases.get(id(holding), (None, None))
        lease = handle() if handle is not None else None
        try:
            self._cluster.note(
                LeaseLapsed(now(), holding.resource, holding.owner, holding.token, holding.reason)
            )
        finally:  # Whatever an observer raised, the holder hears of it.
            if lease is not None:
                tell(lease)

    def check_open(self) -> None:
        """Raise RedlockError if this was closed, or is being closed."""
        raise NotImplementedError

    # Flows

    def _ask(self, options: LockOptions[L], timeout: float | None, *, once: bool) -> Acquisition:
        give_up_at = float("inf") if once or timeout is None else now() + timeout
        if options.ttl > self._cluster.longest_ttl:
            self._cluster.longest_ttl = options.ttl
        return Acquisition(
            options.resource,
            *options.keys,
            options.ttl,
            give_up_at,
            once,
            options.max_hold,
            self._note,
            min_hold=options.min_hold,
            label=self._note(),
        )

    def _note(self, wall_us: int = 0) -> str:
        """What nodes keep with a grant, and show to whoever asks who holds the lock."""
        said = self._policy.holder
        return _own_name() if said is None else said

    def _extension(self, holding: Holding, ttl: float | None) -> Callable[[float], Flow[None]]:
        wanted = holding.ttl if ttl is None else ttl
        # The lease's own ttl is not checked again: cut by `max_hold`, it may be shorter than a
        # caller could ask for.
        if ttl is not None:
            self._policy.check_ttl(ttl, self._cluster.admission.max_ttl())
        self._cluster.longest_ttl = max(self._cluster.longest_ttl, wanted)
        return lambda at: extend(self._cluster, holding, wanted, at)

    @staticmethod
    def _unconfirmed(error: AcquireError, resource: str, ended: LeaseError | None) -> NoReturn:
        """Raise why no majority confirmed a lease on *resource*: *ended* says that it was over,
        perhaps before one was asked."""
        if ended is not None:
            raise ended from error
        error.about(resource)
        raise error

    def _verification(self, holding: Holding) -> Callable[[float], Flow[None]]:
        return lambda at: verify(self._cluster, holding, at)

    def _release(self, holding: Holding) -> Callable[[float], Flow[bool]]:
        return lambda at: release(self._cluster, holding, at)

    # Reports

    def _status(self, resource: str, tally: Tally) -> ResourceStatus:
        votes = [vote for vote in tally.votes if vote is not None]
        holders = [vote.holder for vote in votes if vote.kind is Kind.BUSY]
        value = max(sorted(set(holders)), key=holders.count, default="")
        # A holder may stand on in the queue of a node that did not grant it the lock.
        queue = Counter(place for vote in votes for place in vote.waiting)
        waiting = tuple(
            Waiter(name, ticket / 1e6)
            for name, ticket in sorted(queue, key=lambda place: (place[1], place[0]))
            if queue[name, ticket] >= tally.needed
        )
        if holders.count(value) < tally.needed:
            held = False if tally.free >= tally.needed else None
            return ResourceStatus(resource, held, None, None, None, tally.cast_votes(), waiting)
        owner, token = [*value.split(":", 2), ""][:2]
        lasting = sorted(
            (
                float("inf") if vote.ttl_left is None or vote.ttl_left < 0 else vote.ttl_left
                for vote in votes
                if vote.holder == value
            ),
            reverse=True,
        )
        left = lasting[tally.needed - 1]
        ours = owner and token.isdecimal()
        return ResourceStatus(
            resource,
            True,
            begins(owner if ours else value),
            int(token) if ours else None,
            None if left == float("inf") else left,
            tally.cast_votes(),
            waiting,
            said_by(value) or None,
        )

    def _is_majority(self, reports: list[NodeReport]) -> bool:
        return sum(report.votes for report in reports) >= majority(len(reports))

    def _reports(self, looks: list[Inspection]) -> list[NodeReport]:
        return [self._report(index, look) for index, look in enumerate(looks)]

    def _report(self, index: int, look: Inspection) -> NodeReport:
        name = self._cluster.names[index]
        identity = self._cluster.admission.identity(index)
        if identity is None or look.standing is None:
            return NodeReport(name, False, look.reason)
        marker = self._cluster.admission.marker(index)
        until = look.standing.until
        return NodeReport(
            node=name,
            votes=look.standing.state is State.ADMITTED,
            reason=look.reason,
            role=identity.role,
            run_id=identity.memory.run_id,
            version=identity.version,
            uptime=identity.uptime,
            policy=identity.policy,
            max_ttl=marker.max_ttl if marker else None,
            durable=marker.durable if marker else None,
            cluster=marker.cluster if marker and marker.cluster != "-" else None,
            memory=identity.memory.replication_id,
            memory_since=(
                marker.since_us / 1e6
                if marker and marker.since_us and marker.names(identity)
                else None
            ),
            never_replicas=marker.never_replicas if marker else None,
            evicted=identity.evicted,
            wakes=not identity.mute,
            why_no_wakes=identity.mute or None,
            quarantine_left=max(0.0, until - now()) if until is not None else None,
            round_trip=look.round_trip,
            clock_offset=look.clock_offset,
        )

    # The end

    def _at_exit(self) -> None:
        """The interpreter ends, and nobody closed this: what can still be done for the nodes,
        within the node timeout."""

    # Forks

    def _after_fork(self) -> None:
        """In the child: leases are the parent's, connections too; everything else starts anew."""
        self.forks += 1
        for holding, handle in self._leases.values():
            holding.lose("it belongs to the process that forked this one")
            holding.freed = True
            lease = handle()
            if lease is not None:
                lease._orphaned()
        self._leases.clear()
        self._entropy.reset()
        self._cluster = self._make_cluster(self._entropy)
        for election in list(self.elections):
            election._after_fork()


def weakly(method: Callable[[Holding], None]) -> Callable[[Holding], None]:
    """Call *method* as long as its coordinator lives.

    For a watch, which may stay in a schedule until the end of a lease that was released long ago: a
    coordinator that was dropped goes with its connections, and not only then.
    """
    known = weakref.WeakMethod(method)

    def call(holding: Holding) -> None:
        alive = known()
        if alive is not None:
            alive(holding)

    return call


@cache
def _own_name() -> str:
    """Host and process, which is what one looks for who wonders who holds a lock. Asked for once in
    a process, for each is a system call; a forked child asks again."""
    host = "".join(char if char.isprintable() else "?" for char in socket.gethostname())
    return f"{host[:_HOST_MAX]}:{os.getpid()}"


def not_acquired(resource: str) -> LeaseReleased:
    """The error of using a lock that is not acquired."""
    return LeaseReleased(f"the lock on {resource!r} is not acquired")


_COORDINATORS: weakref.WeakSet[CoordinatorBase[Any]] = weakref.WeakSet()


def _reset_all() -> None:
    _own_name.cache_clear()
    for coordinator in list(_COORDINATORS):
        try:
            coordinator._after_fork()
        except Exception:  # The leases of all others are the parent's, too.
            _log.exception("%r cannot be used in this forked process", coordinator)


@atexit.register
def _bring_owed() -> None:
    for coordinator in list(_COORDINATORS):
        try:
            coordinator._at_exit()
        except Exception:  # Others are owed releases, too.
            _log.exception("%r could not bring what it owes", coordinator)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
