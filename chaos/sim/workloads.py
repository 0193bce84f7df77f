"""What the simulated clients do: small scripts of steps, and the guarded store that they write
to."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

from chaos.history import Accepted, Believed, Called, Refused, Seen
from chaos.sim.client import SimClient, SimRun
from chaos.sim.sets import SimSet
from chaos.sim.world import World
from redlock.core.acquire import Acquisition, acquire
from redlock.core.effects import Cancelled, Flow
from redlock.core.events import LeaseGranted
from redlock.core.extend import extend, verify
from redlock.core.lease import Holding
from redlock.core.look import inspect_nodes, peek
from redlock.core.names import keys_of
from redlock.core.release import abandon, release
from redlock.errors import (
    MESSAGE_MAX,
    AcquireError,
    ConfigurationError,
    LeaseError,
    LockContended,
    QueueFull,
    QuorumUnavailable,
    RedlockError,
)

__all__ = [
    "CALLS",
    "QUIET",
    "WORKLOADS",
    "Actor",
    "Call",
    "Doze",
    "Script",
    "Store",
    "errand",
    "last_word",
    "orphan",
]

Script = Generator[Any, Any, None]

Start = Callable[[float], Flow[Any]]

QUIET = 10.0
"""Seconds after which no lock of before a healing, and no quarantine, can stand in anybody's
way."""
LAST_TIMEOUT = 10.0
SLACK = 0.05
"""Seconds a call may take longer than its timeout and one node timeout: a few trips through a
healthy network."""


@dataclass(frozen=True, slots=True)
class Call:
    """A flow to run, and how. *prefer*: the set that carried the acquire; *give_up_at*: until
    when to wait for one; *final*: of a release, which goes on where a close ends everything
    else."""

    start: Start
    prefer: SimSet | None = None
    give_up_at: float = float("inf")
    final: bool = False


@dataclass(eq=False, slots=True)
class Doze:
    """Wait until *until* on the lease clock, or, if it *breaks*, until `Actor.wake`."""

    until: float
    breaks: bool = True


class Store:
    """A resource that checks tokens on every access, reads included."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._value: dict[str, int] = {}
        self._largest: dict[str, int] = {}

    def read(self, client: str, resource: str, token: int) -> int | None:
        """The value; None if the token is too small. The first access of a new holder advances
        the fence."""
        return self._value.get(resource, 0) if self._advance(client, resource, token) else None

    def write(self, client: str, resource: str, token: int, before: int, after: int) -> bool:
        """Write *after* where *before* was read; False if the token is too small."""
        if not self._advance(client, resource, token):
            return False
        self._world.history.append(
            Accepted(self._world.now, client, resource, token, before, after)
        )
        self._value[resource] = after
        return True

    def _advance(self, client: str, resource: str, token: int) -> bool:
        largest = self._largest.get(resource, 0)
        if token < largest:
            self._world.history.append(Refused(self._world.now, client, resource, token, largest))
            return False
        self._largest[resource] = token
        return True


