"""One process that runs out of threads, of descriptors or of nodes, again and again: its
coordinator must outlive all of it.

    python -m tests.servers.exhausted blocking|asyncio EPISODES SEED

It has servers of its own, and limits of its own that the kernel enforces
(`chaos/live/shortages.py`). It prints one line of JSON; `tests/servers/test_exhaustion.py` judges
it.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import redis

import redlock
import redlock.asyncio
from chaos.live.shortages import descriptors, short_of
from redlock.embedded import Nodes

PATIENCE = 20.0
TTL = 1.5
NODE_TIMEOUT = 0.15
CAUSES = (
    "threads",
    "descriptors",
    "nodes",
    "threads nodes",
    "descriptors nodes",
    "threads descriptors nodes",
)


class Raw:
    """What came out that is no error of ours."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.reasons: dict[str, int] = {}

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        try:
            yield
        except redlock.RedlockError as error:
            for word in (
                "start new thread",
                "Too many open files",
                "refused the connection",
                "within",
                "answer",
            ):
                # Some kernels' resolvers call a shortage of descriptors so.
                told = str(error).replace("Device or resource busy", "Too many open files")
                if word in told:
                    self.reasons[word] = self.reasons.get(word, 0) + 1
        except Exception as error:
            self.errors.append(f"{type(error).__name__}: {error}")


