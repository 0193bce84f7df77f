"""The other Python libraries, each as its documentation says. A library is imported when its client
is made.

"One try" is what each offers for it; where a library has only a number of tries, that number is
one. Waiting is the library's own, with its own defaults, except in the adapters called tuned.
"""

from __future__ import annotations

import importlib
import time
from typing import Any, ClassVar
from urllib.parse import urlsplit

from benchmarks.contenders.harness import AsyncLibrary, Library

__all__ = [
    "Aioredlock",
    "Pottery",
    "PythonRedisLock",
    "RedisPyLock",
    "RedlockNg",
    "RedlockNgTasks",
    "RedlockNgTuned",
    "RedlockPy",
    "RedlockPyTuned",
]


class RedisPyLock(Library):
    """redis-py's own Lock, on the first node alone."""

    packages = ("redis", "hiredis")

    def open(self, urls: list[str], ttl: float) -> None:
        self._ttl = ttl
        self._client = importlib.import_module("redis").Redis.from_url(urls[0])

    def take(self, resource: str) -> Any:
        lock = self._client.lock(resource, timeout=self._ttl)
        return lock if lock.acquire(blocking=False) else None

    def wait_for(self, resource: str, seconds: float) -> Any:
        lock = self._client.lock(resource, timeout=self._ttl)
        return lock if lock.acquire(blocking_timeout=seconds) else None

    def free(self, held: Any) -> None:
        held.release()

    def close(self) -> None:
        self._client.close()


class PythonRedisLock(Library):
    """python-redis-lock, on the first node alone."""

    packages = ("python-redis-lock", "redis", "hiredis")

    def open(self, urls: list[str], ttl: float) -> None:
        self._ttl = round(ttl)
        self._client = importlib.import_module("redis").Redis.from_url(urls[0])
        self._lock = importlib.import_module("redis_lock").Lock

    def take(self, resource: str) -> Any:
        lock = self._lock(self._client, resource, expire=self._ttl)
        return lock if lock.acquire(blocking=False) else None

    def wait_for(self, resource: str, seconds: float) -> Any:
        lock = self._lock(self._client, resource, expire=self._ttl)
        return lock if lock.acquire(timeout=max(1, int(seconds))) else None

    def free(self, held: Any) -> None:
        held.release()

    def close(self) -> None:
        self._client.close()


class RedlockPy(Library):
    """redlock-py."""

    packages = ("redlock-py", "redis", "hiredis")
    waiting: ClassVar[dict[str, Any]] = {}

    def open(self, urls: list[str], ttl: float) -> None:
        self._ttl_ms = round(ttl * 1000)
        factory = importlib.import_module("redlock").Redlock
        self._once = factory(list(urls), retry_count=1, retry_delay=0.001)
        self._waits = factory(list(urls), **self.waiting)

    def take(self, resource: str) -> Any:
        return self._once.lock(resource, self._ttl_ms) or None

    def wait_for(self, resource: str, seconds: float) -> Any:
        return self._waits.lock(resource, self._ttl_ms) or None

    def free(self, held: Any) -> None:
        self._once.unlock(held)


class RedlockPyTuned(RedlockPy):
    """The same, trying again after 5 ms instead of 200 ms."""

    waiting: ClassVar[dict[str, Any]] = {"retry_count": 50, "retry_delay": 0.005}


class Pottery(Library):
    """pottery's Redlock."""

    packages = ("pottery", "redis", "hiredis")

    def open(self, urls: list[str], ttl: float) -> None:
        self._ttl = ttl
        self._masters = {importlib.import_module("redis").Redis.from_url(url) for url in urls}
        module = importlib.import_module("pottery")
        self._lock, self._too_late = module.Redlock, module.ReleaseUnlockedLock

    def take(self, resource: str) -> Any:
        lock = self._lock(key=resource, masters=self._masters, auto_release_time=self._ttl)
        return lock if lock.acquire(blocking=False) else None

    def wait_for(self, resource: str, seconds: float) -> Any:
        lock = self._lock(key=resource, masters=self._masters, auto_release_time=self._ttl)
        return lock if lock.acquire(timeout=seconds) else None

    def free(self, held: Any) -> None:
        try:
            held.release()
        except self._too_late:
            # A majority of the releases found nothing: they had overtaken their acquires.
            return


class RedlockNg(Library):
    """redlock-ng's Redlock."""

    packages = ("redlock-ng", "redis", "hiredis")
    waiting: ClassVar[dict[str, Any]] = {}

    def open(self, urls: list[str], ttl: float) -> None:
        self._ttl_ms = round(ttl * 1000)
        factory = importlib.import_module("redlock").Redlock
        self._once = factory(list(urls), retry_count=0)
        self._waits = factory(list(urls), **self.waiting)

    def take(self, resource: str) -> Any:
        return self._once.acquire(resource, self._ttl_ms)

    def wait_for(self, resource: str, seconds: float) -> Any:
        return self._waits.acquire(resource, self._ttl_ms)

    def free(self, held: Any) -> None:
        self._once.release(held)


class RedlockNgTuned(RedlockNg):
    """The same, trying again after 1 to 5 ms instead of 100 to 300 ms."""

    waiting: ClassVar[dict[str, Any]] = {
        "retry_count": 100,
        "retry_delay_min": 0.001,
        "retry_delay_max": 0.005,
    }


class RedlockNgTasks(AsyncLibrary):
    """redlock-ng's AsyncRedlock."""

    packages = ("redlock-ng", "redis", "hiredis")

    async def open(self, urls: list[str], ttl: float) -> None:
        self._ttl_ms = round(ttl * 1000)
        self._locks = importlib.import_module("redlock").AsyncRedlock(list(urls), retry_count=0)

    async def take(self, resource: str) -> Any:
        return await self._locks.acquire(resource, self._ttl_ms)

    async def free(self, held: Any) -> None:
        await self._locks.release(held)

    async def close(self) -> None:
        for client in self._locks.client.instances:
            await client.aclose()


class Aioredlock(AsyncLibrary):
    """aioredlock."""

    packages = ("aioredlock", "aioredis", "hiredis")

    async def open(self, urls: list[str], ttl: float) -> None:
        self._ttl = ttl
        module = importlib.import_module("aioredlock")
        servers = [{"host": parts.hostname, "port": parts.port} for parts in map(urlsplit, urls)]
        self._once = module.Aioredlock(servers, retry_count=1)
        self._waits = module.Aioredlock(servers)
        self._refused = module.LockError

    async def take(self, resource: str) -> Any:
        try:
            return await self._once.lock(resource, lock_timeout=self._ttl)
        except self._refused:
            return None

    async def wait_for(self, resource: str, seconds: float) -> Any:
        give_up_at = time.monotonic() + seconds
        while time.monotonic() < give_up_at:
            try:
                return await self._waits.lock(resource, lock_timeout=self._ttl)
            except self._refused:
                continue
        return None

    async def free(self, held: Any) -> None:
        try:
            await self._once.unlock(held)
        except self._refused:  # It had expired, or a node did not confirm.
            return

    async def close(self) -> None:
        await self._once.destroy()
        await self._waits.destroy()