class Actor:
    """One thread or task of a client. Its script is a generator that yields seconds to sleep, or
    a call to make."""

    def __init__(self, client: SimClient, store: Store, seed: object) -> None:
        self.client = client
        self.store = store
        self.draw = random.Random(f"{seed}/{client.name}").random
        self.finished = True
        self.held: list[Holding] = []
        """Leases that it has in hand."""
        self.kept: set[str] = set()
        """Owners of leases that nobody gives back, and that are ended by their expiry alone."""
        self.wrongs: list[tuple[float, str, str]] = []
        self.healed = False
        """Whether all has been healed: no round is begun, and nobody goes away, any more."""
        self.last: Callable[[Actor], Script] | None = None
        """What it does when its script is over."""
        self.brief = False
        """Whether its client is there for one thing, and is closed after it."""
        self.interrupt: Callable[[], bool] | None = None
        """Asked first when its caller goes away; True: that was seen to."""
        self._doze: Doze | None = None
        self._script: Script | None = None
        self._run: SimRun | None = None
        self.last_run: SimRun | None = None
        """The last one that ended."""
        self._ask: Acquisition | None = None
        self._fuse = -1
        self._read: int | None = None

    def begin(self, script: Script) -> None:
        """Start."""
        self.finished = False
        self._script = script
        self._go_on(None)

    def rounds(self, most: int) -> Iterator[int]:
        """Of its script: as long as there is something to go wrong, or it would keep the lock
        from others to the end."""
        for number in range(most):
            if self.healed:
                return
            yield number

    def call(self, call: str, *arguments: Any) -> None:
        """Make one call now, as a step of a plan; nothing if it is busy, or if there is no lease
        to call it on."""
        if self.finished and not self.client.dead:
            self.begin(CALLS[call](self, *arguments))

    def cancel(self, events: int) -> None:
        """The caller goes away after so many more events of the flow under way, or of the next
        one."""
        if self.interrupt is not None and self.interrupt():
            return
        run = self._run
        if run is None or run.done:
            if run is not None and not self.finished and events == 0 and self._ask is not None:
                self._abandon(self._ask)
            self._fuse = events
        elif events:
            run.fuse = events
        else:
            self.client.cancel(run)

    def wake(self) -> None:
        """What it waits for has come, if it waits for anything but the time."""
        doze = self._doze
        if doze is not None and doze.breaks:
            self._doze = None
            self.client.world.at(self.client.world.now, self.client.when_awake, self._go_on, None)

    def _end_doze(self, doze: Doze) -> None:
        if self._doze is doze:
            self._doze = None
            self._go_on(None)

    def give_up(self) -> None:
        """The flow under way is wanted no more: its caller gets `Cancelled`."""
        if self._run is not None and not self._run.done:
            self.client.cancel(self._run)

    def _abandon(self, ask: Acquisition) -> None:
        """A cancel that lands after the winning vote, before the caller has the lease: give it
        back."""
        holding = ask.granted
        if holding is not None and not holding.freed:
            prefer = self._run.carried if self._run is not None else None
            self.client.write(
                abandon(self.client.cluster, holding, self.client.clock()), prefer=prefer
            )

    def _go_on(self, result: Any) -> None:
        script = self._script
        if script is None:
            return
        try:
            wanted = (
                script.throw(result) if isinstance(result, BaseException) else script.send(result)
            )
        except StopIteration:
            self._over()
            return
        world = self.client.world
        if isinstance(wanted, float):
            world.at(world.now + wanted, self.client.when_awake, self._go_on, None)
        elif isinstance(wanted, Doze):
            self._doze = wanted
            if wanted.until < float("inf"):
                self.client.arm(wanted.until, self._end_doze, wanted)
        else:
            fuse, self._fuse = -1 if self.healed else self._fuse, -1
            call = wanted if isinstance(wanted, Call) else Call(wanted)
            self._run = self.client.start(
                call.start,
                self._ended,
                fuse=fuse,
                prefer=call.prefer,
                give_up_at=call.give_up_at,
                vital=call.final,
            )

    def _over(self) -> None:
        self.finished = True
        self._script = None
        if self.last is not None:
            last, self.last = self.last, None
            self.begin(last(self))

    def _ended(self, run: SimRun) -> None:
        if run.missed and self._ask is not None:
            self._abandon(self._ask)
        self._run = None
        self.last_run = run
        error = run.error
        if isinstance(error, Exception) and not isinstance(error, RedlockError):
            text = f"a call of {self.client.name} ended with {error!r}"
            self.wrongs.append(
                (self.client.world.now, "E: only errors of ours reach a caller", text)
            )
            error = RedlockError(str(error))
        self._go_on(error if error is not None else run.value)

    # Steps that scripts share

    def acquire(
        self, timeout: float | None, *, resource: str = "r", max_hold: float | None = None
    ) -> Generator[Any, Any, Holding | None]:
        """Try to get the lock; *timeout* 0: once, None: for ever."""
        client, world = self.client, self.client.world
        ttl = client.policy.ttl
        once = timeout == 0
        # A pause counts in full when it begins, so what is left of one is of this call.
        began_at = world.now
        paused_for = client.paused_for - max(client.paused_until - world.now, 0.0)
        holding: Holding | None
        try:
            keys = keys_of(client.policy.key_prefix, resource)
            give_up_at = float("inf") if once or timeout is None else client.clock() + timeout
            holding = yield from self.take(
                Acquisition(resource, *keys, ttl, give_up_at, once, max_hold)
            )
        except (RedlockError, Cancelled) as error:
            self._called("acquire", resource, began_at, _outcome(error))
            holding = None
            if isinstance(error, AcquireError) and not _says_why(error, resource):
                self.wrongs.append(
                    (world.now, "E: an error names the lock, and each node's reason", f"{error}")
                )
        if timeout:
            allowed = (
                (timeout + client.cluster.patience) / client.rate
                + client.paused_for
                - paused_for
                + SLACK
            )
            if world.now - began_at > allowed + client.slept_for:
                text = (
                    f"{client.name}'s acquire took {world.now - began_at:.3f} s, with a timeout of"
                    f" {timeout:.3f} s"
                )
                self.wrongs.append((world.now, "I10: acquire returns in time", text))
        if holding is not None:
            self._called("acquire", resource, began_at, "granted", holding.token)
        return holding

    def take(self, ask: Acquisition) -> Generator[Any, Any, Holding]:
        """Get the lock as *ask* says, or raise what the flow raises."""
        client = self.client
        self._ask = ask
        try:
            holding: Holding = yield Call(
                lambda at: acquire(client.cluster, ask, at), give_up_at=ask.give_up_at
            )
            # The caller went away when it was granted, and had not been told yet.
            if holding.freed:
                raise Cancelled
            client.remember(holding, self.last_run)
        finally:
            self._ask = None
        self.held.append(holding)
        self.kept.add(holding.owner)
        return holding

    def _called(
        self, call: str, resource: str, began_at: float, outcome: str, token: int = 0
    ) -> None:
        world = self.client.world
        world.history.append(
            Called(
                world.now, self.client.name, resource, call, world.now - began_at, outcome, token
            )
        )

    def release(self, holding: Holding) -> Generator[Any, Any, bool]:
        """Give it back; whether a majority confirmed."""
        client, began_at = self.client, self.client.world.now
        self.forget(holding)
        self.kept.discard(holding.owner)
        prefer = client.set_of(holding)
        outcome = "unconfirmed"
        try:
            if (yield Call(lambda at: release(client.cluster, holding, at), prefer, final=True)):
                outcome = "ok"
            if prefer is not None and self.last_run is not None and self.last_run.late:
                client.sets.follow(
                    prefer, self.last_run.late, abandon(client.cluster, holding, client.clock())
                )
        except Cancelled as error:  # The confirmation is lost, the release is not.
            client.write(abandon(client.cluster, holding, client.clock()), prefer=prefer)
            outcome = _outcome(error)
        except RedlockError as error:  # It was closed, and gives back by itself.
            outcome = _outcome(error)
        client.forget(holding)
        self._called("release", holding.resource, began_at, outcome, holding.token)
        self.believe(holding)
        return outcome == "ok"

    def drop(self, holding: Holding) -> None:
        """Let go of the handle without a release: nobody renews it any more."""
        self.forget(holding)
        self.client.forget(holding)
        self.client.dropped.add(holding)
        holding.lose("it was dropped without being released")

    def forget(self, holding: Holding) -> None:
        """It has it in hand no more."""
        if holding in self.held:
            self.held.remove(holding)

    def believe(self, holding: Holding) -> bool:
        """Ask the lease, and note what it says."""
        client = self.client
        at = client.clock()
        if not holding.held(at):
            return False
        left = holding.valid_until - at
        client.world.history.append(
            Believed(client.world.now, client.name, holding.resource, holding.token, left)
        )
        return True

    def update(
        self, holding: Holding, pause: float, *, looks: bool = True
    ) -> Generator[Any, Any, None]:
        """Read, think, write: at the guarded store, with the token. Who does not look is stopped
        by the store alone."""
        name, resource, token = self.client.name, holding.resource, holding.token
        before = self.store.read(name, resource, token)
        yield pause
        if before is not None and (not looks or self.believe(holding)):
            self.store.write(name, resource, token, before, before + 1)

    def extend(self, holding: Holding, ttl: float) -> Generator[Any, Any, bool]:
        """Extend; False if the lease is over."""
        return (
            yield from self._confirm(
                "extend", holding, lambda at: extend(self.client.cluster, holding, ttl, at)
            )
        )

    def verify(self, holding: Holding) -> Generator[Any, Any, bool]:
        """Verify; False if the lease is over."""
        return (
            yield from self._confirm(
                "verify", holding, lambda at: verify(self.client.cluster, holding, at)
            )
        )

    def _confirm(
        self, call: str, holding: Holding, flow: Callable[[float], Flow[None]]
    ) -> Generator[Any, Any, bool]:
        began_at = self.client.world.now
        outcome = "ok"
        try:
            yield Call(flow, self.client.set_of(holding))
        except (RedlockError, Cancelled) as error:
            outcome = _outcome(error)
            if isinstance(error, LeaseError) and not holding.freed:
                holding.lose("its validity ended")
                self.client._lapsed(holding)
        self._called(call, holding.resource, began_at, outcome, holding.token)
        return outcome != "lost"

    def look(self, resource: str = "r") -> Generator[Any, Any, None]:
        """Ask who holds the lock, and how the nodes are."""
        client = self.client
        keys = keys_of(client.policy.key_prefix, resource)
        try:
            yield lambda at: peek(client.cluster, *keys, at)
            looks = yield lambda at: inspect_nodes(client.cluster, at)
            markers = [client.cluster.admission.marker(node) for node in range(len(looks))]
            client.world.note(
                client.name, "Look", f"sees {[look.reason for look in looks]}, markers {markers}"
            )
        except (RedlockError, Cancelled) as error:
            self._called("look", resource, client.world.now, _outcome(error))


