"""The protocol of `benchmarks/worker.py` from the inside, for blocking and for asyncio libraries.

An adapter makes a library look like `Library` or `AsyncLibrary`, with as little of its own in
between as possible: what it does is timed with the library.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

__all__ = ["AsyncLibrary", "Library", "Unable", "serve"]

ADAPTERS = {
    "ours": ("ours", "Blocking"),
    "ours-asyncio": ("ours", "Tasks"),
    "ours-uvloop": ("ours", "TasksOnUvloop"),
    "minimal": ("minimal", "Minimal"),
    "minimal-mutex": ("minimal", "MinimalUnderMutex"),
    "gather": ("yardsticks", "Gather"),
    "redis-py-lock": ("python_peers", "RedisPyLock"),
    "python-redis-lock": ("python_peers", "PythonRedisLock"),
    "redlock-py": ("python_peers", "RedlockPy"),
    "redlock-py-tuned": ("python_peers", "RedlockPyTuned"),
    "pottery": ("python_peers", "Pottery"),
    "redlock-ng": ("python_peers", "RedlockNg"),
    "redlock-ng-tuned": ("python_peers", "RedlockNgTuned"),
    "redlock-ng-asyncio": ("python_peers", "RedlockNgTasks"),
    "aioredlock": ("python_peers", "Aioredlock"),
}
"""Adapter by name: its module beside this one, and its class. A peer's module imports its
library when it is opened."""

clock = time.perf_counter_ns
"""CLOCK_MONOTONIC: one clock for all processes of a machine."""


class Unable(Exception):
    """This contender cannot do what was asked."""


class Library:
    """A blocking library on one set of nodes."""

    packages: Sequence[str] = ()
    """The distributions whose versions belong to its figures."""

    def open(self, urls: list[str], ttl: float) -> None:
        """Make the client."""
        raise NotImplementedError

    def take(self, resource: str) -> Any:
        """One try; what `free` needs, or None."""
        raise NotImplementedError

    def wait_for(self, resource: str, seconds: float) -> Any:
        """Wait for the lock the way this library waits; what `free` needs, or None."""
        raise Unable("does not wait")

    def free(self, held: Any) -> None:
        """Release it."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the connections."""

    def counts(self) -> dict[str, int]:
        """What it counted while it contended: "tries", "split"; nothing if it cannot tell."""
        return {}

    def leases(self, count: int, seconds: float) -> dict[str, Any]:
        """Hold many leases that renew themselves."""
        raise Unable("has no renewal that could hold so many")


class AsyncLibrary:
    """The same for asyncio."""

    packages: Sequence[str] = ()

    def loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop] | None:
        """Another event loop than asyncio's own."""
        return None

    async def open(self, urls: list[str], ttl: float) -> None:
        """Make the client."""
        raise NotImplementedError

    async def take(self, resource: str) -> Any:
        """One try; what `free` needs, or None."""
        raise NotImplementedError

    async def wait_for(self, resource: str, seconds: float) -> Any:
        """Wait for the lock the way this library waits; what `free` needs, or None."""
        raise Unable("does not wait")

    async def free(self, held: Any) -> None:
        """Release it."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of the connections."""

    def counts(self) -> dict[str, int]:
        """What it counted while it contended."""
        return {}

    async def leases(self, count: int, seconds: float) -> dict[str, Any]:
        """Hold many leases that renew themselves."""
        raise Unable("has no renewal that could hold so many")


def serve(name: str) -> None:
    """Answer questions until stdin ends."""
    warnings.simplefilter("ignore")
    module, kind = ADAPTERS[name]
    library = getattr(importlib.import_module(f"benchmarks.contenders.{module}"), kind)()
    if isinstance(library, AsyncLibrary):
        with asyncio.Runner(loop_factory=library.loop_factory()) as runner:
            _answer_all(_AsyncServer(library, runner))
    else:
        _answer_all(_Server(library))


