"""What one writes with redis-py alone: a command per node, gathered. The yardstick for many
tasks at once."""

from __future__ import annotations

import asyncio
import os

import redis.asyncio

from benchmarks.contenders.harness import AsyncLibrary

__all__ = ["Gather"]

_RELEASE = (
    "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end"
)


class Gather(AsyncLibrary):
    """SET NX on every node with `redis.asyncio`, gathered, and a compare-and-delete script to
    release."""

    packages = ("redis", "hiredis")

    async def open(self, urls: list[str], ttl: float) -> None:
        self._ttl_ms = round(ttl * 1000)
        self._clients = [redis.asyncio.Redis.from_url(url) for url in urls]
        self._scripts = [client.register_script(_RELEASE) for client in self._clients]
        self._needed = len(urls) // 2 + 1

    async def take(self, resource: str) -> tuple[str, str] | None:
        owner = os.urandom(16).hex()
        answers = await asyncio.gather(
            *[client.set(resource, owner, nx=True, px=self._ttl_ms) for client in self._clients]
        )
        return (resource, owner) if sum(map(bool, answers)) >= self._needed else None

    async def free(self, held: tuple[str, str]) -> None:
        key, owner = held
        await asyncio.gather(*[script(keys=[key], args=[owner]) for script in self._scripts])

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()