def _says_why(error: AcquireError, resource: str) -> bool:
    """Whether every node that refused or failed has its reason, what was granted has no fault, and
    the message has the lock and begins with a reason: it is one screen, so more may be cut."""
    failed = [vote for vote in error.votes if vote.error is not None]
    # Where not even a connection was to be had, the public API adds it.
    named = error.resource in (resource, None)
    told = str(error)
    begins = not failed or any(vote.reason[:_SAID] in told for vote in failed)
    whole = all(vote.reason for vote in failed) and len(told) <= MESSAGE_MAX
    return (
        named and begins and whole and not any(vote.granted and vote.error for vote in error.votes)
    )


_SAID = 40
"""Characters of a reason that are in a message, where reasons that are alike stand there once."""


def _outcome(error: BaseException) -> str:
    for kind, outcome in _OUTCOMES.items():
        if isinstance(error, kind):
            return outcome
    return f"error: {error}"


_OUTCOMES: dict[type[BaseException], str] = {
    QueueFull: "full",
    LockContended: "contended",
    QuorumUnavailable: "unavailable",
    ConfigurationError: "misconfigured",
    LeaseError: "lost",
    Cancelled: "cancelled",
}


# Workloads


def contend(actor: Actor, rounds: int) -> Script:
    """Take the lock, write, give it back; now and then drop it, or write without looking."""
    draw, ttl = actor.draw, actor.client.policy.ttl
    for _ in actor.rounds(rounds):
        yield draw() * ttl * 0.2
        timeout = 0.0 if draw() < 0.1 else ttl * (0.5 + 2 * draw())
        holding = yield from actor.acquire(timeout, resource="r" if draw() < 0.9 else "s")
        if holding is None:
            continue
        yield from actor.update(holding, draw() * ttl * 0.2)
        if draw() < 0.9:
            yield from actor.release(holding)
        else:
            actor.drop(holding)


