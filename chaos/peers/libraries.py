"""redlock-py, pottery and redlock-ng behind the `Locks` of the campaign's workloads. Runs in the
peers' environments.

Each is used as a careful application would: with the node timeout that our own clients get, its own
retry delays, and its validity counted on the lease clock from the moment it was told. None gives a
fencing token, so a lease has the negative of its client's count in place of one: the checker tells
leases apart by it and judges no order, and the store, which is given 0, refuses nothing. None
renews a lease by itself; `auto_extend` means nothing to them, and a leader leads for a ttl.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from chaos.live.program import Held, Locks, Refusal, Task
from chaos.live.worker import seen, true_now
from redlock.core.events import LeaseGranted, LeaseReleasing, LeaseRenewed

__all__ = ["LIBRARIES"]

_NODE_TIMEOUT = 0.2
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a library gave. *owner*: the value it wrote to the nodes; *validity*: seconds, from
    the return of its call."""

    owner: str
    validity: float
    lock: Any


class Outage(Exception):
    """The library raised: too few nodes answered, or one did not."""


class Missing(Exception):
    """The library has nothing of the kind."""


class Peer:
    """One library's coordinator. Subclasses say how it tries once, extends and releases."""

    blocking = True
    pause = (0.0, 0.0)
    """Seconds to wait after a failed try, where the library does not wait by itself: its own
    default."""
    denied = "refused"
    """What a try without a grant is called: most say no more than False or None, in an outage as
    in contention."""

    def __init__(self, task: Task, library: Any) -> None:
        self.library = library
        self.ttl = float(task.options["ttl"])
        self.node_timeout = float(task.options.get("node_timeout") or _NODE_TIMEOUT)
        self.connect(list(task.urls))

    def connect(self, urls: Sequence[str]) -> None:
        """Make the library's clients."""
        raise NotImplementedError

    async def attempt(self, key: str, left: float) -> Grant | None:
        """Try, for at most about *left* seconds; None: not granted. Raises Outage."""
        raise NotImplementedError

    async def prolong(self, grant: Grant) -> tuple[float, float]:
        """Extend by the ttl; when that was told, and until when it is valid then. Raises."""
        raise Missing("it cannot extend a lock")

    async def give_back(self, grant: Grant) -> bool:
        """Release; whether it said that this worked."""
        raise NotImplementedError

    async def disconnect(self) -> None:
        """Close the library's clients."""

    async def acquire(
        self,
        resource: str,
        *,
        timeout: float | None,
        auto_extend: bool = False,
        max_hold: float | None = None,
    ) -> Held:
        """A lease, or Refusal."""
        give_up_at = true_now() + (float("inf") if timeout is None else timeout)
        while True:
            asked_at = true_now()
            try:
                grant = await self.attempt(f"redlock:{resource}", give_up_at - asked_at)
                outcome = self.denied
            except Outage:
                grant, outcome = None, "unavailable"
            at = true_now()
            if grant is not None:
                return PeerLease(self, resource, grant, asked_at, at)
            if at >= give_up_at:
                raise Refusal(outcome)
            await self.sleep(min(random.uniform(*self.pause), give_up_at - at))

    async def sleep(self, seconds: float) -> None:
        """Let the time pass, as its kind of application does."""
        if self.blocking:
            time.sleep(seconds)  # noqa: ASYNC251  # A blocking library's thread.
        else:
            await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Hang up. What is held expires."""
        await self.disconnect()


class PeerLease:
    """A lock that a library gave. See `chaos.live.program.Held`."""

    def __init__(self, peer: Peer, resource: str, grant: Grant, asked_at: float, at: float) -> None:
        self.token = -next(_numbers)
        self._peer = peer
        self._resource = resource
        self._grant = grant
        self._valid_until = at + grant.validity
        seen(LeaseGranted(at, resource, grant.owner, self.token, asked_at, self._valid_until))

    def remaining(self) -> float:
        """Seconds of what the library promised."""
        return max(0.0, self._valid_until - true_now())

    def is_held(self) -> bool:
        """Whether that is over."""
        return self.remaining() > 0

    async def extend(self) -> None:
        """Extend by the ttl, if the library can."""
        at, valid_until = await self._peer.prolong(self._grant)
        self._valid_until = max(self._valid_until, valid_until)
        seen(LeaseRenewed(at, self._resource, self._grant.owner, self.token, self._valid_until))

    async def verify(self) -> None:
        """No library here can."""
        raise Missing("it cannot ask the nodes whether it still holds")

    async def release(self) -> bool:
        """Give it back."""
        self._valid_until = float("-inf")
        seen(LeaseReleasing(true_now(), self._resource, self._grant.owner, self.token))
        return await self._peer.give_back(self._grant)


class RedlockPy(Peer):
    """redlock-py: one try is `lock()` with a retry count of one, after which it sleeps its delay
    by itself."""

    def connect(self, urls: Sequence[str]) -> None:
        timeouts = f"socket_timeout={self.node_timeout}&socket_connect_timeout={self.node_timeout}"
        self._real = self.library.Redlock([f"{url}?{timeouts}" for url in urls], retry_count=1)

    async def attempt(self, key: str, left: float) -> Grant | None:
        try:
            lock = self._real.lock(key, round(self.ttl * 1000))
        except self.library.MultipleRedlockException as error:
            raise Outage from error
        return Grant(lock.key.decode(), lock.validity / 1000, lock) if lock else None

    async def give_back(self, grant: Grant) -> bool:
        self._real.unlock(grant.lock)
        return True

    async def disconnect(self) -> None:
        for server in self._real.servers:
            server.close()


class Pottery(Peer):
    """pottery: waits by itself. Its only word on validity is `locked()`, which asks the nodes; so
    each grant asks once.

    Asked to, it raises when too few nodes answered; so otherwise the lock is somebody else's.
    """

    pause = (0.0, 0.2)
    denied = "contended"

    def connect(self, urls: Sequence[str]) -> None:
        self._masters = {self._client(url) for url in urls}

    def _client(self, url: str) -> Any:
        import redis

        return redis.Redis.from_url(
            url, socket_timeout=self.node_timeout, socket_connect_timeout=self.node_timeout
        )

    def _lock(self, key: str) -> Any:
        kind = self.library.Redlock if self.blocking else self.library.AIORedlock
        return kind(
            key=key.removeprefix("redlock:"),
            masters=self._masters,
            auto_release_time=self.ttl,
            num_extensions=1_000_000,
            raise_on_redis_errors=True,
        )

    async def attempt(self, key: str, left: float) -> Grant | None:
        lock = self._lock(key)
        how: dict[str, Any] = (
            {"blocking": False} if left <= 0 else {"timeout": -1 if left == float("inf") else left}
        )
        try:
            if not await _awaited(lock.acquire(**how)):
                return None
            validity = float(await _awaited(lock.locked()))
        except self.library.QuorumIsImpossible as error:
            raise Outage from error
        grant = Grant(lock._uuid, validity, lock)
        if validity > 0:
            return grant
        await self.give_back(grant)  # It is over already, or was by the time it was asked.
        return None

    async def prolong(self, grant: Grant) -> tuple[float, float]:
        await _awaited(grant.lock.extend())
        at = true_now()
        validity = float(await _awaited(grant.lock.locked()))
        return at, true_now() + validity

    async def give_back(self, grant: Grant) -> bool:
        try:
            await _awaited(grant.lock.release())
        except (self.library.ReleaseUnlockedLock, self.library.QuorumIsImpossible):
            return False
        return True

    async def disconnect(self) -> None:
        for master in self._masters:
            await _awaited(master.close() if self.blocking else master.aclose())


class PotteryAsyncio(Pottery):
    """Its asyncio twin."""

    blocking = False

    def _client(self, url: str) -> Any:
        import redis.asyncio

        return redis.asyncio.Redis.from_url(
            url, socket_timeout=self.node_timeout, socket_connect_timeout=self.node_timeout
        )


class RedlockNg(Peer):
    """redlock-ng: one try is `acquire()` with no retry. Its `Lock.valid` stays true after the
    end, so validity is used."""

    pause = (0.1, 0.3)

    def connect(self, urls: Sequence[str]) -> None:
        config = self.library.RedlockConfig(
            masters=list(urls),
            socket_timeout=self.node_timeout,
            socket_connect_timeout=self.node_timeout,
        )
        kind = self.library.Redlock if self.blocking else self.library.AsyncRedlock
        self._real = kind(config, retry_count=0)

    async def attempt(self, key: str, left: float) -> Grant | None:
        lock = await _awaited(self._real.acquire(key, round(self.ttl * 1000)))
        return Grant(lock.value, lock.validity / 1000, lock) if lock is not None else None

    async def prolong(self, grant: Grant) -> tuple[float, float]:
        """It says yes or no, and nothing of validity: counted from before the call, with its
        drift taken off."""
        if not self.blocking:
            raise Missing("its asyncio class cannot extend a lock")
        began = true_now()
        if not self._real.extend(grant.lock, round(self.ttl * 1000)):
            raise Outage("it was not extended on a majority")
        return true_now(), began + self.ttl * 0.99 - 0.002

    async def give_back(self, grant: Grant) -> bool:
        await _awaited(self._real.release(grant.lock))
        return True

    async def disconnect(self) -> None:
        for instance in self._real.client.instances:
            await _awaited(instance.close() if self.blocking else instance.aclose())


class RedlockNgAsyncio(RedlockNg):
    """Its asyncio twin."""

    blocking = False


async def _awaited(value: Any) -> Any:
    return await value if isinstance(value, Awaitable) else value


def _by_api(blocking: type[Peer], asyncio_too: type[Peer]) -> Callable[[Task, Any], Locks]:
    return lambda task, library: (blocking if task.api == "blocking" else asyncio_too)(
        task, library
    )


LIBRARIES: dict[str, Callable[[Task, Any], Locks]] = {
    # Without an asyncio API, an application that has an event loop blocks it.
    "redlock-py": RedlockPy,
    "pottery": _by_api(Pottery, PotteryAsyncio),
    "redlock-ng": _by_api(RedlockNg, RedlockNgAsyncio),
}
"""How to make each one's coordinator from a task and its module."""
