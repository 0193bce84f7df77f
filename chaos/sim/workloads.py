"""What the simulated clients do: small scripts of steps, and the guarded store that they write to."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from chaos.history import Accepted, Believed, Called, Refused
from chaos.sim.client import SimClient
from chaos.sim.world import World
from redlock.core.acquire import Ask, acquire
from redlock.core.effects import Cancelled, Flow
from redlock.core.extend import extend, verify
from redlock.core.lease import Holding
from redlock.core.names import keys_of
from redlock.core.release import release
from redlock.errors import LeaseError, LockContended, QuorumUnavailable, RedlockError
from redlock.transport.run import Run

__all__ = ["WORKLOADS", "Actor", "Store"]

Step = Generator[Any, Any, None]


class Store:
    """A resource that checks tokens on every access, reads included."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._value: dict[str, int] = {}
        self._largest: dict[str, int] = {}

    def read(self, client: str, resource: str, token: int) -> int | None:
        """The value; None if the token is too small. The first access of a new holder advances the fence."""
        return self._value.get(resource, 0) if self._advance(client, resource, token) else None

    def write(self, client: str, resource: str, token: int, before: int, after: int) -> bool:
        """Write *after* where *before* was read; False if the token is too small."""
        if not self._advance(client, resource, token):
            return False
        self._world.history.append(Accepted(self._world.now, client, resource, token, before, after))
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
    """Runs one client's script: a generator that yields seconds to sleep, or a flow to run."""

    def __init__(self, client: SimClient, store: Store, resource: str) -> None:
        self.client = client
        self.store = store
        self.resource = resource
        self.keys = keys_of(client.policy.key_prefix, resource)
        self.finished = False
        self.grants = 0
        self.kept: set[str] = set()
        """Owners of leases that were dropped, and so are given back by their expiry alone."""
        self._script: Step | None = None
        self._run: Run[Any] | None = None

    def begin(self, script: Step) -> None:
        """Start."""
        self._script = script
        self._go_on(None)

    def cancel(self) -> None:
        """Cancel the flow that is under way, as `task.cancel()` would."""
        if self._run is not None and not self._run.done:
            self.client.world.note(self.client.name, "Cancel", "the caller goes away")
            self.client.cancel(self._run)

    def _go_on(self, result: Any) -> None:
        script = self._script
        if script is None:
            return
        try:
            wanted = script.throw(result) if isinstance(result, BaseException) else script.send(result)
        except StopIteration:
            self.finished = True
            self._script = None
            return
        world = self.client.world
        if isinstance(wanted, float):
            world.at(world.now + wanted, partial(self.client.when_awake, partial(self._go_on, None)))
        else:
            self._run = self.client.start(wanted, self._ended)

    def _ended(self, run: Run[Any]) -> None:
        self._go_on(run.error if run.error is not None else run.value)

    # Steps that scripts share

    def acquire(self, ttl: float, timeout: float) -> Generator[Any, Any, Holding | None]:
        """Try to get the lock."""
        client, world = self.client, self.client.world
        ask = Ask(self.resource, *self.keys, ttl, client.clock() + timeout, once=timeout == 0)
        began_at = world.now
        try:
            holding: Holding = yield lambda at: acquire(client.cluster, ask, at)
        except (RedlockError, Cancelled) as error:
            self._called("acquire", began_at, _outcome(error))
            return None
        self._called("acquire", began_at, "granted", holding.token)
        self.grants += 1
        self.kept.add(holding.owner)
        return holding

    def _called(self, call: str, began_at: float, outcome: str, token: int = 0) -> None:
        world = self.client.world
        world.history.append(Called(world.now, self.client.name, self.resource, call, world.now - began_at, outcome, token))

    def release(self, holding: Holding) -> Generator[Any, Any, None]:
        """Give it back."""
        began_at = self.client.world.now
        self.kept.discard(holding.owner)
        try:
            confirmed = yield lambda at: release(self.client.cluster, holding, at)
        except Cancelled as error:
            self._called("release", began_at, _outcome(error), holding.token)
        else:
            self._called("release", began_at, "ok" if confirmed else "unconfirmed", holding.token)

    def believe(self, holding: Holding) -> bool:
        """Ask the lease, and note what it says."""
        client = self.client
        at = client.clock()
        if not holding.held(at):
            return False
        client.world.history.append(
            Believed(client.world.now, client.name, self.resource, holding.token, holding.valid_until - at)
        )
        return True

    def update(self, holding: Holding, pause: float) -> Generator[Any, Any, None]:
        """Read, think, write: at the guarded store, with the token."""
        before = self.store.read(self.client.name, self.resource, holding.token)
        yield pause
        if before is not None and self.believe(holding):
            self.store.write(self.client.name, self.resource, holding.token, before, before + 1)

    def zombie(self, holding: Holding, pause: float) -> Generator[Any, Any, None]:
        """The same by one who does not look at its lease: only the store stands in the way."""
        before = self.store.read(self.client.name, self.resource, holding.token)
        yield pause
        if before is not None:
            self.store.write(self.client.name, self.resource, holding.token, before, before + 1)

    def extend(self, holding: Holding, ttl: float) -> Generator[Any, Any, bool]:
        """Extend; False if the lease is over."""
        return (yield from self._confirm("extend", holding, lambda at: extend(self.client.cluster, holding, ttl, at)))

    def verify(self, holding: Holding) -> Generator[Any, Any, bool]:
        """Verify; False if the lease is over."""
        return (yield from self._confirm("verify", holding, lambda at: verify(self.client.cluster, holding, at)))

    def _confirm(self, call: str, holding: Holding, flow: Callable[[float], Flow[None]]) -> Generator[Any, Any, bool]:
        began_at = self.client.world.now
        outcome = "ok"
        try:
            yield flow
        except (RedlockError, Cancelled) as error:
            outcome = _outcome(error)
        self._called(call, began_at, outcome, holding.token)
        return outcome != "lost"