def hold(actor: Actor, rounds: int) -> Script:
    """Take the lock and keep it by extending, with a ttl that changes, before giving it back."""
    draw, ttl = actor.draw, actor.client.policy.ttl
    for _ in actor.rounds(rounds):
        yield draw() * ttl * 0.2
        holding = yield from actor.acquire(ttl * 3)
        if holding is None:
            continue
        for _ in range(int(draw() * 5)):
            yield draw() * ttl * 0.6
            if not (yield from actor.extend(holding, min(ttl * (0.3 + draw()), ttl))):
                break
            yield from actor.update(holding, draw() * ttl * 0.1)
        yield from actor.release(holding)


def auto(actor: Actor, rounds: int) -> Script:
    """Take the lock and let it be renewed, for several ttls, sometimes no longer than a while."""
    draw, ttl, client = actor.draw, actor.client.policy.ttl, actor.client
    for _ in actor.rounds(rounds):
        yield draw() * ttl * 0.2
        max_hold = ttl * (0.5 + draw()) if draw() < 0.3 else None
        holding = yield from actor.acquire(
            ttl * 4, resource="r" if draw() < 0.8 else "s", max_hold=max_hold
        )
        if holding is None:
            continue
        renews = draw() < 0.85
        client.watch(holding, renew=renews)
        for _ in range(int(draw() * 6)):
            yield from actor.update(holding, draw() * ttl * 0.5)
            if not renews and not (yield from actor.extend(holding, ttl)):
                break
        if draw() < 0.8:
            yield from actor.release(holding)
        else:
            actor.drop(holding)