class Logged(logging.Handler):
    """Warnings and worse of ours that speak of an exception."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(
            f"{record.getMessage()}: {record.exc_info[1]!r}"
            if record.exc_info
            else record.getMessage()
        )


async def settle(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


async def pause(blocking: bool, seconds: float) -> None:
    if blocking:
        time.sleep(seconds)  # noqa: ASYNC251
    else:
        await asyncio.sleep(seconds)


class Play:
    """The coordinator and the leases it holds through the episodes."""

    def __init__(self, api: str, seed: int, nodes: Nodes) -> None:
        self.blocking = api == "blocking"
        self.nodes = nodes
        self.dice = random.Random(seed)
        module: Any = redlock if self.blocking else redlock.asyncio
        # asyncio by name: that takes a thread, and a file, for each dial.
        urls = (
            nodes.urls
            if self.blocking
            else [url.replace("127.0.0.1", "localhost") for url in nodes.urls]
        )
        self.locks = module.Redlock(urls, ttl=TTL, node_timeout=NODE_TIMEOUT)
        self.raw = Raw()
        self.admins = [node.client(retry=None) for node in nodes]
        self.kept: list[tuple[Any, list[Any]]] = []
        self.back: list[float] = []
        self.released: list[str] = []

    async def keep(self, number: int) -> None:
        """One more lease that is renewed, and watched, whatever comes."""
        told: list[Any] = []
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(redlock.RedlockError):
                lease = await settle(
                    self.locks.lock(
                        f"kept-{number}", auto_extend=True, on_lost=told.append
                    ).acquire(timeout=PATIENCE)
                )
                assert not lease.lost.is_set()
                self.kept.append((lease, told))
                return
            await pause(self.blocking, 0.05)
        raise AssertionError("no lease to keep")

    async def pair(self, name: str) -> bool:
        """Whether a lock can be had and given back."""
        with self.raw.watching():
            lease = await settle(self.locks.lock(name, ttl=10.0).acquire(blocking=False))
            if lease is not None:
                self.released.append(name)
                return bool(await settle(lease.release()))
        return False

    def cut(self, nodes: Iterable[int]) -> None:
        """End the coordinator's connections to *nodes*, so that something must be dialled."""
        for index in nodes:
            with contextlib.suppress(redis.RedisError):
                self.admins[index].client_kill_filter(_type="normal", skipme=True)

    async def episode(self, number: int) -> None:
        # Each in turn, and dead nodes alone are two of three: so every cause is sure to be the
        # reason of some failure.
        cause = CAUSES[number % len(CAUSES)].split()
        with contextlib.ExitStack() as stack:
            many = 2 if cause == ["nodes"] else self.dice.choice((1, 2))
            down = self.dice.sample(range(len(self.nodes)), many) if "nodes" in cause else []
            stops = self.dice.random() < 0.5
            for index in down:
                if stops:
                    self.nodes[index].pause()
            if stops and down:
                # Releases that nobody answered, while there are threads.
                await self.pair(f"unanswered-{number}")
            short = stack.enter_context(short_of(*[each for each in cause if each != "nodes"]))
            self.cut(
                [
                    index
                    for index in range(len(self.nodes))
                    if index not in down and self.dice.random() < 0.7
                ]
            )
            for index in down:
                self.nodes[index].kill()
            for _ in range(self.dice.randint(2, 4)):
                if cause == ["descriptors"]:
                    self.cut(range(len(self.nodes)))
                    # What was cut gives its descriptors back, and they are taken next.
                    await pause(self.blocking, 0.02)
                if "descriptors" in cause:
                    short.of_descriptors()
                await self.pair(f"during-{number}")
                if self.dice.random() < 0.3:
                    with self.raw.watching():
                        told = self.locks.lock(f"during-kept-{number}", auto_extend=True)
                        lease = await settle(told.acquire(blocking=False))
                        if lease is not None:
                            await settle(lease.release())
                await pause(self.blocking, self.dice.random() * 0.1)
            if down and len(down) == 2 and self.dice.random() < 0.5:
                await pause(self.blocking, TTL)
        for index in down:
            self.nodes[index].start()
            with contextlib.suppress(redis.RedisError):
                self.admins[index].close()
        began = time.monotonic()
        while not await self.pair(f"after-{number}-{time.monotonic()}"):
            if time.monotonic() - began > PATIENCE:
                raise AssertionError(f"not back after {cause}, {down}")
            await pause(self.blocking, 0.01)
        self.back.append(time.monotonic() - began)
        await self.look(number)

    async def look(self, number: int) -> None:
        """Every lease that was kept is held, or its holder was told."""
        for lease, told in list(self.kept):
            await self.until(
                lambda lease=lease: lease.is_held() or lease.lost.is_set(), "held, or lost"
            )
            if lease.is_held():
                first = lease.valid_until
                await self.until(
                    lambda lease=lease, first=first: (
                        lease.valid_until > first or lease.lost.is_set()
                    ),
                    "renewed",
                )
            if lease.lost.is_set():
                await self.until(lambda told=told: told, "on_lost")
                self.kept.remove((lease, told))
                await settle(lease.release())
        while len(self.kept) < 2:
            await self.keep(1000 * number + len(self.kept))

    async def until(self, holds: Callable[..., object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(f"never came: {what}")
            await pause(self.blocking, 0.01)

    def locked(self) -> list[str]:
        """What is locked on any node."""
        found = []
        for node in self.nodes:
            with node.client() as client:
                found += [
                    key.decode()
                    for key in client.scan_iter()
                    if not key.endswith(b":fence") and key != b"redlock:node"
                ]
        return found


async def run(api: str, episodes: int, seed: int, nodes: Nodes) -> dict[str, Any]:
    before = descriptors(), sorted(thread.name for thread in threading.enumerate())
    logged = Logged()
    logging.getLogger("redlock").addHandler(logged)
    play = Play(api, seed, nodes)
    for admin in play.admins:
        admin.ping()
    await play.pair("first")
    await play.look(0)
    for number in range(1, episodes + 1):
        await play.episode(number)
    for lease, _ in play.kept:
        await settle(lease.release())
    await play.until(lambda: not play.locked(), f"the release of everything ({play.locked()})")
    await settle(play.locks.close())
    for admin in play.admins:
        admin.close()
    with contextlib.suppress(AssertionError):
        await play.until(
            lambda: (
                (descriptors(), sorted(thread.name for thread in threading.enumerate())) == before
            ),
            "descriptors and threads",
        )
    return {
        "back": play.back,
        "raw": play.raw.errors,
        "reasons": play.raw.reasons,
        "logged": logged.lines,
        "before": before,
        "after": (descriptors(), sorted(thread.name for thread in threading.enumerate())),
    }


def main(api: str, episodes: int, seed: int) -> None:
    with Nodes(3, durable=True) as nodes:
        body = run(api, episodes, seed, nodes)
        if api == "asyncio":
            result = asyncio.run(body)
        else:
            try:
                body.send(None)
                raise AssertionError("a body for the blocking API waited")
            except StopIteration as stop:
                result = stop.value
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