def _outcome(error: BaseException) -> str:
    for kind, outcome in _OUTCOMES.items():
        if isinstance(error, kind):
            return outcome
    return f"error: {error}"


_OUTCOMES: dict[type[BaseException], str] = {
    LockContended: "contended",
    QuorumUnavailable: "unavailable",
    LeaseError: "lost",
    Cancelled: "cancelled",
}


def contend(actor: Actor, rounds: int) -> Step:
    """Take the lock, write, give it back; now and then drop it, or write without looking."""
    draw = actor.client.world.random.random
    ttl = actor.client.policy.ttl
    for _ in range(rounds):
        yield draw() * ttl * 0.2
        holding = yield from actor.acquire(ttl, timeout=ttl * (0.5 + 2 * draw()))
        if holding is None:
            continue
        if draw() < 0.1:
            yield from actor.zombie(holding, draw() * ttl * 1.5)
        else:
            yield from actor.update(holding, draw() * ttl * 0.2)
        if draw() < 0.9:
            yield from actor.release(holding)


def hold(actor: Actor, rounds: int) -> Step:
    """Take the lock and keep it by extending, with a ttl that changes, before giving it back."""
    draw = actor.client.world.random.random
    ttl = actor.client.policy.ttl
    for _ in range(rounds):
        yield draw() * ttl * 0.2
        holding = yield from actor.acquire(ttl, timeout=ttl * 3)
        if holding is None:
            continue
        for _ in range(int(draw() * 5)):
            yield draw() * ttl * 0.6
            if not (yield from actor.extend(holding, min(ttl * (0.3 + draw()), ttl))):
                break
            yield from actor.update(holding, draw() * ttl * 0.1)
        yield from actor.release(holding)


def check(actor: Actor, rounds: int) -> Step:
    """Take the lock, and verify it again and again."""
    draw = actor.client.world.random.random
    ttl = actor.client.policy.ttl
    for _ in range(rounds):
        yield draw() * ttl * 0.2
        holding = yield from actor.acquire(ttl, timeout=ttl * 3)
        if holding is None:
            continue
        for _ in range(int(draw() * 4)):
            yield draw() * ttl * 0.3
            if not (yield from actor.verify(holding)):
                break
        if draw() < 0.8:
            yield from actor.release(holding)


WORKLOADS: dict[str, Callable[[Actor, int], Step]] = {"contend": contend, "hold": hold, "verify": check}