def check(actor: Actor, rounds: int) -> Script:
    """Take the lock, and verify it again and again; sometimes look at lock and nodes."""
    draw, ttl = actor.draw, actor.client.policy.ttl
    for _ in actor.rounds(rounds):
        yield draw() * ttl * 0.2
        if draw() < 0.2:
            yield from actor.look()
        holding = yield from actor.acquire(ttl * 3)
        if holding is None:
            continue
        for _ in range(int(draw() * 4)):
            yield draw() * ttl * 0.3
            if not (yield from actor.verify(holding)):
                break
        if draw() < 0.8:
            yield from actor.release(holding)
        else:
            actor.drop(holding)


def fenced(actor: Actor, rounds: int) -> Script:
    """Read, modify and write several times under one lease, with pauses that may outlast it, and
    not always looking."""
    draw, ttl = actor.draw, actor.client.policy.ttl
    for _ in actor.rounds(rounds):
        yield draw() * ttl * 0.2
        holding = yield from actor.acquire(None if draw() < 0.2 else ttl * 2)
        if holding is None:
            continue
        for _ in range(1 + int(draw() * 3)):
            yield from actor.update(
                holding, draw() * ttl * (0.2 if draw() < 0.6 else 1.5), looks=draw() < 0.6
            )
        if draw() < 0.7:
            yield from actor.release(holding)
        else:
            actor.drop(holding)


def queue(actor: Actor, rounds: int) -> Script:
    """Take the lock again and again for a moment, waiting for as long as it takes, or giving up."""
    draw, ttl = actor.draw, actor.client.policy.ttl
    for _ in actor.rounds(4 * rounds):
        yield draw() * 0.1 if draw() < 0.7 else 0.0
        timeout = None if draw() < 0.7 else 0.0 if draw() < 0.2 else 0.02 + draw() * ttl
        holding = yield from actor.acquire(timeout, resource="r" if draw() < 0.9 else "s")
        if holding is None:
            continue
        yield from actor.update(holding, draw() * (0.02 if draw() < 0.8 else 0.5))
        if draw() < 0.97:
            yield from actor.release(holding)
        else:
            actor.drop(holding)


