"""A process of many who wait, which is to be killed: a coordinator for each, on its connections of
its own, so that its death is that of as many clients.

It reads one line of JSON: `urls`, `locks` (names), `count`, `ttl`. It says "waiting" once all of
them have been told that somebody else holds; then it waits for its end.
"""

from __future__ import annotations

import asyncio
import json
import sys

from redlock.asyncio import Redlock
from redlock.core.events import Event, TryFailed

__all__ = ["main"]


async def _wait(urls: list[str], locks: list[str], count: int, ttl: float) -> None:
    waiting: set[int] = set()
    everybody = asyncio.Event()

    def hear(number: int, event: Event) -> None:
        if isinstance(event, TryFailed):
            waiting.add(number)
            if len(waiting) == count:
                everybody.set()

    async def one(number: int) -> None:
        def on_event(event: Event) -> None:
            hear(number, event)

        async with Redlock(urls, ttl=ttl, on_event=on_event) as coordinator:
            await coordinator.lock(locks[number % len(locks)]).acquire()

    tasks = [asyncio.create_task(one(number)) for number in range(count)]
    await everybody.wait()
    sys.stdout.write("waiting\n")
    sys.stdout.flush()
    await asyncio.gather(*tasks)


def main() -> None:
    """Wait until killed."""
    told = json.loads(sys.stdin.readline())
    asyncio.run(_wait(told["urls"], told["locks"], told["count"], told["ttl"]))


if __name__ == "__main__":
    main()
