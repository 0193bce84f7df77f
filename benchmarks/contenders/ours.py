"""This library, used as its README says."""

from __future__ import annotations

import asyncio
import gc
import resource as usage
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import redlock
import redlock.asyncio
from benchmarks.contenders.harness import AsyncLibrary, Library
from redlock.core.events import Event, TryFailed, TryStarted

__all__ = ["Blocking", "Tasks", "TasksOnUvloop"]

_PACKAGES = ("redlock-quorum", "redis", "hiredis")
_LEASE_TTL = 30.0


class _Tries:
    """Counts the tries of a contention, from the events that everybody can have."""

    def __init__(self) -> None:
        self.tries = self.split = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, TryStarted):
            self.tries += event.round == 1
        elif isinstance(event, TryFailed):
            self.split += not event.votes.startswith("0 ")

    def counts(self) -> dict[str, int]:
        """What was counted since this was last asked."""
        counted = {"tries": self.tries, "split": self.split}
        self.tries = self.split = 0
        return counted


class Blocking(Library):
    """`redlock.Redlock`."""

    packages: Sequence[str] = _PACKAGES

    def open(self, urls: list[str], ttl: float) -> None:
        self._urls, self._ttl = urls, ttl
        self._locks = redlock.Redlock(urls, ttl=ttl)
        self._waiting: redlock.Redlock | None = None
        self._tries = _Tries()

    def take(self, resource: str) -> redlock.Lease | None:
        return self._locks.lock(resource).acquire(blocking=False)

    def wait_for(self, resource: str, seconds: float) -> redlock.Lease | None:
        # With an observer, which costs a little: not where only speed is measured.
        if self._waiting is None:
            self._waiting = redlock.Redlock(self._urls, ttl=self._ttl, on_event=self._tries)
        try:
            return self._waiting.lock(resource).acquire(timeout=seconds)
        except redlock.QuorumUnavailable:
            # The last moment of the measurement was too short for an answer.
            return None

    def free(self, held: redlock.Lease) -> None:
        held.release()

    def close(self) -> None:
        self._locks.close()
        if self._waiting is not None:
            self._waiting.close()

    def counts(self) -> dict[str, int]:
        return self._tries.counts()

    def leases(self, count: int, seconds: float) -> dict[str, Any]:
        before = _memory()
        held = [
            self._locks.lock(f"lease-{number}", ttl=_LEASE_TTL, auto_extend=True).acquire()
            for number in range(count)
        ]
        memory = _memory() - before
        cpu, began = time.process_time_ns(), time.monotonic()
        time.sleep(seconds)
        cpu, took = time.process_time_ns() - cpu, time.monotonic() - began
        lost = sum(lease is None or not lease.is_held() for lease in held)
        for lease in held:
            if lease is not None:
                lease.release()
        return {
            "cpu": cpu,
            "took": took,
            "lost": lost,
            "memory": memory,
            "count": count,
            "ttl": _LEASE_TTL,
        }


class Tasks(AsyncLibrary):
    """`redlock.asyncio.Redlock`."""

    packages: Sequence[str] = _PACKAGES

    async def open(self, urls: list[str], ttl: float) -> None:
        self._urls, self._ttl = urls, ttl
        self._locks = redlock.asyncio.Redlock(urls, ttl=ttl)
        self._waiting: redlock.asyncio.Redlock | None = None
        self._tries = _Tries()

    async def take(self, resource: str) -> redlock.asyncio.Lease | None:
        return await self._locks.lock(resource).acquire(blocking=False)

    async def wait_for(self, resource: str, seconds: float) -> redlock.asyncio.Lease | None:
        if self._waiting is None:
            self._waiting = redlock.asyncio.Redlock(self._urls, ttl=self._ttl, on_event=self._tries)
        try:
            return await self._waiting.lock(resource).acquire(timeout=seconds)
        except redlock.QuorumUnavailable:
            return None

    async def free(self, held: redlock.asyncio.Lease) -> None:
        await held.release()

    async def close(self) -> None:
        await self._locks.close()
        if self._waiting is not None:
            await self._waiting.close()

    def counts(self) -> dict[str, int]:
        return self._tries.counts()

    async def leases(self, count: int, seconds: float) -> dict[str, Any]:
        before = _memory()
        held: list[redlock.asyncio.Lease | None] = []
        for start in range(0, count, 200):
            numbers = range(start, min(start + 200, count))
            locks = [
                self._locks.lock(f"lease-{number}", ttl=_LEASE_TTL, auto_extend=True)
                for number in numbers
            ]
            held += await asyncio.gather(*[lock.acquire() for lock in locks])
        memory = _memory() - before
        cpu, began = time.process_time_ns(), time.monotonic()
        await asyncio.sleep(seconds)
        cpu, took = time.process_time_ns() - cpu, time.monotonic() - began
        lost = sum(lease is None or not lease.is_held() for lease in held)
        await asyncio.gather(*[lease.release() for lease in held if lease is not None])
        return {
            "cpu": cpu,
            "took": took,
            "lost": lost,
            "memory": memory,
            "count": count,
            "ttl": _LEASE_TTL,
        }


class TasksOnUvloop(Tasks):
    """The same on uvloop."""

    packages = (*_PACKAGES, "uvloop")

    def loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop]:
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
        return factory


def _memory() -> int:
    """Bytes of this process that are in memory now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * usage.getpagesize()