WORKLOADS: dict[str, Callable[[Actor, int], Script]] = {
    "contend": contend,
    "hold": hold,
    "auto": auto,
    "verify": check,
    "fenced": fenced,
    "queue": queue,
}


def last_word(actor: Actor) -> Script:
    """I15: when all has been healed for a while, a client gets the lock."""
    world = actor.client.world
    yield QUIET
    began_at = world.now
    holding = yield from actor.acquire(LAST_TIMEOUT)
    # Not all wait in line: somebody must get it.
    if holding is None and not _granted(world, began_at):
        text = (
            f"{actor.client.name} did not get the lock in {LAST_TIMEOUT:.0f} s, {QUIET:.0f} s after"
            " all was healed"
        )
        actor.wrongs.append((world.now, "I15: the lock can be had after healing", text))
    elif holding is not None:
        yield from actor.release(holding)


def _granted(world: World, since: float) -> bool:
    return any(
        type(record) is Seen
        and isinstance(record.event, LeaseGranted)
        and record.event.resource == "r"
        and record.at >= since
        for record in world.history
    )


def errand(actor: Actor, timeout: float) -> Script:
    """What a client does that is started for one thing, and ends: a job of cron."""
    holding = yield from actor.acquire(timeout)
    if holding is not None:
        yield from actor.update(holding, 0.05)
        yield from actor.release(holding)
    actor.client.close()


def orphan(actor: Actor, inherited: list[Holding]) -> Script:
    """A forked child: its parent's leases are not its own, and it works with connections of its
    own."""
    for holding in inherited:
        actor.believe(holding)
        yield from actor.verify(holding)
        yield from actor.extend(holding, holding.ttl)
        yield from actor.release(holding)
    holding = yield from actor.acquire(actor.client.policy.ttl * 3)  # type: ignore[assignment]
    if holding is not None:
        yield from actor.update(holding, 0.1)
        yield from actor.release(holding)


# Calls, for plans whose steps say everything


def _call_acquire(actor: Actor, timeout: float = 1.0, resource: str = "r") -> Script:
    yield from actor.acquire(timeout, resource=resource)


def _call_auto(actor: Actor, timeout: float = 1.0, resource: str = "r") -> Script:
    holding = yield from actor.acquire(timeout, resource=resource)
    if holding is not None:
        actor.client.watch(holding, renew=True)


def _call_extend(actor: Actor, ttl: float) -> Script:
    if actor.held:
        yield from actor.extend(actor.held[-1], ttl)


def _call_verify(actor: Actor) -> Script:
    if actor.held:
        yield from actor.verify(actor.held[-1])


def _call_release(actor: Actor) -> Script:
    if actor.held:
        yield from actor.release(actor.held[-1])


def _call_drop(actor: Actor) -> Script:
    if actor.held:
        actor.drop(actor.held[-1])
    return
    yield


def _call_read(actor: Actor) -> Script:
    if actor.held:
        holding = actor.held[-1]
        actor._read = actor.store.read(actor.client.name, holding.resource, holding.token)
    return
    yield


def _call_write(actor: Actor) -> Script:
    if actor.held and actor._read is not None:
        holding, before = actor.held[-1], actor._read
        if actor.store.write(
            actor.client.name, holding.resource, holding.token, before, before + 1
        ):
            actor._read = before + 1
    return
    yield


def _call_believe(actor: Actor) -> Script:
    if actor.held:
        actor.believe(actor.held[-1])
    return
    yield


def _call_look(actor: Actor) -> Script:
    yield from actor.look()


CALLS: dict[str, Callable[..., Script]] = {
    "acquire": _call_acquire,
    "auto": _call_auto,
    "extend": _call_extend,
    "verify": _call_verify,
    "release": _call_release,
    "drop": _call_drop,
    "read": _call_read,
    "write": _call_write,
    "believe": _call_believe,
    "look": _call_look,
}