def _answer_all(server: Any) -> None:
    for line in sys.stdin:
        question = json.loads(line)
        do = getattr(server, question.pop("do"), None)
        try:
            answer = do(**question) if do is not None else {"error": "does not know this question"}
        except Unable as error:
            answer = {"error": str(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    server.close()


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return {"version": ", ".join(found)}


def _measured(acquired: list[int], released: list[int], failed: int, cpu: int) -> dict[str, Any]:
    return {"acquire": acquired, "release": released, "failed": failed, "cpu": cpu}


class _Server:
    def __init__(self, library: Library) -> None:
        self._library = library
        self._opened = False

    def open(self, urls: list[str], ttl: float) -> dict[str, Any]:
        self._library.open(urls, ttl)
        self._opened = True
        return _versions(self._library.packages)

    def pairs(
        self, resource: str, count: int, warm: int = 0, seconds: float = 3600.0, fresh: bool = False
    ) -> dict[str, Any]:
        take, free = self._library.take, self._library.free
        for _ in range(warm):
            held = take(resource)
            if held is not None:
                free(held)
        acquired: list[int] = []
        released: list[int] = []
        failed = 0
        gc.collect()
        cpu = time.process_time_ns()
        give_up_at = clock() + int(seconds * 1e9)
        for number in range(count):
            name = f"{resource}-{number}" if fresh else resource
            began = clock()
            if began > give_up_at:
                break
            held = take(name)
            between = clock()
            if held is None:
                failed += 1
                continue
            free(held)
            released.append(clock() - between)
            acquired.append(between - began)
        return _measured(acquired, released, failed, time.process_time_ns() - cpu)

    def first(self, urls: list[str], resource: str) -> dict[str, Any]:
        library = type(self._library)()
        began = clock()
        library.open(urls, 10.0)
        held = library.take(resource)
        ready = clock() - began
        if held is not None:
            library.free(held)
        library.close()
        return {"ready": ready, "granted": held is not None}

    def users(
        self, users: int, resource: str, seconds: float, pairs: int = 1 << 30
    ) -> dict[str, Any]:
        crowd = _Crowd(users)
        begin = threading.Barrier(users + 1)

        def work(number: int) -> None:
            take, free, name = self._library.take, self._library.free, f"{resource}-{number}"
            begin.wait()
            for _ in range(pairs):
                began = clock()
                if began > crowd.give_up_at:
                    break
                held = take(name)
                crowd.note(number, clock() - began, held is not None)
                if held is not None:
                    free(held)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(users)]
        for thread in threads:
            thread.start()
        crowd.begin(seconds)
        begin.wait()
        for thread in threads:
            thread.join()
        return crowd.result()

    def contend(self, resource: str, seconds: float, section: float) -> dict[str, Any]:
        library = self._library
        turns: list[tuple[int, int, int]] = []
        cpu = time.process_time_ns()
        until = clock() + int(seconds * 1e9)
        while (asked := clock()) < until:
            held = library.wait_for(resource, (until - asked) / 1e9)
            if held is None:
                continue
            entered = clock()
            time.sleep(section)
            left = clock()
            library.free(held)
            turns.append((asked, entered, left))
        return {"turns": turns, "cpu": time.process_time_ns() - cpu, **library.counts()}

    def queue(self, users: int, resource: str, seconds: float, section: float) -> dict[str, Any]:
        wait_for, free = self._library.wait_for, self._library.free
        turns: list[tuple[int, int, int, int]] = []
        until = clock() + int(seconds * 1e9)

        def work(user: int) -> None:
            while (asked := clock()) < until:
                held = wait_for(resource, (until - asked) / 1e9)
                if held is None:
                    continue
                entered = clock()
                time.sleep(section)
                left = clock()
                free(held)
                turns.append((user, asked, entered, left))

        threads = [threading.Thread(target=work, args=(user,)) for user in range(users)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"turns": turns, **self._library.counts()}

    def leases(self, count: int, seconds: float) -> dict[str, Any]:
        return self._library.leases(count, seconds)

    def close(self) -> None:
        if self._opened:
            self._library.close()


class _AsyncServer:
    """Between two questions the loop stands still, as the process of any other contender does."""

    def __init__(self, library: AsyncLibrary, runner: asyncio.Runner) -> None:
        self._library = library
        self._runner = runner
        self._opened = False

    def open(self, urls: list[str], ttl: float) -> dict[str, Any]:
        self._runner.run(self._library.open(urls, ttl))
        self._opened = True
        return _versions(self._library.packages)

    def pairs(self, **details: Any) -> dict[str, Any]:
        return self._runner.run(self._pairs(**details))

    async def _pairs(
        self, resource: str, count: int, warm: int = 0, seconds: float = 3600.0, fresh: bool = False
    ) -> dict[str, Any]:
        take, free = self._library.take, self._library.free
        for _ in range(warm):
            held = await take(resource)
            if held is not None:
                await free(held)
        acquired: list[int] = []
        released: list[int] = []
        failed = 0
        gc.collect()
        cpu = time.process_time_ns()
        give_up_at = clock() + int(seconds * 1e9)
        for number in range(count):
            name = f"{resource}-{number}" if fresh else resource
            began = clock()
            if began > give_up_at:
                break
            held = await take(name)
            between = clock()
            if held is None:
                failed += 1
                continue
            await free(held)
            released.append(clock() - between)
            acquired.append(between - began)
        return _measured(acquired, released, failed, time.process_time_ns() - cpu)

    def first(self, urls: list[str], resource: str) -> dict[str, Any]:
        return self._runner.run(self._first(urls, resource))

    async def _first(self, urls: list[str], resource: str) -> dict[str, Any]:
        library = type(self._library)()
        began = clock()
        await library.open(urls, 10.0)
        held = await library.take(resource)
        ready = clock() - began
        if held is not None:
            await library.free(held)
        await library.close()
        return {"ready": ready, "granted": held is not None}

    def users(self, **details: Any) -> dict[str, Any]:
        return self._runner.run(self._users(**details))

    async def _users(
        self, users: int, resource: str, seconds: float, pairs: int = 1 << 30
    ) -> dict[str, Any]:
        crowd = _Crowd(users)
        take, free = self._library.take, self._library.free

        async def work(number: int) -> None:
            name = f"{resource}-{number}"
            for _ in range(pairs):
                began = clock()
                if began > crowd.give_up_at:
                    break
                held = await take(name)
                crowd.note(number, clock() - began, held is not None)
                if held is not None:
                    await free(held)

        crowd.begin(seconds)
        async with asyncio.TaskGroup() as group:
            for number in range(users):
                group.create_task(work(number))
        return crowd.result()

    def contend(self, **details: Any) -> dict[str, Any]:
        return self._runner.run(self._contend(**details))

    async def _contend(self, resource: str, seconds: float, section: float) -> dict[str, Any]:
        library = self._library
        turns: list[tuple[int, int, int]] = []
        cpu = time.process_time_ns()
        until = clock() + int(seconds * 1e9)
        while (asked := clock()) < until:
            held = await library.wait_for(resource, (until - asked) / 1e9)
            if held is None:
                continue
            entered = clock()
            await asyncio.sleep(section)
            left = clock()
            await library.free(held)
            turns.append((asked, entered, left))
        return {"turns": turns, "cpu": time.process_time_ns() - cpu, **library.counts()}

    def queue(self, **details: Any) -> dict[str, Any]:
        return self._runner.run(self._queue(**details))

    async def _queue(
        self, users: int, resource: str, seconds: float, section: float
    ) -> dict[str, Any]:
        wait_for, free = self._library.wait_for, self._library.free
        turns: list[tuple[int, int, int, int]] = []
        until = clock() + int(seconds * 1e9)

        async def work(user: int) -> None:
            while (asked := clock()) < until:
                held = await wait_for(resource, (until - asked) / 1e9)
                if held is None:
                    continue
                entered = clock()
                await asyncio.sleep(section)
                left = clock()
                await free(held)
                turns.append((user, asked, entered, left))

        async with asyncio.TaskGroup() as group:
            for user in range(users):
                group.create_task(work(user))
        return {"turns": turns, **self._library.counts()}

    def leases(self, count: int, seconds: float) -> dict[str, Any]:
        return self._runner.run(self._library.leases(count, seconds))

    def close(self) -> None:
        if self._opened:
            self._runner.run(self._library.close())


class _Crowd:
    """What many users of one process had."""

    def __init__(self, users: int) -> None:
        self.give_up_at = 0
        self._pairs = [0] * users
        self._waits: list[int] = []
        self._failed = 0
        self._began = self._cpu = 0

    def begin(self, seconds: float) -> None:
        gc.collect()
        self._cpu = time.process_time_ns()
        self._began = clock()
        self.give_up_at = self._began + int(seconds * 1e9)

    def note(self, user: int, wait: int, granted: bool) -> None:
        self._waits.append(wait)
        if granted:
            self._pairs[user] += 1
        else:
            self._failed += 1

    def result(self) -> dict[str, Any]:
        return {
            "took": clock() - self._began,
            "cpu": time.process_time_ns() - self._cpu,
            "acquire": self._waits,
            "failed": self._failed,
            "users": self._pairs,
        }
